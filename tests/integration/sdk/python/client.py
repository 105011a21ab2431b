"""What a program with Dapr's Python SDK asks of its sidecar. run.py gives it ports by the SDK's own variables."""
import asyncio
import json
import os
import queue
import uuid

import grpc
from checks import check, equal, run_all
from dapr.aio.clients import DaprClient as AsyncDaprClient
from dapr.clients import DaprClient
from dapr.clients.exceptions import DaprGrpcError
from dapr.clients.grpc._request import TransactionalStateOperation, TransactionOperationType
from dapr.clients.grpc._response import TopicEventResponse
from dapr.clients.grpc._state import Concurrency, Consistency, StateItem, StateOptions
from dapr.clients.grpc.client import DaprGrpcClient
from dapr.clients.grpc.interceptors import DaprClientInterceptor
from dapr.clients.health import DaprHealth
from dapr.conf import settings

STORES = tuple(os.environ["STORES"].split())
WAIT_S = 20


def refused(code, function, *arguments, **more):
    """The error that this must end in."""
    try:
        function(*arguments, **more)
    except (DaprGrpcError, grpc.RpcError) as error:
        equal(error.code(), code)
        return error
    raise AssertionError("was not refused with %s" % code)


def headers_of(answer):
    """Names in lower case, first values."""
    return {name.lower(): value[0] if isinstance(value, list) else value for name, value in reversed(list(answer.headers.items()
            if isinstance(answer.headers, dict) else answer.headers))}


def next_event(client, app, topic):
    """What the app has received on the topic; waits for it."""
    answer = client.invoke_method(app, "next-event", topic, content_type="text/plain", http_verb="POST", timeout=WAIT_S)
    return json.loads(answer.data)


def both_stores(function):
    def checked(client):
        for store in STORES:
            function(client, store)
    checked.__name__ = function.__name__
    return check(checked)


# ---------------------------------------------------------------- health, metadata, secrets
@check
def health_wait(client):
    DaprHealth.wait_for_sidecar()
    client.wait(WAIT_S)


@check
def metadata(client):
    client.set_metadata("colour", "blue")
    answer = client.get_metadata()
    equal(answer.application_id, "client")
    equal(answer.extended_metadata["colour"], "blue")
    found = {c.name: c for c in answer.registered_components}
    equal({"memory", "sqlite", "events", "vault"} <= set(found), True)
    equal((found["memory"].type, found["memory"].version), ("state.in-memory", "v1"))
    assert "ETAG" in found["memory"].capabilities and "TRANSACTIONAL" in found["memory"].capabilities


@check
def secrets(client):
    equal(client.get_secret("vault", "password").secret, {"password": "s3cret"})
    bulk = client.get_bulk_secret("vault").secrets
    equal(bulk["password"], {"password": "s3cret"})
    equal(bulk["nested:key"], {"nested:key": "value"})
    try:
        client.get_secret("vault", "absent")
    except grpc.RpcError as error:
        assert error.code() != grpc.StatusCode.OK
    else:
        raise AssertionError("an absent secret was found")


@check
def api_token_is_asked_for(client):
    with grpc.insecure_channel("%s:%s" % (settings.DAPR_RUNTIME_HOST, settings.DAPR_GRPC_PORT)) as channel:
        call = channel.unary_unary("/dapr.proto.runtime.v1.Dapr/GetMetadata")
        equal(refused(grpc.StatusCode.UNAUTHENTICATED, call, b"").code(), grpc.StatusCode.UNAUTHENTICATED)


# ---------------------------------------------------------------- configuration, locks: need redis-server
def of_redis(function):
    return check(function) if "redis" in STORES else function


class TokenOfServerStreams(grpc.UnaryStreamClientInterceptor):
    """The SDK's own interceptor does not dress these, so with a token its subscription would be refused."""

    def intercept_unary_stream(self, continuation, details, request):
        metadata = [*(details.metadata or ()), ("dapr-api-token", settings.DAPR_API_TOKEN)]
        return continuation(details._replace(metadata=metadata), request)


