"""What the mesh does, as the command line and the API of a sidecar show it."""
import json
import os
import re
import subprocess
import threading
import time

from grpc_client import Client as GrpcClient
from grpc_client import needs_grpc
from harness import BIN, SLOW, WAIT_S, Case, Client, Reply, tag, wait_for


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

    @needs_grpc
    def test_metadata_tells_it_to_who_asks(self):
        caller = self.sidecar("caller")
        callee = self.sidecar("callee", self.app())
        caller.invoke("callee", "x")
        ask = [("outrigger-endpoints", "callee")]
        self.assertNotIn("outrigger.endpoints", caller.call("GET", "/v1.0/metadata").json["extended"])
        with GrpcClient(caller.grpc) as client:
            plain = client.call("Dapr/GetMetadata").response["extended_metadata"]
            asked = client.call("Dapr/GetMetadata", None, ask).response["extended_metadata"]
        self.assertNotIn("outrigger.endpoints", plain)
        for text in (asked["outrigger.endpoints"], caller.call("GET", "/v1.0/metadata", ask).json["extended"]["outrigger.endpoints"],
                     caller.call("GET", "/v1.0/metadata", [("outrigger-endpoints", "*")]).json["extended"]["outrigger.endpoints"]):
            told, = json.loads(text)["callees"]
            self.assertEqual(told["name"], "callee.default")
            self.assertTrue(told["instances"][0]["address"].endswith(":%d" % callee.internal))

    def test_completion_knows_the_command(self):
        for shell in ("bash", "zsh", "fish"):
            self.assertIn("endpoints", self.outrigger("completion", shell).stdout)


TRAFFIC = """apiVersion: outrigger.io/v1alpha1
kind: TrafficPolicy
metadata: {name: shop}
spec:
  targets: [callee]
  subsets:
  - {name: one, labels: {version: "1"}}
  - {name: two, labels: {version: "2"}}
  routes:
  - name: canary
    match: [{path: {prefix: /orders}, methods: [GET], headers: [{name: X-Canary, exact: "yes"}]}]
    to: [{subset: two}]
    timeout: 2s
    fallback: one
  - name: split
    match: [{path: {prefix: /orders}}]
    to: [{subset: one, weight: 99}, {subset: two, weight: 1}]
    retry: {attempts: 2, tryTimeout: 300ms, httpCodes: "502-504"}
    mirror: {subset: two, percent: 10, compare: true}
    fault: {expires: "%s", delay: {duration: 50ms, percent: 5}}
  - name: insiders
    match: [{claims: [{name: role, exact: admin}]}, {query: [{name: as, exact: admin}]}]
    to: [{subset: two}]
  environment: {baggage: environment, label: environment, fallback: prod}
---
apiVersion: outrigger.io/v1alpha1
kind: TrafficPolicy
metadata: {name: elsewhere}
spec:
  targets: [other]
  routes: [{name: slow, timeout: 9s}]
"""
RESILIENCY = """apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: net}
spec:
  policies: {timeouts: {quick: 3s}, retries: {thrice: {policy: constant, duration: 10ms, maxRetries: 3}}}
  targets: {apps: {callee: {timeout: quick, retry: thrice}}}
"""


