#include <pthread.h>

#include "base/buf.h"
#include "base/encode.h"
#include "base/json.h"
#include "components/common/pem.h"
#include "components/nameresolution.h"
#include "http/remote.h"

/* Consul's HTTP API, as daprd's component uses it: instances are the passing ones of the service
 * that has the app id for its name; their internal port stands in the service's metadata, and so do
 * their labels (contract/components.csv). Names that are in use are watched by blocking queries,
 * one at a time for each. */

#define CALL_NS       (5 * OUTR_SEC)
#define ANSWER_MAX    (4 * OUTR_MIB)
#define ARENA_MAX     (64 * OUTR_MIB)
#define AGAIN_NS      (5 * OUTR_SEC)  /* registering, while nobody answers */
#define RENEW_NS      (30 * OUTR_SEC) /* an agent that was started anew has forgotten us */
#define WATCHES_MAX   64              /* an agent has 200 connections for one address */
#define WATCH_S       60
#define WATCH_NS      ((WATCH_S + WATCH_S / 16 + 10) * OUTR_SEC) /* it adds up to a sixteenth */
#define WATCH_PAUSE   (50 * OUTR_MS)   /* between two: Consul asks for it */
#define WATCH_LONGEST (30 * OUTR_SEC)  /* while it fails: doubles */
#define USED_NS       (300 * OUTR_SEC) /* a name nobody asks for is not watched any more */

typedef struct config {
    outr_str client, checks, tags, meta, port_key, query_options, advanced;
    bool registers, deregisters, use_cache;
} config;

static const outr_bind_row rows[] = {
    {"client", NULL, OUTR_BIND_STR, 0, offsetof(config, client), 0, 0, "{}", NULL, 0,
     "address (localhost:8500), scheme, datacenter, namespace, partition, token, tokenFile, "
     "httpAuth, tlsConfig"},
    {"queryOptions", NULL, OUTR_BIND_STR, 0, offsetof(config, query_options), 0, 0, "{}", NULL, 0,
     "datacenter, namespace, partition, token, near, filter, nodeMeta, allowStale, "
     "requireConsistent, useCache"},
    {"checks", NULL, OUTR_BIND_STR, 0, offsetof(config, checks), 0, 0, "", NULL, 0,
     "health checks registered, as Consul has them; default: a TCP check of the internal port"},
    {"tags", NULL, OUTR_BIND_STR, 0, offsetof(config, tags), 0, 0, "[]", NULL, 0, "service tags"},
    {"meta", NULL, OUTR_BIND_STR, 0, offsetof(config, meta), 0, 0, "{}", NULL, 0,
     "service metadata; labels are told by it, too"},
    {"daprPortMetaKey", NULL, OUTR_BIND_STR, 0, offsetof(config, port_key), 0, 0, "DAPR_PORT", NULL,
     0, "metadata key that holds the internal port"},
    {"selfRegister", NULL, OUTR_BIND_BOOL, 0, offsetof(config, registers), 0, 0, "false", NULL, 0,
     "register this sidecar"},
    {"selfDeregister", NULL, OUTR_BIND_BOOL, 0, offsetof(config, deregisters), 0, 0, "false", NULL,
     0, "deregister at stop"},
    {"useCache", NULL, OUTR_BIND_BOOL, 0, offsetof(config, use_cache), 0, 0, "false", NULL, 0,
     "not acted on: names in use are watched in any case"},
    {"advancedRegistration", NULL, OUTR_BIND_STR, 0, offsetof(config, advanced), 0, 0, "", NULL, 0,
     "what is registered, as Consul has it, instead of checks, tags and meta"},
};

typedef struct resolver {
    outr_resolver base;
    outr_arena *arena; /* of what is configured */
    config c;
    outr_str url, token, authorization; /* "http://localhost:8500" */
    outr_str query;                     /* of questions, "&dc=east" */
    outr_json *checks, *tags, *meta, *advanced;
    outr_tls *tls;
    outr_remote *remote;
    outr_loop *loop;
    outr_log log;
    /* registration; main loop */
    outr_str id, body;
    outr_timer timer;
    struct request *registering;
    outr_op *closing;
    outr_op inner;
    bool has_complained, is_registered, is_closing;
    /* Any loop has a name watched, the main loop watches: held for looking it up. */
    pthread_mutex_t lock;
    outr_map *watches; /* "app namespace" -> watch */
    bool is_over;      /* nobody is watched any more */
    outr_message last;
    size_t
        querying; /* watches whose query is out: a look-up of the agent's name may outlast close */
    bool is_last; /* there will be no more */
} resolver;

