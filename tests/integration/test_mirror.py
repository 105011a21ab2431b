"""A route's mirror and retries, real processes. The many ways in which a copy may end, and what is tried again, are held on a virtual clock
(tests/unit/mesh/test_mirror, test_route_retry)."""
import re

from harness import Case, Reply, tag, wait_for

POLICY = """
apiVersion: outrigger.io/v1alpha1
kind: TrafficPolicy
metadata: {name: policy}
spec:
  targets: [callee]
"""
MIRROR = POLICY + """
  subsets: [{name: next, labels: {version: "2"}}]
  routes:
  - match: [{path: {prefix: /copied}}]
    mirror: {appId: shadow, compare: true}
  - match: [{path: {exact: /next}}]
    mirror: {subset: next}
"""
RETRY = POLICY + """
  routes:
  - retry: {attempts: 2}
"""


def marks(app, path):
    return [request.header("outrigger-mirror") for request in app.seen(path)]


class Mirror(Case):
    def count(self, sidecar, target, result):
        found = re.search(r'outrigger_mirror_total\{app_id="caller",result="%s",target="%s"\} (\d+)' % (result, target), sidecar.metrics())
        return int(found.group(1)) if found else 0

    @tag("debug")
    def test_a_copy_goes_to_another_app_and_its_answer_is_compared(self):
        answer = lambda other: lambda r: Reply(200, other if r.path.endswith("/body") else b"same")
        callee, shadow = self.app(answer(b"one")), self.app(answer(b"two"))
        self.sidecar("callee", callee)
        self.sidecar("shadow", shadow)
        caller = self.sidecar("caller", resources={"traffic.yaml": MIRROR})
        for path, result in (("copied/same", "same"), ("copied/body", "body")):
            for n in range(1, 4):
                self.assertEqual(caller.invoke("callee", path, "POST", [], b"the request").status, 200)
                wait_for(result, lambda: self.count(caller, "shadow", result) == n)
            self.assertEqual([r.body for r in shadow.seen("/" + path)], [b"the request"] * 3)
            self.assertEqual((marks(shadow, "/" + path), marks(callee, "/" + path)), (["1"] * 3, [None] * 3))
        self.assertEqual(caller.invoke("callee", "other", "POST", [], b"x").status, 200)
        self.assertEqual(shadow.seen("/other"), [])

    @tag("debug")
    def test_a_copy_goes_to_instances_with_the_labels_of_a_subset(self):
        old, new = (self.app(lambda r: Reply(200, b"")) for _ in range(2))
        self.sidecar("callee", old)
        self.sidecar("callee", new, flags=["--labels", "version=2"])
        caller = self.sidecar("caller", resources={"traffic.yaml": MIRROR})
        wait_for("all instances", lambda: caller.invoke("callee", "hello").status and old.seen("/hello") and new.seen("/hello"))
        for n in range(1, 11):
            self.assertEqual(caller.invoke("callee", "next").status, 200)
            wait_for("the copy", lambda: self.count(caller, "callee", "sent") == n)
        self.assertEqual(marks(new, "/next").count("1"), 10)
        self.assertNotIn("1", marks(old, "/next"))

    @tag("debug")
    def test_an_app_that_is_not_there_costs_its_call_nothing(self):
        callee = self.app(lambda r: Reply(200, b"well"))
        self.sidecar("callee", callee)
        caller = self.sidecar("caller", resources={"traffic.yaml": MIRROR})
        answer = caller.invoke("callee", "copied/x", "PUT", [], b"x")
        self.assertEqual((answer.status, answer.body), (200, b"well"))
        wait_for("failed", lambda: self.count(caller, "shadow", "failed") == 1)


class Retry(Case):
    @tag("debug")
    def test_a_route_says_how_often_an_idempotent_call_is_tried(self):
        app = self.app(lambda r: Reply(500, b"") if len(app.seen(r.path)) % 3 else Reply(200, b"well"))
        self.sidecar("callee", app)
        caller = self.sidecar("caller", resources={"traffic.yaml": RETRY})
        answer = caller.invoke("callee", "get")
        self.assertEqual((answer.status, answer.body, len(app.seen("/get"))), (200, b"well", 3))
        self.assertEqual((caller.invoke("callee", "post", "POST", [], b"x").status, len(app.seen("/post"))), (500, 1))
        self.assertRegex(caller.metrics(), r'outrigger_retries_total\{app_id="caller",outcome="not_idempotent",target="callee"\} 1')
