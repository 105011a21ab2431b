#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <google/rpc/error_details.pb-c.h>
#include <google/rpc/status.pb-c.h>

#include "app/invocation.h"
#include "unit/app/grpc_app.h"

typedef Dapr__Proto__Common__V1__InvokeRequest invoke_request;
typedef Dapr__Proto__Common__V1__InvokeResponse invoke_response;

/* An invocation as the mesh makes it, and what came back. */
typedef struct invoke {
    outr_app_call call;
    outr_http_request req;
    outr_op op;
    outr_arena *arena;
    outr_memory_source body;
    web_taker taker;
    web_giver *giver; /* instead of body */
    unsigned done;
    bool cancels_answer;
    outr_err err;
} invoke;

static void on_response(outr_http_call *http)
{
    invoke *v = http->user;
    if (http->response && v->cancels_answer)
        outr_source_cancel(http->response, NULL);
    else if (http->response)
        web_taker_start(&v->taker, http->response);
}

static void on_done(outr_op *op)
{
    invoke *v = OUTR_CONTAINER(op, invoke, op);
    v->done++;
    v->err = op->err;
}

static void prepare(invoke *v, const char *method, const char *target)
{
    *v = (invoke){.arena = outr_arena_new(16 * OUTR_MIB)};
    v->req = (outr_http_request){.method = outr_str_from(method),
                                 .target = outr_str_from(target),
                                 .content_length = 0};
    outr_headers_init(&v->req.headers, v->arena);
}

static void header(invoke *v, const char *name, const char *value)
{
    outr_headers_add(&v->req.headers, outr_str_from(name), outr_str_from(value));
}

static void start(grpc_app *a, invoke *v, const char *body)
{
    v->call.http = (outr_http_call){
        .req = &v->req, .on_response = on_response, .user = v, .arena = v->arena};
    if (body) {
        outr_memory_source_init(&v->body, a->w.loop, outr_str_from(body));
        v->call.http.body = &v->body.base;
        v->req.content_length = (int64_t)strlen(body);
    } else if (v->giver) {
        v->call.http.body = &v->giver->base;
        v->req.content_length = -1;
    }
    outr_op_init(&v->op, a->w.loop, NULL, 0, on_done);
    outr_app_invoke_start(a->app, &v->call, &v->op);
    assert_int_equal(v->done, 0); /* never before start has returned */
}

static void run(grpc_app *a, invoke *v, const char *body)
{
    start(a, v, body);
    wire_run(&a->w);
    assert_int_equal(v->done, 1);
}

static const char *answered(const invoke *v, const char *name)
{
    outr_str value = outr_headers_get(&v->call.http.head.headers, name);
    return value.p ? outr_arena_strz(v->arena, value) : NULL;
}

static void assert_body(const invoke *v, const char *expected)
{
    assert_true(v->taker.has_ended);
    if (!outr_str_is(outr_buf_view(&v->taker.body), expected))
        print_error("body is: " OUTR_FMT "\n", OUTR_ARG(outr_buf_view(&v->taker.body)));
    assert_true(outr_str_is(outr_buf_view(&v->taker.body), expected));
}

static void finish(invoke *v)
{
    web_taker_done(&v->taker);
    outr_arena_free(v->arena);
}

/* ---- what the app gets ------------------------------------------------------------------------- */

static struct {
    char method[64], type_url[64], data[64], content_type[64], query[64];
    int verb; /* -1: no http_extension */
} got;

static void put(char *to, size_t n, const char *text)
{
    snprintf(to, n, "%s", text);
}

static void say_hi(grpc_app *a, outr_grpc_call *call)
{
    const invoke_request *m = call->request;
    invoke_response reply = DAPR__PROTO__COMMON__V1__INVOKE_RESPONSE__INIT;
    Google__Protobuf__Any data = GOOGLE__PROTOBUF__ANY__INIT;
    (void)a;
    put(got.method, sizeof got.method, m->method);
    put(got.type_url, sizeof got.type_url, m->data->type_url);
    snprintf(got.data, sizeof got.data, "%.*s", (int)m->data->value.len,
             (const char *)m->data->value.data);
    put(got.content_type, sizeof got.content_type, m->content_type);
    put(got.query, sizeof got.query, m->http_extension ? m->http_extension->querystring : "");
    got.verb = m->http_extension ? (int)m->http_extension->verb : -1;
    data.value = outr_proto_data(OUTR_STR("{\"hi\":1}"));
    data.type_url = (char *)(uintptr_t) "t/Reply";
    reply.data = &data;
    reply.content_type = (char *)(uintptr_t) "application/json";
    outr_headers_add(&call->headers, OUTR_STR("x-head"), OUTR_STR("1"));
    outr_headers_add(&call->trailers, OUTR_STR("x-trail"), OUTR_STR("2"));
    outr_grpc_reply(call, &reply);
}

