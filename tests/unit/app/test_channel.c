#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "app/channel.h"
#include "lib/web.h"
#include "lib/wire.h"

/* A channel to an app that listens, answers and fails as the test says. */
typedef struct bench {
    wire w;
    outr_settings settings;
    outr_app_state *state;
    outr_app *app;
    outr_http_server *server;
    bool is_listening;
    int status;           /* of answers; 0: none */
    size_t answer_length; /* 0: "ok" */
    unsigned requests, probes, parallel, most_parallel;
    char token[32], host[64];
    outr_exchange *held[16];
    size_t held_count;
    outr_app_watcher watcher;
    unsigned changes;
    bool is_up, is_healthy;
    void (*connect)(outr_env *env, outr_loop *loop, outr_connect *req, outr_op *op);
} bench;

static void on_connect(outr_env *env, outr_loop *loop, outr_connect *req, outr_op *op)
{
    bench *b = OUTR_CONTAINER(OUTR_CONTAINER(env, wire, env), bench, w);
    outr_err err;
    if (b->is_listening) {
        b->connect(env, loop, req, op);
        return;
    }
    outr_fail(&err, OUTR_UNAVAILABLE, "connect: connection refused");
    outr_op_begin(op, req, NULL);
    outr_op_fail_soon(op, &err);
}

static void on_accept(void *ctx, outr_stream *own_stream)
{
    outr_http_server_take(((bench *)ctx)->server, own_stream);
}

static void on_gone(outr_exchange *x, const outr_err *err)
{
    bench *b = x->user;
    (void)err;
    for (size_t i = 0; i < b->held_count; i++) {
        if (b->held[i] == x)
            b->held[i] = b->held[--b->held_count];
    }
    outr_http_done(x);
}

static void answer(bench *b, outr_exchange *x)
{
    char *text = outr_alloc(b->answer_length + 3);
    memset(text, 'x', b->answer_length);
    web_answer(x, b->status, b->answer_length ? text : "ok");
    free(text);
}

static void on_request(void *ctx, outr_exchange *x)
{
    bench *b = ctx;
    bool is_probe = outr_str_is(x->req.target, "/healthz");
    b->requests += !is_probe;
    b->probes += is_probe;
    b->parallel++;
    b->most_parallel = OUTR_MAX(b->most_parallel, b->parallel);
    snprintf(b->token, sizeof b->token, OUTR_FMT,
             OUTR_ARG(outr_headers_get(&x->req.headers, "dapr-api-token")));
    snprintf(b->host, sizeof b->host, OUTR_FMT, OUTR_ARG(x->req.authority));
    if (b->status) {
        answer(b, x);
        return;
    }
    x->user = b;
    x->on_gone = on_gone;
    b->held[b->held_count++] = x;
}

static void on_finished(void *ctx, outr_exchange *x, bool is_broken)
{
    (void)x;
    (void)is_broken;
    ((bench *)ctx)->parallel--;
}

static const outr_http_handler handler = {on_request, on_finished};

static void on_changed(outr_app_watcher *watcher, bool is_up, bool is_healthy)
{
    bench *b = OUTR_CONTAINER(watcher, bench, watcher);
    b->changes++;
    b->is_up = is_up;
    b->is_healthy = is_healthy;
}

static bench *open_bench(const outr_settings *with)
{
    bench *b = outr_alloc(sizeof *b);
    outr_err err;
    wire_init(&b->w, 1);
    b->connect = b->w.env.connect;
    b->w.env.connect = on_connect;
    b->w.on_accept = on_accept;
    b->w.ctx = b;
    b->settings = *with;
    if (!b->settings.app_channel_address.p)
        b->settings.app_channel_address = OUTR_STR("127.0.0.1");
    b->settings.app_health_path = OUTR_STR("/healthz");
    b->settings.app_health_interval_ns = 5 * OUTR_SEC;
    b->settings.app_health_timeout_ns = 500 * OUTR_MS;
    b->settings.app_health_threshold = 3;
    b->state = outr_app_state_new(&b->settings, 1);
    const outr_app_options o = {b->w.loop, &b->settings, b->state, NULL};
    assert_int_equal(outr_app_new(&b->app, &o, &err), OUTR_OK);
    const outr_http_server_options so = {
        .loop = b->w.loop, .handler = &handler, .ctx = b, .allow_h1 = true, .allow_h2 = true};
    b->server = outr_http_server_new(&so);
    b->is_listening = true;
    b->status = 200;
    b->watcher.changed = on_changed;
    return b;
}

