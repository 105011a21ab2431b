#include "control/ca/ca.h"

#include <signal.h>
#include <unistd.h>

#include "config/snapshot.h"
#include "control/ca/oidc.h"
#include "control/ca/sign.h"
#include "control/ca/vouch.h"
#include "grpc/server.h"
#include "loop/signal.h"
#include "net/env_real.h"
#include "observe/exposition.h"
#include "security/issuer.h"
#include "security/rotation.h"
#include "security/secretfile.h"
#include "security/watched.h"
#include "tls/accept.h"

#define LOOK_NS (60 * OUTR_SEC)

typedef struct port {
    struct ca *ca;
    outr_listener *listener;
    outr_http_server *server;
    outr_tls_acceptor *acceptor; /* of the one that has TLS */
} port;

enum { PORT_SIGN, PORT_HEALTH, PORT_METRICS, PORT_OIDC, PORT_COUNT };

enum { FILE_ROOT, FILE_ISSUER, FILE_KEY, FILE_COUNT };

typedef struct ca {
    const outr_ca_settings *s;
    outr_log log;
    outr_loop *loop;
    outr_metrics *metrics;
    outr_authority_options options;
    outr_authority *authority;
    outr_vouch *vouch; /* NULL: everybody is who he says he is */
    outr_ca_tokens_options token_options;
    outr_ca_tokens *tokens; /* NULL: none are given */
    outr_ca_sign sign;
    outr_oidc oidc;
    outr_tls *tls, *oidc_tls;
    outr_arena *arena; /* paths */
    outr_watched files[FILE_COUNT];
    outr_signals *signals;
    outr_timer renewer;
    int64_t issued_ms, expires_ms; /* of our server's certificate */
    int64_t warned_s;
    port ports[PORT_COUNT];
    unsigned draining;
    bool is_stopping, has_bad_files;
} ca;

static const outr_metric_desc issuer_expiry = {"dapr_sentry_issuercert_expiry_timestamp",
                                               "end of the issuer's certificate, Unix time",
                                               OUTR_GAUGE,
                                               0,
                                               {NULL}};

static const outr_metric_desc issuer_changed = {"dapr_sentry_issuercert_changed_total",
                                                "changes of the issuer's certificate or key",
                                                OUTR_COUNTER,
                                                0,
                                                {NULL}};
static const outr_metric_desc own_failed = {"dapr_sentry_servercert_issue_failed_total",
                                            "failures to issue the authority's own certificate",
                                            OUTR_COUNTER,
                                            0,
                                            {"reason"}};

static int64_t now_ms(const ca *c)
{
    return outr_loop_unix_ns(c->loop) / (int64_t)OUTR_MS;
}

/* ---- health ---------------------------------------------------------------------------------- */

/* Well is who can issue. */
static void on_health_request(void *ctx, outr_exchange *x)
{
    const ca *c = ctx;
    bool is_health = outr_str_is(x->req.target, "/healthz");
    bool is_well = now_ms(c) / 1000 < outr_authority_expires(c->authority) &&
                   now_ms(c) < c->expires_ms && !c->is_stopping &&
                  (!c->vouch || outr_vouch_is_ready(c->vouch));
    outr_http_response head = {.status = !is_health ? 404 : is_well ? 200 : 500,
                               .content_length = 0};
    outr_headers_init(&head.headers, x->arena);
    outr_http_reply(x, &head, OUTR_STR_NONE);
    outr_http_done(x);
}

static const outr_http_handler health_handler = {.on_request = on_health_request};

/* ---- our own certificate --------------------------------------------------------------------- */

