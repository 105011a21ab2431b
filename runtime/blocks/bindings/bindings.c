#include "blocks/bindings/bindings.h"

#include <dapr/proto/runtime/v1/appcallback.pb-c.h>

#include "app/unary.h"
#include "base/encode.h"
#include "blocks/bindings/input.h"

#define ASK_AGAIN_NS (500 * OUTR_MS)
#define SET_ARENA    (16 * OUTR_MIB)
#define ASK_ARENA    (16 * OUTR_MIB)

typedef Dapr__Proto__Runtime__V1__ListInputBindingsResponse list_response;

/* The input bindings of one moment: started together, ended together. */
typedef struct set {
    struct outr_bindings *engine;
    outr_arena *arena;
    outr_binding_input *inputs;
    struct visit {
        outr_message start, message; /* the start may still be on its way when the end is sent */
        outr_message renew;
        uint8_t is_renewing; /* atomic: renew is on its way */
        outr_binding_input *input;
    } * visits;
    size_t count, pending;
    /* All input bindings that there were, wanted or not, to see whether others are there now; the
     * view keeps them from being closed, so that no other can be where one was. */
    outr_view *view;
    const outr_component **seen;
    size_t seen_count;
} set;

struct outr_bindings {
    outr_bindings_options o;
    outr_snapshot *snapshot;
    outr_app_watcher watcher;
    set *set; /* running or ending */
    /* What an app over gRPC wants, asked for anew with each set */
    outr_arena *asked_arena;
    outr_app_unary question;
    list_response *asked; /* NULL: nothing */
    outr_op op;
    outr_timer again;
    outr_op *stopping;
    bool is_asked, is_started, is_ending_set, is_stopped;
};

static outr_loop *main_loop(const outr_bindings *b)
{
    return b->o.loops[0];
}

static void reconcile(outr_bindings *b);

/* ---- what a gRPC app wants ------------------------------------------------------------------- */

static bool is_named(const outr_bindings *b, outr_str name)
{
    for (size_t i = 0; b->asked && i < b->asked->n_bindings; i++) {
        if (outr_str_is(name, b->asked->bindings[i]))
            return true;
    }
    return false;
}

static void on_asked(outr_op *op)
{
    outr_bindings *b = OUTR_CONTAINER(op, outr_bindings, op);
    outr_err err;
    outr_code rc = outr_app_unary_result(
        &b->question, &b->asked,
        &dapr__proto__runtime__v1__list_input_bindings_response__descriptor, &op->err, &err);
    if (b->is_stopped)
        return;
    if (rc == OUTR_UNAVAILABLE || rc == OUTR_DEADLINE_EXCEEDED) {
        outr_timer_start(main_loop(b), &b->again, outr_loop_now(main_loop(b)) + ASK_AGAIN_NS);
        return;
    }
    if (rc && rc != OUTR_UNIMPLEMENTED)
        OUTR_LOG(b->o.log, WARN, "the app answered ListInputBindings with an error, none is taken",
                 OUTR_ERR(&err));
    b->is_asked = true;
    reconcile(b);
}

static void ask(outr_bindings *b)
{
    const Google__Protobuf__Empty empty = GOOGLE__PROTOBUF__EMPTY__INIT;
    outr_loop *loop = main_loop(b);
    outr_arena_free(b->asked_arena);
    b->asked_arena = outr_arena_new(ASK_ARENA);
    b->asked = NULL;
    b->question = (outr_app_unary){
        .arena = b->asked_arena, .max_bytes = ASK_ARENA / 4, .skip_limit = true};
    outr_headers_init(&b->question.metadata, b->asked_arena);
    outr_op_init(&b->op, loop, NULL,
                 outr_loop_now(loop) + b->o.settings->app_binding_options_timeout_ns, on_asked);
    outr_app_unary_start(b->o.apps[0], &b->question,
                         "/dapr.proto.runtime.v1.AppCallback/ListInputBindings", &empty, &b->op);
}

static void on_again(outr_timer *timer)
{
    reconcile(OUTR_CONTAINER(timer, outr_bindings, again));
}

/* ---- sets ------------------------------------------------------------------------------------ */

static void on_input_left(outr_message *message, outr_loop *loop OUTR_UNUSED)
{
    set *s = OUTR_CONTAINER(message, struct visit, message)->input->set;
    outr_bindings *b = s->engine;
    if (--s->pending > 0)
        return;
    b->set = NULL;
    b->is_ending_set = b->is_asked = false;
    outr_view_unpin(s->view);
    free(s->visits);
    outr_arena_free(s->arena);
    if (b->stopping) {
        outr_op *op = b->stopping;
        b->stopping = NULL;
        outr_op_finish(op);
        return;
    }
    reconcile(b);
}

