#include "api/core/metadata.h"

#include <pthread.h>

#include "api/core/mesh.h"
#include "base/copy.h"

#define ENDPOINTS_MAX       (256 * OUTR_KIB) /* of text: some 1500 instances */
#define ENDPOINTS_ARENA_MAX (64 * OUTR_MIB)
#define MICROSECOND ((uint64_t)1000) /* ns */

/* ---- pairs that clients set ------------------------------------------------------------------ */

typedef struct entry {
    outr_str key, value;
} entry;

struct outr_metadata {
    /* A lock: pairs are set a few times in a sidecar's life and read by whoever asks, on any loop.
     */
    pthread_mutex_t lock;
    entry *entries;
    size_t count, cap;
    size_t bytes; /* of all keys and values */
};

outr_metadata *outr_metadata_new(void)
{
    outr_metadata *metadata = outr_alloc(sizeof *metadata);
    pthread_mutex_init(&metadata->lock, NULL);
    return metadata;
}

void outr_metadata_free(outr_metadata *metadata)
{
    if (!metadata)
        return;
    for (size_t i = 0; i < metadata->count; i++) {
        free((void *)metadata->entries[i].key.p);
        free((void *)metadata->entries[i].value.p);
    }
    free(metadata->entries);
    pthread_mutex_destroy(&metadata->lock);
    free(metadata);
}

static outr_str copy(outr_str s)
{
    return outr_str_of(outr_str_dup(s), s.n);
}

static outr_code check_bytes(const outr_metadata *m, size_t more, size_t less, outr_err *err)
{
    if (more <= OUTR_METADATA_BYTES_MAX && m->bytes - less <= OUTR_METADATA_BYTES_MAX - more)
        return OUTR_OK;
    return outr_fail(err, OUTR_RESOURCE_EXHAUSTED, "more than %d bytes of metadata",
                     OUTR_METADATA_BYTES_MAX);
}

static outr_code set_locked(outr_metadata *m, outr_str key, outr_str value, outr_err *err)
{
    for (size_t i = 0; i < m->count; i++) {
        entry *e = &m->entries[i];
        if (!outr_str_eq(e->key, key))
            continue;
        if (check_bytes(m, value.n, e->value.n, err))
            return err->code;
        m->bytes = m->bytes - e->value.n + value.n;
        free((void *)e->value.p);
        e->value = copy(value);
        return OUTR_OK;
    }
    if (check_bytes(m, key.n + value.n, 0, err))
        return err->code;
    if (m->count == OUTR_METADATA_KEYS_MAX)
        return outr_fail(err, OUTR_RESOURCE_EXHAUSTED, "more than %d metadata keys",
                         OUTR_METADATA_KEYS_MAX);
    if (m->count == m->cap) {
        m->cap = m->cap ? m->cap * 2 : 8;
        m->entries = outr_realloc(m->entries, m->cap * sizeof *m->entries);
    }
    m->entries[m->count++] = (entry){copy(key), copy(value)};
    m->bytes += key.n + value.n;
    return OUTR_OK;
}

outr_code outr_metadata_set(outr_metadata *metadata, outr_str key, outr_str value, outr_err *err)
{
    if (key.n == 0)
        return OUTR_OK;
    pthread_mutex_lock(&metadata->lock);
    outr_code rc = set_locked(metadata, key, value, err);
    pthread_mutex_unlock(&metadata->lock);
    return rc;
}

outr_kvs outr_metadata_all(outr_metadata *metadata, outr_arena *arena)
{
    pthread_mutex_lock(&metadata->lock);
    outr_kv *items = outr_arena_alloc(arena, (metadata->count + 1) * sizeof *items);
    size_t count = metadata->count;
    for (size_t i = 0; i < count; i++)
        items[i] = (outr_kv){outr_arena_str(arena, metadata->entries[i].key),
                             outr_arena_str(arena, metadata->entries[i].value)};
    pthread_mutex_unlock(&metadata->lock);
    return (outr_kvs){items, count};
}

/* ---- the picture ----------------------------------------------------------------------------- */

static const char *const built_in[] = {"HotReload", "WorkflowsRemoteActivityReminder"};

static bool is_built_in(outr_str name)
{
    for (size_t i = 0; i < OUTR_LEN(built_in); i++) {
        if (outr_str_is(name, built_in[i]))
            return true;
    }
    return false;
}

