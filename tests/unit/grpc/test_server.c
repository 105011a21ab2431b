#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <google/rpc/status.pb-c.h>

#include "grpc/server.h"
#include "lib/web.h"
#include "lib/wire.h"

typedef Google__Rpc__Status message;

/* A server with one method, asked over HTTP/2 by calls whose bytes the test writes. */
typedef struct bench {
    wire w;
    outr_http_server *server;
    outr_http_pool *pool;
    outr_grpc_method method;
    outr_grpc_call *call; /* the newest that has run */
    web_call c;
    unsigned runs, gone, taken, half_closes, ends;
    int ended_with;
    bool is_op_done;
    char text[256];
} bench;

static void on_request(void *ctx, outr_exchange *x)
{
    bench *b = ctx;
    if (!outr_grpc_is_call(&x->req)) {
        outr_grpc_refuse_request(x);
        return;
    }
    outr_grpc_serve(
        x, &(outr_grpc_serve_options){.method = &b->method, .ctx = b, .max_bytes = 1000});
}

static void on_finished(void *ctx, outr_exchange *x, bool is_broken)
{
    bench *b = ctx;
    (void)is_broken;
    b->ends++;
    if (x->user)
        b->ended_with = (int)((outr_grpc_call *)x->user)->code;
}

static void on_accept(void *ctx, outr_stream *own_stream)
{
    outr_http_server_take(((bench *)ctx)->server, own_stream);
}

static bench *bench_of(outr_grpc_call *call)
{
    return call->ctx;
}

static void ran(outr_grpc_call *call)
{
    bench_of(call)->runs++;
    bench_of(call)->call = call;
}

static void run_echo(outr_grpc_call *call)
{
    ran(call);
    outr_grpc_reply(call, call->request);
}

static void on_op_done(outr_op *op)
{
    outr_grpc_call *call = OUTR_CONTAINER(op, outr_grpc_call, op);
    bench_of(call)->is_op_done = true;
    outr_grpc_fail_err(call, &op->err);
}

static void on_op_cancel(outr_op *op)
{
    outr_err err;
    outr_fail(&err, OUTR_CANCELLED, "cancelled");
    outr_op_fail(op, &err);
}

static void run_op(outr_grpc_call *call)
{
    ran(call);
    outr_op_init(&call->op, call->loop, NULL, 0, on_op_done);
    outr_op_begin(&call->op, call, on_op_cancel);
}

static bool on_message(outr_grpc_call *call, void *m)
{
    bench *b = bench_of(call);
    b->taken++;
    outr_grpc_send(call, m);
    return true;
}

static void on_half_close(outr_grpc_call *call)
{
    bench_of(call)->half_closes++;
    outr_grpc_end(call);
}

static void on_stream_gone(outr_grpc_call *call)
{
    bench_of(call)->gone++;
    outr_grpc_end(call);
}

static void run_stream(outr_grpc_call *call)
{
    ran(call);
    call->on_message = on_message;
    call->on_half_close = on_half_close;
    call->on_gone = on_stream_gone;
}

static void run_early_end(outr_grpc_call *call)
{
    ran(call);
    outr_grpc_fail(call, &(outr_grpc_status){.code = OUTR_OUT_OF_RANGE,
                                             .message = OUTR_STR("enough"),
                                             .details = OUTR_STR("\1\2\3")});
}

static bench *open_bench(void (*run)(outr_grpc_call *call), bool takes_stream)
{
    static const outr_http_handler handler = {on_request, on_finished};
    bench *b = outr_alloc(sizeof *b);
    wire_init(&b->w, 1);
    b->w.on_accept = on_accept;
    b->w.ctx = b;
    b->method = (outr_grpc_method){.path = "/a.B/C",
                                   .request = &google__rpc__status__descriptor,
                                   .takes_stream = takes_stream,
                                   .run = run};
    b->server =
        outr_http_server_new(&(outr_http_server_options){.loop = b->w.loop,
                                                         .handler = &handler,
                                                         .ctx = b,
                                                         .allow_h2 = true,
                                                         .limits.max_header_bytes = 2000,
                                                         .on_refuse = outr_grpc_on_refuse});
    b->pool = outr_http_pool_new(
        &(outr_http_pool_options){.loop = b->w.loop, .version = OUTR_HTTP_2});
    return b;
}

