#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/rand.h"
#include "base/regex.h"

static bool search(const char *pattern, outr_str text)
{
    outr_regex *regex = NULL;
    outr_err err;
    if (outr_regex_new(&regex, outr_str_from(pattern), &err))
        fail_msg("%s: %s", pattern, err.text);
    bool is_found = outr_regex_search(regex, text);
    outr_regex_free(regex);
    return is_found;
}

static void texts_match_as_in_go(void **state)
{
    static const struct {
        const char *pattern, *yes, *no; /* separated by spaces */
    } rows[] = {
        {"^[A-Za-z0-9/._?=&:-]+$", "/v1.0/a?b=c:-", "/a%20b /a~"},
        {"abc", "abc xabcx", "ab acb"},
        {"^/(orders|items)/\\d+$", "/orders/1 /items/42", "/orders/ /orders/x /items/1/2 x/items/1"},
        {"a|b|", "a x", ""},
        {"^(a|bc)*d$", "d ad bcd abcad", "abd bd"},
        {"^a{2}$", "aa", "a aaa"},
        {"^a{2,3}$", "aa aaa", "a aaaa"},
        {"^a{2,}$", "aa aaaaa", "a"},
        {"^a{,2}$", "a{,2}", "a aa"},
        {"^x{a}$", "x{a}", "xa"},
        {"^(ab)?c+?$", "abcc c", "ab abab"},
        {"^[^/]+$", "ab", "a/b"},
        {"^[]a]+$", "]a", "b"},
        {"^[a\\-z.]+$", "a-z.", "b"},
        {"^[\\w-]+$", "a_9-", "a.b"},
        {"^[[:alpha:]]+$", "abC", "a1"},
        {"(?i)^/API/[a-f]$", "/api/F /Api/b", "/api/g"},
        {"^(?i:ab)c$", "ABc abc", "abC"},
        {"^(?P<n>a)(?<m>b)(?:c)$", "abc", "ab"},
        {"\\bcat\\b", "cat a-cat-b", "cats concat"},
        {"\\Bcat", "concat", "cat"},
        {"^\\x41\\.\\x{42}$", "A.B", "AxB"},
        {"^.$", "a", "ab"},
        {"^(((a)))$", "a", "aa"},
        {"^\\A\\S+\\z$", "abc", ""},
    };
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(rows); i++) {
        const char *lists[] = {rows[i].no, rows[i].yes};
        for (int is_yes = 0; is_yes < 2; is_yes++) {
            outr_str rest = outr_str_from(lists[is_yes]), one;
            while (rest.p && rest.n > 0) {
                rest = outr_str_cut(rest, ' ', &one);
                if (search(rows[i].pattern, one) != is_yes)
                    fail_msg("%s: \"" OUTR_FMT "\"", rows[i].pattern, OUTR_ARG(one));
            }
        }
    }
    assert_false(search("^a.c$", OUTR_STR("a\nc")));
    assert_true(search("(?s)^a.c$", OUTR_STR("a\nc")));
    assert_true(search("^a\\x00?b$", OUTR_STR("a\0b")));
    assert_false(search("^ab$", OUTR_STR("ab\0")));
    assert_true(search("", OUTR_STR("")));
    assert_true(search("^$", OUTR_STR("")));
}

static void what_cannot_be_had_is_refused(void **state)
{
    static const char *const bad[] = {
        "(",      ")",        "(a",     "a)",      "[",        "[a",          "[z-a]",  "*",
        "a**",    "+a",       "a{2}{3}", "a{1001}", "a{3,2}",   "\\",          "\\1",    "\\p{L}",
        "\\Qa\\E", "(?m)a",   "(?=a)",  "(?!a)",   "(?<=a)b",  "(?<!a)b",     "\\xzz",  "\\x{100}",
        "[[:x:]]", "[\xc3\xa4]", "(?P<n",  "\\y",     "((((a{1000}){1000}){1000}){1000})",
        "((((){1000}){1000}){1000}){1000}", "((((|^){0,1000}){1000}){0,1000}){1000}"};
    outr_regex *regex = NULL;
    outr_err err;
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(bad); i++) {
        err.text[0] = 0;
        if (outr_regex_new(&regex, outr_str_from(bad[i]), &err) == OUTR_OK)
            fail_msg("%s was taken", bad[i]);
        assert_true(strncmp(err.text, "regular expression: ", 20) == 0);
    }
    assert_null(regex);
    char *deep = outr_alloc(4096 * 2);
    memset(deep, '(', 4000);
    assert_int_equal(outr_regex_new(&regex, outr_str_of(deep, 4000), &err), OUTR_INVALID_ARGUMENT);
    assert_int_equal(outr_regex_new(&regex, outr_str_of(deep, 8000), &err), OUTR_INVALID_ARGUMENT);
    free(deep);
}

