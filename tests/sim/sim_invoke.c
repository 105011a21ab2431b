/* Client -> caller's sidecar -> one of three callee's sidecars -> its app, with bytes in pieces and
 * late, connections that break and connects that are refused, callees that drain, die and come back on
 * another port, an app that answers in every way, and clients that leave. Whatever happens: each call
 * ends once; what is not idempotent reaches an app at most once; an answer that ended is the whole
 * answer; nothing is left open or counted. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "mesh/endpoints.h"
#include "mesh/mirror.h"
#include "unit/mesh/world.h"
#include "unit/mesh/traffic.h"

#define SEEDS    40
#define CALLS    40
#define RESTARTS 12

typedef struct played {
    web_call call;
    const char *verb;
    char *body;
    size_t length;
    char id[8];
    unsigned hits; /* apps that got its head */
    unsigned copies;
    bool is_local_target;
} played;

typedef struct play {
    world *w;
    played calls[CALLS];
    outr_http_server *old[RESTARTS];
    unsigned old_count, restarts;
    bool has_faults, has_policy, has_hedges, has_route;
    uint64_t seed;
} play;

static play *now_playing; /* one at a time: the app's handler has no context of its own */

static unsigned dice(unsigned sides)
{
    return (unsigned)outr_rand_below(&now_playing->w->w.rand, sides);
}

/* ---- the app -------------------------------------------------------------------------------- */

static void let_go(outr_exchange *x, const outr_err *err)
{
    (void)err;
    outr_http_done(x);
}

/* Reads on, else it would not notice that the caller has left. */
static void never_answer(outr_exchange *x)
{
    outr_source_cancel(x->body, NULL);
    x->on_gone = let_go;
}

static void on_app(world *w, world_node *node, outr_exchange *x)
{
    uint64_t id;
    (void)w;
    (void)node;
    if (!outr_str_to_u64(outr_headers_get(&x->req.headers, "x-id"), CALLS - 1, &id))
        abort();
    if (outr_headers_has(&x->req.headers, OUTR__MIRROR_HEADER))
        now_playing->calls[id].copies++;
    else
        now_playing->calls[id].hits++;
    unsigned manner = now_playing->has_faults ? dice(40) : 2;
    if (manner == 0)
        outr_http_done(x); /* closes without an answer */
    else if (manner == 1)
        never_answer(x);
    else if (manner == 3)
        web_answer(x, 503, "busy"); /* a call that may be made twice goes to another instance */
    else if (x->body)
        web_echo(x, x->body, 200);
    else
        web_answer(x, 200, "no body came");
}

/* ---- callees come and go -------------------------------------------------------------------- */

static void restart(play *p, world_node *node, bool drains)
{
    world *w = p->w;
    size_t at = (size_t)(node - w->nodes);
    outr_http_server *before = node->internal;
    if (p->restarts == RESTARTS)
        return;
    p->restarts++;
    node->internal = world_server(w, &outr_mesh_handler, node->mesh, true, 1 + dice(8));
    if (drains) { /* GOAWAY, and on at the same place */
        outr_http_server_drain(before, NULL, NULL);
        p->old[p->old_count++] = before;
        return;
    }
    outr_http_server_free(before);
    node->port = (uint16_t)(9000 + p->restarts * 10 + at);
    w->names[at] = node->port;
}

static void make_trouble(play *p)
{
    unsigned what = dice(400);
    if (!p->has_faults || what >= 4)
        return;
    world_node *node = &p->w->nodes[dice(WORLD_NODES)];
    if (what < 2)
        restart(p, node, what == 0);
    else if (what == 2)
        node->is_app_refusing = !node->is_app_refusing;
    else
        node->is_refusing = !node->is_refusing;
}

/* ---- one world ------------------------------------------------------------------------------ */

static bool all_done(void *ctx)
{
    play *p = ctx;
    unsigned done = 0;
    make_trouble(p);
    for (int i = 0; i < CALLS; i++) {
        web_call *c = &p->calls[i].call;
        done += c->done_count > 0;
        if (c->taker.is_full && c->taker.body.n > 0)
            web_taker_resume(&c->taker);
    }
    return done == CALLS;
}

