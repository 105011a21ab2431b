"""Why a sidecar answered by itself: one word, the same over HTTP, by InvokeService and over proxied gRPC, in metric, log
and span. Each test makes one thing go wrong and asks all ways."""
import os
import re
import threading
import time

import h2raw
from collectors import OtlpHttp, needs_otlp
from grpc_client import Client, needs_grpc
from h2raw import message
from harness import TOP, Case, Port, Reply, component, tag, wait_for
from test_proxy import GrpcApp, echo
from test_tracing import TRACE, parent
from test_tracing import config as traced

STATIC = """apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata: {name: c}
spec:
  nameResolution:
    component: static
    configuration: {%s}
"""
CONFIG = "apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata: {name: c}\nspec:\n  %s\n"
POLICY = """apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: net}
spec:
  policies:
    timeouts: {quick: 100ms, long: 60s}
    circuitBreakers:
      trip: {maxRequests: 1, timeout: 60s, trip: consecutiveFailures >= 1}
  targets: {apps: {%s}}
"""


def words_of_table():
    with open(os.path.join(TOP, "runtime", "mesh", "reasons.h")) as file:
        return set(re.findall(r'X\(\w+, "(\w+)"', file.read()))


def total(sidecar, word, target):
    found = re.findall(r'outrigger_local_answers_total\{[^}]*reason="%s",target="%s"\} (\d+)' % (word, target), sidecar.metrics())
    return sum(map(int, found))


class Reasons(Case):
    def http(self, sidecar, target, path="x", verb="POST", headers=(), body=b""):
        answer = sidecar.invoke(target, path, verb, headers, body)
        return answer.status, answer.header("outrigger-reason")

    def rpc(self, sidecar, target, metadata=(), timeout_s=20):
        request = {"id": target, "message": {"method": "x", "http_extension": {"verb": "POST"}}}
        with Client(sidecar.grpc) as client:
            answer = client.call("Dapr/InvokeService", request, metadata, timeout_s)
        return answer.code, dict(answer.trailers).get("outrigger-reason")

    def proxied(self, sidecar, target, extra=()):
        with h2raw.Peer(port=sidecar.grpc) as peer:
            peer.until_frame(h2raw.SETTINGS)
            to = [("dapr-app-id", target)] if target else []
            stream = peer.begin(h2raw.call_headers("/test.v1.Echo/Do", extra=[*to, *extra]))
            peer.send_data(stream.id, message(b"hi"), True)
            peer.until_over(stream)
            end = dict(stream.heads[-1])
        return int(end["grpc-status"]), end.get("outrigger-reason")

    def expect(self, word, sidecar, target, status=500, rpc="INTERNAL", proxied=14):
        """All three ways end like this, are counted and logged. None: not asked so."""
        asked = 0
        if status is not None:
            asked += 1
            self.assertEqual(self.http(sidecar, target), (status, word))
        if rpc is not None:
            asked += 1
            self.assertEqual(self.rpc(sidecar, target), (rpc, word))
        if proxied is not None:
            asked += 1
            self.assertEqual(self.proxied(sidecar, target), (proxied, word))
        self.assertIn(word, words_of_table())
        self.assertEqual(total(sidecar, word, target), asked)
        self.assertRegex(sidecar.log(), "a call was answered by the sidecar.*reason=%s.*target=%s" % (word, target))


