/* spec.appHttpPipeline around calls to apps and URLs, with middlewares of the test's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "unit/mesh/world.h"

/* What the middleware does is said by the request's path. */
typedef struct tester {
    outr_middleware base;
    unsigned seen, cancelled;
    outr_timer timer;
    outr_middleware_call *call;
    outr_op *op;
} tester;

static outr_middleware_verdict judge(outr_middleware_call *call)
{
    outr_headers_add(&call->extra, OUTR_STR("x-extra"), OUTR_STR("1"));
    if (outr_str_search(call->req->target, OUTR_STR("refuse-empty")) >= 0) {
        outr_middleware_refuse(call, 204, "");
        return OUTR_MIDDLEWARE_ANSWER;
    }
    if (outr_str_search(call->req->target, OUTR_STR("refuse")) >= 0)
        return outr_middleware_refuse(call, 403, "not you");
    outr_headers_set(&call->req->headers, OUTR_STR("x-passed"), OUTR_STR("yes"));
    if (outr_str_search(call->req->target, OUTR_STR("move")) >= 0)
        call->req->target = OUTR_STR("/moved");
    return OUTR_MIDDLEWARE_PASS;
}

static void on_time(outr_timer *timer)
{
    tester *t = OUTR_CONTAINER(timer, tester, timer);
    outr_err err;
    if (outr_str_search(t->call->req->target, OUTR_STR("fail")) >= 0) {
        outr_fail(&err, OUTR_UNAVAILABLE, "the issuer is away");
        outr_op_fail(t->op, &err);
        return;
    }
    t->call->verdict = judge(t->call);
    outr_op_finish(t->op);
}

static void on_cancel(outr_op *op)
{
    tester *t = op->impl;
    t->cancelled++;
    outr_timer_stop(op->loop, &t->timer);
    outr_op_finish(op);
}

static outr_middleware_verdict handle(outr_middleware *m, outr_middleware_call *call, outr_op *op)
{
    tester *t = OUTR_CONTAINER(m, tester, base);
    t->seen++;
    if (outr_str_search(call->req->target, OUTR_STR("wait")) < 0)
        return judge(call);
    t->call = call;
    t->op = op;
    t->timer.fire = on_time;
    outr_op_begin(op, t, on_cancel);
    outr_timer_start(call->loop, &t->timer, outr_loop_now(call->loop) + OUTR_SEC);
    return OUTR_MIDDLEWARE_WAIT;
}

static const outr_middleware_backend backend = {.handle = handle};
static tester one, two;
static outr_middleware *const items[] = {&one.base, &two.base};
static const outr_chain chain = {items, 2};

static void echo(world *w, world_node *node, outr_exchange *x)
{
    char text[128];
    (void)w;
    (void)node;
    snprintf(text, sizeof text, "at " OUTR_FMT " " OUTR_FMT, OUTR_ARG(x->req.target),
             OUTR_ARG(outr_headers_get(&x->req.headers, "x-passed")));
    web_answer(x, 200, text);
}

static world *open_world(bool as_daprd)
{
    world *w = world_open(1, 0);
    one = (tester){.base.backend = &backend};
    two = (tester){.base.backend = &backend};
    world_chain = &chain;
    world_pins = 0;
    w->on_app = echo;
    if (as_daprd) {
        outr_http_server_free(w->nodes[0].internal);
        w->nodes[0].internal =
            world_server(w, &outr_mesh_handler, w->nodes[0].mesh, false, 0);
    }
    return w;
}

static void close_world(world *w)
{
    world_chain = NULL;
    assert_int_equal(world_close(w), 0);
    assert_int_equal(world_pins, 0);
}

static void call_target(world *w, const char *x_target, const char *method, const char *path,
                        int status, const char *text)
{
    web_call c;
    world_call(w, &c, method, x_target, path);
    if (outr_str_is(outr_str_from(method), "POST"))
        web_call_bytes(&c, "some body", 9);
    web_call_start(&c, w->client);
    world_run_until_over(w, &c);
    if (c.call.head.status != status ||
        outr_str_search(outr_buf_view(&c.taker.body), outr_str_from(text)) < 0)
        fail_msg("%s %s: %d \"" OUTR_FMT "\"", x_target, path, c.call.head.status,
                 OUTR_ARG(outr_buf_view(&c.taker.body)));
    if (status != 500)
        assert_true(outr_headers_has(&c.call.head.headers, "x-extra"));
    web_call_done(&c);
}

static void check_target(world *w, const char *x_target)
{
    call_target(w, x_target, "GET", "/a", 200, "at /a yes");
    call_target(w, x_target, "POST", "/move", 200, "at /moved yes");
    call_target(w, x_target, "GET", "/wait", 200, "at /wait yes");
    call_target(w, x_target, "POST", "/refuse", 403, "not you");
    call_target(w, x_target, "HEAD", "/refuse", 403, "");
    call_target(w, x_target, "GET", "/refuse-empty", 204, "");
    call_target(w, x_target, "POST", "/wait/refuse", 403, "not you");
    call_target(w, x_target, "POST", "/wait/fail", 500, "the issuer is away");
}

static void the_called_side_filters_calls_to_its_app(void **state)
{
    world *w = open_world(false);
    (void)state;
    check_target(w, "callee");
    assert_int_equal(w->nodes[0].requests, 3);
    assert_int_equal(one.seen, 8);
    assert_int_equal(two.seen, 3);
    close_world(w);
}

static void calls_of_a_daprd_are_filtered_too(void **state)
{
    world *w = open_world(true);
    (void)state;
    check_target(w, "callee");
    assert_int_equal(w->nodes[0].requests, 3);
    close_world(w);
}

static void calls_to_urls_are_filtered_by_the_caller(void **state)
{
    world *w = open_world(false);
    (void)state;
    check_target(w, "http://10.9.9.9:7000");
    assert_int_equal(one.seen, 8);
    close_world(w);
}

/* The client goes, and with it what a middleware waits for. */
static void a_call_that_waits_in_a_middleware_can_be_given_up(void **state)
{
    static const char *const targets[] = {"callee", "http://10.9.9.9:7000"};
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(targets); i++) {
        world *w = open_world(false);
        web_call c;
        world_call(w, &c, "GET", targets[i], "/wait");
        web_call_start(&c, w->client);
        wire_run(&w->w);
        assert_int_equal(one.seen, 1);
        outr_op_cancel(&c.op, OUTR_CANCELLED);
        world_run_until_over(w, &c);
        wire_run(&w->w);
        assert_int_equal(one.cancelled, 1);
        assert_int_equal(two.seen, 0);
        web_call_done(&c);
        close_world(w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_called_side_filters_calls_to_its_app),
        cmocka_unit_test(calls_of_a_daprd_are_filtered_too),
        cmocka_unit_test(calls_to_urls_are_filtered_by_the_caller),
        cmocka_unit_test(a_call_that_waits_in_a_middleware_can_be_given_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
