/* chain - one request on its way through a pipeline of middlewares. */
#ifndef OUTR_MESH_CHAIN_H
#define OUTR_MESH_CHAIN_H

#include "components/middleware.h"

typedef struct outr_chain_run outr_chain_run;
struct outr_chain_run {
    const outr_chain *chain;   /* in; stays until done, as do the middlewares */
    outr_middleware_call call; /* in and out: loop, arena, req, body, client */
    /* PASS: nobody has answered it. ANSWER: call.answer. err: a middleware failed, or the run was
     * cancelled. Called once, perhaps before start returns. */
    void (*done)(outr_chain_run *run, outr_middleware_verdict verdict, const outr_err *err);
    void *user;
    /* machinery */
    size_t at;
    outr_op op;
};
void outr_chain_start(outr_chain_run *run);
void outr_chain_cancel(outr_chain_run *run); /* while it is not done */

#endif