static outr_code renew_own(ca *c, outr_err *err)
{
    static const char *const alpn[] = {"h2", NULL};
    OUTR_AUTO(outr_buf) chain = OUTR_BUF_MAX(OUTR_MIB);
    outr_key *key = NULL;
    int64_t expires_s = 0;
    outr_code rc = outr_key_make(&key, err);
    if (!rc)
        rc = outr_authority_sign_own(c->authority, key, now_ms(c) / 1000, &chain, &expires_s, err);
    const outr_tls_options options = {.is_server = true,
                                      .requires_alpn = true,
                                      .certificate_pem = outr_buf_view(&chain),
                                      .key = key,
                                      .alpn = alpn};
    if (!rc)
        rc = c->tls ? outr_tls_renew(c->tls, &options, err) : outr_tls_new(&c->tls, &options, err);
    outr_key_unref(key);
    if (rc) {
        const outr_str reason = outr_str_from(outr_code_name(rc));
        outr_metric_count(outr_loop_metrics(c->loop), &own_failed, &reason, 1);
        return rc;
    }
    c->issued_ms = now_ms(c);
    c->expires_ms = expires_s * 1000;
    return OUTR_OK;
}

static void warn_of_end(ca *c)
{
    int64_t now_s = now_ms(c) / 1000, left_s = outr_authority_expires(c->authority) - now_s;
    if (left_s >= OUTR_ISSUER_WARN_S || now_s - c->warned_s < 3600)
        return;
    c->warned_s = now_s;
    OUTR_LOG(&c->log, WARN,
             left_s > 0 ? "the issuer's certificate ends soon: nothing is issued after that"
                        : "the issuer's certificate has expired: nothing is issued",
             OUTR_I("seconds_left", left_s));
}

static void on_renew(outr_timer *timer)
{
    ca *c = OUTR_CONTAINER(timer, ca, renewer);
    outr_err err;
    warn_of_end(c);
    if (now_ms(c) >= outr_rotation_due(c->issued_ms, c->expires_ms, 0.5) && renew_own(c, &err))
        OUTR_LOG(&c->log, ERROR, "the authority's own certificate cannot be renewed",
                 OUTR_ERR(&err));
    outr_timer_start(c->loop, timer, outr_loop_now(c->loop) + LOOK_NS);
}

/* ---- the files ------------------------------------------------------------------------------- */

static void note_issuer(ca *c)
{
    outr_metric_set(outr_metric_series_get(outr_loop_metrics(c->loop), &issuer_expiry, NULL),
                    (double)outr_authority_expires(c->authority));
    c->sign.authority = c->authority;
    c->warned_s = 0;
}

/* Others were put in place of ours, one after the other: until all fit together the last ones stay.
 * Whoever has a certificate of theirs keeps it. */
static bool on_changed(outr_watched *watched OUTR_UNUSED, ca *c)
{
    outr_authority *next;
    outr_err err;
    bool made;
    if (access(c->files[FILE_ROOT].path, F_OK) && access(c->files[FILE_ISSUER].path, F_OK) &&
        access(c->files[FILE_KEY].path, F_OK))
        return true; /* all taken away: nothing is made for that while we live */
    if (outr_authority_open(&next, &c->options, now_ms(c) / 1000, &made, &err)) {
        if (!c->has_bad_files) /* looked at again, and told of once */
            OUTR_LOG(&c->log, WARN, "changed files cannot be used, the last root and issuer stay",
                     OUTR_ERR(&err));
        c->has_bad_files = true;
        return false;
    }
    if (!c->has_bad_files && outr_authority_is_same(next, c->authority)) {
        outr_authority_free(next); /* taken already, when another of the three was looked at */
        return true;
    }
    c->has_bad_files = false;
    outr_authority_free(c->authority);
    c->authority = next;
    note_issuer(c);
    outr_metric_count(outr_loop_metrics(c->loop), &issuer_changed, NULL, 1);
    OUTR_LOG(&c->log, INFO, "root and issuer have changed");
    if (renew_own(c, &err))
        OUTR_LOG(&c->log, ERROR, "the authority's own certificate cannot be renewed",
                 OUTR_ERR(&err));
    return true;
}

static bool on_root_changed(outr_watched *watched)
{
    return on_changed(watched, OUTR_CONTAINER(watched, ca, files[FILE_ROOT]));
}

