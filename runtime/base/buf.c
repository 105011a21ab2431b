#include "base/buf.h"

char *outr_buf_reserve(outr_buf *buf, size_t n)
{
    if (n > buf->max || buf->n > buf->max - n) {
        buf->is_full = true;
        return NULL;
    }
    if (buf->cap - buf->n < n) {
        size_t cap = OUTR_MAX(buf->cap * 2, buf->n + n);
        cap = OUTR_MAX(OUTR_MIN(cap, buf->max), (size_t)64);
        buf->p = outr_realloc(buf->p, cap);
        buf->cap = cap;
    }
    return buf->p + buf->n;
}

bool outr_buf_append(outr_buf *buf, const void *p, size_t n)
{
    char *at = outr_buf_reserve(buf, n);
    if (!at)
        return false;
    if (n)
        memcpy(at, p, n);
    buf->n += n;
    return true;
}

bool outr_buf_str(outr_buf *buf, outr_str s)
{
    return outr_buf_append(buf, s.p, s.n);
}

bool outr_buf_z(outr_buf *buf, const char *z)
{
    return outr_buf_append(buf, z, strlen(z));
}

bool outr_buf_char(outr_buf *buf, char c)
{
    return outr_buf_append(buf, &c, 1);
}

bool outr_buf_printf(outr_buf *buf, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    char *at = n < 0 ? NULL : outr_buf_reserve(buf, (size_t)n + 1);
    if (!at)
        return false;
    va_start(args, fmt);
    vsnprintf(at, (size_t)n + 1, fmt, args);
    va_end(args);
    buf->n += (size_t)n;
    return true;
}

void outr_buf_drop(outr_buf *buf, size_t n)
{
    n = OUTR_MIN(n, buf->n);
    if (n == 0)
        return;
    buf->n -= n;
    memmove(buf->p, buf->p + n, buf->n);
}

void outr_buf_done(outr_buf *buf)
{
    free(buf->p);
    buf->p = NULL;
    buf->n = buf->cap = 0;
}
