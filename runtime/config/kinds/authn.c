#include "config/kinds/kinds.h"
#include "http/issuers.h"

/* Authentication of outrigger.io/v1alpha1. */

#define A(field) offsetof(outr_authn_spec, field)
#define I(field) offsetof(outr_token_issuer, field)
#define H(field) offsetof(outr_claim_header, field)

#define SKEW_NS     (60 * OUTR_SEC)
#define SKEW_MAX_NS (3600 * OUTR_SEC)
#define HEADERS_MAX 32

static const outr_yaml_row issuer[] = {
    {"issuer", OUTR_YT_TEXT, I(name), OUTR_YT_REQUIRED, NULL, 0, 0},
    {"audiences", OUTR_YT_TEXTS, I(audiences), OUTR_YT_REQUIRED, NULL, 0, 0},
    {"algorithms", OUTR_YT_TEXTS, I(algorithm_names), 0, NULL, 0, 0},
    {"jwksUrl", OUTR_YT_TEXT, I(keys_url), 0, NULL, 0, 0},
    {"jwksFile", OUTR_YT_TEXT, I(keys_file), 0, NULL, 0, 0},
    {"jwks", OUTR_YT_VALUE, I(keys), 0, NULL, 0, 0},
    {0},
};
static const outr_yaml_row header[] = {
    {"claim", OUTR_YT_TEXT, H(claim), OUTR_YT_REQUIRED, NULL, 0, 0},
    {"header", OUTR_YT_TEXT, H(header), OUTR_YT_REQUIRED, NULL, 0, 0},
    {0},
};
static const outr_yaml_row spec[] = {
    {"required", OUTR_YT_BOOL, A(is_required), OUTR_YT_REQUIRED, NULL, 0, 0},
    {"issuers", OUTR_YT_LIST, A(issuers), OUTR_YT_REQUIRED, issuer, sizeof(outr_token_issuer),
     I(line)},
    {"clockSkew", OUTR_YT_DURATION, A(skew_ns), 0, NULL, 0, 0},
    {"claimsToHeaders", OUTR_YT_LIST, A(headers), 0, header, sizeof(outr_claim_header), H(line)},
    {"forwardToken", OUTR_YT_BOOL, A(forwards_token), 0, NULL, 0, 0},
    {0},
};

const outr_yaml_row outr_rows_top[] = {
    {"apiVersion", OUTR_YT_SKIP, 0, 0, NULL, 0, 0},
    {"kind", OUTR_YT_SKIP, 0, 0, NULL, 0, 0},
    {"metadata", OUTR_YT_SKIP, 0, 0, NULL, 0, 0},
    {"scopes", OUTR_YT_SKIP, 0, 0, NULL, 0, 0},
    {"spec", OUTR_YT_SKIP, 0, OUTR_YT_REQUIRED, NULL, 0, 0},
    {0},
};

static void check_algorithms(outr_binder *b, const outr_yaml *at, outr_token_issuer *i)
{
    if (i->algorithm_names && i->algorithm_count == 0)
        outr_bind_error(b, at, "algorithms: is empty; leave it out for all");
    for (size_t n = 0; n < i->algorithm_count; n++) {
        unsigned bit = outr_jwt_algorithm(i->algorithm_names[n]);
        i->algorithms |= bit;
        if (!bit)
            outr_bind_error(b, at,
                            "algorithms: must be of RS, PS, ES with 256, 384 or 512, and EdDSA, "
                            "not \"" OUTR_FMT "\"",
                            OUTR_ARG(outr_str_head(i->algorithm_names[n], 40)));
    }
}

static void check_issuer(outr_binder *b, outr_map *seen, outr_token_issuer *i)
{
    const outr_yaml at = {.line = i->line, .column = i->column};
    const outr_issuer_spec keys = {.name = i->name,
                                   .keys_url = i->keys_url,
                                   .keys_file = i->keys_file,
                                   .keys = i->keys};
    outr_err err;
    if (i->name.n == 0)
        return; /* told already */
    if (i->audiences && i->audience_count == 0)
        outr_bind_error(b, &at, "audiences: is empty; \"*\" is any, or none");
    check_algorithms(b, &at, i);
    const outr_token_issuer *before = outr_map_put(seen, i->name, i);
    if (before)
        outr_bind_error(b, &at, "issuer \"" OUTR_FMT "\" is there already, in line %d",
                        OUTR_ARG(outr_str_head(i->name, 80)), before->line);
    if (outr_issuer_check(&keys, &err))
        outr_bind_error(b, &at, "issuer \"" OUTR_FMT "\": %s",
                        OUTR_ARG(outr_str_head(i->name, 80)), err.text);
}

/* What says something to others than the app, or is said by sidecars alone. */
static bool is_reserved(outr_str name)
{
    static const char *const names[] = {"authorization", "connection",        "content-length",
                                        "content-type",  "cookie",            "forwarded",
                                        "host",          "keep-alive",        "te",
                                        "trailer",       "transfer-encoding", "upgrade",
                                        "traceparent",   "tracestate",        "baggage"};
    static const char *const prefixes[] = {"dapr-", "outrigger-", "grpc-", "x-forwarded-",
                                           "proxy-"};
    for (size_t i = 0; i < OUTR_LEN(names); i++) {
        if (outr_str_iis(name, names[i]))
            return true;
    }
    for (size_t i = 0; i < OUTR_LEN(prefixes); i++) {
        if (outr_str_istarts(name, outr_str_from(prefixes[i])))
            return true;
    }
    return outr_str_ends(name, OUTR_STR("-bin"));
}

static void check_header(outr_binder *b, const outr_claim_header *h)
{
    const outr_yaml at = {.line = h->line, .column = h->column};
    if (h->header.n > 0 && (!outr_header_name_is_valid(h->header) || is_reserved(h->header)))
        outr_bind_error(b, &at, "header: \"" OUTR_FMT "\" is not a name that may be given away",
                        OUTR_ARG(outr_str_head(h->header, 80)));
}

void outr_kind_authn(const outr_kind_env *env, const outr_yaml *root, outr_authn_spec *out)
{
    const outr_yaml *node = outr_yaml_find(root, "spec");
    outr_binder strict = *env->binder;
    strict.warnings = strict.errors;
    out->skew_ns = SKEW_NS;
    outr_bind_yaml(env->binder, outr_rows_top, root, "", out);
    if (outr_yaml_is_null(node))
        return;
    outr_bind_yaml(&strict, spec, node, "spec", out);
    if (out->issuers && (out->issuer_count == 0 || out->issuer_count > OUTR_ISSUERS_MAX))
        outr_bind_error(&strict, outr_yaml_find(node, "issuers"), "spec.issuers: must be 1 to %d",
                        OUTR_ISSUERS_MAX);
    if (out->skew_ns > SKEW_MAX_NS)
        outr_bind_error(&strict, outr_yaml_find(node, "clockSkew"),
                        "spec.clockSkew: must be an hour at most");
    if (out->header_count > HEADERS_MAX)
        outr_bind_error(&strict, outr_yaml_find(node, "claimsToHeaders"),
                        "spec.claimsToHeaders: must be %d at most", HEADERS_MAX);
    outr_map *seen = outr_map_new();
    for (size_t i = 0; i < out->issuer_count; i++)
        check_issuer(&strict, seen, (outr_token_issuer *)&out->issuers[i]);
    outr_map_free(seen);
    for (size_t i = 0; i < out->header_count; i++)
        check_header(&strict, &out->headers[i]);
}
