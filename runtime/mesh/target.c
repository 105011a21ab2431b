#include "base/encode.h"
#include "mesh/internal.h"

static const outr_endpoint_spec *find_endpoint(const outr_snapshot *snapshot, outr_str name)
{
    for (size_t i = 0; i < snapshot->endpoint_count; i++) {
        if (outr_str_eq(snapshot->endpoints[i].base.name, name))
            return &snapshot->endpoints[i];
    }
    return NULL;
}

outr_code outr__target_parse(outr__target *out, outr_str text, const outr_snapshot *snapshot,
                             const outr_settings *settings, outr_err *err)
{
    outr__target t = {.kind = OUTR__APP, .app_id = text, .namespace_ = settings->namespace_};
    if (outr_str_istarts(text, OUTR_STR("http://")) ||
        outr_str_istarts(text, OUTR_STR("https://"))) {
        t.kind = OUTR__URL;
        t.base_url = text;
    } else if ((t.endpoint = find_endpoint(snapshot, text))) {
        t.kind = OUTR__ENDPOINT;
        t.base_url = t.endpoint->base_url;
    } else {
        outr_str rest = outr_str_cut(text, '.', &t.app_id);
        if (rest.p && outr_str_find(rest, '.') >= 0)
            return outr_fail(err, OUTR_INVALID_ARGUMENT, "invalid app id " OUTR_FMT,
                             OUTR_ARG(text));
        if (rest.p)
            t.namespace_ = rest;
        if (t.app_id.n == 0)
            return outr_fail(err, OUTR_INVALID_ARGUMENT, "app id is empty");
        if (text.n > OUTR__NAME_MAX)
            return outr_fail(err, OUTR_INVALID_ARGUMENT, "app id is longer than %d bytes",
                             OUTR__NAME_MAX);
    }
    *out = t;
    return OUTR_OK;
}

static int hex(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

static outr_code check_method(outr_str method, outr_err *err)
{
    for (size_t i = 0; i < method.n; i++) {
        unsigned char c = (unsigned char)method.p[i];
        if (c == '#' || c == '?' || c < 0x20 || c == 0x7f)
            return outr_fail(err, OUTR_INVALID_ARGUMENT,
                             "invalid method: method contains forbidden character: \"" OUTR_FMT
                             "\"",
                             OUTR_ARG(outr_str_head(method, 200)));
        /* The decoded text goes into a request target as it is, so a percent sign must begin an
         * escape. */
        if (c == '%' && (method.n - i < 3 || !hex(method.p[i + 1]) || !hex(method.p[i + 2])))
            return outr_fail(err, OUTR_INTERNAL, "invalid URL escape \"" OUTR_FMT "\"",
                             OUTR_ARG(outr_str_head(outr_str_skip(method, i), 3)));
    }
    return OUTR_OK;
}

/* Rooted: with its leading slash. */
static outr_code clean_method(outr_str *out, outr_arena *arena, outr_str method, outr_err *err)
{
    outr_code rc = check_method(method, err);
    if (rc)
        return rc;
    outr_str rooted = outr_arena_join(arena, OUTR_STR("/"), method, OUTR_STR_NONE);
    outr_str clean = outr_path_clean(arena, rooted);
    if (clean.n > 1 && clean.p[clean.n - 1] == '/')
        clean.n--;
    *out = clean;
    return OUTR_OK;
}

outr_code outr__method_clean(outr_str *out, outr_arena *arena, outr_str method, outr_err *err)
{
    outr_code rc = clean_method(out, arena, method, err);
    if (!rc)
        *out = outr_str_skip(*out, 1);
    return rc;
}

outr_code outr__method_target(outr_str *out, outr_arena *arena, outr_str method, outr_str query,
                              outr_err *err)
{
    outr_str clean;
    outr_code rc = clean_method(&clean, arena, method, err);
    if (rc)
        return rc;
    outr_str path = outr_percent_encode(arena, clean, "!$&'()*+,;=:@[]/%");
    *out = query.n ? outr_arena_join(arena, path, OUTR_STR("?"), query) : path;
    return OUTR_OK;
}

outr_code outr__verb(outr_str *out, outr_str method, outr_err *err)
{
    static const char *const verbs[] = {"GET",    "HEAD",    "POST",  "PUT",
                                        "DELETE", "OPTIONS", "TRACE", "PATCH"};
    if (outr_str_iis(method, "CONNECT") || outr_str_iis(method, "NONE"))
        return outr_fail(err, OUTR_INVALID_ARGUMENT,
                         "rpc error: code = Internal desc = invalid HTTP verb " OUTR_FMT,
                         OUTR_ARG(method));
    *out = OUTR_STR("POST");
    for (size_t i = 0; i < OUTR_LEN(verbs); i++) {
        if (outr_str_iis(method, verbs[i]))
            *out = outr_str_from(verbs[i]);
    }
    return OUTR_OK;
}

bool outr__is_idempotent(outr_str verb, const outr_headers *headers)
{
    static const char *const idempotent[] = {"GET", "PUT", "DELETE", "HEAD", "OPTIONS", "TRACE"};
    for (size_t i = 0; i < OUTR_LEN(idempotent); i++) {
        if (outr_str_is(verb, idempotent[i]))
            return true;
    }
    return outr_headers_has(headers, "idempotency-key");
}
