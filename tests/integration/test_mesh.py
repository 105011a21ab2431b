"""Several instances of one app, real processes: which one gets a call, and what a failing one costs. Exact figures and
invariants are held on a virtual clock (tests/sim/sim_cluster, sim_invoke, tests/unit/mesh/test_cluster, test_tries)."""
import threading
import time

from harness import Case, Client, Reply, hold, tag, wait_for


class Mesh(Case):
    def fleet(self, handlers):
        """A caller and an instance for each handler."""
        apps = [self.app(handler) for handler in handlers]
        sidecars = [self.sidecar("callee", app) for app in apps]
        caller = self.sidecar("caller", env={"OUTRIGGER_LOOPS": "4"})  # they find out together, on any number of cores
        # whoever registered last is known: all have been reached
        wait_for("all instances", lambda: caller.invoke("callee", "hello").status and all(app.seen("/hello") for app in apps))
        return caller, sidecars, apps

    @tag("debug", "tsan")
    def test_a_slow_instance_gets_next_to_nothing(self):
        over = threading.Event()
        self.addCleanup(over.set)

        def slow(request):
            if request.path == "/work":
                over.wait(1)
            return Reply(200, b"slow")
        caller, _, apps = self.fleet([slow] + [lambda r: Reply(200, b"fast")] * 4)
        began = time.monotonic()

        def work():
            self.assertEqual([caller.invoke("callee", "work").status for _ in range(100)], [200] * 100)
            return all(len(app.seen("/work")) > 20 for app in apps[1:])
        wait_for("a share for all others", work)
        # one call finds it out, for all loops, and one each ten seconds whether it has recovered
        self.assertLess(len(apps[0].seen("/work")), 6 + (time.monotonic() - began) / 5)

    @tag("debug")
    def test_an_instance_that_fails_costs_no_idempotent_call(self):
        bad = lambda r: Reply(503 if r.path == "/work" else 200, b"")
        caller, _, apps = self.fleet([bad] + [lambda r: Reply(200, b"")] * 2)

        def work():
            self.assertEqual([caller.invoke("callee", "work").status for _ in range(100)], [200] * 100)
            return apps[0].seen("/work")
        wait_for("a call that fails", work)
        self.assertLess(len(apps[0].seen("/work")), 10)  # five, and one each time that it is probed
        self.assertRegex(caller.metrics(), r'outrigger_retries_total\{app_id="caller",outcome="made",target="callee"\}')

    def test_pitfall_18_a_post_that_was_sent_is_answered_by_whom_it_reached(self):
        bad = lambda r: Reply(503 if r.path == "/work" else 200, b"")
        caller, _, apps = self.fleet([bad] + [lambda r: Reply(200, b"")] * 2)
        statuses = [caller.invoke("callee", "work", "POST", [], b"x").status for _ in range(200)]
        self.assertEqual(statuses.count(503), len(apps[0].seen("/work")))
        self.assertEqual(sum(len(app.seen("/work")) for app in apps), 200)
        self.assertLess(statuses.count(503), 10)

    @tag("debug")
    def test_pitfall_30_two_instances_one_dies(self):
        caller, sidecars, apps = self.fleet([lambda r: Reply(200, b"")] * 2)
        sidecars[0].may_end = True
        sidecars[0].kill()
        self.assertEqual([caller.invoke("callee", "work", "POST", [], b"x").status for _ in range(50)], [200] * 50)
        self.assertEqual(len(apps[1].seen("/work")), 50)

    POLICY = """apiVersion: outrigger.io/v1alpha1
kind: TrafficPolicy
metadata: {name: near}
spec: %s
"""

    @tag("debug")
    def test_the_own_zone_goes_first_and_the_other_one_when_it_is_away(self):
        apps = [self.app(lambda r: Reply(200, b"")) for _ in range(3)]
        callees = [self.sidecar("callee", app, env={"OUTRIGGER_LABELS": "zone=" + zone}) for app, zone in zip(apps, "abb")]
        caller = self.sidecar("caller", env={"OUTRIGGER_LOOPS": "2", "OUTRIGGER_LABELS": "zone=a"},
                              resources={"near.yaml": self.POLICY % "{targets: [callee], locality: {label: zone}}"})
        self.assertEqual([caller.invoke("callee", "work").status for _ in range(60)], [200] * 60)
        self.assertEqual([len(app.seen("/work")) for app in apps], [60, 0, 0])
        callees[0].may_end = True
        callees[0].kill()
        self.assertEqual([caller.invoke("callee", "work").status for _ in range(60)], [200] * 60)
        self.assertEqual(sum(len(app.seen("/work")) for app in apps[1:]), 60)

    @tag("debug")
    def test_one_that_is_started_anew_at_its_address_is_called_though_it_was_ejected(self):
        apps = [self.app(lambda r: Reply(200, b"")) for _ in range(2)]
        callees = [self.sidecar("callee", app) for app in apps]
        spec = "{ejection: {consecutive: 1, baseTime: 1h, maxTime: 1h}}"
        caller = self.sidecar("caller", env={"OUTRIGGER_LOOPS": "4"}, resources={"near.yaml": self.POLICY % spec})
        wait_for("both", lambda: caller.invoke("callee", "hello").status and all(app.seen("/hello") for app in apps))
        callees[0].may_end = True
        callees[0].kill()

        def is_ejected():
            self.assertEqual(caller.invoke("callee", "work").status, 200)
            return 'change="ejected"' in caller.metrics()
        wait_for("its ejection", is_ejected)
        before = len(apps[0].seen("/work"))
        callees[0].start()
        wait_for("a call", lambda: caller.invoke("callee", "work").status == 200 and len(apps[0].seen("/work")) > before)

    @tag("debug", "tsan")
    def test_an_ejected_instance_that_says_it_is_well_is_probed_at_once(self):
        is_well = threading.Event()

        def work(request):
            return Reply(200 if is_well.is_set() or request.path == "/hello" else 500, b"")
        apps = [self.app(work), self.app(lambda r: Reply(200, b""))]
        for app in apps:
            self.sidecar("callee", app)
        spec = "{ejection: {consecutive: 1, baseTime: 1h, maxTime: 1h}, healthCheck: {path: /healthz, interval: 100ms}}"
        caller = self.sidecar("caller", env={"OUTRIGGER_LOOPS": "2"}, resources={"near.yaml": self.POLICY % spec})
        wait_for("the bad one", lambda: caller.invoke("callee", "work").status == 500)
        wait_for("a check", lambda: len(apps[0].seen("/healthz")) > 2)
        before = len(apps[0].seen("/work"))
        self.assertEqual([caller.invoke("callee", "work", "POST", [], b"x").status for _ in range(20)], [200] * 20)
        self.assertEqual(len(apps[0].seen("/work")), before)
        is_well.set()
        wait_for("a call", lambda: caller.invoke("callee", "work").status and len(apps[0].seen("/work")) > before)
        wait_for("no more checks", lambda: 'change="revived"' in caller.metrics())

    @tag("debug")
    def test_a_deadline_is_kept_and_ends_the_work_at_the_app(self):
        left, gone = [], threading.Event()

        def work(request):
            if request.path != "/work":
                return Reply(200, b"")
            left.append(request.header("outrigger-timeout"))
            return hold(request, gone)
        caller, _, apps = self.fleet([work])
        answer = caller.invoke("callee", "work", "GET", [("outrigger-timeout", "300m")])
        self.assertEqual((answer.status, answer.json["errorCode"]), (504, "ERR_DIRECT_INVOKE"))
        self.assertTrue(gone.wait(30))
        self.assertRegex(left[0], r"^\d+[mun]$")
        self.assertEqual(len(apps[0].seen("/work")), 1)
        bad = caller.invoke("callee", "work", "GET", [("outrigger-timeout", "soon")])
        self.assertEqual((bad.status, len(apps[0].seen("/work"))), (400, 1))

    @tag("debug")
    def test_a_client_that_leaves_ends_the_work_at_the_app(self):
        begun, gone = threading.Event(), threading.Event()

        def work(request):
            if request.path != "/work":
                return Reply(200, b"")
            begun.set()
            return hold(request, gone)
        caller, _, _ = self.fleet([work])
        with Client(caller.http) as client:
            client.send_request("GET", "/v1.0/invoke/callee/method/work")
            self.assertTrue(begun.wait(30))
        self.assertTrue(gone.wait(30))
