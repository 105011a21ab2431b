#include "tls/accept.h"

#define TIMEOUT_NS  (10 * OUTR_SEC)
#define MAX_PENDING 4096

struct outr_tls_acceptor {
    outr_tls_acceptor_options o;
    outr_list pending;
    size_t count;
    bool is_closed;
};

typedef struct shaking {
    outr_tls_acceptor *acceptor;
    outr_tls_handshake handshake;
    outr_addr peer;
    outr_op op;
    outr_link link;
} shaking;

static void free_if_over(outr_tls_acceptor *a)
{
    if (!a->is_closed || a->count > 0)
        return;
    outr_tls_unref(a->o.tls);
    free(a);
}

static void on_shaken(outr_op *op)
{
    shaking *s = OUTR_CONTAINER(op, shaking, op);
    outr_tls_acceptor *a = s->acceptor;
    outr_stream *stream = s->handshake.stream;
    outr_link_remove(&s->link);
    if (stream && a->is_closed) {
        static const outr_stream_events no_events = {0};
        stream->events = &no_events;
        outr_stream_close(stream);
    } else if (stream) {
        a->o.ready(a->o.ctx, stream);
    } else if (!a->is_closed) {
        const char *reason = s->handshake.reason ? s->handshake.reason : OUTR_TLS_PROTOCOL;
        a->o.refused(a->o.ctx, &s->peer, reason, &op->err);
    }
    a->count--;
    free(s);
    free_if_over(a);
}

outr_tls_acceptor *outr_tls_acceptor_new(const outr_tls_acceptor_options *options)
{
    outr_tls_acceptor *a = outr_alloc(sizeof *a);
    a->o = *options;
    a->o.tls = outr_tls_ref(options->tls);
    a->o.timeout_ns = options->timeout_ns ? options->timeout_ns : TIMEOUT_NS;
    a->o.max_pending = options->max_pending ? options->max_pending : MAX_PENDING;
    outr_list_init(&a->pending);
    return a;
}

void outr_tls_acceptor_take(outr_tls_acceptor *a, outr_stream *own_stream)
{
    if (a->count >= a->o.max_pending) {
        static const outr_stream_events no_events = {0};
        own_stream->events = &no_events;
        outr_stream_reset(own_stream);
        return;
    }
    shaking *s = outr_alloc(sizeof *s);
    s->acceptor = a;
    s->peer = own_stream->peer;
    s->handshake = (outr_tls_handshake){
        .tls = a->o.tls, .own_below = own_stream, .check = a->o.check};
    outr_list_push(&a->pending, &s->link);
    a->count++;
    outr_op_init(&s->op, a->o.loop, NULL, outr_loop_now(a->o.loop) + a->o.timeout_ns, on_shaken);
    outr_tls_handshake_start(&s->handshake, &s->op);
}

void outr_tls_acceptor_close(outr_tls_acceptor *a)
{
    if (!a)
        return;
    a->is_closed = true;
    a->count++; /* held while the others end */
    while (!outr_list_is_empty(&a->pending)) {
        shaking *s = OUTR_LIST_ITEM(outr_list_pop(&a->pending), shaking, link);
        outr_op_cancel(&s->op, OUTR_CANCELLED);
    }
    a->count--;
    free_if_over(a);
}
