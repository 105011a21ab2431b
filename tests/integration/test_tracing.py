"""Spans of every hop, as collectors get them: names, attributes, who is below whom; samplers; collectors that are slow,
refuse, hang, are not there; the end and a restart."""
import json
import re
import signal
import ssl
import subprocess
import threading

from collectors import OtlpGrpc, OtlpHttp, Zipkin, needs_otlp, needs_zipkin
from grpc_client import Client as GrpcClient
from harness import Case, Port, Reply, component, reply_json, tag, wait_for

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def config(otel=None, rate="1", zipkin=None, stdout=False, more="", secure=False):
    """otel: a collector."""
    lines = ["apiVersion: dapr.io/v1alpha1", "kind: Configuration", "metadata: {name: traced}", "spec:", "  tracing:",
             "    samplingRate: %s" % json.dumps(rate)]
    if stdout:
        lines.append("    stdout: true")
    if zipkin:
        lines.append("    zipkin: {endpointAddress: %s}" % json.dumps(zipkin))
    if otel:
        protocol = "grpc" if isinstance(otel, OtlpGrpc) else "http"
        lines.append("    otel: {endpointAddress: %s, protocol: %s, isSecure: %s%s}" % (
            json.dumps(otel.address), protocol, str(secure).lower(), more))
    return "\n".join(lines) + "\n"


def parent(trace_id=TRACE, span_id=SPAN, flags="01"):
    return [("traceparent", "00-%s-%s-%s" % (trace_id, span_id, flags))]


def span_of(traceparent):
    return traceparent.split("-")[2]


