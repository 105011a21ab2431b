"""What is promised of calls between apps, a test for each promise, by counts: real processes, no figure that depends on
how fast the machine is. Exact invariants over seeds are tests/sim's; times and shares beside Envoy's are measured by
tests/bench (README, "Figures")."""
import datetime
import threading
import time

from harness import Case, Client, Reply, hold, tag, wait_for

BREAKER = """apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: net}
spec:
  policies: {circuitBreakers: {trip: {maxRequests: 1, timeout: 60s, trip: consecutiveFailures >= 3}}}
  targets: {apps: {callee: {circuitBreaker: trip}}}
"""
POLICY = """apiVersion: outrigger.io/v1alpha1
kind: TrafficPolicy
metadata: {name: p}
spec:
"""
VERSIONS = """  targets: [callee]
  subsets:
  - {name: one, labels: {version: "1"}}
  - {name: two, labels: {version: "2"}}
  routes:
  - match: [{path: {exact: /hello}}]
"""


class Crowd:
    """Clients that each call, wait, and call again; so many calls in all."""

    def __init__(self, caller, clients, calls, method="work", verb="GET", body=None, headers=()):
        self.caller, self.left, self.lock, self.statuses = caller, calls, threading.Lock(), []
        self.what = (verb, "/v1.0/invoke/callee/method/" + method, headers, body)
        threads = [threading.Thread(target=self.run, daemon=True) for _ in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def run(self):
        with Client(self.caller.http) as client:
            while True:
                with self.lock:
                    if self.left == 0:
                        return
                    self.left -= 1
                status = client.call(*self.what).status
                with self.lock:
                    self.statuses.append(status)


class Bars(Case):
    def fleet(self, handlers, labels=None, **more):
        """A caller and an instance for each handler, all of them reached by /hello."""
        apps = [self.app(self.after_hello(handler)) for handler in handlers]
        sidecars = [self.sidecar("callee", app, flags=["--labels", labels[i]] if labels else []) for i, app in enumerate(apps)]
        caller = self.sidecar("caller", **more)
        wait_for("all instances", lambda: caller.invoke("callee", "hello").status and all(app.seen("/hello") for app in apps))
        return caller, sidecars, apps

    @staticmethod
    def after_hello(handler):
        return lambda request: Reply(200, b"") if request.path == "/hello" or not handler else handler(request)

    @staticmethod
    def ejections(caller):
        return sum(float(line.rsplit(" ", 1)[1]) for line in caller.metrics().splitlines()
                   if line.startswith("outrigger_ejections_total{") and 'change="ejected"' in line)

    @tag("debug")
    def test_fastest_instance(self):
        """The slow one of five gets 1.5 % of the calls at most."""
        over = threading.Event()

        def slow(_):
            over.wait(1)
            return Reply(200, b"")
        caller, _, apps = self.fleet([slow] + [None] * 4)
        self.assertEqual(set(Crowd(caller, 4, 1000).statuses), {200})
        over.set()
        self.assertLessEqual(len(apps[0].seen("/work")), 15)
        self.assertTrue(all(app.seen("/work") for app in apps[1:]))

    @tag("debug")
    def test_slow_start(self):
        """One that comes to the others has its share after the time that is said; half of it at most in the first half."""
        caller, _, apps = self.fleet([None] * 2, resources={"p.yaml": POLICY + "  slowStart: 2s\n"})
        wait_for("the others' ramps", lambda: all(i["state"] == "ok" for i in self.instances(caller)))
        app = self.app()
        sidecar = self.sidecar("callee", app)
        made, hits = 0, 0

        def new():
            caller.invoke("callee", "hello")
            return next((i for i in self.instances(caller) if i["address"].endswith(":%d" % sidecar.internal)), None)
        wait_for("the new instance", new)
        while True:
            Crowd(caller, 2, 60)
            if new()["share"] >= 0.5:
                break
            made, hits = made + 60, len(app.seen("/work"))
        self.assertLessEqual(hits, made / 3 / 2 + 10)
        wait_for("its ramp", lambda: new()["state"] == "ok")

        def has_its_share():  # a sixth; in the end: what held its process up for a moment counts as an answer of its own
            app.requests.clear()
            Crowd(caller, 2, 300)
            return len(app.seen("/work")) > 50
        wait_for("its share", has_its_share, 60)

    @staticmethod
    def instances(caller):
        return caller.call("GET", "/v1.0/outrigger/endpoints/callee").json["callees"][0]["instances"]

    @tag("debug")
    def test_ejection_and_re_try(self):
        """Five failures in a row eject an instance; then one call probes it, and when that fails there is no second."""
        bad = lambda _: Reply(503, b"")
        caller, _, apps = self.fleet([bad] * 3)  # all of them, else it would hardly be called
        with Client(caller.http) as client:
            def post(times):
                return sum(client.call("POST", "/v1.0/invoke/callee/method/work", [], b"x").status == 503 for _ in range(times))
            while self.ejections(caller) == 0:
                post(1)
                self.assertLessEqual(max(len(app.seen("/work")) for app in apps), 5)
            ejected = next(app for app in apps if len(app.seen("/work")) == 5)
            for app in apps:
                app.handler = bad if app is ejected else None
            failed = 0
            while len(ejected.seen("/work")) == 5:
                failed += post(1)
            self.assertEqual((failed + post(100), len(ejected.seen("/work"))), (1, 6))

    @tag("debug")
    def test_ejection_of_one_that_fails_half_of_the_time(self):
        """Within twenty of the calls that it gets."""
        turns = [0, 0, 0]

        def every_other(i):
            turns[i] += 1
            return Reply(503 if turns[i] % 2 else 200, b"")
        caller, _, apps = self.fleet([lambda _, i=i: every_other(i) for i in range(3)])
        with Client(caller.http) as client:
            while self.ejections(caller) == 0:
                client.call("POST", "/v1.0/invoke/callee/method/work", [], b"x")
                self.assertLessEqual(min(len(app.seen("/work")) for app in apps), 20)

    @tag("debug")
    def test_retries(self):
        """Another instance first, what may be made twice only, and never what an instance may have done."""
        bad = [True] * 3
        caller, _, apps = self.fleet([lambda _, i=i: Reply(503 if bad[i] else 200, b"") for i in range(3)])
        for verb, headers, body, is_repeated in (("GET", [], None, True), ("PUT", [], b"x", True), ("POST", [], b"x", False),
                                                 ("PATCH", [], b"x", False), ("POST", [("Idempotency-Key", "1")], b"x", True)):
            with self.subTest(verb=verb, headers=headers):
                before = [len(app.seen("/work")) for app in apps]
                bad[:] = [True, True, True]  # whoever is asked fails, and all are alike afterwards
                statuses = [caller.invoke("callee", "work", verb, headers, body).status for _ in range(3)]
                made = sum(len(app.seen("/work")) for app in apps) - sum(before)
                self.assertEqual((statuses, made), ([503] * 3, 6 if is_repeated else 3))

    @tag("debug")
    def test_retry_budget(self):
        """All fail: a fifth of the calls is made again, and one for each second of the last ten."""
        caller, _, apps = self.fleet([lambda _: Reply(503, b"")] * 3)
        for clients in (4, 20):
            before, began = sum(len(app.seen("/work")) for app in apps), time.monotonic()
            crowd = Crowd(caller, clients, 500)
            reached = sum(len(app.seen("/work")) for app in apps) - before
            self.assertEqual(set(crowd.statuses), {503})
            self.assertGreater(reached, 550)
            self.assertLessEqual(reached, 1.2 * 500 + (time.monotonic() - began) + 11)

    @tag("debug")
    def test_deadlines(self):
        """What waits for an app that is busy is answered when its deadline is over, and never reaches the app."""
        begun, gone = threading.Event(), threading.Event()

        def work(request):
            if request.path != "/work":
                return Reply(200, b"")
            begun.set()
            return hold(request, gone)
        app = self.app(work)
        self.sidecar("callee", app, flags=["--app-max-concurrency", "1"])
        caller = self.sidecar("caller", env={"OUTRIGGER_LOOPS": "1"})  # one connection: what ends first is heard of first
        with Client(caller.http) as first:
            first.send_request("GET", "/v1.0/invoke/callee/method/work")
            self.assertTrue(begun.wait(30))
            for _ in range(20):
                answer = caller.invoke("callee", "late", "GET", [("outrigger-timeout", "50m")])
                self.assertEqual((answer.status, answer.json["errorCode"]), (504, "ERR_DIRECT_INVOKE"))
        self.assertTrue(gone.wait(30))  # its caller has left
        wait_for("the app's turn", lambda: caller.invoke("callee", "now").status == 200)
        self.assertEqual(app.seen("/late"), [])

    @tag("debug")
    def test_circuit_breaker(self):
        """Three failures open it; from then on calls are answered at once, with the reason, and none reaches the app."""
        app = self.app(lambda _: Reply(500, b"no"))
        self.sidecar("callee", app)
        caller = self.sidecar("caller", resources={"r.yaml": BREAKER})
        answers = [caller.invoke("callee", "work", "POST", [], b"x") for _ in range(20)]
        self.assertEqual([a.body for a in answers[:3]], [b"no"] * 3)
        self.assertTrue(all(b"circuit breaker is open" in a.body for a in answers[3:]), answers)
        self.assertEqual(len(app.seen("/work")), 3)

    @tag("debug")
    def test_status_aware_tolerance(self):
        """429 is load: whoever answers so gets next to nothing and is not ejected; 404 and 501 are answers like others."""
        caller, _, apps = self.fleet([None] * 3)
        for status, is_avoided in ((404, False), (501, False), (429, True)):
            with self.subTest(status=status):
                before = len(apps[0].seen("/work"))
                apps[0].handler = self.after_hello(lambda _, status=status: Reply(status, b""))
                crowd = Crowd(caller, 4, 200)
                reached = len(apps[0].seen("/work")) - before
                self.assertEqual(crowd.statuses.count(status), reached)
                self.assertEqual(self.ejections(caller), 0)
                (self.assertLess if is_avoided else self.assertGreater)(reached, 20)

    @tag("debug")
    def test_hedging(self):
        """All calls are late; one in ten is made twice at most."""
        over = threading.Event()

        def late(_):
            over.wait(0.2)
            return Reply(200, b"")
        caller, _, apps = self.fleet([late] * 3, resources={"p.yaml": POLICY + "  hedge: {after: 10ms, maxPercent: 10}\n"})
        self.assertEqual(set(Crowd(caller, 20, 160).statuses), {200})
        reached = sum(len(app.seen("/work")) for app in apps)
        self.assertGreater(reached, 165)
        self.assertLessEqual(reached, 160 * 1.1 + 10)
        over.set()

    @tag("debug")
    def test_overload(self):
        """What an app cannot take is answered at once: by who is called, and by who calls."""
        for side, spec, most in (("callee", "  inbound: {concurrency: {min: 3, max: 3, initial: 3, queue: 1}}\n", 3),
                                 ("caller", "  limits: {requests: 2, pending: 2}\n", 2)):
            with self.subTest(side=side):
                free, there = threading.Event(), threading.Semaphore(0)

                def hold(_):
                    there.release()
                    free.wait(60)
                    return Reply(200, b"")
                app = self.app(hold)
                policy = {"resources": {"p.yaml": POLICY + spec}}
                callee = self.sidecar("callee", app, **(policy if side == "callee" else {}))
                caller = self.sidecar("caller", **(policy if side == "caller" else {}))
                clients = [Client(caller.http, timeout_s=60) for _ in range(most)]
                for client in clients:
                    client.send_request("POST", "/v1.0/invoke/callee/method/work", body=b"x")
                    self.assertTrue(there.acquire(timeout=30))
                answers = [caller.invoke("callee", "work", "POST", [], b"x") for _ in range(8)]
                self.assertEqual({(a.status, a.header("outrigger-reason")) for a in answers},
                                 {(503, "overloaded" if side == "callee" else "bulkhead_full")})
                self.assertEqual(len(app.seen("/work")), most)
                free.set()
                self.assertEqual([client.read_answer().status for client in clients], [200] * most)
                for client in clients:
                    client.close()
                self.assertEqual((caller.stop(), callee.stop()), (0, 0))

    @tag("debug")
    def test_rate_limit(self):
        """Five at once over all loops and callers, then one an hour; who is refused hears when to come again."""
        limit = "  inbound: {rateLimits: [{name: few, requests: 1, interval: 1h, burst: 5}]}\n"
        app = self.app()
        self.sidecar("callee", app, resources={"p.yaml": POLICY + limit})
        callers = [self.sidecar("caller%d" % i) for i in range(2)]
        answers = [callers[i % 2].invoke("callee", "work", "POST", [], b"x") for i in range(20)]
        self.assertEqual([a.status for a in answers], [200] * 5 + [429] * 15)
        self.assertEqual({a.header("outrigger-reason") for a in answers[5:]}, {"rate_limited"})
        self.assertTrue(all(3000 < int(a.header("retry-after")) <= 3600 for a in answers[5:]))
        self.assertEqual(len(app.seen("/work")), 5)

    @tag("debug")
    def test_route_by_request(self):
        """Path, method, header, query and baggage each send a call where they say, and so does the environment, two hops on."""
        matches = ["path: {prefix: /p}", "methods: [PUT]", "headers: [{name: x-user, exact: ann}]", "query: [{name: beta}]",
                   "baggage: [{name: tier, exact: gold}]"]
        routes = "".join("  - {match: [{%s}], to: [{subset: two, weight: 1}]}\n" % match for match in matches)
        policy = POLICY + VERSIONS + routes + "  - to: [{subset: one, weight: 1}]\n"
        caller, _, _ = self.fleet([lambda _, i=i: Reply(200, b"%d" % (i + 1)) for i in range(2)], ["version=1", "version=2"],
                                  resources={"p.yaml": policy})
        for verb, path, headers, version in (
                ("GET", "x", [], b"1"), ("PUT", "x", [], b"2"), ("GET", "p/x", [], b"2"), ("GET", "px", [], b"1"),
                ("GET", "x", [("x-user", "ann")], b"2"), ("GET", "x", [("x-user", "anne")], b"1"), ("GET", "x?a=1&beta=", [], b"2"),
                ("GET", "x", [("baggage", "a=b, tier=gold;p=1")], b"2"), ("GET", "x", [("baggage", "tier=tin")], b"1")):
            self.assertEqual({caller.invoke("callee", path, verb, headers).body for _ in range(10)}, {version}, (verb, path, headers))

    @tag("debug")
    def test_route_by_request_environment_follows_the_call(self):
        spec = POLICY + "  environment: {fallback: prod}\n"
        ends = {name: self.app(lambda _, name=name: Reply(200, name.encode())) for name in ("prod", "test")}
        middles = []

        def pass_on(i):
            def handler(request):
                return Reply(200, middles[i].invoke("end", "work", headers=[("baggage", request.header("baggage") or "")]).body)
            return handler
        for name, app in ends.items():
            self.sidecar("end", app, flags=["--labels", "environment=" + name])
        middles.append(self.sidecar("middle", self.app(pass_on(0)), flags=["--labels", "environment=prod"], resources={"p.yaml": spec}))
        caller = self.sidecar("caller", resources={"p.yaml": spec})
        for environment, wanted in (("test", b"test"), ("prod", b"prod"), ("none", b"prod")):  # the middle is of prod alone
            with self.subTest(environment=environment):
                answers = {caller.invoke("middle", "work", headers=[("baggage", "environment=" + environment)]).body for _ in range(5)}
                self.assertEqual(answers, {wanted})

    @tag("debug")
    def test_canary_and_mirror(self):
        """1 % of 2000 calls go to the new version; all go there when the file says so, and none fails; each is copied."""
        shadow = self.app()
        self.sidecar("shadow", shadow)
        split = POLICY + VERSIONS + "  - {to: [{subset: one, weight: %d}, {subset: two, weight: %d}], mirror: {appId: shadow, percent: %d}}\n"
        caller, _, apps = self.fleet([None] * 3, ["version=1", "version=1", "version=2"], resources={"p.yaml": split % (99, 1, 0)})
        self.assertEqual(set(Crowd(caller, 4, 2000).statuses), {200})
        self.assertIn(len(apps[2].seen("/work")), range(14, 27))
        statuses, stop = [], threading.Event()

        def go_on():
            with Client(caller.http) as client:
                while not stop.is_set():
                    statuses.append(client.call("POST", "/v1.0/invoke/callee/method/on", [], b"x").status)
        thread = threading.Thread(target=go_on)
        thread.start()
        try:
            caller.write("p.yaml", split % (0, 1, 100))
            wait_for("all traffic", lambda: all(self.last_is(apps[2], caller) for _ in range(10)))
        finally:
            stop.set()
            thread.join()
        self.assertEqual(set(statuses), {200})
        self.assertEqual(set(Crowd(caller, 1, 20, method="copied").statuses), {200})
        wait_for("the copies", lambda: len(shadow.seen("/copied")) == 20)
        self.assertEqual({r.header("outrigger-mirror") for r in shadow.seen("/copied")}, {"1"})
        self.assertEqual({r.header("outrigger-mirror") for r in apps[2].seen("/copied")}, {None})

    @staticmethod
    def last_is(app, caller):
        before = len(app.seen("/which"))
        caller.invoke("callee", "which")
        return len(app.seen("/which")) > before

    @tag("debug")
    def test_fault_injection(self):
        """Until it expires; without a time for that it is an error."""
        app = self.app()
        self.sidecar("callee", app)
        caller = self.sidecar("caller")
        self.assertEqual(caller.invoke("callee", "work").status, 200)
        fault = POLICY + "  targets: [callee]\n  routes:\n  - fault: {expires: %s, abort: {status: 418, percent: 100}}\n"
        caller.write("p.yaml", fault % (datetime.datetime.utcnow() + datetime.timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ"))
        wait_for("the fault", lambda: caller.invoke("callee", "x").status == 418)
        answers = [caller.invoke("callee", "work") for _ in range(10)]
        self.assertEqual({(a.status, a.header("outrigger-reason")) for a in answers}, {(418, "fault_injected")})
        self.assertEqual(len(app.seen("/work")), 1)
        caller.write("p.yaml", fault.replace("expires: %s, ", ""))
        caller.wait_log("p.yaml:7")
        self.assertEqual(caller.invoke("callee", "work").status, 418)
        caller.write("p.yaml", fault % "2020-01-02T15:04:05Z")
        wait_for("its end", lambda: caller.invoke("callee", "work").status == 200)

    @tag("debug")
    def test_discovery(self):
        """One that was killed costs no call; one that comes is used, though nobody calls for it by its name."""
        caller, sidecars, apps = self.fleet([None] * 3)
        sidecars[0].may_end = True
        sidecars[0].kill()
        self.assertEqual(set(Crowd(caller, 4, 200, verb="POST", body=b"x").statuses), {200})
        self.assertEqual(len(apps[0].seen("/work")), 0)
        app = self.app()
        self.sidecar("callee", app)
        wait_for("the new instance", lambda: caller.invoke("callee", "work").status == 200 and app.seen("/work"))
