/* secretfile - files that hold keys, certificates and tokens: read whole, written at once.
 *
 * Small files, read and written where they are needed; a path that leads to no regular file is
 * refused, so nothing here waits for a pipe. Texts name the path. */
#ifndef OUTR_SECURITY_SECRETFILE_H
#define OUTR_SECURITY_SECRETFILE_H

#include "base/buf.h"
#include "base/err.h"
#include "tls/cert.h"

typedef enum outr_secrecy {
    OUTR_FILE_ANY,     /* whoever may read it */
    OUTR_FILE_PRIVATE, /* no others may read or write it: else PERMISSION_DENIED */
    OUTR_FILE_OWN,     /* and it must be ours (or, mounted, root's) */
} outr_secrecy;

/* Replaces *out (overwriting what was there). NOT_FOUND: it is not there. INVALID_ARGUMENT: longer
 * than max_bytes, or no regular file. */
outr_code outr_secretfile_read(outr_buf *out, const char *path, size_t max_bytes,
                               outr_secrecy secrecy, outr_err *err);

typedef enum outr_file_write {
    OUTR_FILE_NEW,  /* ALREADY_EXISTS: something has the name */
    OUTR_FILE_OVER, /* replaces what has it */
    OUTR_FILE_LAZY, /* the same, and a loop does not wait for the disk: for what may be lost */
} outr_file_write;
/* Mode 0600, under its name only when it is whole and, unless it is lazy, on the disk. */
outr_code outr_secretfile_write(const char *path, outr_str text, outr_file_write how,
                                outr_err *err);

/* A private key in PEM, of at most a megabyte. *key is the caller's. */
outr_code outr_secretfile_read_key(outr_key **key, const char *path, outr_secrecy secrecy,
                                   outr_err *err);
outr_code outr_secretfile_write_key(const char *path, outr_key *key, outr_file_write how,
                                    outr_err *err);

#endif
