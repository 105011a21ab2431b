#include "http/issuers.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

#include "base/json.h"
#include "base/map.h"
#include "http/remote.h"

#define REFRESH_NS   (600 * OUTR_SEC)
#define SOON_NS      (5 * OUTR_SEC) /* at most so often because of a token */
#define LOOK_NS      (2 * OUTR_SEC) /* at a file */
#define READ_NS      (10 * OUTR_SEC)
#define PAUSE_MIN_NS OUTR_SEC
#define GOOD_MAX     4096
#define GOOD_BYTES   (8 * OUTR_MIB)

/* A token that was good. */
typedef struct good {
    outr_link link; /* the oldest first */
    outr_str token; /* owned */
    outr_claims *claims;
    const struct issuer *by;
    int64_t expires_s;
} good;

typedef struct issuer {
    outr_issuers *set;
    const outr_issuer_spec *spec;
    outr_jwks *keys; /* the set's lock is held to change it or to take a reference */
    /* main loop: reading */
    outr_timer timer;
    outr_message wish;
    uint8_t is_wished; /* atomic: wish is on its way */
    uint64_t read_ns, pause_ns;
    bool has_tried, is_bad;
    outr_arena *scratch;
    outr_remote_call call;
    outr_op op; /* of the call; pending: it is under way */
    outr_str url;
} issuer;

struct outr_issuers {
    outr_issuers_options o;
    outr_arena *arena; /* of the specs */
    outr_remote *remote;
    /* Tokens are asked for on all loops, and one that was verified on one is good on the others;
     * held to find it, or to take a reference to keys. */
    pthread_mutex_t lock;
    outr_map *good; /* by token */
    outr_list by_age;
    size_t good_count, good_bytes;
    /* main loop */
    size_t untried;
    outr_err first_error;
    outr_op *opening, *closing;
    bool is_cancelling; /* calls end within close */
    issuer items[];
};

static const outr_metric_desc reads = {"outrigger_jwks_reads_total",
                                       "times the keys of an issuer were read",
                                       OUTR_COUNTER,
                                       0,
                                       {"issuer", "result"}};

/* ---- tokens that were good ------------------------------------------------------------------- */

static size_t size_of(const good *g)
{
    return sizeof *g + 2 * g->token.n + g->claims->bytes; /* the map has a copy */
}

static void forget(outr_issuers *set, good *g)
{
    outr_map_remove(set->good, g->token);
    outr_link_remove(&g->link);
    set->good_count--;
    set->good_bytes -= size_of(g);
    outr_claims_unref(g->claims);
    free((void *)g->token.p);
    free(g);
}

/* by NULL: of all issuers. */
static void forget_of(outr_issuers *set, const issuer *by)
{
    OUTR_LIST_EACH(link, &set->by_age)
    {
        good *g = OUTR_LIST_ITEM(link, good, link);
        if (!by || g->by == by)
            forget(set, g);
    }
}

/* A reference to its claims; NULL: not known. */
static outr_claims *recall(outr_issuers *set, outr_str token, int64_t now_s)
{
    outr_claims *claims = NULL;
    pthread_mutex_lock(&set->lock);
    good *g = outr_map_get(set->good, token);
    if (g && g->expires_s > now_s)
        claims = outr_claims_ref(g->claims);
    else if (g)
        forget(set, g);
    pthread_mutex_unlock(&set->lock);
    return claims;
}

static void remember(const issuer *by, const outr_jwks *keys, outr_str token,
                     const outr_claims *claims, int64_t expires_s)
{
    outr_issuers *set = by->set;
    pthread_mutex_lock(&set->lock);
    if (keys == by->keys && !outr_map_get(set->good, token)) {
        good *g = outr_alloc(sizeof *g);
        *g = (good){.token = outr_str_of(outr_str_dup(token), token.n),
                    .claims = outr_claims_ref(claims),
                    .by = by,
                    .expires_s = expires_s};
        outr_map_put(set->good, token, g);
        outr_list_push(&set->by_age, &g->link);
        set->good_count++;
        set->good_bytes += size_of(g);
        while (set->good_count > GOOD_MAX || set->good_bytes > GOOD_BYTES)
            forget(set, OUTR_LIST_ITEM(set->by_age.next, good, link));
    }
    pthread_mutex_unlock(&set->lock);
}

/* ---- asking ---------------------------------------------------------------------------------- */

static void wish_for_keys(issuer *i)
{
    if (i->spec->keys.n == 0 && __atomic_exchange_n(&i->is_wished, 1, __ATOMIC_ACQ_REL) == 0)
        outr_loop_post(i->set->o.loop, &i->wish);
}

