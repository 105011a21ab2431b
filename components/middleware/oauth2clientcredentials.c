#include <pthread.h>

#include "base/encode.h"
#include "base/json.h"
#include "base/regex.h"
#include "base/url.h"
#include "http/remote.h"
#include "components/middleware.h"

/* Gives requests a token of the sidecar's own: OAuth 2.0 client credentials (RFC 6749 section 4.4).
 *
 * A token is fetched when one is needed and kept until shortly before it expires. Requests of all
 * loops that come meanwhile wait for the same fetch, and for a second after one that failed they
 * fail with it: a token server that is away is not asked by each of them. */

extern const outr_middleware_backend outr_middleware_oauth2clientcredentials;

#define FETCH_NS     (10 * OUTR_SEC)
#define FAILED_NS    OUTR_SEC
#define ANSWER_MAX   OUTR_MIB
#define WAITING_MAX  4096
#define MARGIN_S     10 /* before it expires, or an eighth of a shorter life */
#define UNKNOWN_S    60 /* RFC 6749 section 5.1: a server should say, and may not */
#define LONGEST_S    (24 * 3600)

typedef enum style { STYLE_GUESS, STYLE_BODY, STYLE_HEADER } style;

typedef struct config {
    outr_str id, secret, scopes, url, header, parameters, filter;
    int64_t style;
} config;

#define F(field) offsetof(config, field)

static const outr_bind_row rows[] = {
    {"clientID", NULL, OUTR_BIND_STR, OUTR_BIND_REQUIRED, F(id), 0, 0, NULL, NULL, 0,
     "client identity shown to the server"},
    {"clientSecret", NULL, OUTR_BIND_STR, OUTR_BIND_REQUIRED | OUTR_BIND_SECRET, F(secret), 0, 0,
     NULL, NULL, 0, "OAuth client secret"},
    {"scopes", NULL, OUTR_BIND_STR, OUTR_BIND_REQUIRED, F(scopes), 0, 0, NULL, NULL, 0,
     "scopes asked for, with commas between"},
    {"tokenURL", NULL, OUTR_BIND_STR, OUTR_BIND_REQUIRED, F(url), 0, 0, NULL, NULL, 0,
     "token endpoint"},
    {"headerName", NULL, OUTR_BIND_STR, OUTR_BIND_REQUIRED, F(header), 0, 0, NULL, NULL, 0,
     "header that carries the token to the app"},
    {"endpointParamsQuery", NULL, OUTR_BIND_STR, 0, F(parameters), 0, 0, NULL, NULL, 0,
     "more parameters of the token request, as a query"},
    {"authStyle", NULL, OUTR_BIND_I64, 0, F(style), 0, 2, "0", NULL, 0,
     "how credentials are sent: 0 guess, 1 in the body, 2 as basic authentication"},
    {"pathFilter", NULL, OUTR_BIND_STR, 0, F(filter), 0, 0, NULL, NULL, 0,
     "regular expression: only requests with such a path get the token"},
};

typedef struct middleware {
    outr_middleware base;
    outr_arena *arena;
    config c;
    outr_str form; /* the token request's body, without credentials */
    outr_regex *filter;
    outr_loop *loop;
    const outr_log *log;
    outr_remote *remote;
    /* Requests come on all loops; held to look at the token or to wait for one. */
    pthread_mutex_t lock;
    outr_buf value; /* "Bearer ..."; secret */
    uint64_t good_until_ns, failed_until_ns;
    const char *failure; /* why, while failed_until_ns has not come */
    outr_list waiting;
    size_t waiting_count;
    bool is_fetching;
    /* main loop */
    outr_message ask;
    style style; /* as it worked last */
    outr_arena *scratch;
    outr_remote_call call;
    outr_op op, *closing;
    bool is_asked; /* lock: ask is on its way */
} middleware;

/* A request that waits, on its arena. */
typedef struct waiter {
    middleware *m;
    outr_link link;
    outr_middleware_call *call;
    outr_op *op;
    outr_message message;
} waiter;

static const outr_metric_desc fetched_total = {"outrigger_oauth2_token_requests_total",
                                               "tokens asked for, by how it went",
                                               OUTR_COUNTER,
                                               0,
                                               {"result"}};

static middleware *of(outr_middleware *base)
{
    return OUTR_CONTAINER(base, middleware, base);
}

/* ---- requests -------------------------------------------------------------------------------- */

