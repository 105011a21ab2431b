#include "components/pluggable/internal.h"

#include <dapr/proto/components/v1/common.pb-c.h>
#include <dapr/proto/components/v1/state.pb-c.h>

#define ATTEMPT_NS  (5 * OUTR_SEC)  /* to connect and to hear what a socket serves */
#define INIT_NS     (60 * OUTR_SEC) /* for Init of one that is back; the first has its op's */
#define PAUSE_MIN   (50 * OUTR_MS)
#define PAUSE_MAX   (5 * OUTR_SEC)
#define PAUSE_FIRST (500 * OUTR_MS) /* at most, while the sidecar starts and somebody waits */
#define PING_NS     (60 * OUTR_SEC) /* some servers close what is idle for two minutes */
#define STABLE_NS   (10 * OUTR_SEC) /* a connection that held so long begins the pauses anew */
#define ARENA_MAX   (64 * OUTR_MIB)

typedef enum state { FIND, ASK, HEARD, INIT, INITED, FEATURES, KNOWN, READY, PAUSE, OVER } state;

static outr__plug *of(outr_steps *steps)
{
    return OUTR_CONTAINER(steps, outr__plug, steps);
}

/* ---- sessions -------------------------------------------------------------------------------- */

static void on_reap(outr_deferred *deferred)
{
    outr__plug_session *s = OUTR_CONTAINER(deferred, outr__plug_session, reaper);
    outr__plug *p = s->plug;
    if (!s->is_leaving || s->calls > 0)
        return;
    outr_http_pool_free(s->pool);
    free(s);
    p->session_count--;
    outr__plug_check_closed(p);
}

void outr__plug_hold(outr__plug_session *s)
{
    s->calls++;
}

void outr__plug_release(outr__plug_session *s)
{
    if (--s->calls == 0 && s->is_leaving)
        outr_loop_defer(s->plug->loop, &s->reaper);
}

static void leave(outr__plug_session *s)
{
    s->is_leaving = true;
    outr_http_pool_stop(s->pool);
    if (s->calls == 0)
        outr_loop_defer(s->plug->loop, &s->reaper);
}

static void set_ready(outr__plug *p, bool is_ready)
{
    p->is_ready = is_ready;
    OUTR_LIST_EACH(link, &p->watchers) {
        outr__plug_watcher *w = OUTR_LIST_ITEM(link, outr__plug_watcher, link);
        w->changed(w, is_ready);
    }
}

static void drop_session(outr__plug *p)
{
    if (p->session)
        leave(p->session);
    p->session = NULL;
}

static void on_leaving(void *ctx)
{
    outr__plug_session *s = ctx;
    outr__plug *p = s->plug;
    bool is_present = p->session == s;
    leave(s);
    if (!is_present)
        return;
    p->session = NULL; /* a step that is using it finds out by its operation */
    if (!p->is_ready)
        return;
    outr_fail(&p->err, OUTR_UNAVAILABLE, "the connection was lost");
    OUTR_LOG(p->log, WARN, "pluggable component is gone, it is looked for again",
             OUTR_S("component", p->name));
    set_ready(p, false);
    outr_steps_go(&p->steps, PAUSE);
}

static void new_session(outr__plug *p, const outr_addr *addr)
{
    outr__plug_session *s = outr_alloc(sizeof *s);
    s->plug = p;
    s->reaper.run = on_reap;
    s->pool = outr_http_pool_new(&(outr_http_pool_options){
        .loop = p->loop,
        .addr = *addr,
        .version = OUTR_HTTP_2,
        .limits = {.idle_ns = UINT64_MAX / 4}, /* it is kept: it tells when the process is gone */
        .max_connections = 1,
        .on_leaving = on_leaving,
        .ctx = s,
    });
    p->session = s;
    p->session_count++;
}

/* ---- keeping it alive ------------------------------------------------------------------------ */

/* How it went does not matter: a lost connection tells of itself, calls have their deadlines. */
static void on_ponged(outr_op *op)
{
    outr__plug *p = OUTR_CONTAINER(op, outr__plug, ping_op);
    outr__plug_call_done(&p->ping);
}

static const char *ping_path(const outr__plug *p)
{
    const outr__plug_service *s = p->kind->services;
    while (!(p->services & s->bit))
        s++;
    return s->ping;
}

