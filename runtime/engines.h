/* engines - the blocks' engines of the process: made, started, told of changes and ended together.
 *
 * All on the main loop. Zeroed there are none, which is fine for stop and free. */
#ifndef OUTR_ENGINES_H
#define OUTR_ENGINES_H

#include "blocks/bindings/bindings.h"
#include "blocks/configuration/configuration.h"
#include "blocks/outbox/outbox.h"
#include "blocks/pubsub/pubsub.h"

typedef struct outr_engines {
    outr_pubsub *pubsub;
    outr_bindings *bindings;
    outr_configurations *configurations;
    outr_outbox *outbox;
    outr_op inner;
    outr_op *stopping;
} outr_engines;

/* What pub/sub is made with serves all. */
void outr_engines_new(outr_engines *engines, const outr_pubsub_options *options);
/* What can be asked for at once needs the outbox; the others begin when the API is open. */
void outr_engines_prepare(outr_engines *engines);
void outr_engines_start(outr_engines *engines, const outr_snapshot *snapshot);
/* Components or subscriptions changed, and every loop has them. */
void outr_engines_update(outr_engines *engines, const outr_snapshot *snapshot);
/* Everything but pub/sub, which goes on until outr_pubsub_stop. */
void outr_engines_stop(outr_engines *engines, outr_op *op);
void outr_engines_free(outr_engines *engines);

#endif
