#include "config/kinds/kinds.h"

#define SETTING(field) offsetof(outr_setting, field)
#define C(field)       offsetof(outr_component_spec, field)
#define E(field)       offsetof(outr_endpoint_spec, field)

static const outr_yaml_row secret_ref[] = {
    {"name", OUTR_YT_TEXT, SETTING(secret_name), OUTR_YT_REQUIRED, NULL, 0, 0},
    {"key", OUTR_YT_TEXT, SETTING(secret_key), 0, NULL, 0, 0},
    {0},
};

const outr_yaml_row outr_rows_setting[] = {
    {"name", OUTR_YT_TEXT, SETTING(name), OUTR_YT_REQUIRED, NULL, 0, 0},
    {"value", OUTR_YT_VALUE, SETTING(value), 0, NULL, 0, 0},
    {"secretKeyRef", OUTR_YT_GROUP, 0, 0, secret_ref, 0, 0},
    {"envRef", OUTR_YT_TEXT, SETTING(env_ref), 0, NULL, 0, 0},
    {0},
};

/* DAPR_ENV_KEYS, when set, lists what may be read; some names never may (contract/env.csv). */
static bool may_read(const outr_kind_env *env, outr_str name)
{
    outr_str rest = env->env_keys, key;
    if (name.n == 0 || outr_str_find(name, ' ') >= 0 || outr_str_istarts(name, OUTR_STR("DAPR_")) ||
        outr_str_iis(name, "APP_API_TOKEN"))
        return false;
    if (rest.n == 0)
        return true;
    while (rest.p) {
        rest = outr_str_cut(rest, ' ', &key);
        if (outr_str_eq(key, name))
            return true;
    }
    return false;
}

outr_str outr_kind_variable(char *const *envp, outr_str name)
{
    for (; envp && *envp; envp++) {
        outr_str key, value = outr_str_cut(outr_str_from(*envp), '=', &key);
        if (value.p && outr_str_eq(key, name))
            return value;
    }
    return OUTR_STR("");
}

void outr_setting_finish(const outr_kind_env *env, outr_setting *settings, size_t count,
                         const outr_yaml *list)
{
    const outr_yaml *node = list ? list->child : NULL;
    for (size_t i = 0; i < count; i++, node = node ? node->next : NULL) {
        outr_setting *s = &settings[i];
        if (s->secret_name.n && !s->secret_key.n)
            s->secret_key = s->secret_name;
        if (!s->env_ref.n)
            continue;
        if (may_read(env, s->env_ref))
            s->value =
                outr_arena_str(env->binder->arena, outr_kind_variable(env->envp, s->env_ref));
        else
            outr_bind_warning(env->binder, node,
                              "envRef \"" OUTR_FMT "\" may not be read, it counts as empty",
                              OUTR_ARG(s->env_ref));
    }
}

static const outr_yaml_row component_spec[] = {
    {"type", OUTR_YT_TEXT, C(type), OUTR_YT_REQUIRED, NULL, 0, 0},
    {"version", OUTR_YT_TEXT, C(version), 0, NULL, 0, 0},
    {"ignoreErrors", OUTR_YT_BOOL, C(ignore_errors), 0, NULL, 0, 0},
    {"initTimeout", OUTR_YT_SKIP, 0, 0, NULL, 0, 0},
    {"metadata", OUTR_YT_LIST, C(metadata), 0, outr_rows_setting, sizeof(outr_setting),
     SETTING(line)},
    {0},
};

static const outr_yaml_row component_auth[] = {
    {"secretStore", OUTR_YT_TEXT, C(secret_store), 0, NULL, 0, 0}, {0}};

static const outr_yaml_row component[] = {
    {"apiVersion", OUTR_YT_SKIP, 0, 0, NULL, 0, 0},
    {"kind", OUTR_YT_SKIP, 0, 0, NULL, 0, 0},
    {"metadata", OUTR_YT_SKIP, 0, 0, NULL, 0, 0},
    {"scopes", OUTR_YT_SKIP, 0, 0, NULL, 0, 0},
    {"spec", OUTR_YT_GROUP, 0, OUTR_YT_REQUIRED, component_spec, 0, 0},
    {"auth", OUTR_YT_GROUP, 0, 0, component_auth, 0, 0},
    {0},
};

