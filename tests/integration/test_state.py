"""State and secrets over the API, and what survives a crash."""
import json
import os
import resource
import sqlite3
import subprocess
import threading

from harness import SLOW, Case, Client, component, tag, wait_for


def sqlite(path, **more):
    return {"st.yaml": component("st", "state.sqlite", {"connectionString": path, **more})}


class State(Case):
    @tag("debug", "tsan")
    def test_save_get_bulk_delete_and_transaction(self):
        for store in ("state.in-memory", "state.sqlite"):
            a = self.sidecar("app", resources={"st.yaml": component("st", store, {"connectionString": "s.db"} if "sql" in store else None)})
            self.assertEqual(a.call_json("POST", "/v1.0/state/st", [{"key": "a", "value": {"n": 1}}, {"key": "b", "value": "t"}]).status, 204)
            answer = a.call("GET", "/v1.0/state/st/a")
            self.assertEqual((answer.status, answer.json, bool(answer.header("ETag"))), (200, {"n": 1}, True))
            many = a.call_json("POST", "/v1.0/state/st/bulk", {"keys": ["a", "b", "c"]}).json
            self.assertEqual({m["key"]: m.get("data") for m in many}, {"a": {"n": 1}, "b": "t", "c": None})
            self.assertEqual(a.call_json("POST", "/v1.0/state/st/transaction", {"operations": [
                {"operation": "upsert", "request": {"key": "c", "value": 3}},
                {"operation": "delete", "request": {"key": "a"}}]}).status, 204)
            self.assertEqual(a.call("GET", "/v1.0/state/st/a").status, 204)
            self.assertEqual(a.call("GET", "/v1.0/state/st/c").json, 3)
            wrong = a.call("DELETE", "/v1.0/state/st/c", [("If-Match", "00000000-0000-0000-0000-000000000000")])
            self.assertEqual((wrong.status, wrong.json["errorCode"]), (409, "ERR_STATE_DELETE"))

    @tag("debug")
    def test_25_create_if_absent_has_one_winner(self):
        for store in ("state.in-memory", "state.sqlite"):
            a = self.sidecar("app", resources={"st.yaml": component("st", store, {"connectionString": "s.db"} if "sql" in store else None)})
            for round_ in range(5):
                results = []

                def write(n):
                    item = {"key": "k%d" % round_, "value": n, "options": {"concurrency": "first-write"}}
                    results.append(a.call_json("POST", "/v1.0/state/st", [item]).status)
                threads = [threading.Thread(target=write, args=(n,)) for n in range(16)]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
                self.assertEqual(sorted(results), [204] + [409] * 15)

    def test_26_an_empty_etag_and_none_differ_from_a_wrong_one(self):
        """Empty is none, as in the reference's stores; only what is given and differs is refused."""
        wrong = "00000000-0000-0000-0000-000000000000"
        for store in ("state.in-memory", "state.sqlite"):
            a = self.sidecar("app", resources={"st.yaml": component("st", store, {"connectionString": "s.db"} if "sql" in store else None)})

            def save(value, **more):
                return a.call_json("POST", "/v1.0/state/st", [{"key": "k", "value": value, **more}]).status
            self.assertEqual([save(1), save(2, etag=""), save(3, etag=None), save(4, etag=wrong)], [204, 204, 204, 409])
            first_write = {"options": {"concurrency": "first-write"}}
            self.assertEqual([save(5, **first_write), save(6, etag="", **first_write)], [409, 409])
            self.assertEqual(a.call("DELETE", "/v1.0/state/st/k", [("If-Match", wrong)]).status, 409)
            self.assertEqual(a.call("GET", "/v1.0/state/st/k").json, 3)
            self.assertEqual(a.call("DELETE", "/v1.0/state/st/k", [("If-Match", "")]).status, 204)
            self.assertEqual(a.call("GET", "/v1.0/state/st/k").status, 204)

    def test_25_two_sidecars_on_one_file_have_one_winner(self):
        path = self.path("shared.db")
        prefix = {"keyPrefix": "none"}
        a, b = self.sidecar("one", resources=sqlite(path, **prefix)), self.sidecar("two", resources=sqlite(path, **prefix))
        for round_ in range(20):
            results = []

            def write(sidecar):
                item = {"key": "k%d" % round_, "value": sidecar.app_id, "options": {"concurrency": "first-write"}}
                results.append(sidecar.call_json("POST", "/v1.0/state/st", [item]).status)
            threads = [threading.Thread(target=write, args=(s,)) for s in (a, b, a, b)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            self.assertEqual(sorted(results), [204, 409, 409, 409])

    @tag("debug")
    def test_what_was_acknowledged_survives_kill_9(self):
        path = self.path("s.db")
        saved = {}
        for round_ in range(3):
            a = self.sidecar("app", resources=sqlite(path))
            for key, value in saved.items():
                self.assertEqual(a.call("GET", "/v1.0/state/st/" + key).json, value, key)
            acknowledged = [{} for _ in range(4)]

            def write(n):
                try:
                    with Client(a.http) as client:
                        for i in range(100000):
                            key, value = "%d-%d-%d" % (round_, n, i), {"i": i}
                            body = json.dumps([{"key": key, "value": value}]).encode()
                            if client.call("POST", "/v1.0/state/st", [("Content-Type", "application/json")], body).status == 204:
                                acknowledged[n][key] = value
                except (OSError, EOFError):
                    pass
            threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
            for thread in threads:
                thread.start()
            wait_for("some saves", lambda: sum(map(len, acknowledged)) > 200)
            a.kill()
            for thread in threads:
                thread.join()
            for part in acknowledged:
                saved.update(part)
        a = self.sidecar("app", resources=sqlite(path))
        keys = list(saved)
        for at in range(0, len(keys), 500):
            many = a.call_json("POST", "/v1.0/state/st/bulk", {"keys": keys[at:at + 500]}).json
            self.assertEqual({m["key"]: m.get("data") for m in many}, {k: saved[k] for k in keys[at:at + 500]})

    def test_full_disk_is_an_error_and_loses_nothing(self):
        """A limit on the size of files stands for the full disk."""
        path = self.path("s.db")
        a = self.sidecar("app", resources=sqlite(path))
        self.assertEqual(a.call_json("POST", "/v1.0/state/st", [{"key": "before", "value": 1}]).status, 204)
        used = max(os.path.getsize(self.path(n)) for n in os.listdir(self.dir) if n.startswith("s.db"))
        resource.prlimit(a.pid, resource.RLIMIT_FSIZE, (used + 65536, used + 65536))
        answers = [a.call_json("POST", "/v1.0/state/st", [{"key": "k%d" % i, "value": "x" * 20000}]) for i in range(20)]
        failed = [x for x in answers if x.status != 204]
        self.assertTrue(failed)
        self.assertEqual({x.status for x in failed}, {500})
        self.assertEqual(failed[0].json["errorCode"], "ERR_STATE_SAVE")
        for i, answer in enumerate(answers):
            self.assertEqual(a.call("GET", "/v1.0/state/st/k%d" % i).status, 200 if answer.status == 204 else 204)
        self.assertEqual(a.call("GET", "/v1.0/state/st/before").json, 1)

    def test_corrupt_database_names_the_component(self):
        path = self.path("bad.db")
        with open(path, "wb") as file:
            file.write(b"this is not a database at all" * 1000)
        a = self.sidecar("app", resources=sqlite(path), is_ready=False)
        self.assertEqual(a.wait_exit(), 1)
        self.assertIn("st", a.log())
        self.assertRegex(a.log(), r"not a database|corrupt|malformed")
        with open(path, "rb") as file:
            self.assertTrue(file.read().startswith(b"this is not"))

    def test_locked_database_is_waited_for(self):
        path = self.path("l.db")
        a = self.sidecar("app", resources=sqlite(path, busyTimeout="10s"))
        self.assertEqual(a.call_json("POST", "/v1.0/state/st", [{"key": "a", "value": 1}]).status, 204)
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        done = []
        thread = threading.Thread(target=lambda: done.append(a.call_json("POST", "/v1.0/state/st", [{"key": "a", "value": 2}]).status))
        thread.start()
        self.assertEqual(a.call("GET", "/v1.0/state/st/a").json, 1)  # readers are not held up
        self.assertEqual(done, [])
        other.execute("COMMIT")
        other.close()
        thread.join()
        self.assertEqual(done, [204])

    def test_directory_without_rights_is_a_clear_error(self):
        if os.getuid() == 0:
            missing = os.path.join(self.dir, "no", "such", "directory", "s.db")
        else:
            os.mkdir(self.path("closed"), 0o500)
            missing = self.path("closed/s.db")
        a = self.sidecar("app", resources=sqlite(missing), is_ready=False)
        self.assertEqual(a.wait_exit(), 1)
        self.assertRegex(a.log(), r"s\.db: .*cannot be opened|unable to open")
        self.assertIn("st", a.log())

    def test_35_a_component_that_may_fail_does_not_stop_the_others(self):
        resources = {"bad.yaml": component("bad", "state.sqlite", {"connectionString": "/no/such/dir/x.db"})
                     .replace("spec:\n", "spec:\n  ignoreErrors: true\n"), "good.yaml": component("good", "state.in-memory")}
        a = self.sidecar("app", resources=resources)
        self.assertEqual(a.call_json("POST", "/v1.0/state/good", [{"key": "a", "value": 1}]).status, 204)
        self.assertEqual(a.call("GET", "/v1.0/state/bad/a").status, 400)
        self.assertIn("bad", a.log())

    def test_a_component_that_failed_leaves_nothing_behind(self):
        def bad(name, type_, metadata):
            return component(name, type_, metadata).replace("spec:\n", "spec:\n  ignoreErrors: true\n")
        resources = {"a.yaml": bad("a", "state.sqlite", {"connectionString": "/no/such/dir/x.db"}),
                     "b.yaml": bad("b", "pubsub.sqlite", {"connectionString": "/no/such/dir/x.db"}),
                     "c.yaml": bad("c", "secretstores.local.file", {"secretsFile": "/no/such/file"})}
        a = self.sidecar("app", resources=resources)
        a.wait_log("component failed to start and is left out", 3)

        def leftovers():  # each later try has its own for a moment
            names = [open("/proc/%d/task/%s/comm" % (a.pid, task)).read().strip() for task in os.listdir("/proc/%d/task" % a.pid)]
            return [n for n in names if n.startswith(("outr-state", "outr-broker"))]
        wait_for("the end of their threads", lambda: leftovers() == [])

    def test_ttl_expires(self):
        for store in ("state.in-memory", "state.sqlite"):
            a = self.sidecar("app", resources={"st.yaml": component("st", store, {"connectionString": "s.db"} if "sql" in store else None)})
            item = {"key": "a", "value": 1, "metadata": {"ttlInSeconds": "1"}}
            self.assertEqual(a.call_json("POST", "/v1.0/state/st", [item]).status, 204)
            self.assertEqual(a.call("GET", "/v1.0/state/st/a").status, 200)
            wait_for("expiry", lambda: a.call("GET", "/v1.0/state/st/a").status == 204)

    def test_other_programs_read_the_table(self):
        path = self.path("s.db")
        a = self.sidecar("app", resources=sqlite(path))
        a.call_json("POST", "/v1.0/state/st", [{"key": "a", "value": {"b": 1}}])
        with sqlite3.connect("file:%s?mode=ro" % path, uri=True) as db:
            self.assertEqual(db.execute("SELECT key, value, is_binary FROM state").fetchall(), [("app||a", '{"b":1}', 0)])


class Secrets(Case):
    def test_file_and_environment(self):
        with open(self.path("secrets.json"), "w") as file:
            json.dump({"one": "1", "deep": {"er": "2"}}, file)
        resources = {"f.yaml": component("f", "secretstores.local.file", {"secretsFile": self.path("secrets.json")}),
                     "e.yaml": component("e", "secretstores.local.env")}
        a = self.sidecar("app", resources=resources, env={"MY_SECRET": "three"})
        self.assertEqual(a.call("GET", "/v1.0/secrets/f/deep:er").json, {"deep:er": "2"})
        self.assertEqual(a.call("GET", "/v1.0/secrets/e/MY_SECRET").json, {"MY_SECRET": "three"})
        self.assertEqual(a.call("GET", "/v1.0/secrets/f/bulk").json, {"one": {"one": "1"}, "deep:er": {"deep:er": "2"}})
        self.assertEqual(a.call("GET", "/v1.0/secrets/nope/x").status, 401)

    def test_secrets_never_reach_the_log(self):
        with open(self.path("secrets.json"), "w") as file:
            json.dump({"db": "tops3cret.db"}, file)
        resources = {"f.yaml": component("f", "secretstores.local.file", {"secretsFile": self.path("secrets.json")}),
                     "st.yaml": component("st", "state.sqlite").replace("metadata: []", "metadata:\n  - name: connectionString\n"
                                          "    secretKeyRef:\n      name: db\n      key: db\nauth:\n  secretStore: f")}
        a = self.sidecar("app", resources=resources, flags=["--log-level", "debug"], env={"DAPR_API_TOKEN": "t0ken-t0ken"})
        headers = [("dapr-api-token", "t0ken-t0ken")]
        self.assertEqual(a.call_json("POST", "/v1.0/state/st", [{"key": "a", "value": 1}], headers).status, 204)
        for text in ("tops3cret", "t0ken-t0ken"):
            self.assertNotIn(text, a.log())
            self.assertNotIn(text, a.call("GET", "/v1.0/metadata", headers).body.decode())
