#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <sched.h>

#include "components/registry.h"
#include "lib/folder.h"
#include "lib/wire.h"

/* One list of what a state store with etags and transactions does, run on each of them. */
typedef struct bench {
    wire w;
    folder dir;
    outr_arena *arena;
    const outr_state_backend *backend;
    outr_state_store *store;
    outr_op op;
    bool is_done;
    outr_err err;
} bench;

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

/* A worker's thread may have it. */
static outr_code wait(bench *b)
{
    while (!b->is_done) {
        wire_run(&b->w);
        sched_yield();
    }
    return b->err.code;
}

static void open_store(bench *b, const char *connection)
{
    const outr_kv metadata[] = {{OUTR_STR("connectionString"), outr_str_from(connection)}};
    const outr_component_init init = {
        .name = OUTR_STR("st"),
        .type = outr_str_from(b->backend->base.type),
        .version = OUTR_STR("v1"),
        .app_id = OUTR_STR("app"),
        .run_dir = outr_str_from(b->dir.path),
        .metadata = {metadata, 1},
        .loop = b->w.loop,
    };
    assert_int_equal(b->backend->create(&b->store, &init, &b->err), OUTR_OK);
    b->backend->open(b->store, begin(b));
}

static bench *open_bench(const char *type)
{
    bench *b = outr_alloc(sizeof *b);
    wire_init(&b->w, 1);
    folder_make(&b->dir);
    b->arena = outr_arena_new(16 * OUTR_MIB);
    b->backend = outr_registry_state(outr_str_from(type), OUTR_STR("v1"));
    assert_non_null(b->backend);
    open_store(b, folder_path(&b->dir, "s.db"));
    assert_int_equal(wait(b), OUTR_OK);
    return b;
}

static void close_store(bench *b)
{
    b->backend->close(b->store, begin(b));
    wait(b);
}

static void close_bench(bench *b)
{
    close_store(b);
    outr_arena_free(b->arena);
    wire_done(&b->w);
    folder_remove(&b->dir);
    free(b);
}

static outr_code write_all(bench *b, outr_state_write *items, size_t count, bool is_atomic)
{
    outr_state_writes req = {
        .arena = b->arena, .is_atomic = is_atomic, .items = items, .count = count};
    b->backend->write(b->store, &req, begin(b));
    return wait(b);
}

static outr_code put(bench *b, const char *key, const char *value, const char *etag,
                     outr_concurrency how)
{
    outr_state_write w = {.key = outr_str_from(key),
                          .value = outr_str_from(value),
                          .concurrency = how,
                          .has_etag = etag != NULL,
                          .etag = outr_str_from(etag)};
    return write_all(b, &w, 1, false);
}

static outr_code drop(bench *b, const char *key, const char *etag)
{
    outr_state_write w = {.kind = OUTR_STATE_DELETE,
                          .key = outr_str_from(key),
                          .has_etag = etag != NULL,
                          .etag = outr_str_from(etag)};
    return write_all(b, &w, 1, false);
}

static outr_state_item get(bench *b, outr_str key)
{
    outr_state_item item = {.key = key};
    outr_state_get req = {.arena = b->arena, .items = &item, .count = 1};
    b->backend->get(b->store, &req, begin(b));
    assert_int_equal(wait(b), OUTR_OK);
    return item;
}

static void assert_value(bench *b, const char *key, const char *expected)
{
    outr_state_item item = get(b, outr_str_from(key));
    assert_int_equal(item.is_found, expected != NULL);
    if (expected)
        assert_true(outr_str_is(item.value, expected));
}

static void what_was_written_is_read(bench *b)
{
    assert_value(b, "k", NULL);
    assert_int_equal(put(b, "k", "{\"a\":1}", NULL, OUTR_CONCURRENCY_UNSET), OUTR_OK);
    assert_value(b, "k", "{\"a\":1}");
    assert_int_equal(put(b, "k", "2", NULL, OUTR_CONCURRENCY_UNSET), OUTR_OK);
    assert_value(b, "k", "2");
    assert_int_equal(drop(b, "k", NULL), OUTR_OK);
    assert_value(b, "k", NULL);
    assert_int_equal(drop(b, "k", NULL), OUTR_OK); /* absent: fine */
}

