#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <malloc.h>
#include <sys/stat.h>
#include <unistd.h>

#include "config/reload.h"
#include "lib/folder.h"
#include "net/env_real.h"

#define HEAD "apiVersion: dapr.io/v1alpha1\n"
#define COMPONENT(name, v)                                                                         \
    HEAD "kind: Component\nmetadata: {name: " name "}\nspec: {type: state.x, version: " v "}\n"

/* A folder under watch, and the last thing that was told of it. */
typedef struct bench {
    folder f;
    outr_settings settings;
    outr_loop *loop;
    outr_reload *reload;
    outr_timer limit;
    unsigned changes, failures;
    size_t added, removed, after;
    char first_added[32], failure[OUTR_ERR_TEXT_MAX];
    bool subscriptions_changed, policies_changed, needs_restart;
    size_t warning_count;
} bench;

static void on_changed(void *ctx, const outr_reload_diff *diff)
{
    bench *b = ctx;
    b->changes++;
    b->added = diff->added_count;
    b->removed = diff->removed_count;
    b->after = diff->after->component_count;
    b->subscriptions_changed = diff->subscriptions_changed;
    b->policies_changed = diff->policies_changed;
    b->needs_restart = diff->needs_restart;
    b->warning_count = diff->warnings->count;
    b->first_added[0] = 0;
    if (diff->added_count)
        snprintf(b->first_added, sizeof b->first_added, OUTR_FMT,
                 OUTR_ARG(diff->added[0]->base.name));
    outr_loop_stop(b->loop);
}

static void on_failed(void *ctx, const outr_err_list *errors)
{
    bench *b = ctx;
    b->failures++;
    assert_true(errors->count > 0);
    snprintf(b->failure, sizeof b->failure, "%s", errors->items[0].text);
}

static void open_bench(bench *b, const char *text)
{
    outr_snapshot *first;
    OUTR_AUTO(outr_err_list) errors = {0};
    OUTR_AUTO(outr_err_list) warnings = {0};
    outr_err err;
    *b = (bench){.settings = {.app_id = OUTR_STR("app"),
                              .namespace_ = OUTR_STR("default"),
                              .reconcile_interval_ns = 60 * OUTR_SEC}};
    folder_make(&b->f);
    folder_write(&b->f, "a.yaml", text);
    b->settings.resources_paths.items[0] = outr_str_from(b->f.path);
    b->settings.resources_paths.count = 1;
    b->loop = outr_loop_new(&(outr_loop_options){.env = outr_env_real()});
    assert_int_equal(outr_snapshot_load(&first, &b->settings, NULL, &errors, &warnings), OUTR_OK);
    const outr_reload_options o = {.loop = b->loop,
                                   .settings = &b->settings,
                                   .current = first,
                                   .changed = on_changed,
                                   .failed = on_failed,
                                   .ctx = b};
    assert_int_equal(outr_reload_start(&b->reload, &o, &err), OUTR_OK);
    outr_snapshot_unref(first);
}

static void close_bench(bench *b)
{
    outr_reload_stop(b->reload);
    outr_loop_stop(b->loop);
    outr_loop_run(b->loop); /* closes the watches */
    outr_loop_free(b->loop);
    folder_remove(&b->f);
}

static void nothing_changed_tells_nothing(void **state)
{
    bench b;
    (void)state;
    open_bench(&b, COMPONENT("one", "v1"));
    outr_reload_check(b.reload);
    folder_write(&b.f, "a.yaml", "# written again\n" COMPONENT("one", "v1"));
    outr_reload_check(b.reload);
    assert_int_equal(b.changes, 0);
    assert_int_equal(b.failures, 0);
    close_bench(&b);
}

