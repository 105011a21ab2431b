/* Retries as a route asks for them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "resiliency/backoff.h"
#include "unit/mesh/traffic.h"
#include "unit/mesh/world.h"

/* What the apps answer, in turn; the last one for ever. Below 100: gRPC codes, in trailers. */
static struct {
    int statuses[8];
    unsigned at, heads, heads_at[WORLD_NODES];
    const char *header, *value; /* of answers that are not 200 or 0; NULL: none */
    bool is_silent;             /* no answer, while statuses[at] is 0 */
    char bodies[8][16];
    unsigned body_count;
} script;

static void let_go(outr_exchange *x, const outr_err *err)
{
    (void)err;
    outr_http_done(x);
}

static void answer_grpc(outr_exchange *x, int code)
{
    outr_http_response head = {.status = 200, .content_length = -1};
    outr_headers trailers;
    outr_headers_init(&head.headers, x->arena);
    outr_headers_add(&head.headers, OUTR_STR("content-type"), OUTR_STR("application/grpc"));
    outr_headers_init(&trailers, x->arena);
    outr_headers_add(&trailers, OUTR_STR("grpc-status"), outr_arena_printf(x->arena, "%d", code));
    if (script.header && code != 0)
        outr_headers_add(&trailers, outr_str_from(script.header), outr_str_from(script.value));
    outr_sink *to = outr_http_respond(x, &head);
    if (code == 0)
        to->ops->data(to, outr_slice_static(OUTR_STR("\0\0\0\0\2hi")));
    to->ops->end(to, &trailers);
    outr_http_done(x);
}

static void answer(outr_exchange *x)
{
    int status = script.statuses[script.at];
    if (script.at + 1 < OUTR_LEN(script.statuses) && script.statuses[script.at + 1] >= 0)
        script.at++;
    if (script.is_silent && status == 0) {
        x->on_gone = let_go;
        return;
    }
    if (status < 100) {
        answer_grpc(x, status);
        return;
    }
    outr_str body = status == 200 ? OUTR_STR("well") : OUTR_STR("bad");
    outr_http_response head = {.status = status, .content_length = (int64_t)body.n};
    outr_headers_init(&head.headers, x->arena);
    if (script.header && status != 200)
        outr_headers_add(&head.headers, outr_str_from(script.header), outr_str_from(script.value));
    outr_http_reply(x, &head, body);
    outr_http_done(x);
}

static void on_body(outr_gather *gather, const outr_err *err)
{
    outr_exchange *x = gather->ctx;
    if (!err && script.body_count < OUTR_LEN(script.bodies))
        snprintf(script.bodies[script.body_count++], sizeof script.bodies[0], OUTR_FMT,
                 OUTR_ARG(outr_str_head(outr_buf_view(&gather->body), 15)));
    outr_buf_done(&gather->body);
    if (err)
        outr_http_done(x);
    else
        answer(x);
}

static void on_app(world *w, world_node *node, outr_exchange *x)
{
    script.heads++;
    script.heads_at[node - w->nodes]++;
    if (!x->body) {
        answer(x);
        return;
    }
    outr_gather *gather = outr_arena_alloc(x->arena, sizeof *gather);
    outr_gather_start(gather, x->body, OUTR_MIB, on_body, x);
}

static world *open_world(const char *traffic, const char *resiliency, unsigned count, bool is_grpc)
{
    world_protocol = is_grpc ? OUTR_APP_GRPC : OUTR_APP_HTTP;
    world *w = world_open(1, 0);
    outr_snapshot *snapshot = yaml_one(resiliency ? resiliency : "spec: {}");
    traffic_use(snapshot, traffic);
    memset(&script, 0, sizeof script);
    for (size_t i = 0; i < OUTR_LEN(script.statuses); i++)
        script.statuses[i] = -1;
    for (unsigned i = 0; i < count; i++)
        w->names[i] = (uint16_t)(9000 + i);
    w->on_app = on_app;
    outr_mesh_update(w->mesh, snapshot);
    outr_snapshot_unref(snapshot);
    if (is_grpc) {
        outr_http_pool_options o = {.loop = w->w.loop, .version = OUTR_HTTP_2};
        o.addr.kind = OUTR_ADDR_IP4;
        o.addr.port = 1;
        outr_http_pool_free(w->client);
        w->client = outr_http_pool_new(&o);
    }
    return w;
}

