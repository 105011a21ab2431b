#include "base/buf.h"
#include "base/encode.h"
#include "base/json.h"
#include "components/nameresolution.h"
#include "http/remote.h"

/* Consul's HTTP API, as daprd's component uses it: instances are the passing ones of the service
 * that has the app id for its name; their internal port stands in the service's metadata
 * (contract/components.csv). */

#define CALL_NS       (5 * OUTR_SEC)
#define ANSWER_MAX    (4 * OUTR_MIB)
#define ARENA_MAX     (64 * OUTR_MIB)
#define INSTANCES_MAX 256
#define AGAIN_NS      (5 * OUTR_SEC)  /* registering, while nobody answers */
#define RENEW_NS      (30 * OUTR_SEC) /* an agent that was started anew has forgotten us */

typedef struct config {
    outr_str client, checks, tags, meta, port_key, query_options;
    bool registers, deregisters, use_cache;
} config;

static const outr_bind_row rows[] = {
    {"client", NULL, OUTR_BIND_STR, 0, offsetof(config, client), 0, 0, "{}", NULL, 0,
     "address (localhost:8500), scheme, datacenter, token"},
    {"queryOptions", NULL, OUTR_BIND_STR, 0, offsetof(config, query_options), 0, 0, "{}", NULL, 0,
     "not acted on"},
    {"checks", NULL, OUTR_BIND_STR, 0, offsetof(config, checks), 0, 0, "", NULL, 0,
     "health checks registered, as Consul has them; default: a TCP check of the internal port"},
    {"tags", NULL, OUTR_BIND_STR, 0, offsetof(config, tags), 0, 0, "[]", NULL, 0, "service tags"},
    {"meta", NULL, OUTR_BIND_STR, 0, offsetof(config, meta), 0, 0, "{}", NULL, 0,
     "service metadata"},
    {"daprPortMetaKey", NULL, OUTR_BIND_STR, 0, offsetof(config, port_key), 0, 0, "DAPR_PORT", NULL,
     0, "metadata key that holds the internal port"},
    {"selfRegister", NULL, OUTR_BIND_BOOL, 0, offsetof(config, registers), 0, 0, "false", NULL, 0,
     "register this sidecar"},
    {"selfDeregister", NULL, OUTR_BIND_BOOL, 0, offsetof(config, deregisters), 0, 0, "false", NULL,
     0, "deregister at stop"},
    {"useCache", NULL, OUTR_BIND_BOOL, 0, offsetof(config, use_cache), 0, 0, "false", NULL, 0,
     "not acted on: answers are kept for a second"},
};

typedef struct resolver {
    outr_resolver base;
    outr_arena *arena; /* of what is configured */
    config c;
    outr_str url, token, datacenter; /* "http://localhost:8500" */
    outr_json *checks, *tags, *meta;
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
} resolver;

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

static void send(request *q, const char *method, outr_str path, outr_loop *loop, outr_op_fn *done)
{
    resolver *r = q->r;
    q->call = (outr_remote_call){.arena = q->arena,
                                 .method = outr_str_from(method),
                                 .url = outr_arena_join(q->arena, r->url, path, OUTR_STR_NONE),
                                 .max_answer = ANSWER_MAX,
                                 .secret_header = OUTR_STR("X-Consul-Token")};
    outr_headers_init(&q->call.headers, q->arena);
    if (r->token.n > 0)
        outr_headers_add(&q->call.headers, OUTR_STR("X-Consul-Token"), r->token);
    outr_op_init(&q->inner, loop, q->op, outr_loop_now(loop) + CALL_NS, done);
}

/* Why it was no success, or OUTR_OK. */
static outr_code outcome(const request *q, outr_err *err)
{
    if (q->inner.err.code) {
        *err = q->inner.err;
        return err->code;
    }
    if (q->call.head.status == 200)
        return OUTR_OK;
    return outr_fail(err, OUTR_UNAVAILABLE, "Consul answered %d: " OUTR_FMT, q->call.head.status,
                     OUTR_ARG(outr_str_head(q->call.answer, 200)));
}

/* ---- questions ------------------------------------------------------------------------------- */

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
        req->instances = outr_arena_alloc(req->arena, INSTANCES_MAX * sizeof *req->instances);
    for (const outr_json *entry = rc ? NULL : list->child; entry && req->count < INSTANCES_MAX;
         entry = entry->next)
        req->count += read_instance(q->r, req->arena, entry, &req->instances[req->count]);
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
    outr_str path = outr_arena_join(arena, OUTR_STR("/v1/health/service/"),
                                    outr_percent_encode(arena, req->app_id, ""),
                                    OUTR_STR("?passing=true"));
    if (r->datacenter.n > 0)
        path = outr_arena_join(arena, path, OUTR_STR("&dc="),
                               outr_percent_encode(arena, r->datacenter, ""));
    send(q, "GET", path, op->loop, on_answer);
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
    outr_json_put(check, OUTR_STR("TCP"),
                  outr_json_string(r->arena, outr_arena_printf(r->arena,
                                                               is_v6 ? "[" OUTR_FMT "]:%u"
                                                                     : OUTR_FMT ":%u",
                                                               OUTR_ARG(self->host),
                                                               self->internal_port)));
    outr_json_push(list, check);
    return list;
}

