/* Bindings behind a socket: operations are unary calls, events come by a Read stream. */
#include <dapr/proto/components/v1/bindings.pb-c.h>

#include "components/bindings.h"
#include "components/pluggable/feed.h"

#define V1(name)       Dapr__Proto__Components__V1__##name
#define V1_TYPE(name)  dapr__proto__components__v1__##name##__descriptor
#define INPUT(method)  OUTR__PLUG_PATH("InputBinding", method)
#define OUTPUT(method) OUTR__PLUG_PATH("OutputBinding", method)

#define INPUT_SERVICE                                                                              \
    {                                                                                              \
        "dapr.proto.components.v1.InputBinding", INPUT("Init"), NULL, INPUT("Ping"),               \
            OUTR_BINDING_INPUT                                                                     \
    }
#define OUTPUT_SERVICE                                                                             \
    {                                                                                              \
        "dapr.proto.components.v1.OutputBinding", OUTPUT("Init"), NULL, OUTPUT("Ping"),            \
            OUTR_BINDING_OUTPUT                                                                    \
    }

/* What the resource's direction leaves out is not initialised. */
static const outr__plug_service both[] = {INPUT_SERVICE, OUTPUT_SERVICE, {0}},
                                input[] = {INPUT_SERVICE, {0}}, output[] = {OUTPUT_SERVICE, {0}};
static const outr__plug_kind kinds[] = {
    [OUTR_BINDING_INPUT] = {"bindings", input, NULL, NULL},
    [OUTR_BINDING_OUTPUT] = {"bindings", output, NULL, NULL},
    [OUTR_BINDING_INPUT | OUTR_BINDING_OUTPUT] = {"bindings", both, NULL, NULL},
};

#define OPERATIONS_MAX 1000

typedef struct binding {
    outr_binding base;
    outr__plug *plug;
    outr_arena *arena; /* of the operations' names */
    const char **operations;
    /* while it opens */
    outr_op *opening;
    outr_op inner;
    outr__plug_call call;
    V1(ListOperationsRequest) message;
} binding;

extern const outr_binding_backend outr_bindings_pluggable;

static binding *of(outr_binding *base)
{
    return OUTR_CONTAINER(base, binding, base);
}

/* ---- output ---------------------------------------------------------------------------------- */

typedef struct job {
    outr_binding_invoke *req;
    outr_op *op;
    outr_op inner;
    outr__plug_call call;
} job;

static void on_invoked(outr_op *inner)
{
    job *j = OUTR_CONTAINER(inner, job, inner);
    const V1(InvokeResponse) *m = j->call.answer;
    if (inner->err.code) {
        outr__plug_call_done(&j->call);
        outr_op_fail(j->op, &inner->err);
        return;
    }
    j->req->has_answer = true;
    j->req->answer = outr_proto_bytes(m->data);
    j->req->answer_metadata = outr__plug_kvs(j->req->arena, m->metadata, m->n_metadata);
    outr__plug_call_keep(&j->call, j->req->arena);
    outr_op_finish(j->op);
}

static void invoke(outr_binding *base, outr_binding_invoke *req, outr_op *op)
{
    job *j = outr_arena_alloc(req->arena, sizeof *j);
    V1(InvokeRequest) *m = outr_arena_alloc(req->arena, sizeof *m);
    outr__plug_text text = {.arena = req->arena};
    outr_err err;
    dapr__proto__components__v1__invoke_request__init(m);
    m->data = outr_proto_data(req->data);
    m->operation = outr__plug_z(&text, req->operation);
    m->metadata = outr__plug_map(&text, req->metadata, &V1_TYPE(invoke_request__metadata_entry));
    m->n_metadata = req->metadata.count;
    *j = (job){.req = req, .op = op};
    j->call = (outr__plug_call){
        .path = OUTPUT("Invoke"), .message = m, .type = &V1_TYPE(invoke_response)};
    req->has_answer = false;
    outr_op_begin(op, j, NULL);
    if (outr__plug_check(&text, &err)) {
        outr_op_fail_soon(op, &err);
        return;
    }
    outr_op_init(&j->inner, op->loop, op, 0, on_invoked);
    outr__plug_call_start(of(base)->plug, &j->call, &j->inner);
}