static const outr_settings plain = {.app_port = 8080};

static void close_bench(bench *b)
{
    outr_app_stop(b->app);
    wire_run(&b->w);
    outr_app_free(b->app);
    wire_run(&b->w);
    outr_http_server_free(b->server);
    wire_run(&b->w);
    assert_int_equal(b->parallel, 0);
    outr_app_state_free(b->state);
    wire_done(&b->w);
    free(b);
}

/* ---- calls ----------------------------------------------------------------------------------- */

typedef struct fetch {
    outr_app_fetch f;
    outr_op op;
    outr_arena *arena;
    unsigned done;
    outr_err err;
} fetch;

static void on_fetched(outr_op *op)
{
    fetch *f = OUTR_CONTAINER(op, fetch, op);
    f->done++;
    f->err = op->err;
}

static void start_fetch(bench *b, fetch *f, const char *method, const char *target)
{
    *f = (fetch){.arena = outr_arena_new(16 * OUTR_MIB)};
    f->f.method = outr_str_from(method);
    f->f.target = outr_str_from(target);
    outr_headers_init(&f->f.headers, f->arena);
    outr_op_init(&f->op, b->w.loop, NULL, 0, on_fetched);
    outr_app_fetch_start(b->app, &f->f, &f->op);
}

static void done_fetch(fetch *f)
{
    assert_int_equal(f->done, 1);
    outr_arena_free(f->arena);
}

static void a_fetch_brings_status_headers_and_body(void **state)
{
    bench *b = open_bench(&plain);
    fetch f;
    (void)state;
    start_fetch(b, &f, "GET", "/dapr/config");
    assert_int_equal(f.done, 0); /* never before start has returned */
    wire_run(&b->w);
    assert_int_equal(f.err.code, OUTR_OK);
    assert_int_equal(f.f.status, 200);
    assert_true(outr_str_is(f.f.answer, "ok"));
    assert_true(outr_headers_has(&f.f.answer_headers, "date"));
    assert_string_equal(b->host, "127.0.0.1:8080");
    assert_string_equal(b->token, "");
    done_fetch(&f);
    close_bench(b);
}

static void the_token_of_the_app_is_sent_with_every_call_but_the_probe(void **state)
{
    bench *b = open_bench(
        &(outr_settings){.app_port = 1, .app_token = OUTR_STR("tok"), .app_health_check = true});
    fetch f;
    (void)state;
    start_fetch(b, &f, "POST", "/x");
    wire_run(&b->w);
    assert_string_equal(b->token, "tok");
    done_fetch(&f);
    outr_app_start(b->app);
    wire_run(&b->w);
    assert_int_equal(b->probes, 1);
    assert_string_equal(b->token, "");
    close_bench(b);
}

static void an_ipv6_app_has_brackets_in_host(void **state)
{
    bench *b =
        open_bench(&(outr_settings){.app_port = 8080, .app_channel_address = OUTR_STR("::1")});
    fetch f;
    (void)state;
    start_fetch(b, &f, "GET", "/");
    wire_run(&b->w);
    assert_string_equal(b->host, "[::1]:8080");
    done_fetch(&f);
    close_bench(b);
}

static void an_answer_over_the_limit_is_cut_off_with_an_error(void **state)
{
    bench *b = open_bench(&plain);
    fetch f;
    (void)state;
    b->answer_length = 5 * OUTR_MIB;
    start_fetch(b, &f, "GET", "/");
    wire_run(&b->w);
    assert_int_equal(f.err.code, OUTR_RESOURCE_EXHAUSTED);
    done_fetch(&f);
    close_bench(b);
}