static void write_body(resolver *r, const outr_self *self)
{
    OUTR_AUTO(outr_buf) out = OUTR_BUF_MAX(OUTR_MIB);
    outr_json *body = outr_json_new(r->arena, OUTR_JSON_OBJECT);
    outr_str app_id = outr_arena_str(r->arena, self->app_id);
    outr_str host = outr_arena_str(r->arena, self->host);
    r->id = outr_arena_printf(r->arena, OUTR_FMT "-" OUTR_FMT "-%u", OUTR_ARG(app_id),
                              OUTR_ARG(host), self->internal_port);
    outr_json_put(r->meta, r->c.port_key,
                  outr_json_string(r->arena,
                                   outr_arena_printf(r->arena, "%u", self->internal_port)));
    outr_json_put(body, OUTR_STR("ID"), outr_json_string(r->arena, r->id));
    outr_json_put(body, OUTR_STR("Name"), outr_json_string(r->arena, app_id));
    outr_json_put(body, OUTR_STR("Address"), outr_json_string(r->arena, host));
    outr_json_put(body, OUTR_STR("Port"), outr_json_number(r->arena, self->internal_port));
    outr_json_put(body, OUTR_STR("Tags"), r->tags);
    outr_json_put(body, OUTR_STR("Meta"), r->meta);
    outr_json_put(body, OUTR_STR("Checks"), r->checks ? r->checks : default_checks(r, self));
    outr_json_write(&out, body, OUTR_JSON_PLAIN);
    r->body = outr_arena_str(r->arena, outr_buf_view(&out));
}

static void join(outr_resolver *base, const outr_self *self, outr_op *op)
{
    resolver *r = of(base);
    if (!r->c.registers) {
        finish(op);
        return;
    }
    write_body(r, self);
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

static outr_code configure(resolver *r, outr_err *err)
{
    outr_json *client = NULL;
    outr_code rc = parse(&client, r, "client", r->c.client, OUTR_JSON_OBJECT, err);
    rc = rc ? rc : parse(&r->checks, r, "checks", r->c.checks, OUTR_JSON_ARRAY, err);
    rc = rc ? rc : parse(&r->tags, r, "tags", r->c.tags, OUTR_JSON_ARRAY, err);
    rc = rc ? rc : parse(&r->meta, r, "meta", r->c.meta, OUTR_JSON_OBJECT, err);
    if (rc)
        return rc;
    outr_str address = outr_json_itext(client, "address");
    outr_str scheme = outr_json_itext(client, "scheme");
    r->token = outr_json_itext(client, "token");
    r->datacenter = outr_json_itext(client, "datacenter");
    r->c.port_key = outr_arena_str(r->arena, r->c.port_key);
    r->url = outr_arena_join(r->arena, scheme.n ? scheme : OUTR_STR("http"), OUTR_STR("://"),
                             address.n ? address : OUTR_STR("localhost:8500"));
    if (outr_remote_check(r->url, err))
        return outr_wrap(err, "client.address");
    return OUTR_OK;
}

static outr_code create(outr_resolver **out, const outr_component_init *init, outr_err *err)
{
    OUTR_AUTO(outr_err_list) errors = {0};
    resolver *r = outr_alloc(sizeof *r);
    r->arena = outr_arena_new(OUTR_MIB);
    outr_code rc = outr_bind_kvs(rows, OUTR_LEN(rows), &r->c, init->metadata, &errors);
    if (rc)
        *err = errors.items[0];
    else
        rc = configure(r, err);
    if (rc) {
        outr_arena_free(r->arena);
        free(r);
        return rc;
    }
    r->base.backend = &outr_nameresolution_consul;
    r->loop = init->loop;
    r->log = init->log ? *init->log : (outr_log){0};
    r->timer.fire = on_time;
    r->remote = outr_remote_new(init->loop, NULL);
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
    outr_op *op = r->closing;
    outr_arena_free(r->arena);
    free(r);
    outr_op_finish(op);
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

static void close_resolver(outr_resolver *base, outr_op *op)
{
    resolver *r = of(base);
    r->closing = op;
    r->is_closing = true;
    outr_op_begin(op, r, NULL);
    outr_timer_stop(r->loop, &r->timer);
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