static void an_http_call_becomes_on_invoke_and_its_reply_an_http_answer(void **state)
{
    grpc_app *a = grpc_app_open(&(outr_settings){.app_token = OUTR_STR("tok")}, 0);
    invoke v;
    (void)state;
    a->on_call = say_hi;
    prepare(&v, "PUT", "/orders/a%20b?x=1&y=%20");
    header(&v, "Content-Type", "text/plain");
    header(&v, "Accept", "*/*");
    header(&v, "X-Own", "mine");
    header(&v, "dapr-caller-app-id", "caller");
    header(&v, "traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    run(a, &v, "words");
    assert_int_equal(v.err.code, OUTR_OK);
    assert_string_equal(got.method, "orders/a b");
    assert_string_equal(got.query, "x=1&y=%20");
    assert_string_equal(got.data, "words");
    assert_string_equal(got.content_type, "text/plain");
    assert_int_equal(got.verb, DAPR__PROTO__COMMON__V1__HTTPEXTENSION__VERB__PUT);
    assert_string_equal(a->token, "tok");
    assert_non_null(strstr(a->metadata, "dapr-content-type=text/plain;"));
    assert_non_null(strstr(a->metadata, "dapr-accept=*/*;"));
    assert_null(strstr(a->metadata, ";accept="));
    assert_non_null(strstr(a->metadata, "x-own=mine;"));
    assert_non_null(strstr(a->metadata, "dapr-caller-app-id=caller;"));
    assert_non_null(strstr(a->metadata, "grpc-trace-bin=AAAK92UZFs1D3YRI6yEcgDGcAbeta3FpIDMxAgE;"));
    assert_int_equal(v.call.http.head.status, 200);
    assert_string_equal(answered(&v, "content-type"), "application/json");
    assert_string_equal(answered(&v, "x-head"), "1");
    assert_null(answered(&v, "x-trail"));
    assert_string_equal(v.taker.trailers, "x-trail=2;");
    assert_string_equal(answered(&v, OUTR_INVOKE_STATUS_HEADER), "0");
    assert_string_equal(answered(&v, OUTR_INVOKE_TYPE_HEADER), "t/Reply");
    assert_int_equal(v.call.http.head.content_length, 8);
    assert_body(&v, "{\"hi\":1}");
    finish(&v);
    grpc_app_close(a);
}

static void a_grpc_origin_keeps_its_metadata_and_may_have_no_verb(void **state)
{
    grpc_app *a = grpc_app_open(&(outr_settings){0}, 0);
    invoke v;
    (void)state;
    a->on_call = say_hi;
    prepare(&v, "NONE", "/m");
    header(&v, OUTR_INVOKE_ORIGIN_HEADER, OUTR_INVOKE_ORIGIN_GRPC);
    header(&v, OUTR_INVOKE_TYPE_HEADER, "t/T");
    header(&v, "accept", "x");
    run(a, &v, "y");
    assert_int_equal(got.verb, -1);
    assert_string_equal(got.type_url, "t/T");
    assert_non_null(strstr(a->metadata, ";accept=x;"));
    assert_null(strstr(a->metadata, "outrigger-"));
    finish(&v);
    grpc_app_close(a);
}

static void a_method_that_is_no_text_is_refused_before_anything_is_sent(void **state)
{
    static const char *const targets[] = {"/a%ffb", "/a%zz", "/a?\xff"};
    grpc_app *a = grpc_app_open(&(outr_settings){0}, 0);
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(targets); i++) {
        invoke v;
        prepare(&v, "GET", targets[i]);
        run(a, &v, i == 1 ? "body" : NULL);
        assert_int_equal(v.err.code, OUTR_INVALID_ARGUMENT);
        finish(&v);
    }
    assert_int_equal(a->calls, 0);
    grpc_app_close(a);
}

