#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "tls/claims.h"

/* "name=value,value;..." in the order of names. */
static void check(const char *json, const char *wanted)
{
    OUTR_AUTO(outr_buf) got = OUTR_BUF_MAX(OUTR_MIB);
    outr_arena *arena = outr_arena_new(OUTR_MIB);
    outr_json *object;
    outr_err err;
    if (outr_json_parse(&object, arena, outr_str_from(json), &err))
        fail_msg("%s: %s", json, err.text);
    outr_claims *claims = outr_claims_new(object, arena);
    for (size_t i = 0, count; i < claims->count; i += count) {
        outr_str name = claims->items[i].name;
        assert_ptr_equal(outr_claims_find(claims, name, &count), &claims->items[i]);
        outr_buf_printf(&got, OUTR_FMT "=" OUTR_FMT ";", OUTR_ARG(name),
                        OUTR_ARG(outr_claims_text(claims, name, arena)));
    }
    if (!outr_str_is(outr_buf_view(&got), wanted))
        fail_msg("%s: \"" OUTR_FMT "\"", json, OUTR_ARG(outr_buf_view(&got)));
    outr_claims_unref(claims);
    outr_arena_free(arena);
}

static void scalars_arrays_and_objects_become_names_with_values(void **state)
{
    (void)state;
    check("{}", "");
    check("[1]", "");
    check("{\"sub\":\"a\",\"n\":1.50,\"t\":true,\"f\":false,\"z\":null}",
          "f=false;n=1.50;sub=a;t=true;");
    check("{\"roles\":[\"b\",\"a\",7,null,{},[\"x\"]]}", "roles=b,a,7;");
    check("{\"realm\":{\"roles\":[\"a\"],\"x\":{\"y\":1}},\"b\":\"\"}",
          "b=;realm.roles=a;realm.x.y=1;");
    check("{\"https://x.org/roles\":[\"a\",\"b\"]}", "https://x.org/roles=a,b;");
}

static void a_scope_is_split_at_its_spaces(void **state)
{
    (void)state;
    check("{\"scope\":\"read  write \",\"other\":\"a b\"}", "other=a b;scope=read,write;");
    check("{\"scope\":[\"read write\"]}", "scope=read,write;");
    check("{\"scope\":\"\"}", "");
}

static void of_two_of_one_name_the_last_counts(void **state)
{
    (void)state;
    check("{\"role\":\"admin\",\"role\":\"guest\"}", "role=guest;");
    check("{\"role\":[\"admin\"],\"role\":null}", "");
    check("{\"a\":{\"b\":\"joined\"},\"a.b\":\"own\"}", "a.b=own;");
    check("{\"a.b\":\"own\",\"a\":{\"b\":\"joined\"}}", "a.b=own;");
    check("{\"a\":{\"b\":\"x\"},\"a\":{\"c\":\"y\"}}", "a.c=y;");
}

static void objects_end_somewhere(void **state)
{
    (void)state;
    check("{\"a\":{\"b\":{\"c\":{\"d\":{\"e\":1,\"f\":{\"g\":2}}}}}}", "a.b.c.d.e=1;");
}

static void what_is_not_said_is_not_found(void **state)
{
    outr_arena *arena = outr_arena_new(OUTR_MIB);
    outr_json *object;
    size_t count = 7;
    (void)state;
    assert_int_equal(outr_json_parse(&object, arena, OUTR_STR("{\"b\":1,\"d\":2}"), NULL), OUTR_OK);
    outr_claims *claims = outr_claims_new(object, arena);
    static const char *const names[] = {"", "a", "c", "e", "bb"};
    for (size_t i = 0; i < OUTR_LEN(names); i++) {
        assert_null(outr_claims_find(claims, outr_str_from(names[i]), &count));
        assert_int_equal(count, 0);
    }
    assert_null(outr_claims_find(NULL, OUTR_STR("b"), &count));
    assert_null(outr_claims_text(claims, OUTR_STR("a"), arena).p);
    outr_claims *again = outr_claims_ref(claims);
    outr_claims_unref(claims);
    assert_non_null(outr_claims_find(again, OUTR_STR("b"), &count));
    outr_claims_unref(again);
    outr_claims_unref(NULL);
    outr_arena_free(arena);
}

