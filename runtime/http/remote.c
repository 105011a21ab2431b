#include "http/remote.h"

#include <stdlib.h>

#include "base/encode.h"
#include "base/map.h"

#define LOOPS_MAX     64 /* OUTRIGGER_LOOPS allows no more */
#define NAME_TTL_NS   (30 * OUTR_SEC)
#define POOLS_MAX     64 /* redirects lead anywhere: what is idle goes beyond this number */
#define REDIRECTS_MAX 10

/* Addresses of a name. */
typedef struct name {
    outr_lookup found;
    uint64_t until_ns;
} name;

/* What one loop has. */
typedef struct outr__remote_site {
    outr_remote *remote;
    outr_loop *loop;
    outr_map *pools; /* by scheme, host and address */
    outr_map *names;
    outr_list looking; /* calls whose name is being looked up */
    outr_tls *tls;
    outr_message message;
} site;

struct outr_remote {
    outr_loop *main_loop;
    outr_tls *tls;
    site *sites[LOOPS_MAX]; /* each is its loop's alone until the end */
    size_t open_sites;
    outr_op *closing;
};

/* ---- pools ----------------------------------------------------------------------------------- */

static site *site_of(outr_remote *remote, outr_loop *loop)
{
    unsigned index = outr_loop_index(loop);
    assert(index < LOOPS_MAX);
    site *s = remote->sites[index];
    if (s)
        return s;
    s = outr_alloc(sizeof *s);
    s->remote = remote;
    s->loop = loop;
    s->pools = outr_map_new();
    s->names = outr_map_new();
    outr_list_init(&s->looking);
    s->tls = remote->tls ? outr_tls_ref(remote->tls) : NULL;
    remote->sites[index] = s;
    return s;
}

static bool is_https(const outr_url *url)
{
    return outr_str_iis(url->scheme, "https");
}

static uint16_t port_of(const outr_url *url)
{
    return url->port ? url->port : is_https(url) ? 443 : 80;
}

static void sweep(site *s)
{
    outr_str key;
    void *item;
    if (outr_map_count(s->pools) >= POOLS_MAX) {
        for (size_t at = 0; outr_map_next(s->pools, &at, &key, &item);) {
            if (outr_http_pool_in_flight(item) > 0)
                continue;
            outr_map_remove(s->pools, key);
            outr_http_pool_free(item);
        }
    }
    if (outr_map_count(s->names) >= POOLS_MAX) {
        for (size_t at = 0; outr_map_next(s->names, &at, &key, &item);) {
            outr_map_remove(s->names, key);
            free(item);
        }
    }
}

static outr_str name_key(outr_remote_call *c)
{
    return outr_arena_printf(c->arena, OUTR_FMT ":%u", OUTR_ARG(c->parts.host),
                             port_of(&c->parts));
}

static outr_code find_pool(outr_remote_call *c, const outr_addr *addr, outr_http_pool **out,
                           outr_err *err)
{
    static const char *const alpn[] = {"http/1.1", NULL};
    static const outr_tls_options options = {.verify_peer = true, .alpn = alpn};
    site *s = c->site;
    char text[OUTR_ADDR_TEXT_MAX];
    outr_addr_text(addr, text);
    outr_str key = outr_arena_printf(c->arena, "%s://" OUTR_FMT "@%s",
                                     is_https(&c->parts) ? "https" : "http",
                                     OUTR_ARG(c->parts.host), text);
    outr_http_pool *pool = outr_map_get(s->pools, key);
    if (!pool) {
        if (is_https(&c->parts) && !s->tls && outr_tls_new(&s->tls, &options, err))
            return err->code;
        sweep(s);
        pool = outr_http_pool_new(&(outr_http_pool_options){
            .loop = s->loop,
            .addr = *addr,
            .version = OUTR_HTTP_1,
            .tls = is_https(&c->parts) ? s->tls : NULL,
            .server_name = c->parts.host,
            .limits = {.max_header_bytes = OUTR_MIB, .body_idle_ns = 24 * 3600 * OUTR_SEC},
            .connect_timeout_ns = 15 * OUTR_SEC,
        });
        outr_map_put(s->pools, key, pool);
    }
    *out = pool;
    return OUTR_OK;
}

/* ---- the end of a call ----------------------------------------------------------------------- */

static void finish(outr_remote_call *c, const outr_err *err)
{
    if (!err) {
        outr_op_finish(c->op);
        return;
    }
    outr_err copy = *err; /* no more than the origin: the rest of a URL may be secret */
    outr_wrap(&copy, OUTR_FMT " " OUTR_FMT "://" OUTR_FMT ":%u", OUTR_ARG(c->method),
              OUTR_ARG(c->parts.scheme), OUTR_ARG(c->parts.host), port_of(&c->parts));
    outr_op_fail(c->op, &copy);
}

