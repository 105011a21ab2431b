#include "components/module.h"
#include "components/registry.h"

extern const outr_state_backend outr_state_in_memory, outr_state_sqlite, outr_state_pluggable;
extern const outr_pubsub_backend outr_pubsub_in_memory, outr_pubsub_sqlite, outr_pubsub_pluggable;
extern const outr_secret_backend outr_secretstores_local_env, outr_secretstores_local_file,
    outr_secretstores_pluggable;
extern const outr_binding_backend outr_bindings_cron, outr_bindings_http,
    outr_bindings_localstorage, outr_bindings_pluggable;
extern const outr_middleware_backend outr_middleware_uppercase, outr_middleware_routerchecker,
    outr_middleware_routeralias, outr_middleware_ratelimit, outr_middleware_bearer,
    outr_middleware_oauth2clientcredentials;
extern const outr_resolver_backend outr_nameresolution_mdns, outr_nameresolution_sqlite,
    outr_nameresolution_static, outr_nameresolution_nameformat,
    outr_nameresolution_structuredformat, outr_nameresolution_dns, outr_nameresolution_kubernetes,
    outr_nameresolution_consul, outr_nameresolution_etcd;

static const outr_state_backend *const states[] = {&outr_state_in_memory, &outr_state_sqlite};
static const outr_pubsub_backend *const brokers[] = {&outr_pubsub_in_memory, &outr_pubsub_sqlite};
static const outr_secret_backend *const secrets[] = {&outr_secretstores_local_env,
                                                     &outr_secretstores_local_file};
static const outr_binding_backend *const bindings[] = {&outr_bindings_cron, &outr_bindings_http,
                                                       &outr_bindings_localstorage};
static const outr_middleware_backend *const middlewares[] = {
    &outr_middleware_uppercase,   &outr_middleware_routerchecker,
    &outr_middleware_routeralias, &outr_middleware_ratelimit,
    &outr_middleware_bearer,      &outr_middleware_oauth2clientcredentials};
static const outr_resolver_backend *const resolvers[] = {
    &outr_nameresolution_mdns,
    &outr_nameresolution_sqlite,
    &outr_nameresolution_static,
    &outr_nameresolution_nameformat,
    &outr_nameresolution_structuredformat,
    &outr_nameresolution_dns,
    &outr_nameresolution_kubernetes,
    &outr_nameresolution_consul,
    &outr_nameresolution_etcd,
};

static const outr_module_type modules[] = {
    {"state.redis", "libhiredis0.14"},         {"pubsub.redis", "libhiredis0.14"},
    {"bindings.redis", "libhiredis0.14"},      {"lock.redis", "libhiredis0.14"},
    {"configuration.redis", "libhiredis0.14"}, {"pubsub.kafka", "librdkafka1"},
    {"bindings.kafka", "librdkafka1"},
};

static bool has_version(const char *versions, outr_str version)
{
    outr_str rest = outr_str_from(versions), one;
    while (rest.p) {
        rest = outr_str_cut(rest, '|', &one);
        if (outr_str_iis(version, "") || outr_str_ieq(one, version))
            return true;
    }
    return false;
}

/* Every vtable begins with its outr_backend. */
#define FIND(table, type, version)                                                                 \
    for (size_t i = 0; i < OUTR_LEN(table); i++) {                                                 \
        if (outr_str_iis(type, (table)[i]->base.type) &&                                           \
            has_version((table)[i]->base.versions, version))                                       \
            return (table)[i];                                                                     \
    }                                                                                              \
    return NULL

const outr_state_backend *outr_registry_state(outr_str type, outr_str version)
{
    FIND(states, type, version);
}

const outr_pubsub_backend *outr_registry_pubsub(outr_str type, outr_str version)
{
    FIND(brokers, type, version);
}

const outr_secret_backend *outr_registry_secret(outr_str type, outr_str version)
{
    FIND(secrets, type, version);
}

const outr_binding_backend *outr_registry_binding(outr_str type, outr_str version)
{
    FIND(bindings, type, version);
}

const outr_middleware_backend *outr_registry_middleware(outr_str type, outr_str version)
{
    FIND(middlewares, type, version);
}

const outr_resolver_backend *outr_registry_resolver(outr_str type, outr_str version)
{
    FIND(resolvers, type, version);
}

/* A socket has no versions: it stands for the first, as in daprd. */
static bool is_first_version(outr_str version)
{
    return version.n == 0 || outr_str_iis(version, "v0") || outr_str_iis(version, "v1");
}

static const outr_module_type *find_module(outr_str type)
{
    for (size_t i = 0; i < OUTR_LEN(modules); i++) {
        if (outr_str_iis(type, modules[i].type))
            return &modules[i];
    }
    return NULL;
}

/* A vtable by the first word of its type. */
static void put(outr_backends *found, const outr_backend *backend)
{
    outr_str category;
    outr_str_cut(outr_str_from(backend->type), '.', &category);
    if (outr_str_is(category, "state"))
        found->state = OUTR_CONTAINER(backend, outr_state_backend, base);
    else if (outr_str_is(category, "pubsub"))
        found->pubsub = OUTR_CONTAINER(backend, outr_pubsub_backend, base);
    else if (outr_str_is(category, "secretstores"))
        found->secrets = OUTR_CONTAINER(backend, outr_secret_backend, base);
    else if (outr_str_is(category, "bindings"))
        found->binding = OUTR_CONTAINER(backend, outr_binding_backend, base);
    else if (outr_str_is(category, "lock"))
        found->lock = OUTR_CONTAINER(backend, outr_lock_backend, base);
    else if (outr_str_is(category, "configuration"))
        found->configuration = OUTR_CONTAINER(backend, outr_configuration_backend, base);
}

static outr_code load_module(outr_backends *found, const outr_module_type *type, outr_str version,
                             outr_err *err)
{
    const outr_backend *backend = NULL;
    outr_code rc = outr_module_load(&backend, type, err);
    if (!rc && has_version(backend->versions, version))
        put(found, backend);
    return rc;
}

outr_code outr_registry_find(outr_backends *out, outr_str type, outr_str version,
                             outr_str sockets_dir, outr_err *err)
{
    outr_backends found = {
        .state = outr_registry_state(type, version),
        .pubsub = outr_registry_pubsub(type, version),
        .secrets = outr_registry_secret(type, version),
        .binding = outr_registry_binding(type, version),
        .middleware = outr_registry_middleware(type, version),
    };
    bool is_ours =
        found.state || found.pubsub || found.secrets || found.binding || found.middleware;
    outr_str category, name = outr_str_cut(type, '.', &category);
    const outr_module_type *module = is_ours ? NULL : find_module(type);
    outr_code rc = module ? load_module(&found, module, version, err) : OUTR_OK;
    if (rc)
        return rc;
    *out = found;
    if (is_ours || module || sockets_dir.n == 0 || name.n == 0 || !is_first_version(version))
        return OUTR_OK;
    if (outr_str_iis(category, "state"))
        out->state = &outr_state_pluggable;
    else if (outr_str_iis(category, "pubsub"))
        out->pubsub = &outr_pubsub_pluggable;
    else if (outr_str_iis(category, "secretstores"))
        out->secrets = &outr_secretstores_pluggable;
    else if (outr_str_iis(category, "bindings"))
        out->binding = &outr_bindings_pluggable;
    return OUTR_OK;
}
