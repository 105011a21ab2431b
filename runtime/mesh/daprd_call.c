#include "mesh/call.h"

/* of a body kept for a daprd that may have to be asked twice */
#define REPLAY_MAX (64 * OUTR_KIB)

static outr__daprd_call *new_daprd(outr__try *t)
{
    const outr__call *c = t->call;
    outr__daprd_call *d = outr_arena_alloc(c->x->arena, sizeof *d);
    d->loop = c->mesh->o.loop;
    d->arena = c->x->arena;
    d->max_bytes = c->mesh->o.settings->max_body_bytes > 0
                       ? (size_t)c->mesh->o.settings->max_body_bytes
                       : UINT32_MAX;
    d->trace = &c->invoke->trace;
    d->wants_events =
        outr_str_iis(outr_headers_get(&c->in->headers, "accept"), "text/event-stream");
    d->on_answer = outr__call_on_response;
    d->user = t;
    return d;
}

static outr_code send_to_daprd(outr__try *t, outr_err *err)
{
    outr__call *c = t->call;
    const outr_invoke *invoke = c->invoke;
    outr_headers metadata;
    outr_str method;
    if (c->in->upgrade.n > 0)
        return outr_fail(err, OUTR_UNIMPLEMENTED, "a daprd peer takes no upgrade");
    if (!t->daprd) {
        t->daprd = new_daprd(t);
        outr__call_keep_body(c, REPLAY_MAX);
    }
    outr_code rc = outr__method_clean(&method, c->x->arena, invoke->method, err);
    if (rc)
        return rc;
    outr_headers_init(&metadata, c->x->arena);
    outr__headers_to_daprd(&metadata, c->mesh, invoke, c->in, &c->target);
    outr__call_say_environment(c, &metadata,
                               outr_str_from(invoke->is_grpc ? "baggage" : "Baggage"));
    const outr__daprd_request request = {
        .metadata = &metadata,
        .verb = outr_str_is(c->verb, "NONE") ? OUTR_STR_NONE : c->verb,
        .method = method,
        .query = invoke->query,
        .content_type = outr_headers_get(&c->in->headers, "content-type"),
        .type_url = invoke->type_url,
        .has_data = invoke->has_data,
    };
    t->daprd->deadline_ns = t->op.deadline_ns;
    t->daprd->authority = outr__peer_address(t->pick.peer);
    t->daprd->scheme = c->req.scheme;
    t->http.body = outr__try_body(t);
    return outr__daprd_send(t->daprd, &t->http, &request, err);
}

/* A daprd always says of a call's trace, both ways. */
static void add_trace(outr__call *c)
{
    outr_headers *out = &c->req.headers;
    if (!outr_headers_has(out, "traceparent")) {
        char *text = outr_arena_alloc(out->arena, OUTR_TRACEPARENT_LEN + 1);
        outr_trace_write(&c->invoke->trace, text);
        outr_headers_add(out, OUTR_STR("traceparent"), outr_str_of(text, OUTR_TRACEPARENT_LEN));
    }
    outr_headers_set(out, OUTR_STR("grpc-trace-bin"),
                     outr__daprd_trace_bin(out->arena, &c->invoke->trace));
}

/* The peer is known now: an Outrigger takes the request as it is. */
outr_code outr__call_on_place(outr_http_call *http, outr_err *err)
{
    outr__try *t = http->user;
    outr__call *c = t->call;
    outr__pick_placed(&t->pick);
    if (http->peer_setting == OUTR_MESH_SETTINGS_VALUE)
        return OUTR_OK;
    if (c->invoke->is_proxied) {
        add_trace(c);
        return OUTR_OK;
    }
    t->is_at_daprd = true;
    outr_code rc = send_to_daprd(t, err);
    t->is_unsendable = rc != OUTR_OK;
    return rc;
}

/* What the peer's sidecar said instead of an answer. */
int outr__call_after_daprd(outr__call *c)
{
    outr__try *t = c->lead;
    outr__daprd_call *d = t->daprd;
    outr_code status = d->status;
    bool may_repeat = !c->is_cancelled && outr__call_can_resend(c);
    if (status == OUTR_UNIMPLEMENTED && !d->is_unary && may_repeat) {
        d->is_unary = true;
        outr__try_send(t);
        return OUTR_WAIT;
    }
    if (status == OUTR_UNIMPLEMENTED && !d->is_unary)
        outr_fail(&d->failure, OUTR_UNIMPLEMENTED,
                  "target app '" OUTR_FMT "' is running a version of Dapr that does not support "
                  "streaming-based service invocation",
                  OUTR_ARG(c->target.app_id));
    c->err = d->failure;
    outr_mark(&c->err, OUTR_WHY_PEER_ERROR);
    if ((status != OUTR_UNAVAILABLE && status != OUTR_UNAUTHENTICATED) || !may_repeat) {
        outr__try_forget_peer(t, false);
        return OUTR__CALL_FAILED;
    }
    outr_http_pool_retire(
        outr__peer_pool(t->pick.peer)); /* it may be said to this connection only */
    outr__try_forget_peer(t, true);
    t->pick.is_fresh = true;
    t->op.done = NULL;
    return OUTR__CALL_PAUSE;
}
