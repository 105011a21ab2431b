#include "config/settings.h"

#include <unistd.h>

#include "base/labels.h"

/* One row per flag: how it is read, its default, where it goes. Rows without a field are accepted
 * and
 * have no function yet. Source: contract/cli-flags.csv. */
typedef enum kind {
    TEXT,
    LIST,
    COMMA_LIST,
    BOOLEAN,
    INTEGER,
    PORT,
    DURATION,
    QUANTITY,
    TRISTATE,
    LEVEL,
    PROTOCOL,
    SECCOMP,
    UNUSED,
    UNUSED_BOOLEAN,
} kind;

typedef struct flag {
    const char *name;
    kind kind;
    const char *otherwise;
    size_t offset;
    const char *text;
} flag;

/* What is read before it is checked and becomes settings. */
typedef struct raw {
    outr_settings s;
    bool app_ssl;
    int64_t old_body_mb, old_buffer_kb, body_bytes, buffer_bytes, graceful_s, interval_s,
        timeout_ms;
    int64_t block_ns, reconcile_ns, binding_options_ns;
    outr_strs old_components_paths;
    outr_strs skipped_endpoints;
    outr_str labels;
    bool is_body_given, is_buffer_given;
} raw;

#define S(field) offsetof(raw, s.field)
#define R(field) offsetof(raw, field)