static void on_ping_time(outr_timer *timer)
{
    static const Dapr__Proto__Components__V1__PingRequest message =
        DAPR__PROTO__COMPONENTS__V1__PING_REQUEST__INIT;
    outr__plug *p = OUTR_CONTAINER(timer, outr__plug, pinger);
    uint64_t now = outr_loop_now(p->loop);
    if (p->is_ready && now - p->used_ns >= PING_NS && !outr_op_is_pending(&p->ping_op)) {
        p->ping =
            (outr__plug_call){.path = ping_path(p),
                              .message = &message,
                              .type = &dapr__proto__components__v1__ping_response__descriptor};
        outr_op_init(&p->ping_op, p->loop, NULL, now + PING_NS / 2, on_ponged);
        outr__plug_call_start(p, &p->ping, &p->ping_op);
    }
    bool is_busy = now - p->used_ns < PING_NS;
    outr_timer_start(p->loop, timer, (is_busy ? p->used_ns : now) + PING_NS);
}

/* ---- steps ----------------------------------------------------------------------------------- */

static void on_step(outr_op *op)
{
    outr__plug *p = OUTR_CONTAINER(op, outr__plug, op);
    outr_steps_run(&p->steps);
}

static outr_op *begin(outr__plug *p, uint64_t deadline_ns)
{
    outr_op_init(&p->op, p->loop, NULL, deadline_ns, on_step);
    return &p->op;
}

/* What stopped this attempt goes to who asks meanwhile, and once to the log. */
static int give_up(outr__plug *p)
{
    drop_session(p);
    if (p->was_ready && strcmp(p->told, p->err.text) != 0) {
        memcpy(p->told, p->err.text, sizeof p->told);
        OUTR_LOG(p->log, WARN, "pluggable component is still not usable",
                 OUTR_S("component", p->name), OUTR_ERR(&p->err));
    }
    return PAUSE;
}

/* Waiting does not help: a sidecar that starts is told at once. */
static int refuse(outr__plug *p)
{
    if (p->was_ready)
        return give_up(p);
    drop_session(p);
    return OVER;
}

static int step_find(outr_steps *steps)
{
    outr__plug *p = of(steps);
    p->is_pausing = false;
    if (p->is_stopped)
        return OVER;
    outr_arena_reset(p->arena);
    p->at = 0;
    if (outr__plug_find(&p->found, p->folder, p->socket, &p->err))
        return p->err.code == OUTR_INVALID_ARGUMENT ? refuse(p) : give_up(p);
    return ASK;
}

static int step_ask(outr_steps *steps)
{
    outr__plug *p = of(steps);
    new_session(p, &p->found.addrs[p->at]);
    p->reflection =
        (outr_reflection){.pool = p->session->pool, .loop = p->loop, .arena = p->arena};
    outr_reflection_start(&p->reflection, begin(p, outr_loop_now(p->loop) + ATTEMPT_NS));
    return outr_steps_wait(steps, HEARD);
}

/* Another socket of the name, or another attempt. */
static int next_socket(outr__plug *p, bool is_final)
{
    drop_session(p);
    if (++p->at < p->found.count)
        return ASK;
    return is_final ? refuse(p) : give_up(p);
}

static int step_heard(outr_steps *steps)
{
    outr__plug *p = of(steps);
    const char *socket = p->found.addrs[p->at].path;
    unsigned services = 0;
    if (p->is_stopped)
        return OVER;
    if (p->op.err.code) {
        p->err = p->op.err;
        outr_wrap(&p->err, "asking %s what it serves", socket);
        return next_socket(p, p->err.code == OUTR_UNIMPLEMENTED);
    }
    for (const outr__plug_service *s = p->kind->services; s->name; s++)
        services |= outr_reflection_has(&p->reflection, s->name) ? s->bit : 0;
    if (!services) {
        outr_fail(&p->err, OUTR_UNIMPLEMENTED, "%s does not serve %s", socket,
                  p->kind->services[0].name);
        return next_socket(p, true);
    }
    for (const outr__plug_name *n = p->kind->more; n && n->name; n++)
        services |= outr_reflection_has(&p->reflection, n->name) ? n->bit : 0;
    __atomic_store_n(&p->services, services, __ATOMIC_RELEASE);
    p->service = 0;
    return INIT;
}

