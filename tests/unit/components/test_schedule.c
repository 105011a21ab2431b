#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/clock.h"
#include "components/common/schedule.h"

static int64_t utc(const void *ctx OUTR_UNUSED, int64_t unix_s OUTR_UNUSED)
{
    return 0;
}

/* New York in 2012: an hour is skipped on 11 March, and comes twice on 4 November. */
static int64_t new_york(const void *ctx OUTR_UNUSED, int64_t unix_s)
{
    return unix_s >= 1331449200 && unix_s < 1352008800 ? -4 * 3600 : -5 * 3600;
}

/* A zone that goes forward at midnight: 21 October 2012 begins at 01:00. */
static int64_t sao_paulo(const void *ctx OUTR_UNUSED, int64_t unix_s)
{
    return unix_s >= 1350788400 ? -2 * 3600 : -3 * 3600;
}

static int64_t at(const char *text)
{
    int64_t ns;
    if (!outr_time_parse_rfc3339(outr_str_from(text), &ns))
        fail_msg("no time: %s", text);
    return ns;
}

/* next NULL: never. */
static void assert_next(const char *after, const char *spec, const char *next, outr_zone_fn *zone)
{
    outr_schedule s;
    outr_err err;
    if (outr_schedule_parse(&s, outr_str_from(spec), &err))
        fail_msg("%s: %s", spec, err.text);
    int64_t got = outr_schedule_next(&s, at(after), zone, NULL), want = next ? at(next) : INT64_MAX;
    char printed[40];
    outr_time_rfc3339(got, printed);
    if (got != want)
        fail_msg("%s after %s: %s, not %s", spec, after, printed, next ? next : "never");
}