static void on_ended(outr_binding_input *input)
{
    set *s = input->set;
    struct visit *v = &s->visits[input - s->inputs];
    v->message.run = on_input_left;
    outr_loop_post(main_loop(s->engine), &v->message);
}

static void on_start(outr_message *message, outr_loop *loop OUTR_UNUSED)
{
    outr_binding_input_start(OUTR_CONTAINER(message, struct visit, start)->input);
}

static void on_end(outr_message *message, outr_loop *loop OUTR_UNUSED)
{
    outr_binding_input_end(OUTR_CONTAINER(message, struct visit, message)->input);
}

static void on_renew(outr_message *message, outr_loop *loop OUTR_UNUSED)
{
    struct visit *v = OUTR_CONTAINER(message, struct visit, renew);
    __atomic_store_n(&v->is_renewing, 0, __ATOMIC_RELEASE);
    outr_binding_input_renew(v->input);
}

static bool is_input(const outr_component *c)
{
    return c->kind == OUTR_KIND_BINDINGS && (c->directions & OUTR_BINDING_INPUT);
}

/* `direction` names input: the app is not asked. */
static bool is_explicit(const outr_component *c)
{
    return outr_kvs_find(c->metadata, "direction") != NULL;
}

/* The path in the app: metadata route, else the name. Whatever a path cannot hold is escaped. */
static outr_str route_of(outr_arena *arena, const outr_component *c)
{
    const outr_kv *given = outr_kvs_find(c->metadata, "route");
    outr_str route = given && given->value.n ? given->value : c->spec->base.name;
    route = outr_percent_encode(arena, route, "/?&=%:@!$'()*+,;");
    return route.p[0] == '/' ? route : outr_arena_join(arena, OUTR_STR("/"), route, OUTR_STR_NONE);
}

static void add_input(outr_bindings *b, set *s, const outr_component *c)
{
    const outr_configuration *configuration = &b->snapshot->configuration;
    size_t loop = s->count % b->o.loop_count;
    bool is_wanted = is_explicit(c);
    if (!is_wanted && outr_app_speaks_grpc(b->o.apps[0])) {
        is_wanted = is_named(b, c->spec->base.name);
        if (!is_wanted) {
            OUTR_LOG(b->o.log, INFO, "the app does not want an input binding",
                     OUTR_S("binding", c->spec->base.name));
            return;
        }
    }
    s->inputs[s->count++] = (outr_binding_input){
        .name = outr_arena_str(s->arena, c->spec->base.name),
        .route = route_of(s->arena, c),
        .is_wanted = is_wanted,
        .settings = b->o.settings,
        .log = b->o.log,
        .trace = {.is_on = configuration->tracing_is_on,
                  .sampling_rate = configuration->sampling_rate,
                  .tracer = b->o.tracers ? b->o.tracers[loop] : NULL},
        .loop = b->o.loops[loop],
        .app = b->o.apps[loop],
        .host = b->o.host,
        .ended = on_ended,
        .set = s,
    };
}

static void start_set(outr_bindings *b, const outr_view *view)
{
    outr_arena *arena = outr_arena_new(SET_ARENA);
    set *s = outr_arena_alloc(arena, sizeof *s);
    const outr_component *c;
    size_t max = outr_view_count(view, OUTR_KIND_BINDINGS);
    *s = (set){.engine = b, .arena = arena};
    s->inputs = outr_arena_alloc(arena, (max + 1) * sizeof *s->inputs);
    s->seen = outr_arena_alloc(arena, (max + 1) * sizeof *s->seen);
    for (size_t i = 0; (c = outr_view_at(view, i)); i++) {
        if (!is_input(c))
            continue;
        s->seen[s->seen_count++] = c;
        add_input(b, s, c);
    }
    if (s->count == 0) {
        outr_arena_free(arena);
        return;
    }
    s->visits = outr_alloc(s->count * sizeof *s->visits);
    s->view = outr_host_pin(b->o.host, main_loop(b));
    b->set = s;
    for (size_t i = 0; i < s->count; i++) {
        s->visits[i].input = &s->inputs[i];
        s->visits[i].start.run = on_start;
        outr_loop_post(s->inputs[i].loop, &s->visits[i].start);
    }
}

