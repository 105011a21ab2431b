#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "components/common/redis/redis.h"
#include "lib/wire.h"

/* The server is the test: it looks at what was sent and feeds replies. */
typedef struct bench {
    wire w;
    outr_redis *redis;
    outr_arena *arena;
    outr_op op;
    bool is_done;
    outr_err err;
} bench;

typedef struct config {
    outr_redis_settings redis;
} config;
static const outr_bind_row rows[] = {OUTR_REDIS_ROWS(config, redis, "512ms")};

/* A call of one or several commands, each a text with spaces. */
typedef struct ask {
    outr_redis_call call;
    outr_redis_command commands[8];
    outr_op op;
    bool is_done;
    outr_err err;
} ask;

static void on_bench_done(outr_op *op)
{
    bench *b = OUTR_CONTAINER(op, bench, op);
    b->is_done = true;
    b->err = op->err;
}

static outr_op *begin(bench *b)
{
    b->is_done = false;
    outr_op_init(&b->op, b->w.loop, NULL, 0, on_bench_done);
    return &b->op;
}

/* metadata: name, value, ..., NULL */
static bench *open_bench(const char *const *metadata)
{
    bench *b = outr_alloc(sizeof *b);
    config c = {0};
    OUTR_AUTO(outr_err_list) errors = {0};
    outr_kv items[16];
    size_t count = 0;
    for (; metadata[2 * count]; count++)
        items[count] =
            (outr_kv){outr_str_from(metadata[2 * count]), outr_str_from(metadata[2 * count + 1])};
    assert_int_equal(
        outr_bind_kvs(rows, OUTR_LEN(rows), &c, (outr_kvs){items, count}, &errors), OUTR_OK);
    wire_init(&b->w, 1);
    b->arena = outr_arena_new(OUTR_MIB);
    const outr_component_init init = {.name = OUTR_STR("r"), .loop = b->w.loop};
    assert_int_equal(outr_redis_new(&b->redis, &c.redis, &init, &b->err), OUTR_OK);
    return b;
}

static bench *open_node(void)
{
    static const char *const metadata[] = {"redisHost", "127.0.0.1:6379", NULL};
    return open_bench(metadata);
}

static void close_bench(bench *b)
{
    outr_redis_close(b->redis, begin(b));
    assert_true(wire_run(&b->w));
    assert_true(b->is_done);
    outr_arena_free(b->arena);
    wire_done(&b->w);
    free(b);
}

static void on_asked(outr_op *op)
{
    ask *a = OUTR_CONTAINER(op, ask, op);
    assert_false(a->is_done);
    a->is_done = true;
    a->err = op->err;
}

static outr_redis_command command_of(bench *b, const char *text)
{
    outr_str args[16], rest = outr_str_from(text);
    size_t n = 0;
    while (rest.p && n < OUTR_LEN(args))
        rest = outr_str_cut(rest, ' ', &args[n++]);
    return outr_redis_command_of(b->arena, n > 1 ? args[1] : OUTR_STR_NONE, n, args);
}

static void prepare(ask *a, bench *b, const char *const *texts)
{
    *a = (ask){.call = {.arena = b->arena, .commands = a->commands}};
    for (; texts[a->call.count]; a->call.count++)
        a->commands[a->call.count] = command_of(b, texts[a->call.count]);
    outr_op_init(&a->op, b->w.loop, NULL, 0, on_asked);
}

static void start(ask *a, bench *b, const char *text)
{
    const char *const texts[] = {text, NULL};
    prepare(a, b, texts);
    outr_redis_call_start(b->redis, &a->call, &a->op);
    assert_false(a->is_done);
}

static void start_repeatable(ask *a, bench *b, const char *text)
{
    const char *const texts[] = {text, NULL};
    prepare(a, b, texts);
    a->call.is_repeatable = true;
    outr_redis_call_start(b->redis, &a->call, &a->op);
}

#define PING "*1\r\n$4\r\nPING\r\n"
#define PONG "+PONG\r\n"
#define GET_A "*2\r\n$3\r\nGET\r\n$1\r\na\r\n"

static void expect(wire_stream *server, const char *text)
{
    assert_true(wire_run(server->net));
    assert_string_equal(wire_take(server, NULL), text);
}

static void reply(bench *b, wire_stream *server, const char *text)
{
    wire_feed_z(server, text);
    assert_true(wire_run(&b->w));
}

/* Lets time pass until a connection is made. */
static void wait_for_dial(bench *b)
{
    for (int i = 0; i < 1000 && !b->w.last; i++)
        wire_sleep(&b->w, 10 * OUTR_MS);
}

