#include "blocks/bindings/delivery.h"

#include <dapr/proto/runtime/v1/appcallback.pb-c.h>

#include "app/unary.h"
#include "base/copy.h"
#include "blocks/bindings/answer.h"
#include "observe/span.h"
#include "resiliency/guarded.h"

#define DELIVERY_ARENA (64 * OUTR_MIB)
#define TO_MAX         1024 /* output bindings that one answer may name */
#define STATES_MAX     1024

typedef Dapr__Proto__Runtime__V1__BindingEventRequest event_request;
typedef Dapr__Proto__Runtime__V1__BindingEventResponse event_response;

static const outr_metric_desc count = {"dapr_component_input_binding_count",
                                       "events of input bindings",
                                       OUTR_COUNTER,
                                       0,
                                       {"component", "namespace", "success"}};
static const outr_metric_desc latencies = {"dapr_component_input_binding_latencies",
                                           "time the app took for an event, ms",
                                           OUTR_HISTOGRAM,
                                           OUTR_BUCKETS_LATENCY_MS,
                                           {"component", "namespace", "success"}};

typedef struct delivery {
    outr_link link;
    outr_binding_input *input;
    outr_binding_event *event;
    outr_arena *arena;
    outr_view *view; /* what the answer asks for is there until it is done */
    outr_guarded guarded;
    outr_op all; /* the app's tries; op is what is under way in one of them, or behind them */
    outr_op *attempt;
    outr_op op;
    union {
        outr_app_fetch fetch;
        outr_app_unary unary;
    };
    event_response *reply;
    outr_binding_answer answer;
    uint64_t began_ns;
    outr_trace trace; /* its span, "bindings/<name>" */
} delivery;

/* ---- the end --------------------------------------------------------------------------------- */

static void note(const delivery *d, bool is_good)
{
    outr_metric_shard *shard = outr_loop_metrics(d->input->loop);
    if (!shard)
        return;
    const outr_str labels[] = {d->input->name, OUTR_STR(""),
                               is_good ? OUTR_STR("true") : OUTR_STR("false")};
    outr_metric_count(shard, &count, labels, 1);
    outr_metric_count(shard, &latencies, labels,
                      (double)(outr_loop_update(d->input->loop) - d->began_ns) / (double)OUTR_MS);
}

static void record_span(const delivery *d, const outr_err *err)
{
    const outr_binding_input *input = d->input;
    if (!outr_span_is_wanted(&input->trace, &d->trace))
        return;
    outr_span span;
    outr_str name = outr_arena_join(d->arena, OUTR_STR("bindings/"), input->name, OUTR_STR_NONE);
    outr_span_init(&span, &d->trace, OUTR_SPAN_CONSUMER, name, d->began_ns);
    if (err)
        outr_span_fail(&span, outr_str_from(outr_code_name(err->code)));
    outr_span_add(&span, "db.system", OUTR_STR("bindings"));
    outr_span_add(&span, "db.name", input->name);
    outr_span_add(&span, "db.connection_string", input->route);
    outr_span_add(&span, "rpc.service", OUTR_STR("Dapr"));
    outr_span_record(input->trace.tracer, &span);
}

static void settle(delivery *d, outr_str answer, const outr_err *err)
{
    outr_binding_input *input = d->input;
    record_span(d, err);
    outr_link_remove(&d->link);
    /* May end the reader, and with it the input: nothing of either is touched afterwards. */
    input->component->binding->backend->settle(input->reader, d->event, answer, err);
    outr_view_unpin(d->view);
    outr_arena_free(d->arena);
}

static void fail(delivery *d, const outr_err *err)
{
    OUTR_LOG(d->input->log, DEBUG, "the app did not take a binding's event",
             OUTR_S("binding", d->input->name), OUTR_ERR(err));
    note(d, false);
    settle(d, OUTR_STR_NONE, err);
}

static void end_attempt(delivery *d, const outr_err *err)
{
    if (err->code)
        outr_op_fail(d->attempt, err);
    else
        outr_op_finish(d->attempt);
}

/* ---- HTTP ------------------------------------------------------------------------------------ */

static void on_http_answer(outr_op *op)
{
    delivery *d = OUTR_CONTAINER(op, delivery, op);
    const outr_app_fetch *f = &d->fetch;
    outr_err err = op->err;
    if (err.code)
        outr_wrap(&err, "error invoking app");
    else if (f->status < 200 || f->status > 299)
        outr_fail(&err, OUTR_UNKNOWN,
                  "fails to send binding event to http app channel, status code: %d "
                  "body: " OUTR_FMT,
                  f->status, OUTR_ARG(outr_str_head(f->answer, 200)));
    end_attempt(d, &err);
}