static void start_call(play *p, int i)
{
    static const char *const verbs[] = {"GET", "POST", "PUT", "PATCH", "DELETE"};
    played *q = &p->calls[i];
    web_call *c = &q->call;
    q->verb = verbs[dice(OUTR_LEN(verbs))];
    snprintf(q->id, sizeof q->id, "%d", i);
    world_call(p->w, c, q->verb, "callee", "/work");
    outr_headers_add(&c->req.headers, OUTR_STR("x-id"), outr_str_from(q->id));
    if (strcmp(q->verb, "GET") != 0 && dice(4) > 0) {
        q->length = 1 + dice(dice(5) ? 3000 : 150000);
        q->body = outr_alloc(q->length);
        for (size_t k = 0; k < q->length; k++)
            q->body[k] = (char)((k + (size_t)i) * 2654435761u >> 11);
        web_call_bytes(c, q->body, q->length);
        if (dice(4) == 0)
            c->req.content_length = -1;
    }
    c->taker.is_full = dice(7) == 0;
    c->cancels_body = p->has_faults && dice(15) == 0;
    if (p->has_faults) /* clients leave sooner or later: some apps never answer */
        outr_op_init(&c->op, p->w->w.loop, NULL,
                     p->w->w.now +
                         outr_rand_below(&p->w->w.rand, dice(3) ? 20 * OUTR_SEC : 20 * OUTR_MS),
                     c->op.done);
    web_call_start(c, p->w->client);
    if (dice(6) == 0)
        wire_run(&p->w->w);
}

static void check_call(const play *p, int i, unsigned *succeeded, unsigned *failed)
{
    const played *q = &p->calls[i];
    const web_call *c = &q->call;
    unsigned long long seed = p->seed;
    bool may_repeat = strcmp(q->verb, "POST") != 0 && strcmp(q->verb, "PATCH") != 0;
    outr_str want = q->length ? outr_str_of(q->body, q->length) : OUTR_STR("no body came");
    bool is_good = c->err.code == OUTR_OK && c->call.head.status == 200;
    unsigned max = p->has_policy ? 4 * 4 : 1; /* tries of the policy, instances of each */
    /* beside them the rival, and one more elsewhere when both say that they are busy */
    /* one elsewhere, and the second chance of a kept connection that broke before anything came */
    unsigned max_idempotent = p->has_hedges ? max + 2 : OUTR_MAX(max, 3u);
    if (p->has_route) /* three tries, and the rival of the first */
        max_idempotent = 4;
    /* a called sidecar gives an app whose kept connection broke a second chance */
    unsigned max_copies = !p->has_route ? 0 : may_repeat && !q->length ? 2 : 1;
    if (q->copies > max_copies)
        fail_msg("seed %llu call %d: %u copies of a %s", seed, i, q->copies, q->verb);
    if (c->done_count != 1)
        fail_msg("seed %llu call %d ended %u times", seed, i, c->done_count);
    if (!may_repeat && q->hits > max)
        fail_msg("seed %llu call %d: a %s reached the app %u times", seed, i, q->verb, q->hits);
    if (q->length && q->hits > (may_repeat ? max_idempotent : max))
        fail_msg("seed %llu call %d: a body was sent %u times", seed, i, q->hits);
    if (c->call.head.status == 200 && c->taker.has_ended &&
        !outr_str_eq(outr_buf_view(&c->taker.body), want))
        fail_msg("seed %llu call %d: a clean end after %zu of %zu bytes", seed, i, c->taker.body.n,
                 want.n);
    if (is_good && !c->cancels_body && !c->taker.has_ended)
        fail_msg("seed %llu call %d: success without an end", seed, i);
    if (is_good && q->hits == 0)
        fail_msg("seed %llu call %d: success, but no app saw it", seed, i);
    if (!is_good && !p->has_faults)
        print_message("seed %llu call %d %s %zu: %s, status %d, " OUTR_FMT "\n", seed, i, q->verb,
                      q->length, c->err.text, c->call.head.status,
                      OUTR_ARG(outr_str_head(outr_buf_view(&c->taker.body), 200)));
    *succeeded += is_good;
    *failed += !is_good;
}

static void fail_hanging(const play *p)
{
    for (int i = 0; i < CALLS; i++) {
        const web_call *c = &p->calls[i].call;
        if (!c->done_count)
            print_message("call %d %s: progress %d, status %d, %zu bytes back, %u hits\n", i,
                          p->calls[i].verb, c->call.progress, c->call.head.status, c->taker.body.n,
                          p->calls[i].hits);
    }
    fail_msg("seed %llu: calls that never end", (unsigned long long)p->seed);
}

