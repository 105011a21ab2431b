#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <sched.h>
#include <time.h>

#include "components/registry.h"
#include "lib/folder.h"
#include "lib/wire.h"

/* One list of what a broker does, run on each of them; what only the durable one does, on it. */
enum { GOT_MAX = 256 };

typedef struct bench bench;

typedef struct consumer {
    bench *b;
    outr_broker_sub *sub;
    outr_message_in *got[GOT_MAX]; /* unsettled and settled; settled ones are NULL */
    char data[GOT_MAX][16];
    uint32_t attempt[GOT_MAX];
    size_t count;
} consumer;

struct bench {
    wire w;
    folder dir;
    const outr_pubsub_backend *backend;
    outr_broker *broker;
    outr_op op;
    bool is_done;
    outr_err err;
};

static void on_done(outr_op *op)
{
    bench *b = OUTR_CONTAINER(op, bench, op);
    b->is_done = true;
    b->err = op->err;
}

static outr_op *begin(bench *b)
{
    b->is_done = false;
    outr_op_init(&b->op, b->w.loop, NULL, 0, on_done);
    return &b->op;
}

static outr_code wait(bench *b)
{
    while (!b->is_done) {
        wire_run(&b->w);
        sched_yield();
    }
    return b->err.code;
}

static uint64_t real_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * OUTR_SEC + (uint64_t)t.tv_nsec;
}

/* Until it has so many, in real time at most: a broker's thread hands them over. Virtual time runs
 * along, for the pause before a redelivery, but ten times as fast only: else a lease is over before
 * a thread on a busy machine has had its turn. */
static void until(const consumer *c, size_t count)
{
    uint64_t began = real_ns(), last = began;
    while (c->count < count) {
        uint64_t now = real_ns();
        if (now - began > 60 * OUTR_SEC)
            fail_msg("%zu messages instead of %zu", c->count, count);
        wire_sleep(&c->b->w, OUTR_MIN(10 * (now - last), 100 * OUTR_MS));
        last = now;
        sched_yield();
    }
}

static outr_code open_with(bench *b, const outr_kv *metadata, size_t count)
{
    const outr_component_init init = {
        .name = OUTR_STR("ps"),
        .type = outr_str_from(b->backend->base.type),
        .version = OUTR_STR("v1"),
        .app_id = OUTR_STR("app"),
        .run_dir = outr_str_from(b->dir.path),
        .metadata = {metadata, count},
        .loop = b->w.loop,
    };
    outr_code rc = b->backend->create(&b->broker, &init, &b->err);
    if (rc)
        return rc;
    b->backend->open(b->broker, begin(b));
    return wait(b);
}

static void open_broker(bench *b)
{
    const outr_kv metadata[] = {{OUTR_STR("redeliverInterval"), OUTR_STR("1ms")}};
    assert_int_equal(open_with(b, metadata, OUTR_LEN(metadata)), OUTR_OK);
}

static bench *new_bench(const char *type)
{
    bench *b = outr_alloc(sizeof *b);
    wire_init(&b->w, 1);
    folder_make(&b->dir);
    b->backend = outr_registry_pubsub(outr_str_from(type), OUTR_STR("v1"));
    assert_non_null(b->backend);
    return b;
}

static bench *open_bench(const char *type)
{
    bench *b = new_bench(type);
    open_broker(b);
    return b;
}

static void close_broker(bench *b)
{
    b->backend->close(b->broker, begin(b));
    wait(b);
}

static void free_bench(bench *b)
{
    wire_done(&b->w);
    folder_remove(&b->dir);
    free(b);
}

static void close_bench(bench *b)
{
    close_broker(b);
    free_bench(b);
}

static void on_message(void *ctx, outr_message_in *msg)
{
    consumer *c = ctx;
    assert_true(c->count < GOT_MAX);
    c->got[c->count] = msg;
    c->attempt[c->count] = msg->attempt;
    snprintf(c->data[c->count++], sizeof c->data[0], OUTR_FMT, OUTR_ARG(msg->data));
}

static void subscribe(consumer *c, bench *b, const char *topic, size_t credit)
{
    const outr_subscribe req = {.topic = outr_str_from(topic),
                                .loop = b->w.loop,
                                .credit = credit,
                                .on_message = on_message,
                                .ctx = c};
    *c = (consumer){.b = b};
    assert_int_equal(b->backend->subscribe(b->broker, &req, &c->sub, &b->err), OUTR_OK);
    wire_run(&b->w);
}

static void unsubscribe(consumer *c)
{
    c->b->backend->unsubscribe(c->sub, begin(c->b));
    wait(c->b);
}

static void settle(consumer *c, size_t i, outr_settlement how)
{
    outr_message_in *msg = c->got[i];
    c->got[i] = NULL;
    c->b->backend->settle(c->sub, msg, how);
}