typedef struct watch { /* main loop, but for what says otherwise */
    resolver *r;
    outr_message message;             /* the asking loop's word */
    outr_str key, app_id, namespace_; /* key is the heap's */
    uint64_t used_ns;                 /* atomic */
    uint64_t index;                   /* what is known */
    outr_arena *arena;                /* NULL: no query is out */
    outr_remote_call call;
    outr_op op;
    outr_timer timer;
    uint64_t pause_ns;
} watch;

typedef struct request {
    resolver *r;
    outr_arena *arena;
    outr_remote_call call;
    outr_resolve *resolve; /* of a question */
    outr_op *op;           /* the caller's; may be NULL */
    outr_op inner;
} request;

extern const outr_resolver_backend outr_nameresolution_consul;

static resolver *of(outr_resolver *base)
{
    return OUTR_CONTAINER(base, resolver, base);
}

static void finish(outr_op *op)
{
    outr_op_begin(op, NULL, NULL);
    outr_op_finish_soon(op);
}

/* ---- one request ----------------------------------------------------------------------------- */

static void on_cancel(outr_op *op)
{
    request *q = op->impl;
    outr_op_cancel(&q->inner, op->err.code);
}

static void fill(const resolver *r, outr_remote_call *call, outr_arena *arena, const char *method,
                 outr_str path)
{
    *call = (outr_remote_call){.arena = arena,
                               .method = outr_str_from(method),
                               .url = outr_arena_join(arena, r->url, path, OUTR_STR_NONE),
                               .max_answer = ANSWER_MAX,
                               .secret_header = OUTR_STR("X-Consul-Token")};
    outr_headers_init(&call->headers, arena);
    if (r->token.n > 0)
        outr_headers_add(&call->headers, OUTR_STR("X-Consul-Token"), r->token);
    if (r->authorization.n > 0)
        outr_headers_add(&call->headers, OUTR_STR("Authorization"), r->authorization);
}

static void send(request *q, const char *method, outr_str path, outr_loop *loop, outr_op_fn *done)
{
    fill(q->r, &q->call, q->arena, method, path);
    outr_op_init(&q->inner, loop, q->op, outr_loop_now(loop) + CALL_NS, done);
}

/* Why it was no success, or OUTR_OK. */
static outr_code outcome_of(const outr_remote_call *call, const outr_op *op, outr_err *err)
{
    if (op->err.code) {
        *err = op->err;
        return err->code;
    }
    if (call->head.status == 200)
        return OUTR_OK;
    return outr_fail(err, OUTR_UNAVAILABLE, "Consul answered %d: " OUTR_FMT, call->head.status,
                     OUTR_ARG(outr_str_head(call->answer, 200)));
}

static outr_code outcome(const request *q, outr_err *err)
{
    return outcome_of(&q->call, &q->inner, err);
}

/* ---- watching -------------------------------------------------------------------------------- */

static outr_str question(const resolver *r, outr_arena *arena, outr_str app_id)
{
    outr_str path =
        outr_arena_join(arena, OUTR_STR("/v1/health/service/"),
                        outr_percent_encode(arena, app_id, ""), OUTR_STR("?passing=true"));
    return outr_arena_join(arena, path, r->query, OUTR_STR_NONE);
}

/* 0: there is none. */
static uint64_t index_of(const outr_remote_call *call)
{
    uint64_t index;
    outr_str text = outr_headers_get(&call->head.headers, "X-Consul-Index");
    return outr_str_to_u64(text, INT64_MAX, &index) ? index : 0;
}

static void free_watch(watch *w)
{
    outr_arena_free(w->arena);
    free((void *)w->key.p);
    free(w);
}

static void query_again(watch *w, uint64_t in_ns)
{
    outr_loop *loop = w->r->loop;
    uint64_t now = outr_loop_now(loop);
    if (now - __atomic_load_n(&w->used_ns, __ATOMIC_RELAXED) < USED_NS) {
        outr_timer_start(loop, &w->timer, now + in_ns);
        return;
    }
    pthread_mutex_lock(&w->r->lock);
    outr_map_remove(w->r->watches, w->key);
    pthread_mutex_unlock(&w->r->lock);
    free_watch(w);
}

static void free_if_over(resolver *r);

