#include "blocks/pubsub/stream.h"

#include "base/copy.h"
#include "blocks/pubsub/engine.h"
#include "blocks/pubsub/event.h"

#define STREAM_ARENA (4 * OUTR_MIB)
/* How long a stop or a reload waits for a client's answers; half of what daprd gives all. */
#define ANSWERS_NS (2 * OUTR_SEC)

static outr_event_stream *of(outr_subscription *sub)
{
    return OUTR_CONTAINER(sub, outr_event_stream, sub);
}

/* ---- events out, answers in ------------------------------------------------------------------ */

static outr__delivery *of_link(outr_link *link)
{
    return OUTR_CONTAINER(link, outr__delivery, stream.link);
}

static void push(outr_event_stream *stream)
{
    if (stream->is_pushing)
        return;
    stream->is_pushing = true;
    while (!stream->is_full && !stream->is_closed && !outr_list_is_empty(&stream->waiting)) {
        outr__delivery *d = of_link(outr_list_pop(&stream->waiting));
        Dapr__Proto__Runtime__V1__TopicEventRequest event;
        outr__event_request(&event, d);
        d->stream.id = outr_json_text(d->items[0].event, "id");
        outr_list_push(&stream->in_hand, &d->stream.link);
        stream->is_full = !stream->on_event(stream, &event);
    }
    stream->is_pushing = false;
}

static void hand_over(outr__delivery *d)
{
    outr_event_stream *stream = of(d->s);
    outr_list_push(&stream->waiting, &d->stream.link);
    push(stream);
}

static void give_up(outr__delivery *d)
{
    outr_link_remove(&d->stream.link);
    outr__delivery_decide_all(d, OUTR__RETRY, false);
}

const outr__deliverer outr__deliver_stream = {.hand_over = hand_over, .give_up = give_up};

bool outr_event_stream_answer(outr_event_stream *stream, outr_str id, int status)
{
    outr__outcome how = outr__outcome_of_status(status);
    OUTR_LIST_EACH(link, &stream->in_hand) {
        outr__delivery *d = of_link(link);
        if (!outr_str_eq(d->stream.id, id))
            continue;
        outr_link_remove(link);
        outr__delivery_decide_all(d, how, how == OUTR__DROP);
        return true;
    }
    return false;
}

void outr_event_stream_go_on(outr_event_stream *stream)
{
    stream->is_full = false;
    push(stream);
}

/* ---- life ------------------------------------------------------------------------------------ */

static void end(outr_event_stream *stream)
{
    outr_err err = stream->err;
    outr_arena *arena = stream->arena;
    outr_pubsub *engine = stream->engine;
    const outr_loop *loop = stream->loop;
    outr__engine_unlist(stream);
    stream->on_end(stream, err.code ? &err : NULL); /* the stream is gone */
    outr_arena_free(arena);
    outr__engine_leave_place(engine, loop);
}

static void on_sub_ended(outr_subscription *sub)
{
    outr_event_stream *stream = of(sub);
    if (stream->is_moving && !stream->is_closed) {
        stream->is_moving = false;
        if (outr_subscription_start(sub, &stream->err) == OUTR_OK)
            return;
        stream->is_closed = true;
        outr_subscription_abandon(sub); /* comes back here */
        return;
    }
    end(stream);
}

outr_code outr_event_stream_open(outr_pubsub *pubsub, outr_event_stream *stream, outr_err *err)
{
    static const outr_subscription_rule everything = {.path = {"/", 1}};
    if (!outr__engine_take_place(pubsub, stream->loop))
        return outr_fail(err, OUTR_UNAVAILABLE, "the sidecar is stopping");
    outr_arena *arena = outr_arena_new(STREAM_ARENA);
    outr_subscription *sub = &stream->sub;
    stream->engine = pubsub;
    stream->arena = arena;
    stream->is_full = stream->is_closed = stream->is_moving = stream->is_pushing = false;
    outr_err_clear(&stream->err);
    outr_list_init(&stream->waiting);
    outr_list_init(&stream->in_hand);
    *sub = (outr_subscription){
        .spec = {.pubsub = outr_arena_str(arena, stream->pubsub),
                 .topic = outr_arena_str(arena, stream->topic),
                 .dead_letter_topic = outr_arena_str(arena, stream->dead_letter_topic),
                 .metadata = outr_kvs_copy(arena, stream->metadata),
                 .rules = &everything,
                 .rule_count = 1},
        .type = OUTR_SUB_STREAMING,
        .loop = stream->loop,
        .ended = on_sub_ended,
    };
    outr__engine_equip(pubsub, sub);
    outr_code rc = outr_subscription_prepare(sub, arena, err);
    if (!rc)
        rc = outr_subscription_start(sub, err);
    if (rc) {
        outr_view_unpin(sub->view);
        outr_arena_free(arena);
        outr__engine_leave_place(pubsub, stream->loop);
        return rc;
    }
    outr__engine_list(stream);
    return OUTR_OK;
}

void outr_event_stream_close(outr_event_stream *stream, const outr_err *err)
{
    if (stream->is_closed)
        return;
    stream->is_closed = true;
    if (err)
        stream->err = *err;
    outr_subscription_abandon(&stream->sub);
}

void outr__streams_update(outr_list *streams)
{
    OUTR_LIST_EACH(link, streams) {
        outr_event_stream *stream = OUTR_LIST_ITEM(link, outr_event_stream, link);
        if (stream->is_closed || outr_subscription_move(&stream->sub))
            continue;
        stream->is_moving = true;
        outr_subscription_end(&stream->sub, ANSWERS_NS);
    }
}

void outr__streams_stop(outr_list *streams)
{
    OUTR_LIST_EACH(link, streams) {
        outr_event_stream *stream = OUTR_LIST_ITEM(link, outr_event_stream, link);
        stream->is_moving = false;
        outr_subscription_end(&stream->sub, ANSWERS_NS);
    }
}
