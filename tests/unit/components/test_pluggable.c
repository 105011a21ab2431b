#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <dapr/proto/components/v1/common.pb-c.h>
#include <dapr/proto/components/v1/pubsub.pb-c.h>
#include <dapr/proto/components/v1/state.pb-c.h>
#include <google/rpc/error_details.pb-c.h>
#include <google/rpc/status.pb-c.h>
#include <grpc/reflection/v1/reflection.pb-c.h>
#include <sys/stat.h>

#include "components/registry.h"
#include "grpc/server.h"
#include "lib/folder.h"
#include "lib/wire.h"

#define V1(name)      Dapr__Proto__Components__V1__##name
#define V1_TYPE(name) dapr__proto__components__v1__##name##__descriptor
#define PATH(x)       "/dapr.proto.components.v1." x

/* A component, played by the test, and the back end that talks to it. */
typedef struct bench {
    wire w;
    folder dir;
    void (*connect)(outr_env *env, outr_loop *loop, outr_connect *req, outr_op *op);
    outr_http_server *server;
    bool is_down;         /* connects are refused */
    const char *service;  /* what it says it serves */
    char said[512];       /* methods asked for, "Init Features Get " */
    char instance[32];    /* x-component-instance of the last call */
    const char *hangs_on; /* this method is not answered */
    unsigned gone;        /* calls given up by the sidecar */
    unsigned pings;
    bool is_garbage;
    /* PullMessages */
    outr_grpc_call *pull;
    char acks[256]; /* "1+ 2- " */
    /* the sidecar's side */
    outr_arena *arena;
    outr_backends backends;
    outr_state_store *store;
    outr_broker *broker;
    outr_broker_sub *sub;
    outr_message_in *messages[32];
    size_t message_count;
    outr_op op;
    unsigned done;
    outr_err err;
} bench;

/* ---- the component --------------------------------------------------------------------------- */

static void note(bench *b, const char *text)
{
    size_t n = strlen(b->said);
    snprintf(b->said + n, sizeof b->said - n, "%s ", text);
}

static bool begins(outr_grpc_call *call, const char *name)
{
    bench *b = call->ctx;
    outr_str instance = outr_headers_get(&call->x->req.headers, "x-component-instance");
    snprintf(b->instance, sizeof b->instance, OUTR_FMT, OUTR_ARG(instance));
    note(b, name);
    return !b->hangs_on || strcmp(b->hangs_on, name) != 0;
}

static void on_gone(outr_grpc_call *call)
{
    bench *b = call->ctx;
    b->gone++;
    if (b->pull == call)
        b->pull = NULL;
    outr_grpc_end(call);
}

static bool list_services(outr_grpc_call *call, void *message)
{
    bench *b = call->ctx;
    Grpc__Reflection__V1__ServiceResponse one = GRPC__REFLECTION__V1__SERVICE_RESPONSE__INIT,
                                          *list[] = {&one};
    Grpc__Reflection__V1__ListServiceResponse services =
        GRPC__REFLECTION__V1__LIST_SERVICE_RESPONSE__INIT;
    Grpc__Reflection__V1__ServerReflectionResponse m =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__INIT;
    (void)message;
    one.name = (char *)(uintptr_t)b->service;
    services.service = list;
    services.n_service = 1;
    m.message_response_case =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_LIST_SERVICES_RESPONSE;
    m.list_services_response = &services;
    outr_grpc_send(call, &m);
    return true;
}

static void run_reflection(outr_grpc_call *call)
{
    call->on_message = list_services;
    call->on_half_close = outr_grpc_end;
    call->on_gone = on_gone;
}

static void run_init(outr_grpc_call *call)
{
    const V1(InitResponse) m = DAPR__PROTO__COMPONENTS__V1__INIT_RESPONSE__INIT;
    call->on_gone = on_gone;
    if (begins(call, "Init"))
        outr_grpc_reply(call, &m);
}

static void run_features(outr_grpc_call *call)
{
    V1(FeaturesResponse) m = DAPR__PROTO__COMPONENTS__V1__FEATURES_RESPONSE__INIT;
    char *names[] = {(char *)(uintptr_t) "ETAG", (char *)(uintptr_t) "ELSE"};
    m.features = names;
    m.n_features = 2;
    begins(call, "Features");
    outr_grpc_reply(call, &m);
}