static void added_removed_and_changed_components_are_told_apart(void **state)
{
    bench b;
    (void)state;
    open_bench(&b, COMPONENT("one", "v1"));
    folder_write(&b.f, "b.yaml", COMPONENT("two", "v1"));
    outr_reload_check(b.reload);
    assert_int_equal(b.changes, 1);
    assert_int_equal(b.added, 1);
    assert_int_equal(b.removed, 0);
    assert_string_equal(b.first_added, "two");
    folder_write(&b.f, "b.yaml", COMPONENT("two", "v2"));
    outr_reload_check(b.reload);
    assert_int_equal(b.added, 1);
    assert_int_equal(b.removed, 1);
    assert_string_equal(b.first_added, "two");
    unlink(folder_path(&b.f, "a.yaml"));
    outr_reload_check(b.reload);
    assert_int_equal(b.changes, 3);
    assert_int_equal(b.added, 0);
    assert_int_equal(b.removed, 1);
    assert_int_equal(b.after, 1);
    assert_false(b.needs_restart);
    assert_false(b.subscriptions_changed);
    close_bench(&b);
}

static void subscriptions_change_in_place(void **state)
{
    bench b;
    (void)state;
    open_bench(&b, COMPONENT("one", "v1"));
    folder_write(&b.f, "s.yaml",
                 HEAD "kind: Subscription\nmetadata: {name: s}\n"
                      "spec: {pubsubname: p, topic: t, route: /r}\n");
    outr_reload_check(b.reload);
    assert_true(b.subscriptions_changed);
    assert_false(b.needs_restart);
    assert_int_equal(b.added + b.removed, 0);
    close_bench(&b);
}

static void rules_change_in_place(void **state)
{
    static const char *const texts[] = {
        "apiVersion: outrigger.io/v1alpha1\nkind: AccessPolicy\nmetadata: {name: p}\n"
        "spec: {defaultAction: deny}\n",
        "apiVersion: outrigger.io/v1alpha1\nkind: Authentication\nmetadata: {name: t}\n"
        "spec: {required: true, issuers: [{issuer: x, audiences: [y], jwksFile: z}]}\n",
    };
    bench b;
    (void)state;
    open_bench(&b, COMPONENT("one", "v1"));
    for (size_t i = 0; i < OUTR_LEN(texts); i++) {
        folder_write(&b.f, "p.yaml", texts[i]);
        outr_reload_check(b.reload);
        assert_int_equal(b.changes, i + 1);
        assert_false(b.needs_restart);
    }
    outr_reload_check(b.reload); /* and nothing more */
    assert_int_equal(b.changes, 2);
    close_bench(&b);
}

static void traffic_changes_in_place_and_what_is_odd_is_told(void **state)
{
    bench b;
    (void)state;
    open_bench(&b, COMPONENT("one", "v1"));
    folder_write(&b.f, "t.yaml",
                 "apiVersion: outrigger.io/v1alpha1\nkind: TrafficPolicy\nmetadata: {name: t}\n"
                 "spec: {routes: [{fault: {expires: 2020-01-01T00:00:00Z, abort: {status: 500}}}]}\n");
    outr_reload_check(b.reload);
    assert_int_equal(b.changes, 1);
    assert_int_equal(b.warning_count, 1);
    assert_false(b.needs_restart || b.policies_changed);
    close_bench(&b);
}

static void policies_change_in_place(void **state)
{
    bench b;
    (void)state;
    open_bench(&b, COMPONENT("one", "v1"));
    folder_write(&b.f, "r.yaml",
                 HEAD "kind: Resiliency\nmetadata: {name: r}\nspec: {policies: {}}\n");
    outr_reload_check(b.reload);
    assert_int_equal(b.changes, 1);
    assert_true(b.policies_changed);
    assert_false(b.needs_restart || b.subscriptions_changed);
    assert_int_equal(b.added + b.removed, 0);
    close_bench(&b);
}

static void kinds_that_cannot_change_in_place_ask_for_a_restart(void **state)
{
    static const char *const texts[] = {
        HEAD "kind: HTTPEndpoint\nmetadata: {name: e}\nspec: {baseUrl: \"http://x\"}\n",
        HEAD "kind: Configuration\nmetadata: {name: c}\nspec: {}\n",
    };
    bench b;
    (void)state;
    open_bench(&b, COMPONENT("one", "v1"));
    for (size_t i = 0; i < OUTR_LEN(texts); i++) {
        b.needs_restart = false;
        folder_write(&b.f, "b.yaml", texts[i]);
        outr_reload_check(b.reload);
        assert_int_equal(b.changes, i + 1);
        assert_true(b.needs_restart);
    }
    close_bench(&b);
}