static void go_to(outr_remote_call *c);
static void send(outr_remote_call *c);

/* ---- redirects ------------------------------------------------------------------------------- */

/* RFC 3986 section 5.2 for what servers send: absolute, without scheme, from the root, relative. */
static outr_str resolve(outr_arena *arena, const outr_url *base, outr_str to)
{
    outr_str_cut(to, '#', &to);
    if (outr_str_search(to, OUTR_STR("://")) > 0)
        return to;
    if (outr_str_starts(to, OUTR_STR("//")))
        return outr_arena_join(arena, base->scheme, OUTR_STR(":"), to);
    outr_str origin = outr_arena_join(arena, base->scheme, OUTR_STR("://"),
                                      outr_hostport_join(arena, base->host, port_of(base)));
    outr_str folder = OUTR_STR("/");
    if (to.n == 0 || to.p[0] == '/')
        folder = OUTR_STR_NONE;
    else if (to.p[0] == '?')
        folder = base->path;
    else if (outr_str_rfind(base->path, '/') >= 0)
        folder = outr_str_head(base->path, (size_t)outr_str_rfind(base->path, '/') + 1);
    return outr_arena_join(arena, origin, folder, to);
}

static bool is_same_host(const outr_url *a, const outr_url *b)
{
    return outr_str_ieq(a->host, b->host) && port_of(a) == port_of(b) &&
           is_https(a) == is_https(b);
}

static void drop_credentials(outr_remote_call *c)
{
    outr_headers_remove(&c->headers, "Authorization");
    outr_headers_remove(&c->headers, "Cookie");
    outr_headers_remove(&c->headers, "Www-Authenticate");
    if (c->secret_header.n > 0)
        outr_headers_remove(&c->headers, outr_arena_strz(c->arena, c->secret_header));
}

/* True: the call goes on elsewhere. */
static bool follow(outr_remote_call *c)
{
    int status = c->head.status;
    outr_str location = outr_headers_get(&c->head.headers, "Location");
    outr_url before = c->parts;
    bool is_kept = status == 307 || status == 308;
    if ((status < 301 || status > 303) && !is_kept)
        return false;
    if (location.n == 0 || c->stays)
        return false;
    if (c->redirects++ == REDIRECTS_MAX) {
        outr_err err;
        outr_fail(&err, OUTR_UNAVAILABLE, "stopped after %d redirects", REDIRECTS_MAX);
        finish(c, &err);
        return true;
    }
    c->url = resolve(c->arena, &c->parts, location);
    if (!is_kept) { /* RFC 9110 section 15.4 */
        c->method = outr_str_is(c->method, "HEAD") ? c->method : OUTR_STR("GET");
        c->has_body = false;
        outr_headers_remove(&c->headers, "Content-Type");
    }
    outr_url next;
    if (outr_url_parse(&next, c->url, NULL) == OUTR_OK && !is_same_host(&before, &next))
        drop_credentials(c);
    go_to(c);
    return true;
}

/* ---- one exchange ---------------------------------------------------------------------------- */

static bool is_idempotent(outr_str method)
{
    return outr_str_is(method, "GET") || outr_str_is(method, "HEAD") ||
           outr_str_is(method, "OPTIONS") || outr_str_is(method, "TRACE");
}

/* Nobody is there: next time it may be somewhere else. */
static void forget_name(outr_remote_call *c)
{
    free(outr_map_remove(c->site->names, name_key(c)));
}

/* A kept connection that the peer had closed just then, or an address where nobody is. */
static bool try_again(outr_remote_call *c, const outr_err *err)
{
    bool is_lost = c->http.was_reused && c->tries == 1 &&
                   (c->http.progress == OUTR_CALL_NOT_SENT ||
                    (c->http.progress == OUTR_CALL_SENT && is_idempotent(c->method)));
    if (err->code != OUTR_UNAVAILABLE || outr_op_is_cancelled(c->op))
        return false;
    if (!is_lost) {
        if (c->http.progress != OUTR_CALL_NOT_SENT)
            return false;
        if (c->at + 1 >= c->addresses.count) {
            forget_name(c);
            return false;
        }
        c->at++;
        c->tries = 0;
    }
    send(c);
    return true;
}

static void check_over(outr_remote_call *c)
{
    if (outr_op_is_pending(&c->inner) || c->is_gathering)
        return;
    outr_err err = c->too_large.code ? c->too_large : c->inner.err;
    if (err.code) {
        if (!try_again(c, &err))
            finish(c, &err);
        return;
    }
    if (!follow(c))
        finish(c, NULL);
}

