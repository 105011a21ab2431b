#include "mesh/callees.h"

/* Metrics of each instance that is called. */

#define ARENA_MAX (256 * OUTR_MIB)

static const char *const outcomes[] = {
    [OUTR_CLASS_GOOD] = "good", [OUTR_CLASS_LOAD] = "load", [OUTR_CLASS_FAILURE] = "failure"};

typedef struct writer {
    outr_str app_id;
    outr_buf *out;
    const outr_callee_view *callees;
    size_t count;
} writer;

static void head(const writer *w, const char *name, const char *kind, const char *help)
{
    outr_buf_printf(w->out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind);
}

/* Labels by name, as all other lines have them. */
static void line(const writer *w, const char *name, outr_str instance, const char *outcome,
                 outr_str target, double value)
{
    outr_buf_printf(w->out, "%s{app_id=", name);
    outr_metric_write_value(w->out, w->app_id);
    outr_buf_z(w->out, ",instance=");
    outr_metric_write_value(w->out, instance);
    if (outcome)
        outr_buf_printf(w->out, ",outcome=\"%s\"", outcome);
    outr_buf_z(w->out, ",target=");
    outr_metric_write_value(w->out, target);
    outr_buf_printf(w->out, "} %.10g\n", value);
}

typedef enum gauge { SCORE, PENDING, USED } gauge;

static double value_of(const outr_endpoint_view *v, gauge what)
{
    switch (what) {
    case SCORE:
        return v->score_ms;
    case PENDING:
        return (double)v->pending;
    default:
        return v->state == OUTR_ENDPOINT_OK || v->state == OUTR_ENDPOINT_RAMPING;
    }
}

static void write_gauge(const writer *w, const char *name, const char *help, gauge what)
{
    size_t told = 0;
    head(w, name, "gauge", help);
    for (size_t i = 0; i < w->count; i++) {
        const outr_callee_view *c = &w->callees[i];
        double others = 0;
        bool has_others = false;
        for (size_t k = 0; k < c->count; k++) {
            double value = value_of(&c->items[k], what);
            if (told < OUTR_ENDPOINTS_TOLD) {
                told++;
                line(w, name, c->items[k].address, NULL, c->name, value);
            } else {
                others += value;
                has_others = true;
            }
        }
        if (has_others && what != SCORE) /* of scores there is no sum */
            line(w, name, OUTR_STR("other"), NULL, c->name, others);
    }
}

static void write_outcomes(const writer *w)
{
    static const char name[] = "outrigger_endpoint_outcomes_total";
    size_t told = 0;
    head(w, name, "counter", "calls by the instance they went to and how they ended");
    for (size_t i = 0; i < w->count; i++) {
        const outr_callee_view *c = &w->callees[i];
        double others[OUTR_LEN(outcomes)] = {0};
        for (size_t k = 0; k < c->count; k++) {
            bool is_told = told++ < OUTR_ENDPOINTS_TOLD;
            for (size_t o = 0; o < OUTR_LEN(outcomes); o++) {
                double n = (double)c->items[k].outcomes[o];
                if (is_told)
                    line(w, name, c->items[k].address, outcomes[o], c->name, n);
                else
                    others[o] += n;
            }
        }
        for (size_t o = 0; told > OUTR_ENDPOINTS_TOLD && o < OUTR_LEN(outcomes); o++) {
            if (others[o] > 0)
                line(w, name, OUTR_STR("other"), outcomes[o], c->name, others[o]);
        }
    }
}

void outr_mesh_write_endpoints(void *callees, outr_str app_id, uint64_t now_ns, outr_buf *out)
{
    outr_arena *arena = outr_arena_new(ARENA_MAX);
    outr_callee_view *views;
    writer w = {.app_id = app_id, .out = out};
    w.count = outr__callees_view(callees, now_ns, arena, &views);
    w.callees = views;
    if (w.count > 0) {
        write_outcomes(&w);
        write_gauge(&w, "outrigger_endpoint_score_ms",
                    "what an answer costs by what is known of the instance; 0: nothing is",
                    SCORE);
        write_gauge(&w, "outrigger_endpoint_pending", "calls that the instance has in hand",
                    PENDING);
        write_gauge(&w, "outrigger_endpoint_is_used",
                    "1: the instance gets calls; 0: it is ejected or cannot be connected to", USED);
    }
    outr_arena_free(arena);
}
