#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "unit/app/grpc_app.h"

typedef struct unary {
    outr_app_unary u;
    outr_op op;
    outr_arena *arena;
    unsigned done;
    outr_code rc;
    outr_err err;
    Dapr__Proto__Runtime__V1__TopicEventResponse *reply;
} unary;

static void on_done(outr_op *op)
{
    unary *c = OUTR_CONTAINER(op, unary, op);
    c->done++;
    c->rc = outr_app_unary_result(&c->u, &c->reply,
                                  &dapr__proto__runtime__v1__topic_event_response__descriptor,
                                  &op->err, &c->err);
}

static void start(grpc_app *a, unary *c, uint64_t timeout_ns)
{
    Dapr__Proto__Runtime__V1__TopicEventRequest event =
        DAPR__PROTO__RUNTIME__V1__TOPIC_EVENT_REQUEST__INIT;
    event.id = (char *)(uintptr_t) "e-1";
    c->arena = outr_arena_new(16 * OUTR_MIB);
    c->u.arena = c->arena;
    outr_headers_init(&c->u.metadata, c->arena);
    outr_headers_add(&c->u.metadata, OUTR_STR("x-own"), OUTR_STR("1"));
    outr_op_init(&c->op, a->w.loop, NULL, timeout_ns ? outr_loop_now(a->w.loop) + timeout_ns : 0,
                 on_done);
    outr_app_unary_start(a->app, &c->u, "/dapr.proto.runtime.v1.AppCallback/OnTopicEvent", &event,
                         &c->op);
    assert_int_equal(c->done, 0); /* never before start has returned */
}

static void finish(unary *c)
{
    assert_int_equal(c->done, 1);
    outr_arena_free(c->arena);
}

static outr_code call_once(grpc_app *a, unary *c)
{
    *c = (unary){0};
    start(a, c, 0);
    wire_run(&a->w);
    finish(c);
    return c->rc;
}

static void say_drop(grpc_app *a, outr_grpc_call *call)
{
    const Dapr__Proto__Runtime__V1__TopicEventRequest *event = call->request;
    Dapr__Proto__Runtime__V1__TopicEventResponse reply =
        DAPR__PROTO__RUNTIME__V1__TOPIC_EVENT_RESPONSE__INIT;
    (void)a;
    assert_string_equal(event->id, "e-1");
    reply.status = DAPR__PROTO__RUNTIME__V1__TOPIC_EVENT_RESPONSE__TOPIC_EVENT_RESPONSE_STATUS__DROP;
    outr_grpc_reply(call, &reply);
}

static void a_call_brings_the_reply_and_carries_metadata_and_token(void **state)
{
    grpc_app *a = grpc_app_open(&(outr_settings){.app_token = OUTR_STR("tok")}, 0);
    unary c = {0};
    (void)state;
    a->on_call = say_drop;
    start(a, &c, 3 * OUTR_SEC);
    wire_run(&a->w);
    assert_int_equal(c.rc, OUTR_OK);
    assert_int_equal(
        c.reply->status,
        DAPR__PROTO__RUNTIME__V1__TOPIC_EVENT_RESPONSE__TOPIC_EVENT_RESPONSE_STATUS__DROP);
    assert_string_equal(a->token, "tok");
    assert_non_null(strstr(a->metadata, "x-own=1;"));
    assert_string_equal(a->timeout, "3000000u");
    finish(&c);
    grpc_app_close(a);
}

static void say_no(grpc_app *a, outr_grpc_call *call)
{
    (void)a;
    grpc_app_answer(call, OUTR_FAILED_PRECONDITION, "not now: 50 %");
}

static void the_status_of_the_app_is_told_as_it_is(void **state)
{
    grpc_app *a = grpc_app_open(&(outr_settings){0}, 0);
    unary c;
    (void)state;
    a->on_call = say_no;
    assert_int_equal(call_once(a, &c), OUTR_FAILED_PRECONDITION);
    assert_string_equal(c.err.text, "not now: 50 %");
    grpc_app_close(a);
}

static void hold(grpc_app *a, outr_grpc_call *call)
{
    grpc_app_hold(a, call);
}

static void a_deadline_ends_the_call_at_both_ends(void **state)
{
    grpc_app *a = grpc_app_open(&(outr_settings){0}, 0);
    unary c = {0};
    (void)state;
    a->on_call = hold;
    start(a, &c, OUTR_SEC);
    wire_run(&a->w);
    assert_int_equal(a->held_count, 1);
    wire_sleep(&a->w, 2 * OUTR_SEC);
    assert_int_equal(c.rc, OUTR_DEADLINE_EXCEEDED);
    assert_int_equal(a->held_count, 0);
    finish(&c);
    grpc_app_close(a);
}

