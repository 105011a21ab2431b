#include "components/pluggable/internal.h"

#define ARENA_BYTES (4 * OUTR_MIB) /* heads and trailers: messages do not lie on it */

static void on_ended(outr_op *op)
{
    outr__plug_stream *s = OUTR_CONTAINER(op, outr__plug_stream, op);
    outr_err err, *failure = NULL;
    outr__plug_release(s->session);
    if (outr_grpc_stream_result(&s->grpc, &op->err, &err)) {
        outr_wrap(&err, "component " OUTR_FMT, OUTR_ARG(s->plug->name));
        failure = &err;
    }
    outr_arena_free(s->grpc.arena);
    s->grpc.arena = NULL;
    s->ended(s, failure);
}

void outr__plug_stream_start(outr__plug *p, outr__plug_stream *s, const char *path)
{
    s->plug = p;
    s->session = p->session;
    outr__plug_hold(s->session);
    s->grpc.arena = outr_arena_new(ARENA_BYTES);
    s->grpc.loop = p->loop;
    s->grpc.max_bytes = OUTR__PLUG_MESSAGE_MAX;
    outr__plug_metadata(p, &s->grpc.metadata, s->grpc.arena);
    outr_grpc_stream_prepare(&s->grpc, &s->http, path);
    outr_op_init(&s->op, p->loop, NULL, 0, on_ended);
    outr_http_call_start(s->session->pool, &s->http, &s->op);
}

void outr__plug_stream_cancel(outr__plug_stream *s)
{
    if (outr_op_is_pending(&s->op))
        outr_op_cancel(&s->op, OUTR_CANCELLED);
}