static issuer *find(outr_issuers *set, outr_str name)
{
    issuer *any = NULL;
    for (size_t i = 0; i < set->o.count; i++) {
        if (outr_str_eq(set->o.items[i].name, name))
            return &set->items[i];
        if (!set->o.items[i].name.p)
            any = &set->items[i];
    }
    return any;
}

const char *outr_bearer_token(outr_str *token, const outr_headers *headers)
{
    static const outr_str scheme = {"Bearer ", sizeof "Bearer " - 1};
    const outr_str *found = NULL;
    bool is_bearer = false;
    for (size_t i = 0; i < headers->count; i++) {
        if (!outr_str_iis(headers->items[i].name, "authorization"))
            continue;
        if (found)
            return OUTR_JWT_MALFORMED;
        found = &headers->items[i].value;
        is_bearer = outr_str_istarts(*found, scheme);
    }
    if (!is_bearer)
        return OUTR_JWT_MISSING;
    *token = outr_str_trim(outr_str_skip(*found, scheme.n));
    return NULL;
}

void outr_bearer_count_refused(outr_loop *loop, const char *reason)
{
    static const outr_metric_desc refused = {"outrigger_jwt_refused_total",
                                             "requests refused for their token",
                                             OUTR_COUNTER,
                                             0,
                                             {"reason"}};
    const outr_str label = outr_str_from(reason);
    outr_metric_count(outr_loop_metrics(loop), &refused, &label, 1);
}

outr_str outr_bearer_challenge(outr_arena *arena, const char *reason)
{
    if (strcmp(reason, OUTR_JWT_MISSING) == 0)
        return OUTR_STR("Bearer");
    return outr_arena_printf(arena, "Bearer error=\"invalid_token\", error_description=\"%s\"",
                             reason);
}

static const char *verify(issuer *i, outr_str token, int64_t now_s, outr_arena *scratch,
                          outr_claims **claims)
{
    const outr_jwt_rules rules = {i->spec->name,       i->spec->audiences, i->spec->audience_count,
                                  i->spec->algorithms, i->set->o.skew_s,   now_s};
    int64_t expires_s;
    pthread_mutex_lock(&i->set->lock);
    outr_jwks *keys = i->keys ? outr_jwks_ref(i->keys) : NULL;
    pthread_mutex_unlock(&i->set->lock);
    if (!keys)
        return OUTR_JWT_NO_KEYS; /* the pauses between tries are short then */
    const char *reason = outr_jwt_check(token, keys, &rules, scratch, claims, &expires_s);
    if (!reason)
        remember(i, keys, token, *claims, expires_s);
    else if (strcmp(reason, OUTR_JWT_KEY) == 0)
        wish_for_keys(i);
    outr_jwks_unref(keys);
    return reason;
}

static void let_go(void *claims)
{
    outr_claims_unref(claims);
}

const char *outr_issuers_ask(outr_issuers *set, outr_loop *loop, outr_str token,
                             outr_arena *scratch, const outr_claims **claims)
{
    int64_t now_s = outr_loop_unix_ns(loop) / (int64_t)OUTR_SEC;
    const char *reason = NULL;
    if (token.n > OUTR_JWT_MAX)
        return OUTR_JWT_TOO_LARGE;
    outr_claims *known = recall(set, token, now_s);
    if (!known) {
        outr_str name = outr_jwt_issuer(token, scratch);
        issuer *i = find(set, name);
        reason = !name.p ? OUTR_JWT_MALFORMED
                 : !i    ? OUTR_JWT_ISSUER
                         : verify(i, token, now_s, scratch, &known);
    }
    if (reason)
        return reason;
    outr_arena_defer(scratch, let_go, known);
    *claims = known;
    return NULL;
}

/* ---- keys: main loop ------------------------------------------------------------------------- */

static void use_keys(issuer *i, outr_jwks *own_keys)
{
    outr_issuers *set = i->set;
    if (i->keys && outr_jwks_digest(i->keys) == outr_jwks_digest(own_keys)) {
        outr_jwks_unref(own_keys);
        return;
    }
    pthread_mutex_lock(&set->lock);
    outr_jwks *before = i->keys;
    i->keys = own_keys;
    forget_of(set, i);
    pthread_mutex_unlock(&set->lock);
    outr_jwks_unref(before);
}

static void finish_close(outr_issuers *set);

static void end_opening(outr_issuers *set)
{
    outr_op *op = set->opening;
    if (set->untried > 0 || !op)
        return;
    set->opening = NULL;
    if (set->first_error.code)
        outr_op_fail(op, &set->first_error);
    else
        outr_op_finish(op);
}

