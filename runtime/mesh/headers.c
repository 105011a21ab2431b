#include "app/invocation.h"
#include "grpc/status.h"
#include "mesh/daprd_wire.h"
#include "mesh/mirror.h"

/* What sidecars alone say: outrigger-error and those of app/invocation.h. */
static bool is_ours(outr_str name)
{
    return name.n > 10 && ((unsigned char)name.p[0] | 0x20) == 'o' &&
           outr_str_istarts(name, OUTR_STR("outrigger-"));
}

/* Never from a client, never to an app under the client's hand: they say who calls. */
static bool is_internal(outr_str name)
{
    static const char *const names[] = {"dapr-caller-app-id", "dapr-caller-namespace",
                                        "dapr-callee-app-id", "destination-app-id", "dapr-app-id"};
    if (is_ours(name))
        return true;
    if (name.n < 11 || ((unsigned char)name.p[0] | 0x20) != 'd')
        return false;
    for (size_t i = 0; i < OUTR_LEN(names); i++) {
        if (outr_str_iis(name, names[i]))
            return true;
    }
    return false;
}

void outr__headers_set_timeout(outr_headers *headers, uint64_t now_ns, uint64_t deadline_ns)
{
    uint64_t left_ns = deadline_ns > now_ns ? deadline_ns - now_ns : 1;
    outr_headers_set(headers, OUTR_STR("grpc-timeout"),
                     outr_grpc_timeout_write(headers->arena, left_ns));
}

void outr__headers_disown(outr_headers *headers)
{
    size_t kept = 0;
    for (size_t i = 0; i < headers->count; i++) {
        if (!is_ours(headers->items[i].name))
            headers->items[kept++] = headers->items[i];
    }
    headers->count = kept;
}

/* The trace headers are written anew where this hop has a span, and where the client's were
 * understood:
 * of a later version only what version 00 has is passed on (W3C Trace Context section 3.2.2.3).
 * What was
 * not understood passes as it is, tracestate only together with a traceparent. */
static void add_trace(outr_headers *out, const outr_headers *in, const outr_trace *trace,
                      bool is_traced, bool always)
{
    outr_str given = outr_headers_get(in, "traceparent");
    outr_str state = trace->state.n > 0 ? trace->state : outr_headers_get(in, "tracestate");
    if (is_traced)
        state = trace->state;
    if (is_traced || trace->is_valid || (always && given.p == NULL) ||
        (given.p && outr_str_trim(given).n == 0)) {
        char *text = outr_arena_alloc(out->arena, OUTR_TRACEPARENT_LEN + 1);
        outr_trace_write(trace, text);
        outr_headers_add(out, OUTR_STR("traceparent"), outr_str_of(text, OUTR_TRACEPARENT_LEN));
        out->items[out->count - 1].is_unindexed = true;
        if (trace->is_valid && state.n > 0)
            outr_headers_add(out, OUTR_STR("tracestate"), state);
        return;
    }
    if (!given.p)
        return;
    outr_headers_add(out, OUTR_STR("traceparent"), given);
    if (state.p)
        outr_headers_add(out, OUTR_STR("tracestate"), state);
}

static bool is_trace(outr_str name)
{
    return outr_str_iis(name, "traceparent") || outr_str_iis(name, "tracestate");
}

/* A name of gRPC's own must not reach who speaks HTTP as if it were said to him. */
static outr_str name_beyond_grpc(outr_headers *out, outr_str name)
{
    if (!outr_str_istarts(name, OUTR_STR("grpc-")))
        return name;
    return outr_arena_join(out->arena, OUTR_STR("dapr-"), name, OUTR_STR_NONE);
}

/* Binary metadata as gRPC emits it, without padding. False: its value is no base64, which a gRPC
 * app could not read. */
static bool take_bin(outr_str *value)
{
    while (value->n > 0 && value->p[value->n - 1] == '=')
        value->n--;
    for (size_t i = 0; i < value->n; i++) {
        char c = value->p[i];
        bool is_alnum = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!is_alnum && c != '+' && c != '/' && c != ',')
            return false;
    }
    return true;
}

