#include "api/http/http_api.h"
#include "base/json.h"

/* Blocks this sidecar has no component for, or no control plane: what a daprd without them answers.
 * A block that gets built takes its rows out of here and into a file of its own. */

static void fail(outr_api_request *r, outr_reason reason, outr_str text)
{
    outr_err err;
    outr_fail_reason(&err, (outr_code)outr_reason_find(reason)->grpc_status, reason, OUTR_FMT,
                     OUTR_ARG(text));
    outr_api_fail(r, &err, NULL);
}

/* False after it has answered: the body is not a JSON object. */
static bool read_json(outr_api_request *r, outr_json **out)
{
    outr_err err;
    outr_code rc = outr_json_parse(out, r->x->arena, r->body, &err);
    if (!rc && (*out)->kind != OUTR_JSON_OBJECT)
        rc = outr_fail(&err, OUTR_INVALID_ARGUMENT, "an object is expected");
    if (!rc)
        return true;
    fail(r, OUTR_REASON_MALFORMED_REQUEST,
         outr_arena_printf(r->x->arena, "failed deserializing HTTP body: %s", err.text));
    return false;
}

static void actors(outr_api_request *r)
{
    fail(r, OUTR_REASON_ACTOR_NO_PLACEMENT, OUTR_STR("placement service is not configured"));
}

static void crypto(outr_api_request *r)
{
    fail(r, OUTR_REASON_CRYPTO_PROVIDERS_NOT_CONFIGURED,
         OUTR_STR("crypto providers not configured"));
}

static void subtle_crypto(outr_api_request *r)
{
    fail(r, OUTR_REASON_API_UNIMPLEMENTED, OUTR_STR("this API is currently not implemented"));
}

static void conversation(outr_api_request *r)
{
    fail(r, OUTR_REASON_CONVERSATION_NOT_FOUND,
         outr_arena_printf(r->x->arena, "failed finding conversation component " OUTR_FMT,
                           OUTR_ARG(r->params[0])));
}

/* ---- jobs: the scheduler's errors carry the app's identity ----------------------------------- */

static void fail_job(outr_api_request *r, outr_reason reason, const char *text)
{
    const outr_settings *s = r->api->settings;
    outr_details details = {
        .is_rich = true,
        .metadata = {{OUTR_STR("appID"), s->app_id}, {OUTR_STR("namespace"), s->namespace_}},
        .metadata_count = 2,
    };
    outr_err err;
    outr_fail_reason(&err, (outr_code)outr_reason_find(reason)->grpc_status, reason, "%s", text);
    outr_api_fail(r, &err, &details);
}

static bool is_given(const outr_json *body, const char *key)
{
    return outr_json_text(body, key).n > 0;
}

static void schedule_job(outr_api_request *r)
{
    outr_json *body;
    if (!read_json(r, &body))
        return;
    if (is_given(body, "name"))
        fail_job(r, OUTR_REASON_SCHEDULER_JOB_NAME, "Set the job name in the url only");
    else if (!is_given(body, "schedule") && !is_given(body, "dueTime"))
        fail_job(r, OUTR_REASON_SCHEDULER_SCHEDULE_EMPTY, "Schedule is empty");
    else
        fail_job(r, OUTR_REASON_SCHEDULER_SCHEDULE_JOB,
                 "failed to schedule job due to: scheduler clients are disabled");
}

static void get_job(outr_api_request *r)
{
    fail_job(r, OUTR_REASON_SCHEDULER_GET_JOB,
             "failed to get job due to: scheduler clients are disabled");
}

static void delete_job(outr_api_request *r)
{
    fail_job(r, OUTR_REASON_SCHEDULER_DELETE_JOB,
             "failed to delete job due to: scheduler clients are disabled");
}

