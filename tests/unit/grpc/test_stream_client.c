#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "grpc/reflection/v1/reflection.pb-c.h"
#include "grpc/server.h"
#include "grpc/stream_client.h"
#include "lib/wire.h"

typedef Grpc__Reflection__V1__ServerReflectionRequest request;
typedef Grpc__Reflection__V1__ServiceResponse answer;

#define PATH "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"

/* A client's stream to a server on one wire. What the server does is its method's run. */
typedef struct bench {
    wire w;
    outr_http_server *server;
    outr_http_pool *pool;
    void (*run)(outr_grpc_call *call);
    outr_grpc_method method;
    outr_grpc_call *call; /* the server's side of the stream */
    outr_timer late;
    /* the server's */
    unsigned taken, half_closes, gone;
    bool takes_no_more;
    /* the client's */
    outr_grpc_stream s;
    outr_http_call http;
    outr_op op;
    outr_arena *arena;
    char got[256];
    unsigned heads, messages, writables, dones;
    bool pauses;
    outr_err err;
} bench;

static bench *bench_of(outr_grpc_call *call)
{
    return call->ctx;
}

static void on_request(void *ctx, outr_exchange *x)
{
    bench *b = ctx;
    outr_grpc_serve(
        x, &(outr_grpc_serve_options){.method = &b->method, .ctx = b, .max_bytes = OUTR_MIB});
}

static void on_accept(void *ctx, outr_stream *own_stream)
{
    outr_http_server_take(((bench *)ctx)->server, own_stream);
}

static bool on_answer(outr_grpc_stream *s, outr_str bytes)
{
    bench *b = s->user;
    answer *m;
    outr_err err;
    const ProtobufCMessageDescriptor *type = &grpc__reflection__v1__service_response__descriptor;
    assert_int_equal(outr_proto_read(&m, b->arena, type, bytes, &err), OUTR_OK);
    if (strlen(b->got) + strlen(m->name) < sizeof b->got)
        strncat(b->got, m->name, sizeof b->got - strlen(b->got) - 1);
    b->messages++;
    return !b->pauses;
}

static void on_head(outr_grpc_stream *s)
{
    ((bench *)s->user)->heads++;
}

static void on_writable(outr_grpc_stream *s)
{
    ((bench *)s->user)->writables++;
}

static void on_done(outr_op *op)
{
    bench *b = OUTR_CONTAINER(op, bench, op);
    outr_grpc_stream_result(&b->s, &op->err, &b->err);
    b->dones++;
}

static bench *open_bench(void (*run)(outr_grpc_call *call))
{
    static const outr_http_handler handler = {.on_request = on_request};
    bench *b = outr_alloc(sizeof *b);
    wire_init(&b->w, 1);
    b->w.on_accept = on_accept;
    b->w.ctx = b;
    b->method = (outr_grpc_method){
        .path = PATH,
        .request = &grpc__reflection__v1__server_reflection_request__descriptor,
        .takes_stream = true,
        .run = run,
    };
    b->server = outr_http_server_new(&(outr_http_server_options){
        .loop = b->w.loop, .handler = &handler, .ctx = b, .allow_h2 = true});
    b->pool = outr_http_pool_new(
        &(outr_http_pool_options){.loop = b->w.loop, .version = OUTR_HTTP_2});
    b->arena = outr_arena_new(16 * OUTR_MIB);
    b->s = (outr_grpc_stream){.arena = b->arena,
                              .loop = b->w.loop,
                              .on_head = on_head,
                              .on_message = on_answer,
                              .on_writable = on_writable,
                              .user = b};
    outr_headers_init(&b->s.metadata, b->arena);
    return b;
}

static void start(bench *b)
{
    outr_grpc_stream_prepare(&b->s, &b->http, PATH);
    outr_op_init(&b->op, b->w.loop, NULL, 0, on_done);
    outr_http_call_start(b->pool, &b->http, &b->op);
}

static void close_bench(bench *b)
{
    outr_http_pool_free(b->pool);
    wire_run(&b->w);
    if (b->server)
        outr_http_server_free(b->server);
    wire_run(&b->w);
    outr_arena_free(b->arena);
    wire_done(&b->w);
    free(b);
}