/* The connection that was made last, greeted. */
static wire_stream *greet(bench *b)
{
    assert_true(wire_run(&b->w));
    assert_non_null(b->w.last);
    wire_stream *server = b->w.last;
    b->w.last = NULL;
    expect(server, PING);
    reply(b, server, PONG);
    return server;
}

/* The first call, on a connection that is made for it. */
static wire_stream *start_greeted(ask *a, bench *b, const char *text)
{
    start(a, b, text);
    return greet(b);
}

/* ---- one server ------------------------------------------------------------------------------ */

static void what_one_turn_asks_goes_in_one_write(void **state OUTR_UNUSED)
{
    bench *b = open_node();
    ask one, two;
    start(&one, b, "GET a");
    start(&two, b, "SET b 1");
    wire_stream *server = greet(b);
    expect(server, GET_A "*3\r\n$3\r\nSET\r\n$1\r\nb\r\n$1\r\n1\r\n");
    reply(b, server, "$5\r\nhello\r\n");
    assert_true(one.is_done && !two.is_done);
    assert_int_equal(one.err.code, OUTR_OK);
    assert_int_equal(one.call.replies[0].kind, OUTR_REDIS_STRING);
    assert_true(outr_str_is(one.call.replies[0].text, "hello"));
    reply(b, server, "+OK\r\n");
    assert_true(two.is_done);
    assert_int_equal(two.call.replies[0].kind, OUTR_REDIS_STATUS);
    assert_int_equal(b->w.connect_count, 1);
    close_bench(b);
}

static void replies_come_in_pieces(void **state OUTR_UNUSED)
{
    bench *b = open_node();
    ask a, c;
    b->w.piece_max = 3;
    start(&a, b, "XREAD x");
    start(&c, b, "GET c");
    wire_stream *server = greet(b);
    reply(b, server, "*3\r\n*2\r\n$1\r\nk\r\n:-7\r\n$-1\r\n-ERR no\r\n$0\r\n\r\n");
    const outr_redis_reply *r = &a.call.replies[0];
    assert_true(a.is_done && c.is_done);
    assert_int_equal(r->kind, OUTR_REDIS_ARRAY);
    assert_int_equal(r->count, 3);
    assert_true(outr_str_is(r->items[0].items[0].text, "k"));
    assert_int_equal(r->items[0].items[1].integer, -7);
    assert_int_equal(r->items[1].kind, OUTR_REDIS_NIL);
    assert_int_equal(r->items[2].kind, OUTR_REDIS_ERROR);
    assert_int_equal(c.call.replies[0].kind, OUTR_REDIS_STRING);
    assert_int_equal(c.call.replies[0].text.n, 0);
    close_bench(b);
}

static void a_call_that_leaves_takes_its_reply_along(void **state OUTR_UNUSED)
{
    bench *b = open_node();
    ask a, c;
    outr_arena *shared = b->arena;
    start(&a, b, "MGET a");
    a.call.arena = outr_arena_new(OUTR_MIB);
    start(&c, b, "GET c");
    wire_stream *server = greet(b);
    reply(b, server, "*2\r\n$3\r\nabc\r\n$10\r\n0123");
    outr_op_cancel(&a.op, OUTR_CANCELLED);
    assert_int_equal(a.err.code, OUTR_CANCELLED);
    outr_arena_free(a.call.arena); /* nothing may be written there any more */
    reply(b, server, "456789\r\n$1\r\nx\r\n");
    assert_true(c.is_done);
    assert_true(outr_str_is(c.call.replies[0].text, "x"));
    assert_ptr_equal(b->arena, shared);
    close_bench(b);
}

static void a_reply_over_its_callers_cap_fails_that_call_only(void **state OUTR_UNUSED)
{
    bench *b = open_node();
    ask a, c;
    start(&a, b, "GET a");
    a.call.arena = outr_arena_new(1000);
    start(&c, b, "GET c");
    wire_stream *server = greet(b);
    char text[2200];
    snprintf(text, sizeof text, "$2000\r\n%02000d\r\n$1\r\nx\r\n", 7);
    reply(b, server, text);
    assert_true(a.is_done && c.is_done);
    assert_int_equal(a.err.code, OUTR_RESOURCE_EXHAUSTED);
    assert_int_equal(c.err.code, OUTR_OK);
    outr_arena_free(a.call.arena);
    close_bench(b);
}

static void expect_failure(const char *bytes, outr_code code)
{
    bench *b = open_node();
    ask a;
    reply(b, start_greeted(&a, b, "GET a"), bytes);
    assert_true(a.is_done);
    assert_int_equal(a.err.code, code);
    close_bench(b);
}

static void a_list_longer_than_memory_breaks_nothing_else(void **state OUTR_UNUSED)
{
    expect_failure("*2000000000\r\n", OUTR_RESOURCE_EXHAUSTED);
}