static const flag flags[] = {
    {"mode", TEXT, "standalone", S(mode), "where the sidecar runs: standalone"},
    {"app-id", TEXT, "", S(app_id), "identity of the app (required)"},
    {"labels", TEXT, "", R(labels),
     "NAME=VALUE,... of this instance, for TrafficPolicies (version, environment, zone)"},
    {"app-port", PORT, "", S(app_port), "port the app listens on"},
    {"app-protocol", PROTOCOL, "http", S(app_protocol), "http, https, grpc, grpcs or h2c"},
    {"app-channel-address", TEXT, "127.0.0.1", S(app_channel_address),
     "host where the app listens"},
    {"app-max-concurrency", INTEGER, "-1", S(app_max_concurrency),
     "limit on parallel calls into the app; -1 or 0: none"},
    {"app-ssl", BOOLEAN, "false", R(app_ssl),
     "deprecated; turns http into https and grpc into grpcs"},
    {"app-health-check-path", TEXT, "/healthz", S(app_health_path),
     "HTTP path probed when the app health check is on"},
    {"app-health-probe-interval", INTEGER, "5", R(interval_s), "seconds between probes"},
    {"app-health-probe-timeout", INTEGER, "500", R(timeout_ms), "probe time limit in milliseconds"},
    {"app-health-threshold", INTEGER, "3", S(app_health_threshold),
     "consecutive failures before the app counts as unhealthy"},
    {"enable-app-health-check", BOOLEAN, "false", S(app_health_check), "turn on app probing"},
    {"app-binding-options-timeout", DURATION, "3s", R(binding_options_ns),
     "time for asking the app whether it wants an input binding"},
    {"disable-init-endpoints", COMMA_LIST, "", R(skipped_endpoints),
     "skip app start-up calls: config, subscribe"},
    {"dapr-http-port", PORT, "3500", S(http_port), "HTTP API port"},
    {"dapr-grpc-port", PORT, "50001", S(grpc_port), "gRPC API port"},
    {"dapr-internal-grpc-port", PORT, "", S(internal_port),
     "sidecar-to-sidecar port; unset: a free one"},
    {"dapr-internal-grpc-listen-address", TEXT, "", S(internal_listen_address),
     "address for the sidecar-to-sidecar port"},
    {"dapr-listen-addresses", COMMA_LIST, "", S(listen_addresses),
     "addresses for both API servers; empty: all"},
    {"dapr-public-port", PORT, "", S(public_port),
     "extra HTTP port that serves only health and metadata"},
    {"dapr-public-listen-address", TEXT, "", S(public_listen_address),
     "address for the public port"},
    {"unix-domain-socket", TEXT, "", S(unix_socket_dir),
     "directory; API servers listen there instead of TCP"},
    {"allowed-origins", COMMA_LIST, "", S(allowed_origins), "origins for CORS, or *; empty: off"},
    {"max-body-size", QUANTITY, "4Mi", R(body_bytes),
     "body limit of the HTTP and gRPC servers; -1 default, 0 none"},
    {"dapr-http-max-request-size", INTEGER, "4", R(old_body_mb), "deprecated: max-body-size in MB"},
    {"read-buffer-size", QUANTITY, "4Ki", R(buffer_bytes), "limit on HTTP request headers"},
    {"dapr-http-read-buffer-size", INTEGER, "4", R(old_buffer_kb),
     "deprecated: read-buffer-size in KB"},
    {"enable-api-logging", TRISTATE, "", S(api_logging),
     "log every API call; unset defers to the Configuration"},
    {"dapr-graceful-shutdown-seconds", INTEGER, "5", R(graceful_s), "time allowed for shutdown"},
    {"dapr-block-shutdown-duration", DURATION, "0", R(block_ns),
     "after a stop signal wait this long before shutting down"},
    {"resources-path", LIST, "", S(resources_paths), "folder with resource YAML; repeatable"},
    {"components-path", LIST, "", R(old_components_paths), "deprecated alias of resources-path"},
    {"config", LIST, "", S(config_files), "Configuration file; repeatable, later files override"},
    {"control-plane-address", UNUSED, "", 0, "operator address (Kubernetes mode)"},
    {"control-plane-trust-domain", TEXT, "localhost", S(control_plane_trust_domain),
     "trust domain of the control plane"},
    {"control-plane-namespace", TEXT, "default", S(control_plane_namespace),
     "namespace of the control plane"},
    {"sentry-address", TEXT, "", S(sentry_address), "address of the certificate authority"},
    {"sentry-request-jwt-audiences", COMMA_LIST, "", S(sentry_audiences),
     "audiences asked for in the identity token"},
    {"enable-mtls", BOOLEAN, "false", S(enable_mtls), "mutual TLS between sidecars"},
    {"identity-file", TEXT, "", S(identity_file),
     "keep the last certificate and key there, encrypted, for a start without the authority"},
    {"identity-passphrase-file", TEXT, "", S(identity_passphrase_file),
     "file with the passphrase for it, its owner's alone"},
    {"seccomp", SECCOMP, "off", S(seccomp),
     "system calls no sidecar needs: off, log, deny (they fail) or kill (the process ends)"},
    {"placement-host-address", UNUSED, "", 0, "placement servers; empty: actors are off"},
    {"actors-service", UNUSED, "", 0, "deprecated"},
    {"reminders-service", UNUSED, "", 0, "deprecated"},
    {"scheduler-host-address", UNUSED, "", 0, "scheduler servers; empty: jobs are off"},
    {"scheduler-job-streams", UNUSED, "3", 0, "number of parallel job streams"},
    {"actors-disseminate-timeout", UNUSED, "30s", 0, "placement round timeout"},
    {"hot-reload-reconcile-interval", DURATION, "0", R(reconcile_ns),
     "period of the full comparison of resources; 0: 60s"},
    {"disable-builtin-k8s-secret-store", UNUSED_BOOLEAN, "false", 0, "Kubernetes mode"},
    {"enable-profiling", UNUSED_BOOLEAN, "false", 0, "serve profiles"},
    {"profile-port", UNUSED, "7777", 0, "port for profiling"},
    {"enable-metrics", BOOLEAN, "true", S(enable_metrics), "serve Prometheus metrics"},
    {"metrics-port", PORT, "9090", S(metrics_port), "metrics port"},
    {"metrics-listen-address", TEXT, "0.0.0.0", S(metrics_listen_address), "metrics address"},
    {"log-level", LEVEL, "info", S(log_level), "debug, info, warn, error or fatal"},
    {"log-as-json", BOOLEAN, "false", S(log_as_json), "JSON log lines"},
    {"log-file", TEXT, "", S(log_file), "append the log to this file instead of standard output"},
    {"version", BOOLEAN, "false", S(show_version), "print the version and exit"},
    {"build-info", BOOLEAN, "false", S(show_build_info), "print version and build and exit"},
    {"help", BOOLEAN, "false", S(show_help), "print this and exit"},
    {"wait", BOOLEAN, "false", S(wait_ready),
     "poll the sidecar on this machine until it is ready, then exit"},
};

static const struct {
    const char *name;
    outr_app_protocol protocol, with_tls;
} protocols[] = {
    {"http", OUTR_APP_HTTP, OUTR_APP_HTTPS},   {"https", OUTR_APP_HTTPS, OUTR_APP_HTTPS},
    {"h2c", OUTR_APP_H2C, OUTR_APP_H2C},       {"grpc", OUTR_APP_GRPC, OUTR_APP_GRPCS},
    {"grpcs", OUTR_APP_GRPCS, OUTR_APP_GRPCS},
};