static void a_broken_file_keeps_the_old_configuration_and_is_told_once(void **state)
{
    static const char *const broken[] = {
        HEAD "kind: Component\nmetadata: {name: one}\nspec: {version: v1}\n", "spec: [\n", ""};
    bench b;
    (void)state;
    open_bench(&b, COMPONENT("one", "v1"));
    folder_write(&b.f, "a.yaml", broken[0]);
    for (int i = 0; i < 3; i++)
        outr_reload_check(b.reload);
    assert_int_equal(b.failures, 1);
    assert_non_null(strstr(b.failure, "a.yaml:4:7"));
    folder_write(&b.f, "a.yaml", broken[1]);
    for (int i = 0; i < 3; i++)
        outr_reload_check(b.reload);
    assert_int_equal(b.failures, 2);
    assert_non_null(strstr(b.failure, "a.yaml:"));
    assert_int_equal(b.changes, 0);
    folder_write(&b.f, "a.yaml", COMPONENT("one", "v1"));
    outr_reload_check(b.reload);
    assert_int_equal(b.changes, 0);
    folder_write(&b.f, "a.yaml", broken[0]); /* broken again is news again */
    outr_reload_check(b.reload);
    assert_int_equal(b.failures, 3);
    close_bench(&b);
}

/* As secrets are mounted: ..data -> a folder, the names link through it, the link is exchanged. */
static void a_symlink_swap_is_noticed(void **state)
{
    bench b;
    (void)state;
    open_bench(&b, COMPONENT("one", "v1"));
    assert_int_equal(mkdir(folder_path(&b.f, "v1"), 0700), 0);
    assert_int_equal(mkdir(folder_path(&b.f, "v2"), 0700), 0);
    folder_write(&b.f, "v1/c.yaml", COMPONENT("two", "v1"));
    folder_write(&b.f, "v2/c.yaml", COMPONENT("two", "v2"));
    assert_int_equal(symlink("v1", folder_path(&b.f, "..data")), 0);
    assert_int_equal(symlink("..data/c.yaml", folder_path(&b.f, "c.yaml")), 0);
    outr_reload_check(b.reload);
    assert_int_equal(b.changes, 1);
    assert_int_equal(symlink("v2", folder_path(&b.f, "..new")), 0);
    assert_int_equal(rename(folder_path(&b.f, "..new"), folder_path(&b.f, "..data")), 0);
    outr_reload_check(b.reload);
    assert_int_equal(b.changes, 2);
    assert_string_equal(b.first_added, "two");
    close_bench(&b);
}

static void on_limit(outr_timer *timer)
{
    outr_loop_stop(OUTR_CONTAINER(timer, bench, limit)->loop);
}

static void run_at_most(bench *b, uint64_t ns)
{
    b->limit.fire = on_limit;
    outr_timer_start(b->loop, &b->limit, outr_loop_update(b->loop) + ns);
    outr_loop_run(b->loop);
    outr_timer_stop(b->loop, &b->limit);
}

static void a_write_is_noticed_without_asking(void **state)
{
    bench b;
    (void)state;
    open_bench(&b, COMPONENT("one", "v1"));
    folder_write(&b.f, "a.yaml", COMPONENT("one", "v2"));
    run_at_most(&b, 10 * OUTR_SEC);
    assert_int_equal(b.changes, 1);
    assert_string_equal(b.first_added, "one");
    close_bench(&b);
}

