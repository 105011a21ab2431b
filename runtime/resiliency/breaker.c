#include "resiliency/breaker.h"

#define TRIP_BYTES (64 * OUTR_KIB)

bool outr_breaker_trips(const outr_cel *trip, const outr_breaker_counts *c)
{
    const struct {
        const char *name;
        int64_t value;
    } rows[] = {
        {"requests", c->requests},
        {"totalSuccesses", c->total_successes},
        {"totalFailures", c->total_failures},
        {"consecutiveSuccesses", c->consecutive_successes},
        {"consecutiveFailures", c->consecutive_failures},
    };
    outr_arena *arena = outr_arena_new(TRIP_BYTES);
    outr_json *variables = outr_json_new(arena, OUTR_JSON_OBJECT);
    outr_err err;
    bool holds = false;
    for (size_t i = 0; i < OUTR_LEN(rows); i++)
        outr_json_put(variables, outr_str_from(rows[i].name),
                      outr_json_number(arena, rows[i].value));
    bool is_known = outr_cel_test_all(trip, arena, variables, &holds, &err) == OUTR_OK;
    outr_arena_free(arena);
    return is_known && holds;
}

static void begin_generation(outr_breaker *b, const outr_breaker_rule *rule, uint64_t now)
{
    b->generation++;
    b->counts = (outr_breaker_counts){0};
    b->expires_ns = 0;
    if (b->state == OUTR_BREAKER_OPEN)
        b->expires_ns = now + rule->timeout_ns;
    else if (b->state == OUTR_BREAKER_CLOSED && rule->interval_ns)
        b->expires_ns = now + rule->interval_ns;
}

static void set_state(outr_breaker *b, const outr_breaker_rule *rule, uint64_t now,
                      outr_breaker_state state)
{
    b->state = state;
    begin_generation(b, rule, now);
}

void outr_breaker_init(outr_breaker *b, const outr_breaker_rule *rule, uint64_t now)
{
    *b = (outr_breaker){0};
    begin_generation(b, rule, now);
}

outr_breaker_state outr_breaker_now(outr_breaker *b, const outr_breaker_rule *rule, uint64_t now)
{
    bool is_over = b->expires_ns && b->expires_ns < now;
    if (is_over && b->state == OUTR_BREAKER_CLOSED)
        begin_generation(b, rule, now);
    else if (is_over)
        set_state(b, rule, now, OUTR_BREAKER_HALF_OPEN);
    return b->state;
}

outr_admission outr_breaker_admit(outr_breaker *b, const outr_breaker_rule *rule, uint64_t now,
                                  uint64_t *generation)
{
    outr_breaker_state state = outr_breaker_now(b, rule, now);
    if (state == OUTR_BREAKER_OPEN)
        return OUTR_REFUSED_OPEN;
    if (state == OUTR_BREAKER_HALF_OPEN && b->counts.requests >= rule->max_requests)
        return OUTR_REFUSED_TRIAL;
    b->counts.requests++;
    *generation = b->generation;
    return OUTR_ADMITTED;
}

void outr_breaker_report(outr_breaker *b, const outr_breaker_rule *rule, uint64_t now,
                         uint64_t generation, bool is_good)
{
    outr_breaker_state state = outr_breaker_now(b, rule, now);
    outr_breaker_counts *c = &b->counts;
    if (generation != b->generation)
        return;
    if (is_good) {
        c->total_successes++;
        c->consecutive_successes++;
        c->consecutive_failures = 0;
        if (state == OUTR_BREAKER_HALF_OPEN && c->consecutive_successes >= rule->max_requests)
            set_state(b, rule, now, OUTR_BREAKER_CLOSED);
        return;
    }
    c->total_failures++;
    c->consecutive_failures++;
    c->consecutive_successes = 0;
    if (state == OUTR_BREAKER_HALF_OPEN || outr_breaker_trips(rule->trip, c))
        set_state(b, rule, now, OUTR_BREAKER_OPEN);
}

void outr_breaker_forget(outr_breaker *b, uint64_t generation)
{
    if (generation == b->generation && b->counts.requests > 0)
        b->counts.requests--;
}

const char *outr_breaker_state_name(outr_breaker_state state)
{
    static const char *const names[] = {"closed", "half-open", "open"};
    return names[state];
}
