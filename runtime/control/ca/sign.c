#include "control/ca/sign.h"

#include <dapr/proto/sentry/v1/sentry.pb-c.h>

#include "grpc/server.h"

#define REQUEST_MAX (256 * OUTR_KIB) /* room for an RSA request of any size and a token */

typedef Dapr__Proto__Sentry__V1__SignCertificateRequest request;
typedef Dapr__Proto__Sentry__V1__SignCertificateResponse response;
typedef Dapr__Proto__Sentry__V1__SignCertificateResponse__PerAudienceJwtsEntry entry;

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
static int64_t now_s(const outr_ca_sign *s)
{
    return outr_loop_unix_ns(s->loop) / (int64_t)OUTR_SEC;
}

static outr_str text(const char *z)
{
    return outr_str_from(z ? z : "");
}

/* ---- tokens ---------------------------------------------------------------------------------- */

static outr_code issue_token(const outr_ca_sign *s, outr_grpc_call *call, outr_str subject,
                             outr_str audience, Google__Protobuf__StringValue **out, outr_err *err)
{
    Google__Protobuf__StringValue *value = outr_arena_alloc(call->arena, sizeof *value);
    outr_str token;
    if (outr_ca_tokens_issue(s->tokens, subject, audience, now_s(s),
                             outr_authority_expires(s->authority), call->arena, &token, err))
        return outr_wrap(err, "failed to generate JWT");
    google__protobuf__string_value__init(value);
    value->value = outr_proto_text(call->arena, token);
    *out = value;
    return OUTR_OK;
}

/* One for the trust domain, and one for each audience asked for. */
static outr_code issue_tokens(const outr_ca_sign *s, outr_grpc_call *call, outr_str subject,
                              response *out, outr_err *err)
{
    const request *in = call->request;
    outr_str domain = in->trust_domain && in->trust_domain[0] ? text(in->trust_domain)
                                                              : OUTR_STR("public");
    entry **entries = outr_arena_alloc(call->arena, OUTR_CA_AUDIENCES_MAX * sizeof *entries);
    if (issue_token(s, call, subject, domain, &out->jwt, err))
        return err->code;
    out->_jwt_case = DAPR__PROTO__SENTRY__V1__SIGN_CERTIFICATE_RESPONSE___JWT_JWT;
    out->per_audience_jwts = entries;
    for (size_t i = 0; i < in->n_jwt_audiences; i++) {
        entry *e = outr_arena_alloc(call->arena, sizeof *e);
        dapr__proto__sentry__v1__sign_certificate_response__per_audience_jwts_entry__init(e);
        e->key = in->jwt_audiences[i];
        if (issue_token(s, call, subject, text(e->key), &e->value, err))
            return err->code;
        entries[out->n_per_audience_jwts++] = e;
    }
    return OUTR_OK;
}

/* ---- the method ------------------------------------------------------------------------------ */

static void refuse(const outr_ca_sign *s, outr_grpc_call *call, const outr_err *err)
{
    const request *in = call->request;
    const outr_str reason = outr_str_from(outr_code_name(err->code));
    outr_metric_count(outr_loop_metrics(s->loop), &failed, &reason, 1);
    OUTR_LOG(s->log, WARN, "a certificate was refused",
             OUTR_S("app", outr_str_head(text(in->id), 80)),
             OUTR_S("namespace", outr_str_head(text(in->namespace_), 80)), OUTR_ERR(err));
    outr_grpc_fail_err(call, err);
}

static void on_sign(outr_grpc_call *call)
{
    const outr_ca_sign *s = call->ctx;
    const request *in = call->request;
    response out = DAPR__PROTO__SENTRY__V1__SIGN_CERTIFICATE_RESPONSE__INIT;
    Google__Protobuf__Timestamp until = GOOGLE__PROTOBUF__TIMESTAMP__INIT;
    OUTR_AUTO(outr_buf) chain = OUTR_BUF_MAX(OUTR_MIB);
    OUTR_AUTO(outr_buf) uri = OUTR_BUF_MAX(4 * OUTR_KIB);
    outr_err err;
    const outr_authority_order order = {
        .id = text(in->id),
        .namespace_ = text(in->namespace_),
        .trust_domain = text(in->trust_domain),
        .csr_pem = outr_proto_bytes(in->certificate_signing_request),
        .token = text(in->token),
        .validator = (int)in->token_validator,
    };
    outr_metric_count(outr_loop_metrics(s->loop), &received, NULL, 1);
    outr_code rc = OUTR_OK;
    if (s->tokens && in->n_jwt_audiences > OUTR_CA_AUDIENCES_MAX)
        rc = outr_fail(&err, OUTR_INVALID_ARGUMENT, "tokens for more than %d audiences",
                       OUTR_CA_AUDIENCES_MAX);
    if (!rc)
        rc = outr_authority_sign(s->authority, &order, now_s(s), &chain, &uri, &until.seconds,
                                 &err);
    if (!rc && s->tokens)
        rc = issue_tokens(s, call, outr_buf_view(&uri), &out, &err);
    if (rc) {
        refuse(s, call, &err);
        return;
    }
    ProtobufCBinaryData root = outr_proto_data(outr_authority_root(s->authority));
    out.workload_certificate = outr_proto_data(outr_buf_view(&chain));
    out.n_trust_chain_certificates = 1;
    out.trust_chain_certificates = &root;
    out.valid_until = &until;
    outr_metric_count(outr_loop_metrics(s->loop), &succeeded, NULL, 1);
    OUTR_LOG(s->log, INFO, "certificate issued", OUTR_S("app", order.id),
             OUTR_S("namespace", order.namespace_));
    outr_grpc_reply(call, &out);
}

static const outr_grpc_method sign_method = {
    .path = "/dapr.proto.sentry.v1.CA/SignCertificate",
    .request = &dapr__proto__sentry__v1__sign_certificate_request__descriptor,
    .run = on_sign,
};

static void on_request(void *ctx, outr_exchange *x)
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

const outr_http_handler outr_ca_sign_handler = {.on_request = on_request};
