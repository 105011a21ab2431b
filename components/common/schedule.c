#include "components/common/schedule.h"

#include "components/common/calendar.h"

#define STAR       (UINT64_C(1) << 63)
#define TEXT_MAX   1024
#define YEARS_MAX  5
#define SEC_NS     INT64_C(1000000000)
#define MILLI_NS   INT64_C(1000000)
#define FIELDS_MAX 6

/* ---- reading --------------------------------------------------------------------------------- */

typedef struct bounds {
    unsigned min, max;
    const char *names; /* three letters each, the first stands for min; NULL: numbers only */
} bounds;

static const bounds fields[FIELDS_MAX] = {
    {0, 59, NULL},
    {0, 59, NULL},
    {0, 23, NULL},
    {1, 31, NULL},
    {1, 12, "janfebmaraprmayjunjulaugsepoctnovdec"},
    {0, 6, "sunmontuewedthufrisat"},
};

static outr_code read_value(unsigned *out, outr_str text, const bounds *b, outr_err *err)
{
    uint64_t n;
    for (unsigned i = 0; b && b->names && i <= b->max - b->min; i++) {
        if (outr_str_ieq(text, outr_str_of(b->names + (size_t)i * 3, 3))) {
            *out = b->min + i;
            return OUTR_OK;
        }
    }
    if (!outr_str_to_u64(text, 1000000, &n))
        return outr_fail(err, OUTR_INVALID_ARGUMENT, "failed to parse int from " OUTR_FMT,
                         OUTR_ARG(text));
    *out = (unsigned)n;
    return OUTR_OK;
}

static outr_code check_range(outr_str expr, unsigned start, unsigned end, unsigned step,
                             const bounds *b, outr_err *err)
{
    const char *why = NULL;
    if (start < b->min)
        why = "begins below the least value";
    else if (end > b->max)
        why = "ends above the greatest value";
    else if (start > end)
        why = "begins beyond its end";
    else if (step == 0)
        why = "has a step of nothing";
    return why ? outr_fail(err, OUTR_INVALID_ARGUMENT, OUTR_FMT " %s", OUTR_ARG(expr), why)
               : OUTR_OK;
}

/* "5", "5-9", "*", each with "/2". */
static outr_code read_range(uint64_t *bits, outr_str expr, const bounds *b, outr_err *err)
{
    outr_str range, low, end_text = OUTR_STR_NONE, step_text = outr_str_cut(expr, '/', &range);
    unsigned start = b->min, end = b->max, step = 1;
    uint64_t star = 0;
    outr_code rc = OUTR_OK;
    end_text = outr_str_cut(range, '-', &low);
    if (step_text.p && outr_str_find(step_text, '/') >= 0)
        return outr_fail(err, OUTR_INVALID_ARGUMENT, "too many slashes: " OUTR_FMT,
                         OUTR_ARG(expr));
    if (outr_str_is(low, "*") || outr_str_is(low, "?")) {
        star = STAR;
    } else if (end_text.p && outr_str_find(end_text, '-') >= 0) {
        return outr_fail(err, OUTR_INVALID_ARGUMENT, "too many hyphens: " OUTR_FMT,
                         OUTR_ARG(expr));
    } else {
        rc = read_value(&start, low, b, err);
        end = start;
        if (!rc && end_text.p)
            rc = read_value(&end, end_text, b, err);
    }
    if (!rc && step_text.p) {
        rc = read_value(&step, step_text, NULL, err);
        if (!end_text.p) /* "5/15": from 5 to the greatest */
            end = b->max;
        if (step > 1)
            star = 0;
    }
    if (!rc)
        rc = check_range(expr, start, end, step, b, err);
    for (unsigned i = start; !rc && i <= end; i += step)
        *bits |= UINT64_C(1) << i;
    *bits |= rc ? 0 : star;
    return rc;
}

