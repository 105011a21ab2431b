/* Spans on their way to a collector that answers, refuses, hangs, breaks off and cannot be reached,
 * over HTTP and gRPC, under seeded faults of the network. Whatever happens: every span is counted
 * exactly once, as exported or as dropped; what counts as exported has been at the collector; the
 * end comes in its time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "grpc/status.h"
#include "lib/otlp.h"
#include "lib/web.h"
#include "lib/wire.h"
#include "observe/export.h"

#define SEEDS    200
#define TURNS    60
#define PATIENCE (2 * OUTR_SEC)

typedef struct world {
    wire w;
    outr_metrics *metrics;
    outr_http_server *server;
    outr_exporter *exporter;
    outr_tracer *tracer;
    outr_op closing;
    bool is_closed, is_grpc;
    uint64_t recorded, arrived;
    unsigned bad_percent, hang_percent;
} world;

/* ---- the collector ----------------------------------------------------------------------------- */

static void on_hung_gone(outr_exchange *x, const outr_err *err)
{
    (void)err;
    x->on_gone = NULL;
    outr_http_done(x);
}

static void on_body(outr_gather *gather, const outr_err *err)
{
    outr_exchange *x = gather->ctx;
    world *w = x->user;
    outr_str body = outr_buf_view(&gather->body);
    unsigned spans = err ? 0 : otlp_count_spans(w->is_grpc ? outr_str_skip(body, 5) : body);
    uint64_t dice = outr_rand_below(&w->w.rand, 100);
    outr_buf_done(&gather->body);
    if (err) {
        outr_http_done(x);
        return;
    }
    if (dice < w->hang_percent) {
        x->on_gone = on_hung_gone;
        return;
    }
    x->on_gone = NULL;
    if (dice >= w->hang_percent + w->bad_percent) {
        w->arrived += spans;
        if (w->is_grpc)
            otlp_answer_grpc(x);
        else
            web_answer(x, 200, "");
    } else if (w->is_grpc) {
        outr_grpc_refuse(x, dice % 2 ? OUTR_UNAVAILABLE : OUTR_INVALID_ARGUMENT, OUTR_STR("no"));
    } else {
        web_answer(x, dice % 2 ? 503 : 400, "no");
    }
}

static void on_request(void *ctx, outr_exchange *x)
{
    outr_gather *gather = outr_arena_alloc(x->arena, sizeof *gather);
    x->user = ctx;
    if (x->body)
        outr_gather_start(gather, x->body, OUTR_MIB, on_body, x);
    else
        web_answer(x, 400, "");
}

static const outr_http_handler handler = {.on_request = on_request};

static void on_accept(void *ctx, outr_stream *own_stream)
{
    outr_http_server_take(((world *)ctx)->server, own_stream);
}

/* ---- the world --------------------------------------------------------------------------------- */

static void record(world *w)
{
    static const outr_trace_config always = {true, 1, NULL};
    outr_trace none = {0}, trace;
    outr_trace_start(&trace, &none, &always, outr_loop_rand(w->w.loop));
    outr_span span = {.trace = &trace,
                      .kind = OUTR_SPAN_SERVER,
                      .name = OUTR_STR("CallLocal/a/b"),
                      .began_ns = outr_loop_now(w->w.loop)};
    outr_span_add(&span, "dapr.protocol", OUTR_STR("http"));
    outr_span_record(w->tracer, &span);
    w->recorded++;
}

/* The sum of all series of a counter. */
static uint64_t counted(const world *w, const char *name)
{
    OUTR_AUTO(outr_buf) out = OUTR_BUF_MAX(OUTR_MIB);
    double sum = 0, value;
    outr_metrics_write(w->metrics, &out);
    outr_str rest = outr_buf_view(&out), line;
    while (rest.p) {
        rest = outr_str_cut(rest, '\n', &line);
        ptrdiff_t space = outr_str_rfind(line, ' ');
        if (outr_str_starts(line, outr_str_from(name)) && space > 0 &&
            outr_str_to_double(outr_str_skip(line, (size_t)space + 1), &value))
            sum += value;
    }
    return (uint64_t)sum;
}