#define BODY OUTR_ROUTE_BODY
#define WORKFLOWS(prefix, api_version)                                                             \
    {"GET", prefix "/workflows/{component}/{instance}", 0, "workflows", api_version, NULL, actors, \
     NULL},                                                                                        \
        {"POST",      prefix "/workflows/{component}/{name}/start",                                \
         0,           "workflows",                                                                 \
         api_version, NULL,                                                                        \
         actors,      NULL},                                                                       \
        {"POST",      prefix "/workflows/{component}/{instance}/raiseEvent/{event}",               \
         0,           "workflows",                                                                 \
         api_version, NULL,                                                                        \
         actors,      NULL},                                                                       \
        {"POST",      prefix "/workflows/{component}/{instance}/pause",                            \
         0,           "workflows",                                                                 \
         api_version, NULL,                                                                        \
         actors,      NULL},                                                                       \
        {"POST",      prefix "/workflows/{component}/{instance}/resume",                           \
         0,           "workflows",                                                                 \
         api_version, NULL,                                                                        \
         actors,      NULL},                                                                       \
        {"POST",      prefix "/workflows/{component}/{instance}/terminate",                        \
         0,           "workflows",                                                                 \
         api_version, NULL,                                                                        \
         actors,      NULL},                                                                       \
    {                                                                                              \
        "POST", prefix "/workflows/{component}/{instance}/purge", 0, "workflows", api_version,     \
            NULL, actors, NULL                                                                     \
    }
#define JOBS(prefix, api_version)                                                                  \
    {"POST", prefix "/jobs/{name}", BODY, "jobs", api_version, NULL, schedule_job, NULL},          \
        {"GET", prefix "/jobs/{name}", 0, "jobs", api_version, NULL, get_job, NULL},               \
    {                                                                                              \
        "DELETE", prefix "/jobs/{name}", 0, "jobs", api_version, NULL, delete_job, NULL            \
    }
#define SUBTLE(operation)                                                                          \
    {                                                                                              \
        "POST", "/v1.0-alpha1/subtlecrypto/{name}/" operation, 0, "subtlecrypto", "v1alpha1",      \
            NULL, subtle_crypto, NULL                                                              \
    }

const outr_api_route outr_routes_absent[] = {
    {"GET|POST|PUT|DELETE", "/v1.0/actors/{type}/{id}/method/{method}", 0, "actors", "v1", NULL,
     actors, NULL},
    {"POST|PUT", "/v1.0/actors/{type}/{id}/state", 0, "actors", "v1", NULL, actors, NULL},
    {"GET", "/v1.0/actors/{type}/{id}/state/{key}", 0, "actors", "v1", NULL, actors, NULL},
    {"GET|POST|PUT|DELETE", "/v1.0/actors/{type}/{id}/reminders/{name}", 0, "actors", "v1", NULL,
     actors, NULL},
    {"POST|PUT|DELETE", "/v1.0/actors/{type}/{id}/timers/{name}", 0, "actors", "v1", NULL, actors,
     NULL},
    {"PUT", "/v1.0-alpha1/crypto/{name}/encrypt", 0, "crypto", "v1alpha1", NULL, crypto, NULL},
    {"PUT", "/v1.0-alpha1/crypto/{name}/decrypt", 0, "crypto", "v1alpha1", NULL, crypto, NULL},
    SUBTLE("getkey"),
    SUBTLE("encrypt"),
    SUBTLE("decrypt"),
    SUBTLE("wrapkey"),
    SUBTLE("unwrapkey"),
    SUBTLE("sign"),
    SUBTLE("verify"),
    WORKFLOWS("/v1.0", "v1"),
    WORKFLOWS("/v1.0-beta1", "v1beta1"),
    WORKFLOWS("/v1.0-alpha1", "v1alpha1"),
    JOBS("/v1.0", "v1"),
    JOBS("/v1.0-alpha1", "v1alpha1"),
    {"POST", "/v1.0-alpha1/conversation/{name}/converse", 0, "conversation", "v1alpha1", NULL,
     conversation, NULL},
    {"POST", "/v1.0-alpha2/conversation/{name}/converse", 0, "conversation", "v1alpha2", NULL,
     conversation, NULL},
    {0},
};