static outr_op *begin_call(outr__plug *p, const char *path, const void *message)
{
    bool has_deadline = p->opening && p->opening->deadline_ns;
    outr_op *op = begin(p, has_deadline ? p->opening->deadline_ns
                                        : outr_loop_now(p->loop) + INIT_NS);
    outr_fail(&p->err, OUTR_UNAVAILABLE, "%s does not answer %s", p->found.addrs[p->at].path, path);
    p->unary = (outr_grpc_unary){.arena = p->arena,
                                 .loop = p->loop,
                                 .max_bytes = OUTR_MIB,
                                 .deadline_ns = op->deadline_ns};
    outr__plug_metadata(p, &p->unary.metadata, p->arena);
    outr_grpc_unary_prepare(&p->unary, &p->http, path, message);
    return op;
}

static int step_init(outr_steps *steps)
{
    outr__plug *p = of(steps);
    Dapr__Proto__Components__V1__InitRequest m = DAPR__PROTO__COMPONENTS__V1__INIT_REQUEST__INIT;
    Dapr__Proto__Components__V1__MetadataRequest metadata =
        DAPR__PROTO__COMPONENTS__V1__METADATA_REQUEST__INIT;
    outr__plug_text text = {.arena = p->arena};
    const outr_kvs properties = {p->properties, p->property_count};
    const outr__plug_service *s = &p->kind->services[p->service];
    if (!s->name)
        return READY;
    if (!(p->services & s->bit)) {
        p->service++;
        return INIT;
    }
    if (!p->session)
        return give_up(p);
    m.metadata = &metadata;
    metadata.n_properties = properties.count;
    metadata.properties = outr__plug_map(
        &text, properties,
        &dapr__proto__components__v1__metadata_request__properties_entry__descriptor);
    if (outr__plug_check(&text, &p->err))
        return refuse(p);
    outr_op *op = begin_call(p, s->init, &m);
    outr_http_call_start(p->session->pool, &p->http, op);
    return outr_steps_wait(steps, INITED);
}

/* Whether trying again may help: the component was not reached, or went away. */
static bool is_passing(const outr_err *err)
{
    return err->code == OUTR_UNAVAILABLE || err->code == OUTR_CANCELLED ||
           err->code == OUTR_DEADLINE_EXCEEDED;
}

static int answered(outr__plug *p, const ProtobufCMessageDescriptor *type, void *answer,
                    const char *what, int next)
{
    if (outr_grpc_unary_result(&p->unary, answer, type, &p->op.err, &p->err)) {
        outr_wrap(&p->err, "%s", what);
        return is_passing(&p->err) ? give_up(p) : refuse(p);
    }
    if (p->session)
        return next;
    outr_fail(&p->err, OUTR_UNAVAILABLE, "the connection was lost");
    return give_up(p);
}

static int step_inited(outr_steps *steps)
{
    outr__plug *p = of(steps);
    void *answer;
    if (p->is_stopped)
        return OVER;
    int next = answered(p, &dapr__proto__components__v1__init_response__descriptor, &answer, "init",
                        FEATURES);
    if (next != FEATURES || p->kind->services[p->service].features)
        return next;
    p->service++;
    return INIT;
}

static int step_features(outr_steps *steps)
{
    outr__plug *p = of(steps);
    const Dapr__Proto__Components__V1__FeaturesRequest m =
        DAPR__PROTO__COMPONENTS__V1__FEATURES_REQUEST__INIT;
    outr_op *op = begin_call(p, p->kind->services[p->service].features, &m);
    outr_http_call_start(p->session->pool, &p->http, op);
    return outr_steps_wait(steps, KNOWN);
}

static int step_known(outr_steps *steps)
{
    outr__plug *p = of(steps);
    Dapr__Proto__Components__V1__FeaturesResponse *answer;
    unsigned features = 0;
    if (p->is_stopped)
        return OVER;
    int next = answered(p, &dapr__proto__components__v1__features_response__descriptor, &answer,
                        "features", INIT);
    if (next != INIT)
        return next;
    for (const outr__plug_name *n = p->kind->features; n && n->name; n++) {
        for (size_t i = 0; i < answer->n_features; i++)
            features |= strcmp(answer->features[i], n->name) == 0 ? n->bit : 0;
    }
    __atomic_store_n(&p->features, features, __ATOMIC_RELEASE);
    p->service++;
    return INIT;
}

