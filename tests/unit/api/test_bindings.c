#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <dapr/proto/runtime/v1/binding.pb-c.h>
#include <stdlib.h>

#include "unit/api/rpc.h"

/* Output bindings through both front ends, against bindings.http whose server is the test's app: it
 * answers with what it was asked. */

typedef Dapr__Proto__Runtime__V1__InvokeBindingRequest invoke_request;
typedef Dapr__Proto__Runtime__V1__InvokeBindingResponse invoke_response;

#define YAML                                                                                       \
    "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: web}\nspec:\n"                 \
    "  type: bindings.http\n  version: v1\n  metadata:\n"                                          \
    "  - {name: url, value: 'http://127.0.0.1:7/x'}\n"                                             \
    "  - {name: errorIfNot2XX, value: 'false'}\n"                                                  \
    "---\n"                                                                                        \
    "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: strict}\nspec:\n"              \
    "  type: bindings.http\n  version: v1\n  metadata:\n"                                          \
    "  - {name: url, value: 'http://127.0.0.1:7/x'}\n"

typedef struct world {
    api_world *a;
    outr_http_server *server;
    void (*accept)(void *ctx, outr_stream *own_stream);
    int status;
    outr_gather gather;
    outr_exchange *x;
} world;

static world *the_world;

static void answer(world *o, outr_exchange *x, outr_str body)
{
    outr_http_response head = {.status = o->status, .content_length = -1};
    OUTR_AUTO(outr_buf) text = OUTR_BUF_MAX(OUTR_MIB);
    outr_headers_init(&head.headers, x->arena);
    outr_headers_add(&head.headers, OUTR_STR("x-back"), OUTR_STR("b"));
    outr_buf_printf(&text, OUTR_FMT " " OUTR_FMT " [" OUTR_FMT "] " OUTR_FMT " " OUTR_FMT,
                    OUTR_ARG(x->req.method), OUTR_ARG(x->req.target), OUTR_ARG(body),
                    OUTR_ARG(outr_headers_get(&x->req.headers, "traceparent")),
                    OUTR_ARG(outr_headers_get(&x->req.headers, "baggage")));
    head.content_length = (int64_t)text.n;
    outr_http_reply(x, &head, outr_buf_view(&text));
    outr_http_done(x);
}

static void on_body(outr_gather *gather, const outr_err *err OUTR_UNUSED)
{
    world *o = gather->ctx;
    answer(o, o->x, outr_buf_view(&gather->body));
    outr_buf_done(&gather->body);
}

static void on_request(void *ctx, outr_exchange *x)
{
    world *o = ctx;
    o->x = x;
    if (x->body)
        outr_gather_start(&o->gather, x->body, OUTR_MIB, on_body, o);
    else
        answer(o, x, OUTR_STR(""));
}

static void on_accept(void *ctx, outr_stream *own_stream)
{
    if (own_stream->local.port == 7)
        outr_http_server_take(the_world->server, own_stream);
    else
        the_world->accept(ctx, own_stream);
}

static world *open_world(void)
{
    static const outr_http_handler handler = {.on_request = on_request};
    world *o = outr_alloc(sizeof *o);
    the_world = o;
    o->a = api_open(&(outr_settings){0}, YAML, NULL, 100);
    o->accept = o->a->w.on_accept;
    o->a->w.on_accept = on_accept;
    o->status = 200;
    o->server = outr_http_server_new(&(outr_http_server_options){
        .loop = o->a->w.loop, .handler = &handler, .ctx = o, .allow_h1 = true});
    return o;
}

static void close_world(world *o)
{
    outr_http_server_free(o->server);
    wire_run(&o->a->w);
    api_close(o->a);
    free(o);
}

