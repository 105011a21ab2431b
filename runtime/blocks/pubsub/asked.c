#include "blocks/pubsub/asked.h"

#include <dapr/proto/runtime/v1/appcallback.pb-c.h>

#include "base/json.h"

#define ASKED_ARENA  (16 * OUTR_MIB)
#define BULK_MAX     100
#define BULK_WAIT_MS 1000

typedef Dapr__Proto__Runtime__V1__ListTopicSubscriptionsResponse list_response;
typedef Dapr__Proto__Runtime__V1__TopicSubscription topic_subscription;

/* ---- over HTTP ------------------------------------------------------------------------------- */

static outr_kvs read_kvs(outr_arena *arena, const outr_json *object)
{
    size_t n = 0;
    if (!object || object->kind != OUTR_JSON_OBJECT)
        return (outr_kvs){0};
    outr_kv *items = outr_arena_alloc(arena, (object->count + 1) * sizeof *items);
    for (const outr_json *m = object->child; m; m = m->next)
        items[n++] = (outr_kv){m->key, m->kind == OUTR_JSON_STRING ? m->text : m->raw};
    return (outr_kvs){items, n};
}

/* One item of GET /dapr/subscribe; false: it has no route at all. */
static bool read_asked(outr_arena *arena, const outr_json *item, outr_subscription_spec *out)
{
    const outr_json *routes = outr_json_ifind(item, "routes"),
                    *rules = outr_json_ifind(routes, "rules"),
                    *bulk = outr_json_ifind(item, "bulkSubscribe");
    outr_str otherwise = outr_json_itext(routes, "default"), route = outr_json_itext(item, "route");
    outr_subscription_rule *list =
        outr_arena_alloc(arena, ((rules ? rules->count : 0) + 1) * sizeof *list);
    *out = (outr_subscription_spec){
        .pubsub = outr_json_itext(item, "pubsubname"),
        .topic = outr_json_itext(item, "topic"),
        .dead_letter_topic = outr_json_itext(item, "deadLetterTopic"),
        .metadata = read_kvs(arena, outr_json_ifind(item, "metadata")),
        .rules = list,
        .bulk_max_messages = BULK_MAX,
        .bulk_max_await_ms = BULK_WAIT_MS,
    };
    for (const outr_json *rule = rules ? rules->child : NULL; rule; rule = rule->next) {
        outr_str path = outr_json_itext(rule, "path");
        if (path.n)
            list[out->rule_count++] =
                (outr_subscription_rule){outr_json_itext(rule, "match"), path};
    }
    if (otherwise.n || route.n)
        list[out->rule_count++].path = otherwise.n ? otherwise : route;
    if (bulk) {
        out->is_bulk = outr_json_ibool(bulk, "enabled", false);
        outr_json_i64(outr_json_ifind(bulk, "maxMessagesCount"), &out->bulk_max_messages);
        outr_json_i64(outr_json_ifind(bulk, "maxAwaitDurationMs"), &out->bulk_max_await_ms);
    }
    return out->rule_count > 0 && out->topic.n > 0 && out->pubsub.n > 0;
}

static void take_http(outr__asked *a)
{
    outr_json *root;
    outr_err err;
    if (a->fetch.status == 404)
        return;
    if (a->fetch.status != 200) {
        OUTR_LOG(a->log, WARN,
                 "the app answered /dapr/subscribe with an error, no subscriptions are taken",
                 OUTR_I("status", a->fetch.status));
        return;
    }
    if (a->fetch.answer.n == 0)
        return;
    outr_code rc = outr_json_parse(&root, a->arena, a->fetch.answer, &err);
    if (!rc && root->kind != OUTR_JSON_ARRAY && root->kind != OUTR_JSON_NULL)
        rc = outr_fail(&err, OUTR_INVALID_ARGUMENT, "a list is expected");
    if (rc) {
        OUTR_LOG(a->log, ERROR, "the app's answer to /dapr/subscribe cannot be read",
                 OUTR_ERR(&err));
        return;
    }
    a->specs = outr_arena_alloc(a->arena, (root->count + 1) * sizeof *a->specs);
    for (const outr_json *item = root->child; item; item = item->next) {
        if (read_asked(a->arena, item, &a->specs[a->count]))
            a->count++;
        else
            OUTR_LOG(a->log, WARN, "a subscription without topic or route is left out",
                     OUTR_S("topic", outr_json_itext(item, "topic")));
    }
}

/* ---- over gRPC ------------------------------------------------------------------------------- */

static outr_subscription_rule *read_rules(outr_arena *arena, const topic_subscription *item,
                                          size_t *count)
{
    const Dapr__Proto__Runtime__V1__TopicRoutes *routes = item->routes;
    size_t n = routes ? routes->n_rules : 0;
    outr_subscription_rule *list = outr_arena_alloc(arena, (n + 1) * sizeof *list);
    *count = 0;
    for (size_t i = 0; i < n; i++)
        list[(*count)++] = (outr_subscription_rule){outr_str_from(routes->rules[i]->match),
                                                    outr_str_from(routes->rules[i]->path)};
    if (routes && routes->default_[0] != 0)
        list[(*count)++].path = outr_str_from(routes->default_);
    if (*count == 0) /* one for everything, with an empty path */
        list[(*count)++].path = OUTR_STR("");
    return list;
}

