#include "observe/collector.h"

#include <opentelemetry/proto/collector/trace/v1/trace_service.pb-c.h>

#include "base/copy.h"
#include "grpc/client.h"
#include "grpc/site.h"
#include "http/remote.h"

#define CALLS_MAX     4
#define TIMEOUT_NS    (10 * OUTR_SEC) /* OTLP's own default */
#define QUEUED_MAX    (4 * OUTR_MIB)
#define PAUSE_NS      OUTR_SEC /* doubles */
#define PAUSE_LONGEST (30 * OUTR_SEC)
#define ANSWER_MAX    (64 * OUTR_KIB)
#define ARENA_MAX     (16 * OUTR_MIB)
#define TELL_EACH     16 /* of the failures in a row */

typedef struct queued {
    outr_link link;
    outr_span_batch *batch;
} queued;

/* One batch under way. */
typedef struct call {
    outr_link link;
    outr__collector *c;
    queued *item;
    outr_arena *arena;
    outr_remote_call http;
    outr_grpc_reach reach;
    outr_grpc_unary unary;
    outr_http_call stream;
    outr_op op;
} call;

struct outr__collector {
    outr__collector_options o; /* texts on arena */
    outr_arena *arena;
    outr_list queue; /* the oldest first */
    size_t queued_bytes;
    outr_list calls;
    size_t call_count;
    outr_remote *remote;  /* HTTP */
    outr_grpc_site *site; /* gRPC */
    outr_timer pause;
    unsigned failures; /* in a row */
    bool is_down;      /* and the log has said so */
    outr_op *closing;
    outr_op remote_closing;
    bool is_cancelled, is_closed;
};

static void pump(outr__collector *c);

/* ---- counting -------------------------------------------------------------------------------- */

void outr__batch_unref(outr_span_batch *batch)
{
    if (--batch->refs == 0)
        outr_span_batch_free(batch);
}

void outr__count_dropped(outr_loop *loop, const char *exporter, const char *reason, uint64_t spans)
{
    static const outr_metric_desc dropped = {"outrigger_trace_spans_dropped_total",
                                             "spans that no collector got, by reason",
                                             OUTR_COUNTER,
                                             0,
                                             {"exporter", "reason"}};
    const outr_str labels[] = {outr_str_from(exporter), outr_str_from(reason)};
    if (spans > 0)
        outr_metric_count(outr_loop_metrics(loop), &dropped, labels, (double)spans);
}

static void count_exported(const outr__collector *c, uint64_t spans)
{
    static const outr_metric_desc exported = {"outrigger_trace_spans_exported_total",
                                              "spans that a collector has taken",
                                              OUTR_COUNTER,
                                              0,
                                              {"exporter"}};
    const outr_str label = outr_str_from(c->o.name);
    outr_metric_count(outr_loop_metrics(c->o.loop), &exported, &label, (double)spans);
}

/* ---- the queue ------------------------------------------------------------------------------- */

static void free_item(queued *item)
{
    outr__batch_unref(item->batch);
    free(item);
}

static void drop(outr__collector *c, queued *item, const char *reason)
{
    outr__count_dropped(c->o.loop, c->o.name, reason, item->batch->count);
    free_item(item);
}

static queued *take_first(outr__collector *c)
{
    queued *item = OUTR_LIST_ITEM(outr_list_pop(&c->queue), queued, link);
    c->queued_bytes -= outr_span_batch_bytes(item->batch);
    return item;
}

/* What is newest tells most: the oldest goes. */
static void make_room(outr__collector *c)
{
    while (c->queued_bytes > c->o.max_queued_bytes)
        drop(c, take_first(c), "queue_full");
}

void outr__collector_put(outr__collector *c, outr_span_batch *batch)
{
    queued *item = outr_alloc(sizeof *item);
    item->batch = batch;
    batch->refs++;
    outr_list_push(&c->queue, &item->link);
    c->queued_bytes += outr_span_batch_bytes(batch);
    make_room(c);
    pump(c);
}

/* ---- the end of a call ----------------------------------------------------------------------- */

static void check_closed(outr__collector *c);

