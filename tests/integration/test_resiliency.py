"""Resiliency policies between real sidecars and around real components. What each policy does is in tests/unit and the
recorded answers (golden group resiliency); here is that it holds over processes, loops and reloads."""
import threading

from harness import Case, Reply, component, tag, wait_for

POLICIES = """apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: net}
spec:
  policies:
    timeouts: {quick: 2s}
    retries:
      thrice: {policy: constant, duration: 10ms, maxRetries: 3}
    circuitBreakers:
      trip: {maxRequests: 1, timeout: 60s, trip: consecutiveFailures >= 3}
  targets: %s
"""
SUBSCRIPTION = """apiVersion: dapr.io/v2alpha1
kind: Subscription
metadata: {name: s}
spec: {pubsubname: ps, topic: t, routes: {default: /event}, deadLetterTopic: dead}
---
apiVersion: dapr.io/v2alpha1
kind: Subscription
metadata: {name: d}
spec: {pubsubname: ps, topic: dead, routes: {default: /dead}}
"""


class Resiliency(Case):
    def caller(self, targets, **more):
        return self.sidecar("caller", resources={"r.yaml": POLICIES % targets}, **more)

    @tag("debug", "tsan")
    def test_a_breaker_counts_for_all_loops(self):
        """Each call comes by a connection of its own, so the loops share them; the third failure opens it for all."""
        app = self.app(lambda r: Reply(500, b"no"))
        self.sidecar("callee", app)
        a = self.caller("{apps: {callee: {circuitBreaker: trip}}}", env={"OUTRIGGER_LOOPS": "4"})
        statuses = [a.invoke("callee", "x") for _ in range(12)]
        self.assertEqual([s.body for s in statuses[:3]], [b"no"] * 3)
        self.assertTrue(all(b"circuit breaker is open" in s.body and s.status == 500 for s in statuses[3:]), statuses)
        self.assertEqual(len(app.seen("/x")), 3)
        self.assertEqual(a.invoke("callee", "y").body, b"no")  # another method has another breaker
        metrics = a.metrics()
        for state, value in (("open", 0), ("closed", 1), ("half-open", 0)):  # told last: the other's
            self.assertRegex(metrics, r'dapr_resiliency_cb_state\{[^}]*status="%s",target="app_callee"\} %d\n' % (state, value))
        self.assertRegex(metrics, r'dapr_resiliency_loaded\{app_id="caller",name="net",namespace=""\} 1')
        self.assertRegex(metrics, r'dapr_resiliency_activations_total\{[^}]*policy="circuitbreaker",status="open",target="app_callee"\} 1')

    def test_pitfall_18_a_post_is_repeated_only_when_a_policy_says_so(self):
        app = self.app(lambda r: Reply(503, b"busy") if len(app.seen(r.path)) < 3 else Reply(200, r.body))
        self.sidecar("callee", app)
        a = self.caller("{apps: {callee: {retry: thrice}}}")
        b = self.sidecar("other")
        answer = a.invoke("callee", "with", "POST", [], b"body")
        self.assertEqual((answer.status, answer.body), (200, b"body"))
        self.assertEqual([r.body for r in app.seen("/with")], [b"body"] * 3)
        self.assertEqual(b.invoke("callee", "without", "POST", [], b"body").status, 503)
        self.assertEqual(len(app.seen("/without")), 1)

    @tag("debug")
    def test_a_changed_policy_holds_without_a_failed_call(self):
        app = self.app(lambda r: Reply(200, b"ok") if r.path == "/ok" else Reply(500, b"no"))
        self.sidecar("callee", app)
        a = self.caller("{apps: {callee: {timeout: quick}}}")
        self.assertEqual(a.invoke("callee", "bad").status, 500)
        over, failed, made = threading.Event(), [], [0]

        def call_on():
            while not over.is_set():
                answer = a.invoke("callee", "ok")
                made[0] += 1
                if answer.status != 200:
                    failed.append(answer)
        thread = threading.Thread(target=call_on)
        thread.start()
        try:
            pid = a.pid
            before = len(app.seen("/bad"))
            a.write("r.yaml", POLICIES % "{apps: {callee: {retry: thrice}}}")

            def is_repeated():
                seen = len(app.seen("/bad"))
                a.invoke("callee", "bad")
                return len(app.seen("/bad")) == seen + 4
            wait_for("the new policy", is_repeated)
            a.write("r.yaml", POLICIES % "{apps: {callee: {retry: thrice, what: 1}")
            a.wait_log("r.yaml")
            self.assertTrue(is_repeated())  # a broken file changes nothing
        finally:
            over.set()
            thread.join()
        self.assertGreater(before, 0)
        self.assertGreater(made[0], 0)
        self.assertEqual(failed, [])
        self.assertEqual(a.pid, pid)

    @tag("debug")
    def test_an_event_is_repeated_by_the_policy_and_then_buried(self):
        app = self.app(lambda r: Reply(200, b"") if r.path == "/dead" else Reply(500, b""))
        ps = component("ps", "pubsub.sqlite", {"connectionString": self.path("ps.db"), "redeliverInterval": "1h"})
        a = self.sidecar("subscriber", app, resources={
            "ps.yaml": ps, "s.yaml": SUBSCRIPTION,
            "r.yaml": POLICIES % "{components: {ps: {inbound: {retry: thrice}}}}"})
        self.assertEqual(a.publish("ps", "t", {"n": 1}).status, 204)
        wait_for("the dead letter", lambda: app.seen("/dead"))
        self.assertEqual(len(app.seen("/event")), 4)
        self.assertEqual(app.seen("/dead")[0].json["data"], {"n": 1})
        self.assertRegex(a.metrics(), r'dapr_resiliency_activations_total\{[^}]*flow_direction="inbound",name="net",'
                                      r'namespace="",policy="retry",status="",target="Pubsub_ps"\} 1')

    def test_default_policies_are_for_what_has_no_row(self):
        app = self.app(lambda r: Reply(500, b"no"))
        self.sidecar("callee", app)
        policies = POLICIES.replace("thrice: {", "DefaultAppRetryPolicy: {") % "{apps: {named: {timeout: quick}}}"
        a = self.sidecar("caller", resources={"r.yaml": policies})
        self.assertEqual(a.invoke("callee", "x").status, 500)
        self.assertEqual(len(app.seen("/x")), 4)

    def test_mistakes_are_told_with_their_place(self):
        bad = POLICIES.replace("consecutiveFailures >= 3", "consecutiveFailures >=") % "{}"
        a = self.sidecar("caller", resources={"r.yaml": bad}, is_ready=False)
        a.may_end = True
        self.assertNotEqual(a.wait_exit(), 0)
        self.assertRegex(a.log(), r"r\.yaml:10:\d+: trip: ")
