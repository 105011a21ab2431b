/* h2_guard - what an HTTP/2 peer may waste before its connection is closed.
 *
 * Each kind of frame that costs its sender nothing has an allowance: so many at once, and so many a
 * second. Time is an argument, in nanoseconds. The limits have names in h2_guard.c. */
#ifndef OUTR_HTTP_H2_GUARD_H
#define OUTR_HTTP_H2_GUARD_H

#include "base/base.h"

typedef struct outr__h2_allowance {
    uint32_t left;
    uint64_t refill_ns; /* up to when it has been given back */
} outr__h2_allowance;

typedef struct outr__h2_guard {
    outr__h2_allowance resets, idle_frames;
    int32_t last_id; /* the peer's newest stream */
    struct {
        int32_t from, to;
    } skipped[4]; /* ids it has passed over, the last few ranges */
    unsigned skipped_count;
    int32_t closed[16]; /* ids the peer has ended for good, the last few; a ring */
    unsigned closed_count;
    uint64_t pinged_ns; /* 0: never */
    unsigned ping_strikes;
    bool forgives_ping;
} outr__h2_guard;

void outr__h2_guard_init(outr__h2_guard *guard, uint64_t now);
/* False, here and below: too many. A stream that was reset, or had to be. */
bool outr__h2_guard_reset(outr__h2_guard *guard, uint64_t now);
/* A frame that neither brings nor allows anything: PING, SETTINGS, PRIORITY, empty DATA and the
 * like. */
bool outr__h2_guard_idle_frame(outr__h2_guard *guard, uint64_t now);
/* A frame of a call, either way. is_sent: by us. */
void outr__h2_guard_work(outr__h2_guard *guard, bool is_sent);
/* A PING where pings closer than min_ns are counted. */
bool outr__h2_guard_ping(outr__h2_guard *guard, uint64_t now, uint64_t min_ns);
/* HEADERS of a client's stream. False: the id was passed over, so it may not be used any more. */
bool outr__h2_guard_id(outr__h2_guard *guard, int32_t id);
/* The peer has reset the stream, or it ended on both sides: nothing may come on it any more. */
void outr__h2_guard_close(outr__h2_guard *guard, int32_t id);
bool outr__h2_guard_is_closed(const outr__h2_guard *guard, int32_t id);

#endif
