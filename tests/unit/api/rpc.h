/* rpc - calls of the gRPC API in an api_world, as its clients make them, and the components that
 * its tests share. */
#ifndef OUTR_TESTS_RPC_H
#define OUTR_TESTS_RPC_H

#include <dapr/proto/runtime/v1/pubsub.pb-c.h>
#include <dapr/proto/runtime/v1/state.pb-c.h>
#include <google/protobuf/empty.pb-c.h>
#include <google/rpc/error_details.pb-c.h>
#include <google/rpc/status.pb-c.h>

#include "grpc/client.h"
#include "unit/api/api.h"

#define RPC_PATH "/dapr.proto.runtime.v1.Dapr/"

typedef struct rpc {
    outr_arena *arena;
    outr_grpc_unary unary;
    outr_http_call http;
    outr_op op;
    unsigned done_count;
    outr_err http_err;
    outr_err err; /* the status */
} rpc;

static void rpc_on_done(outr_op *op)
{
    rpc *r = OUTR_CONTAINER(op, rpc, op);
    r->done_count++;
    r->http_err = op->err;
}

static void rpc_start(api_world *a, rpc *r, const char *method, const void *request)
{
    if (!r->arena)
        r->arena = outr_arena_new(256 * OUTR_MIB);
    if (!r->unary.metadata.arena)
        outr_headers_init(&r->unary.metadata, r->arena);
    r->unary.arena = r->arena;
    r->unary.loop = a->w.loop;
    r->unary.max_bytes = 64 * OUTR_MIB;
    outr_grpc_unary_prepare(
        &r->unary, &r->http,
        outr_arena_printf(r->arena, "%s%s", method[0] == '/' ? "" : RPC_PATH, method).p, request);
    outr_op_init(&r->op, a->w.loop, NULL, 0, rpc_on_done);
    outr_http_call_start(a->grpc_client, &r->http, &r->op);
    wire_run(&a->w);
}

/* The answer as a message of a type; NULL: r->err says why. */
static void *rpc_finish(rpc *r, const ProtobufCMessageDescriptor *type)
{
    void *reply = NULL;
    outr_err_clear(&r->err);
    if (!r->done_count)
        fail_msg("the call has not ended");
    outr_grpc_unary_result(&r->unary, &reply, type, &r->http_err, &r->err);
    return reply;
}

static void rpc_done(rpc *r)
{
    outr_arena_free(r->arena);
    *r = (rpc){0};
}

/* One call with a good end. Memory is r's. */
static void *rpc_ok(api_world *a, rpc *r, const char *method, const void *request,
                    const ProtobufCMessageDescriptor *type)
{
    rpc_start(a, r, method, request);
    while (!r->done_count) /* workers do not belong to the wire */
        wire_run(&a->w);
    void *reply = rpc_finish(r, type);
    if (!reply)
        fail_msg("%s: %d %s", method, r->err.code, r->err.text);
    return reply;
}

/* The message of one type in the details, on r's arena; NULL: none. */
static void *rpc_detail(rpc *r, const char *name, const ProtobufCMessageDescriptor *type)
{
    Google__Rpc__Status *status;
    void *found = NULL;
    outr_err err;
    if (!r->unary.status.details.p)
        return NULL;
    if (outr_proto_read(&status, r->arena, &google__rpc__status__descriptor,
                        r->unary.status.details, &err))
        fail_msg("details: %s", err.text);
    for (size_t i = 0; i < status->n_details; i++) {
        const Google__Protobuf__Any *any = status->details[i];
        if (!outr_str_ends(outr_str_from(any->type_url), outr_str_from(name)))
            continue;
        if (outr_proto_read(&found, r->arena, type, outr_proto_bytes(any->value), &err))
            fail_msg("details: %s: %s", name, err.text);
    }
    return found;
}