static uint64_t pause_of(issuer *i, bool is_bad)
{
    if (i->spec->keys_file.n > 0)
        return LOOK_NS;
    if (!is_bad) {
        i->pause_ns = 0;
        return i->set->o.refresh_ns;
    }
    uint64_t most = i->keys ? i->set->o.refresh_ns : 30 * OUTR_SEC;
    i->pause_ns = OUTR_MIN(OUTR_MAX(i->pause_ns * 2, PAUSE_MIN_NS), most);
    return i->pause_ns;
}

static void on_read(issuer *i, const outr_err *err)
{
    outr_issuers *set = i->set;
    const outr_str labels[] = {i->spec->name, err ? OUTR_STR("failed") : OUTR_STR("ok")};
    outr_arena_free(i->scratch);
    i->scratch = NULL;
    i->read_ns = outr_loop_now(set->o.loop);
    if (set->closing) {
        finish_close(set);
        return;
    }
    outr_metric_count(outr_loop_metrics(set->o.loop), &reads, labels, 1);
    if (err && !i->is_bad)
        OUTR_LOG(set->o.log, WARN,
                 i->keys ? "keys of an issuer cannot be read, the last ones stay"
                         : "keys of an issuer cannot be read, its tokens are refused",
                 OUTR_S("issuer", i->spec->name), OUTR_ERR(err));
    else if (!err && i->is_bad)
        OUTR_LOG(set->o.log, INFO, "keys of an issuer can be read again",
                 OUTR_S("issuer", i->spec->name));
    i->is_bad = err != NULL;
    outr_timer_start(set->o.loop, &i->timer, i->read_ns + pause_of(i, err != NULL));
    if (i->has_tried)
        return;
    i->has_tried = true;
    set->untried--;
    if (err && !set->first_error.code)
        set->first_error = *err;
    end_opening(set);
}

/* ---- from a file ----------------------------------------------------------------------------- */

static outr_code read_file(outr_buf *out, const char *path, outr_err *err)
{
    char piece[4096];
    ssize_t n = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO would wait for its writer */
    if (fd < 0)
        return outr_fail_errno(err, errno, "key set %s", path);
    while ((n = read(fd, piece, sizeof piece)) > 0 && outr_buf_append(out, piece, (size_t)n))
        ;
    int why = errno;
    close(fd);
    if (n < 0)
        return outr_fail_errno(err, why, "key set %s", path);
    if (out->is_full)
        return outr_fail(err, OUTR_INVALID_ARGUMENT, "key set %s: longer than %zu bytes", path,
                         (size_t)OUTR_JWKS_MAX);
    return OUTR_OK;
}

/* It is small, so that reading it says as well as anything whether it is another one. */
static void look_at_file(issuer *i)
{
    OUTR_AUTO(outr_buf) text = OUTR_BUF_MAX(OUTR_JWKS_MAX);
    outr_loop *loop = i->set->o.loop;
    outr_arena *arena = outr_arena_new(16 * OUTR_KIB);
    outr_err err;
    outr_jwks *keys;
    outr_code rc = read_file(&text, outr_arena_strz(arena, i->spec->keys_file), &err);
    outr_arena_free(arena);
    if (!rc && i->keys && i->has_tried && !i->is_bad &&
        outr_jwks_digest(i->keys) == outr_str_hash(outr_buf_view(&text), 0)) {
        outr_timer_start(loop, &i->timer, outr_loop_now(loop) + LOOK_NS);
        return;
    }
    if (!rc)
        rc = outr_jwks_parse(&keys, outr_buf_view(&text), &err);
    if (!rc)
        use_keys(i, keys);
    on_read(i, rc ? &err : NULL);
}

/* ---- from a URL ------------------------------------------------------------------------------ */

static void fetch(issuer *i, outr_str url);

static bool is_https(outr_str url)
{
    return outr_str_istarts(url, OUTR_STR("https:"));
}

/* Where the issuer's keys are. */
static outr_code discover(issuer *i, outr_str *url, outr_err *err)
{
    outr_json *root;
    outr_code rc = outr_json_parse(&root, i->scratch, i->call.answer, err);
    if (rc)
        return rc;
    if (!outr_str_eq(outr_json_text(root, "issuer"), i->spec->name)) /* OIDC Discovery 4.3 */
        return outr_fail(err, OUTR_INVALID_ARGUMENT, "it is of another issuer");
    *url = outr_json_text(root, "jwks_uri");
    return outr_remote_check(*url, err);
}

