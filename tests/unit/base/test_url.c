#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/url.h"

static void an_absolute_url_is_taken_apart(void **state)
{
    outr_url u;
    outr_err err;
    (void)state;
    assert_int_equal(outr_url_parse(&u, OUTR_STR("https://me:pw@[::1]:8443/a%2Fb?x=1&y"), &err),
                     OUTR_OK);
    assert_true(outr_str_is(u.scheme, "https"));
    assert_true(outr_str_is(u.userinfo, "me:pw"));
    assert_true(outr_str_is(u.host, "::1"));
    assert_int_equal(u.port, 8443);
    assert_true(outr_str_is(u.path, "/a%2Fb"));
    assert_true(outr_str_is(u.query, "x=1&y"));
    assert_int_equal(outr_url_parse(&u, OUTR_STR("http://host"), &err), OUTR_OK);
    assert_int_equal(u.port, 0);
    assert_int_equal(u.path.n, 0);
}

static void what_is_no_url_is_refused(void **state)
{
    static const char *const bad[] = {"",
                                      "host",
                                      "http://",
                                      "://host",
                                      "http:///x",
                                      "http://h:0x1",
                                      "http://h:65536",
                                      "http://[::1",
                                      "http://h:-1",
                                      "http://a b/",
                                      "ht tp://h/",
                                      "/a?b=http://h/",
                                      "1a://h"};
    outr_url u;
    outr_err err;
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(bad); i++) {
        if (outr_url_parse(&u, outr_str_from(bad[i]), &err) == OUTR_OK)
            fail_msg("accepted: %s", bad[i]);
    }
}

static void host_and_port(void **state)
{
    static const struct {
        const char *text, *host;
        uint16_t port;
    } good[] = {{"h:80", "h", 80}, {"[::1]:80", "::1", 80}, {":80", "", 80}, {"h", "h", 0}};
    static const char *const bad[] = {"h:65536", "h:x", "[::1", "h:1:2"};
    outr_str none;
    uint16_t zero;
    (void)state;
    assert_int_not_equal(outr_hostport_parse(OUTR_STR("::\0001"), &none, &zero, NULL), OUTR_OK);
    for (size_t i = 0; i < OUTR_LEN(good); i++) {
        outr_str host;
        uint16_t port;
        outr_err err;
        assert_int_equal(outr_hostport_parse(outr_str_from(good[i].text), &host, &port, &err),
                         OUTR_OK);
        assert_true(outr_str_is(host, good[i].host));
        assert_int_equal(port, good[i].port);
    }
    for (size_t i = 0; i < OUTR_LEN(bad); i++) {
        outr_str host;
        uint16_t port;
        outr_err err;
        if (outr_hostport_parse(outr_str_from(bad[i]), &host, &port, &err) == OUTR_OK)
            fail_msg("accepted: %s", bad[i]);
    }
}

/* Go's path.Clean on rooted paths, a trailing slash kept. */
static void a_path_is_cleaned_and_never_leaves_its_root(void **state)
{
    static const char *const pairs[][2] = {
        {"/", "/"},        {"/a/b", "/a/b"},   {"//a///b", "/a/b"}, {"/a/./b", "/a/b"},
        {"/a/../b", "/b"}, {"/../../b", "/b"}, {"/a/b/..", "/a"},   {"/a/b/../", "/a/"},
        {"/a/", "/a/"},    {"/..", "/"},       {"/a..b", "/a..b"},  {"/...", "/..."},
        {"/a/.", "/a"},    {"/a//", "/a/"},
    };
    outr_arena *arena = outr_arena_new(OUTR_MIB);
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(pairs); i++) {
        outr_str clean = outr_path_clean(arena, outr_str_from(pairs[i][0]));
        if (!outr_str_is(clean, pairs[i][1]))
            fail_msg("%s became %.*s, not %s", pairs[i][0], OUTR_ARG(clean), pairs[i][1]);
    }
    outr_arena_free(arena);
}

static void a_query_is_walked_pair_by_pair(void **state)
{
    outr_str query = OUTR_STR("a=1&b&&=x&c=d=e"), key, value;
    static const char *const expected[][2] = {{"a", "1"}, {"b", ""}, {"", "x"}, {"c", "d=e"}};
    size_t n = 0;
    (void)state;
    while (outr_query_next(&query, &key, &value)) {
        if (key.n == 0 && value.n == 0)
            continue;
        assert_true(n < OUTR_LEN(expected));
        assert_true(outr_str_is(key, expected[n][0]) && outr_str_is(value, expected[n][1]));
        n++;
    }
    assert_int_equal(n, OUTR_LEN(expected));
}

static void a_host_and_its_port_are_put_together(void **state)
{
    (void)state;
    static const struct {
        const char *host;
        uint16_t port;
        const char *wanted;
    } rows[] = {{"a", 80, "a:80"}, {"a", 0, "a"}, {"::1", 80, "[::1]:80"}, {"::1", 0, "[::1]"}};
    outr_arena *arena = outr_arena_new(OUTR_MIB);
    for (size_t i = 0; i < OUTR_LEN(rows); i++) {
        outr_str host, text = outr_hostport_join(arena, outr_str_from(rows[i].host), rows[i].port);
        uint16_t port;
        assert_true(outr_str_is(text, rows[i].wanted));
        assert_int_equal(outr_hostport_parse(text, &host, &port, NULL), OUTR_OK);
        assert_true(outr_str_is(host, rows[i].host));
        assert_int_equal(port, rows[i].port);
    }
    outr_arena_free(arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_absolute_url_is_taken_apart),
        cmocka_unit_test(a_host_and_its_port_are_put_together),
        cmocka_unit_test(what_is_no_url_is_refused),
        cmocka_unit_test(host_and_port),
        cmocka_unit_test(a_path_is_cleaned_and_never_leaves_its_root),
        cmocka_unit_test(a_query_is_walked_pair_by_pair),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
