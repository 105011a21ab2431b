#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/json.h"
#include "grpc/server.h"
#include "lib/otlp.h"
#include "lib/web.h"
#include "lib/wire.h"
#include "observe/collector.h"

static const outr__resource resource = {.service_name = {"orders", 6}};
static outr_arena *arena;

/* ---- a batch ----------------------------------------------------------------------------------- */

static outr_span_batch *last;

static void keep(void *ctx, outr_span_batch *own_batch)
{
    (void)ctx;
    last = own_batch;
}

static outr_trace fixed_trace(bool has_parent)
{
    outr_trace t;
    assert_true(outr_trace_parse(
        &t, OUTR_STR("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")));
    t.has_parent = has_parent;
    memset(t.parent_id, 0x11, sizeof t.parent_id);
    return t;
}

/* One span, or two: the first is good and a root, the second failed and has a parent. */
static outr_span_batch *new_batch(size_t count)
{
    wire w;
    wire_init(&w, 1);
    wire_set_now(&w, 2 * OUTR_SEC);
    wire_run(&w);
    outr_tracer *t = outr_tracer_new(&(outr_tracer_options){.loop = w.loop, .take = keep});
    for (size_t i = 0; i < count; i++) {
        outr_trace trace = fixed_trace(i > 0);
        trace.state = i > 0 ? OUTR_STR("a=1") : OUTR_STR_NONE;
        outr_span span = {.trace = &trace,
                          .kind = i > 0 ? OUTR_SPAN_SERVER : OUTR_SPAN_CLIENT,
                          .name = i > 0 ? OUTR_STR("say \"hi\"") : OUTR_STR("/v1.0/state/s/k"),
                          .began_ns = outr_loop_now(w.loop) - 1500 * 1000,
                          .is_error = i > 0,
                          .failure = OUTR_STR("Not Found")};
        outr_span_add(&span, "dapr.protocol", OUTR_STR("http"));
        outr_span_record(t, &span);
    }
    outr_tracer_flush(t);
    outr_tracer_free(t);
    wire_done(&w);
    return last;
}

static int open_arena(void **state)
{
    (void)state;
    arena = outr_arena_new(16 * OUTR_MIB);
    return 0;
}

static int close_arena(void **state)
{
    (void)state;
    outr_arena_free(arena);
    return 0;
}

/* ---- formats ----------------------------------------------------------------------------------- */

static outr_str in(outr_str message, uint32_t number)
{
    return otlp_field(message, number).bytes;
}

static outr_str second(outr_str message, uint32_t number)
{
    outr_proto_field f;
    for (unsigned seen = 0; outr_proto_next(&message, &f);) {
        if (f.number == number && seen++ == 1)
            return f.bytes;
    }
    return OUTR_STR_NONE;
}

static uint64_t fixed64(outr_str message, uint32_t number)
{
    outr_proto_field f;
    uint64_t value = 0;
    while (outr_proto_next(&message, &f)) {
        if (f.number == number) {
            memcpy(&value, message.p - 8, 8);
            break;
        }
    }
    return value;
}