static bool on_issuer_changed(outr_watched *watched)
{
    return on_changed(watched, OUTR_CONTAINER(watched, ca, files[FILE_ISSUER]));
}

static bool on_key_changed(outr_watched *watched)
{
    return on_changed(watched, OUTR_CONTAINER(watched, ca, files[FILE_KEY]));
}

static void watch_files(ca *c)
{
    static bool (*const changed[FILE_COUNT])(outr_watched *) = {on_root_changed, on_issuer_changed,
                                                                on_key_changed};
    for (size_t i = 0; i < FILE_COUNT; i++)
        outr_watched_start(&c->files[i], c->loop, changed[i]);
}

/* Before they are read, so that no change falls in between; once made, that counts as seen, too. */
static void note_files(ca *c)
{
    const char *const names[FILE_COUNT] = {c->options.root_name, c->options.issuer_name,
                                           c->options.key_name};
    for (size_t i = 0; i < FILE_COUNT; i++)
        outr_watched_note(&c->files[i],
                          outr_authority_path(c->arena, c->options.dir, names[i]));
}

/* ---- ports ----------------------------------------------------------------------------------- */

static void on_accept(void *ctx, outr_stream *own_stream)
{
    port *p = ctx;
    if (p->acceptor)
        outr_tls_acceptor_take(p->acceptor, own_stream);
    else
        outr_http_server_take(p->server, own_stream);
}

static void on_secured(void *ctx, outr_stream *own_stream)
{
    outr_http_server_take(((port *)ctx)->server, own_stream);
}

static void on_refused(void *ctx, const outr_addr *peer, const char *reason, const outr_err *err)
{
    const port *p = ctx;
    char address[OUTR_ADDR_TEXT_MAX];
    outr_str who = outr_str_of(address, outr_addr_text(peer, address));
    OUTR_LOG(&p->ca->log, DEBUG, "a client was refused", OUTR_S("peer", who),
             OUTR_Z("reason", reason), OUTR_ERR(err));
}

static outr_code open_port(ca *c, unsigned which, outr_str host, uint16_t number, outr_err *err)
{
    static const char *const names[PORT_COUNT] = {"certificate port", "healthz port",
                                                  "metrics port", "OIDC port"};
    port *p = &c->ports[which];
    outr_env *env = outr_loop_env(c->loop);
    outr_listen_options listen = {.on_accept = on_accept, .ctx = p};
    p->ca = c;
    if (outr_str_is(host, "localhost"))
        host = OUTR_STR("127.0.0.1");
    outr_code rc = outr_addr_from_ip(&listen.addr, host.n ? host : OUTR_STR("::"), number, err);
    if (!rc)
        rc = env->listen(env, c->loop, &listen, &p->listener, err);
    if (rc && rc != OUTR_ALREADY_EXISTS && host.n == 0) { /* a machine without IPv6 */
        outr_addr_from_ip(&listen.addr, OUTR_STR("0.0.0.0"), number, err);
        rc = env->listen(env, c->loop, &listen, &p->listener, err);
    }
    if (rc)
        return outr_wrap(err, "%s", names[which]);
    outr_http_server_options server = {.loop = c->loop,
                                       .handler = &outr_ca_sign_handler,
                                       .ctx = &c->sign,
                                       .allow_h1 = which != PORT_SIGN,
                                       .allow_h2 = true,
                                       .max_connections = 4096,
                                       .limits = {.arena_bytes = 4 * OUTR_MIB}};
    if (which == PORT_SIGN)
        server.on_refuse = outr_grpc_on_refuse;
    if (which == PORT_HEALTH) {
        server.handler = &health_handler;
        server.ctx = c;
    }
    if (which == PORT_OIDC) {
        server.handler = &outr_oidc_handler;
        server.ctx = &c->oidc;
    }
    if (which == PORT_METRICS) {
        server.handler = &outr_exposition_handler;
        server.ctx = c->metrics;
    }
    p->server = outr_http_server_new(&server);
    outr_tls *tls = which == PORT_SIGN ? c->tls : which == PORT_OIDC ? c->oidc_tls : NULL;
    if (tls) {
        const outr_tls_acceptor_options acceptor = {.loop = c->loop,
                                                    .tls = tls,
                                                    .ready = on_secured,
                                                    .refused = on_refused,
                                                    .ctx = p};
        p->acceptor = outr_tls_acceptor_new(&acceptor);
    }
    return OUTR_OK;
}

