/* What a judged call costs: rules of AccessPolicy, a token that is known, one that is not.
 *
 * CPU of this thread, per call, of the very functions that mesh/admit.c calls. Prints a JSON object
 * a line: {"name": ..., "us": ...}. */
#include "bench/measure.h"
#include "lib/tokens.h"
#include "net/env_real.h"
#include "security/authn.h"
#include "security/policy.h"

#define RULES 1000
#define NOW   1700000000

static void measure(const char *name, unsigned calls, void (*call)(void *ctx, unsigned i), void *ctx)
{
    measure_print_us(name, measure_calls(calls, call, ctx));
}

/* ---- rules ----------------------------------------------------------------------------------- */

typedef struct judging {
    const outr_policy *policy;
    outr_policy_request request;
    outr_arena *arena;
    bool wanted;
} judging;

static void judge(void *ctx, unsigned i OUTR_UNUSED)
{
    judging *j = ctx;
    if (outr_policy_judge(j->policy, &j->request, j->arena).is_allowed != j->wanted)
        measure_fail("a wrong verdict");
    outr_arena_reset(j->arena);
}

/* Each % in the rule is its number. */
static outr_snapshot *load(const char *rule, unsigned count)
{
    char item[512];
    snprintf(item, sizeof item, "  - {action: allow, %s}", rule);
    return measure_load("callee",
                        "apiVersion: outrigger.io/v1alpha1\nkind: AccessPolicy\n"
                        "metadata: {name: p}\nspec:\n  defaultAction: deny\n  rules:\n",
                        item, count);
}

static void rules(const char *name, const char *rule, unsigned count, const char *target,
                  const outr_claims *claims, bool wanted)
{
    const outr_identity caller = {.id = OUTR_STR("spiffe://public/ns/default/app-7"),
                                  .trust_domain = OUTR_STR("public"),
                                  .namespace_ = OUTR_STR("default"),
                                  .app_id = OUTR_STR("app-7"),
                                  .is_authenticated = true};
    outr_snapshot *snapshot = load(rule, count);
    judging j = {.policy = outr_policy_of(snapshot, true),
                 .request = {.caller = &caller,
                             .claims = claims,
                             .target = outr_str_from(target),
                             .verb = OUTR_STR("GET")},
                 .arena = outr_arena_new(OUTR_MIB),
                 .wanted = wanted};
    measure(name, 100000, judge, &j);
    outr_arena_free(j.arena);
    outr_snapshot_unref(snapshot);
}

static void measure_rules(void)
{
    outr_arena *arena = outr_arena_new(OUTR_MIB);
    outr_json *said;
    if (outr_json_parse(&said, arena,
                        OUTR_STR("{\"iss\":\"https://issuer\",\"sub\":\"joe\",\"aud\":\"me\","
                                 "\"exp\":1,\"iat\":1,\"role\":[\"user\",\"dev\"],"
                                 "\"team\":\"t7\",\"scope\":\"read write\"}"),
                        NULL))
        measure_fail("claims");
    outr_claims *claims = outr_claims_new(said, arena);
    rules("one rule", "from: [{appId: app-7, namespace: default}], paths: [/orders/**]", 1,
          "/orders/1/items", NULL, true);
    rules("1000 rules, each of a caller and a path",
          "from: [{appId: app-%, namespace: default}], methods: [GET], paths: [/orders/**, /c%/*]",
          RULES, "/orders/1/items", NULL, true);
    rules("1000 rules, each of a path", "paths: [/v1/c%/*, /v2/c%/**]", RULES, "/v2/c7/a/b", NULL,
          true);
    rules("1000 rules, each of a pattern", "paths: [/files/*-%/x]", RULES, "/files/a-7/x", NULL,
          true);
    rules("1000 rules of one path, told apart by two claims",
          "paths: [/orders/**], claims: [{name: role, values: [user]}, "
          "{name: team, values: [t%]}]",
          RULES, "/orders/1", claims, true);
    rules("1000 rules, none of which matches",
          "from: [{appId: app-7}], paths: [/orders/**], claims: [{name: team, values: [x%]}]", RULES,
          "/orders/1", claims, false);
    outr_claims_unref(claims);
    outr_arena_free(arena);
}

/* ---- tokens ---------------------------------------------------------------------------------- */

typedef struct showing {
    outr_authn *authn;
    outr_loop *loop;
    outr_arena *arena;
    outr_str bearer;
    outr_jwks *keys;
    outr_str token;
} showing;