/* The numbers are those of OTLP's .proto files, looked up on the wire. */
static void otlp_has_its_numbers(void **state)
{
    outr_kv more = {OUTR_STR("zone"), OUTR_STR("a")};
    const outr__resource r = {.service_name = OUTR_STR("orders"), .attributes = {&more, 1}};
    outr_span_batch *batch = new_batch(2);
    (void)state;
    outr_str all = outr__otlp_request(arena, &r, batch);
    outr_str spans = in(all, 1), scope = in(spans, 2);
    outr_str name = in(in(spans, 1), 1);
    assert_true(outr_str_is(in(name, 1), "service.name"));
    assert_true(outr_str_is(in(in(name, 2), 1), "orders"));
    assert_true(outr_str_is(in(second(in(spans, 1), 1), 1), "zone"));
    assert_true(outr_str_is(in(in(scope, 1), 1), "outrigger"));
    outr_str first = in(scope, 2), failed = second(scope, 2);
    assert_int_equal(in(first, 1).n, 16);
    assert_int_equal((unsigned char)in(first, 1).p[0], 0x0a);
    assert_int_equal(in(first, 2).n, 8);
    assert_int_equal(in(first, 4).n, 0);
    assert_true(outr_str_is(in(first, 5), "/v1.0/state/s/k"));
    assert_int_equal(otlp_field(first, 6).value, 3); /* client */
    assert_int_equal(fixed64(first, 8) - fixed64(first, 7), 1500 * 1000);
    assert_true(outr_str_is(in(in(first, 9), 1), "dapr.protocol"));
    assert_null(in(first, 15).p);
    assert_true(outr_str_is(in(failed, 3), "a=1"));
    assert_int_equal(in(failed, 4).n, 8);
    assert_int_equal(otlp_field(failed, 6).value, 2); /* server */
    assert_int_equal(otlp_field(in(failed, 15), 3).value, 2);
    assert_true(outr_str_is(in(in(failed, 15), 2), "Not Found"));
    outr_span_batch_free(batch);
}

static void otlp_answers_say_what_was_rejected(void **state)
{
    outr_str why;
    (void)state;
    assert_int_equal(outr__otlp_rejected(arena, OUTR_STR(""), &why), 0);
    assert_int_equal(outr__otlp_rejected(arena, outr_str_of("\x0a\x02\x08\x07", 4), &why), 7);
    assert_int_equal(
        outr__otlp_rejected(arena, outr_str_of("\x0a\x06\x08\x01\x12\x02no", 8), &why), 1);
    assert_true(outr_str_is(why, "no"));
    assert_int_equal(outr__otlp_rejected(arena, OUTR_STR("<html>garbage"), &why), 0);
    /* a negative count */
    assert_int_equal(outr__otlp_rejected(arena,
                                         outr_str_of("\x0a\x0b\x08\xff\xff\xff\xff\xff\xff\xff\xff"
                                                     "\xff\x01",
                                                     13),
                                         &why),
                     0);
}

static void zipkin_is_a_list_of_spans(void **state)
{
    outr_span_batch *batch = new_batch(2);
    outr_json *list;
    (void)state;
    outr_str text = outr__zipkin_list(arena, &resource, batch);
    assert_true(outr_str_starts(
        text,
        OUTR_STR("[{\"traceId\":\"0af7651916cd43dd8448eb211c80319c\",\"id\":\"b7ad6b7169203331\","
                 "\"kind\":\"CLIENT\",\"name\":\"/v1.0/state/s/k\",\"timestamp\":")));
    assert_int_equal(outr_json_parse(&list, arena, text, NULL), OUTR_OK);
    const outr_json *one = list->child, *two = one->next;
    int64_t took;
    assert_int_equal(list->count, 2);
    assert_null(outr_json_find(one, "parentId"));
    assert_true(outr_json_i64(outr_json_find(one, "duration"), &took) && took == 1500);
    assert_true(
        outr_str_is(outr_json_text(outr_json_find(one, "localEndpoint"), "serviceName"), "orders"));
    assert_true(outr_str_is(outr_json_text(two, "parentId"), "1111111111111111"));
    assert_true(outr_str_is(outr_json_text(two, "name"), "say \"hi\""));
    const outr_json *tags = outr_json_find(two, "tags");
    assert_true(outr_str_is(outr_json_text(tags, "error"), "Not Found"));
    assert_true(outr_str_is(outr_json_text(tags, "otel.status_code"), "ERROR"));
    assert_true(outr_str_is(outr_json_text(tags, "dapr.protocol"), "http"));
    outr_span_batch_free(batch);
}

/* ---- a collector that is the test -------------------------------------------------------------- */

typedef struct place {
    wire w;
    outr_metrics *metrics;
    outr_http_server *server;
    outr_exporter *exporter;
    outr_op closing;
    unsigned requests, spans;
    int status; /* of the answer; 0: none ever */
    const char *body;
    char target[64], type[64], tenant[64], authority[64];
    bool is_http2;
    outr_exchange *held[64];
    size_t held_count;
    bool is_closed;
} place;

