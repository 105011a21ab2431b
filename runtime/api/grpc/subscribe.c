#include <dapr/proto/runtime/v1/pubsub.pb-c.h>

#include "api/grpc/grpc_api.h"
#include "blocks/pubsub/stream.h"

/* SubscribeTopicEventsAlpha1: the client says what it wants once, then how each event fared,
 * in any order. contract/pubsub.md "Streaming subscribe". */

typedef Dapr__Proto__Runtime__V1__SubscribeTopicEventsRequestAlpha1 client_says;
typedef Dapr__Proto__Runtime__V1__SubscribeTopicEventsRequestInitialAlpha1 initial_request;
typedef Dapr__Proto__Runtime__V1__SubscribeTopicEventsResponseAlpha1 we_say;

#define PASTE(a, b) a##b
#define CLIENT(what)                                                                               \
    PASTE(DAPR__PROTO__RUNTIME__V1__SUBSCRIBE_TOPIC_EVENTS_REQUEST_ALPHA1__,                       \
          SUBSCRIBE_TOPIC_EVENTS_REQUEST_TYPE_##what)
#define SERVER(what)                                                                               \
    PASTE(DAPR__PROTO__RUNTIME__V1__SUBSCRIBE_TOPIC_EVENTS_RESPONSE_ALPHA1__,                      \
          SUBSCRIBE_TOPIC_EVENTS_RESPONSE_TYPE_##what)

typedef struct subscriber {
    outr_grpc_call *call;
    outr_event_stream stream;
    bool is_open;
} subscriber;

static subscriber *of(outr_grpc_call *call)
{
    return call->user;
}

/* ---- what the engine says -------------------------------------------------------------------- */

static bool on_event(outr_event_stream *stream,
                     const Dapr__Proto__Runtime__V1__TopicEventRequest *event)
{
    subscriber *s = OUTR_CONTAINER(stream, subscriber, stream);
    we_say message = DAPR__PROTO__RUNTIME__V1__SUBSCRIBE_TOPIC_EVENTS_RESPONSE_ALPHA1__INIT;
    message.subscribe_topic_events_response_type_case = SERVER(EVENT_MESSAGE);
    message.event_message = (Dapr__Proto__Runtime__V1__TopicEventRequest *)(uintptr_t)event;
    return outr_grpc_send(s->call, &message);
}

static void on_end(outr_event_stream *stream, const outr_err *err)
{
    subscriber *s = OUTR_CONTAINER(stream, subscriber, stream);
    if (err)
        outr_rpc_fail(s->call, err, NULL);
    else
        outr_grpc_end(s->call);
}

/* ---- what the client says -------------------------------------------------------------------- */

static void refuse(outr_grpc_call *call, outr_code code, const char *text)
{
    outr_err err;
    outr_fail(&err, code, "%s", text);
    outr_rpc_fail(call, &err, NULL);
}

static bool open_stream(outr_grpc_call *call, const initial_request *req)
{
    subscriber *s = of(call);
    outr_err err;
    we_say answer = DAPR__PROTO__RUNTIME__V1__SUBSCRIBE_TOPIC_EVENTS_RESPONSE_ALPHA1__INIT;
    Dapr__Proto__Runtime__V1__SubscribeTopicEventsResponseInitialAlpha1 initial =
        DAPR__PROTO__RUNTIME__V1__SUBSCRIBE_TOPIC_EVENTS_RESPONSE_INITIAL_ALPHA1__INIT;
    s->stream = (outr_event_stream){
        .pubsub = outr_str_from(req->pubsub_name),
        .topic = outr_str_from(req->topic),
        .metadata = outr_rpc_kvs(call->arena, req->metadata, req->n_metadata),
        .loop = call->loop,
        .on_event = on_event,
        .on_end = on_end,
    };
    if (req->_dead_letter_topic_case)
        s->stream.dead_letter_topic = outr_str_from(req->dead_letter_topic);
    if (outr_event_stream_open(outr_rpc_of(call)->api->pubsub, &s->stream, &err)) {
        outr_rpc_fail(call, &err, NULL);
        return false;
    }
    s->is_open = true;
    outr_rpc_unpin(call); /* the stream may see components come and go */
    answer.subscribe_topic_events_response_type_case = SERVER(INITIAL_RESPONSE);
    answer.initial_response = &initial;
    if (!outr_grpc_send(call, &answer))
        s->stream.is_full = true;
    return true;
}

static bool take_initial(outr_grpc_call *call, const client_says *message)
{
    if (message->subscribe_topic_events_request_type_case != CLIENT(INITIAL_REQUEST))
        refuse(call, OUTR_INVALID_ARGUMENT, "initial request is required");
    else if (message->initial_request->pubsub_name[0] == 0)
        refuse(call, OUTR_INVALID_ARGUMENT, "pubsubName is required");
    else if (message->initial_request->topic[0] == 0)
        refuse(call, OUTR_INVALID_ARGUMENT, "topic is required");
    else
        return open_stream(call, message->initial_request);
    return false;
}

static bool on_message(outr_grpc_call *call, void *decoded)
{
    subscriber *s = of(call);
    const client_says *message = decoded;
    outr_err err;
    if (!s->is_open)
        return take_initial(call, message);
    if (message->subscribe_topic_events_request_type_case != CLIENT(EVENT_PROCESSED)) {
        outr_fail(&err, OUTR_INVALID_ARGUMENT, "duplicate initial request received");
        outr_event_stream_close(&s->stream, &err);
        return true;
    }
    const Dapr__Proto__Runtime__V1__SubscribeTopicEventsRequestProcessedAlpha1 *processed =
        message->event_processed;
    outr_event_stream_answer(&s->stream, outr_str_from(processed->id),
                             processed->status ? (int)processed->status->status : 0);
    return true;
}

static void leave(outr_grpc_call *call)
{
    subscriber *s = of(call);
    if (s->is_open)
        outr_event_stream_close(&s->stream, NULL);
    else
        outr_grpc_end(call);
}

static void on_writable(outr_grpc_call *call)
{
    subscriber *s = of(call);
    if (s->is_open)
        outr_event_stream_go_on(&s->stream);
}

static void run(outr_grpc_call *call)
{
    subscriber *s = outr_arena_alloc(call->arena, sizeof *s);
    s->call = call;
    call->user = s;
    call->on_message = on_message;
    call->on_half_close = leave;
    call->on_writable = on_writable;
    call->on_gone = leave;
}

const outr_grpc_method outr_rpcs_subscribe[] = {
    {.path = "/dapr.proto.runtime.v1.Dapr/SubscribeTopicEventsAlpha1",
     .request =
         &dapr__proto__runtime__v1__subscribe_topic_events_request_alpha1__descriptor,
     .takes_stream = true,
     .run = run,
     .group = "subscribe",
     .version = "v1alpha1"},
    {0},
};
