/* Hedging: two requests of one call on their way. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "unit/mesh/traffic.h"
#include "unit/mesh/world.h"

#define AFTER (20 * OUTR_MS)
#define HEDGE "{targets: [callee], hedge: {after: 20ms, maxPercent: 100}}"

/* What instance i does with what reaches it. */
typedef enum manner { WELL, SLOW, SILENT, BUSY, CLOSES, LATE_BUSY } manner;
static struct {
    manner of[WORLD_NODES];
    unsigned heads, gone;
    uint64_t gone_ns;
    char bodies[8][16];
    unsigned body_count;
} apps;

typedef struct late {
    outr_timer timer;
    outr_exchange *x;
    int status;
} late;

static void on_late(outr_timer *timer)
{
    late *l = OUTR_CONTAINER(timer, late, timer);
    if (l->x) {
        l->x->on_gone = NULL;
        web_answer(l->x, l->status, l->status == 200 ? "slow" : "busy");
    }
    free(l);
}

static void on_gone(outr_exchange *x, const outr_err *err)
{
    late *l = x->user;
    (void)err;
    apps.gone++;
    apps.gone_ns = outr_loop_now(x->loop);
    if (l)
        l->x = NULL;
    outr_http_done(x);
}

static void answer_late(outr_exchange *x, uint64_t after, int status)
{
    late *l = outr_alloc(sizeof *l);
    *l = (late){.timer = {.fire = on_late}, .x = x, .status = status};
    x->user = l;
    x->on_gone = on_gone;
    outr_timer_start(x->loop, &l->timer, outr_loop_now(x->loop) + after);
}

static void answer(outr_exchange *x, manner how)
{
    switch (how) {
    case WELL:
        web_answer(x, 200, "well");
        return;
    case SLOW:
        answer_late(x, 200 * OUTR_MS, 200);
        return;
    case LATE_BUSY:
        answer_late(x, 30 * OUTR_MS, 503);
        return;
    case SILENT:
        x->user = NULL;
        x->on_gone = on_gone;
        return;
    case BUSY:
        web_answer(x, 503, "busy");
        return;
    case CLOSES:
        outr_http_done(x);
        return;
    }
}

static void on_body(outr_gather *gather, const outr_err *err)
{
    outr_exchange *x = gather->ctx;
    world_node *node = x->user;
    if (!err && apps.body_count < OUTR_LEN(apps.bodies))
        snprintf(apps.bodies[apps.body_count++], sizeof apps.bodies[0], OUTR_FMT,
                 OUTR_ARG(outr_str_head(outr_buf_view(&gather->body), 15)));
    outr_buf_done(&gather->body);
    if (err)
        outr_http_done(x);
    else
        answer(x, apps.of[node - node->w->nodes]);
}

static void on_app(world *w, world_node *node, outr_exchange *x)
{
    apps.heads++;
    if (!x->body) {
        answer(x, apps.of[node - w->nodes]);
        return;
    }
    outr_gather *gather = outr_arena_alloc(x->arena, sizeof *gather);
    x->user = node;
    outr_gather_start(gather, x->body, OUTR_MIB, on_body, x);
}

static world *open_with(const char *traffic, manner a, manner b, unsigned count)
{
    world *w = world_open(1, 0);
    memset(&apps, 0, sizeof apps);
    outr_snapshot *snapshot = traffic_one(traffic);
    outr_mesh_update(w->mesh, snapshot);
    outr_snapshot_unref(snapshot);
    for (unsigned i = 0; i < count; i++)
        w->names[i] = (uint16_t)(9000 + i);
    w->on_app = on_app;
    apps.of[0] = a;
    apps.of[1] = b;
    return w;
}

static world *open_world(manner a, manner b, unsigned count)
{
    return open_with(HEDGE, a, b, count);
}

static void close_world(world *w)
{
    wire_sleep(&w->w, 60 * OUTR_SEC);
    assert_true(outr_list_is_empty(&w->mesh->calls));
    for (int i = 0; i < WORLD_NODES; i++) /* what was lost has ended everywhere */
        assert_true(outr_list_is_empty(&w->nodes[i].mesh->calls));
    assert_int_equal(world_close(w), 0);
}

static uint64_t finish(world *w, web_call *c, const char *verb, const char *body)
{
    uint64_t began = w->w.now;
    world_call(w, c, verb, "callee", "/work");
    if (body)
        web_call_bytes(c, body, strlen(body));
    web_call_start(c, w->client);
    world_run_until_over(w, c);
    return w->w.now - began;
}

/* Calls until the first request of one has met instance 0: that one is answered so. */
static uint64_t expect(world *w, const char *verb, const char *body, const char *text)
{
    for (int i = 0; i < 100; i++) {
        unsigned before = w->nodes[0].requests, others = w->nodes[1].requests;
        web_call c;
        uint64_t took = finish(w, &c, verb, body);
        bool is_alone = w->nodes[1].requests == others;
        /* it was late, and the other one was asked, too */
        bool is_it = w->nodes[0].requests > before && (is_alone || took >= OUTR_MS);
        if (is_it)
            world_assert_answer(&c, 200, text);
        web_call_done(&c);
        if (is_it)
            return took;
        wire_sleep(&w->w, 11 * OUTR_SEC);
    }
    fail_msg("it was never asked");
    return 0;
}

