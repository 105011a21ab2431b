/* rate - how often something may happen: GCRA (the generic cell rate algorithm of ITU-T I.371), for
 * each of many keys. Decisions only: times come in, nanoseconds.
 *
 * A key's state is one number, the time at which its bucket is full again; a bucket that is full is
 * nobody's, so nothing has to be swept. The table has a fixed size: when all places where a key may
 * be are taken, the bucket among them that is full first is forgotten, which is the one that loses
 * least by it. Keys are hashed with a secret, so nobody finds two of one place. Shared by loops. */
#ifndef OUTR_MESH_RATE_H
#define OUTR_MESH_RATE_H

#include "base/base.h"
#include "base/str.h"

typedef struct outr_rate outr_rate;

typedef struct outr_rate_options {
    uint64_t requests, interval_ns; /* so many in so long, evenly */
    uint64_t burst;                 /* at once; at least 1 */
    size_t keys;                    /* told apart; 1: there is one bucket */
    uint64_t seed;
} outr_rate_options;
/* Beyond, a rate is as good as none: requests are at least a nanosecond apart. */
#define OUTR_RATE_REQUESTS_MAX 1000000000
#define OUTR_RATE_INTERVAL_MAX ((uint64_t)24 * 3600 * OUTR_SEC)

outr_rate *outr_rate_new(const outr_rate_options *options);
void outr_rate_free(outr_rate *rate); /* NULL is fine */

typedef struct outr_rate_verdict {
    bool is_allowed;
    uint64_t after_ns; /* refused: when it would be let in, from now on */
} outr_rate_verdict;
/* Any thread. now may be a little behind another thread's. What is refused takes nothing. */
outr_rate_verdict outr_rate_take(outr_rate *rate, outr_str key, uint64_t now);

/* The arithmetic of one bucket, for who has its own: full_at is its state, 0 for a full one.
 * gap: between two requests, in 1/OUTR_RATE_PARTS ns. */
#define OUTR_RATE_PARTS 16
uint64_t outr_rate_gap(uint64_t requests, uint64_t interval_ns);
outr_rate_verdict outr_rate_judge(uint64_t *full_at, uint64_t gap, uint64_t burst, uint64_t now);

#endif