@of_redis
def configuration(client):
    items = client.get_configuration("conf", ["colour", "absent"]).items
    equal({k: (i.value, i.version) for k, i in items.items()}, {"colour": ("blue", "v1")})
    heard = queue.Queue()
    with DaprClient(interceptors=[TokenOfServerStreams()]) as watcher:
        id_ = watcher.subscribe_configuration("conf", ["beat"], lambda _, answer: heard.put(answer))
        seen = [int(heard.get(timeout=WAIT_S).items["beat"].value) for _ in range(3)]
        assert seen == sorted(set(seen)), seen
        equal(watcher.unsubscribe_configuration("conf", id_), True)
    refused(grpc.StatusCode.INVALID_ARGUMENT, client.get_configuration, "nowhere", ["k"])


@of_redis
def locks(client):
    resource = str(uuid.uuid4())
    equal(client.try_lock("locks", resource, "me", 60).success, True)
    equal(client.try_lock("locks", resource, "you", 60).success, False)
    equal([client.unlock("locks", resource, o).status.name for o in ("you", "me", "me")],
          ["lock_belongs_to_others", "success", "lock_does_not_exist"])
    refused(grpc.StatusCode.INVALID_ARGUMENT, client.try_lock, "nowhere", resource, "me", 60)


# ---------------------------------------------------------------- state
@both_stores
def state_save_get_delete(client, store):
    key = "k-%s" % uuid.uuid4()
    equal(client.get_state(store, key).data, b"")
    client.save_state(store, key, "text", state_metadata={"ttlInSeconds": "600"})
    first = client.get_state(store, key)
    equal(first.data, b"text")
    client.save_state(store, key, json.dumps({"a": [1, 2]}), options=StateOptions(consistency=Consistency.strong))
    second = client.get_state(store, key)
    equal(second.json(), {"a": [1, 2]})
    assert first.etag and second.etag and first.etag != second.etag
    client.delete_state(store, key)
    equal(client.get_state(store, key).data, b"")


@both_stores
def state_etags(client, store):
    key = "k-%s" % uuid.uuid4()
    client.save_state(store, key, "1")
    etag = client.get_state(store, key).etag
    client.save_state(store, key, "2", etag=etag)
    refused(grpc.StatusCode.ABORTED, client.save_state, store, key, "3", etag=etag)
    refused(grpc.StatusCode.ABORTED, client.delete_state, store, key, etag=etag)
    equal(client.get_state(store, key).data, b"2")
    client.delete_state(store, key, etag=client.get_state(store, key).etag)
    equal(client.get_state(store, key).data, b"")


@both_stores
def state_first_write(client, store):
    key = "k-%s" % uuid.uuid4()
    first = StateOptions(concurrency=Concurrency.first_write)
    client.save_state(store, key, "1", options=first)
    refused(grpc.StatusCode.ABORTED, client.save_state, store, key, "2", options=first)
    equal(client.get_state(store, key).data, b"1")


@both_stores
def state_bulk(client, store):
    keys = ["b%d-%s" % (i, uuid.uuid4()) for i in range(20)]
    client.save_bulk_state(store, [StateItem(key=k, value="v" + k) for k in keys])
    items = {i.key: i for i in client.get_bulk_state(store, keys + ["absent"], parallelism=3).items}
    equal({k: items[k].data for k in keys}, {k: ("v" + k).encode() for k in keys})
    equal((items["absent"].data, items["absent"].error), (b"", ""))
    assert all(items[k].etag for k in keys)


@both_stores
def state_transaction(client, store):
    a, b = "a-%s" % uuid.uuid4(), "b-%s" % uuid.uuid4()
    client.save_state(store, b, "old")
    client.execute_state_transaction(store, [
        TransactionalStateOperation(key=a, data="new"),
        TransactionalStateOperation(key=b, operation_type=TransactionOperationType.delete)])
    equal((client.get_state(store, a).data, client.get_state(store, b).data), (b"new", b""))
    try:
        client.execute_state_transaction(store, [
            TransactionalStateOperation(key=b, data="half"),
            TransactionalStateOperation(key=a, data="x", etag="424242")])
    except grpc.RpcError:
        pass
    else:
        raise AssertionError("a transaction with a wrong etag went through")
    equal((client.get_state(store, a).data, client.get_state(store, b).data), (b"new", b""))


@check
def state_of_an_unknown_store(client):
    error = refused(grpc.StatusCode.INVALID_ARGUMENT, client.get_state, "nowhere", "k")
    assert "nowhere" in error.details(), error.details()