class Routes(Seeing):
    def explain(self, sidecar, *words):
        done = self.outrigger("route", "explain", *words, *self.at(sidecar), "-o", "json")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return json.loads(done.stdout)

    def caller(self):
        expires = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3600))
        return self.sidecar("caller", resources={"t.yaml": TRAFFIC % expires, "r.yaml": RESILIENCY})

    @tag("debug")
    def test_a_call_is_told_its_route_and_why_not_the_others(self):
        caller = self.caller()
        for labels in ("version=1,environment=prod", "version=2,environment=prod", "version=2,environment=test"):
            self.sidecar("callee", self.app(), flags=["--labels", labels])
        wait_for("all instances", lambda: caller.invoke("callee", "other").status == 200 and
                 len(self.endpoints(caller, "callee")[0]["instances"]) == 3)
        told = self.explain(caller, "callee", "/orders/1?x=1", "-H", "x-canary: yes", "-b", "environment=test")
        self.assertEqual((told["app"], told["method"], told["path"]), ("callee.default", "GET", "/orders/1?x=1"))
        self.assertEqual((told["policy"], told["route"], told["subset"], told["timeoutMs"]), ("shop", "canary", "two", 2000))
        self.assertEqual(told["environment"]["name"], "test")
        self.assertEqual([(i["labels"], i["known"]) for i in told["instances"]], [
            ({"environment": "test", "version": "2"}, 1), ({"environment": "test", "version": "1"}, 0),
            ({"environment": "prod", "version": "2"}, 1), ({"environment": "prod", "version": "1"}, 1)])
        self.assertEqual(told["resiliency"]["timeoutMs"], 3000)
        self.assertEqual((told["resiliency"]["retries"], told["resiliency"]["builtInRetries"]), (3, False))
        self.assertEqual([(o["policy"], o["route"], o["why"]) for o in told["others"]], [
            ("shop", "split", "less specific, or read later"), ("shop", "insiders", "claims role"), ("elsewhere", "slow", "targets")])

        told = self.explain(caller, "callee", "orders", "-m", "POST")
        self.assertEqual((told["route"], told["path"]), ("split", "/orders"))
        self.assertEqual([(s["subset"], s["weight"], s["percent"]) for s in told["splits"]], [("one", 99, 99), ("two", 1, 1)])
        self.assertEqual(told["retry"], {"attempts": 2, "tryTimeoutMs": 300, "httpCodes": "502-504"})
        self.assertEqual(told["mirror"], {"app": "callee", "subset": "two", "percent": 10, "compare": True})
        self.assertEqual((told["fault"]["active"], told["fault"]["delayMs"], told["fault"]["delayPercent"]), (True, 50, 5))
        self.assertEqual({o["route"]: o["why"] for o in told["others"]}["canary"], "methods POST")
        self.assertEqual(told["environment"]["name"], "prod")

        self.assertEqual(self.explain(caller, "callee", "/x", "--claim", "role=admin")["route"], "insiders")
        self.assertEqual(self.explain(caller, "callee", "/x?as=admin")["route"], "insiders")
        told = self.explain(caller, "callee", "/x")
        self.assertNotIn("route", told)
        self.assertEqual({o["route"]: o["why"] for o in told["others"]}["canary"], "path")
        self.assertEqual(self.explain(caller, "other", "/x")["timeoutMs"], 9000)

        text = self.outrigger("route", "explain", "callee", "/orders/1", "-H", "X-Canary: yes", *self.at(caller)).stdout
        self.assertRegex(text, r"(?m)^GET /orders/1 of callee\.default$")
        self.assertRegex(text, r"(?m)^route +canary of TrafficPolicy shop$")
        self.assertRegex(text, r"(?m)^not taken +split of shop: less specific, or read later$")

    def test_without_policies_it_is_any_instance(self):
        caller = self.sidecar("caller")
        told = self.explain(caller, "callee", "/x")
        self.assertEqual((told["instances"], told["others"]), ([{"labels": {}}], []))
        self.assertNotIn("policy", told)
        self.assertTrue(told["resiliency"]["builtInRetries"])
        self.assertEqual(told["rules"]["ejection"]["maxPercent"], 50)
        self.assertIn("none: any instance", self.outrigger("route", "explain", "callee", "/x", *self.at(caller)).stdout)

    @tag("debug")
    def test_a_call_to_the_own_app_goes_by_no_policy(self):
        expires = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3600))
        caller = self.sidecar("callee", self.app(), resources={"t.yaml": TRAFFIC % expires})
        self.assertEqual(caller.invoke("callee", "orders/1", "POST").status, 200)
        told = self.explain(caller, "callee", "/orders/1", "-m", "POST")
        self.assertEqual((told["app"], told["isOwn"]), ("callee.default", True))
        self.assertEqual(set(told) & {"policy", "route", "splits", "instances", "fault", "mirror", "rules", "others"}, set())
        self.assertFalse(told["resiliency"]["builtInRetries"])
        self.assertEqual(self.explain(caller, "callee.other", "/orders/1", "-m", "POST")["route"], "split")
        self.assertIn("none: the sidecar's own app", self.outrigger("route", "explain", "callee", "/x", *self.at(caller)).stdout)

    @tag("debug")
    def test_questions_that_make_no_sense_are_refused(self):
        caller = self.caller()
        for body, text in ((b"{", "byte"), (b"[]", "not an object"), (b"{}", "app and path are required"),
                           (b'{"app":"a","path":"/","more":1}', 'unknown field "more"'), (b'{"app":1,"path":"/"}', "app: not a text"),
                           (b'{"app":"a","path":"/","headers":{"a":1}}', "headers: values are texts"),
                           (b'{"app":"a","path":"/","headers":[]}', "headers: not an object"),
                           (b'{"app":"a","path":"/","claims":"x"}', "claims: not an object")):
            answer = caller.call("POST", "/v1.0/outrigger/route", [], body)
            self.assertEqual(answer.status, 400, body)
            self.assertIn(text, answer.json["message"])
        for words, text in ((["explain", "callee"], "required"), (["list", "callee", "/x"], "explain"),
                            (["explain", "callee", "/x", "-H", "nonsense"], "NAME:VALUE"),
                            (["explain", "callee", "/x", "-b", "nonsense"], "NAME=VALUE"),
                            (["explain", "callee", "/x", "--claim", "=x"], "NAME=VALUE"),
                            (["explain", "callee", "/x"] + ["-H", "a:b"] * 65, "more than 64")):
            done = self.outrigger("route", *words, *self.at(caller))
            self.assertEqual(done.returncode, 2, words)
            self.assertIn(text, done.stderr)


