#include "base/clock.h"

#include <time.h>

static size_t print(const struct tm *tm, const char *fraction, const char *zone, char out[40])
{
    int n =
        snprintf(out, 40, "%04d-%02d-%02dT%02d:%02d:%02d%s%s", (tm->tm_year + 1900) % 10000,
                 tm->tm_mon + 1, tm->tm_mday, tm->tm_hour, tm->tm_min, tm->tm_sec, fraction, zone);
    return (size_t)OUTR_MIN(n, 39);
}

/* Floor division, so that times before 1970 come out right. */
static time_t seconds_of(int64_t unix_ns, int64_t *rest)
{
    int64_t s = unix_ns / 1000000000;
    *rest = unix_ns % 1000000000;
    if (*rest < 0) {
        *rest += 1000000000;
        s--;
    }
    return (time_t)s;
}

size_t outr_time_rfc3339(int64_t unix_ns, char out[40])
{
    struct tm tm;
    int64_t rest;
    time_t s = seconds_of(unix_ns, &rest);
    gmtime_r(&s, &tm);
    return print(&tm, "", "Z", out);
}

size_t outr_time_rfc3339_nano(int64_t unix_ns, char out[40])
{
    struct tm tm;
    int64_t rest;
    char fraction[16];
    time_t s = seconds_of(unix_ns, &rest);
    gmtime_r(&s, &tm);
    snprintf(fraction, sizeof fraction, ".%09lld", (long long)rest);
    return print(&tm, fraction, "Z", out);
}

size_t outr_time_rfc3339_local(int64_t unix_ns, char out[40])
{
    struct tm tm;
    int64_t rest;
    char zone[16];
    time_t s = seconds_of(unix_ns, &rest);
    localtime_r(&s, &tm);
    long offset = tm.tm_gmtoff / 60, distance = offset < 0 ? -offset : offset;
    if (offset == 0)
        return print(&tm, "", "Z", out);
    snprintf(zone, sizeof zone, "%c%02ld:%02ld", offset < 0 ? '-' : '+', distance / 60 % 100,
             distance % 60);
    return print(&tm, "", zone, out);
}

static bool digits(outr_str s, size_t at, size_t n, int64_t max, int *out)
{
    int64_t value;
    if (s.n < at + n || !outr_str_to_i64(outr_str_of(s.p + at, n), 0, max, &value) ||
        s.p[at] == '+')
        return false;
    *out = (int)value;
    return true;
}

bool outr_time_parse_rfc3339(outr_str s, int64_t *unix_ns)
{
    struct tm tm = {0};
    int zone_h = 0, zone_m = 0;
    int64_t ns = 0;
    if (!digits(s, 0, 4, 9999, &tm.tm_year) || !digits(s, 5, 2, 12, &tm.tm_mon) ||
        !digits(s, 8, 2, 31, &tm.tm_mday) || !digits(s, 11, 2, 23, &tm.tm_hour) ||
        !digits(s, 14, 2, 59, &tm.tm_min) || !digits(s, 17, 2, 60, &tm.tm_sec))
        return false;
    if (s.p[4] != '-' || s.p[7] != '-' || (s.p[10] != 'T' && s.p[10] != 't') || s.p[13] != ':' ||
        s.p[16] != ':')
        return false;
    size_t at = 19;
    if (at < s.n && s.p[at] == '.') {
        int64_t scale = 100000000;
        for (at++; at < s.n && s.p[at] >= '0' && s.p[at] <= '9'; at++, scale /= 10)
            ns += (s.p[at] - '0') * scale;
    }
    outr_str zone = outr_str_skip(s, at);
    if (!outr_str_iis(zone, "Z")) {
        if (zone.n != 6 || (zone.p[0] != '+' && zone.p[0] != '-') || zone.p[3] != ':' ||
            !digits(zone, 1, 2, 23, &zone_h) || !digits(zone, 4, 2, 59, &zone_m))
            return false;
        if (zone.p[0] == '-') {
            zone_h = -zone_h;
            zone_m = -zone_m;
        }
    }
    tm.tm_year -= 1900;
    tm.tm_mon -= 1;
    *unix_ns = ((int64_t)timegm(&tm) - zone_h * 3600 - zone_m * 60) * 1000000000 + ns;
    return true;
}