static void on_queried(outr_op *op)
{
    watch *w = OUTR_CONTAINER(op, watch, op);
    outr_err err;
    bool is_good = outcome_of(&w->call, op, &err) == OUTR_OK;
    uint64_t index = is_good ? index_of(&w->call) : 0;
    bool is_news = is_good && index != w->index;
    outr_arena_free(w->arena);
    w->arena = NULL;
    w->r->querying--;
    if (w->r->is_closing) {
        free_if_over(w->r);
        return;
    }
    w->pause_ns =
        is_good && index ? 0 : OUTR_MIN(OUTR_MAX(2 * w->pause_ns, OUTR_SEC), WATCH_LONGEST);
    if (is_good) /* it may go back: then all is asked for, at once */
        w->index = index < w->index ? 0 : index;
    if (is_news)
        outr_watchers_tell(w->r->base.watchers, w->app_id, w->namespace_);
    query_again(w, OUTR_MAX(w->pause_ns, WATCH_PAUSE));
}

static void on_query_time(outr_timer *timer)
{
    watch *w = OUTR_CONTAINER(timer, watch, timer);
    resolver *r = w->r;
    r->querying++;
    w->arena = outr_arena_new(ARENA_MAX);
    outr_str path = outr_arena_join(
        w->arena, question(r, w->arena, w->app_id),
        outr_arena_printf(w->arena, "&index=%llu&wait=%ds", (unsigned long long)w->index, WATCH_S),
        OUTR_STR_NONE);
    fill(r, &w->call, w->arena, "GET", path);
    outr_op_init(&w->op, r->loop, NULL, outr_loop_now(r->loop) + WATCH_NS, on_queried);
    outr_remote_call_start(r->remote, &w->call, &w->op);
}

static void on_watch_wanted(outr_message *message, outr_loop *loop)
{
    watch *w = OUTR_CONTAINER(message, watch, message);
    if (!w->r->is_closing)
        outr_timer_start(loop, &w->timer, outr_loop_now(loop));
}

/* Any loop. */
static void want_watch(resolver *r, const outr_resolve *req, uint64_t index, uint64_t now)
{
    char scratch[512];
    int n = snprintf(scratch, sizeof scratch, OUTR_FMT " " OUTR_FMT, OUTR_ARG(req->app_id),
                     OUTR_ARG(req->namespace_));
    if (index == 0 || n < 0 || (size_t)n >= sizeof scratch)
        return;
    pthread_mutex_lock(&r->lock);
    outr_str key = outr_str_of(scratch, (size_t)n);
    watch *w = outr_map_get(r->watches, key);
    bool is_new = !w && !r->is_over && outr_map_count(r->watches) < WATCHES_MAX;
    if (is_new) {
        w = outr_alloc(sizeof *w);
        w->r = r;
        w->key = outr_str_of(outr_str_dup(key), key.n);
        w->namespace_ = outr_str_cut(w->key, ' ', &w->app_id);
        w->index = index;
        w->timer.fire = on_query_time;
        w->message.run = on_watch_wanted;
        outr_map_put(r->watches, key, w);
    }
    if (w)
        __atomic_store_n(&w->used_ns, now, __ATOMIC_RELAXED);
    if (is_new)
        outr_loop_post(r->loop, &w->message);
    pthread_mutex_unlock(&r->lock);
}

/* ---- questions ------------------------------------------------------------------------------- */

static outr_kvs read_labels(const resolver *r, outr_arena *arena, const outr_json *meta)
{
    outr_kv items[64]; /* Consul has no more */
    size_t count = 0;
    for (const outr_json *item = meta && meta->kind == OUTR_JSON_OBJECT ? meta->child : NULL;
         item && count < OUTR_LEN(items); item = item->next) {
        if (item->kind == OUTR_JSON_STRING && !outr_str_eq(item->key, r->c.port_key))
            items[count++] = (outr_kv){item->key, item->text};
    }
    return outr_labels_of(arena, (outr_kvs){items, count});
}

/* False: it is no sidecar, or nonsense; the others count all the same. */
static bool read_instance(const resolver *r, outr_arena *arena, const outr_json *entry,
                          outr_instance *out)
{
    const outr_json *service = outr_json_find(entry, "Service"),
                    *meta = outr_json_find(service, "Meta");
    outr_str host = outr_json_text(service, "Address");
    uint64_t port;
    if (host.n == 0)
        host = outr_json_text(outr_json_find(entry, "Node"), "Address");
    outr_str text = outr_json_text(meta, r->c.port_key.p);
    if (!outr_str_to_u64(text, UINT16_MAX, &port) || port == 0 ||
        outr_addr_from_ip(&out->addr, host, (uint16_t)port, NULL))
        return false;
    out->id = outr_arena_str(arena, outr_json_text(service, "ID"));
    out->labels = read_labels(r, arena, meta);
    return true;
}

