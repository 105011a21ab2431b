#include "api/core/lock.h"
#include "api/http/http_api.h"
#include "base/json.h"

/* Locks over HTTP. Bodies are protobuf JSON: names in both of its spellings, numbers also as text,
 * unknown fields ignored. */

static outr_code malformed(outr_err *err, const char *field)
{
    return outr_fail(err, OUTR_INVALID_ARGUMENT, "invalid value for field %s", field);
}

static outr_code read_text(const outr_json *body, const char *name, const char *other,
                           outr_str *out, outr_err *err)
{
    const outr_json *value = outr_json_find(body, name);
    if (!value)
        value = outr_json_find(body, other);
    if (value && value->kind != OUTR_JSON_STRING && value->kind != OUTR_JSON_NULL)
        return malformed(err, name);
    *out = value && value->kind == OUTR_JSON_STRING ? value->text : OUTR_STR("");
    return OUTR_OK;
}

static outr_code read_expiry(const outr_json *body, int64_t *out, outr_err *err)
{
    const outr_json *value = outr_json_find(body, "expiryInSeconds");
    double number;
    if (!value)
        value = outr_json_find(body, "expiry_in_seconds");
    if (!value || value->kind == OUTR_JSON_NULL)
        return OUTR_OK;
    if ((value->kind != OUTR_JSON_NUMBER && value->kind != OUTR_JSON_STRING) ||
        !outr_str_to_double(value->text, &number) || !(number >= INT32_MIN && number <= INT32_MAX))
        return malformed(err, "expiryInSeconds");
    *out = (int64_t)number;
    return (double)*out == number ? OUTR_OK : malformed(err, "expiryInSeconds");
}

static outr_code read_request(outr_api_request *r, outr_core_lock *c, outr_err *err)
{
    outr_json *body;
    outr_code rc = outr_json_parse(&body, r->x->arena, r->body, err);
    if (!rc && body->kind != OUTR_JSON_OBJECT)
        rc = outr_fail(err, OUTR_INVALID_ARGUMENT, "an object is expected");
    if (!rc)
        rc = read_text(body, "resourceId", "resource_id", &c->resource, err);
    if (!rc)
        rc = read_text(body, "lockOwner", "lock_owner", &c->owner, err);
    return rc || c->is_unlock ? rc : read_expiry(body, &c->expiry_seconds, err);
}

static void on_done(outr_op *op)
{
    outr_api_request *r = OUTR_CONTAINER(op, outr_api_request, op);
    const outr_core_lock *c = r->user;
    char text[32];
    if (op->err.code) {
        outr_err err = op->err;
        if (err.reason == OUTR_REASON_NONE) /* cancelled: nobody reads it any more */
            err.reason = c->is_unlock ? OUTR_REASON_UNLOCK : OUTR_REASON_TRY_LOCK;
        outr_api_fail(r, &err, NULL);
        return;
    }
    if (c->is_unlock)
        snprintf(text, sizeof text, "{\"status\":%d}", (int)c->status);
    else
        snprintf(text, sizeof text, "{\"success\":%s}", c->is_taken ? "true" : "false");
    outr_api_reply(r, 200, "application/json", outr_str_from(text));
}

static void start(outr_api_request *r, bool is_unlock)
{
    outr_core_lock *c = outr_arena_alloc(r->x->arena, sizeof *c);
    outr_err err;
    *c = (outr_core_lock){.core = {r->api, r->view, r->x->arena},
                          .is_unlock = is_unlock,
                          .store_name = r->params[0]};
    r->user = c;
    if (read_request(r, c, &err)) {
        outr_core_fail(&err, OUTR_REASON_MALFORMED_REQUEST, "failed deserializing HTTP body: %s",
                       outr_arena_strz(r->x->arena, outr_str_from(err.text)));
        outr_api_fail(r, &err, NULL);
        return;
    }
    outr_op_init(&r->op, r->api->loop, NULL, 0, on_done);
    outr_core_lock_start(c, &r->op);
}

static void lock(outr_api_request *r)
{
    start(r, false);
}

static void unlock(outr_api_request *r)
{
    start(r, true);
}

const outr_api_route outr_routes_lock[] = {
    {"POST", "/v1.0-alpha1/lock/{store}", OUTR_ROUTE_BODY, "lock", "v1alpha1", NULL, lock, NULL},
    {"POST", "/v1.0-alpha1/unlock/{store}", OUTR_ROUTE_BODY, "unlock", "v1alpha1", NULL, unlock,
     NULL},
    {0},
};