static void more_calls_than_the_apps_stream_limit_take_further_connections(void **state)
{
    grpc_app *a = grpc_app_open(&(outr_settings){0}, 2);
    unary c[7] = {0};
    (void)state;
    a->on_call = hold;
    for (size_t i = 0; i < OUTR_LEN(c); i++)
        start(a, &c[i], 0);
    wire_run(&a->w);
    assert_int_equal(a->held_count, 7);
    assert_in_range(a->w.connect_count, 4, 7);
    grpc_app_release(a);
    wire_run(&a->w);
    for (size_t i = 0; i < OUTR_LEN(c); i++) {
        assert_int_equal(c[i].rc, OUTR_OK);
        finish(&c[i]);
    }
    grpc_app_close(a);
}

static void no_more_calls_at_once_than_the_limit_allows(void **state)
{
    grpc_app *a = grpc_app_open(&(outr_settings){.app_max_concurrency = 2}, 0);
    unary c[5] = {0};
    (void)state;
    a->on_call = hold;
    for (size_t i = 0; i < OUTR_LEN(c); i++)
        start(a, &c[i], 0);
    for (size_t i = 0; i < OUTR_LEN(c); i++) {
        wire_run(&a->w);
        assert_in_range(a->held_count, 1, 2);
        grpc_app_answer(a->held[--a->held_count], OUTR_OK, "");
    }
    wire_run(&a->w);
    for (size_t i = 0; i < OUTR_LEN(c); i++)
        finish(&c[i]);
    assert_int_equal(a->most_open, 2);
    grpc_app_close(a);
}

static void an_app_that_is_away_is_unavailable_and_served_when_it_is_back(void **state)
{
    grpc_app *a = grpc_app_open(&(outr_settings){0}, 0);
    unary c = {0};
    (void)state;
    assert_int_equal(call_once(a, &c), OUTR_OK);
    a->is_refusing = true;
    grpc_app_break(a);
    assert_int_equal(call_once(a, &c), OUTR_UNAVAILABLE);
    a->is_refusing = false;
    assert_int_equal(call_once(a, &c), OUTR_OK);
    grpc_app_close(a);
}

static void an_app_that_breaks_off_after_it_got_the_call_is_not_asked_again(void **state)
{
    grpc_app *a = grpc_app_open(&(outr_settings){0}, 0);
    unary c = {0};
    (void)state;
    a->on_call = hold;
    start(a, &c, 0);
    wire_run(&a->w);
    grpc_app_break(a);
    assert_int_equal(c.rc, OUTR_UNAVAILABLE);
    assert_int_equal(a->calls, 1);
    finish(&c);
    grpc_app_close(a);
}

/* ---- answers that are none --------------------------------------------------------------------- */

static const struct garbage {
    int status;
    const char *type, *body;
    size_t n;
    const char *grpc_status;
    outr_code code;
} garbage[] = {
    {200, "application/grpc", "\0\0\0\0\0", 5, NULL, OUTR_UNKNOWN},       /* no status */
    {200, "text/html", "<html><body>hello", 17, NULL, OUTR_INTERNAL},     /* no gRPC at all */
    {200, "application/grpc", "\0\0\0\0\2\x0a", 6, "0", OUTR_INTERNAL},   /* breaks off */
    {200, "application/grpc", "\0\0\0\0\1\xff", 6, "0", OUTR_INTERNAL},   /* no protobuf */
    {200, "application/grpc", "\2\0\0\0\0", 5, "0", OUTR_INTERNAL},       /* unknown flag */
    {200, "application/grpc", "\1\0\0\0\0", 5, "0", OUTR_INTERNAL},       /* packed, in what? */
    {200, "application/grpc", "", 0, "0", OUTR_INTERNAL},                 /* OK, and nothing */
    {200, "application/grpc", "\0\0\0\0\0\0\0\0\0\0", 10, "0", OUTR_INTERNAL}, /* two of one */
    {200, "application/grpc", "\0\xff\xff\xff\xff", 5, "0", OUTR_RESOURCE_EXHAUSTED},
    {200, "application/grpc", "\0\0\0\0\0", 5, "abc", OUTR_UNKNOWN},
    {200, "application/grpc", "\0\0\0\0\0", 5, "4711", (outr_code)4711},
    {404, "text/plain", "not here", 8, NULL, OUTR_UNIMPLEMENTED},
    {503, "text/plain", "busy", 4, NULL, OUTR_UNAVAILABLE},
};
static const struct garbage *answer;

