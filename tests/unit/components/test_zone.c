#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdlib.h>
#include <time.h>

#include "base/buf.h"
#include "components/common/zone.h"

static void put_uint(outr_buf *out, uint64_t value, unsigned n)
{
    while (n-- > 0)
        outr_buf_char(out, (char)(value >> (8 * n)));
}

static void put_header(outr_buf *out, char version, uint32_t times, uint32_t types)
{
    const uint32_t counts[] = {0, 0, 0, times, types, 4};
    outr_buf_z(out, "TZif");
    outr_buf_char(out, version);
    for (int i = 0; i < 15; i++)
        outr_buf_char(out, 0);
    for (size_t i = 0; i < OUTR_LEN(counts); i++)
        put_uint(out, counts[i], 4);
}

/* A file whose clocks go from first_s to second_s at a moment, with a rule behind. */
static outr_buf make_file(int64_t at, int32_t first_s, int32_t second_s, const char *rule)
{
    outr_buf out = OUTR_BUF_MAX(OUTR_MIB);
    put_header(&out, '2', 0, 1);
    put_uint(&out, 0, 6);
    outr_buf_append(&out, "LMT", 4);
    put_header(&out, '2', 1, 2);
    put_uint(&out, (uint64_t)at, 8);
    outr_buf_char(&out, 1);
    put_uint(&out, (uint32_t)first_s, 4);
    put_uint(&out, 0, 2);
    put_uint(&out, (uint32_t)second_s, 4);
    put_uint(&out, 0, 2);
    outr_buf_append(&out, "LMT", 4);
    outr_buf_printf(&out, "\n%s\n", rule);
    return out;
}

static outr_zone *must_parse(outr_buf *own_bytes)
{
    outr_zone *zone = NULL;
    outr_err err;
    if (outr_zone_parse(&zone, outr_buf_view(own_bytes), &err))
        fail_msg("%s", err.text);
    outr_buf_done(own_bytes);
    return zone;
}

static void the_table_is_read(void **state OUTR_UNUSED)
{
    outr_buf bytes = make_file(1000, -3600, 7200, "");
    outr_zone *zone = must_parse(&bytes);
    assert_int_equal(outr_zone_offset(zone, INT64_MIN / 2), -3600);
    assert_int_equal(outr_zone_offset(zone, 999), -3600);
    assert_int_equal(outr_zone_offset(zone, 1000), 7200);
    assert_int_equal(outr_zone_offset(zone, INT64_C(4000000000)), 7200);
    outr_zone_free(zone);
}

static void the_rule_goes_on_behind_it(void **state OUTR_UNUSED)
{
    static const struct {
        const char *rule;
        int64_t at, offset;
    } cases[] = {
        {"EST5", 1330000000, -18000},
        {"<+0530>-5:30", 1330000000, 19800},
        {"EST5EDT,M3.2.0,M11.1.0", 1331449199, -18000}, /* 2012-03-11 06:59:59Z */
        {"EST5EDT,M3.2.0,M11.1.0", 1331449200, -14400},
        {"EST5EDT,M3.2.0,M11.1.0", 1352008799, -14400}, /* 2012-11-04 05:59:59Z */
        {"EST5EDT,M3.2.0,M11.1.0", 1352008800, -18000},
        {"IST-1GMT0,M10.5.0,M3.5.0/1", 1340000000, 3600}, /* summer is the standard */
        {"IST-1GMT0,M10.5.0,M3.5.0/1", 1330000000, 0},
        {"AAA3BBB,J60/0,J300/0", 1330570799, -10800}, /* 2012-03-01 02:59:59Z: 29 February counts not */
        {"AAA3BBB,J60/0,J300/0", 1330570800, -7200},
        {"AAA3BBB,59/0,299/0", 1330484399, -10800}, /* here it does */
        {"AAA3BBB,59/0,299/0", 1330484400, -7200},
        {"EEE3FFF,0/0,J365/25", 1325400000, -7200}, /* always summer */
        {"EEE3FFF,0/0,J365/25", 1340000000, -7200},
        {"<-02>2<-01>,M3.5.0/-1,M10.5.0/0", 1332637200, -3600}, /* 2012-03-25 01:00Z */
        {"<-02>2<-01>,M3.5.0/-1,M10.5.0/0", 1332637199, -7200},
    };
    for (size_t i = 0; i < OUTR_LEN(cases); i++) {
        outr_buf bytes = make_file(0, 0, 0, cases[i].rule);
        outr_zone *zone = must_parse(&bytes);
        int64_t offset = outr_zone_offset(zone, cases[i].at);
        if (offset != cases[i].offset)
            fail_msg("%s at %lld: %lld", cases[i].rule, (long long)cases[i].at, (long long)offset);
        outr_zone_free(zone);
    }
}

