#include "mesh/mirror.h"

/* Under way in one loop; with their bodies at most 16 MiB. */
#define IN_FLIGHT_MAX 64
#define ARENA_MAX     OUTR_MIB

typedef struct answer {
    int status, grpc_status; /* status 0: none came */
    uint64_t digest;
    bool is_whole;
} answer;

struct outr__mirror {
    outr_mesh *mesh; /* NULL: it has ended */
    outr_arena *arena;
    outr_snapshot *snapshot; /* holds labels and names */
    outr_link link;          /* in mesh's, when is_sent */
    outr_str app_id, namespace_;
    outr_http_request req;
    outr_memory_source body;
    outr__pick pick;
    outr_http_call http;
    outr_op op;
    outr_sink rest; /* takes its answer */
    outr__tap own;
    outr__tap *primary; /* on the call's arena; NULL: not tapped */
    answer mine, theirs;
    bool has_call; /* the call is not over */
    bool is_compared, is_proxied, is_sent, is_over;
};

/* ---- taps ------------------------------------------------------------------------------------ */

/* FNV-1a: it tells two answers apart; nobody gains by making them alike. */
#define DIGEST_START UINT64_C(0xcbf29ce484222325)

static uint64_t digest(uint64_t before, outr_str bytes)
{
    for (size_t i = 0; i < bytes.n; i++)
        before = (before ^ (unsigned char)bytes.p[i]) * UINT64_C(0x100000001b3);
    return before;
}

static int status_of(const outr_headers *headers)
{
    uint64_t code;
    outr_str text = headers ? outr_headers_get(headers, "grpc-status") : OUTR_STR_NONE;
    return outr_str_to_u64(text, 999, &code) ? (int)code : -1;
}

static bool tap_data(outr_sink *sink, outr_slice own_slice)
{
    outr__tap *t = OUTR_CONTAINER(sink, outr__tap, sink);
    outr_sink *to = t->source.sink;
    t->digest = digest(t->digest, outr_str_of(own_slice.p, own_slice.n));
    return to->ops->data(to, own_slice);
}

static outr_sink *uncouple(outr__tap *t)
{
    outr_sink *to = t->source.sink;
    t->sink.source = NULL;
    t->source.sink = NULL;
    to->source = NULL;
    return to;
}

static void tap_end(outr_sink *sink, const outr_headers *trailers)
{
    outr__tap *t = OUTR_CONTAINER(sink, outr__tap, sink);
    if (t->grpc_status < 0)
        t->grpc_status = status_of(trailers);
    t->has_ended = true;
    outr_sink *to = uncouple(t);
    to->ops->end(to, trailers);
}

static void tap_abort(outr_sink *sink, const outr_err *err)
{
    outr_sink *to = uncouple(OUTR_CONTAINER(sink, outr__tap, sink));
    to->ops->abort(to, err);
}

static const outr_sink_ops tap_sink_ops = {.data = tap_data, .end = tap_end, .abort = tap_abort};

static void tap_start(outr_source *source)
{
    outr__tap *t = OUTR_CONTAINER(source, outr__tap, source);
    outr_source_attach(t->sink.source, &t->sink);
}

static void tap_resume(outr_source *source)
{
    outr_source_resume(OUTR_CONTAINER(source, outr__tap, source)->sink.source);
}

static void tap_cancel(outr_source *source, const outr_err *err)
{
    outr__tap *t = OUTR_CONTAINER(source, outr__tap, source);
    outr_source *from = t->sink.source;
    t->sink.source = NULL;
    outr_source_cancel(from, err);
}

static const outr_source_ops tap_source_ops = {
    .start = tap_start, .resume = tap_resume, .cancel = tap_cancel};

static void put_tap(outr__tap *t, outr_http_call *http)
{
    *t = (outr__tap){.source = {.ops = &tap_source_ops},
                     .sink = {.ops = &tap_sink_ops},
                     .digest = DIGEST_START,
                     .grpc_status = status_of(&http->head.headers),
                     .has_ended = !http->response};
    if (!http->response)
        return;
    t->source.length = http->response->length;
    t->sink.source = http->response;
    http->response = &t->source;
}

static answer read_tap(const outr__tap *t, int status)
{
    return (answer){.status = status,
                    .grpc_status = t->grpc_status,
                    .digest = t->digest,
                    .is_whole = t->has_ended};
}

/* ---- the end --------------------------------------------------------------------------------- */

