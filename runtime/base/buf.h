/* buf - growable bytes with a cap. Owned by whoever declares it; never shared. */
#ifndef OUTR_BASE_BUF_H
#define OUTR_BASE_BUF_H

#include "base/base.h"
#include "base/str.h"

typedef struct outr_buf {
    char *p;
    size_t n;
    size_t cap;
    size_t max; /* appending past it sets is_full and drops the piece */
    bool is_full;
} outr_buf;

#define OUTR_BUF_MAX(max_bytes) ((outr_buf){NULL, 0, 0, (max_bytes), false})

bool outr_buf_append(outr_buf *buf, const void *p, size_t n);
bool outr_buf_str(outr_buf *buf, outr_str s);
bool outr_buf_z(outr_buf *buf, const char *z);
bool outr_buf_char(outr_buf *buf, char c);
bool outr_buf_printf(outr_buf *buf, const char *fmt, ...) OUTR_PRINTF(2, 3);
char *outr_buf_reserve(outr_buf *buf, size_t n); /* room for n more bytes after p+n, or NULL */
void outr_buf_drop(outr_buf *buf, size_t n);     /* takes n bytes off the front */
void outr_buf_done(outr_buf *buf);
static inline outr_str outr_buf_view(const outr_buf *buf)
{
    return (outr_str){buf->p, buf->n};
}
#define outr_buf_cleanup outr_buf_done

#endif
