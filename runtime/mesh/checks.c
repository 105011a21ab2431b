#include "mesh/checks.h"

#define AT_ONCE 16 /* instances asked in one round; of more the next ones are in the next */

typedef struct outr__check {
    outr__peers *peers;
    outr__known *known;
    outr_timer timer;
    outr_list asks;
    size_t from; /* which of the ejected ones are next */
} outr__check;

/* One question to one instance. */
typedef struct ask {
    outr_link link;     /* in the check's */
    outr__check *check; /* NULL: it has ended meanwhile */
    outr__peers *peers;
    outr__callee *callee;     /* a ref */
    outr__instance *instance; /* held */
    outr__peer *peer;
    outr_arena *arena;
    outr_http_request req;
    outr_http_call http;
    outr_op op;
    bool is_ping; /* any answer is a good one */
    bool is_good;
} ask;

/* ---- one question ---------------------------------------------------------------------------- */

static void on_response(outr_http_call *http)
{
    ask *a = http->user;
    bool is_of_sidecar = outr_headers_has(&http->head.headers, OUTR__ERROR_HEADER);
    a->is_good =
        a->is_ping || (!is_of_sidecar && outr_classify_http(http->head.status) == OUTR_CLASS_GOOD);
    if (http->response)
        outr_source_cancel(http->response, NULL);
}

static void make_ping(ask *a)
{
    a->is_ping = true;
    a->req.method = OUTR_STR("OPTIONS"); /* RFC 9110 section 9.3.7: "can be used as a ping" */
    a->req.target = OUTR_STR("*");
    outr_headers_init(&a->req.headers, a->arena);
}

/* A daprd takes no GET as it is. */
static outr_code on_place(outr_http_call *http, outr_err *err OUTR_UNUSED)
{
    ask *a = http->user;
    if (http->peer_setting != OUTR_MESH_SETTINGS_VALUE && !a->is_ping)
        make_ping(a);
    return OUTR_OK;
}

static void count_check(const outr__peers *p, const outr__callee *callee, bool is_good)
{
    static const outr_metric_desc checks = {"outrigger_health_checks_total",
                                            "ejected instances that were asked whether they are "
                                            "well",
                                            OUTR_COUNTER,
                                            0,
                                            {"target", "result"}};
    const outr_str labels[] = {outr_str_from(callee->name),
                               is_good ? OUTR_STR("good") : OUTR_STR("bad")};
    outr_metric_count(outr_loop_metrics(p->o->loop), &checks, labels, 1);
}

static void on_asked(outr_op *op)
{
    ask *a = OUTR_CONTAINER(op, ask, op);
    outr__peers *p = a->peers;
    if (a->check) { /* else the peers are no more, and their loop may not be */
        count_check(p, a->callee, a->is_good);
        a->peer->holds--;
        if (a->is_good)
            outr__callee_open_probe(a->callee, a->instance, outr_loop_now(op->loop));
        outr_link_remove(&a->link);
    }
    outr__instance_release(a->instance);
    outr__callee_unref(a->callee);
    outr_arena_free(a->arena);
    p->asks--;
    outr__peers_free_if_over(p);
}

static void start_ask(outr__check *c, outr__instance *own_instance, const outr__check_rules *rules)
{
    outr__peers *p = c->peers;
    const outr_mesh_options *o = p->o;
    outr_arena *arena = outr_arena_new(OUTR_MIB);
    ask *a = outr_arena_alloc(arena, sizeof *a);
    a->check = c;
    a->peers = p;
    a->arena = arena;
    a->callee = outr__callee_ref(p->callees, outr_str_from(c->known->name), true);
    a->instance = own_instance;
    a->peer = outr__peer_of(p, c->known, own_instance);
    a->peer->holds++;
    a->req = (outr_http_request){.method = OUTR_STR("GET"),
                                 .scheme = o->peer_tls ? OUTR_STR("https") : OUTR_STR("http"),
                                 .authority = outr_arena_str(arena, c->known->app_id),
                                 .target = outr_arena_str(arena, rules->path)};
    outr_headers *headers = &a->req.headers;
    outr_headers_init(headers, arena);
    outr_headers_add(headers, OUTR_STR("dapr-caller-app-id"), o->settings->app_id);
    outr_headers_add(headers, OUTR_STR("dapr-caller-namespace"), o->settings->namespace_);
    outr_headers_add(headers, OUTR_STR("dapr-callee-app-id"), a->req.authority);
    if (rules->path.n == 0)
        make_ping(a);
    a->http = (outr_http_call){.req = &a->req,
                               .on_response = on_response,
                               .on_place = on_place,
                               .user = a,
                               .arena = arena};
    p->asks++;
    outr_list_push(&c->asks, &a->link);
    outr_op_init(&a->op, o->loop, NULL, outr_loop_now(o->loop) + rules->timeout_ns, on_asked);
    outr_http_call_start(a->peer->pool, &a->http, &a->op);
}

/* ---- rounds ---------------------------------------------------------------------------------- */

static void end(outr__peers *p, outr__known *k)
{
    outr__check *c = k->check;
    outr_timer_stop(p->o->loop, &c->timer);
    for (outr_link *link; (link = outr_list_pop(&c->asks));) {
        ask *a = OUTR_LIST_ITEM(link, ask, link);
        a->check = NULL;
        a->peer->holds--;
        outr_op_cancel(&a->op, OUTR_CANCELLED);
    }
    k->check = NULL;
    k->picks--;
    free(c);
}

static void on_timer(outr_timer *timer)
{
    outr__check *c = OUTR_CONTAINER(timer, outr__check, timer);
    outr__peers *p = c->peers;
    outr__known *k = c->known;
    outr__instance *due[AT_ONCE];
    outr__check_rules rules;
    size_t n = outr__callee_begin_checks(k->callee, outr_loop_now(p->o->loop), &rules, &c->from,
                                         due, AT_ONCE);
    if (!rules.is_on) {
        end(p, k);
        return;
    }
    /* those of the last round had their time, which is no longer than the pause */
    bool is_late = !outr_list_is_empty(&c->asks);
    for (size_t i = 0; i < n; i++) {
        if (is_late)
            outr__instance_release(due[i]);
        else
            start_ask(c, due[i], &rules);
    }
    free((void *)rules.path.p);
    outr_timer_start(p->o->loop, timer, outr_loop_now(p->o->loop) + rules.interval_ns);
}

void outr__check_begin(outr__peers *p, outr__known *k)
{
    uint64_t interval_ns;
    if (k->check || !outr__callee_claim_checks(k->callee, &interval_ns))
        return;
    outr__check *c = outr_alloc(sizeof *c);
    c->peers = p;
    c->known = k;
    c->timer.fire = on_timer;
    outr_list_init(&c->asks);
    k->check = c;
    k->picks++;
    outr_timer_start(p->o->loop, &c->timer, outr_loop_now(p->o->loop) + interval_ns);
}

void outr__check_end(outr__peers *p, outr__known *k)
{
    if (!k->check)
        return;
    outr__callee_end_checks(k->callee);
    end(p, k);
}