static bool say(bench *b, const char *text)
{
    request m = GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__INIT;
    m.host = (char *)(uintptr_t)text;
    return outr_grpc_stream_send(&b->s, &m);
}

static bool answer_with(outr_grpc_call *call, const char *text)
{
    answer m = GRPC__REFLECTION__V1__SERVICE_RESPONSE__INIT;
    m.name = (char *)(uintptr_t)text;
    return outr_grpc_send(call, &m);
}

/* ---- servers --------------------------------------------------------------------------------- */

static bool echo(outr_grpc_call *call, void *message)
{
    bench *b = bench_of(call);
    b->taken++;
    answer_with(call, ((request *)message)->host);
    return !b->takes_no_more;
}

static void end_ok(outr_grpc_call *call)
{
    bench_of(call)->half_closes++;
    outr_headers_add(&call->trailers, OUTR_STR("x-left"), OUTR_STR("nothing"));
    outr_grpc_end(call);
}

static void on_gone(outr_grpc_call *call)
{
    bench_of(call)->gone++;
    bench_of(call)->call = NULL;
    outr_grpc_end(call);
}

static void run_echo(outr_grpc_call *call)
{
    bench_of(call)->call = call;
    call->on_message = echo;
    call->on_half_close = end_ok;
    call->on_gone = on_gone;
}

static void run_refuse(outr_grpc_call *call)
{
    outr_grpc_fail(call, &(outr_grpc_status){.code = OUTR_PERMISSION_DENIED,
                                             .message = OUTR_STR("not for you")});
}

static void run_many(outr_grpc_call *call)
{
    for (int i = 0; i < 10; i++)
        answer_with(call, "x");
    call->on_message = echo;
    outr_grpc_end(call);
}

/* ---- tests ----------------------------------------------------------------------------------- */

static void messages_go_both_ways_and_the_status_ends_it(void **state)
{
    bench *b = open_bench(run_echo);
    (void)state;
    start(b);
    assert_false(say(b, "a")); /* there is no connection yet: waits, and is told */
    assert_true(wire_run(&b->w));
    assert_string_equal(b->got, "a");
    assert_int_equal(b->heads, 1);
    assert_true(b->writables > 0);
    assert_true(say(b, "b"));
    assert_true(say(b, "c"));
    assert_true(wire_run(&b->w));
    assert_string_equal(b->got, "abc");
    assert_int_equal(b->dones, 0);
    outr_grpc_stream_half_close(&b->s);
    assert_true(wire_run(&b->w));
    assert_int_equal(b->dones, 1);
    assert_int_equal(b->err.code, OUTR_OK);
    assert_true(outr_str_is(outr_headers_get(&b->s.trailers, "x-left"), "nothing"));
    close_bench(b);
}

static void what_was_sent_before_the_half_close_arrives(void **state)
{
    bench *b = open_bench(run_echo);
    (void)state;
    start(b);
    say(b, "a");
    say(b, "b");
    outr_grpc_stream_half_close(&b->s);
    assert_true(say(b, "too late"));
    assert_true(wire_run(&b->w));
    assert_string_equal(b->got, "ab");
    assert_int_equal(b->half_closes, 1);
    assert_int_equal(b->dones, 1);
    close_bench(b);
}

static void a_server_that_reads_nothing_stops_the_sender(void **state)
{
    static char big[60000];
    bench *b = open_bench(run_echo);
    unsigned sent = 0;
    (void)state;
    memset(big, 'x', sizeof big - 1);
    b->takes_no_more = true;
    start(b);
    assert_true(wire_run(&b->w));
    while (say(b, big) && sent < 100) {
        sent++;
        assert_true(wire_run(&b->w));
    }
    assert_in_range(sent, 2, 20); /* a window or two */
    unsigned told = b->writables;
    assert_true(wire_run(&b->w));
    assert_int_equal(b->writables, told);
    b->takes_no_more = false;
    outr_grpc_resume(b->call);
    assert_true(wire_run(&b->w));
    assert_true(b->writables > told);
    assert_int_equal(b->taken, sent + 1);
    outr_grpc_stream_half_close(&b->s);
    assert_true(wire_run(&b->w));
    assert_int_equal(b->err.code, OUTR_OK);
    close_bench(b);
}