static void on_answer(outr_op *inner)
{
    request *q = OUTR_CONTAINER(inner, request, inner);
    outr_resolve *req = q->resolve;
    outr_op *op = q->op;
    outr_json *list = NULL;
    outr_err err;
    outr_code rc = outcome(q, &err);
    rc = rc ? rc : outr_json_parse(&list, q->arena, q->call.answer, &err);
    if (!rc && list->kind != OUTR_JSON_ARRAY)
        rc = outr_fail(&err, OUTR_UNAVAILABLE, "Consul's answer is no list");
    if (!rc)
        req->instances = outr_arena_alloc(
            req->arena, (OUTR_MIN(list->count, OUTR_RESOLVE_MAX) + 1) * sizeof *req->instances);
    for (const outr_json *entry = rc ? NULL : list->child; entry && req->count < OUTR_RESOLVE_MAX;
         entry = entry->next)
        req->count += read_instance(q->r, req->arena, entry, &req->instances[req->count]);
    if (req->count > 0) /* what clients ask for in vain is not watched */
        want_watch(q->r, req, index_of(&q->call), outr_loop_now(inner->loop));
    outr_arena_free(q->arena);
    if (rc && !outr_op_is_cancelled(op))
        err.code = OUTR_UNAVAILABLE; /* whatever it is, it is the registry's */
    if (rc)
        outr_op_fail(op, &err);
    else
        outr_op_finish(op);
}

static void resolve(outr_resolver *base, outr_resolve *req, outr_op *op)
{
    resolver *r = of(base);
    outr_arena *arena = outr_arena_new(ARENA_MAX); /* an instance takes some 10 KiB to be read */
    request *q = outr_arena_alloc(arena, sizeof *q);
    req->count = 0;
    *q = (request){.r = r, .arena = arena, .resolve = req, .op = op};
    outr_op_begin(op, q, on_cancel);
    send(q, "GET", question(r, arena, req->app_id), op->loop, on_answer);
    outr_remote_call_start(r->remote, &q->call, &q->inner);
}

/* ---- registration ---------------------------------------------------------------------------- */

static void on_registered(outr_op *inner)
{
    request *q = OUTR_CONTAINER(inner, request, inner);
    resolver *r = q->r;
    outr_op *op = q->op;
    outr_err err;
    bool is_good = outcome(q, &err) == OUTR_OK;
    if (!is_good && !r->has_complained && !op && !r->is_closing)
        OUTR_LOG(&r->log, WARN, "registration with Consul fails, trying on", OUTR_ERR(&err));
    r->has_complained = !is_good;
    r->is_registered |= is_good;
    r->registering = NULL;
    outr_arena_free(q->arena);
    if (!r->is_closing)
        outr_timer_start(r->loop, &r->timer,
                         outr_loop_now(r->loop) + (is_good ? RENEW_NS : AGAIN_NS));
    if (op && is_good)
        outr_op_finish(op);
    else if (op)
        outr_op_fail(op, &err);
}

static void put(resolver *r, outr_op *op, outr_str path, outr_str body, outr_op_fn *done)
{
    outr_arena *arena = outr_arena_new(ARENA_MAX);
    request *q = outr_arena_alloc(arena, sizeof *q);
    *q = (request){.r = r, .arena = arena, .op = op};
    r->registering = q;
    if (op)
        outr_op_begin(op, q, on_cancel);
    send(q, "PUT", path, r->loop, done);
    outr_headers_add(&q->call.headers, OUTR_STR("Content-Type"), OUTR_STR("application/json"));
    q->call.has_body = true;
    q->call.body = body;
    outr_remote_call_start(r->remote, &q->call, &q->inner);
}

#define REGISTER OUTR_STR("/v1/agent/service/register?replace-existing-checks=true")

static void on_time(outr_timer *timer)
{
    resolver *r = OUTR_CONTAINER(timer, resolver, timer);
    put(r, NULL, REGISTER, r->body, on_registered);
}

