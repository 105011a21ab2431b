#include "net/env_real.h"

#include <arpa/inet.h>
#include <arpa/nameser.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <resolv.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "base/arena.h"
#include "loop/op.h"
#include "net/env_uv.h"
#include "net/tcp.h"

static uint64_t now_ns(outr_env *env OUTR_UNUSED)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * OUTR_SEC + (uint64_t)t.tv_nsec;
}

static int64_t unix_ns(outr_env *env OUTR_UNUSED)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void entropy(outr_env *env OUTR_UNUSED, void *out, size_t n)
{
    if (getrandom(out, n, 0) != (ssize_t)n) {
        fprintf(stderr, "outrigger: the system gives no randomness\n");
        abort();
    }
}

/* ---- connect --------------------------------------------------------------------------------- */

typedef struct connecting {
    union {
        uv_connect_t connect;
        uv_req_t req;
    };
    outr_connect *request;
    outr_op *op; /* NULL: cancelled */
    outr_tcp *tcp;
} connecting;

static void on_connected(uv_connect_t *req, int status)
{
    connecting *c = req->data;
    outr_op *op = c->op;
    if (!op) { /* cancelled: the handle is closing already */
        free(c);
        return;
    }
    if (status < 0) {
        outr_err err;
        char text[OUTR_ADDR_TEXT_MAX], what[OUTR_ADDR_TEXT_MAX + 16];
        outr_addr_text(&c->request->addr, text);
        snprintf(what, sizeof what, "connect to %s", text);
        outr_uv_fail(&err, status, what);
        err.code = OUTR_UNAVAILABLE;
        err.retriable = true;
        outr_tcp_discard(c->tcp);
        free(c);
        outr_op_fail(op, &err);
        return;
    }
    outr_tcp_ready(c->tcp);
    outr_tcp_keep_alive(c->tcp);
    c->request->stream = &c->tcp->base;
    free(c);
    outr_op_finish(op);
}

static void on_connect_cancel(outr_op *op)
{
    connecting *c = op->impl;
    c->op = NULL;
    outr_tcp_discard(c->tcp); /* ends the request with UV_ECANCELED */
    outr_op_finish(op);
}

static void do_connect(outr_env *env OUTR_UNUSED, outr_loop *loop, outr_connect *req, outr_op *op)
{
    connecting *c = outr_alloc(sizeof *c);
    struct sockaddr_storage sys;
    bool is_unix = req->addr.kind == OUTR_ADDR_UNIX;
    req->stream = NULL;
    c->request = req;
    c->op = op;
    c->tcp = outr_tcp_new(loop, is_unix);
    c->connect.data = c;
    outr_op_begin(op, c, on_connect_cancel);
    int rc = 0;
    if (is_unix) {
        uv_pipe_connect(&c->connect, &c->tcp->pipe, req->addr.path, on_connected);
    } else {
        outr_addr_to_sys(&req->addr, &sys);
        rc = uv_tcp_connect(&c->connect, &c->tcp->tcp, (struct sockaddr *)&sys, on_connected);
    }
    if (rc == 0)
        return;
    outr_err err;
    outr_uv_fail(&err, rc, "connect");
    err.code = OUTR_UNAVAILABLE;
    err.retriable = true;
    outr_tcp_discard(c->tcp);
    free(c);
    outr_op_fail_soon(op, &err);
}

/* ---- listen, look-up ------------------------------------------------------------------------- */

static outr_code do_listen(outr_env *env OUTR_UNUSED, outr_loop *loop,
                           const outr_listen_options *options, outr_listener **out, outr_err *err)
{
    return outr_uv_listen(loop, options, out, err);
}

typedef struct looking {
    uv_getaddrinfo_t req;
    outr_lookup *request;
    outr_op *op; /* NULL: cancelled */
    char host[256];
} looking;

static void add_result(outr_lookup *request, const struct addrinfo *info)
{
    struct sockaddr_storage sys = {0};
    bool is_full = request->count == OUTR_LEN(request->addrs);
    if ((is_full && request->more_count == request->more_max) || info->ai_addrlen > sizeof sys)
        return;
    memcpy(&sys, info->ai_addr, info->ai_addrlen);
    outr_addr *addr =
        is_full ? &request->more[request->more_count++] : &request->addrs[request->count++];
    outr_addr_from_sys(addr, &sys);
    addr->port = request->port;
}

static void on_looked_up(uv_getaddrinfo_t *req, int status, struct addrinfo *list)
{
    looking *l = req->data;
    outr_op *op = l->op;
    if (op && status == 0) {
        for (const struct addrinfo *info = list; info; info = info->ai_next)
            add_result(l->request, info);
    }
    uv_freeaddrinfo(list);
    if (op && l->request->count == 0) {
        outr_err err;
        outr_fail(&err, OUTR_UNAVAILABLE, "look up %s: %s", l->host,
                  status ? uv_strerror(status) : "no address");
        err.retriable = true;
        free(l);
        outr_op_fail(op, &err);
        return;
    }
    free(l);
    if (op)
        outr_op_finish(op);
}

static void on_lookup_cancel(outr_op *op)
{
    looking *l = op->impl;
    l->op = NULL;
    uv_cancel((uv_req_t *)&l->req); /* may be too late; then the answer is dropped */
    outr_op_finish(op);
}

