/* openload - HTTP/1.1 load at a constant rate, whatever the server does.
 *
 *     openload HOST PORT PATH RATE SECONDS CONNECTIONS [DEADLINE_MS [HEADER]...]
 *
 * Request i is due at begin + i / RATE, and its latency counts from then: a server that stalls is
 * charged for what queued up meanwhile (no coordinated omission). A request that finds no free
 * connection waits for one. Prints one JSON object; latencies in microseconds. One thread, epoll.
 * DEADLINE_MS (0: none) is what "in_time" counts good answers by; the request says it as
 * x-deadline-ns, and when it left as x-sent-ns (fleet.c reads them). HEADER: "name: value". */
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
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define ANSWER_MAX      65536
#define CONNECTIONS_MAX 1024
#define DRAIN_NS        5000000000u /* for answers still missing at the end */

struct connection {
    int fd;
    bool is_busy;
    uint64_t due_ns;
    size_t have;
    char answer[ANSWER_MAX];
};

struct load {
    int epoll, timer;
    struct connection *connections;
    size_t count;
    char request[2048];
    size_t request_n;
    char *stamp; /* digits of x-sent-ns in request; NULL: no deadline */
    uint64_t deadline_ns;
    uint64_t begin_ns, step_ns, total, next, waiting, done, errors, in_time;
    uint32_t *latencies_us;
};

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void die(const char *what)
{
    fprintf(stderr, "openload: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* Length of a complete answer at the front, 0: not there yet. */
static size_t complete(const char *p, size_t n)
{
    const char *head_end = memmem(p, n, "\r\n\r\n", 4);
    if (!head_end)
        return 0;
    size_t head = (size_t)(head_end - p) + 4, length = 0;
    for (const char *line = p; line < head_end; line = (const char *)memchr(line, '\n', n) + 1) {
        if (strncasecmp(line, "content-length:", 15) == 0)
            length = strtoul(line + 15, NULL, 10);
        if (strncasecmp(line, "transfer-encoding: chunked", 26) == 0) {
            const char *end = memmem(p + head - 2, n - head + 2, "\r\n0\r\n\r\n", 7);
            return end ? (size_t)(end - p) + 7 : 0;
        }
    }
    return n >= head + length ? head + length : 0;
}

static void send_next(struct load *l, struct connection *c)
{
    c->is_busy = true;
    c->due_ns = l->begin_ns + (l->next - l->waiting) * l->step_ns;
    l->waiting--;
    if (l->stamp) {
        char digits[21];
        snprintf(digits, sizeof digits, "%020lu", (unsigned long)now_ns());
        memcpy(l->stamp, digits, 20);
    }
    if (send(c->fd, l->request, l->request_n, MSG_NOSIGNAL) != (ssize_t)l->request_n)
        die("send");
}

static void on_answer(struct load *l, struct connection *c)
{
    ssize_t n = recv(c->fd, c->answer + c->have, ANSWER_MAX - c->have, MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0)
        die(n ? "recv" : "the server closed a connection");
    c->have += (size_t)n;
    size_t length = complete(c->answer, c->have);
    if (length == 0) {
        if (c->have == ANSWER_MAX)
            die("answer too long");
        return;
    }
    uint64_t took_ns = now_ns() - c->due_ns;
    if (strncmp(c->answer, "HTTP/1.1 2", 10) != 0)
        l->errors++;
    else if (l->deadline_ns == 0 || took_ns <= l->deadline_ns)
        l->in_time++;
    l->latencies_us[l->done++] = (uint32_t)(took_ns / 1000);
    c->have = 0;
    c->is_busy = false;
    if (l->waiting > 0)
        send_next(l, c);
}

static void arm(struct load *l)
{
    uint64_t at = l->begin_ns + l->next * l->step_ns;
    struct itimerspec when = {.it_value = {(time_t)(at / 1000000000u), (long)(at % 1000000000u)}};
    if (timerfd_settime(l->timer, TFD_TIMER_ABSTIME, &when, NULL))
        die("timer");
}

static void on_due(struct load *l)
{
    uint64_t ticks;
    if (read(l->timer, &ticks, sizeof ticks) < 0)
        return;
    while (l->next < l->total && now_ns() >= l->begin_ns + l->next * l->step_ns) {
        l->next++;
        l->waiting++;
        for (size_t i = 0; i < l->count; i++) { /* in turn, so that all stay warm */
            struct connection *c = &l->connections[(l->next + i) % l->count];
            if (!c->is_busy) {
                send_next(l, c);
                break;
            }
        }
    }
    if (l->next < l->total)
        arm(l);
}

static void connect_all(struct load *l, const char *host, int port)
{
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int on = 1;
    inet_pton(AF_INET, host, &addr.sin_addr);
    for (size_t i = 0; i < l->count; i++) {
        struct connection *c = &l->connections[i];
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
        c->fd = socket(AF_INET, SOCK_STREAM, 0);
        if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&addr, sizeof addr))
            die("connect");
        setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        epoll_ctl(l->epoll, EPOLL_CTL_ADD, c->fd, &event);
    }
}