@needs_grpc
class Calling(Reasons):
    """What the calling sidecar finds by itself."""

    @tag("debug", "tsan")
    def test_nobody_has_that_name(self):
        a = self.sidecar("caller")
        self.expect("no_instance", a, "nobody", proxied=2)
        self.assertEqual(self.http(a, "", ""), (404, "no_target"))
        self.assertEqual(self.proxied(a, None), (2, "no_target"))
        self.assertEqual(total(a, "no_target", ""), 2)

    @tag("debug")
    def test_nobody_is_at_its_address(self):
        gone = Port()
        self.addCleanup(gone.release)
        a = self.sidecar("caller", config=STATIC % ("gone: 127.0.0.1:%d" % gone.number), resources={
            "r.yaml": POLICY % "gone: {timeout: long}"})
        self.expect("connect_failed", a, "gone")

    def test_another_app_is_at_its_address(self):
        callee = self.sidecar("callee", self.app())
        a = self.sidecar("caller", config=STATIC % ("alias: 127.0.0.1:%d" % callee.internal))
        self.expect("wrong_app", a, "alias", proxied=2)
        self.assertEqual(total(callee, "wrong_app", "callee"), 3)

    def test_there_is_no_registry(self):
        a = self.sidecar("caller", config=CONFIG % "nameResolution: {component: nonsense}", resources={
            "r.yaml": POLICY % "callee: {timeout: long}"}, is_ready=False)
        wait_for("the API", lambda: a.health("/v1.0/healthz/outbound"))
        self.expect("no_resolver", a, "callee")

    @tag("debug")
    def test_time_is_over(self):
        leave = threading.Event()
        self.addCleanup(leave.set)
        app = self.app(lambda r: leave.wait(60) and None)
        self.sidecar("callee", app)
        a = self.sidecar("caller", resources={"r.yaml": POLICY % "callee: {timeout: quick}"})
        b = self.sidecar("other")
        self.assertEqual(self.http(a, "callee"), (500, "timeout"))
        self.assertEqual(self.rpc(a, "callee"), ("DEADLINE_EXCEEDED", "timeout"))
        self.assertEqual(total(a, "timeout", "callee"), 2)
        self.assertEqual(self.http(b, "callee", headers=[("outrigger-timeout", "100m")]), (504, "deadline"))
        self.assertEqual(self.http(b, "callee", headers=[("outrigger-timeout", "soon")]), (400, "bad_request"))
        self.assertEqual(self.proxied(b, "callee", [("grpc-timeout", "soon")]), (13, "bad_request"))

    def test_a_breaker_is_open(self):
        a = self.sidecar("caller", resources={"r.yaml": POLICY % "callee: {circuitBreaker: trip}"})
        app = self.app(lambda r: Reply(500, b"no"))
        self.sidecar("callee", app)
        self.assertEqual(self.http(a, "callee"), (500, None))  # the app's own
        self.assertEqual(self.rpc(a, "callee"), ("UNKNOWN", "breaker_open"))
        self.assertEqual(self.http(a, "callee"), (500, "breaker_open"))
        self.assertEqual(total(a, "breaker_open", "callee"), 2)

    @tag("debug")
    def test_the_api_lets_nobody_in(self):
        a = self.sidecar("caller", env={"DAPR_API_TOKEN": "secret"})
        self.assertEqual(self.http(a, "callee"), (401, "api_token"))
        self.assertEqual(self.rpc(a, "callee"), ("UNAUTHENTICATED", "api_token"))
        self.assertEqual(self.proxied(a, "callee"), (16, "api_token"))
        self.assertEqual(total(a, "api_token", ""), 3)
        self.assertIsNone(a.call("GET", "/v1.0/metadata").header("outrigger-reason"))  # no invocation

    def test_the_api_is_closed(self):
        a = self.sidecar("caller", config=CONFIG % "api: {allowed: [{name: metadata, version: v1, protocol: http}, "
                                                   "{name: metadata, version: v1, protocol: grpc}]}")
        self.assertEqual(self.http(a, "callee"), (404, "api_closed"))
        self.assertEqual(self.rpc(a, "callee"), ("UNIMPLEMENTED", "api_closed"))

    def test_a_middleware_refuses(self):
        a = self.sidecar("caller", resources={"m.yaml": component("lim", "middleware.http.ratelimit", {"maxRequestsPerSecond": "0.01"})},
                         config=CONFIG % "httpPipeline: {handlers: [{name: lim, type: middleware.http.ratelimit}]}", is_ready=False)
        wait_for("a refusal", lambda: self.http(a, "nobody", headers=[("outrigger-timeout", "1m")])[0] == 429)
        self.assertEqual(self.http(a, "nobody"), (429, "middleware"))


TRAFFIC = '''apiVersion: outrigger.io/v1alpha1
kind: TrafficPolicy
metadata: {name: t}
spec: %s
'''


@needs_grpc
class Policies(Reasons):
    """What TrafficPolicies make a sidecar say."""

    def sidecars(self, of_caller="{}", of_callee="{}"):
        rules = [{"t.yaml": TRAFFIC % rule} if rule != "{}" else {} for rule in (of_caller, of_callee)]
        app = GrpcApp(echo)
        self.addCleanup(app.server.close)
        return (self.sidecar("caller", resources=rules[0]),
                self.sidecar("callee", app.port, resources=rules[1], flags=["--app-protocol", "grpc"]))

    @tag("debug")
    def test_no_instance_has_the_labels(self):
        a, _ = self.sidecars('{subsets: [{name: two, labels: {version: "2"}}], routes: [{name: r, to: [{subset: two}]}]}')
        self.expect("no_subset_instance", a, "callee", status=503, rpc="UNAVAILABLE")

    def test_a_fault_is_injected(self):
        expires = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3600))
        a, _ = self.sidecars('{routes: [{name: r, fault: {expires: "%s", abort: {status: 418, grpcStatus: 9, percent: 100}}}]}' % expires)
        self.expect("fault_injected", a, "callee", status=418, rpc="FAILED_PRECONDITION", proxied=9)

    def test_the_rate_is_used_up(self):
        a, b = self.sidecars(of_callee="{inbound: {rateLimits: [{name: l, per: route, requests: 1, interval: 1h, burst: 1}]}}")
        self.assertEqual(self.proxied(a, "callee"), (0, None))
        self.expect("rate_limited", a, "callee", status=429, rpc="RESOURCE_EXHAUSTED", proxied=8)
        self.assertEqual(total(b, "rate_limited", "callee"), 3)


