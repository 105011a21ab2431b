"""Pluggable components: processes behind Unix sockets, found by name and asked by reflection."""
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

from grpc_client import DESCRIPTORS, Client, needs_grpc
from harness import WAIT_S, Case, Reply, component, tag, wait_for

SUBSCRIPTIONS = [{"pubsubname": "ps", "topic": "t", "route": "/t", "metadata": {"m": "n"}}]
HERE = os.path.dirname(os.path.abspath(__file__))


class Plugged:
    """pluggable.py in a process; what it keeps outlives it."""

    def __init__(self, case, name, *args, folder=None, file=None):
        self.case, self.name, self.args = case, name, list(args)
        self.socket = os.path.join(folder or case.sockets, file or name + ".sock")
        self.db, self.log = case.path(name + ".db"), case.path(name + ".log")
        self.process = None

    def start(self):
        self.process = subprocess.Popen(
            [sys.executable, os.path.join(HERE, "pluggable.py"), self.socket, DESCRIPTORS, "--db", self.db, "--log", self.log,
             *self.args], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)))  # where grpc_client has found grpcio
        self.case.started.append(self.process)
        assert self.process.stdout.readline() == "ready\n"
        return self

    def kill(self):
        self.process.kill()
        self.process.wait()

    def signal(self, number):
        self.process.send_signal(number)

    def calls(self, method=None):
        if not os.path.exists(self.log):
            return []
        with open(self.log) as file:
            lines = [json.loads(line) for line in file.read().splitlines(True) if line.endswith("\n")]
        return [line for line in lines if method in (None, line["method"])]


@needs_grpc
class Pluggable(Case):
    def setUp(self):
        super().setUp()
        self.sockets = self.path("sockets")
        os.mkdir(self.sockets)

    def plugged(self, name, *args, **more):
        return Plugged(self, name, *args, **more).start()

    def with_sockets(self, *args, **more):
        more.setdefault("env", {})["DAPR_COMPONENTS_SOCKETS_FOLDER"] = self.sockets
        return self.sidecar(*args, **more)