static void say_garbage(grpc_app *a, outr_exchange *x)
{
    outr_http_response head = {.status = answer->status, .content_length = -1};
    outr_headers trailers;
    (void)a;
    outr_headers_init(&head.headers, x->arena);
    outr_headers_init(&trailers, x->arena);
    outr_headers_add(&head.headers, OUTR_STR("content-type"), outr_str_from(answer->type));
    outr_sink *sink = outr_http_respond(x, &head);
    if (answer->n > 0)
        sink->ops->data(sink, outr_slice_copy(outr_str_of(answer->body, answer->n)));
    if (answer->grpc_status)
        outr_headers_add(&trailers, OUTR_STR("grpc-status"), outr_str_from(answer->grpc_status));
    sink->ops->end(sink, &trailers);
    outr_http_done(x);
}

static void an_answer_that_is_none_is_an_error_and_the_next_call_is_served(void **state)
{
    grpc_app *a = grpc_app_open(&(outr_settings){.max_body_bytes = OUTR_MIB}, 0);
    unary c;
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(garbage); i++) {
        answer = &garbage[i];
        a->on_raw = say_garbage;
        outr_code code = call_once(a, &c);
        if (code != answer->code)
            print_error("answer %zu: code %d: %s\n", i, (int)code, c.err.text);
        assert_int_equal(code, answer->code);
        a->on_raw = NULL;
        assert_int_equal(call_once(a, &c), OUTR_OK);
    }
    grpc_app_close(a);
}

static void reset(grpc_app *a, outr_exchange *x)
{
    (void)a;
    outr_http_done(x); /* before any answer */
}

static void a_stream_that_the_app_resets_is_unavailable(void **state)
{
    grpc_app *a = grpc_app_open(&(outr_settings){0}, 0);
    unary c;
    (void)state;
    a->on_raw = reset;
    assert_int_equal(call_once(a, &c), OUTR_UNAVAILABLE);
    a->on_raw = NULL;
    assert_int_equal(call_once(a, &c), OUTR_OK);
    grpc_app_close(a);
}

/* ---- who cannot be asked ----------------------------------------------------------------------- */

static void an_app_over_http_has_no_callbacks(void **state)
{
    grpc_app *a = grpc_app_open(&(outr_settings){0}, 0);
    unary c;
    (void)state;
    a->settings.app_protocol = OUTR_APP_HTTP;
    assert_int_equal(call_once(a, &c), OUTR_FAILED_PRECONDITION);
    assert_int_equal(a->w.connect_count, 0);
    a->settings.app_protocol = OUTR_APP_GRPC;
    grpc_app_close(a);
}

/* ---- health ------------------------------------------------------------------------------------ */

static void health_is_asked_of_the_health_service_without_token(void **state)
{
    grpc_app *a = grpc_app_open(
        &(outr_settings){.app_health_check = true, .app_token = OUTR_STR("tok")}, 0);
    (void)state;
    outr_app_start(a->app);
    wire_run(&a->w);
    assert_int_equal(a->probes, 1);
    assert_string_equal(a->token, "");
    assert_true(outr_app_is_healthy(a->app));
    a->on_call = say_no;
    for (int i = 0; i < 3; i++) {
        assert_true(outr_app_is_healthy(a->app));
        wire_sleep(&a->w, 5 * OUTR_SEC);
    }
    assert_false(outr_app_is_healthy(a->app));
    a->on_call = NULL;
    wire_sleep(&a->w, 5 * OUTR_SEC);
    assert_true(outr_app_is_healthy(a->app));
    grpc_app_close(a);
}

static void an_app_that_never_answers_its_probe_is_not_well(void **state)
{
    grpc_app *a = grpc_app_open(&(outr_settings){.app_health_check = true}, 0);
    (void)state;
    a->on_call = hold;
    outr_app_start(a->app);
    wire_sleep(&a->w, OUTR_SEC);
    assert_int_equal(a->probes, 1);
    assert_int_equal(a->held_count, 0); /* given up after its half second */
    assert_false(outr_app_is_healthy(a->app));
    grpc_app_close(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_call_brings_the_reply_and_carries_metadata_and_token),
        cmocka_unit_test(the_status_of_the_app_is_told_as_it_is),
        cmocka_unit_test(a_deadline_ends_the_call_at_both_ends),
        cmocka_unit_test(more_calls_than_the_apps_stream_limit_take_further_connections),
        cmocka_unit_test(no_more_calls_at_once_than_the_limit_allows),
        cmocka_unit_test(an_app_that_is_away_is_unavailable_and_served_when_it_is_back),
        cmocka_unit_test(an_app_that_breaks_off_after_it_got_the_call_is_not_asked_again),
        cmocka_unit_test(an_answer_that_is_none_is_an_error_and_the_next_call_is_served),
        cmocka_unit_test(a_stream_that_the_app_resets_is_unavailable),
        cmocka_unit_test(an_app_over_http_has_no_callbacks),
        cmocka_unit_test(health_is_asked_of_the_health_service_without_token),
        cmocka_unit_test(an_app_that_never_answers_its_probe_is_not_well),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
