#include <pthread.h>

#include "base/json.h"
#include "http/remote.h"
#include "components/middleware.h"
#include "tls/jwt.h"

/* Lets pass who shows a token of an issuer for an audience, signed with one of the issuer's keys.
 *
 * Keys come from the issuer (OIDC discovery) or from jwksURL. They are read when the component
 * opens, again every ten minutes, and soon after a token names a key that is not known; while the
 * issuer is away the last ones stay. Tokens that were good are remembered by their hash until they
 * expire or the keys change: checking a signature takes much longer than finding that. */

extern const outr_middleware_backend outr_middleware_bearer;

#define REFRESH_NS     (600 * OUTR_SEC)
#define SOON_NS        (5 * OUTR_SEC) /* at most so often because of a token */
#define FETCH_NS       (10 * OUTR_SEC)
#define REMEMBERED_MAX 4096

typedef struct config {
    outr_str issuer, audience, jwks_url;
} config;

static const outr_bind_row rows[] = {
    {"issuer", "issuerURL", OUTR_BIND_STR, OUTR_BIND_REQUIRED, offsetof(config, issuer), 0, 0, NULL,
     NULL, 0, "issuer the tokens must carry"},
    {"audience", "clientID", OUTR_BIND_STR, OUTR_BIND_REQUIRED, offsetof(config, audience), 0, 0,
     NULL, NULL, 0, "audience value tokens must carry"},
    {"jwksURL", NULL, OUTR_BIND_STR, 0, offsetof(config, jwks_url), 0, 0, NULL, NULL, 0,
     "where the key set is read; else found by OIDC discovery"},
};

/* A token that was good. */
typedef struct remembered {
    outr_link link; /* the oldest first */
    unsigned char hash[OUTR_JWT_HASH_LEN];
    int64_t expires_s;
} remembered;

typedef struct bearer {
    outr_middleware base;
    outr_arena *arena;
    config c; /* texts on arena */
    outr_loop *loop;
    const outr_log *log;
    outr_remote *remote;
    /* Requests come on all loops; held to take a reference or to find a hash. */
    pthread_mutex_t lock;
    outr_jwks *keys;
    outr_map *good; /* by hash */
    outr_list by_age;
    size_t good_count;
    /* main loop: fetching */
    outr_timer timer;
    outr_message ask;
    uint8_t is_asked; /* atomic: ask is on its way */
    uint64_t fetched_ns;
    outr_arena *scratch;
    outr_remote_call call;
    outr_op op;       /* of the call; pending: a fetch is under way */
    outr_op *opening; /* NULL: open is over */
    outr_op *closing;
    outr_str url;
} bearer;

static const outr_metric_desc refused = {"outrigger_jwt_refused_total",
                                         "requests refused for their token",
                                         OUTR_COUNTER,
                                         0,
                                         {"reason"}};

static bearer *of(outr_middleware *m)
{
    return OUTR_CONTAINER(m, bearer, base);
}

/* ---- tokens that were good ------------------------------------------------------------------- */

static outr_str hash_text(const unsigned char hash[OUTR_JWT_HASH_LEN])
{
    return outr_str_of(hash, OUTR_JWT_HASH_LEN);
}

static void forget(bearer *b, remembered *r)
{
    outr_map_remove(b->good, hash_text(r->hash));
    outr_link_remove(&r->link);
    b->good_count--;
    free(r);
}

static void forget_all(bearer *b)
{
    while (!outr_list_is_empty(&b->by_age))
        forget(b, OUTR_LIST_ITEM(b->by_age.next, remembered, link));
}

/* The present keys, the caller's, and whether the token is known to be good by them. */
static outr_jwks *look(bearer *b, const unsigned char hash[OUTR_JWT_HASH_LEN], int64_t now_s,
                       bool *is_good)
{
    pthread_mutex_lock(&b->lock);
    outr_jwks *keys = outr_jwks_ref(b->keys);
    remembered *r = outr_map_get(b->good, hash_text(hash));
    *is_good = r && r->expires_s > now_s;
    if (r && !*is_good)
        forget(b, r);
    pthread_mutex_unlock(&b->lock);
    return keys;
}

