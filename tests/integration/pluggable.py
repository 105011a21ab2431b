"""A pluggable component in a process of its own, as somebody outside this tree would write one: grpcio, its
reflection, and messages from the descriptors of our .proto texts.

  pluggable.py SOCKET DESCRIPTORS [--serves state,pubsub,secrets,bindings] [--db FILE] [--log FILE]
               [--reflection v1alpha|v1|none] [--lacks METHOD,...] [--features NAME,...] [--init-fails TEXT]

What it keeps - items, messages not yet acknowledged - is in the database, so it outlives the process. Each call
is a line of JSON in the log. Keys do what they are called: hang, error, garbage, big."""
import argparse
import concurrent.futures
import json
import os
import sqlite3
import sys
import threading
import time

import grpc
from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, message_factory

V1 = "dapr.proto.components.v1."
options = argparse.ArgumentParser()
options.add_argument("socket")
options.add_argument("descriptors")
options.add_argument("--serves", default="state")
options.add_argument("--db", default=":memory:")
options.add_argument("--log", default=os.devnull)
options.add_argument("--reflection", default="v1alpha")
options.add_argument("--lacks", default="")
options.add_argument("--features", default="ETAG,TRANSACTIONAL")
options.add_argument("--init-fails", default="")
options = options.parse_args()

pool = descriptor_pool.DescriptorPool()
with open(options.descriptors, "rb") as file:
    for one in descriptor_pb2.FileDescriptorSet.FromString(file.read()).file:
        pool.Add(one)


def message(name):
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(name))


class Store:
    def __init__(self):
        self.lock = threading.Lock()
        self.db = sqlite3.connect(options.db, check_same_thread=False, isolation_level=None)
        self.db.execute("CREATE TABLE IF NOT EXISTS items (instance, key, value BLOB, etag INTEGER, PRIMARY KEY (instance, key))")
        self.db.execute("CREATE TABLE IF NOT EXISTS messages (id INTEGER PRIMARY KEY AUTOINCREMENT, topic, data BLOB, "
                        "metadata, attempts INTEGER DEFAULT 0)")

    def run(self, text, *args):
        with self.lock:
            return self.db.execute(text, args).fetchall()


store = Store()
log_lock = threading.Lock()


def instance_of(context):
    return dict(context.invocation_metadata()).get("x-component-instance", "?")


def note(context, method, **more):
    line = dict(more, method=method, instance=instance_of(context), pid=os.getpid())
    with log_lock, open(options.log, "a") as log:
        log.write(json.dumps(line) + "\n")


def fail(context, code, text, field=None):
    if field:
        bad = message("google.rpc.BadRequest")()
        bad.field_violations.add(field=field, description=text)
        status = message("google.rpc.Status")(code=code.value[0], message=text)
        status.details.add(type_url="type.googleapis.com/google.rpc.BadRequest", value=bad.SerializeToString())
        context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    context.abort(code, text)


def wait_over(context):
    """Until the caller is gone or does not want it any more."""
    over = threading.Event()
    if context.add_callback(over.set):
        over.wait()


def behave(context, key):
    """What a key is called."""
    name = key.rsplit("||", 1)[-1]
    if name == "hang":
        wait_over(context)
    if name == "error":
        fail(context, grpc.StatusCode.INTERNAL, "this key is broken")
    if name == "invalid":
        fail(context, grpc.StatusCode.INVALID_ARGUMENT, "no such key can be")


# ---------------------------------------------------------------- every kind
def init(request, context, answer):
    note(context, "Init", properties=dict(request.metadata.properties))
    if options.init_fails:
        fail(context, grpc.StatusCode.INVALID_ARGUMENT, options.init_fails)
    return answer()


def features(request, context, answer):
    return answer(features=[f for f in options.features.split(",") if f])


def ping(request, context, answer):
    return answer()


# ---------------------------------------------------------------- state
class EtagError(Exception):
    pass


def check_etag(context, instance, item):
    if not item.HasField("etag"):
        return
    if not item.etag.value.isdigit():
        fail(context, grpc.StatusCode.INVALID_ARGUMENT, "an etag is a number", "etag")
    found = store.run("SELECT etag FROM items WHERE instance = ? AND key = ?", instance, item.key)
    if not found or str(found[0][0]) != item.etag.value:
        fail(context, grpc.StatusCode.FAILED_PRECONDITION, "it has changed", "etag")


def write(instance, item, is_set):
    if is_set:
        store.run("INSERT INTO items VALUES (?, ?, ?, 1) ON CONFLICT DO UPDATE SET value = excluded.value, etag = etag + 1",
                  instance, item.key, item.value)
    else:
        store.run("DELETE FROM items WHERE instance = ? AND key = ?", instance, item.key)


