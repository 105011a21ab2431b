#include <stdlib.h>
#include <time.h>

#include "base/clock.h"
#include "components/bindings.h"
#include "components/common/schedule.h"
#include "components/common/zone.h"

/* An event without data whenever a schedule is due. Times that pass while nobody reads, or while
 * as many events as the engine lets out are still with the app, are left out: a clock that went
 * on is no queue. */

extern const outr_binding_backend outr_bindings_cron;

/* The machine's clock may be set: it is looked at this often. */
#define LOOK_NS (30 * OUTR_SEC)

typedef struct config {
    outr_str schedule;
} config;

static const outr_bind_row rows[] = {
    {"schedule", NULL, OUTR_BIND_STR, OUTR_BIND_REQUIRED, offsetof(config, schedule), 0, 0, NULL,
     NULL, 0, "cron expression with seconds, or @every duration"},
};

typedef struct cron {
    outr_binding base;
    outr_schedule schedule; /* its texts: of text */
    outr_zone *zone;        /* from open on; NULL: the machine's own */
    const outr_log *log;
    char *name, *text;
} cron;

struct outr_binding_reader {
    cron *cron;
    outr_binding_read read;
    outr_timer timer;
    int64_t next_ns; /* by the machine's clock; not for @every */
    size_t unsettled;
    bool is_skipping;
    outr_op *stopping;
};

typedef struct tick {
    outr_binding_event event;
    outr_kv metadata[2];
    char time[64];
} tick;

static cron *of(outr_binding *base)
{
    return OUTR_CONTAINER(base, cron, base);
}

static int64_t zone_of(const void *ctx, int64_t unix_s)
{
    const cron *b = ctx;
    if (b->zone)
        return outr_zone_offset(b->zone, unix_s);
    time_t t = (time_t)unix_s;
    struct tm tm;
    return localtime_r(&t, &tm) ? tm.tm_gmtoff : 0;
}

/* "2026-01-02 15:04:05.25 +0000 UTC", as Go prints a time. */
static outr_str print_time(int64_t unix_ns, char out[64])
{
    char text[40];
    size_t n = outr_time_rfc3339_nano(unix_ns, text) - 1; /* without the Z */
    text[10] = ' ';
    while (text[n - 1] == '0')
        n--;
    if (text[n - 1] == '.')
        n--;
    return outr_str_of(out, (size_t)snprintf(out, 64, "%.*s +0000 UTC", (int)n, text));
}

static void fire(outr_binding_reader *r, int64_t now_ns)
{
    if (r->unsettled >= r->read.credit) {
        if (!r->is_skipping)
            OUTR_LOG(r->cron->log, WARN, "the app is slower than the schedule, times are left out",
                     OUTR_S("component", outr_str_from(r->cron->name)));
        r->is_skipping = true;
        return;
    }
    tick *t = outr_alloc(sizeof *t);
    t->metadata[0] = (outr_kv){OUTR_STR("readTimeUTC"), print_time(now_ns, t->time)};
    t->metadata[1] = (outr_kv){OUTR_STR("timeZone"),
                               OUTR_STR("Local")}; /* whatever the schedule's own zone is */
    t->event = (outr_binding_event){.metadata = {t->metadata, OUTR_LEN(t->metadata)},
                                    .binding_data = t};
    r->is_skipping = false;
    r->unsettled++;
    r->read.on_event(r->read.ctx, &t->event);
}

/* @every counts by the clock that nobody sets. The others wait for a time of day: the clock is
 * looked at again and again, and what is next is asked anew each time, so that a clock set back or
 * forward leaves nothing hanging. */