static int by_value(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static unsigned quantile(const struct load *l, double q)
{
    size_t at = (size_t)(q * (double)l->done);
    return l->latencies_us[at < l->done ? at : l->done - 1];
}

static void make_request(struct load *l, char **argv, int headers, int end)
{
    static const char stamped[] = "x-sent-ns: 00000000000000000000\r\n";
    FILE *out = fmemopen(l->request, sizeof l->request, "w");
    if (!out)
        die("request");
    fprintf(out, "GET %s HTTP/1.1\r\nHost: localhost\r\n", argv[3]);
    if (l->deadline_ns)
        fprintf(out, "x-deadline-ns: %lu\r\n%s", (unsigned long)l->deadline_ns, stamped);
    for (int i = headers; i < end; i++)
        fprintf(out, "%s\r\n", argv[i]);
    fputs("\r\n", out);
    fclose(out);
    l->request_n = strnlen(l->request, sizeof l->request);
    if (l->deadline_ns)
        l->stamp = strstr(l->request, "x-sent-ns: ") + 11;
}

int main(int argc, char **argv)
{
    if (argc < 7) {
        fprintf(
            stderr,
            "usage: openload HOST PORT PATH RATE SECONDS CONNECTIONS [DEADLINE_MS [HEADER]...]\n");
        return 2;
    }
    struct load l = {.epoll = epoll_create1(0),
                     .timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK)};
    unsigned long rate = strtoul(argv[4], NULL, 10), seconds = strtoul(argv[5], NULL, 10);
    l.count = strtoul(argv[6], NULL, 10);
    if (rate == 0 || seconds == 0 || l.count == 0 || l.count > CONNECTIONS_MAX)
        return 2;
    l.total = rate * seconds;
    l.step_ns = 1000000000u / rate;
    l.latencies_us = calloc(l.total, sizeof *l.latencies_us);
    l.connections = calloc(l.count, sizeof *l.connections);
    l.deadline_ns = argc > 7 ? strtoul(argv[7], NULL, 10) * 1000000u : 0;
    make_request(&l, argv, 8, argc);
    connect_all(&l, argv[1], (int)strtol(argv[2], NULL, 10));
    struct epoll_event timer = {.events = EPOLLIN, .data.ptr = NULL}, events[64];
    epoll_ctl(l.epoll, EPOLL_CTL_ADD, l.timer, &timer);
    l.begin_ns = now_ns() + 10000000;
    arm(&l);
    uint64_t end_ns = l.begin_ns + l.total * l.step_ns + DRAIN_NS;
    while (l.done < l.total && now_ns() < end_ns) {
        int n = epoll_wait(l.epoll, events, 64, 100);
        for (int i = 0; i < n; i++) {
            if (events[i].data.ptr)
                on_answer(&l, events[i].data.ptr);
            else
                on_due(&l);
        }
    }
    if (l.done == 0)
        die("no answers");
    qsort(l.latencies_us, l.done, sizeof *l.latencies_us, by_value);
    printf("{\"sent\": %lu, \"answered\": %lu, \"errors\": %lu, \"in_time\": %lu, \"p50\": %u, "
           "\"p90\": %u, \"p99\": %u, \"p999\": %u, \"max\": %u}\n",
           (unsigned long)l.next, (unsigned long)l.done, (unsigned long)l.errors,
           (unsigned long)l.in_time, quantile(&l, 0.5), quantile(&l, 0.9), quantile(&l, 0.99),
           quantile(&l, 0.999), l.latencies_us[l.done - 1]);
    return 0;
}