class Metrics(Seeing):
    def of_instances(self, sidecar, name):
        """{(instance's port, outcome): value}"""
        lines = re.findall(r'^%s\{app_id="caller",instance="[^"]*:(\d+)"(?:,outcome="(\w+)")?,target="callee.default"\} (\S+)$' % name,
                           sidecar.metrics(), re.M)
        return {(int(port), outcome): float(value) for port, outcome, value in lines}

    @tag("debug", "tsan")
    def test_each_instance_that_is_called_has_its_figures(self):
        caller, app = self.sidecar("caller"), self.app(lambda r: Reply({"/ok": 200, "/busy": 429, "/bad": 500}[r.path]))
        self.assertNotIn("outrigger_endpoint", caller.metrics())
        callee = self.sidecar("callee", app)
        for path, count in (("ok", 5), ("busy", 2), ("bad", 3)):
            for _ in range(count):
                caller.invoke("callee", path, "POST")
        port = callee.internal
        self.assertEqual(self.of_instances(caller, "outrigger_endpoint_outcomes_total"),
                         {(port, "good"): 5, (port, "load"): 2, (port, "failure"): 3})
        self.assertEqual(self.of_instances(caller, "outrigger_endpoint_pending"), {(port, ""): 0})
        self.assertGreater(self.of_instances(caller, "outrigger_endpoint_score_ms")[port, ""], 0)
        self.assertEqual(self.of_instances(caller, "outrigger_endpoint_is_used"), {(port, ""): 1})


RULES = """apiVersion: outrigger.io/v1alpha1
kind: TrafficPolicy
metadata: {name: t}
spec:
  subsets: [{name: one, labels: {v: "1"}}, {name: two, labels: {v: "2"}}]
  routes: [{name: r, match: [{path: {prefix: /a}}], to: [{subset: one, weight: 1}, {subset: two, weight: 1}],
            sticky: {header: x-user}, fallback: any}]
  hedge: {percentile: 95}
  inbound:
    concurrency: {}
    rateLimits: [{name: l, per: "header:x-user", requests: 1000000, buckets: 64}]
---
apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: net}
spec:
  policies:
    timeouts: {quick: 10s}
    circuitBreakers: {trip: {maxRequests: 1, timeout: 60s, trip: consecutiveFailures >= 3}}
  targets: {apps: {callee: {timeout: quick, circuitBreaker: trip}}}
"""


class Bounded(Seeing):
    BATCH, PAUSE = 6000 if SLOW == 1 else 600, 60
    BATCHES_MAX, GROWTH_MAX_KIB = 8, 400  # some 70 bytes a URL; what an allocator keeps for a burst comes once or twice

    def ask_many(self, port, first, count):
        """Requests that have nothing in common: paths, headers, queries, callees that nobody has."""
        with Client(port) as client:
            for at in range(first, first + count, self.PAUSE):
                for n in range(at, at + self.PAUSE):
                    client.send("GET /v1.0/invoke/callee/method/a/%d/b?q=%d HTTP/1.1\r\nHost: h%d\r\nx-user: u%d\r\n"
                                "traceparent: 00-%032x-%016x-01\r\nbaggage: k%d=v\r\n\r\n" % ((n,) * 4 + (n + 1, n + 1, n)))
                for _ in range(self.PAUSE):
                    assert client.read_answer().status == 200

    def test_distinct_urls_take_no_memory(self):
        """After a first batch there is one, whose every path, header and query is new, that adds no series and no memory."""
        app = self.app(lambda r: app.requests.clear() or Reply(200))
        rules = {"t.yaml": RULES}
        one_loop = {"OUTRIGGER_LOOPS": "1"}  # what labels may take is counted by each loop
        caller = self.sidecar("caller", resources=rules, env=one_loop)
        callee = self.sidecar("callee", app, resources=rules, env=one_loop)

        def series():
            return [set(re.findall(r"^(\w[^\n]*) \S+$", s.metrics(), re.MULTILINE)) for s in (caller, callee)]

        def measure():
            return [s.rss_kib("RssAnon") for s in (caller, callee)]
        self.ask_many(caller.http, 0, self.BATCH)
        known = series()  # not between what is compared: a scrape takes a megabyte for a moment
        before = measure()
        for batch in range(1, self.BATCHES_MAX):
            self.ask_many(caller.http, batch * self.BATCH, self.BATCH)
            after = measure()
            grown = {name: b - a for name, a, b in zip(("caller", "callee"), before, after)}
            if max(grown.values()) <= self.GROWTH_MAX_KIB:
                break
            before = after
        for had, has in zip(known, series()):  # a call that is late or lost may be the first one of its kind
            self.assertLess(len(has - had), 20, sorted(has - had)[:40])
        self.assertLessEqual(max(grown.values()), self.GROWTH_MAX_KIB, "KiB with each %d URLs: %r" % (self.BATCH, grown))
