#include "blocks/pubsub/delivery.h"

/* The tries of a delivery under the inbound policy of its component: retry(breaker(timeout(..))).
 * Of a batch only those come again that were not taken. When there are no more tries the outcome is
 * what it would have been without a policy: dead letter topic, or the broker's own redelivery. */

static void begin_try(outr__delivery *d);

static void on_timer(outr_timer *timer)
{
    outr__delivery *d = OUTR_CONTAINER(timer, outr__delivery, timer);
    if (d->is_resting) {
        d->is_resting = false;
        begin_try(d);
        return;
    }
    d->has_timed_out = true;
    d->s->deliverer->give_up(d); /* leads to its decision */
}

/* Those that are to come again to the front, in their order. Returns how many. */
static size_t sort_out(outr__delivery *d)
{
    outr__handed *sorted = outr_arena_alloc(d->arena, d->count * sizeof *sorted);
    size_t n = 0, again = 0;
    for (int pass = 0; pass < 2; pass++) {
        for (size_t i = 0; i < d->count; i++) {
            if ((d->items[i].outcome == OUTR__RETRY) == (pass == 0))
                sorted[n++] = d->items[i];
        }
        again = pass == 0 ? n : again;
    }
    memcpy(d->items, sorted, d->count * sizeof *sorted);
    return again;
}

static bool comes_again(const outr__delivery *d)
{
    for (size_t i = 0; i < d->count; i++) {
        if (d->items[i].outcome == OUTR__RETRY)
            return true;
    }
    return false;
}

void outr__delivery_decided(outr__delivery *d)
{
    outr_subscription *s = d->s;
    uint64_t now = outr_loop_now(s->loop), at;
    outr_timer_stop(s->loop, &d->timer);
    outr__delivery_count(d);
    if (!outr_guard_is_on(&d->guard)) {
        outr__delivery_conclude(d);
        return;
    }
    bool is_good = !comes_again(d);
    outr_guard_end(&d->guard, now,
                   is_good            ? OUTR_OUTCOME_GOOD
                   : d->has_timed_out ? OUTR_OUTCOME_TIMEOUT
                   : s->is_ending     ? OUTR_OUTCOME_NONE
                                      : OUTR_OUTCOME_BAD);
    d->has_timed_out = false;
    if (is_good || s->is_ending || outr_arena_is_over(d->arena) ||
        !outr_guard_again(&d->guard, now, -1, outr_loop_rand(s->loop), &at)) {
        outr__delivery_conclude(d);
        return;
    }
    d->count = sort_out(d);
    d->is_resting = true;
    outr_timer_start(s->loop, &d->timer, at);
}

static void begin_try(outr__delivery *d)
{
    outr_subscription *s = d->s;
    uint64_t now = outr_loop_now(s->loop), deadline;
    outr_err err;
    if (outr_guard_begin(&d->guard, now, &err)) {
        OUTR_LOG(s->log, WARN, "a message was not delivered", OUTR_S("topic", s->spec.topic),
                 OUTR_ERR(&err));
        for (size_t i = 0; i < d->count; i++)
            outr__delivery_decide(d, i, OUTR__RETRY, false);
        outr__delivery_count(d);
        outr__delivery_conclude(d);
        return;
    }
    if ((deadline = outr_guard_deadline(&d->guard, now)))
        outr_timer_start(s->loop, &d->timer, deadline);
    if (d->is_batch)
        s->deliverer->hand_over_batch(d);
    else
        s->deliverer->hand_over(d);
}

void outr__delivery_begin(outr__delivery *d)
{
    outr_subscription *s = d->s;
    d->total = d->count;
    d->timer.fire = on_timer;
    outr_guard_init(&d->guard, outr_view_policies(s->view), OUTR_POLICY_PUBSUB, OUTR_INBOUND,
                    s->spec.pubsub, s->spec.pubsub, outr_loop_now(s->loop),
                    outr_loop_metrics(s->loop));
    begin_try(d);
}

void outr__delivery_give_up(outr__delivery *d)
{
    if (!d->is_resting) {
        d->s->deliverer->give_up(d);
        return;
    }
    d->is_resting = false;
    outr_timer_stop(d->s->loop, &d->timer);
    outr__delivery_conclude(d);
}