static void run_get(outr_grpc_call *call)
{
    V1(GetResponse) m = DAPR__PROTO__COMPONENTS__V1__GET_RESPONSE__INIT;
    V1(Sorting) garbage = DAPR__PROTO__COMPONENTS__V1__SORTING__INIT;
    bench *b = call->ctx;
    call->on_gone = on_gone;
    if (!begins(call, "Get"))
        return;
    garbage.order = 7; /* a number where an etag should be */
    garbage.key = (char *)(uintptr_t) "x";
    if (b->is_garbage) {
        outr_grpc_reply(call, &garbage);
        return;
    }
    m.data = outr_proto_data(OUTR_STR("value"));
    outr_grpc_reply(call, &m);
}

static void fail_with_detail(outr_grpc_call *call, outr_code code, const char *field)
{
    Google__Rpc__BadRequest__FieldViolation violation =
        GOOGLE__RPC__BAD_REQUEST__FIELD_VIOLATION__INIT, *violations[] = {&violation};
    Google__Rpc__BadRequest bad = GOOGLE__RPC__BAD_REQUEST__INIT;
    Google__Protobuf__Any any = GOOGLE__PROTOBUF__ANY__INIT, *details[] = {&any};
    Google__Rpc__Status status = GOOGLE__RPC__STATUS__INIT;
    violation.field = (char *)(uintptr_t)field;
    violation.description = (char *)(uintptr_t) "so it is";
    bad.field_violations = violations;
    bad.n_field_violations = 1;
    any.type_url = (char *)(uintptr_t) "type.googleapis.com/google.rpc.BadRequest";
    any.value = outr_proto_data(outr_proto_write(call->arena, &bad));
    status.code = (int)code;
    status.details = details;
    status.n_details = 1;
    outr_grpc_fail(call, &(outr_grpc_status){.code = code,
                                             .message = OUTR_STR("no"),
                                             .details = outr_proto_write(call->arena, &status)});
}

/* What is wrong with the etag says the value: "9 etag" is FAILED_PRECONDITION of that field. */
static void run_set(outr_grpc_call *call)
{
    const V1(SetRequest) *in = call->request;
    const V1(SetResponse) m = DAPR__PROTO__COMPONENTS__V1__SET_RESPONSE__INIT;
    outr_str code, field = outr_str_cut(outr_proto_bytes(in->value), ' ', &code);
    uint64_t n;
    begins(call, "Set");
    if (field.n && outr_str_to_u64(code, 16, &n))
        fail_with_detail(call, (outr_code)n, outr_arena_strz(call->arena, field));
    else
        outr_grpc_reply(call, &m);
}

static void run_ping(outr_grpc_call *call)
{
    const V1(PingResponse) m = DAPR__PROTO__COMPONENTS__V1__PING_RESPONSE__INIT;
    bench *b = call->ctx;
    b->pings++;
    outr_grpc_reply(call, &m);
}

static bool take_ack(outr_grpc_call *call, void *message)
{
    const V1(PullMessagesRequest) *m = message;
    bench *b = call->ctx;
    size_t n = strlen(b->acks);
    if (m->topic)
        note(b, m->topic->name);
    else
        snprintf(b->acks + n, sizeof b->acks - n, "%s%c ", m->ack_message_id,
                 m->ack_error ? '-' : '+');
    return true;
}

static void run_pull(outr_grpc_call *call)
{
    bench *b = call->ctx;
    begins(call, "PullMessages");
    b->pull = call;
    call->on_message = take_ack;
    call->on_half_close = outr_grpc_end;
    call->on_gone = on_gone;
}

static void give(bench *b, const char *id, size_t size)
{
    V1(PullMessagesResponse) m = DAPR__PROTO__COMPONENTS__V1__PULL_MESSAGES_RESPONSE__INIT;
    char *data = outr_alloc(size + 1);
    memset(data, 'x', size);
    m.id = (char *)(uintptr_t)id;
    m.data = outr_proto_data(outr_str_of(data, size));
    outr_grpc_send(b->pull, &m);
    free(data);
}

