/* Any bytes as a cron expression: what is taken is due at a time that fits its fields, later than
 * asked and not before the one asked from later; clocks that jump do not stop it. */
#include "components/common/schedule.h"
#include "tests/fuzz/property.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int64_t utc(const void *ctx, int64_t unix_s)
{
    (void)ctx;
    (void)unix_s;
    return 0;
}

/* An hour forward and back again every few days. */
static int64_t jumping(const void *ctx, int64_t unix_s)
{
    (void)ctx;
    int64_t week = unix_s / 302400;
    return week % 2 ? 3600 : -5400;
}

static void check(const outr_schedule *s, int64_t start_ns, outr_zone_fn *zone)
{
    int64_t at = start_ns;
    for (int i = 0; i < 4; i++) {
        int64_t next = outr_schedule_next(s, at, zone, NULL);
        PROPERTY(next > at);
        if (next == INT64_MAX)
            return;
        PROPERTY(s->every_ns > 0 || next % 1000000000 == 0);
        PROPERTY(outr_schedule_next(s, next - 1, zone, NULL) == next || s->every_ns > 0);
        if (s->every_ns == 0) {
            int64_t local = next / 1000000000 + zone(NULL, next / 1000000000);
            PROPERTY(s->second >> (local % 60) & 1);
            PROPERTY(s->minute >> (local / 60 % 60) & 1);
            PROPERTY(s->hour >> (local / 3600 % 24) & 1);
        }
        at = next;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    outr_schedule s;
    outr_err err = {0};
    if (outr_schedule_parse(&s, outr_str_of(data, size), &err)) {
        PROPERTY(err.code == OUTR_INVALID_ARGUMENT);
        return 0;
    }
    PROPERTY(s.every_ns >= 1000000 || (s.second && s.minute && s.hour && s.day && s.month));
    check(&s, INT64_C(1330000000123456789), utc);
    check(&s, INT64_C(1330000000123456789), jumping);
    return 0;
}
