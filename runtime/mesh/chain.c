#include "mesh/chain.h"

static void go_on(outr_chain_run *run);

static void on_waited(outr_op *op)
{
    outr_chain_run *run = OUTR_CONTAINER(op, outr_chain_run, op);
    if (op->err.code) {
        outr_err err = op->err;
        run->done(run, OUTR_MIDDLEWARE_ANSWER, &err);
    } else if (run->call.verdict == OUTR_MIDDLEWARE_ANSWER) {
        run->done(run, OUTR_MIDDLEWARE_ANSWER, NULL);
    } else {
        go_on(run);
    }
}

static void go_on(outr_chain_run *run)
{
    outr_middleware_verdict verdict = OUTR_MIDDLEWARE_PASS;
    while (verdict == OUTR_MIDDLEWARE_PASS && run->at < run->chain->count) {
        outr_middleware *m = run->chain->items[run->at++];
        outr_op_init(&run->op, run->call.loop, NULL, 0, on_waited);
        verdict = m->backend->handle(m, &run->call, &run->op);
    }
    if (verdict != OUTR_MIDDLEWARE_WAIT)
        run->done(run, verdict, NULL);
}

void outr_chain_start(outr_chain_run *run)
{
    run->at = 0;
    outr_headers_init(&run->call.extra, run->call.arena);
    go_on(run);
}

void outr_chain_cancel(outr_chain_run *run)
{
    outr_op_cancel(&run->op, OUTR_CANCELLED);
}
