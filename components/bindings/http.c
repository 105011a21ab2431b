#include <stdlib.h>

#include "components/bindings.h"
#include "components/common/pem.h"
#include "http/remote.h"

/* Requests to one server: the operation is the method, metadata path is put behind the url, and
 * metadata that begin with a capital letter are headers. */

extern const outr_binding_backend outr_bindings_http;

typedef struct config {
    outr_str url, token, token_header, root_ca, certificate, key;
    int64_t timeout_ns, max_answer;
    bool fails_if_not_2xx;
    int renegotiation;
} config;

static const char *const renegotiations[] = {"RenegotiateNever", "RenegotiateOnceAsClient",
                                             "RenegotiateFreelyAsClient", NULL};
static const outr_bind_row rows[] = {
    {"url", NULL, OUTR_BIND_STR, OUTR_BIND_REQUIRED, offsetof(config, url), 0, 0, NULL, NULL, 0,
     "address that requests go to"},
    {"responseTimeout", NULL, OUTR_BIND_DURATION, 0, offsetof(config, timeout_ns), 0, 0, "0s",
     NULL, 1000000000, "HTTP response time limit; 0: none"},
    {"maxResponseBodySize", NULL, OUTR_BIND_QUANTITY, 0, offsetof(config, max_answer), 0, 0,
     "100Mi", NULL, 0, "largest response body read; 0: no limit"},
    {"MTLSRootCA", NULL, OUTR_BIND_STR, 0, offsetof(config, root_ca), 0, 0, NULL, NULL, 0,
     "root certificate to trust: PEM text or file path"},
    {"MTLSClientCert", NULL, OUTR_BIND_STR, 0, offsetof(config, certificate), 0, 0, NULL, NULL, 0,
     "client certificate for mutual TLS: PEM text or file path"},
    {"MTLSClientKey", NULL, OUTR_BIND_STR, OUTR_BIND_SECRET, offsetof(config, key), 0, 0, NULL,
     NULL, 0, "client private key for mutual TLS: PEM text or file path"},
    {"MTLSRenegotiation", NULL, OUTR_BIND_ENUM, 0, offsetof(config, renegotiation), 0, 0,
     "RenegotiateNever", renegotiations, 0, "TLS renegotiation policy"},
    {"securityToken", NULL, OUTR_BIND_STR, OUTR_BIND_SECRET, offsetof(config, token), 0, 0, NULL,
     NULL, 0, "token added to outgoing requests"},
    {"securityTokenHeader", NULL, OUTR_BIND_STR, 0, offsetof(config, token_header), 0, 0, NULL,
     NULL, 0, "header that carries it"},
    {"errorIfNot2XX", NULL, OUTR_BIND_BOOL, 0, offsetof(config, fails_if_not_2xx), 0, 0, "true",
     NULL, 0, "treat answers other than 2xx as errors"},
};

typedef struct client {
    outr_binding base;
    config c; /* texts on arena */
    outr_arena *arena;
    outr_loop *loop;
    outr_remote *remote;
} client;

typedef struct request {
    client *client;
    outr_binding_invoke *req;
    outr_remote_call call;
    bool fails_if_not_2xx;
    outr_op inner;
    outr_op *op;
} request;

static client *of(outr_binding *base)
{
    return OUTR_CONTAINER(base, client, base);
}

/* ---- the answer ------------------------------------------------------------------------------ */

/* Names as Go has them: Content-Length. */
static outr_str canonical(outr_arena *arena, outr_str name)
{
    char *text = outr_arena_strz(arena, name);
    bool is_start = true;
    for (size_t i = 0; i < name.n; i++) {
        char c = text[i];
        if (is_start && c >= 'a' && c <= 'z')
            text[i] = (char)(c - 32);
        else if (!is_start && c >= 'A' && c <= 'Z')
            text[i] = (char)(c + 32);
        is_start = c == '-';
    }
    return outr_str_of(text, name.n);
}

/* Several of one name become one, with commas. */
static void put(outr_arena *arena, outr_kv *items, size_t *count, outr_str name, outr_str value)
{
    for (size_t i = 0; i < *count; i++) {
        if (outr_str_eq(items[i].key, name)) {
            items[i].value = outr_arena_join(arena, items[i].value, OUTR_STR(", "), value);
            return;
        }
    }
    items[(*count)++] = (outr_kv){name, value};
}

static outr_kvs metadata_of(outr_arena *arena, const outr_http_response *head)
{
    outr_kv *items = outr_arena_alloc(arena, (head->headers.count + 3) * sizeof *items);
    outr_str reason =
        head->reason.n ? head->reason : outr_str_from(outr_http_status_text(head->status));
    size_t n = 0;
    items[n++] =
        (outr_kv){OUTR_STR("statusCode"), outr_arena_printf(arena, "%d", head->status)};
    items[n++] = (outr_kv){OUTR_STR("status"), outr_arena_printf(arena, "%d " OUTR_FMT,
                                                                 head->status, OUTR_ARG(reason))};
    if (head->content_length >= 0)
        items[n++] =
            (outr_kv){OUTR_STR("Content-Length"),
                      outr_arena_printf(arena, "%lld", (long long)head->content_length)};
    for (size_t i = 0; i < head->headers.count; i++)
        put(arena, items, &n, canonical(arena, head->headers.items[i].name),
            head->headers.items[i].value);
    return (outr_kvs){items, n};
}