/* Names are joined anew for each member, and a token's length limits none of both alone. */
static void long_names_do_not_multiply(void **state)
{
    (void)state;
    OUTR_AUTO(outr_buf) text = OUTR_BUF_MAX(12 * OUTR_KIB); /* as much as a token may hold */
    outr_buf_z(&text, "{\"");
    for (int i = 0; i < 6000; i++)
        outr_buf_char(&text, 'n');
    outr_buf_z(&text, "\":{\"a\":1");
    for (int i = 0; text.n < text.max - 16; i++)
        outr_buf_printf(&text, ",\"%x\":{}", (unsigned)i);
    outr_buf_z(&text, "},\"b\":{\"c\":2}}");
    outr_arena *arena = outr_arena_new(16 * OUTR_MIB);
    outr_json *object;
    outr_err err;
    size_t count;
    assert_int_equal(outr_json_parse(&object, arena, outr_buf_view(&text), &err), OUTR_OK);
    size_t before = outr_arena_used(arena);
    outr_claims *claims = outr_claims_new(object, arena);
    assert_true(outr_arena_used(arena) - before < OUTR_MIB);
    assert_non_null(outr_claims_find(claims, OUTR_STR("b.c"), &count));
    outr_claims_unref(claims);
    outr_arena_free(arena);
}

static void a_name_is_kept_once_for_all_its_values(void **state)
{
    (void)state;
    OUTR_AUTO(outr_buf) text = OUTR_BUF_MAX(12 * OUTR_KIB);
    outr_buf_z(&text, "{\"");
    for (int i = 0; i < 6000; i++)
        outr_buf_char(&text, 'n');
    outr_buf_z(&text, "\":[1");
    while (text.n < text.max - 16)
        outr_buf_z(&text, ",1");
    outr_buf_z(&text, "]}");
    outr_arena *arena = outr_arena_new(16 * OUTR_MIB);
    outr_json *object;
    outr_err err;
    size_t count;
    assert_int_equal(outr_json_parse(&object, arena, outr_buf_view(&text), &err), OUTR_OK);
    outr_claims *claims = outr_claims_new(object, arena);
    assert_true(claims->bytes < OUTR_MIB);
    assert_non_null(outr_claims_find(claims, object->child->key, &count));
    assert_true(count > 1000);
    outr_claims_unref(claims);
    outr_arena_free(arena);
}

/* They are a header's value then, and there are as many as a token has room for. */
static void the_text_of_many_values_takes_no_more_than_they_do(void **state)
{
    (void)state;
    OUTR_AUTO(outr_buf) text = OUTR_BUF_MAX(12 * OUTR_KIB);
    outr_buf_z(&text, "{\"n\":[1");
    while (text.n < text.max - 16)
        outr_buf_z(&text, ",1");
    outr_buf_z(&text, "]}");
    outr_arena *arena = outr_arena_new(16 * OUTR_MIB);
    outr_json *object;
    outr_err err;
    assert_int_equal(outr_json_parse(&object, arena, outr_buf_view(&text), &err), OUTR_OK);
    outr_claims *claims = outr_claims_new(object, arena);
    size_t before = outr_arena_used(arena);
    outr_str all = outr_claims_text(claims, OUTR_STR("n"), arena);
    assert_int_equal(all.n, 2 * claims->count - 1);
    assert_true(outr_arena_used(arena) - before < 64 * OUTR_KIB);
    outr_claims_unref(claims);
    outr_arena_free(arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scalars_arrays_and_objects_become_names_with_values),
        cmocka_unit_test(a_scope_is_split_at_its_spaces),
        cmocka_unit_test(of_two_of_one_name_the_last_counts),
        cmocka_unit_test(objects_end_somewhere),
        cmocka_unit_test(what_is_not_said_is_not_found),
        cmocka_unit_test(long_names_do_not_multiply),
        cmocka_unit_test(a_name_is_kept_once_for_all_its_values),
        cmocka_unit_test(the_text_of_many_values_takes_no_more_than_they_do),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