/* All that may cross: no hop-by-hop, no tokens, nothing that speaks in our name, one baggage. */
static void copy_request(outr_headers *out, const outr_headers *in, bool keeps_bin)
{
    for (size_t i = 0; i < in->count; i++) {
        const outr_header *h = &in->items[i];
        if (is_internal(h->name) || outr_header_is_hop_by_hop(in, h->name) ||
            outr_str_iis(h->name, "dapr-api-token") || is_trace(h->name) ||
            (!keeps_bin && outr_grpc_is_bin(h->name)))
            continue;
        if (outr_str_iis(h->name, "baggage") && outr_headers_has(out, "baggage"))
            continue; /* only the first was looked at */
        outr_str value = h->value;
        if (!outr_grpc_is_bin(h->name) || take_bin(&value))
            outr_headers_add(out, name_beyond_grpc(out, h->name), value);
    }
}

/* value behind all that stands under the name already, in one line (RFC 9110 section 5.3). */
static void append(outr_headers *out, const char *name, outr_str value)
{
    outr_str given = OUTR_STR("");
    for (size_t i = 0; i < out->count; i++) {
        if (outr_str_iis(out->items[i].name, name) && out->items[i].value.n > 0)
            given = outr_arena_join(out->arena, given, out->items[i].value, OUTR_STR(", "));
    }
    outr_headers_set(out, outr_str_from(name),
                     outr_arena_join(out->arena, given, value, OUTR_STR_NONE));
}

/* That a gRPC caller asks, and what his data is. */
static void add_origin(outr_headers *out, const outr_invoke *invoke)
{
    if (!invoke->is_grpc)
        return;
    outr_headers_add(out, OUTR_STR(OUTR_INVOKE_ORIGIN_HEADER), OUTR_STR(OUTR_INVOKE_ORIGIN_GRPC));
    if (invoke->type_url.n > 0)
        outr_headers_add(out, OUTR_STR(OUTR_INVOKE_TYPE_HEADER), invoke->type_url);
}

void outr__headers_to_peer(outr_headers *out, const outr_mesh *mesh, const outr_invoke *invoke,
                           const outr_http_request *req, const outr__target *target, bool is_traced)
{
    const outr_headers *in = &req->headers;
    const outr_mesh_options *o = &mesh->o;
    copy_request(out, in, true);
    add_origin(out, invoke);
    outr_headers_add(out, OUTR_STR("dapr-caller-app-id"), o->settings->app_id);
    outr_headers_add(out, OUTR_STR("dapr-caller-namespace"), o->settings->namespace_);
    outr_headers_add(out, OUTR_STR("dapr-callee-app-id"), target->app_id);
    append(out, "X-Forwarded-For", o->host);
    append(out, "X-Forwarded-Host", o->host_name);
    append(out, "Forwarded", mesh->forwarded);
    add_trace(out, in, &invoke->trace, is_traced, false);
}

static bool has_content_length(const outr_http_request *req)
{
    return req->content_length > 0 ||
           (req->content_length == 0 &&
            (outr_str_is(req->method, "POST") || outr_str_is(req->method, "PUT") ||
             outr_str_is(req->method, "PATCH")));
}

void outr__headers_to_daprd(outr_headers *out, const outr_mesh *mesh, const outr_invoke *invoke,
                            const outr_http_request *req, const outr__target *target)
{
    const outr_headers *in = &req->headers;
    const outr_mesh_options *o = &mesh->o;
    for (size_t i = 0; i < in->count; i++) {
        const outr_header *h = &in->items[i];
        if (is_internal(h->name) || outr_str_iis(h->name, "dapr-api-token") ||
            (invoke->is_grpc && outr_str_iis(h->name, "content-type")))
            continue;
        if (!invoke->is_grpc)
            outr_headers_add(out, outr__daprd_canonical(out->arena, h->name), h->value);
        else
            outr_headers_add(out, h->name,
                             outr_grpc_is_bin(h->name) ? outr__daprd_pad(out->arena, h->value)
                                                       : h->value);
    }
    if (invoke->is_grpc) { /* of the call itself, as the reference tells it */
        if (req->authority.n > 0)
            outr_headers_add(out, OUTR_STR(":authority"), req->authority);
        outr_headers_add(out, OUTR_STR("content-type"), OUTR_STR("application/grpc"));
    }
    if (!invoke->is_grpc && has_content_length(req))
        outr_headers_add(out, OUTR_STR("Content-Length"),
                         outr_arena_printf(out->arena, "%lld", (long long)req->content_length));
    outr_headers_add(out, OUTR_STR("destination-app-id"), target->app_id);
    outr_headers_add(out, OUTR_STR("dapr-caller-app-id"), o->settings->app_id);
    outr_headers_add(out, OUTR_STR("dapr-caller-namespace"), o->settings->namespace_);
    outr_headers_add(out, OUTR_STR("dapr-callee-app-id"), target->app_id);
    outr_headers_add(out, OUTR_STR("X-Forwarded-For"), o->host);
    outr_headers_add(out, OUTR_STR("X-Forwarded-Host"), o->host_name);
    outr_headers_add(out, OUTR_STR("Forwarded"), mesh->forwarded);
}

