"""spec.accessControl between real sidecars. Who calls is known under mutual TLS only: here the default for all decides."""
from harness import Case, tag

CONFIG = """apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata: {name: acl}
spec:
  accessControl:
    defaultAction: %s
    policies:
    - appId: caller
      namespace: default
      trustDomain: public
      operations:
      - {name: /open/*, httpVerb: [GET], action: allow}
"""


class AccessControl(Case):
    def trio(self, action):
        app = self.app()
        return self.sidecar("caller"), self.sidecar("callee", app, config=CONFIG % action), app

    @tag("debug")
    def test_a_refused_call_does_not_reach_the_app(self):
        a, b, app = self.trio("deny")
        answer = a.invoke("callee", "open/x?y=1", "POST", [], b"body")
        self.assertEqual((answer.status, answer.json["errorCode"]), (403, "ERR_DIRECT_INVOKE"))
        self.assertIn("access control policy has denied access to id:  operation: open/x verb: POST",
                      answer.json["message"])
        self.assertEqual(app.seen("/open/x"), [])
        self.assertIn("dapr_runtime_acl_global_policy_action_blocked_total", b.metrics())
        # the same path asked for again, and by itself, which is not judged
        self.assertEqual(a.invoke("callee", "open/x").status, 403)
        self.assertEqual(b.invoke("callee", "open/x").status, 200)
        self.assertEqual(len(app.seen("/open/x")), 1)

    def test_a_default_that_allows_lets_everybody_in(self):
        a, b, app = self.trio("allow")
        self.assertEqual(a.invoke("callee", "other", "DELETE").status, 200)
        self.assertEqual(len(app.seen("/other")), 1)
        self.assertIn("dapr_runtime_acl_global_policy_action_allowed_total", b.metrics())

    @tag("debug")
    def test_rules_that_cannot_be_enforced_end_the_start_with_their_place(self):
        bad = CONFIG.replace("httpVerb: [GET]", "httpVerbs: [GET]") % "deny"
        sidecar = self.sidecar("callee", self.app(), config=bad, is_ready=False)
        sidecar.may_end = True
        self.assertNotEqual(sidecar.wait_exit(), 0)
        self.assertRegex(sidecar.log(), r"config\.yaml:12:\d+: spec\.accessControl\.policies\[0\]\.operations\[0\]"
                                        r"\.httpVerbs: unknown field")