static void on_closed(outr_op *op)
{
    OUTR_CONTAINER(op, world, closing)->is_closed = true;
}

static bool is_closed(void *ctx)
{
    return ((world *)ctx)->is_closed;
}

static void open_world(world *w, uint64_t seed)
{
    outr_err err;
    *w = (world){0};
    w->metrics = outr_metrics_new(
        &(outr_metrics_options){.app_id = OUTR_STR("me"), .shard_count = 1});
    wire_init_with(&w->w, seed, outr_metrics_shard(w->metrics, 0));
    outr_rand *rand = &w->w.rand;
    w->is_grpc = seed % 2;
    w->w.on_accept = on_accept;
    w->w.ctx = w;
    w->w.piece_max = (unsigned)outr_rand_below(rand, 4000);
    w->w.late_percent = (unsigned)outr_rand_below(rand, 30);
    w->w.break_per_mille = (unsigned)outr_rand_below(rand, 20);
    w->w.refuse_percent = (unsigned)outr_rand_below(rand, 60);
    w->bad_percent = (unsigned)outr_rand_below(rand, 50);
    w->hang_percent = (unsigned)outr_rand_below(rand, 40);
    w->server = outr_http_server_new(&(outr_http_server_options){
        .loop = w->w.loop, .handler = &handler, .ctx = w, .allow_h1 = true, .allow_h2 = true});
    const outr_exporter_options o = {
        .loop = w->w.loop,
        .service_name = OUTR_STR("me"),
        .otlp = {.address = OUTR_STR("10.0.0.1:4317"), .is_http = !w->is_grpc},
        .max_queued_bytes = outr_rand_below(rand, 2) ? 20000 : 0};
    if (outr_exporter_new(&w->exporter, &o, &err))
        fail_msg("%s", err.text);
    w->tracer = outr_tracer_new(&(outr_tracer_options){
        .loop = w->w.loop, .take = outr_exporter_take, .ctx = w->exporter});
}

/* Adds what became of the spans to the sums. */
static void run_seed(uint64_t seed, uint64_t *all_exported, uint64_t *all_dropped)
{
    world w;
    open_world(&w, seed);
    for (int i = 0; i < TURNS; i++) {
        uint64_t burst = outr_rand_below(&w.w.rand, 10) ? outr_rand_below(&w.w.rand, 5) : 300;
        while (burst-- > 0)
            record(&w);
        wire_sleep(&w.w, outr_rand_below(&w.w.rand, 3 * OUTR_SEC));
    }
    outr_tracer_free(w.tracer);
    wire_run(&w.w);
    outr_op_init(&w.closing, w.w.loop, NULL, 0, on_closed);
    outr_exporter_close(w.exporter, PATIENCE, &w.closing);
    if (!wire_until(&w.w, is_closed, &w, PATIENCE + OUTR_SEC))
        fail_msg("seed %llu: the end did not come", (unsigned long long)seed);
    uint64_t exported = counted(&w, "outrigger_trace_spans_exported_total"),
             dropped = counted(&w, "outrigger_trace_spans_dropped_total");
    if (exported + dropped != w.recorded)
        fail_msg("seed %llu: %llu recorded, %llu exported, %llu dropped", (unsigned long long)seed,
                 (unsigned long long)w.recorded, (unsigned long long)exported,
                 (unsigned long long)dropped);
    if (exported > w.arrived)
        fail_msg("seed %llu: %llu exported, %llu have arrived", (unsigned long long)seed,
                 (unsigned long long)exported, (unsigned long long)w.arrived);
    *all_exported += exported;
    *all_dropped += dropped;
    outr_http_server_free(w.server);
    wire_done(&w.w);
    outr_exporter_free(w.exporter);
    outr_metrics_free(w.metrics);
}

static void every_span_is_counted_once(void **state)
{
    uint64_t exported = 0, dropped = 0;
    (void)state;
    for (uint64_t seed = 1; seed <= SEEDS; seed++)
        run_seed(seed, &exported, &dropped);
    assert_true(exported > 10000 && dropped > 1000); /* both have happened */
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_span_is_counted_once)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
