/* hedge - when a call is late enough to be made a second time, and how many may be. Decisions only:
 * times come in, nanoseconds.
 *
 * Late is a fixed time, or the percentile of the times to the first byte that the callee's answers
 * took lately: a histogram of eight buckets an octave, so it is right within a tenth. It needs
 * OUTR_HEDGE_SAMPLES_MIN answers, and forgets those before the last but one of its periods. Of a
 * hundred calls at most max_percent are hedged (Dean, Barroso: "The Tail at Scale"). Lives on one
 * loop. */
#ifndef OUTR_MESH_HEDGE_H
#define OUTR_MESH_HEDGE_H

#include "base/map.h"
#include "config/traffic.h"

#define OUTR_HEDGE_BUCKETS     192 /* 8 us to 137 s */
#define OUTR_HEDGE_SAMPLES_MIN 32
#define OUTR_HEDGE_PERIOD_NS   (10 * OUTR_SEC)
#define OUTR_HEDGE_AFTER_MIN   OUTR_MS /* of a percentile: below it is the machine's noise */
#define OUTR_HEDGE_NAMES_MAX   4096    /* callees that are remembered; beyond it all begin anew */

typedef struct outr_hedge {
    uint32_t counts[OUTR_HEDGE_BUCKETS], before[OUTR_HEDGE_BUCKETS]; /* this period, the last */
    uint32_t count, count_before;
    uint64_t since_ns; /* this period */
    double percentile; /* that late_ns is of */
    uint64_t late_ns;  /* 0: to be found again */
    double credit;     /* second requests that may be made */
} outr_hedge;

/* A call begins: so long it may take until it is late. 0: it is not hedged. */
uint64_t outr_hedge_begin(outr_hedge *hedge, const outr_hedge_spec *spec, uint64_t now);
/* The first request of a call had its answer after took_ns, or took longer than that. */
void outr_hedge_took(outr_hedge *hedge, uint64_t took_ns, uint64_t now);
/* True, and it is counted: one may be made now. */
bool outr_hedge_take(outr_hedge *hedge);

/* Of each callee that has a spec, by name. */
typedef struct outr_hedges {
    outr_map *map; /* NULL: none yet */
} outr_hedges;
/* Made when it is not there. Stays until the next one is asked for. */
outr_hedge *outr_hedges_find(outr_hedges *hedges, outr_str app_id, outr_str namespace_);
void outr_hedges_done(outr_hedges *hedges);

#endif
