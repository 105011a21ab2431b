#include "engines.h"

void outr_engines_new(outr_engines *e, const outr_pubsub_options *o)
{
    const outr_bindings_options bindings = {
        .loops = o->loops,
        .apps = o->apps,
        .tracers = o->tracers,
        .loop_count = o->loop_count,
        .settings = o->settings,
        .host = o->host,
        .log = o->log,
    };
    const outr_outbox_options outbox = {
        .loops = o->loops,
        .loop_count = o->loop_count,
        .settings = o->settings,
        .host = o->host,
        .log = o->log,
    };
    e->pubsub = outr_pubsub_new(o);
    e->bindings = outr_bindings_new(&bindings);
    e->configurations = outr_configurations_new(o->loops, o->loop_count, o->host);
    e->outbox = outr_outbox_new(&outbox);
}

void outr_engines_prepare(outr_engines *e)
{
    outr_outbox_start(e->outbox);
}

void outr_engines_start(outr_engines *e, const outr_snapshot *snapshot)
{
    outr_pubsub_start(e->pubsub, snapshot);
    outr_bindings_start(e->bindings, snapshot);
}

void outr_engines_update(outr_engines *e, const outr_snapshot *snapshot)
{
    outr_pubsub_update(e->pubsub, snapshot);
    outr_bindings_update(e->bindings, snapshot);
    outr_configurations_update(e->configurations);
    outr_outbox_update(e->outbox);
}

/* ---- stop: one after the other --------------------------------------------------------------- */

static void on_outbox_stopped(outr_op *inner)
{
    outr_engines *e = OUTR_CONTAINER(inner, outr_engines, inner);
    outr_op *op = outr_take(&e->stopping);
    outr_op_finish(op);
}

static void on_configurations_stopped(outr_op *inner)
{
    outr_engines *e = OUTR_CONTAINER(inner, outr_engines, inner);
    outr_op_init(&e->inner, inner->loop, NULL, 0, on_outbox_stopped);
    outr_outbox_stop(e->outbox, &e->inner);
}

static void on_bindings_stopped(outr_op *inner)
{
    outr_engines *e = OUTR_CONTAINER(inner, outr_engines, inner);
    outr_op_init(&e->inner, inner->loop, NULL, 0, on_configurations_stopped);
    outr_configurations_stop(e->configurations, &e->inner);
}

void outr_engines_stop(outr_engines *e, outr_op *op)
{
    outr_op_begin(op, e, NULL);
    if (!e->bindings) {
        outr_op_finish_soon(op);
        return;
    }
    e->stopping = op;
    outr_op_init(&e->inner, op->loop, NULL, 0, on_bindings_stopped);
    outr_bindings_stop(e->bindings, &e->inner);
}

void outr_engines_free(outr_engines *e)
{
    outr_pubsub_free(e->pubsub);
    outr_bindings_free(e->bindings);
    outr_configurations_free(e->configurations);
    outr_outbox_free(e->outbox);
}