static void an_answer_of_just_the_limit_is_taken(void **state)
{
    bench *b = open_bench(&plain);
    fetch f;
    (void)state;
    b->answer_length = 4 * OUTR_MIB;
    start_fetch(b, &f, "GET", "/");
    wire_run(&b->w);
    assert_int_equal(f.err.code, OUTR_OK);
    assert_int_equal(f.f.answer.n, 4 * OUTR_MIB);
    done_fetch(&f);
    close_bench(b);
}

static void without_an_app_port_every_call_says_so(void **state)
{
    bench *b = open_bench(&(outr_settings){0});
    fetch f;
    (void)state;
    assert_false(outr_app_is_configured(b->app));
    outr_app_start(b->app);
    start_fetch(b, &f, "GET", "/");
    wire_run(&b->w);
    assert_int_equal(f.err.code, OUTR_FAILED_PRECONDITION);
    assert_int_equal(b->w.connect_count, 0);
    done_fetch(&f);
    close_bench(b);
}

static void an_app_that_is_not_there_is_unavailable_and_back_later(void **state)
{
    bench *b = open_bench(&plain);
    (void)state;
    for (int i = 0; i < 3; i++) {
        fetch f;
        b->is_listening = i != 1; /* there, gone, back */
        if (i == 1) {
            OUTR_LIST_EACH(link, &b->w.streams)
                wire_break(OUTR_LIST_ITEM(link, wire_stream, link));
            wire_run(&b->w);
        }
        start_fetch(b, &f, "GET", "/");
        wire_run(&b->w);
        assert_int_equal(f.err.code, i == 1 ? OUTR_UNAVAILABLE : OUTR_OK);
        done_fetch(&f);
    }
    close_bench(b);
}

static void a_call_can_be_cancelled_while_the_app_thinks(void **state)
{
    bench *b = open_bench(&plain);
    fetch f;
    (void)state;
    b->status = 0;
    start_fetch(b, &f, "GET", "/");
    wire_run(&b->w);
    assert_int_equal(b->held_count, 1);
    outr_op_cancel(&f.op, OUTR_CANCELLED);
    wire_run(&b->w);
    assert_int_equal(f.err.code, OUTR_CANCELLED);
    assert_int_equal(b->held_count, 0);
    done_fetch(&f);
    close_bench(b);
}

static void a_bad_channel_address_is_an_error_that_names_the_flag(void **state)
{
    wire w;
    outr_settings s = {.app_port = 1, .app_channel_address = OUTR_STR("no address")};
    outr_app *app = NULL;
    outr_err err;
    (void)state;
    wire_init(&w, 1);
    outr_app_state *shared = outr_app_state_new(&s, 1);
    const outr_app_options o = {w.loop, &s, shared, NULL};
    assert_int_not_equal(outr_app_new(&app, &o, &err), OUTR_OK);
    assert_null(app);
    assert_non_null(strstr(err.text, "--app-channel-address"));
    outr_app_state_free(shared);
    wire_done(&w);
}

/* ---- an app that has a name -------------------------------------------------------------------- */

static struct {
    const char *ips[3]; /* what the name leads to; none: not found */
    unsigned asked;
    bool hangs;
} names;

static void on_lookup_cancelled(outr_op *op)
{
    outr_op_finish(op);
}

static void on_lookup(outr_env *env, outr_loop *loop, outr_lookup *req, outr_op *op)
{
    outr_err err;
    (void)env;
    (void)loop;
    names.asked++;
    assert_true(outr_str_is(req->host, "the-app"));
    outr_op_begin(op, req, on_lookup_cancelled);
    if (names.hangs)
        return;
    for (size_t i = 0; i < OUTR_LEN(names.ips) && names.ips[i]; i++)
        outr_addr_from_ip(&req->addrs[req->count++], outr_str_from(names.ips[i]), req->port, NULL);
    if (req->count > 0) {
        outr_op_finish_soon(op);
        return;
    }
    outr_fail(&err, OUTR_NOT_FOUND, "no such host");
    outr_op_fail_soon(op, &err);
}