static outr_middleware_verdict refuse(outr_middleware_call *call, const char *reason)
{
    outr_str text =
        outr_arena_printf(call->arena, "no token for this request can be had: %s", reason);
    return outr_middleware_refuse(call, 502, text.p);
}

/* lock is held. Whatever a client put there is not what the app gets to see. */
static void put_token(middleware *m, outr_middleware_call *call)
{
    const char *name = outr_arena_strz(call->arena, m->c.header);
    outr_headers_remove(&call->req->headers, name);
    outr_headers_add(&call->req->headers, outr_str_from(name),
                     outr_arena_str(call->arena, outr_buf_view(&m->value)));
}

/* lock is held. WAIT: there is neither a token nor a reason yet. */
static outr_middleware_verdict settle(middleware *m, outr_middleware_call *call)
{
    uint64_t now = outr_loop_now(call->loop);
    if (now < m->good_until_ns) {
        put_token(m, call);
        return OUTR_MIDDLEWARE_PASS;
    }
    return now < m->failed_until_ns ? refuse(call, m->failure) : OUTR_MIDDLEWARE_WAIT;
}

/* On the request's loop: the fetch is over. */
static void on_message(outr_message *message, outr_loop *loop OUTR_UNUSED)
{
    waiter *w = OUTR_CONTAINER(message, waiter, message);
    middleware *m = w->m;
    if (outr_op_is_cancelled(w->op)) {
        outr_op_finish(w->op);
        return;
    }
    pthread_mutex_lock(&m->lock);
    w->call->verdict = settle(m, w->call);
    pthread_mutex_unlock(&m->lock);
    if (w->call->verdict == OUTR_MIDDLEWARE_WAIT) /* it was good for less than it took to hear it */
        w->call->verdict = refuse(w->call, "expired");
    outr_op_finish(w->op);
}

static void on_cancel(outr_op *op)
{
    waiter *w = op->impl;
    middleware *m = w->m;
    pthread_mutex_lock(&m->lock);
    bool is_waiting = outr_link_is_in(&w->link);
    if (is_waiting) {
        outr_link_remove(&w->link);
        m->waiting_count--;
    }
    pthread_mutex_unlock(&m->lock);
    if (is_waiting) /* else its message is on the way, which needs it */
        outr_op_finish(op);
}

/* lock is held. */
static void wait(middleware *m, outr_middleware_call *call, outr_op *op)
{
    waiter *w = outr_arena_alloc(call->arena, sizeof *w);
    *w = (waiter){.m = m, .call = call, .op = op, .message.run = on_message};
    outr_op_begin(op, w, on_cancel);
    outr_list_push(&m->waiting, &w->link);
    m->waiting_count++;
    if (m->is_fetching)
        return;
    m->is_fetching = m->is_asked = true;
    outr_loop_post(m->loop, &m->ask);
}

static bool is_meant(const middleware *m, outr_middleware_call *call)
{
    outr_str path, plain;
    if (!m->filter)
        return true;
    outr_str_cut(call->req->target, '?', &path);
    return outr_regex_search(
        m->filter, outr_percent_decode(call->arena, path, false, &plain) ? plain : path);
}

static outr_middleware_verdict handle(outr_middleware *base, outr_middleware_call *call,
                                      outr_op *op)
{
    middleware *m = of(base);
    if (!is_meant(m, call))
        return OUTR_MIDDLEWARE_PASS;
    pthread_mutex_lock(&m->lock);
    outr_middleware_verdict verdict = settle(m, call);
    bool is_full = m->waiting_count >= WAITING_MAX;
    if (verdict == OUTR_MIDDLEWARE_WAIT && !is_full)
        wait(m, call, op);
    pthread_mutex_unlock(&m->lock);
    return verdict == OUTR_MIDDLEWARE_WAIT && is_full ? refuse(call, "too many wait for it")
                                                      : verdict;
}

/* ---- the token's answer ---------------------------------------------------------------------- */

typedef struct token {
    outr_str value, type;
    int64_t life_s;
} token;

/* 0 says as little as nothing does. */
static void read_life(token *t, outr_str text)
{
    double seconds;
    if (outr_str_to_double(text, &seconds) && seconds > 0)
        t->life_s = seconds < LONGEST_S ? OUTR_MAX((int64_t)seconds, (int64_t)1) : LONGEST_S;
}

