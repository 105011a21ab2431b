/* worker - a thread for libraries that block; work goes in batches, results come back as ops.
 *
 * The handler gets everything that queued up since its last turn (at most max_batch), so that a
 * database can commit once for many callers. Work of one worker runs in order of submission. */
#ifndef OUTR_LOOP_WORKER_H
#define OUTR_LOOP_WORKER_H

#include "loop/op.h"

typedef struct outr_worker outr_worker;

typedef struct outr_work {
    outr_op *op;          /* finished on its own loop after the handler returned */
    outr_err err;         /* the handler's result for this item */
    outr_message message; /* machinery */
    struct outr_work *next;
    bool is_abandoned; /* atomic: caller cancelled; the handler may skip it */
} outr_work;

typedef struct outr_worker_options {
    const char *name; /* thread name, at most 15 bytes */
    /* On the worker's thread. items[0..count) are all to be handled before it returns. */
    void (*handle)(void *ctx, outr_work **items, size_t count);
    /* Optional: called when nothing was submitted for idle_ms. */
    void (*idle)(void *ctx);
    unsigned idle_ms;
    void *ctx;
    size_t max_batch;   /* 0: 256 */
    size_t max_pending; /* 0: 65536; over it submit fails with RESOURCE_EXHAUSTED */
} outr_worker_options;

outr_code outr_worker_open(outr_worker **out, const outr_worker_options *options, outr_err *err);
void outr_worker_close(outr_worker *worker); /* handles what is queued, joins; blocks */
/* From any loop's thread: begins op; the work item is the caller's and lives until done. A
 * cancelled op still waits for the handler (the item is memory in use). */
void outr_worker_submit(outr_worker *worker, outr_work *work, outr_op *op);
/* From any thread: one call without an op, for start-up and tests; runs work and waits. */
void outr_worker_call(outr_worker *worker, outr_work *work);

#endif