static outr_json *default_checks(resolver *r, const outr_self *self)
{
    outr_json *list = outr_json_new(r->arena, OUTR_JSON_ARRAY),
              *check = outr_json_new(r->arena, OUTR_JSON_OBJECT);
    bool is_v6 = outr_str_find(self->host, ':') >= 0;
    outr_json_put(check, OUTR_STR("Name"),
                  outr_json_string(r->arena, OUTR_STR("Dapr Health Status")));
    outr_json_put(check, OUTR_STR("CheckID"),
                  outr_json_string(r->arena, outr_arena_join(r->arena, OUTR_STR("daprHealth:"),
                                                             r->id, OUTR_STR_NONE)));
    outr_json_put(check, OUTR_STR("Interval"), outr_json_string(r->arena, OUTR_STR("15s")));
    outr_json_put(
        check, OUTR_STR("TCP"),
        outr_json_string(r->arena,
                         outr_arena_printf(r->arena, is_v6 ? "[" OUTR_FMT "]:%u" : OUTR_FMT ":%u",
                                           OUTR_ARG(self->host), self->internal_port)));
    outr_json_put(check, OUTR_STR("Status"), /* it serves when it registers: found at once */
                  outr_json_string(r->arena, OUTR_STR("passing")));
    outr_json_push(list, check);
    return list;
}

/* Consul's own rule for names in metadata. */
static outr_code add_labels(resolver *r, outr_kvs labels, outr_err *err)
{
    for (size_t i = 0; i < labels.count; i++) {
        outr_str key = outr_arena_str(r->arena, labels.items[i].key);
        if (outr_str_find(key, '.') >= 0 || outr_str_eq(key, r->c.port_key))
            return outr_fail(err, OUTR_INVALID_ARGUMENT,
                             "Consul cannot carry a label with the name \"" OUTR_FMT "\"",
                             OUTR_ARG(key));
        outr_json_put(r->meta, key,
                      outr_json_string(r->arena, outr_arena_str(r->arena, labels.items[i].value)));
    }
    return OUTR_OK;
}

static outr_json *simple_body(resolver *r, const outr_self *self, outr_str app_id, outr_str host)
{
    outr_json *body = outr_json_new(r->arena, OUTR_JSON_OBJECT);
    outr_json_put(body, OUTR_STR("ID"), outr_json_string(r->arena, r->id));
    outr_json_put(body, OUTR_STR("Name"), outr_json_string(r->arena, app_id));
    outr_json_put(body, OUTR_STR("Address"), outr_json_string(r->arena, host));
    outr_json_put(body, OUTR_STR("Port"), outr_json_number(r->arena, self->internal_port));
    outr_json_put(body, OUTR_STR("Tags"), r->tags);
    outr_json_put(body, OUTR_STR("Meta"), r->meta);
    outr_json_put(body, OUTR_STR("Checks"), r->checks ? r->checks : default_checks(r, self));
    return body;
}

/* As it was given; what it does not say is ours to say. */
static outr_json *advanced_body(resolver *r, const outr_self *self, outr_str app_id, outr_str host)
{
    outr_json *body = r->advanced;
    outr_str id = outr_json_itext(body, "ID");
    if (id.n > 0)
        r->id = id;
    else
        outr_json_put(body, OUTR_STR("ID"), outr_json_string(r->arena, r->id));
    if (outr_json_itext(body, "Name").n == 0)
        outr_json_put(body, OUTR_STR("Name"), outr_json_string(r->arena, app_id));
    if (outr_json_itext(body, "Address").n == 0)
        outr_json_put(body, OUTR_STR("Address"), outr_json_string(r->arena, host));
    if (!outr_json_ifind(body, "Port"))
        outr_json_put(body, OUTR_STR("Port"), outr_json_number(r->arena, self->internal_port));
    if (!outr_json_ifind(body, "Meta"))
        outr_json_put(body, OUTR_STR("Meta"), r->meta);
    return body;
}

static outr_code write_body(resolver *r, const outr_self *self, outr_err *err)
{
    OUTR_AUTO(outr_buf) out = OUTR_BUF_MAX(OUTR_MIB);
    outr_str app_id = outr_arena_str(r->arena, self->app_id);
    outr_str host = outr_arena_str(r->arena, self->host);
    r->id = outr_arena_printf(r->arena, OUTR_FMT "-" OUTR_FMT "-%u", OUTR_ARG(app_id),
                              OUTR_ARG(host), self->internal_port);
    outr_json_put(
        r->meta, r->c.port_key,
        outr_json_string(r->arena, outr_arena_printf(r->arena, "%u", self->internal_port)));
    outr_code rc = add_labels(r, self->labels, err);
    if (rc)
        return rc;
    outr_json_write(&out,
                    r->advanced ? advanced_body(r, self, app_id, host)
                                : simple_body(r, self, app_id, host),
                    OUTR_JSON_PLAIN);
    r->body = outr_arena_str(r->arena, outr_buf_view(&out));
    return OUTR_OK;
}