static void the_next_time_is_found(void **state OUTR_UNUSED)
{
    static const struct {
        const char *after, *spec, *next;
    } cases[] = {
        {"2012-07-09T14:45:00Z", "0 0/15 * * * *", "2012-07-09T15:00:00Z"},
        {"2012-07-09T14:59:00Z", "0 0/15 * * * *", "2012-07-09T15:00:00Z"},
        {"2012-07-09T14:59:59Z", "0 0/15 * * * *", "2012-07-09T15:00:00Z"},
        {"2012-07-09T14:59:59Z", "0/15 * * * *", "2012-07-09T15:00:00Z"},
        {"2012-07-09T15:45:00Z", "0 20-35/15 * * * *", "2012-07-09T16:20:00Z"},
        {"2012-07-09T23:46:00Z", "0 */15 * * * *", "2012-07-10T00:00:00Z"},
        {"2012-07-09T23:45:00Z", "0 20-35/15 * * * *", "2012-07-10T00:20:00Z"},
        {"2012-07-09T23:35:51Z", "15/35 20-35/15 * * * *", "2012-07-10T00:20:15Z"},
        {"2012-07-09T23:35:51Z", "15/35 20-35/15 1/2 * * *", "2012-07-10T01:20:15Z"},
        {"2012-07-09T23:35:51Z", "15/35 20-35/15 10-12 * * *", "2012-07-10T10:20:15Z"},
        {"2012-07-09T23:35:51Z", "15/35 20-35/15 1/2 */2 * *", "2012-07-11T01:20:15Z"},
        {"2012-07-09T23:35:51Z", "15/35 20-35/15 * 9-20 * *", "2012-07-10T00:20:15Z"},
        {"2012-07-09T23:35:51Z", "15/35 20-35/15 * 9-20 Jul *", "2012-07-10T00:20:15Z"},
        {"2012-07-09T23:35:00Z", "0 0 0 9 Apr-Oct ?", "2012-08-09T00:00:00Z"},
        {"2012-07-09T23:35:00Z", "0 0 0 */5 Apr,Aug,Oct Mon", "2012-08-01T00:00:00Z"},
        {"2012-07-09T23:35:00Z", "0 0 0 */5 Oct Mon", "2012-10-01T00:00:00Z"},
        {"2012-07-09T23:35:00Z", "0 0 0 * Feb Mon", "2013-02-04T00:00:00Z"},
        {"2012-07-09T23:35:00Z", "0 0 0 * Feb Mon/2", "2013-02-01T00:00:00Z"},
        {"2012-12-31T23:59:45Z", "0 * * * * *", "2013-01-01T00:00:00Z"},
        {"2012-07-09T23:35:00Z", "0 0 0 29 Feb ?", "2016-02-29T00:00:00Z"},
        {"2096-03-01T00:00:00Z", "0 0 29 2 *", NULL}, /* 2100 is no leap year, 2104 too far */
        {"2012-07-09T23:35:00Z", "0 0 0 30 Feb ?", NULL},
        {"2012-07-09T23:35:00Z", "0 0 0 31 Apr ?", NULL},
        {"2012-07-09T23:35:00Z", "0 0 13 * FRI", "2012-07-13T00:00:00Z"},
        {"2012-07-13T00:00:00Z", "0 0 13 * FRI", "2012-07-20T00:00:00Z"},
        {"2012-07-13T00:00:00Z", "0 0 */13 * FRI", "2012-07-14T00:00:00Z"},
        {"1969-12-31T23:59:59Z", "* * * * * *", "1970-01-01T00:00:00Z"},
        {"2012-07-09T14:45:00Z", "@hourly", "2012-07-09T15:00:00Z"},
        {"2012-07-09T14:45:00Z", "@daily", "2012-07-10T00:00:00Z"},
        {"2012-07-09T14:45:00Z", "@midnight", "2012-07-10T00:00:00Z"},
        {"2012-07-09T14:45:00Z", "@weekly", "2012-07-15T00:00:00Z"},
        {"2012-07-09T14:45:00Z", "@monthly", "2012-08-01T00:00:00Z"},
        {"2012-07-09T14:45:00Z", "@yearly", "2013-01-01T00:00:00Z"},
        {"2012-07-09T14:45:00Z", "@annually", "2013-01-01T00:00:00Z"},
        {"2012-07-09T14:45:00Z", "@every 1h30m", "2012-07-09T16:15:00Z"},
        {"2012-07-09T14:45:00.25Z", "@every 1s", "2012-07-09T14:45:01.25Z"},
        {"2012-07-09T14:45:00Z", "@every 0s", "2012-07-09T14:45:00.001Z"},
        {"2012-07-09T14:45:00Z", "@every -5m", "2012-07-09T14:45:00.001Z"},
        {"2012-07-09T14:45:00Z", "@every 2540400h", NULL}, /* beyond what 64 bits hold */
    };
    for (size_t i = 0; i < OUTR_LEN(cases); i++)
        assert_next(cases[i].after, cases[i].spec, cases[i].next, utc);
}

static void every_is_rounded_to_milliseconds(void **state OUTR_UNUSED)
{
    outr_schedule s;
    assert_int_equal(outr_schedule_parse(&s, OUTR_STR("@every 1500us"), NULL), OUTR_OK);
    assert_int_equal(outr_schedule_next(&s, 7000001, utc, NULL), 8000000);
}

static void clocks_that_are_changed_are_followed(void **state OUTR_UNUSED)
{
    static const struct {
        const char *after, *spec, *next;
    } cases[] = {
        /* 02:30 is skipped on 11 March */
        {"2012-03-11T00:00:00-05:00", "0 30 2 11 Mar ?", "2013-03-11T02:30:00-05:00"},
        {"2012-03-11T01:59:00-05:00", "0 0 * * * ?", "2012-03-11T03:00:00-04:00"},
        {"2012-03-10T12:00:00-05:00", "0 0 4 * * ?", "2012-03-11T04:00:00-04:00"},
        /* 01:30 comes twice on 4 November */
        {"2012-11-04T00:00:00-04:00", "0 30 1 * * ?", "2012-11-04T01:30:00-04:00"},
        {"2012-11-04T01:30:00-04:00", "0 30 1 * * ?", "2012-11-04T01:30:00-05:00"},
        {"2012-11-04T01:30:00-05:00", "0 30 1 * * ?", "2012-11-05T01:30:00-05:00"},
        {"2012-11-04T01:00:00-04:00", "0 0 0 * * ?", "2012-11-05T00:00:00-05:00"},
        {"2012-07-09T12:00:00-04:00", "CRON_TZ=Local 0 17 * * *", "2012-07-09T17:00:00-04:00"},
    };
    for (size_t i = 0; i < OUTR_LEN(cases); i++)
        assert_next(cases[i].after, cases[i].spec, cases[i].next, new_york);
    assert_next("2012-10-20T12:00:00-03:00", "0 0 * * *", "2012-10-22T00:00:00-02:00", sao_paulo);
    assert_next("2012-10-20T12:00:00-03:00", "0 1 * * *", "2012-10-21T01:00:00-02:00", sao_paulo);
    assert_next("2012-10-20T12:00:00-03:00", "0 5 21 * *", "2012-10-21T05:00:00-02:00", sao_paulo);
}