static outr_code read_field(uint64_t *out, outr_str field, const bounds *b, outr_err *err)
{
    outr_str rest = field, one;
    uint64_t bits = 0;
    while (rest.p) {
        rest = outr_str_cut(rest, ',', &one);
        outr_code rc = one.n ? read_range(&bits, one, b, err) : OUTR_OK;
        if (rc)
            return rc;
    }
    if (bits == 0) /* it would never be due */
        return outr_fail(err, OUTR_INVALID_ARGUMENT, "no value in field \"" OUTR_FMT "\"",
                         OUTR_ARG(field));
    *out = bits;
    return OUTR_OK;
}

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/* The next word; n == 0: none left. */
static outr_str next_word(outr_str *rest)
{
    size_t n = 0;
    while (rest->n > 0 && is_space(rest->p[0]))
        *rest = outr_str_skip(*rest, 1);
    while (n < rest->n && !is_space(rest->p[n]))
        n++;
    outr_str word = outr_str_head(*rest, n);
    *rest = outr_str_skip(*rest, n);
    return word;
}

static outr_code read_fields(outr_schedule *s, outr_str text, outr_err *err)
{
    uint64_t *const places[] = {&s->second, &s->minute, &s->hour,
                                &s->day,    &s->month,  &s->weekday};
    outr_str words[FIELDS_MAX], rest = text, word;
    size_t count = 0, first;
    while ((word = next_word(&rest)).n > 0) {
        if (count < OUTR_LEN(words))
            words[count] = word;
        count++;
    }
    if (count < FIELDS_MAX - 1 || count > FIELDS_MAX)
        return outr_fail(err, OUTR_INVALID_ARGUMENT, "expected 5 to 6 fields, found %zu: " OUTR_FMT,
                         count, OUTR_ARG(text));
    first = FIELDS_MAX - count;
    s->second = 1;
    for (size_t i = first; i < FIELDS_MAX; i++) {
        outr_code rc = read_field(places[i], words[i - first], &fields[i], err);
        if (rc)
            return rc;
    }
    return OUTR_OK;
}

static outr_code read_every(outr_schedule *s, outr_str text, outr_err *err)
{
    int64_t ns;
    if (!outr_str_to_duration(text, &ns))
        return outr_fail(err, OUTR_INVALID_ARGUMENT, "failed to parse duration @every " OUTR_FMT,
                         OUTR_ARG(text));
    s->every_ns = ns < MILLI_NS ? MILLI_NS : ns - ns % MILLI_NS;
    return OUTR_OK;
}

static outr_code read_descriptor(outr_schedule *s, outr_str text, outr_err *err)
{
    static const struct {
        const char *name, *fields;
    } table[] = {
        {"@yearly", "0 0 1 1 *"},  {"@annually", "0 0 1 1 *"}, {"@monthly", "0 0 1 * *"},
        {"@weekly", "0 0 * * 0"},  {"@daily", "0 0 * * *"},    {"@midnight", "0 0 * * *"},
        {"@hourly", "0 * * * *"},
    };
    static const char every[] = "@every ";
    for (size_t i = 0; i < OUTR_LEN(table); i++) {
        if (outr_str_is(text, table[i].name))
            return read_fields(s, outr_str_from(table[i].fields), err);
    }
    if (outr_str_starts(text, outr_str_from(every)))
        return read_every(s, outr_str_skip(text, sizeof every - 1), err);
    return outr_fail(err, OUTR_INVALID_ARGUMENT, "unrecognized descriptor: " OUTR_FMT,
                     OUTR_ARG(text));
}

/* "TZ=Area/City " or "CRON_TZ=Area/City " before the rest. */
static outr_code read_zone(outr_schedule *s, outr_str *text, outr_err *err)
{
    if (!outr_str_starts(*text, OUTR_STR("TZ=")) && !outr_str_starts(*text, OUTR_STR("CRON_TZ=")))
        return OUTR_OK;
    outr_str rest = *text, word = next_word(&rest), name = outr_str_cut(word, '=', &word);
    if (rest.n == 0)
        return outr_fail(err, OUTR_INVALID_ARGUMENT,
                         "timezone prefix " OUTR_FMT " is not followed by a schedule",
                         OUTR_ARG(*text));
    *text = outr_str_trim(rest);
    if (name.n == 0)
        s->zone = OUTR_STR("UTC");
    else if (!outr_str_is(name, "Local"))
        s->zone = name;
    return OUTR_OK;
}