static void add_trace(outr_arena *arena, outr_headers *headers, const outr_trace *trace)
{
    if (!trace->is_valid)
        return;
    char *text = outr_arena_alloc(arena, OUTR_TRACEPARENT_LEN + 1);
    outr_trace_write(trace, text);
    outr_headers_set(headers, OUTR_STR("traceparent"), outr_str_of(text, OUTR_TRACEPARENT_LEN));
    if (trace->state.n > 0)
        outr_headers_set(headers, OUTR_STR("tracestate"), trace->state);
}

static void post(delivery *d)
{
    outr_binding_input *input = d->input;
    outr_headers *h = &d->fetch.headers;
    int64_t max = input->settings->max_body_bytes;
    d->fetch = (outr_app_fetch){0};
    d->fetch.method = OUTR_STR("POST");
    d->fetch.target = input->route;
    d->fetch.body = d->event->data;
    d->fetch.max_body = max > 0 ? OUTR_MIN((size_t)max, DELIVERY_ARENA / 4) : 0;
    outr_headers_init(h, d->arena);
    for (size_t i = 0; i < d->event->metadata.count; i++) {
        const outr_kv *m = &d->event->metadata.items[i];
        if (outr_header_name_is_valid(m->key) && outr_header_value_is_valid(m->value))
            /* written in canonical case */
            outr_headers_add(h, outr_str_lower(d->arena, m->key), m->value);
    }
    outr_headers_set(h, OUTR_STR("Content-Type"), OUTR_STR("application/json"));
    add_trace(d->arena, h, &d->trace);
    outr_op_init(&d->op, input->loop, d->attempt, 0, on_http_answer);
    outr_app_fetch_start(input->app, &d->fetch, &d->op);
}

/* ---- gRPC ------------------------------------------------------------------------------------ */

static void on_answer_done(outr_op *op)
{
    delivery *d = OUTR_CONTAINER(op, delivery, op);
    note(d, true);
    settle(d, d->answer.data, NULL);
}

static outr_kvs read_metadata(outr_arena *arena, const Dapr__Proto__Common__V1__StateItem *item)
{
    outr_kv *items = outr_arena_alloc(arena, (item->n_metadata + 1) * sizeof *items);
    for (size_t i = 0; i < item->n_metadata; i++)
        items[i] = (outr_kv){outr_str_from(item->metadata[i]->key),
                             outr_str_from(item->metadata[i]->value)};
    return (outr_kvs){items, item->n_metadata};
}

/* The enumerations have the same values. */
static void read_state(outr_arena *arena, const Dapr__Proto__Common__V1__StateItem *item,
                       outr_state_write *out)
{
    *out = (outr_state_write){
        .kind = OUTR_STATE_UPSERT,
        .key = outr_str_from(item->key),
        .value = outr_proto_bytes(item->value),
        .is_binary = true,
        .has_etag = item->etag != NULL,
        .etag = item->etag ? outr_str_from(item->etag->value) : OUTR_STR_NONE,
        .metadata = read_metadata(arena, item),
    };
    if (item->options) {
        out->concurrency = (outr_concurrency)item->options->concurrency;
        out->consistency = (outr_consistency)item->options->consistency;
    }
}

static outr_code read_answer(delivery *d, const event_response *reply, outr_err *err)
{
    outr_binding_input *input = d->input;
    if (reply->n_to > TO_MAX || reply->n_states > STATES_MAX)
        return outr_fail(err, OUTR_RESOURCE_EXHAUSTED,
                         "the app's answer names more than %d output bindings or states", TO_MAX);
    outr_str *to = outr_arena_alloc(d->arena, (reply->n_to + 1) * sizeof *to);
    outr_state_write *states =
        outr_arena_alloc(d->arena, (reply->n_states + 1) * sizeof *states);
    for (size_t i = 0; i < reply->n_to; i++)
        to[i] = outr_str_from(reply->to[i]);
    for (size_t i = 0; i < reply->n_states; i++)
        read_state(d->arena, reply->states[i], &states[i]);
    d->answer = (outr_binding_answer){
        .arena = d->arena,
        .view = d->view,
        .settings = input->settings,
        .log = input->log,
        .binding = input->name,
        .store_name = outr_str_from(reply->store_name),
        .states = states,
        .state_count = reply->n_states,
        .to = to,
        .to_count = reply->n_to,
        .data = outr_proto_bytes(reply->data),
        .is_parallel =
            reply->concurrency ==
            DAPR__PROTO__RUNTIME__V1__BINDING_EVENT_RESPONSE__BINDING_EVENT_CONCURRENCY__PARALLEL,
    };
    return OUTR_OK;
}

static void on_grpc_answer(outr_op *op)
{
    delivery *d = OUTR_CONTAINER(op, delivery, op);
    outr_err err;
    outr_err_clear(&err);
    outr_code rc = outr_app_unary_result(
        &d->unary, &d->reply, &dapr__proto__runtime__v1__binding_event_response__descriptor,
        &op->err, &err);
    if (rc)
        outr_wrap(&err, "error invoking app");
    end_attempt(d, &err);
}

