#include "api/core/mesh.h"
#include "api/http/http_api.h"

/* What the mesh does, below a prefix that Dapr has not. */

#define ANSWER_MAX (64 * OUTR_MIB)

static void reply(outr_api_request *r, const outr_json *value)
{
    OUTR_AUTO(outr_buf) out = OUTR_BUF_MAX(ANSWER_MAX);
    outr_json_write(&out, value, OUTR_JSON_PLAIN);
    outr_api_reply(r, 200, "application/json", outr_buf_view(&out));
}

static void get_endpoints(outr_api_request *r)
{
    reply(r, outr_core_endpoints(&(outr_core){r->api, r->view, r->x->arena}, r->params[0]));
}

/* They tell what metadata tells, so spec.api opens and closes them together. */
const outr_api_route outr_routes_mesh[] = {
    {"GET", "/v1.0/outrigger/endpoints", 0, "metadata", "v1", NULL, get_endpoints, NULL},
    {"GET", "/v1.0/outrigger/endpoints/{app}", 0, "metadata", "v1", "/v1.0/outrigger/endpoints",
     get_endpoints, NULL},
    {0},
};
