#include "api/core/mesh.h"
#include "api/http/http_api.h"

/* What the mesh does, below a prefix that Dapr has not. */

#define ANSWER_MAX (64 * OUTR_MIB)
#define ARENA_MAX  (256 * OUTR_MIB)

static void reply(outr_api_request *r, const outr_json *value)
{
    OUTR_AUTO(outr_buf) out = OUTR_BUF_MAX(ANSWER_MAX);
    outr_json_write(&out, value, OUTR_JSON_PLAIN);
    outr_api_reply(r, 200, "application/json", outr_buf_view(&out));
}

/* Of hundreds of instances, or thousands of routes: more than a request's own arena holds. */
static outr_core new_core(outr_api_request *r)
{
    return (outr_core){r->api, r->view, outr_arena_new(ARENA_MAX)};
}

static void get_endpoints(outr_api_request *r)
{
    outr_core core = new_core(r);
    reply(r, outr_core_endpoints(&core, r->params[0]));
    outr_arena_free(core.arena);
}

static void fail(outr_api_request *r, const outr_err *err)
{
    outr_err shown;
    outr_fail_reason(&shown, err->code, OUTR_REASON_MALFORMED_REQUEST, "%s", err->text);
    outr_api_fail(r, &shown, NULL);
}

static void post_route(outr_api_request *r)
{
    outr_json *question, *answer;
    outr_err err;
    outr_core core = new_core(r);
    if (outr_json_parse(&question, core.arena, r->body, &err) ||
        outr_core_explain(&core, question, &answer, &err))
        fail(r, &err);
    else
        reply(r, answer);
    outr_arena_free(core.arena);
}

/* They tell what metadata tells, so spec.api opens and closes them together. */
const outr_api_route outr_routes_mesh[] = {
    {"GET", "/v1.0/outrigger/endpoints", 0, "metadata", "v1", NULL, get_endpoints, NULL},
    {"GET", "/v1.0/outrigger/endpoints/{app}", 0, "metadata", "v1", "/v1.0/outrigger/endpoints",
     get_endpoints, NULL},
    {"POST", "/v1.0/outrigger/route", OUTR_ROUTE_BODY, "metadata", "v1", NULL, post_route, NULL},
    {0},
};