class State(Pluggable):
    @tag("debug", "tsan")
    def test_items_etags_and_transactions(self):
        p = self.plugged("mem")
        a = self.with_sockets("app", resources={"st.yaml": component("st", "state.mem", {"who": "me", "keyPrefix": "none"})})
        self.assertEqual([c["properties"] for c in p.calls("Init")], [{"who": "me", "keyPrefix": "none"}])
        self.assertEqual(p.calls("Init")[0]["instance"], "st")
        self.assertEqual(a.call("GET", "/v1.0/state/st/a").status, 204)
        self.assertEqual(a.call_json("POST", "/v1.0/state/st", [{"key": "a", "value": {"b": 1}, "metadata": {"x": "y"}}]).status, 204)
        got = a.call("GET", "/v1.0/state/st/a?metadata.m=n&consistency=strong")
        self.assertEqual((got.status, got.json, got.header("etag")), (200, {"b": 1}, "1"))
        self.assertEqual(p.calls("Set")[0]["metadata"], {"x": "y"})
        asked = p.calls("Get")[-1]
        self.assertEqual((asked["metadata"], asked["consistency"], asked["key"]), ({"m": "n"}, 2, "a"))
        # etags
        mismatch = a.call_json("POST", "/v1.0/state/st", [{"key": "a", "value": 2, "etag": "7"}])
        self.assertEqual((mismatch.status, mismatch.json["errorCode"]), (409, "ERR_STATE_SAVE"))
        invalid = a.call_json("POST", "/v1.0/state/st", [{"key": "a", "value": 2, "etag": "x"}])
        self.assertEqual((invalid.status, invalid.json["errorCode"]), (400, "ERR_STATE_SAVE"))
        self.assertEqual(a.call_json("POST", "/v1.0/state/st", [{"key": "a", "value": 2, "etag": "1"}]).status, 204)
        self.assertEqual(a.call("DELETE", "/v1.0/state/st/a", [("If-Match", "1")]).status, 409)
        self.assertEqual(a.call("DELETE", "/v1.0/state/st/a", [("If-Match", "2")]).status, 204)
        # many
        self.assertEqual(a.call_json("POST", "/v1.0/state/st", [{"key": k, "value": k} for k in "abc"]).status, 204)
        bulk = a.call_json("POST", "/v1.0/state/st/bulk", {"keys": ["a", "b", "nothing", "error", "a"]})
        self.assertEqual([(i["key"], i.get("data"), i.get("etag"), i.get("error")) for i in bulk.json], [
            ("a", "a", "1", None), ("b", "b", "1", None), ("nothing", None, None, None),
            ("error", None, None, "this key is broken"), ("a", "a", "1", None)])
        self.assertEqual([c["method"] for c in p.calls()][-2:], ["BulkSet", "BulkGet"])
        # transactions
        done = a.call_json("POST", "/v1.0/state/st/transaction", {"operations": [
            {"operation": "upsert", "request": {"key": "d", "value": 4}}, {"operation": "delete", "request": {"key": "a"}}],
            "metadata": {"t": "1"}})
        self.assertEqual(done.status, 204)
        self.assertEqual(p.calls("Transact")[0]["kinds"], ["set", "delete"])
        self.assertEqual(p.calls("Transact")[0]["metadata"], {"t": "1"})
        self.assertEqual(a.call("GET", "/v1.0/state/st/d").json, 4)
        self.assertEqual(a.call("GET", "/v1.0/state/st/a").status, 204)
        self.assertIn("ETAG", next(c for c in a.call("GET", "/v1.0/metadata").json["components"] if c["name"] == "st")["capabilities"])

    def test_over_grpc(self):
        p = self.plugged("mem")
        a = self.with_sockets("app", resources={"st.yaml": component("st", "state.mem")})
        with Client(a.grpc) as client:
            def save(value, etag=None):
                item = {"key": "a", "value": value, **({"etag": {"value": etag}} if etag else {})}
                return client.call("Dapr/SaveState", {"store_name": "st", "states": [item]})
            self.assertEqual(save(b"\x00\xff").code, "OK")
            self.assertEqual(client.call("Dapr/GetState", {"store_name": "st", "key": "a"}).response,
                             {"data": b"\x00\xff", "etag": "1"})
            self.assertEqual(save(b"x", "7").code, "ABORTED")
            self.assertEqual(save(b"x", "no number").code, "INVALID_ARGUMENT")
            self.assertEqual(save(b"x", "1").code, "OK")
            late = client.call("Dapr/GetState", {"store_name": "st", "key": "hang"}, timeout_s=0.3)
            self.assertEqual(late.code, "DEADLINE_EXCEEDED")
            p.kill()
            down = client.call("Dapr/GetState", {"store_name": "st", "key": "a"})
            self.assertEqual(down.code, "INTERNAL")
            self.assertIn("component st", down.message)

    def test_a_store_without_bulk_methods_is_asked_one_by_one(self):
        p = self.plugged("mem", "--lacks", "BulkGet,BulkSet,TransactionalStateStore")
        a = self.with_sockets("app", resources={"st.yaml": component("st", "state.mem")})
        for _ in range(2):
            self.assertEqual(a.call_json("POST", "/v1.0/state/st", [{"key": str(k), "value": k} for k in range(200)]).status, 204)
            bulk = a.call_json("POST", "/v1.0/state/st/bulk", {"keys": [str(k) for k in range(200)]})
            self.assertEqual([i["data"] for i in bulk.json], list(range(200)))
        self.assertEqual(len(p.calls("Set")), 400)
        capabilities = next(c for c in a.call("GET", "/v1.0/metadata").json["components"] if c["name"] == "st")["capabilities"]
        self.assertNotIn("TRANSACTIONAL", capabilities)

    def test_what_the_component_says_wrong_is_told(self):
        self.plugged("mem")
        a = self.with_sockets("app", resources={"st.yaml": component("st", "state.mem")})
        said = a.call("GET", "/v1.0/state/st/error")
        self.assertEqual(said.status, 500)
        self.assertIn("rpc error: code = Internal desc = this key is broken", said.json["message"])
        self.assertEqual(a.call("GET", "/v1.0/state/st/invalid").status, 500)
        garbage = a.call("GET", "/v1.0/state/st/garbage")
        self.assertEqual(garbage.status, 500)
        self.assertIn("component st: ", garbage.json["message"])
        big = a.call("GET", "/v1.0/state/st/big")
        self.assertEqual(big.status, 500)
        self.assertIn("larger than max", big.json["message"])
        nul = a.call("GET", "/v1.0/state/st/a%00b")
        self.assertGreaterEqual(nul.status, 400)
        self.assertEqual(a.call("GET", "/v1.0/state/st/a").status, 204)

    @tag("debug", "tsan")
    def test_a_killed_component_fails_calls_and_comes_back(self):
        p = self.plugged("mem")
        a = self.with_sockets("app", resources={"st.yaml": component("st", "state.mem", {"a": "b"})})
        self.assertEqual(a.call_json("POST", "/v1.0/state/st", [{"key": "a", "value": 1}]).status, 204)
        hanging = threading.Thread(target=lambda: outcomes.append(a.call("GET", "/v1.0/state/st/hang")))
        outcomes = []
        hanging.start()
        wait_for("the hanging call", lambda: [c for c in p.calls("Get") if c["key"].endswith("hang")])
        p.kill()
        hanging.join(WAIT_S)
        self.assertEqual(outcomes[0].status, 500)
        self.assertIn("component st", outcomes[0].json["message"])
        down = a.call("GET", "/v1.0/state/st/a")
        self.assertEqual(down.status, 500)
        self.assertIn("component st is not available", down.json["message"])
        self.assertTrue(os.path.exists(p.socket))  # stale
        p.start()
        wait_for("recovery", lambda: a.call("GET", "/v1.0/state/st/a").status == 200)
        first, second = p.calls("Init")
        self.assertEqual((first["properties"], second["properties"]), ({"a": "b"}, {"a": "b"}))
        self.assertNotEqual(first["pid"], second["pid"])
        at = [c["method"] for c in p.calls() if c["pid"] == second["pid"]]
        self.assertEqual(at[0], "Init")
        a.wait_log("pluggable component is gone")
        a.wait_log("pluggable component is back")

    @tag("debug", "tsan")
    def test_load_while_it_is_killed_again_and_again(self):
        """Every answer is right or an error, whatever the loop; nothing is said to a process that was not initialised."""
        p = self.plugged("mem")
        a = self.with_sockets("app", resources={"st.yaml": component("st", "state.mem")})
        self.assertEqual(a.call_json("POST", "/v1.0/state/st", [{"key": "a", "value": 1}]).status, 204)
        over, odd, good = threading.Event(), [], []

        def ask():
            while not over.is_set():
                answer = a.call("GET", "/v1.0/state/st/a")
                (good if answer.status == 200 and answer.json == 1 else odd).append(answer)

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(3):
            before = len(good)
            wait_for("answers", lambda: len(good) > before + 20)
            p.kill()
            p.start()
        before = len(good)
        wait_for("answers at last", lambda: len(good) > before + 20)
        over.set()
        for thread in threads:
            thread.join()
        self.assertEqual([o for o in odd if o.status != 500 or "component st" not in o.json["message"]], [])
        for pid in {c["pid"] for c in p.calls()}:
            self.assertEqual([c["method"] for c in p.calls() if c["pid"] == pid][0], "Init")

    def test_two_components_of_one_type(self):
        p = self.plugged("mem")
        a = self.with_sockets("app", resources={"a.yaml": component("a", "state.mem", {"n": "1"}),
                                                "b.yaml": component("b", "state.mem", {"n": "2"})})
        self.assertEqual(sorted((c["instance"], c["properties"]["n"]) for c in p.calls("Init")), [("a", "1"), ("b", "2")])
        for store in "ab":
            self.assertEqual(a.call_json("POST", "/v1.0/state/" + store, [{"key": "k", "value": store}]).status, 204)
        self.assertEqual([a.call("GET", "/v1.0/state/%s/k" % s).json for s in "ab"], ["a", "b"])

    def test_reflection_of_either_version(self):
        for version in ("v1", "v1alpha"):
            self.plugged(version, "--reflection", version)
            a = self.with_sockets("app", resources={"st.yaml": component("st", "state." + version)})
            self.assertEqual(a.call("GET", "/v1.0/state/st/a").status, 204)


