/* outlier - when an instance gets no calls any more, and which call tries it again. Decisions only:
 * times come in, nanoseconds.
 *
 * By default it is ejected after five failures in a row, or when four of ten calls fail, looked at
 * with each answer. After 5 s, doubling up to 300 s with each time it is of no use, give or take a
 * quarter, one call probes it: when that goes well it is back, and ramps up (balance.h). How many
 * may be ejected at once is the owner's to say. */
#ifndef OUTR_MESH_OUTLIER_H
#define OUTR_MESH_OUTLIER_H

#include "base/rand.h"

#define OUTR_OUTLIER_WINDOW_MAX 64
/* A call that may be repeated elsewhere is waited for so long: then the probe costs nobody. */
#define OUTR_OUTLIER_GRACE_NS OUTR_SEC
/* A probe that has not ended by then is taken for what it is so far: a stream that goes on well, or
 * a call that hangs. What becomes of it still counts. */
#define OUTR_OUTLIER_PROBE_NS (10 * OUTR_SEC)

typedef struct outr_outlier_rules {
    bool is_disabled;
    unsigned in_a_row;        /* failures that are enough; 0: however many */
    unsigned failure_percent; /* of window calls, of which half have been made; 0: not by this */
    unsigned window;          /* 1 to OUTR_OUTLIER_WINDOW_MAX */
    uint64_t base_ns, max_ns; /* until the first probe; at most */
} outr_outlier_rules;

/* Why it was ejected last. */
typedef enum outr_outlier_reason {
    OUTR_OUTLIER_NO_REASON,
    OUTR_OUTLIER_FAILURES_IN_A_ROW,
    OUTR_OUTLIER_FAILURE_RATE,
    OUTR_OUTLIER_PROBE_FAILED,
} outr_outlier_reason;
const char *outr_outlier_reason_name(outr_outlier_reason reason); /* "failure_rate"; "" */

typedef struct outr_outlier {
    uint64_t failures; /* a bit for each of the last calls, the latest lowest */
    uint8_t calls;     /* of them there are */
    uint8_t ejections; /* in a row, without a revival in between that lasted */
    uint8_t reason;    /* outr_outlier_reason */
    bool is_ejected, is_probing;
    bool has_begun; /* the answer to the probe, and there is nothing wrong with it so far */
    uint32_t in_a_row;
    uint64_t until_ns; /* ejected: the probe is due */
    uint64_t probe_ns; /* is_probing: since then */
    uint64_t revived_ns;
} outr_outlier;

typedef enum outr_outlier_change {
    OUTR_OUTLIER_SAME,
    OUTR_OUTLIER_EJECTED,
    OUTR_OUTLIER_REVIVED,
} outr_outlier_change;

/* A call has ended; was_probe: it was the one that outr_outlier_may_probe let through. may_eject:
 * there is room for one more. */
outr_outlier_change outr_outlier_observe(outr_outlier *outlier, const outr_outlier_rules *rules,
                                         uint64_t now, bool is_failure, bool was_probe,
                                         bool may_eject, outr_rand *rand);
/* The call that was to probe it said nothing (its caller left). */
void outr_outlier_forget_probe(outr_outlier *outlier);
/* is_repeatable: the call may be made again elsewhere. True: this call is the probe now. */
bool outr_outlier_may_probe(outr_outlier *outlier, uint64_t now, bool is_repeatable);
/* See OUTR_OUTLIER_PROBE_NS. */
bool outr_outlier_is_probe_late(const outr_outlier *outlier, uint64_t now);
/* Whatever call comes next may be the probe. */
void outr_outlier_open_probe(outr_outlier *outlier, uint64_t now);

#endif