static void read_form(token *t, outr_arena *arena, outr_str text)
{
    outr_str key, value, plain;
    while (outr_query_next(&text, &key, &value)) {
        if (!outr_percent_decode(arena, value, true, &plain))
            continue;
        if (outr_str_is(key, "access_token"))
            t->value = plain;
        else if (outr_str_is(key, "token_type"))
            t->type = plain;
        else if (outr_str_is(key, "expires_in"))
            read_life(t, plain);
    }
}

static bool read_json(token *t, outr_arena *arena, outr_str text)
{
    outr_json *root;
    outr_err err;
    if (outr_json_parse(&root, arena, text, &err) || root->kind != OUTR_JSON_OBJECT)
        return false;
    t->value = outr_json_text(root, "access_token");
    t->type = outr_json_text(root, "token_type");
    const outr_json *life = outr_json_find(root, "expires_in"); /* a text at PayPal */
    if (life && (life->kind == OUTR_JSON_NUMBER || life->kind == OUTR_JSON_STRING))
        read_life(t, life->text);
    return true;
}

static outr_str scheme_of(outr_str type)
{
    if (type.n == 0 || outr_str_iis(type, "bearer"))
        return OUTR_STR("Bearer");
    if (outr_str_iis(type, "mac"))
        return OUTR_STR("MAC");
    return outr_str_iis(type, "basic") ? OUTR_STR("Basic") : type;
}

/* NULL: *out is one. Else why there is none. */
static const char *read_token(token *out, const outr_remote_call *call, const outr_err *err)
{
    outr_str kind;
    token t = {.life_s = UNKNOWN_S};
    if (err->code)
        return err->code == OUTR_DEADLINE_EXCEEDED    ? "timeout"
               : err->code == OUTR_RESOURCE_EXHAUSTED ? "too_large"
                                                      : "unreachable";
    if (call->head.status < 200 || call->head.status > 299)
        return "refused";
    outr_str_cut(outr_headers_get(&call->head.headers, "Content-Type"), ';', &kind);
    kind = outr_str_trim(kind);
    if (outr_str_iis(kind, "application/x-www-form-urlencoded") || outr_str_iis(kind, "text/plain"))
        read_form(&t, call->arena, call->answer);
    else if (!read_json(&t, call->arena, call->answer))
        return "malformed";
    if (t.value.n == 0 || !outr_header_value_is_valid(t.value) ||
        !outr_header_value_is_valid(t.type))
        return "malformed";
    t.type = scheme_of(t.type);
    *out = t;
    return NULL;
}

/* ---- fetching: main loop --------------------------------------------------------------------- */

static void fetch(middleware *m);
static void finish_close(middleware *m);

static void wake(middleware *m)
{
    outr_list all;
    outr_list_init(&all);
    pthread_mutex_lock(&m->lock);
    m->is_fetching = false;
    while (!outr_list_is_empty(&m->waiting)) {
        waiter *w = OUTR_LIST_ITEM(outr_list_pop(&m->waiting), waiter, link);
        m->waiting_count--;
        outr_loop_post(w->call->loop, &w->message);
    }
    pthread_mutex_unlock(&m->lock);
}

static void keep(middleware *m, const token *t)
{
    uint64_t now = outr_loop_now(m->loop);
    int64_t life_s = t->life_s - OUTR_MIN(t->life_s / 8, (int64_t)MARGIN_S);
    pthread_mutex_lock(&m->lock);
    if (m->value.p)
        explicit_bzero(m->value.p, m->value.cap);
    m->value.n = 0;
    outr_buf_printf(&m->value, OUTR_FMT " " OUTR_FMT, OUTR_ARG(t->type), OUTR_ARG(t->value));
    m->good_until_ns = now + (uint64_t)life_s * OUTR_SEC;
    m->failed_until_ns = 0;
    pthread_mutex_unlock(&m->lock);
}

static void note_failure(middleware *m, const char *reason, const outr_err *err)
{
    OUTR_LOG(m->log, WARN, "no token can be had", OUTR_Z("reason", reason),
             OUTR_S("url", m->c.url), OUTR_I("status", m->call.head.status), OUTR_ERR(err));
    pthread_mutex_lock(&m->lock);
    m->failure = reason;
    m->failed_until_ns = outr_loop_now(m->loop) + FAILED_NS;
    pthread_mutex_unlock(&m->lock);
}