static const char *reachable; /* the only address where the app listens */

static void connect_by_address(outr_env *env, outr_loop *loop, outr_connect *req, outr_op *op)
{
    bench *b = OUTR_CONTAINER(OUTR_CONTAINER(env, wire, env), bench, w);
    char ip[OUTR_ADDR_TEXT_MAX];
    outr_addr_ip_text(&req->addr, ip);
    b->is_listening = strcmp(ip, reachable) == 0;
    on_connect(env, loop, req, op);
}

static bench *open_named(const char *a, const char *b_, const char *listens)
{
    static const outr_settings named = {.app_port = 8080,
                                        .app_channel_address = OUTR_STR("the-app")};
    bench *b = open_bench(&plain);
    outr_err err;
    outr_app_free(b->app);
    memset(&names, 0, sizeof names);
    names.ips[0] = a;
    names.ips[1] = b_;
    reachable = listens;
    b->w.env.lookup = on_lookup;
    b->w.env.connect = connect_by_address;
    b->settings.app_channel_address = named.app_channel_address;
    const outr_app_options o = {b->w.loop, &b->settings, b->state, NULL};
    assert_int_equal(outr_app_new(&b->app, &o, &err), OUTR_OK);
    return b;
}

static outr_code call_named(bench *b)
{
    fetch f;
    start_fetch(b, &f, "GET", "/");
    wire_run(&b->w);
    outr_code code = f.err.code;
    done_fetch(&f);
    return code;
}

static void a_name_is_looked_up_and_stands_in_host(void **state)
{
    bench *b = open_named("10.0.0.7", NULL, "10.0.0.7");
    (void)state;
    wire_run(&b->w);
    for (int i = 0; i < 5; i++)
        assert_int_equal(call_named(b), OUTR_OK);
    assert_string_equal(b->host, "the-app:8080");
    assert_int_equal(names.asked, 1);
    close_bench(b);
}

static void a_name_nobody_knows_yet_is_asked_for_each_second(void **state)
{
    bench *b = open_named(NULL, NULL, "10.0.0.7");
    (void)state;
    outr_app_start(b->app);
    wire_sleep(&b->w, 10 * OUTR_SEC);
    assert_int_equal(call_named(b), OUTR_UNAVAILABLE);
    assert_true(names.asked >= 9 && names.asked <= 11);
    assert_false(outr_app_is_up(b->app));
    names.ips[0] = "10.0.0.7";
    wire_sleep(&b->w, 1200 * OUTR_MS);
    assert_true(outr_app_is_up(b->app));
    assert_int_equal(call_named(b), OUTR_OK);
    close_bench(b);
}

static void each_address_of_a_name_has_its_turn(void **state)
{
    bench *b = open_named("::1", "127.0.0.1", "127.0.0.1");
    (void)state;
    outr_app_start(b->app);
    wire_sleep(&b->w, 2 * OUTR_SEC);
    assert_true(outr_app_is_up(b->app));
    assert_int_equal(call_named(b), OUTR_OK);
    close_bench(b);
}

static void an_app_that_moved_is_found_at_its_new_address(void **state)
{
    bench *b = open_named("10.0.0.7", NULL, "10.0.0.7");
    (void)state;
    wire_run(&b->w);
    assert_int_equal(call_named(b), OUTR_OK);
    names.ips[0] = reachable = "10.0.0.8";
    OUTR_LIST_EACH(link, &b->w.streams)
        wire_break(OUTR_LIST_ITEM(link, wire_stream, link));
    wire_run(&b->w);
    assert_int_equal(call_named(b), OUTR_UNAVAILABLE);
    wire_sleep(&b->w, 1100 * OUTR_MS);
    assert_int_equal(call_named(b), OUTR_OK);
    close_bench(b);
}