static const outr_grpc_method methods[] = {
    {.path = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
     .request = &grpc__reflection__v1__server_reflection_request__descriptor,
     .takes_stream = true,
     .run = run_reflection},
    {.path = PATH("StateStore/Init"), .request = &V1_TYPE(init_request), .run = run_init},
    {.path = PATH("PubSub/Init"), .request = &V1_TYPE(init_request), .run = run_init},
    {.path = PATH("StateStore/Features"),
     .request = &V1_TYPE(features_request),
     .run = run_features},
    {.path = PATH("PubSub/Features"), .request = &V1_TYPE(features_request), .run = run_features},
    {.path = PATH("StateStore/Ping"), .request = &V1_TYPE(ping_request), .run = run_ping},
    {.path = PATH("StateStore/Get"), .request = &V1_TYPE(get_request), .run = run_get},
    {.path = PATH("StateStore/Set"), .request = &V1_TYPE(set_request), .run = run_set},
    {.path = PATH("PubSub/PullMessages"),
     .request = &V1_TYPE(pull_messages_request),
     .takes_stream = true,
     .run = run_pull},
};

static void on_request(void *ctx, outr_exchange *x)
{
    for (size_t i = 0; i < OUTR_LEN(methods); i++) {
        if (!outr_str_is(x->req.target, methods[i].path))
            continue;
        outr_grpc_serve(
            x,
            &(outr_grpc_serve_options){.method = &methods[i], .ctx = ctx, .max_bytes = OUTR_MIB});
        return;
    }
    outr_grpc_refuse(x, OUTR_UNIMPLEMENTED, OUTR_STR("unknown method"));
}

static void start_server(bench *b)
{
    static const outr_http_handler handler = {.on_request = on_request};
    b->server = outr_http_server_new(&(outr_http_server_options){
        .loop = b->w.loop, .handler = &handler, .ctx = b, .allow_h2 = true});
    b->is_down = false;
}

static void kill_server(bench *b)
{
    if (b->server)
        outr_http_server_free(b->server);
    b->server = NULL;
    b->is_down = true;
    b->pull = NULL;
}

static void on_accept(void *ctx, outr_stream *own_stream)
{
    outr_http_server_take(((bench *)ctx)->server, own_stream);
}

static void connect_or_refuse(outr_env *env, outr_loop *loop, outr_connect *req, outr_op *op)
{
    bench *b = OUTR_CONTAINER(OUTR_CONTAINER(env, wire, env), bench, w);
    outr_err err;
    if (!b->is_down) {
        b->connect(env, loop, req, op);
        return;
    }
    b->w.connect_count++;
    outr_fail(&err, OUTR_UNAVAILABLE, "connect: connection refused");
    outr_op_begin(op, req, NULL);
    outr_op_fail_soon(op, &err);
}

/* ---- the back end ---------------------------------------------------------------------------- */

static void on_done(outr_op *op)
{
    bench *b = OUTR_CONTAINER(op, bench, op);
    b->done++;
    b->err = op->err;
}

static outr_op *begin(bench *b, uint64_t timeout_ns)
{
    b->done = 0;
    outr_op_init(&b->op, b->w.loop, NULL, timeout_ns ? b->w.now + timeout_ns : 0, on_done);
    return &b->op;
}

static outr_code wait(bench *b)
{
    assert_true(wire_run(&b->w));
    assert_int_equal(b->done, 1);
    return b->err.code;
}

static bench *new_bench(const char *type)
{
    bench *b = outr_alloc(sizeof *b);
    wire_init(&b->w, 1);
    folder_make(&b->dir);
    b->w.on_accept = on_accept;
    b->w.ctx = b;
    b->connect = b->w.env.connect;
    b->w.env.connect = connect_or_refuse;
    b->arena = outr_arena_new(64 * OUTR_MIB);
    assert_int_equal(outr_registry_find(&b->backends, outr_str_from(type), OUTR_STR("v1"),
                                        outr_str_from(b->dir.path), &b->err),
                     OUTR_OK);
    b->service = b->backends.state ? "dapr.proto.components.v1.StateStore"
                                   : "dapr.proto.components.v1.PubSub";
    assert_int_equal(mknod(folder_path(&b->dir, "mem.sock"), S_IFSOCK | 0600, 0), 0);
    start_server(b);
    const outr_component_init init = {
        .name = OUTR_STR("st"),
        .type = outr_str_from(type),
        .version = OUTR_STR("v1"),
        .app_id = OUTR_STR("app"),
        .sockets_dir = outr_str_from(b->dir.path),
        .loop = b->w.loop,
    };
    if (b->backends.state)
        assert_int_equal(b->backends.state->create(&b->store, &init, &b->err), OUTR_OK);
    else
        assert_int_equal(b->backends.pubsub->create(&b->broker, &init, &b->err), OUTR_OK);
    return b;
}

