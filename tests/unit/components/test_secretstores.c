#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdlib.h>

#include "components/registry.h"
#include "lib/folder.h"
#include "lib/wire.h"

typedef struct bench {
    wire w;
    folder dir;
    outr_arena *arena;
    outr_kv metadata[4];
    const outr_secret_backend *backend;
    outr_secret_store *store;
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

static outr_code wait(bench *b)
{
    wire_run(&b->w);
    assert_true(b->is_done);
    return b->err.code;
}

static bench *make_bench(void)
{
    bench *b = outr_alloc(sizeof *b);
    wire_init(&b->w, 1);
    folder_make(&b->dir);
    b->arena = outr_arena_new(16 * OUTR_MIB);
    return b;
}

/* metadata: name, value, name, value, ..., NULL. What create or open said. */
static outr_code open_store(bench *b, const char *type, const char *const *metadata)
{
    size_t count = 0;
    for (; metadata && metadata[2 * count]; count++)
        b->metadata[count] =
            (outr_kv){outr_str_from(metadata[2 * count]), outr_str_from(metadata[2 * count + 1])};
    const outr_component_init init = {.name = OUTR_STR("secrets"),
                                      .type = outr_str_from(type),
                                      .version = OUTR_STR("v1"),
                                      .app_id = OUTR_STR("app"),
                                      .run_dir = outr_str_from(b->dir.path),
                                      .metadata = {b->metadata, count},
                                      .loop = b->w.loop};
    b->backend = outr_registry_secret(outr_str_from(type), OUTR_STR("v1"));
    assert_non_null(b->backend);
    outr_code rc = b->backend->create(&b->store, &init, &b->err);
    if (rc) {
        assert_null(b->store);
        return rc;
    }
    b->backend->open(b->store, begin(b));
    return wait(b);
}

/* A store over a file with this text. */
static bench *open_file(const char *text, const char *name, const char *value)
{
    bench *b = make_bench();
    folder_write(&b->dir, "secrets.json", text);
    const char *const metadata[] = {"secretsFile", folder_path(&b->dir, "secrets.json"), name,
                                    value, NULL};
    assert_int_equal(open_store(b, "secretstores.local.file", metadata), OUTR_OK);
    return b;
}

static void close_bench(bench *b)
{
    if (b->store) {
        b->backend->close(b->store, begin(b));
        assert_int_equal(wait(b), OUTR_OK);
    }
    outr_arena_free(b->arena);
    folder_remove(&b->dir);
    wire_done(&b->w);
    free(b);
}

static outr_code get(bench *b, const char *name, outr_secret_get *req)
{
    *req =
        (outr_secret_get){.arena = b->arena, .name = outr_str_from(name), .is_bulk = name == NULL};
    b->backend->get(b->store, req, begin(b));
    assert_false(b->is_done); /* never inside the start */
    return wait(b);
}

/* One name, one value under the same name. */
static void assert_secret(bench *b, const char *name, const char *value)
{
    outr_secret_get req;
    assert_int_equal(get(b, name, &req), OUTR_OK);
    assert_int_equal(req.count, 1);
    assert_int_equal(req.secrets->values.count, 1);
    const outr_kv *kv = req.secrets->values.items;
    if (!outr_str_is(kv->key, name) || !outr_str_is(kv->value, value))
        fail_msg("%s is " OUTR_FMT "=" OUTR_FMT, name, OUTR_ARG(kv->key), OUTR_ARG(kv->value));
}

static void assert_absent(bench *b, const char *name)
{
    outr_secret_get req;
    assert_int_equal(get(b, name, &req), OUTR_NOT_FOUND);
    assert_int_equal(req.count, 0);
    assert_non_null(strstr(b->err.text, name));
}

static const outr_secret *find(const outr_secret_get *req, const char *name)
{
    for (size_t i = 0; i < req->count; i++) {
        if (outr_str_is(req->secrets[i].name, name))
            return &req->secrets[i];
    }
    return NULL;
}

/* ---- local.file -------------------------------------------------------------------------------- */

static const char nested[] = "{\"plain\":\"p\",\"db\":{\"user\":\"u\",\"deep\":{\"pass\":\"w\"}},"
                             "\"list\":[\"x\",{\"y\":\"z\"}],\"empty\":{}}";

static void nested_names_are_joined(void **state)
{
    bench *b = open_file(nested, NULL, NULL);
    outr_secret_get req;
    (void)state;
    assert_secret(b, "plain", "p");
    assert_secret(b, "db:user", "u");
    assert_secret(b, "db:deep:pass", "w");
    assert_secret(b, "list:0", "x");
    assert_secret(b, "list:1:y", "z");
    assert_absent(b, "db");
    assert_absent(b, "empty");
    assert_absent(b, "Plain");
    assert_absent(b, "");
    assert_int_equal(b->backend->features(b->store) & OUTR_SECRET_MULTIPLE, 0);
    assert_int_equal(get(b, NULL, &req), OUTR_OK);
    assert_int_equal(req.count, 5);
    assert_non_null(find(&req, "db:deep:pass"));
    close_bench(b);
}

static void the_separator_can_be_chosen(void **state)
{
    bench *b = open_file(nested, "nestedSeparator", "__");
    (void)state;
    assert_secret(b, "db__deep__pass", "w");
    assert_absent(b, "db:user");
    close_bench(b);
    b = open_file(nested, "nestedSeparator", ""); /* as if it were not given */
    assert_secret(b, "db:user", "u");
    close_bench(b);
}

static void multi_valued_secrets_are_one_each(void **state)
{
    bench *b = open_file(nested, "multiValued", "true");
    outr_secret_get req;
    (void)state;
    assert_int_equal(b->backend->features(b->store) & OUTR_SECRET_MULTIPLE, OUTR_SECRET_MULTIPLE);
    assert_secret(b, "plain", "p");
    assert_int_equal(get(b, "db", &req), OUTR_OK);
    assert_int_equal(req.secrets->values.count, 2);
    assert_true(
        outr_str_is(outr_kvs_find_exact(req.secrets->values, OUTR_STR("user"))->value, "u"));
    assert_true(
        outr_str_is(outr_kvs_find_exact(req.secrets->values, OUTR_STR("deep:pass"))->value, "w"));
    assert_absent(b, "db:user");
    assert_int_equal(get(b, "empty", &req), OUTR_OK);
    assert_int_equal(req.secrets->values.count, 0);
    assert_int_equal(get(b, NULL, &req), OUTR_OK);
    assert_int_equal(req.count, 4);
    close_bench(b);
}

static void what_is_no_text_is_written_as_text(void **state)
{
    bench *b =
        open_file("{\"n\":5432,\"f\":1.50,\"t\":true,\"e\":\"\",\"u\":\"\\u00e9\\n\"}", NULL, NULL);
    (void)state;
    assert_secret(b, "n", "5432");
    assert_secret(b, "f", "1.5");
    assert_secret(b, "t", "true");
    assert_secret(b, "e", "");
    assert_secret(b, "u", "\xc3\xa9\n");
    close_bench(b);
}

static void of_a_name_given_twice_the_last_counts(void **state)
{
    bench *b = open_file("{\"a\":\"old\",\"b\":\"x\",\"a\":\"new\"}", NULL, NULL);
    (void)state;
    assert_secret(b, "a", "new");
    close_bench(b);
    b = open_file("{\"a\":{\"k\":\"old\"},\"a\":{\"k\":\"new\"}}", "multiValued", "true");
    outr_secret_get req;
    assert_int_equal(get(b, "a", &req), OUTR_OK);
    assert_true(outr_str_is(req.secrets->values.items[0].value, "new"));
    close_bench(b);
}

static void a_missing_file_is_named(void **state)
{
    bench *b = make_bench();
    const char *const metadata[] = {"secretsFile", folder_path(&b->dir, "nowhere.json"), NULL};
    (void)state;
    assert_int_equal(open_store(b, "secretstores.local.file", metadata), OUTR_NOT_FOUND);
    assert_non_null(strstr(b->err.text, "nowhere.json"));
    close_bench(b);
}

static void a_file_that_is_no_object_is_refused_without_its_text(void **state)
{
    static const char *const bad[] = {"",
                                      "{\"password\": hunter2}",
                                      "[\"hunter2\"]",
                                      "hunter2",
                                      "{\"a\":\"hunter2\"",
                                      "\"hunter2\"",
                                      "{\"a\":1}hunter2"};
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(bad); i++) {
        bench *b = make_bench();
        folder_write(&b->dir, "secrets.json", bad[i]);
        const char *const metadata[] = {"secretsFile", folder_path(&b->dir, "secrets.json"), NULL};
        assert_int_equal(open_store(b, "secretstores.local.file", metadata), OUTR_INVALID_ARGUMENT);
        assert_non_null(strstr(b->err.text, "secrets.json"));
        assert_null(strstr(b->err.text, "hunter2"));
        close_bench(b);
    }
}