outr_code outr_schedule_parse(outr_schedule *out, outr_str text, outr_err *err)
{
    outr_schedule s = {0};
    if (text.n == 0 || text.n > TEXT_MAX)
        return outr_fail(err, OUTR_INVALID_ARGUMENT,
                         text.n ? "longer than a schedule can be" : "empty spec string");
    outr_code rc = read_zone(&s, &text, err);
    if (!rc && text.n > 0 && text.p[0] == '@')
        rc = read_descriptor(&s, text, err);
    else if (!rc)
        rc = read_fields(&s, text, err);
    if (!rc)
        *out = s;
    return rc;
}

/* ---- the next time --------------------------------------------------------------------------- */

/* What clocks show where the schedule is meant. */
typedef struct place {
    outr_zone_fn *zone;
    const void *ctx;
} place;

static int64_t offset_at(const place *p, int64_t unix_s)
{
    return p->zone(p->ctx, unix_s);
}

/* The first moment of a date; when that hour is skipped there, something near it. */
static int64_t midnight_of(int64_t days, const place *p)
{
    int64_t local = days * OUTR_DAY_S, offset = offset_at(p, local), at = local - offset;
    int64_t there = offset_at(p, at);
    return there == offset ? at : local - there;
}

static bool has(uint64_t bits, unsigned value)
{
    return bits >> value & 1;
}

/* Day and weekday restrict each other only when one of them is a star (as in crontab(5)). */
static bool is_day(const outr_schedule *s, const outr_civil *c)
{
    bool day = has(s->day, c->day), weekday = has(s->weekday, c->weekday);
    if ((s->day | s->weekday) & STAR)
        return day && weekday;
    return day || weekday;
}

static int64_t next_second(const outr_schedule *s, int64_t t, const place *p)
{
    outr_civil c = outr_civil_of(t + offset_at(p, t));
    const int64_t last_year = c.year + YEARS_MAX;
    while (c.year <= last_year) {
        int64_t to_next_hour = 3600 - (int64_t)c.minute * 60 - c.second, later = t;
        if (!has(s->month, c.month))
            later = midnight_of(c.month == 12 ? outr_civil_days(c.year + 1, 1, 1)
                                              : outr_civil_days(c.year, c.month + 1, 1),
                                p);
        else if (!is_day(s, &c))
            later = midnight_of(outr_civil_days(c.year, c.month, c.day) + 1, p);
        else if (!has(s->hour, c.hour))
            later = t + to_next_hour;
        else if (!has(s->minute, c.minute))
            later = t + 60 - c.second;
        else if (!has(s->second, c.second))
            later = t + 1;
        else
            return t;
        /* A midnight that does not exist may be put before the hours that were skipped. */
        t = later > t ? later : t + to_next_hour;
        c = outr_civil_of(t + offset_at(p, t));
    }
    return INT64_MAX;
}

int64_t outr_schedule_next(const outr_schedule *s, int64_t after_ns, outr_zone_fn *zone,
                           const void *zone_ctx)
{
    const place p = {zone, zone_ctx};
    int64_t next;
    if (s->every_ns > 0) {
        int64_t beyond = after_ns - outr_floor_div(after_ns, MILLI_NS) * MILLI_NS;
        return __builtin_add_overflow(after_ns - beyond, s->every_ns, &next) ? INT64_MAX : next;
    }
    next = next_second(s, outr_floor_div(after_ns, SEC_NS) + 1, &p);
    return next < INT64_MAX / SEC_NS ? next * SEC_NS : INT64_MAX;
}
