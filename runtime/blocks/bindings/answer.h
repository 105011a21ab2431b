/* answer - what an app's answer to an event asks for: state to save, data to send on to output
 * bindings. Source: contract/grpc-messages.csv (BindingEventResponse).
 *
 * Stays on the op's loop. A failure of one part is logged here and does not undo the event; in
 * sequence it ends the sending. */
#ifndef OUTR_BLOCKS_BINDINGS_ANSWER_H
#define OUTR_BLOCKS_BINDINGS_ANSWER_H

#include "blocks/bindings/output.h"

typedef struct outr_binding_answer {
    /* in: all on arena, or living as long */
    outr_arena *arena;
    outr_view *view; /* pinned by the caller until the op is done */
    const outr_settings *settings;
    const outr_log *log;
    outr_str binding; /* whose event it was, for the log */
    outr_str store_name;
    outr_state_write *states; /* keys as the app gave them */
    size_t state_count;
    const outr_str *to;
    size_t to_count;
    outr_str data;
    bool is_parallel;
    /* machinery */
    outr_state_writes writes;
    outr_state_store *store;
    outr_guarded guarded;
    outr_op state_op;
    struct outr__binding_part *parts;
    size_t started, running;
    bool has_failed;
    outr_op *op;
} outr_binding_answer;

/* Done when everything is; succeeds. */
void outr_binding_answer_start(outr_binding_answer *answer, outr_op *op);

#endif
