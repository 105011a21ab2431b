#include "control/ca/ca.h"

/* One row per flag, as in config/settings.c; names are sentry's. */
typedef enum kind { TEXT, LIST, WORDS, BOOLEAN, PORT, LEVEL, MODE, DURATION, SECCOMP } kind;

static const struct flag {
    const char *name;
    kind kind;
    const char *otherwise;
    size_t offset;
    const char *text;
} flags[] = {
#define F(field) offsetof(outr_ca_settings, field)
    {"config", LIST, "", F(config_files), "Configuration file; spec.mtls counts; repeatable"},
    {"issuer-credentials", TEXT, "/var/run/secrets/dapr.io/credentials", F(credentials_dir),
     "folder of root, issuer and key; made at the first start"},
    {"issuer-ca-filename", TEXT, "ca.crt", F(root_name), "root certificate in it"},
    {"issuer-certificate-filename", TEXT, "issuer.crt", F(issuer_name), "issuer certificate in it"},
    {"issuer-key-filename", TEXT, "issuer.key", F(key_name), "issuer's key in it"},
    {"trust-domain", TEXT, "localhost", F(trust_domain), "trust domain of the control plane"},
    {"port", PORT, "50001", F(port), "port for certificate requests"},
    {"listen-address", TEXT, "", F(listen_address), "address for it; empty: all"},
    {"healthz-port", PORT, "8080", F(healthz_port), "port of /healthz; 0: none"},
    {"healthz-listen-address", TEXT, "", F(healthz_listen_address), "address for it; empty: all"},
    {"enable-metrics", BOOLEAN, "true", F(enable_metrics), "serve Prometheus metrics"},
    {"metrics-port", PORT, "9090", F(metrics_port), "metrics port"},
    {"metrics-listen-address", TEXT, "0.0.0.0", F(metrics_listen_address), "metrics address"},
    {"mode", MODE, "standalone", 0, "standalone"},
    {"jwt-enabled", BOOLEAN, "false", F(jwt_enabled), "issue identity tokens beside certificates"},
    {"jwt-key-filename", TEXT, "jwt.key", F(jwt_key_name), "their key, in the same folder; made"},
    {"jwks-filename", TEXT, "jwks.json", F(jwks_name), "its key set, in the same folder; made"},
    {"jwt-issuer", TEXT, "", F(jwt_issuer), "issuer they name; empty: none"},
    {"jwt-signing-algorithm", TEXT, "RS256", F(jwt_algorithm), "by which their key signs"},
    {"jwt-key-id", TEXT, "", F(jwt_key_id), "name of their key; empty: its thumbprint"},
    {"jwt-ttl", DURATION, "24h", F(jwt_ttl_ns), "how long they are good"},
    {"oidc-enabled", BOOLEAN, "false", F(oidc_enabled), "serve their key set, with OIDC discovery"},
    {"oidc-server-listen-port", PORT, "9080", F(oidc_port), "port for that"},
    {"oidc-server-listen-address", TEXT, "localhost", F(oidc_listen_address), "address for it"},
    {"oidc-server-tls-enabled", BOOLEAN, "true", F(oidc_tls), "serve it by https"},
    {"oidc-server-tls-cert-file", TEXT, "", F(oidc_certificate), "certificate for that"},
    {"oidc-server-tls-key-file", TEXT, "", F(oidc_key), "and its key"},
    {"oidc-jwks-uri", TEXT, "", F(oidc_jwks_uri), "where others find the key set, if elsewhere"},
    {"oidc-path-prefix", TEXT, "", F(oidc_path_prefix), "path before those of the documents"},
    {"oidc-allowed-hosts", WORDS, "", F(oidc_hosts), "names it may be asked by; empty: any"},
    {"seccomp", SECCOMP, "off", F(seccomp), "needless system calls: off, log, deny or kill"},
    {"log-level", LEVEL, "info", F(log_level), "debug, info, warn, error or fatal"},
    {"log-as-json", BOOLEAN, "false", F(log_as_json), "JSON log lines"},
    {"version", BOOLEAN, "false", F(show_version), "print the version and exit"},
    {"help", BOOLEAN, "false", F(show_help), "print this and exit"},
#undef F
};

