#include "grpc/server.h"

#define MESSAGE_ARENA_MAX (64 * OUTR_MIB)

/* ---- the end --------------------------------------------------------------------------------- */

static void release(outr_grpc_call *c, outr_code code)
{
    outr_exchange *x = c->x;
    c->has_ended = true;
    c->code = code;
    c->source.sink = NULL;
    if (c->sink)
        c->sink->source = NULL;
    outr_timer_stop(c->loop, &c->timer);
    outr_grpc_reader_cancel(&c->reader);
    if (c->message_arena)
        outr_arena_free(c->message_arena);
    x->on_gone = NULL;
    outr_http_done(x);
}

static void open_answer(outr_grpc_call *c)
{
    outr_http_response head = {.status = 200, .content_length = -1, .headers = c->headers};
    outr_headers_set(&head.headers, OUTR_STR("content-type"), OUTR_STR("application/grpc"));
    c->sink = outr_http_respond(c->x, &head);
    outr_source_attach(&c->source, c->sink);
}

static void end_with(outr_grpc_call *c, const outr_grpc_status *status)
{
    if (c->has_ended)
        return;
    if (c->failure.code) {
        c->failure.reason = status->reason;
        status = &c->failure;
    }
    if (c->is_gone) {
        release(c, OUTR_CANCELLED);
        return;
    }
    if (!c->sink && status->code != OUTR_OK) { /* trailers-only */
        outr_http_response head = {.status = 200, .content_length = 0, .headers = c->headers};
        outr_headers_set(&head.headers, OUTR_STR("content-type"), OUTR_STR("application/grpc"));
        for (size_t i = 0; i < c->trailers.count; i++)
            outr_headers_add(&head.headers, c->trailers.items[i].name, c->trailers.items[i].value);
        outr_grpc_status_write(&head.headers, status);
        outr_http_reply(c->x, &head, OUTR_STR_NONE);
    } else {
        if (!c->sink)
            open_answer(c);
        outr_grpc_status_write(&c->trailers, status);
        c->sink->ops->end(c->sink, &c->trailers);
    }
    release(c, status->code);
}

void outr_grpc_fail(outr_grpc_call *c, const outr_grpc_status *status)
{
    end_with(c, status);
}

void outr_grpc_fail_err(outr_grpc_call *c, const outr_err *err)
{
    end_with(c, &(outr_grpc_status){.code = err->code, .message = outr_str_from(err->text)});
}

void outr_grpc_end(outr_grpc_call *c)
{
    end_with(c, &(outr_grpc_status){.code = OUTR_OK});
}

void outr_grpc_reply(outr_grpc_call *c, const void *message)
{
    size_t n = protobuf_c_message_get_packed_size(message);
    if (n > c->reader.max_bytes && !c->failure.code) {
        outr_err err;
        outr_fail(&err, OUTR_RESOURCE_EXHAUSTED,
                  "trying to send message larger than max (%zu vs. %zu)", n, c->reader.max_bytes);
        outr_grpc_fail_err(c, &err);
        return;
    }
    if (!c->failure.code)
        outr_grpc_send(c, message);
    outr_grpc_end(c);
}

/* ---- the answer ------------------------------------------------------------------------------ */

void outr_grpc_send_head(outr_grpc_call *c)
{
    if (!c->sink && !c->is_gone && !c->has_ended)
        open_answer(c);
}

bool outr_grpc_send(outr_grpc_call *c, const void *message)
{
    if (c->is_gone || c->has_ended)
        return true;
    outr_grpc_send_head(c);
    return c->sink->ops->data(c->sink, outr_grpc_frame(message));
}

static void source_start(outr_source *source OUTR_UNUSED) {}

static void source_resume(outr_source *source)
{
    outr_grpc_call *c = OUTR_CONTAINER(source, outr_grpc_call, source);
    if (c->on_writable && !c->has_ended)
        c->on_writable(c);
}

/* Nobody waits for what the handler does: it is told, and ends the call. */
static void give_up(outr_grpc_call *c)
{
    if (c->has_ended)
        return;
    if (!c->has_run)
        outr_grpc_end(c);
    else if (outr_op_is_pending(&c->op))
        outr_op_cancel(&c->op, c->failure.code ? c->failure.code : OUTR_CANCELLED);
    else if (c->on_gone)
        c->on_gone(c);
}

/* The connection has broken off: on_gone says so. */
static void source_cancel(outr_source *source OUTR_UNUSED, const outr_err *err OUTR_UNUSED) {}

static const outr_source_ops source_ops = {
    .start = source_start, .resume = source_resume, .cancel = source_cancel};

/* ---- the request ----------------------------------------------------------------------------- */

static void fail_reading(outr_grpc_call *c, const outr_err *err)
{
    c->failure = (outr_grpc_status){.code = err->code,
                                    .message = outr_arena_str(c->arena, outr_str_from(err->text))};
    give_up(c);
}

