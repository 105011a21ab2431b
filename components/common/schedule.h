/* schedule - when a cron expression is due.
 *
 * Five fields (minute hour day month weekday) or six (a second before them), each a list of
 * values, ranges and steps; @hourly, @daily, @weekly, @monthly, @yearly and their other names;
 * "@every 1h30m". Read as robfig/cron v3 reads it, which is what Dapr uses. Asks no clock: time is
 * an argument, and so is the zone. */
#ifndef OUTR_COMPONENTS_COMMON_SCHEDULE_H
#define OUTR_COMPONENTS_COMMON_SCHEDULE_H

#include "base/err.h"
#include "base/str.h"

typedef struct outr_schedule {
    /* A bit per value; the top bit: it was a star. */
    uint64_t second, minute, hour, day, month, weekday;
    int64_t every_ns; /* not 0: the fields mean nothing */
    /* Of "TZ=" or "CRON_TZ=", borrowed from the text: "UTC" too when it was empty. NONE: the
     * machine's own. */
    outr_str zone;
} outr_schedule;

/* Seconds east of UTC at that moment. */
typedef int64_t outr_zone_fn(const void *ctx, int64_t unix_s);

outr_code outr_schedule_parse(outr_schedule *out, outr_str text, outr_err *err);
/* The first moment after after_ns, both Unix time; INT64_MAX: not within five years. An hour that
 * is skipped when clocks go forward is not made up for; one that comes twice counts twice. */
int64_t outr_schedule_next(const outr_schedule *s, int64_t after_ns, outr_zone_fn *zone,
                           const void *zone_ctx);

#endif