static void settle_rest(consumer *c)
{
    for (size_t i = 0; i < c->count; i++) {
        if (c->got[i])
            settle(c, i, OUTR_SETTLE_ACK);
    }
}

static outr_code publish_with(bench *b, const char *topic, const char *data,
                              const outr_kv *metadata, size_t count)
{
    outr_publish_item item = {.data = outr_str_from(data),
                              .content_type = OUTR_STR("text/plain"),
                              .metadata = {metadata, count}};
    outr_publish req = {.topic = outr_str_from(topic), .items = &item, .count = 1};
    b->backend->publish(b->broker, &req, begin(b));
    return wait(b);
}

static void publish(bench *b, const char *topic, const char *data)
{
    assert_int_equal(publish_with(b, topic, data, NULL, 0), OUTR_OK);
}

/* ---- every broker ----------------------------------------------------------------------------- */

static void a_message_reaches_its_topic_only(bench *b)
{
    consumer t, other;
    subscribe(&t, b, "t", 10);
    subscribe(&other, b, "other", 10);
    publish(b, "t", "1");
    until(&t, 1);
    assert_string_equal(t.data[0], "1");
    assert_true(outr_str_is(t.got[0]->topic, "t"));
    assert_true(outr_str_is(t.got[0]->content_type, "text/plain"));
    settle_rest(&t);
    wire_sleep(&b->w, OUTR_SEC);
    assert_int_equal(other.count, 0);
    assert_int_equal(t.count, 1);
    unsubscribe(&t);
    unsubscribe(&other);
}

static void what_was_refused_comes_again_with_its_number(bench *b)
{
    consumer c;
    subscribe(&c, b, "t", 10);
    publish(b, "t", "1");
    until(&c, 1);
    settle(&c, 0, OUTR_SETTLE_RETRY);
    until(&c, 2);
    settle(&c, 1, OUTR_SETTLE_RETRY);
    until(&c, 3);
    assert_string_equal(c.data[2], "1");
    assert_true(c.attempt[0] < c.attempt[1] && c.attempt[1] < c.attempt[2]);
    settle_rest(&c);
    wire_sleep(&b->w, OUTR_SEC);
    assert_int_equal(c.count, 3);
    unsubscribe(&c);
}

static void no_more_are_out_than_the_credit(bench *b)
{
    consumer c;
    subscribe(&c, b, "t", 3);
    for (int i = 0; i < 10; i++)
        publish(b, "t", "x");
    until(&c, 3);
    wire_sleep(&b->w, OUTR_SEC);
    assert_int_equal(c.count, 3);
    settle(&c, 1, OUTR_SETTLE_ACK);
    until(&c, 4);
    assert_int_equal(c.count, 4);
    for (size_t n = 4; n < 10; n++) {
        settle(&c, n - 1, OUTR_SETTLE_ACK);
        until(&c, n + 1);
    }
    settle_rest(&c);
    unsubscribe(&c);
}

static void paused_it_gets_nothing_and_then_everything(bench *b)
{
    consumer c;
    subscribe(&c, b, "t", 10);
    publish(b, "t", "1");
    until(&c, 1);
    settle_rest(&c);
    b->backend->pause(c.sub, true);
    publish(b, "t", "2");
    publish(b, "t", "3");
    wire_sleep(&b->w, OUTR_SEC);
    assert_int_equal(c.count, 1);
    b->backend->pause(c.sub, false);
    until(&c, 3);
    settle_rest(&c);
    unsubscribe(&c);
}

static void pitfall_8_what_was_in_hand_comes_to_the_next(bench *b)
{
    consumer first, second;
    subscribe(&first, b, "t", 10);
    publish(b, "t", "1");
    until(&first, 1);
    settle(&first, 0, OUTR_SETTLE_RELEASE);
    unsubscribe(&first);
    subscribe(&second, b, "t", 10);
    if (second.count == 0 && b->backend->features(b->broker) & OUTR_PUBSUB_TTL)
        until(&second,
              1); /* the durable one keeps it; in memory it goes with its last subscriber */
    settle_rest(&second);
    unsubscribe(&second);
}

static const struct {
    const char *name;
    void (*run)(bench *b);
} cases[] = {
    {"a_message_reaches_its_topic_only", a_message_reaches_its_topic_only},
    {"what_was_refused_comes_again_with_its_number", what_was_refused_comes_again_with_its_number},
    {"no_more_are_out_than_the_credit", no_more_are_out_than_the_credit},
    {"paused_it_gets_nothing_and_then_everything", paused_it_gets_nothing_and_then_everything},
    {"pitfall_8_what_was_in_hand_comes_to_the_next", pitfall_8_what_was_in_hand_comes_to_the_next},
};

