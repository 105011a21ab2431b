/* resolved - the instances that serve one app id, as one loop knows them, and who is told when that
 * changes.
 *
 * Whatever the registry says goes in by outr_resolved_put (an answer, a watch's event, what was
 * kept on disk); a balancer reads `instances` and keeps its own state for each address. The set is
 * in the order of addresses, has none twice, and says nothing of connections. Nothing in it blocks
 * or calls a resolver. Memory: one arena for each state of the set, so that a pointer into
 * `instances` holds until `changed` has returned. */
#ifndef OUTR_MESH_RESOLVED_H
#define OUTR_MESH_RESOLVED_H

#include "base/list.h"
#include "components/nameresolution.h"

#define OUTR_RESOLVED_MAX    1024 /* instances of one name; the rest is left out */
#define OUTR_RESOLVED_LABELS 32   /* of one instance */

typedef struct outr_resolved {
    const outr_instance *instances;
    size_t count;
    uint64_t generation; /* grows with each change */
    outr_arena *arena;   /* of the instances */
    outr_list watchers;
} outr_resolved;

typedef struct outr_resolved_watcher {
    outr_link link;
    /* The set is another one now; before holds the former instances until it returns. Must not put
     * into the set. */
    void (*changed)(struct outr_resolved_watcher *watcher, const outr_resolved *set,
                    const outr_instance *before, size_t before_count);
} outr_resolved_watcher;

void outr_resolved_init(outr_resolved *set);
void outr_resolved_done(outr_resolved *set);
/* Copies. True: it was another set, and the watchers have been told. An empty one does not replace
 * a set that is not: an empty registry never empties the mesh. */
bool outr_resolved_put(outr_resolved *set, const outr_instance *instances, size_t count);
void outr_resolved_watch(outr_resolved *set, outr_resolved_watcher *watcher);
void outr_resolved_unwatch(outr_resolved_watcher *watcher); /* also one that watches nothing */
const outr_instance *outr_resolved_find(const outr_resolved *set, const outr_addr *addr);
/* NONE: it has no such label. */
outr_str outr_instance_label(const outr_instance *instance, const char *name);
bool outr_addr_eq(const outr_addr *a, const outr_addr *b);

#endif