/* Before anything is taken down: what was counted up must be down again. */
static void check_rest(play *p)
{
    world *w = p->w;
    unsigned long long seed = p->seed;
    w->w.break_per_mille = w->w.refuse_percent = w->w.late_percent = 0;
    wire_sleep(&w->w, 31 * OUTR_SEC); /* what was cancelled ends on every hop, and copies do */
    if (w->mesh->mirror_count != 0 || (w->second && w->second->mirror_count != 0))
        fail_msg("seed %llu: copies under way", seed);
    if (outr_http_pool_in_flight(w->client) != 0)
        fail_msg("seed %llu: %zu calls of the client in flight", seed,
                 outr_http_pool_in_flight(w->client));
    if (!outr_list_is_empty(&w->mesh->calls) ||
        (w->second && !outr_list_is_empty(&w->second->calls)))
        fail_msg("seed %llu: calls of the caller's sidecar in flight", seed);
    for (int i = 0; i < WORLD_NODES; i++) {
        world_node *n = &w->nodes[i];
        if (!outr_list_is_empty(&n->mesh->calls) || outr_http_server_requests(n->internal) ||
            outr_http_server_requests(n->app_server))
            fail_msg("seed %llu: requests at callee %d in flight: mesh %d, port %zu, app %zu", seed,
                     i, !outr_list_is_empty(&n->mesh->calls),
                     outr_http_server_requests(n->internal),
                     outr_http_server_requests(n->app_server));
    }
    if (w->open)
        fail_msg("seed %llu: %u exchanges left open", seed, w->open);
    outr_arena *arena = outr_arena_new(OUTR_MIB);
    outr_callee_view *views;
    size_t n = outr_mesh_list_endpoints(w->mesh, OUTR_STR_NONE, OUTR_STR_NONE, arena, &views);
    for (size_t i = 0; i < n; i++) {
        for (size_t k = 0; k < views[i].count; k++) {
            const outr_endpoint_view *e = &views[i].items[k];
            if (e->pending || e->state == OUTR_ENDPOINT_PROBING)
                fail_msg("seed %llu: an instance has calls in hand, or a probe", seed);
        }
    }
    outr_arena_free(arena);
}

static void use_policy(const play *p)
{
    outr_snapshot *s = yaml_one(
        !p->has_policy
            ? "spec: {}"
            : "spec:\n"
              "  policies:\n"
              "    timeouts: {quick: 2s}\n"
              "    retries: {some: {policy: exponential, maxInterval: 1s, maxRetries: 3}}\n"
              "    circuitBreakers: {trip: {timeout: 1s, trip: consecutiveFailures >= 4}}\n"
              "  targets: {apps: {callee: {timeout: quick, retry: some, circuitBreaker: trip}}}\n");
    if (p->has_route)
        traffic_use(s, "{hedge: {after: 5ms, maxPercent: 100},"
                       " routes: [{retry: {attempts: 2, tryTimeout: 2s},"
                       " mirror: {appId: callee, percent: 60, compare: true}}]}");
    else if (p->has_hedges)
        traffic_use(s, p->seed % 2 ? "{hedge: {after: 2ms, maxPercent: 100}}"
                                   : "{hedge: {after: 7ms, maxPercent: 100}}");
    outr_mesh_update(p->w->mesh, s);
    if (p->w->second)
        outr_mesh_update(p->w->second, s);
    outr_snapshot_unref(s);
}

typedef enum manner { PLAIN, UNDER_POLICY, HEDGED, HEDGED_UNDER_POLICY, ROUTED } manner;

