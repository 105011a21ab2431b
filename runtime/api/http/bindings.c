#include "api/core/bindings.h"
#include "api/http/http_api.h"
#include "base/json.h"

/* Output bindings over HTTP: {operation, data, metadata} in, the binding's bytes out. */

/* A body of {} and one of null are the same to Go. */
static outr_code read_request(outr_api_request *r, outr_core_binding *call, outr_err *err)
{
    outr_json *body;
    outr_code rc = outr_json_parse(&body, r->x->arena, r->body, err);
    if (rc)
        return rc;
    if (body->kind == OUTR_JSON_NULL)
        body->kind = OUTR_JSON_OBJECT;
    if (body->kind != OUTR_JSON_OBJECT)
        return outr_fail(err, OUTR_INVALID_ARGUMENT, "an object is expected");
    const outr_json *operation = outr_json_ifind(body, "operation"),
                    *metadata = outr_json_ifind(body, "metadata"),
                    *data = outr_json_ifind(body, "data");
    if (operation && operation->kind != OUTR_JSON_STRING && operation->kind != OUTR_JSON_NULL)
        return outr_fail(err, OUTR_INVALID_ARGUMENT, "operation: a text is expected");
    if (metadata && metadata->kind != OUTR_JSON_OBJECT && metadata->kind != OUTR_JSON_NULL)
        return outr_fail(err, OUTR_INVALID_ARGUMENT, "metadata: an object is expected");
    call->operation = operation ? operation->text : OUTR_STR_NONE;
    if (metadata && metadata->count > 0) {
        outr_kv *items = outr_arena_try(r->x->arena, metadata->count * sizeof *items);
        if (!items)
            return outr_fail(err, OUTR_RESOURCE_EXHAUSTED, "metadata: too much of it");
        call->metadata.items = items;
        for (const outr_json *m = metadata->child; m; m = m->next) {
            if (m->kind != OUTR_JSON_STRING && m->kind != OUTR_JSON_NULL)
                return outr_fail(err, OUTR_INVALID_ARGUMENT,
                                 "metadata " OUTR_FMT ": a text is expected", OUTR_ARG(m->key));
            items[call->metadata.count++] = (outr_kv){m->key, m->text};
        }
    }
    OUTR_AUTO(outr_buf) text = OUTR_BUF_MAX(SIZE_MAX / 16);
    if (data)
        outr_json_write(&text, data, OUTR_JSON_SORTED | OUTR_JSON_FLOAT64);
    else
        outr_buf_z(&text, "null");
    char *copy = outr_arena_try(r->x->arena, text.n + 1);
    if (!copy)
        return outr_fail(err, OUTR_RESOURCE_EXHAUSTED, "data: too large");
    memcpy(copy, text.p, text.n);
    call->data = outr_str_of(copy, text.n);
    return OUTR_OK;
}

static void on_done(outr_op *op)
{
    outr_api_request *r = OUTR_CONTAINER(op, outr_api_request, op);
    const outr_core_binding *call = r->user;
    if (op->err.code) {
        outr_err err = op->err;
        if (err.reason == OUTR_REASON_NONE) /* cancelled: nobody reads it any more */
            err.reason = OUTR_REASON_INVOKE_OUTPUT_BINDING;
        outr_api_fail(r, &err, NULL);
        return;
    }
    if (!call->has_answer) {
        outr_api_empty(r);
        return;
    }
    outr_http_response head = {.status = 200};
    outr_headers_init(&head.headers, r->x->arena);
    outr_headers_add(&head.headers, OUTR_STR("Content-Type"), OUTR_STR("application/json"));
    for (size_t i = 0; i < call->answer_metadata.count; i++) {
        const outr_kv *m = &call->answer_metadata.items[i];
        outr_str name =
            outr_arena_join(r->x->arena, OUTR_STR("metadata."), m->key, OUTR_STR_NONE);
        if (outr_header_name_is_valid(name))
            outr_headers_add(&head.headers, name, m->value);
    }
    outr_api_reply_with(r, &head, call->answer);
}

static void invoke(outr_api_request *r)
{
    outr_core_binding *call = outr_arena_alloc(r->x->arena, sizeof *call);
    outr_err err;
    r->user = call;
    *call = (outr_core_binding){
        .core = {.api = r->api, .view = r->view, .arena = r->x->arena},
        .name = r->params[0],
        .trace = &r->trace,
        .baggage = outr_headers_get(&r->x->req.headers, "baggage"),
    };
    if (read_request(r, call, &err)) {
        outr_core_fail(&err, OUTR_REASON_MALFORMED_REQUEST, "failed deserializing HTTP body: %s",
                       outr_arena_strz(r->x->arena, outr_str_from(err.text)));
        outr_api_fail(r, &err, NULL);
        return;
    }
    outr_op_init(&r->op, r->api->loop, NULL, 0, on_done);
    outr_core_binding_start(call, &r->op);
}

const outr_api_route outr_routes_bindings[] = {
    {"POST|PUT", "/v1.0/bindings/{name}", OUTR_ROUTE_BODY, "bindings", "v1", NULL, invoke, NULL},
    {0},
};
