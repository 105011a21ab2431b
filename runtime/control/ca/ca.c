#include "control/ca/ca.h"

#include <dapr/proto/sentry/v1/sentry.pb-c.h>
#include <signal.h>
#include <unistd.h>

#include "config/snapshot.h"
#include "control/ca/authority.h"
#include "grpc/server.h"
#include "loop/signal.h"
#include "net/env_real.h"
#include "observe/exposition.h"
#include "security/rotation.h"
#include "tls/accept.h"

#define REQUEST_MAX   (256 * OUTR_KIB) /* room for an RSA request of any size and a token */
#define TTL_DEFAULT_S ((int64_t)24 * 3600)
#define SKEW_DEFAULT  ((int64_t)15 * 60)
#define WARN_S        ((int64_t)30 * 24 * 3600) /* before the issuer ends */
#define LOOK_NS       (60 * OUTR_SEC)

typedef struct port {
    struct ca *ca;
    outr_listener *listener;
    outr_http_server *server;
    outr_tls_acceptor *acceptor; /* of the one that has TLS */
} port;

enum { PORT_SIGN, PORT_HEALTH, PORT_METRICS, PORT_COUNT };

typedef struct ca {
    const outr_ca_settings *s;
    outr_log log;
    outr_loop *loop;
    outr_metrics *metrics;
    outr_authority *authority;
    outr_tls *tls;
    outr_signals *signals;
    outr_timer renewer;
    int64_t issued_ms, expires_ms; /* of our server's certificate */
    int64_t warned_s;
    port ports[PORT_COUNT];
    unsigned draining;
    bool is_stopping;
} ca;

static const outr_metric_desc received = {"dapr_sentry_cert_sign_request_received_total",
                                          "certificate requests",
                                          OUTR_COUNTER,
                                          0,
                                          {NULL}};
static const outr_metric_desc succeeded = {
    "dapr_sentry_cert_sign_success_total", "certificates issued", OUTR_COUNTER, 0, {NULL}};
static const outr_metric_desc failed = {"dapr_sentry_cert_sign_failure_total",
                                        "certificate requests refused",
                                        OUTR_COUNTER,
                                        0,
                                        {"reason"}};
static const outr_metric_desc issuer_expiry = {"dapr_sentry_issuercert_expiry_timestamp",
                                               "end of the issuer's certificate, Unix time",
                                               OUTR_GAUGE,
                                               0,
                                               {NULL}};

static int64_t now_ms(const ca *c)
{
    return outr_loop_unix_ns(c->loop) / (int64_t)OUTR_MS;
}

/* ---- SignCertificate ------------------------------------------------------------------------- */

static outr_str text(const char *z)
{
    return outr_str_from(z ? z : "");
}

static void on_sign(outr_grpc_call *call)
{
    ca *c = call->ctx;
    const Dapr__Proto__Sentry__V1__SignCertificateRequest *in = call->request;
    Dapr__Proto__Sentry__V1__SignCertificateResponse out =
        DAPR__PROTO__SENTRY__V1__SIGN_CERTIFICATE_RESPONSE__INIT;
    Google__Protobuf__Timestamp until = GOOGLE__PROTOBUF__TIMESTAMP__INIT;
    OUTR_AUTO(outr_buf) chain = OUTR_BUF_MAX(OUTR_MIB);
    outr_err err;
    const outr_authority_order order = {
        .id = text(in->id),
        .namespace_ = text(in->namespace_),
        .trust_domain = text(in->trust_domain),
        .csr_pem = outr_proto_bytes(in->certificate_signing_request),
        .validator = (int)in->token_validator,
    };
    outr_metric_shard *shard = outr_loop_metrics(c->loop);
    outr_metric_count(shard, &received, NULL, 1);
    if (outr_authority_sign(c->authority, &order, now_ms(c) / 1000, &chain, &until.seconds, &err)) {
        const outr_str reason = outr_str_from(outr_code_name(err.code));
        outr_metric_count(shard, &failed, &reason, 1);
        OUTR_LOG(&c->log, WARN, "a certificate was refused",
                 OUTR_S("app", outr_str_head(order.id, 80)),
                 OUTR_S("namespace", outr_str_head(order.namespace_, 80)), OUTR_ERR(&err));
        outr_grpc_fail_err(call, &err);
        return;
    }
    ProtobufCBinaryData root = outr_proto_data(outr_authority_root(c->authority));
    out.workload_certificate = outr_proto_data(outr_buf_view(&chain));
    out.n_trust_chain_certificates = 1;
    out.trust_chain_certificates = &root;
    out.valid_until = &until;
    outr_metric_count(shard, &succeeded, NULL, 1);
    OUTR_LOG(&c->log, INFO, "certificate issued", OUTR_S("app", order.id),
             OUTR_S("namespace", order.namespace_));
    outr_grpc_reply(call, &out);
}

static const outr_grpc_method sign_method = {
    .path = "/dapr.proto.sentry.v1.CA/SignCertificate",
    .request = &dapr__proto__sentry__v1__sign_certificate_request__descriptor,
    .run = on_sign,
};