static void a_late_call_is_made_again_elsewhere_and_the_first_answer_is_taken(void **state)
{
    world *w = open_world(SLOW, WELL, 2);
    (void)state;
    uint64_t took = expect(w, "GET", NULL, "well");
    assert_in_range(took, AFTER, AFTER + 5 * OUTR_MS);
    close_world(w);
}

static void the_loser_is_cancelled_at_its_app(void **state)
{
    world *w = open_world(SILENT, WELL, 2);
    (void)state;
    expect(w, "GET", NULL, "well");
    uint64_t ended = w->w.now;
    wire_sleep(&w->w, 20 * OUTR_MS);
    assert_int_equal(apps.gone, 1);
    assert_in_range(apps.gone_ns, ended - OUTR_MS, ended + 5 * OUTR_MS);
    close_world(w);
}

static void whoever_answers_first_wins_though_another_was_asked(void **state)
{
    world *w = open_world(SLOW, SILENT, 2);
    (void)state;
    uint64_t took = expect(w, "GET", NULL, "slow");
    /* whether it was the first one or the rival */
    assert_in_range(took, 200 * OUTR_MS, AFTER + 205 * OUTR_MS);
    wire_sleep(&w->w, 20 * OUTR_MS);
    assert_true(apps.gone >= 1);
    close_world(w);
}

static void a_bad_answer_does_not_win(void **state)
{
    world *w = open_world(SLOW, BUSY, 2);
    (void)state;
    uint64_t took = expect(w, "GET", NULL, "slow");
    assert_in_range(took, 200 * OUTR_MS, 205 * OUTR_MS);
    close_world(w);
}

static void a_rival_that_fails_leaves_it_to_the_first(void **state)
{
    world *w = open_world(SLOW, CLOSES, 2);
    (void)state;
    expect(w, "GET", NULL, "slow");
    close_world(w);
}

static void the_first_one_fails_late_and_the_rival_answers(void **state)
{
    world *w = open_world(LATE_BUSY, SLOW, 2);
    (void)state;
    expect(w, "GET", NULL, "slow");
    close_world(w);
}

static void both_get_the_whole_body(void **state)
{
    world *w = open_world(SLOW, WELL, 2);
    (void)state;
    expect(w, "PUT", "the body", "well");
    assert_true(apps.body_count >= 2);
    for (unsigned i = 0; i < apps.body_count; i++)
        assert_string_equal(apps.bodies[i], "the body");
    close_world(w);
}

static void what_may_be_made_once_only_is_not_hedged(void **state)
{
    world *w = open_world(SLOW, WELL, 2);
    (void)state;
    uint64_t took = expect(w, "POST", "x", "slow");
    assert_in_range(took, 200 * OUTR_MS, 205 * OUTR_MS);
    close_world(w);
}

static void a_lone_instance_is_not_asked_twice(void **state)
{
    world *w = open_world(SLOW, WELL, 1);
    web_call c;
    (void)state;
    finish(w, &c, "GET", NULL);
    world_assert_answer(&c, 200, "slow");
    assert_int_equal(apps.heads, 1);
    web_call_done(&c);
    close_world(w);
}

static void no_rival_is_made_that_the_deadline_would_meet(void **state)
{
    world *w = open_world(SILENT, SILENT, 2);
    web_call c;
    (void)state;
    world_call(w, &c, "GET", "callee", "/work");
    outr_headers_add(&c.req.headers, OUTR_STR(OUTR_DEADLINE_HEADER), OUTR_STR("15m"));
    web_call_start(&c, w->client);
    world_run_until_over(w, &c);
    world_assert_answer(&c, 500, "4 deadline exceeded");
    assert_int_equal(apps.heads, 1);
    web_call_done(&c);
    close_world(w);
}

static void a_deadline_ends_both(void **state)
{
    world *w = open_world(SILENT, SILENT, 2);
    web_call c;
    (void)state;
    uint64_t began = w->w.now;
    world_call(w, &c, "GET", "callee", "/work");
    outr_headers_add(&c.req.headers, OUTR_STR(OUTR_DEADLINE_HEADER), OUTR_STR("50m"));
    web_call_start(&c, w->client);
    world_run_until_over(w, &c);
    world_assert_answer(&c, 500, "4 deadline exceeded");
    assert_in_range(w->w.now - began, 50 * OUTR_MS, 55 * OUTR_MS);
    assert_int_equal(apps.heads, 2);
    wire_sleep(&w->w, 20 * OUTR_MS);
    assert_int_equal(apps.gone, 2);
    web_call_done(&c);
    close_world(w);
}