static void an_etag_lets_only_who_knows_the_newest(bench *b)
{
    put(b, "k", "1", NULL, OUTR_CONCURRENCY_UNSET);
    char first[64], second[64];
    snprintf(first, sizeof first, OUTR_FMT, OUTR_ARG(get(b, OUTR_STR("k")).etag));
    assert_true(first[0] != 0);
    assert_int_equal(put(b, "k", "2", first, OUTR_CONCURRENCY_UNSET), OUTR_OK);
    snprintf(second, sizeof second, OUTR_FMT, OUTR_ARG(get(b, OUTR_STR("k")).etag));
    assert_string_not_equal(first, second);
    assert_int_equal(put(b, "k", "3", first, OUTR_FIRST_WRITE), OUTR_ABORTED);
    assert_int_equal(drop(b, "k", first), OUTR_ABORTED);
    assert_value(b, "k", "2");
    assert_int_equal(drop(b, "k", second), OUTR_OK);
    assert_int_equal(put(b, "k", "4", second, OUTR_FIRST_WRITE), OUTR_ABORTED); /* it is gone */
    assert_value(b, "k", NULL);
}

static void pitfall_25_first_write_without_etag_creates_once(bench *b)
{
    assert_int_equal(put(b, "k", "1", NULL, OUTR_FIRST_WRITE), OUTR_OK);
    assert_int_equal(put(b, "k", "2", NULL, OUTR_FIRST_WRITE), OUTR_ABORTED);
    assert_value(b, "k", "1");
    assert_int_equal(put(b, "k", "3", NULL, OUTR_LAST_WRITE), OUTR_OK);
    assert_value(b, "k", "3");
}

static void a_transaction_is_all_or_nothing(bench *b)
{
    put(b, "there", "1", NULL, OUTR_CONCURRENCY_UNSET);
    outr_state_write good[] = {
        {.key = OUTR_STR("a"), .value = OUTR_STR("1")},
        {.kind = OUTR_STATE_DELETE, .key = OUTR_STR("there")},
        {.key = OUTR_STR("b"), .value = OUTR_STR("2")},
    };
    assert_int_equal(write_all(b, good, OUTR_LEN(good), true), OUTR_OK);
    assert_value(b, "a", "1");
    assert_value(b, "b", "2");
    assert_value(b, "there", NULL);
    outr_state_write bad[] = {
        {.key = OUTR_STR("a"), .value = OUTR_STR("9")},
        {.kind = OUTR_STATE_DELETE, .key = OUTR_STR("b")},
        {.key = OUTR_STR("c"), .value = OUTR_STR("9"), .has_etag = true, .etag = OUTR_STR("wrong")},
    };
    assert_int_equal(write_all(b, bad, OUTR_LEN(bad), true), OUTR_ABORTED);
    assert_value(b, "a", "1");
    assert_value(b, "b", "2");
    assert_value(b, "c", NULL);
}

static void a_bulk_without_transaction_writes_what_it_can(bench *b)
{
    outr_state_write items[] = {
        {.key = OUTR_STR("a"), .value = OUTR_STR("1")},
        {.key = OUTR_STR("b"), .value = OUTR_STR("2"), .has_etag = true, .etag = OUTR_STR("wrong")},
        {.key = OUTR_STR("c"), .value = OUTR_STR("3")},
    };
    assert_int_equal(write_all(b, items, OUTR_LEN(items), false), OUTR_ABORTED);
    assert_value(b, "a", "1");
    assert_value(b, "b", NULL);
    assert_value(b, "c", "3");
}

static void a_bulk_read_answers_each_key(bench *b)
{
    outr_state_item items[] = {{.key = OUTR_STR("a")},
                               {.key = OUTR_STR("none")},
                               {.key = OUTR_STR("b")},
                               {.key = OUTR_STR("a")}};
    outr_state_get req = {.arena = b->arena, .items = items, .count = OUTR_LEN(items)};
    put(b, "a", "1", NULL, OUTR_CONCURRENCY_UNSET);
    put(b, "b", "2", NULL, OUTR_CONCURRENCY_UNSET);
    b->backend->get(b->store, &req, begin(b));
    assert_int_equal(wait(b), OUTR_OK);
    assert_true(items[0].is_found && outr_str_is(items[0].value, "1"));
    assert_false(items[1].is_found);
    assert_true(items[2].is_found && outr_str_is(items[2].value, "2"));
    assert_true(items[3].is_found && outr_str_is(items[3].value, "1"));
}