static void count(const outr__mirror *m, const char *result)
{
    static const outr_metric_desc mirrored = {
        "outrigger_mirror_total",
        "copies of calls: sent, or how their answers compare (same, status, body), failed, skipped",
        OUTR_COUNTER,
        0,
        {"target", "result"}};
    outr_metric_count(outr_loop_metrics(m->mesh->o.loop), &mirrored,
                      (const outr_str[]){m->app_id, outr_str_from(result)}, 1);
}

static const char *result_of(const outr__mirror *m)
{
    const answer *a = &m->mine, *b = &m->theirs;
    if (a->status == 0)
        return "failed";
    if (!m->is_compared)
        return a->is_whole ? "sent" : "failed";
    if (a->status != b->status)
        return "status";
    if (!a->is_whole || !b->is_whole)
        return "failed";
    if (a->grpc_status != b->grpc_status)
        return "status";
    return a->digest == b->digest ? "same" : "body";
}

static void free_mirror(outr__mirror *m)
{
    outr_snapshot_unref(m->snapshot);
    outr_arena_free(m->arena);
}

static void free_if_over(outr__mirror *m)
{
    if (m->has_call || (m->is_sent && !m->is_over))
        return;
    if (m->mesh)
        count(m, m->is_sent ? result_of(m) : "skipped");
    free_mirror(m);
}

/* ---- the copy -------------------------------------------------------------------------------- */

static void let_go(outr__mirror *m)
{
    if (m->pick.peer)
        outr__pick_release(&m->pick, false);
    outr__pick_end(&m->pick);
    outr_link_remove(&m->link);
    m->mesh->mirror_count--;
}

static void on_done(outr_op *op)
{
    outr__mirror *m = OUTR_CONTAINER(op, outr__mirror, op);
    if (m->mesh) {
        bool has_answer = m->http.progress == OUTR_CALL_ANSWERED;
        m->mine = read_tap(&m->own, has_answer ? m->http.head.status : 0);
        m->mine.is_whole &= op->err.code == OUTR_OK;
        let_go(m);
    }
    m->is_over = true;
    free_if_over(m);
}

static bool rest_data(outr_sink *sink OUTR_UNUSED, outr_slice own_slice)
{
    outr_slice_done(&own_slice);
    return true;
}
static void rest_end(outr_sink *sink, const outr_headers *trailers OUTR_UNUSED)
{
    sink->source = NULL;
}
static void rest_abort(outr_sink *sink, const outr_err *err OUTR_UNUSED)
{
    sink->source = NULL;
}
static const outr_sink_ops rest_ops = {.data = rest_data, .end = rest_end, .abort = rest_abort};

static void on_response(outr_http_call *http)
{
    outr__mirror *m = http->user;
    put_tap(&m->own, http);
    m->rest.ops = &rest_ops;
    if (http->response)
        outr_source_attach(http->response, &m->rest);
}

/* A daprd would have to be asked in other words; only gRPC passes as it is. */
static outr_code on_place(outr_http_call *http, outr_err *err)
{
    outr__mirror *m = http->user;
    outr__pick_placed(&m->pick);
    if (m->is_proxied || http->peer_setting == OUTR_MESH_SETTINGS_VALUE)
        return OUTR_OK;
    return outr_fail(err, OUTR_UNIMPLEMENTED, "calls are not mirrored to a daprd");
}

static void on_picked(outr_op *op)
{
    outr__mirror *m = OUTR_CONTAINER(op, outr__mirror, op);
    uint64_t deadline = op->deadline_ns;
    if (!m->mesh || !m->pick.peer || op->err.code) {
        on_done(op);
        return;
    }
    m->http = (outr_http_call){.req = &m->req,
                               .body = m->body.bytes.n ? &m->body.base : NULL,
                               .on_response = on_response,
                               .on_place = on_place,
                               .user = m,
                               .ends_with_answer = m->is_proxied,
                               .arena = m->arena};
    outr_op_init(&m->op, m->mesh->o.loop, NULL, deadline, on_done);
    outr_http_call_start(outr__peer_pool(m->pick.peer), &m->http, &m->op);
}

static bool is_of_the_call(outr_str name)
{
    return outr_str_iis(name, "outrigger-timeout") || outr_str_iis(name, "grpc-timeout") ||
           outr_str_iis(name, "dapr-callee-app-id");
}