static void start_open(bench *b, uint64_t timeout_ns)
{
    if (b->store)
        b->backends.state->open(b->store, begin(b, timeout_ns));
    else
        b->backends.pubsub->open(b->broker, begin(b, timeout_ns));
}

static bench *open_bench(const char *type)
{
    bench *b = new_bench(type);
    start_open(b, 5 * OUTR_SEC);
    assert_int_equal(wait(b), OUTR_OK);
    return b;
}

static void close_bench(bench *b)
{
    if (b->store)
        b->backends.state->close(b->store, begin(b, 0));
    else
        b->backends.pubsub->close(b->broker, begin(b, 0));
    assert_int_equal(wait(b), OUTR_OK);
    kill_server(b);
    wire_run(&b->w);
    outr_arena_free(b->arena);
    folder_remove(&b->dir);
    wire_done(&b->w);
    free(b);
}

static outr_state_get *start_get(bench *b, outr_str key, uint64_t timeout_ns)
{
    outr_state_get *req = outr_arena_alloc(b->arena, sizeof *req);
    req->arena = b->arena;
    req->items = outr_arena_alloc(b->arena, sizeof *req->items);
    req->items[0].key = key;
    req->count = 1;
    b->backends.state->get(b->store, req, begin(b, timeout_ns));
    return req;
}

static outr_code get(bench *b, const char *key)
{
    outr_state_get *req = start_get(b, outr_str_from(key), 0);
    outr_code rc = wait(b);
    if (!rc)
        assert_true(outr_str_is(req->items[0].value, "value"));
    return rc;
}

static outr_code set(bench *b, const char *value)
{
    outr_state_writes *req = outr_arena_alloc(b->arena, sizeof *req);
    req->arena = b->arena;
    req->items = outr_arena_alloc(b->arena, sizeof *req->items);
    req->items[0] = (outr_state_write){.key = OUTR_STR("k"), .value = outr_str_from(value)};
    req->count = 1;
    b->backends.state->write(b->store, req, begin(b, 0));
    return wait(b);
}

static bool names_it(const bench *b)
{
    return strstr(b->err.text, "component st") != NULL;
}

/* ---- tests: the connection ------------------------------------------------------------------- */

static void a_component_is_initialised_before_it_is_called(void **state)
{
    bench *b = open_bench("state.mem");
    (void)state;
    assert_int_equal(get(b, "a"), OUTR_OK);
    assert_string_equal(b->said, "Init Features Get ");
    assert_string_equal(b->instance, "st");
    assert_int_equal(b->backends.state->features(b->store), OUTR_STATE_ETAG);
    assert_int_equal(b->w.connect_count, 1);
    wire_sleep(&b->w, 3600 * OUTR_SEC); /* the server closes what is idle: it is kept busy */
    assert_in_range(b->pings, 55, 60);
    assert_int_equal(get(b, "a"), OUTR_OK);
    assert_int_equal(b->w.connect_count, 1);
    close_bench(b);
}

static void a_component_that_is_not_there_yet_is_waited_for(void **state)
{
    bench *b = new_bench("state.mem");
    (void)state;
    kill_server(b);
    start_open(b, 60 * OUTR_SEC);
    wire_sleep(&b->w, 20 * OUTR_SEC);
    assert_int_equal(b->done, 0);
    assert_in_range(b->w.connect_count, 20, 100);
    start_server(b);
    wire_sleep(&b->w, OUTR_SEC);
    assert_int_equal(b->done, 1);
    assert_int_equal(b->err.code, OUTR_OK);
    close_bench(b);
}