static void on_fetched(outr_op *op)
{
    middleware *m = OUTR_CONTAINER(op, middleware, op);
    outr_err err = op->err;
    token t;
    if (m->closing) {
        outr_arena_free(m->scratch);
        finish_close(m);
        return;
    }
    const char *reason = read_token(&t, &m->call, &err);
    /* some servers know the one way only: the other is tried once, and remembered if it works */
    if (reason && strcmp(reason, "refused") == 0 && m->c.style == STYLE_GUESS &&
        m->style == STYLE_GUESS && m->call.head.status < 500) {
        m->style = STYLE_BODY;
        outr_arena_reset(m->scratch);
        fetch(m);
        return;
    }
    if (reason && m->c.style == STYLE_GUESS)
        m->style = STYLE_GUESS;
    else if (!reason && m->style == STYLE_GUESS)
        m->style = STYLE_HEADER;
    const outr_str label = reason ? outr_str_from(reason) : OUTR_STR("ok");
    outr_metric_count(outr_loop_metrics(m->loop), &fetched_total, &label, 1);
    if (reason)
        note_failure(m, reason, &err);
    else
        keep(m, &t);
    if (m->call.answer.n > 0)
        explicit_bzero((void *)(uintptr_t)m->call.answer.p, m->call.answer.n);
    outr_arena_free(m->scratch);
    wake(m);
}

static outr_str form_encode(outr_arena *arena, outr_str text)
{
    return outr_percent_encode(arena, text, "");
}

/* RFC 6749 section 2.3.1: each of them form-encoded first. */
static outr_str basic(outr_arena *arena, const config *c)
{
    outr_str pair = outr_arena_join(arena, form_encode(arena, c->id), OUTR_STR(":"),
                                    form_encode(arena, c->secret));
    return outr_arena_join(arena, OUTR_STR("Basic "), outr_base64_encode(arena, pair),
                           OUTR_STR_NONE);
}

static void fetch(middleware *m)
{
    outr_arena *a = m->scratch;
    outr_str body = m->form;
    m->call = (outr_remote_call){.arena = a,
                                 .method = OUTR_STR("POST"),
                                 .url = m->c.url,
                                 .has_body = true,
                                 .max_answer = ANSWER_MAX,
                                 .stays = true};
    outr_headers_init(&m->call.headers, a);
    outr_headers_add(&m->call.headers, OUTR_STR("Content-Type"),
                     OUTR_STR("application/x-www-form-urlencoded"));
    outr_headers_add(&m->call.headers, OUTR_STR("Accept"), OUTR_STR("application/json"));
    if (m->style == STYLE_BODY) {
        body = outr_arena_join(a, body, OUTR_STR("&client_id="), form_encode(a, m->c.id));
        body = outr_arena_join(a, body, OUTR_STR("&client_secret="), form_encode(a, m->c.secret));
    } else {
        outr_headers_add(&m->call.headers, OUTR_STR("Authorization"), basic(a, &m->c));
    }
    m->call.body = body;
    outr_op_init(&m->op, m->loop, NULL, outr_loop_now(m->loop) + FETCH_NS, on_fetched);
    outr_remote_call_start(m->remote, &m->call, &m->op);
}

static void on_ask(outr_message *message, outr_loop *loop OUTR_UNUSED)
{
    middleware *m = OUTR_CONTAINER(message, middleware, ask);
    pthread_mutex_lock(&m->lock);
    m->is_asked = false;
    pthread_mutex_unlock(&m->lock);
    if (m->closing) {
        finish_close(m);
        return;
    }
    m->scratch = outr_arena_new(4 * OUTR_MIB);
    fetch(m);
}

/* ---- life ------------------------------------------------------------------------------------ */

static void open_it(outr_middleware *base, outr_op *op)
{
    middleware *m = of(base);
    m->remote = outr_remote_new(m->loop, NULL);
    outr_middleware_open(base, op);
}

static void finish_close(middleware *m)
{
    outr_op *op = m->closing;
    outr_remote *remote = m->remote;
    pthread_mutex_lock(&m->lock);
    bool is_asked = m->is_asked;
    pthread_mutex_unlock(&m->lock);
    if (is_asked || outr_op_is_pending(&m->op))
        return;
    if (m->value.p)
        explicit_bzero(m->value.p, m->value.cap);
    outr_buf_done(&m->value);
    explicit_bzero((void *)(uintptr_t)m->c.secret.p, m->c.secret.n);
    outr_regex_free(m->filter);
    pthread_mutex_destroy(&m->lock);
    outr_arena_free(m->arena);
    free(m);
    if (remote) {
        outr_remote_close(remote, op);
        return;
    }
    outr_op_begin(op, NULL, NULL);
    outr_op_finish_soon(op);
}