@needs_otlp
class Hops(Case):
    @tag("debug", "tsan")
    def test_an_invocation_is_a_span_in_each_sidecar(self):
        spans = OtlpHttp(self)
        a, b, app = self.pair(lambda r: Reply(201, b"x"), config=config(spans, more=", headers: \"x-tenant=blue\""))
        answer = a.invoke("callee", "menu/1?x=1", "POST", parent() + [("tracestate", "a=1"), ("dapr-tenant", "blue")], b"in")
        self.assertEqual(answer.status, 201)
        spans.wait(2, TRACE)
        caller, = spans.of(service="caller")
        callee, = spans.of(service="callee")
        self.assertEqual((caller.name, caller.kind, caller.parent), ("CallLocal/callee/menu/1", "client", SPAN))
        self.assertEqual((callee.name, callee.kind, callee.parent), ("CallLocal/callee/menu/1", "server", caller.id))
        self.assertEqual(caller.state, "a=1")
        self.assertEqual(caller.attributes, {
            "dapr.protocol": "http", "dapr.api": "POST /v1.0/invoke/callee/method/menu/1", "dapr.status_code": "201",
            "rpc.service": "ServiceInvocation", "net.peer.name": "callee", "dapr-tenant": "blue"})
        self.assertEqual(callee.attributes["dapr.invoke_method"], "menu/1")
        self.assertEqual(callee.attributes["net.peer.name"], "caller")
        self.assertFalse(caller.is_error or callee.is_error)
        self.assertLessEqual(caller.start, callee.start)
        self.assertGreaterEqual(caller.end, caller.start)
        self.assertEqual(span_of(app.seen("/menu/1")[0].header("traceparent")), callee.id)
        self.assertEqual(span_of(answer.header("traceparent")), caller.id)
        self.assertEqual(spans.headers[0]["x-tenant"], "blue")

    def test_failures_say_what_they_are(self):
        spans = OtlpHttp(self)
        a, b, app = self.pair(lambda r: Reply(503), config=config(spans))
        self.assertEqual(a.invoke("callee", "x", headers=parent()).status, 503)
        failed = spans.wait(2, TRACE)
        self.assertEqual([s.message for s in failed if s.is_error], ["Service Unavailable"] * 2)
        other = "1" * 32
        self.assertEqual(a.call("GET", "/v1.0/state/none/k", parent(other)).status, 500)
        span, = spans.wait(1, other)
        self.assertEqual((span.name, span.attributes["db.name"], span.attributes["db.system"], span.is_error),
                         ("/v1.0/state/none/k", "none", "state", True))

    @tag("debug")
    def test_events_carry_their_trace_to_the_app(self):
        spans = OtlpHttp(self)
        app = self.app(subscriptions=[{"pubsubname": "ps", "topic": "news", "route": "/news"}])
        a = self.sidecar("pub", app, config=config(spans), resources={"ps.yaml": component("ps", "pubsub.in-memory")})
        wait_for("the subscription", lambda: a.call("GET", "/v1.0/metadata").json.get("subscriptions"))
        self.assertEqual(a.publish("ps", "news", {"n": 1}, headers=parent()).status, 204)
        got = wait_for("the event", lambda: app.seen("/news"))[0]
        api, = spans.wait(1, TRACE, kind="client")
        delivery, = spans.wait(1, TRACE, kind="consumer")
        self.assertEqual((api.name, api.attributes["messaging.destination"]), ("/v1.0/publish/ps/news", "news"))
        self.assertEqual((delivery.name, delivery.parent), ("pubsub/news", api.id))
        self.assertEqual(delivery.attributes["messaging.system"], "pubsub")
        self.assertEqual(span_of(got.json["traceparent"]), api.id)  # the event stays as it was published
        self.assertEqual(span_of(got.header("traceparent")), delivery.id)
        entries = [{"entryId": str(i), "event": "e", "contentType": "text/plain"} for i in range(3)]
        other = "2" * 32
        self.assertEqual(a.call_json("POST", "/v1.0/publish/bulk/ps/news", entries, parent(other)).status, 204)
        producers = spans.wait(3, other, kind="producer")
        consumers = spans.wait(3, other, kind="consumer")
        self.assertEqual(sorted(s.id for s in producers), sorted(s.parent for s in consumers))

    def test_bindings_out_and_in(self):
        spans = OtlpHttp(self)
        app = self.app()
        a = self.sidecar("bound", app, config=config(spans),
                         resources={"tick.yaml": component("tick", "bindings.cron", {"schedule": "@every 1s"})})
        span = spans.wait(1, name="bindings/tick")[0]
        self.assertEqual((span.kind, span.attributes["db.name"], span.parent), ("consumer", "tick", ""))
        seen = [r.header("traceparent") for r in app.seen("/tick") if r.method == "POST"]
        self.assertIn(span.id, [span_of(t) for t in seen])
        a.call_json("POST", "/v1.0/bindings/none", {"operation": "get"}, parent())
        out, = spans.wait(1, TRACE)
        self.assertEqual((out.attributes["db.system"], out.attributes["db.name"]), ("bindings", "none"))

    @tag("debug")
    def test_a_retried_call_shows_its_attempts(self):
        spans, answers = OtlpHttp(self), [500, 500, 200]
        policy = ("apiVersion: dapr.io/v1alpha1\nkind: Resiliency\nmetadata: {name: r}\nspec:\n  policies:\n    retries:\n"
                  "      often: {policy: constant, duration: 10ms, maxRetries: 5}\n  targets:\n    apps:\n"
                  "      callee: {retry: often}\n")
        app = self.app(lambda r: Reply(answers.pop(0)))
        a = self.sidecar("caller", config=config(spans), resources={"r.yaml": policy})
        b = self.sidecar("callee", app, config=config(spans))
        self.assertEqual(a.invoke("callee", "x", headers=parent()).status, 200)
        hop = spans.wait(1, TRACE, name="CallLocal/callee/x", service="caller")[0]
        attempts = spans.wait(3, TRACE, name="attempt")
        self.assertEqual([s.parent for s in attempts], [hop.id] * 3)
        self.assertEqual([s.attributes["outrigger.attempt"] for s in attempts], ["1", "2", "3"])
        self.assertEqual([s.attributes["dapr.status_code"] for s in attempts], ["500", "500", "200"])
        self.assertEqual([s.is_error for s in attempts], [True, True, False])
        self.assertRegex(attempts[0].attributes["outrigger.peer.address"], r":%d$" % b.internal)
        self.assertEqual(len(spans.wait(3, TRACE, service="callee")), 3)

    def test_peers_that_are_refused_have_spans_too(self):
        spans = OtlpHttp(self)
        denied = config(spans) + "  accessControl: {defaultAction: deny}\n"
        app = self.app()
        a = self.sidecar("caller", config=config(spans))
        self.sidecar("callee", app, config=denied)
        self.assertEqual(a.invoke("callee", "x", headers=parent()).status, 403)
        span, = spans.wait(1, TRACE, service="callee")
        self.assertEqual((span.is_error, span.message), (True, "PermissionDenied"))


