/* offsets - what of one partition was settled, and so how far it may be committed.
 *
 * Kafka remembers one number for a group and a partition: where to go on. A message that is still
 * in hand must lie at or beyond it, whatever came after it and was settled sooner. Offsets are
 * taken in ascending order, with gaps (compaction, transactions), and settled in any order; what
 * may be committed is the lowest one that is not settled, or the place behind the last one when all
 * are. Knows no Kafka library, does no I/O; belongs to one thread. Memory follows from how many
 * offsets lie between the lowest one in hand and the last one: the caller's window. */
#ifndef OUTR_COMPONENTS_COMMON_KAFKA_OFFSETS_H
#define OUTR_COMPONENTS_COMMON_KAFKA_OFFSETS_H

#include "base/base.h"

typedef struct outr_offsets_slot outr_offsets_slot;

/* Embedded; zeroed is: nothing taken, nothing to commit. */
typedef struct outr_offsets {
    outr_offsets_slot *slots; /* a ring, ascending */
    size_t first, count, cap;
    int64_t next;      /* behind the last one that was taken */
    int64_t committed; /* as far as the broker knows */
    bool has_taken;
} outr_offsets;

void outr_offsets_done(outr_offsets *offsets);
/* False: not beyond those taken before, so it was delivered already and is left out. */
bool outr_offsets_take(outr_offsets *offsets, int64_t offset);
/* False: it is not in hand. */
bool outr_offsets_settle(outr_offsets *offsets, int64_t offset);
/* Everything before next was settled, in an earlier life of this. Before anything is taken. */
void outr_offsets_resume(outr_offsets *offsets, int64_t next);
/* Where a consumer may go on, when that is beyond what is committed. */
bool outr_offsets_committable(const outr_offsets *offsets, int64_t *out);
void outr_offsets_committed(outr_offsets *offsets, int64_t offset);

#endif
