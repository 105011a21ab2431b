#include "api/http/invoke.h"

#include "base/encode.h"
#include "base/url.h"
#include "mesh/deadline.h"

/* First hit wins: header dapr-app-id, basic auth, path. */

static void fail(outr_api_request *r, outr_code code, outr_reason reason, outr_why why,
                 outr_str target, outr_str text)
{
    outr_err err;
    outr_api_tell_local(r, why, target, text.p);
    outr_fail_reason(&err, code, reason, OUTR_FMT, OUTR_ARG(text));
    outr_api_fail(r, &err, NULL);
}

static void on_failed(outr_invoke *invoke, const outr_err *err)
{
    outr_api_request *r = invoke->user;
    outr_err shown;
    r->x->on_gone = NULL;
    outr_fail_reason(&shown, err->code, OUTR_REASON_DIRECT_INVOKE,
                     "failed to invoke, id: " OUTR_FMT ", err: %s", OUTR_ARG(invoke->target),
                     err->text);
    outr_api_tell_local(r, invoke->why, invoke->target, NULL);
    if (invoke->challenge.n > 0)
        outr_headers_add(&r->extra, OUTR_STR("WWW-Authenticate"), invoke->challenge);
    if (invoke->after_ns)
        outr_headers_add(
            &r->extra, OUTR_STR("Retry-After"),
            outr_arena_printf(r->x->arena, "%llu",
                              (unsigned long long)((invoke->after_ns + OUTR_SEC - 1) / OUTR_SEC)));
    if (invoke->status > 0)
        outr_api_fail_status(r, invoke->status, &shown, NULL);
    else if (outr_why_status(invoke->why) > 0)
        outr_api_fail_status(r, outr_why_status(invoke->why), &shown, NULL);
    else if (err->code == OUTR_PERMISSION_DENIED)
        outr_api_fail_status(r, 403, &shown, NULL);
    else if (err->code == OUTR_UNAUTHENTICATED)
        outr_api_fail_status(r, 401, &shown, NULL);
    else if (err->code == OUTR_DEADLINE_EXCEEDED && invoke->deadline_ns && !invoke->is_of_policy)
        outr_api_fail_status(r, 504, &shown, NULL);
    else
        outr_api_fail(r, &shown, NULL);
}

static void on_done(outr_invoke *invoke, const outr_err *err OUTR_UNUSED)
{
    outr_api_finish(invoke->user);
}

static void on_head(outr_invoke *invoke, outr_http_response *head)
{
    outr_api_decorate(invoke->user, head);
}

static void invoke_target(outr_api_request *r, outr_str target, outr_str method)
{
    outr_invoke *invoke = outr_arena_alloc(r->x->arena, sizeof *invoke);
    uint64_t deadline_ns;
    if (!outr_deadline_read(&deadline_ns, &r->x->req.headers, outr_loop_now(r->api->loop))) {
        fail(r, OUTR_INVALID_ARGUMENT, OUTR_REASON_MALFORMED_REQUEST, OUTR_WHY_BAD_REQUEST, target,
             OUTR_STR("failed to invoke: malformed " OUTR_DEADLINE_HEADER
                      ", which is a number and one of H M S m u n"));
        return;
    }
    *invoke = (outr_invoke){
        .x = r->x,
        .target = target,
        .method = method,
        .query = r->query,
        .trace = r->trace,
        .deadline_ns = deadline_ns,
        .on_failed = on_failed,
        .on_done = on_done,
        .on_head = on_head,
        .user = r,
    };
    outr_mesh_invoke(r->api->mesh, invoke);
}

/* Authorization: Basic base64("dapr-app-id:<target>"). */
static outr_str target_of_auth(outr_api_request *r)
{
    outr_str auth = outr_headers_get(&r->x->req.headers, "Authorization"), text, user;
    if (!outr_str_istarts(auth, OUTR_STR("Basic ")) ||
        !outr_base64_decode(r->x->arena, outr_str_trim(outr_str_skip(auth, 6)), &text))
        return OUTR_STR_NONE;
    outr_str password = outr_str_cut(text, ':', &user);
    return outr_str_iis(user, "dapr-app-id") ? password : OUTR_STR_NONE;
}

/* The whole path, decoded, is the method. False: it is no valid path (answered). */
static bool decode_path(outr_api_request *r, outr_str *out)
{
    outr_str clean = outr_path_clean(r->x->arena, r->path);
    if (!outr_percent_decode(r->x->arena, outr_str_skip(clean, 1), false, out)) {
        outr_http_response head = {.status = 400};
        outr_api_tell_local(r, OUTR_WHY_BAD_REQUEST, OUTR_STR_NONE, "malformed path");
        outr_headers_init(&head.headers, r->x->arena);
        outr_headers_add(&head.headers, OUTR_STR("Content-Type"),
                         OUTR_STR("text/plain; charset=utf-8"));
        outr_api_reply_with(r, &head, OUTR_STR("400 Bad Request"));
        return false;
    }
    return true;
}

static const char prefix[] = "v1.0/invoke/";

/* "v1.0/invoke/<target>/method/<method>" of the decoded path: the first /method/ splits. A URL as
 * target lost one of its slashes when the path was cleaned. */
static bool split_path(outr_api_request *r, outr_str path, outr_str *target, outr_str *method)
{
    outr_str rest = outr_str_skip(path, sizeof prefix - 1);
    if (!outr_str_starts(path, OUTR_STR(prefix)))
        return false;
    ptrdiff_t at = outr_str_search(rest, OUTR_STR("/method/"));
    if (at <= 0 && outr_str_ends(rest, OUTR_STR("/method"))) {
        at = (ptrdiff_t)(rest.n - (sizeof "/method" - 1));
        *method = OUTR_STR("");
    } else if (at > 0) {
        *method = outr_str_skip(rest, (size_t)at + sizeof "/method/" - 1);
    }
    if (at <= 0)
        return false;
    *target = outr_str_head(rest, (size_t)at);
    static const char *const schemes[] = {"http:/", "https:/"};
    for (size_t i = 0; i < OUTR_LEN(schemes); i++) {
        outr_str s = outr_str_from(schemes[i]);
        if (outr_str_istarts(*target, s) && target->n > s.n && target->p[s.n] != '/')
            *target = outr_arena_printf(r->x->arena, "%s/" OUTR_FMT, schemes[i],
                                        OUTR_ARG(outr_str_skip(*target, s.n)));
    }
    outr_str again; /* the target is unescaped once more */
    if (outr_percent_decode(r->x->arena, *target, true, &again))
        *target = again;
    return true;
}

static void not_found(outr_api_request *r)
{
    fail(r, OUTR_NOT_FOUND, OUTR_REASON_DIRECT_INVOKE_NOT_FOUND, OUTR_WHY_NO_TARGET, OUTR_STR_NONE,
         OUTR_STR("failed getting app id either from the URL path or the header dapr-app-id"));
}

void outr_api_invoke_any(outr_api_request *r)
{
    outr_headers *headers = &r->x->req.headers;
    outr_str target = outr_headers_get(headers, "dapr-app-id"), path, method;
    outr_headers_remove(headers, "dapr-app-id");
    if (!decode_path(r, &path))
        return;
    method = path;
    if (target.n == 0)
        target = target_of_auth(r);
    if (target.n > 0 || split_path(r, path, &target, &method))
        invoke_target(r, target, method);
    else
        not_found(r);
}

const outr_api_route outr_routes_invoke[] = {
    {"*", "/v1.0/invoke/{target}/method/{method...}", 0, "invoke", "v1", NULL, outr_api_invoke_any,
     NULL},
    {0},
};