static bool is_boolean(kind k)
{
    return k == BOOLEAN || k == TRISTATE || k == UNUSED_BOOLEAN;
}

static bool add(outr_strs *list, outr_str value)
{
    if (value.n == 0)
        return true;
    if (list->count == OUTR_LIST_MAX)
        return false;
    list->items[list->count++] = value;
    return true;
}

static bool add_parts(outr_strs *list, outr_str text)
{
    while (text.p) {
        outr_str part;
        text = outr_str_cut(text, ',', &part);
        if (!add(list, outr_str_trim(part)))
            return false;
    }
    return true;
}

static bool set_port(uint16_t *to, outr_str text)
{
    uint64_t port = 0;
    if (text.n > 0 && !outr_str_to_u64(text, UINT16_MAX, &port))
        return false;
    *to = (uint16_t)port;
    return true;
}

static bool set_protocol(outr_app_protocol *to, outr_str text)
{
    for (size_t i = 0; i < OUTR_LEN(protocols); i++) {
        if (outr_str_iis(text, protocols[i].name)) {
            *to = protocols[i].protocol;
            return true;
        }
    }
    return false;
}

static bool set_flag(const flag *f, raw *r, outr_str value)
{
    void *to = (char *)r + f->offset;
    bool on;
    switch (f->kind) {
    case TEXT:
        *(outr_str *)to = value;
        return true;
    case LIST:
        return add(to, value);
    case COMMA_LIST:
        return add_parts(to, value);
    case BOOLEAN:
        return outr_str_to_bool(value, to);
    case TRISTATE:
        on = false;
        if (value.n > 0 && !outr_str_to_bool(value, &on))
            return false;
        *(int *)to = value.n ? on : -1;
        return true;
    case INTEGER:
        return outr_str_to_i64(value, INT32_MIN, INT32_MAX, to);
    case PORT:
        return set_port(to, value);
    case DURATION:
        return outr_str_to_duration(value, to);
    case QUANTITY:
        return outr_str_to_quantity(value, to);
    case LEVEL:
        return outr_log_level_parse(value, to);
    case PROTOCOL:
        return set_protocol(to, value);
    case SECCOMP:
        return outr_seccomp_parse(value, to);
    case UNUSED_BOOLEAN:
        return outr_str_to_bool(value, &on);
    default:
        return true;
    }
}

static const flag *find_flag(outr_str name)
{
    for (size_t i = 0; i < OUTR_LEN(flags); i++) {
        if (outr_str_is(name, flags[i].name))
            return &flags[i];
    }
    return NULL;
}

/* Once per name, the last one as it counts. */
static void note_unused(outr_settings *s, outr_str name, outr_str text, bool is_default)
{
    size_t i = 0;
    while (i < s->unused_count && !outr_str_starts(s->unused[i].text, name))
        i++;
    if (i == OUTR_LEN(s->unused))
        return;
    s->unused_count = OUTR_MAX(s->unused_count, i + 1);
    s->unused[i].text = text;
    s->unused[i].is_default = is_default;
}

static outr_code read_argv(raw *r, outr_arena *arena, int argc, char *const *argv, outr_err *err)
{
    for (int i = 1; i < argc; i++) {
        outr_str arg = outr_str_from(argv[i]), name;
        if (arg.n < 2 || arg.p[0] != '-')
            return outr_fail(err, OUTR_INVALID_ARGUMENT, "\"%s\" is not a flag; see --help",
                             argv[i]);
        arg = outr_str_skip(arg, arg.p[1] == '-' ? 2 : 1);
        outr_str value = outr_str_cut(arg, '=', &name);
        const flag *f = find_flag(name);
        if (!f)
            return outr_fail(err, OUTR_INVALID_ARGUMENT, "unknown flag: --" OUTR_FMT "; see --help",
                             OUTR_ARG(name));
        if (!value.p && is_boolean(f->kind))
            value = OUTR_STR("true");
        else if (!value.p && ++i == argc)
            return outr_fail(err, OUTR_INVALID_ARGUMENT, "flag needs an argument: --%s", f->name);
        else if (!value.p)
            value = outr_str_from(argv[i]);
        if (!set_flag(f, r, value))
            return outr_fail(err, OUTR_INVALID_ARGUMENT,
                             "invalid argument \"" OUTR_FMT "\" for --%s (%s)", OUTR_ARG(value),
                             f->name, f->text);
        r->is_body_given |= strcmp(f->name, "max-body-size") == 0;
        r->is_buffer_given |= strcmp(f->name, "read-buffer-size") == 0;
        if (f->kind != UNUSED && f->kind != UNUSED_BOOLEAN)
            continue;
        outr_str prefix = outr_arena_printf(arena, "--%s=", f->name);
        note_unused(&r->s, prefix, outr_arena_join(arena, prefix, value, OUTR_STR_NONE),
                    value.n == 0 || outr_str_is(value, f->otherwise));
    }
    return OUTR_OK;
}