class Start(Pluggable):
    def test_a_component_may_come_after_the_sidecar(self):
        p = Plugged(self, "late")
        resources = {"st.yaml": component("st", "state.late", extra="").replace("spec:\n", "spec:\n  initTimeout: 60s\n")}
        a = self.with_sockets("app", resources=resources, is_ready=False)
        a.wait_log("app")
        p.start()
        a.wait_ready()
        self.assertEqual(a.call("GET", "/v1.0/state/st/a").status, 204)

    def test_a_stale_socket_at_the_start(self):
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(os.path.join(self.sockets, "stale.sock"))
        p = Plugged(self, "stale")
        resources = {"st.yaml": component("st", "state.stale").replace("spec:\n", "spec:\n  initTimeout: 60s\n")}
        a = self.with_sockets("app", resources=resources, is_ready=False)
        a.wait_log("app")
        p.start()
        a.wait_ready()
        self.assertEqual(a.call("GET", "/v1.0/state/st/a").status, 204)

    def ends_with(self, text, type_="state.it", timeout="300ms", **more):
        resources = {"st.yaml": component("st", type_).replace("spec:\n", "spec:\n  initTimeout: %s\n" % timeout)}
        a = self.with_sockets("app", resources=resources, is_ready=False, **more)
        self.assertEqual(a.wait_exit(), 1, a.log())
        self.assertRegex(a.log(), text)

    def test_what_cannot_be_used_is_said(self):
        self.ends_with("component st .*init timeout exceeded after 300 ms: no socket named it in .*sockets")
        self.ends_with("couldn't find a component of type other.it", type_="other.it")
        self.plugged("it", "--serves", "secrets", "--init-fails", "this will not do")
        self.ends_with("component st .*it.sock does not serve dapr.proto.components.v1.StateStore", timeout="60s")
        self.ends_with("component st .*init: this will not do", type_="secretstores.it", timeout="60s")
        self.plugged("mute", "--reflection", "none")
        self.ends_with("component st .*mute.sock what it serves", type_="state.mute", timeout="60s")

    def test_a_component_that_hangs_holds_the_init_timeout(self):
        p = self.plugged("it")
        p.signal(signal.SIGSTOP)
        began = time.monotonic()
        self.ends_with("init timeout exceeded after 300 ms")
        self.assertLess(time.monotonic() - began, WAIT_S)
        p.signal(signal.SIGCONT)

    def test_something_else_behind_the_socket(self):
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(os.path.join(self.sockets, "it.sock"))
            listener.listen(8)

            def speak():
                while True:
                    try:
                        peer, _ = listener.accept()
                    except OSError:
                        return
                    peer.sendall(b"SSH-2.0-Whatever\r\n" * 50)
                    peer.close()
            threading.Thread(target=speak, daemon=True).start()
            self.ends_with("component st .*init timeout exceeded after 1000 ms: asking .*it.sock what it serves", timeout="1s")

    def test_one_socket_may_serve_several_kinds(self):
        self.plugged("all", "--serves", "state,pubsub,secrets")
        a = self.with_sockets("app", resources={"a.yaml": component("a", "state.all"), "b.yaml": component("b", "pubsub.all"),
                                                "c.yaml": component("c", "secretstores.all")})
        names = {c["name"]: c["type"] for c in a.call("GET", "/v1.0/metadata").json["components"]}
        self.assertEqual(names, {"a": "state.all", "b": "pubsub.all", "c": "secretstores.all"})

    def test_a_component_that_may_fail_is_left_out(self):
        resources = {"st.yaml": component("st", "state.it").replace("spec:\n", "spec:\n  ignoreErrors: true\n  initTimeout: 100ms\n"),
                     "other.yaml": component("other", "state.in-memory")}
        a = self.with_sockets("app", resources=resources)
        self.assertEqual(a.call("GET", "/v1.0/state/st/a").status, 400)


    def test_a_reload_opens_and_closes_components(self):
        p = self.plugged("mem")
        a = self.with_sockets("app", resources={"a.yaml": component("a", "state.mem")})
        a.write("b.yaml", component("b", "state.mem", {"n": "1"}))
        wait_for("the second", lambda: a.call("GET", "/v1.0/state/b/k").status == 204)
        a.write("b.yaml", component("b", "state.mem", {"n": "2"}))
        wait_for("the changed one", lambda: [c["properties"] for c in p.calls("Init")] == [{}, {"n": "1"}, {"n": "2"}])
        wait_for("its calls", lambda: a.call("GET", "/v1.0/state/b/k").status == 204)
        a.remove("a.yaml")
        wait_for("the end of the first", lambda: a.call("GET", "/v1.0/state/a/k").status == 400)
        self.assertEqual(a.call("GET", "/v1.0/state/b/k").status, 204)

    def test_a_sidecar_ends_in_time_beside_a_component_that_hangs(self):
        p = self.plugged("mem", "--serves", "state,pubsub")
        app = self.app(lambda request: Reply(200), subscriptions=SUBSCRIPTIONS)
        a = self.with_sockets("app", app, resources={"st.yaml": component("st", "state.mem"), "ps.yaml": component("ps", "pubsub.mem")})
        wait_for("subscription", lambda: p.calls("PullMessages"))
        outcomes = []

        def ask():
            try:
                outcomes.append(a.call("GET", "/v1.0/state/st/hang").status)
            except (OSError, EOFError) as error:
                outcomes.append(str(error))
        asking = threading.Thread(target=ask)
        asking.start()
        wait_for("the hanging call", lambda: p.calls("Get"))
        p.signal(signal.SIGSTOP)
        a.signal(signal.SIGTERM)
        a.wait_exit()
        asking.join()
        self.assertEqual(len(outcomes), 1)
        p.signal(signal.SIGCONT)