static void what_is_no_table_is_refused(void **state OUTR_UNUSED)
{
    static const char *const rules[] = {"E5",        "EST",          "EST5EDT",    "EST5EDT,M13.1.0,M1.1.0",
                                        "EST5EDT,M1.6.0,M1.1.0", "EST5EDT,M1.1.7,M1.1.0",
                                        "EST5EDT,J0,J1", "EST5EDT,J366,J1", "EST999",
                                        "EST5EDT,M1.1.0", "EST5x", "<EST5"};
    outr_zone *zone = NULL;
    for (size_t i = 0; i < OUTR_LEN(rules); i++) {
        outr_buf bytes = make_file(0, 0, 0, rules[i]);
        if (outr_zone_parse(&zone, outr_buf_view(&bytes), NULL) == OUTR_OK)
            fail_msg("%s was taken", rules[i]);
        outr_buf_done(&bytes);
    }
    outr_buf bytes = make_file(1000, 0, 3600, "EST5");
    for (size_t n = 0; n < bytes.n; n++)
        assert_int_equal(outr_zone_parse(&zone, outr_str_of(bytes.p, n), NULL),
                         OUTR_INVALID_ARGUMENT);
    outr_buf_done(&bytes);
    bytes = make_file(0, 0, 200000, "EST5"); /* more than two days from UTC */
    assert_int_not_equal(outr_zone_parse(&zone, outr_buf_view(&bytes), NULL), OUTR_OK);
    outr_buf_done(&bytes);
}

static void names_do_not_climb(void **state OUTR_UNUSED)
{
    static const char *const names[] = {"", "/etc/passwd", "../zone", "a/../b", "a b", "a\nb",
                                        "Nowhere/Atall"};
    outr_zone *zone = NULL;
    for (size_t i = 0; i < OUTR_LEN(names); i++)
        assert_int_not_equal(outr_zone_load(&zone, outr_str_from(names[i]), NULL), OUTR_OK);
    assert_int_equal(outr_zone_load(&zone, OUTR_STR("UTC"), NULL), OUTR_OK);
    assert_int_equal(outr_zone_offset(zone, 1330000000), 0);
    outr_zone_free(zone);
}

/* What the C library says of the same tables. */
static void the_systems_zones_are_read_as_the_library_reads_them(void **state OUTR_UNUSED)
{
    static const char *const names[] = {
        "America/New_York", "Europe/Berlin",   "Europe/Dublin",     "Australia/Lord_Howe",
        "Asia/Kolkata",     "Pacific/Apia",    "America/Sao_Paulo", "Africa/Casablanca",
        "Antarctica/Troll", "America/Nuuk",    "Asia/Kathmandu",    "Etc/GMT+5"};
    outr_zone *zone;
    if (outr_zone_load(&zone, OUTR_STR("Europe/Berlin"), NULL))
        skip(); /* no tables here */
    outr_zone_free(zone);
    for (size_t i = 0; i < OUTR_LEN(names); i++) {
        outr_err err;
        if (outr_zone_load(&zone, outr_str_from(names[i]), &err))
            fail_msg("%s", err.text);
        setenv("TZ", names[i], 1);
        tzset();
        for (int64_t t = -2500000000; t < INT64_C(6000000000); t += 86399 * 3) {
            time_t s = (time_t)t;
            struct tm tm;
            localtime_r(&s, &tm);
            if (outr_zone_offset(zone, t) != tm.tm_gmtoff)
                fail_msg("%s at %lld: %lld, not %ld", names[i], (long long)t,
                         (long long)outr_zone_offset(zone, t), tm.tm_gmtoff);
        }
        outr_zone_free(zone);
    }
    unsetenv("TZ");
    tzset();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_table_is_read),
        cmocka_unit_test(the_rule_goes_on_behind_it),
        cmocka_unit_test(what_is_no_table_is_refused),
        cmocka_unit_test(names_do_not_climb),
        cmocka_unit_test(the_systems_zones_are_read_as_the_library_reads_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
