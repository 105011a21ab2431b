#include "components/middleware.h"
#include "http/issuers.h"

/* Lets pass who shows a token of an issuer for an audience, signed with one of the issuer's keys:
 * http/issuers.h. Keys come from the issuer (OIDC discovery) or from jwksURL; one whose keys
 * cannot be read does not open. */

extern const outr_middleware_backend outr_middleware_bearer;

typedef struct config {
    outr_str issuer, audience, jwks_url;
} config;

static const outr_bind_row rows[] = {
    {"issuer", "issuerURL", OUTR_BIND_STR, OUTR_BIND_REQUIRED, offsetof(config, issuer), 0, 0, NULL,
     NULL, 0, "issuer the tokens must carry"},
    {"audience", "clientID", OUTR_BIND_STR, OUTR_BIND_REQUIRED, offsetof(config, audience), 0, 0,
     NULL, NULL, 0, "audience value tokens must carry"},
    {"jwksURL", NULL, OUTR_BIND_STR, 0, offsetof(config, jwks_url), 0, 0, NULL, NULL, 0,
     "where the key set is read; else found by OIDC discovery"},
};

typedef struct bearer {
    outr_middleware base;
    outr_issuers *issuers;
    const outr_log *log;
} bearer;

static bearer *of(outr_middleware *m)
{
    return OUTR_CONTAINER(m, bearer, base);
}

/* ---- requests -------------------------------------------------------------------------------- */

static outr_middleware_verdict refuse(bearer *b, outr_middleware_call *call, const char *reason)
{
    outr_bearer_count_refused(call->loop, reason);
    OUTR_LOG(b->log, DEBUG, "a request was refused for its token", OUTR_Z("reason", reason));
    outr_middleware_refuse(call, 401, "Unauthorized");
    outr_headers_add(&call->answer.headers, OUTR_STR("WWW-Authenticate"),
                     outr_bearer_challenge(call->arena, reason));
    return OUTR_MIDDLEWARE_ANSWER;
}

static outr_middleware_verdict handle(outr_middleware *m, outr_middleware_call *call,
                                      outr_op *op OUTR_UNUSED)
{
    bearer *b = of(m);
    const outr_claims *claims;
    outr_str token;
    const char *reason = outr_bearer_token(&token, &call->req->headers);
    if (!reason)
        reason = outr_issuers_ask(b->issuers, call->loop, token, call->arena, &claims);
    return reason ? refuse(b, call, reason) : OUTR_MIDDLEWARE_PASS;
}

/* ---- life ------------------------------------------------------------------------------------ */

static void open_it(outr_middleware *m, outr_op *op)
{
    outr_issuers_open(of(m)->issuers, op);
}

static void close_it(outr_middleware *m, outr_op *op)
{
    bearer *b = of(m);
    outr_issuers_close(b->issuers, op);
    free(b);
}

static outr_code create(outr_middleware **out, const outr_component_init *init, outr_err *err)
{
    OUTR_AUTO(outr_err_list) errors = {0};
    config c = {0};
    if (outr_bind_kvs(rows, OUTR_LEN(rows), &c, init->metadata, &errors)) {
        *err = errors.items[0];
        return err->code;
    }
    const outr_issuer_spec spec = {
        .name = c.issuer, .audiences = &c.audience, .audience_count = 1, .keys_url = c.jwks_url};
    if (outr_issuer_check(&spec, err))
        return outr_wrap(err, c.jwks_url.n > 0 ? "jwksURL" : "issuer");
    bearer *b = outr_alloc(sizeof *b);
    b->base.backend = &outr_middleware_bearer;
    b->log = init->log;
    b->issuers = outr_issuers_new(&(outr_issuers_options){.loop = init->loop,
                                                          .log = init->log,
                                                          .items = &spec,
                                                          .count = 1,
                                                          .skew_s = OUTR_JWT_SKEW_S});
    *out = &b->base;
    return OUTR_OK;
}

const outr_middleware_backend outr_middleware_bearer = {
    .base = {"middleware.http.bearer", "v1", rows, OUTR_LEN(rows)},
    .create = create,
    .open = open_it,
    .close = close_it,
    .handle = handle,
};
