"""What the mesh does, as the command line and the API of a sidecar show it."""
import json
import os
import re
import subprocess
import threading

from harness import BIN, WAIT_S, Case, Reply, tag, wait_for


class Seeing(Case):
    def outrigger(self, *args, env=None):
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("DAPR_", "APP_", "OUTRIGGER_"))}
        return subprocess.run([os.path.join(BIN, "outrigger"), *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              env={**clean, "OUTRIGGER_RUN_DIR": self.run_dir, **(env or {})}, timeout=WAIT_S + 20)

    def at(self, sidecar):
        return ["--address", "127.0.0.1:%d" % sidecar.http]

    def endpoints(self, sidecar, *more, **env):
        done = self.outrigger("endpoints", *more, *self.at(sidecar), "-o", "json", **env)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return json.loads(done.stdout)["callees"]


class Endpoints(Seeing):
    @tag("debug", "tsan")
    def test_each_instance_shows_why_it_gets_calls_or_none(self):
        status = [500]  # half of the instances may be ejected: one is, the other is used all the same
        one, two = (self.sidecar("callee", self.app(lambda r: Reply(status[0])), flags=["--labels", labels])
                    for labels in ("version=1,zone=a", "version=2"))
        labels = {str(one.internal): {"version": "1", "zone": "a"}, str(two.internal): {"version": "2"}}
        caller = self.sidecar("caller")
        self.assertEqual(self.endpoints(caller), [])
        done = self.outrigger("endpoints", "callee", *self.at(caller))
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertIn("has not called callee yet", done.stderr)

        def is_ejected():
            caller.invoke("callee", "x", "POST")
            return [i for c in self.endpoints(caller, "callee") for i in c["instances"] if i["state"] == "ejected"]
        gone, = wait_for("an ejection", is_ejected)
        status[0] = 200
        self.assertEqual(gone["labels"], labels[gone["address"].rsplit(":", 1)[1]])
        self.assertEqual(caller.invoke("callee", "x", "POST").status, 200)
        self.assertTrue(gone["reason"])
        self.assertTrue(0 < gone["nextProbeMs"] <= 10000, gone)
        self.assertGreaterEqual(gone["ejections"], 1)
        callee, = self.endpoints(caller)
        self.assertEqual((callee["name"], callee["ejected"]), ("callee.default", 1))
        well, = [i for i in callee["instances"] if i["state"] != "ejected"]
        self.assertEqual(well["labels"], labels[well["address"].rsplit(":", 1)[1]])
        self.assertNotEqual(well["address"], gone["address"])
        self.assertEqual((well["reason"], well["pending"], well["nextProbeMs"]), ("", 0, 0))
        self.assertGreater(well["scoreMs"], 0)
        self.assertEqual(self.endpoints(caller, "callee.default")[0]["name"], "callee.default")
        self.assertEqual(self.endpoints(caller, "callee.other"), [])

        table = self.outrigger("endpoints", "callee", *self.at(caller))
        self.assertEqual(table.returncode, 0, table.stderr)
        lines = table.stdout.splitlines()
        self.assertRegex(lines[0], r"^callee.default: 2 instances, 1 ejected; \d+ calls and \d+ retries in the last ten seconds$")
        self.assertEqual(re.split(r"\s{2,}", lines[1]),
                         ["ADDRESS", "STATE", "SCORE MS", "PENDING", "REASON", "PROBED IN", "EJECTIONS", "LABELS"])
        self.assertTrue(any(re.match(re.escape(gone["address"]) + r" +ejected .*version=\d", line) for line in lines), lines)

    def test_calls_in_hand_are_counted_whichever_loop_has_them(self):
        held, leave = [], threading.Event()
        self.addCleanup(leave.set)
        app = self.app(lambda r: held.append(r) or leave.wait(60) and Reply(200))
        self.sidecar("callee", app)
        caller = self.sidecar("caller")
        threads = [threading.Thread(target=lambda: self.quiet(caller), daemon=True) for _ in range(6)]
        for thread in threads:
            thread.start()
        wait_for("six calls", lambda: len(held) == 6)
        self.assertEqual(self.endpoints(caller)[0]["instances"][0]["pending"], 6)
        leave.set()
        for thread in threads:
            thread.join()
        wait_for("their end", lambda: self.endpoints(caller)[0]["instances"][0]["pending"] == 0)

    def quiet(self, caller):
        caller.invoke("callee", "x", "POST")

    @tag("debug")
    def test_who_may_ask_and_how_not_to(self):
        secret = self.sidecar("caller", env={"DAPR_API_TOKEN": "secret"})
        self.assertEqual(secret.call("GET", "/v1.0/outrigger/endpoints").status, 401)
        done = self.outrigger("endpoints", *self.at(secret))
        self.assertEqual(done.returncode, 1)
        self.assertIn("401", done.stderr)
        self.assertEqual(self.endpoints(secret, env={"DAPR_API_TOKEN": "secret"}), [])
        for flags, text in (([], "required"), (["--address", "nonsense"], "HOST:PORT"), (["--app-id", "x"], "x"),
                            (["--app-id", "x", *self.at(secret)], "not both"), (["a", "b", *self.at(secret)], "unexpected")):
            done = self.outrigger("endpoints", *flags)
            self.assertNotEqual(done.returncode, 0, flags)
            self.assertIn(text, done.stderr)
        closed = self.sidecar("closed", config="apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata: {name: c}\nspec:\n"
                                               "  api: {allowed: [{name: invoke, version: v1, protocol: http}]}\n")
        self.assertEqual(closed.call("GET", "/v1.0/outrigger/endpoints").status, 404)

    def test_completion_knows_the_command(self):
        for shell in ("bash", "zsh", "fish"):
            self.assertIn("endpoints", self.outrigger("completion", shell).stdout)