static void on_body(outr_gather *gather, const outr_err *err)
{
    outr_remote_call *c = gather->ctx;
    c->is_gathering = false;
    if (err) {
        if (err->code == OUTR_RESOURCE_EXHAUSTED)
            c->too_large = *err;
    } else {
        c->answer = outr_buf_view(&gather->body);
        if (gather->body.p)
            outr_arena_defer(c->arena, free, gather->body.p);
        gather->body = OUTR_BUF_MAX(0);
    }
    check_over(c);
}

static void on_response(outr_http_call *http)
{
    outr_remote_call *c = http->user;
    c->head = http->head;
    if (!http->response)
        return;
    c->is_gathering = true;
    outr_gather_start(&c->gather, http->response, c->max_answer, on_body, c);
}

static void on_sent(outr_op *inner)
{
    check_over(OUTR_CONTAINER(inner, outr_remote_call, inner));
}

static outr_str target_of(outr_remote_call *c)
{
    static const char keep[] = "/?&=%:@!$'()*+,;[]";
    outr_str path = c->parts.path;
    path = path.n ? outr_percent_encode(c->arena, path, keep) : OUTR_STR("/");
    if (!c->parts.query.p)
        return path;
    return outr_arena_join(c->arena, path, OUTR_STR("?"),
                           outr_percent_encode(c->arena, c->parts.query, keep));
}

static void send(outr_remote_call *c)
{
    outr_err err;
    outr_http_pool *pool = NULL;
    if (find_pool(c, &c->addresses.addrs[c->at], &pool, &err)) {
        finish(c, &err);
        return;
    }
    c->tries++;
    c->too_large.code = OUTR_OK;
    c->answer = OUTR_STR("");
    c->req = (outr_http_request){
        .method = c->method,
        .scheme = is_https(&c->parts) ? OUTR_STR("https") : OUTR_STR("http"),
        .authority = outr_hostport_join(c->arena, c->parts.host, c->parts.port),
        .target = target_of(c),
        .headers = c->headers,
        .content_length = c->has_body ? (int64_t)c->body.n : -1,
    };
    outr_memory_source_init(&c->source, c->site->loop, c->body);
    c->http = (outr_http_call){
        .req = &c->req,
        .body = c->has_body ? &c->source.base : NULL,
        .on_response = on_response,
        .user = c,
        .arena = c->arena,
    };
    outr_op_init(&c->inner, c->site->loop, c->op, 0, on_sent);
    outr_http_call_start(pool, &c->http, &c->inner);
}

/* ---- finding the server ---------------------------------------------------------------------- */

static void on_looked_up(outr_op *inner)
{
    outr_remote_call *c = OUTR_CONTAINER(inner, outr_remote_call, inner);
    site *s = c->site;
    outr_err err = inner->err;
    outr_link_remove(&c->link);
    if (!s)
        outr_fail(&err, OUTR_CANCELLED, "the connections were closed");
    if (!err.code && c->addresses.count == 0)
        outr_fail(&err, OUTR_UNAVAILABLE, "the name has no address");
    if (err.code) {
        finish(c, &err);
        return;
    }
    outr_str key = name_key(c);
    name *n = outr_map_get(s->names, key);
    if (!n) {
        sweep(s);
        n = outr_alloc(sizeof *n);
        outr_map_put(s->names, key, n);
    }
    n->found = c->addresses;
    n->until_ns = outr_loop_now(s->loop) + NAME_TTL_NS;
    send(c);
}

static void add_credentials(outr_remote_call *c)
{
    outr_str plain;
    if (!c->parts.userinfo.p || outr_headers_has(&c->headers, "Authorization") ||
        !outr_percent_decode(c->arena, c->parts.userinfo, false, &plain))
        return;
    if (outr_str_find(plain, ':') < 0)
        plain = outr_arena_join(c->arena, plain, OUTR_STR(":"), OUTR_STR_NONE);
    outr_headers_set(&c->headers, OUTR_STR("Authorization"),
                     outr_arena_join(c->arena, OUTR_STR("Basic "),
                                     outr_base64_encode(c->arena, plain), OUTR_STR_NONE));
}