@check
def state_error_details(client):
    try:
        client.save_state("nowhere", "k", "v")
    except DaprGrpcError as error:
        assert error.error_code().startswith("DAPR_STATE_"), error.error_code()
        equal(error.status_details().error_info["domain"], "dapr.io")
    else:
        raise AssertionError("was not refused")


# ---------------------------------------------------------------- invocation
@check
def invoke_grpc_app_over_grpc(client):
    answer = DaprGrpcClient.invoke_method(client, "grpc-app", "echo", b"\x00\x01two", "application/octet-stream",
                                          metadata=(("x-question", "why"),))
    equal((answer.data, answer.content_type), (b"\x00\x01two", "application/octet-stream"))
    headers = headers_of(answer)
    equal((headers["x-answer"], headers["x-seen"], headers["x-caller"]), ("yes", "why", "client"))


@check
def invoke_http_app_over_grpc(client):
    answer = DaprGrpcClient.invoke_method(client, "http-app", "echo", b'{"a":1}', "application/json", http_verb="PUT",
                                          http_querystring=(("q", "a b"),))
    equal((answer.data, answer.content_type), (b'{"a":1}', "application/json"))
    headers = headers_of(answer)
    equal((headers["x-verb"], headers["x-query"], headers["dapr-http-status"]), ("PUT", "q=a+b", "200"))


@check
def invoke_http_app_over_http(client):
    answer = client.invoke_method("http-app", "echo", "hello", "text/plain", (("x-question", "why"),), "POST", (("q", "1"),))
    equal((answer.data, answer.status_code), (b"hello", 200))
    headers = headers_of(answer)
    equal((headers["x-answer"], headers["x-seen"], headers["x-caller"], headers["x-query"]), ("yes", "why", "client", "q=1"))


@check
def invoke_grpc_app_over_http(client):
    answer = client.invoke_method("grpc-app", "echo", "hello", "text/plain", http_verb="POST")
    equal((answer.data, answer.status_code, answer.content_type), (b"hello", 200, "text/plain"))
    equal(headers_of(answer)["x-answer"], "yes")


@check
def app_token_reaches_the_app(client):
    equal(client.invoke_method("grpc-app", "token", "", http_verb="POST").data, b"app-secret")
    equal(headers_of(client.invoke_method("http-app", "echo", "", http_verb="GET"))["x-token"], "app-secret")


@check
def invoke_errors(client):
    invoke = DaprGrpcClient.invoke_method
    refused(grpc.StatusCode.UNIMPLEMENTED, invoke, client, "grpc-app", "absent", b"")
    error = refused(grpc.StatusCode.UNKNOWN, invoke, client, "grpc-app", "refuse", b"")
    assert "not today" in error.details(), error.details()
    refused(grpc.StatusCode.NOT_FOUND, invoke, client, "http-app", "absent", b"", http_verb="GET")
    refused(grpc.StatusCode.UNKNOWN, invoke, client, "http-app", "teapot", b"", http_verb="GET")
    refused(grpc.StatusCode.INTERNAL, invoke, client, "nobody", "x", b"")


@check
def proxied_service(client):
    """The app's own service, all four kinds of method; the SDK's interceptor dresses two of them."""
    dress = [("dapr-app-id", "grpc-app"), ("dapr-api-token", settings.DAPR_API_TOKEN)]
    plain = grpc.insecure_channel("%s:%s" % (settings.DAPR_RUNTIME_HOST, settings.DAPR_GRPC_PORT))
    channel = grpc.intercept_channel(plain, DaprClientInterceptor(dress))
    many = [b"%d" % i for i in range(100)]
    equal(channel.unary_unary("/test.Echo/Unary")(b"one", timeout=WAIT_S), b"one")
    equal(list(plain.unary_stream("/test.Echo/ServerStream")(b"one", timeout=WAIT_S, metadata=dress)), [b"one"] * 100)
    equal(plain.stream_unary("/test.Echo/ClientStream")(iter(many), timeout=WAIT_S, metadata=dress), b"".join(many))
    equal(list(channel.stream_stream("/test.Echo/BothStream")(iter(many), timeout=WAIT_S)), many)
    error = refused(grpc.StatusCode.OUT_OF_RANGE, channel.unary_unary("/test.Echo/Fail"), b"", timeout=WAIT_S)
    equal((error.details(), dict(error.trailing_metadata())["why"]), ("too far", "because"))
    plain.close()