static void keys_and_values_are_any_text(bench *b)
{
    enum { BIG = 2000000 };
    char *big = outr_alloc(BIG);
    memset(big, 'x', BIG);
    outr_state_write items[] = {
        {.key = outr_str_of("k\0a", 3), .value = OUTR_STR("1")},
        {.key = outr_str_of("k\0b", 3), .value = OUTR_STR("2")},
        {.key = OUTR_STR("'; DROP TABLE state; --"), .value = OUTR_STR("'")},
        {.key = OUTR_STR("big"), .value = outr_str_of(big, BIG)},
        {.key = OUTR_STR("\xe2\x82\xac"), .value = OUTR_STR("\"\xe2\x82\xac\"")},
    };
    assert_int_equal(write_all(b, items, OUTR_LEN(items), true), OUTR_OK);
    for (size_t i = 0; i < OUTR_LEN(items); i++) {
        outr_state_item item = get(b, items[i].key);
        assert_true(item.is_found && outr_str_eq(item.value, items[i].value));
    }
    assert_value(b, "k", NULL);
    free(big);
}

static void a_time_to_live_is_told_and_checked(bench *b)
{
    static const char *const bad[] = {"x", "1.5", "", "99999999999999999999"};
    outr_kv ttl = {OUTR_STR("ttlInSeconds"), OUTR_STR("100")};
    outr_state_write w = {.key = OUTR_STR("k"), .value = OUTR_STR("1"), .metadata = {&ttl, 1}};
    assert_int_equal(write_all(b, &w, 1, false), OUTR_OK);
    assert_int_equal(get(b, OUTR_STR("k")).ttl_expire_time.n, strlen("2026-01-02T15:04:05Z"));
    for (size_t i = 0; i < OUTR_LEN(bad); i++) {
        ttl.value = outr_str_from(bad[i]);
        if (write_all(b, &w, 1, false) == OUTR_OK && bad[i][0])
            fail_msg("accepted: %s", bad[i]);
    }
    ttl.value = OUTR_STR("-1"); /* takes it off */
    assert_int_equal(write_all(b, &w, 1, false), OUTR_OK);
    assert_int_equal(get(b, OUTR_STR("k")).ttl_expire_time.n, 0);
}

static const struct {
    const char *name;
    void (*run)(bench *b);
} cases[] = {
    {"what_was_written_is_read", what_was_written_is_read},
    {"an_etag_lets_only_who_knows_the_newest", an_etag_lets_only_who_knows_the_newest},
    {"pitfall_25_first_write_without_etag_creates_once",
     pitfall_25_first_write_without_etag_creates_once},
    {"a_transaction_is_all_or_nothing", a_transaction_is_all_or_nothing},
    {"a_bulk_without_transaction_writes_what_it_can",
     a_bulk_without_transaction_writes_what_it_can},
    {"a_bulk_read_answers_each_key", a_bulk_read_answers_each_key},
    {"keys_and_values_are_any_text", keys_and_values_are_any_text},
    {"a_time_to_live_is_told_and_checked", a_time_to_live_is_told_and_checked},
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
    every_case("state.in-memory");
}

static void sqlite(void **state)
{
    (void)state;
    every_case("state.sqlite");
}

static void sqlite_keeps_what_was_written_over_a_restart(void **state)
{
    bench *b = open_bench("state.sqlite");
    (void)state;
    put(b, "k", "1", NULL, OUTR_CONCURRENCY_UNSET);
    close_store(b);
    open_store(b, folder_path(&b->dir, "s.db"));
    assert_int_equal(wait(b), OUTR_OK);
    assert_value(b, "k", "1");
    close_bench(b);
}

static void sqlite_says_that_a_file_is_no_database(void **state)
{
    bench *b = open_bench("state.sqlite");
    (void)state;
    close_store(b);
    folder_write(&b->dir, "bad.db",
                 "certainly not a database, but long enough to be looked at as one");
    open_store(b, folder_path(&b->dir, "bad.db"));
    assert_int_not_equal(wait(b), OUTR_OK);
    assert_non_null(strstr(b->err.text, "no database"));
    assert_non_null(strstr(b->err.text, "bad.db"));
    close_bench(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(in_memory),
        cmocka_unit_test(sqlite),
        cmocka_unit_test(sqlite_keeps_what_was_written_over_a_restart),
        cmocka_unit_test(sqlite_says_that_a_file_is_no_database),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
