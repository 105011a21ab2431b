/* bindings - the engine above the input bindings: which of them the app wants, reading while it is
 * up and well.
 *
 * One for the process. An input binding lives on one loop (spread round robin); its deliveries go
 * through that loop's app channel. Output bindings need no engine: output.h. Source:
 * contract/http-routes.csv (rows APP), lifecycle.md. */
#ifndef OUTR_BLOCKS_BINDINGS_BINDINGS_H
#define OUTR_BLOCKS_BINDINGS_BINDINGS_H

#include "app/channel.h"
#include "blocks/host.h"

typedef struct outr_bindings outr_bindings;

typedef struct outr_bindings_options {
    outr_loop *const *loops;
    outr_app *const *apps; /* one per loop */
    struct outr_tracer *const *tracers; /* observe/span.h, one per loop, or NULL */
    size_t loop_count;
    const outr_settings *settings;
    outr_host *host;
    const outr_log *log;
} outr_bindings_options;

outr_bindings *outr_bindings_new(const outr_bindings_options *options);
/* All on the main loop. Watches the app: once it is up and healthy, reads from those input bindings
 * whose `direction` says input, and from those the app wants (OPTIONS <route>; gRPC:
 * ListInputBindings); stops while it is unhealthy. */
void outr_bindings_start(outr_bindings *bindings, const outr_snapshot *snapshot);
/* Components changed, and every loop has them. */
void outr_bindings_update(outr_bindings *bindings, const outr_snapshot *snapshot);
/* No new events; done when those with the app are settled. */
void outr_bindings_stop(outr_bindings *bindings, outr_op *op);
void outr_bindings_free(outr_bindings *bindings);

#endif