static void on_answer(outr_op *inner)
{
    request *r = OUTR_CONTAINER(inner, request, inner);
    outr_binding_invoke *req = r->req;
    outr_err err = inner->err;
    outr_op *op = r->op;
    int status = r->call.head.status;
    if (!err.code) {
        req->has_answer = true;
        req->answer = r->call.answer;
        req->answer_metadata = metadata_of(req->arena, &r->call.head);
        if (r->fails_if_not_2xx && status / 100 != 2)
            outr_fail(&err, OUTR_UNKNOWN, "received status code %d", status);
    }
    if (err.code)
        outr_op_fail(op, &err);
    else
        outr_op_finish(op);
}

/* ---- the request ----------------------------------------------------------------------------- */

static outr_str metadata(const outr_binding_invoke *req, const char *name)
{
    const outr_kv *kv = outr_kvs_find_exact(req->metadata, outr_str_from(name));
    return kv ? kv->value : OUTR_STR_NONE;
}

static outr_str url_of(const client *b, const outr_binding_invoke *req)
{
    outr_str url = b->c.url, path = metadata(req, "path");
    if (path.n == 0)
        return url;
    while (url.n > 0 && url.p[url.n - 1] == '/')
        url = outr_str_head(url, url.n - 1);
    while (path.n > 0 && path.p[0] == '/')
        path = outr_str_skip(path, 1);
    return outr_arena_join(req->arena, url, OUTR_STR("/"), path);
}

static void set_default(request *r, const char *name, const char *value)
{
    if (!metadata(r->req, name).p)
        outr_headers_set(&r->call.headers, outr_str_from(name), outr_str_from(value));
}

static outr_code add_headers(request *r, outr_err *err)
{
    static const char json[] = "application/json; charset=utf-8";
    static const char *const traces[] = {"traceparent", "tracestate", "baggage"};
    const config *c = &r->client->c;
    outr_headers *h = &r->call.headers;
    outr_headers_init(h, r->req->arena);
    if (r->call.has_body)
        set_default(r, "Content-Type", json);
    set_default(r, "Accept", json);
    if (c->token.n > 0 && c->token_header.n > 0)
        outr_headers_set(h, c->token_header, c->token);
    for (size_t i = 0; i < r->req->metadata.count; i++) {
        const outr_kv *m = &r->req->metadata.items[i];
        if (m->key.n == 0 || m->key.p[0] < 'A' || m->key.p[0] > 'Z')
            continue;
        if (!outr_header_name_is_valid(m->key) || !outr_header_value_is_valid(m->value))
            return outr_fail(err, OUTR_INVALID_ARGUMENT,
                             "metadata " OUTR_FMT " cannot be sent as a header",
                             OUTR_ARG(outr_str_head(m->key, 64)));
        outr_headers_set(h, m->key, m->value);
    }
    for (size_t i = 0; i < OUTR_LEN(traces); i++) {
        outr_str value = metadata(r->req, traces[i]);
        if (value.n > 0 && outr_header_value_is_valid(value))
            outr_headers_set(h, outr_str_from(traces[i]), value);
    }
    return OUTR_OK;
}

static void on_cancel(outr_op *op)
{
    request *r = op->impl;
    outr_op_cancel(&r->inner, op->err.code);
}

static void invoke(outr_binding *base, outr_binding_invoke *req, outr_op *op)
{
    static const struct {
        const char *operation, *method;
        bool has_body;
    } table[] = {
        {"create", "POST", true}, {"post", "POST", true},    {"put", "PUT", true},
        {"patch", "PATCH", true}, {"get", "GET", false},     {"head", "HEAD", false},
        {"delete", "DELETE", false}, {"options", "OPTIONS", false}, {"trace", "TRACE", false},
    };
    client *b = of(base);
    request *r = outr_arena_alloc(req->arena, sizeof *r);
    outr_err err;
    uint64_t deadline_ns = b->c.timeout_ns > 0
                               ? outr_loop_now(op->loop) + (uint64_t)b->c.timeout_ns
                               : 0;
    r->client = b;
    r->req = req;
    r->op = op;
    r->fails_if_not_2xx = b->c.fails_if_not_2xx;
    outr_str own = metadata(req, "errorIfNot2XX");
    if (own.n > 0 && !outr_str_to_bool(own, &r->fails_if_not_2xx))
        r->fails_if_not_2xx = false;
    r->call = (outr_remote_call){
        .arena = req->arena,
        .url = url_of(b, req),
        .max_answer = b->c.max_answer > 0 ? (size_t)b->c.max_answer : SIZE_MAX / 4,
        .secret_header = b->c.token_header,
    };
    for (size_t i = 0; i < OUTR_LEN(table); i++) {
        if (outr_str_is(req->operation, table[i].operation)) {
            r->call.method = outr_str_from(table[i].method);
            r->call.has_body = table[i].has_body;
        }
    }
    if (r->call.has_body)
        r->call.body = req->data;
    outr_op_begin(op, r, on_cancel);
    if (add_headers(r, &err)) {
        outr_op_fail_soon(op, &err);
        return;
    }
    outr_op_init(&r->inner, op->loop, op, deadline_ns, on_answer);
    outr_remote_call_start(b->remote, &r->call, &r->inner);
}