static outr_code open_ports(ca *c, outr_err *err)
{
    const outr_ca_settings *s = c->s;
    outr_code rc = open_port(c, PORT_SIGN, s->listen_address, s->port, err);
    if (!rc && s->healthz_port)
        rc = open_port(c, PORT_HEALTH, s->healthz_listen_address, s->healthz_port, err);
    if (!rc && s->enable_metrics)
        rc = open_port(c, PORT_METRICS, s->metrics_listen_address, s->metrics_port, err);
    if (!rc && s->oidc_enabled && c->tokens)
        rc = open_port(c, PORT_OIDC, s->oidc_listen_address, s->oidc_port, err);
    return rc;
}

/* ---- the end --------------------------------------------------------------------------------- */

static void on_drained(void *ctx)
{
    ca *c = ctx;
    if (--c->draining > 0)
        return;
    if (c->vouch) { /* now that nobody asks any more */
        c->draining = 1;
        outr_vouch_close(outr_take(&c->vouch), on_drained, c);
        return;
    }
    for (size_t i = 0; i < PORT_COUNT; i++) {
        if (c->ports[i].server)
            outr_http_server_free(c->ports[i].server);
    }
    outr_signals_free(c->signals);
    outr_loop_stop(c->loop);
}

static void stop(ca *c)
{
    c->is_stopping = true;
    c->draining = 1; /* held until all are asked */
    outr_timer_stop(c->loop, &c->renewer);
    for (size_t i = 0; i < FILE_COUNT; i++)
        outr_watched_stop(&c->files[i]);
    for (size_t i = 0; i < PORT_COUNT; i++) {
        port *p = &c->ports[i];
        outr_listener_close(p->listener);
        outr_tls_acceptor_close(p->acceptor);
        if (!p->server)
            continue;
        c->draining++;
        outr_http_server_drain(p->server, on_drained, c);
    }
    on_drained(c);
}

static void on_signal(void *ctx, int signum OUTR_UNUSED)
{
    ca *c = ctx;
    if (c->is_stopping)
        _exit(1); /* a second signal ends at once */
    OUTR_LOG(&c->log, INFO, "shutting down");
    stop(c);
}

/* ---- one life -------------------------------------------------------------------------------- */

static void log_list(const outr_log *log, bool is_fatal, const outr_err_list *list)
{
    for (size_t i = 0; i < list->count; i++) {
        if (is_fatal)
            OUTR_LOG(log, FATAL, list->items[i].text);
        else
            OUTR_LOG(log, WARN, list->items[i].text);
    }
}

static outr_code read_configuration(ca *c, char *const *envp, outr_snapshot **own, outr_err *err)
{
    outr_authority_options *out = &c->options;
    OUTR_AUTO(outr_err_list) errors = {0};
    OUTR_AUTO(outr_err_list) warnings = {0};
    const outr_settings settings = {.config_files = c->s->config_files,
                                    .namespace_ = c->s->namespace_};
    outr_code rc = outr_snapshot_load(own, &settings, envp, &errors, &warnings);
    log_list(&c->log, false, &warnings);
    log_list(&c->log, true, &errors);
    if (rc)
        return outr_fail(err, rc, "the Configuration cannot be used");
    const outr_configuration *conf = &(*own)->configuration;
    if (conf->certificate_ttl_ns)
        out->ttl_s = OUTR_MAX((int64_t)(conf->certificate_ttl_ns / OUTR_SEC), 1);
    if (conf->clock_skew_ns)
        out->skew_s = (int64_t)(conf->clock_skew_ns / OUTR_SEC);
    return OUTR_OK;
}