/* Backtrackers need 2^n steps for these. */
static void time_is_in_proportion_to_the_text(void **state)
{
    size_t n = 20000;
    char *text = outr_alloc(n);
    (void)state;
    memset(text, 'a', n);
    assert_false(search("^(a+)+$x", outr_str_of(text, n)));
    assert_false(search("(a*)*(a|aa)+b", outr_str_of(text, n)));
    assert_true(search("(.*)(.*)(.*)a$", outr_str_of(text, n)));
    free(text);
}

/* One change of a pattern: a byte more, less or other, or a piece moved elsewhere. */
static size_t mutate(char *p, size_t n, size_t cap, outr_rand *rand)
{
    static const char bytes[] = "(){}[]|*+?,0123456789ab^$\\.";
    size_t at = outr_rand_below(rand, n + 1), from, count;
    char other = bytes[outr_rand_below(rand, sizeof bytes - 1)];
    switch (outr_rand_below(rand, 4)) {
    case 0:
        if (n == cap)
            return n;
        memmove(p + at + 1, p + at, n - at);
        p[at] = other;
        return n + 1;
    case 1:
        if (at == n)
            return n;
        memmove(p + at, p + at + 1, n - at - 1);
        return n - 1;
    case 2:
        from = outr_rand_below(rand, n + 1);
        count = outr_rand_below(rand, n - from + 1);
        if (n + count > cap)
            return n;
        memmove(p + at + count, p + at, n - at);
        memmove(p + at, p + (from >= at ? from + count : from), count);
        return n + count;
    default:
        if (at < n)
            p[at] = other;
        return n;
    }
}

/* Compiling is bounded in work and memory, also for what is refused as too large in the end: a run
 * like this once took minutes for one pattern. */
static void whatever_the_pattern_compiling_ends_soon(void **state)
{
    static const char *const seeds[] = {"((((a{9}|b){0,1000}c?){1000}d*){0,999}e+){1000}",
                                        "(((((|^){0,1000}){1000}){0,1000}){1000})",
                                        "(a{1000}){0,1000}(b|c){0,1000}",
                                        "(((a*)*)*)+x?{3}",
                                        "((a|){100}){100}",
                                        "^/(orders|items)/\\d+$"};
    unsigned counts[17] = {0};
    outr_rand rand;
    (void)state;
    outr_rand_seed(&rand, 7);
    for (int i = 0; i < 20000; i++) {
        char p[2048];
        size_t n = (size_t)snprintf(p, sizeof p, "%s",
                                    seeds[outr_rand_below(&rand, OUTR_LEN(seeds))]);
        outr_regex *regex = NULL;
        outr_err err;
        for (uint64_t k = outr_rand_below(&rand, 12); k > 0; k--)
            n = mutate(p, n, sizeof p, &rand);
        outr_code rc = outr_regex_new(&regex, outr_str_of(p, n), &err);
        counts[rc]++;
        if (rc == OUTR_OK)
            outr_regex_search(regex, OUTR_STR("aaaabbbbccccdddd"));
        outr_regex_free(regex);
    }
    assert_true(counts[OUTR_OK] > 1000 && counts[OUTR_INVALID_ARGUMENT] > 1000 &&
                counts[OUTR_RESOURCE_EXHAUSTED] > 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts_match_as_in_go),
        cmocka_unit_test(what_cannot_be_had_is_refused),
        cmocka_unit_test(time_is_in_proportion_to_the_text),
        cmocka_unit_test(whatever_the_pattern_compiling_ends_soon),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