/* ---- input ----------------------------------------------------------------------------------- */

struct outr_binding_reader {
    outr__plug_feed feed;
    outr_binding_read req;
    outr_op *closing;
};

typedef struct item {
    outr__plug_item base;
    outr_binding_event event;
    char *id;
    outr_str answer;
    char *error; /* NULL: none */
} item;

static outr__plug_item *take(outr__plug_feed *feed OUTR_UNUSED, outr_arena *arena,
                             const void *message)
{
    const V1(ReadResponse) *m = message;
    item *i = outr_arena_alloc(arena, sizeof *i);
    i->id = m->message_id;
    i->event = (outr_binding_event){
        .data = outr_proto_bytes(m->data),
        .metadata = outr__plug_kvs(arena, m->metadata, m->n_metadata),
        .binding_data = i,
    };
    return &i->base;
}

static bool answer(outr__plug_feed *feed OUTR_UNUSED, outr_grpc_stream *stream,
                   outr__plug_item *base)
{
    const item *i = OUTR_CONTAINER(base, item, base);
    V1(ReadRequest) m = DAPR__PROTO__COMPONENTS__V1__READ_REQUEST__INIT;
    V1(AckResponseError) error = DAPR__PROTO__COMPONENTS__V1__ACK_RESPONSE_ERROR__INIT;
    m.message_id = i->id;
    m.response_data = outr_proto_data(i->answer);
    error.message = i->error;
    if (i->error)
        m.response_error = &error;
    return outr_grpc_stream_send(stream, &m);
}

static void deliver(outr__plug_feed *feed, outr__plug_item *base)
{
    const outr_binding_read *req = &OUTR_CONTAINER(feed, outr_binding_reader, feed)->req;
    req->on_event(req->ctx, &OUTR_CONTAINER(base, item, base)->event);
}

static const outr__plug_feed_kind feed_kind = {
    .path = INPUT("Read"),
    .type = &V1_TYPE(read_response),
    .take = take,
    .answer = answer,
    .deliver = deliver,
};

static outr_code read_events(outr_binding *base, const outr_binding_read *req,
                             outr_binding_reader **out, outr_err *err OUTR_UNUSED)
{
    outr_binding_reader *r = outr_alloc(sizeof *r);
    r->req = *req;
    r->feed = (outr__plug_feed){.kind = &feed_kind,
                                .plug = of(base)->plug,
                                .loop = req->loop,
                                .credit = req->credit,
                                .name = OUTR_STR("events")};
    outr__plug_feed_start(&r->feed);
    *out = r;
    return OUTR_OK;
}

static void settle(outr_binding_reader *reader OUTR_UNUSED, outr_binding_event *event,
                   outr_str given, const outr_err *err)
{
    item *i = event->binding_data;
    outr__plug_text text = {.arena = i->base.arena};
    i->answer = outr_arena_str(i->base.arena, given);
    if (err)
        i->error = outr__plug_z(&text, outr_str_from(err->text));
    if (text.is_bad)
        i->error = (char *)(uintptr_t) "the app failed";
    outr__plug_feed_settle(&i->base, false);
}

static void stopped(outr__plug_feed *feed)
{
    outr_binding_reader *r = OUTR_CONTAINER(feed, outr_binding_reader, feed);
    outr_op *op = r->closing;
    free(r);
    outr_op_finish(op);
}

static void stop(outr_binding_reader *r, outr_op *op)
{
    outr_op_begin(op, r, NULL);
    r->closing = op;
    outr__plug_feed_stop(&r->feed, stopped);
}

/* ---- life ------------------------------------------------------------------------------------ */

