"""An app that speaks gRPC, with the real server of grpcio; messages are plain dicts as in grpc_client.

    app = GrpcApp({"OnInvoke": lambda call: {"data": {"value": b"hi"}, "content_type": "text/plain"}})
    case.started.append(app.up())
    app.calls("OnInvoke")[0].request, .metadata

A handler gives a dict, raises Refusal, or calls call.context itself. What has no handler is UNIMPLEMENTED."""
import threading

from grpc_client import WHY_NOT, find_method, new, plain, read
from harness import App

if not WHY_NOT:
    from concurrent import futures

    import grpc

SERVICES = ("AppCallback", "AppCallbackAlpha", "AppCallbackHealthCheck")


class Refusal(Exception):
    def __init__(self, code, message="", details=None, metadata=()):
        super().__init__(message)
        self.code, self.message, self.details, self.metadata = code, message, details, metadata


class Call:
    def __init__(self, method, request, context):
        self.method, self.request, self.context = method, request, context
        self.metadata = {}
        for key, value in context.invocation_metadata():
            self.metadata.setdefault(key, value)

    def __repr__(self):
        return "%s %r" % (self.method, self.request)


class GrpcApp(App):
    def __init__(self, handlers=None, tls=None, **more):
        super().__init__(**more)
        self.handlers, self.credentials = dict(handlers or {}), tls
        self.handled, self.server = [], None
        self.in_hand, self.most_in_hand = 0, 0

    def up(self):
        options = [("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", -1)]
        self.server = grpc.server(futures.ThreadPoolExecutor(32), handlers=(self.generic(),), options=options)
        address = "127.0.0.1:%d" % self.port
        if self.credentials:
            bound = self.server.add_secure_port(address, self.credentials)
        else:
            bound = self.server.add_insecure_port(address)
        if bound != self.port:
            raise AssertionError("port %d cannot be had" % self.port)
        self.server.start()
        return self

    def down(self):
        if self.server:
            self.server.stop(None).wait()
            self.server = None

    def calls(self, method=None):
        with self.lock:
            return [c for c in self.handled if method in (None, c.method)]

    def generic(self):
        class Handler(grpc.GenericRpcHandler):
            def service(_, details):
                return self.find(details.method)
        return Handler()

    def find(self, path):
        service, method = path.strip("/").split("/")
        if service.split(".")[-1] not in SERVICES or method not in self.handlers:
            return None
        descriptor = find_method("/%s/%s" % (service, method))
        return grpc.unary_unary_rpc_method_handler(
            lambda request, context: self.serve(method, request, context),
            request_deserializer=lambda data: plain(read(descriptor.input_type, data)),
            response_serializer=lambda values: new(descriptor.output_type, values).SerializeToString())

    def serve(self, method, request, context):
        call = Call(method, request, context)
        with self.lock:
            self.handled.append(call)
            self.in_hand += 1
            self.most_in_hand = max(self.most_in_hand, self.in_hand)
        try:
            return self.handlers[method](call) or {}
        except Refusal as refusal:
            trailers = list(refusal.metadata)
            if refusal.details:
                status = {"code": getattr(grpc.StatusCode, refusal.code).value[0], "message": refusal.message,
                          "details": [{"type_url": "type.googleapis.com/" + type_,
                                       "value": new(type_, values).SerializeToString()} for type_, values in refusal.details]}
                trailers.append(("grpc-status-details-bin", new("google.rpc.Status", status).SerializeToString()))
            context.set_trailing_metadata(trailers)
            context.abort(getattr(grpc.StatusCode, refusal.code), refusal.message)
        finally:
            with self.lock:
                self.in_hand -= 1


class Gate:
    """Handlers wait here until it is opened."""

    def __init__(self):
        self.event = threading.Event()

    def wait(self):
        self.event.wait(60)

    def open(self):
        self.event.set()