/* ---- what the caller gets ---------------------------------------------------------------------- */

static outr_code refusal;

static void say_no(grpc_app *a, outr_grpc_call *call)
{
    (void)a;
    grpc_app_answer(call, refusal, "because");
}

static void a_status_of_the_app_becomes_the_http_status_it_maps_to(void **state)
{
    static const int statuses[] = {408, 500, 400, 504, 404, 409, 403, 429,
                                   400, 409, 400, 501, 500, 503, 500, 401};
    grpc_app *a = grpc_app_open(&(outr_settings){0}, 0);
    char text[64];
    (void)state;
    a->on_call = say_no;
    for (int code = 1; code <= 16; code++) {
        invoke v;
        refusal = (outr_code)code;
        prepare(&v, "POST", "/m");
        run(a, &v, "x");
        assert_int_equal(v.err.code, OUTR_OK);
        assert_int_equal(v.call.http.head.status, statuses[code - 1]);
        snprintf(text, sizeof text, "%d", code);
        assert_string_equal(answered(&v, OUTR_INVOKE_STATUS_HEADER), text);
        assert_string_equal(answered(&v, OUTR_INVOKE_MESSAGE_HEADER), "because");
        assert_string_equal(answered(&v, "content-type"), "text/plain; charset=utf-8");
        snprintf(text, sizeof text, "{\"code\":%d,\"message\":\"because\"}", code);
        assert_body(&v, text);
        finish(&v);
    }
    grpc_app_close(a);
}

static void say_details(grpc_app *a, outr_grpc_call *call)
{
    Google__Rpc__Status said = GOOGLE__RPC__STATUS__INIT;
    Google__Rpc__ErrorInfo info = GOOGLE__RPC__ERROR_INFO__INIT;
    Google__Rpc__ErrorInfo__MetadataEntry entry = GOOGLE__RPC__ERROR_INFO__METADATA_ENTRY__INIT;
    Google__Rpc__ErrorInfo__MetadataEntry *entries[] = {&entry};
    Google__Rpc__RetryInfo retry = GOOGLE__RPC__RETRY_INFO__INIT;
    Google__Protobuf__Duration delay = GOOGLE__PROTOBUF__DURATION__INIT;
    Google__Rpc__BadRequest bad = GOOGLE__RPC__BAD_REQUEST__INIT;
    Google__Rpc__BadRequest__FieldViolation violation =
        GOOGLE__RPC__BAD_REQUEST__FIELD_VIOLATION__INIT;
    Google__Rpc__BadRequest__FieldViolation *violations[] = {&violation};
    Google__Protobuf__Any any[4], *items[4];
    const char *const urls[] = {"type.googleapis.com/google.rpc.ErrorInfo",
                                "type.googleapis.com/google.rpc.RetryInfo",
                                "type.googleapis.com/google.rpc.BadRequest", "example.org/own.Type"};
    (void)a;
    entry.key = (char *)(uintptr_t) "k";
    entry.value = (char *)(uintptr_t) "v";
    info.reason = (char *)(uintptr_t) "R";
    info.domain = (char *)(uintptr_t) "d.example";
    info.n_metadata = 1;
    info.metadata = entries;
    delay.seconds = 2;
    delay.nanos = 500000000;
    retry.retry_delay = &delay;
    violation.field = (char *)(uintptr_t) "f";
    bad.n_field_violations = 1;
    bad.field_violations = violations;
    const outr_str values[] = {outr_proto_write(call->arena, &info),
                               outr_proto_write(call->arena, &retry),
                               outr_proto_write(call->arena, &bad), OUTR_STR("\x08\x01")};
    for (size_t i = 0; i < OUTR_LEN(any); i++) {
        google__protobuf__any__init(&any[i]);
        any[i].type_url = (char *)(uintptr_t)urls[i];
        any[i].value = outr_proto_data(values[i]);
        items[i] = &any[i];
    }
    said.code = OUTR_FAILED_PRECONDITION;
    said.n_details = OUTR_LEN(items);
    said.details = items;
    const outr_grpc_status status = {.code = OUTR_FAILED_PRECONDITION,
                                     .message = OUTR_STR("det"),
                                     .details = outr_proto_write(call->arena, &said)};
    outr_grpc_fail(call, &status);
}

