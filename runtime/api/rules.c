#include "api/rules.h"

/* "v1.0-alpha1" and "v1alpha1" are the same version; so are "v1.0" and "v1". */
static bool same_version(outr_str a, outr_str b)
{
    size_t i = 0, j = 0;
    for (;;) {
        if (outr_str_starts(outr_str_skip(a, i), OUTR_STR(".0")))
            i += 2;
        if (outr_str_starts(outr_str_skip(b, j), OUTR_STR(".0")))
            j += 2;
        if (i < a.n && a.p[i] == '-')
            i++;
        if (j < b.n && b.p[j] == '-')
            j++;
        if (i >= a.n || j >= b.n)
            return i >= a.n && j >= b.n;
        if (a.p[i++] != b.p[j++])
            return false;
    }
}

static bool names(const outr_api_rule *rule, const char *group, const char *version, bool is_exact)
{
    outr_str head, rest = outr_str_cut(rule->name, '/', &head);
    outr_str name = rest.p ? rest : rule->name; /* the older form "v1.0/state" */
    outr_str given = rest.p ? head : rule->version;
    return outr_str_iis(name, group) && (is_exact ? outr_str_is(given, version)
                                                  : same_version(given, outr_str_from(version)));
}

static bool is_of(const outr_api_rule *rule, const char *protocol)
{
    outr_str named = rule->protocol.n ? rule->protocol : OUTR_STR("http");
    return outr_str_iis(named, protocol);
}

bool outr_api_is_open(const outr_configuration *c, const char *protocol, const char *group,
                      const char *version)
{
    bool has_allowed = false;
    /* Over gRPC the reference knows "v1", not "v1.0". Nothing is opened by what it does not know;
     * what was meant to be closed stays closed. */
    bool is_exact = strcmp(protocol, "grpc") == 0;
    for (size_t i = 0; i < c->api_denied_count; i++) {
        if (is_of(&c->api_denied[i], protocol) && names(&c->api_denied[i], group, version, false))
            return false;
    }
    for (size_t i = 0; i < c->api_allowed_count; i++) {
        if (!is_of(&c->api_allowed[i], protocol))
            continue;
        if (names(&c->api_allowed[i], group, version, is_exact))
            return true;
        has_allowed = true;
    }
    return !has_allowed;
}

bool outr_api_token_is_right(outr_str given, outr_str token)
{
    unsigned char differs = given.n != token.n;
    for (size_t i = 0; i < given.n; i++)
        differs |= (unsigned char)(given.p[i] ^ token.p[token.n ? i % token.n : 0]);
    return !differs;
}