static queued *end_call(call *k)
{
    queued *item = k->item;
    outr_link_remove(&k->link);
    k->c->call_count--;
    outr_arena_free(k->arena);
    free(k);
    return item;
}

static void taken(call *k, uint64_t rejected, outr_str why)
{
    outr__collector *c = k->c;
    uint64_t count = k->item->batch->count;
    rejected = OUTR_MIN(rejected, count);
    if (rejected > 0) {
        OUTR_LOG(c->o.log, WARN, "a collector did not take all spans",
                 OUTR_Z("exporter", c->o.name), OUTR_I("rejected", rejected),
                 OUTR_S("reason", outr_str_head(why, 200)));
        outr__count_dropped(c->o.loop, c->o.name, "rejected", rejected);
    }
    count_exported(c, count - rejected);
    if (c->is_down)
        OUTR_LOG(c->o.log, INFO, "spans are exported again", OUTR_Z("exporter", c->o.name));
    c->failures = 0;
    c->is_down = false;
    outr_timer_stop(c->o.loop, &c->pause);
    free_item(end_call(k));
    pump(c);
}

static void refused(call *k, const outr_err *err)
{
    outr__collector *c = k->c;
    if (c->failures++ % TELL_EACH == 0)
        OUTR_LOG(c->o.log, WARN, "a collector refused spans, they are dropped",
                 OUTR_Z("exporter", c->o.name), OUTR_ERR(err));
    c->is_down = true;
    drop(c, end_call(k), "refused");
    pump(c);
}

static void on_pause_over(outr_timer *timer)
{
    pump(OUTR_CONTAINER(timer, outr__collector, pause));
}

/* Nobody there, or not just now: the batch waits for the next try, the others behind it. */
static void try_later(call *k, const outr_err *err)
{
    outr__collector *c = k->c;
    uint64_t now = outr_loop_now(c->o.loop);
    if (!outr_timer_is_on(&c->pause) && !c->closing) {
        uint64_t pause_ns = OUTR_MIN(PAUSE_NS << OUTR_MIN(c->failures, 5u), PAUSE_LONGEST);
        pause_ns -= outr_rand_below(outr_loop_rand(c->o.loop), pause_ns / 4); /* not all at once */
        if (c->failures++ % TELL_EACH == 0)
            OUTR_LOG(c->o.log, WARN, "spans cannot be exported yet", OUTR_Z("exporter", c->o.name),
                     OUTR_ERR(err));
        c->is_down = true;
        outr_timer_start(c->o.loop, &c->pause, now + pause_ns);
    }
    queued *item = end_call(k);
    if (c->closing) {
        drop(c, item, "shutdown");
    } else {
        outr_list_push_front(&c->queue, &item->link);
        c->queued_bytes += outr_span_batch_bytes(item->batch);
        make_room(c);
    }
    pump(c);
}

/* ---- over HTTP ------------------------------------------------------------------------------- */

static bool may_pass(int status)
{
    return status == 408 || status == 429 || status == 502 || status == 503 || status == 504;
}

static void on_http_done(outr_op *op)
{
    call *k = OUTR_CONTAINER(op, call, op);
    int status = k->http.head.status;
    outr_str why = OUTR_STR_NONE;
    outr_err err = op->err;
    if (err.code == OUTR_RESOURCE_EXHAUSTED && status >= 200 && status <= 299) {
        taken(k, 0, why); /* it said yes, and more than anybody wants to know */
    } else if (err.code == OUTR_INVALID_ARGUMENT || err.code == OUTR_RESOURCE_EXHAUSTED) {
        refused(k, &err);
    } else if (err.code) {
        try_later(k, &err);
    } else if (status >= 200 && status <= 299 && k->http.has_body) {
        uint64_t rejected = 0;
        if (k->c->o.kind == OUTR__OTLP_HTTP)
            rejected = outr__otlp_rejected(k->arena, k->http.answer, &why);
        taken(k, rejected, why);
    } else {
        outr_fail(&err, OUTR_UNKNOWN, "status %d%s", status,
                  k->http.has_body ? "" : " after a redirect that dropped the spans");
        if (may_pass(status))
            try_later(k, &err);
        else
            refused(k, &err);
    }
}

