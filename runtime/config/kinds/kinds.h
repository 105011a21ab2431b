/* kinds - one bind table per resource kind, and what is checked beyond types. Source:
 * contract/yaml-*.csv. */
#ifndef OUTR_CONFIG_KINDS_KINDS_H
#define OUTR_CONFIG_KINDS_KINDS_H

#include "config/binder.h"
#include "config/resource.h"
#include "config/traffic.h"

typedef struct outr_kind_env {
    outr_binder *binder;
    char *const *envp; /* for envRef */
    outr_str env_keys; /* DAPR_ENV_KEYS */
} outr_kind_env;

/* A variable of the environment; empty when it is not set. */
outr_str outr_kind_variable(char *const *envp, outr_str name);

/* Each fills *out from the document's root. */
void outr_kind_component(const outr_kind_env *env, const outr_yaml *root, outr_component_spec *out);
void outr_kind_subscription(const outr_kind_env *env, const outr_yaml *root, bool is_v2,
                            outr_subscription_spec *out);
void outr_kind_endpoint(const outr_kind_env *env, const outr_yaml *root, outr_endpoint_spec *out);
void outr_kind_resiliency(const outr_kind_env *env, const outr_yaml *root,
                          outr_resiliency_spec *out);
/* All that is wrong in their spec is an error, unknown fields too: half a rule must not look like a
 * whole one. */
void outr_kind_policy(const outr_kind_env *env, const outr_yaml *root, outr_policy_spec *out);
void outr_kind_authn(const outr_kind_env *env, const outr_yaml *root, outr_authn_spec *out);
/* now_unix_ns: faults that have ended by then are left out, with a warning. */
void outr_kind_traffic(const outr_kind_env *env, const outr_yaml *root, int64_t now_unix_ns,
                       outr_traffic_spec *out);
extern const outr_traffic_spec outr_traffic_defaults;
/* Adds to what earlier files said: later wins. */
void outr_kind_configuration(const outr_kind_env *env, const outr_yaml *root,
                             outr_configuration *out);
void outr_configuration_default(outr_configuration *out);

/* spec.tracing, behind its rows: headers and protocol of otel, and what follows from all of it. */
void outr_kind_tracing(outr_binder *binder, const outr_yaml *node, outr_configuration *out);
/* OTEL_* of the environment (contract/env.csv), after the last file. */
void outr_kind_tracing_environment(outr_arena *arena, char *const *envp, outr_configuration *out,
                                   outr_err_list *warnings);

/* spec.accessControl of it. All that is wrong with it is an error, unknown fields too: a rule that
 * is not enforced must not look as if it were. */
void outr_kind_access(outr_binder *binder, const outr_yaml *node, outr_access_spec *out);

/* One of its pipelines; path: "spec.httpPipeline". As strict. */
void outr_kind_pipeline(outr_binder *binder, const outr_yaml *node, const char *path,
                        outr_pipeline *out);

/* Rows that several kinds have. */
/* apiVersion, kind, metadata, scopes; spec is bound apart. */
extern const outr_yaml_row outr_rows_top[];
/* name, value, secretKeyRef, envRef of outr_setting */
extern const outr_yaml_row outr_rows_setting[];
/* envRef -> value; a secret without a key has its name as key. list: the YAML behind settings, for
 * messages. */
void outr_setting_finish(const outr_kind_env *env, outr_setting *settings, size_t count,
                         const outr_yaml *list);

#endif