static void details_of_a_status_are_printed_as_protobuf_json(void **state)
{
    grpc_app *a = grpc_app_open(&(outr_settings){0}, 0);
    invoke v;
    (void)state;
    a->on_call = say_details;
    prepare(&v, "POST", "/m");
    run(a, &v, NULL);
    assert_int_equal(v.call.http.head.status, 400);
    assert_non_null(answered(&v, OUTR_INVOKE_DETAILS_HEADER));
    assert_body(&v, "{\"code\":9,\"message\":\"det\",\"details\":["
                    "{\"@type\":\"type.googleapis.com/google.rpc.ErrorInfo\",\"reason\":\"R\","
                    "\"domain\":\"d.example\",\"metadata\":{\"k\":\"v\"}},"
                    "{\"@type\":\"type.googleapis.com/google.rpc.RetryInfo\","
                    "\"retryDelay\":\"2.500000000s\"},"
                    "{\"@type\":\"type.googleapis.com/google.rpc.BadRequest\","
                    "\"fieldViolations\":[{\"field\":\"f\"}]},"
                    "{\"@type\":\"example.org/own.Type\",\"value\":\"CAE=\"}]}");
    finish(&v);
    grpc_app_close(a);
}

static void an_empty_reply_is_an_answer_without_body_and_type(void **state)
{
    grpc_app *a = grpc_app_open(&(outr_settings){0}, 0);
    invoke v;
    (void)state;
    prepare(&v, "POST", "/m");
    run(a, &v, "x");
    assert_int_equal(v.err.code, OUTR_OK);
    assert_int_equal(v.call.http.head.status, 200);
    assert_null(v.call.http.response);
    assert_null(answered(&v, "content-type"));
    finish(&v);
    grpc_app_close(a);
}

static void an_app_that_is_away_answers_as_unavailable(void **state)
{
    grpc_app *a = grpc_app_open(&(outr_settings){0}, 0);
    invoke v;
    (void)state;
    a->is_refusing = true;
    prepare(&v, "POST", "/m");
    run(a, &v, "x");
    assert_int_equal(v.err.code, OUTR_OK);
    assert_int_equal(v.call.http.head.status, 503);
    assert_string_equal(answered(&v, OUTR_INVOKE_STATUS_HEADER), "14");
    finish(&v);
    grpc_app_close(a);
}

static void say_forged(grpc_app *a, outr_grpc_call *call)
{
    outr_headers_add(&call->headers, OUTR_STR(OUTR_INVOKE_STATUS_HEADER), OUTR_STR("7"));
    outr_headers_add(&call->headers, OUTR_STR("grpc-own"), OUTR_STR("x"));
    grpc_app_answer(call, OUTR_OK, "");
    (void)a;
}

static void an_app_cannot_speak_in_our_name(void **state)
{
    grpc_app *a = grpc_app_open(&(outr_settings){0}, 0);
    invoke v;
    (void)state;
    a->on_call = say_forged;
    prepare(&v, "GET", "/m");
    run(a, &v, NULL);
    assert_string_equal(answered(&v, OUTR_INVOKE_STATUS_HEADER), "0");
    assert_null(answered(&v, "grpc-own"));
    finish(&v);
    grpc_app_close(a);
}

/* ---- bodies, ends ------------------------------------------------------------------------------ */

static void a_body_over_the_limit_is_refused_and_never_sent(void **state)
{
    grpc_app *a = grpc_app_open(&(outr_settings){.max_body_bytes = 10}, 0);
    web_giver giver;
    invoke v;
    (void)state;
    web_giver_init(&giver, -1);
    prepare(&v, "POST", "/m");
    v.giver = &giver;
    start(a, &v, NULL);
    wire_run(&a->w);
    web_give(&giver, "12345678");
    web_give(&giver, "12345678");
    wire_run(&a->w);
    assert_int_equal(v.done, 1);
    assert_int_equal(v.err.code, OUTR_RESOURCE_EXHAUSTED);
    assert_true(giver.was_cancelled);
    assert_int_equal(a->calls, 0);
    finish(&v);
    grpc_app_close(a);
}

