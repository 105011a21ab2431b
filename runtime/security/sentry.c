#include "security/sentry.h"

#include <dapr/proto/sentry/v1/sentry.pb-c.h>

#include "base/url.h"

#define TRIES_MAX     5
#define TRY_NS        (3 * OUTR_SEC)
#define TRY_PAUSE_NS  (50 * OUTR_MS)
#define DIAL_PAUSE_NS (250 * OUTR_MS) /* doubles */
#define DIAL_LONGEST  (5 * OUTR_SEC)
#define ANSWER_MAX    OUTR_MIB

enum { SIGN_DIAL, SIGN_ASK, SIGN_HEAR, SIGN_END };

static outr_sentry_sign *of(outr_steps *steps)
{
    return OUTR_CONTAINER(steps, outr_sentry_sign, steps);
}

static void on_inner(outr_op *inner)
{
    outr_steps_run(&OUTR_CONTAINER(inner, outr_sentry_sign, inner)->steps);
}

static outr_op *inner_op(outr_sentry_sign *req, uint64_t deadline_ns)
{
    outr_op_init(&req->inner, req->loop, NULL, deadline_ns, on_inner);
    return &req->inner;
}

static outr_code is_sentry(const void *ctx, outr_str uri, outr_err *err)
{
    const outr_sentry_sign *req = ctx;
    if (outr_str_eq(uri, req->sentry_id))
        return OUTR_OK;
    return outr_fail(err, OUTR_UNAVAILABLE, "unexpected SPIFFE ID: \"" OUTR_FMT "\"",
                     OUTR_ARG(outr_str_head(uri, 256)));
}

static int fail(outr_sentry_sign *req, const outr_err *err)
{
    req->err = *err;
    return SIGN_END;
}

static void hang_up(outr_sentry_sign *req)
{
    outr_http_pool_free(req->pool);
    req->pool = NULL;
}

/* Nobody has answered: again, later, and by name again. */
static int dial_again(outr_sentry_sign *req, const outr_err *err)
{
    uint64_t pause_ns = DIAL_PAUSE_NS << OUTR_MIN(req->dials, 8u);
    hang_up(req);
    pause_ns = OUTR_MIN(pause_ns, DIAL_LONGEST);
    pause_ns -= outr_rand_below(outr_loop_rand(req->loop), pause_ns / 2); /* not all at once */
    if (req->dials++ % 8 == 0)
        OUTR_LOG(outr_loop_log(req->loop), WARN, "the certificate authority cannot be reached yet",
                 OUTR_S("address", req->address), OUTR_ERR(err));
    outr_sleep_start(outr_loop_now(req->loop) + pause_ns, inner_op(req, 0));
    return outr_steps_wait(&req->steps, SIGN_DIAL);
}

static int step_dial(outr_steps *steps)
{
    outr_sentry_sign *req = of(steps);
    outr_env *env = outr_loop_env(req->loop);
    outr_str host;
    outr_err err;
    if (req->is_cancelled)
        return SIGN_END;
    if (outr_hostport_parse(req->address, &host, &req->lookup.port, &err) ||
        req->lookup.port == 0) {
        outr_fail(&err, OUTR_INVALID_ARGUMENT, "sentry address \"" OUTR_FMT "\": not host:port",
                  OUTR_ARG(req->address));
        return fail(req, &err);
    }
    req->lookup.host = host;
    req->lookup.count = 0;
    outr_addr addr;
    if (outr_addr_from_ip(&addr, host, req->lookup.port, NULL) == OUTR_OK) {
        req->lookup.addrs[0] = addr;
        req->lookup.count = 1;
        req->inner.err.code = OUTR_OK;
        return SIGN_ASK;
    }
    env->lookup(env, req->loop, &req->lookup,
                inner_op(req, outr_loop_now(req->loop) + 5 * OUTR_SEC));
    return outr_steps_wait(steps, SIGN_ASK);
}

static void open_pool(outr_sentry_sign *req)
{
    /* by turns, when there are several */
    const outr_http_pool_options options = {
        .loop = req->loop,
        .addr = req->lookup.addrs[req->dials % req->lookup.count],
        .version = OUTR_HTTP_2,
        .tls = req->tls,
        .tls_check = {is_sentry, req},
        .max_connections = 1,
        .connect_timeout_ns = TRY_NS,
        .limits = {.max_header_bytes = 64 * OUTR_KIB},
    };
    req->pool = outr_http_pool_new(&options);
}