@needs_otlp
class Grpc(Case):
    @tag("debug")
    def test_the_grpc_api_reads_and_writes_the_binary_context(self):
        spans = OtlpGrpc(self)
        a = self.sidecar("api", config=config(spans, more=", headers: [{name: X-Tenant, value: blue}]"),
                         resources={"st.yaml": component("st", "state.in-memory")})
        binary = b"\0\0" + bytes.fromhex(TRACE) + b"\1" + bytes.fromhex(SPAN) + b"\2\1"
        client = GrpcClient(a.grpc)
        answer = client.call("Dapr/GetState", {"store_name": "st", "key": "k"},
                             metadata=[("grpc-trace-bin", binary), ("traceparent", "00-%s-%s-00" % ("9" * 32, SPAN))])
        span, = spans.wait(1, TRACE)
        self.assertEqual((span.name, span.kind, span.parent),
                         ("/dapr.proto.runtime.v1.Dapr/GetState", "client", SPAN))
        self.assertEqual({k: span.attributes[k] for k in ("dapr.protocol", "db.system", "db.name", "rpc.service")},
                         {"dapr.protocol": "grpc", "db.system": "state", "db.name": "st", "rpc.service": "Dapr"})
        self.assertEqual(answer.code, "OK")  # gRPC's own library keeps the answer's grpc-trace-bin to itself
        self.assertEqual(spans.headers[0]["x-tenant"], "blue")
        client.call("Dapr/GetState", {"store_name": "gone", "key": "k"},
                    metadata=[("traceparent", "00-%s-%s-01" % ("3" * 32, SPAN))])
        span, = spans.wait(1, "3" * 32)
        self.assertTrue(span.is_error)
        client.close()

    def test_the_environment_of_opentelemetry_is_enough(self):
        spans = OtlpGrpc(self)
        a = self.sidecar("plain", env={"OTEL_EXPORTER_OTLP_ENDPOINT": "http://" + spans.address,
                                       "OTEL_SERVICE_NAME": "named", "OTEL_EXPORTER_OTLP_HEADERS": "k=a%20b",
                                       "OTEL_RESOURCE_ATTRIBUTES": "zone=a,team=b"})
        a.call("GET", "/v1.0/metadata")
        span = spans.wait(1, name="/v1.0/metadata")[0]
        self.assertEqual((span.service, span.resource["zone"], span.resource["team"]), ("named", "a", "b"))
        self.assertEqual(spans.headers[0]["k"], "a b")
        self.assertFalse(spans.of(name="/v1.0/healthz"))


@needs_otlp
class Sampling(Case):
    def test_the_callers_word_holds_else_the_rate(self):
        spans = OtlpHttp(self)
        a = self.sidecar("seldom", config=config(spans, rate="0.0000001"))
        for flags in ("00", "01"):
            answer = a.call("GET", "/v1.0/metadata", parent("%032d" % (int(flags) + 5), flags=flags))
            self.assertEqual(answer.header("traceparent")[-2:], flags)
        for _ in range(50):  # roots
            self.assertEqual(a.call("GET", "/v1.0/metadata").header("traceparent")[-2:], "00")
        spans.wait(1, "%032d" % 6)
        self.assertEqual(a.stop(), 0)
        self.assertEqual(len(spans.of()), 1)

    def test_rate_0_opens_no_connection(self):
        spans = OtlpHttp(self)
        a = self.sidecar("off", config=config(spans, rate="0"))
        self.assertEqual(a.call("GET", "/v1.0/metadata", parent()).header("traceparent"), parent()[0][1])
        self.assertEqual(a.stop(), 0)
        self.assertEqual(spans.app.accepted, 0)