/* ---- environment ----------------------------------------------------------------------------- */

static const char *variable(char *const *envp, const char *name)
{
    size_t n = strlen(name);
    for (; envp && *envp; envp++) {
        if (strncmp(*envp, name, n) == 0 && (*envp)[n] == '=')
            return *envp + n + 1;
    }
    return NULL;
}

/* Read by the reference, without function here yet (contract/env.csv). */
static const char *const unused_variables[] = {
    "POD_NAME",
    "DAPR_UNSAFE_SKIP_CONTAINER_UID_GID_CHECK",
    "DAPR_SCHEDULER_HOST_ADDRESS_DNS_A",
};

/* Their names alone: a value may be a secret. */
static void note_variables(outr_settings *s, char *const *envp)
{
    for (size_t i = 0; i < OUTR_LEN(unused_variables); i++) {
        const char *value = variable(envp, unused_variables[i]);
        outr_str name = outr_str_from(unused_variables[i]);
        if (value)
            note_unused(s, name, name, value[0] == 0);
    }
}

/* A path of /tmp anybody may make, but it is where daprd looks. */
#define SOCKETS_DIR "/tmp/dapr-components-sockets"

static void read_trust(outr_settings *s, char *const *envp)
{
    outr_str domain = outr_str_from(variable(envp, "DAPR_CONTROLPLANE_TRUST_DOMAIN"));
    outr_str namespace_ = outr_str_from(variable(envp, "DAPR_CONTROLPLANE_NAMESPACE"));
    if (domain.n > 0)
        s->control_plane_trust_domain = domain;
    if (namespace_.n > 0)
        s->control_plane_namespace = namespace_;
    s->trust_anchors = outr_str_from(variable(envp, "DAPR_TRUST_ANCHORS"));
    s->trust_anchors_file = outr_str_from(variable(envp, "OUTRIGGER_TRUST_ANCHORS_FILE"));
    s->sentry_token_file = outr_str_from(variable(envp, "DAPR_SENTRY_TOKEN_FILE"));
    s->sentry_identity = outr_str_from(variable(envp, "SENTRY_LOCAL_IDENTITY"));
    s->mtls_dir = outr_str_from(variable(envp, "OUTRIGGER_MTLS_DIR"));
    s->home = outr_str_from(variable(envp, "HOME"));
}

static void read_environment(outr_settings *s, char *const *envp)
{
    const char *namespace_ = variable(envp, "NAMESPACE"),
               *loops = variable(envp, "OUTRIGGER_LOOPS");
    const char *max_values = variable(envp, "OUTRIGGER_METRICS_MAX_VALUES"),
               *no_h2c = variable(envp, "DAPR_HTTP_DISABLE_H2C");
    bool is_off = false;
    uint64_t count;
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    read_trust(s, envp);
    s->has_namespace = namespace_ != NULL;
    s->namespace_ = namespace_ ? outr_str_from(namespace_) : OUTR_STR("default");
    s->api_token = outr_str_trim(outr_str_from(variable(envp, "DAPR_API_TOKEN")));
    s->app_token = outr_str_trim(outr_str_from(variable(envp, "APP_API_TOKEN")));
    s->api_token_file = outr_str_from(variable(envp, "DAPR_API_TOKEN_FILE"));
    s->app_token_file = outr_str_from(variable(envp, "APP_API_TOKEN_FILE"));
    s->host_ip = outr_str_from(variable(envp, "DAPR_HOST_IP"));
    s->env_keys = outr_str_from(variable(envp, "DAPR_ENV_KEYS"));
    s->sockets_dir = outr_str_from(variable(envp, "DAPR_COMPONENTS_SOCKETS_FOLDER"));
    if (s->sockets_dir.n == 0 && access(SOCKETS_DIR, F_OK) == 0)
        s->sockets_dir = OUTR_STR(SOCKETS_DIR);
    if (no_h2c)
        outr_str_to_bool(outr_str_from(no_h2c), &is_off);
    s->enable_h2c = !is_off;
    s->loops = cores > 0 ? (unsigned)OUTR_MIN(cores, 64) : 1;
    if (loops && outr_str_to_u64(outr_str_from(loops), 64, &count) && count > 0)
        s->loops = (unsigned)count;
    s->metrics_max_values = 100;
    if (max_values && outr_str_to_u64(outr_str_from(max_values), 1000000, &count) && count > 0)
        s->metrics_max_values = count;
}

