/* trust - the bundle of root certificates by which peers are judged: from a variable or a file.
 *
 * A file is looked at every two seconds, by what its path leads to: a file renamed over it and a
 * symbolic link turned elsewhere (mounted secrets) are seen like any other change, and there is no
 * event that could be missed (pitfall 23). What cannot be read or is no bundle changes nothing. */
#ifndef OUTR_SECURITY_TRUST_H
#define OUTR_SECURITY_TRUST_H

#include "base/buf.h"
#include "loop/loop.h"

#define OUTR_TRUST_MAX_BYTES OUTR_MIB

typedef struct outr_trust {
    outr_buf pem;
    /* machinery */
    const char *file; /* NULL: it does not change */
    outr_loop *loop;
    outr_timer timer;
    uint64_t seen[5]; /* device, inode, size, change time, modification time */
    bool was_bad;
    void (*changed)(struct outr_trust *trust);
} outr_trust;

/* pem: of a variable, when file is NULL (borrowed, NUL-terminated). */
outr_code outr_trust_open(outr_trust *trust, outr_str pem, const char *file, outr_err *err);
/* Calls changed when trust->pem is another one; on loop. */
void outr_trust_watch(outr_trust *trust, outr_loop *loop, void (*changed)(outr_trust *trust));
void outr_trust_check(outr_trust *trust); /* now */
void outr_trust_close(outr_trust *trust);

#endif
