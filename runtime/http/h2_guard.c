#include "http/h2_guard.h"

#define RESETS_BURST      1000 /* streams a peer may waste at once (CVE-2023-44487) ... */
#define RESETS_PER_SECOND 100  /* ... and again as time passes */

/* CVE-2019-9512, -9515, -9518 and their like. Each frame that does belong to a call earns some:
 * Go's gRPC pings behind what it receives, to measure. */
#define IDLE_FRAMES_BURST      10000
#define IDLE_FRAMES_PER_SECOND 1000
#define IDLE_FRAMES_EARNED     10

#define PING_STRIKES_MAX 2 /* as Go's gRPC servers: the next one closes the connection */

void outr__h2_guard_init(outr__h2_guard *g, uint64_t now)
{
    *g = (outr__h2_guard){.resets = {RESETS_BURST, now}, .idle_frames = {IDLE_FRAMES_BURST, now}};
}

static bool use(outr__h2_allowance *a, uint64_t now, uint32_t burst, uint32_t per_second)
{
    uint64_t earned = (now - a->refill_ns) / (OUTR_SEC / per_second);
    if (earned > 0) {
        a->left = (uint32_t)OUTR_MIN(a->left + earned, (uint64_t)burst);
        a->refill_ns = now;
    }
    if (a->left == 0)
        return false;
    a->left--;
    return true;
}

bool outr__h2_guard_reset(outr__h2_guard *g, uint64_t now)
{
    return use(&g->resets, now, RESETS_BURST, RESETS_PER_SECOND);
}

bool outr__h2_guard_idle_frame(outr__h2_guard *g, uint64_t now)
{
    return use(&g->idle_frames, now, IDLE_FRAMES_BURST, IDLE_FRAMES_PER_SECOND);
}

void outr__h2_guard_work(outr__h2_guard *g, bool is_sent)
{
    g->idle_frames.left =
        OUTR_MIN(g->idle_frames.left + IDLE_FRAMES_EARNED, (uint32_t)IDLE_FRAMES_BURST);
    g->forgives_ping |= is_sent;
}

/* As Go's gRPC does: a ping behind something we sent is its client measuring the path. */
bool outr__h2_guard_ping(outr__h2_guard *g, uint64_t now, uint64_t min_ns)
{
    if (g->forgives_ping)
        g->ping_strikes = 0;
    else if (g->pinged_ns && now < g->pinged_ns + min_ns)
        g->ping_strikes++;
    g->forgives_ping = false;
    g->pinged_ns = now;
    return g->ping_strikes <= PING_STRIKES_MAX;
}

/* A stream's id is greater than all before it (RFC 9113 section 5.1.1). A smaller one may be of a
 * stream that is over, whose frames are let pass; it cannot when it was passed over. */
bool outr__h2_guard_id(outr__h2_guard *g, int32_t id)
{
    if (id > g->last_id) {
        if (id > g->last_id + 2) {
            unsigned at = g->skipped_count++ % OUTR_LEN(g->skipped);
            g->skipped[at].from = g->last_id + 1;
            g->skipped[at].to = id - 1;
        }
        g->last_id = id;
        return true;
    }
    for (unsigned i = 0; i < OUTR_MIN(g->skipped_count, (unsigned)OUTR_LEN(g->skipped)); i++) {
        if (id >= g->skipped[i].from && id <= g->skipped[i].to)
            return false;
    }
    return true;
}

/* nghttp2 is told to forget such streams, as it would keep a thousand of them. */
void outr__h2_guard_close(outr__h2_guard *g, int32_t id)
{
    g->closed[g->closed_count++ % OUTR_LEN(g->closed)] = id;
}

bool outr__h2_guard_is_closed(const outr__h2_guard *g, int32_t id)
{
    bool is_closed = false;
    for (size_t i = 0; i < OUTR_LEN(g->closed); i++)
        is_closed |= g->closed[i] == id;
    return is_closed;
}