def read(context, key, answer):
    if key.rsplit("||", 1)[-1] == "big":
        answer.data = b"x" * (20 << 20)
        return answer
    for value, etag in store.run("SELECT value, etag FROM items WHERE instance = ? AND key = ?", instance_of(context), key):
        answer.data = value
        answer.etag.value = str(etag)
    return answer


def state_get(request, context, answer):
    note(context, "Get", key=request.key, metadata=dict(request.metadata), consistency=request.consistency)
    behave(context, request.key)
    return read(context, request.key, answer())


def state_set(request, context, answer):
    note(context, "Set", key=request.key, metadata=dict(request.metadata), concurrency=request.options.concurrency,
         content_type=request.content_type)
    behave(context, request.key)
    check_etag(context, instance_of(context), request)
    write(instance_of(context), request, True)
    return answer()


def state_delete(request, context, answer):
    note(context, "Delete", key=request.key)
    check_etag(context, instance_of(context), request)
    write(instance_of(context), request, False)
    return answer()


def state_bulk_get(request, context, answer):
    note(context, "BulkGet", keys=[i.key for i in request.items])
    items = answer()
    for item in reversed(request.items):
        one = items.items.add(key=item.key)
        if item.key.rsplit("||", 1)[-1] == "error":
            one.error = "this key is broken"
        else:
            read(context, item.key, one)
    return items


def state_bulk_set(request, context, answer):
    note(context, "BulkSet", keys=[i.key for i in request.items])
    for item in request.items:
        check_etag(context, instance_of(context), item)
        write(instance_of(context), item, True)
    return answer()


def state_bulk_delete(request, context, answer):
    note(context, "BulkDelete", keys=[i.key for i in request.items])
    for item in request.items:
        check_etag(context, instance_of(context), item)
        write(instance_of(context), item, False)
    return answer()


def state_transact(request, context, answer):
    note(context, "Transact", kinds=[o.WhichOneof("request") for o in request.operations], metadata=dict(request.metadata))
    for operation in request.operations:
        check_etag(context, instance_of(context), getattr(operation, operation.WhichOneof("request")))
    for operation in request.operations:
        kind = operation.WhichOneof("request")
        write(instance_of(context), getattr(operation, kind), kind == "set")
    return answer()


# ---------------------------------------------------------------- pub/sub
arrived = threading.Condition()


def publish_one(topic, data, metadata):
    with arrived:
        store.run("INSERT INTO messages (topic, data, metadata) VALUES (?, ?, ?)", topic, data, json.dumps(metadata))
        arrived.notify_all()


def pubsub_publish(request, context, answer):
    note(context, "Publish", topic=request.topic, pubsub=request.pubsub_name, metadata=dict(request.metadata),
         content_type=request.content_type)
    behave(context, request.topic)
    publish_one(request.topic, request.data, dict(request.metadata))
    return answer()


def pubsub_bulk_publish(request, context, answer):
    note(context, "BulkPublish", topic=request.topic, ids=[e.entry_id for e in request.entries])
    result = answer()
    for entry in request.entries:
        if entry.entry_id.startswith("bad"):
            result.failed_entries.add(entry_id=entry.entry_id, error="this entry is broken")
        else:
            publish_one(request.topic, entry.event, dict(entry.metadata))
    return result


def pubsub_pull(requests, context, answer):
    """Gives what is not acknowledged, one after the other; what was refused comes again after a while."""
    first = next(requests)
    topic, out, over = first.topic.name, {}, threading.Event()
    note(context, "PullMessages", topic=topic, metadata=dict(first.topic.metadata))
    if topic == "refused":
        fail(context, grpc.StatusCode.PERMISSION_DENIED, "not this topic")

    def take_acks():
        try:
            for request in requests:
                note(context, "Ack", id=request.ack_message_id, error=request.ack_error.message)
                if request.ack_error.message:
                    threading.Timer(0.2, again, [request.ack_message_id]).start()
                else:
                    store.run("DELETE FROM messages WHERE id = ?", int(request.ack_message_id))
                    with arrived:
                        arrived.notify_all()
        except Exception:
            pass
        over.set()
        with arrived:
            arrived.notify_all()

    def again(id_):
        with arrived:
            out.pop(id_, None)
            arrived.notify_all()

    threading.Thread(target=take_acks, daemon=True).start()
    while context.is_active() and not over.is_set():
        with arrived:
            found = [row for row in store.run("SELECT id, data, metadata FROM messages WHERE topic = ? ORDER BY id", topic)
                     if str(row[0]) not in out]
            if not found:
                arrived.wait(0.5)
                continue
            id_, data, metadata = found[0]
            out[str(id_)] = True
        store.run("UPDATE messages SET attempts = attempts + 1 WHERE id = ?", id_)
        yield answer(data=data, topic_name=topic, metadata=json.loads(metadata), content_type="application/cloudevents+json",
                     id=str(id_))
        if topic == "ends":
            with arrived:
                arrived.wait_for(lambda: over.is_set() or not store.run("SELECT 1 FROM messages WHERE id = ?", id_))
            return