static void the_zone_is_told(void **state OUTR_UNUSED)
{
    static const struct {
        const char *spec, *zone;
    } cases[] = {{"* * * * *", ""},
                 {"TZ=Local * * * * *", ""},
                 {"TZ= * * * * *", "UTC"},
                 {"CRON_TZ=Europe/Berlin   @daily", "Europe/Berlin"}};
    for (size_t i = 0; i < OUTR_LEN(cases); i++) {
        outr_schedule s;
        assert_int_equal(outr_schedule_parse(&s, outr_str_from(cases[i].spec), NULL), OUTR_OK);
        assert_true(outr_str_is(s.zone, cases[i].zone));
    }
}

static void mistakes_are_named(void **state OUTR_UNUSED)
{
    static const struct {
        const char *spec, *text;
    } cases[] = {
        {"", "empty spec string"},
        {"* * * *", "expected 5 to 6 fields, found 4: * * * *"},
        {"* * * * * * *", "expected 5 to 6 fields, found 7: * * * * * * *"},
        {"60 0 * * *", "60 ends above the greatest value"},
        {"5-70 0 * * *", "5-70 ends above the greatest value"},
        {"0 24 * * *", "24 ends above the greatest value"},
        {"0 0 0 * *", "0 begins below the least value"},
        {"0 0 32 * *", "32 ends above the greatest value"},
        {"0 0 * 13 *", "13 ends above the greatest value"},
        {"0 0 * * 7", "7 ends above the greatest value"},
        {"9-5 0 * * *", "9-5 begins beyond its end"},
        {"*/0 0 * * *", "*/0 has a step of nothing"},
        {"1/2/3 0 * * *", "too many slashes: 1/2/3"},
        {"1-2-3 0 * * *", "too many hyphens: 1-2-3"},
        {"x 0 * * *", "failed to parse int from x"},
        {"jan 0 * * *", "failed to parse int from jan"},
        {"5/ 0 * * *", "failed to parse int from "},
        {"99999999999999999999 0 * * *", "failed to parse int from 99999999999999999999"},
        {", 0 * * *", "no value in field \",\""},
        {"@unrecognized", "unrecognized descriptor: @unrecognized"},
        {"@every", "unrecognized descriptor: @every"},
        {"@every x", "failed to parse duration @every x"},
        {"@every  5m", "failed to parse duration @every  5m"},
        {"TZ=UTC", "timezone prefix TZ=UTC is not followed by a schedule"},
    };
    for (size_t i = 0; i < OUTR_LEN(cases); i++) {
        outr_schedule s;
        outr_err err = {0};
        if (outr_schedule_parse(&s, outr_str_from(cases[i].spec), &err) == OUTR_OK)
            fail_msg("%s was taken", cases[i].spec);
        assert_string_equal(err.text, cases[i].text);
    }
    char longest[3000];
    memset(longest, '*', sizeof longest);
    assert_int_equal(outr_schedule_parse(&(outr_schedule){0},
                                         outr_str_of(longest, sizeof longest), NULL),
                     OUTR_INVALID_ARGUMENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_next_time_is_found),
        cmocka_unit_test(every_is_rounded_to_milliseconds),
        cmocka_unit_test(clocks_that_are_changed_are_followed),
        cmocka_unit_test(the_zone_is_told),
        cmocka_unit_test(mistakes_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