static void bytes_that_are_no_reply_break_the_connection(void **state OUTR_UNUSED)
{
    expect_failure("HTTP/1.1 400 Bad Request\r\n\r\n", OUTR_UNAVAILABLE);
}

static void logs_in_and_selects_first(void **state OUTR_UNUSED)
{
    static const char *const metadata[] = {"redisHost", "127.0.0.1",        "redisUsername", "u",
                                           "redisDB",   "3",                "redisPassword", "p w",
                                           NULL};
    bench *b = open_bench(metadata);
    ask a;
    start(&a, b, "GET a");
    assert_true(wire_run(&b->w));
    wire_stream *server = b->w.last;
    expect(server, "*3\r\n$4\r\nAUTH\r\n$1\r\nu\r\n$3\r\np w\r\n*2\r\n$6\r\nSELECT\r\n$1\r\n3\r\n" PING);
    reply(b, server, "+OK\r\n+OK\r\n" PONG);
    expect(server, GET_A);
    close_bench(b);
}

static void a_refused_login_fails_at_once(void **state OUTR_UNUSED)
{
    static const char *const metadata[] = {"redisHost", "127.0.0.1", "redisPassword", "x", NULL};
    bench *b = open_bench(metadata);
    ask a;
    start(&a, b, "GET a");
    assert_true(wire_run(&b->w));
    reply(b, b->w.last, "-WRONGPASS invalid username-password pair\r\n-NOAUTH Authentication required.\r\n");
    assert_true(a.is_done);
    assert_int_equal(a.err.code, OUTR_UNAUTHENTICATED);
    assert_non_null(strstr(a.err.text, "127.0.0.1:6379: redisPassword: WRONGPASS"));
    close_bench(b);
}

/* What a full server says before it hangs up is no answer to the login. */
static void a_server_that_is_full_is_tried_again(void **state OUTR_UNUSED)
{
    static const char *const metadata[] = {"redisHost", "127.0.0.1", "redisPassword", "x", NULL};
    bench *b = open_bench(metadata);
    outr_redis_open(b->redis, begin(b));
    assert_true(wire_run(&b->w));
    wire_stream *server = b->w.last;
    b->w.last = NULL;
    reply(b, server, "-ERR max number of clients reached\r\n");
    assert_false(b->is_done);
    wait_for_dial(b);
    server = b->w.last;
    expect(server, "*2\r\n$4\r\nAUTH\r\n$1\r\nx\r\n" PING);
    reply(b, server, "+OK\r\n" PONG);
    expect(server, PING);
    reply(b, server, PONG);
    assert_true(b->is_done);
    assert_int_equal(b->err.code, OUTR_OK);
    close_bench(b);
}

static void what_was_sent_is_repeated_only_when_it_may_be(void **state OUTR_UNUSED)
{
    bench *b = open_node();
    ask get, add;
    start_repeatable(&get, b, "GET a");
    start(&add, b, "INCR n");
    wire_stream *server = greet(b);
    wire_take(server, NULL);
    wire_break(server);
    assert_true(wire_run(&b->w));
    assert_true(add.is_done && !get.is_done);
    assert_int_equal(add.err.code, OUTR_UNAVAILABLE);
    assert_non_null(strstr(add.err.text, "may have been done"));
    wire_sleep(&b->w, OUTR_SEC);
    server = greet(b);
    expect(server, GET_A);
    reply(b, server, "$1\r\nx\r\n");
    assert_int_equal(get.err.code, OUTR_OK);
    assert_true(get.is_done);
    close_bench(b);
}

static void a_server_that_never_answers_is_given_up(void **state OUTR_UNUSED)
{
    bench *b = open_node();
    ask a;
    wire_stream *server = start_greeted(&a, b, "INCR n");
    wire_take(server, NULL);
    wire_sleep(&b->w, 2900 * OUTR_MS);
    assert_false(a.is_done);
    wire_sleep(&b->w, 200 * OUTR_MS);
    assert_true(a.is_done);
    assert_non_null(strstr(a.err.text, "does not answer"));
    assert_true(server->base.is_closing);
    close_bench(b);
}

static void a_server_that_takes_a_long_write_slowly_is_not_silent(void **state OUTR_UNUSED)
{
    bench *b = open_node();
    ask a, set;
    wire_stream *server = start_greeted(&a, b, "GET a");
    reply(b, server, "$-1\r\n");
    server->is_stalled = true;
    start(&set, b, "SET a 0123456789");
    assert_true(wire_run(&b->w));
    for (int i = 0; i < 6; i++) {
        wire_sleep(&b->w, 2500 * OUTR_MS);
        assert_false(set.is_done);
        server->base.pending_bytes--;
    }
    wire_sleep(&b->w, 6100 * OUTR_MS);
    assert_true(set.is_done);
    assert_non_null(strstr(set.err.text, "does not answer"));
    close_bench(b);
}