static void on_body(outr_gather *gather, const outr_err *err)
{
    outr_exchange *x = gather->ctx;
    place *p = x->user;
    outr_str body = outr_buf_view(&gather->body);
    assert_null(err);
    if (p->is_http2)
        body = outr_str_skip(body, 5);
    if (outr_str_is(outr_str_from(p->type), "application/json")) {
        outr_json *list;
        assert_int_equal(outr_json_parse(&list, x->arena, body, NULL), OUTR_OK);
        p->spans += (unsigned)list->count;
    } else {
        p->spans += otlp_count_spans(body);
    }
    outr_buf_done(&gather->body);
    x->user = NULL;
    if (p->status == 0)
        p->held[p->held_count++] = x;
    else if (p->is_http2 && p->status == 200)
        otlp_answer_grpc(x);
    else if (p->is_http2)
        outr_grpc_refuse(x, (outr_code)p->status, OUTR_STR("no"));
    else
        web_answer(x, p->status, p->body ? p->body : "");
}

static void on_held_gone(outr_exchange *x, const outr_err *err)
{
    (void)err;
    x->on_gone = NULL;
    outr_http_done(x);
}

static void put_text(char *to, size_t size, outr_str s)
{
    snprintf(to, size, OUTR_FMT, OUTR_ARG(s));
}

static void on_request(void *ctx, outr_exchange *x)
{
    place *p = ctx;
    outr_gather *gather = outr_arena_alloc(x->arena, sizeof *gather);
    p->requests++;
    p->is_http2 = x->req.http_major == 2;
    put_text(p->target, sizeof p->target, x->req.target);
    put_text(p->authority, sizeof p->authority, x->req.authority);
    put_text(p->type, sizeof p->type, outr_headers_get(&x->req.headers, "content-type"));
    put_text(p->tenant, sizeof p->tenant, outr_headers_get(&x->req.headers, "x-tenant"));
    x->user = p;
    x->on_gone = on_held_gone;
    outr_gather_start(gather, x->body, OUTR_MIB, on_body, x);
}

static const outr_http_handler handler = {.on_request = on_request};

static void on_accept(void *ctx, outr_stream *own_stream)
{
    outr_http_server_take(((place *)ctx)->server, own_stream);
}

static void open_place(place *p, outr_exporter_options o)
{
    static const outr_kv header = {{"x-tenant", 8}, {"blue", 4}};
    outr_err err;
    *p = (place){.status = 200};
    p->metrics = outr_metrics_new(
        &(outr_metrics_options){.app_id = OUTR_STR("orders"), .shard_count = 1});
    wire_init_with(&p->w, 3, outr_metrics_shard(p->metrics, 0));
    p->server = outr_http_server_new(&(outr_http_server_options){.loop = p->w.loop,
                                                                 .handler = &handler,
                                                                 .ctx = p,
                                                                 .allow_h1 = true,
                                                                 .allow_h2 = true});
    p->w.on_accept = on_accept;
    p->w.ctx = p;
    o.loop = p->w.loop;
    o.service_name = OUTR_STR("orders");
    o.otlp.headers = (outr_kvs){&header, 1};
    if (outr_exporter_new(&p->exporter, &o, &err))
        fail_msg("%s", err.text);
}

static void on_closed(outr_op *op)
{
    OUTR_CONTAINER(op, place, closing)->is_closed = true;
}

static void begin_close(place *p, uint64_t patience_ns)
{
    outr_op_init(&p->closing, p->w.loop, NULL, 0, on_closed);
    outr_exporter_close(p->exporter, patience_ns, &p->closing);
    wire_run(&p->w);
    wire_sleep(&p->w, 1); /* messages of the loop to itself */
}

static void close_place(place *p)
{
    if (!p->is_closed) {
        begin_close(p, OUTR_SEC);
        wire_sleep(&p->w, OUTR_SEC);
        assert_true(p->is_closed);
    }
    outr_http_server_free(p->server);
    wire_run(&p->w);
    wire_done(&p->w);
    outr_exporter_free(p->exporter);
    outr_metrics_free(p->metrics);
}