/* ---- checks ---------------------------------------------------------------------------------- */

static outr_code check_ports(const outr_settings *s, outr_err *err)
{
    const struct {
        const char *name;
        uint16_t port;
    } ports[] = {
        {"app-port", s->app_port},
        {"dapr-http-port", s->unix_socket_dir.n ? 0 : s->http_port},
        {"dapr-grpc-port", s->unix_socket_dir.n ? 0 : s->grpc_port},
        {"dapr-internal-grpc-port", s->internal_port},
        {"dapr-public-port", s->public_port},
        {"metrics-port", s->enable_metrics ? s->metrics_port : 0},
    };
    for (size_t i = 0; i < OUTR_LEN(ports); i++) {
        for (size_t j = i + 1; j < OUTR_LEN(ports); j++) {
            if (ports[i].port && ports[i].port == ports[j].port)
                return outr_fail(err, OUTR_INVALID_ARGUMENT, "--%s and --%s are both %u",
                                 ports[i].name, ports[j].name, ports[i].port);
        }
    }
    return OUTR_OK;
}

static outr_code check(raw *r, outr_err *err)
{
    outr_settings *s = &r->s;
    if (outr_str_is(s->mode, "kubernetes"))
        return outr_fail(err, OUTR_UNIMPLEMENTED,
                         "--mode kubernetes: this sidecar is self-hosted only");
    if (!outr_str_is(s->mode, "standalone"))
        return outr_fail(err, OUTR_INVALID_ARGUMENT, "--mode \"" OUTR_FMT "\": must be standalone",
                         OUTR_ARG(s->mode));
    if (s->app_id.n == 0)
        return outr_fail(err, OUTR_INVALID_ARGUMENT, "--app-id is required");
    if (outr_str_find(s->app_id, '.') >= 0)
        return outr_fail(err, OUTR_INVALID_ARGUMENT,
                         "--app-id \"" OUTR_FMT "\": must not contain a dot", OUTR_ARG(s->app_id));
    if (s->app_health_check && r->timeout_ms > r->interval_s * 1000)
        return outr_fail(
            err, OUTR_INVALID_ARGUMENT,
            "--app-health-probe-timeout must not be longer than --app-health-probe-interval");
    if (r->block_ns < 0 || r->reconcile_ns < 0)
        return outr_fail(err, OUTR_INVALID_ARGUMENT, "durations must not be negative");
    return check_ports(s, err);
}