static void send_http(call *k)
{
    outr__collector *c = k->c;
    if (!c->remote)
        c->remote = outr_remote_new(c->o.loop, NULL);
    bool is_zipkin = c->o.kind == OUTR__ZIPKIN;
    outr_str body =
        is_zipkin
            ? outr__zipkin_list(k->arena, c->o.resource, k->item->batch)
            : outr__otlp_request(k->arena, c->o.resource, k->item->batch);
    k->http = (outr_remote_call){.arena = k->arena,
                                 .method = OUTR_STR("POST"),
                                 .url = c->o.place,
                                 .has_body = true,
                                 .body = body,
                                 .max_answer = ANSWER_MAX};
    outr_headers_init(&k->http.headers, k->arena);
    outr_headers_add(&k->http.headers, OUTR_STR("Content-Type"),
                     is_zipkin ? OUTR_STR("application/json") : OUTR_STR("application/x-protobuf"));
    for (size_t i = 0; i < c->o.headers.count; i++)
        outr_headers_set(&k->http.headers, c->o.headers.items[i].key, c->o.headers.items[i].value);
    outr_op_init(&k->op, c->o.loop, NULL, outr_loop_now(c->o.loop) + c->o.timeout_ns, on_http_done);
    outr_remote_call_start(c->remote, &k->http, &k->op);
}

/* ---- over gRPC ------------------------------------------------------------------------------- */

static bool may_pass_grpc(outr_code code)
{
    return code == OUTR_CANCELLED || code == OUTR_DEADLINE_EXCEEDED || code == OUTR_ABORTED ||
           code == OUTR_OUT_OF_RANGE || code == OUTR_UNAVAILABLE || code == OUTR_DATA_LOSS ||
           code == OUTR_RESOURCE_EXHAUSTED;
}

static void on_grpc_done(outr_op *op)
{
    call *k = OUTR_CONTAINER(op, call, op);
    void *message;
    outr_str why;
    outr_err err, how = op->err;
    if (how.code)
        outr_grpc_site_lost(k->c->site, k->reach.pool);
    outr_code rc = outr_grpc_unary_result(
        &k->unary, &message,
        &opentelemetry__proto__collector__trace__v1__export_trace_service_response__descriptor,
        &how, &err);
    if (rc == OUTR_OK) {
        uint64_t rejected = outr__otlp_rejected(k->arena, k->unary.reply, &why);
        taken(k, rejected, why);
    } else if (how.code || may_pass_grpc(rc)) {
        try_later(k, &err);
    } else {
        refused(k, &err);
    }
}

static void on_reached(outr_op *op)
{
    call *k = OUTR_CONTAINER(op, call, op);
    outr__collector *c = k->c;
    if (op->err.code) {
        outr_err err = op->err;
        try_later(k, &err);
        return;
    }
    uint64_t deadline_ns = outr_loop_now(c->o.loop) + c->o.timeout_ns;
    k->unary = (outr_grpc_unary){.arena = k->arena,
                                 .loop = c->o.loop,
                                 .max_bytes = ANSWER_MAX,
                                 .deadline_ns = deadline_ns};
    outr_headers_init(&k->unary.metadata, k->arena);
    for (size_t i = 0; i < c->o.headers.count; i++)
        outr_headers_add(&k->unary.metadata, c->o.headers.items[i].key,
                         c->o.headers.items[i].value);
    outr_grpc_unary_prepare_bytes(
        &k->unary, &k->stream, OUTR__OTLP_METHOD,
        outr__otlp_request(k->arena, c->o.resource, k->item->batch));
    k->unary.req.authority = outr_grpc_site_authority(c->site);
    if (c->o.is_secure)
        k->unary.req.scheme = OUTR_STR("https");
    outr_op_init(&k->op, c->o.loop, NULL, deadline_ns, on_grpc_done);
    outr_http_call_start(k->reach.pool, &k->stream, &k->op);
}

/* ---- sending --------------------------------------------------------------------------------- */

