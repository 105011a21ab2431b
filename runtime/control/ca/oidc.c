#include "control/ca/oidc.h"

#include "base/json.h"
#include "base/url.h"

#define DOCUMENT_MAX (64 * OUTR_KIB)

static void answer(outr_exchange *x, int status, const char *type, outr_str body)
{
    outr_http_response head = {.status = status, .content_length = (int64_t)body.n};
    outr_headers_init(&head.headers, x->arena);
    outr_headers_add(&head.headers, OUTR_STR("Content-Type"), outr_str_from(type));
    if (status == 200)
        outr_headers_add(&head.headers, OUTR_STR("Cache-Control"),
                         OUTR_STR("public, max-age=3600"));
    if (status == 405)
        outr_headers_add(&head.headers, OUTR_STR("Allow"), OUTR_STR("GET"));
    outr_http_reply(x, &head, body);
    outr_http_done(x);
}

static void refuse(outr_exchange *x, int status, const char *text)
{
    answer(x, status, "text/plain; charset=utf-8", outr_str_from(text));
}

/* What may stand in a URL behind "//" and go back to whoever sent it. */
static bool is_sound_host(outr_str host)
{
    for (size_t i = 0; i < host.n; i++) {
        char c = host.p[i];
        bool is_alnum = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!is_alnum && !strchr(".-_:[]", c))
            return false;
    }
    return host.n > 0 && host.n < 256;
}

static bool is_allowed(const outr_oidc *o, outr_str authority)
{
    outr_str host = authority;
    uint16_t port;
    outr_err err;
    if (o->hosts->count == 0)
        return true;
    outr_hostport_parse(authority, &host, &port, &err);
    for (size_t i = 0; i < o->hosts->count; i++) {
        outr_str one = o->hosts->items[i];
        if (outr_str_is(one, "*") || outr_str_ieq(one, authority) || outr_str_ieq(one, host))
            return true;
    }
    return false;
}

/* By which name it was asked. Behind a proxy that is in X-Forwarded-Host, which counts only where
 * the names are known beforehand: else anybody could have anything written into a document that
 * others keep. */
static outr_str asked_as(const outr_oidc *o, const outr_exchange *x)
{
    outr_str forwarded = outr_headers_get(&x->req.headers, "x-forwarded-host");
    return o->hosts->count > 0 && forwarded.n > 0 ? forwarded : x->req.authority;
}

static outr_str prefix_of(const outr_oidc *o)
{
    outr_str prefix = o->path_prefix;
    while (prefix.n > 0 && prefix.p[prefix.n - 1] == '/')
        prefix.n--;
    return prefix;
}

static void write_discovery(const outr_oidc *o, outr_str host, outr_arena *arena, outr_buf *out)
{
    outr_str scheme = o->is_secure ? OUTR_STR("https://") : OUTR_STR("http://"), prefix, base;
    outr_str issuer = o->issuer.n ? o->issuer : outr_arena_join(arena, scheme, host, OUTR_STR_NONE);
    outr_str keys_url = o->keys_url;
    outr_url url;
    outr_err err;
    if (keys_url.n == 0) { /* beside the issuer's name, as sentry resolves it */
        prefix = prefix_of(o);
        base = outr_url_parse(&url, issuer, &err) ? OUTR_STR_NONE : url.scheme;
        outr_str at = base.n ? outr_str_head(issuer, issuer.n - url.path.n -
                                                         (url.query.p ? url.query.n + 1 : 0))
                             : outr_arena_join(arena, scheme, host, OUTR_STR_NONE);
        keys_url = outr_arena_join(arena, at, prefix, OUTR_STR("/jwks.json"));
    }
    outr_buf_z(out, "{\"issuer\":");
    outr_json_quote(out, issuer);
    outr_buf_z(out, ",\"jwks_uri\":");
    outr_json_quote(out, keys_url);
    outr_buf_printf(out,
                    ",\"response_types_supported\":[\"id_token\"],"
                    "\"subject_types_supported\":[\"public\"],"
                    "\"id_token_signing_alg_values_supported\":[\"" OUTR_FMT "\"],"
                    "\"scopes_supported\":[\"openid\"],"
                    "\"claims_supported\":[\"sub\",\"iss\",\"aud\",\"exp\",\"iat\",\"nbf\","
                    "\"use\"]}\n",
                    OUTR_ARG(outr_ca_tokens_algorithm(o->tokens)));
}

static void on_request(void *ctx, outr_exchange *x)
{
    const outr_oidc *o = ctx;
    OUTR_AUTO(outr_buf) text = OUTR_BUF_MAX(DOCUMENT_MAX);
    outr_str path, prefix = prefix_of(o), host = asked_as(o, x);
    outr_str_cut(x->req.target, '?', &path);
    bool is_ours = outr_str_starts(path, prefix);
    path = outr_str_skip(path, is_ours ? prefix.n : 0);
    bool is_keys = is_ours && outr_str_is(path, "/jwks.json");
    if (!is_keys && !(is_ours && outr_str_is(path, "/.well-known/openid-configuration"))) {
        refuse(x, 404, "404 page not found\n");
    } else if (!is_sound_host(host) || !is_allowed(o, host)) {
        refuse(x, 403, "Forbidden: unauthorized host\n");
    } else if (!outr_str_is(x->req.method, "GET")) {
        refuse(x, 405, "Method not allowed\n");
    } else if (is_keys) {
        answer(x, 200, "application/json", outr_ca_tokens_keys(o->tokens));
    } else {
        write_discovery(o, host, x->arena, &text);
        answer(x, 200, "application/json", outr_buf_view(&text));
    }
}

const outr_http_handler outr_oidc_handler = {.on_request = on_request};
