/* outbox - events that a state transaction sends, and sends only when it is done. Source:
 * contract/state.md (Outbox), so that sidecars of both kinds can share an app.
 *
 * Sending: for each value that a transaction saves, an event goes to a topic of the app's own, and
 * a marker of the event's id into the transaction. Delivering: every sidecar of the app reads that
 * topic; an event whose marker is there goes to its real topic, then the marker is deleted. So an
 * event is never of a transaction that was not done, and none of a done one is lost; it may come
 * twice when a sidecar dies in between. */
#ifndef OUTR_BLOCKS_OUTBOX_OUTBOX_H
#define OUTR_BLOCKS_OUTBOX_OUTBOX_H

#include "blocks/host.h"
#include "observe/trace.h"

typedef struct outr_outbox_spec {
    outr_str pubsub, topic;    /* where events are to go */
    outr_str internal_pubsub;  /* what they go through */
    bool discards_unknown;     /* an event without a marker is dropped, not asked for again */
} outr_outbox_spec;
/* What a state store's metadata says of it, borrowed; false: it has no outbox. */
bool outr_outbox_read(outr_outbox_spec *out, outr_kvs metadata);

/* ---- sending --------------------------------------------------------------------------------- */

typedef struct outr_outbox_send {
    /* in */
    outr_arena *arena;
    const outr_view *view; /* pinned by the caller until the op is done */
    const outr_settings *settings;
    outr_outbox_spec spec;
    const outr_trace *trace; /* may be NULL */
    /* in: the transaction, its keys as stored. out: what is to be run in its place */
    outr_state_write *writes;
    size_t count;
    /* machinery */
    outr_publish publish;
    outr_broker *broker;
    outr_op inner;
    outr_op *op;
} outr_outbox_send;
/* Done when all its events are with the internal pubsub; fails when one of them is not, then the
 * transaction must not be run. */
void outr_outbox_send_start(outr_outbox_send *send, outr_op *op);

/* ---- delivering ------------------------------------------------------------------------------ */

typedef struct outr_outbox outr_outbox; /* one for the process */

typedef struct outr_outbox_options {
    outr_loop *const *loops;
    size_t loop_count;
    const outr_settings *settings;
    outr_host *host;
    const outr_log *log;
} outr_outbox_options;

outr_outbox *outr_outbox_new(const outr_outbox_options *options);
/* All on the main loop. start: components are open. */
void outr_outbox_start(outr_outbox *outbox);
void outr_outbox_update(outr_outbox *outbox); /* components have changed, every loop has them */
void outr_outbox_stop(outr_outbox *outbox, outr_op *op); /* events in hand go back */
void outr_outbox_free(outr_outbox *outbox);

/* Of both sides: "<namespace><app id><topic>outbox" on arena, as the broker of c has it. */
outr_str outr__outbox_topic(outr_arena *arena, const outr_component *c, const outr_settings *s,
                            outr_str topic);

#endif