static bool read_listed(outr_arena *arena, const topic_subscription *item,
                        outr_subscription_spec *out)
{
    const Dapr__Proto__Runtime__V1__BulkSubscribeConfig *bulk = item->bulk_subscribe;
    outr_kv *metadata = outr_arena_alloc(arena, (item->n_metadata + 1) * sizeof *metadata);
    for (size_t i = 0; i < item->n_metadata; i++)
        metadata[i] = (outr_kv){outr_str_from(item->metadata[i]->key),
                                outr_str_from(item->metadata[i]->value)};
    *out = (outr_subscription_spec){
        .pubsub = outr_str_from(item->pubsub_name),
        .topic = outr_str_from(item->topic),
        .dead_letter_topic = outr_str_from(item->dead_letter_topic),
        .metadata = {metadata, item->n_metadata},
        .bulk_max_messages = BULK_MAX,
        .bulk_max_await_ms = BULK_WAIT_MS,
    };
    out->rules = read_rules(arena, item, &out->rule_count);
    if (bulk) {
        out->is_bulk = bulk->enabled;
        if (bulk->max_messages_count > 0)
            out->bulk_max_messages = bulk->max_messages_count;
        if (bulk->max_await_duration_ms > 0)
            out->bulk_max_await_ms = bulk->max_await_duration_ms;
    }
    return out->topic.n > 0 && out->pubsub.n > 0;
}

/* UNIMPLEMENTED: the app has none. Else it is asked again. */
static outr_code take_grpc(outr__asked *a, const outr_err *op_err, outr_err *err)
{
    list_response *reply;
    if (outr_app_unary_result(
            &a->unary, &reply,
            &dapr__proto__runtime__v1__list_topic_subscriptions_response__descriptor, op_err, err))
        return err->code == OUTR_UNIMPLEMENTED ? OUTR_OK : err->code;
    a->specs = outr_arena_alloc(a->arena, (reply->n_subscriptions + 1) * sizeof *a->specs);
    for (size_t i = 0; i < reply->n_subscriptions; i++) {
        const topic_subscription *item = reply->subscriptions[i];
        if (read_listed(a->arena, item, &a->specs[a->count]))
            a->count++;
        else
            OUTR_LOG(a->log, WARN, "a subscription without topic or pubsub is left out",
                     OUTR_S("topic", outr_str_from(item->topic)));
    }
    return OUTR_OK;
}

/* ---- asking ---------------------------------------------------------------------------------- */

static void on_answer(outr_op *inner)
{
    outr__asked *a = OUTR_CONTAINER(inner, outr__asked, inner);
    outr_err err = inner->err;
    if (outr_app_speaks_grpc(a->app))
        err.code = take_grpc(a, &inner->err, &err);
    else if (!err.code)
        take_http(a);
    if (err.code)
        outr_op_fail(a->op, &err);
    else
        outr_op_finish(a->op);
}

static void on_cancel(outr_op *op)
{
    outr__asked *a = op->impl;
    outr_op_cancel(&a->inner, op->err.code);
}

static void start_http(outr__asked *a)
{
    a->fetch = (outr_app_fetch){.method = OUTR_STR("GET"),
                                .target = OUTR_STR("/dapr/subscribe"),
                                .call = {.skip_limit = true}};
    outr_headers_init(&a->fetch.headers, a->arena);
    outr_headers_add(&a->fetch.headers, OUTR_STR("Content-Type"), OUTR_STR("application/json"));
    outr_app_fetch_start(a->app, &a->fetch, &a->inner);
}

static void start_grpc(outr__asked *a)
{
    const Google__Protobuf__Empty nothing = GOOGLE__PROTOBUF__EMPTY__INIT;
    a->unary = (outr_app_unary){.arena = a->arena, .skip_limit = true};
    outr_headers_init(&a->unary.metadata, a->arena);
    outr_app_unary_start(a->app, &a->unary,
                         "/dapr.proto.runtime.v1.AppCallback/ListTopicSubscriptions", &nothing,
                         &a->inner);
}

void outr__asked_start(outr__asked *a, outr_op *op)
{
    outr__asked_done(a);
    a->arena = outr_arena_new(ASKED_ARENA);
    a->op = op;
    outr_op_begin(op, a, on_cancel);
    outr_op_init(&a->inner, a->loop, op, 0, on_answer);
    if (outr_app_speaks_grpc(a->app))
        start_grpc(a);
    else
        start_http(a);
}

void outr__asked_done(outr__asked *a)
{
    outr_arena_free(a->arena);
    a->arena = NULL;
    a->specs = NULL;
    a->count = 0;
}