static void give(place *p, size_t spans)
{
    outr_exporter_take(p->exporter, new_batch(spans));
    wire_run(&p->w);
}

/* A counter's value by its line without the number. */
static double counted(const place *p, const char *line)
{
    OUTR_AUTO(outr_buf) out = OUTR_BUF_MAX(OUTR_MIB);
    double value = 0;
    outr_metrics_write(p->metrics, &out);
    outr_str rest = outr_buf_view(&out), one;
    while (rest.p) {
        rest = outr_str_cut(rest, '\n', &one);
        if (outr_str_starts(one, outr_str_from(line)))
            outr_str_to_double(outr_str_skip(one, strlen(line) + 1), &value);
    }
    return value;
}

#define EXPORTED(name)                                                                             \
    "outrigger_trace_spans_exported_total{app_id=\"orders\",exporter=\"" name "\"}"
#define DROPPED(name, reason)                                                                      \
    "outrigger_trace_spans_dropped_total{app_id=\"orders\",exporter=\"" name "\",reason=\"" reason \
    "\"}"

static const outr_exporter_options over_http = {
    .otlp = {.address = {"10.0.0.1:4318", 13}, .is_http = true}};
static const outr_exporter_options over_grpc = {.otlp = {.address = {"10.0.0.1:4317", 13}}};
static const outr_exporter_options to_zipkin = {.zipkin_url = {"http://10.0.0.1/api/v2/spans", 28}};

static void each_collector_is_spoken_to_in_its_way(void **state)
{
    place p;
    (void)state;
    open_place(&p, over_http);
    give(&p, 2);
    assert_int_equal(p.spans, 2);
    assert_string_equal(p.target, "/v1/traces");
    assert_string_equal(p.type, "application/x-protobuf");
    assert_string_equal(p.tenant, "blue");
    assert_true(counted(&p, EXPORTED("otlp")) == 2);
    close_place(&p);

    open_place(&p, over_grpc);
    give(&p, 1);
    assert_int_equal(p.requests, 1);
    assert_int_equal(p.spans, 1);
    assert_string_equal(p.target, OUTR__OTLP_METHOD);
    assert_string_equal(p.tenant, "blue");
    assert_string_equal(p.authority, "10.0.0.1:4317");
    assert_true(counted(&p, EXPORTED("otlp")) == 1);
    close_place(&p);

    open_place(&p, to_zipkin);
    give(&p, 2);
    assert_int_equal(p.spans, 2);
    assert_string_equal(p.target, "/api/v2/spans");
    assert_string_equal(p.type, "application/json");
    assert_string_equal(p.tenant, ""); /* which is OTLP's */
    close_place(&p);
}

static void several_collectors_each_get_all(void **state)
{
    place p;
    outr_exporter_options o = to_zipkin;
    (void)state;
    o.otlp = over_http.otlp;
    open_place(&p, o);
    give(&p, 2);
    assert_int_equal(p.requests, 2);
    assert_int_equal(p.spans, 4);
    assert_true(counted(&p, EXPORTED("otlp")) == 2);
    assert_true(counted(&p, EXPORTED("zipkin")) == 2);
    close_place(&p);
}

static void addresses_come_with_schemes_and_paths(void **state)
{
    static const struct {
        const char *address, *target, *authority;
    } rows[] = {
        {"10.0.0.1:4318", "/v1/traces", "10.0.0.1:4318"},
        {"10.0.0.1", "/v1/traces", "10.0.0.1:4318"},
        {"http://10.0.0.1:99/", "/v1/traces", "10.0.0.1:99"},
        {"http://10.0.0.1:99/otlp/traces", "/otlp/traces", "10.0.0.1:99"},
        {"[::1]:4318", "/v1/traces", "[::1]:4318"},
    };
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(rows); i++) {
        place p;
        outr_exporter_options o = over_http;
        o.otlp.address = outr_str_from(rows[i].address);
        open_place(&p, o);
        give(&p, 1);
        if (strcmp(p.target, rows[i].target) || strcmp(p.authority, rows[i].authority))
            fail_msg("%s: asked %s for %s", rows[i].address, p.authority, p.target);
        close_place(&p);
    }
}