static void on_fetched(outr_op *op)
{
    issuer *i = OUTR_CONTAINER(op, issuer, op);
    outr_err err = op->err;
    outr_jwks *keys;
    outr_str url;
    bool is_discovery = !i->spec->keys_url.n && !i->url.p;
    outr_str begun = i->spec->keys_url.n ? i->spec->keys_url : i->spec->name;
    if (!err.code && i->call.head.status != 200)
        outr_fail(&err, OUTR_UNAVAILABLE, "status %d", i->call.head.status);
    if (!err.code && is_https(begun) && i->call.was_clear) /* redirected, or discovered */
        outr_fail(&err, OUTR_INVALID_ARGUMENT, "it leads from https to clear text");
    if (!err.code && is_discovery && !discover(i, &url, &err)) {
        i->url = url;
        fetch(i, url);
        return;
    }
    if (!err.code && !outr_jwks_parse(&keys, i->call.answer, &err))
        use_keys(i, keys);
    if (err.code)
        outr_wrap(&err, is_discovery ? "OIDC discovery" : "key set");
    on_read(i, err.code ? &err : NULL);
}

static void fetch(issuer *i, outr_str url)
{
    outr_issuers *set = i->set;
    i->call = (outr_remote_call){.arena = i->scratch,
                                 .method = OUTR_STR("GET"),
                                 .url = url,
                                 .max_answer = OUTR_JWKS_MAX};
    outr_headers_init(&i->call.headers, i->scratch);
    outr_headers_add(&i->call.headers, OUTR_STR("Accept"), OUTR_STR("application/json"));
    outr_op_init(&i->op, set->o.loop, NULL, outr_loop_now(set->o.loop) + set->o.timeout_ns,
                 on_fetched);
    outr_remote_call_start(set->remote, &i->call, &i->op);
}

static void read_keys(issuer *i)
{
    outr_str name = i->spec->name;
    if (outr_op_is_pending(&i->op) || i->set->closing)
        return;
    outr_timer_stop(i->set->o.loop, &i->timer);
    if (i->spec->keys_file.n > 0) {
        look_at_file(i);
        return;
    }
    i->scratch = outr_arena_new(8 * OUTR_MIB);
    i->url = OUTR_STR_NONE;
    while (name.n > 0 && name.p[name.n - 1] == '/')
        name.n--;
    fetch(i, i->spec->keys_url.n
                 ? i->spec->keys_url
                 : outr_arena_join(i->scratch, name, OUTR_STR("/.well-known/openid-configuration"),
                                   OUTR_STR_NONE));
}

static void on_time(outr_timer *timer)
{
    read_keys(OUTR_CONTAINER(timer, issuer, timer));
}

/* A token named a key that is not known: perhaps it is new. */
static void on_wish(outr_message *message, outr_loop *loop)
{
    issuer *i = OUTR_CONTAINER(message, issuer, wish);
    __atomic_store_n(&i->is_wished, 0, __ATOMIC_RELEASE);
    if (i->set->closing)
        finish_close(i->set);
    else if (outr_timer_is_on(&i->timer)) /* else it is being read */
        outr_timer_start(loop, &i->timer, OUTR_MAX(outr_loop_now(loop), i->read_ns + SOON_NS));
}

/* ---- life ------------------------------------------------------------------------------------ */

outr_code outr_issuer_check(const outr_issuer_spec *spec, outr_err *err)
{
    outr_jwks *keys = NULL;
    int given = (spec->keys_url.n > 0) + (spec->keys_file.n > 0) + (spec->keys.n > 0);
    if (given > 1)
        return outr_fail(err, OUTR_INVALID_ARGUMENT, "keys come from one place only");
    if (spec->keys_file.n > 0)
        return OUTR_OK;
    if (spec->keys.n > 0) {
        outr_code rc = outr_jwks_parse(&keys, spec->keys, err);
        outr_jwks_unref(keys);
        return rc;
    }
    return outr_remote_check(spec->keys_url.n ? spec->keys_url : spec->name, err);
}

static outr_issuer_spec *copy_specs(outr_arena *arena, const outr_issuer_spec *specs, size_t count)
{
    outr_issuer_spec *copies = outr_arena_alloc(arena, (count + 1) * sizeof *copies);
    for (size_t i = 0; i < count; i++) {
        const outr_issuer_spec *s = &specs[i];
        outr_str *audiences = outr_arena_alloc(arena, (s->audience_count + 1) * sizeof *audiences);
        for (size_t n = 0; n < s->audience_count; n++)
            audiences[n] = outr_arena_str(arena, s->audiences[n]);
        copies[i] = (outr_issuer_spec){.name = s->name.p ? outr_arena_str(arena, s->name) : s->name,
                                       .audiences = audiences,
                                       .audience_count = s->audience_count,
                                       .algorithms = s->algorithms,
                                       .keys_url = outr_arena_str(arena, s->keys_url),
                                       .keys_file = outr_arena_str(arena, s->keys_file),
                                       .keys = outr_arena_str(arena, s->keys)};
    }
    return copies;
}