static void end_set(outr_bindings *b)
{
    set *s = b->set;
    b->is_ending_set = true;
    s->pending = s->count;
    for (size_t i = 0; i < s->count; i++) {
        s->visits[i].message.run = on_end;
        outr_loop_post(s->inputs[i].loop, &s->visits[i].message);
    }
}

/* Other components have changed only: what runs goes on, with the view of now. False: it cannot. */
static bool renew_set(outr_bindings *b)
{
    set *s = b->set;
    const outr_component *c;
    outr_view *view = outr_host_pin(b->o.host, main_loop(b));
    size_t n = 0;
    bool is_same = true;
    for (size_t i = 0; (c = outr_view_at(view, i)); i++) {
        if (is_input(c))
            is_same &= n < s->seen_count && s->seen[n++] == c;
    }
    if (!is_same || n != s->seen_count) {
        outr_view_unpin(view);
        return false;
    }
    outr_view_unpin(s->view);
    s->view = view;
    for (size_t i = 0; i < s->count; i++) {
        struct visit *v = &s->visits[i];
        v->renew.run = on_renew;
        if (__atomic_exchange_n(&v->is_renewing, 1, __ATOMIC_ACQ_REL) == 0)
            outr_loop_post(v->input->loop, &v->renew);
    }
    return true;
}

/* How many there are, and whether the app must be asked about any. */
static size_t count_inputs(const outr_view *view, bool *asks)
{
    const outr_component *c;
    size_t n = 0;
    *asks = false;
    for (size_t i = 0; (c = outr_view_at(view, i)); i++) {
        if (!is_input(c))
            continue;
        n++;
        *asks |= !is_explicit(c);
    }
    return n;
}

/* Brings what runs in line with what should: input bindings run while the app is up and well. */
static void reconcile(outr_bindings *b)
{
    bool should_run = b->is_started && !b->is_stopped && outr_app_is_healthy(b->o.apps[0]);
    bool asks;
    if (b->is_ending_set || outr_op_is_pending(&b->op))
        return;
    if (!should_run) {
        b->is_asked = false;
        if (b->set)
            end_set(b);
        return;
    }
    if (b->set)
        return;
    outr_view *view = outr_host_pin(b->o.host, main_loop(b));
    if (count_inputs(view, &asks) > 0) {
        if (asks && outr_app_speaks_grpc(b->o.apps[0]) && !b->is_asked)
            ask(b);
        else
            start_set(b, view);
    }
    outr_view_unpin(view);
}

/* ---- the engine ------------------------------------------------------------------------------ */

static void on_app_changed(outr_app_watcher *watcher, bool is_up OUTR_UNUSED,
                           bool is_healthy OUTR_UNUSED)
{
    reconcile(OUTR_CONTAINER(watcher, outr_bindings, watcher));
}

outr_bindings *outr_bindings_new(const outr_bindings_options *options)
{
    outr_bindings *b = outr_alloc(sizeof *b);
    b->o = *options;
    b->again.fire = on_again;
    b->watcher.changed = on_app_changed;
    return b;
}

void outr_bindings_start(outr_bindings *b, const outr_snapshot *snapshot)
{
    b->snapshot = outr_snapshot_ref(snapshot);
    b->is_started = true;
    if (outr_app_is_configured(b->o.apps[0]))
        outr_app_watch(b->o.apps[0], &b->watcher);
}

void outr_bindings_update(outr_bindings *b, const outr_snapshot *snapshot)
{
    outr_snapshot *before = b->snapshot;
    b->snapshot = outr_snapshot_ref(snapshot);
    outr_snapshot_unref(before);
    if (b->set && !b->is_ending_set && !renew_set(b))
        end_set(b); /* a new set starts when it has ended */
    if (b->set)
        return;
    b->is_asked = false;
    reconcile(b);
}

void outr_bindings_stop(outr_bindings *b, outr_op *op)
{
    b->is_stopped = true;
    outr_timer_stop(main_loop(b), &b->again);
    outr_app_unwatch(&b->watcher);
    outr_op_begin(op, b, NULL);
    if (outr_op_is_pending(&b->op))
        outr_op_cancel(&b->op, OUTR_CANCELLED);
    if (!b->set) {
        outr_op_finish_soon(op);
        return;
    }
    b->stopping = op;
    if (!b->is_ending_set)
        end_set(b);
}

void outr_bindings_free(outr_bindings *b)
{
    if (!b)
        return;
    outr_snapshot_unref(b->snapshot);
    outr_arena_free(b->asked_arena);
    free(b);
}