static int step_ready(outr_steps *steps)
{
    outr__plug *p = of(steps);
    outr_op *opening = p->opening;
    if (p->is_ready)
        return OUTR_WAIT; /* until the connection is lost */
    p->opening = NULL;
    p->ready_since_ns = outr_loop_now(p->loop);
    p->told[0] = 0;
    if (p->was_ready)
        OUTR_LOG(p->log, INFO, "pluggable component is back", OUTR_S("component", p->name));
    p->was_ready = true;
    outr_timer_start(p->loop, &p->pinger, p->ready_since_ns + PING_NS);
    set_ready(p, true);
    outr__plug_calls_go(p, NULL);
    if (opening)
        outr_op_finish(opening);
    return OUTR_WAIT;
}

static int step_pause(outr_steps *steps)
{
    outr__plug *p = of(steps);
    uint64_t now = outr_loop_now(p->loop), most = p->was_ready ? PAUSE_MAX : PAUSE_FIRST;
    outr_err err;
    if (p->is_stopped)
        return OVER;
    p->is_pausing = true;
    outr__plug_fail_absent(p, &err);
    outr__plug_calls_go(p, &err);
    if (p->ready_since_ns && now - p->ready_since_ns >= STABLE_NS)
        p->pause_ns = 0;
    p->ready_since_ns = 0;
    p->pause_ns = OUTR_MIN(OUTR_MAX(2 * p->pause_ns, PAUSE_MIN), most);
    uint64_t jitter = outr_rand_below(outr_loop_rand(p->loop), p->pause_ns / 2 + 1);
    outr_op_init(&p->op, p->loop, NULL, 0, on_step);
    outr_sleep_start(now + p->pause_ns - jitter, &p->op);
    return outr_steps_wait(steps, FIND);
}

/* The end of an opening that failed, or of the component. */
static int step_over(outr_steps *steps)
{
    outr__plug *p = of(steps);
    outr_op *opening = p->opening;
    p->is_stopped = true;
    drop_session(p);
    p->opening = NULL;
    if (opening)
        outr_op_fail_soon(opening, &p->err);
    outr__plug_check_closed(p);
    return OUTR_END; /* p may be gone */
}

#define RETRY (TO(ASK) | TO(PAUSE) | TO(OVER))
static const outr_step table[] = {
    [FIND] = {"find", step_find, RETRY},
    [ASK] = {"ask", step_ask, TO(HEARD)},
    [HEARD] = {"heard", step_heard, RETRY | TO(INIT)},
    [INIT] = {"init", step_init, RETRY | TO(INIT) | TO(INITED) | TO(READY)},
    [INITED] = {"inited", step_inited, RETRY | TO(INIT) | TO(FEATURES)},
    [FEATURES] = {"features", step_features, TO(KNOWN)},
    [KNOWN] = {"known", step_known, RETRY | TO(INIT)},
    [READY] = {"ready", step_ready, TO(PAUSE) | TO(OVER)},
    [PAUSE] = {"pause", step_pause, TO(FIND) | TO(OVER)},
    [OVER] = {"over", step_over, 0},
};

/* ---- life ------------------------------------------------------------------------------------ */

void outr__plug_metadata(const outr__plug *p, outr_headers *out, outr_arena *arena)
{
    outr_headers_init(out, arena);
    outr_headers_add(out, OUTR_STR("x-component-instance"), p->name);
}

void outr__plug_fail_absent(const outr__plug *p, outr_err *err)
{
    outr_fail(err, OUTR_UNAVAILABLE, "component " OUTR_FMT " is not available: %s",
              OUTR_ARG(p->name), p->err.code ? p->err.text : "it is being closed");
}