static void begin(bench *b, const char *method, const char *type)
{
    web_call_init(&b->c, b->w.loop, method, "/a.B/C");
    if (type)
        outr_headers_add(&b->c.req.headers, OUTR_STR("content-type"), outr_str_from(type));
}

static void add(bench *b, const char *name, const char *value)
{
    outr_headers_add(&b->c.req.headers, outr_str_from(name), outr_str_from(value));
}

static void start(bench *b, const char *body, size_t n)
{
    if (body)
        web_call_bytes(&b->c, body, n);
    b->c.req.content_length = -1;
    web_call_start(&b->c, b->pool);
    assert_true(wire_run(&b->w));
}

/* The answer's grpc-status; -1: none. */
static int status_of(bench *b)
{
    outr_str text = outr_headers_get(&b->c.call.head.headers, "grpc-status");
    const char *trailers = b->c.taker.trailers, *at = strstr(trailers, "grpc-status=");
    uint64_t code;
    if (!text.p && at)
        text = outr_str_head(outr_str_from(at + 12), strcspn(at + 12, ";"));
    return text.p && outr_str_to_u64(text, 99, &code) ? (int)code : -1;
}

static outr_str message_of(bench *b)
{
    return outr_headers_get(&b->c.call.head.headers, "grpc-message");
}

static void again(bench *b)
{
    web_call_done(&b->c);
    b->runs = 0;
}

static void close_bench(bench *b)
{
    web_call_done(&b->c);
    outr_http_pool_free(b->pool);
    wire_run(&b->w);
    outr_http_server_free(b->server);
    wire_run(&b->w);
    wire_done(&b->w);
    free(b);
}

#define HELLO "\0\0\0\0\7\22\5hello"
#define BODY(text) text, sizeof text - 1

static void a_unary_call(void **state)
{
    bench *b = open_bench(run_echo, false);
    (void)state;
    begin(b, "POST", "application/grpc+proto");
    start(b, BODY(HELLO));
    assert_int_equal(b->c.call.head.status, 200);
    assert_true(outr_str_is(outr_headers_get(&b->c.call.head.headers, "content-type"),
                            "application/grpc"));
    assert_true(outr_str_eq(outr_buf_view(&b->c.taker.body), OUTR_STR(HELLO)));
    assert_string_equal(b->c.taker.trailers, "grpc-status=0;");
    assert_int_equal(b->ended_with, OUTR_OK);
    close_bench(b);
}

static void unary_calls_that_are_none(void **state)
{
    static const struct {
        const char *p;
        size_t n;
        int code;
    } bodies[] = {{NULL, 0, OUTR_INTERNAL},                      /* no message */
                  {BODY(HELLO HELLO), OUTR_INTERNAL},            /* two */
                  {BODY("\0\0\0\0\7\22\5he"), OUTR_INTERNAL},    /* cut */
                  {BODY("\0\0\0\0\3\377\377\377"), OUTR_INTERNAL}, /* no protobuf */
                  {BODY("\1\0\0\0\7\22\5hello"), OUTR_INTERNAL}, /* compressed in nothing */
                  {BODY("\0\0\0\3\351"), OUTR_RESOURCE_EXHAUSTED}};
    bench *b = open_bench(run_echo, false);
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(bodies); i++) {
        begin(b, "POST", "application/grpc");
        start(b, bodies[i].p, bodies[i].n);
        assert_int_equal(status_of(b), bodies[i].code);
        assert_int_equal(b->runs, 0);
        assert_int_equal(b->ended_with, bodies[i].code);
        again(b);
    }
    assert_int_equal(b->w.connect_count, 1); /* the connection lives */
    begin(b, "POST", "application/grpc");
    start(b, BODY(HELLO));
    assert_int_equal(status_of(b), OUTR_OK);
    close_bench(b);
}