static void http_is_translated(void **state OUTR_UNUSED)
{
    static const char trace[] = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    static const struct {
        const char *method, *target, *body;
        int status;
        const char *text; /* in the answer */
    } cases[] = {
        {"POST", "/v1.0/bindings/web", "{\"operation\":\"get\"}", 200, "GET /x [] "},
        {"PUT", "/v1.0/bindings/web", "{\"Operation\":\"get\",\"DATA\":null}", 200, "GET /x [] "},
        {"POST", "/v1.0/bindings/web", "{\"operation\":\"post\"}", 200, "POST /x [null] "},
        {"POST", "/v1.0/bindings/web", "{\"operation\":\"post\",\"data\":\"t\"}", 200,
         "POST /x [\"t\"] "},
        {"POST", "/v1.0/bindings/web",
         "{\"operation\":\"put\",\"data\":{\"b\":1.50,\"a\":\"<\"},\"metadata\":{\"path\":\"y\"}}",
         200, "PUT /x/y [{\"a\":\"\\u003c\",\"b\":1.5}] "},
        {"POST", "/v1.0/bindings/web",
         "{\"operation\":\"get\",\"metadata\":{\"traceparent\":\"00-mine\"}}", 200, trace},
        {"POST", "/v1.0/bindings/web", "{\"operation\":\"get\",\"metadata\":null}", 200, "k=v"},
        {"POST", "/v1.0/bindings/web", "null", 500, "operation field is missing from request"},
        {"POST", "/v1.0/bindings/web", "{\"operation\":null}", 500,
         "operation field is missing from request"},
        {"POST", "/v1.0/bindings/web", "{\"operation\":\"GET\"}", 500,
         "does not support operation GET"},
        {"POST", "/v1.0/bindings/we%20b", "{\"operation\":\"get\"}", 500,
         "error invoking output binding we b: couldn't find output binding we b"},
        {"POST", "/v1.0/bindings/web", "", 400, "failed deserializing HTTP body: "},
        {"POST", "/v1.0/bindings/web", "{\"operation\":1}", 400, "operation: a text is expected"},
        {"POST", "/v1.0/bindings/web", "{\"metadata\":1}", 400, "metadata: an object is expected"},
        {"POST", "/v1.0/bindings/web", "{\"metadata\":{\"a\":1}}", 400,
         "metadata a: a text is expected"},
    };
    const char *const headers[] = {"traceparent", trace, "baggage", "k=v", NULL};
    world *o = open_world();
    for (size_t i = 0; i < OUTR_LEN(cases); i++) {
        web_call c;
        api_call(o->a, &c, cases[i].method, cases[i].target, headers, cases[i].body);
        wire_run(&o->a->w);
        if (c.call.head.status != cases[i].status)
            fail_msg("case %zu: %d " OUTR_FMT, i, c.call.head.status,
                     OUTR_ARG(outr_buf_view(&c.taker.body)));
        if (outr_str_search(outr_buf_view(&c.taker.body), outr_str_from(cases[i].text)) < 0)
            fail_msg("case %zu: " OUTR_FMT, i, OUTR_ARG(outr_buf_view(&c.taker.body)));
        if (cases[i].status == 200) {
            assert_true(outr_str_is(outr_headers_get(&c.call.head.headers, "metadata.X-Back"), "b"));
            assert_true(outr_str_is(outr_headers_get(&c.call.head.headers, "metadata.statusCode"),
                                    "200"));
            assert_true(outr_str_is(outr_headers_get(&c.call.head.headers, "Content-Type"),
                                    "application/json"));
        }
        web_call_done(&c);
    }
    close_world(o);
}

static outr_code refused(world *o, rpc *r, const char *name, const char *operation)
{
    invoke_request req = DAPR__PROTO__RUNTIME__V1__INVOKE_BINDING_REQUEST__INIT;
    req.name = (char *)(uintptr_t)name;
    req.operation = (char *)(uintptr_t)operation;
    *r = (rpc){0};
    rpc_start(o->a, r, "InvokeBinding", &req);
    for (int i = 0; i < 100 && !r->done_count; i++)
        wire_run(&o->a->w);
    assert_null(
        rpc_finish(r, &dapr__proto__runtime__v1__invoke_binding_response__descriptor));
    return r->err.code;
}

static void grpc_is_translated(void **state OUTR_UNUSED)
{
    world *o = open_world();
    invoke_response *reply;
    rpc r;
    invoke_request req = DAPR__PROTO__RUNTIME__V1__INVOKE_BINDING_REQUEST__INIT;
    req.name = (char *)(uintptr_t) "web";
    req.operation = (char *)(uintptr_t) "post";
    req.data = outr_proto_data(OUTR_STR("raw \"bytes\""));
    r = (rpc){0};
    reply = rpc_ok(o->a, &r, "InvokeBinding", &req,
                   &dapr__proto__runtime__v1__invoke_binding_response__descriptor);
    assert_true(outr_str_starts(outr_proto_bytes(reply->data),
                                OUTR_STR("POST /x [raw \"bytes\"] ")));
    size_t found = 0;
    for (size_t i = 0; i < reply->n_metadata; i++)
        found += strcmp(reply->metadata[i]->key, "X-Back") == 0 &&
                 strcmp(reply->metadata[i]->value, "b") == 0;
    assert_int_equal(found, 1);
    rpc_done(&r);
    static const struct {
        const char *name, *operation, *text;
    } cases[] = {
        {"", "get", "error invoking output binding : couldn't find output binding "},
        {"none", "get", "error invoking output binding none: couldn't find output binding none"},
        {"web", "", "error invoking output binding web: operation field is missing from request"},
        {"strict", "get", "error invoking output binding strict: received status code 503"},
    };
    o->status = 503;
    for (size_t i = 0; i < OUTR_LEN(cases); i++) {
        assert_int_equal(refused(o, &r, cases[i].name, cases[i].operation), OUTR_INTERNAL);
        assert_string_equal(r.err.text, cases[i].text);
        rpc_done(&r);
    }
    close_world(o);
}

static void a_client_that_goes_takes_the_call_along(void **state OUTR_UNUSED)
{
    world *o = open_world();
    web_call c;
    web_call_init(&c, o->a->w.loop, "POST", "/v1.0/bindings/web");
    static const char body[] = "{\"operation\":\"get\"}";
    web_call_bytes(&c, body, sizeof body - 1);
    web_call_start(&c, o->a->client);
    outr_op_cancel(&c.op, OUTR_CANCELLED);
    wire_run(&o->a->w);
    web_call_done(&c);
    close_world(o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(http_is_translated),
        cmocka_unit_test(grpc_is_translated),
        cmocka_unit_test(a_client_that_goes_takes_the_call_along),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
