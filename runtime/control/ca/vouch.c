#include "control/ca/vouch.h"

#include "base/encode.h"
#include "http/issuers.h"
#include "security/secretfile.h"

#define SCRATCH_MAX OUTR_MIB
#define CA_MAX      OUTR_MIB
/* shorter ones are not meant, in sentry as here */
#define REFRESH_MIN_NS OUTR_SEC
#define TIMEOUT_MIN_NS OUTR_MS

struct outr_vouch {
    outr_loop *loop;
    outr_issuers *keys;
    outr_op opening, closing;
    bool is_open;
    void (*done)(void *ctx);
    void *ctx;
};

/* ---- what the Configuration says ------------------------------------------------------------- */

static outr_code check_names(const outr_configuration *c, outr_err *err)
{
    for (size_t i = 0; i < c->token_validator_count; i++) {
        outr_str name = c->token_validators[i].name;
        if (outr_str_iis(name, "kubernetes") || outr_str_iis(name, "insecure"))
            return outr_fail(err, OUTR_INVALID_ARGUMENT,
                             "invalid token validator: the built-in 'kubernetes' and 'insecure' "
                             "validators cannot be configured manually");
        if (!outr_str_iis(name, "jwks"))
            return outr_fail(err, OUTR_INVALID_ARGUMENT,
                             "invalid token validator name: '" OUTR_FMT
                             "'; supported values: 'jwks'",
                             OUTR_ARG(name));
    }
    if (c->token_validator_count > 1) /* the last would count: which was meant? */
        return outr_fail(err, OUTR_INVALID_ARGUMENT, "token validator 'jwks' is given twice");
    return OUTR_OK;
}

/* Where its keys are: a URL, else a key set (perhaps in base64), else a file. */
static void read_source(outr_issuer_spec *spec, outr_str source, outr_arena *arena)
{
    outr_str text;
    source = outr_str_trim(source);
    if (outr_str_istarts(source, OUTR_STR("http://")) ||
        outr_str_istarts(source, OUTR_STR("https://")))
        spec->keys_url = source;
    else if (outr_str_starts(source, OUTR_STR("{")))
        spec->keys = source;
    else if (outr_base64_decode(arena, source, &text) &&
             outr_str_starts(outr_str_trim(text), OUTR_STR("{")))
        spec->keys = text;
    else
        spec->keys_file = source;
}

static outr_code read_ca(outr_tls **out, outr_str certificate, outr_arena *arena, outr_err *err)
{
    static const char *const alpn[] = {"h2", "http/1.1", NULL};
    OUTR_AUTO(outr_buf) pem = OUTR_BUF_MAX(CA_MAX);
    if (outr_str_search(certificate, OUTR_STR("-----BEGIN")) >= 0) {
        outr_buf_str(&pem, certificate);
    } else if (outr_secretfile_read(&pem, outr_arena_strz(arena, certificate), CA_MAX,
                                    OUTR_FILE_ANY, err)) {
        return err->code;
    }
    const outr_tls_options options = {
        .verify_peer = true, .ca_pem = outr_buf_view(&pem), .alpn = alpn};
    return outr_tls_new(out, &options, err);
}

static outr_code make(outr_vouch *v, const outr_token_validator *given, outr_str audience,
                      const outr_log *log, outr_arena *arena, outr_err *err)
{
    outr_issuer_spec spec = {.name = OUTR_STR_NONE, .audiences = &audience, .audience_count = 1};
    outr_issuers_options options = {.loop = v->loop,
                                    .log = log,
                                    .items = &spec,
                                    .count = 1,
                                    .skew_s = OUTR_JWT_SKEW_S,
                                    .refresh_ns = given->refresh_ns,
                                    .timeout_ns = given->timeout_ns};
    if (given->refresh_ns < REFRESH_MIN_NS)
        options.refresh_ns = 0;
    if (given->timeout_ns < TIMEOUT_MIN_NS)
        options.timeout_ns = 0;
    if (given->source.n == 0)
        return outr_fail(err, OUTR_INVALID_ARGUMENT, "options.source: a key set is needed");
    read_source(&spec, given->source, arena);
    outr_code rc = outr_issuer_check(&spec, err);
    if (rc)
        return outr_wrap(err, "options.source");
    if (given->ca_certificate.n > 0 &&
        read_ca(&options.tls, given->ca_certificate, arena, err))
        return outr_wrap(err, "options.caCertificate");
    v->keys = outr_issuers_new(&options);
    outr_tls_unref(options.tls);
    return OUTR_OK;
}

outr_code outr_vouch_new(outr_vouch **out, const outr_configuration *configuration,
                         outr_str audience, outr_loop *loop, const outr_log *log, outr_err *err)
{
    *out = NULL;
    if (configuration->token_validator_count == 0)
        return OUTR_OK;
    if (check_names(configuration, err))
        return outr_wrap(err, "spec.mtls.tokenValidators");
    outr_arena *arena = outr_arena_new(4 * OUTR_MIB);
    outr_vouch *v = outr_alloc(sizeof *v);
    v->loop = loop;
    outr_code rc = make(v, configuration->token_validators, audience, log, arena, err);
    outr_arena_free(arena);
    if (rc) {
        free(v);
        return outr_wrap(err, "spec.mtls.tokenValidators: jwks");
    }
    *out = v;
    return OUTR_OK;
}

/* ---- tokens ---------------------------------------------------------------------------------- */

outr_code outr_vouch_for(void *ctx, outr_str token, outr_str subject, outr_err *err)
{
    outr_vouch *v = ctx;
    const outr_claims *claims;
    size_t count = 0;
    if (!outr_issuers_have_keys(v->keys)) /* sentry lets the request wait; the client asks again */
        return outr_fail(err, OUTR_UNAVAILABLE, "jwks validator not ready");
    outr_arena *scratch = outr_arena_new(SCRATCH_MAX);
    const char *reason = outr_issuers_ask(v->keys, v->loop, token, scratch, &claims);
    const outr_claim *sub = reason ? NULL : outr_claims_find(claims, OUTR_STR("sub"), &count);
    if (!reason && (count != 1 || !outr_str_eq(sub->value, subject)))
        reason = "subject";
    outr_arena_free(scratch);
    if (reason)
        return outr_fail(err, OUTR_PERMISSION_DENIED, "token validation failed: %s", reason);
    return OUTR_OK;
}

bool outr_vouch_is_ready(const outr_vouch *vouch)
{
    return outr_issuers_have_keys(vouch->keys);
}

/* ---- life ------------------------------------------------------------------------------------ */

static void on_opened(outr_op *op OUTR_UNUSED) {} /* what could not be read was told */

void outr_vouch_open(outr_vouch *v)
{
    v->is_open = true;
    outr_op_init(&v->opening, v->loop, NULL, 0, on_opened);
    outr_issuers_open(v->keys, &v->opening);
}

static void on_closed(outr_op *op)
{
    outr_vouch *v = OUTR_CONTAINER(op, outr_vouch, closing);
    void (*done)(void *) = v->done;
    void *ctx = v->ctx;
    free(v);
    done(ctx);
}

void outr_vouch_close(outr_vouch *v, void (*done)(void *ctx), void *ctx)
{
    v->done = done;
    v->ctx = ctx;
    if (v->is_open && outr_op_is_pending(&v->opening))
        outr_op_cancel(&v->opening, OUTR_CANCELLED);
    outr_op_init(&v->closing, v->loop, NULL, 0, on_closed);
    outr_issuers_close(v->keys, &v->closing);
}