static void remember(bearer *b, const outr_jwks *keys, const unsigned char hash[OUTR_JWT_HASH_LEN],
                     int64_t expires_s)
{
    pthread_mutex_lock(&b->lock);
    if (keys == b->keys && !outr_map_get(b->good, hash_text(hash))) {
        if (b->good_count == REMEMBERED_MAX)
            forget(b, OUTR_LIST_ITEM(b->by_age.next, remembered, link));
        remembered *r = outr_alloc(sizeof *r);
        memcpy(r->hash, hash, sizeof r->hash);
        r->expires_s = expires_s;
        outr_map_put(b->good, hash_text(r->hash), r);
        outr_list_push(&b->by_age, &r->link);
        b->good_count++;
    }
    pthread_mutex_unlock(&b->lock);
}

/* ---- requests -------------------------------------------------------------------------------- */

static outr_middleware_verdict refuse(bearer *b, outr_middleware_call *call, const char *reason)
{
    const outr_str label = outr_str_from(reason);
    outr_metric_count(outr_loop_metrics(call->loop), &refused, &label, 1);
    OUTR_LOG(b->log, DEBUG, "a request was refused for its token", OUTR_S("reason", label));
    outr_middleware_refuse(call, 401, "Unauthorized");
    /* RFC 6750 section 3 */
    outr_headers_add(&call->answer.headers, OUTR_STR("WWW-Authenticate"),
                     strcmp(reason, "missing") == 0
                         ? OUTR_STR("Bearer")
                         : outr_arena_printf(
                               call->arena,
                               "Bearer error=\"invalid_token\", error_description=\"%s\"", reason));
    return OUTR_MIDDLEWARE_ANSWER;
}

/* NONE: none was shown, or more than one. */
static outr_str token_of(const outr_headers *headers)
{
    outr_str found = OUTR_STR_NONE;
    for (size_t i = 0; i < headers->count; i++) {
        if (!outr_str_iis(headers->items[i].name, "authorization"))
            continue;
        if (found.p || !outr_str_istarts(headers->items[i].value, OUTR_STR("Bearer ")))
            return OUTR_STR_NONE;
        found = outr_str_trim(outr_str_skip(headers->items[i].value, sizeof "Bearer " - 1));
    }
    return found;
}

static void ask_for_keys(bearer *b)
{
    if (__atomic_exchange_n(&b->is_asked, 1, __ATOMIC_ACQ_REL) == 0)
        outr_loop_post(b->loop, &b->ask);
}

static outr_middleware_verdict handle(outr_middleware *m, outr_middleware_call *call,
                                      outr_op *op OUTR_UNUSED)
{
    bearer *b = of(m);
    outr_env *env = outr_loop_env(call->loop);
    const outr_jwt_rules rules = {b->c.issuer, b->c.audience,
                                  env->unix_ns(env) / (int64_t)OUTR_SEC};
    outr_str token = token_of(&call->req->headers);
    unsigned char hash[OUTR_JWT_HASH_LEN];
    int64_t expires_s;
    bool is_good;
    if (token.n == 0)
        return refuse(b, call, "missing");
    if (token.n > OUTR_JWT_MAX)
        return refuse(b, call, OUTR_JWT_TOO_LARGE);
    outr_jwt_hash(token, hash);
    outr_jwks *keys = look(b, hash, rules.now_s, &is_good);
    const char *reason =
        is_good ? NULL : outr_jwt_check(token, keys, &rules, call->arena, &expires_s);
    if (!is_good && !reason)
        remember(b, keys, hash, expires_s);
    if (reason && strcmp(reason, OUTR_JWT_KEY) == 0)
        ask_for_keys(b);
    outr_jwks_unref(keys);
    return reason ? refuse(b, call, reason) : OUTR_MIDDLEWARE_PASS;
}