/* Its own id is what tokens must be meant for, and is known before its files are. */
static outr_code open_vouch(ca *c, const outr_configuration *conf, outr_err *err)
{
    outr_str audience = outr_arena_printf(
        c->arena, "spiffe://" OUTR_FMT "/ns/" OUTR_FMT "/dapr-sentry",
        OUTR_ARG(c->options.trust_domain), OUTR_ARG(c->options.namespace_));
    outr_code rc = outr_vouch_new(&c->vouch, conf, audience, c->loop, &c->log, err);
    if (rc || !c->vouch)
        return rc;
    c->options.vouch = outr_vouch_for;
    c->options.ctx = c->vouch;
    OUTR_LOG(&c->log, INFO, "certificates are issued to bearers of tokens alone",
             OUTR_S("audience", audience));
    outr_vouch_open(c->vouch);
    return OUTR_OK;
}

static outr_code open_tokens(ca *c, outr_err *err)
{
    const outr_ca_settings *s = c->s;
    bool made;
    if (!s->jwt_enabled)
        return OUTR_OK;
    c->token_options = (outr_ca_tokens_options){.dir = c->options.dir,
                                                .key_name = s->jwt_key_name,
                                                .keys_name = s->jwks_name,
                                                .algorithm = s->jwt_algorithm,
                                                .key_id = s->jwt_key_id,
                                                .issuer = s->jwt_issuer,
                                                .ttl_s = s->jwt_ttl_ns / (int64_t)OUTR_SEC,
                                                .skew_s = c->options.skew_s};
    outr_code rc = outr_ca_tokens_open(&c->tokens, &c->token_options, &made, err);
    if (rc)
        return rc;
    c->sign.tokens = c->tokens;
    OUTR_LOG(&c->log, INFO, made ? "key for tokens made" : "key for tokens read",
             OUTR_S("algorithm", outr_ca_tokens_algorithm(c->tokens)));
    return OUTR_OK;
}

static outr_code open_oidc(ca *c, outr_err *err)
{
    static const char *const alpn[] = {"h2", "http/1.1", NULL};
    const outr_ca_settings *s = c->s;
    outr_buf certificate = {0}, key = {0};
    c->oidc = (outr_oidc){.tokens = c->tokens,
                          .issuer = s->jwt_issuer,
                          .keys_url = s->oidc_jwks_uri,
                          .path_prefix = s->oidc_path_prefix,
                          .hosts = &s->oidc_hosts,
                          .is_secure = s->oidc_tls};
    if (!s->oidc_enabled || !c->tokens || !s->oidc_tls)
        return OUTR_OK;
    outr_code rc = outr_secretfile_read(&certificate, s->oidc_certificate.p, OUTR_MIB,
                                        OUTR_FILE_ANY, err);
    if (!rc)
        rc = outr_secretfile_read(&key, s->oidc_key.p, OUTR_MIB, OUTR_FILE_ANY, err);
    const outr_tls_options options = {.is_server = true,
                                      .certificate_pem = outr_buf_view(&certificate),
                                      .key_pem = outr_buf_view(&key),
                                      .alpn = alpn};
    if (!rc)
        rc = outr_tls_new(&c->oidc_tls, &options, err);
    outr_buf_done(&certificate);
    outr_secret_done(&key);
    return rc ? outr_wrap(err, "OIDC server") : OUTR_OK;
}