static void do_lookup(outr_env *env OUTR_UNUSED, outr_loop *loop, outr_lookup *request, outr_op *op)
{
    outr_err err;
    request->count = request->more_count = 0;
    if (outr_addr_from_ip(&request->addrs[0], request->host, request->port, NULL) == OUTR_OK) {
        request->count = 1;
        outr_op_begin(op, NULL, NULL);
        outr_op_finish_soon(op);
        return;
    }
    looking *l = outr_alloc(sizeof *l);
    int rc = UV_ENAMETOOLONG;
    l->request = request;
    l->op = op;
    l->req.data = l;
    outr_op_begin(op, l, on_lookup_cancel);
    if (request->host.n < sizeof l->host) {
        const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG};
        memcpy(l->host, request->host.p, request->host.n);
        rc = uv_getaddrinfo(outr_loop_uv(loop), &l->req, on_looked_up, l->host, NULL, &hints);
    }
    if (rc == 0)
        return;
    outr_uv_fail(&err, rc, "look up");
    free(l);
    outr_op_fail_soon(op, &err);
}

/* ---- a question of DNS ----------------------------------------------------------------------- */

/* By the system's resolver, so that resolv.conf holds as it does for addresses: servers, search
 * list, time-outs, TCP for what is truncated. It blocks, hence the pool's thread. */
typedef struct querying {
    uv_work_t req;
    outr_query *request;
    outr_op *op; /* NULL: cancelled */
    int type, n, why;
    char name[256];
    unsigned char answer[OUTR_QUERY_MAX];
} querying;

static void run_query(uv_work_t *req)
{
    querying *q = req->data;
    struct __res_state state = {0};
    q->n = -1;
    q->why = TRY_AGAIN;
    if (res_ninit(&state))
        return;
    q->n = res_nsearch(&state, q->name, ns_c_in, q->type, q->answer, (int)sizeof q->answer);
    q->why = state.res_h_errno;
    res_nclose(&state);
}

static void on_queried(uv_work_t *req, int status)
{
    querying *q = req->data;
    outr_op *op = q->op;
    outr_err err = {0};
    bool is_none = q->n < 0 && (q->why == HOST_NOT_FOUND || q->why == NO_DATA);
    if (op && status == 0 && q->n >= 0 && q->n <= (int)sizeof q->answer)
        q->request->answer =
            outr_arena_str(q->request->arena, outr_str_of(q->answer, (size_t)q->n));
    else if (op && q->n > (int)sizeof q->answer)
        outr_fail(&err, OUTR_RESOURCE_EXHAUSTED, "look up %s: more than %d bytes", q->name,
                  OUTR_QUERY_MAX);
    else if (op && (status || !is_none))
        outr_fail(&err, OUTR_UNAVAILABLE, "look up %s: %s", q->name,
                  status ? uv_strerror(status) : hstrerror(q->why));
    err.retriable = err.code != OUTR_OK;
    free(q);
    if (op && err.code)
        outr_op_fail(op, &err);
    else if (op)
        outr_op_finish(op);
}

static void on_query_cancel(outr_op *op)
{
    querying *q = op->impl;
    q->op = NULL;
    uv_cancel((uv_req_t *)&q->req); /* may be too late; then the answer is dropped */
    outr_op_finish(op);
}

static void do_query(outr_env *env OUTR_UNUSED, outr_loop *loop, outr_query *request, outr_op *op)
{
    outr_err err;
    querying *q = outr_alloc(sizeof *q);
    request->answer = OUTR_STR_NONE;
    *q = (querying){.request = request, .op = op, .type = request->type};
    q->req.data = q;
    outr_op_begin(op, q, on_query_cancel);
    int n = snprintf(q->name, sizeof q->name, "%s", request->name);
    int rc = n >= (int)sizeof q->name
                 ? UV_ENAMETOOLONG
                 : uv_queue_work(outr_loop_uv(loop), &q->req, run_query, on_queried);
    if (rc == 0)
        return;
    outr_uv_fail(&err, rc, "look up");
    free(q);
    outr_op_fail_soon(op, &err);
}

outr_env *outr_env_real(void)
{
    static outr_env env = {now_ns,    unix_ns,   entropy, do_connect,
                           do_listen, do_lookup, do_query}; /* never changed */
    return &env;
}

/* ---- who are we ------------------------------------------------------------------------------ */

/* The source address the kernel would use for a route to the outside; no packet is sent. */
static bool route_source(outr_addr *out)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(9)};
    struct sockaddr_storage from = {0};
    socklen_t n = sizeof from;
    inet_pton(AF_INET, "192.0.2.1", &to.sin_addr); /* TEST-NET-1, RFC 5737 */
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return false;
    bool found = connect(fd, (struct sockaddr *)&to, sizeof to) == 0 &&
                 getsockname(fd, (struct sockaddr *)&from, &n) == 0;
    close(fd);
    if (found)
        outr_addr_from_sys(out, &from);
    return found;
}

static bool interface_address(outr_addr *out)
{
    struct ifaddrs *list;
    bool found = false;
    if (getifaddrs(&list))
        return false;
    for (const struct ifaddrs *i = list; i && !found; i = i->ifa_next) {
        if (!i->ifa_addr || (i->ifa_flags & IFF_LOOPBACK) || !(i->ifa_flags & IFF_UP))
            continue;
        if (i->ifa_addr->sa_family != AF_INET && i->ifa_addr->sa_family != AF_INET6)
            continue;
        struct sockaddr_storage sys = {0};
        memcpy(&sys, i->ifa_addr,
               i->ifa_addr->sa_family == AF_INET ? sizeof(struct sockaddr_in)
                                                 : sizeof(struct sockaddr_in6));
        outr_addr_from_sys(out, &sys);
        found = true;
    }
    freeifaddrs(list);
    return found;
}

outr_code outr_host_address(outr_addr *out, outr_err *err)
{
    if (route_source(out) || interface_address(out)) {
        out->port = 0;
        return OUTR_OK;
    }
    return outr_addr_from_ip(out, OUTR_STR("127.0.0.1"), 0, err);
}