static void close_world(world *w)
{
    wire_sleep(&w->w, 60 * OUTR_SEC);
    assert_true(outr_list_is_empty(&w->mesh->calls));
    assert_int_equal(world_close(w), 0);
    world_protocol = OUTR_APP_HTTP;
}

/* How long it took. */
static uint64_t call(world *w, const char *verb, const char *header, int status, const char *body)
{
    web_call c;
    uint64_t began = w->w.now;
    world_call(w, &c, verb, "callee", "/work");
    if (header)
        outr_headers_add(&c.req.headers, outr_str_from(header), OUTR_STR("1S"));
    if (strcmp(verb, "GET") != 0)
        web_call_bytes(&c, "the body", 8);
    web_call_start(&c, w->client);
    world_run_until_over(w, &c);
    world_assert_answer(&c, status, body);
    web_call_done(&c);
    return w->w.now - began;
}

/* A gRPC call that is passed on; ends with that code. */
static uint64_t call_grpc(world *w, int code)
{
    web_call c;
    uint64_t began = w->w.now;
    char want[32];
    snprintf(want, sizeof want, "grpc-status=%d;", code);
    world_call(w, &c, "POST", "callee", "/pkg.Service/Work");
    outr_headers_add(&c.req.headers, OUTR_STR("x-proxied"), OUTR_STR("1"));
    outr_headers_add(&c.req.headers, OUTR_STR("content-type"), OUTR_STR("application/grpc"));
    outr_headers_add(&c.req.headers, OUTR_STR("te"), OUTR_STR("trailers"));
    web_call_bytes(&c, "\0\0\0\0\2yo", 7);
    c.req.content_length = -1;
    web_call_start(&c, w->client);
    world_run_until_over(w, &c);
    if (!strstr(c.taker.trailers, want))
        fail_msg("trailers \"%s\", status %d, %s", c.taker.trailers, c.call.head.status,
                 c.err.text);
    web_call_done(&c);
    return w->w.now - began;
}

#define TWICE "{routes: [{retry: {attempts: 2}}]}"

static void a_failure_is_tried_again_as_often_as_the_route_says(void **state)
{
    world *w = open_world(TWICE, NULL, 1, false);
    (void)state;
    script.statuses[0] = script.statuses[1] = 500;
    script.statuses[2] = 200;
    assert_true(call(w, "PUT", NULL, 200, "well") < 101 * OUTR_MS);
    assert_int_equal(script.heads, 3);
    for (unsigned i = 0; i < 3; i++)
        assert_string_equal(script.bodies[i], "the body");
    script.at = 0;
    script.statuses[2] = 503;
    call(w, "GET", NULL, 503, "bad");
    assert_int_equal(script.heads, 6);
    close_world(w);
}

static void another_instance_is_tried_before_the_same(void **state)
{
    world *w = open_world(TWICE, NULL, 3, false);
    (void)state;
    script.statuses[0] = 503;
    call(w, "GET", NULL, 503, "bad");
    for (int i = 0; i < 3; i++)
        assert_int_equal(script.heads_at[i], 1);
    close_world(w);
}

static void what_may_be_made_once_only_is_not_tried_again(void **state)
{
    world *w = open_world(TWICE, NULL, 2, false);
    (void)state;
    script.statuses[0] = 503;
    call(w, "POST", NULL, 503, "bad");
    assert_int_equal(script.heads, 1);
    call(w, "POST", "idempotency-key", 503, "bad");
    assert_int_equal(script.heads, 4);
    close_world(w);
}

