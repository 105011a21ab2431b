"""What is promised of calls between apps, a test for each promise, by counts: real processes, no figure that depends on
how fast the machine is. Exact invariants over seeds are tests/sim's; times and shares beside Envoy's are measured by
tests/bench (README, "Figures")."""
import threading
import time

from harness import Case, Client, Reply, tag, wait_for

BREAKER = """apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: net}
spec:
  policies: {circuitBreakers: {trip: {maxRequests: 1, timeout: 60s, trip: consecutiveFailures >= 3}}}
  targets: {apps: {callee: {circuitBreaker: trip}}}
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
    def fleet(self, handlers, **more):
        """A caller and an instance for each handler, all of them reached by /hello."""
        apps = [self.app(self.after_hello(handler)) for handler in handlers]
        sidecars = [self.sidecar("callee", app) for app in apps]
        caller = self.sidecar("caller", **more)
        wait_for("all instances", lambda: caller.invoke("callee", "hello").status and all(app.seen("/hello") for app in apps))
        return caller, sidecars, apps

    @staticmethod
    def after_hello(handler):
        return lambda request: Reply(200, b"") if request.path == "/hello" or not handler else handler(request)

    def ejections(self, caller):
        return sum(float(line.rsplit(" ", 1)[1]) for line in caller.metrics().splitlines()
                   if line.startswith("outrigger_ejections_total{") and 'change="ejected"' in line)

    @tag("debug")
    def test_fastest_instance(self):
        """The slow one of five gets 1.5 % of the calls at most."""
        def slow(_):
            time.sleep(1)
            return Reply(200, b"")
        caller, _, apps = self.fleet([slow] + [None] * 4)
        self.assertEqual(set(Crowd(caller, 4, 1000).statuses), {200})
        self.assertLessEqual(len(apps[0].seen("/work")), 15)
        self.assertTrue(all(len(app.seen("/work")) > 50 for app in apps[1:]))

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
        for verb, headers, body, is_repeated in (("GET", [], None, True), ("DELETE", [], None, True), ("POST", [], b"x", False),
                                                 ("PATCH", [], b"x", False), ("POST", [("Idempotency-Key", "1")], None, True)):
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
            request.sock.settimeout(30)
            if request.sock.recv(1) == b"":
                gone.set()
            return None
        app = self.app(work)
        self.sidecar("callee", app, flags=["--app-max-concurrency", "1"])
        caller = self.sidecar("caller")
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