static void copy_request(outr__mirror *m, const outr_http_request *req)
{
    outr_headers *out = &m->req.headers;
    m->req = *req;
    m->req.method = outr_arena_str(m->arena, req->method);
    m->req.scheme = outr_arena_str(m->arena, req->scheme);
    m->req.target = outr_arena_str(m->arena, req->target);
    m->req.authority = m->app_id;
    outr_headers_init(out, m->arena);
    for (size_t i = 0; i < req->headers.count; i++) {
        const outr_header *h = &req->headers.items[i];
        if (is_of_the_call(h->name))
            continue;
        outr_headers_add(out, outr_arena_str(m->arena, h->name),
                         outr_arena_str(m->arena, h->value));
        out->items[out->count - 1].is_unindexed = h->is_unindexed;
    }
    outr_headers_add(out, OUTR_STR("dapr-callee-app-id"), m->app_id);
    outr_headers_add(out, OUTR_STR(OUTR__MIRROR_HEADER), OUTR_STR("1"));
}

void outr__mirror_send(outr__mirror *m, const outr_http_request *req, const outr_str *body,
                       bool is_proxied)
{
    outr_loop *loop = m->mesh->o.loop;
    char *copy = body ? outr_arena_try(m->arena, body->n + 1) : NULL;
    if (m->mesh->mirror_count >= IN_FLIGHT_MAX || (body && !copy))
        return; /* it is counted as skipped when the call ends */
    m->is_sent = true;
    m->is_proxied = is_proxied;
    copy_request(m, req);
    if (body) {
        memcpy(copy, body->p, body->n);
        outr_memory_source_init(&m->body, loop, outr_str_of(copy, body->n));
    }
    m->mesh->mirror_count++;
    outr_list_push(&m->mesh->mirrors, &m->link);
    m->pick.app_id = m->app_id;
    m->pick.namespace_ = m->namespace_;
    m->pick.is_counted = true; /* the budget is for what callers ask for */
    outr_op_init(&m->op, loop, NULL, outr_loop_now(loop) + OUTR__MIRROR_NS, on_picked);
    outr__pick_start(m->mesh->peers, &m->pick, m->arena, &m->op);
}

/* ---- the call's side ------------------------------------------------------------------------- */

outr__mirror *outr__mirror_new(outr_mesh *mesh, const outr_snapshot *snapshot,
                               const outr_mirror_spec *spec, const outr__target *target)
{
    if (!spec->is_on || outr_rand_unit(outr_loop_rand(mesh->o.loop)) * 100 >= spec->percent)
        return NULL;
    outr_arena *arena = outr_arena_new(ARENA_MAX);
    outr__mirror *m = outr_arena_alloc(arena, sizeof *m);
    m->mesh = mesh;
    m->arena = arena;
    m->snapshot = outr_snapshot_ref(snapshot);
    bool is_same = spec->app_id.n == 0;
    outr_str id, namespace_ = outr_str_cut(spec->app_id, '.', &id);
    m->app_id = is_same ? outr_arena_str(arena, target->app_id) : id;
    m->namespace_ = is_same        ? outr_arena_str(arena, target->namespace_)
                    : namespace_.n ? namespace_
                                   : mesh->o.settings->namespace_;
    m->pick.labels = spec->to ? &spec->to->labels : NULL;
    m->is_compared = spec->is_compared;
    m->has_call = true;
    return m;
}

void outr__mirror_tap(outr__mirror *m, outr_http_call *http, outr_arena *arena)
{
    if (!m->is_compared || !m->is_sent)
        return;
    m->primary = outr_arena_alloc(arena, sizeof *m->primary);
    m->theirs.status = http->head.status;
    put_tap(m->primary, http);
}

void outr__mirror_end(outr__mirror *m, bool has_answer)
{
    if (has_answer && m->primary)
        m->theirs = read_tap(m->primary, m->theirs.status);
    else if (has_answer) /* it came before the request was all there */
        m->is_compared = false;
    else
        m->theirs = (answer){0};
    m->has_call = false;
    free_if_over(m);
}

void outr__mirrors_abandon(outr_mesh *mesh)
{
    while (!outr_list_is_empty(&mesh->mirrors)) {
        outr__mirror *m = OUTR_LIST_ITEM(mesh->mirrors.next, outr__mirror, link);
        let_go(m);
        m->mesh = NULL;
        outr_op_cancel(&m->op, OUTR_CANCELLED); /* m may be gone */
    }
}