static void run_world(uint64_t seed, bool has_faults, manner how, unsigned *succeeded,
                      unsigned *failed)
{
    bool has_policy = how == UNDER_POLICY || how == HEDGED_UNDER_POLICY;
    play *p = outr_alloc(sizeof *p);
    world *w = world_open(seed, has_faults && seed % 3 == 0 ? 5 : 0);
    if (seed % 4 < 2) /* two loops that share what they know */
        world_add_second(w);
    now_playing = p;
    p->w = w;
    p->seed = seed;
    p->has_faults = has_faults;
    p->has_policy = has_policy;
    p->has_route = how == ROUTED;
    p->has_hedges = how == HEDGED || how == HEDGED_UNDER_POLICY;
    if (how != PLAIN)
        use_policy(p);
    w->on_app = on_app;
    w->w.piece_max = seed % 3 == 0 ? 1500 : seed % 3 == 1 ? 200 : 70000;
    w->w.late_percent = 20;
    w->w.break_per_mille = has_faults ? (seed % 4 == 0 ? 5 : 1) : 0;
    w->w.refuse_percent = has_faults ? 5 : 0;
    w->resolver_delay_ns = seed % 2 ? 3 * OUTR_MS : 0;
    for (int i = 0; i < WORLD_NODES; i++)
        w->names[i] = w->nodes[i].port;
    for (int i = 0; i < CALLS; i++)
        start_call(p, i);
    if (!wire_until(&w->w, all_done, p, 3600 * OUTR_SEC))
        fail_hanging(p);
    check_rest(p);
    for (int i = 0; i < CALLS; i++)
        check_call(p, i, succeeded, failed);
    for (unsigned i = 0; i < p->old_count; i++)
        outr_http_server_free(p->old[i]);
    for (int i = 0; i < CALLS; i++) {
        web_call_done(&p->calls[i].call);
        free(p->calls[i].body);
    }
    if (world_close(w))
        fail_msg("seed %llu: exchanges left open at the end", (unsigned long long)seed);
    free(p);
}

static void run_all(bool has_faults, manner how, unsigned *succeeded, unsigned *failed)
{
    uint64_t first = 1, count = getenv("OUTRIGGER_SEED") ? 1 : SEEDS;
    outr_str_to_u64(outr_str_from(getenv("OUTRIGGER_SEED")), UINT64_MAX, &first);
    for (uint64_t seed = first; seed < first + count; seed++)
        run_world(seed, has_faults, how, succeeded, failed);
}

static void without_faults_every_call_succeeds(void **state)
{
    unsigned succeeded = 0, failed = 0;
    (void)state;
    run_all(false, PLAIN, &succeeded, &failed);
    assert_int_equal(failed, 0);
    assert_true(succeeded > 0);
}

static void with_faults_calls_end_once_and_are_not_doubled(void **state)
{
    unsigned succeeded = 0, failed = 0;
    (void)state;
    run_all(true, PLAIN, &succeeded, &failed);
    assert_true(succeeded > 0);
    print_message("%u calls succeeded, %u failed\n", succeeded, failed);
    assert_true(failed > 0 || getenv("OUTRIGGER_SEED"));
}

static void under_a_policy_calls_end_once_with_a_whole_answer(void **state)
{
    unsigned succeeded = 0, failed = 0;
    (void)state;
    run_all(true, UNDER_POLICY, &succeeded, &failed);
    print_message("%u calls succeeded, %u failed\n", succeeded, failed);
    assert_true(succeeded > failed);
}

static void hedged_calls_end_once_with_a_whole_answer(void **state)
{
    unsigned succeeded = 0, failed = 0;
    (void)state;
    run_all(false, HEDGED, &succeeded, &failed);
    assert_int_equal(failed, 0);
    run_all(true, HEDGED, &succeeded, &failed);
    print_message("%u calls succeeded, %u failed\n", succeeded, failed);
    assert_true(succeeded > failed);
}

static void hedged_calls_under_a_policy_end_once_with_a_whole_answer(void **state)
{
    unsigned succeeded = 0, failed = 0;
    (void)state;
    run_all(true, HEDGED_UNDER_POLICY, &succeeded, &failed);
    print_message("%u calls succeeded, %u failed\n", succeeded, failed);
    assert_true(succeeded > failed);
}

static void routed_calls_are_tried_copied_and_hedged_and_end_once(void **state)
{
    unsigned succeeded = 0, failed = 0;
    (void)state;
    run_all(false, ROUTED, &succeeded, &failed);
    assert_int_equal(failed, 0);
    run_all(true, ROUTED, &succeeded, &failed);
    print_message("%u calls succeeded, %u failed\n", succeeded, failed);
    assert_true(succeeded > failed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_faults_every_call_succeeds),
        cmocka_unit_test(with_faults_calls_end_once_and_are_not_doubled),
        cmocka_unit_test(under_a_policy_calls_end_once_with_a_whole_answer),
        cmocka_unit_test(hedged_calls_end_once_with_a_whole_answer),
        cmocka_unit_test(hedged_calls_under_a_policy_end_once_with_a_whole_answer),
        cmocka_unit_test(routed_calls_are_tried_copied_and_hedged_and_end_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
