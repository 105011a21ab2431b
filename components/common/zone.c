#include "components/common/zone.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/buf.h"
#include "components/common/calendar.h"

#define FILE_MAX        (256 * 1024) /* the longest there are have a few kilobytes */
#define TRANSITIONS_MAX 20000
#define HEADER_N        44

/* When clocks change, in a year: POSIX.1 section 8.3, "TZ". */
typedef struct change {
    enum { MONTH_WEEK_DAY, JULIAN, DAY_OF_YEAR } kind; /* JULIAN: 1 to 365, no 29 February */
    int month, week, day;
    int64_t at_s; /* of that day, by the clock before the change */
} change;

typedef struct rule {
    int64_t standard_s, summer_s; /* east of UTC */
    bool has_summer;
    change begins, ends; /* of summer time */
} rule;

struct outr_zone {
    int64_t first_s; /* before the first transition */
    int64_t *times, *offsets;
    size_t count;
    bool has_rule; /* for after the last */
    rule rule;
};

/* ---- the rule behind the table --------------------------------------------------------------- */

static char peek(outr_str s)
{
    return s.n > 0 ? s.p[0] : 0;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool take_char(outr_str *s, char c)
{
    if (peek(*s) != c)
        return false;
    *s = outr_str_skip(*s, 1);
    return true;
}

static bool take_number(outr_str *s, int max, int *out)
{
    int n = 0;
    if (!is_digit(peek(*s)))
        return false;
    while (is_digit(peek(*s))) {
        n = n * 10 + (peek(*s) - '0');
        if (n > max)
            return false;
        *s = outr_str_skip(*s, 1);
    }
    *out = n;
    return true;
}

/* [+-]hh[:mm[:ss]] */
static bool take_time(outr_str *s, int64_t *out_s)
{
    int hours, minutes = 0, seconds = 0;
    bool is_negative = take_char(s, '-');
    if (!is_negative)
        take_char(s, '+');
    if (!take_number(s, 167, &hours))
        return false;
    if (take_char(s, ':') && !take_number(s, 59, &minutes))
        return false;
    if (minutes >= 0 && take_char(s, ':') && !take_number(s, 59, &seconds))
        return false;
    *out_s = (int64_t)hours * 3600 + minutes * 60 + seconds;
    *out_s = is_negative ? -*out_s : *out_s;
    return true;
}

/* "CET" or "<+03>" */
static bool skip_name(outr_str *s)
{
    size_t n = 0;
    bool is_quoted = take_char(s, '<');
    for (;; n++, *s = outr_str_skip(*s, 1)) {
        char c = peek(*s);
        bool is_letter = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
        if (!is_letter && !(is_quoted && (is_digit(c) || c == '+' || c == '-')))
            break;
    }
    return n >= 3 && (!is_quoted || take_char(s, '>'));
}

static bool take_change(outr_str *s, change *out)
{
    bool is_right;
    *out = (change){.at_s = 2 * 3600};
    if (take_char(s, 'M')) {
        is_right = take_number(s, 12, &out->month) && out->month >= 1 && take_char(s, '.') &&
                   take_number(s, 5, &out->week) && out->week >= 1 && take_char(s, '.') &&
                   take_number(s, 6, &out->day);
    } else {
        out->kind = take_char(s, 'J') ? JULIAN : DAY_OF_YEAR;
        is_right = take_number(s, 365, &out->day) && (out->kind == DAY_OF_YEAR || out->day >= 1);
    }
    return is_right && (!take_char(s, '/') || take_time(s, &out->at_s));
}

static bool read_rule(rule *out, outr_str s)
{
    int64_t west_s;
    *out = (rule){0};
    if (!skip_name(&s) || !take_time(&s, &west_s))
        return false;
    out->standard_s = -west_s;
    if (s.n == 0)
        return true;
    out->has_summer = true;
    out->summer_s = out->standard_s + 3600;
    if (!skip_name(&s))
        return false;
    if (peek(s) != ',') {
        if (!take_time(&s, &west_s))
            return false;
        out->summer_s = -west_s;
    }
    return take_char(&s, ',') && take_change(&s, &out->begins) && take_char(&s, ',') &&
           take_change(&s, &out->ends) && s.n == 0;
}

static bool is_leap(int64_t year)
{
    return year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
}

/* Seconds since 1970 by the clock that is changed. */
static int64_t moment_of(const change *c, int64_t year)
{
    int64_t first = outr_civil_days(year, 1, 1), day;
    if (c->kind == JULIAN) {
        day = first + c->day - 1 + (is_leap(year) && c->day >= 60);
    } else if (c->kind == DAY_OF_YEAR) {
        day = first + c->day;
    } else {
        unsigned month = (unsigned)c->month;
        int64_t begins = outr_civil_days(year, month, 1);
        int64_t next = month == 12 ? outr_civil_days(year + 1, 1, 1)
                                   : outr_civil_days(year, month + 1, 1);
        int weekday = (int)outr_civil_of(begins * OUTR_DAY_S).weekday;
        day = begins + (c->day - weekday + 7) % 7 + (c->week - 1) * 7;
        while (day >= next) /* week 5: the last */
            day -= 7;
    }
    return day * OUTR_DAY_S + c->at_s;
}

static int64_t offset_by_rule(const rule *r, int64_t unix_s)
{
    if (!r->has_summer)
        return r->standard_s;
    int64_t year = outr_civil_of(unix_s + r->standard_s).year;
    int64_t begins = moment_of(&r->begins, year) - r->standard_s,
            ends = moment_of(&r->ends, year) - r->summer_s;
    bool is_summer = begins < ends ? unix_s >= begins && unix_s < ends
                                   : unix_s >= begins || unix_s < ends;
    return is_summer ? r->summer_s : r->standard_s;
}

/* ---- the table ------------------------------------------------------------------------------- */

static uint64_t read_uint(const char *p, size_t n)
{
    uint64_t value = 0;
    for (size_t i = 0; i < n; i++)
        value = value << 8 | (unsigned char)p[i];
    return value;
}

typedef struct counts {
    size_t isut, isstd, leap, time, type, name;
} counts;

static bool read_header(outr_str *s, counts *out, char *version)
{
    size_t *const places[] = {&out->isut, &out->isstd, &out->leap,
                              &out->time, &out->type,  &out->name};
    if (s->n < HEADER_N || memcmp(s->p, "TZif", 4) != 0)
        return false;
    *version = s->p[4];
    for (size_t i = 0; i < OUTR_LEN(places); i++) {
        *places[i] = read_uint(s->p + 20 + i * 4, 4);
        if (*places[i] > TRANSITIONS_MAX)
            return false;
    }
    *s = outr_str_skip(*s, HEADER_N);
    return true;
}

/* Of what lies behind a header, with times of so many bytes. */
static size_t block_size(const counts *c, size_t time_n)
{
    return c->time * (time_n + 1) + c->type * 6 + c->name + c->leap * (time_n + 4) + c->isstd +
           c->isut;
}

static bool read_block(outr_zone *z, outr_str s, const counts *c)
{
    const char *times = s.p, *types = times + c->time * 8, *infos = types + c->time;
    if (c->type == 0 || s.n < block_size(c, 8))
        return false;
    z->count = c->time;
    z->times = outr_alloc((c->time + 1) * sizeof *z->times);
    z->offsets = outr_alloc((c->time + 1) * sizeof *z->offsets);
    z->first_s = (int32_t)read_uint(infos, 4);
    for (size_t i = 0; i < c->time; i++) {
        size_t type = (unsigned char)types[i];
        if (type >= c->type)
            return false;
        z->times[i] = (int64_t)read_uint(times + i * 8, 8);
        z->offsets[i] = (int32_t)read_uint(infos + type * 6, 4);
        if (i > 0 && z->times[i] <= z->times[i - 1])
            return false;
    }
    for (size_t i = 0; i <= c->time; i++) { /* RFC 9636 section 3.2: within a day and some */
        int64_t offset = i < c->time ? z->offsets[i] : z->first_s;
        if (offset <= -2 * OUTR_DAY_S || offset >= 2 * OUTR_DAY_S)
            return false;
    }
    return true;
}

static bool read_all(outr_zone *z, outr_str s)
{
    counts c;
    char version;
    outr_str footer;
    if (!read_header(&s, &c, &version) || version < '2' || s.n < block_size(&c, 4))
        return false;
    s = outr_str_skip(s, block_size(&c, 4));
    if (!read_header(&s, &c, &version) || !read_block(z, s, &c))
        return false;
    s = outr_str_skip(s, block_size(&c, 8));
    if (!take_char(&s, '\n') || outr_str_find(s, '\n') < 0)
        return false;
    outr_str_cut(s, '\n', &footer);
    z->has_rule = footer.n > 0;
    return !z->has_rule || read_rule(&z->rule, footer);
}

outr_code outr_zone_parse(outr_zone **out, outr_str bytes, outr_err *err)
{
    outr_zone *z = outr_alloc(sizeof *z);
    if (!read_all(z, bytes)) {
        outr_zone_free(z);
        return outr_fail(err, OUTR_INVALID_ARGUMENT, "not a table of a time zone");
    }
    *out = z;
    return OUTR_OK;
}

void outr_zone_free(outr_zone *z)
{
    if (!z)
        return;
    free(z->times);
    free(z->offsets);
    free(z);
}

int64_t outr_zone_offset(const outr_zone *z, int64_t unix_s)
{
    size_t low = 0, high = z->count; /* transitions before low have happened */
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (z->times[middle] <= unix_s)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == z->count && z->has_rule)
        return offset_by_rule(&z->rule, unix_s);
    return low == 0 ? z->first_s : z->offsets[low - 1];
}