static void derive(raw *r)
{
    outr_settings *s = &r->s;
    for (size_t i = 0; i < OUTR_LEN(protocols); i++) {
        if (protocols[i].protocol == s->app_protocol) {
            s->app_protocol = r->app_ssl ? protocols[i].with_tls : s->app_protocol;
            break;
        }
    }
    for (size_t i = 0; i < OUTR_LEN(protocols); i++) {
        if (protocols[i].protocol == s->app_protocol)
            s->app_protocol_name = outr_str_from(protocols[i].name);
    }
    if (!r->is_body_given)
        r->body_bytes = r->old_body_mb * (int64_t)OUTR_MIB;
    if (!r->is_buffer_given)
        r->buffer_bytes = r->old_buffer_kb * (int64_t)OUTR_KIB;
    s->max_body_bytes = r->body_bytes < 0 ? 4 * (int64_t)OUTR_MIB : r->body_bytes;
    s->read_buffer_bytes = r->buffer_bytes <= 0 ? 4 * (int64_t)OUTR_KIB : r->buffer_bytes;
    s->app_max_concurrency = OUTR_MAX(s->app_max_concurrency, 0);
    r->interval_s = r->interval_s <= 0 ? 5 : r->interval_s;
    r->timeout_ms = r->timeout_ms <= 0 ? 500 : r->timeout_ms;
    s->app_health_threshold = s->app_health_threshold <= 0 ? 3 : s->app_health_threshold;
    s->app_health_interval_ns = (uint64_t)r->interval_s * OUTR_SEC;
    s->app_health_timeout_ns = (uint64_t)r->timeout_ms * OUTR_MS;
    s->graceful_shutdown_ns = (uint64_t)(r->graceful_s < 0 ? 5 : r->graceful_s) * OUTR_SEC;
    s->app_binding_options_timeout_ns =
        r->binding_options_ns > 0 ? (uint64_t)r->binding_options_ns : 3 * OUTR_SEC;
    s->block_shutdown_ns = (uint64_t)OUTR_MAX(r->block_ns, 0);
    s->reconcile_interval_ns = r->reconcile_ns > 0 ? (uint64_t)r->reconcile_ns : 60 * OUTR_SEC;
    for (size_t i = 0; i < r->old_components_paths.count; i++)
        add(&s->resources_paths, r->old_components_paths.items[i]);
    for (size_t i = 0; i < r->skipped_endpoints.count; i++) {
        s->skip_app_config |= outr_str_is(r->skipped_endpoints.items[i], "config");
        s->skip_app_subscribe |= outr_str_is(r->skipped_endpoints.items[i], "subscribe");
    }
}

outr_code outr_settings_parse(outr_settings *out, outr_arena *arena, int argc, char *const *argv,
                              char *const *envp, int *exit_code, outr_err *err)
{
    raw *r = outr_arena_alloc(arena, sizeof *r);
    r->s.api_logging = -1;
    for (size_t i = 0; i < OUTR_LEN(flags); i++) {
        if (flags[i].otherwise[0])
            set_flag(&flags[i], r, outr_str_from(flags[i].otherwise));
    }
    read_environment(&r->s, envp);
    r->labels = outr_str_from(variable(envp, "OUTRIGGER_LABELS"));
    note_variables(&r->s, envp);
    *exit_code = 2;
    outr_code rc = read_argv(r, arena, argc, argv, err);
    if (rc)
        return rc;
    *exit_code = 1;
    bool is_run =
        !r->s.show_help && !r->s.show_version && !r->s.show_build_info && !r->s.wait_ready;
    derive(r);
    if (outr_labels_parse(&r->s.labels, arena, r->labels, err))
        return outr_wrap(err, "--labels");
    if (is_run && (rc = check(r, err)))
        return rc;
    *out = r->s;
    return OUTR_OK;
}

void outr_settings_help(outr_buf *out)
{
    outr_buf_z(out, "outriggerd - a sidecar beside your app (Dapr " OUTR_DAPR_VERSION
                    " compatible)\n\nusage: outriggerd --app-id ID [flags]\n\n");
    for (size_t i = 0; i < OUTR_LEN(flags); i++) {
        const flag *f = &flags[i];
        outr_buf_printf(out, "  --%-36s %s", f->name, f->text);
        if (f->otherwise[0] && !is_boolean(f->kind))
            outr_buf_printf(out, " (default %s)", f->otherwise);
        outr_buf_z(out, f->kind == UNUSED || f->kind == UNUSED_BOOLEAN
                            ? " [accepted, no function yet]\n"
                            : "\n");
    }
    outr_buf_z(out, "\nenvironment: NAMESPACE, DAPR_API_TOKEN, APP_API_TOKEN (or files with them, "
                    "looked at while running:\n"
                    "  DAPR_API_TOKEN_FILE, APP_API_TOKEN_FILE), DAPR_HOST_IP, DAPR_ENV_KEYS, "
                    "DAPR_HTTP_DISABLE_H2C,\n"
                    "  DAPR_COMPONENTS_SOCKETS_FOLDER (of pluggable components, default "
                    SOCKETS_DIR "),\n"
                    "  OUTRIGGER_LOOPS (event loops, default: cores), OUTRIGGER_METRICS_MAX_VALUES "
                    "(distinct values per label, default 100),\n"
                    "  OUTRIGGER_LABELS (as --labels),\n"
                    "  OUTRIGGER_RUN_DIR (per-user runtime directory),\n"
                    "  OUTRIGGER_MTLS_DIR (this machine's issuer, default $HOME/.outrigger/mtls), "
                    "OUTRIGGER_TRUST_ANCHORS_FILE\n");
}