static void arm(outr_binding_reader *r, int64_t now_ns)
{
    outr_loop *loop = r->read.loop;
    uint64_t wait_ns;
    r->next_ns = outr_schedule_next(&r->cron->schedule, now_ns, zone_of, r->cron);
    if (r->next_ns == INT64_MAX)
        wait_ns = LOOK_NS;
    else
        wait_ns = (uint64_t)(r->next_ns - now_ns);
    if (r->cron->schedule.every_ns == 0)
        wait_ns = OUTR_MIN(wait_ns, LOOK_NS);
    outr_timer_start(loop, &r->timer, outr_loop_now(loop) + wait_ns);
}

static void on_timer(outr_timer *timer)
{
    outr_binding_reader *r = OUTR_CONTAINER(timer, outr_binding_reader, timer);
    int64_t now_ns = outr_loop_unix_ns(r->read.loop), next_ns = r->next_ns;
    arm(r, now_ns);
    if (r->cron->schedule.every_ns > 0 || now_ns >= next_ns)
        fire(r, now_ns);
}

static outr_code read_events(outr_binding *base, const outr_binding_read *req,
                             outr_binding_reader **out, outr_err *err OUTR_UNUSED)
{
    outr_binding_reader *r = outr_alloc(sizeof *r);
    r->cron = of(base);
    r->read = *req;
    r->timer.fire = on_timer;
    arm(r, outr_loop_unix_ns(req->loop));
    *out = r;
    return OUTR_OK;
}

static void settle(outr_binding_reader *r, outr_binding_event *event, outr_str answer OUTR_UNUSED,
                   const outr_err *err OUTR_UNUSED)
{
    outr_op *op = r->stopping;
    free(event->binding_data);
    if (--r->unsettled > 0 || !op)
        return;
    free(r);
    outr_op_finish(op);
}

static void stop(outr_binding_reader *r, outr_op *op)
{
    outr_op_begin(op, NULL, NULL);
    outr_timer_stop(r->read.loop, &r->timer);
    r->stopping = op;
    if (r->unsettled > 0)
        return;
    free(r);
    outr_op_finish_soon(op);
}

static void free_cron(cron *b)
{
    outr_zone_free(b->zone);
    free(b->name);
    free(b->text);
    free(b);
}

static outr_code create(outr_binding **out, const outr_component_init *init, outr_err *err)
{
    OUTR_AUTO(outr_err_list) errors = {0};
    config c = {0};
    if (outr_bind_kvs(rows, OUTR_LEN(rows), &c, init->metadata, &errors)) {
        *err = errors.items[0];
        return err->code;
    }
    cron *b = outr_alloc(sizeof *b);
    b->text = outr_str_dup(c.schedule);
    if (outr_schedule_parse(&b->schedule, outr_str_of(b->text, c.schedule.n), err)) {
        free_cron(b);
        return outr_wrap(err, "invalid schedule format '" OUTR_FMT "'", OUTR_ARG(c.schedule));
    }
    b->base.backend = &outr_bindings_cron;
    b->log = init->log;
    b->name = outr_str_dup(init->name);
    *out = &b->base;
    return OUTR_OK;
}

static void open_cron(outr_binding *base, outr_op *op)
{
    cron *b = of(base);
    outr_err err;
    outr_op_begin(op, NULL, NULL);
    if (b->schedule.zone.n > 0 && outr_zone_load(&b->zone, b->schedule.zone, &err)) {
        outr_wrap(&err, "schedule");
        outr_op_fail_soon(op, &err);
        return;
    }
    outr_op_finish_soon(op);
}

static void close_cron(outr_binding *base, outr_op *op)
{
    free_cron(of(base));
    outr_op_begin(op, NULL, NULL);
    outr_op_finish_soon(op);
}

static unsigned directions(const outr_binding *base OUTR_UNUSED)
{
    return OUTR_BINDING_INPUT;
}

const outr_binding_backend outr_bindings_cron = {
    .base = {"bindings.cron", "v1", rows, OUTR_LEN(rows)},
    .create = create,
    .open = open_cron,
    .close = close_cron,
    .directions = directions,
    .read = read_events,
    .settle = settle,
    .stop = stop,
};