static void a_body_that_breaks_off_ends_the_call_unsent(void **state)
{
    grpc_app *a = grpc_app_open(&(outr_settings){0}, 0);
    web_giver giver;
    invoke v;
    (void)state;
    web_giver_init(&giver, -1);
    prepare(&v, "POST", "/m");
    v.giver = &giver;
    start(a, &v, NULL);
    web_give(&giver, "1234");
    web_give_abort(&giver);
    wire_run(&a->w);
    assert_int_equal(v.done, 1);
    assert_int_not_equal(v.err.code, OUTR_OK);
    assert_int_equal(a->calls, 0);
    finish(&v);
    grpc_app_close(a);
}

static void hold(grpc_app *a, outr_grpc_call *call)
{
    grpc_app_hold(a, call);
}

static void a_call_is_cancelled_wherever_it_stands(void **state)
{
    (void)state;
    for (int stage = 0; stage < 3; stage++) {
        grpc_app *a = grpc_app_open(&(outr_settings){0}, 0);
        web_giver giver;
        invoke v;
        web_giver_init(&giver, -1);
        a->on_call = stage == 1 ? hold : say_hi;
        prepare(&v, "POST", "/m");
        v.giver = &giver;
        v.taker.is_full = stage == 2; /* the answer waits for its reader */
        start(a, &v, NULL);
        wire_run(&a->w);
        if (stage > 0)
            web_give_end(&giver);
        wire_run(&a->w);
        assert_int_equal(v.done, 0);
        outr_op_cancel(&v.op, OUTR_CANCELLED);
        wire_run(&a->w);
        assert_int_equal(v.done, 1);
        assert_int_equal(v.err.code, OUTR_CANCELLED);
        assert_int_equal(a->held_count, 0);
        assert_int_equal(giver.was_cancelled, stage == 0);
        assert_int_equal(v.taker.was_aborted, stage == 2);
        finish(&v);
        grpc_app_close(a);
    }
}

static void an_answer_nobody_wants_ends_the_call(void **state)
{
    grpc_app *a = grpc_app_open(&(outr_settings){0}, 0);
    invoke v;
    (void)state;
    a->on_call = say_hi;
    prepare(&v, "POST", "/m");
    v.cancels_answer = true;
    run(a, &v, "x");
    assert_int_equal(v.err.code, OUTR_OK);
    finish(&v);
    grpc_app_close(a);
}

static void a_waiting_reader_gets_the_rest_when_it_goes_on(void **state)
{
    grpc_app *a = grpc_app_open(&(outr_settings){0}, 0);
    invoke v;
    (void)state;
    a->on_call = say_hi;
    prepare(&v, "POST", "/m");
    v.taker.is_full = true;
    start(a, &v, "x");
    wire_run(&a->w);
    assert_int_equal(v.done, 0);
    web_taker_resume(&v.taker);
    wire_run(&a->w);
    assert_int_equal(v.done, 1);
    assert_body(&v, "{\"hi\":1}");
    finish(&v);
    grpc_app_close(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_http_call_becomes_on_invoke_and_its_reply_an_http_answer),
        cmocka_unit_test(a_grpc_origin_keeps_its_metadata_and_may_have_no_verb),
        cmocka_unit_test(a_method_that_is_no_text_is_refused_before_anything_is_sent),
        cmocka_unit_test(a_status_of_the_app_becomes_the_http_status_it_maps_to),
        cmocka_unit_test(details_of_a_status_are_printed_as_protobuf_json),
        cmocka_unit_test(an_empty_reply_is_an_answer_without_body_and_type),
        cmocka_unit_test(an_app_that_is_away_answers_as_unavailable),
        cmocka_unit_test(an_app_cannot_speak_in_our_name),
        cmocka_unit_test(a_body_over_the_limit_is_refused_and_never_sent),
        cmocka_unit_test(a_body_that_breaks_off_ends_the_call_unsent),
        cmocka_unit_test(a_call_is_cancelled_wherever_it_stands),
        cmocka_unit_test(an_answer_nobody_wants_ends_the_call),
        cmocka_unit_test(a_waiting_reader_gets_the_rest_when_it_goes_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
