#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <pthread.h>
#include <sched.h>
#include <sys/stat.h>
#include <unistd.h>

#include "config/snapshot.h"
#include "lib/folder.h"

/* A folder of resources and what came of loading it. */
typedef struct bench {
    folder f;
    outr_settings settings;
    char *const *envp;
    outr_snapshot *snapshot;
    outr_err_list errors, warnings;
} bench;

static void open_bench(bench *b)
{
    *b = (bench){.settings = {.app_id = OUTR_STR("app"), .namespace_ = OUTR_STR("default")}};
    folder_make(&b->f);
    b->settings.resources_paths.items[0] = outr_str_from(b->f.path);
    b->settings.resources_paths.count = 1;
}

static void unload(bench *b)
{
    outr_snapshot_unref(b->snapshot);
    b->snapshot = NULL;
    outr_err_list_done(&b->errors);
    outr_err_list_done(&b->warnings);
    b->errors = b->warnings = (outr_err_list){0};
}

static outr_code load(bench *b)
{
    unload(b);
    return outr_snapshot_load(&b->snapshot, &b->settings, b->envp, &b->errors, &b->warnings);
}

static void must_load(bench *b)
{
    if (load(b))
        fail_msg("%s", b->errors.items[0].text);
}

static void close_bench(bench *b)
{
    unload(b);
    folder_remove(&b->f);
}

static bool has(const outr_err_list *list, const char *text)
{
    for (size_t i = 0; i < list->count; i++) {
        if (strstr(list->items[i].text, text))
            return true;
    }
    return false;
}

static void assert_told(const outr_err_list *list, const char *text)
{
    if (has(list, text))
        return;
    for (size_t i = 0; i < list->count; i++)
        print_message("  %s\n", list->items[i].text);
    fail_msg("nothing says \"%s\"", text);
}

#define HEAD            "apiVersion: dapr.io/v1alpha1\nkind: Component\n"
#define COMPONENT(name) HEAD "metadata: {name: " name "}\nspec: {type: state.x}\n"

static void components_of_all_files_are_there_in_the_order_of_names(void **state)
{
    bench b;
    (void)state;
    open_bench(&b);
    folder_write(&b.f, "b.yaml", COMPONENT("two") "---\n" COMPONENT("three"));
    folder_write(&b.f, "a.yml", COMPONENT("one"));
    must_load(&b);
    assert_int_equal(b.snapshot->component_count, 3);
    assert_true(outr_str_is(b.snapshot->components[0].base.name, "one"));
    assert_true(outr_str_is(b.snapshot->components[1].base.name, "two"));
    assert_true(outr_str_is(b.snapshot->components[2].base.name, "three"));
    assert_int_equal(b.warnings.count, 0);
    close_bench(&b);
}

static void other_files_and_folders_inside_are_not_read(void **state)
{
    bench b;
    (void)state;
    open_bench(&b);
    folder_write(&b.f, "a.json", "{");
    folder_write(&b.f, "a.yaml.bak", "{");
    folder_write(&b.f, ".hidden.yaml", "{");
    mkdir(folder_path(&b.f, "sub"), 0700);
    folder_write(&b.f, "sub/c.yaml", COMPONENT("inside"));
    must_load(&b);
    assert_int_equal(b.snapshot->component_count, 0);
    assert_int_equal(b.warnings.count, 0);
    close_bench(&b);
}

static void other_groups_and_empty_documents_are_skipped(void **state)
{
    bench b;
    (void)state;
    open_bench(&b);
    folder_write(&b.f, "a.yaml",
                 "---\n---\napiVersion: v1\nkind: Component\n---\n- a list\n---\ntext\n---\n"
                 "apiVersion: apps/v1\nkind: Deployment\n---\n" COMPONENT("one"));
    folder_write(&b.f, "empty.yaml", "");
    must_load(&b);
    assert_int_equal(b.snapshot->component_count, 1);
    close_bench(&b);
}

static void a_kind_not_acted_on_is_a_warning(void **state)
{
    bench b;
    (void)state;
    open_bench(&b);
    folder_write(&b.f, "a.yaml",
                 "apiVersion: dapr.io/v1alpha1\nkind: MCPServer\nmetadata: {name: m}\n");
    must_load(&b);
    assert_told(&b.warnings, "MCPServer");
    assert_told(&b.warnings, "a.yaml:1:1");
    close_bench(&b);
}

