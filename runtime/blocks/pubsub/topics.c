#include "blocks/pubsub/topics.h"

static outr_str setting(outr_kvs metadata, const char *name)
{
    const outr_kv *kv = outr_kvs_find(metadata, name);
    return kv ? outr_str_trim(kv->value) : OUTR_STR("");
}

static bool list_has(outr_str list, outr_str topic)
{
    while (list.p && list.n) {
        outr_str one;
        list = outr_str_cut(list, ',', &one);
        if (outr_str_eq(outr_str_trim(one), topic))
            return true;
    }
    return false;
}

/* The topics of one app in "app=t1,t2;app2=t3"; p == NULL: the app is not named. */
static outr_str scope_of(outr_str scopes, outr_str app_id)
{
    while (scopes.p && scopes.n) {
        outr_str one, app;
        scopes = outr_str_cut(scopes, ';', &one);
        outr_str topics = outr_str_cut(one, '=', &app);
        if (topics.p && outr_str_eq(outr_str_trim(app), app_id))
            return topics;
    }
    return OUTR_STR_NONE;
}

bool outr_topic_is_allowed(outr_kvs metadata, const char *which, outr_str app_id, outr_str topic)
{
    outr_str allowed = setting(metadata, "allowedTopics"),
             is_protected = setting(metadata, "protectedTopics");
    outr_str scope = scope_of(setting(metadata, which), app_id);
    if (allowed.n && !list_has(allowed, topic))
        return false;
    if (scope.p)
        return list_has(scope, topic);
    return !list_has(is_protected, topic);
}

outr_str outr_topic_of_broker(char place[OUTR_TOPIC_MAX], const outr_component_spec *spec,
                              outr_str namespace_, outr_str topic)
{
    for (size_t i = 0; i < spec->metadata_count; i++) {
        if (outr_str_search(spec->metadata[i].value, OUTR_STR("{namespace}")) < 0)
            continue;
        size_t n = OUTR_MIN(namespace_.n, (size_t)OUTR_TOPIC_MAX);
        size_t m = OUTR_MIN(topic.n, OUTR_TOPIC_MAX - n);
        if (n)
            memcpy(place, namespace_.p, n);
        if (m)
            memcpy(place + n, topic.p, m);
        return outr_str_of(place, n + m);
    }
    return topic;
}
