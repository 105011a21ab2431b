"""State, locks, bindings and configuration on a real redis-server: the layout as redis-cli sees it, restarts, kills."""
import random
import signal
import subprocess
import threading

import grpc_client
from grpc_client import needs_grpc
from harness import Case, Client, Reply, component, tag, wait_for
from redis_server import RedisServer, needs_redis
from state_behaviours import FIRST_WRITE, Store, in_parallel, upsert


def redis(name, block, server, **metadata):
    return component(name, block + ".redis", {"redisHost": server.host, **metadata})


@needs_redis
class State(Case):
    def store(self, server, **metadata):
        self.sidecar_ = self.sidecar("app", resources={"st.yaml": redis("st", "state", server, **metadata)})
        return Store(self.sidecar_)

    @tag("debug")
    def test_layout(self):
        server = RedisServer(self)
        store = self.store(server)
        store.save("k", {"b": 1, "a": "<"})
        self.assertEqual(server.cli("HGETALL", "app||k").split("\n"), ["data", '{"a":"\\u003c","b":1}', "version", "1"])
        store.save("k", "text", metadata={"ttlInSeconds": "100"})
        self.assertEqual(server.hash("app||k"), {"data": '"text"', "version": "2"})
        self.assertIn(int(server.cli("TTL", "app||k")), range(90, 101))
        store.save("k", "kept")
        self.assertIn(int(server.cli("TTL", "app||k")), range(90, 101))  # as daprd: a save without one leaves it
        store.save("k", "for ever", metadata={"ttlInSeconds": "-1"})
        self.assertEqual(server.cli("TTL", "app||k"), "-1")
        store.save("f", 1, **FIRST_WRITE)
        self.assertEqual(server.hash("app||f"), {"data": "1", "version": "1", "first-write": "0"})
        store.transact(upsert("t", 1), upsert("u", 2))
        self.assertEqual((server.hash("app||t"), server.hash("app||u")), ({"data": "1", "version": "1"}, {"data": "2", "version": "1"}))
        store.delete("t")
        self.assertEqual(server.command("EXISTS", "app||t"), 0)

    def test_what_a_daprd_wrote_is_read_and_guarded(self):
        """The fields as daprd's own scripts leave them."""
        server = RedisServer(self)
        store = self.store(server)
        server.command("HSET", "app||plain", "data", '{"x":1}', "version", "41")
        server.command("HSET", "app||first", "data", "7", "version", "1", "first-write", "0")
        self.assertEqual((store.value("plain"), store.etag("plain")), ({"x": 1}, "41"))
        self.assertEqual(store.save("plain", 2, etag="41").status, 204)
        self.assertEqual(server.hash("app||plain"), {"data": "2", "version": "42"})
        refused = store.save("first", 8)
        self.assertEqual((refused.status, refused.json["errorCode"]), (500, "ERR_STATE_SAVE"))
        self.assertEqual(store.save("first", 8, etag="1").status, 204)
        self.assertEqual(server.hash("app||first"), {"data": "8", "version": "2", "first-write": "0"})

    def test_a_key_of_another_kind(self):
        server = RedisServer(self)
        store = self.store(server)
        server.command("SET", "app||text", "plain words")
        server.command("RPUSH", "app||list", "x")
        self.assertEqual(store.get("text").body, b"plain words")
        found = store.bulk(["text-none", "list"])
        self.assertIn("WRONGTYPE", found["list"]["error"])
        self.assertEqual(set(found["text-none"]), {"key"})
        self.assertEqual(store.get("list").status, 500)
        self.assertEqual(store.save("text", 1, **FIRST_WRITE).status, 409)
        self.assertEqual(store.save("text", 1).status, 204)
        self.assertEqual(server.hash("app||text"), {"data": "1", "version": "1"})

    def test_a_server_that_has_forgotten_the_script_is_sent_it(self):
        server = RedisServer(self)
        store = self.store(server)
        self.assertEqual(store.save("a", 1).status, 204)
        for _ in range(2):
            server.command("SCRIPT", "FLUSH")
            self.assertEqual(store.save_all([{"key": "k%d" % n, "value": n} for n in range(50)]).status, 204)
        server.command("SCRIPT", "FLUSH")
        self.assertEqual(store.transact(upsert("a", 2), upsert("b", 2)).status, 204)
        self.assertEqual([store.value(k) for k in ("a", "b", "k49")], [2, 2, 49])

    def test_ttl_of_the_component(self):
        server = RedisServer(self)
        store = self.store(server, ttlInSeconds="500")
        store.save("k", 1)
        store.save("own", 1, metadata={"ttlInSeconds": "50"})
        self.assertIn(server.command("TTL", "app||k"), range(400, 501))
        self.assertIn(server.command("TTL", "app||own"), range(1, 51))

    def test_a_strong_write_waits_for_a_replica(self):
        server = RedisServer(self)
        replica = RedisServer(self, "--replicaof", "127.0.0.1 %d" % server.port.number)
        wait_for("the replica", lambda: "connected_slaves:1" in server.command("INFO", "replication") and
                 "state=online" in server.command("INFO", "replication"), 60)
        store = self.store(server)
        for n in range(20):
            self.assertEqual(store.save("k", n, options={"consistency": "strong"}).status, 204)
            self.assertEqual(replica.hash("app||k")["data"], str(n))

    def test_the_server_comes_back(self):
        server = RedisServer(self, durable=True)
        store = self.store(server)
        store.save("k", 1)
        server.kill()
        failed = store.get("k")
        self.assertEqual((failed.status, failed.json["errorCode"]), (500, "ERR_STATE_GET"))
        server.start()
        wait_for("the value", lambda: store.value("k") == 1, 60)
        self.assertEqual(store.save("k", 2).status, 204)

    @tag("debug")
    def test_no_acknowledged_write_is_lost_when_the_server_is_killed(self):
        """appendonly always: what was answered with 204 is there after SIGKILL, and etags count on."""
        seed = random.randrange(1 << 32)
        rand = random.Random(seed)
        server = RedisServer(self, durable=True)
        store = self.store(server, redisMaxRetries="-1")
        acknowledged, stop = {}, threading.Event()

        def write(n):
            at = 0
            while not stop.is_set():
                key = "w%d-%d" % (n, at)
                if store.save(key, at).status == 204:
                    acknowledged[key] = at
                    at += 1
        threads = [threading.Thread(target=write, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for _ in range(4):
            reached = len(acknowledged) + rand.randrange(50, 300)
            wait_for("%d writes" % reached, lambda: len(acknowledged) >= reached, 60)
            server.kill()
            server.start()
        stop.set()
        for thread in threads:
            thread.join()
        keys = sorted(acknowledged)
        lost = []
        for start in range(0, len(keys), 500):
            found = store.bulk(keys[start:start + 500])
            lost += [k for k in keys[start:start + 500] if found[k].get("data") != acknowledged[k]]
        self.assertEqual((lost, seed), ([], seed))

    def test_one_of_32_creates_while_the_server_is_killed(self):
        """Each round 32 writers over two sidecars create one key, and the server dies in between: never two winners."""
        server = RedisServer(self, durable=True)
        resources = {"st.yaml": redis("st", "state", server, keyPrefix="none", redisMaxRetries="-1")}
        stores = [Store(self.sidecar(name, resources=resources)) for name in ("one", "two")]
        for round_ in range(6):
            key = "race%d" % round_

            def write(n):
                if n == 16 and round_ % 2:
                    server.kill()
                    server.start()
                return stores[n % 2].save(key, n, **FIRST_WRITE).status
            results = in_parallel(32, write)
            winners = [n for n, status in enumerate(results) if status == 204]
            self.assertLessEqual(len(winners), 1, results)
            wait_for("the server", lambda: stores[0].get(key).status in (200, 204), 60)
            if winners:
                self.assertEqual(stores[0].value(key), winners[0])

    def test_a_wrong_password_and_a_server_that_is_away_are_told(self):
        server = RedisServer(self, "--requirepass", "right")
        bad = redis("st", "state", server, redisPassword="not-that-one")
        a = self.sidecar("app", resources={"st.yaml": bad.replace("spec:", "spec:\n  ignoreErrors: true", 1),
                                           "other.yaml": component("other", "state.in-memory")})
        a.wait_log("component failed to start and is left out")
        self.assertIn("component st (state.redis/v1", a.log())
        self.assertIn("redisPassword: WRONGPASS", a.log())
        self.assertNotIn("not-that-one", a.log())
        self.assertEqual(Store(a, "other").save("k", 1).status, 204)
        self.assertEqual(Store(a, "st").save("k", 1).status, 400)


@needs_redis
class Cluster(Case):
    """Three servers with a third of the keys each."""

    def cluster(self):
        servers = [RedisServer(self, "--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf") for _ in range(3)]
        hosts = [s.host for s in servers]
        subprocess.run(["redis-cli", "--cluster", "create", *hosts, "--cluster-yes"], check=True, stdout=subprocess.PIPE, timeout=60)
        wait_for("the cluster", lambda: all("cluster_state:ok" in s.command("CLUSTER", "INFO") for s in servers), 60)
        return servers

    @tag("debug")
    def test_state_locks_and_configuration(self):
        servers = self.cluster()
        app = self.app(lambda r: Reply(200))
        metadata = {"redisType": "cluster"}
        a = self.sidecar("app", app, resources={
            "st.yaml": redis("st", "state", servers[0], **metadata), "lk.yaml": redis("lk", "lock", servers[1], **metadata),
            "cf.yaml": redis("cf", "configuration", servers[2], **metadata)}, flags=["--read-buffer-size", "16Ki"])
        store = Store(a)
        items = [{"key": "k%d" % n, "value": n} for n in range(200)]
        self.assertEqual(store.save_all(items).status, 204)
        self.assertTrue(all(s.command("DBSIZE") > 20 for s in servers))
        for server in servers:
            server.command("SCRIPT", "FLUSH")
        self.assertEqual(store.save_all(items).status, 204)
        found = store.bulk([i["key"] for i in items])
        self.assertEqual({k: (v["data"], v["etag"]) for k, v in found.items()}, {i["key"]: (i["value"], "2") for i in items})
        self.assertEqual(sorted(in_parallel(16, lambda n: store.save("one", n, **FIRST_WRITE).status)), [204] + [409] * 15)
        # A transaction is one server's: what stands in braces says whose. Others are refused as a whole.
        self.assertEqual(store.transact(upsert("{t}a", 1), upsert("{t}b", 2)).status, 204)
        self.assertEqual((store.value("%7Bt%7Da"), store.value("%7Bt%7Db")), (1, 2))
        self.assertEqual(store.transact(*[upsert("x%d" % n, 1) for n in range(10)]).status, 500)
        self.assertEqual([store.value("x%d" % n) for n in range(10)], [None] * 10)
        for n in range(20):
            taken = a.call_json("POST", "/v1.0-alpha1/lock/lk", {"resourceId": "r%d" % n, "lockOwner": "o", "expiryInSeconds": 60})
            self.assertEqual(taken.json, {"success": True})
            given = a.call_json("POST", "/v1.0-alpha1/unlock/lk", {"resourceId": "r%d" % n, "lockOwner": "o"})
            self.assertEqual(given.json, {"status": 0})
        keys = ["c%d" % n for n in range(12)]
        id_ = a.call("GET", "/v1.0/configuration/cf/subscribe?" + "&".join("key=" + k for k in keys)).json["id"]
        for key in keys:
            subprocess.run(["redis-cli", "-c", "-p", str(servers[0].port.number), "SET", key, "v||" + key], check=True, stdout=subprocess.PIPE)

        def told():
            found = {}
            for request in app.seen():
                found.update(request.json["items"])
            return found
        wait_for("all updates", lambda: told() == {k: {"value": "v", "version": k} for k in keys}, 60)
        got = a.call("GET", "/v1.0/configuration/cf?" + "&".join("key=" + k for k in keys)).json
        self.assertEqual(got, told())
        self.assertEqual(a.call("GET", "/v1.0/configuration/cf/%s/unsubscribe" % id_).json, {"ok": True})
        self.assertEqual(a.call("GET", "/v1.0/configuration/cf/subscribe").status, 500)
        # Each key of a watch has a connection of its own there.
        many = a.call("GET", "/v1.0/configuration/cf/subscribe?" + "&".join("key=m%d" % n for n in range(1025)))
        self.assertEqual((many.status, many.json["errorCode"]), (500, "ERR_CONFIGURATION_SUBSCRIBE"))
        self.assertIn("more than 1024 keys", many.json["message"])


@needs_redis
class Lock(Case):
    def lock(self, sidecar, resource, owner, expiry=60):
        answer = sidecar.call_json("POST", "/v1.0-alpha1/lock/lk", {"resourceId": resource, "lockOwner": owner, "expiryInSeconds": expiry})
        self.assertEqual(answer.status, 200)
        return answer.json["success"]

    def unlock(self, sidecar, resource, owner):
        return sidecar.call_json("POST", "/v1.0-alpha1/unlock/lk", {"resourceId": resource, "lockOwner": owner}).json["status"]

    @tag("debug", "tsan")
    def test_one_of_many_takes_it(self):
        server = RedisServer(self)
        a = self.sidecar("app", resources={"lk.yaml": redis("lk", "lock", server)})
        for round_ in range(5):
            taken = in_parallel(16, lambda n: self.lock(a, "r%d" % round_, "owner%d" % n))
            self.assertEqual(taken.count(True), 1)
            winner = "owner%d" % taken.index(True)
            self.assertEqual(server.cli("GET", "lock||app||r%d" % round_), winner)
            self.assertEqual([self.unlock(a, "r%d" % round_, o) for o in ("nobody", winner, winner)], [2, 0, 1])

    def test_its_time_is_over(self):
        server = RedisServer(self)
        a = self.sidecar("app", resources={"lk.yaml": redis("lk", "lock", server, keyPrefix="none")})
        self.assertTrue(self.lock(a, "long", "first", 600))
        self.assertIn(server.command("PTTL", "lock||long"), range(1, 600001))
        self.assertTrue(self.lock(a, "r", "first", 1))
        wait_for("the end of the lock", lambda: self.lock(a, "r", "second"), 60)
        self.assertEqual(self.unlock(a, "r", "first"), 2)

    def test_a_server_that_is_away_is_an_error(self):
        server = RedisServer(self)
        a = self.sidecar("app", resources={"lk.yaml": redis("lk", "lock", server)})
        server.kill()
        body = {"resourceId": "r", "lockOwner": "o", "expiryInSeconds": 5}
        answer = a.call_json("POST", "/v1.0-alpha1/lock/lk", body)
        self.assertEqual((answer.status, answer.json["errorCode"]), (500, "ERR_TRY_LOCK"))
        answer = a.call_json("POST", "/v1.0-alpha1/unlock/lk", body)
        self.assertEqual((answer.status, answer.json["errorCode"]), (500, "ERR_UNLOCK"))
        server.start()
        wait_for("the lock", lambda: a.call_json("POST", "/v1.0-alpha1/lock/lk", body).status == 200, 60)


@needs_redis
class Binding(Case):
    def invoke(self, sidecar, operation, data=None, **metadata):
        return sidecar.call_json("POST", "/v1.0/bindings/b", {"operation": operation, "data": data, "metadata": metadata})

    @tag("debug")
    def test_keys_are_set_read_counted_and_deleted(self):
        server = RedisServer(self)
        a = self.sidecar("app", resources={"b.yaml": redis("b", "bindings", server)})
        for operation, metadata in (("create", {"key": "k"}), ("create", {"key": "short", "ttlInSeconds": "600"}),
                                    ("increment", {"key": "n", "ttlInSeconds": "600"}), ("increment", {"key": "n"})):
            self.assertLess(self.invoke(a, operation, {"a": 1}, **metadata).status, 300)
        self.assertEqual([server.command("GET", key) for key in ("k", "short", "n")], ['{"a":1}', '{"a":1}', "2"])
        self.assertEqual(server.command("TTL", "k"), -1)
        for key in ("short", "n"):
            self.assertIn(server.command("TTL", key), range(1, 601))
        self.assertEqual(self.invoke(a, "get", key="k").body, b'{"a":1}')
        self.assertEqual(self.invoke(a, "get", key="k", delete="true").body, b'{"a":1}')
        gone = self.invoke(a, "get", key="k")
        self.assertLess(gone.status, 300)
        self.assertEqual(gone.body, b"")
        self.assertLess(self.invoke(a, "delete", key="n").status, 300)
        self.assertEqual(server.command("EXISTS", "n"), 0)
        self.assertEqual(a.stop(), 0)

    def test_what_cannot_be_is_an_error(self):
        server = RedisServer(self)
        a = self.sidecar("app", resources={"b.yaml": redis("b", "bindings", server)})
        server.command("SET", "text", "x")
        for operation, metadata, text in (("get", {}, "missing key"), ("increment", {"key": "text"}, "not an integer"),
                                          ("create", {"key": "k", "ttlInSeconds": "soon"}, "ttlInSeconds"), ("list", {"key": "k"}, "list")):
            answer = self.invoke(a, operation, **metadata)
            self.assertGreaterEqual(answer.status, 400)
            self.assertIn(text, answer.body.decode())
        server.kill()
        self.assertEqual(self.invoke(a, "get", key="text").status, 500)
        server.start()
        wait_for("the binding", lambda: self.invoke(a, "create", "x", key="k").status < 300, 60)


@needs_redis
class Configuration(Case):
    def start(self, server, handler=None, **more):
        app = self.app(handler or (lambda r: Reply(200)))
        return self.sidecar("app", app, resources={"cf.yaml": redis("cf", "configuration", server)}, **more), app

    def subscribe(self, sidecar, *keys):
        answer = sidecar.call("GET", "/v1.0/configuration/cf/subscribe?" + "&".join("key=" + k for k in keys))
        self.assertEqual(answer.status, 200, answer)
        return answer.json["id"]

    def unsubscribe(self, sidecar, id_):
        return sidecar.call("GET", "/v1.0/configuration/cf/%s/unsubscribe" % id_)

    def told(self, app, id_):
        """What the app has been told last of each key."""
        found = {}
        for request in app.seen():
            if request.json["id"] == id_:
                found.update(request.json["items"])
        return found

    @tag("debug", "tsan")
    def test_get_and_watch(self):
        server = RedisServer(self)
        server.command("MSET", "a", "1||v1", "b", "2", "c", "")
        server.command("HSET", "hash", "x", "y")
        a, app = self.start(server)
        everything = a.call("GET", "/v1.0/configuration/cf").json
        self.assertEqual(everything, {"a": {"value": "1", "version": "v1"}, "b": {"value": "2"}, "c": {}})
        wrong = a.call("GET", "/v1.0/configuration/cf?key=hash")
        self.assertEqual((wrong.status, wrong.json["errorCode"]), (500, "ERR_CONFIGURATION_GET"))
        id_ = self.subscribe(a, "a", "b")
        server.command("SET", "a", "new||v2")
        server.command("SET", "c", "not watched")
        wait_for("an update", lambda: self.told(app, id_))
        request = app.seen()[0]
        self.assertEqual((request.method, request.path), ("POST", "/configuration/cf/a"))
        self.assertEqual(request.json, {"id": id_, "items": {"a": {"value": "new", "version": "v2"}}})
        server.command("DEL", "b")
        wait_for("the end of b", lambda: self.told(app, id_).get("b") == {})
        self.assertEqual(self.unsubscribe(a, id_).json, {"ok": True})
        self.assertEqual(self.unsubscribe(a, id_).status, 500)
        other = self.subscribe(a, "a")
        server.command("SET", "a", "again")
        wait_for("an update", lambda: self.told(app, other))
        self.assertNotEqual(self.told(app, id_)["a"], {"value": "again"})
        self.assertIn('dapr_component_configuration_count{', a.metrics())

    @tag("debug")
    def test_large_values_are_told_whole(self):
        server = RedisServer(self)
        a, app = self.start(server)
        id_ = self.subscribe(a, "a", "b")
        value = "line\n" * 2000000
        server.command("MSET", "a", value, "b", value + "b")
        wait_for("both", lambda: self.told(app, id_).keys() >= {"a", "b"}, 60)
        self.assertEqual([self.told(app, id_)[key]["value"] == value + more for key, more in (("a", ""), ("b", "b"))],
                         [True, True])

    def test_all_keys(self):
        server = RedisServer(self)
        a, app = self.start(server)
        id_ = self.subscribe(a)
        for n in range(50):
            server.command("SET", "key/%d" % n, "value %d||%d" % (n, n))
        wait_for("all updates", lambda: len(self.told(app, id_)) == 50)
        self.assertEqual(self.told(app, id_)["key/7"], {"value": "value 7", "version": "7"})
        self.assertEqual(app.seen()[0].path, "/configuration/cf/key%2F0")

    @tag("debug")
    def test_a_slow_app_gets_the_last_value(self):
        server = RedisServer(self)
        gate, first = threading.Event(), threading.Event()

        def handler(_):
            first.set()
            gate.wait(60)
            return Reply(200)
        a, app = self.start(server, handler)
        id_ = self.subscribe(a, "k")
        server.command("SET", "k", "0")
        first.wait(60)
        for n in range(1, 501):
            server.command("SET", "k", n)
        gate.set()
        wait_for("the last value", lambda: self.told(app, id_).get("k") == {"value": "500"})
        self.assertLess(len(app.seen()), 20)

    @tag("debug")
    def test_what_changed_while_the_server_was_away_is_told(self):
        server = RedisServer(self, durable=True)
        server.command("MSET", "a", "1", "b", "1", "c", "1")
        a, app = self.start(server)
        id_ = self.subscribe(a, "a", "b", "c")
        server.kill()
        a.wait_log("listening for changes of configuration is interrupted", timeout_s=60)
        other = RedisServer(self, durable=True, data=server.dir)  # before the sidecar is back, where it does not look
        other.command("MSET", "a", "2")
        other.command("DEL", "b")
        other.kill()
        server.start()
        wait_for("what changed", lambda: self.told(app, id_) == {"a": {"value": "2"}, "b": {}}, 60)
        server.command("SET", "c", "3")  # notifications are on again though the server has forgotten
        wait_for("a change", lambda: self.told(app, id_).get("c") == {"value": "3"}, 60)

    @needs_grpc
    @tag("debug")
    def test_a_watch_that_cannot_begin(self):
        """The server is away, or accepts and never answers: an error, or an end with its client or the sidecar."""
        server = RedisServer(self)
        a, _ = self.start(server)
        server.kill()
        answer = a.call("GET", "/v1.0/configuration/cf/subscribe?key=k")
        self.assertEqual((answer.status, answer.json["errorCode"]), (500, "ERR_CONFIGURATION_SUBSCRIBE"))
        with grpc_client.Client(a.grpc) as client:
            stream = client.stream("Dapr/SubscribeConfiguration", [{"store_name": "cf", "keys": ["k"]}], timeout_s=60)
            self.assertEqual(stream.code().name, "INVALID_ARGUMENT")
            server.start()
            server.process.send_signal(signal.SIGSTOP)
            gone = client.stream("Dapr/SubscribeConfiguration", [{"store_name": "cf", "keys": ["k"]}], timeout_s=60)
            with Client(a.http) as http:
                http.send_request("GET", "/v1.0/configuration/cf/subscribe?key=k")
                a.call("GET", "/v1.0/healthz")
            gone.cancel()
            waits = client.stream("Dapr/SubscribeConfiguration", [{"store_name": "cf", "keys": ["k"]}], timeout_s=60)
            a.call("GET", "/v1.0/healthz")
            self.assertEqual(a.stop(), 0)
            self.assertNotEqual(waits.code().name, "OK")
        server.process.send_signal(signal.SIGCONT)

    def test_notifications_of_others_stay(self):
        server = RedisServer(self, "--notify-keyspace-events", "El")
        a, _ = self.start(server)
        self.subscribe(a, "k")
        flags = server.command("CONFIG", "GET", "notify-keyspace-events")[1]
        self.assertEqual(set("ElKg$xe") - set(flags), set())

    @needs_grpc
    @tag("debug", "tsan")
    def test_over_grpc(self):
        server = RedisServer(self)
        server.command("MSET", "a", "1||v1", "b", "2")
        a = self.sidecar("app", resources={"cf.yaml": redis("cf", "configuration", server)})
        with grpc_client.Client(a.grpc) as client:
            answer = client.call("Dapr/GetConfiguration", {"store_name": "cf", "keys": ["a", "b", "none"]})
            self.assertEqual(answer.response["items"], {"a": {"value": "1", "version": "v1"}, "b": {"value": "2"}})
            stream = client.stream("Dapr/SubscribeConfiguration", [{"store_name": "cf", "keys": ["a"]}], timeout_s=60)
            id_ = next(stream)["id"]
            server.command("SET", "a", "new")
            self.assertEqual(next(stream), {"id": id_, "items": {"a": {"value": "new"}}})
            answer = client.call("Dapr/UnsubscribeConfiguration", {"store_name": "cf", "id": id_})
            self.assertEqual(answer.response, {"ok": True})
            self.assertEqual(list(stream), [])  # the stream has ended
            answer = client.call("Dapr/UnsubscribeConfiguration", {"store_name": "cf", "id": id_})
            self.assertIn("does not exist", answer.response["message"])
            gone = client.stream("Dapr/SubscribeConfiguration", [{"store_name": "cf", "keys": ["a"]}], timeout_s=60)
            next(gone)
            gone.cancel()
            wait_for("the end of its connection", lambda: server.command("PUBSUB", "NUMSUB", "__keyspace@0__:a")[1] == 0, 60)
            last = client.stream("Dapr/SubscribeConfiguration", [{"store_name": "cf"}], timeout_s=60)
            next(last)
            self.assertEqual(a.stop(), 0)  # a stop ends it
            self.assertEqual(list(last), [])

    @needs_grpc
    @tag("debug")
    def test_more_keys_than_an_answer_may_have(self):
        """Named ones, too: none of them is left out in silence, and the sidecar stays."""
        server = RedisServer(self)
        a = self.sidecar("app", resources={"cf.yaml": redis("cf", "configuration", server)})
        request = {"store_name": "cf", "keys": ["%x" % n for n in range(200000)]}
        with grpc_client.Client(a.grpc) as client:
            answer = client.call("Dapr/GetConfiguration", request)
            self.assertIn("more than 65536 keys", answer.message)
            with self.assertRaisesRegex(grpc_client.grpc.RpcError, "more than 65536 keys"):
                next(client.stream("Dapr/SubscribeConfiguration", [request], timeout_s=60))
            self.assertEqual(client.call("Dapr/GetConfiguration", {"store_name": "cf", "keys": request["keys"][:65536]}).code, "OK")

    @tag("debug")
    def test_a_reload_moves_the_watch(self):
        first, second = RedisServer(self), RedisServer(self)
        a, app = self.start(first)
        id_ = self.subscribe(a, "k")
        first.command("SET", "k", "of the first")
        wait_for("an update", lambda: self.told(app, id_))
        a.write("cf.yaml", redis("cf", "configuration", second))
        wait_for("the watch", lambda: second.command("PUBSUB", "NUMSUB", "__keyspace@0__:k")[1] == 1, 60)
        wait_for("its end", lambda: first.command("PUBSUB", "NUMSUB", "__keyspace@0__:k")[1] == 0, 60)
        second.command("SET", "k", "of the second")
        wait_for("an update", lambda: self.told(app, id_).get("k") == {"value": "of the second"})
        a.remove("cf.yaml")
        a.wait_log("a subscription to configuration has ended", timeout_s=60)
        self.assertEqual(a.call("GET", "/v1.0/configuration/cf?key=k").status, 500)