static void a_look_up_without_an_answer_is_given_up_and_can_be_left(void **state)
{
    bench *b = open_named("10.0.0.7", NULL, "10.0.0.7");
    (void)state;
    close_bench(b); /* in the middle of it */
    b = open_named("10.0.0.7", NULL, "10.0.0.7");
    wire_run(&b->w);
    outr_app_free(b->app);
    names.hangs = true;
    const outr_app_options o = {b->w.loop, &b->settings, b->state, NULL};
    outr_err err;
    assert_int_equal(outr_app_new(&b->app, &o, &err), OUTR_OK);
    wire_sleep(&b->w, 60 * OUTR_SEC);
    assert_true(names.asked >= 5);
    close_bench(b);
}

/* ---- the limit on parallel calls --------------------------------------------------------------- */

static void let_one_go(bench *b)
{
    outr_exchange *x = b->held[0];
    memmove(b->held, b->held + 1, --b->held_count * sizeof b->held[0]);
    web_answer(x, 200, "ok");
}

static void no_more_calls_than_allowed_are_at_the_app_and_the_rest_wait_in_order(void **state)
{
    bench *b = open_bench(&(outr_settings){.app_port = 1, .app_max_concurrency = 2});
    fetch f[6];
    (void)state;
    b->status = 0;
    for (size_t i = 0; i < OUTR_LEN(f); i++) {
        start_fetch(b, &f[i], "GET", "/");
        wire_run(&b->w);
    }
    assert_int_equal(b->requests, 2);
    for (size_t i = 0; i < OUTR_LEN(f); i++) {
        let_one_go(b);
        wire_run(&b->w);
        assert_int_equal(f[i].done, 1);
        if (i + 1 < OUTR_LEN(f))
            assert_int_equal(f[i + 1].done, 0);
    }
    assert_int_equal(b->most_parallel, 2);
    for (size_t i = 0; i < OUTR_LEN(f); i++)
        done_fetch(&f[i]);
    close_bench(b);
}

static void one_who_waits_can_leave_and_a_failed_call_gives_its_slot_back(void **state)
{
    bench *b = open_bench(&(outr_settings){.app_port = 1, .app_max_concurrency = 1});
    fetch first, leaves, last;
    (void)state;
    b->status = 0;
    start_fetch(b, &first, "GET", "/1");
    wire_run(&b->w);
    start_fetch(b, &leaves, "GET", "/2");
    start_fetch(b, &last, "GET", "/3");
    wire_run(&b->w);
    outr_op_cancel(&leaves.op, OUTR_CANCELLED);
    wire_run(&b->w);
    assert_int_equal(leaves.err.code, OUTR_CANCELLED);
    assert_int_equal(b->requests, 1);
    outr_op_cancel(&first.op, OUTR_DEADLINE_EXCEEDED);
    wire_run(&b->w);
    assert_int_equal(first.err.code, OUTR_DEADLINE_EXCEEDED);
    assert_int_equal(b->requests, 2);
    let_one_go(b);
    wire_run(&b->w);
    assert_int_equal(last.err.code, OUTR_OK);
    done_fetch(&first);
    done_fetch(&leaves);
    done_fetch(&last);
    close_bench(b);
}

static void a_refused_connection_gives_its_slot_back(void **state)
{
    bench *b = open_bench(&(outr_settings){.app_port = 1, .app_max_concurrency = 1});
    (void)state;
    for (int i = 0; i < 5; i++) {
        fetch f;
        b->is_listening = i == 4;
        start_fetch(b, &f, "GET", "/");
        wire_run(&b->w);
        assert_int_equal(f.err.code, i == 4 ? OUTR_OK : OUTR_UNAVAILABLE);
        done_fetch(&f);
    }
    close_bench(b);
}

static void probes_and_questions_at_the_start_need_no_slot(void **state)
{
    bench *b = open_bench(
        &(outr_settings){.app_port = 1, .app_max_concurrency = 1, .app_health_check = true});
    fetch f;
    (void)state;
    b->status = 0;
    start_fetch(b, &f, "GET", "/busy");
    wire_run(&b->w);
    b->status = 200;
    outr_app_start(b->app);
    wire_run(&b->w);
    assert_int_equal(b->probes, 1);
    assert_true(outr_app_is_healthy(b->app));
    let_one_go(b);
    wire_run(&b->w);
    done_fetch(&f);
    close_bench(b);
}