# ---------------------------------------------------------------- events
@check
def publish_to_grpc_app(client):
    client.publish_event("events", "py-grpc", json.dumps({"n": 1}), data_content_type="application/json")
    event = next_event(client, "grpc-app", "py-grpc")
    equal((json.loads(event["data"]), event["content_type"], event["source"], event["topic"], event["type"]),
          ({"n": 1}, "application/json", "client", "py-grpc", "com.dapr.event.sent"))
    client.publish_event("events", "py-grpc", "just text")
    equal(next_event(client, "grpc-app", "py-grpc")["data"], "just text")
    client.publish_event("events", "py-grpc", b"bytes", data_content_type="application/octet-stream")
    equal(next_event(client, "grpc-app", "py-grpc")["data"], "bytes")


@check
def publish_to_http_app(client):
    client.publish_event("events", "py-http", json.dumps({"n": 2}), data_content_type="application/json")
    event = next_event(client, "http-app", "py-http")
    equal((event["data"], event["datacontenttype"], event["source"], event["topic"], event["pubsubname"]),
          ({"n": 2}, "application/json", "client", "py-http", "events"))


@check
def publish_a_cloud_event(client):
    event = {"specversion": "1.0", "id": "mine-1", "source": "elsewhere", "type": "special", "data": {"n": 3},
             "datacontenttype": "application/json"}
    client.publish_event("events", "py-http", json.dumps(event), data_content_type="application/cloudevents+json")
    got = next_event(client, "http-app", "py-http")
    equal({k: got[k] for k in ("id", "source", "type", "data")}, {k: event[k] for k in ("id", "source", "type", "data")})


@check
def publish_bulk(client):
    answer = client.publish_events("events", "py-grpc", ["one", "two", "three"])
    equal(list(answer.failed_entries), [])
    equal(sorted(next_event(client, "grpc-app", "py-grpc")["data"] for _ in range(3)), ["one", "three", "two"])


@check
def publish_to_an_unknown_broker(client):
    error = refused(grpc.StatusCode.INVALID_ARGUMENT, client.publish_event, "nowhere", "t", "x")
    assert "nowhere" in error.details(), error.details()


@check
def events_are_routed_by_rule(client):
    for type_ in ("important", "other"):
        client.publish_event("events", "py-routed", "of type " + type_, publish_metadata={"cloudevent.type": type_})
        equal(next_event(client, "grpc-app", type_)["data"], "of type " + type_)


@check
def refused_events_come_again(client):
    client.publish_event("events", "py-retried", "again")
    equal(next_event(client, "grpc-app", "py-retried")["data"], "again")
    client.publish_event("events", "py-http-retried", "again")
    equal(next_event(client, "http-app", "py-http-retried")["data"], "again")


@check
def dropped_events_go_to_the_dead_letter_topic(client):
    client.publish_event("events", "py-dropped", "dead")
    equal(next_event(client, "grpc-app", "py-dead")["data"], "dead")
    client.publish_event("events", "py-http-dropped", "dead")
    equal(next_event(client, "http-app", "py-http-dead")["data"], "dead")


# The SDK closes its half of a new stream when the thread that sends looks at a flag before start() has set it, which
# happens on a busy machine; the sidecar then ends the stream, as a daprd does. What it had comes to the next one.
def first_message(client, topic, data):
    for left in reversed(range(5)):
        subscription = client.subscribe("events", topic)
        if left == 4:
            client.publish_event("events", topic, data, data_content_type="application/json")
        try:
            return subscription, subscription.next_message()
        except Exception:
            subscription.close()
            if left == 0:
                raise


@check
def streaming_subscription(client):
    subscription, message = first_message(client, "py-stream", json.dumps({"n": 4}))
    equal((message.data(), message.topic(), message.source(), message.pubsub_name()), ({"n": 4}, "py-stream", "client", "events"))
    subscription.respond_retry(message)
    again = subscription.next_message()
    equal((again.id(), again.data()), (message.id(), {"n": 4}))
    subscription.respond_success(again)
    subscription.close()


