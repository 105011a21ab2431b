#include "api/http/http_api.h"
#include "base/json.h"

/* Secrets: one and all of a store, under the scopes of the Configuration. */

static const outr_metric_desc count = {"dapr_component_secret_count",
                                       "secret reads",
                                       OUTR_COUNTER,
                                       0,
                                       {"component", "namespace", "operation", "success"}};
static const outr_metric_desc latencies = {"dapr_component_secret_latencies",
                                           "time of secret reads, ms",
                                           OUTR_HISTOGRAM,
                                           OUTR_BUCKETS_LATENCY_MS,
                                           {"component", "namespace", "operation", "success"}};

typedef struct secret_request {
    outr_secret_get get;
    const outr_component *store;
    const outr_secret_scope *scope;
    uint64_t began_ns;
} secret_request;

static void fail(outr_api_request *r, outr_reason reason, outr_str text)
{
    outr_err err;
    outr_fail_reason(&err, (outr_code)outr_reason_find(reason)->grpc_status, reason, OUTR_FMT,
                     OUTR_ARG(text));
    outr_api_fail(r, &err, NULL);
}

static bool is_in(const outr_str *list, size_t n, outr_str name)
{
    for (size_t i = 0; i < n; i++) {
        if (outr_str_eq(list[i], name))
            return true;
    }
    return false;
}

static bool is_allowed(const outr_secret_scope *scope, outr_str name)
{
    if (!scope)
        return true;
    if (scope->allowed_count > 0)
        return is_in(scope->allowed, scope->allowed_count, name);
    return !is_in(scope->denied, scope->denied_count, name) && !scope->is_deny_default;
}

static void write_values(outr_buf *out, outr_kvs values)
{
    outr_buf_char(out, '{');
    for (size_t i = 0; i < values.count; i++) {
        if (i)
            outr_buf_char(out, ',');
        outr_json_quote(out, values.items[i].key);
        outr_buf_char(out, ':');
        outr_json_quote(out, values.items[i].value);
    }
    outr_buf_char(out, '}');
}

static void note(const outr_api_request *r, bool is_good)
{
    const secret_request *s = r->user;
    const outr_str labels[] = {s->store->spec->base.name, OUTR_STR(""),
                               s->get.is_bulk ? OUTR_STR("bulk_get") : OUTR_STR("get"),
                               is_good ? OUTR_STR("true") : OUTR_STR("false")};
    outr_metric_count(r->api->metrics, &count, labels, 1);
    outr_metric_count(r->api->metrics, &latencies, labels,
                      (double)(outr_loop_update(r->api->loop) - s->began_ns) / (double)OUTR_MS);
}

static void on_done(outr_op *op)
{
    outr_api_request *r = OUTR_CONTAINER(op, outr_api_request, op);
    secret_request *s = r->user;
    OUTR_AUTO(outr_buf) out = OUTR_BUF_MAX(16 * OUTR_MIB);
    note(r, !op->err.code);
    if (op->err.code) {
        outr_str store = s->store->spec->base.name;
        fail(r, OUTR_REASON_SECRET_GET,
             s->get.is_bulk
                 ? outr_arena_printf(r->x->arena,
                                     "failed getting secrets from secret store " OUTR_FMT ": %s",
                                     OUTR_ARG(store), op->err.text)
                 : outr_arena_printf(r->x->arena,
                                     "failed getting secret with key " OUTR_FMT
                                     " from secret store " OUTR_FMT ": %s",
                                     OUTR_ARG(s->get.name), OUTR_ARG(store), op->err.text));
        return;
    }
    if (!s->get.is_bulk) {
        write_values(&out, s->get.count ? s->get.secrets[0].values : (outr_kvs){0});
        outr_api_reply(r, 200, "application/json", outr_buf_view(&out));
        return;
    }
    outr_buf_char(&out, '{');
    for (size_t i = 0; i < s->get.count; i++) {
        const outr_secret *secret = &s->get.secrets[i];
        if (!is_allowed(s->scope, secret->name))
            continue;
        if (out.n > 1)
            outr_buf_char(&out, ',');
        outr_json_quote(&out, secret->name);
        outr_buf_char(&out, ':');
        write_values(&out, secret->values);
    }
    outr_buf_char(&out, '}');
    outr_api_reply(r, 200, "application/json", outr_buf_view(&out));
}

static void read_secret(outr_api_request *r, bool is_bulk)
{
    const outr_configuration *c = &r->api->snapshot->configuration;
    secret_request *s = outr_arena_alloc(r->x->arena, sizeof *s);
    r->user = s;
    s->store = outr_view_find(r->view, OUTR_KIND_SECRETS, r->params[0]);
    if (outr_view_count(r->view, OUTR_KIND_SECRETS) == 0) {
        fail(r, OUTR_REASON_SECRET_STORES_NOT_CONFIGURED,
             OUTR_STR("secret store is not configured"));
        return;
    }
    if (!s->store) {
        fail(r, OUTR_REASON_SECRET_STORE_NOT_FOUND,
             outr_arena_printf(r->x->arena, "failed finding secret store with key " OUTR_FMT,
                               OUTR_ARG(r->params[0])));
        return;
    }
    for (size_t i = 0; i < c->secret_scope_count; i++) {
        if (outr_str_eq(c->secret_scopes[i].store, r->params[0]))
            s->scope = &c->secret_scopes[i];
    }
    if (!is_bulk && !is_allowed(s->scope, r->params[1])) {
        fail(r, OUTR_REASON_PERMISSION_DENIED,
             outr_arena_printf(r->x->arena,
                               "access denied by policy to get \"" OUTR_FMT "\" from \"" OUTR_FMT
                               "\"",
                               OUTR_ARG(r->params[1]), OUTR_ARG(r->params[0])));
        return;
    }
    s->began_ns = outr_loop_now(r->api->loop);
    s->get = (outr_secret_get){.arena = r->x->arena,
                               .name = r->params[1],
                               .is_bulk = is_bulk,
                               .metadata = outr_api_metadata(r)};
    outr_op_init(&r->op, r->api->loop, NULL, 0, on_done);
    s->store->secrets->backend->get(s->store->secrets, &s->get, &r->op);
}

static void get(outr_api_request *r)
{
    read_secret(r, false);
}

static void get_all(outr_api_request *r)
{
    read_secret(r, true);
}

const outr_api_route outr_routes_secrets[] = {
    {"GET", "/v1.0/secrets/{store}/{key}", 0, "secrets", "v1", NULL, get, NULL},
    {"GET", "/v1.0/secrets/{store}/bulk", 0, "secrets", "v1", NULL, get_all, NULL},
    {0},
};