/* ---- is it there, is it well ------------------------------------------------------------------- */

static void the_port_is_tried_each_tenth_of_a_second_until_it_opens(void **state)
{
    bench *b = open_bench(&plain);
    (void)state;
    b->is_listening = false;
    outr_app_watch(b->app, &b->watcher);
    outr_app_start(b->app);
    wire_sleep(&b->w, 5 * OUTR_MS);
    assert_int_equal(b->changes, 1); /* told the present state */
    assert_false(b->is_up);
    wire_sleep(&b->w, 60 * OUTR_SEC);
    assert_false(outr_app_is_up(b->app));
    b->is_listening = true;
    wire_sleep(&b->w, 110 * OUTR_MS);
    assert_true(outr_app_is_up(b->app));
    assert_true(outr_app_is_healthy(b->app)); /* no checks: well at once */
    assert_int_equal(b->changes, 2);
    assert_true(b->is_up && b->is_healthy);
    assert_int_equal(b->probes, 0);
    wire_sleep(&b->w, 60 * OUTR_SEC);
    assert_int_equal(b->w.connect_count, 1); /* and left alone from then on */
    outr_app_unwatch(&b->watcher);
    close_bench(b);
}

static const outr_settings checked = {.app_port = 1, .app_health_check = true};

static void a_checked_app_is_unwell_until_the_first_good_probe(void **state)
{
    bench *b = open_bench(&checked);
    (void)state;
    b->status = 503;
    outr_app_watch(b->app, &b->watcher);
    outr_app_start(b->app);
    wire_run(&b->w);
    assert_true(outr_app_is_up(b->app));
    assert_false(outr_app_is_healthy(b->app));
    assert_int_equal(b->probes, 1);
    b->status = 204;
    wire_sleep(&b->w, 5 * OUTR_SEC + OUTR_MS);
    assert_int_equal(b->probes, 2);
    assert_true(outr_app_is_healthy(b->app));
    assert_true(b->is_healthy);
    outr_app_unwatch(&b->watcher);
    close_bench(b);
}

static void only_so_many_bad_probes_in_a_row_make_it_unwell(void **state)
{
    static const int statuses[] = {500, 300, 200, 404, 199 + 200, 500, 200};
    static const bool healthy[] = {true, true, true, true, true, false, true};
    bench *b = open_bench(&checked);
    (void)state;
    outr_app_watch(b->app, &b->watcher);
    outr_app_start(b->app);
    wire_run(&b->w);
    assert_true(b->is_healthy);
    for (size_t i = 0; i < OUTR_LEN(statuses); i++) {
        b->status = statuses[i];
        wire_sleep(&b->w, 5 * OUTR_SEC + OUTR_MS);
        assert_int_equal(b->probes, i + 2);
        if (b->is_healthy != healthy[i])
            fail_msg("after probe %zu (%d)", i + 2, statuses[i]);
    }
    assert_int_equal(b->changes, 5); /* the state at first, there, well, unwell, well */
    outr_app_unwatch(&b->watcher);
    close_bench(b);
}

static void a_probe_without_an_answer_counts_as_bad_after_its_time(void **state)
{
    bench *b = open_bench(&checked);
    (void)state;
    outr_app_start(b->app);
    wire_run(&b->w);
    assert_true(outr_app_is_healthy(b->app));
    b->status = 0;
    wire_sleep(&b->w, 5 * OUTR_SEC + 499 * OUTR_MS);
    assert_int_equal(b->held_count, 1);
    wire_sleep(&b->w, 2 * OUTR_MS);
    assert_int_equal(b->held_count, 0); /* given up */
    wire_sleep(&b->w, 2 * 5500 * OUTR_MS + 10 * OUTR_MS);
    assert_int_equal(b->probes, 4);
    assert_false(outr_app_is_healthy(b->app));
    close_bench(b);
}