@needs_otlp
class Collectors(Case):
    """What a collector does is no call's concern."""

    def metric(self, sidecar, name, **labels):
        total = 0
        for line in sidecar.metrics().splitlines():
            if line.startswith(name + "{") and all('%s="%s"' % pair in line for pair in labels.items()):
                total += float(line.rpartition(" ")[2])
        return total

    @tag("debug", "tsan")
    def test_28_a_collector_that_accepts_and_never_answers(self):
        spans = OtlpHttp(self)
        spans.hold = threading.Event()
        self.addCleanup(spans.hold.set)
        a = self.sidecar("calm", config=config(spans, more=", timeout: 10m"))  # whatever 3000 calls take here
        for i in range(3000):  # several times what one call carries
            self.assertEqual(a.call("GET", "/v1.0/metadata").status, 200)
        wait_for("calls to the collector", lambda: spans.app.accepted >= 4, 60)
        self.assertEqual(spans.app.accepted, 4)
        self.assertEqual(a.stop(), 0)  # and the end does not wait for it either

    @tag("debug")
    def test_over_tls_it_must_be_one_that_is_trusted(self):
        identity = self.path("collector.crt"), self.path("collector.key")
        subprocess.run(["openssl", "req", "-new", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                        "-subj", "/O=collector", "-days", "9", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
                        "-out", identity[0], "-keyout", identity[1]], check=True, capture_output=True)
        https = OtlpHttp(self, is_up=False)
        https.app.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        https.app.tls.load_cert_chain(*identity)
        https.app.up()
        for spans in (OtlpGrpc(self, identity), https):
            strict = self.sidecar("strict", config=config(spans, secure=True))
            strict.call("GET", "/v1.0/metadata", parent("4" * 32))
            strict.wait_log("spans cannot be exported yet", timeout_s=60)
            self.assertEqual(strict.stop(), 0)
            a = self.sidecar("trusting", config=config(spans, secure=True), env={"SSL_CERT_FILE": identity[0]})
            a.call("GET", "/v1.0/metadata", parent("5" * 32))
            spans.wait(1, "5" * 32)
            self.assertFalse(spans.of("4" * 32))
            self.assertEqual(a.stop(), 0)

    def test_one_that_is_not_there_is_waited_for(self):
        spans = OtlpHttp(self, is_up=False)
        a = self.sidecar("early", config=config(spans))
        self.assertEqual(a.call("GET", "/v1.0/metadata", parent()).status, 200)
        a.wait_log("spans cannot be exported yet", timeout_s=60)
        spans.app.up()
        spans.wait(1, TRACE)
        a.wait_log("spans are exported again", timeout_s=60)
        self.assertEqual(self.metric(a, "outrigger_trace_spans_exported_total", exporter="otlp") >= 1, True)

    def test_one_that_refuses_gets_the_next_and_it_is_counted(self):
        spans = OtlpHttp(self)
        spans.status = 401
        a = self.sidecar("refused", config=config(spans))
        a.call("GET", "/v1.0/metadata", parent())
        wait_for("the count", lambda: self.metric(a, "outrigger_trace_spans_dropped_total", reason="refused") >= 1, 60)
        spans.status = 200
        a.call("GET", "/v1.0/metadata", parent("7" * 32))
        spans.wait(1, "7" * 32)

    def test_one_that_goes_and_comes_back_on_the_way(self):
        spans = OtlpHttp(self)
        a = self.sidecar("steady", config=config(spans))
        a.call("GET", "/v1.0/metadata", parent("4" * 32))
        spans.wait(1, "4" * 32)
        spans.app.down()
        a.call("GET", "/v1.0/metadata", parent("5" * 32))
        a.wait_log("spans cannot be exported yet", timeout_s=60)
        spans.app.up()
        spans.wait(1, "5" * 32)

    @tag("debug")
    def test_the_end_flushes(self):
        spans = OtlpGrpc(self)
        a = self.sidecar("brief", config=config(spans))
        for i in range(20):
            a.call("GET", "/v1.0/metadata", parent("%032d" % (i + 1)))
        self.assertEqual(a.stop(), 0)
        self.assertEqual(len(spans.of(name="/v1.0/metadata")), len({s.id for s in spans.of(name="/v1.0/metadata")}))
        self.assertGreaterEqual(len(spans.of(name="/v1.0/metadata")), 20)

    @tag("debug")
    def test_sighup_reads_the_collector_anew(self):
        first, second = OtlpHttp(self), OtlpHttp(self)
        a = self.sidecar("moved", config=config(first))
        a.call("GET", "/v1.0/metadata", parent("4" * 32))
        first.wait(1, "4" * 32)
        with open(a.config, "w") as file:
            file.write(config(second))
        a.signal(signal.SIGHUP)
        a.wait_log("dapr initialized", 2, 60)
        a.wait_ready()
        a.call("GET", "/v1.0/metadata", parent("5" * 32))
        second.wait(1, "5" * 32)
        self.assertFalse(first.of("5" * 32))