/* ---- life ------------------------------------------------------------------------------------ */

static void copy_texts(client *b)
{
    outr_str *const texts[] = {&b->c.url,     &b->c.token,       &b->c.token_header,
                               &b->c.root_ca, &b->c.certificate, &b->c.key};
    for (size_t i = 0; i < OUTR_LEN(texts); i++)
        *texts[i] = outr_arena_str(b->arena, *texts[i]);
}

static outr_code create(outr_binding **out, const outr_component_init *init, outr_err *err)
{
    OUTR_AUTO(outr_err_list) errors = {0};
    config c = {0};
    if (outr_bind_kvs(rows, OUTR_LEN(rows), &c, init->metadata, &errors)) {
        *err = errors.items[0];
        return err->code;
    }
    if (outr_remote_check(c.url, err))
        return outr_wrap(err, "url");
    if (c.renegotiation != 0)
        return outr_fail(err, OUTR_UNIMPLEMENTED,
                         "MTLSRenegotiation: %s is not in this version, only RenegotiateNever",
                         renegotiations[c.renegotiation]);
    if (c.token.n > 0 && c.token_header.n > 0 &&
        (!outr_header_name_is_valid(c.token_header) || !outr_header_value_is_valid(c.token)))
        return outr_fail(err, OUTR_INVALID_ARGUMENT,
                         "securityToken, securityTokenHeader: no header");
    client *b = outr_alloc(sizeof *b);
    b->base.backend = &outr_bindings_http;
    b->arena = outr_arena_new(8 * OUTR_MIB);
    b->c = c;
    b->loop = init->loop;
    copy_texts(b);
    *out = &b->base;
    return OUTR_OK;
}

static outr_code make_remote(client *b, outr_err *err)
{
    static const char *const alpn[] = {"http/1.1", NULL};
    config *c = &b->c;
    outr_tls *tls = NULL;
    outr_code rc = outr_pem_read(b->arena, "MTLSRootCA", &c->root_ca, err);
    if (!rc)
        rc = outr_pem_read(b->arena, "MTLSClientCert", &c->certificate, err);
    if (!rc)
        rc = outr_pem_read(b->arena, "MTLSClientKey", &c->key, err);
    if (rc)
        return rc;
    bool has_certificate = c->certificate.n > 0 && c->key.n > 0;
    if (c->root_ca.n > 0 || has_certificate || outr_str_istarts(c->url, OUTR_STR("https:"))) {
        outr_tls_options options = {.verify_peer = true, .ca_pem = c->root_ca, .alpn = alpn};
        if (has_certificate) {
            options.certificate_pem = c->certificate;
            options.key_pem = c->key;
        }
        rc = outr_tls_new(&tls, &options, err);
    }
    if (!rc)
        b->remote = outr_remote_new(b->loop, tls);
    outr_tls_unref(tls);
    return rc;
}

static void open_client(outr_binding *base, outr_op *op)
{
    outr_err err;
    outr_op_begin(op, NULL, NULL);
    if (make_remote(of(base), &err))
        outr_op_fail_soon(op, &err);
    else
        outr_op_finish_soon(op);
}

static void close_client(outr_binding *base, outr_op *op)
{
    client *b = of(base);
    outr_remote *remote = b->remote;
    outr_arena_free(b->arena);
    free(b);
    if (remote) {
        outr_remote_close(remote, op);
        return;
    }
    outr_op_begin(op, NULL, NULL);
    outr_op_finish_soon(op);
}

static unsigned directions(const outr_binding *base OUTR_UNUSED)
{
    return OUTR_BINDING_OUTPUT;
}

static const char *const *operations(const outr_binding *base OUTR_UNUSED)
{
    static const char *const names[] = {"create", "get",     "head",    "post",  "put",
                                        "patch",  "delete",  "options", "trace", NULL};
    return names;
}

const outr_binding_backend outr_bindings_http = {
    .base = {"bindings.http", "v1", rows, OUTR_LEN(rows)},
    .create = create,
    .open = open_client,
    .close = close_client,
    .directions = directions,
    .operations = operations,
    .invoke = invoke,
};
