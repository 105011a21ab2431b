#include "api/http/cors.h"

static bool is_any(const outr_settings *settings)
{
    return settings->allowed_origins.count == 1 &&
           outr_str_is(settings->allowed_origins.items[0], "*");
}

static bool is_allowed_origin(const outr_settings *settings, outr_str origin)
{
    for (size_t i = 0; i < settings->allowed_origins.count; i++) {
        outr_str allowed = settings->allowed_origins.items[i];
        if (outr_str_is(allowed, "*") || outr_str_ieq(allowed, origin))
            return true;
    }
    return false;
}

static bool is_allowed_method(const outr_settings *settings, outr_str method)
{
    static const char *const methods[] = {"HEAD",  "GET",    "POST",   "PUT",
                                          "PATCH", "DELETE", "OPTIONS"};
    for (size_t i = 0; i < OUTR_LEN(methods); i++) {
        if (outr_str_is(method, methods[i]))
            return true;
    }
    return is_any(settings);
}

bool outr_cors_apply(const outr_settings *settings, const outr_http_request *req, outr_headers *out)
{
    if (settings->allowed_origins.count == 0)
        return false;
    outr_str origin = outr_headers_get(&req->headers, "origin");
    outr_str asked = outr_headers_get(&req->headers, "access-control-request-method");
    bool is_preflight = outr_str_is(req->method, "OPTIONS") && asked.n > 0;
    if (is_preflight)
        outr_headers_add(
            out, OUTR_STR("Vary"),
            OUTR_STR("Origin, Access-Control-Request-Method, Access-Control-Request-Headers"));
    else
        outr_headers_add(out, OUTR_STR("Vary"), OUTR_STR("Origin"));
    if (origin.n == 0 || !is_allowed_origin(settings, origin) ||
        !is_allowed_method(settings, is_preflight ? asked : req->method))
        return is_preflight;
    outr_headers_add(out, OUTR_STR("Access-Control-Allow-Origin"),
                     is_any(settings) ? OUTR_STR("*") : origin);
    if (!is_preflight)
        return false;
    outr_headers_add(out, OUTR_STR("Access-Control-Allow-Methods"), asked);
    outr_str headers = outr_headers_get(&req->headers, "access-control-request-headers");
    if (headers.n > 0)
        outr_headers_add(out, OUTR_STR("Access-Control-Allow-Headers"), headers);
    return true;
}