static void what_was_not_sent_is_tried_again_whatever_it_is(void **state)
{
    world *w = open_world(TWICE, NULL, 1, false);
    (void)state;
    w->nodes[0].is_refusing = true;
    assert_true(call(w, "POST", NULL, 500, "refused") < 101 * OUTR_MS);
    assert_int_equal(w->nodes[0].connects, 3); /* and no built-in retry besides */
    close_world(w);
}

static void a_failure_says_so_when_the_budget_is_spent(void **state)
{
    world *w =
        open_world("{retryBudget: {percent: 0, perSecond: 0}, routes: [{retry: {attempts: 2}}]}",
                   NULL, 1, false);
    (void)state;
    w->nodes[0].is_refusing = true;
    call(w, "GET", NULL, 500, "(retry_budget)");
    assert_int_equal(w->nodes[0].connects, 1);
    close_world(w);
}

static void codes_say_what_is_tried_again(void **state)
{
    world *w =
        open_world("{routes: [{retry: {attempts: 2, httpCodes: '404,502-504'}}]}", NULL, 1, false);
    (void)state;
    script.statuses[0] = 404;
    script.statuses[1] = 500;
    script.statuses[2] = 200;
    call(w, "GET", NULL, 500, "bad");
    assert_int_equal(script.heads, 2);
    close_world(w);
}

static void other_failures_of_the_caller_are_not(void **state)
{
    world *w = open_world(TWICE, NULL, 1, false);
    (void)state;
    script.statuses[0] = 404;
    call(w, "GET", NULL, 404, "bad");
    assert_int_equal(script.heads, 1);
    close_world(w);
}

static void retry_after_puts_off_the_next_try(void **state)
{
    world *w = open_world(TWICE, NULL, 1, false);
    (void)state;
    script.header = "Retry-After";
    script.value = "2";
    script.statuses[0] = 503;
    script.statuses[1] = 200;
    assert_in_range(call(w, "GET", NULL, 200, "well"), 2 * OUTR_SEC, 2 * OUTR_SEC + 30 * OUTR_MS);
    close_world(w);
}

static void no_try_is_put_off_beyond_the_deadline(void **state)
{
    world *w = open_world(TWICE, NULL, 1, false);
    (void)state;
    script.header = "Retry-After";
    script.value = "2";
    script.statuses[0] = 503;
    assert_true(call(w, "GET", "outrigger-timeout", 503, "bad") < 10 * OUTR_MS);
    assert_int_equal(script.heads, 1);
    close_world(w);
}

static void nor_beyond_the_time_that_the_route_gives(void **state)
{
    world *w = open_world("{routes: [{timeout: 1s, retry: {attempts: 2}}]}", NULL, 1, false);
    (void)state;
    script.header = "Retry-After";
    script.value = "2";
    script.statuses[0] = 503;
    assert_true(call(w, "GET", NULL, 503, "bad") < 10 * OUTR_MS);
    assert_int_equal(script.heads, 1);
    close_world(w);
}

static void each_try_has_its_time(void **state)
{
    world *w = open_world("{routes: [{retry: {attempts: 1, tryTimeout: 300ms}}]}", NULL, 1, false);
    (void)state;
    script.is_silent = true;
    script.statuses[0] = 0;
    script.statuses[1] = 200;
    assert_in_range(call(w, "GET", NULL, 200, "well"), 300 * OUTR_MS, 330 * OUTR_MS);
    script.at = 0;
    assert_in_range(call(w, "POST", NULL, 500, "4 "), 300 * OUTR_MS, 305 * OUTR_MS);
    close_world(w);
}

static void the_budget_bounds_them(void **state)
{
    world *w = open_world("{routes: [{retry: {attempts: 5}}]}", NULL, 3, false);
    (void)state;
    script.statuses[0] = 503;
    for (int i = 0; i < 1000; i++)
        call(w, "GET", NULL, 503, "bad");
    assert_in_range(script.heads, 1001, 1220);
    close_world(w);
}

