/* rand - a small fast generator (xoshiro256**) and what is built on it. Not for keys.
 *
 * Seeded by the environment's entropy (loop/env.h); simulations print the seed. One per thread. */
#ifndef OUTR_BASE_RAND_H
#define OUTR_BASE_RAND_H

#include "base/base.h"

typedef struct outr_rand {
    uint64_t s[4];
} outr_rand;

void outr_rand_seed(outr_rand *r, uint64_t seed);
uint64_t outr_rand_next(outr_rand *r);
uint64_t outr_rand_below(outr_rand *r, uint64_t bound); /* uniform in [0, bound); bound > 0 */
double outr_rand_unit(outr_rand *r);                    /* [0, 1) */
#define OUTR_UUID_LEN 36
void outr_rand_uuid(outr_rand *r, char out[OUTR_UUID_LEN + 1]); /* RFC 9562 version 4 */

#endif