class Configured(Case):
    def test_the_log_shows_spans(self):
        a = self.sidecar("shown", config=config(stdout=True))
        a.call("GET", "/v1.0/metadata", parent())
        a.wait_log(TRACE, timeout_s=60)
        line = next(line for line in a.log().splitlines() if TRACE in line)
        self.assertRegex(line, r'msg="?span"?.*name="?/v1.0/metadata"?.*parent="?%s' % SPAN)

    def test_mistakes_end_the_start_and_say_where(self):
        for text, wanted in (("otel: {endpointAddress: \"a:1\", protocol: thrift}", r"config.yaml:\d+:\d+: .*protocol"),
                             ("otel: {endpointAddress: \"a:1\", headers: \"host=x\"}", r"config.yaml:\d+:\d+: .*headers"),
                             ("zipkin: {endpointAddress: \"not a url\"}", r"spec.tracing.zipkin.endpointAddress: ")):
            a = self.sidecar("wrong", is_ready=False, config="apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata: "
                             "{name: c}\nspec:\n  tracing:\n    samplingRate: \"1\"\n    %s\n" % text)
            a.may_end = True
            self.assertNotEqual(a.wait_exit(60), 0)
            self.assertIsNotNone(re.search(wanted, a.log()), a.log())

    @needs_zipkin
    def test_a_real_zipkin_puts_the_trace_together(self):
        zipkin = Zipkin(self, self.zipkin_jar, Port())
        url = "http://127.0.0.1:%d/api/v2/spans" % zipkin.port
        a, b, _ = self.pair(lambda r: reply_json({}, 404), config=config(zipkin=url))
        self.assertEqual(a.invoke("callee", "menu", headers=[("traceparent", "00-%s-%s-01" % (TRACE, SPAN))]).status, 404)
        trace = wait_for("the trace", lambda: len(zipkin.get("/api/v2/trace/" + TRACE) or []) >= 2 and
                         zipkin.get("/api/v2/trace/" + TRACE), 60)
        by_service = {s["localEndpoint"]["serviceName"]: s for s in trace}
        caller, callee = by_service["caller"], by_service["callee"]
        self.assertEqual((caller["parentId"], callee["parentId"]), (SPAN, caller["id"]))
        self.assertEqual((caller["kind"], callee["kind"]), ("CLIENT", "SERVER"))
        self.assertEqual(caller["name"], "calllocal/callee/menu")  # Zipkin's own lower case
        self.assertEqual((caller["tags"]["dapr.status_code"], caller["tags"]["error"]), ("404", "Not Found"))
        wait_for("the names", lambda: set(zipkin.get("/api/v2/services")) >= {"caller", "callee"}, 60)
