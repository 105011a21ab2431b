/* calendar - days of the Gregorian calendar as numbers, and back. Asks no clock and no zone.
 * Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms": years begin in March, so that a
 * leap day is their last. */
#ifndef OUTR_COMPONENTS_COMMON_CALENDAR_H
#define OUTR_COMPONENTS_COMMON_CALENDAR_H

#include "base/base.h"

#define OUTR_DAY_S 86400

typedef struct outr_civil {
    int64_t year;
    unsigned month, day, hour, minute, second, weekday; /* weekday 0: Sunday */
} outr_civil;

/* Rounds down, also below zero. */
static inline int64_t outr_floor_div(int64_t a, int64_t b)
{
    return a / b - (a % b < 0);
}

/* Days since 1970. */
static inline int64_t outr_civil_days(int64_t year, unsigned month, unsigned day)
{
    year -= month <= 2;
    int64_t era = outr_floor_div(year, 400), of_era = year - era * 400;
    int64_t of_year = (153 * (int64_t)(month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1;
    return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
}

/* Of seconds since 1970, where the clock shows that. */
static inline outr_civil outr_civil_of(int64_t local_s)
{
    int64_t days = outr_floor_div(local_s, OUTR_DAY_S), rest = local_s - days * OUTR_DAY_S;
    int64_t shifted = days + 719468, era = outr_floor_div(shifted, 146097);
    int64_t of_era = shifted - era * 146097;
    int64_t year = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    int64_t of_year = of_era - (365 * year + year / 4 - year / 100);
    int64_t month = (5 * of_year + 2) / 153;
    outr_civil c = {.day = (unsigned)(of_year - (153 * month + 2) / 5 + 1),
                    .month = (unsigned)(month < 10 ? month + 3 : month - 9),
                    .hour = (unsigned)(rest / 3600),
                    .minute = (unsigned)(rest / 60 % 60),
                    .second = (unsigned)(rest % 60)};
    c.year = year + era * 400 + (c.month <= 2);
    c.weekday = (unsigned)(((days + 4) % 7 + 7) % 7);
    return c;
}

#endif