static void what_is_no_address_is_refused_by_its_field(void **state)
{
    static const struct {
        outr_exporter_options o;
        const char *field;
    } rows[] = {
        {{.zipkin_url = {"10.0.0.1/api", 12}}, "spec.tracing.zipkin.endpointAddress: "},
        {{.zipkin_url = {"ftp://a/", 8}}, "spec.tracing.zipkin.endpointAddress: "},
        {{.otlp = {.address = {":4317", 5}}}, "spec.tracing.otel.endpointAddress: "},
        {{.otlp = {.address = {"a:b:c", 5}}}, "spec.tracing.otel.endpointAddress: "},
    };
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(rows); i++) {
        wire w;
        outr_exporter *e = NULL;
        outr_exporter_options o = rows[i].o;
        outr_err err;
        wire_init(&w, 1);
        o.loop = w.loop;
        if (outr_exporter_new(&e, &o, &err) == OUTR_OK)
            outr_exporter_free(e);
        else if (strncmp(err.text, rows[i].field, strlen(rows[i].field)))
            fail_msg("%s", err.text);
        if (e && i != 3) /* a bare v6 may look like it */
            fail_msg("taken: row %zu", i);
        wire_done(&w);
    }
}

static void what_is_refused_is_dropped_what_may_pass_comes_again(void **state)
{
    static const struct {
        const outr_exporter_options *o;
        int status;
        bool comes_again;
    } rows[] = {
        {&over_http, 400, false}, {&over_http, 401, false}, {&over_http, 404, false},
        {&over_http, 500, false}, {&over_http, 429, true},  {&over_http, 503, true},
        {&over_http, 504, true},  {&to_zipkin, 400, false}, {&to_zipkin, 502, true},
        {&over_grpc, OUTR_INVALID_ARGUMENT, false},
        {&over_grpc, OUTR_UNIMPLEMENTED, false},
        {&over_grpc, OUTR_UNAVAILABLE, true},
        {&over_grpc, OUTR_RESOURCE_EXHAUSTED, true},
    };
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(rows); i++) {
        place p;
        open_place(&p, *rows[i].o);
        p.status = rows[i].status;
        give(&p, 1);
        assert_int_equal(p.requests, 1);
        p.status = 200;
        wire_sleep(&p.w, 60 * OUTR_SEC);
        if (p.requests != (rows[i].comes_again ? 2u : 1u))
            fail_msg("row %zu, status %d: asked %u times", i, rows[i].status, p.requests);
        double dropped = counted(&p, DROPPED("otlp", "refused")) +
                         counted(&p, DROPPED("zipkin", "refused"));
        assert_true(dropped == !rows[i].comes_again);
        give(&p, 1); /* and the next one goes out as ever */
        assert_int_equal(p.requests, rows[i].comes_again ? 3 : 2);
        close_place(&p);
    }
}

static void a_partly_taken_batch_is_counted_so(void **state)
{
    place p;
    (void)state;
    open_place(&p, over_http);
    p.body = "\x0a\x02\x08\x01";
    give(&p, 2);
    assert_true(counted(&p, EXPORTED("otlp")) == 1);
    assert_true(counted(&p, DROPPED("otlp", "rejected")) == 1);
    close_place(&p);
}