static void answers_wait_until_they_are_wanted(void **state)
{
    bench *b = open_bench(run_many);
    (void)state;
    b->pauses = true;
    start(b);
    assert_true(wire_run(&b->w));
    assert_int_equal(b->messages, 1);
    assert_int_equal(b->dones, 0); /* its end waits too */
    b->pauses = false;
    outr_grpc_stream_resume(&b->s);
    assert_true(wire_run(&b->w));
    assert_int_equal(b->messages, 10);
    assert_int_equal(b->dones, 1);
    assert_int_equal(b->err.code, OUTR_OK);
    close_bench(b);
}

static void a_server_that_ends_first_ends_the_call(void **state)
{
    bench *b = open_bench(run_many);
    (void)state;
    start(b);
    say(b, "a");
    assert_true(wire_run(&b->w));
    assert_int_equal(b->dones, 1);
    assert_int_equal(b->err.code, OUTR_OK);
    assert_true(say(b, "nobody is there"));
    outr_grpc_stream_half_close(&b->s);
    close_bench(b);
}

static void a_refusal_without_messages_is_the_status(void **state)
{
    bench *b = open_bench(run_refuse);
    (void)state;
    start(b);
    say(b, "a");
    assert_true(wire_run(&b->w));
    assert_int_equal(b->dones, 1);
    assert_int_equal(b->err.code, OUTR_PERMISSION_DENIED);
    assert_string_equal(b->err.text, "not for you");
    close_bench(b);
}

static void a_message_over_the_limit_breaks_the_call_only(void **state)
{
    bench *b = open_bench(run_echo);
    (void)state;
    b->s.max_bytes = 10;
    start(b);
    say(b, "more than ten bytes");
    assert_true(wire_run(&b->w));
    assert_int_equal(b->dones, 1);
    assert_int_equal(b->err.code, OUTR_RESOURCE_EXHAUSTED);
    assert_int_equal(b->gone, 1);
    assert_int_equal(outr_http_pool_connections(b->pool), 1);
    close_bench(b);
}

static void cancelling_tells_the_server(void **state)
{
    bench *b = open_bench(run_echo);
    (void)state;
    start(b);
    say(b, "a");
    assert_true(wire_run(&b->w));
    outr_op_cancel(&b->op, OUTR_CANCELLED);
    assert_true(wire_run(&b->w));
    assert_int_equal(b->dones, 1);
    assert_int_equal(b->err.code, OUTR_CANCELLED);
    assert_int_equal(b->gone, 1);
    close_bench(b);
}

static void a_server_that_vanishes_is_unavailable(void **state)
{
    bench *b = open_bench(run_echo);
    (void)state;
    start(b);
    say(b, "a");
    assert_true(wire_run(&b->w));
    outr_http_server_free(b->server);
    b->server = NULL;
    assert_true(wire_run(&b->w));
    assert_int_equal(b->dones, 1);
    assert_int_equal(b->err.code, OUTR_UNAVAILABLE);
    assert_true(say(b, "b"));
    close_bench(b);
}

static void messages_survive_any_cutting(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed < 20; seed++) {
        bench *b = open_bench(run_echo);
        outr_rand_seed(&b->w.rand, seed);
        b->w.piece_max = 3;
        b->w.late_percent = 20;
        start(b);
        for (int i = 0; i < 5; i++)
            say(b, "hello ");
        outr_grpc_stream_half_close(&b->s);
        wire_sleep(&b->w, 10 * OUTR_SEC);
        assert_int_equal(b->dones, 1);
        assert_string_equal(b->got, "hello hello hello hello hello ");
        close_bench(b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_go_both_ways_and_the_status_ends_it),
        cmocka_unit_test(what_was_sent_before_the_half_close_arrives),
        cmocka_unit_test(a_server_that_reads_nothing_stops_the_sender),
        cmocka_unit_test(answers_wait_until_they_are_wanted),
        cmocka_unit_test(a_server_that_ends_first_ends_the_call),
        cmocka_unit_test(a_refusal_without_messages_is_the_status),
        cmocka_unit_test(a_message_over_the_limit_breaks_the_call_only),
        cmocka_unit_test(cancelling_tells_the_server),
        cmocka_unit_test(a_server_that_vanishes_is_unavailable),
        cmocka_unit_test(messages_survive_any_cutting),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