static void an_idle_connection_notices_silence_just_as_soon(void **state OUTR_UNUSED)
{
    bench *b = open_node();
    ask a;
    wire_stream *server = start_greeted(&a, b, "GET a");
    reply(b, server, "$-1\r\n");
    wire_sleep(&b->w, 60 * OUTR_SEC);
    start(&a, b, "GET a");
    wire_sleep(&b->w, 3100 * OUTR_MS);
    assert_true(a.is_done);
    assert_int_equal(a.err.code, OUTR_UNAVAILABLE);
    close_bench(b);
}

static void an_idle_connection_is_closed_and_made_again(void **state OUTR_UNUSED)
{
    bench *b = open_node();
    ask a;
    wire_stream *server = start_greeted(&a, b, "GET a");
    reply(b, server, "$-1\r\n");
    wire_sleep(&b->w, 299 * OUTR_SEC);
    assert_false(server->base.is_closing);
    wire_sleep(&b->w, 10 * OUTR_SEC);
    assert_true(server->base.is_closing);
    server = start_greeted(&a, b, "GET a");
    reply(b, server, "$-1\r\n");
    assert_true(a.is_done);
    close_bench(b);
}

static void attempts_end_and_later_calls_begin_anew(void **state OUTR_UNUSED)
{
    bench *b = open_node();
    ask a;
    b->w.refuse_percent = 100;
    start(&a, b, "GET a");
    wire_sleep(&b->w, 5 * OUTR_SEC);
    assert_true(a.is_done);
    assert_int_equal(a.err.code, OUTR_UNAVAILABLE);
    assert_int_equal(b->w.connect_count, 4);
    start(&a, b, "GET a"); /* a server away for long: one attempt is enough */
    wire_sleep(&b->w, 5 * OUTR_SEC);
    assert_true(a.is_done);
    assert_int_equal(b->w.connect_count, 5);
    b->w.refuse_percent = 0;
    start(&a, b, "GET a");
    wire_sleep(&b->w, OUTR_SEC);
    reply(b, greet(b), "$-1\r\n");
    assert_int_equal(a.err.code, OUTR_OK);
    assert_true(a.is_done);
    close_bench(b);
}

static void what_was_never_used_is_closed(void **state OUTR_UNUSED)
{
    close_bench(open_node());
}

static void open_tries_until_it_works(void **state OUTR_UNUSED)
{
    bench *b = open_node();
    b->w.refuse_percent = 100;
    outr_redis_open(b->redis, begin(b));
    wire_sleep(&b->w, 20 * OUTR_SEC);
    assert_false(b->is_done);
    b->w.refuse_percent = 0;
    wait_for_dial(b);
    wire_stream *server = greet(b);
    expect(server, PING);
    reply(b, server, PONG);
    assert_true(b->is_done);
    assert_int_equal(b->err.code, OUTR_OK);
    close_bench(b);
}

static void open_that_runs_out_of_time_says_why(void **state OUTR_UNUSED)
{
    bench *b = open_node();
    b->w.refuse_percent = 100;
    b->is_done = false;
    outr_op_init(&b->op, b->w.loop, NULL, b->w.now + 5 * OUTR_SEC, on_bench_done);
    outr_redis_open(b->redis, &b->op);
    wire_sleep(&b->w, 6 * OUTR_SEC);
    assert_true(b->is_done);
    assert_int_equal(b->err.code, OUTR_DEADLINE_EXCEEDED);
    assert_non_null(strstr(b->err.text, "connection refused"));
    close_bench(b);
}

static void a_transaction_is_all_or_nothing(void **state OUTR_UNUSED)
{
    static const char *const texts[] = {"SET a 1", "INCR a", NULL};
    bench *b = open_node();
    ask a;
    prepare(&a, b, texts);
    a.call.is_atomic = true;
    outr_redis_call_start(b->redis, &a.call, &a.op);
    wire_stream *server = greet(b);
    expect(server, "*1\r\n$5\r\nMULTI\r\n*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\n1\r\n"
                   "*2\r\n$4\r\nINCR\r\n$1\r\na\r\n*1\r\n$4\r\nEXEC\r\n");
    reply(b, server, "+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n+OK\r\n:2\r\n");
    assert_true(a.is_done);
    assert_int_equal(a.call.replies[0].kind, OUTR_REDIS_STATUS);
    assert_int_equal(a.call.replies[1].integer, 2);
    prepare(&a, b, texts);
    a.call.is_atomic = true;
    outr_redis_call_start(b->redis, &a.call, &a.op);
    assert_true(wire_run(&b->w));
    reply(b, server, "+OK\r\n+QUEUED\r\n-ERR unknown command\r\n-EXECABORT Transaction discarded\r\n");
    assert_true(a.is_done);
    assert_int_equal(a.err.code, OUTR_OK);
    assert_int_equal(outr_redis_check_all(&a.call, &b->err), OUTR_INTERNAL);
    assert_true(outr_str_starts(a.call.replies[0].text, OUTR_STR("EXECABORT")));
    assert_true(outr_str_starts(a.call.replies[1].text, OUTR_STR("ERR unknown")));
    close_bench(b);
}

