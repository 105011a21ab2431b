/* fleet - HTTP/1.1 servers in one process, each as slow, as busy and as broken as it is told.
 *
 *     fleet COUNT    prints their ports as a JSON list, one line; serves 127.0.0.1
 *
 * POST /_set?delay_us=N&status=N&percent=N&servers=N    how this server answers from here on: after
 *     so long, with that status in so many of 100 calls (else 200), so many calls at a time (0:
 *     all; the others wait in order), so that its capacity is servers / delay; tail_us=N and
 *     tail_percent=N: so much longer in so many of 100 calls
 * GET /_stats    a JSON object of counts; /_reset the same, and they are 0 again
 * Everything else is work. x-sent-ns (CLOCK_MONOTONIC) and x-deadline-ns say when its caller began
 * and how long he waits: what comes more than 5 ms later (it was on its way) is counted as expired,
 * and when a caller leaves before he is answered, how long after his deadline that was.
 * One thread, epoll; bodies of requests are read and forgotten. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define SERVERS_MAX   64
#define INPUT_MAX     65536
#define SAMPLES_MAX   65536
#define ON_ITS_WAY_NS 5000000

struct connection;

struct server {
    int fd;
    unsigned delay_us, status, percent, servers, tail_us, tail_percent;
    unsigned busy;
    struct connection *first, *last; /* that wait for a free one */
    uint64_t requests, failed, good, cancelled, expired;
    uint32_t *left_us; /* how late callers left */
    size_t left_count;
};

struct connection {
    bool is_listener;
    int fd;
    struct server *server;
    size_t have;
    size_t skip; /* of a body */
    bool is_waiting, is_working;
    unsigned status, tail_us;
    uint64_t due_ns, sent_ns, deadline_ns;
    struct connection *next;
    size_t at; /* in the heap */
    char input[INPUT_MAX];
};

