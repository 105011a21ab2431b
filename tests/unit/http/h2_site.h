/* h2_site - what the tests of HTTP/2 share: a pool and a server, joined by streams in
 * memory; or the test itself as a raw peer of either.
 *
 * Include it behind cmocka.h. */
#ifndef OUTR_TESTS_HTTP_H2_SITE_H
#define OUTR_TESTS_HTTP_H2_SITE_H

#include "lib/web.h"
#include "lib/wire.h"

typedef struct site {
    wire w;
    outr_http_server *server;
    outr_http_pool *pool;
    enum { ANSWER, ECHO, HOLD, TUNNEL, TAKE, INFORM } mode;
    outr_exchange *held[2000];
    unsigned held_count, requests, finished, broken, gone;
    web_taker taker;
    char seen[256];
    bool is_drained;
} site;

static inline void on_gone(outr_exchange *x, const outr_err *err)
{
    site *st = x->user;
    (void)err;
    st->gone++;
}

static inline void on_request(void *ctx, outr_exchange *x)
{
    site *st = ctx;
    size_t n = strlen(st->seen);
    snprintf(st->seen + n, sizeof st->seen - n, OUTR_FMT " " OUTR_FMT " " OUTR_FMT ";",
             OUTR_ARG(x->req.method), OUTR_ARG(x->req.authority), OUTR_ARG(x->req.target));
    st->requests++;
    x->user = st;
    x->on_gone = on_gone;
    if (st->mode == ANSWER) {
        web_answer(x, 200, "hello");
    } else if (st->mode == ECHO && x->body) {
        web_echo(x, x->body, 200);
    } else if (st->mode == TUNNEL && x->tunnel) {
        web_echo(x, x->tunnel, 101);
    } else if (st->mode == INFORM) {
        outr_http_response early = {.status = 103};
        outr_http_inform(x, &early);
        web_answer(x, 200, "hello");
    } else {
        if (st->mode == TAKE && x->body)
            web_taker_start(&st->taker, x->body);
        st->held[st->held_count++] = x;
    }
}

static inline void on_finished(void *ctx, outr_exchange *x, bool is_broken)
{
    site *st = ctx;
    (void)x;
    st->finished++;
    st->broken += is_broken;
}

static const outr_http_handler handler = {on_request, on_finished};

static inline void accept_stream(void *ctx, outr_stream *own_stream)
{
    outr_http_server_take(((site *)ctx)->server, own_stream);
}

static inline site *open_site(const outr_http_server_options *with)
{
    site *st = outr_alloc(sizeof *st);
    outr_http_server_options o =
        with ? *with : (outr_http_server_options){.allow_connect_protocol = true};
    outr_http_pool_options po = {
        .version = OUTR_HTTP_2, .settings_id = 0xf123, .settings_value = 7};
    wire_init(&st->w, 1);
    st->w.on_accept = accept_stream;
    st->w.ctx = st;
    o.loop = po.loop = st->w.loop;
    o.handler = &handler;
    o.ctx = st;
    o.allow_h1 = o.allow_h2 = true;
    o.settings_id = 0xf123;
    o.settings_value = 42;
    st->server = outr_http_server_new(&o);
    st->pool = outr_http_pool_new(&po);
    return st;
}

static inline outr_exchange *pop(site *st)
{
    assert_true(st->held_count > 0);
    return st->held[--st->held_count];
}

static inline void close_site(site *st)
{
    outr_http_pool_free(st->pool);
    outr_http_server_free(st->server);
    while (st->held_count)
        outr_http_done(pop(st));
    wire_run(&st->w);
    assert_int_equal(st->requests, st->finished);
    wire_done(&st->w);
    web_taker_done(&st->taker);
    free(st);
}

static inline void run(site *st)
{
    assert_true(wire_run(&st->w));
}

#define CALL(c, st)                                                                                \
    web_call c;                                                                                    \
    web_call_init(&c, (st)->w.loop, "GET", "/p?q")

static inline bool body_is(const web_call *c, const char *text)
{
    return outr_str_is(outr_buf_view(&c->taker.body), text);
}

static inline void on_drained(void *ctx)
{
    ((site *)ctx)->is_drained = true;
}

/* ---- a raw peer ---------------------------------------------------------------------------------- */

#define PREFACE "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

static inline void frame(wire_stream *s, unsigned type, unsigned flags, unsigned id,
                         const void *p, size_t n)
{
    unsigned char head[9] = {
        (unsigned char)(n >> 16),  (unsigned char)(n >> 8),  (unsigned char)n,
        (unsigned char)type,       (unsigned char)flags,     (unsigned char)(id >> 24),
        (unsigned char)(id >> 16), (unsigned char)(id >> 8), (unsigned char)id};
    wire_feed(s, head, sizeof head);
    wire_feed(s, p, n);
}

static inline wire_stream *raw_peer(site *st)
{
    wire_stream *s = wire_open(&st->w);
    outr_http_server_take(st->server, &s->base);
    wire_feed_z(s, PREFACE);
    frame(s, 4, 0, 0, "", 0);
    return s;
}

/* GET / http://a in HPACK: static entries and one literal. */
static const char get_block[] = "\x82\x86\x84\x41\x01"
                                "a";

/* Whether a frame of the type (with GOAWAY: of the error code) was sent. */
static inline bool was_sent(wire_stream *s, unsigned type, unsigned error_code)
{
    size_t n;
    const unsigned char *p = (const unsigned char *)wire_take(s, &n), *end = p + n;
    bool found = false;
    while (p + 9 <= end) {
        size_t length = (size_t)p[0] << 16 | (size_t)p[1] << 8 | p[2];
        if (p[3] == type && (type != 7 || (length >= 8 && p[16] == error_code)))
            found = true;
        p += 9 + length;
    }
    return found;
}

#endif