static void close_it(outr_middleware *base, outr_op *op)
{
    middleware *m = of(base);
    m->closing = op;
    if (outr_op_is_pending(&m->op))
        outr_op_cancel(&m->op, OUTR_CANCELLED);
    else
        finish_close(m);
}

/* grant_type, scope, and what else is to be sent; of the latter only grant_type replaces ours. */
static outr_code make_form(middleware *m, outr_err *err)
{
    OUTR_AUTO(outr_buf) form = OUTR_BUF_MAX(64 * OUTR_KIB);
    outr_str rest = m->c.parameters, key, value, plain, scope;
    outr_str grant = OUTR_STR("client_credentials");
    OUTR_AUTO(outr_buf) more = OUTR_BUF_MAX(64 * OUTR_KIB);
    while (outr_query_next(&rest, &key, &value)) {
        if (!outr_percent_decode(m->arena, key, true, &plain))
            return outr_fail(err, OUTR_INVALID_ARGUMENT, "endpointParamsQuery: not a query");
        if (outr_str_is(plain, "grant_type"))
            grant = value;
        else if (outr_str_is(plain, "scope") || outr_str_is(plain, "client_id") ||
                 outr_str_is(plain, "client_secret"))
            return outr_fail(err, OUTR_INVALID_ARGUMENT,
                             "endpointParamsQuery: " OUTR_FMT " has a place of its own",
                             OUTR_ARG(plain));
        else
            outr_buf_printf(&more, "&" OUTR_FMT "=" OUTR_FMT, OUTR_ARG(key), OUTR_ARG(value));
    }
    outr_buf_printf(&form, "grant_type=" OUTR_FMT "&scope=", OUTR_ARG(grant));
    for (rest = m->c.scopes; rest.n > 0;) {
        rest = outr_str_cut(rest, ',', &scope);
        outr_buf_str(&form, form_encode(m->arena, outr_str_trim(scope)));
        if (rest.n > 0)
            outr_buf_char(&form, '+');
    }
    outr_buf_str(&form, outr_buf_view(&more));
    if (form.is_full || more.is_full)
        return outr_fail(err, OUTR_INVALID_ARGUMENT, "scopes and endpointParamsQuery: too long");
    m->form = outr_arena_str(m->arena, outr_buf_view(&form));
    return OUTR_OK;
}

static outr_code check(middleware *m, outr_err *err)
{
    if (!outr_header_name_is_valid(m->c.header))
        return outr_fail(err, OUTR_INVALID_ARGUMENT, "headerName: no name of a header");
    if (outr_remote_check(m->c.url, err))
        return outr_wrap(err, "tokenURL");
    if (m->c.filter.n > 0 && outr_regex_new(&m->filter, m->c.filter, err))
        return outr_wrap(err, "pathFilter");
    return make_form(m, err);
}

static outr_code create(outr_middleware **out, const outr_component_init *init, outr_err *err)
{
    OUTR_AUTO(outr_err_list) errors = {0};
    config c = {0};
    if (outr_bind_kvs(rows, OUTR_LEN(rows), &c, init->metadata, &errors)) {
        *err = errors.items[0];
        return err->code;
    }
    middleware *m = outr_alloc(sizeof *m);
    m->base.backend = &outr_middleware_oauth2clientcredentials;
    m->arena = outr_arena_new(OUTR_MIB);
    outr_str *const texts[] = {&c.id,     &c.secret,     &c.scopes, &c.url,
                               &c.header, &c.parameters, &c.filter};
    for (size_t i = 0; i < OUTR_LEN(texts); i++)
        *texts[i] = outr_arena_str(m->arena, *texts[i]);
    m->c = c;
    m->style = (style)c.style;
    m->loop = init->loop;
    m->log = init->log;
    m->value = OUTR_BUF_MAX(ANSWER_MAX);
    m->ask.run = on_ask;
    outr_list_init(&m->waiting);
    outr_code rc = check(m, err);
    if (rc) {
        outr_regex_free(m->filter);
        outr_arena_free(m->arena);
        free(m);
        return rc;
    }
    pthread_mutex_init(&m->lock, NULL);
    *out = &m->base;
    return OUTR_OK;
}

const outr_middleware_backend outr_middleware_oauth2clientcredentials = {
    .base = {"middleware.http.oauth2clientcredentials", "v1", rows, OUTR_LEN(rows)},
    .create = create,
    .open = open_it,
    .close = close_it,
    .handle = handle,
};
