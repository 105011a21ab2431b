#include "security/identity.h"

static bool is_of_domain(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '-' || c == '_';
}

static bool is_of_segment(char c)
{
    return is_of_domain(c) || (c >= 'A' && c <= 'Z');
}

static outr_code check_path(outr_str path, outr_err *err)
{
    outr_str rest = outr_str_skip(path, 1), segment;
    if (path.p[path.n - 1] == '/')
        return outr_fail(err, OUTR_INVALID_ARGUMENT, "path cannot have a trailing slash");
    while (rest.p) {
        rest = outr_str_cut(rest, '/', &segment);
        if (segment.n == 0)
            return outr_fail(err, OUTR_INVALID_ARGUMENT, "path cannot contain empty segments");
        if (outr_str_is(segment, ".") || outr_str_is(segment, ".."))
            return outr_fail(err, OUTR_INVALID_ARGUMENT, "path cannot contain dot segments");
        for (size_t i = 0; i < segment.n; i++) {
            if (!is_of_segment(segment.p[i]))
                return outr_fail(err, OUTR_INVALID_ARGUMENT,
                                 "path segment characters are limited to letters, numbers, dots, "
                                 "dashes, and underscores");
        }
    }
    return OUTR_OK;
}

outr_code outr_spiffe_parse(outr_spiffe *out, outr_str id, outr_err *err)
{
    const outr_str scheme = OUTR_STR("spiffe://");
    outr_spiffe spiffe = {.path = OUTR_STR_NONE};
    if (id.n == 0)
        return outr_fail(err, OUTR_INVALID_ARGUMENT, "cannot be empty");
    if (id.n > OUTR_SPIFFE_MAX)
        return outr_fail(err, OUTR_INVALID_ARGUMENT, "longer than %d bytes", OUTR_SPIFFE_MAX);
    if (!outr_str_starts(id, scheme))
        return outr_fail(err, OUTR_INVALID_ARGUMENT, "scheme is missing or invalid");
    outr_str rest = outr_str_skip(id, scheme.n);
    outr_str_cut(rest, '/', &spiffe.trust_domain);
    if (spiffe.trust_domain.n == 0)
        return outr_fail(err, OUTR_INVALID_ARGUMENT, "trust domain is missing");
    for (size_t i = 0; i < spiffe.trust_domain.n; i++) {
        if (!is_of_domain(spiffe.trust_domain.p[i]))
            return outr_fail(err, OUTR_INVALID_ARGUMENT,
                             "trust domain characters are limited to lowercase letters, numbers, "
                             "dots, dashes, and underscores");
    }
    if (spiffe.trust_domain.n < rest.n) {
        spiffe.path = outr_str_skip(rest, spiffe.trust_domain.n);
        outr_code rc = check_path(spiffe.path, err);
        if (rc)
            return rc;
    }
    *out = spiffe;
    return OUTR_OK;
}

outr_code outr_identity_parse(outr_identity *out, outr_str id, outr_err *err)
{
    outr_spiffe spiffe;
    outr_str ns, rest, namespace_, app_id;
    outr_code rc = outr_spiffe_parse(&spiffe, id, err);
    if (rc)
        return rc;
    rest = outr_str_cut(outr_str_skip(spiffe.path, 1), '/', &ns);
    rest = outr_str_cut(rest, '/', &namespace_);
    outr_str_cut(rest, '/', &app_id);
    if (!outr_str_is(ns, "ns") || namespace_.n == 0 || app_id.n == 0)
        return outr_fail(err, OUTR_PERMISSION_DENIED, "malformed SPIFFE ID: " OUTR_FMT,
                         OUTR_ARG(outr_str_head(id, 256)));
    *out = (outr_identity){.id = id,
                           .trust_domain = spiffe.trust_domain,
                           .namespace_ = namespace_,
                           .app_id = app_id,
                           .is_authenticated = true};
    return OUTR_OK;
}

outr_str outr_identity_path(outr_arena *arena, outr_str namespace_, outr_str app_id)
{
    return outr_arena_printf(arena, "/ns/" OUTR_FMT "/" OUTR_FMT, OUTR_ARG(namespace_),
                             OUTR_ARG(app_id));
}
