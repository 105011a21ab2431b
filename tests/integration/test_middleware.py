"""Pipelines of HTTP middlewares on the API and around calls to the app."""
import hashlib

from harness import BUILD, Case, Client, Reply, pattern, tag, wait_for

CONFIG = """apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata: {name: pipelines}
spec:
  %s:
    handlers:
"""
COMPONENT = """apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: %s}
spec:
  type: middleware.http.%s
  version: v1
  metadata: %s
"""


def config(pipeline, *handlers):
    return CONFIG % pipeline + "".join("    - {name: %s, type: middleware.http.%s}\n" % h for h in handlers)


def checker(rule):
    return COMPONENT % ("check", "routerchecker", "[{name: rule, value: '%s'}]" % rule)


UPPER = COMPONENT % ("up", "uppercase", "[]")
ALIAS = COMPONENT % ("alias", "routeralias", "[{name: routes, value: '{\"/in/{id}\": \"/v1.0/invoke/callee/method/x\"}'}]")


class HttpPipeline(Case):
    @tag("debug", "tsan")
    def test_handlers_run_in_their_order_on_every_route(self):
        app = self.app()
        resources = {"up.yaml": UPPER, "alias.yaml": ALIAS, "check.yaml": checker("^/(v1.0/|aliased|dapr/)")}
        # the alias comes first: what the checker sees is where the request goes
        a = self.sidecar("callee", app, resources=resources,
                         config=config("httpPipeline", ("alias", "routeralias"), ("check", "routerchecker"), ("up", "uppercase")))
        answer = a.call("POST", "/in/7?a=b", [("Content-Type", "text/plain")], b"low")
        self.assertEqual(answer.status, 200)
        seen = app.seen("/x")[0]
        self.assertEqual((seen.query, seen.body), ("a=b&id=7", b"LOW"))
        refused = a.call("GET", "/elsewhere", [("dapr-app-id", "callee")])
        self.assertEqual((refused.status, refused.body, refused.header("Content-Type")),
                         (400, b"invalid router", "text/plain; charset=utf-8"))
        self.assertEqual(a.call("GET", "/v1.0/metadata").status, 200)
        self.assertEqual(app.seen("/elsewhere"), [])

    @tag("debug")
    def test_a_large_body_streams_through(self):
        digest = hashlib.sha256()

        def handler(request):
            for piece in request.pieces:
                digest.update(piece)
            return Reply(200)
        a = self.sidecar("callee", self.app(handler, stream=True), resources={"up.yaml": UPPER},
                         flags=["--max-body-size", "64Mi"], config=config("httpPipeline", ("up", "uppercase")))
        wanted = hashlib.sha256()

        def body():
            for piece in pattern(20 * 1024 * 1024)[0]:
                wanted.update(piece.upper())
                yield piece
        self.assertEqual(a.invoke("callee", "warm", "POST", [], b"").status, 200)
        before = a.rss_kib()
        self.assertEqual(a.invoke("callee", "big", "POST", [], body()).status, 200)
        self.assertEqual(digest.hexdigest(), wanted.hexdigest())
        if BUILD == "release":  # sanitizers keep what was freed
            self.assertLess(a.rss_kib() - before, 6 * 1024)

    @tag("debug")
    def test_requests_of_one_client_are_limited(self):
        lim = COMPONENT % ("lim", "ratelimit", "[{name: maxRequestsPerSecond, value: '5'}]")
        a = self.sidecar("a", resources={"lim.yaml": lim}, config=config("httpPipeline", ("lim", "ratelimit")))
        statuses = [a.call("GET", "/v1.0/metadata").status for _ in range(12)]
        self.assertEqual(statuses[:5], [200] * 5)
        self.assertIn(429, statuses)

    def test_a_missing_middleware_is_left_out_and_said(self):
        a = self.sidecar("a", config=config("httpPipeline", ("up", "uppercase")))
        self.assertEqual(a.call("GET", "/v1.0/metadata").status, 200)
        a.wait_log("pipeline names a middleware that is not loaded")

    @tag("debug")
    def test_a_changed_middleware_takes_its_place_and_a_bad_file_changes_nothing(self):
        a = self.sidecar("a", resources={"check.yaml": checker("^/v1.0/(metadata|healthz)")},
                         config=config("httpPipeline", ("check", "routerchecker")))
        self.assertEqual(a.call("GET", "/v1.0/secrets/x/y").status, 400)
        a.write("check.yaml", checker("^/v1.0/"))
        wait_for("the new rule", lambda: a.call("GET", "/v1.0/secrets/x/y").status == 500)
        a.write("check.yaml", checker("^/v1.0/(metadata|healthz)").replace("spec:", "spec: ["))
        a.wait_log("check.yaml")
        self.assertEqual(a.call("GET", "/v1.0/secrets/x/y").status, 500)
        self.assertEqual(a.call("GET", "/elsewhere").status, 400)

    def test_a_rule_that_is_none_ends_the_start(self):
        a = self.sidecar("a", is_ready=False, resources={"check.yaml": checker("(")},
                         config=config("httpPipeline", ("check", "routerchecker")))
        a.may_end = True
        self.assertNotEqual(a.wait_exit(), 0)
        self.assertRegex(a.log(), r"component check .*check\.yaml:1.*regular expression")

    def test_a_pipeline_with_unknown_fields_ends_the_start(self):
        a = self.sidecar("a", is_ready=False, config=config("httpPipeline", ("up", "uppercase")).replace("handlers", "handler"))
        a.may_end = True
        self.assertNotEqual(a.wait_exit(), 0)
        self.assertRegex(a.log(), r"config\.yaml:\d+:\d+: spec\.httpPipeline\.handler: unknown field")


class AppPipeline(Case):
    @tag("debug", "tsan")
    def test_calls_from_a_peer_from_oneself_and_to_urls(self):
        app = self.app()
        filtering = dict(resources={"up.yaml": UPPER}, config=config("appHttpPipeline", ("up", "uppercase")))
        b = self.sidecar("callee", app, **filtering)
        a = self.sidecar("caller")
        for sidecar, target in ((a, "callee"), (b, "callee"), (b, "http://127.0.0.1:%d" % app.port)):
            before = len(app.seen("/x"))
            self.assertEqual(sidecar.invoke(target, "x", "POST", [], b"low").status, 200)
            self.assertEqual(app.seen("/x")[before].body, b"LOW", target)
        self.assertEqual(a.invoke("http://127.0.0.1:%d" % app.port, "y", "POST", [], b"low").status, 200)
        self.assertEqual(app.seen("/y")[0].body, b"low")

    @tag("debug")
    def test_what_is_refused_does_not_reach_the_app(self):
        app = self.app()
        self.sidecar("callee", app, resources={"check.yaml": checker("^/ok")},
                     config=config("appHttpPipeline", ("check", "routerchecker")))
        a = self.sidecar("caller")
        self.assertEqual(a.invoke("callee", "ok").status, 200)
        answer = a.invoke("callee", "no", "POST", [], b"x" * 100000)
        self.assertEqual((answer.status, answer.body), (400, b"invalid router"))
        self.assertEqual(app.seen("/no"), [])
        with Client(a.http) as client:  # the connection is as good as before
            for _ in range(3):
                self.assertEqual(client.call("POST", "/v1.0/invoke/callee/method/no", [], b"x" * 100000).status, 400)
                self.assertEqual(client.call("GET", "/v1.0/invoke/callee/method/ok").status, 200)