static void scopes_keep_what_names_this_app(void **state)
{
    bench b;
    (void)state;
    open_bench(&b);
    folder_write(
        &b.f, "a.yaml",
        COMPONENT("all") "---\n" COMPONENT("ours") "scopes: [other, app]\n---\n" COMPONENT(
            "theirs") "scopes: [other]\n---\n" COMPONENT("none") "scopes: []\n---\n" COMPONENT("Ap"
                                                                                               "p") "scopes: [App]\n");
    must_load(&b);
    assert_int_equal(b.snapshot->component_count, 3);
    assert_true(outr_str_is(b.snapshot->components[0].base.name, "all"));
    assert_true(outr_str_is(b.snapshot->components[1].base.name, "ours"));
    assert_true(outr_str_is(b.snapshot->components[2].base.name, "none"));
    close_bench(&b);
}

static void scopes_that_are_no_list_are_a_mistake(void **state)
{
    bench b;
    (void)state;
    open_bench(&b);
    folder_write(&b.f, "a.yaml", COMPONENT("x") "scopes: app\n");
    assert_int_not_equal(load(&b), OUTR_OK);
    assert_told(&b.errors, "a.yaml:5:9: scopes: must be a list");
    close_bench(&b);
}

static void a_namespace_counts_only_when_both_have_one(void **state)
{
    bench b;
    (void)state;
    open_bench(&b);
    folder_write(&b.f, "a.yaml",
                 HEAD "metadata: {name: a, namespace: prod}\nspec: {type: s.x}\n---\n" HEAD
                      "metadata: {name: b, namespace: test}\nspec: {type: s.x}\n---\n" HEAD
                      "metadata: {name: c}\nspec: {type: s.x}\n");
    must_load(&b);
    assert_int_equal(b.snapshot->component_count, 3);
    b.settings.has_namespace = true;
    b.settings.namespace_ = OUTR_STR("prod");
    must_load(&b);
    assert_int_equal(b.snapshot->component_count, 2);
    assert_true(outr_str_is(b.snapshot->components[0].base.name, "a"));
    assert_true(outr_str_is(b.snapshot->components[1].base.name, "c"));
    close_bench(&b);
}

static void a_name_used_twice_names_both_places(void **state)
{
    bench b;
    (void)state;
    open_bench(&b);
    folder_write(&b.f, "a.yaml", COMPONENT("one"));
    folder_write(&b.f, "b.yaml", COMPONENT("two") "---\n" COMPONENT("one"));
    assert_int_not_equal(load(&b), OUTR_OK);
    assert_int_equal(b.errors.count, 1);
    assert_told(&b.errors, "b.yaml:6");
    assert_told(&b.errors, "a.yaml:1");
    close_bench(&b);
}

static void a_name_may_be_used_again_out_of_scope_or_by_another_kind(void **state)
{
    bench b;
    (void)state;
    open_bench(&b);
    folder_write(&b.f, "a.yaml",
                 COMPONENT("one") "---\n" COMPONENT("one") "scopes: [other]\n---\n"
                                                           "apiVersion: dapr.io/v1alpha1\n"
                                                           "kind: HTTPEndpoint\n"
                                                           "metadata: {name: one}\n"
                                                           "spec: {baseUrl: \"http://x\"}\n");
    must_load(&b);
    assert_int_equal(b.snapshot->component_count, 1);
    assert_int_equal(b.snapshot->endpoint_count, 1);
    close_bench(&b);
}

static void every_kind_is_read_with_its_version(void **state)
{
    bench b;
    (void)state;
    open_bench(&b);
    folder_write(&b.f, "a.yaml",
                 "apiVersion: dapr.io/v1alpha1\nkind: Subscription\nmetadata: {name: s1}\n"
                 "spec: {pubsubname: p, topic: t, route: /r}\n---\n"
                 "apiVersion: dapr.io/v2alpha1\nkind: Subscription\nmetadata: {name: s2}\n"
                 "spec: {pubsubname: p, topic: t, routes: {default: /r}}\n---\n"
                 "apiVersion: dapr.io/v1alpha1\nkind: Resiliency\nmetadata: {name: r}\n"
                 "spec: {policies: {timeouts: {a: 1s}}}\n---\n"
                 "apiVersion: dapr.io/v2alpha1\nkind: Component\nmetadata: {name: c}\n");
    must_load(&b);
    assert_int_equal(b.snapshot->subscription_count, 2);
    assert_int_equal(b.snapshot->resiliency_count, 1);
    assert_int_equal(b.snapshot->component_count, 0);
    close_bench(&b);
}

