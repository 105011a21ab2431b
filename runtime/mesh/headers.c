#include "mesh/internal.h"

/* Never from a client, never to an app under the client's hand: they say who calls. */
static bool is_internal(outr_str name)
{
    static const char *const names[] = {"dapr-caller-app-id", "dapr-caller-namespace",
                                        "dapr-callee-app-id", "destination-app-id",
                                        "dapr-app-id",        OUTR__ERROR_HEADER};
    if (name.n < 11 ||
        (((unsigned char)name.p[0] | 0x20) != 'd' && ((unsigned char)name.p[0] | 0x20) != 'o'))
        return false;
    for (size_t i = 0; i < OUTR_LEN(names); i++) {
        if (outr_str_iis(name, names[i]))
            return true;
    }
    return false;
}

static bool is_bin(outr_str name)
{
    return name.n > 4 && outr_str_iis(outr_str_skip(name, name.n - 4), "-bin");
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
    outr_str state = is_traced ? trace->state : outr_headers_get(in, "tracestate");
    if (is_traced || trace->is_valid || (always && given.p == NULL) ||
        (given.p && outr_str_trim(given).n == 0)) {
        char *text = outr_arena_alloc(out->arena, OUTR_TRACEPARENT_LEN + 1);
        outr_trace_write(trace, text);
        outr_headers_add(out, OUTR_STR("traceparent"), outr_str_of(text, OUTR_TRACEPARENT_LEN));
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

/* All that may cross: no hop-by-hop, no tokens, nothing that speaks in our name, one baggage. */
static void copy_request(outr_headers *out, const outr_headers *in)
{
    for (size_t i = 0; i < in->count; i++) {
        const outr_header *h = &in->items[i];
        if (is_internal(h->name) || outr_header_is_hop_by_hop(in, h->name) ||
            outr_str_iis(h->name, "dapr-api-token") || is_trace(h->name) || is_bin(h->name))
            continue;
        if (outr_str_iis(h->name, "baggage") && outr_headers_has(out, "baggage"))
            continue; /* only the first was looked at */
        outr_headers_add(out, name_beyond_grpc(out, h->name), h->value);
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

void outr__headers_to_peer(outr_headers *out, const outr_mesh *mesh, const outr_exchange *x,
                           const outr__target *target, const outr_trace *trace, bool is_traced)
{
    const outr_headers *in = &x->req.headers;
    const outr_mesh_options *o = &mesh->o;
    copy_request(out, in);
    outr_headers_add(out, OUTR_STR("dapr-caller-app-id"), o->settings->app_id);
    outr_headers_add(out, OUTR_STR("dapr-caller-namespace"), o->settings->namespace_);
    outr_headers_add(out, OUTR_STR("dapr-callee-app-id"), target->app_id);
    append(out, "X-Forwarded-For", o->host);
    append(out, "X-Forwarded-Host", o->host_name);
    append(out, "Forwarded", mesh->forwarded);
    add_trace(out, in, trace, is_traced, false);
}

void outr__headers_to_app(outr_headers *out, const outr_headers *in, bool is_of_peer,
                          const outr_trace *trace, bool is_traced)
{
    static const char *const said[] = {"dapr-caller-app-id", "dapr-caller-namespace",
                                       "dapr-callee-app-id"};
    copy_request(out, in);
    for (size_t i = 0; is_of_peer && i < OUTR_LEN(said); i++) {
        outr_str value = outr_headers_get(in, said[i]);
        if (value.p)
            outr_headers_add(out, outr_str_from(said[i]), value);
    }
    add_trace(out, in, trace, is_traced, true);
}

void outr__headers_to_outside(outr_headers *out, const outr_headers *in,
                              const outr_endpoint_spec *endpoint, const outr_trace *trace,
                              bool is_traced)
{
    copy_request(out, in);
    for (size_t i = 0; endpoint && i < endpoint->header_count; i++)
        outr_headers_set(out, endpoint->headers[i].name, endpoint->headers[i].value);
    add_trace(out, in, trace, is_traced, true);
}

void outr__headers_of_proxied(outr_headers *out, const outr_headers *in, const outr_mesh *mesh,
                              const outr__target *target, bool is_of_peer, const outr_trace *trace)
{
    for (size_t i = 0; i < in->count; i++) {
        const outr_header *h = &in->items[i];
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
    add_trace(out, in, trace, mesh->trace.is_on, false);
}

void outr__headers_of_answer(outr_headers *out, const outr_headers *in)
{
    for (size_t i = 0; i < in->count; i++) {
        const outr_header *h = &in->items[i];
        if (outr_header_is_hop_by_hop(in, h->name) || is_bin(h->name) ||
            outr_str_iis(h->name, OUTR__ERROR_HEADER))
            continue;
        outr_headers_add(out, name_beyond_grpc(out, h->name), h->value);
    }
}
