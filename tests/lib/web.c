#include "web.h"

/* ---- taker ------------------------------------------------------------------------------------- */

static web_taker *of_sink(outr_sink *sink)
{
    return OUTR_CONTAINER(sink, web_taker, base);
}

static bool take_data(outr_sink *sink, outr_slice own_slice)
{
    web_taker *t = of_sink(sink);
    outr_buf_append(&t->body, own_slice.p, own_slice.n);
    outr_slice_done(&own_slice);
    return !t->is_full;
}

static void take_end(outr_sink *sink, const struct outr_headers *trailers)
{
    web_taker *t = of_sink(sink);
    assert(!t->has_ended && !t->was_aborted);
    sink->source = NULL;
    t->has_ended = true;
    size_t n = 0;
    for (size_t i = 0; trailers && i < trailers->count && n < sizeof t->trailers; i++)
        n +=
            (size_t)snprintf(t->trailers + n, sizeof t->trailers - n, OUTR_FMT "=" OUTR_FMT ";",
                             OUTR_ARG(trailers->items[i].name), OUTR_ARG(trailers->items[i].value));
}

static void take_abort(outr_sink *sink, const outr_err *err)
{
    web_taker *t = of_sink(sink);
    assert(!t->has_ended && !t->was_aborted);
    sink->source = NULL;
    t->was_aborted = true;
    t->err = *err;
}

static const outr_sink_ops taker_ops = {take_data, take_end, take_abort};

void web_taker_start(web_taker *t, outr_source *source)
{
    t->base.ops = &taker_ops;
    t->body.max = SIZE_MAX / 2;
    outr_source_attach(source, &t->base);
}

void web_taker_resume(web_taker *t)
{
    t->is_full = false;
    outr_source_resume(t->base.source);
}

void web_taker_done(web_taker *t)
{
    outr_buf_done(&t->body);
}

/* ---- giver ------------------------------------------------------------------------------------- */

static void give_go_on(outr_source *source)
{
    OUTR_CONTAINER(source, web_giver, base)->is_wanted = true;
}

static void give_cancel(outr_source *source, const outr_err *err OUTR_UNUSED)
{
    OUTR_CONTAINER(source, web_giver, base)->was_cancelled = true;
}

static const outr_source_ops giver_ops = {give_go_on, give_go_on, give_cancel};

void web_giver_init(web_giver *g, int64_t length)
{
    *g = (web_giver){.base = {.ops = &giver_ops, .length = length}};
}

bool web_give(web_giver *g, const char *text)
{
    if (!g->base.sink)
        return false;
    g->is_wanted = g->base.sink->ops->data(g->base.sink, outr_slice_copy(outr_str_from(text)));
    return g->is_wanted;
}

void web_give_end(web_giver *g)
{
    outr_sink *sink = g->base.sink;
    if (!sink)
        return;
    g->base.sink = NULL;
    sink->source = NULL;
    sink->ops->end(sink, NULL);
}

void web_give_abort(web_giver *g)
{
    outr_sink *sink = g->base.sink;
    outr_err err;
    if (!sink)
        return;
    outr_fail(&err, OUTR_INTERNAL, "the test breaks it off");
    g->base.sink = NULL;
    sink->source = NULL;
    sink->ops->abort(sink, &err);
}

/* ---- call -------------------------------------------------------------------------------------- */

static void on_response(outr_http_call *call)
{
    web_call *c = call->user;
    if (call->response && c->cancels_body)
        outr_source_cancel(call->response, NULL);
    else if (call->response)
        web_taker_start(&c->taker, call->response);
}

static void on_inform(outr_http_call *call, const outr_http_response *head)
{
    web_call *c = call->user;
    c->informs++;
    c->inform_status = head->status;
}

static void on_done(outr_op *op)
{
    web_call *c = OUTR_CONTAINER(op, web_call, op);
    c->done_count++;
    c->err = op->err;
}

void web_call_init(web_call *c, outr_loop *loop, const char *method, const char *target)
{
    *c = (web_call){.arena = outr_arena_new(16 * OUTR_MIB)};
    c->req = (outr_http_request){.method = outr_str_from(method), .target = outr_str_from(target)};
    c->req.authority = OUTR_STR("test");
    c->req.scheme = OUTR_STR("http");
    outr_headers_init(&c->req.headers, c->arena);
    c->call = (outr_http_call){.req = &c->req,
                               .arena = c->arena,
                               .user = c,
                               .on_response = on_response,
                               .on_inform = on_inform};
    outr_op_init(&c->op, loop, NULL, 0, on_done);
}

void web_call_bytes(web_call *c, const char *p, size_t n)
{
    outr_memory_source_init(&c->bytes, c->op.loop, outr_str_of(p, n));
    c->req.content_length = (int64_t)n;
    c->call.body = &c->bytes.base;
}

void web_call_start(web_call *c, outr_http_pool *pool)
{
    outr_http_call_start(pool, &c->call, &c->op);
}

void web_call_done(web_call *c)
{
    web_taker_done(&c->taker);
    outr_arena_free(c->arena);
}

/* ---- handlers ---------------------------------------------------------------------------------- */
typedef struct echo {
    outr_sink sink;
    outr_sink *to;
    outr_exchange *x;
} echo;

static bool echo_data(outr_sink *sink, outr_slice own_slice)
{
    echo *e = OUTR_CONTAINER(sink, echo, sink);
    return e->to->ops->data(e->to, own_slice);
}

static void echo_end(outr_sink *sink, const struct outr_headers *trailers)
{
    echo *e = OUTR_CONTAINER(sink, echo, sink);
    sink->source = NULL;
    e->to->source = NULL;
    e->to->ops->end(e->to, trailers);
    outr_http_done(e->x);
}

static void echo_abort(outr_sink *sink, const outr_err *err)
{
    echo *e = OUTR_CONTAINER(sink, echo, sink);
    sink->source = NULL;
    e->to->source = NULL;
    e->to->ops->abort(e->to, err);
    outr_http_done(e->x);
}

static void echo_gone(outr_exchange *x, const outr_err *err)
{
    echo *e = x->user;
    if (e->sink.source)
        outr_source_cancel(e->sink.source, err);
    outr_http_done(x);
}

static const outr_sink_ops echo_ops = {echo_data, echo_end, echo_abort};

void web_echo(outr_exchange *x, outr_source *source, int status)
{
    outr_http_response head = {.status = status, .content_length = -1};
    echo *e = outr_arena_alloc(x->arena, sizeof *e);
    outr_headers_init(&head.headers, x->arena);
    e->sink.ops = &echo_ops;
    e->x = x;
    x->user = e;
    x->on_gone = echo_gone;
    e->to = outr_http_respond(x, &head);
    e->to->source = source;
    outr_source_attach(source, &e->sink);
}

void web_answer(outr_exchange *x, int status, const char *body)
{
    outr_http_response head = {.status = status, .content_length = (int64_t)strlen(body)};
    outr_headers_init(&head.headers, x->arena);
    outr_http_reply(x, &head, outr_str_from(body));
    outr_http_done(x);
}
