#include "components/common/etcd.h"

#include <etcd/api/etcdserverpb/rpc.pb-c.h>

#include "base/url.h"

#define SERVERS_MAX 16
#define CALL_NS     (5 * OUTR_SEC)
#define ANSWER_MAX  (8 * OUTR_MIB)
#define ARENA_MAX   (64 * OUTR_MIB)
#define PING_NS     (10 * OUTR_SEC)

#define AUTHENTICATE OUTR_ETCD_PATH("Auth", "Authenticate")

typedef struct server {
    outr_str text; /* "host:port", as it is called */
    outr_str host;
    uint16_t port;
    bool is_https;
    outr_addr addr;
    outr_http_pool *pool; /* to addr; NULL: it was never asked */
} server;

struct outr_etcd {
    outr_arena *arena;
    outr_loop *loop;
    outr_str user, password;
    outr_tls *tls;
    server servers[SERVERS_MAX];
    size_t count, next;
    server *now;    /* NULL: nobody yet */
    outr_str token; /* in token_text; empty: none */
    char token_text[2048];
    /* the login */
    outr_lookup lookup;
    outr_etcd_call call;
    outr_op inner;
    outr_op *op;
};

/* ---- servers --------------------------------------------------------------------------------- */

static outr_code add_server(outr_etcd *e, outr_str text, bool has_tls, outr_err *err)
{
    static const char http[] = "http://", https[] = "https://";
    outr_str given = text;
    if (e->count == SERVERS_MAX)
        return outr_fail(err, OUTR_INVALID_ARGUMENT, "more than %d endpoints", SERVERS_MAX);
    server *s = &e->servers[e->count];
    s->is_https = has_tls || outr_str_istarts(text, OUTR_STR(https));
    if (outr_str_istarts(text, OUTR_STR(https)))
        text = outr_str_skip(text, sizeof https - 1);
    else if (outr_str_istarts(text, OUTR_STR(http)))
        text = outr_str_skip(text, sizeof http - 1);
    if (outr_str_ends(text, OUTR_STR("/")))
        text = outr_str_head(text, text.n - 1);
    s->text = outr_arena_str(e->arena, text);
    if (outr_hostport_parse(s->text, &s->host, &s->port, NULL) || s->host.n == 0 ||
        outr_str_find(s->host, '/') >= 0)
        return outr_fail(err, OUTR_INVALID_ARGUMENT, "\"" OUTR_FMT "\" is no host:port",
                         OUTR_ARG(outr_str_head(given, 100)));
    s->port = s->port ? s->port : 2379;
    e->count++;
    return OUTR_OK;
}

static outr_code add_servers(outr_etcd *e, const outr_etcd_options *o, bool *needs_tls,
                             outr_err *err)
{
    outr_str rest = o->endpoints, one;
    while (rest.p) {
        rest = outr_str_cut(rest, ',', &one);
        one = outr_str_trim(one);
        if (one.n > 0 && add_server(e, one, o->has_tls, err))
            return outr_wrap(err, "endpoints");
    }
    if (e->count == 0)
        return outr_fail(err, OUTR_INVALID_ARGUMENT, "endpoints: required, host:port");
    for (size_t i = 0; i < e->count; i++)
        *needs_tls |= e->servers[i].is_https;
    return OUTR_OK;
}

outr_code outr_etcd_new(outr_etcd **out, const outr_etcd_options *o, outr_err *err)
{
    static const char *const alpn[] = {"h2", NULL};
    outr_etcd *e = outr_alloc(sizeof *e);
    bool needs_tls = false;
    e->arena = outr_arena_new(OUTR_MIB);
    e->loop = o->loop;
    e->user = outr_arena_str(e->arena, o->user);
    e->password = outr_arena_str(e->arena, o->password);
    outr_code rc = add_servers(e, o, &needs_tls, err);
    const outr_tls_options tls = {.verify_peer = true,
                                  .ca_pem = o->ca_pem,
                                  .certificate_pem = o->cert_pem,
                                  .key_pem = o->key_pem,
                                  .alpn = alpn};
    if (!rc && needs_tls)
        rc = outr_tls_new(&e->tls, &tls, err);
    if (rc) {
        outr_etcd_free(e);
        return rc;
    }
    e->next = outr_rand_below(outr_loop_rand(e->loop), e->count); /* not all to the same one */
    *out = e;
    return OUTR_OK;
}

void outr_etcd_free(outr_etcd *e)
{
    if (!e)
        return;
    for (size_t i = 0; i < e->count; i++)
        outr_http_pool_free(e->servers[i].pool);
    if (e->tls)
        outr_tls_unref(e->tls);
    outr_arena_free(e->arena);
    free(e);
}

const char *outr_etcd_server(const outr_etcd *e)
{
    return e->now ? e->now->text.p : "";
}

/* ---- one call -------------------------------------------------------------------------------- */