#define INIT_TIMEOUT_NS (5 * OUTR_SEC)

void outr_kind_component(const outr_kind_env *env, const outr_yaml *root, outr_component_spec *out)
{
    const outr_yaml *spec = outr_yaml_find(root, "spec"),
                    *timeout = outr_yaml_find(spec, "initTimeout");
    int64_t ns;
    outr_bind_yaml(env->binder, component, root, "", out);
    out->init_timeout_ns = INIT_TIMEOUT_NS;
    if (timeout && outr_str_to_duration(timeout->text, &ns) && ns > 0)
        out->init_timeout_ns = (uint64_t)ns;
    else if (timeout)
        outr_bind_warning(env->binder, timeout, "spec.initTimeout: not a duration, 5s is used");
    if (out->version.n == 0)
        out->version = OUTR_STR("v1");
    if (out->type.n > 0 && outr_str_find(out->type, '.') <= 0)
        outr_bind_error(env->binder, outr_yaml_find(spec, "type"),
                        "spec.type \"" OUTR_FMT "\": must be category.name", OUTR_ARG(out->type));
    outr_setting_finish(env, (outr_setting *)out->metadata, out->metadata_count,
                        outr_yaml_find(spec, "metadata"));
}

/* ---- HTTPEndpoint ---------------------------------------------------------------------------- */

static const outr_yaml_row tls_part[] = {
    {"value", OUTR_YT_VALUE, SETTING(value), 0, NULL, 0, 0},
    {"secretKeyRef", OUTR_YT_GROUP, 0, 0, secret_ref, 0, 0},
    {0},
};

static const outr_yaml_row client_tls[] = {
    {"rootCA", OUTR_YT_GROUP, E(root_ca), 0, tls_part, 0, 0},
    {"certificate", OUTR_YT_GROUP, E(certificate), 0, tls_part, 0, 0},
    {"privateKey", OUTR_YT_GROUP, E(private_key), 0, tls_part, 0, 0},
    {"renegotiation", OUTR_YT_SKIP, 0, 0, NULL, 0, 0},
    {0},
};

static const outr_yaml_row endpoint_spec[] = {
    {"baseUrl", OUTR_YT_TEXT, E(base_url), OUTR_YT_REQUIRED, NULL, 0, 0},
    {"headers", OUTR_YT_LIST, E(headers), 0, outr_rows_setting, sizeof(outr_setting),
     SETTING(line)},
    {"clientTLS", OUTR_YT_GROUP, 0, 0, client_tls, 0, 0},
    {0},
};

static const outr_yaml_row endpoint_auth[] = {
    {"secretStore", OUTR_YT_TEXT, E(secret_store), 0, NULL, 0, 0}, {0}};

static const outr_yaml_row endpoint[] = {
    {"apiVersion", OUTR_YT_SKIP, 0, 0, NULL, 0, 0},
    {"kind", OUTR_YT_SKIP, 0, 0, NULL, 0, 0},
    {"metadata", OUTR_YT_SKIP, 0, 0, NULL, 0, 0},
    {"scopes", OUTR_YT_SKIP, 0, 0, NULL, 0, 0},
    {"spec", OUTR_YT_GROUP, 0, OUTR_YT_REQUIRED, endpoint_spec, 0, 0},
    {"auth", OUTR_YT_GROUP, 0, 0, endpoint_auth, 0, 0},
    {0},
};

void outr_kind_endpoint(const outr_kind_env *env, const outr_yaml *root, outr_endpoint_spec *out)
{
    outr_bind_yaml(env->binder, endpoint, root, "", out);
    outr_setting_finish(env, (outr_setting *)out->headers, out->header_count,
                        outr_yaml_find(outr_yaml_find(root, "spec"), "headers"));
    outr_setting *const parts[] = {&out->root_ca, &out->certificate, &out->private_key};
    for (size_t i = 0; i < OUTR_LEN(parts); i++)
        outr_setting_finish(env, parts[i], 1, NULL);
}