static void join(outr_resolver *base, const outr_self *self, outr_op *op)
{
    resolver *r = of(base);
    outr_err err;
    if (!r->c.registers) {
        finish(op);
        return;
    }
    if (write_body(r, self, &err)) {
        outr_op_begin(op, NULL, NULL);
        outr_op_fail_soon(op, &err);
        return;
    }
    put(r, op, REGISTER, r->body, on_registered);
}

/* ---- life ------------------------------------------------------------------------------------ */

static outr_code parse(outr_json **out, resolver *r, const char *name, outr_str text,
                       outr_json_kind kind, outr_err *err)
{
    if (text.n == 0)
        return OUTR_OK;
    if (outr_json_parse(out, r->arena, outr_arena_str(r->arena, text), err))
        return outr_wrap(err, "%s", name);
    return (*out)->kind == kind ? OUTR_OK
                                : outr_fail(err, OUTR_INVALID_ARGUMENT, "%s: must be %s", name,
                                            kind == OUTR_JSON_ARRAY ? "a list" : "a mapping");
}

/* Fields of Consul's own structures, as one names them in YAML: without case. What is not acted on
 * is told of; daprd leaves out what it does not know. */
static void check_names(const resolver *r, const outr_json *object, const char *where,
                        const char *const *names)
{
    for (const outr_json *item = object ? object->child : NULL; item; item = item->next) {
        size_t i = 0;
        while (names[i] && !outr_str_iis(item->key, names[i]))
            i++;
        if (!names[i])
            OUTR_LOG(&r->log, WARN, "a field of nameresolution.consul is not acted on",
                     OUTR_Z("in", where), OUTR_S("field", outr_str_head(item->key, 100)));
    }
}

static outr_code read_file(resolver *r, outr_str *pem, const outr_json *tls, const char *text,
                           const char *file, outr_err *err)
{
    *pem = outr_json_itext(tls, text);
    if (pem->n == 0)
        *pem = outr_json_itext(tls, file);
    return outr_pem_read(r->arena, file, pem, err);
}

static outr_code configure_tls(resolver *r, const outr_json *tls, bool is_https, outr_err *err)
{
    static const char *const names[] = {"caFile",  "caPEM",  "certFile",           "certPEM",
                                        "keyFile", "keyPEM", "insecureSkipVerify", NULL};
    static const char *const alpn[] = {"http/1.1", NULL};
    outr_tls_options o = {.alpn = alpn,
                          .verify_peer = !outr_json_ibool(tls, "insecureSkipVerify", false)};
    if (!tls)
        return OUTR_OK;
    check_names(r, tls, "client.tlsConfig", names);
    if (outr_json_itext(tls, "caPath").n > 0)
        return outr_fail(err, OUTR_UNIMPLEMENTED, "client.tlsConfig: caFile instead of caPath");
    if (read_file(r, &o.ca_pem, tls, "caPEM", "caFile", err) ||
        read_file(r, &o.certificate_pem, tls, "certPEM", "certFile", err) ||
        read_file(r, &o.key_pem, tls, "keyPEM", "keyFile", err) ||
        (is_https && outr_tls_new(&r->tls, &o, err)))
        return outr_wrap(err, "client.tlsConfig");
    return OUTR_OK;
}

static outr_code configure_client(resolver *r, const outr_json *client, outr_err *err)
{
    static const char *const names[] = {"address",   "scheme", "datacenter", "namespace",
                                        "partition", "token",  "tokenFile",  "httpAuth",
                                        "tlsConfig", NULL};
    static const char *const auth_names[] = {"username", "password", NULL};
    const outr_json *auth = outr_json_ifind(client, "httpAuth");
    outr_str address = outr_json_itext(client, "address"),
             scheme = outr_json_itext(client, "scheme"),
             file = outr_json_itext(client, "tokenFile");
    check_names(r, client, "client", names);
    check_names(r, auth, "client.httpAuth", auth_names);
    if (configure_tls(r, outr_json_ifind(client, "tlsConfig"), outr_str_iis(scheme, "https"), err))
        return err->code;
    r->url = outr_arena_join(r->arena, scheme.n ? scheme : OUTR_STR("http"), OUTR_STR("://"),
                             address.n ? address : OUTR_STR("localhost:8500"));
    if (outr_remote_check(r->url, err))
        return outr_wrap(err, "client.address");
    r->token = outr_json_itext(client, "token");
    if (r->token.n == 0 && file.n > 0) {
        if (outr_pem_read(r->arena, "tokenFile", &file, err))
            return outr_wrap(err, "client");
        r->token = outr_str_trim(file);
    }
    if (auth)
        r->authorization = outr_arena_join(
            r->arena, OUTR_STR("Basic "),
            outr_base64_encode(r->arena,
                               outr_arena_join(r->arena, outr_json_itext(auth, "username"),
                                               OUTR_STR(":"), outr_json_itext(auth, "password"))),
            OUTR_STR_NONE);
    return OUTR_OK;
}