static void take_unary(outr_grpc_call *c, outr_str message)
{
    outr_err err;
    if (c->request) {
        outr_fail(&err, OUTR_INTERNAL, "grpc: more than one message for a unary call");
        fail_reading(c, &err);
    } else if (outr_proto_read(&c->request, c->arena, c->method->request, message, &err)) {
        fail_reading(c, &err);
    }
}

static bool take_streamed(outr_grpc_call *c, outr_str message)
{
    outr_err err;
    void *decoded;
    if (!c->message_arena)
        c->message_arena = outr_arena_new(MESSAGE_ARENA_MAX);
    outr_arena_reset(c->message_arena);
    if (outr_proto_read(&decoded, c->message_arena, c->method->request, message, &err)) {
        fail_reading(c, &err);
        return true;
    }
    return c->on_message(c, decoded);
}

static bool on_message(outr_grpc_reader *reader, outr_str message)
{
    outr_grpc_call *c = reader->user;
    if (c->method->takes_stream)
        return take_streamed(c, message);
    take_unary(c, message);
    return true;
}

static void run(outr_grpc_call *c)
{
    c->has_run = true;
    c->method->run(c);
}

static void on_end(outr_grpc_reader *reader, const outr_headers *trailers OUTR_UNUSED,
                   const outr_err *err)
{
    outr_grpc_call *c = reader->user;
    if (c->has_ended)
        return;
    if (err) {
        fail_reading(c, err);
    } else if (c->method->takes_stream) {
        if (c->on_half_close)
            c->on_half_close(c);
    } else if (!c->request) {
        outr_err none;
        outr_fail(&none, OUTR_INTERNAL, "grpc: a unary call without a message");
        fail_reading(c, &none);
    } else {
        run(c);
    }
}

static void on_gone(outr_exchange *x, const outr_err *err OUTR_UNUSED)
{
    outr_grpc_call *c = x->user;
    x->on_gone = NULL;
    c->is_gone = true;
    give_up(c);
}

static void on_deadline(outr_timer *timer)
{
    outr_grpc_call *c = OUTR_CONTAINER(timer, outr_grpc_call, timer);
    c->failure = (outr_grpc_status){.code = OUTR_DEADLINE_EXCEEDED,
                                    .message = OUTR_STR("context deadline exceeded")};
    give_up(c);
}

uint64_t outr_grpc_deadline(const outr_grpc_call *c)
{
    return outr_timer_is_on(&c->timer) ? c->timer.node.key : 0;
}

void outr_grpc_resume(outr_grpc_call *c)
{
    outr_grpc_reader_resume(&c->reader);
}

/* What is wrong with a call whatever its messages say. */
static outr_code check_head(outr_grpc_call *c, uint64_t *timeout_ns, outr_err *err)
{
    outr_str encoding = c->reader.encoding;
    if (!outr_grpc_timeout_read(timeout_ns, &c->x->req.headers))
        return outr_fail(err, OUTR_INTERNAL, "malformed grpc-timeout");
    outr_code rc = outr_grpc_metadata_check(&c->x->req.headers, err);
    if (rc)
        return rc;
    if (*timeout_ns == 1)
        return outr_fail(err, OUTR_DEADLINE_EXCEEDED, "context deadline exceeded");
    if (!outr_grpc_reader_can(encoding)) {
        outr_headers_add(&c->headers, OUTR_STR("grpc-accept-encoding"), OUTR_STR("gzip"));
        return outr_fail(err, OUTR_UNIMPLEMENTED,
                         "grpc: Decompressor is not installed for grpc-encoding \"" OUTR_FMT "\"",
                         OUTR_ARG(encoding));
    }
    return OUTR_OK;
}

void outr_grpc_serve(outr_exchange *x, const outr_grpc_serve_options *o)
{
    outr_grpc_call *c = outr_arena_alloc(x->arena, sizeof *c);
    uint64_t timeout_ns;
    c->x = x;
    c->arena = x->arena;
    c->loop = x->loop;
    c->method = o->method;
    c->ctx = o->ctx;
    c->source.ops = &source_ops;
    c->timer.fire = on_deadline;
    c->reader = (outr_grpc_reader){
        .max_bytes = o->max_bytes,
        .encoding = outr_headers_get(&x->req.headers, "grpc-encoding"),
        .on_message = on_message,
        .on_end = on_end,
        .user = c,
    };
    outr_headers_init(&c->headers, x->arena);
    outr_headers_init(&c->trailers, x->arena);
    if (o->header.name.n > 0)
        outr_headers_add(&c->headers, o->header.name, o->header.value);
    x->user = c;
    x->on_gone = on_gone;
    outr_err err;
    if (check_head(c, &timeout_ns, &err)) {
        outr_grpc_fail_err(c, &err);
        return;
    }
    if (timeout_ns)
        outr_timer_start(c->loop, &c->timer, outr_loop_now(c->loop) + timeout_ns);
    if (o->method->takes_stream)
        run(c);
    if (!c->has_ended)
        outr_grpc_reader_start(&c->reader, x->body);
}
