#include "components/registry.h"

extern const outr_state_backend outr_state_in_memory, outr_state_sqlite, outr_state_pluggable;
extern const outr_pubsub_backend outr_pubsub_in_memory, outr_pubsub_sqlite, outr_pubsub_pluggable;
extern const outr_secret_backend outr_secretstores_local_env, outr_secretstores_local_file,
    outr_secretstores_pluggable;
extern const outr_binding_backend outr_bindings_cron, outr_bindings_http,
    outr_bindings_localstorage, outr_bindings_pluggable;
extern const outr_middleware_backend outr_middleware_uppercase, outr_middleware_routerchecker,
    outr_middleware_routeralias, outr_middleware_ratelimit, outr_middleware_bearer;
extern const outr_resolver_backend outr_nameresolution_sqlite, outr_nameresolution_static,
    outr_nameresolution_nameformat, outr_nameresolution_structuredformat, outr_nameresolution_dns;

static const outr_state_backend *const states[] = {&outr_state_in_memory, &outr_state_sqlite};
static const outr_pubsub_backend *const brokers[] = {&outr_pubsub_in_memory, &outr_pubsub_sqlite};
static const outr_secret_backend *const secrets[] = {&outr_secretstores_local_env,
                                                     &outr_secretstores_local_file};
static const outr_binding_backend *const bindings[] = {
    &outr_bindings_cron, &outr_bindings_http, &outr_bindings_localstorage};
static const outr_middleware_backend *const middlewares[] = {
    &outr_middleware_uppercase, &outr_middleware_routerchecker, &outr_middleware_routeralias,
    &outr_middleware_ratelimit, &outr_middleware_bearer};
static const outr_resolver_backend *const resolvers[] = {
    &outr_nameresolution_sqlite,     &outr_nameresolution_static,
    &outr_nameresolution_nameformat, &outr_nameresolution_structuredformat,
    &outr_nameresolution_dns,
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

outr_backends outr_registry_find(outr_str type, outr_str version, outr_str sockets_dir)
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
    if (is_ours || sockets_dir.n == 0 || name.n == 0 || !is_first_version(version))
        return found;
    if (outr_str_iis(category, "state"))
        found.state = &outr_state_pluggable;
    else if (outr_str_iis(category, "pubsub"))
        found.pubsub = &outr_pubsub_pluggable;
    else if (outr_str_iis(category, "secretstores"))
        found.secrets = &outr_secretstores_pluggable;
    else if (outr_str_iis(category, "bindings"))
        found.binding = &outr_bindings_pluggable;
    return found;
}