static void heads_that_no_call_has(void **state)
{
    static const struct {
        const char *name, *value;
        int code;
    } heads[] = {{"grpc-timeout", "soon", OUTR_INTERNAL},
                 {"x-bin", "*", OUTR_INTERNAL},
                 {"grpc-timeout", "0S", OUTR_DEADLINE_EXCEEDED},
                 {"grpc-encoding", "br", OUTR_UNIMPLEMENTED}};
    bench *b = open_bench(run_echo, false);
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(heads); i++) {
        begin(b, "POST", "application/grpc");
        add(b, heads[i].name, heads[i].value);
        start(b, BODY(HELLO));
        assert_int_equal(status_of(b), heads[i].code);
        again(b);
    }
    begin(b, "POST", "application/grpc");
    add(b, "grpc-encoding", "br");
    start(b, BODY(HELLO));
    assert_true(outr_str_is(outr_headers_get(&b->c.call.head.headers, "grpc-accept-encoding"),
                            "gzip"));
    close_bench(b);
}

static void requests_that_are_no_calls(void **state)
{
    bench *b = open_bench(run_echo, false);
    char *big = outr_alloc(300 * OUTR_KIB);
    (void)state;
    begin(b, "GET", "application/grpc");
    start(b, NULL, 0);
    assert_int_equal(b->c.call.head.status, 405);
    again(b);
    begin(b, "POST", "application/json");
    start(b, BODY("{}"));
    assert_int_equal(b->c.call.head.status, 415);
    assert_true(outr_str_is(outr_buf_view(&b->c.taker.body),
                            "invalid gRPC request content-type \"application/json\"\n"));
    again(b);
    begin(b, "POST", NULL);
    start(b, big, 300 * OUTR_KIB);
    assert_int_equal(b->c.call.head.status, 415);
    assert_int_equal(b->runs, 0);
    close_bench(b);
    free(big);
}

static void more_metadata_than_is_taken_is_a_status(void **state)
{
    bench *b = open_bench(run_echo, false);
    char value[1500];
    (void)state;
    memset(value, 'x', sizeof value - 1);
    value[sizeof value - 1] = 0;
    begin(b, "POST", "application/grpc");
    add(b, "a", value);
    add(b, "b", value);
    start(b, BODY(HELLO));
    assert_int_equal(b->c.call.head.status, 431);
    assert_int_equal(status_of(b), OUTR_RESOURCE_EXHAUSTED);
    close_bench(b);
}

static void an_answer_over_the_limit_is_not_sent(void **state)
{
    static char huge[2000];
    bench *b = open_bench(run_op, false);
    message m = GOOGLE__RPC__STATUS__INIT;
    (void)state;
    memset(huge, 'x', sizeof huge - 1);
    m.message = huge;
    begin(b, "POST", "application/grpc");
    start(b, BODY(HELLO));
    outr_op_cancel(&b->call->op, OUTR_CANCELLED);
    wire_run(&b->w);
    again(b);
    b->method.run = ran;
    begin(b, "POST", "application/grpc");
    start(b, BODY(HELLO));
    outr_grpc_reply(b->call, &m);
    wire_run(&b->w);
    assert_int_equal(status_of(b), OUTR_RESOURCE_EXHAUSTED);
    assert_true(
        outr_str_is(message_of(b), "trying to send message larger than max (2002 vs. 1000)"));
    close_bench(b);
}

static void a_client_that_goes_cancels_the_operation(void **state)
{
    bench *b = open_bench(run_op, false);
    (void)state;
    begin(b, "POST", "application/grpc");
    start(b, BODY(HELLO));
    assert_int_equal(b->runs, 1);
    assert_false(b->is_op_done);
    outr_op_cancel(&b->c.op, OUTR_CANCELLED);
    wire_run(&b->w);
    assert_true(b->is_op_done);
    assert_int_equal(b->ended_with, OUTR_CANCELLED);
    assert_int_equal(b->ends, 1);
    close_bench(b);
}

static void a_deadline_cancels_the_operation_and_is_the_status(void **state)
{
    bench *b = open_bench(run_op, false);
    (void)state;
    begin(b, "POST", "application/grpc");
    add(b, "grpc-timeout", "20m");
    start(b, BODY(HELLO));
    wire_sleep(&b->w, 19 * OUTR_MS);
    assert_false(b->is_op_done);
    wire_sleep(&b->w, 2 * OUTR_MS);
    assert_true(b->is_op_done);
    assert_int_equal(status_of(b), OUTR_DEADLINE_EXCEEDED);
    assert_int_equal(b->ended_with, OUTR_DEADLINE_EXCEEDED);
    close_bench(b);
}