class Secrets(Pluggable):
    @tag("debug", "tsan")
    def test_get_and_bulk(self):
        p = self.plugged("vault", "--serves", "secrets", "--features", "MULTIPLE_KEY_VALUES_PER_SECRET")
        a = self.with_sockets("app", resources={"s.yaml": component("s", "secretstores.vault")})
        self.assertEqual(a.call("GET", "/v1.0/secrets/s/many?metadata.v=2").json, {"a": "x", "b": "y"})
        self.assertEqual(p.calls("GetSecret")[0]["metadata"], {"v": "2"})
        self.assertEqual(a.call("GET", "/v1.0/secrets/s/bulk").json, {"one": {"one": "1"}, "many": {"a": "x", "b": "y"}})
        missing = a.call("GET", "/v1.0/secrets/s/none")
        self.assertEqual(missing.status, 500)
        self.assertIn("no secret none", missing.json["message"])

    def test_another_component_takes_its_metadata_from_it(self):
        p = self.plugged("vault", "--serves", "secrets,state")
        st = component("st", "state.vault").replace("  metadata: []\n", "  metadata:\n  - name: password\n    secretKeyRef:\n"
                                                   "      name: many\n      key: b\nauth:\n  secretStore: s\n")
        self.with_sockets("app", resources={"s.yaml": component("s", "secretstores.vault"), "st.yaml": st})
        self.assertIn(("st", {"password": "y"}), [(c["instance"], c["properties"]) for c in p.calls("Init")])