outr_issuers *outr_issuers_new(const outr_issuers_options *options)
{
    outr_issuers *set = outr_alloc(sizeof *set + options->count * sizeof set->items[0]);
    outr_err err;
    set->o = *options;
    set->o.refresh_ns = set->o.refresh_ns ? set->o.refresh_ns : REFRESH_NS;
    set->o.timeout_ns = set->o.timeout_ns ? set->o.timeout_ns : READ_NS;
    set->o.tls = set->o.tls ? outr_tls_ref(set->o.tls) : NULL;
    set->arena = outr_arena_new(16 * OUTR_MIB);
    set->o.items = copy_specs(set->arena, options->items, options->count);
    set->good = outr_map_new();
    outr_list_init(&set->by_age);
    pthread_mutex_init(&set->lock, NULL);
    for (size_t n = 0; n < options->count; n++) {
        issuer *i = &set->items[n];
        i->set = set;
        i->spec = &set->o.items[n];
        i->timer.fire = on_time;
        i->wish.run = on_wish;
        if (i->spec->keys.n > 0)
            (void)outr_jwks_parse(&i->keys, i->spec->keys, &err); /* has been checked */
    }
    return set;
}

void outr_issuers_inherit(outr_issuers *to, outr_issuers *from)
{
    for (size_t n = 0; n < to->o.count; n++) {
        issuer *i = &to->items[n];
        const issuer *other = find(from, i->spec->name);
        if (!other || !other->keys || i->keys || i->spec->keys.n > 0 ||
            !outr_str_eq(other->spec->keys_url, i->spec->keys_url) ||
            !outr_str_eq(other->spec->keys_file, i->spec->keys_file))
            continue;
        i->keys = outr_jwks_ref(other->keys); /* changed on this loop alone */
    }
}

bool outr_issuers_have_keys(const outr_issuers *set)
{
    for (size_t n = 0; n < set->o.count; n++) {
        if (!set->items[n].keys)
            return false;
    }
    return true;
}

/* Whoever waited does not wait any longer. */
static void on_open_cancelled(outr_op *op)
{
    outr_issuers *set = op->impl;
    set->opening = NULL;
    outr_op_finish(op);
}

void outr_issuers_open(outr_issuers *set, outr_op *op)
{
    set->opening = op;
    outr_op_begin(op, set, on_open_cancelled);
    set->remote = outr_remote_new(set->o.loop, set->o.tls);
    for (size_t n = 0; n < set->o.count; n++)
        set->untried += set->items[n].spec->keys.n == 0;
    for (size_t n = 0; n < set->o.count; n++) {
        issuer *i = &set->items[n];
        if (i->spec->keys_file.n > 0) /* in a turn of its own: an op never ends inside its start */
            outr_timer_start(set->o.loop, &i->timer, outr_loop_now(set->o.loop));
        else if (i->spec->keys.n == 0)
            read_keys(i);
    }
    if (set->untried == 0) {
        set->opening = NULL;
        outr_op_finish_soon(op);
    }
}

static void finish_close(outr_issuers *set)
{
    outr_op *op = set->closing;
    outr_remote *remote = set->remote;
    for (size_t n = 0; n < set->o.count; n++) {
        if (set->is_cancelling || outr_op_is_pending(&set->items[n].op) ||
            __atomic_load_n(&set->items[n].is_wished, __ATOMIC_ACQUIRE))
            return;
    }
    forget_of(set, NULL);
    for (size_t n = 0; n < set->o.count; n++) {
        outr_timer_stop(set->o.loop, &set->items[n].timer);
        outr_jwks_unref(set->items[n].keys);
    }
    outr_map_free(set->good);
    outr_tls_unref(set->o.tls);
    pthread_mutex_destroy(&set->lock);
    outr_arena_free(set->arena);
    free(set);
    if (remote) {
        outr_remote_close(remote, op);
        return;
    }
    outr_op_begin(op, NULL, NULL);
    outr_op_finish_soon(op);
}

void outr_issuers_close(outr_issuers *set, outr_op *op)
{
    set->closing = op;
    set->is_cancelling = true;
    for (size_t n = 0; n < set->o.count; n++) {
        outr_timer_stop(set->o.loop, &set->items[n].timer);
        outr_op_cancel(&set->items[n].op, OUTR_CANCELLED);
    }
    set->is_cancelling = false;
    finish_close(set);
}
