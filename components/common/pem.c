#include "components/common/pem.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "base/buf.h"

#define PEM_MAX OUTR_MIB

outr_code outr_pem_read(outr_arena *arena, const char *name, outr_str *text, outr_err *err)
{
    OUTR_AUTO(outr_buf) out = OUTR_BUF_MAX(PEM_MAX);
    if (text->n == 0 || outr_str_search(*text, OUTR_STR("-----BEGIN ")) >= 0)
        return OUTR_OK;
    const char *path = outr_arena_strz(arena, *text);
    int fd = memchr(path, 0, text->n) ? -1 : open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? 1 : -1;
    while (n > 0) {
        char *room = outr_buf_reserve(&out, 8192);
        n = room ? read(fd, room, 8192) : -1;
        out.n += n > 0 ? (size_t)n : 0;
    }
    int failure = errno;
    if (fd >= 0)
        close(fd);
    if (n < 0)
        return outr_fail_errno(err, failure, "%s is neither PEM text nor a file that can be read",
                               name);
    *text = outr_arena_str(arena, outr_buf_view(&out));
    if (out.n > 0)
        explicit_bzero(out.p, out.n);
    return OUTR_OK;
}