static void pump(outr__collector *c)
{
    while (!c->is_cancelled && !outr_timer_is_on(&c->pause) && c->call_count < CALLS_MAX &&
           !outr_list_is_empty(&c->queue)) {
        call *k = outr_alloc(sizeof *k);
        k->c = c;
        k->item = take_first(c);
        k->arena = outr_arena_new(ARENA_MAX);
        outr_list_push(&c->calls, &k->link);
        c->call_count++;
        if (c->site) {
            outr_op_init(&k->op, c->o.loop, NULL, outr_loop_now(c->o.loop) + c->o.timeout_ns,
                         on_reached);
            outr_grpc_site_reach_start(c->site, &k->reach, &k->op);
        } else {
            send_http(k);
        }
    }
    check_closed(c);
}

/* ---- life ------------------------------------------------------------------------------------ */

static void keep_texts(outr__collector *c)
{
    c->o.headers = outr_kvs_copy(c->arena, c->o.headers);
    c->o.place = outr_arena_str(c->arena, c->o.place);
}

static outr_code open_site(outr__collector *c, outr_err *err)
{
    static const char *const alpn[] = {"h2", NULL};
    static const outr_tls_options tls_options = {
        .verify_peer = true, .requires_alpn = true, .alpn = alpn};
    outr_tls *tls = NULL;
    if (c->o.is_secure && outr_tls_new(&tls, &tls_options, err))
        return err->code;
    const outr_grpc_site_options options = {
        .loop = c->o.loop, .address = c->o.place, .default_port = 4317, .tls = tls};
    outr_code rc = outr_grpc_site_new(&c->site, &options, err);
    outr_tls_unref(tls);
    return rc;
}

outr_code outr__collector_new(outr__collector **out, const outr__collector_options *options,
                              outr_err *err)
{
    outr__collector *c = outr_alloc(sizeof *c);
    c->o = *options;
    c->o.timeout_ns = c->o.timeout_ns ? c->o.timeout_ns : TIMEOUT_NS;
    c->o.max_queued_bytes = c->o.max_queued_bytes ? c->o.max_queued_bytes : QUEUED_MAX;
    c->arena = outr_arena_new(OUTR_MIB);
    keep_texts(c);
    outr_list_init(&c->queue);
    outr_list_init(&c->calls);
    c->pause.fire = on_pause_over;
    outr_code rc = OUTR_OK;
    if (c->o.kind == OUTR__OTLP_GRPC)
        rc = open_site(c, err);
    else
        rc = outr_remote_check(c->o.place, err);
    if (rc) {
        outr_arena_free(c->arena);
        free(c);
        return rc;
    }
    *out = c;
    return OUTR_OK;
}

static void on_remote_closed(outr_op *op)
{
    outr__collector *c = OUTR_CONTAINER(op, outr__collector, remote_closing);
    c->remote = NULL;
    outr_op_finish(c->closing);
}

static void check_closed(outr__collector *c)
{
    if (!c->closing || c->is_closed || c->call_count > 0)
        return;
    if (!c->is_cancelled && !outr_list_is_empty(&c->queue))
        return;
    c->is_closed = true;
    while (!outr_list_is_empty(&c->queue))
        drop(c, take_first(c), "shutdown");
    outr_grpc_site_free(c->site);
    c->site = NULL;
    if (c->remote) {
        outr_op_init(&c->remote_closing, c->o.loop, NULL, 0, on_remote_closed);
        outr_remote_close(c->remote, &c->remote_closing);
    } else {
        outr_op_finish_soon(c->closing);
    }
}

static void on_close_cancelled(outr_op *op)
{
    outr__collector *c = op->impl;
    c->is_cancelled = true;
    OUTR_LIST_EACH(link, &c->calls) {
        outr_op_cancel(&OUTR_LIST_ITEM(link, call, link)->op, OUTR_CANCELLED);
    }
    check_closed(c);
}

void outr__collector_close(outr__collector *c, outr_op *op)
{
    c->closing = op;
    outr_op_begin(op, c, on_close_cancelled);
    outr_timer_stop(c->o.loop, &c->pause);
    pump(c);
}

void outr__collector_free(outr__collector *c)
{
    if (!c)
        return;
    while (!outr_list_is_empty(&c->queue))
        free_item(take_first(c));
    outr_grpc_site_free(c->site); /* which was never reached */
    outr_arena_free(c->arena);
    free(c);
}