/* ---- files ----------------------------------------------------------------------------------- */

/* What becomes part of a path: "Area/City", nothing that climbs. */
static bool is_name(outr_str name)
{
    for (size_t i = 0; i < name.n; i++) {
        char c = name.p[i];
        bool is_letter = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
        if (!is_letter && !is_digit(c) && (i == 0 || !memchr("_+-/", c, 4)))
            return false;
    }
    return name.n > 0 && name.n < 64;
}

static outr_code read_file(outr_buf *out, int fd, const char *path, outr_err *err)
{
    for (;;) {
        char *room = outr_buf_reserve(out, 4096);
        ssize_t n = room ? read(fd, room, 4096) : -1;
        if (n == 0)
            return OUTR_OK;
        if (n < 0)
            return outr_fail_errno(err, room ? errno : EFBIG, "%s", path);
        out->n += (size_t)n;
    }
}

outr_code outr_zone_load(outr_zone **out, outr_str name, outr_err *err)
{
    const char *const folders[] = {getenv("ZONEINFO"), "/usr/share/zoneinfo",
                                   "/usr/lib/zoneinfo", "/usr/share/lib/zoneinfo", "/etc/zoneinfo"};
    OUTR_AUTO(outr_buf) bytes = OUTR_BUF_MAX(FILE_MAX);
    char path[512];
    if (!is_name(name))
        return outr_fail(err, OUTR_INVALID_ARGUMENT,
                         "\"" OUTR_FMT "\" is not the name of a time zone",
                         OUTR_ARG(outr_str_head(name, 64)));
    if (outr_str_is(name, "UTC")) { /* without any tables */
        *out = outr_alloc(sizeof **out);
        return OUTR_OK;
    }
    for (size_t i = 0; i < OUTR_LEN(folders); i++) {
        if (!folders[i] || snprintf(path, sizeof path, "%s/" OUTR_FMT, folders[i],
                                    OUTR_ARG(name)) >= (int)sizeof path)
            continue;
        int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
        if (fd < 0)
            continue;
        outr_code rc = read_file(&bytes, fd, path, err);
        close(fd);
        if (!rc)
            rc = outr_zone_parse(out, outr_buf_view(&bytes), err);
        return rc ? outr_wrap(err, "%s", path) : OUTR_OK;
    }
    return outr_fail(err, OUTR_NOT_FOUND,
                     "time zone " OUTR_FMT " is not known here (package tzdata)", OUTR_ARG(name));
}