/* One call that is refused: its code, part of its message, reason of its ErrorInfo ("": none). */
OUTR_UNUSED static void rpc_refused(api_world *a, const char *method, const void *request,
                                    outr_code code, const char *reason, const char *text)
{
    rpc r = {0};
    rpc_start(a, &r, method, request);
    while (!r.done_count)
        wire_run(&a->w);
    rpc_finish(&r, &google__rpc__status__descriptor);
    const Google__Rpc__ErrorInfo *info =
        rpc_detail(&r, "google.rpc.ErrorInfo", &google__rpc__error_info__descriptor);
    if (r.err.code != code || !strstr(r.err.text, text) ||
        strcmp(info ? info->reason : "", reason) != 0)
        fail_msg("%s: %d \"%s\" %s", method, r.err.code, r.err.text, info ? info->reason : "");
    rpc_done(&r);
}

/* ---- what the tests share -------------------------------------------------------------------- */

#define D(type) &dapr__proto__runtime__v1__##type##__descriptor
#define EMPTY   &google__protobuf__empty__descriptor

typedef Dapr__Proto__Common__V1__StateItem state_item;
typedef Dapr__Proto__Runtime__V1__GetStateRequest get_request;
typedef Dapr__Proto__Runtime__V1__GetStateResponse get_response;
typedef Dapr__Proto__Runtime__V1__SaveStateRequest save_request;
typedef Dapr__Proto__Runtime__V1__PublishEventRequest publish_request;

static const outr_settings plain OUTR_UNUSED = {.max_body_bytes = 4 * 1024 * 1024};

static const char components[] OUTR_UNUSED =
    "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: store}\n"
    "spec: {type: state.in-memory, version: v1}\n---\n"
    "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: bus}\n"
    "spec:\n  type: pubsub.in-memory\n  metadata:\n"
    "  - {name: publishingScopes, value: \"me=orders,a/b;you=secret\"}\n"
    "  - {name: protectedTopics, value: closed}\n---\n"
    "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: vault}\n"
    "spec: {type: secretstores.local.env, version: v1}\n";

static inline char *text(const char *s)
{
    return (char *)(uintptr_t)s;
}

static inline ProtobufCBinaryData bytes(const char *s)
{
    return (ProtobufCBinaryData){strlen(s), (uint8_t *)(uintptr_t)s};
}

static inline void save(api_world *a, const char *key, ProtobufCBinaryData value)
{
    state_item item = DAPR__PROTO__COMMON__V1__STATE_ITEM__INIT, *items[] = {&item};
    save_request req = DAPR__PROTO__RUNTIME__V1__SAVE_STATE_REQUEST__INIT;
    rpc r = {0};
    item.key = text(key);
    item.value = value;
    req.store_name = text("store");
    req.n_states = 1;
    req.states = items;
    rpc_ok(a, &r, "SaveState", &req, EMPTY);
    rpc_done(&r);
}

static inline get_request get_of(const char *store, const char *key)
{
    get_request req = DAPR__PROTO__RUNTIME__V1__GET_STATE_REQUEST__INIT;
    req.store_name = text(store);
    req.key = text(key);
    return req;
}

static inline void check_value(api_world *a, const char *key, const char *value, size_t n)
{
    get_request req = get_of("store", key);
    rpc r = {0};
    const get_response *got = rpc_ok(a, &r, "GetState", &req, D(get_state_response));
    assert_int_equal(got->data.len, n);
    assert_true(n == 0 || memcmp(got->data.data, value, n) == 0);
    assert_int_equal(got->etag[0] != 0, n > 0);
    rpc_done(&r);
}

static inline publish_request publish_of(const char *pubsub, const char *topic, const char *data)
{
    publish_request req = DAPR__PROTO__RUNTIME__V1__PUBLISH_EVENT_REQUEST__INIT;
    req.pubsub_name = text(pubsub);
    req.topic = text(topic);
    req.data = bytes(data);
    return req;
}

#endif
