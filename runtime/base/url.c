#include "base/url.h"

#include <ctype.h>

static bool parse_port(outr_str text, uint16_t *port)
{
    uint64_t value;
    if (!outr_str_to_u64(text, UINT16_MAX, &value))
        return false;
    *port = (uint16_t)value;
    return true;
}

outr_code outr_hostport_parse(outr_str text, outr_str *host, uint16_t *port, outr_err *err)
{
    outr_str rest;
    *port = 0;
    if (text.n && text.p[0] == '[') {
        rest = outr_str_cut(outr_str_skip(text, 1), ']', host);
        if (!rest.p || (rest.n && rest.p[0] != ':'))
            return outr_fail(err, OUTR_INVALID_ARGUMENT, "\"" OUTR_FMT "\" is not host:port",
                             OUTR_ARG(text));
        rest = outr_str_skip(rest, 1);
    } else {
        rest = outr_str_cut(text, ':', host);
        if (rest.p && outr_str_find(rest, ':') >= 0) { /* a bare IPv6 address, or nothing */
            for (size_t i = 0; i < text.n; i++) {
                if (!isxdigit((unsigned char)text.p[i]) && !memchr(":.", text.p[i], 2))
                    return outr_fail(err, OUTR_INVALID_ARGUMENT,
                                     "\"" OUTR_FMT "\" is not host:port", OUTR_ARG(text));
            }
            *host = text;
            return OUTR_OK;
        }
    }
    if (rest.n && !parse_port(rest, port))
        return outr_fail(err, OUTR_INVALID_ARGUMENT, "\"" OUTR_FMT "\" is not a port",
                         OUTR_ARG(rest));
    return OUTR_OK;
}

/* RFC 3986 section 3.1. */
static bool is_scheme(outr_str s)
{
    for (size_t i = 0; i < s.n; i++) {
        if (!isalpha((unsigned char)s.p[i]) && (i == 0 || !memchr("0123456789+-.", s.p[i], 13)))
            return false;
    }
    return s.n > 0;
}

outr_code outr_url_parse(outr_url *out, outr_str text, outr_err *err)
{
    outr_url url = {0};
    ptrdiff_t colon = outr_str_search(text, OUTR_STR("://"));
    if (colon <= 0 || !is_scheme(outr_str_head(text, (size_t)colon)))
        return outr_fail(err, OUTR_INVALID_ARGUMENT, "\"" OUTR_FMT "\" is not an absolute URL",
                         OUTR_ARG(text));
    url.scheme = outr_str_head(text, (size_t)colon);
    outr_str rest = outr_str_skip(text, (size_t)colon + 3), authority = rest;
    for (size_t i = 0; i < rest.n; i++) {
        if (rest.p[i] == '/' || rest.p[i] == '?' || rest.p[i] == '#') {
            authority = outr_str_head(rest, i);
            break;
        }
    }
    rest = outr_str_skip(rest, authority.n);
    ptrdiff_t at = outr_str_rfind(authority, '@');
    if (at >= 0) {
        url.userinfo = outr_str_head(authority, (size_t)at);
        authority = outr_str_skip(authority, (size_t)at + 1);
    }
    outr_code rc = outr_hostport_parse(authority, &url.host, &url.port, err);
    if (rc)
        return rc;
    if (url.host.n == 0)
        return outr_fail(err, OUTR_INVALID_ARGUMENT, "\"" OUTR_FMT "\" names no host",
                         OUTR_ARG(text));
    for (size_t i = 0; i < url.host.n; i++) {
        if ((unsigned char)url.host.p[i] <= ' ' || url.host.p[i] == 0x7f)
            return outr_fail(err, OUTR_INVALID_ARGUMENT, "\"" OUTR_FMT "\" has a host that is none",
                             OUTR_ARG(text));
    }
    outr_str_cut(rest, '#', &rest);
    url.query = outr_str_cut(rest, '?', &url.path);
    *out = url;
    return OUTR_OK;
}

outr_str outr_hostport_join(outr_arena *arena, outr_str host, uint16_t port)
{
    if (outr_str_find(host, ':') >= 0)
        host = outr_arena_join(arena, OUTR_STR("["), host, OUTR_STR("]"));
    return port ? outr_arena_printf(arena, OUTR_FMT ":%u", OUTR_ARG(host), port) : host;
}

/* True when cleaning would change nothing: no empty, "." or ".." segment. */
static bool is_clean(outr_str path)
{
    size_t start = 0;
    if (path.n == 0 || path.p[0] != '/')
        return false;
    for (size_t i = 1; i <= path.n; i++) {
        if (i < path.n && path.p[i] != '/')
            continue;
        outr_str segment = outr_str_of(path.p + start + 1, i - start - 1);
        bool is_last = i == path.n;
        if ((segment.n == 0 && !is_last) || outr_str_is(segment, ".") || outr_str_is(segment, ".."))
            return false;
        start = i;
    }
    return true;
}

outr_str outr_path_clean(outr_arena *arena, outr_str path)
{
    if (is_clean(path))
        return path;
    char *out = outr_arena_alloc(arena, path.n + 2);
    size_t n = 0;
    outr_str rest = path, segment = OUTR_STR("");
    while (rest.p) {
        rest = outr_str_cut(rest, '/', &segment);
        if (segment.n == 0 || outr_str_is(segment, "."))
            continue;
        if (outr_str_is(segment, "..")) {
            while (n > 0 && out[--n] != '/')
                continue;
            continue;
        }
        out[n++] = '/';
        memcpy(out + n, segment.p, segment.n);
        n += segment.n;
    }
    bool ends_in_slash = segment.n == 0 || outr_str_is(segment, ".") || outr_str_is(segment, "..");
    if (n == 0 || (ends_in_slash && segment.n == 0))
        out[n++] = '/';
    return outr_str_of(out, n);
}

bool outr_query_next(outr_str *query, outr_str *key, outr_str *value)
{
    while (query->p && query->n) {
        outr_str pair;
        *query = outr_str_cut(*query, '&', &pair);
        if (pair.n == 0)
            continue;
        *value = outr_str_cut(pair, '=', key);
        return true;
    }
    return false;
}
