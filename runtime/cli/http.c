#include "cli/http.h"

#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "cli/cli.h"
#include "security/token.h"

#define HEAD_MAX      (64 * OUTR_KIB)
#define TEXT_LINE_MAX 1024

/* Bytes from the sidecar with what was read too far. */
typedef struct reader {
    int fd;
    int timeout_ms;
    outr_buf have;
} reader;

static int connect_unix(outr_str path)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    if (path.n >= sizeof addr.sun_path)
        return errno = ENAMETOOLONG, -1;
    memcpy(addr.sun_path, path.p, path.n);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&addr, sizeof addr) == 0)
        return fd;
    int saved = errno;
    if (fd >= 0)
        close(fd);
    errno = saved;
    return -1;
}

static int connect_tcp(outr_str host, uint16_t port)
{
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    struct addrinfo *all;
    char name[256], service[8];
    snprintf(name, sizeof name, OUTR_FMT, OUTR_ARG(host));
    snprintf(service, sizeof service, "%u", port);
    if (getaddrinfo(name, service, &hints, &all))
        return errno = EHOSTUNREACH, -1;
    int fd = -1, trouble = ECONNREFUSED;
    for (struct addrinfo *a = all; a && fd < 0; a = a->ai_next) {
        fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd >= 0 && connect(fd, a->ai_addr, a->ai_addrlen) == 0)
            break;
        trouble = errno;
        if (fd >= 0)
            close(fd);
        fd = -1;
    }
    freeaddrinfo(all);
    errno = trouble;
    return fd;
}

static int connect_to(const outr_instance *to)
{
    return to->socket.n > 0 ? connect_unix(to->socket) : connect_tcp(to->host, to->http_port);
}