static bool set(const struct flag *f, outr_ca_settings *s, outr_str value)
{
    void *field = (char *)s + f->offset;
    uint64_t number;
    outr_str word;
    switch (f->kind) {
    case TEXT:
        *(outr_str *)field = value;
        return true;
    case LIST: {
        outr_strs *list = field;
        if (value.n == 0)
            return true;
        if (list->count == OUTR_LEN(list->items))
            return false;
        list->items[list->count++] = value;
        return true;
    }
    case WORDS: {
        outr_strs *list = field;
        while (value.n > 0) {
            value = outr_str_cut(value, ',', &word);
            if (list->count == OUTR_LEN(list->items))
                return false;
            list->items[list->count++] = outr_str_trim(word);
        }
        return true;
    }
    case BOOLEAN:
        return outr_str_to_bool(value, field);
    case PORT:
        if (!outr_str_to_u64(value, UINT16_MAX, &number))
            return false;
        *(uint16_t *)field = (uint16_t)number;
        return true;
    case LEVEL:
        return outr_log_level_parse(value, field);
    case MODE:
        return outr_str_is(value, "standalone");
    case SECCOMP:
        return outr_seccomp_parse(value, field);
    case DURATION:
        return outr_str_to_duration(value, field) && *(int64_t *)field >= (int64_t)OUTR_SEC;
    }
    return false;
}

static const struct flag *find(outr_str name)
{
    for (size_t i = 0; i < OUTR_LEN(flags); i++) {
        if (outr_str_is(name, flags[i].name))
            return &flags[i];
    }
    return NULL;
}

/* What does not go together. */
static outr_code check(const outr_ca_settings *s, outr_err *err)
{
    if (s->jwt_issuer.n > 0 && !s->jwt_enabled)
        return outr_fail(err, OUTR_INVALID_ARGUMENT,
                         "jwt-issuer cannot be set when jwt-enabled is false");
    if (s->oidc_enabled && !s->jwt_enabled)
        return outr_fail(err, OUTR_INVALID_ARGUMENT,
                         "oidc-enabled is of no use when jwt-enabled is false");
    if (s->oidc_enabled && s->oidc_tls && (!s->oidc_certificate.n || !s->oidc_key.n))
        return outr_fail(err, OUTR_INVALID_ARGUMENT,
                         "oidc-server-tls-cert-file and oidc-server-tls-key-file are required when "
                         "OIDC HTTP server is enabled (unless oidc-server-tls-enabled is false)");
    return OUTR_OK;
}

outr_code outr_ca_settings_parse(outr_ca_settings *out, int argc, char *const *argv,
                                 char *const *envp, outr_err *err)
{
    outr_ca_settings s = {.namespace_ = OUTR_STR("default")};
    for (size_t i = 0; i < OUTR_LEN(flags); i++)
        set(&flags[i], &s, outr_str_from(flags[i].otherwise));
    for (; envp && *envp; envp++) {
        if (strncmp(*envp, "NAMESPACE=", 10) == 0)
            s.namespace_ = outr_str_from(*envp + 10);
    }
    for (int i = 1; i < argc; i++) {
        outr_str arg = outr_str_from(argv[i]), name;
        if (arg.n < 2 || arg.p[0] != '-')
            return outr_fail(err, OUTR_INVALID_ARGUMENT, "\"%s\" is not a flag; see --help",
                             argv[i]);
        arg = outr_str_skip(arg, arg.p[1] == '-' ? 2 : 1);
        outr_str value = outr_str_cut(arg, '=', &name);
        const struct flag *f = find(name);
        if (!f)
            return outr_fail(err, OUTR_INVALID_ARGUMENT, "unknown flag: --" OUTR_FMT "; see --help",
                             OUTR_ARG(name));
        if (!value.p && f->kind == BOOLEAN)
            value = OUTR_STR("true");
        else if (!value.p && ++i == argc)
            return outr_fail(err, OUTR_INVALID_ARGUMENT, "flag needs an argument: --%s", f->name);
        else if (!value.p)
            value = outr_str_from(argv[i]);
        if (!set(f, &s, value))
            return outr_fail(err, OUTR_INVALID_ARGUMENT,
                             "invalid argument \"" OUTR_FMT "\" for --%s (%s)", OUTR_ARG(value),
                             f->name, f->text);
    }
    if (check(&s, err))
        return err->code;
    *out = s;
    return OUTR_OK;
}

void outr_ca_settings_help(outr_buf *out)
{
    outr_buf_z(out, "outrigger-control ca - the certificate authority of a fleet\n\n"
                    "usage: outrigger-control ca [flags]\n\n");
    for (size_t i = 0; i < OUTR_LEN(flags); i++)
        outr_buf_printf(out, "  --%-28s %s%s%s%s\n", flags[i].name, flags[i].text,
                        flags[i].otherwise[0] ? " (" : "", flags[i].otherwise,
                        flags[i].otherwise[0] ? ")" : "");
}