static void read_features(const outr_core *core, outr_core_metadata *out)
{
    const outr_configuration *c = &core->api->snapshot->configuration;
    outr_str *names =
        outr_arena_alloc(core->arena, (OUTR_LEN(built_in) + c->feature_count) * sizeof *names);
    size_t n = 0;
    for (size_t i = 0; i < OUTR_LEN(built_in); i++) {
        bool is_on = true;
        for (size_t j = 0; j < c->feature_count; j++) {
            if (outr_str_is(c->features[j].name, built_in[i]))
                is_on = c->features[j].is_on;
        }
        if (is_on)
            names[n++] = outr_str_from(built_in[i]);
    }
    for (size_t j = 0; j < c->feature_count; j++) {
        if (c->features[j].is_on && !is_built_in(c->features[j].name))
            names[n++] = c->features[j].name;
    }
    out->features = names;
    out->feature_count = n;
}

static void read_components(const outr_core *core, outr_core_metadata *out)
{
    size_t n = 0;
    while (outr_view_at(core->view, n))
        n++;
    out->components = outr_arena_alloc(core->arena, (n + 1) * sizeof *out->components);
    for (; out->component_count < n; out->component_count++)
        out->components[out->component_count] = outr_view_at(core->view, out->component_count);
}

/* Only for those who ask: to the others metadata looks as daprd's does. */
static outr_str endpoints_of(const outr_core *core, outr_str app)
{
    OUTR_AUTO(outr_buf) text = OUTR_BUF_MAX(ENDPOINTS_MAX);
    outr_arena *arena = outr_arena_new(ENDPOINTS_ARENA_MAX);
    const outr_core inner = {core->api, core->view, arena};
    outr_json_write(&text,
                    outr_core_endpoints(&inner, outr_str_is(app, "*") ? OUTR_STR_NONE : app),
                    OUTR_JSON_PLAIN);
    outr_str out = text.is_full ? OUTR_STR("{\"error\":\"too many instances for this answer\"}")
                                : outr_arena_str(core->arena, outr_buf_view(&text));
    outr_arena_free(arena);
    return out;
}

static void read_extended(const outr_core *core, const outr_headers *headers,
                          outr_core_metadata *out)
{
    outr_str app = outr_headers_get(headers, OUTR_METADATA_ENDPOINTS);
    const outr_kvs left_out = outr_view_left_out(core->view);
    outr_kv *own = outr_arena_alloc(core->arena, (left_out.count + 2) * sizeof *own);
    own[0] = (outr_kv){OUTR_STR("daprRuntimeVersion"), OUTR_STR(OUTR_DAPR_VERSION)};
    for (size_t i = 0; i < left_out.count; i++) {
        const outr_kv *c = &left_out.items[i];
        own[i + 1] = (outr_kv){
            outr_arena_printf(core->arena, "outrigger.leftOut." OUTR_FMT, OUTR_ARG(c->key)),
            outr_arena_str(core->arena, c->value)};
    }
    size_t count = left_out.count + 1;
    if (app.n > 0)
        own[count++] = (outr_kv){OUTR_STR("outrigger.endpoints"), endpoints_of(core, app)};
    out->extended = outr_core_merge(core->arena, (outr_kvs){own, count},
                                    outr_metadata_all(core->api->metadata, core->arena));
}

typedef struct subscription_list {
    outr_arena *arena;
    outr_subscription_info *items;
    size_t count, cap;
} subscription_list;

/* Under the subscriptions' lock: everything is copied. */
static void add_subscription(void *ctx, const outr_subscription_info *info)
{
    subscription_list *list = ctx;
    outr_arena *arena = list->arena;
    if (list->count == list->cap) {
        list->cap = list->cap ? list->cap * 2 : 8;
        outr_subscription_info *items = outr_arena_alloc(arena, list->cap * sizeof *items);
        if (list->count)
            memcpy(items, list->items, list->count * sizeof *items);
        list->items = items;
    }
    outr_subscription_rule *rules = outr_arena_alloc(arena, (info->rule_count + 1) * sizeof *rules);
    for (size_t i = 0; i < info->rule_count; i++) {
        rules[i].match = outr_arena_str(arena, info->rules[i].match);
        rules[i].path = outr_arena_str(arena, info->rules[i].path);
    }
    list->items[list->count++] = (outr_subscription_info){
        .pubsub = outr_arena_str(arena, info->pubsub),
        .topic = outr_arena_str(arena, info->topic),
        .dead_letter_topic = outr_arena_str(arena, info->dead_letter_topic),
        .metadata = outr_kvs_copy(arena, info->metadata),
        .rules = rules,
        .rule_count = info->rule_count,
        .type = info->type,
    };
}

