/* kafka_app PORT TOPIC COUNT BATCH: an app that takes events in bulk over gRPC and says that each
 * was done, as fast as one thread of C can: it looks for nothing but the names of the entries.
 * Prints events a second, from the first batch's arrival to the last one's, once it has COUNT of
 * them, and ends when the sidecar has left. Whatever else it is asked it does not have. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <nghttp2/nghttp2.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { CONNS = 16, WINDOW = 1 << 24 };

typedef struct bytes {
    unsigned char *p;
    size_t n, cap, at;
} bytes;

typedef struct call {
    char path[96];
    bytes in, out;
} call;

static nghttp2_session *sessions[CONNS];
static struct pollfd fds[CONNS + 1];
static const char *topic;
static long count, seen;
static unsigned batch;
static double began, last;

static double now(void)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (double)at.tv_sec + (double)at.tv_nsec / 1e9;
}

static void put(bytes *b, const void *p, size_t n)
{
    if (b->n + n > b->cap) {
        b->cap = 2 * (b->n + n);
        b->p = realloc(b->p, b->cap);
    }
    memcpy(b->p + b->n, p, n);
    b->n += n;
}

static void put_number(bytes *b, unsigned long n)
{
    unsigned char text[10];
    size_t used = 0;
    for (; n > 127; n >>= 7)
        text[used++] = (unsigned char)(n | 128);
    text[used++] = (unsigned char)n;
    put(b, text, used);
}

static void put_field(bytes *b, unsigned tag, const void *p, size_t n)
{
    put_number(b, tag << 3 | 2);
    put_number(b, n);
    put(b, p, n);
}

static unsigned long number(const unsigned char **at)
{
    unsigned long n = 0;
    for (unsigned shift = 0;; shift += 7) {
        unsigned char byte = *(*at)++;
        n |= (unsigned long)(byte & 127) << shift;
        if (byte < 128)
            return n;
    }
}

/* TopicEventBulkRequest: entries are field 2, their names field 1, which comes first. The status of
 * an answer is SUCCESS when it is left out. */
static void take_batch(call *c)
{
    const unsigned char *at = c->in.p + 5, *end = c->in.p + c->in.n;
    while (at < end) {
        unsigned long tag = number(&at), size = number(&at);
        if (tag == (2 << 3 | 2)) {
            const unsigned char *id = at + 1;
            unsigned long n = number(&id);
            put_field(&c->out, 1, at, (size_t)(id - at) + n);
            seen++;
        }
        at += size;
    }
    last = now();
    if (began == 0)
        began = last;
    if (seen >= count && count > 0) {
        printf("%.1f\n", (double)seen / (last - began));
        fflush(stdout);
        count = 0;
    }
}

static void subscriptions(call *c)
{
    bytes sub = {0}, config = {0}, raw = {0};
    put(&config, "\x08\x01\x10", 3);
    put_number(&config, batch);
    put(&config, "\x18\x64", 2);
    put_field(&raw, 1, "rawPayload", 10);
    put_field(&raw, 2, "true", 4);
    put_field(&sub, 1, "ps", 2);
    put_field(&sub, 2, topic, strlen(topic));
    put_field(&sub, 3, raw.p, raw.n);
    put_field(&sub, 7, config.p, config.n);
    put_field(&c->out, 1, sub.p, sub.n);
    free(sub.p);
    free(config.p);
    free(raw.p);
}

static nghttp2_nv nv(const char *name, const char *value)
{
    return (nghttp2_nv){(uint8_t *)name, (uint8_t *)value, strlen(name), strlen(value), 0};
}

static ssize_t on_read(nghttp2_session *session, int32_t id, uint8_t *to, size_t n, uint32_t *flags,
                       nghttp2_data_source *source, void *user)
{
    call *c = source->ptr;
    size_t left = c->out.n - c->out.at, used = left < n ? left : n;
    (void)user;
    memcpy(to, c->out.p + c->out.at, used);
    c->out.at += used;
    if (c->out.at == c->out.n) {
        nghttp2_nv trailer = nv("grpc-status", "0");
        *flags |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM;
        nghttp2_submit_trailer(session, id, &trailer, 1);
    }
    return (ssize_t)used;
}

static void answer(nghttp2_session *session, int32_t id, call *c)
{
    nghttp2_nv head[] = {nv(":status", "200"), nv("content-type", "application/grpc"),
                         nv("grpc-status", "12")};
    nghttp2_data_provider body = {{.ptr = c}, on_read};
    put(&c->out, "\0\0\0\0", 5);
    if (strstr(c->path, "/OnBulkTopicEvent"))
        take_batch(c);
    else if (strstr(c->path, "/ListTopicSubscriptions"))
        subscriptions(c);
    else {
        nghttp2_submit_response(session, id, head, 3, NULL);
        return;
    }
    uint32_t n = htonl((uint32_t)(c->out.n - 5));
    memcpy(c->out.p + 1, &n, 4);
    nghttp2_submit_response(session, id, head, 2, &body);
}