static void a_folder_is_no_file(void **state)
{
    bench *b = make_bench();
    const char *const metadata[] = {"secretsFile", b->dir.path, NULL};
    (void)state;
    assert_int_not_equal(open_store(b, "secretstores.local.file", metadata), OUTR_OK);
    assert_non_null(strstr(b->err.text, b->dir.path));
    close_bench(b);
}

static void without_a_file_there_is_no_store(void **state)
{
    bench *b = make_bench();
    (void)state;
    assert_int_equal(open_store(b, "secretstores.local.file", NULL), OUTR_INVALID_ARGUMENT);
    assert_non_null(strstr(b->err.text, "secretsFile"));
    close_bench(b);
}

static void a_file_over_the_limit_is_refused(void **state)
{
    OUTR_AUTO(outr_buf) text = OUTR_BUF_MAX(8 * OUTR_MIB);
    bench *b = make_bench();
    (void)state;
    outr_buf_z(&text, "{\"a\":\"");
    while (text.n < 4 * OUTR_MIB)
        outr_buf_z(&text, "0123456789abcdef");
    outr_buf_z(&text, "\"}");
    outr_buf_char(&text, 0);
    folder_write(&b->dir, "secrets.json", text.p);
    const char *const metadata[] = {"secretsFile", folder_path(&b->dir, "secrets.json"), NULL};
    assert_int_equal(open_store(b, "secretstores.local.file", metadata), OUTR_INVALID_ARGUMENT);
    assert_non_null(strstr(b->err.text, "larger"));
    close_bench(b);
}

