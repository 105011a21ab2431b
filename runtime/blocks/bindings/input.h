/* input - one input binding on its way to the app: whether the app wants it, events, outcome.
 *
 * Lives on one loop. Made and ended by the engine (bindings.h). */
#ifndef OUTR_BLOCKS_BINDINGS_INPUT_H
#define OUTR_BLOCKS_BINDINGS_INPUT_H

#include "app/channel.h"
#include "blocks/host.h"
#include "observe/trace.h"

#define OUTR_BINDING_CREDIT 64 /* events in the app's hands at once, per binding */

typedef struct outr_binding_input {
    outr_str name, route; /* on the set's arena; route begins with a slash */
    bool is_wanted;       /* for sure; else an HTTP app is asked with OPTIONS */
    const outr_settings *settings;
    const outr_log *log;
    outr_trace_config trace;
    outr_loop *loop;
    outr_app *app;
    outr_host *host;
    /* on loop */
    outr_view *view; /* pinned while it runs */
    const outr_component *component;
    outr_binding_reader *reader; /* NULL: not reading */
    outr_arena *arena;           /* of the question */
    outr_app_fetch question;
    outr_op op;
    outr_timer timer; /* asks again; then: deliveries have had their time */
    outr_list delivering;
    bool is_ending, is_closed;
    unsigned held; /* `ended` waits: its caller is still at work with what that lets go of */
    outr_op closing;
    void (*ended)(struct outr_binding_input *input);
    void *set; /* the engine's */
} outr_binding_input;

/* On its loop. */
void outr_binding_input_start(outr_binding_input *input);
/* Other components have changed: those that are gone are no longer held. */
void outr_binding_input_renew(outr_binding_input *input);
/* No new events. Those with the app have --dapr-graceful-shutdown-seconds to end; then
 * input->ended, once. */
void outr_binding_input_end(outr_binding_input *input);

#endif
