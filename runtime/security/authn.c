#include "security/authn.h"

struct outr_authn {
    outr_arena *arena;
    outr_issuers *issuers;
    bool is_required, forwards_token;
    outr_claim_header *headers;
    size_t header_count;
};

outr_authn *outr_authn_new(const outr_authn_spec *spec, outr_loop *loop, const outr_log *log)
{
    outr_authn *a = outr_alloc(sizeof *a);
    outr_arena *scratch = outr_arena_new(OUTR_MIB);
    outr_issuer_spec *specs = outr_arena_alloc(scratch, spec->issuer_count * sizeof *specs);
    for (size_t i = 0; i < spec->issuer_count; i++) {
        const outr_token_issuer *t = &spec->issuers[i];
        specs[i] = (outr_issuer_spec){t->name,     t->audiences, t->audience_count, t->algorithms,
                                      t->keys_url, t->keys_file, t->keys};
    }
    a->arena = outr_arena_new(OUTR_MIB);
    a->is_required = spec->is_required;
    a->forwards_token = spec->forwards_token;
    a->header_count = spec->header_count;
    a->headers = outr_arena_alloc(a->arena, (spec->header_count + 1) * sizeof *a->headers);
    for (size_t i = 0; i < spec->header_count; i++)
        a->headers[i] =
            (outr_claim_header){.claim = outr_arena_str(a->arena, spec->headers[i].claim),
                                .header = outr_arena_str(a->arena, spec->headers[i].header)};
    a->issuers = outr_issuers_new(
        &(outr_issuers_options){.loop = loop,
                                .log = log,
                                .items = specs,
                                .count = spec->issuer_count,
                                .skew_s = (int64_t)(spec->skew_ns / OUTR_SEC)});
    outr_arena_free(scratch);
    return a;
}

void outr_authn_inherit(outr_authn *to, outr_authn *from)
{
    outr_issuers_inherit(to->issuers, from->issuers);
}

void outr_authn_open(outr_authn *authn, outr_op *op)
{
    outr_issuers_open(authn->issuers, op);
}

void outr_authn_close(outr_authn *authn, outr_op *op)
{
    outr_issuers *issuers = authn->issuers;
    outr_arena_free(authn->arena);
    free(authn);
    outr_issuers_close(issuers, op);
}

/* What reads headers into variables, as CGI does, takes "_" and "-" for the same. */
static bool is_same_name(outr_str a, outr_str b)
{
    if (a.n != b.n)
        return false;
    for (size_t i = 0; i < a.n; i++) {
        char x = a.p[i] == '_' ? '-' : a.p[i], y = b.p[i] == '_' ? '-' : b.p[i];
        if (x != y && !outr_str_ieq_bytes(&x, &y, 1))
            return false;
    }
    return true;
}

static bool is_of_claim(const outr_authn *a, outr_str name)
{
    for (size_t i = 0; i < a->header_count; i++) {
        if (is_same_name(name, a->headers[i].header))
            return true;
    }
    return false;
}

static void take_out(const outr_authn *a, outr_headers *headers)
{
    size_t kept = 0;
    for (size_t i = 0; a->header_count > 0 && i < headers->count; i++) {
        if (!is_of_claim(a, headers->items[i].name))
            headers->items[kept++] = headers->items[i];
    }
    if (a->header_count > 0)
        headers->count = kept;
}

static void put_in(const outr_authn *a, outr_headers *headers, const outr_claims *claims,
                   outr_arena *arena)
{
    for (size_t i = 0; i < a->header_count; i++) {
        outr_str value = outr_claims_text(claims, a->headers[i].claim, arena);
        if (!value.p)
            continue;
        value = outr_str_trim(value);
        for (size_t n = 0; n < value.n; n++) { /* what could end a line */
            if ((unsigned char)value.p[n] < 0x20 || value.p[n] == 0x7f)
                ((char *)value.p)[n] = ' ';
        }
        outr_headers_add(headers, outr_arena_str(arena, a->headers[i].header), value);
    }
}

const char *outr_authn_admit(outr_authn *a, outr_loop *loop, outr_headers *headers,
                             outr_arena *arena, const outr_claims **claims)
{
    outr_str token;
    *claims = NULL;
    take_out(a, headers);
    const char *reason = outr_bearer_token(&token, headers);
    if (reason && strcmp(reason, OUTR_JWT_MISSING) == 0 && !a->is_required)
        return NULL;
    if (!reason)
        reason = outr_issuers_ask(a->issuers, loop, token, arena, claims);
    if (reason)
        return reason;
    if (!a->forwards_token)
        outr_headers_remove(headers, "authorization");
    put_in(a, headers, *claims, arena);
    return NULL;
}