static void the_comparison_in_between_notices_what_no_event_told(void **state)
{
    bench b;
    (void)state;
    open_bench(&b, COMPONENT("one", "v1"));
    outr_reload_stop(b.reload);
    folder real = b.f, link = {0}; /* the watched path is a link: swapping it is no event inside */
    folder other;
    folder_make(&other);
    folder_write(&other, "a.yaml", COMPONENT("one", "v2"));
    snprintf(link.path, sizeof link.path, "%.60s-l", real.path);
    assert_int_equal(symlink(real.path, link.path), 0);
    outr_snapshot *first;
    OUTR_AUTO(outr_err_list) errors = {0};
    OUTR_AUTO(outr_err_list) warnings = {0};
    outr_err err;
    b.settings.resources_paths.items[0] = outr_str_from(link.path);
    b.settings.reconcile_interval_ns = 20 * OUTR_MS;
    assert_int_equal(outr_snapshot_load(&first, &b.settings, NULL, &errors, &warnings), OUTR_OK);
    const outr_reload_options o = {.loop = b.loop,
                                   .settings = &b.settings,
                                   .current = first,
                                   .changed = on_changed,
                                   .failed = on_failed,
                                   .ctx = &b};
    assert_int_equal(outr_reload_start(&b.reload, &o, &err), OUTR_OK);
    outr_snapshot_unref(first);
    unlink(link.path);
    assert_int_equal(symlink(other.path, link.path), 0);
    run_at_most(&b, 10 * OUTR_SEC);
    assert_int_equal(b.changes, 1);
    unlink(link.path);
    folder_remove(&other);
    close_bench(&b);
}

static void reloads_leave_no_memory_behind(void **state)
{
    bench b;
    (void)state;
    open_bench(&b, COMPONENT("one", "v1"));
    size_t early = 0;
    for (int i = 0; i < 1000; i++) {
        folder_write(&b.f, "a.yaml",
                     i % 3 == 2 ? "broken: ["
                     : i % 2    ? COMPONENT("one", "v1")
                                : COMPONENT("one", "v2"));
        outr_reload_check(b.reload);
        if (i == 100)
            early = mallinfo2().uordblks;
    }
    assert_true(b.changes > 100);
    assert_true(b.failures > 100);
    assert_true(mallinfo2().uordblks <= early + 16 * OUTR_KIB);
    close_bench(&b);
}

static void nothing_to_watch_is_stopped_without_a_trace(void **state)
{
    outr_settings settings = {.app_id = OUTR_STR("app"), .reconcile_interval_ns = OUTR_SEC};
    outr_loop *loop = outr_loop_new(&(outr_loop_options){.env = outr_env_real()});
    OUTR_AUTO(outr_err_list) errors = {0};
    OUTR_AUTO(outr_err_list) warnings = {0};
    outr_snapshot *first;
    outr_reload *reload;
    outr_err err;
    (void)state;
    assert_int_equal(outr_snapshot_load(&first, &settings, NULL, &errors, &warnings), OUTR_OK);
    const outr_reload_options o = {.loop = loop, .settings = &settings, .current = first};
    assert_int_equal(outr_reload_start(&reload, &o, &err), OUTR_OK);
    outr_snapshot_unref(first);
    outr_reload_stop(reload);
    outr_reload_stop(NULL);
    outr_loop_free(loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_changed_tells_nothing),
        cmocka_unit_test(added_removed_and_changed_components_are_told_apart),
        cmocka_unit_test(subscriptions_change_in_place),
        cmocka_unit_test(rules_change_in_place),
        cmocka_unit_test(traffic_changes_in_place_and_what_is_odd_is_told),
        cmocka_unit_test(policies_change_in_place),
        cmocka_unit_test(kinds_that_cannot_change_in_place_ask_for_a_restart),
        cmocka_unit_test(a_broken_file_keeps_the_old_configuration_and_is_told_once),
        cmocka_unit_test(a_symlink_swap_is_noticed),
        cmocka_unit_test(a_write_is_noticed_without_asking),
        cmocka_unit_test(the_comparison_in_between_notices_what_no_event_told),
        cmocka_unit_test(reloads_leave_no_memory_behind),
        cmocka_unit_test(nothing_to_watch_is_stopped_without_a_trace),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