static void fill_request(const outr_etcd *e, outr_headers *metadata)
{
    if (e->token.n > 0)
        outr_headers_add(metadata, OUTR_STR("token"), outr_arena_str(metadata->arena, e->token));
}

static void send_call(outr_etcd_call *c, const char *path, outr_str message, outr_op_fn *done)
{
    const outr_etcd *e = c->etcd;
    c->unary = (outr_grpc_unary){
        .arena = c->arena, .loop = e->loop, .max_bytes = ANSWER_MAX, .deadline_ns = c->deadline_ns};
    outr_headers_init(&c->unary.metadata, c->arena);
    fill_request(e, &c->unary.metadata);
    outr_grpc_unary_prepare_bytes(&c->unary, &c->http, path, message);
    c->unary.req.authority = e->now->text;
    c->http.ends_with_answer = true;
    outr_op_init(&c->inner, e->loop, NULL, c->deadline_ns, done);
    outr_http_call_start(e->now->pool, &c->http, &c->inner);
}

static void fail_call(outr_etcd_call *c, outr_err *err)
{
    outr_wrap(err, "etcd");
    outr_op_fail(c->op, err);
}

static outr_code keep_token(outr_etcd *e, const Etcdserverpb__AuthenticateResponse *answer,
                            outr_err *err)
{
    outr_str token = outr_str_from(answer->token);
    if (token.n == 0 || token.n >= sizeof e->token_text)
        return outr_fail(err, OUTR_UNAUTHENTICATED, "no token that could be used");
    memcpy(e->token_text, token.p, token.n);
    e->token = outr_str_of(e->token_text, token.n);
    return OUTR_OK;
}

static void on_called(outr_op *inner);

static void on_logged_in_again(outr_op *inner)
{
    outr_etcd_call *c = OUTR_CONTAINER(inner, outr_etcd_call, inner);
    Etcdserverpb__AuthenticateResponse *answer;
    outr_err err;
    if (outr_grpc_unary_result(&c->unary, &answer, &etcdserverpb__authenticate_response__descriptor,
                               &inner->err, &err) ||
        keep_token(c->etcd, answer, &err))
        fail_call(c, &err);
    else
        send_call(c, c->path, c->message, on_called);
}

static Etcdserverpb__AuthenticateRequest credentials(const outr_etcd *e)
{
    Etcdserverpb__AuthenticateRequest m = ETCDSERVERPB__AUTHENTICATE_REQUEST__INIT;
    m.name = (char *)(uintptr_t)e->user.p;
    m.password = (char *)(uintptr_t)e->password.p;
    return m;
}

/* Tokens end, and are of no use after users have changed, while the watch they began goes on. */
static bool wants_another_token(const outr_etcd_call *c, const outr_err *err)
{
    return c->etcd->user.n > 0 && !c->is_again && !outr_op_is_cancelled(c->op) &&
           (err->code == OUTR_UNAUTHENTICATED || strstr(err->text, "auth store is old"));
}

static void on_called(outr_op *inner)
{
    outr_etcd_call *c = OUTR_CONTAINER(inner, outr_etcd_call, inner);
    outr_err err;
    if (outr_grpc_unary_result(&c->unary, &c->answer, c->type, &inner->err, &err) == OUTR_OK) {
        outr_op_finish(c->op);
    } else if (wants_another_token(c, &err)) {
        const Etcdserverpb__AuthenticateRequest m = credentials(c->etcd);
        c->is_again = true;
        c->etcd->token = OUTR_STR_NONE;
        send_call(c, AUTHENTICATE, outr_proto_write(c->arena, &m), on_logged_in_again);
    } else {
        fail_call(c, &err);
    }
}

static void on_cancel(outr_op *op)
{
    outr_etcd_call *c = op->impl;
    outr_op_cancel(&c->inner, op->err.code);
}

void outr_etcd_call_start(outr_etcd *e, outr_etcd_call *c, const void *message, outr_op *op)
{
    outr_err err;
    c->etcd = e;
    c->op = op;
    c->answer = NULL;
    c->arena = outr_arena_new(ARENA_MAX);
    outr_op_begin(op, c, on_cancel);
    if (!e->now) {
        outr_op_init(&c->inner, e->loop, NULL, 0, NULL);
        outr_fail(&err, OUTR_UNAVAILABLE, "etcd: no server yet");
        outr_op_fail_soon(op, &err);
        return;
    }
    c->is_again = false;
    c->deadline_ns = outr_loop_now(e->loop) + CALL_NS;
    c->message = outr_proto_write(c->arena, message);
    send_call(c, c->path, c->message, on_called);
}

void outr_etcd_call_done(outr_etcd_call *c)
{
    outr_arena_free(c->arena);
    c->arena = NULL;
    c->answer = NULL;
}

