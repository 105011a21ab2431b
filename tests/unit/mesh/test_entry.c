/* What the called side lets in, from Outriggers and from daprds. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "config/kinds/kinds.h"
#include "unit/mesh/world.h"

static outr_exchange *held[8];
static size_t held_count;

static void on_held_gone(outr_exchange *x, const outr_err *err)
{
    (void)err;
    for (size_t i = 0; i < held_count; i++) {
        if (held[i] == x)
            held[i] = held[--held_count];
    }
    outr_http_done(x);
}

static void hold(world *w, world_node *node, outr_exchange *x)
{
    (void)w;
    (void)node;
    x->on_gone = on_held_gone;
    held[held_count++] = x;
}

static void answer_all(world *w)
{
    while (held_count > 0)
        web_answer(held[--held_count], 200, "at last");
    wire_run(&w->w);
}

static outr_snapshot *snapshot_of(const outr_traffic_spec *policy)
{
    static const outr_settings nothing;
    OUTR_AUTO(outr_err_list) errors = {0};
    OUTR_AUTO(outr_err_list) warnings = {0};
    outr_snapshot *snapshot = NULL;
    assert_int_equal(outr_snapshot_load(&snapshot, &nothing, NULL, &errors, &warnings), OUTR_OK);
    snapshot->traffic = policy;
    snapshot->traffic_count = 1;
    return snapshot;
}

/* The policy stays the test's. */
static world *open_world(const outr_traffic_spec *policy, bool are_daprds)
{
    world *w = world_open(1, 0);
    for (int i = 0; i < WORLD_NODES; i++) {
        world_node *n = &w->nodes[i];
        outr_snapshot *snapshot = snapshot_of(policy); /* each node counts for itself */
        outr_mesh_update(n->mesh, snapshot);
        outr_snapshot_unref(snapshot);
        if (are_daprds) {
            outr_http_server_free(n->internal);
            n->internal = world_server(w, &outr_mesh_handler, n->mesh, false, 0);
        }
    }
    w->on_app = hold;
    held_count = 0;
    return w;
}

static void close_world(world *w)
{
    assert_int_equal(world_close(w), 0);
}

static outr_traffic_spec one_at_a_time(int64_t queue)
{
    outr_traffic_spec policy = outr_traffic_defaults;
    policy.base = (outr_resource){.name = OUTR_STR("p")};
    policy.concurrency = (outr_concurrency_spec){.is_on = true,
                                                 .min = 1,
                                                 .max = 1,
                                                 .initial = 1,
                                                 .queue = queue,
                                                 .target_ns = 5 * OUTR_MS,
                                                 .interval_ns = 100 * OUTR_MS};
    return policy;
}

static void send(world *w, web_call *c, const char *path)
{
    world_call(w, c, "GET", "callee", path);
    web_call_start(c, w->client);
    wire_run(&w->w);
}

static void a_call_waits_for_the_one_before(bool are_daprds)
{
    outr_traffic_spec policy = one_at_a_time(8);
    world *w = open_world(&policy, are_daprds);
    web_call calls[2];
    send(w, &calls[0], "/1");
    send(w, &calls[1], "/2");
    assert_int_equal(held_count, 1);
    web_answer(held[--held_count], 200, "first");
    wire_run(&w->w);
    world_assert_answer(&calls[0], 200, "first");
    assert_int_equal(held_count, 1);
    answer_all(w);
    world_assert_answer(&calls[1], 200, "at last");
    for (int i = 0; i < 2; i++)
        web_call_done(&calls[i]);
    close_world(w);
}

static void calls_of_outriggers_wait_for_their_turn(void **state)
{
    (void)state;
    a_call_waits_for_the_one_before(false);
}

static void calls_of_daprds_wait_for_their_turn(void **state)
{
    (void)state;
    a_call_waits_for_the_one_before(true);
}

static void who_waits_too_long_is_refused_and_not_asked_again(bool are_daprds, const char *code)
{
    outr_traffic_spec policy = one_at_a_time(8);
    world *w = open_world(&policy, are_daprds);
    web_call calls[2];
    send(w, &calls[0], "/1");
    send(w, &calls[1], "/2");
    wire_sleep(&w->w, 99 * OUTR_MS);
    assert_int_equal(calls[1].done_count, 0);
    wire_sleep(&w->w, 2 * OUTR_MS);
    assert_int_equal(calls[1].done_count, 1);
    world_assert_answer(&calls[1], 500, "the app has more calls than it can serve");
    world_assert_answer(&calls[1], 500, code);
    answer_all(w);
    assert_int_equal(w->nodes[0].requests, 1);
    for (int i = 0; i < 2; i++)
        web_call_done(&calls[i]);
    close_world(w);
}

static void an_outrigger_hears_that_there_is_too_much(void **state)
{
    (void)state;
    who_waits_too_long_is_refused_and_not_asked_again(false, "Unavailable");
}