class PubSub(Pluggable):
    def events(self, app):
        return [r.json["data"] for r in app.seen("/t")]

    @tag("debug", "tsan")
    def test_delivery_and_redelivery(self):
        p = self.plugged("bus", "--serves", "pubsub")
        refusals = {"2": 2}

        def handle(request):
            data = str(request.json["data"])
            if refusals.get(data, 0) > 0:
                refusals[data] -= 1
                return Reply(500)
            return Reply(200)
        app = self.app(handle, subscriptions=SUBSCRIPTIONS)
        a = self.with_sockets("app", app, resources={"ps.yaml": component("ps", "pubsub.bus")})
        for n in range(5):
            self.assertEqual(a.publish("ps", "t", n).status, 204)
        wait_for("all events", lambda: sorted(self.events(app)) == [0, 1, 2, 2, 2, 3, 4])
        wait_for("acknowledgements", lambda: len([c for c in p.calls("Ack") if not c["error"]]) == 5)
        self.assertEqual(len([c for c in p.calls("Ack") if c["error"]]), 2)
        self.assertEqual(p.calls("Init")[0]["properties"], {"consumerID": "app"})
        self.assertEqual(p.calls("PullMessages")[0]["metadata"], {"m": "n"})
        published = p.calls("Publish")[0]
        self.assertEqual((published["topic"], published["pubsub"]), ("t", "ps"))

    @tag("debug", "tsan")
    def test_killed_in_the_middle_loses_nothing(self):
        p = self.plugged("bus", "--serves", "pubsub")
        held, hold = threading.Event(), threading.Event()

        def handle(request):
            if request.json["data"] == 0 and not hold.is_set():
                held.set()
                hold.wait(WAIT_S)
            return Reply(200)
        app = self.app(handle, subscriptions=SUBSCRIPTIONS)
        a = self.with_sockets("app", app, resources={"ps.yaml": component("ps", "pubsub.bus")})
        for n in range(5):
            self.assertEqual(a.publish("ps", "t", n).status, 204)
        self.assertTrue(held.wait(WAIT_S))
        p.kill()
        down = wait_for("failure", lambda: (lambda r: r.status == 500 and r)(a.publish("ps", "t", 9)))
        self.assertIn("component ps", down.json["message"])
        hold.set()
        p.start()
        wait_for("subscription made again", lambda: len({c["pid"] for c in p.calls("PullMessages")}) == 2)
        wait_for("publishing", lambda: a.publish("ps", "t", 5).status == 204)
        wait_for("every event, the unacknowledged again",
                 lambda: set(self.events(app)) == {0, 1, 2, 3, 4, 5} and self.events(app).count(0) >= 2)
        wait_for("nothing left", lambda: self.left(p) == 0)

    def left(self, p):
        import sqlite3
        with sqlite3.connect(p.db) as db:
            return db.execute("SELECT count(*) FROM messages").fetchone()[0]

    def test_a_sidecar_that_ends_gives_back_what_it_has(self):
        p = self.plugged("bus", "--serves", "pubsub")
        hold = threading.Event()
        app = self.app(lambda request: hold.wait(WAIT_S) and Reply(500), subscriptions=SUBSCRIPTIONS)
        a = self.with_sockets("app", app, resources={"ps.yaml": component("ps", "pubsub.bus")})
        a.publish("ps", "t", 1)
        wait_for("delivery", lambda: app.seen("/t"))
        a.signal(signal.SIGTERM)
        hold.set()
        self.assertEqual(a.wait_exit(), 0)
        self.assertEqual([c for c in p.calls("Ack") if not c["error"]], [])
        self.assertEqual(self.left(p), 1)

    def test_bulk_publish(self):
        for features, method in (("", "Publish"), ("BULK_PUBSUB", "BulkPublish")):
            p = self.plugged("bus" + method.lower(), "--serves", "pubsub", "--features", features)
            a = self.with_sockets("app", resources={"ps.yaml": component("ps", "pubsub." + p.name)})
            entries = [{"entryId": i, "event": i, "contentType": "text/plain"} for i in ("a", "b", "bad")]
            answer = a.call_json("POST", "/v1.0/publish/bulk/ps/t", entries)
            if features:
                self.assertEqual(answer.status, 500)
                self.assertEqual(answer.json["failedEntries"], [{"entryId": "bad", "error": "this entry is broken"}])
            else:
                self.assertEqual(answer.status, 204)
            self.assertEqual(len(p.calls(method)), 1 if features else 3)
            self.assertEqual(self.left(p), 2 if features else 3)

    def test_more_messages_than_the_credit(self):
        p = self.plugged("bus", "--serves", "pubsub")
        app = self.app(lambda request: Reply(200), subscriptions=[dict(SUBSCRIPTIONS[0], metadata={"maxConcurrency": "2"})])
        a = self.with_sockets("app", app, resources={"ps.yaml": component("ps", "pubsub.bus")})
        entries = [{"entryId": str(i), "event": str(i), "contentType": "text/plain"} for i in range(100)]
        self.assertEqual(a.call_json("POST", "/v1.0/publish/bulk/ps/t", entries).status, 204)
        wait_for("all events", lambda: len(app.seen("/t")) == 100)
        wait_for("nothing left", lambda: self.left(p) == 0)

    def test_a_subscription_that_ends_is_made_again(self):
        p = self.plugged("bus", "--serves", "pubsub")
        app = self.app(lambda request: Reply(200), subscriptions=[
            {"pubsubname": "ps", "topic": topic, "route": "/t"} for topic in ("ends", "refused")])
        a = self.with_sockets("app", app, resources={"ps.yaml": component("ps", "pubsub.bus")})
        for n in range(2):
            self.assertEqual(a.publish("ps", "ends", n).status, 204)
        wait_for("both events", lambda: {0, 1} <= {r.json["data"] for r in app.seen("/t")})
        a.wait_log("not this topic")
        self.assertGreaterEqual(len([c for c in p.calls("PullMessages") if c["topic"] == "ends"]), 2)


