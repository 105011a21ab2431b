#include "components/pubsub/redis/internal.h"

/* Acknowledging and releasing. What gathers in a turn goes out as one command. A message stays in
 * hand until Redis has confirmed, so that it is not taken for lost meanwhile; an acknowledgement
 * that does not get through is tried again as long as the subscription lives, a release is not:
 * then the message is found like any that was lost. */

#define IDS_MAX            512
#define CONFIRM_TIMEOUT_NS (5 * OUTR_SEC)

typedef struct confirmation {
    outr_broker_sub *sub;
    bool is_ack;
    outr_arena *arena;
    outr_redis_call call;
    outr_redis_command command;
    outr_op op;
    size_t count;
    outr__stream_item *items[];
} confirmation;

static void end_one(outr_broker_sub *sub, outr__stream_item *item, bool is_ack, bool is_done)
{
    sub->acking -= is_ack;
    if (!is_ack || is_done || sub->is_closing) {
        outr__stream_forget(sub, item);
        return;
    }
    sub->acking++;
    outr_list_push(&sub->acks, &item->link);
}

static void on_confirmed(outr_op *op)
{
    confirmation *c = OUTR_CONTAINER(op, confirmation, op);
    outr_broker_sub *sub = c->sub;
    outr_err err = op->err;
    if (!err.code)
        outr_redis_check(&c->call.replies[0], &err);
    if (err.code)
        OUTR_LOG(sub->broker->log, WARN,
                 c->is_ack ? "messages could not be acknowledged"
                           : "messages could not be given back, they come again later",
                 OUTR_S("topic", sub->topic), OUTR_I("messages", c->count), OUTR_ERR(&err));
    bool is_gone = err.code && outr_str_starts(outr_str_from(err.text), OUTR_STR("NOGROUP"));
    for (size_t i = 0; i < c->count; i++)
        end_one(sub, c->items[i], c->is_ack, !err.code || is_gone);
    sub->confirming--;
    outr_arena_free(c->arena);
    free(c);
    if (!err.code)
        sub->confirm_failures = 0;
    else if (!outr_list_is_empty(&sub->acks) && !outr_timer_is_on(&sub->confirm_again))
        outr_timer_start(sub->req.loop, &sub->confirm_again,
                         outr_loop_now(sub->req.loop) +
                             outr_redis_pause(sub->req.loop, sub->confirm_failures++));
    outr__stream_pump_soon(sub);
}

static void send_some(outr_broker_sub *sub, outr_list *list, bool is_ack)
{
    size_t count = 0;
    for (const outr_link *link = list->next; link != list && count < IDS_MAX; link = link->next)
        count++;
    confirmation *c = outr_alloc(sizeof *c + count * sizeof(outr__stream_item *));
    for (outr_link *link; c->count < count && (link = outr_list_pop(list));)
        c->items[c->count++] = OUTR_LIST_ITEM(link, outr__stream_item, link);
    c->sub = sub;
    c->is_ack = is_ack;
    c->arena = outr_arena_new(OUTR_MIB);
    outr_str *args = outr_arena_alloc(c->arena, (c->count + 8) * sizeof *args);
    size_t n = 0;
    args[n++] = is_ack ? OUTR_STR("XACK") : OUTR_STR("XCLAIM");
    args[n++] = sub->topic;
    args[n++] = sub->group;
    if (!is_ack) {
        args[n++] = sub->group;
        args[n++] = OUTR_STR("0");
    }
    for (size_t i = 0; i < c->count; i++)
        args[n++] = c->items[i]->id;
    if (!is_ack) {
        args[n++] = OUTR_STR("IDLE");
        args[n++] = outr_arena_printf(c->arena, "%lld", (long long)OUTR__STREAM_RELEASED_MS);
        args[n++] = OUTR_STR("JUSTID");
    }
    c->command = (outr_redis_command){args, n, sub->topic};
    c->call = (outr_redis_call){
        .arena = c->arena, .commands = &c->command, .count = 1, .is_repeatable = true};
    sub->confirming++;
    outr_op_init(&c->op, sub->req.loop, NULL,
                 outr_loop_now(sub->req.loop) + CONFIRM_TIMEOUT_NS, on_confirmed);
    outr_redis_call_start(sub->broker->redis, &c->call, &c->op);
}

static void on_confirm(outr_deferred *deferred)
{
    outr_broker_sub *sub = OUTR_CONTAINER(deferred, outr_broker_sub, confirmer);
    while (!outr_list_is_empty(&sub->acks) && !outr_timer_is_on(&sub->confirm_again))
        send_some(sub, &sub->acks, true);
    while (!outr_list_is_empty(&sub->releases))
        send_some(sub, &sub->releases, false);
}

static void on_confirm_again(outr_timer *timer)
{
    outr__stream_confirm_soon(OUTR_CONTAINER(timer, outr_broker_sub, confirm_again));
}

void outr__stream_confirm_init(outr_broker_sub *sub)
{
    outr_list_init(&sub->acks);
    outr_list_init(&sub->releases);
    sub->confirmer.run = on_confirm;
    sub->confirm_again.fire = on_confirm_again;
}

void outr__stream_confirm_soon(outr_broker_sub *sub)
{
    outr_loop_defer(sub->req.loop, &sub->confirmer);
}

void outr__stream_confirm_stop(outr_broker_sub *sub)
{
    outr_loop_undefer(&sub->confirmer);
    outr_timer_stop(sub->req.loop, &sub->confirm_again);
}

bool outr__stream_is_confirmed(const outr_broker_sub *sub)
{
    return sub->confirming == 0 && outr_list_is_empty(&sub->acks) &&
           outr_list_is_empty(&sub->releases);
}