static struct server servers[SERVERS_MAX];
static struct connection **heap;
static size_t heap_count, heap_size;
static int poller;
static uint64_t dice = 88172645463325252u;

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void die(const char *what)
{
    fprintf(stderr, "fleet: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* ---- what is due, soonest first -------------------------------------------------------------- */

static void put(size_t at, struct connection *c)
{
    heap[at] = c;
    c->at = at;
}

static void sift(size_t at)
{
    struct connection *c = heap[at];
    for (; at > 0 && heap[(at - 1) / 2]->due_ns > c->due_ns; at = (at - 1) / 2)
        put(at, heap[(at - 1) / 2]);
    for (size_t child; (child = 2 * at + 1) < heap_count; at = child) {
        if (child + 1 < heap_count && heap[child + 1]->due_ns < heap[child]->due_ns)
            child++;
        if (heap[child]->due_ns >= c->due_ns)
            break;
        put(at, heap[child]);
    }
    put(at, c);
}

static void heap_add(struct connection *c)
{
    if (heap_count == heap_size) {
        heap_size = heap_size ? 2 * heap_size : 1024;
        heap = realloc(heap, heap_size * sizeof(struct connection *));
    }
    put(heap_count++, c);
    sift(c->at);
}

static void heap_remove(struct connection *c)
{
    size_t at = c->at;
    struct connection *last = heap[--heap_count];
    if (last == c)
        return;
    put(at, last);
    sift(at);
}

/* ---- work ------------------------------------------------------------------------------------ */

static void begin(struct connection *c)
{
    c->is_working = true;
    c->server->busy++;
    c->due_ns = now_ns() + (c->server->delay_us + c->tail_us) * UINT64_C(1000);
    heap_add(c);
}

static void begin_next(struct server *s)
{
    while (s->first && (s->servers == 0 || s->busy < s->servers)) {
        struct connection *c = s->first;
        s->first = c->next;
        c->is_waiting = false;
        begin(c);
    }
}

static void end_work(struct connection *c)
{
    if (c->is_working)
        c->server->busy--;
    c->is_working = false;
}

static void leave_queue(struct connection *c)
{
    struct connection **at = &c->server->first, *before = NULL;
    for (; *at != c; at = &(*at)->next)
        before = *at;
    *at = c->next;
    if (c->server->last == c)
        c->server->last = before;
    c->is_waiting = false;
}

static void answer(struct connection *c, unsigned status, const char *body, size_t n)
{
    static char out[1 << 20];
    int head =
        snprintf(out, sizeof out, "HTTP/1.1 %u Reply\r\nContent-Length: %zu\r\n\r\n", status, n);
    memcpy(out + head, body, n);
    if (send(c->fd, out, (size_t)head + n, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 && errno != EPIPE &&
        errno != ECONNRESET)
        die("send");
}

static void work(struct connection *c)
{
    struct server *s = c->server;
    s->requests++;
    if (c->deadline_ns && now_ns() > c->sent_ns + c->deadline_ns + ON_ITS_WAY_NS)
        s->expired++;
    dice ^= dice << 13, dice ^= dice >> 7, dice ^= dice << 17;
    c->tail_us = dice / 100 % 100 < s->tail_percent ? s->tail_us : 0;
    c->status = s->status && dice % 100 < s->percent ? s->status : 200;
    if (s->servers == 0 || s->busy < s->servers) {
        begin(c);
        return;
    }
    c->is_waiting = true;
    c->next = NULL;
    *(s->first ? &s->last->next : &s->first) = c;
    s->last = c;
}

/* ---- control --------------------------------------------------------------------------------- */

static void set(const char *query, const char *name, unsigned *value)
{
    const char *at = strstr(query, name);
    while (at && at[-1] != '?' && at[-1] != '&')
        at = strstr(at + 1, name);
    if (at)
        *value = (unsigned)strtoul(at + strlen(name), NULL, 10);
}

static int by_value(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static void control(struct connection *c, const char *target)
{
    struct server *s = c->server;
    char body[1024];
    if (strncmp(target, "/_set", 5) == 0) {
        set(target, "delay_us=", &s->delay_us);
        set(target, "status=", &s->status);
        set(target, "percent=", &s->percent);
        set(target, "servers=", &s->servers);
        set(target, "tail_us=", &s->tail_us);
        set(target, "tail_percent=", &s->tail_percent);
    }
    qsort(s->left_us, s->left_count, sizeof *s->left_us, by_value);
    int n = snprintf(body, sizeof body,
                     "{\"in_hand\": %u, \"requests\": %lu, \"good\": %lu, \"failed\": %lu, "
                     "\"cancelled\": %lu, \"expired\": %lu, "
                     "\"left_p50_us\": %u, \"left_p99_us\": %u, \"left_max_us\": %u}",
                     s->busy, s->requests, s->good, s->failed, s->cancelled, s->expired,
                     s->left_count ? s->left_us[s->left_count / 2] : 0,
                     s->left_count ? s->left_us[s->left_count * 99 / 100] : 0,
                     s->left_count ? s->left_us[s->left_count - 1] : 0);
    if (strncmp(target, "/_reset", 7) == 0)
        s->requests = s->good = s->failed = s->cancelled = s->expired = s->left_count = 0;
    answer(c, 200, body, (size_t)n);
}

/* ---- connections ----------------------------------------------------------------------------- */

static void close_connection(struct connection *c)
{
    struct server *s = c->server;
    if (c->is_working || c->is_waiting) {
        uint64_t from = c->sent_ns ? c->sent_ns + c->deadline_ns : 0, now = now_ns();
        s->cancelled++;
        if (from && s->left_count < SAMPLES_MAX)
            s->left_us[s->left_count++] = now > from ? (uint32_t)((now - from) / 1000) : 0;
    }
    if (c->is_waiting)
        leave_queue(c);
    if (c->is_working) {
        heap_remove(c);
        end_work(c);
        begin_next(s);
    }
    close(c->fd);
    free(c);
}

static uint64_t header(const char *head, const char *end, const char *name)
{
    size_t n = strlen(name);
    for (const char *line = head; line < end;
         line = (const char *)memchr(line, '\n', (size_t)(end - line) + 2) + 1)
        if (strncasecmp(line, name, n) == 0)
            return strtoull(line + n, NULL, 10);
    return 0;
}

/* True: a request was there. The next one is looked at when this one has been answered. */
static bool read_request(struct connection *c)
{
    size_t skipped = c->skip < c->have ? c->skip : c->have;
    memmove(c->input, c->input + skipped, c->have - skipped);
    c->have -= skipped;
    c->skip -= skipped;
    c->input[c->have] = 0;
    char *end = memmem(c->input, c->have, "\r\n\r\n", 4);
    if (c->skip > 0 || !end)
        return false;
    char *target = memchr(c->input, ' ', c->have), line[256];
    snprintf(line, sizeof line, "%.*s", (int)strcspn(target + 1, " "), target + 1);
    c->skip = header(c->input, end, "content-length:") + (size_t)(end - c->input) + 4;
    c->sent_ns = header(c->input, end, "x-sent-ns:");
    c->deadline_ns = header(c->input, end, "x-deadline-ns:");
    if (strncmp(line, "/_", 2) == 0)
        control(c, line);
    else
        work(c);
    return true;
}

static bool is_at_work(const struct connection *c)
{
    return c->is_working || c->is_waiting;
}

static void on_readable(struct connection *c)
{
    ssize_t n = recv(c->fd, c->input + c->have, INPUT_MAX - 1 - c->have, MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0 || c->have + (size_t)n == INPUT_MAX - 1) {
        close_connection(c);
        return;
    }
    c->have += (size_t)n;
    while (!is_at_work(c) && read_request(c))
        ;
}

static void on_due(struct connection *c)
{
    struct server *s = c->server;
    heap_remove(c);
    end_work(c);
    *(c->status == 200 ? &s->good : &s->failed) += 1;
    answer(c, c->status, "{\"ok\": true}", 12);
    begin_next(s);
    while (!is_at_work(c) && read_request(c))
        ;
}

static void on_connection(const struct connection *listener)
{
    int on = 1, fd = accept(listener->fd, NULL, NULL);
    if (fd < 0)
        return;
    struct connection *c = calloc(1, sizeof *c);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    c->fd = fd;
    c->server = listener->server;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event);
}

static void serve(struct server *s, const char *before)
{
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t n = sizeof addr;
    struct connection *c = calloc(1, sizeof *c);
    c->is_listener = true;
    c->server = s;
    s->fd = c->fd = socket(AF_INET, SOCK_STREAM, 0);
    s->left_us = calloc(SAMPLES_MAX, sizeof *s->left_us);
    s->percent = 100;
    if (bind(s->fd, (struct sockaddr *)&addr, sizeof addr) || listen(s->fd, 4096) ||
        getsockname(s->fd, (struct sockaddr *)&addr, &n))
        die("listen");
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    epoll_ctl(poller, EPOLL_CTL_ADD, s->fd, &event);
    printf("%s%d", before, ntohs(addr.sin_port));
}

static int timeout_ms(void)
{
    uint64_t now = now_ns();
    if (heap_count == 0)
        return -1;
    return heap[0]->due_ns <= now ? 0 : (int)((heap[0]->due_ns - now + 999999) / 1000000);
}

int main(int argc, char **argv)
{
    size_t count = argc == 2 ? strtoul(argv[1], NULL, 10) : 0;
    if (count == 0 || count > SERVERS_MAX) {
        fprintf(stderr, "usage: fleet COUNT\n");
        return 2;
    }
    poller = epoll_create1(0);
    for (size_t i = 0; i < count; i++)
        serve(&servers[i], i == 0 ? "[" : ", ");
    printf("]\n");
    fflush(stdout);
    for (;;) {
        struct epoll_event events[256];
        int n = epoll_wait(poller, events, 256, timeout_ms());
        for (int i = 0; i < n; i++) {
            struct connection *c = events[i].data.ptr;
            (c->is_listener ? on_connection(c) : on_readable(c));
        }
        while (heap_count > 0 && heap[0]->due_ns <= now_ns())
            on_due(heap[0]);
    }
}
