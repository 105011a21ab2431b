/* secretfile - files that hold keys, certificates and tokens: read whole, written at once.
 *
 * Small files, read and written where they are needed; a path that leads to no regular file is
 * refused, so nothing here waits for a pipe. Texts name the path. */
#ifndef OUTR_SECURITY_SECRETFILE_H
#define OUTR_SECURITY_SECRETFILE_H

#include "base/buf.h"
#include "base/err.h"

typedef enum outr_secrecy {
    OUTR_FILE_ANY,     /* whoever may read it */
    OUTR_FILE_PRIVATE, /* no others may read or write it: else PERMISSION_DENIED */
    OUTR_FILE_OWN,     /* and it must be ours (or, mounted, root's) */
} outr_secrecy;

/* Replaces *out (overwriting what was there). NOT_FOUND: it is not there. INVALID_ARGUMENT: longer
 * than max_bytes, or no regular file. */
outr_code outr_secretfile_read(outr_buf *out, const char *path, size_t max_bytes,
                               outr_secrecy secrecy, outr_err *err);

/* Mode 0600, under its name only when it is whole and on the disk. ALREADY_EXISTS: replaces is
 * false and something has the name. */
outr_code outr_secretfile_write(const char *path, outr_str text, bool replaces, outr_err *err);

#endif