static void an_app_that_went_away_is_unwell_and_well_again_when_back(void **state)
{
    bench *b = open_bench(&checked);
    (void)state;
    outr_app_start(b->app);
    wire_run(&b->w);
    b->is_listening = false;
    OUTR_LIST_EACH(link, &b->w.streams)
        wire_break(OUTR_LIST_ITEM(link, wire_stream, link));
    wire_sleep(&b->w, 15 * OUTR_SEC + 10 * OUTR_MS);
    assert_false(outr_app_is_healthy(b->app));
    assert_true(outr_app_is_up(b->app)); /* it has been there once */
    b->is_listening = true;
    wire_sleep(&b->w, 5 * OUTR_SEC + OUTR_MS);
    assert_true(outr_app_is_healthy(b->app));
    close_bench(b);
}

static void a_huge_answer_to_a_probe_is_no_answer(void **state)
{
    bench *b = open_bench(&checked);
    (void)state;
    b->answer_length = OUTR_MIB;
    outr_app_start(b->app);
    wire_run(&b->w);
    assert_false(outr_app_is_healthy(b->app));
    close_bench(b);
}

static void stopping_in_the_middle_of_anything_leaves_nothing(void **state)
{
    (void)state;
    for (int when = 0; when < 3; when++) {
        bench *b = open_bench(&checked);
        b->is_listening = when > 0;
        b->status = when == 1 ? 0 : 200;
        outr_app_start(b->app);
        if (when < 2)
            wire_run(&b->w);
        outr_app_stop(b->app);
        wire_sleep(&b->w, 30 * OUTR_SEC);
        assert_int_equal(b->probes, when == 1);
        close_bench(b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_fetch_brings_status_headers_and_body),
        cmocka_unit_test(the_token_of_the_app_is_sent_with_every_call_but_the_probe),
        cmocka_unit_test(an_ipv6_app_has_brackets_in_host),
        cmocka_unit_test(an_answer_over_the_limit_is_cut_off_with_an_error),
        cmocka_unit_test(an_answer_of_just_the_limit_is_taken),
        cmocka_unit_test(without_an_app_port_every_call_says_so),
        cmocka_unit_test(an_app_that_is_not_there_is_unavailable_and_back_later),
        cmocka_unit_test(a_call_can_be_cancelled_while_the_app_thinks),
        cmocka_unit_test(a_bad_channel_address_is_an_error_that_names_the_flag),
        cmocka_unit_test(a_name_is_looked_up_and_stands_in_host),
        cmocka_unit_test(a_name_nobody_knows_yet_is_asked_for_each_second),
        cmocka_unit_test(each_address_of_a_name_has_its_turn),
        cmocka_unit_test(an_app_that_moved_is_found_at_its_new_address),
        cmocka_unit_test(a_look_up_without_an_answer_is_given_up_and_can_be_left),
        cmocka_unit_test(no_more_calls_than_allowed_are_at_the_app_and_the_rest_wait_in_order),
        cmocka_unit_test(one_who_waits_can_leave_and_a_failed_call_gives_its_slot_back),
        cmocka_unit_test(a_refused_connection_gives_its_slot_back),
        cmocka_unit_test(probes_and_questions_at_the_start_need_no_slot),
        cmocka_unit_test(the_port_is_tried_each_tenth_of_a_second_until_it_opens),
        cmocka_unit_test(a_checked_app_is_unwell_until_the_first_good_probe),
        cmocka_unit_test(only_so_many_bad_probes_in_a_row_make_it_unwell),
        cmocka_unit_test(a_probe_without_an_answer_counts_as_bad_after_its_time),
        cmocka_unit_test(an_app_that_went_away_is_unwell_and_well_again_when_back),
        cmocka_unit_test(a_huge_answer_to_a_probe_is_no_answer),
        cmocka_unit_test(stopping_in_the_middle_of_anything_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