static void an_opening_ends_at_its_deadline_and_says_why(void **state)
{
    static const char *const hangs[] = {NULL, "Init"};
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(hangs); i++) {
        bench *b = new_bench("state.mem");
        b->hangs_on = hangs[i];
        if (!hangs[i])
            kill_server(b);
        start_open(b, 2 * OUTR_SEC);
        wire_sleep(&b->w, 3 * OUTR_SEC);
        assert_int_equal(b->done, 1);
        assert_int_equal(b->err.code, OUTR_DEADLINE_EXCEEDED);
        assert_non_null(strstr(b->err.text, hangs[i] ? "does not answer" : "refused"));
        assert_non_null(strstr(b->err.text, "mem.sock"));
        size_t connects = b->w.connect_count;
        wire_sleep(&b->w, 60 * OUTR_SEC);
        assert_int_equal(b->w.connect_count, connects); /* it is not looked for any more */
        close_bench(b);
    }
}

static void a_socket_that_serves_something_else_is_refused_at_once(void **state)
{
    bench *b = new_bench("state.mem");
    (void)state;
    b->service = "dapr.proto.components.v1.PubSub";
    start_open(b, 60 * OUTR_SEC);
    assert_int_equal(wait(b), OUTR_UNIMPLEMENTED);
    close_bench(b);
}

static void a_lost_component_fails_calls_and_is_initialised_anew(void **state)
{
    bench *b = open_bench("state.mem");
    (void)state;
    b->hangs_on = "Get";
    start_get(b, OUTR_STR("a"), 0);
    assert_true(wire_run(&b->w));
    assert_int_equal(b->done, 0);
    kill_server(b);
    assert_int_equal(wait(b), OUTR_UNAVAILABLE); /* what was on its way */
    assert_true(names_it(b));
    assert_int_equal(get(b, "a"), OUTR_UNAVAILABLE); /* and what comes */
    assert_true(names_it(b));
    wire_sleep(&b->w, 600 * OUTR_SEC);
    assert_in_range(b->w.connect_count, 100, 400); /* every few seconds, not more */
    b->hangs_on = NULL;
    b->said[0] = 0;
    start_server(b);
    wire_sleep(&b->w, 5 * OUTR_SEC);
    assert_int_equal(get(b, "a"), OUTR_OK);
    assert_string_equal(b->said, "Init Features Get ");
    close_bench(b);
}

static void calls_wait_while_a_component_is_being_initialised(void **state)
{
    bench *b = open_bench("state.mem");
    (void)state;
    kill_server(b);
    assert_true(wire_run(&b->w));
    b->hangs_on = "Init";
    start_server(b);
    wire_sleep(&b->w, OUTR_SEC);
    start_get(b, OUTR_STR("a"), OUTR_SEC);
    assert_true(wire_run(&b->w));
    assert_int_equal(b->done, 0);
    wire_sleep(&b->w, 2 * OUTR_SEC); /* their deadline holds */
    assert_int_equal(b->done, 1);
    assert_int_equal(b->err.code, OUTR_DEADLINE_EXCEEDED);
    b->hangs_on = NULL;
    wire_sleep(&b->w, 100 * OUTR_SEC); /* so does that of Init */
    assert_int_equal(get(b, "a"), OUTR_OK);
    close_bench(b);
}

typedef struct one_of_many {
    outr_op op;
    unsigned *good, *failed;
} one_of_many;

static void on_one(outr_op *op)
{
    one_of_many *one = OUTR_CONTAINER(op, one_of_many, op);
    ++*(op->err.code ? one->failed : one->good);
}