static void call(delivery *d)
{
    typedef Dapr__Proto__Runtime__V1__BindingEventRequest__MetadataEntry entry;
    outr_binding_input *input = d->input;
    outr_kvs metadata = d->event->metadata;
    event_request req = DAPR__PROTO__RUNTIME__V1__BINDING_EVENT_REQUEST__INIT;
    entry *entries = outr_arena_alloc(d->arena, (metadata.count + 1) * sizeof *entries),
          **pointers = outr_arena_alloc(d->arena, (metadata.count + 1) * sizeof *pointers);
    req.name = outr_proto_text(d->arena, input->name);
    req.data = outr_proto_data(d->event->data);
    req.metadata = pointers;
    for (size_t i = 0; i < metadata.count; i++) {
        const outr_kv *m = &metadata.items[i];
        if (!outr_str_is_utf8(m->key) || !outr_str_is_utf8(m->value))
            continue; /* no text of protobuf: the app would refuse the whole */
        dapr__proto__runtime__v1__binding_event_request__metadata_entry__init(&entries[i]);
        entries[i].key = outr_proto_text(d->arena, m->key);
        entries[i].value = outr_proto_text(d->arena, m->value);
        pointers[req.n_metadata++] = &entries[i];
    }
    d->unary = (outr_app_unary){.arena = d->arena};
    outr_headers_init(&d->unary.metadata, d->arena);
    add_trace(d->arena, &d->unary.metadata, &d->trace);
    outr_app_add_trace_bin(&d->unary.metadata,
                           outr_headers_get(&d->unary.metadata, "traceparent"));
    outr_op_init(&d->op, input->loop, d->attempt, 0, on_grpc_answer);
    outr_app_unary_start(input->app, &d->unary,
                         "/dapr.proto.runtime.v1.AppCallback/OnBindingEvent", &req, &d->op);
}

/* ---- both ------------------------------------------------------------------------------------ */

/* The span "bindings/<name>": below the event's own trace, when it brings one. */
static void start_span(const delivery *d, outr_trace *out)
{
    const outr_binding_input *input = d->input;
    const outr_kv *given = outr_kvs_find(d->event->metadata, "traceparent"),
                  *state = outr_kvs_find(d->event->metadata, "tracestate");
    outr_trace parent = {0};
    if (given && outr_trace_parse(&parent, given->value) && state)
        parent.state = state->value;
    outr_trace_start(out, &parent, &input->trace, outr_loop_rand(input->loop));
}

static void on_attempt_cancel(outr_op *attempt)
{
    delivery *d = attempt->impl;
    outr_op_cancel(&d->op, attempt->err.code);
}

static void attempt(outr_guarded *guarded, outr_op *op)
{
    delivery *d = OUTR_CONTAINER(guarded, delivery, guarded);
    d->attempt = op;
    outr_op_begin(op, d, on_attempt_cancel);
    if (outr_app_speaks_grpc(d->input->app))
        call(d);
    else
        post(d);
}

/* The app has taken it, or will not. */
static void on_tried(outr_op *all)
{
    delivery *d = OUTR_CONTAINER(all, delivery, all);
    outr_err err = all->err;
    bool is_grpc = outr_app_speaks_grpc(d->input->app);
    if (err.code || (is_grpc && read_answer(d, d->reply, &err))) {
        fail(d, &err);
        return;
    }
    if (!is_grpc) {
        note(d, true);
        settle(d, d->fetch.answer, NULL);
        return;
    }
    outr_op_init(&d->op, d->input->loop, NULL, 0, on_answer_done);
    outr_binding_answer_start(&d->answer, &d->op);
}

void outr__binding_deliver(outr_binding_input *input, outr_binding_event *event)
{
    outr_arena *arena = outr_arena_new(DELIVERY_ARENA);
    delivery *d = outr_arena_alloc(arena, sizeof *d);
    d->arena = arena;
    d->input = input;
    d->event = event;
    d->began_ns = outr_loop_now(input->loop);
    d->view = outr_host_pin(input->host, input->loop);
    outr_list_push(&input->delivering, &d->link);
    start_span(d, &d->trace);
    outr_guarded_component(&d->guarded, outr_view_policies(d->view), OUTR_POLICY_BINDING,
                           OUTR_INBOUND, input->name, input->loop, arena, attempt);
    outr_op_init(&d->all, input->loop, NULL, 0, on_tried);
    outr_guarded_start(&d->guarded, &d->all);
}

void outr__binding_give_up(outr_binding_input *input)
{
    OUTR_LIST_EACH(link, &input->delivering) {
        delivery *d = OUTR_LIST_ITEM(link, delivery, link);
        outr_op_cancel(outr_op_is_pending(&d->all) ? &d->all : &d->op, OUTR_CANCELLED);
    }
}