/* The properties as given, and consumerID where a kind has one. */
static void take_properties(outr__plug *p, outr_kvs given, outr_str consumer_id)
{
    p->properties = outr_alloc((given.count + 1) * sizeof *p->properties);
    for (size_t i = 0; i < given.count; i++) {
        bool is_consumer = consumer_id.n > 0 && outr_str_iis(given.items[i].key, "consumerID");
        if (!is_consumer || outr_str_trim(given.items[i].value).n > 0)
            p->properties[p->property_count++] = given.items[i];
        if (is_consumer && outr_str_trim(given.items[i].value).n > 0)
            consumer_id = OUTR_STR_NONE;
    }
    if (consumer_id.n > 0)
        p->properties[p->property_count++] = (outr_kv){OUTR_STR("consumerID"), consumer_id};
}

outr__plug *outr__plug_new(const outr_component_init *init, const outr__plug_kind *kind,
                           outr_str consumer_id)
{
    outr__plug *p = outr_alloc(sizeof *p);
    p->kind = kind;
    p->loop = init->loop;
    p->log = init->log;
    p->name = init->name;
    p->folder = init->sockets_dir;
    p->socket = outr_str_skip(init->type, strlen(kind->category) + 1);
    p->arena = outr_arena_new(ARENA_MAX);
    take_properties(p, init->metadata, consumer_id);
    outr_list_init(&p->waiting);
    outr_list_init(&p->watchers);
    outr_steps_init(&p->steps, table, FIND, NULL);
    p->pinger.fire = on_ping_time;
    return p;
}

/* The op in hand is ended; its step, or the lack of one, leads to the end. */
static void stop(outr__plug *p)
{
    outr_err err;
    p->is_stopped = true;
    outr_timer_stop(p->loop, &p->pinger);
    outr_op_cancel(&p->ping_op, OUTR_CANCELLED);
    if (p->is_ready)
        set_ready(p, false);
    outr__plug_fail_absent(p, &err);
    outr__plug_calls_go(p, &err);
    if (outr_op_is_pending(&p->op))
        outr_op_cancel(&p->op, OUTR_CANCELLED);
    else if (p->steps.state != OVER)
        drop_session(p);
}

static void on_open_cancelled(outr_op *op)
{
    outr__plug *p = op->impl;
    if (p->err.code)
        memcpy(op->err.text, p->err.text, sizeof op->err.text);
    p->opening = NULL;
    stop(p);
    outr_op_finish(op);
}

void outr__plug_open(outr__plug *p, outr_op *op)
{
    outr_op_begin(op, p, on_open_cancelled);
    p->opening = op;
    outr_op_init(&p->op, p->loop, NULL, 0, on_step);
    outr_op_begin(&p->op, p, NULL);
    outr_op_finish_soon(&p->op);
}

void outr__plug_check_closed(outr__plug *p)
{
    outr_op *op = p->closing;
    if (!op || p->session_count > 0 || p->call_count > 0 || outr_op_is_pending(&p->op))
        return;
    outr_arena_free(p->arena);
    free(p->properties);
    free(p);
    outr_op_finish(op);
}

static void on_close(outr_op *op)
{
    outr__plug *p = OUTR_CONTAINER(op, outr__plug, op);
    outr__plug_check_closed(p);
}

void outr__plug_close(outr__plug *p, outr_op *op)
{
    outr_op_begin(op, p, NULL);
    stop(p);
    p->closing = op;
    if (outr_op_is_pending(&p->op))
        return; /* its step ends in OVER */
    outr_op_init(&p->op, p->loop, NULL, 0, on_close);
    outr_op_begin(&p->op, p, NULL);
    outr_op_finish_soon(&p->op);
}

unsigned outr__plug_services(const outr__plug *p)
{
    return __atomic_load_n(&p->services, __ATOMIC_ACQUIRE);
}

unsigned outr__plug_features(const outr__plug *p)
{
    return __atomic_load_n(&p->features, __ATOMIC_ACQUIRE);
}

outr_str outr__plug_id(const outr__plug *p)
{
    return p->name;
}

outr_loop *outr__plug_loop(const outr__plug *p)
{
    return p->loop;
}

const outr_log *outr__plug_log(const outr__plug *p)
{
    return p->log;
}

bool outr__plug_is_ready(const outr__plug *p)
{
    return p->is_ready;
}

void outr__plug_watch(outr__plug *p, outr__plug_watcher *watcher)
{
    outr_list_push(&p->watchers, &watcher->link);
}

void outr__plug_unwatch(outr__plug_watcher *watcher)
{
    outr_link_remove(&watcher->link);
}
