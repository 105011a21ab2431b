/* settings - flags and environment, checked: everything that is fixed for one run of the runtime.
 *
 * Source: contract/cli-flags.csv, env.csv, dropin.md. One table of rows (flag, type, default,
 * environment, field, text) drives parsing, --help and the defaults. */
#ifndef OUTR_CONFIG_SETTINGS_H
#define OUTR_CONFIG_SETTINGS_H

#include "base/harden.h"
#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/log.h"
#include "base/map.h"
#include "base/str.h"

typedef enum outr_app_protocol {
    OUTR_APP_HTTP,
    OUTR_APP_HTTPS,
    OUTR_APP_H2C,
    OUTR_APP_GRPC,
    OUTR_APP_GRPCS,
} outr_app_protocol;

#define OUTR_LIST_MAX 16
typedef struct outr_strs {
    outr_str items[OUTR_LIST_MAX];
    size_t count;
} outr_strs;

typedef struct outr_settings {
    outr_str mode; /* "standalone" */
    outr_str app_id;
    outr_kvs labels; /* of this instance, OUTRIGGER_LABELS, base/labels.h */
    outr_str namespace_; /* NAMESPACE, or "default" when absent */
    bool has_namespace;  /* NAMESPACE is set (state prefix, resource filter) */
    uint16_t app_port;   /* 0: no app channel */
    outr_app_protocol app_protocol;
    outr_str app_protocol_name; /* "http", lower case, as metadata shows it */
    outr_str app_channel_address;
    int64_t app_max_concurrency; /* 0: no limit */
    bool app_health_check;
    outr_str app_health_path;
    uint64_t app_health_interval_ns, app_health_timeout_ns;
    int64_t app_health_threshold;
    bool skip_app_config, skip_app_subscribe; /* --disable-init-endpoints */
    /* internal 0: pick; public 0: off */
    uint16_t http_port, grpc_port, internal_port, public_port, metrics_port;
    outr_strs listen_addresses; /* API servers; empty: all interfaces */
    outr_str internal_listen_address, public_listen_address, metrics_listen_address;
    outr_str unix_socket_dir;  /* NONE: TCP */
    outr_strs allowed_origins; /* empty: CORS off */
    int64_t max_body_bytes;    /* 0: no limit */
    int64_t read_buffer_bytes;
    int api_logging; /* -1: as Configuration says, 0, 1 */
    uint64_t app_binding_options_timeout_ns; /* asking about an input binding */
    uint64_t graceful_shutdown_ns;
    uint64_t block_shutdown_ns; /* 0: unset */
    outr_strs resources_paths;  /* and --components-path */
    outr_strs config_files;
    bool enable_metrics;
    bool enable_mtls;
    outr_seccomp seccomp;
    outr_str sentry_address; /* host:port */
    outr_strs sentry_audiences;
    outr_str control_plane_trust_domain, control_plane_namespace;
    outr_str trust_anchors;      /* DAPR_TRUST_ANCHORS: PEM */
    outr_str trust_anchors_file; /* OUTRIGGER_TRUST_ANCHORS_FILE: wins */
    outr_str sentry_token_file;  /* DAPR_SENTRY_TOKEN_FILE */
    outr_str sentry_identity;    /* SENTRY_LOCAL_IDENTITY; NONE: the app id */
    outr_str mtls_dir;           /* OUTRIGGER_MTLS_DIR; NONE: below home */
    outr_str home;               /* HOME */
    outr_str identity_file, identity_passphrase_file; /* NONE: memory only */
    bool enable_h2c; /* DAPR_HTTP_DISABLE_H2C not truthy */
    uint64_t reconcile_interval_ns;
    outr_log_level log_level;
    bool log_as_json;
    outr_str log_file;
    bool show_version, show_build_info, show_help, wait_ready;
    outr_str api_token, app_token; /* DAPR_API_TOKEN, APP_API_TOKEN; secrets */
    /* DAPR_API_TOKEN_FILE, APP_API_TOKEN_FILE: go before them, and may change */
    outr_str api_token_file, app_token_file;
    outr_str host_ip;              /* DAPR_HOST_IP or NONE */
    outr_str env_keys;             /* DAPR_ENV_KEYS */
    /* DAPR_COMPONENTS_SOCKETS_FOLDER; NONE: not given, and the usual folder is not there */
    outr_str sockets_dir;
    unsigned loops;                /* OUTRIGGER_LOOPS, default: cores */
    uint64_t metrics_max_values;   /* OUTRIGGER_METRICS_MAX_VALUES, default 100 */
    /* What was given and has no function yet, for one warning each: "--flag=value", or the name of
     * a
     * variable; is_default says that the value equals the default or is empty (then debug level).
     */
    struct {
        outr_str text;
        bool is_default;
    } unused[64];
    size_t unused_count;
} outr_settings;

/* argv as main got it, envp as environ. Everything is on arena. Exit code for the process when it
 * fails: *exit_code (2 for flag syntax, 1 else). */
outr_code outr_settings_parse(outr_settings *out, outr_arena *arena, int argc, char *const *argv,
                              char *const *envp, int *exit_code, outr_err *err);
void outr_settings_help(outr_buf *out); /* --help text, from the table */

#endif