void outr__headers_to_app(outr_headers *out, const outr__to_app *what)
{
    static const char *const said[] = {"dapr-caller-app-id", "dapr-caller-namespace",
                                       "dapr-callee-app-id", OUTR__MIRROR_HEADER,
                                       OUTR_INVOKE_ORIGIN_HEADER, OUTR_INVOKE_TYPE_HEADER};
    size_t count = what->is_grpc_app ? OUTR_LEN(said) : 4;
    copy_request(out, what->in, what->is_grpc_app);
    for (size_t i = 0; !what->invoke && i < count; i++) {
        outr_str value = outr_headers_get(what->in, said[i]);
        if (value.p)
            outr_headers_add(out, outr_str_from(said[i]), value);
    }
    if (what->invoke && what->is_grpc_app)
        add_origin(out, what->invoke);
    add_trace(out, what->in, what->trace, what->is_traced, true);
}

void outr__headers_to_outside(outr_headers *out, const outr_headers *in,
                              const outr_endpoint_spec *endpoint, const outr_trace *trace,
                              bool is_traced)
{
    copy_request(out, in, false);
    for (size_t i = 0; endpoint && i < endpoint->header_count; i++)
        outr_headers_set(out, endpoint->headers[i].name, endpoint->headers[i].value);
    add_trace(out, in, trace, is_traced, true);
}

void outr__headers_of_proxied(outr_headers *out, const outr_headers *in, const outr_mesh *mesh,
                              const outr__target *target, bool is_of_peer, const outr_trace *trace)
{
    bool is_traced = mesh->trace.is_on;
    for (size_t i = 0; i < in->count; i++) {
        const outr_header *h = &in->items[i];
        if (is_traced && outr_str_iis(h->name, "grpc-trace-bin"))
            continue; /* of another span now */
        bool says_who =
            is_internal(h->name) && !(is_of_peer && !outr_str_iis(h->name, "dapr-app-id"));
        if (says_who || outr_header_is_hop_by_hop(in, h->name) || is_trace(h->name) ||
            outr_str_iis(h->name, "dapr-api-token"))
            continue;
        outr_headers_add(out, h->name, h->value);
    }
    outr_headers_add(out, OUTR_STR("te"), OUTR_STR("trailers"));
    if (target) {
        outr_headers_add(out, OUTR_STR("dapr-caller-app-id"), mesh->o.settings->app_id);
        outr_headers_add(out, OUTR_STR("dapr-callee-app-id"), target->app_id);
    }
    add_trace(out, in, trace, is_traced, false);
    if (is_traced)
        outr_headers_add(out, OUTR_STR("grpc-trace-bin"),
                         outr__daprd_trace_bin(out->arena, trace));
}

void outr__headers_of_answer(outr_headers *out, const outr_headers *in, bool keeps_grpc)
{
    for (size_t i = 0; i < in->count; i++) {
        const outr_header *h = &in->items[i];
        if (outr_header_is_hop_by_hop(in, h->name) ||
            (!keeps_grpc && (outr_grpc_is_bin(h->name) || is_ours(h->name))))
            continue;
        outr_headers_add(out, name_beyond_grpc(out, h->name), h->value);
    }
}