static void no_more_calls_wait_than_a_thousand(void **state)
{
    bench *b = open_bench("state.mem");
    unsigned good = 0, failed = 0;
    (void)state;
    kill_server(b);
    assert_true(wire_run(&b->w));
    b->hangs_on = "Init";
    start_server(b);
    wire_sleep(&b->w, OUTR_SEC);
    for (size_t i = 0; i < 1100; i++) {
        one_of_many *one = outr_arena_alloc(b->arena, sizeof *one);
        outr_state_get *req = outr_arena_alloc(b->arena, sizeof *req);
        *one = (one_of_many){.good = &good, .failed = &failed};
        req->arena = b->arena;
        req->items = outr_arena_alloc(b->arena, sizeof *req->items);
        req->items[0].key = OUTR_STR("a");
        req->count = 1;
        outr_op_init(&one->op, b->w.loop, NULL, 0, on_one);
        b->backends.state->get(b->store, req, &one->op);
    }
    assert_true(wire_run(&b->w));
    assert_int_equal(failed, 76);
    assert_int_equal(good, 0);
    b->hangs_on = NULL;
    b->said[0] = 0;
    wire_sleep(&b->w, 100 * OUTR_SEC); /* that Init is given up; what waited for it ends */
    assert_int_equal(good + failed, 1100);
    close_bench(b);
}

static void a_component_that_leaves_politely_finishes_its_calls(void **state)
{
    bench *b = open_bench("state.mem");
    (void)state;
    b->hangs_on = "Get";
    start_get(b, OUTR_STR("a"), 10 * OUTR_SEC);
    assert_true(wire_run(&b->w));
    outr_http_server *old = b->server;
    start_server(b); /* the next process, at the same place */
    outr_http_server_drain(old, NULL, NULL);
    wire_sleep(&b->w, OUTR_SEC);
    assert_int_equal(b->done, 0);
    assert_string_equal(b->said, "Init Features Get Init Features ");
    outr_http_server_free(old);
    assert_int_equal(wait(b), OUTR_UNAVAILABLE);
    b->hangs_on = NULL;
    assert_int_equal(get(b, "a"), OUTR_OK);
    assert_int_equal(b->w.connect_count, 2);
    close_bench(b);
}

/* ---- tests: calls ---------------------------------------------------------------------------- */

static void a_call_that_is_cancelled_or_late_is_given_up(void **state)
{
    bench *b = open_bench("state.mem");
    (void)state;
    b->hangs_on = "Get";
    start_get(b, OUTR_STR("a"), 0);
    assert_true(wire_run(&b->w));
    outr_op_cancel(&b->op, OUTR_CANCELLED);
    assert_int_equal(wait(b), OUTR_CANCELLED);
    assert_int_equal(b->gone, 1);
    start_get(b, OUTR_STR("a"), OUTR_SEC);
    wire_sleep(&b->w, 2 * OUTR_SEC);
    assert_int_equal(wait(b), OUTR_DEADLINE_EXCEEDED);
    assert_int_equal(b->gone, 2);
    close_bench(b);
}

static void only_a_detail_of_the_field_etag_is_an_etag_error(void **state)
{
    static const struct {
        const char *value;
        outr_code code;
    } cases[] = {
        {"fine", OUTR_OK},          {"9 etag", OUTR_ABORTED}, {"3 etag", OUTR_INVALID_ARGUMENT},
        {"9 other", OUTR_INTERNAL}, {"3 key", OUTR_INTERNAL}, {"10 etag", OUTR_INTERNAL},
    };
    bench *b = open_bench("state.mem");
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(cases); i++)
        assert_int_equal(set(b, cases[i].value), cases[i].code);
    close_bench(b);
}

static void garbage_is_an_error_that_names_the_component(void **state)
{
    bench *b = open_bench("state.mem");
    (void)state;
    b->is_garbage = true;
    assert_int_equal(get(b, "a"), OUTR_INTERNAL);
    assert_true(names_it(b));
    b->is_garbage = false;
    assert_int_equal(get(b, "a"), OUTR_OK); /* on the same connection */
    assert_int_equal(b->w.connect_count, 1);
    close_bench(b);
}

static void a_key_that_a_message_cannot_carry_is_refused(void **state)
{
    static const outr_str keys[] = {{"a\0b", 3}, {"\xff", 1}};
    bench *b = open_bench("state.mem");
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(keys); i++) {
        start_get(b, keys[i], 0);
        assert_int_equal(wait(b), OUTR_INVALID_ARGUMENT);
    }
    assert_string_equal(b->said, "Init Features ");
    close_bench(b);
}

