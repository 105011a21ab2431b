#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "grpc/reflection/v1/reflection.pb-c.h"
#include "grpc/reflection_client.h"
#include "grpc/server.h"
#include "lib/wire.h"

typedef Grpc__Reflection__V1__ServerReflectionRequest request;
typedef Grpc__Reflection__V1__ServerReflectionResponse response;
typedef Grpc__Reflection__V1__ServiceResponse service;
typedef Grpc__Reflection__V1__ListServiceResponse service_list;

/* A server with one of the two versions, and who asks it. */
typedef struct bench {
    wire w;
    outr_http_server *server;
    outr_http_pool *pool;
    outr_grpc_method method;
    bool (*answer)(outr_grpc_call *call, void *message);
    unsigned calls;
    outr_reflection r;
    outr_op op;
    outr_arena *arena;
    bool is_done;
    outr_err err;
} bench;

static void on_request(void *ctx, outr_exchange *x)
{
    bench *b = ctx;
    b->calls++;
    if (outr_str_is(x->req.target, b->method.path))
        outr_grpc_serve(
            x, &(outr_grpc_serve_options){.method = &b->method, .ctx = b, .max_bytes = OUTR_MIB});
    else
        outr_grpc_refuse(x, OUTR_UNIMPLEMENTED, OUTR_STR("unknown service"));
}

static void run(outr_grpc_call *call)
{
    call->on_message = ((bench *)call->ctx)->answer;
    call->on_half_close = outr_grpc_end;
    call->on_gone = outr_grpc_end;
}

static void on_accept(void *ctx, outr_stream *own_stream)
{
    outr_http_server_take(((bench *)ctx)->server, own_stream);
}

static void on_done(outr_op *op)
{
    bench *b = OUTR_CONTAINER(op, bench, op);
    b->is_done = true;
    b->err = op->err;
}

static bench *ask(const char *path, bool (*answer)(outr_grpc_call *call, void *message))
{
    static const outr_http_handler handler = {.on_request = on_request};
    bench *b = outr_alloc(sizeof *b);
    wire_init(&b->w, 1);
    b->w.on_accept = on_accept;
    b->w.ctx = b;
    b->answer = answer;
    b->method = (outr_grpc_method){
        .path = path,
        .request = &grpc__reflection__v1__server_reflection_request__descriptor,
        .takes_stream = true,
        .run = run,
    };
    b->server = outr_http_server_new(&(outr_http_server_options){
        .loop = b->w.loop, .handler = &handler, .ctx = b, .allow_h2 = true});
    b->pool =
        outr_http_pool_new(&(outr_http_pool_options){.loop = b->w.loop, .version = OUTR_HTTP_2});
    b->arena = outr_arena_new(OUTR_MIB);
    b->r = (outr_reflection){.pool = b->pool, .loop = b->w.loop, .arena = b->arena};
    outr_op_init(&b->op, b->w.loop, NULL, b->w.now + OUTR_SEC, on_done);
    outr_reflection_start(&b->r, &b->op);
    wire_sleep(&b->w, 2 * OUTR_SEC);
    assert_true(b->is_done);
    return b;
}

static void done(bench *b)
{
    outr_http_pool_free(b->pool);
    wire_run(&b->w);
    outr_http_server_free(b->server);
    wire_run(&b->w);
    outr_arena_free(b->arena);
    wire_done(&b->w);
    free(b);
}

static bool list_two(outr_grpc_call *call, void *message)
{
    const request *asked = message;
    service one = GRPC__REFLECTION__V1__SERVICE_RESPONSE__INIT,
            two = GRPC__REFLECTION__V1__SERVICE_RESPONSE__INIT, *both[] = {&one, &two};
    service_list list = GRPC__REFLECTION__V1__LIST_SERVICE_RESPONSE__INIT;
    response m = GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__INIT;
    assert_string_equal(asked->list_services, "*");
    one.name = (char *)(uintptr_t) "a.One";
    two.name = (char *)(uintptr_t) "a.Two";
    list.service = both;
    list.n_service = 2;
    m.message_response_case =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_LIST_SERVICES_RESPONSE;
    m.list_services_response = &list;
    outr_grpc_send(call, &m);
    return true;
}

static bool say_error(outr_grpc_call *call, void *message)
{
    Grpc__Reflection__V1__ErrorResponse error = GRPC__REFLECTION__V1__ERROR_RESPONSE__INIT;
    response m = GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__INIT;
    (void)message;
    error.error_message = (char *)(uintptr_t) "not today";
    m.message_response_case =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_ERROR_RESPONSE;
    m.error_response = &error;
    outr_grpc_send(call, &m);
    return true;
}

static bool say_garbage(outr_grpc_call *call, void *message)
{
    service m = GRPC__REFLECTION__V1__SERVICE_RESPONSE__INIT;
    (void)message;
    m.name = (char *)(uintptr_t) "\x0a\xff\xff\xff";
    outr_grpc_send(call, &m);
    return true;
}

static bool say_nothing(outr_grpc_call *call, void *message)
{
    (void)call;
    (void)message;
    return true;
}

static bool end_at_once(outr_grpc_call *call, void *message)
{
    (void)message;
    outr_grpc_end(call);
    return true;
}

static void services_are_listed_by_either_version(void **state)
{
    static const char *const paths[] = {
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    };
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(paths); i++) {
        bench *b = ask(paths[i], list_two);
        assert_int_equal(b->err.code, OUTR_OK);
        assert_int_equal(b->r.count, 2);
        assert_true(outr_reflection_has(&b->r, "a.One") && outr_reflection_has(&b->r, "a.Two"));
        assert_false(outr_reflection_has(&b->r, "a.Three"));
        assert_int_equal(b->calls, i + 1);
        done(b);
    }
}

static void a_server_without_reflection_is_unimplemented(void **state)
{
    bench *b = ask("/a.One/Get", list_two);
    (void)state;
    assert_int_equal(b->err.code, OUTR_UNIMPLEMENTED);
    assert_int_equal(b->calls, 2);
    done(b);
}

static void a_bad_answer_is_an_error(void **state)
{
    static bool (*const answers[])(outr_grpc_call *, void *) = {say_error, say_garbage, end_at_once,
                                                                say_nothing};
    static const outr_code codes[] = {OUTR_INTERNAL, OUTR_INTERNAL, OUTR_INTERNAL,
                                      OUTR_DEADLINE_EXCEEDED};
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(answers); i++) {
        bench *b = ask("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", answers[i]);
        assert_int_equal(b->err.code, codes[i]);
        done(b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(services_are_listed_by_either_version),
        cmocka_unit_test(a_server_without_reflection_is_unimplemented),
        cmocka_unit_test(a_bad_answer_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