@check
def streaming_subscription_with_handler(client):
    arrived = queue.Queue()

    def handler(message):
        arrived.put(message.data())
        return TopicEventResponse("success")
    for left in (1, 0):
        close = client.subscribe_with_handler("events", "py-handled", handler)
        for i in range(20) if left else ():
            client.publish_event("events", "py-handled", str(i), data_content_type="text/plain")
        try:
            first = arrived.get(timeout=WAIT_S)
            break
        except queue.Empty:  # see first_message
            close()
            if not left:
                raise
    equal(sorted([first] + [arrived.get(timeout=WAIT_S) for _ in range(19)]), sorted(map(str, range(20))))
    close()


# ---------------------------------------------------------------- bindings
@check
def output_binding(client):
    text = "n\u00e4me %s" % uuid.uuid4()
    client.invoke_binding("files", "create", text, {"fileName": "python.txt"})
    equal(client.invoke_binding("files", "get", b"", {"fileName": "python.txt"}).data, text.encode())
    client.invoke_binding("files", "delete", b"", {"fileName": "python.txt"})
    try:
        client.invoke_binding("files", "fly", b"")
    except grpc.RpcError as error:
        assert "fly" in error.details(), error.details()
    else:
        raise AssertionError("an unknown operation was not refused")


@check
def input_binding(client):
    for app in ("grpc-app", "http-app"):
        equal(next_event(client, app, "tick"), {})


# ---------------------------------------------------------------- limits
@check
def large_values(client):
    value = bytes(range(256)) * 4 * 1024 * 3  # 3 MiB
    client.save_state("memory", "large", value)
    equal(client.get_state("memory", "large").data, value)
    equal(client.invoke_method("http-app", "echo", value, "application/octet-stream", http_verb="POST").data, value)
    refused(grpc.StatusCode.RESOURCE_EXHAUSTED, client.save_state, "memory", "larger", value + value)
    equal(client.get_state("memory", "large").data, value)


@check
def deadlines(client):
    """The app waits for an event that never comes; its caller does not."""
    refused(grpc.StatusCode.DEADLINE_EXCEEDED, DaprGrpcClient.invoke_method, client, "grpc-app", "next-event", b"never", timeout=0.3)
    refused(grpc.StatusCode.DEADLINE_EXCEEDED, DaprGrpcClient.invoke_method, client, "http-app", "next-event", b"never",
            http_verb="POST", timeout=0.3)


# ---------------------------------------------------------------- asyncio
class TokenOfStreams(grpc.aio.StreamStreamClientInterceptor):
    """The SDK's own interceptor is both unary and streaming; grpc.aio takes such a one for unary calls only."""

    async def intercept_stream_stream(self, continuation, details, requests):
        metadata = grpc.aio.Metadata(*(details.metadata or ()), ("dapr-api-token", settings.DAPR_API_TOKEN))
        return await continuation(details._replace(metadata=metadata), requests)


@check
async def asyncio_client(_):
    async with AsyncDaprClient() as client:
        await client.save_state("memory", "async", "1")
        etag = (await client.get_state("memory", "async")).etag
        await client.save_state("memory", "async", "2", etag=etag)
        equal((await client.get_state("memory", "async")).data, b"2")
        equal((await client.get_secret("vault", "password")).secret, {"password": "s3cret"})
        answer = await client.invoke_method("http-app", "echo", "hello", "text/plain", http_verb="POST")
        equal(answer.data, b"hello")


@check
async def asyncio_many_at_once(_):
    async with AsyncDaprClient() as client:
        await asyncio.gather(*(client.save_state("sqlite", "many-%d" % i, str(i)) for i in range(200)))
        found = await asyncio.gather(*(client.get_state("sqlite", "many-%d" % i) for i in range(200)))
        equal([f.data for f in found], [b"%d" % i for i in range(200)])
        answers = await asyncio.gather(*(
            client.invoke_method(app, "echo", "n%d" % i, "text/plain", http_verb="POST")
            for i in range(50) for app in ("grpc-app", "http-app")))
        equal([a.data for a in answers], [b"n%d" % (i // 2) for i in range(100)])


@check
async def asyncio_streaming_subscription(_):
    async with AsyncDaprClient(interceptors=[TokenOfStreams()]) as client:
        subscription = await client.subscribe("events", "py-async")
        await client.publish_event("events", "py-async", "text")
        message = await subscription.next_message()
        equal(message.data(), "text")
        await subscription.respond_success(message)
        await subscription.close()


@check
def shutdown(client):
    client.subscribe("events", "py-open")  # still there when the sidecar is to end
    client.shutdown()


with DaprClient() as client:
    run_all(client)