static void a_resource_has_a_name(void **state)
{
    static const char *const metadata[] = {"{}", "{name: }", "{name: \"\"}", "{name: [a]}", "text"};
    bench b;
    (void)state;
    open_bench(&b);
    for (size_t i = 0; i < OUTR_LEN(metadata); i++) {
        char text[160];
        snprintf(text, sizeof text, HEAD "metadata: %s\nspec: {type: state.x}\n", metadata[i]);
        folder_write(&b.f, "a.yaml", text);
        assert_int_not_equal(load(&b), OUTR_OK);
        assert_told(&b.errors, "metadata.name: required");
    }
    close_bench(&b);
}

static void mistakes_of_all_files_come_at_once(void **state)
{
    bench b;
    (void)state;
    open_bench(&b);
    folder_write(&b.f, "a.yaml", HEAD "metadata: {name: a}\nspec: {version: v1}\n");
    folder_write(&b.f, "b.yaml", HEAD "spec: {type: state.x, ignoreErrors: what}\n");
    assert_int_not_equal(load(&b), OUTR_OK);
    assert_told(&b.errors, "a.yaml:4:7: spec.type: required");
    assert_told(&b.errors, "b.yaml:1:1: metadata.name: required");
    assert_told(&b.errors, "b.yaml:3:37: spec.ignoreErrors");
    assert_null(b.snapshot);
    close_bench(&b);
}

static void a_file_that_is_not_yaml_is_skipped_and_named(void **state)
{
    bench b;
    (void)state;
    open_bench(&b);
    folder_write(&b.f, "bad.yaml", "a: [1,\nb: {\n");
    folder_write(&b.f, "good.yaml", COMPONENT("one"));
    must_load(&b);
    assert_int_equal(b.snapshot->component_count, 1);
    assert_told(&b.warnings, "bad.yaml:3:1:");
    assert_told(&b.warnings, "the file is skipped");
    close_bench(&b);
}

static void what_is_no_file_of_bearable_size_is_skipped(void **state)
{
    bench b;
    (void)state;
    open_bench(&b);
    mkdir(folder_path(&b.f, "dir.yaml"), 0700);
    assert_int_equal(mkfifo(folder_path(&b.f, "fifo.yaml"), 0600), 0);
    assert_int_equal(symlink("/nowhere", folder_path(&b.f, "dangling.yaml")), 0);
    folder_write(&b.f, "huge.yaml", "");
    assert_int_equal(truncate(folder_path(&b.f, "huge.yaml"), (off_t)64 * 1024 * 1024), 0);
    folder_write(&b.f, "good.yaml", COMPONENT("one"));
    must_load(&b);
    assert_int_equal(b.snapshot->component_count, 1);
    assert_told(&b.warnings, "dir.yaml");
    assert_told(&b.warnings, "fifo.yaml");
    assert_told(&b.warnings, "dangling.yaml");
    assert_told(&b.warnings, "huge.yaml");
    close_bench(&b);
}

static void aliases_cannot_blow_up(void **state)
{
    bench b;
    (void)state;
    open_bench(&b);
    folder_write(&b.f, "a.yaml",
                 "a: &a [x,x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\n"
                 "c: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\n"
                 "e: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: [*e,*e,*e,*e,*e,*e,*e,*e,*e,*e]\n");
    must_load(&b);
    assert_told(&b.warnings, "a.yaml");
    close_bench(&b);
}

static void a_folder_that_is_not_there_is_an_error(void **state)
{
    bench b;
    (void)state;
    open_bench(&b);
    b.settings.resources_paths.items[1] = OUTR_STR("/nowhere/at/all");
    b.settings.resources_paths.count = 2;
    assert_int_not_equal(load(&b), OUTR_OK);
    assert_told(&b.errors, "/nowhere/at/all");
    close_bench(&b);
}

/* ---- Configuration -------------------------------------------------------------------------- */

static void configure(bench *b, const char *name, const char *text)
{
    folder_write(&b->f, name, text);
    outr_strs *files = &b->settings.config_files;
    files->items[files->count] =
        outr_str_of(outr_strdup(folder_path(&b->f, name)), strlen(folder_path(&b->f, name)));
    files->count++;
}

static void forget_configurations(bench *b)
{
    for (size_t i = 0; i < b->settings.config_files.count; i++)
        free((void *)b->settings.config_files.items[i].p);
    b->settings.config_files.count = 0;
}