void outr_etcd_stream_start(outr_etcd *e, outr_grpc_stream *s, outr_http_call *http,
                            const char *path, outr_op *op)
{
    outr_headers_init(&s->metadata, s->arena);
    fill_request(e, &s->metadata);
    outr_headers_add(&s->metadata, OUTR_STR("hasleader"), OUTR_STR("true"));
    outr_grpc_stream_prepare(s, http, path);
    s->req.authority = e->now->text;
    outr_http_call_start(e->now->pool, http, op);
}

/* ---- the login ------------------------------------------------------------------------------- */

static void end_login(outr_etcd *e, const outr_err *why)
{
    outr_op *op = e->op;
    if (!why) {
        outr_op_finish(op);
        return;
    }
    outr_err err = *why;
    outr_op_fail(op, &err);
}

static void on_authenticated(outr_op *inner)
{
    outr_etcd *e = OUTR_CONTAINER(inner, outr_etcd, inner);
    outr_err err = inner->err;
    if (!err.code && keep_token(e, e->call.answer, &err))
        outr_wrap(&err, "etcd");
    outr_etcd_call_done(&e->call);
    end_login(e, err.code ? &err : NULL);
}

static bool is_same(const outr_addr *a, const outr_addr *b)
{
    char one[OUTR_ADDR_TEXT_MAX], other[OUTR_ADDR_TEXT_MAX];
    outr_addr_text(a, one);
    outr_addr_text(b, other);
    return strcmp(one, other) == 0;
}

static void use_address(outr_etcd *e, server *s, const outr_addr *addr)
{
    e->now = s;
    if (s->pool && is_same(&s->addr, addr))
        return;
    outr_http_pool *before = s->pool;
    s->addr = *addr;
    s->pool = outr_http_pool_new(&(outr_http_pool_options){
        .loop = e->loop,
        .addr = *addr,
        .version = OUTR_HTTP_2,
        .tls = s->is_https ? e->tls : NULL,
        .server_name = s->host,
        .limits = {.max_header_bytes = OUTR_MIB,
                   .body_idle_ns = 24 * 3600 * OUTR_SEC,
                   .idle_ns = 24 * 3600 * OUTR_SEC},
        .ping_interval_ns = PING_NS,
    });
    outr_http_pool_free(before);
}

static void on_looked_up(outr_op *inner)
{
    outr_etcd *e = OUTR_CONTAINER(inner, outr_etcd, inner);
    server *s = &e->servers[e->next];
    e->next = (e->next + 1) % e->count;
    if (inner->err.code || e->lookup.count == 0) {
        outr_err err = inner->err;
        if (!err.code)
            outr_fail(&err, OUTR_UNAVAILABLE, "no address");
        outr_wrap(&err, "etcd " OUTR_FMT, OUTR_ARG(s->text));
        end_login(e, &err);
        return;
    }
    size_t at = outr_rand_below(outr_loop_rand(e->loop), e->lookup.count);
    for (size_t i = 0; i < e->lookup.count && s->pool; i++) { /* the one that is connected stays */
        if (is_same(&e->lookup.addrs[i], &s->addr))
            at = outr_http_pool_connections(s->pool) > 0 ? i : at;
    }
    use_address(e, s, &e->lookup.addrs[at]);
    if (e->user.n == 0) {
        end_login(e, NULL);
        return;
    }
    const Etcdserverpb__AuthenticateRequest m = credentials(e);
    e->token = OUTR_STR_NONE;
    e->call.path = AUTHENTICATE;
    e->call.type = &etcdserverpb__authenticate_response__descriptor;
    outr_op_init(&e->inner, e->loop, NULL, 0, on_authenticated);
    outr_etcd_call_start(e, &e->call, &m, &e->inner);
}

static void on_login_cancel(outr_op *op)
{
    outr_etcd *e = op->impl;
    outr_op_cancel(&e->inner, op->err.code);
}

void outr_etcd_login(outr_etcd *e, outr_op *op)
{
    outr_env *env = outr_loop_env(e->loop);
    const server *s = &e->servers[e->next];
    e->op = op;
    outr_op_begin(op, e, on_login_cancel);
    e->lookup = (outr_lookup){.host = s->host, .port = s->port};
    outr_op_init(&e->inner, e->loop, NULL, outr_loop_now(e->loop) + CALL_NS, on_looked_up);
    env->lookup(env, e->loop, &e->lookup, &e->inner);
}

outr_str outr_etcd_prefix_end(outr_arena *arena, outr_str prefix)
{
    outr_str end = outr_arena_str(arena, prefix);
    char *bytes = (char *)(uintptr_t)end.p;
    while (end.n > 0 && (unsigned char)bytes[end.n - 1] == 0xff)
        end.n--;
    if (end.n == 0)
        return OUTR_STR("\0"); /* all there are */
    bytes[end.n - 1]++;
    return end;
}