static void a_loading_server_is_waited_for(void **state OUTR_UNUSED)
{
    bench *b = open_node();
    ask a;
    wire_stream *server = start_greeted(&a, b, "GET a");
    wire_take(server, NULL);
    reply(b, server, "-LOADING Redis is loading the dataset in memory\r\n");
    assert_false(a.is_done);
    wire_sleep(&b->w, OUTR_SEC);
    expect(server, GET_A);
    reply(b, server, "$1\r\nx\r\n");
    assert_true(outr_str_is(a.call.replies[0].text, "x"));
    close_bench(b);
}

/* ---- lines and listeners --------------------------------------------------------------------- */

static void a_line_that_is_cancelled_hangs_up(void **state OUTR_UNUSED)
{
    static const char *const texts[] = {"BLPOP q 0", NULL};
    bench *b = open_node();
    ask a;
    outr_redis_line *line = outr_redis_line_open(b->redis, b->w.loop, OUTR_STR("q"));
    prepare(&a, b, texts);
    a.call.wait_ns = 3600 * OUTR_SEC;
    outr_redis_line_start(line, &a.call, &a.op);
    wire_stream *server = greet(b);
    wire_sleep(&b->w, 600 * OUTR_SEC);
    assert_false(a.is_done);
    outr_op_cancel(&a.op, OUTR_CANCELLED);
    assert_true(a.is_done);
    assert_true(server->base.is_closing);
    prepare(&a, b, texts);
    outr_redis_line_start(line, &a.call, &a.op);
    reply(b, greet(b), "*-1\r\n");
    assert_true(a.is_done);
    assert_int_equal(a.err.code, OUTR_OK);
    prepare(&a, b, texts);
    outr_redis_line_start(line, &a.call, &a.op);
    outr_redis_line_close(line);
    assert_false(a.is_done);
    assert_true(wire_run(&b->w));
    assert_true(a.is_done);
    assert_int_equal(a.err.code, OUTR_CANCELLED);
    close_bench(b);
}

typedef struct heard {
    unsigned ups, downs, messages;
    char last[64];
} heard;

static void on_message(void *ctx, outr_str channel, outr_str payload)
{
    heard *h = ctx;
    h->messages++;
    snprintf(h->last, sizeof h->last, OUTR_FMT "=" OUTR_FMT, OUTR_ARG(channel), OUTR_ARG(payload));
}

static void on_change(void *ctx, const outr_err *err)
{
    heard *h = ctx;
    if (err)
        h->downs++;
    else
        h->ups++;
}

static void a_listener_subscribes_again(void **state OUTR_UNUSED)
{
    bench *b = open_node();
    heard h = {0};
    const outr_str channels[] = {OUTR_STR("a*"), OUTR_STR("b*")};
    const outr_redis_listen listen = {.loop = b->w.loop,
                                      .channels = channels,
                                      .channel_count = 2,
                                      .is_pattern = true,
                                      .on_message = on_message,
                                      .on_change = on_change,
                                      .ctx = &h};
    outr_redis_listener *l = outr_redis_listen_start(b->redis, &listen);
    for (unsigned round = 1; round <= 3; round++) {
        wire_stream *server = greet(b);
        expect(server, "*3\r\n$10\r\nPSUBSCRIBE\r\n$2\r\na*\r\n$2\r\nb*\r\n");
        reply(b, server, "*3\r\n$10\r\npsubscribe\r\n$2\r\na*\r\n:1\r\n");
        assert_int_equal(h.ups, round - 1);
        reply(b, server, "*3\r\n$10\r\npsubscribe\r\n$2\r\nb*\r\n:2\r\n");
        assert_int_equal(h.ups, round);
        reply(b, server, "*4\r\n$8\r\npmessage\r\n$2\r\na*\r\n$2\r\nax\r\n$2\r\nhi\r\n");
        assert_int_equal(h.messages, round);
        assert_string_equal(h.last, "ax=hi");
        if (round == 1) {
            wire_eof(server);
        } else { /* silence is asked about, then not believed */
            wire_sleep(&b->w, 16 * OUTR_SEC);
            expect(server, PING);
            reply(b, server, "*2\r\n$4\r\npong\r\n$0\r\n\r\n");
            for (int i = 0; i < 100 && h.downs < round; i++)
                wire_sleep(&b->w, OUTR_SEC);
        }
        wait_for_dial(b);
        assert_int_equal(h.downs, round);
    }
    outr_redis_listen_stop(l);
    close_bench(b);
}

