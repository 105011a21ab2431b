/* ca - the certificate authority as a process: `outrigger-control ca`.
 *
 * One loop. gRPC SignCertificate over TLS, health and metrics over HTTP. Takes sentry's flags. */
#ifndef OUTR_CONTROL_CA_CA_H
#define OUTR_CONTROL_CA_CA_H

#include "base/buf.h"
#include "config/settings.h"

typedef struct outr_ca_settings {
    outr_strs config_files;
    outr_str credentials_dir, root_name, issuer_name, key_name;
    outr_str trust_domain, namespace_; /* of the control plane */
    outr_str listen_address, healthz_listen_address, metrics_listen_address;
    uint16_t port, healthz_port, metrics_port; /* healthz 0: off */
    bool enable_metrics, log_as_json, show_help, show_version;
    /* identity tokens */
    bool jwt_enabled;
    outr_str jwt_key_name, jwks_name, jwt_issuer, jwt_algorithm, jwt_key_id;
    int64_t jwt_ttl_ns;
    /* where others find their keys */
    bool oidc_enabled, oidc_tls;
    uint16_t oidc_port;
    outr_str oidc_listen_address, oidc_certificate, oidc_key, oidc_jwks_uri, oidc_path_prefix;
    outr_strs oidc_hosts;
    outr_log_level log_level;
    outr_seccomp seccomp;
} outr_ca_settings;

/* argv[0] is the subcommand's name. */
outr_code outr_ca_settings_parse(outr_ca_settings *out, int argc, char *const *argv,
                                 char *const *envp, outr_err *err);
void outr_ca_settings_help(outr_buf *out);
/* Blocks until SIGTERM or SIGINT. The process's exit code. */
int outr_ca_run(const outr_ca_settings *settings, char *const *envp);

#endif