/* ---- nghttp2's callbacks --------------------------------------------------------------------- */

static int on_begin(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
    (void)user;
    nghttp2_session_set_stream_user_data(session, frame->hd.stream_id, calloc(1, sizeof(call)));
    return 0;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
                     size_t name_n, const uint8_t *value, size_t value_n, uint8_t flags, void *user)
{
    call *c = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
    (void)flags, (void)user;
    if (c && name_n == 5 && memcmp(name, ":path", 5) == 0)
        snprintf(c->path, sizeof c->path, "%.*s", (int)value_n, value);
    return 0;
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *p, size_t n,
                   void *user)
{
    call *c = nghttp2_session_get_stream_user_data(session, id);
    (void)flags, (void)user;
    if (c)
        put(&c->in, p, n);
    return 0;
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
    call *c = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
    (void)user;
    if (c && (frame->hd.flags & NGHTTP2_FLAG_END_STREAM))
        answer(session, frame->hd.stream_id, c);
    return 0;
}

static int on_close(nghttp2_session *session, int32_t id, uint32_t code, void *user)
{
    call *c = nghttp2_session_get_stream_user_data(session, id);
    (void)code, (void)user;
    if (c) {
        free(c->in.p);
        free(c->out.p);
        free(c);
    }
    return 0;
}

static ssize_t on_send(nghttp2_session *session, const uint8_t *p, size_t n, int flags, void *user)
{
    ssize_t sent = send(*(int *)user, p, n, MSG_NOSIGNAL);
    (void)session, (void)flags;
    return sent < 0 ? NGHTTP2_ERR_WOULDBLOCK : sent;
}

/* ---- sockets --------------------------------------------------------------------------------- */

static void on_accept(int listener)
{
    static nghttp2_session_callbacks *callbacks;
    int fd = accept(listener, NULL, NULL), yes = 1, at = 0;
    while (at < CONNS && fds[at + 1].fd >= 0)
        at++;
    if (fd < 0 || at == CONNS) {
        close(fd);
        return;
    }
    if (!callbacks) {
        nghttp2_session_callbacks_new(&callbacks);
        nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin);
        nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
        nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
        nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
        nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_close);
        nghttp2_session_callbacks_set_send_callback(callbacks, on_send);
    }
    nghttp2_settings_entry window = {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, WINDOW};
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    fds[at + 1] = (struct pollfd){fd, POLLIN, 0};
    nghttp2_session_server_new(&sessions[at], callbacks, &fds[at + 1].fd);
    nghttp2_submit_settings(sessions[at], 0, &window, 1);
    nghttp2_session_set_local_window_size(sessions[at], 0, 0, WINDOW);
    nghttp2_session_send(sessions[at]);
}

static int serve(int at)
{
    static uint8_t room[1 << 18];
    ssize_t n = recv(fds[at + 1].fd, room, sizeof room, 0);
    int is_alive = n > 0 && nghttp2_session_mem_recv(sessions[at], room, (size_t)n) == n &&
                   nghttp2_session_send(sessions[at]) == 0;
    fds[at + 1].events = POLLIN | (nghttp2_session_want_write(sessions[at]) ? POLLOUT : 0);
    return is_alive;
}

int main(int argc, char **argv)
{
    if (argc != 5)
        return 2;
    struct sockaddr_in where = {.sin_family = AF_INET,
                                .sin_port = htons((uint16_t)atoi(argv[1])),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int listener = socket(AF_INET, SOCK_STREAM, 0), yes = 1, is_left = 0;
    topic = argv[2];
    count = atol(argv[3]);
    batch = (unsigned)atoi(argv[4]);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(listener, (struct sockaddr *)&where, sizeof where) || listen(listener, CONNS))
        return 1;
    fds[0] = (struct pollfd){listener, POLLIN, 0};
    for (int i = 1; i <= CONNS; i++)
        fds[i].fd = -1;
    while (!is_left && poll(fds, CONNS + 1, -1) > 0) {
        int open_count = 0;
        if (fds[0].revents)
            on_accept(listener);
        for (int i = 0; i < CONNS; i++) {
            int is_ready = fds[i + 1].fd >= 0 && fds[i + 1].revents;
            if (is_ready && (fds[i + 1].revents & POLLOUT))
                nghttp2_session_send(sessions[i]);
            if (is_ready && (fds[i + 1].revents & ~POLLOUT) && !serve(i)) {
                nghttp2_session_del(sessions[i]);
                close(fds[i + 1].fd);
                fds[i + 1].fd = -1;
            }
            open_count += fds[i + 1].fd >= 0;
        }
        is_left = count == 0 && open_count == 0;
    }
    return 0;
}