/* ---- cluster, Sentinel ----------------------------------------------------------------------- */

static void a_cluster_sends_commands_where_their_keys_are(void **state OUTR_UNUSED)
{
    static const char *const metadata[] = {"redisHost", "127.0.0.1:7000", "redisType", "cluster",
                                           NULL};
    static const char *const texts[] = {"GET foo", "GET bar", "GET foo", NULL};
    bench *b = open_bench(metadata); /* foo is in slot 12182, bar in 5061 */
    ask a;
    prepare(&a, b, texts);
    outr_redis_call_start(b->redis, &a.call, &a.op);
    wire_stream *seed = greet(b);
    expect(seed, "*2\r\n$7\r\nCLUSTER\r\n$5\r\nSLOTS\r\n");
    wire_feed_z(seed, "*2\r\n*3\r\n:0\r\n:8191\r\n*2\r\n$9\r\n127.0.0.1\r\n:7000\r\n"
                      "*3\r\n:8192\r\n:16383\r\n*2\r\n$9\r\n127.0.0.1\r\n:7001\r\n");
    wire_stream *other = greet(b);
    expect(seed, "*2\r\n$3\r\nGET\r\n$3\r\nbar\r\n");
    expect(other, "*2\r\n$3\r\nGET\r\n$3\r\nfoo\r\n*2\r\n$3\r\nGET\r\n$3\r\nfoo\r\n");
    reply(b, seed, "$1\r\nb\r\n");
    reply(b, other, "$1\r\n1\r\n");
    assert_false(a.is_done);
    reply(b, other, "-ASK 12182 127.0.0.1:7000\r\n");
    assert_false(a.is_done);
    expect(seed, "*1\r\n$6\r\nASKING\r\n*2\r\n$3\r\nGET\r\n$3\r\nfoo\r\n");
    reply(b, seed, "+OK\r\n$1\r\n3\r\n");
    assert_true(a.is_done);
    assert_true(outr_str_is(a.call.replies[0].text, "1"));
    assert_true(outr_str_is(a.call.replies[1].text, "b"));
    assert_true(outr_str_is(a.call.replies[2].text, "3"));
    wire_sleep(&b->w, OUTR_SEC);
    start(&a, b, "GET {foo}2");
    expect(other, "*2\r\n$3\r\nGET\r\n$6\r\n{foo}2\r\n");
    reply(b, other, "-MOVED 12182 127.0.0.1:7000\r\n");
    assert_true(wire_run(&b->w));
    expect(seed, "*2\r\n$3\r\nGET\r\n$6\r\n{foo}2\r\n*2\r\n$7\r\nCLUSTER\r\n$5\r\nSLOTS\r\n");
    reply(b, seed, "$1\r\nm\r\n");
    assert_true(outr_str_is(a.call.replies[0].text, "m"));
    close_bench(b);
}

static void a_line_that_was_given_back_is_used_again(void **state OUTR_UNUSED)
{
    static const char *const texts[] = {"SET a 1", NULL};
    bench *b = open_node();
    ask a;
    outr_redis_line *line = outr_redis_line_borrow(b->redis, b->w.loop, OUTR_STR("a"));
    prepare(&a, b, texts);
    outr_redis_line_start(line, &a.call, &a.op);
    wire_stream *server = greet(b);
    for (int i = 0; i < 2; i++) {
        expect(server, "*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\n1\r\n");
        reply(b, server, "+OK\r\n");
        assert_true(a.is_done);
        outr_redis_line_give_back(line);
        line = outr_redis_line_borrow(b->redis, b->w.loop, OUTR_STR("b"));
        prepare(&a, b, texts);
        outr_redis_line_start(line, &a.call, &a.op);
    }
    assert_int_equal(b->w.connect_count, 1);
    wire_eof(server); /* and made anew when it is gone */
    assert_true(wire_run(&b->w));
    assert_true(a.is_done && a.err.code != OUTR_OK);
    outr_redis_line_give_back(line);
    close_bench(b);
}

