/* replay - a body that can be sent again: what was read of it is kept.
 *
 * A source in front of a source, on the arena of its request. Of a body longer than max nothing
 * more is kept from there on: it passes through, once. Who reads it may leave at any time; another
 * may begin anew then. */
#ifndef OUTR_MESH_REPLAY_H
#define OUTR_MESH_REPLAY_H

#include "http/message.h"
#include "net/pipe.h"

typedef struct outr__replay {
    outr_source source; /* what calls read */
    /* machinery */
    outr_sink sink;
    outr_loop *loop;
    outr_arena *arena;
    outr_source *from; /* NULL: all of it is here */
    struct outr__kept *first, *last, *at;
    size_t at_sent; /* of at */
    size_t kept, max;
    outr_bufq passing; /* beyond max */
    outr_headers trailers;
    bool is_started, has_ended, is_full;
    bool is_over;    /* longer than max */
    outr_err broken; /* from broke off */
    outr_deferred pusher;
    void (*on_complete)(struct outr__replay *replay, void *user); /* once; NULL: nobody asks */
    void *user;
} outr__replay;

void outr__replay_init(outr__replay *replay, outr_loop *loop, outr_arena *arena, outr_source *from,
                       size_t max);
void outr__replay_init_bytes(outr__replay *replay, outr_loop *loop, outr_arena *arena,
                             outr_str bytes);
/* The body from its first byte, for another call; the one before must be over. */
outr_source *outr__replay_again(outr__replay *replay);
/* Nothing of it is lost yet. */
static inline bool outr__replay_is_whole(const outr__replay *replay)
{
    return !replay->is_over;
}
/* All of it is here, and will be as often as it is sent. */
static inline bool outr__replay_is_complete(const outr__replay *replay)
{
    return replay->has_ended && !replay->is_over && !replay->broken.code;
}
/* Of a complete one: all of it in one, on the arena where it is not so already. */
outr_str outr__replay_bytes(const outr__replay *replay, outr_arena *arena);
/* Another reader of a complete one, which must outlive it; beside the first. */
void outr__replay_init_copy(outr__replay *copy, const outr__replay *of);
void outr__replay_done(outr__replay *replay); /* the rest is not wanted */

#endif
