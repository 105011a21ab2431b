"""Late calls that are made a second time (TrafficPolicy, spec.hedge), real processes. Who wins, what is kept within which share and what
a race may not do is held on a virtual clock (tests/unit/mesh/test_race, tests/sim/sim_invoke)."""
import re
import threading

from harness import Case, Reply, hold, tag, wait_for

POLICY = """
apiVersion: outrigger.io/v1alpha1
kind: TrafficPolicy
metadata: {name: hedging}
spec:
  targets: [callee]
  hedge: {after: 20ms, maxPercent: 100}
"""


class Hedging(Case):
    def fleet(self, handlers):
        apps = [self.app(handler) for handler in handlers]
        for app in apps:
            self.sidecar("callee", app)
        caller = self.sidecar("caller", resources={"traffic.yaml": POLICY})
        wait_for("all instances", lambda: caller.invoke("callee", "hello").status and all(app.seen("/hello") for app in apps))
        return caller, apps

    def made(self, caller):
        found = re.search(r'outrigger_hedges_total\{app_id="caller",outcome="made",target="callee"\} (\d+)', caller.metrics())
        return int(found.group(1)) if found else 0

    @tag("debug")
    def test_a_late_call_is_answered_by_another_instance_and_the_first_is_told_to_stop(self):
        gone, lock, met = threading.Event(), threading.Lock(), []

        def work(request):
            if request.path != "/work":
                return Reply(200, b"")
            with lock:
                met.append(request)
                is_first = len(met) == 1
            if not is_first:
                return Reply(200, b"well")
            return hold(request, gone)
        caller, _ = self.fleet([work] * 2)
        before = self.made(caller)  # a slow machine may have hedged the first ones
        answer = caller.invoke("callee", "work", "PUT", [], b"body")
        self.assertEqual((answer.status, answer.body), (200, b"well"))
        self.assertTrue(gone.wait(30))
        self.assertEqual([request.body for request in met], [b"body"] * 2)
        self.assertEqual(self.made(caller), before + 1)

    @tag("debug")
    def test_a_deadline_ends_both_and_what_may_be_made_once_only_reached_one(self):
        gone = threading.Semaphore(0)

        def never(request):
            if request.path == "/hello":
                return Reply(200, b"")
            return hold(request, gone)
        caller, apps = self.fleet([never] * 2)
        for verb, count in (("GET", 2), ("POST", 1)):
            path = "/" + verb.lower()
            answer = caller.invoke("callee", path[1:], verb, [("outrigger-timeout", "1S")])
            self.assertEqual(answer.status, 504)
            for _ in range(count):
                self.assertTrue(gone.acquire(timeout=30))
            self.assertEqual(sum(len(app.seen(path)) for app in apps), count)
