/* wire - byte streams in memory, a clock that stands still, and a peer that is the test.
 *
 * One loop. A stream's other end is either another stream (wire_pair, or a connect while on_accept is
 * set) or the test itself, which feeds bytes and looks at what was sent. With a fault rate bytes come
 * in pieces of any size and late, and connections break: all from one seed. */
#ifndef OUTR_TESTS_WIRE_H
#define OUTR_TESTS_WIRE_H

#include "base/buf.h"
#include "loop/op.h"
#include "net/stream.h"

typedef struct wire wire;

typedef struct wire_stream {
    outr_stream base;
    wire *net;
    struct wire_stream *other; /* NULL: the test, or closed */
    outr_link link;
    outr_buf sent;  /* written by the owner, not taken by the other side yet */
    outr_buf inbox; /* to be read by the owner, from inbox_at on */
    size_t inbox_at;
    bool is_reading, has_eof, told_eof, is_broken, told_broken;
    bool wants_shutdown, is_shut;
    bool is_stalled; /* the peer reads nothing: what is sent stays pending */
    bool was_reset;  /* closed by reset */
    bool is_tests;   /* the test looks at it after it is closed; it frees it */
    bool is_gone;    /* on_closed was called */
    bool is_full;
} wire_stream;

struct wire {
    outr_env env;
    outr_loop *loop;
    uint64_t now;
    outr_list streams;
    outr_rand rand;
    unsigned piece_max;       /* largest piece delivered at once; 0: everything */
    unsigned late_percent;    /* of deliveries put off */
    unsigned break_per_mille; /* of deliveries that break the connection instead */
    unsigned refuse_percent;  /* of connects */
    size_t connect_count;
    uint64_t expires_ns; /* of certificates, as if connections had some; 0: none */
    void (*on_accept)(void *ctx, outr_stream *own_stream);
    void *ctx;
    wire_stream *last; /* the newest connected one whose peer is the test */
};

void wire_init(wire *w, uint64_t seed);
/* The loop counts there. */
void wire_init_with(wire *w, uint64_t seed, outr_metric_shard *metrics);
void wire_done(wire *w);
/* A stream whose peer is the test; freed by wire_done. */
wire_stream *wire_open(wire *w);
void wire_pair(wire *w, wire_stream **a, wire_stream **b);
/* Bytes the owner has not read yet. */
size_t wire_unread(const wire_stream *s);
/* From the test as peer. */
void wire_feed(wire_stream *s, const void *p, size_t n);
void wire_feed_z(wire_stream *s, const char *text);
void wire_eof(wire_stream *s);
void wire_break(wire_stream *s);
/* What came and was not taken yet, as a NUL-terminated text; then forgets it. Valid until the next. */
const char *wire_take(wire_stream *s, size_t *n);
/* Moves bytes and runs the loop until nothing more happens at this time. False: it did not come to
 * rest. */
bool wire_run(wire *w);
/* Workers may ask for the wall clock just then. */
void wire_set_now(wire *w, uint64_t now_ns);
/* Lets time pass, timers in their order. */
void wire_sleep(wire *w, uint64_t ns);
/* Until is_over(ctx), time passing as timers want it, at most so long. */
bool wire_until(wire *w, bool (*is_over)(void *ctx), void *ctx, uint64_t max_ns);

#endif
