/* pem - metadata that is PEM text or names a file of it. Blocks. */
#ifndef OUTR_COMPONENTS_COMMON_PEM_H
#define OUTR_COMPONENTS_COMMON_PEM_H

#include "base/arena.h"
#include "base/err.h"

/* Nothing to do when *text is empty or is PEM; else *text becomes what the file holds, at most
 * 1 MiB, on arena. name: of the metadata, for the error; the value itself is never printed, it may
 * be a key that lost its first line. */
outr_code outr_pem_read(outr_arena *arena, const char *name, outr_str *text, outr_err *err);

#endif
