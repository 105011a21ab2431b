"""Components that may fail to start (ignoreErrors): they are left out, told of, and tried again until they come up."""
import json
import os
import shutil
import signal
import socket
import subprocess

from harness import BIN, WAIT_S, Case, component, put, tag, wait_for


def lenient(name, type_, metadata=None, extra=""):
    return component(name, type_, metadata).replace("spec:\n", "spec:\n  ignoreErrors: true\n" + extra, 1)


class LeftOut(Case):
    def told(self, sidecar):
        """What the metadata API says is left out, by name."""
        prefix = "outrigger.leftOut."
        extended = sidecar.call("GET", "/v1.0/metadata").json["extended"]
        return {k[len(prefix):]: v for k, v in extended.items() if k.startswith(prefix)}

    def loaded(self, sidecar):
        return {c["name"] for c in sidecar.call("GET", "/v1.0/metadata").json.get("components", [])}

    @tag("debug")
    def test_a_component_comes_up_when_what_it_lacked_is_there(self):
        folder = self.path("later")
        a = self.sidecar("app", resources={"st.yaml": lenient("st", "state.sqlite", {"connectionString": folder + "/s.db"}),
                                           "good.yaml": component("good", "state.in-memory")})
        self.assertEqual(self.loaded(a), {"good"})
        self.assertIn(folder, self.told(a)["st"])
        self.assertEqual(a.call("GET", "/v1.0/state/st/k").status, 400)
        os.mkdir(folder)
        wait_for("the component", lambda: "st" in self.loaded(a), 2 * WAIT_S)
        self.assertEqual(self.told(a), {})
        self.assertEqual(a.call_json("POST", "/v1.0/state/st", [{"key": "k", "value": 1}]).status, 204)
        self.assertEqual(a.log().count("left out"), 1)  # said once, not with every try

    def test_subscriptions_to_a_broker_that_comes_up_late_are_made(self):
        folder = self.path("later")
        app = self.app(subscriptions=[{"pubsubname": "ps", "topic": "t", "route": "/event"}])
        a = self.sidecar("app", app, resources={"ps.yaml": lenient("ps", "pubsub.sqlite", {"connectionString": folder + "/p.db"})})
        self.assertEqual(a.publish("ps", "t", {"n": 1}).status, 404)
        os.mkdir(folder)
        wait_for("the broker", lambda: a.publish("ps", "t", {"n": 2}).status == 204, 2 * WAIT_S)
        wait_for("the event", lambda: [r.json["data"] for r in app.seen("/event")] == [{"n": 2}])

    def test_a_secret_store_that_comes_up_late_brings_what_names_it(self):
        secrets = self.path("secrets.json")
        secret = "  metadata:\n  - name: connectionString\n    secretKeyRef: {name: file, key: file}\nauth:\n  secretStore: vault\n"
        needs = lenient("st", "state.sqlite").replace("  metadata: []\n", secret)
        a = self.sidecar("app", resources={"vault.yaml": lenient("vault", "secretstores.local.file", {"secretsFile": secrets}),
                                           "st.yaml": needs})
        self.assertEqual(set(self.told(a)), {"vault", "st"})
        put(secrets, json.dumps({"file": self.path("s.db")}))
        wait_for("both", lambda: self.loaded(a) == {"vault", "st"}, 3 * WAIT_S)
        self.assertEqual(a.call_json("POST", "/v1.0/state/st", [{"key": "k", "value": 1}]).status, 204)

    def test_what_no_second_try_can_mend_is_told_and_not_tried(self):
        a = self.sidecar("app", resources={"x.yaml": lenient("x", "state.no-such-thing")})
        self.assertIn("state.no-such-thing", self.told(a)["x"])
        self.assertIn('component="state",componentName="x",reason="creation"} 1\n', a.metrics())

    @tag("debug")
    def test_a_module_that_is_not_there_names_the_component_and_its_package(self):
        os.mkdir(self.path("bin"))
        os.mkdir(self.path("resources"))
        alone = shutil.copy(os.path.join(BIN, "outriggerd"), self.path("bin"))
        with open(self.path("resources/k.yaml"), "w") as file:
            file.write(component("events", "pubsub.kafka", {"brokers": "127.0.0.1:1", "authType": "none"}))
        done = subprocess.run([alone, "--app-id", "app", "--resources-path", self.path("resources"), "--dapr-http-port", "0",
                               "--dapr-grpc-port", "0"], env=dict(os.environ, OUTRIGGER_RUN_DIR=self.path("run")),
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=WAIT_S)
        self.assertNotEqual(done.returncode, 0)
        for word in ("events", "pubsub.kafka", "comes without it", "librdkafka1"):
            self.assertIn(word, done.stdout)

    def test_a_changed_resource_takes_the_place_of_a_try_that_is_under_way(self):
        with socket.socket() as silent:  # accepts and never answers: a try lasts as long as initTimeout
            silent.bind(("127.0.0.1", 0))
            silent.listen(100)
            host = "http://127.0.0.1:%d" % silent.getsockname()[1]
            hanging = lenient("st", "state.redis", {"redisHost": host[7:]}, "  initTimeout: 20s\n")
            a = self.sidecar("app", resources={"st.yaml": lenient("st", "state.redis", {"redisHost": "127.0.0.1:1"}, "  initTimeout: 50ms\n"),
                                               "other.yaml": component("other", "state.in-memory")},
                             is_ready=False)
            wait_for("readiness", lambda: a.health() == 204)
            a.write("st.yaml", hanging.replace("20s", "100ms"))
            wait_for("the change", lambda: "resources reloaded" in a.log())
            a.write("more.yaml", component("more", "state.in-memory"))
            wait_for("the other component", lambda: "more" in self.loaded(a), WAIT_S)
            a.write("st.yaml", component("st", "state.in-memory"))
            wait_for("its own change", lambda: "st" in self.loaded(a), WAIT_S)
            self.assertEqual(self.told(a), {})

    @tag("debug")
    def test_a_shutdown_does_not_wait_for_a_try(self):
        a = self.sidecar("app", resources={"st.yaml": lenient("st", "state.sqlite", {"connectionString": self.path("no/s.db")})})
        a.wait_log("left out")
        os.kill(a.pid, signal.SIGTERM)
        self.assertEqual(a.wait_exit(), 0)