static void calls_that_wait_for_a_server_go_where_the_map_says_by_now(void **state OUTR_UNUSED)
{
    static const char *const metadata[] = {"redisHost", "127.0.0.1:7000", "redisType", "cluster",
                                           NULL};
    bench *b = open_bench(metadata); /* foo is in slot 12182, bar in 5061 */
    ask foo, bar;
    start(&foo, b, "GET foo");
    wire_stream *seed = greet(b);
    expect(seed, "*2\r\n$7\r\nCLUSTER\r\n$5\r\nSLOTS\r\n");
    reply(b, seed,
          "*2\r\n*3\r\n:0\r\n:8191\r\n*2\r\n$9\r\n127.0.0.1\r\n:7000\r\n"
          "*3\r\n:8192\r\n:16383\r\n*2\r\n$9\r\n127.0.0.1\r\n:7001\r\n");
    wire_stream *dead = b->w.last; /* takes the connection and says nothing */
    expect(dead, PING);
    wire_sleep(&b->w, OUTR_SEC);
    start(&bar, b, "GET bar");
    expect(seed, "*2\r\n$3\r\nGET\r\n$3\r\nbar\r\n");
    reply(b, seed, "-MOVED 5061 127.0.0.1:7000\r\n"); /* it has heard of the failover */
    expect(seed, "*2\r\n$3\r\nGET\r\n$3\r\nbar\r\n*2\r\n$7\r\nCLUSTER\r\n$5\r\nSLOTS\r\n");
    reply(b, seed, "$1\r\nb\r\n*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$9\r\n127.0.0.1\r\n:7000\r\n");
    assert_true(bar.is_done);
    expect(seed, "*2\r\n$3\r\nGET\r\n$3\r\nfoo\r\n");
    reply(b, seed, "$1\r\nf\r\n");
    assert_true(foo.is_done);
    assert_int_equal(foo.err.code, OUTR_OK);
    close_bench(b);
}

#define SLOTS_AT(port)                                                                             \
    "*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$9\r\n127.0.0.1\r\n:" port "\r\n"

/* Keyspace events come from where the key is, and nothing is said when it has moved. */
static void a_listener_goes_where_its_key_is(void **state OUTR_UNUSED)
{
    static const char *const metadata[] = {"redisHost", "127.0.0.1:7000", "redisType", "cluster",
                                           NULL};
    static const char subscribe[] = "*2\r\n$9\r\nSUBSCRIBE\r\n$1\r\nc\r\n",
                      subscribed[] = "*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n",
                      slots[] = "*2\r\n$7\r\nCLUSTER\r\n$5\r\nSLOTS\r\n";
    bench *b = open_bench(metadata);
    heard h = {0};
    const outr_str channel = OUTR_STR("c");
    const outr_redis_listen listen = {.loop = b->w.loop,
                                      .channels = &channel,
                                      .channel_count = 1,
                                      .key = OUTR_STR("foo"),
                                      .on_message = on_message,
                                      .on_change = on_change,
                                      .ctx = &h};
    outr_redis_listener *l = outr_redis_listen_start(b->redis, &listen);
    wire_stream *seed = greet(b);
    expect(seed, slots);
    reply(b, seed, SLOTS_AT("7001"));
    wait_for_dial(b);
    wire_stream *first = greet(b);
    expect(first, subscribe);
    reply(b, first, subscribed);
    assert_int_equal(h.ups, 1);
    wire_sleep(&b->w, 16 * OUTR_SEC);
    expect(first, PING);
    reply(b, first, "*2\r\n$4\r\npong\r\n$0\r\n\r\n");
    expect(seed, slots);
    reply(b, seed, SLOTS_AT("7002"));
    wait_for_dial(b);
    wire_stream *second = greet(b);
    assert_int_equal(second->base.peer.port, 7002);
    assert_true(first->base.is_closing);
    expect(second, subscribe);
    reply(b, second, subscribed);
    assert_int_equal(h.ups, 2);
    outr_redis_listen_stop(l);
    close_bench(b);
}

