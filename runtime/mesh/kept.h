/* kept - a resolver whose last good answers survive it: in memory for when the registry does not
 * answer, on disk for a start while it is away.
 *
 * Stands in front of the resolver of a registry that may be away, and is one itself. An answer with
 * instances is remembered; when a question fails, what is remembered is the answer. An answer of
 * none is passed on as it is: the registry is there, and knows nobody. Any loop may ask. */
#ifndef OUTR_MESH_KEPT_H
#define OUTR_MESH_KEPT_H

#include "components/nameresolution.h"

typedef struct outr_kept_options {
    outr_loop *loop; /* main */
    const outr_log *log;
    const char *path; /* of the file; copied */
} outr_kept_options;

/* Takes the resolver over: closing this one closes it. A file that cannot be read is none. */
outr_code outr_kept_new(outr_resolver **out, outr_resolver *own_resolver,
                        const outr_kept_options *options, outr_err *err);

#endif