/* To where c->url leads. */
static void go_to(outr_remote_call *c)
{
    outr_env *env = outr_loop_env(c->site->loop);
    outr_err err;
    outr_code rc = outr_url_parse(&c->parts, c->url, &err);
    if (!rc)
        rc = outr_remote_check(c->url, &err);
    if (rc) {
        outr_op_fail(c->op, &err);
        return;
    }
    c->was_clear |= !is_https(&c->parts);
    add_credentials(c);
    c->at = c->tries = 0;
    c->addresses = (outr_lookup){.host = c->parts.host, .port = port_of(&c->parts)};
    outr_str key = name_key(c);
    const name *known = outr_map_get(c->site->names, key);
    if (outr_addr_from_ip(&c->addresses.addrs[0], c->parts.host, c->addresses.port, NULL) ==
        OUTR_OK) {
        c->addresses.count = 1;
        send(c);
    } else if (known && outr_loop_now(c->site->loop) < known->until_ns) {
        c->addresses = known->found;
        send(c);
    } else {
        outr_op_init(&c->inner, c->site->loop, c->op, 0, on_looked_up);
        outr_list_push(&c->site->looking, &c->link);
        env->lookup(env, c->site->loop, &c->addresses, &c->inner);
    }
}

static void on_begin(outr_op *inner)
{
    outr_remote_call *c = OUTR_CONTAINER(inner, outr_remote_call, inner);
    if (inner->err.code)
        finish(c, &inner->err);
    else
        go_to(c);
}

static void on_cancel(outr_op *op)
{
    outr_remote_call *c = op->impl;
    outr_op_cancel(&c->inner, op->err.code);
}

outr_code outr_remote_check(outr_str url, outr_err *err)
{
    outr_url parts;
    outr_code rc = outr_url_parse(&parts, url, err);
    if (!rc && !outr_str_iis(parts.scheme, "http") && !outr_str_iis(parts.scheme, "https"))
        rc = outr_fail(err, OUTR_INVALID_ARGUMENT, "unsupported protocol scheme \"" OUTR_FMT "\"",
                       OUTR_ARG(parts.scheme));
    return rc;
}

void outr_remote_call_start(outr_remote *remote, outr_remote_call *c, outr_op *op)
{
    c->remote = remote;
    c->op = op;
    c->site = site_of(remote, op->loop);
    c->redirects = 0;
    c->was_clear = false;
    outr_op_begin(op, c, on_cancel);
    /* What follows may fail at once, and an op never ends inside its start. */
    outr_op_init(&c->inner, op->loop, op, 0, on_begin);
    outr_op_begin(&c->inner, c, NULL);
    outr_op_finish_soon(&c->inner);
}

/* ---- life ------------------------------------------------------------------------------------ */

outr_remote *outr_remote_new(outr_loop *main_loop, outr_tls *tls)
{
    outr_remote *remote = outr_alloc(sizeof *remote);
    remote->main_loop = main_loop;
    remote->tls = tls ? outr_tls_ref(tls) : NULL;
    return remote;
}

static void on_site_left(outr_message *message, outr_loop *loop OUTR_UNUSED)
{
    site *s = OUTR_CONTAINER(message, site, message);
    outr_remote *remote = s->remote;
    free(s);
    if (--remote->open_sites > 0)
        return;
    outr_op *op = remote->closing;
    outr_tls_unref(remote->tls);
    free(remote);
    outr_op_finish(op);
}

static void on_site_close(outr_message *message, outr_loop *loop OUTR_UNUSED)
{
    site *s = OUTR_CONTAINER(message, site, message);
    void *item;
    while (!outr_list_is_empty(&s->looking)) {
        outr_remote_call *c = OUTR_LIST_ITEM(outr_list_pop(&s->looking), outr_remote_call, link);
        c->site = NULL; /* a look-up may end later */
        outr_op_cancel(&c->inner, OUTR_CANCELLED);
    }
    for (size_t at = 0; outr_map_next(s->pools, &at, NULL, &item);)
        outr_http_pool_free(item);
    for (size_t at = 0; outr_map_next(s->names, &at, NULL, &item);)
        free(item);
    outr_map_free(s->pools);
    outr_map_free(s->names);
    outr_tls_unref(s->tls);
    message->run = on_site_left;
    outr_loop_post(s->remote->main_loop, message);
}

void outr_remote_close(outr_remote *remote, outr_op *op)
{
    outr_op_begin(op, NULL, NULL);
    remote->closing = op;
    for (size_t i = 0; i < LOOPS_MAX; i++)
        remote->open_sites += remote->sites[i] != NULL;
    if (remote->open_sites == 0) {
        outr_tls_unref(remote->tls);
        free(remote);
        outr_op_finish_soon(op);
        return;
    }
    for (size_t i = 0; i < LOOPS_MAX; i++) {
        site *s = remote->sites[i];
        if (!s)
            continue;
        s->message.run = on_site_close;
        outr_loop_post(s->loop, &s->message);
    }
}