static void who_leaves_ends_both(void **state)
{
    world *w = open_world(SILENT, SILENT, 2);
    web_call c;
    (void)state;
    world_call(w, &c, "PUT", "callee", "/work");
    web_call_bytes(&c, "x", 1);
    web_call_start(&c, w->client);
    wire_sleep(&w->w, 50 * OUTR_MS);
    assert_int_equal(apps.heads, 2);
    outr_op_cancel(&c.op, OUTR_CANCELLED);
    world_run_until_over(w, &c);
    wire_sleep(&w->w, 20 * OUTR_MS);
    assert_int_equal(apps.gone, 2);
    web_call_done(&c);
    close_world(w);
}

static void no_more_than_their_share_of_calls_is_hedged(void **state)
{
    world *w = open_with("{hedge: {after: 20ms, maxPercent: 5}}", SLOW, SLOW, 2);
    (void)state;
    for (int i = 0; i < 200; i++) {
        web_call c;
        finish(w, &c, "GET", NULL);
        world_assert_answer(&c, 200, "slow");
        web_call_done(&c);
    }
    assert_in_range(apps.heads, 205, 211);
    close_world(w);
}

/* One of two turns slow: what is late is told by what answers took before. */
static void by_percentile_late_is_what_it_used_to_be(void **state)
{
    world *w = open_with("{hedge: {percentile: 95, maxPercent: 100}}", WELL, WELL, 2);
    web_call c;
    (void)state;
    for (int i = 0; i < 100; i++) {
        finish(w, &c, "GET", NULL);
        web_call_done(&c);
    }
    assert_int_equal(apps.heads, 100);
    apps.of[0] = SLOW;
    uint64_t took = expect(w, "GET", NULL, "well");
    assert_in_range(took, OUTR_MS / 2, 5 * OUTR_MS);
    close_world(w);
}

static void another_callees_calls_are_not_hedged(void **state)
{
    world *w = open_with("{targets: [other, callee.prod], hedge: {after: 20ms}}", SLOW, SLOW, 2);
    web_call c;
    (void)state;
    finish(w, &c, "GET", NULL);
    assert_int_equal(apps.heads, 1);
    web_call_done(&c);
    close_world(w);
}

static void the_retry_budget_holds_for_hedges_too(void **state)
{
    world *w = open_world(SLOW, SLOW, 2);
    web_call calls[300];
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(calls); i++) {
        world_call(w, &calls[i], "GET", "callee", "/work");
        web_call_start(&calls[i], w->client);
        wire_sleep(&w->w, OUTR_MS);
    }
    for (size_t i = 0; i < OUTR_LEN(calls); i++) {
        if (!calls[i].done_count)
            world_run_until_over(w, &calls[i]);
        world_assert_answer(&calls[i], 200, "slow");
        web_call_done(&calls[i]);
    }
    assert_in_range(apps.heads, 301, 300 * 122 / 100 + 10);
    close_world(w);
}

/* Peers that do not say who they are are taken for daprds, and are asked as those are. */
static void be_daprds(world *w)
{
    for (int i = 0; i < 2; i++) {
        outr_http_server_options o = {.loop = w->w.loop,
                                      .handler = &outr_mesh_handler,
                                      .ctx = w->nodes[i].mesh,
                                      .allow_h2 = true,
                                      .limits = {.max_header_bytes = OUTR_MIB}};
        outr_http_server_free(w->nodes[i].internal);
        w->nodes[i].internal = outr_http_server_new(&o);
    }
}

static void a_late_daprd_has_a_rival_too(void **state)
{
    static const char *const verbs[] = {"GET", "PUT"};
    (void)state;
    for (int i = 0; i < 4; i++) {
        world *w = open_world(SLOW, i < 2 ? WELL : BUSY, 2);
        be_daprds(w);
        expect(w, verbs[i % 2], i % 2 ? "the body" : NULL, i < 2 ? "well" : "slow");
        for (unsigned k = 0; k < apps.body_count; k++)
            assert_string_equal(apps.bodies[k], "the body");
        close_world(w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_late_call_is_made_again_elsewhere_and_the_first_answer_is_taken),
        cmocka_unit_test(the_loser_is_cancelled_at_its_app),
        cmocka_unit_test(whoever_answers_first_wins_though_another_was_asked),
        cmocka_unit_test(a_bad_answer_does_not_win),
        cmocka_unit_test(a_rival_that_fails_leaves_it_to_the_first),
        cmocka_unit_test(the_first_one_fails_late_and_the_rival_answers),
        cmocka_unit_test(both_get_the_whole_body),
        cmocka_unit_test(what_may_be_made_once_only_is_not_hedged),
        cmocka_unit_test(a_lone_instance_is_not_asked_twice),
        cmocka_unit_test(no_rival_is_made_that_the_deadline_would_meet),
        cmocka_unit_test(a_deadline_ends_both),
        cmocka_unit_test(who_leaves_ends_both),
        cmocka_unit_test(no_more_than_their_share_of_calls_is_hedged),
        cmocka_unit_test(by_percentile_late_is_what_it_used_to_be),
        cmocka_unit_test(another_callees_calls_are_not_hedged),
        cmocka_unit_test(a_late_daprd_has_a_rival_too),
        cmocka_unit_test(the_retry_budget_holds_for_hedges_too),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