static void configuration_files_merge_and_the_later_wins(void **state)
{
    bench b;
    (void)state;
    open_bench(&b);
    configure(&b, "1.conf",
              "kind: Configuration\nspec: {metrics: {enabled: false},"
              " nameResolution: {component: dns}}\n");
    configure(&b, "2.conf",
              "kind: Other\n---\nkind: Configuration\n"
              "spec: {nameResolution: {component: sqlite}}\n");
    must_load(&b);
    assert_false(b.snapshot->configuration.metrics_is_on);
    assert_true(outr_str_is(b.snapshot->configuration.name_resolution_component, "sqlite"));
    forget_configurations(&b);
    close_bench(&b);
}

static void variables_are_replaced_in_configurations_only(void **state)
{
    char *const envp[] = {"NAME=dns", "A_1=x", NULL};
    bench b;
    (void)state;
    open_bench(&b);
    b.envp = envp;
    configure(&b, "1.conf",
              "kind: Configuration\nspec:\n  nameResolution: {component: \"$NAME-${A_1}$NONE\"}\n"
              "  metrics: {http: {pathMatching: [\"/a$\", \"/b$ c\", \"$$1x${}\"]}}\n"
              "  tracing: {zipkin: {endpointAddress: $NAME\n  }}\n# ${NAME without an end");
    folder_write(&b.f, "a.yaml", COMPONENT("$NAME"));
    must_load(&b);
    const outr_configuration *c = &b.snapshot->configuration;
    assert_true(outr_str_is(c->name_resolution_component, "dns-x"));
    assert_true(outr_str_is(c->metrics_paths[0], "/a$"));
    assert_true(outr_str_is(c->metrics_paths[1], "/b$ c"));
    assert_true(outr_str_is(c->metrics_paths[2], "1x"));
    assert_true(outr_str_is(c->zipkin_url, "dns"));
    assert_true(outr_str_is(b.snapshot->components[0].base.name, "$NAME"));
    forget_configurations(&b);
    close_bench(&b);
}

static void a_configuration_that_cannot_be_read_is_an_error(void **state)
{
    bench b;
    (void)state;
    open_bench(&b);
    b.settings.config_files.items[0] = OUTR_STR("/nowhere/config.yaml");
    b.settings.config_files.count = 1;
    assert_int_not_equal(load(&b), OUTR_OK);
    assert_told(&b.errors, "/nowhere/config.yaml");
    b.settings.config_files.count = 0;
    configure(&b, "1.conf", "kind: [");
    assert_int_not_equal(load(&b), OUTR_OK);
    assert_told(&b.errors, "1.conf:");
    forget_configurations(&b);
    close_bench(&b);
}

static void denied_component_types_are_left_out_and_said(void **state)
{
    static const struct {
        const char *rule;
        bool is_denied;
    } rows[] = {
        {"state.x", true},     {"state.x/v1", true}, {"STATE.X", true},  {"state.*", true},
        {"state.x/v2", false}, {"state", false},     {"state.y", false}, {"state.xx*", false},
        {"state.x/*", true},   {"*", true},
    };
    bench b;
    (void)state;
    open_bench(&b);
    folder_write(&b.f, "a.yaml", COMPONENT("one"));
    for (size_t i = 0; i < OUTR_LEN(rows); i++) {
        char text[160];
        snprintf(text, sizeof text, "kind: Configuration\nspec: {components: {deny: [\"%s\"]}}\n",
                 rows[i].rule);
        configure(&b, "1.conf", text);
        must_load(&b);
        if (b.snapshot->component_count != !rows[i].is_denied)
            fail_msg("%s: %zu components", rows[i].rule, b.snapshot->component_count);
        assert_int_equal(has(&b.warnings, "denied"), rows[i].is_denied);
        forget_configurations(&b);
    }
    close_bench(&b);
}

/* ---- digests, references ---------------------------------------------------------------------- */

static void a_digest_is_of_the_content_alone(void **state)
{
    bench b;
    (void)state;
    open_bench(&b);
    folder_write(&b.f, "a.yaml", COMPONENT("one"));
    must_load(&b);
    uint64_t digest = b.snapshot->components[0].base.digest;
    unlink(folder_path(&b.f, "a.yaml"));
    folder_write(&b.f, "b.yaml", "# a comment\n" COMPONENT("one"));
    must_load(&b);
    assert_true(b.snapshot->components[0].base.digest == digest);
    folder_write(&b.f, "b.yaml", COMPONENT("one") "auth: {secretStore: s}\n");
    must_load(&b);
    assert_false(b.snapshot->components[0].base.digest == digest);
    close_bench(&b);
}