/* Pitfall 28: the collector accepts and never answers. */
static void a_collector_that_hangs_costs_its_queue_and_no_more(void **state)
{
    static const outr_exporter_options *const kinds[] = {&over_http, &over_grpc};
    (void)state;
    for (size_t k = 0; k < OUTR_LEN(kinds); k++) {
        place p;
        outr_exporter_options o = *kinds[k];
        outr_span_batch *one = new_batch(1);
        size_t bytes = outr_span_batch_bytes(one);
        outr_span_batch_free(one);
        o.max_queued_bytes = 10 * bytes;
        open_place(&p, o);
        p.status = 0;
        for (int i = 0; i < 50; i++)
            give(&p, 1);
        assert_int_equal(p.requests, 4); /* under way at once */
        assert_true(counted(&p, DROPPED("otlp", "queue_full")) == 50 - 4 - 10);
        wire_sleep(&p.w, 11 * OUTR_SEC); /* given up; the four of them took the places of older */
        p.status = 200;
        wire_sleep(&p.w, 60 * OUTR_SEC);
        double lost = counted(&p, DROPPED("otlp", "queue_full"));
        assert_true(counted(&p, EXPORTED("otlp")) + lost == 50);
        assert_true(lost == 40);
        close_place(&p);
    }
}

static void an_absent_collector_is_asked_again_with_growing_pauses(void **state)
{
    place p;
    (void)state;
    open_place(&p, over_http);
    p.w.refuse_percent = 100;
    give(&p, 1);
    wire_sleep(&p.w, 600 * OUTR_SEC);
    size_t connects = p.w.connect_count;
    if (connects < 15 || connects > 40)
        fail_msg("%zu connects in ten minutes", connects);
    p.w.refuse_percent = 0;
    wire_sleep(&p.w, 31 * OUTR_SEC);
    assert_int_equal(p.spans, 1);
    assert_true(counted(&p, EXPORTED("otlp")) == 1);
    close_place(&p);
}

static void the_end_sends_what_is_there(void **state)
{
    place p;
    (void)state;
    open_place(&p, over_grpc);
    p.w.refuse_percent = 100;
    give(&p, 2); /* it waits for its next try */
    p.w.refuse_percent = 0;
    begin_close(&p, OUTR_SEC);
    assert_true(p.is_closed);
    assert_int_equal(p.spans, 2);
    give(&p, 1); /* too late */
    assert_int_equal(p.spans, 2);
    assert_true(counted(&p, DROPPED("all", "shutdown")) == 1);
    close_place(&p);
}

static void the_end_waits_for_nobody_for_ever(void **state)
{
    static const outr_exporter_options *const kinds[] = {&over_http, &over_grpc, &to_zipkin};
    (void)state;
    for (size_t k = 0; k < OUTR_LEN(kinds); k++) {
        place p;
        open_place(&p, *kinds[k]);
        p.status = 0;
        for (int i = 0; i < 20; i++)
            give(&p, 1);
        begin_close(&p, 2 * OUTR_SEC);
        assert_false(p.is_closed);
        wire_sleep(&p.w, 2 * OUTR_SEC);
        assert_true(p.is_closed);
        const char *line =
            kinds[k] == &to_zipkin ? DROPPED("zipkin", "shutdown") : DROPPED("otlp", "shutdown");
        assert_true(counted(&p, line) == 20);
        close_place(&p);
        open_place(&p, *kinds[k]); /* and one that is not there */
        p.w.refuse_percent = 100;
        give(&p, 1);
        begin_close(&p, 2 * OUTR_SEC);
        assert_true(p.is_closed);
        close_place(&p);
    }
}

#define WITH(f) cmocka_unit_test_setup_teardown(f, open_arena, close_arena)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH(otlp_has_its_numbers),
        WITH(otlp_answers_say_what_was_rejected),
        WITH(zipkin_is_a_list_of_spans),
        WITH(each_collector_is_spoken_to_in_its_way),
        WITH(several_collectors_each_get_all),
        WITH(addresses_come_with_schemes_and_paths),
        WITH(what_is_no_address_is_refused_by_its_field),
        WITH(what_is_refused_is_dropped_what_may_pass_comes_again),
        WITH(a_partly_taken_batch_is_counted_so),
        WITH(a_collector_that_hangs_costs_its_queue_and_no_more),
        WITH(an_absent_collector_is_asked_again_with_growing_pauses),
        WITH(the_end_sends_what_is_there),
        WITH(the_end_waits_for_nobody_for_ever),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