static void the_longest_timeout_is_no_deadline_in_the_past(void **state)
{
    bench *b = open_bench(run_op, false);
    (void)state;
    begin(b, "POST", "application/grpc");
    add(b, "grpc-timeout", "99999999H");
    start(b, BODY(HELLO));
    wire_sleep(&b->w, OUTR_SEC);
    assert_false(b->is_op_done);
    outr_op_cancel(&b->c.op, OUTR_CANCELLED);
    wire_run(&b->w);
    close_bench(b);
}

static void a_stream_both_ways(void **state)
{
    bench *b = open_bench(run_stream, true);
    (void)state;
    begin(b, "POST", "application/grpc");
    start(b, BODY(HELLO HELLO "\0\0\0\0\0"));
    assert_int_equal(b->taken, 3);
    assert_int_equal(b->half_closes, 1);
    assert_true(outr_str_eq(outr_buf_view(&b->c.taker.body), OUTR_STR(HELLO HELLO "\0\0\0\0\0")));
    assert_string_equal(b->c.taker.trailers, "grpc-status=0;");
    close_bench(b);
}

static void a_bad_message_ends_a_stream(void **state)
{
    bench *b = open_bench(run_stream, true);
    (void)state;
    begin(b, "POST", "application/grpc");
    start(b, BODY(HELLO "\0\0\0\0\1\377" HELLO));
    assert_int_equal(b->taken, 1);
    assert_int_equal(b->gone, 1);
    assert_int_equal(status_of(b), OUTR_INTERNAL);
    close_bench(b);
}

static void a_deadline_ends_a_stream(void **state)
{
    bench *b = open_bench(run_stream, true);
    web_giver giver;
    (void)state;
    web_giver_init(&giver, -1);
    begin(b, "POST", "application/grpc");
    add(b, "grpc-timeout", "1S");
    b->c.call.body = &giver.base;
    start(b, NULL, 0);
    assert_int_equal(b->runs, 1);
    wire_sleep(&b->w, OUTR_SEC + OUTR_MS);
    assert_int_equal(b->gone, 1);
    assert_int_equal(status_of(b), OUTR_DEADLINE_EXCEEDED);
    assert_true(giver.was_cancelled); /* RST_STREAM NO_ERROR behind the trailers */
    assert_int_equal(b->ends, 1);
    close_bench(b);
}

static void a_handler_that_ends_first_stops_the_client(void **state)
{
    bench *b = open_bench(run_early_end, true);
    web_giver giver;
    (void)state;
    web_giver_init(&giver, -1);
    begin(b, "POST", "application/grpc");
    b->c.call.body = &giver.base;
    start(b, NULL, 0);
    assert_int_equal(status_of(b), OUTR_OUT_OF_RANGE);
    assert_true(outr_str_is(message_of(b), "enough")); /* trailers only */
    assert_true(outr_str_is(
        outr_headers_get(&b->c.call.head.headers, "grpc-status-details-bin"), "AQID"));
    assert_true(giver.was_cancelled);
    assert_int_equal(b->c.err.code, OUTR_OK);
    close_bench(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_unary_call),
        cmocka_unit_test(unary_calls_that_are_none),
        cmocka_unit_test(heads_that_no_call_has),
        cmocka_unit_test(requests_that_are_no_calls),
        cmocka_unit_test(more_metadata_than_is_taken_is_a_status),
        cmocka_unit_test(an_answer_over_the_limit_is_not_sent),
        cmocka_unit_test(a_client_that_goes_cancels_the_operation),
        cmocka_unit_test(a_deadline_cancels_the_operation_and_is_the_status),
        cmocka_unit_test(the_longest_timeout_is_no_deadline_in_the_past),
        cmocka_unit_test(a_stream_both_ways),
        cmocka_unit_test(a_bad_message_ends_a_stream),
        cmocka_unit_test(a_deadline_ends_a_stream),
        cmocka_unit_test(a_handler_that_ends_first_stops_the_client),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