static void every_call_ends_whatever_the_connection_does(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed < 15; seed++) {
        bench *b = open_bench("state.mem");
        outr_rand_seed(&b->w.rand, seed);
        b->w.piece_max = 50;
        b->w.late_percent = 10;
        b->w.break_per_mille = 30;
        unsigned good = 0;
        for (int i = 0; i < 40; i++) {
            start_get(b, OUTR_STR("a"), 20 * OUTR_SEC);
            wire_sleep(&b->w, 21 * OUTR_SEC);
            assert_int_equal(b->done, 1);
            good += b->err.code == OUTR_OK;
            assert_true(b->err.code == OUTR_OK || b->err.code == OUTR_UNAVAILABLE);
        }
        assert_true(good > 5);
        b->w.piece_max = b->w.late_percent = b->w.break_per_mille = 0;
        wire_sleep(&b->w, 100 * OUTR_SEC);
        assert_int_equal(get(b, "a"), OUTR_OK);
        close_bench(b);
    }
}

/* ---- tests: subscriptions -------------------------------------------------------------------- */

static void on_message(void *ctx, outr_message_in *msg)
{
    bench *b = ctx;
    assert_true(b->message_count < OUTR_LEN(b->messages));
    b->messages[b->message_count++] = msg;
}

static bench *subscribe(size_t credit)
{
    bench *b = open_bench("pubsub.mem");
    const outr_subscribe req = {.topic = OUTR_STR("topic"),
                                .loop = b->w.loop,
                                .credit = credit,
                                .on_message = on_message,
                                .ctx = b};
    outr_err err;
    assert_int_equal(b->backends.pubsub->subscribe(b->broker, &req, &b->sub, &err), OUTR_OK);
    assert_true(wire_run(&b->w));
    assert_non_null(b->pull);
    return b;
}

static void settle(bench *b, size_t i, outr_settlement how)
{
    b->backends.pubsub->settle(b->sub, b->messages[i], how);
    assert_true(wire_run(&b->w));
}

static void unsubscribe(bench *b)
{
    b->backends.pubsub->unsubscribe(b->sub, begin(b, 0));
    assert_int_equal(wait(b), OUTR_OK);
    assert_null(b->pull);
    close_bench(b);
}

static void messages_are_acknowledged_or_refused(void **state)
{
    bench *b = subscribe(10);
    (void)state;
    assert_string_equal(b->said, "Init Features PullMessages topic ");
    give(b, "1", 5);
    give(b, "2", 0);
    assert_true(wire_run(&b->w));
    assert_int_equal(b->message_count, 2);
    assert_true(outr_str_is(b->messages[0]->data, "xxxxx"));
    assert_true(outr_str_is(b->messages[0]->topic, "topic"));
    settle(b, 1, OUTR_SETTLE_RETRY);
    settle(b, 0, OUTR_SETTLE_ACK);
    assert_string_equal(b->acks, "2- 1+ ");
    unsubscribe(b);
}

static void no_more_is_read_than_the_credit(void **state)
{
    bench *b = subscribe(3);
    char id[8];
    (void)state;
    for (int i = 0; i < 10; i++) {
        snprintf(id, sizeof id, "%d", i);
        give(b, id, 100);
    }
    assert_true(wire_run(&b->w));
    assert_int_equal(b->message_count, 3);
    settle(b, 1, OUTR_SETTLE_ACK);
    assert_int_equal(b->message_count, 4);
    b->backends.pubsub->pause(b->sub, true);
    settle(b, 0, OUTR_SETTLE_ACK);
    assert_int_equal(b->message_count, 4);
    b->backends.pubsub->pause(b->sub, false);
    assert_true(wire_run(&b->w));
    assert_int_equal(b->message_count, 5);
    for (size_t i = 2; i < 10; i++)
        settle(b, i, OUTR_SETTLE_ACK);
    assert_int_equal(b->message_count, 10);
    unsubscribe(b);
}

static void what_was_not_looked_at_returns_by_the_end_of_the_stream(void **state)
{
    bench *b = subscribe(3);
    (void)state;
    give(b, "1", 1);
    assert_true(wire_run(&b->w));
    b->backends.pubsub->pause(b->sub, true);
    settle(b, 0, OUTR_SETTLE_RELEASE);
    assert_string_equal(b->acks, "");
    assert_int_equal(b->gone, 0);
    b->backends.pubsub->pause(b->sub, false); /* it goes on after all */
    assert_true(wire_run(&b->w));
    assert_int_equal(b->gone, 1);
    assert_non_null(b->pull);
    assert_string_equal(b->acks, "");
    unsubscribe(b);
}