/* ---- keys: main loop ------------------------------------------------------------------------- */

static void fetch(bearer *b, outr_str url);

static void finish_close(bearer *b);

static void fetched(bearer *b, const outr_err *err)
{
    outr_op *opening = b->opening;
    outr_arena_free(b->scratch);
    b->scratch = NULL;
    b->fetched_ns = outr_loop_now(b->loop);
    b->opening = NULL;
    if (b->closing) {
        finish_close(b);
        return;
    }
    if (!opening && err)
        OUTR_LOG(b->log, WARN, "keys of an issuer cannot be read, the last ones stay",
                 OUTR_S("issuer", b->c.issuer), OUTR_ERR(err));
    if (!opening || !err)
        outr_timer_start(b->loop, &b->timer, b->fetched_ns + REFRESH_NS);
    if (opening && err)
        outr_op_fail(opening, err);
    else if (opening)
        outr_op_finish(opening);
}

/* Where the issuer's keys are. */
static outr_code discover(bearer *b, outr_str *url, outr_err *err)
{
    outr_json *root;
    outr_code rc = outr_json_parse(&root, b->scratch, b->call.answer, err);
    if (rc)
        return rc;
    if (!outr_str_eq(outr_json_text(root, "issuer"), b->c.issuer)) /* OIDC Discovery section 4.3 */
        return outr_fail(err, OUTR_INVALID_ARGUMENT, "it is of another issuer");
    *url = outr_json_text(root, "jwks_uri");
    return outr_remote_check(*url, err);
}

static void use_keys(bearer *b, outr_jwks *own_keys)
{
    pthread_mutex_lock(&b->lock);
    outr_jwks *before = b->keys;
    b->keys = own_keys;
    forget_all(b);
    pthread_mutex_unlock(&b->lock);
    outr_jwks_unref(before);
}

static void on_fetched(outr_op *op)
{
    bearer *b = OUTR_CONTAINER(op, bearer, op);
    outr_err err = op->err;
    outr_jwks *keys;
    outr_str url;
    bool is_discovery = !b->c.jwks_url.n && !b->url.p;
    if (!err.code && b->call.head.status != 200)
        outr_fail(&err, OUTR_UNAVAILABLE, "status %d", b->call.head.status);
    if (!err.code && is_discovery && !discover(b, &url, &err)) {
        b->url = url;
        fetch(b, url);
        return;
    }
    if (!err.code && !outr_jwks_parse(&keys, b->call.answer, &err))
        use_keys(b, keys);
    if (err.code)
        outr_wrap(&err, is_discovery ? "OIDC discovery" : "key set");
    fetched(b, err.code ? &err : NULL);
}

static void fetch(bearer *b, outr_str url)
{
    uint64_t deadline_ns = outr_loop_now(b->loop) + FETCH_NS;
    b->call = (outr_remote_call){.arena = b->scratch,
                                 .method = OUTR_STR("GET"),
                                 .url = url,
                                 .max_answer = OUTR_JWKS_MAX};
    outr_headers_init(&b->call.headers, b->scratch);
    outr_headers_add(&b->call.headers, OUTR_STR("Accept"), OUTR_STR("application/json"));
    outr_op_init(&b->op, b->loop, NULL, deadline_ns, on_fetched);
    outr_remote_call_start(b->remote, &b->call, &b->op);
}

static void begin_fetch(bearer *b)
{
    outr_str issuer = b->c.issuer;
    if (outr_op_is_pending(&b->op) || b->closing)
        return;
    outr_timer_stop(b->loop, &b->timer);
    b->scratch = outr_arena_new(8 * OUTR_MIB);
    b->url = OUTR_STR_NONE;
    while (issuer.n > 0 && issuer.p[issuer.n - 1] == '/')
        issuer.n--;
    fetch(b, b->c.jwks_url.n ? b->c.jwks_url
                             : outr_arena_join(b->scratch, issuer,
                                               OUTR_STR("/.well-known/openid-configuration"),
                                               OUTR_STR_NONE));
}

