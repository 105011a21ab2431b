"""An app that speaks gRPC, made with dapr-ext-grpc: methods, topics, a health check, and a service of its own."""
import json
import os
import queue
import threading

import grpc
from dapr.clients.grpc._response import TopicEventResponse
from dapr.ext.grpc import App, InvokeMethodResponse, Rule

app = App()
events = {}
lock = threading.Lock()


def arrived(topic, event):
    with lock:
        waiting = events.setdefault(topic, queue.Queue())
    data = event.Data()
    waiting.put({"id": event.EventID(), "type": event.EventType(), "source": event.Source(), "topic": event.Subject(),
                 "content_type": event.content_type, "data": data.decode() if isinstance(data, bytes) else data})


def metadata_of(request, name):
    return request.metadata.get(name, [""])[0]


@app.method("echo")
def echo(request):
    answer = InvokeMethodResponse(request.data, request.content_type)
    answer.headers = (("x-answer", "yes"), ("x-seen", metadata_of(request, "x-question")),
                      ("x-caller", metadata_of(request, "dapr-caller-app-id")))
    return answer


@app.method("token")
def token(request):
    return metadata_of(request, "dapr-api-token")


@app.method("refuse")
def refuse(request):
    raise ValueError("not today")


@app.method("next-event")
def next_event(request):
    """Waits for an event of the topic that the body names."""
    topic = request.data.decode()
    with lock:
        waiting = events.setdefault(topic, queue.Queue())
    return json.dumps(waiting.get(timeout=20))


@app.subscribe(pubsub_name="events", topic="py-grpc")
def on_event(event):
    arrived("py-grpc", event)


@app.subscribe(pubsub_name="events", topic="py-routed", rule=Rule('event.type == "important"', 1))
def on_important(event):
    arrived("important", event)


@app.subscribe(pubsub_name="events", topic="py-routed", rule=Rule('has(event.type)', 2))
def on_other(event):
    arrived("other", event)


@app.binding("tick")
def on_tick(request):
    with lock:
        waiting = events.setdefault("tick", queue.Queue())
    waiting.put({})


attempts = {}


@app.subscribe(pubsub_name="events", topic="py-retried")
def on_retried(event):
    attempts[event.EventID()] = attempts.get(event.EventID(), 0) + 1
    if attempts[event.EventID()] == 1:
        return TopicEventResponse("retry")
    arrived("py-retried", event)
    return TopicEventResponse("success")


@app.subscribe(pubsub_name="events", topic="py-dropped", dead_letter_topic="py-dead")
def on_dropped(event):
    return TopicEventResponse("drop")


@app.subscribe(pubsub_name="events", topic="py-dead")
def on_dead(event):
    arrived("py-dead", event)


app.register_health_check(lambda: None)


def add_service(server):
    """test.Echo with all four kinds of method, messages being bytes."""
    def both(requests, context):
        for request in requests:
            yield request

    def fail(request, context):
        context.set_trailing_metadata((("why", "because"),))
        context.abort(grpc.StatusCode.OUT_OF_RANGE, "too far")
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", {
        "Unary": grpc.unary_unary_rpc_method_handler(lambda request, context: request),
        "ServerStream": grpc.unary_stream_rpc_method_handler(lambda request, context: iter([request] * 100)),
        "ClientStream": grpc.stream_unary_rpc_method_handler(lambda requests, context: b"".join(requests)),
        "BothStream": grpc.stream_stream_rpc_method_handler(both),
        "Fail": grpc.unary_unary_rpc_method_handler(fail),
    }),))


app.add_external_service(lambda service, server: add_service(server), None)
app.run(int(os.environ["APP_PORT"]), listen_address="127.0.0.1")