/* As a request brings it: among a dozen headers. */
static void show(void *ctx, unsigned i OUTR_UNUSED)
{
    showing *s = ctx;
    outr_headers headers;
    const outr_claims *claims;
    outr_headers_init(&headers, s->arena);
    for (int h = 0; h < 11; h++)
        outr_headers_add(&headers, OUTR_STR("x-some-header"), OUTR_STR("some value"));
    outr_headers_add(&headers, OUTR_STR("authorization"), s->bearer);
    if (outr_authn_admit(s->authn, s->loop, &headers, s->arena, &claims))
        measure_fail("a good token was refused");
    outr_arena_reset(s->arena);
}

static void check(void *ctx, unsigned i OUTR_UNUSED)
{
    showing *s = ctx;
    const outr_str audience = OUTR_STR("me");
    const outr_jwt_rules jwt = {.issuer = OUTR_STR("https://issuer"),
                                .audiences = &audience,
                                .audience_count = 1,
                                .skew_s = 60,
                                .now_s = NOW};
    outr_claims *claims;
    int64_t expires_s;
    if (outr_jwt_check(s->token, s->keys, &jwt, s->arena, &claims, &expires_s))
        measure_fail("a good token was refused");
    outr_claims_unref(claims);
    outr_arena_reset(s->arena);
}

static void on_closed(outr_op *op)
{
    (void)op;
}

static void measure_tokens(void)
{
#define SAID                                                                                       \
    "\"sub\":\"24400320-1234-5678-9abc\",\"role\":[\"user\",\"dev\"],\"email\":\"joe@example.com\"," \
    "\"realm_access\":{\"roles\":[\"a\",\"b\",\"c\"]},\"scope\":\"read write\",\"jti\":\"0123456789\""
    static const struct {
        const char *name, *alg, *kid;
    } kinds[] = {{"a new token, RS256", "RS256", "rsa"},
                 {"a new token, ES256", "ES256", "P-256"},
                 {"a new token, EdDSA", "EdDSA", "ed"}};
    static const char claims[] =
        "{\"iss\":\"https://issuer\",\"aud\":\"me\",\"exp\":99999999999," SAID "}";
    const outr_str audience = OUTR_STR("me");
    tokens t;
    outr_op op;
    outr_err err;
    tokens_open(&t);
    EVP_PKEY *const keys[] = {t.rsa, t.p256, t.ed};
    const outr_token_issuer issuer = {.name = OUTR_STR("https://issuer"),
                                      .audiences = &audience,
                                      .audience_count = 1,
                                      .keys = t.jwks};
    const outr_claim_header headers[] = {{.claim = OUTR_STR("sub"), .header = OUTR_STR("x-user")},
                                         {.claim = OUTR_STR("role"), .header = OUTR_STR("x-role")}};
    const outr_authn_spec spec = {.is_required = true,
                                  .skew_ns = 60 * OUTR_SEC,
                                  .issuers = &issuer,
                                  .issuer_count = 1,
                                  .headers = headers,
                                  .header_count = 2};
    showing s = {.arena = outr_arena_new(OUTR_MIB),
                 .loop = outr_loop_new(
                     &(outr_loop_options){.env = outr_env_real(), .is_simulated = true})};
    s.authn = outr_authn_new(&spec, s.loop, NULL);
    if (outr_jwks_parse(&s.keys, t.jwks, &err))
        measure_fail(err.text);
    for (size_t i = 0; i < OUTR_LEN(kinds); i++) {
        char head[128];
        snprintf(head, sizeof head, "{\"typ\":\"JWT\",\"alg\":\"%s\",\"kid\":\"%s\"}", kinds[i].alg,
                 kinds[i].kid);
        s.token = tokens_sign(&t, keys[i], kinds[i].alg, head, claims);
        s.bearer = outr_arena_join(t.arena, OUTR_STR("Bearer "), s.token, OUTR_STR_NONE);
        if (i == 0)
            measure("a known token, its claims put into headers", 100000, show, &s);
        measure(kinds[i].name, 2000, check, &s);
    }
    outr_op_init(&op, s.loop, NULL, 0, on_closed);
    outr_authn_close(s.authn, &op);
    outr_loop_tick(s.loop);
    outr_loop_free(s.loop);
    outr_jwks_unref(s.keys);
    outr_arena_free(s.arena);
    tokens_close(&t);
}

int main(void)
{
    measure_rules();
    measure_tokens();
    return 0;
}