static void every_case(const char *type)
{
    for (size_t i = 0; i < OUTR_LEN(cases); i++) {
        print_message("%s: %s\n", type, cases[i].name);
        bench *b = open_bench(type);
        cases[i].run(b);
        close_bench(b);
    }
}

static void in_memory(void **state)
{
    (void)state;
    every_case("pubsub.in-memory");
}

static void sqlite(void **state)
{
    (void)state;
    every_case("pubsub.sqlite");
}

/* ---- the durable one -------------------------------------------------------------------------- */

static void messages_of_one_key_come_one_after_the_other(void **state)
{
    const outr_kv key = {OUTR_STR("partitionKey"), OUTR_STR("k")};
    bench *b = open_bench("pubsub.sqlite");
    consumer c;
    (void)state;
    subscribe(&c, b, "t", 10);
    for (int i = 0; i < 3; i++) {
        char data[2] = {(char)('1' + i), 0};
        assert_int_equal(publish_with(b, "t", data, &key, 1), OUTR_OK);
    }
    publish(b, "t", "free");
    until(&c, 2);
    wire_sleep(&b->w, OUTR_SEC);
    assert_int_equal(c.count, 2); /* the first of the key, and the one without */
    assert_string_equal(c.data[0], "1");
    settle(&c, 0, OUTR_SETTLE_RETRY);
    until(&c, 3);
    assert_string_equal(c.data[2], "1"); /* again before its successor */
    settle(&c, 2, OUTR_SETTLE_ACK);
    until(&c, 4);
    assert_string_equal(c.data[3], "2");
    settle(&c, 3, OUTR_SETTLE_ACK);
    until(&c, 5);
    assert_string_equal(c.data[4], "3");
    settle_rest(&c);
    unsubscribe(&c);
    close_bench(b);
}

static void what_nobody_had_time_for_is_there_after_a_restart(void **state)
{
    bench *b = open_bench("pubsub.sqlite");
    consumer c;
    (void)state;
    publish(b, "t", "early"); /* no group knows the topic yet */
    close_broker(b);
    open_broker(b);
    subscribe(&c, b, "t", 10);
    until(&c, 1);
    assert_string_equal(c.data[0], "early");
    settle_rest(&c);
    unsubscribe(&c);
    close_broker(b);
    open_broker(b);
    subscribe(&c, b, "t", 10);
    wire_sleep(&b->w, OUTR_SEC);
    assert_int_equal(c.count, 0); /* settled for good */
    unsubscribe(&c);
    close_bench(b);
}

static void the_limit_of_messages_is_an_error_of_the_publisher(void **state)
{
    const outr_kv metadata[] = {{OUTR_STR("maxMessages"), OUTR_STR("2")}};
    bench *b = new_bench("pubsub.sqlite");
    (void)state;
    assert_int_equal(open_with(b, metadata, OUTR_LEN(metadata)), OUTR_OK);
    publish(b, "t", "1");
    publish(b, "t", "2");
    assert_int_equal(publish_with(b, "t", "3", NULL, 0), OUTR_RESOURCE_EXHAUSTED);
    assert_non_null(strstr(b->err.text, "maxMessages"));
    close_bench(b);
}

static void metadata_that_is_wrong_is_named(void **state)
{
    static const char *const wrong[][2] = {{"leaseDuration", "soon"},
                                           {"maxMessages", "0"},
                                           {"redeliverInterval", "-1s"},
                                           {"maxMessages", "many"}};
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(wrong); i++) {
        const outr_kv metadata = {outr_str_from(wrong[i][0]), outr_str_from(wrong[i][1])};
        bench *b = new_bench("pubsub.sqlite");
        assert_int_not_equal(open_with(b, &metadata, 1), OUTR_OK);
        if (!strstr(b->err.text, wrong[i][0]))
            fail_msg("%s", b->err.text);
        free_bench(b);
    }
}

static void a_file_that_is_no_database_is_named(void **state)
{
    bench *b = new_bench("pubsub.sqlite");
    const outr_kv metadata = {OUTR_STR("connectionString"),
                              outr_str_from(folder_path(&b->dir, "bad.db"))};
    (void)state;
    folder_write(&b->dir, "bad.db",
                 "certainly not a database, but long enough to be looked at as one");
    assert_int_not_equal(open_with(b, &metadata, 1), OUTR_OK);
    assert_non_null(strstr(b->err.text, "bad.db"));
    close_bench(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(in_memory),
        cmocka_unit_test(sqlite),
        cmocka_unit_test(messages_of_one_key_come_one_after_the_other),
        cmocka_unit_test(what_nobody_had_time_for_is_there_after_a_restart),
        cmocka_unit_test(the_limit_of_messages_is_an_error_of_the_publisher),
        cmocka_unit_test(metadata_that_is_wrong_is_named),
        cmocka_unit_test(a_file_that_is_no_database_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
