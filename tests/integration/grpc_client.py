"""gRPC for tests, with the real client and server of grpcio: messages are plain dicts, bytes are bytes.

    client = Client(sidecar.grpc)
    answer = client.call("Dapr/GetState", {"store_name": "st", "key": "k"})
    answer.code, answer.message, answer.response["data"], answer.details, answer.headers, answer.trailers

Types come from the descriptors that the build makes of proto/. grpcio and protobuf are those of the golden
cases; a test class that needs them is marked with @needs_grpc."""
import os
import subprocess
import sys
import unittest

from harness import BIN, SLOW, TOP

sys.path.insert(0, os.path.join(TOP, "tests", "conformance"))
import golden  # noqa: E402

DESCRIPTORS = os.path.join(os.path.dirname(os.path.abspath(BIN)), "proto", "outrigger.binpb")
CALL_S = 10 * SLOW


PYTHON = golden.python()  # an interpreter that has them; asked before they can be imported here, too


def why_not():
    """None once grpcio can be imported here; it comes from the virtual environment of the golden cases."""
    if not os.path.exists(DESCRIPTORS):
        return "%s is not there" % DESCRIPTORS
    if not PYTHON:
        return "grpcio and protobuf cannot be had"
    if PYTHON != sys.executable:
        command = [PYTHON, "-c", "import sysconfig; print(sysconfig.get_path('platlib'))"]
        sys.path.append(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip())
    try:
        import grpc  # noqa: F401
    except ImportError as error:
        return "grpcio: %s" % error
    return None


WHY_NOT = why_not()
if not WHY_NOT:
    import grpc
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory


def needs_grpc(test):
    return unittest.skip(WHY_NOT)(test) if WHY_NOT else test


# ---------------------------------------------------------------- messages
POOL = None


def pool():
    global POOL
    if POOL is None:
        POOL, files = descriptor_pool.DescriptorPool(), descriptor_pb2.FileDescriptorSet()
        with open(DESCRIPTORS, "rb") as file:
            files.ParseFromString(file.read())
        for file in files.file:
            POOL.Add(file)
    return POOL


def find_method(name):
    """"Dapr/GetState" or "/any.package.Service/Method"."""
    service, method = name.strip("/").split("/")
    if "." not in service:
        service = "dapr.proto.runtime.v1." + service
    return pool().FindServiceByName(service).methods_by_name[method]


def is_map(field):
    return bool(field.message_type and field.message_type.GetOptions().map_entry)


def fill(message, values):
    for name, value in values.items():
        field = message.DESCRIPTOR.fields_by_name[name]
        if is_map(field) and field.message_type.fields_by_name["value"].message_type:
            for key, item in value.items():
                fill(getattr(message, name)[key], item)
        elif is_map(field):
            getattr(message, name).update(value)
        elif field.is_repeated and field.message_type:
            for item in value:
                fill(getattr(message, name).add(), item)
        elif field.is_repeated:
            getattr(message, name).extend(value)
        elif field.message_type:
            getattr(message, name).SetInParent()
            fill(getattr(message, name), value)
        else:
            setattr(message, name, value)
    return message


def new(type_, values=None):
    """A message of a type ("google.rpc.Status" or a descriptor) from a dict."""
    descriptor = pool().FindMessageTypeByName(type_) if isinstance(type_, str) else type_
    return fill(message_factory.GetMessageClass(descriptor)(), values or {})


def one(field, value):
    if field.message_type:
        return plain(value)
    if field.enum_type:
        known = field.enum_type.values_by_number.get(value)
        return known.name if known else value
    return value


def plain(message):
    """What is set, as a dict; enums by name."""
    found = {}
    for field, value in message.ListFields():
        if is_map(field):
            of = field.message_type.fields_by_name["value"]
            found[field.name] = {key: one(of, item) for key, item in value.items()}
        elif field.is_repeated:
            found[field.name] = [one(field, item) for item in value]
        else:
            found[field.name] = one(field, value)
    return found


def read(type_, data):
    message = new(type_)
    message.ParseFromString(data)
    return message


# ---------------------------------------------------------------- client
class Answer:
    def __init__(self, code, message, response, headers, trailers):
        self.code, self.message, self.response = code, message, response
        self.headers, self.trailers = list(headers or ()), list(trailers or ())

    @property
    def details(self):
        """[(type, dict)] of the google.rpc.Status in the trailers."""
        status = dict(self.trailers).get("grpc-status-details-bin")
        if status is None:
            return []
        found = []
        for any_ in read("google.rpc.Status", status).details:
            name = any_.type_url.split("/")[-1]
            found.append((name.split(".")[-1], plain(read(name, any_.value))))
        return found

    @property
    def reason(self):
        return next((d.get("reason") for name, d in self.details if name == "ErrorInfo"), None)

    def __repr__(self):
        return "%s %r %r" % (self.code, self.message, self.response)


def as_is(data):
    return data


class Client:
    def __init__(self, port, host="127.0.0.1", options=()):
        options = [("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1), *options]
        self.channel = grpc.insecure_channel("%s:%d" % (host, port), options=options)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.channel.close()

    def start(self, name, data, metadata=(), timeout_s=CALL_S):
        """A unary call of bytes, as grpcio's future."""
        path = name if name.startswith("/") else "/%s/%s" % (find_method(name).containing_service.full_name,
                                                            name.split("/")[1])
        call = self.channel.unary_unary(path, request_serializer=as_is, response_deserializer=as_is)
        return call.future(data, timeout=timeout_s, metadata=tuple(metadata), wait_for_ready=True)

    def raw(self, name, data, metadata=(), timeout_s=CALL_S):
        return self.outcome(self.start(name, data, metadata, timeout_s))

    @staticmethod
    def outcome(call):
        try:
            response = call.result()
        except (grpc.RpcError, grpc.FutureCancelledError):
            response = None
        return Answer(call.code().name, call.details(), response, call.initial_metadata(), call.trailing_metadata())

    def call(self, name, request=None, metadata=(), timeout_s=CALL_S):
        method = find_method(name)
        answer = self.raw(name, new(method.input_type, request).SerializeToString(), metadata, timeout_s)
        if answer.response is not None:
            answer.response = plain(read(method.output_type, answer.response))
        return answer

    def stream(self, name, requests, metadata=(), timeout_s=CALL_S):
        """All kinds: an iterable of dicts goes out; iterate over what comes, as dicts. The call is grpcio's."""
        method = find_method(name)
        call = self.channel.stream_stream(
            "/%s/%s" % (method.containing_service.full_name, method.name),
            request_serializer=lambda values: new(method.input_type, values).SerializeToString(),
            response_deserializer=lambda data: plain(read(method.output_type, data)))
        return call(iter(requests), timeout=timeout_s, metadata=tuple(metadata))