static void add_query(resolver *r, const char *name, outr_str value)
{
    outr_str pair = outr_arena_join(r->arena, outr_str_from(name), OUTR_STR("="),
                                    outr_percent_encode(r->arena, value, ""));
    r->query =
        outr_arena_join(r->arena, r->query, OUTR_STR("&"), value.n ? pair : outr_str_from(name));
}

/* What a question may say, in Consul's words; the client's own where the options are silent. */
static outr_code configure_query(resolver *r, const outr_json *client, const outr_json *options,
                                 outr_err *err)
{
    static const char *const names[] = {
        "datacenter", "namespace",  "partition",         "near",     "filter", "token",
        "nodeMeta",   "allowStale", "requireConsistent", "useCache", NULL};
    static const char *const texts[][2] = {{"datacenter", "dc"},
                                           {"namespace", "ns"},
                                           {"partition", "partition"},
                                           {"near", "near"},
                                           {"filter", "filter"}};
    static const char *const switches[][2] = {
        {"allowStale", "stale"}, {"requireConsistent", "consistent"}, {"useCache", "cached"}};
    check_names(r, options, "queryOptions", names);
    for (size_t i = 0; i < OUTR_LEN(texts); i++) {
        outr_str value = outr_json_itext(options, texts[i][0]);
        value = value.n ? value : outr_json_itext(client, texts[i][0]);
        if (value.n > 0)
            add_query(r, texts[i][1], value);
    }
    for (size_t i = 0; i < OUTR_LEN(switches); i++) {
        if (outr_json_ibool(options, switches[i][0], false))
            add_query(r, switches[i][1], OUTR_STR_NONE);
    }
    const outr_json *meta = outr_json_ifind(options, "nodeMeta");
    for (const outr_json *item = meta ? meta->child : NULL; item; item = item->next)
        add_query(r, "node-meta", outr_arena_join(r->arena, item->key, OUTR_STR(":"), item->text));
    outr_str token = outr_json_itext(options, "token");
    r->token = token.n ? token : r->token;
    if (outr_json_ibool(options, "allowStale", false) &&
        outr_json_ibool(options, "requireConsistent", false))
        return outr_fail(err, OUTR_INVALID_ARGUMENT,
                         "queryOptions: allowStale and requireConsistent exclude each other");
    return OUTR_OK;
}

static outr_code configure(resolver *r, outr_err *err)
{
    outr_json *client = NULL, *options = NULL;
    outr_code rc = parse(&client, r, "client", r->c.client, OUTR_JSON_OBJECT, err);
    rc = rc ? rc : parse(&r->checks, r, "checks", r->c.checks, OUTR_JSON_ARRAY, err);
    rc = rc ? rc : parse(&r->tags, r, "tags", r->c.tags, OUTR_JSON_ARRAY, err);
    rc = rc ? rc : parse(&r->meta, r, "meta", r->c.meta, OUTR_JSON_OBJECT, err);
    rc = rc ? rc : parse(&options, r, "queryOptions", r->c.query_options, OUTR_JSON_OBJECT, err);
    rc = rc ? rc
            : parse(&r->advanced, r, "advancedRegistration", r->c.advanced, OUTR_JSON_OBJECT, err);
    if (rc)
        return rc;
    r->c.port_key = outr_arena_str(r->arena, r->c.port_key);
    outr_json *meta = r->advanced ? outr_json_ifind(r->advanced, "Meta") : NULL;
    if (meta && meta->kind != OUTR_JSON_OBJECT)
        return outr_fail(err, OUTR_INVALID_ARGUMENT,
                         "advancedRegistration.Meta: must be a mapping");
    r->meta = meta ? meta : r->meta;
    r->c.registers |= r->advanced != NULL; /* as daprd has it */
    rc = configure_client(r, client, err);
    return rc ? rc : configure_query(r, client, options, err);
}