bool outr_cli_is_listening(const outr_instance *to)
{
    int fd = connect_to(to);
    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

static outr_code send_request(int fd, const outr_cli_call *call, outr_err *err)
{
    OUTR_AUTO(outr_buf) head = OUTR_BUF_MAX(HEAD_MAX);
    outr_token file = {0};
    outr_token_view view = {.token = &file};
    if (outr_token_open(&file, getenv("DAPR_API_TOKEN_FILE"), "DAPR_API_TOKEN_FILE", err))
        return err->code;
    outr_str token = outr_token_get(&view, outr_str_from(getenv("DAPR_API_TOKEN")));
    outr_buf_printf(&head,
                    "%s " OUTR_FMT " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                    "User-Agent: outrigger/" OUTR_VERSION "\r\n",
                    call->method, OUTR_ARG(call->target));
    if (call->content_type)
        outr_buf_printf(&head, "Content-Type: %s\r\n", call->content_type);
    if (call->body.p)
        outr_buf_printf(&head, "Content-Length: %zu\r\n", call->body.n);
    if (token.n > 0 && outr_str_find(token, '\r') < 0 && outr_str_find(token, '\n') < 0)
        outr_buf_printf(&head, "dapr-api-token: " OUTR_FMT "\r\n", OUTR_ARG(token));
    outr_token_view_done(&view);
    outr_token_close(&file);
    outr_buf_z(&head, "\r\n");
    if (head.is_full)
        return outr_fail(err, OUTR_INVALID_ARGUMENT, "the request is too long");
    if (!outr_cli_write(fd, head.p, head.n))
        return outr_fail_errno(err, errno, "sending the request");
    /* A refusal may come while the body is still being sent: its text is worth more than EPIPE. */
    outr_cli_write(fd, call->body.p, call->body.n);
    return OUTR_OK;
}

/* 1: more bytes, 0: end, -1: errno. */
static int read_more(reader *r)
{
    struct pollfd wait = {r->fd, POLLIN, 0};
    int ready = poll(&wait, 1, r->timeout_ms);
    if (ready == 0)
        errno = ETIMEDOUT;
    if (ready <= 0)
        return -1;
    char *room = outr_buf_reserve(&r->have, 16 * OUTR_KIB);
    if (!room)
        return errno = EMSGSIZE, -1;
    ssize_t n = read(r->fd, room, 16 * OUTR_KIB);
    if (n > 0)
        r->have.n += (size_t)n;
    return n > 0 ? 1 : (int)n;
}

/* The next line without its end, copied to line; false at the end or when too long. */
static bool read_line(reader *r, char *line, size_t size)
{
    for (;;) {
        outr_str have = outr_buf_view(&r->have);
        ptrdiff_t end = outr_str_find(have, '\n');
        if (end >= 0) {
            outr_str text = outr_str_trim(outr_str_head(have, (size_t)end));
            snprintf(line, size, OUTR_FMT, OUTR_ARG(text));
            outr_buf_drop(&r->have, (size_t)end + 1);
            return true;
        }
        if (have.n > HEAD_MAX || read_more(r) <= 0)
            return false;
    }
}

/* Moves n bytes of the body to the answer; n SIZE_MAX: all up to the end. */
static bool read_body(reader *r, outr_buf *answer, size_t n)
{
    while (n > 0) {
        size_t piece = OUTR_MIN(n, r->have.n);
        if (piece > 0 && !outr_buf_append(answer, r->have.p, piece))
            return false;
        outr_buf_drop(&r->have, piece);
        if (n != SIZE_MAX)
            n -= piece;
        if (n > 0) {
            int more = read_more(r);
            if (more <= 0)
                return more == 0 && n == SIZE_MAX;
        }
    }
    return true;
}

/* RFC 9112 section 7.1; extensions are ignored. */
static bool chunk_size(const char *line, size_t max, size_t *out)
{
    size_t n = 0, digits = strspn(line, "0123456789abcdefABCDEF");
    for (size_t i = 0; i < digits; i++) {
        char c = line[i];
        n = n * 16 + (size_t)(c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
        if (n > max)
            return false;
    }
    *out = n;
    return digits > 0;
}

static bool read_chunks(reader *r, outr_buf *answer)
{
    char line[TEXT_LINE_MAX];
    size_t n;
    for (;;) {
        if (!read_line(r, line, sizeof line) || !chunk_size(line, answer->max, &n))
            return false;
        if (n == 0)
            break;
        if (!read_body(r, answer, n) || !read_line(r, line, sizeof line))
            return false;
    }
    while (read_line(r, line, sizeof line)) { /* trailers */
        if (!line[0])
            return true;
    }
    return false;
}

static bool read_answer(reader *r, outr_cli_call *call)
{
    char line[TEXT_LINE_MAX];
    bool is_chunked = false;
    uint64_t length = SIZE_MAX;
    do { /* interim answers come first */
        int64_t status;
        if (!read_line(r, line, sizeof line))
            return false;
        outr_str rest = outr_str_cut(outr_str_from(line), ' ', &(outr_str){0});
        if (!outr_str_to_i64(outr_str_head(rest, 3), 100, 999, &status))
            return false;
        call->status = (int)status;
        while (read_line(r, line, sizeof line) && line[0]) {
            outr_str name, value = outr_str_trim(outr_str_cut(outr_str_from(line), ':', &name));
            if (outr_str_iis(name, "transfer-encoding"))
                is_chunked = outr_str_iis(value, "chunked");
            if (outr_str_iis(name, "content-length") && !outr_str_to_u64(value, INT64_MAX, &length))
                return false;
        }
    } while (call->status < 200);
    if (call->status == 204 || call->status == 304 || strcmp(call->method, "HEAD") == 0)
        return true;
    return is_chunked ? read_chunks(r, &call->answer) : read_body(r, &call->answer, (size_t)length);
}

outr_code outr_cli_http(const outr_instance *to, outr_cli_call *call, outr_err *err)
{
    int fd = connect_to(to);
    if (fd < 0)
        return outr_fail_errno(err, errno, "connecting to the sidecar of " OUTR_FMT,
                               OUTR_ARG(to->app_id));
    reader r = {.fd = fd, .timeout_ms = call->timeout_ms, .have = OUTR_BUF_MAX(4 * HEAD_MAX)};
    outr_code rc = send_request(fd, call, err);
    errno = 0;
    if (!rc && !read_answer(&r, call))
        rc = errno == ETIMEDOUT ? outr_fail(err, OUTR_DEADLINE_EXCEEDED, "no answer for %d s",
                                            call->timeout_ms / 1000)
             : call->answer.is_full
                 ? outr_fail(err, OUTR_RESOURCE_EXHAUSTED, "the answer is larger than %zu bytes",
                             call->answer.max)
                 : outr_fail(err, OUTR_DATA_LOSS, "the answer ended early");
    outr_buf_done(&r.have);
    close(fd);
    return rc;
}