class Bindings(Pluggable):
    @tag("debug", "tsan")
    def test_operations(self):
        p = self.plugged("dev", "--serves", "bindings")
        a = self.with_sockets("app", resources={"bd.yaml": component("bd", "bindings.dev", {"direction": "output"})})
        self.assertEqual(len(p.calls("Init")), 1)  # the input side is not asked for
        done = a.call_json("POST", "/v1.0/bindings/bd", {"operation": "turn", "data": "abc", "metadata": {"m": "n"}})
        self.assertEqual((done.status, done.body), (200, b'"cba"'))
        self.assertEqual(p.calls("Invoke")[0]["metadata"], {"m": "n"})
        failed = a.call_json("POST", "/v1.0/bindings/bd", {"operation": "fail", "data": "abc"})
        self.assertEqual(failed.status, 500)
        self.assertIn("it failed", failed.json["message"])
        unknown = a.call_json("POST", "/v1.0/bindings/bd", {"operation": "list", "data": "abc"})
        self.assertGreaterEqual(unknown.status, 400)
        capabilities = next(c for c in a.call("GET", "/v1.0/metadata").json["components"] if c["name"] == "bd")["capabilities"]
        self.assertEqual(capabilities, ["OUTPUT_BINDING"])

    @tag("debug", "tsan")
    def test_events(self):
        p = self.plugged("dev", "--serves", "bindings")
        refusals = [1]

        def handle(request):
            if request.method == "OPTIONS":
                return Reply(200)
            if request.json["n"] == 1 and refusals:
                refusals.pop()
                return Reply(500)
            return Reply(200, b'{"done": %d}' % request.json["n"], [("Content-Type", "application/json")])
        app = self.app(handle)
        self.with_sockets("app", app, resources={"bd.yaml": component("bd", "bindings.dev")})
        wait_for("all answers", lambda: len(p.calls("Answered")) == 4)
        self.assertEqual([(c["id"], bool(c["error"])) for c in p.calls("Answered")],
                         [("0", False), ("1", True), ("1", False), ("2", False)])
        p.kill()
        p.start()
        wait_for("reading again", lambda: len({c["pid"] for c in p.calls("Read")}) == 2)