/* UNAVAILABLE it would ask again, three times. */
static void a_daprd_hears_it_in_words_that_it_does_not_repeat_for(void **state)
{
    (void)state;
    who_waits_too_long_is_refused_and_not_asked_again(true, "ResourceExhausted");
}

static void a_client_that_leaves_the_queue_takes_nobodys_turn(void **state)
{
    (void)state;
    for (int are_daprds = 0; are_daprds < 2; are_daprds++) {
        outr_traffic_spec policy = one_at_a_time(8);
        world *w = open_world(&policy, are_daprds);
        web_call calls[3];
        send(w, &calls[0], "/1");
        send(w, &calls[1], "/2");
        send(w, &calls[2], "/3");
        outr_op_cancel(&calls[1].op, OUTR_CANCELLED);
        wire_run(&w->w);
        web_answer(held[--held_count], 200, "first");
        wire_run(&w->w);
        assert_int_equal(held_count, 1);
        assert_true(outr_str_is(held[0]->req.target, "/3"));
        answer_all(w);
        world_assert_answer(&calls[2], 200, "at last");
        for (int i = 0; i < 3; i++)
            web_call_done(&calls[i]);
        close_world(w);
    }
}

static void a_deadline_that_is_over_in_the_queue_is_told(void **state)
{
    (void)state;
    outr_traffic_spec policy = one_at_a_time(8);
    world *w = open_world(&policy, false);
    web_call calls[2];
    send(w, &calls[0], "/1");
    world_call(w, &calls[1], "GET", "callee", "/2");
    outr_headers_add(&calls[1].req.headers, OUTR_STR("outrigger-timeout"), OUTR_STR("30m"));
    web_call_start(&calls[1], w->client);
    wire_sleep(&w->w, 60 * OUTR_MS);
    assert_int_equal(calls[1].done_count, 1);
    world_assert_answer(&calls[1], 500, "deadline");
    answer_all(w);
    assert_int_equal(w->nodes[0].requests, 1);
    for (int i = 0; i < 2; i++)
        web_call_done(&calls[i]);
    close_world(w);
}

/* Two instances, one of which has no room: whoever is sent there is sent on, and nobody is ejected
 * for it. */
static void what_one_instance_has_no_room_for_another_does(void **state)
{
    (void)state;
    outr_traffic_spec policy = one_at_a_time(0);
    world *w = open_world(&policy, false);
    web_call first, c;
    w->names[1] = 9001;
    send(w, &first, "/1");
    assert_int_equal(held_count, 1);
    outr_exchange *at = held[--held_count]; /* its node is full from here on */
    w->on_app = NULL;
    for (int i = 0; i < 30; i++) {
        world_call(w, &c, "GET", "callee", "/x");
        web_call_start(&c, w->client);
        world_run_until_over(w, &c);
        world_assert_answer(&c, 200, "hello");
        web_call_done(&c);
    }
    web_answer(at, 200, "first");
    wire_run(&w->w);
    world_assert_answer(&first, 200, "first");
    web_call_done(&first);
    assert_int_equal(w->nodes[0].requests + w->nodes[1].requests, 31);
    close_world(w);
}

static void a_share_that_is_used_up_is_told_to_both(void **state)
{
    (void)state;
    for (int are_daprds = 0; are_daprds < 2; are_daprds++) {
        const outr_rate_spec rate = {.name = OUTR_STR("few"),
                                     .requests = 1,
                                     .interval_ns = 3600 * OUTR_SEC,
                                     .burst = 1,
                                     .buckets = 1};
        outr_traffic_spec policy = outr_traffic_defaults;
        policy.base = (outr_resource){.name = OUTR_STR("p")};
        policy.rates = &rate;
        policy.rate_count = 1;
        world *w = open_world(&policy, are_daprds);
        web_call calls[2];
        w->on_app = NULL;
        send(w, &calls[0], "/1");
        world_assert_answer(&calls[0], 200, "hello");
        send(w, &calls[1], "/2");
        world_assert_answer(&calls[1], 500, "the rate limit \"few\" is reached");
        world_assert_answer(&calls[1], 500, "ResourceExhausted");
        for (int i = 0; i < 2; i++)
            web_call_done(&calls[i]);
        close_world(w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(calls_of_outriggers_wait_for_their_turn),
        cmocka_unit_test(calls_of_daprds_wait_for_their_turn),
        cmocka_unit_test(an_outrigger_hears_that_there_is_too_much),
        cmocka_unit_test(a_daprd_hears_it_in_words_that_it_does_not_repeat_for),
        cmocka_unit_test(a_client_that_leaves_the_queue_takes_nobodys_turn),
        cmocka_unit_test(a_deadline_that_is_over_in_the_queue_is_told),
        cmocka_unit_test(what_one_instance_has_no_room_for_another_does),
        cmocka_unit_test(a_share_that_is_used_up_is_told_to_both),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
