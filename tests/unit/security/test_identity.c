#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "security/identity.h"

static void a_workloads_id_has_three_parts(void **state)
{
    outr_identity id;
    outr_err err;
    (void)state;
    assert_int_equal(outr_identity_parse(&id, OUTR_STR("spiffe://public/ns/default/orders"), &err),
                     OUTR_OK);
    assert_true(id.is_authenticated);
    assert_true(outr_str_is(id.trust_domain, "public"));
    assert_true(outr_str_is(id.namespace_, "default"));
    assert_true(outr_str_is(id.app_id, "orders"));
    assert_true(outr_str_is(id.id, "spiffe://public/ns/default/orders"));
    assert_int_equal(outr_identity_parse(&id, OUTR_STR("spiffe://a.b/ns/Prod/My_App-1/x/y"), &err),
                     OUTR_OK);
    assert_true(outr_str_is(id.namespace_, "Prod") && outr_str_is(id.app_id, "My_App-1"));
}

static void ids_of_no_workload_are_told_from_no_ids(void **state)
{
    static const outr_str none[] = {
        OUTR_STR("spiffe://public"),      OUTR_STR("spiffe://public/whatever"),
        OUTR_STR("spiffe://public/ns"),   OUTR_STR("spiffe://public/ns/default"),
        OUTR_STR("spiffe://public/nsx/default/a"), OUTR_STR("spiffe://public/NS/default/a"),
    };
    outr_identity id = {0};
    outr_err err;
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(none); i++) {
        if (outr_identity_parse(&id, none[i], &err) != OUTR_PERMISSION_DENIED)
            fail_msg("row %zu was taken", i);
        if (strncmp(err.text, "malformed SPIFFE ID: spiffe://public", 36) != 0)
            fail_msg("row %zu: %s", i, err.text);
    }
    assert_false(id.is_authenticated);
}

static void what_is_no_spiffe_id_is_refused(void **state)
{
    static const struct {
        outr_str text;
        const char *said;
    } bad[] = {
        {{NULL, 0}, "empty"},
        {OUTR_STR("https://public/ns/default/a"), "scheme"},
        {OUTR_STR("SPIFFE://public/ns/default/a"), "scheme"},
        {OUTR_STR("spiffe:/public/ns/default/a"), "scheme"},
        {OUTR_STR("spiffe:///ns/default/a"), "trust domain is missing"},
        {OUTR_STR("spiffe://Public/ns/default/a"), "trust domain characters"},
        {OUTR_STR("spiffe://public:80/ns/default/a"), "trust domain characters"},
        {OUTR_STR("spiffe://user@public/ns/default/a"), "trust domain characters"},
        {OUTR_STR("spiffe://public\0.evil/ns/default/a"), "trust domain characters"},
        {OUTR_STR("spiffe://public/ns/default/orders\0.evil"), "segment characters"},
        {OUTR_STR("spiffe://public/ns/default/orders\0"), "segment characters"},
        {OUTR_STR("spiffe://public/ns/default/a?x"), "segment characters"},
        {OUTR_STR("spiffe://public/ns/default/a#x"), "segment characters"},
        {OUTR_STR("spiffe://public/ns/default/a%2fb"), "segment characters"},
        {OUTR_STR("spiffe://public/ns/default/\xc3\xa4"), "segment characters"},
        {OUTR_STR("spiffe://public/"), "trailing slash"},
        {OUTR_STR("spiffe://public/ns/default/a/"), "trailing slash"},
        {OUTR_STR("spiffe://public/ns//a"), "empty segments"},
        {OUTR_STR("spiffe://public/ns/./a"), "dot segments"},
        {OUTR_STR("spiffe://public/ns/default/../a"), "dot segments"},
    };
    outr_identity id;
    outr_err err;
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(bad); i++) {
        if (outr_identity_parse(&id, bad[i].text, &err) != OUTR_INVALID_ARGUMENT)
            fail_msg("row %zu was taken", i);
        if (!strstr(err.text, bad[i].said))
            fail_msg("row %zu: %s", i, err.text);
    }
    char text[OUTR_SPIFFE_MAX + 1] = "spiffe://public/ns/default/";
    size_t n = strlen(text);
    memset(text + n, 'a', sizeof text - n);
    assert_int_equal(outr_identity_parse(&id, outr_str_of(text, sizeof text), &err),
                     OUTR_INVALID_ARGUMENT);
    assert_int_equal(outr_identity_parse(&id, outr_str_of(text, sizeof text - 1), &err), OUTR_OK);
}

static void the_path_of_an_app(void **state)
{
    outr_arena *arena = outr_arena_new(OUTR_KIB);
    (void)state;
    assert_true(outr_str_is(outr_identity_path(arena, OUTR_STR("default"), OUTR_STR("orders")),
                            "/ns/default/orders"));
    outr_arena_free(arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_workloads_id_has_three_parts),
        cmocka_unit_test(ids_of_no_workload_are_told_from_no_ids),
        cmocka_unit_test(what_is_no_spiffe_id_is_refused),
        cmocka_unit_test(the_path_of_an_app),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