/* Names join over all levels: a small file can ask for many times its size. */
static void long_names_in_a_deep_file_do_not_end_the_process(void **state)
{
    OUTR_AUTO(outr_buf) text = OUTR_BUF_MAX(8 * OUTR_MIB);
    bench *b = make_bench();
    (void)state;
    for (int depth = 0; depth < 500; depth++) {
        outr_buf_z(&text, "{\"");
        for (int i = 0; i < 400; i++)
            outr_buf_z(&text, "0123456789");
        outr_buf_z(&text, "\":");
    }
    outr_buf_z(&text, "1");
    for (int depth = 0; depth < 500; depth++)
        outr_buf_z(&text, "}");
    outr_buf_char(&text, 0);
    folder_write(&b->dir, "secrets.json", text.p);
    const char *const metadata[] = {"secretsFile", folder_path(&b->dir, "secrets.json"), NULL};
    assert_int_equal(open_store(b, "secretstores.local.file", metadata), OUTR_RESOURCE_EXHAUSTED);
    close_bench(b);
}

/* ---- local.env --------------------------------------------------------------------------------- */

static void variables_are_secrets(void **state)
{
    bench *b = make_bench();
    outr_secret_get req;
    (void)state;
    setenv("OUTR_TEST_SECRET", "s=3", 1);
    setenv("OUTR_TEST_EMPTY", "", 1);
    unsetenv("OUTR_TEST_ABSENT");
    assert_int_equal(open_store(b, "secretstores.local.env", NULL), OUTR_OK);
    assert_int_equal(b->backend->features(b->store), 0);
    assert_secret(b, "OUTR_TEST_SECRET", "s=3");
    assert_secret(b, "OUTR_TEST_EMPTY", "");
    assert_secret(b, "OUTR_TEST_ABSENT", ""); /* Dapr answers 200 with an empty value */
    assert_int_equal(get(b, NULL, &req), OUTR_OK);
    assert_non_null(find(&req, "OUTR_TEST_SECRET"));
    assert_null(find(&req, "OUTR_TEST_ABSENT"));
    close_bench(b);
}