static void a_master_is_found_by_sentinel(void **state OUTR_UNUSED)
{
    static const char *const metadata[] = {"redisHost", "127.0.0.1:26379,127.0.0.1:26380",
                                           "failover", "true", "sentinelMasterName", "m", NULL};
#define WHO "*3\r\n$8\r\nSENTINEL\r\n$23\r\nget-master-addr-by-name\r\n$1\r\nm\r\n"
#define ROLE "*1\r\n$4\r\nROLE\r\n"
    bench *b = open_bench(metadata);
    ask a;
    start(&a, b, "SET a 1");
    wire_stream *sentinel = greet(b);
    expect(sentinel, WHO);
    wire_eof(sentinel); /* the second one is asked */
    sentinel = greet(b);
    expect(sentinel, WHO);
    reply(b, sentinel, "*2\r\n$9\r\n127.0.0.1\r\n$4\r\n7000\r\n");
    assert_true(sentinel->base.is_closing);
    wire_stream *master = b->w.last;
    expect(master, ROLE);
    reply(b, master, "*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n");
    expect(master, "*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\n1\r\n");
    reply(b, master, "-READONLY You can't write against a read only replica.\r\n");
    assert_false(a.is_done);
    wire_sleep(&b->w, OUTR_SEC);
    sentinel = greet(b);
    expect(sentinel, WHO);
    reply(b, sentinel, "*2\r\n$9\r\n127.0.0.1\r\n$4\r\n7001\r\n");
    master = b->w.last;
    expect(master, ROLE);
    reply(b, master, "*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n");
    expect(master, "*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\n1\r\n");
    reply(b, master, "+OK\r\n");
    assert_true(a.is_done);
    assert_int_equal(a.err.code, OUTR_OK);
    close_bench(b);
}

/* ---- settings -------------------------------------------------------------------------------- */

static void settings_that_make_no_sense_are_named(void **state OUTR_UNUSED)
{
    static const struct {
        const char *metadata[7], *says;
    } cases[] = {
        {{"redisHost", "a:b", NULL}, "redisHost"},
        {{"redisHost", "a:1,b:1", NULL}, "redisHost: several"},
        {{"redisHost", "a", "failover", "true", NULL}, "sentinelMasterName"},
        {{"redisHost", "a", "useEntraID", "true", NULL}, "useEntraID"},
        {{"redisHost", "a", "enableTLS", "true", "clientCert", "/nowhere", NULL}, "clientCert"},
    };
    for (size_t i = 0; i < OUTR_LEN(cases); i++) {
        config c = {0};
        OUTR_AUTO(outr_err_list) errors = {0};
        outr_kv items[4];
        size_t n = 0;
        for (; cases[i].metadata[2 * n]; n++)
            items[n] = (outr_kv){outr_str_from(cases[i].metadata[2 * n]),
                                 outr_str_from(cases[i].metadata[2 * n + 1])};
        assert_int_equal(
            outr_bind_kvs(rows, OUTR_LEN(rows), &c, (outr_kvs){items, n}, &errors), OUTR_OK);
        const outr_component_init init = {.name = OUTR_STR("r")};
        outr_redis *redis = NULL;
        outr_err err;
        assert_int_not_equal(outr_redis_new(&redis, &c.redis, &init, &err), OUTR_OK);
        assert_non_null(strstr(err.text, cases[i].says));
        assert_null(redis);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_one_turn_asks_goes_in_one_write),
        cmocka_unit_test(replies_come_in_pieces),
        cmocka_unit_test(a_call_that_leaves_takes_its_reply_along),
        cmocka_unit_test(a_reply_over_its_callers_cap_fails_that_call_only),
        cmocka_unit_test(a_list_longer_than_memory_breaks_nothing_else),
        cmocka_unit_test(bytes_that_are_no_reply_break_the_connection),
        cmocka_unit_test(logs_in_and_selects_first),
        cmocka_unit_test(a_refused_login_fails_at_once),
        cmocka_unit_test(a_server_that_is_full_is_tried_again),
        cmocka_unit_test(what_was_sent_is_repeated_only_when_it_may_be),
        cmocka_unit_test(a_server_that_never_answers_is_given_up),
        cmocka_unit_test(a_server_that_takes_a_long_write_slowly_is_not_silent),
        cmocka_unit_test(an_idle_connection_notices_silence_just_as_soon),
        cmocka_unit_test(an_idle_connection_is_closed_and_made_again),
        cmocka_unit_test(attempts_end_and_later_calls_begin_anew),
        cmocka_unit_test(what_was_never_used_is_closed),
        cmocka_unit_test(open_tries_until_it_works),
        cmocka_unit_test(open_that_runs_out_of_time_says_why),
        cmocka_unit_test(a_transaction_is_all_or_nothing),
        cmocka_unit_test(a_loading_server_is_waited_for),
        cmocka_unit_test(a_line_that_is_cancelled_hangs_up),
        cmocka_unit_test(a_listener_subscribes_again),
        cmocka_unit_test(a_cluster_sends_commands_where_their_keys_are),
        cmocka_unit_test(a_line_that_was_given_back_is_used_again),
        cmocka_unit_test(calls_that_wait_for_a_server_go_where_the_map_says_by_now),
        cmocka_unit_test(a_listener_goes_where_its_key_is),
        cmocka_unit_test(a_master_is_found_by_sentinel),
        cmocka_unit_test(settings_that_make_no_sense_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