static outr_code open_authority(ca *c, outr_err *err)
{
    bool made;
    note_files(c);
    outr_code rc = outr_authority_open(&c->authority, &c->options, now_ms(c) / 1000, &made, err);
    if (rc)
        return rc;
    if (made) {
        note_files(c);
        outr_metric_count(outr_loop_metrics(c->loop), &issuer_changed, NULL, 1);
    }
    OUTR_LOG(&c->log, INFO, made ? "root and issuer made" : "root and issuer read",
             OUTR_Z("folder", c->options.dir), OUTR_S("id", outr_authority_id(c->authority)),
             OUTR_I("ttl_seconds", c->options.ttl_s), OUTR_I("skew_seconds", c->options.skew_s));
    note_issuer(c);
    return OUTR_OK;
}

static outr_code prepare(ca *c, char *const *envp, outr_err *err)
{
    const outr_ca_settings *s = c->s;
    outr_snapshot *snapshot = NULL;
    c->options = (outr_authority_options){.dir = s->credentials_dir.p,
                                          .root_name = s->root_name.p,
                                          .issuer_name = s->issuer_name.p,
                                          .key_name = s->key_name.p,
                                          .trust_domain = s->trust_domain,
                                          .namespace_ = s->namespace_,
                                          .ttl_s = OUTR_ISSUER_TTL_S,
                                          .skew_s = OUTR_ISSUER_SKEW_S};
    outr_code rc = read_configuration(c, envp, &snapshot, err);
    if (!rc)
        rc = open_vouch(c, &snapshot->configuration, err);
    outr_snapshot_unref(snapshot);
    if (!rc)
        rc = open_authority(c, err);
    if (!rc)
        rc = renew_own(c, err);
    if (!rc)
        rc = open_tokens(c, err);
    if (!rc)
        rc = open_oidc(c, err);
    if (!rc)
        rc = open_ports(c, err);
    if (!rc)
        watch_files(c);
    return rc;
}

int outr_ca_run(const outr_ca_settings *settings, char *const *envp)
{
    static const int signums[] = {SIGINT, SIGTERM, 0};
    ca *c = outr_alloc(sizeof *c);
    outr_err err;
    char host[256] = "localhost";
    gethostname(host, sizeof host - 1);
    const outr_log_options log = {.level = settings->log_level,
                                  .is_json = settings->log_as_json,
                                  .fd = STDOUT_FILENO,
                                  .app_id = OUTR_STR("dapr-sentry"),
                                  .instance = outr_str_from(host),
                                  .version = OUTR_STR(OUTR_DAPR_VERSION)};
    outr_log_sink *sink = outr_log_sink_new(&log);
    c->s = settings;
    c->log = (outr_log){sink, "outrigger.ca"};
    if (settings->enable_metrics)
        c->metrics = outr_metrics_new(
            &(outr_metrics_options){.app_id = OUTR_STR("dapr-sentry"), .shard_count = 1});
    const outr_loop_options loop = {
        .env = outr_env_real(),
        .log = &c->log,
        .metrics = c->metrics ? outr_metrics_shard(c->metrics, 0) : NULL,
    };
    c->loop = outr_loop_new(&loop);
    c->renewer.fire = on_renew;
    c->arena = outr_arena_new(OUTR_MIB);
    c->sign.loop = c->loop;
    c->sign.log = &c->log;
    outr_code rc = prepare(c, envp, &err);
    if (rc) {
        OUTR_LOG(&c->log, FATAL, "start failed", OUTR_ERR(&err));
        stop(c);
    } else {
        c->signals = outr_signals_watch(c->loop, signums, on_signal, c);
        on_renew(&c->renewer);
        OUTR_LOG(&c->log, INFO, "issuing certificates", OUTR_I("port", settings->port));
    }
    outr_loop_run(c->loop);
    outr_loop_free(c->loop);
    outr_tls_unref(c->tls);
    outr_tls_unref(c->oidc_tls);
    outr_ca_tokens_free(c->tokens);
    outr_authority_free(c->authority);
    outr_arena_free(c->arena);
    outr_metrics_free(c->metrics);
    outr_log_sink_free(sink);
    free(c);
    return rc ? 1 : 0;
}