static void what_is_the_sidecars_own_is_no_secret(void **state)
{
    static const char *const reserved[] = {"DAPR_API_TOKEN", "APP_API_TOKEN", "dapr_trust_anchors",
                                           "app_api_token"};
    bench *b = make_bench();
    outr_secret_get req;
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(reserved); i++)
        setenv(reserved[i], "hidden", 1);
    assert_int_equal(open_store(b, "secretstores.local.env", NULL), OUTR_OK);
    for (size_t i = 0; i < OUTR_LEN(reserved); i++)
        assert_secret(b, reserved[i], "");
    assert_int_equal(get(b, NULL, &req), OUTR_OK);
    for (size_t i = 0; i < req.count; i++)
        assert_false(outr_str_is(req.secrets[i].values.items[0].value, "hidden"));
    for (size_t i = 0; i < OUTR_LEN(reserved); i++)
        unsetenv(reserved[i]);
    close_bench(b);
}

static void a_prefix_is_put_before_and_cut_off(void **state)
{
    bench *b = make_bench();
    const char *const metadata[] = {"prefix", "OUTR_TEST_", NULL};
    outr_secret_get req;
    (void)state;
    setenv("OUTR_TEST_SECRET", "one", 1);
    setenv("OUTR_OTHER", "two", 1);
    assert_int_equal(open_store(b, "secretstores.local.env", metadata), OUTR_OK);
    assert_secret(b, "SECRET", "one");
    assert_secret(b, "OUTR_OTHER", "");
    assert_int_equal(get(b, NULL, &req), OUTR_OK);
    assert_non_null(find(&req, "SECRET"));
    assert_null(find(&req, "OUTR_OTHER"));
    assert_null(find(&req, "OUTR_TEST_SECRET"));
    close_bench(b);
}

/* With a prefix like this the whole name is what is forbidden. */
static void a_prefix_opens_nothing_that_is_reserved(void **state)
{
    bench *b = make_bench();
    const char *const metadata[] = {"prefix", "DAPR_", NULL};
    outr_secret_get req;
    (void)state;
    setenv("DAPR_API_TOKEN", "hidden", 1);
    assert_int_equal(open_store(b, "secretstores.local.env", metadata), OUTR_OK);
    assert_secret(b, "API_TOKEN", "");
    assert_int_equal(get(b, NULL, &req), OUTR_OK);
    assert_int_equal(req.count, 0);
    unsetenv("DAPR_API_TOKEN");
    close_bench(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nested_names_are_joined),
        cmocka_unit_test(the_separator_can_be_chosen),
        cmocka_unit_test(multi_valued_secrets_are_one_each),
        cmocka_unit_test(what_is_no_text_is_written_as_text),
        cmocka_unit_test(of_a_name_given_twice_the_last_counts),
        cmocka_unit_test(a_missing_file_is_named),
        cmocka_unit_test(a_file_that_is_no_object_is_refused_without_its_text),
        cmocka_unit_test(a_folder_is_no_file),
        cmocka_unit_test(without_a_file_there_is_no_store),
        cmocka_unit_test(a_file_over_the_limit_is_refused),
        cmocka_unit_test(long_names_in_a_deep_file_do_not_end_the_process),
        cmocka_unit_test(variables_are_secrets),
        cmocka_unit_test(what_is_the_sidecars_own_is_no_secret),
        cmocka_unit_test(a_prefix_is_put_before_and_cut_off),
        cmocka_unit_test(a_prefix_opens_nothing_that_is_reserved),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