# ---------------------------------------------------------------- secrets
SECRETS = {"one": {"one": "1"}, "many": {"a": "x", "b": "y"}}


def secrets_get(request, context, answer):
    note(context, "GetSecret", key=request.key, metadata=dict(request.metadata))
    if request.key not in SECRETS:
        fail(context, grpc.StatusCode.NOT_FOUND, "no secret " + request.key)
    return answer(data=SECRETS[request.key])


def secrets_bulk_get(request, context, answer):
    result = answer()
    for name, values in SECRETS.items():
        result.data[name].secrets.update(values)
    return result


# ---------------------------------------------------------------- bindings
def output_invoke(request, context, answer):
    note(context, "Invoke", operation=request.operation, metadata=dict(request.metadata))
    if request.operation == "fail":
        fail(context, grpc.StatusCode.INTERNAL, "it failed")
    return answer(data=request.data[::-1], metadata={"turned": "round"}, content_type="text/plain")


def output_operations(request, context, answer):
    return answer(operations=["create", "turn", "fail"])


def input_read(requests, context, answer):
    """Three events; each comes again until it was answered without an error."""
    note(context, "Read")
    for n in range(3):
        while True:
            yield answer(data=json.dumps({"n": n}).encode(), metadata={"n": str(n)}, message_id=str(n))
            reply = next(requests, None)
            if reply is None:
                return
            note(context, "Answered", id=reply.message_id, data=reply.response_data.decode(), error=reply.response_error.message)
            if not reply.response_error.message:
                break
    wait_over(context)


COMMON = {"Init": init, "Features": features, "Ping": ping}
SERVICES = {
    "state": {
        "StateStore": {**COMMON, "Get": state_get, "Set": state_set, "Delete": state_delete, "BulkGet": state_bulk_get,
                       "BulkSet": state_bulk_set, "BulkDelete": state_bulk_delete},
        "TransactionalStateStore": {"Transact": state_transact},
    },
    "pubsub": {"PubSub": {**COMMON, "Publish": pubsub_publish, "BulkPublish": pubsub_bulk_publish, "PullMessages": pubsub_pull}},
    "secrets": {"SecretStore": {**COMMON, "Get": secrets_get, "BulkGet": secrets_bulk_get}},
    "bindings": {
        "OutputBinding": {"Init": init, "Ping": ping, "Invoke": output_invoke, "ListOperations": output_operations},
        "InputBinding": {"Init": init, "Ping": ping, "Read": input_read},
    },
}


def handler(method, function):
    answer = message(method.output_type.full_name)
    make = grpc.stream_stream_rpc_method_handler if method.client_streaming else grpc.unary_unary_rpc_method_handler

    def run(request, context):
        return function(request, context, answer)

    def spoil(value):
        if isinstance(value, answer):
            return value.SerializeToString()
        return value

    def run_or_spoil(request, context):
        if getattr(request, "key", "").endswith("garbage"):
            return b"\xff\xff\xff\xff"
        return run(request, context)

    return make(run if method.client_streaming else run_or_spoil,
                request_deserializer=message(method.input_type.full_name).FromString, response_serializer=spoil)


def reflect(names):
    """grpc.reflection.v1, list_services only; grpcio's package has v1alpha."""
    request, response = (message("grpc.reflection.v1.ServerReflection" + n) for n in ("Request", "Response"))

    def info(requests, context):
        for _ in requests:
            answer = response()
            for name in names:
                answer.list_services_response.service.add(name=name)
            yield answer

    return grpc.method_handlers_generic_handler("grpc.reflection.v1.ServerReflection", {
        "ServerReflectionInfo": grpc.stream_stream_rpc_method_handler(info, request.FromString, response.SerializeToString)})


def main():
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(64))
    names, lacks = [], options.lacks.split(",")
    for kind in options.serves.split(","):
        for service, methods in SERVICES[kind].items():
            if service in lacks:
                continue
            names.append(V1 + service)
            known = pool.FindServiceByName(V1 + service).methods_by_name
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(V1 + service, {
                name: handler(known[name], function) for name, function in methods.items() if name not in lacks}),))
    if options.reflection == "v1":
        server.add_generic_rpc_handlers((reflect(names),))
    elif options.reflection == "v1alpha":
        from grpc_reflection.v1alpha import reflection
        reflection.enable_server_reflection(names + [reflection.SERVICE_NAME], server)
    server.add_insecure_port("unix:" + options.socket)
    server.start()
    print("ready", flush=True)
    sys.stdin.read()  # until whoever started it is gone
    os._exit(0)


if __name__ == "__main__":
    main()