static void on_time(outr_timer *timer)
{
    begin_fetch(OUTR_CONTAINER(timer, bearer, timer));
}

/* A token named a key that is not known: perhaps it is new. */
static void on_ask(outr_message *message, outr_loop *loop)
{
    bearer *b = OUTR_CONTAINER(message, bearer, ask);
    __atomic_store_n(&b->is_asked, 0, __ATOMIC_RELEASE);
    if (b->closing)
        finish_close(b);
    else if (outr_timer_is_on(&b->timer)) /* else it is being fetched */
        outr_timer_start(loop, &b->timer,
                         OUTR_MAX(outr_loop_now(loop), b->fetched_ns + SOON_NS));
}

/* ---- life ------------------------------------------------------------------------------------ */

static void on_open_cancelled(outr_op *op)
{
    bearer *b = op->impl;
    outr_op_cancel(&b->op, op->err.code);
}

static void open_it(outr_middleware *m, outr_op *op)
{
    bearer *b = of(m);
    b->opening = op;
    outr_op_begin(op, b, on_open_cancelled);
    b->remote = outr_remote_new(b->loop, NULL);
    begin_fetch(b);
}

static void finish_close(bearer *b)
{
    outr_op *op = b->closing;
    outr_remote *remote = b->remote;
    if (outr_op_is_pending(&b->op) || __atomic_load_n(&b->is_asked, __ATOMIC_ACQUIRE))
        return;
    forget_all(b);
    outr_map_free(b->good);
    outr_jwks_unref(b->keys);
    pthread_mutex_destroy(&b->lock);
    outr_arena_free(b->arena);
    free(b);
    if (remote) {
        outr_remote_close(remote, op);
        return;
    }
    outr_op_begin(op, NULL, NULL);
    outr_op_finish_soon(op);
}

static void close_it(outr_middleware *m, outr_op *op)
{
    bearer *b = of(m);
    b->closing = op;
    outr_timer_stop(b->loop, &b->timer);
    if (outr_op_is_pending(&b->op))
        outr_op_cancel(&b->op, OUTR_CANCELLED);
    else
        finish_close(b);
}

static outr_code create(outr_middleware **out, const outr_component_init *init, outr_err *err)
{
    OUTR_AUTO(outr_err_list) errors = {0};
    config c = {0};
    if (outr_bind_kvs(rows, OUTR_LEN(rows), &c, init->metadata, &errors)) {
        *err = errors.items[0];
        return err->code;
    }
    if (c.jwks_url.n > 0 ? outr_remote_check(c.jwks_url, err) : outr_remote_check(c.issuer, err))
        return outr_wrap(err, c.jwks_url.n > 0 ? "jwksURL" : "issuer");
    bearer *b = outr_alloc(sizeof *b);
    b->base.backend = &outr_middleware_bearer;
    b->arena = outr_arena_new(OUTR_MIB);
    b->c = (config){outr_arena_str(b->arena, c.issuer), outr_arena_str(b->arena, c.audience),
                    outr_arena_str(b->arena, c.jwks_url)};
    b->loop = init->loop;
    b->log = init->log;
    pthread_mutex_init(&b->lock, NULL);
    b->good = outr_map_new();
    outr_list_init(&b->by_age);
    b->timer.fire = on_time;
    b->ask.run = on_ask;
    *out = &b->base;
    return OUTR_OK;
}

const outr_middleware_backend outr_middleware_bearer = {
    .base = {"middleware.http.bearer", "v1", rows, OUTR_LEN(rows)},
    .create = create,
    .open = open_it,
    .close = close_it,
    .handle = handle,
};
