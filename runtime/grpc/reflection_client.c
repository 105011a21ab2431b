#include "grpc/reflection_client.h"

#include "grpc/reflection/v1/reflection.pb-c.h"

typedef Grpc__Reflection__V1__ServerReflectionRequest request;
typedef Grpc__Reflection__V1__ServerReflectionResponse response;

#define ANSWER_MAX OUTR_MIB

static void ask(outr_reflection *r);

static void keep_services(outr_reflection *r, const Grpc__Reflection__V1__ListServiceResponse *list)
{
    r->services = outr_arena_alloc(r->arena, (list->n_service + 1) * sizeof *r->services);
    for (size_t i = 0; i < list->n_service; i++)
        r->services[r->count++] = outr_str_from(list->service[i]->name);
}

static bool on_message(outr_grpc_stream *s, outr_str bytes)
{
    outr_reflection *r = s->user;
    response *m;
    const ProtobufCMessageDescriptor *type =
        &grpc__reflection__v1__server_reflection_response__descriptor;
    if (r->is_answered)
        return true;
    r->is_answered = true;
    outr_grpc_stream_half_close(s);
    if (outr_proto_read(&m, r->arena, type, bytes, &r->broken))
        return true;
    if (m->message_response_case ==
        GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_LIST_SERVICES_RESPONSE)
        keep_services(r, m->list_services_response);
    else if (m->message_response_case ==
             GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_ERROR_RESPONSE)
        outr_fail(&r->broken, OUTR_INTERNAL, "reflection: %s", m->error_response->error_message);
    else
        outr_fail(&r->broken, OUTR_INTERNAL, "reflection: the answer is to another question");
    return true;
}

static void on_done(outr_op *inner)
{
    outr_reflection *r = OUTR_CONTAINER(inner, outr_reflection, inner);
    outr_err err = {0};
    outr_code rc = outr_grpc_stream_result(&r->stream, &inner->err, &err);
    if (rc == OUTR_UNIMPLEMENTED && !r->is_alpha && !outr_op_is_cancelled(r->op)) {
        r->is_alpha = true;
        ask(r);
        return;
    }
    if (r->broken.code) /* answered, so what came after does not matter */
        err = r->broken;
    else if (r->is_answered)
        outr_err_clear(&err);
    else if (!rc)
        outr_fail(&err, OUTR_INTERNAL, "reflection: the server ended without an answer");
    if (err.code)
        outr_op_fail(r->op, &err);
    else
        outr_op_finish(r->op);
}

/* The two versions differ in their names only. */
static void ask(outr_reflection *r)
{
    request m = GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__INIT;
    m.message_request_case =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_LIST_SERVICES;
    m.list_services = (char *)(uintptr_t) "*";
    r->stream = (outr_grpc_stream){.arena = r->arena,
                                   .loop = r->loop,
                                   .max_bytes = ANSWER_MAX,
                                   .deadline_ns = r->op->deadline_ns,
                                   .on_message = on_message,
                                   .user = r};
    outr_headers_init(&r->stream.metadata, r->arena);
    outr_grpc_stream_prepare(&r->stream, &r->http,
                             r->is_alpha
                                 ? "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
                                 : "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo");
    outr_op_init(&r->inner, r->loop, r->op, 0, on_done);
    outr_http_call_start(r->pool, &r->http, &r->inner);
    outr_grpc_stream_send(&r->stream, &m);
}

void outr_reflection_start(outr_reflection *r, outr_op *op)
{
    r->op = op;
    r->services = NULL;
    r->count = 0;
    r->is_alpha = r->is_answered = false;
    outr_err_clear(&r->broken);
    outr_op_begin(op, r, NULL);
    ask(r);
}

bool outr_reflection_has(const outr_reflection *r, const char *service)
{
    for (size_t i = 0; i < r->count; i++) {
        if (outr_str_is(r->services[i], service))
            return true;
    }
    return false;
}