static void a_policys_breaker_and_timeout_stay_and_its_retries_do_not(void **state)
{
    world *w = open_world(TWICE,
                          "spec:\n"
                          "  policies:\n"
                          "    retries: {many: {duration: 10ms, maxRetries: 9}}\n"
                          "    circuitBreakers: {trip: {trip: consecutiveFailures >= 5}}\n"
                          "  targets: {apps: {callee: {retry: many, circuitBreaker: trip}}}\n",
                          1, false);
    (void)state;
    script.statuses[0] = 500;
    call(w, "GET", NULL, 500, "bad");
    assert_int_equal(script.heads, 3);
    call(w, "GET", NULL, 500, "circuit breaker is open");
    assert_int_equal(script.heads, 5);
    close_world(w);
}

static void a_grpc_status_in_trailers_is_seen(void **state)
{
    world *w = open_world(TWICE, NULL, 1, true);
    (void)state;
    script.statuses[0] = script.statuses[1] = OUTR_UNAVAILABLE;
    script.statuses[2] = 0;
    call_grpc(w, 0);
    assert_int_equal(script.heads, 3);
    script.at = 0;
    script.statuses[1] = OUTR_NOT_FOUND;
    call_grpc(w, OUTR_NOT_FOUND);
    assert_int_equal(script.heads, 5);
    close_world(w);
}

static void without_a_route_a_grpc_call_is_sent_once(void **state)
{
    world *w = open_world("{routes: [{}]}", NULL, 2, true);
    (void)state;
    script.statuses[0] = OUTR_UNAVAILABLE;
    call_grpc(w, OUTR_UNAVAILABLE);
    assert_int_equal(script.heads, 1);
    close_world(w);
}

static void pushback_is_honoured(void **state)
{
    world *w = open_world(TWICE, NULL, 2, true);
    (void)state;
    script.header = "grpc-retry-pushback-ms";
    script.value = "700";
    script.statuses[0] = OUTR_UNAVAILABLE;
    script.statuses[1] = 0;
    assert_in_range(call_grpc(w, 0), 700 * OUTR_MS, 730 * OUTR_MS);
    script.at = script.heads = 0;
    script.value = "-1"; /* not at all */
    call_grpc(w, OUTR_UNAVAILABLE);
    assert_int_equal(script.heads, 1);
    close_world(w);
}

static void a_late_grpc_call_of_such_a_route_is_hedged(void **state)
{
    world *w = open_world(
        "{hedge: {after: 20ms, maxPercent: 100}, routes: [{retry: {attempts: 1}}]}", NULL, 2, true);
    (void)state;
    script.is_silent = true;
    script.statuses[0] = 0;
    script.statuses[1] = OUTR_NOT_FOUND;
    assert_in_range(call_grpc(w, OUTR_NOT_FOUND), 20 * OUTR_MS, 25 * OUTR_MS);
    assert_int_equal(script.heads, 2);
    close_world(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_failure_is_tried_again_as_often_as_the_route_says),
        cmocka_unit_test(another_instance_is_tried_before_the_same),
        cmocka_unit_test(what_may_be_made_once_only_is_not_tried_again),
        cmocka_unit_test(what_was_not_sent_is_tried_again_whatever_it_is),
        cmocka_unit_test(a_failure_says_so_when_the_budget_is_spent),
        cmocka_unit_test(codes_say_what_is_tried_again),
        cmocka_unit_test(other_failures_of_the_caller_are_not),
        cmocka_unit_test(retry_after_puts_off_the_next_try),
        cmocka_unit_test(no_try_is_put_off_beyond_the_deadline),
        cmocka_unit_test(nor_beyond_the_time_that_the_route_gives),
        cmocka_unit_test(each_try_has_its_time),
        cmocka_unit_test(the_budget_bounds_them),
        cmocka_unit_test(a_policys_breaker_and_timeout_stay_and_its_retries_do_not),
        cmocka_unit_test(a_grpc_status_in_trailers_is_seen),
        cmocka_unit_test(without_a_route_a_grpc_call_is_sent_once),
        cmocka_unit_test(pushback_is_honoured),
        cmocka_unit_test(a_late_grpc_call_of_such_a_route_is_hedged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
