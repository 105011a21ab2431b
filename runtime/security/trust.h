/* trust - the bundle of root certificates by which peers are judged: from a variable or a file.
 *
 * A file is watched (security/watched.h). What cannot be read or is no bundle changes nothing. */
#ifndef OUTR_SECURITY_TRUST_H
#define OUTR_SECURITY_TRUST_H

#include "base/buf.h"
#include "security/watched.h"

#define OUTR_TRUST_MAX_BYTES OUTR_MIB

typedef struct outr_trust {
    outr_buf pem;
    /* machinery */
    const char *file; /* NULL: it does not change */
    outr_watched watched;
    bool was_bad;
    void (*changed)(struct outr_trust *trust);
} outr_trust;

/* pem: of a variable, when file is NULL (borrowed, NUL-terminated). */
outr_code outr_trust_open(outr_trust *trust, outr_str pem, const char *file, outr_err *err);
/* Calls changed when trust->pem is another one; on loop. */
void outr_trust_watch(outr_trust *trust, outr_loop *loop, void (*changed)(outr_trust *trust));
void outr_trust_close(outr_trust *trust);

#endif