static void on_sign_request(void *ctx, outr_exchange *x)
{
    outr_str service, method;
    if (!outr_grpc_is_call(&x->req)) {
        outr_grpc_refuse_request(x);
        return;
    }
    if (outr_str_is(x->req.target, sign_method.path)) {
        const outr_grpc_serve_options options = {
            .method = &sign_method, .ctx = ctx, .max_bytes = REQUEST_MAX};
        outr_grpc_serve(x, &options);
        return;
    }
    method = outr_str_cut(outr_str_skip(x->req.target, 1), '/', &service);
    bool is_known = outr_str_is(service, "dapr.proto.sentry.v1.CA");
    outr_str said = is_known ? outr_arena_printf(x->arena, "unknown method " OUTR_FMT
                                                           " for service " OUTR_FMT,
                                                 OUTR_ARG(method), OUTR_ARG(service))
                             : outr_arena_printf(x->arena, "unknown service " OUTR_FMT,
                                                 OUTR_ARG(service));
    outr_grpc_refuse(x, OUTR_UNIMPLEMENTED, said);
}

static const outr_http_handler sign_handler = {.on_request = on_sign_request};

/* ---- health ---------------------------------------------------------------------------------- */

/* Well is who can issue. */
static void on_health_request(void *ctx, outr_exchange *x)
{
    const ca *c = ctx;
    bool is_health = outr_str_is(x->req.target, "/healthz");
    bool is_well = now_ms(c) / 1000 < outr_authority_expires(c->authority) &&
                   now_ms(c) < c->expires_ms && !c->is_stopping;
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
    if (rc)
        return rc;
    c->issued_ms = now_ms(c);
    c->expires_ms = expires_s * 1000;
    return OUTR_OK;
}

static void warn_of_end(ca *c)
{
    int64_t now_s = now_ms(c) / 1000, left_s = outr_authority_expires(c->authority) - now_s;
    if (left_s >= WARN_S || now_s - c->warned_s < 3600)
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
                                                  "metrics port"};
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
                                       .handler = &sign_handler,
                                       .ctx = c,
                                       .allow_h1 = which != PORT_SIGN,
                                       .allow_h2 = true,
                                       .max_connections = 4096,
                                       .limits = {.arena_bytes = 4 * OUTR_MIB}};
    if (which == PORT_SIGN)
        server.on_refuse = outr_grpc_on_refuse;
    if (which == PORT_HEALTH)
        server.handler = &health_handler;
    if (which == PORT_METRICS) {
        server.handler = &outr_exposition_handler;
        server.ctx = c->metrics;
    }
    p->server = outr_http_server_new(&server);
    if (which == PORT_SIGN) {
        const outr_tls_acceptor_options acceptor = {.loop = c->loop,
                                                    .tls = c->tls,
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
    return rc;
}

/* ---- the end --------------------------------------------------------------------------------- */

static void on_drained(void *ctx)
{
    ca *c = ctx;
    if (--c->draining > 0)
        return;
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

static outr_code read_configuration(ca *c, char *const *envp, outr_authority_options *out,
                                    outr_snapshot **own, outr_err *err)
{
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
    if (conf->has_token_validators)
        return outr_fail(err, OUTR_UNIMPLEMENTED,
                         "spec.mtls.tokenValidators is not in this version; refusing to issue "
                         "without them");
    if (conf->certificate_ttl_ns)
        out->ttl_s = OUTR_MAX((int64_t)(conf->certificate_ttl_ns / OUTR_SEC), 1);
    if (conf->clock_skew_ns)
        out->skew_s = (int64_t)(conf->clock_skew_ns / OUTR_SEC);
    return OUTR_OK;
}

static outr_code prepare(ca *c, char *const *envp, outr_err *err)
{
    const outr_ca_settings *s = c->s;
    outr_snapshot *snapshot = NULL;
    bool made;
    outr_authority_options options = {.dir = s->credentials_dir.p,
                                      .root_name = s->root_name.p,
                                      .issuer_name = s->issuer_name.p,
                                      .key_name = s->key_name.p,
                                      .trust_domain = s->trust_domain,
                                      .namespace_ = s->namespace_,
                                      .ttl_s = TTL_DEFAULT_S,
                                      .skew_s = SKEW_DEFAULT};
    outr_code rc = read_configuration(c, envp, &options, &snapshot, err);
    outr_snapshot_unref(snapshot);
    if (!rc)
        rc = outr_authority_open(&c->authority, &options, now_ms(c) / 1000, &made, err);
    if (rc)
        return rc;
    OUTR_LOG(&c->log, INFO, made ? "root and issuer made" : "root and issuer read",
             OUTR_S("folder", s->credentials_dir), OUTR_S("id", outr_authority_id(c->authority)),
             OUTR_I("ttl_seconds", options.ttl_s), OUTR_I("skew_seconds", options.skew_s));
    rc = renew_own(c, err);
    return rc ? rc : open_ports(c, err);
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
    outr_code rc = prepare(c, envp, &err);
    if (rc) {
        OUTR_LOG(&c->log, FATAL, "start failed", OUTR_ERR(&err));
        stop(c);
    } else {
        c->signals = outr_signals_watch(c->loop, signums, on_signal, c);
        on_renew(&c->renewer);
        outr_metric_set(outr_metric_series_get(outr_loop_metrics(c->loop), &issuer_expiry, NULL),
                        (double)outr_authority_expires(c->authority));
        OUTR_LOG(&c->log, INFO, "issuing certificates", OUTR_I("port", settings->port));
    }
    outr_loop_run(c->loop);
    outr_loop_free(c->loop);
    outr_tls_unref(c->tls);
    outr_authority_free(c->authority);
    outr_metrics_free(c->metrics);
    outr_log_sink_free(sink);
    free(c);
    return rc ? 1 : 0;
}
