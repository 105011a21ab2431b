/* delivery - one event of an input binding in the app's hands: POST to its route, or
 * AppCallback/OnBindingEvent; then whatever the answer asks for; then it is settled. */
#ifndef OUTR_BLOCKS_BINDINGS_DELIVERY_H
#define OUTR_BLOCKS_BINDINGS_DELIVERY_H

#include "blocks/bindings/input.h"

/* Puts itself into input->delivering and leaves it when the event is settled. */
void outr__binding_deliver(outr_binding_input *input, outr_binding_event *event);
/* All that are out fail with CANCELLED. */
void outr__binding_give_up(outr_binding_input *input);

#endif