static void free_resolver(resolver *r)
{
    void *item;
    for (size_t at = 0; outr_map_next(r->watches, &at, NULL, &item);)
        free_watch(item);
    outr_map_free(r->watches);
    pthread_mutex_destroy(&r->lock);
    if (r->tls)
        outr_tls_unref(r->tls);
    outr_arena_free(r->arena);
    free(r);
}

static void free_if_over(resolver *r)
{
    outr_op *op = r->closing;
    if (!r->is_last || r->querying > 0)
        return;
    free_resolver(r);
    outr_op_finish(op);
}

/* Behind all that other loops have posted, so no watch is under way to us any more. */
static void on_last(outr_message *message, outr_loop *loop OUTR_UNUSED)
{
    resolver *r = OUTR_CONTAINER(message, resolver, last);
    r->is_last = true;
    free_if_over(r);
}

static outr_code create(outr_resolver **out, const outr_component_init *init, outr_err *err)
{
    OUTR_AUTO(outr_err_list) errors = {0};
    resolver *r = outr_alloc(sizeof *r);
    r->arena = outr_arena_new(OUTR_MIB);
    r->log = init->log ? *init->log : (outr_log){0};
    r->watches = outr_map_new();
    pthread_mutex_init(&r->lock, NULL);
    outr_code rc = outr_bind_kvs(rows, OUTR_LEN(rows), &r->c, init->metadata, &errors);
    if (rc)
        *err = errors.items[0];
    else
        rc = configure(r, err);
    if (rc) {
        free_resolver(r);
        return rc;
    }
    r->base.watchers = outr_watchers_new();
    r->last.run = on_last;
    r->base.backend = &outr_nameresolution_consul;
    r->loop = init->loop;
    r->timer.fire = on_time;
    r->remote = outr_remote_new(init->loop, r->tls);
    *out = &r->base;
    return OUTR_OK;
}

static void open_resolver(outr_resolver *base OUTR_UNUSED, outr_op *op)
{
    finish(op);
}

static void on_remote_closed(outr_op *inner)
{
    resolver *r = OUTR_CONTAINER(inner, resolver, inner);
    outr_loop_post(r->loop, &r->last);
}

static void close_remote(resolver *r)
{
    outr_op_init(&r->inner, r->loop, NULL, 0, on_remote_closed);
    outr_remote_close(r->remote, &r->inner);
}

static void on_left(outr_op *inner)
{
    request *q = OUTR_CONTAINER(inner, request, inner);
    resolver *r = q->r;
    outr_arena_free(q->arena);
    close_remote(r);
}

static void leave(resolver *r)
{
    if (!r->c.deregisters || !r->is_registered) {
        close_remote(r);
        return;
    }
    outr_str path = outr_arena_join(r->arena, OUTR_STR("/v1/agent/service/deregister/"),
                                    outr_percent_encode(r->arena, r->id, ""), OUTR_STR_NONE);
    put(r, NULL, path, OUTR_STR(""), on_left);
}

static void on_renewal_over(outr_op *inner)
{
    request *q = OUTR_CONTAINER(inner, request, inner);
    resolver *r = q->r;
    outr_arena_free(q->arena);
    leave(r);
}

static void end_watches(resolver *r)
{
    void *item;
    pthread_mutex_lock(&r->lock);
    r->is_over = true;
    pthread_mutex_unlock(&r->lock); /* the main loop alone takes some out */
    for (size_t at = 0; outr_map_next(r->watches, &at, NULL, &item);) {
        watch *w = item;
        outr_timer_stop(r->loop, &w->timer);
        outr_op_cancel(&w->op, OUTR_CANCELLED);
    }
}

static void close_resolver(outr_resolver *base, outr_op *op)
{
    resolver *r = of(base);
    r->closing = op;
    r->is_closing = true;
    outr_op_begin(op, r, NULL);
    outr_timer_stop(r->loop, &r->timer);
    outr_watchers_close(r->base.watchers);
    end_watches(r);
    if (r->registering && !r->registering->op) { /* a renewal under way: it ends first */
        r->registering->inner.done = on_renewal_over;
        outr_op_cancel(&r->registering->inner, OUTR_CANCELLED);
        return;
    }
    leave(r);
}

const outr_resolver_backend outr_nameresolution_consul = {
    .base = {"nameresolution.consul", "v1", rows, OUTR_LEN(rows)},
    .create = create,
    .open = open_resolver,
    .close = close_resolver,
    .join = join,
    .resolve = resolve,
    .may_be_away = true,
    .cache_ns = OUTR_SEC,
};
