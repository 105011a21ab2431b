#include "config/kinds/kinds.h"

#define S(field)    offsetof(outr_subscription_spec, field)
#define RULE(field) offsetof(outr_subscription_rule, field)

#define BULK_MESSAGES 100
#define BULK_AWAIT_MS 1000

static const outr_yaml_row bulk[] = {
    {"enabled", OUTR_YT_BOOL, S(is_bulk), 0, NULL, 0, 0},
    {"maxMessagesCount", OUTR_YT_INT, S(bulk_max_messages), 0, NULL, 0, 0},
    {"maxAwaitDurationMs", OUTR_YT_INT, S(bulk_max_await_ms), 0, NULL, 0, 0},
    {0},
};

static const outr_yaml_row rule[] = {
    {"match", OUTR_YT_TEXT, RULE(match), 0, NULL, 0, 0},
    {"path", OUTR_YT_TEXT, RULE(path), OUTR_YT_REQUIRED, NULL, 0, 0},
    {0},
};

static const outr_yaml_row routes[] = {
    {"rules", OUTR_YT_LIST, S(rules), 0, rule, sizeof(outr_subscription_rule), 0},
    {"default", OUTR_YT_SKIP, 0, 0, NULL, 0, 0},
    {0},
};

#define COMMON_SPEC                                                                                \
    {"pubsubname", OUTR_YT_TEXT, S(pubsub), OUTR_YT_REQUIRED, NULL, 0, 0},                         \
        {"topic", OUTR_YT_TEXT, S(topic), OUTR_YT_REQUIRED, NULL, 0, 0},                           \
        {"metadata", OUTR_YT_KVS, S(metadata), 0, NULL, 0, 0},                                     \
        {"deadLetterTopic", OUTR_YT_TEXT, S(dead_letter_topic), 0, NULL, 0, 0},                    \
    {                                                                                              \
        "bulkSubscribe", OUTR_YT_GROUP, 0, 0, bulk, 0, 0                                           \
    }

static const outr_yaml_row spec_v1[] = {
    COMMON_SPEC, {"route", OUTR_YT_SKIP, 0, OUTR_YT_REQUIRED, NULL, 0, 0}, {0}};
static const outr_yaml_row spec_v2[] = {
    COMMON_SPEC, {"routes", OUTR_YT_GROUP, 0, 0, routes, 0, 0}, {0}};

#define TOP(spec)                                                                                  \
    {"apiVersion", OUTR_YT_SKIP, 0, 0, NULL, 0, 0}, {"kind", OUTR_YT_SKIP, 0, 0, NULL, 0, 0},      \
        {"metadata", OUTR_YT_SKIP, 0, 0, NULL, 0, 0}, {"scopes", OUTR_YT_SKIP, 0, 0, NULL, 0, 0},  \
        {"spec", OUTR_YT_GROUP, 0, OUTR_YT_REQUIRED, spec, 0, 0},                                  \
    {                                                                                              \
        0                                                                                          \
    }

static const outr_yaml_row v1[] = {TOP(spec_v1)};
static const outr_yaml_row v2[] = {TOP(spec_v2)};

/* The default path is the last rule, with an empty match. */
static void add_default(const outr_kind_env *env, outr_subscription_spec *out,
                        const outr_yaml *path)
{
    outr_subscription_rule *rules =
        outr_arena_alloc(env->binder->arena, (out->rule_count + 1) * sizeof *rules);
    if (out->rule_count)
        memcpy(rules, out->rules, out->rule_count * sizeof *rules);
    rules[out->rule_count++].path = path->text;
    out->rules = rules;
}

void outr_kind_subscription(const outr_kind_env *env, const outr_yaml *root, bool is_v2,
                            outr_subscription_spec *out)
{
    const outr_yaml *spec = outr_yaml_find(root, "spec");
    const outr_yaml *otherwise = is_v2 ? outr_yaml_find(outr_yaml_find(spec, "routes"), "default")
                                       : outr_yaml_find(spec, "route");
    outr_bind_yaml(env->binder, is_v2 ? v2 : v1, root, "", out);
    if (out->bulk_max_messages <= 0)
        out->bulk_max_messages = BULK_MESSAGES;
    if (out->bulk_max_await_ms <= 0)
        out->bulk_max_await_ms = BULK_AWAIT_MS;
    if (otherwise && otherwise->kind == OUTR_YAML_SCALAR && otherwise->text.n > 0)
        add_default(env, out, otherwise);
}
