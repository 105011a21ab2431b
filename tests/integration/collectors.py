"""Collectors of traces: one that speaks OTLP over HTTP and gRPC with OpenTelemetry's own messages (PyPI's
opentelemetry-proto), and a real Zipkin (Maven's io.zipkin:zipkin-server). What cannot be had is skipped by name:
@needs_otlp, @needs_zipkin."""
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import unittest
from concurrent import futures

from grpc_client import PYTHON, WHY_NOT as NO_GRPC
from harness import App, Reply, call, wait_for

CACHE = os.path.join(os.path.expanduser("~"), ".cache")
ZIPKIN = "3.5.1"


def once(name, is_there, *command):
    """Runs command unless is_there(folder); the folder, or why not. Test files run side by side."""
    place = os.path.join(CACHE, name)
    os.makedirs(place, exist_ok=True)
    with open(place + ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not is_there(place):
            try:
                done = subprocess.run([part % {"place": place} for part in command], stdout=subprocess.PIPE,
                                      stderr=subprocess.STDOUT, text=True, timeout=400)
            except subprocess.TimeoutExpired:
                return None, "%s takes too long" % command[0]
            if done.returncode or not is_there(place):
                return None, done.stdout.strip()[-300:]
    return place, None


def load_otlp():
    if NO_GRPC:
        return NO_GRPC
    sys.path.extend(p for p in [os.path.join(CACHE, "outrigger-otlp")] if p not in sys.path)
    place, why = once("outrigger-otlp", lambda p: os.path.isdir(os.path.join(p, "opentelemetry")), PYTHON, "-m", "pip",
                      "install", "-q", "--disable-pip-version-check", "--no-deps", "--target", "%(place)s",
                      "opentelemetry-proto")
    if not place:
        return "opentelemetry-proto cannot be had: %s" % why
    try:
        import opentelemetry.proto.collector.trace.v1.trace_service_pb2  # noqa: F401
    except Exception as error:  # protobuf refuses messages made for another version in its own words
        return "opentelemetry-proto: %s" % error
    return None


NO_OTLP = load_otlp()
if not NO_OTLP:
    import grpc
    from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc


def needs_otlp(test):
    return unittest.skip(NO_OTLP)(test) if NO_OTLP else test


class Span:
    """One span as it came, by whichever way."""

    def __init__(self, service, span, resource):
        self.service, self.name, self.resource = service, span.name, resource
        self.trace_id, self.id, self.parent = span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex()
        self.kind = span.SpanKind.Name(span.kind).replace("SPAN_KIND_", "").lower()
        self.attributes = {a.key: a.value.string_value for a in span.attributes}
        self.is_error, self.message = span.status.code == 2, span.status.message
        self.state, self.flags = span.trace_state, span.flags
        self.start, self.end = span.start_time_unix_nano, span.end_time_unix_nano

    def __repr__(self):
        return "<%s %s %s %s<-%s %r>" % (self.service, self.kind, self.name, self.id, self.parent, self.attributes)


class Spans:
    def __init__(self):
        self.all, self.headers, self.requests, self.lock = [], [], 0, threading.Lock()

    def add(self, request, headers):
        with self.lock:
            self.requests += 1
            self.headers.append(headers)
            for of_resource in request.resource_spans:
                resource = {a.key: a.value.string_value for a in of_resource.resource.attributes}
                for scope in of_resource.scope_spans:
                    self.all += [Span(resource.get("service.name"), span, resource) for span in scope.spans]

    def of(self, trace_id=None, **wanted):
        with self.lock:
            return [s for s in self.all if trace_id in (None, s.trace_id) and
                    all(getattr(s, k) == v for k, v in wanted.items())]

    def wait(self, count, trace_id=None, **wanted):
        """At least so many; they come in batches, a second apart."""
        try:
            wait_for("%d spans %r" % (count, wanted), lambda: len(self.of(trace_id, **wanted)) >= count, 60)
        except AssertionError:
            raise AssertionError("%r\nnot among %r" % (wanted, self.of()))
        return sorted(self.of(trace_id, **wanted), key=lambda s: s.start)


class OtlpHttp(Spans):
    """status: what to answer; hold: an Event to wait for before answering."""

    def __init__(self, case, is_up=True, port=None):
        super().__init__()
        self.status, self.hold = 200, None
        self.app = App(self.serve, port=port)
        case.started.append(self.app)
        if is_up:
            self.app.up()

    @property
    def address(self):
        return "127.0.0.1:%d" % self.app.port

    def serve(self, request):
        if self.hold:
            self.hold.wait()
        if request.path != "/v1/traces" or request.header("content-type") != "application/x-protobuf":
            return Reply(404)
        if self.status == 200:
            message = trace_service_pb2.ExportTraceServiceRequest()
            message.ParseFromString(request.body)
            self.add(message, dict((k.lower(), v) for k, v in request.headers))
        return Reply(self.status, trace_service_pb2.ExportTraceServiceResponse().SerializeToString(),
                     [("Content-Type", "application/x-protobuf")])


class OtlpGrpc(Spans):
    """identity: (certificate file, key file) to speak TLS with."""

    def __init__(self, case, identity=None):
        super().__init__()
        spans, service = self, trace_service_pb2_grpc.TraceServiceServicer()

        def export(request, context):
            spans.add(request, dict(context.invocation_metadata()))
            return trace_service_pb2.ExportTraceServiceResponse()
        service.Export = export
        self.server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(service, self.server)
        if identity:
            certificate, key = (open(path, "rb").read() for path in identity)
            self.port = self.server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, certificate)]))
        else:
            self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()
        case.addCleanup(lambda: self.server.stop(None).wait())

    @property
    def address(self):
        return "127.0.0.1:%d" % self.port


# ---------------------------------------------------------------- Zipkin
def load_zipkin():
    jar = "zipkin-server-%s-slim.jar" % ZIPKIN
    if not shutil.which("java") or not shutil.which("mvn"):
        return None, "java and mvn are not there"
    place, why = once("outrigger-zipkin", lambda p: os.path.exists(os.path.join(p, jar)), "mvn", "-q", "-B",
                      "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy",
                      "-Dartifact=io.zipkin:zipkin-server:%s:jar:slim" % ZIPKIN, "-DoutputDirectory=%(place)s")
    return (os.path.join(place, jar), None) if place else (None, "zipkin-server cannot be had: %s" % why)


def needs_zipkin(test):
    def run(self):
        left = signal.alarm(0)  # what a download takes is not the test's time
        self.zipkin_jar, why = load_zipkin()
        signal.alarm(left)
        if not self.zipkin_jar:
            self.skipTest(why)
        test(self)
    run.__name__ = test.__name__
    return run


class Zipkin:
    def __init__(self, case, jar, port):
        self.port = port.number
        self.log = open(os.path.join(case.dir, "zipkin.log"), "wb")
        case.addCleanup(self.log.close)
        port.release()
        self.process = subprocess.Popen(["java", "-Xmx256m", "-jar", jar, "--server.port=%d" % self.port], cwd=case.dir,
                                        stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        case.started.append(self.process)
        wait_for("Zipkin", lambda: call(self.port, "GET", "/health").status == 200, 120)

    def get(self, path):
        answer = call(self.port, "GET", path)
        return json.loads(answer.body) if answer.status == 200 else None