static void read_subscriptions(const outr_core *core, outr_core_metadata *out)
{
    subscription_list list = {.arena = core->arena};
    outr_pubsub_each(core->api->pubsub, add_subscription, &list);
    out->subscriptions = list.items;
    out->subscription_count = list.count;
}

static void read_endpoints(const outr_core *core, outr_core_metadata *out)
{
    const outr_snapshot *snapshot = core->api->snapshot;
    outr_str *names = outr_arena_alloc(core->arena, (snapshot->endpoint_count + 1) * sizeof *names);
    for (size_t i = 0; i < snapshot->endpoint_count; i++)
        names[i] = snapshot->endpoints[i].base.name;
    out->endpoints = names;
    out->endpoint_count = snapshot->endpoint_count;
}

/* A decimal fraction without trailing zeros: 1500 of 1000 is "1.5". */
static size_t print_fraction(char *out, size_t room, uint64_t value, uint64_t unit)
{
    size_t n = (size_t)snprintf(out, room, "%llu", (unsigned long long)(value / unit));
    uint64_t rest = value % unit;
    if (rest)
        out[n++] = '.';
    while (rest) {
        rest *= 10;
        out[n++] = (char)('0' + rest / unit);
        rest %= unit;
    }
    return n;
}

/* As Go's time.Duration prints it: "1m30s", "1.5s", "250ms". */
static outr_str duration(outr_arena *arena, uint64_t ns)
{
    char text[64];
    size_t n = 0;
    if (ns > 0 && ns < OUTR_SEC) {
        uint64_t unit = ns < MICROSECOND ? 1 : ns < OUTR_MS ? MICROSECOND : OUTR_MS;
        n = print_fraction(text, sizeof text, ns, unit);
        return outr_arena_printf(arena, "%.*s%s", (int)n, text,
                                 unit == 1             ? "ns"
                                 : unit == MICROSECOND ? "\u00b5s"
                                                       : "ms");
    }
    uint64_t hours = ns / (3600 * OUTR_SEC), minutes = ns / (60 * OUTR_SEC);
    if (hours)
        n += (size_t)snprintf(text, sizeof text, "%lluh", (unsigned long long)hours);
    if (minutes)
        n += (size_t)snprintf(text + n, sizeof text - n, "%llum", (unsigned long long)minutes % 60);
    n += print_fraction(text + n, sizeof text - n, ns % (60 * OUTR_SEC), OUTR_SEC);
    return outr_arena_printf(arena, "%.*ss", (int)n, text);
}

static void read_app(const outr_core *core, outr_core_metadata *out)
{
    const outr_settings *s = core->api->settings;
    bool is_grpc = s->app_protocol == OUTR_APP_GRPC || s->app_protocol == OUTR_APP_GRPCS;
    out->app.port = s->app_port;
    out->app.protocol = s->app_protocol_name;
    out->app.channel_address = s->app_channel_address;
    out->app.max_concurrency = s->app_max_concurrency;
    out->app.has_health = s->app_health_check;
    if (!s->app_health_check)
        return;
    out->app.health_path = is_grpc ? OUTR_STR_NONE : s->app_health_path;
    out->app.health_interval = duration(core->arena, s->app_health_interval_ns);
    out->app.health_timeout = duration(core->arena, s->app_health_timeout_ns);
    out->app.health_threshold = s->app_health_threshold;
}

void outr_core_metadata_read(const outr_core *core, const outr_headers *headers,
                             outr_core_metadata *out)
{
    *out = (outr_core_metadata){
        .id = core->api->settings->app_id,
        .runtime_version = OUTR_STR(OUTR_DAPR_VERSION),
        .actors = {.status = OUTR_STR("DISABLED"),
                   .placement = OUTR_STR("placement: disconnected")},
    };
    read_features(core, out);
    read_components(core, out);
    read_extended(core, headers, out);
    read_subscriptions(core, out);
    read_endpoints(core, out);
    read_app(core, out);
}

const char *outr_core_subscription_type(const outr_subscription_info *info)
{
    static const char *const types[] = {
        [OUTR_SUB_DECLARATIVE] = "DECLARATIVE",
        [OUTR_SUB_PROGRAMMATIC] = "PROGRAMMATIC",
        [OUTR_SUB_STREAMING] = "STREAMING",
    };
    return types[info->type];
}