static int step_ask(outr_steps *steps)
{
    outr_sentry_sign *req = of(steps);
    Dapr__Proto__Sentry__V1__SignCertificateRequest message =
        DAPR__PROTO__SENTRY__V1__SIGN_CERTIFICATE_REQUEST__INIT;
    char *audiences[OUTR_LIST_MAX];
    if (req->is_cancelled)
        return SIGN_END;
    if (!req->pool && (req->inner.err.code || req->lookup.count == 0)) {
        outr_err err;
        outr_fail(&err, OUTR_UNAVAILABLE, OUTR_FMT ": no such host", OUTR_ARG(req->lookup.host));
        return dial_again(req, &err);
    }
    if (!req->pool)
        open_pool(req);
    outr_arena_reset(req->arena);
    message.id = outr_proto_text(req->arena, req->id);
    message.namespace_ = outr_proto_text(req->arena, req->namespace_);
    message.trust_domain = outr_proto_text(req->arena, req->trust_domain);
    message.certificate_signing_request = outr_proto_data(req->csr_pem);
    if (req->token.n > 0) {
        message.token = outr_proto_text(req->arena, req->token);
        message.token_validator =
            DAPR__PROTO__SENTRY__V1__SIGN_CERTIFICATE_REQUEST__TOKEN_VALIDATOR__JWKS;
    }
    for (size_t i = 0; req->audiences && i < req->audiences->count; i++)
        audiences[message.n_jwt_audiences++] =
            outr_proto_text(req->arena, req->audiences->items[i]);
    message.jwt_audiences = audiences;
    uint64_t deadline_ns = outr_loop_now(req->loop) + TRY_NS;
    req->unary = (outr_grpc_unary){.arena = req->arena,
                                   .loop = req->loop,
                                   .max_bytes = ANSWER_MAX,
                                   .deadline_ns = deadline_ns};
    outr_headers_init(&req->unary.metadata, req->arena);
    outr_grpc_unary_prepare(&req->unary, &req->http, "/dapr.proto.sentry.v1.CA/SignCertificate",
                            &message);
    req->unary.req.scheme = OUTR_STR("https");
    req->unary.req.authority = req->address;
    outr_http_call_start(req->pool, &req->http, inner_op(req, deadline_ns));
    return outr_steps_wait(steps, SIGN_HEAR);
}

static int step_hear(outr_steps *steps)
{
    outr_sentry_sign *req = of(steps);
    Dapr__Proto__Sentry__V1__SignCertificateResponse *answer;
    outr_err err, how = req->inner.err;
    outr_code rc = outr_grpc_unary_result(
        &req->unary, &answer, &dapr__proto__sentry__v1__sign_certificate_response__descriptor, &how,
        &err);
    if (req->is_cancelled)
        return SIGN_END;
    if (rc == OUTR_OK) {
        outr_buf_str(&req->chain_pem, outr_proto_bytes(answer->workload_certificate));
        return SIGN_END;
    }
    if (how.code && req->http.progress == OUTR_CALL_NOT_SENT)
        return dial_again(req, &how);
    bool may_pass =
        rc == OUTR_UNAVAILABLE || rc == OUTR_RESOURCE_EXHAUSTED || rc == OUTR_DEADLINE_EXCEEDED;
    if (may_pass && ++req->tries < TRIES_MAX) {
        outr_sleep_start(outr_loop_now(req->loop) + TRY_PAUSE_NS, inner_op(req, 0));
        return outr_steps_wait(steps, SIGN_ASK);
    }
    outr_err inner = err;
    req->was_refused = true;
    outr_fail(&err, rc, "error from sentry SignCertificate: rpc error: code = %s desc = %s",
              outr_code_name(rc),
              rc == OUTR_DEADLINE_EXCEEDED ? "context deadline exceeded" : inner.text);
    return fail(req, &err);
}

static int step_end(outr_steps *steps)
{
    outr_sentry_sign *req = of(steps);
    outr_err err = req->err;
    hang_up(req);
    outr_tls_unref(req->tls);
    outr_arena_free(req->arena);
    req->tls = NULL;
    req->arena = NULL;
    if (req->is_cancelled)
        outr_op_finish(req->op);
    else if (err.code)
        outr_op_fail_soon(req->op, &err); /* it may not have waited at all */
    else
        outr_op_finish_soon(req->op);
    return OUTR_END;
}

static const outr_step sign_steps[] = {
    [SIGN_DIAL] = {"dial", step_dial, TO(SIGN_ASK) | TO(SIGN_END)},
    [SIGN_ASK] = {"ask", step_ask, TO(SIGN_HEAR) | TO(SIGN_DIAL) | TO(SIGN_END)},
    [SIGN_HEAR] = {"hear", step_hear, TO(SIGN_DIAL) | TO(SIGN_ASK) | TO(SIGN_END)},
    [SIGN_END] = {"end", step_end, 0},
};

static void on_cancel(outr_op *op)
{
    outr_sentry_sign *req = op->impl;
    req->is_cancelled = true;
    outr_op_cancel(&req->inner, op->err.code);
}

void outr_sentry_sign_start(outr_sentry_sign *req, outr_op *op)
{
    static const char *const alpn[] = {"h2", NULL};
    const outr_tls_options options = {.verify_peer = true,
                                      .verify_uri = true,
                                      .requires_alpn = true,
                                      .ca_pem = req->anchors_pem,
                                      .alpn = alpn};
    outr_err err;
    req->op = op;
    req->chain_pem = OUTR_BUF_MAX(ANSWER_MAX);
    outr_op_begin(op, req, on_cancel);
    if (outr_tls_new(&req->tls, &options, &err)) {
        outr_op_fail_soon(op, &err);
        return;
    }
    req->arena = outr_arena_new(4 * ANSWER_MAX);
    outr_steps_init(&req->steps, sign_steps, SIGN_DIAL, NULL);
    outr_steps_run(&req->steps);
}

void outr_sentry_sign_done(outr_sentry_sign *req)
{
    outr_buf_done(&req->chain_pem);
}