@needs_grpc
class Called(Reasons):
    """What the called sidecar says is passed on; both count it."""

    def both(self, word, a, b, **more):
        self.expect(word, a, "callee", **more)
        asked = 3 - list(more.values()).count(None)
        self.assertEqual(total(b, word, "callee"), asked)
        self.assertIn("reason=%s" % word, b.log())

    @tag("debug", "tsan")
    def test_there_is_no_app(self):
        a, b = self.sidecar("caller"), self.sidecar("callee")
        self.both("no_app", a, b)
        self.assertEqual(self.http(b, "callee"), (500, "no_app"))  # its own client, too

    def test_the_app_speaks_something_else(self):
        a, b, _ = self.pair()
        self.assertEqual(self.proxied(a, "callee"), (14, "app_protocol"))
        self.assertEqual(self.proxied(b, "callee"), (14, "app_protocol"))
        self.assertEqual((total(a, "app_protocol", "callee"), total(b, "app_protocol", "callee")), (1, 2))

    @tag("debug")
    def test_the_app_is_gone_or_breaks_off(self):
        app = self.app(lambda r: None)
        a, b = self.sidecar("caller"), self.sidecar("callee", app)
        self.both("app_broke_off", a, b, proxied=None)
        app.down()
        self.both("app_unreachable", a, b, proxied=None)

    def test_the_app_is_unwell(self):
        well = threading.Event()
        well.set()
        app = self.app(lambda r: Reply(200 if well.is_set() or r.path == "/x" else 500))
        a = self.sidecar("caller")
        b = self.sidecar("callee", app, flags=["--enable-app-health-check", "--app-health-check-path", "/well",
                                               "--app-health-probe-interval", "1", "--app-health-threshold", "1"])
        wait_for("a healthy app", lambda: self.http(a, "callee")[0] == 200)
        well.clear()
        wait_for("an unwell app", lambda: self.http(b, "callee")[1] == "app_unhealthy")
        before = total(a, "app_unhealthy", "callee")  # those that came before the app was found to be well
        self.assertEqual(self.http(a, "callee")[1], "app_unhealthy")
        self.assertEqual(self.rpc(a, "callee"), ("INTERNAL", "app_unhealthy"))
        self.assertEqual(total(a, "app_unhealthy", "callee"), before + 2)

    def test_access_control_refuses(self):
        a = self.sidecar("caller")
        b = self.sidecar("callee", self.app(), config=CONFIG % "accessControl: {defaultAction: deny}")
        self.both("access_control", a, b, status=403, proxied=7)

    def test_the_connection_breaks_with_the_call_on_its_way(self):
        app = self.app(lambda r: b.kill() or None)
        a, b = self.sidecar("caller"), self.sidecar("callee", app)
        self.assertEqual(self.http(a, "callee"), (500, "connection_lost"))
        self.assertEqual(total(a, "connection_lost", "callee"), 1)

    @tag("debug")
    def test_no_app_can_forge_a_reason(self):
        forged = [("Outrigger-Reason", "overloaded"), ("Outrigger-Error", "14")]
        a, b, _ = self.pair(lambda r: Reply(503, b"mine", forged))
        self.assertEqual(self.http(a, "callee"), (503, None))
        self.assertEqual(self.http(b, "callee"), (503, None))
        self.assertNotIn("outrigger_local_answers_total", a.metrics() + b.metrics())


@needs_otlp
@needs_grpc
class Spans(Reasons):
    @tag("debug")
    def test_spans_of_both_sides_have_the_word(self):
        spans = OtlpHttp(self)
        a, b = self.sidecar("caller", config=traced(spans)), self.sidecar("callee", config=traced(spans))
        self.assertEqual(self.http(a, "callee", headers=parent()), (500, "no_app"))
        words = {s.service: s.attributes.get("outrigger.reason") for s in spans.wait(2, TRACE) if s.kind != "internal"}
        self.assertEqual(words, {"caller": "no_app", "callee": "no_app"})
        for n, ask in enumerate((self.rpc, self.proxied), 1):
            trace = str(n) * 32
            self.assertEqual(ask(a, "callee", parent(trace))[1], "no_app")
            words = {s.service: s.attributes.get("outrigger.reason") for s in spans.wait(2, trace) if s.kind != "internal"}
            self.assertEqual(words, {"caller": "no_app", "callee": "no_app"})