static void a_subscription_is_made_again_with_the_connection(void **state)
{
    bench *b = subscribe(3);
    (void)state;
    give(b, "1", 1);
    assert_true(wire_run(&b->w));
    kill_server(b);
    assert_true(wire_run(&b->w));
    b->said[0] = 0;
    start_server(b);
    wire_sleep(&b->w, 10 * OUTR_SEC);
    assert_string_equal(b->said, "Init Features PullMessages topic ");
    settle(b, 0, OUTR_SETTLE_ACK); /* of the stream that is gone */
    assert_string_equal(b->acks, "");
    give(b, "1", 1);
    assert_true(wire_run(&b->w));
    settle(b, 1, OUTR_SETTLE_ACK);
    assert_string_equal(b->acks, "1+ ");
    unsubscribe(b);
}

static void a_stream_that_ends_is_made_again_after_a_while(void **state)
{
    bench *b = subscribe(3);
    (void)state;
    for (int i = 0; i < 3; i++) {
        outr_grpc_call *call = b->pull;
        b->pull = NULL;
        outr_grpc_end(call);
        assert_true(wire_run(&b->w));
        assert_null(b->pull);
        wire_sleep(&b->w, 10 * OUTR_SEC);
        assert_non_null(b->pull);
    }
    assert_int_equal(b->w.connect_count, 1);
    unsubscribe(b);
}

static void an_oversized_message_does_not_stop_the_rest(void **state)
{
    bench *b = subscribe(3);
    (void)state;
    give(b, "big", 17 * OUTR_MIB);
    assert_true(wire_run(&b->w));
    assert_int_equal(b->message_count, 0);
    wire_sleep(&b->w, 10 * OUTR_SEC);
    give(b, "1", 1);
    assert_true(wire_run(&b->w));
    assert_int_equal(b->message_count, 1);
    settle(b, 0, OUTR_SETTLE_ACK);
    unsubscribe(b);
}

static void unsubscribing_while_the_component_is_away(void **state)
{
    bench *b = subscribe(3);
    (void)state;
    give(b, "1", 1);
    assert_true(wire_run(&b->w));
    kill_server(b);
    assert_true(wire_run(&b->w));
    settle(b, 0, OUTR_SETTLE_RELEASE);
    unsubscribe(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_component_is_initialised_before_it_is_called),
        cmocka_unit_test(a_component_that_is_not_there_yet_is_waited_for),
        cmocka_unit_test(an_opening_ends_at_its_deadline_and_says_why),
        cmocka_unit_test(a_socket_that_serves_something_else_is_refused_at_once),
        cmocka_unit_test(a_lost_component_fails_calls_and_is_initialised_anew),
        cmocka_unit_test(calls_wait_while_a_component_is_being_initialised),
        cmocka_unit_test(no_more_calls_wait_than_a_thousand),
        cmocka_unit_test(a_component_that_leaves_politely_finishes_its_calls),
        cmocka_unit_test(a_call_that_is_cancelled_or_late_is_given_up),
        cmocka_unit_test(only_a_detail_of_the_field_etag_is_an_etag_error),
        cmocka_unit_test(garbage_is_an_error_that_names_the_component),
        cmocka_unit_test(a_key_that_a_message_cannot_carry_is_refused),
        cmocka_unit_test(every_call_ends_whatever_the_connection_does),
        cmocka_unit_test(messages_are_acknowledged_or_refused),
        cmocka_unit_test(no_more_is_read_than_the_credit),
        cmocka_unit_test(what_was_not_looked_at_returns_by_the_end_of_the_stream),
        cmocka_unit_test(a_subscription_is_made_again_with_the_connection),
        cmocka_unit_test(a_stream_that_ends_is_made_again_after_a_while),
        cmocka_unit_test(an_oversized_message_does_not_stop_the_rest),
        cmocka_unit_test(unsubscribing_while_the_component_is_away),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