static unsigned directions_of(outr_kvs metadata)
{
    const outr_kv *given = outr_kvs_find(metadata, "direction");
    outr_str rest = given ? given->value : OUTR_STR_NONE, one;
    unsigned found = 0;
    while (rest.p) {
        rest = outr_str_cut(rest, ',', &one);
        one = outr_str_trim(one);
        found |= outr_str_iis(one, "input") ? OUTR_BINDING_INPUT : 0;
        found |= outr_str_iis(one, "output") ? OUTR_BINDING_OUTPUT : 0;
    }
    return found ? found : OUTR_BINDING_INPUT | OUTR_BINDING_OUTPUT;
}

static outr_code create(outr_binding **out, const outr_component_init *init,
                        outr_err *err OUTR_UNUSED)
{
    binding *b = outr_alloc(sizeof *b);
    b->base.backend = &outr_bindings_pluggable;
    b->plug = outr__plug_new(init, &kinds[directions_of(init->metadata)], OUTR_STR_NONE);
    b->arena = outr_arena_new(OUTR_MIB);
    b->operations = outr_arena_alloc(b->arena, sizeof *b->operations);
    *out = &b->base;
    return OUTR_OK;
}

/* Also when the opening was cancelled: what it waited for is in the inner's text. */
static void end_opening(binding *b, const outr_err *err)
{
    b->opening->err = *err;
    outr_op_finish(b->opening);
}

static void on_listed(outr_op *inner)
{
    binding *b = OUTR_CONTAINER(inner, binding, inner);
    const V1(ListOperationsResponse) *m = b->call.answer;
    size_t n = 0;
    if (!inner->err.code) {
        size_t count = OUTR_MIN(m->n_operations, (size_t)OPERATIONS_MAX);
        b->operations = outr_arena_alloc(b->arena, (count + 1) * sizeof *b->operations);
        for (size_t i = 0; i < count; i++)
            b->operations[n++] = outr_arena_strz(b->arena, outr_str_from(m->operations[i]));
    }
    outr__plug_call_done(&b->call);
    end_opening(b, &inner->err);
}

static void on_opened(outr_op *inner)
{
    binding *b = OUTR_CONTAINER(inner, binding, inner);
    if (inner->err.code || !(outr__plug_services(b->plug) & OUTR_BINDING_OUTPUT)) {
        end_opening(b, &inner->err);
        return;
    }
    dapr__proto__components__v1__list_operations_request__init(&b->message);
    b->call = (outr__plug_call){.path = OUTPUT("ListOperations"),
                                .message = &b->message,
                                .type = &V1_TYPE(list_operations_response)};
    outr_op_init(&b->inner, b->opening->loop, b->opening, 0, on_listed);
    outr__plug_call_start(b->plug, &b->call, &b->inner);
}

static void on_cancel(outr_op *op)
{
    binding *b = op->impl;
    outr_op_cancel(&b->inner, op->err.code);
}

static void open_binding(outr_binding *base, outr_op *op)
{
    binding *b = of(base);
    b->opening = op;
    outr_op_begin(op, b, on_cancel);
    outr_op_init(&b->inner, op->loop, op, 0, on_opened);
    outr__plug_open(b->plug, &b->inner);
}

static void close_binding(outr_binding *base, outr_op *op)
{
    binding *b = of(base);
    outr__plug_close(b->plug, op);
    outr_arena_free(b->arena);
    free(b);
}

static unsigned directions(const outr_binding *base)
{
    return outr__plug_services(OUTR_CONTAINER(base, binding, base)->plug);
}

static const char *const *operations(const outr_binding *base)
{
    return OUTR_CONTAINER(base, binding, base)->operations;
}

const outr_binding_backend outr_bindings_pluggable = {
    .create = create,
    .open = open_binding,
    .close = close_binding,
    .directions = directions,
    .operations = operations,
    .invoke = invoke,
    .read = read_events,
    .settle = settle,
    .stop = stop,
};
