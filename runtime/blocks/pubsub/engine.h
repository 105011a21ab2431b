/* engine - what the files of pubsub/ share of the engine. */
#ifndef OUTR_BLOCKS_PUBSUB_ENGINE_H
#define OUTR_BLOCKS_PUBSUB_ENGINE_H

#include "blocks/pubsub/stream.h"

/* Streams, on their loop. A place is taken before a stream is opened: after the stop has begun
 * there are none, and the stop waits for those taken. */
bool outr__engine_take_place(outr_pubsub *engine, const outr_loop *loop);
void outr__engine_leave_place(outr_pubsub *engine, const outr_loop *loop);
void outr__engine_equip(outr_pubsub *engine, outr_subscription *sub); /* settings, log, host */
void outr__engine_list(outr_event_stream *stream); /* from now on metadata shows it */
void outr__engine_unlist(outr_event_stream *stream);

#endif
