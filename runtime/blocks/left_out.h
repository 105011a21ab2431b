/* left_out - components that failed to start and may (ignoreErrors), and when to try each again.
 *
 * Decisions only: times and chance come in. An entry goes when its component has come up, or when
 * its resource changed. What no second try can mend (a type or a setting that is none) stays on the
 * list, to be told of, and is never due. */
#ifndef OUTR_BLOCKS_LEFT_OUT_H
#define OUTR_BLOCKS_LEFT_OUT_H

#include "base/list.h"
#include "base/rand.h"
#include "config/snapshot.h"

typedef struct outr_left_out {
    outr_link link;
    const outr_component_spec *spec;
    outr_snapshot *snapshot; /* holds spec */
    uint32_t failures;
    uint64_t due_ns; /* UINT64_MAX: never */
    outr_err err;    /* of the last try */
} outr_left_out;

/* A failure of spec, which is on the list or comes on it. Tried again 1 s later, then after twice
 * as long each time, up to 30 s, each pause up to a quarter shorter by chance. True: it says
 * something else than the last time. */
bool outr_left_out_failed(outr_list *list, const outr_snapshot *snapshot,
                          const outr_component_spec *spec, const outr_err *err, bool is_final,
                          uint64_t now, outr_rand *rand);
outr_left_out *outr_left_out_find(const outr_list *list, const outr_component_spec *spec);
uint64_t outr_left_out_due(const outr_list *list);         /* the earliest; UINT64_MAX: none */
void outr_left_out_drop(outr_left_out *entry);             /* takes it off the list and frees it */
void outr_left_out_forget(outr_list *list, outr_str name); /* drops those of that name */
void outr_left_out_clear(outr_list *list);
/* Names and why, one block that free(items) frees. */
outr_kvs outr_left_out_copy(const outr_list *list);

#endif