static void a_snapshot_lives_as_long_as_its_references(void **state)
{
    bench b;
    (void)state;
    open_bench(&b);
    folder_write(&b.f, "a.yaml", COMPONENT("one"));
    must_load(&b);
    outr_snapshot *other = outr_snapshot_ref(b.snapshot);
    unload(&b);
    assert_true(outr_str_is(other->components[0].base.name, "one"));
    outr_snapshot_unref(other);
    outr_snapshot_unref(NULL);
    close_bench(&b);
}

/* ---- parts ----------------------------------------------------------------------------------- */

#define ASKERS 8

typedef struct made {
    unsigned times_made, times_freed;
} made;

typedef struct asker {
    pthread_t thread;
    const outr_snapshot *snapshot;
    pthread_barrier_t *start;
    made *ctx;
    void *part;
} asker;

/* Others have come by the time it returns: they have to wait. */
static void *make_slowly(const outr_snapshot *snapshot OUTR_UNUSED, const void *ctx)
{
    made *m = (made *)(uintptr_t)ctx;
    m->times_made++;
    for (int i = 0; i < 1000; i++)
        sched_yield();
    return m;
}

static void free_made(void *part)
{
    ((made *)part)->times_freed++;
}

static void *ask(void *arg)
{
    static const outr_part_ops ops = {make_slowly, free_made};
    asker *a = arg;
    pthread_barrier_wait(a->start);
    a->part = outr_snapshot_part(a->snapshot, OUTR_PART_ROUTES, &ops, a->ctx);
    return NULL;
}

static void a_part_is_made_once_whoever_asks(void **state)
{
    outr_snapshot *s = outr_snapshot_new(outr_arena_new(OUTR_MIB));
    asker askers[ASKERS];
    pthread_barrier_t start;
    made m = {0};
    (void)state;
    pthread_barrier_init(&start, NULL, ASKERS);
    for (size_t i = 0; i < ASKERS; i++) {
        askers[i] = (asker){.snapshot = s, .start = &start, .ctx = &m};
        assert_int_equal(pthread_create(&askers[i].thread, NULL, ask, &askers[i]), 0);
    }
    for (size_t i = 0; i < ASKERS; i++) {
        pthread_join(askers[i].thread, NULL);
        assert_ptr_equal(askers[i].part, &m);
    }
    assert_int_equal(m.times_made, 1);
    assert_int_equal(m.times_freed, 0);
    outr_snapshot_unref(s);
    assert_int_equal(m.times_freed, 1);
    pthread_barrier_destroy(&start);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(components_of_all_files_are_there_in_the_order_of_names),
        cmocka_unit_test(other_files_and_folders_inside_are_not_read),
        cmocka_unit_test(other_groups_and_empty_documents_are_skipped),
        cmocka_unit_test(a_kind_not_acted_on_is_a_warning),
        cmocka_unit_test(scopes_keep_what_names_this_app),
        cmocka_unit_test(scopes_that_are_no_list_are_a_mistake),
        cmocka_unit_test(a_namespace_counts_only_when_both_have_one),
        cmocka_unit_test(a_name_used_twice_names_both_places),
        cmocka_unit_test(a_name_may_be_used_again_out_of_scope_or_by_another_kind),
        cmocka_unit_test(every_kind_is_read_with_its_version),
        cmocka_unit_test(a_resource_has_a_name),
        cmocka_unit_test(mistakes_of_all_files_come_at_once),
        cmocka_unit_test(a_file_that_is_not_yaml_is_skipped_and_named),
        cmocka_unit_test(what_is_no_file_of_bearable_size_is_skipped),
        cmocka_unit_test(aliases_cannot_blow_up),
        cmocka_unit_test(a_folder_that_is_not_there_is_an_error),
        cmocka_unit_test(configuration_files_merge_and_the_later_wins),
        cmocka_unit_test(variables_are_replaced_in_configurations_only),
        cmocka_unit_test(a_configuration_that_cannot_be_read_is_an_error),
        cmocka_unit_test(denied_component_types_are_left_out_and_said),
        cmocka_unit_test(a_digest_is_of_the_content_alone),
        cmocka_unit_test(a_snapshot_lives_as_long_as_its_references),
        cmocka_unit_test(a_part_is_made_once_whoever_asks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
