#include "components/pubsub/redis/internal.h"

#include "base/json.h"

/* One line for a subscription, which does one thing at a time: it makes the group, looks for lost
 * messages, claims them, or waits for new ones; never for more than there is credit for. */

#define BLOCK_NS      (10 * OUTR_SEC)
#define PAGE          100 /* pending entries looked at in one go */
#define BATCH_MAX     (64 * OUTR_MIB)
#define BATCH_AIM     (2 * OUTR_MIB) /* so many bytes are asked for at once, as far as known */
#define ACKING_MAX    1024
#define PARKED_MAX    1024
#define UNBLOCK_AGAIN (10 * OUTR_MS)
#define UNBLOCKS_MAX  50 /* then the connection is given up instead */
#define RENEWAL_NS    (5 * OUTR_SEC) /* without processingTimeout: others may have one */

static uint64_t now(const outr_broker_sub *sub)
{
    return outr_loop_now(sub->req.loop);
}

void outr__stream_pump_soon(outr_broker_sub *sub)
{
    outr_loop_defer(sub->req.loop, &sub->pump);
}

/* ---- messages -------------------------------------------------------------------------------- */

void outr__stream_batch_unref(outr__stream_batch *batch)
{
    if (!batch || --batch->refs > 0)
        return;
    outr_arena_free(batch->arena);
    free(batch);
}

void outr__stream_forget(outr_broker_sub *sub, outr__stream_item *item)
{
    outr_link_remove(&item->link);
    outr_map_remove(sub->in_hand, item->id);
    outr__stream_batch_unref(item->batch);
}

void outr__stream_settle(outr_broker_sub *sub, outr_message_in *msg, outr_settlement how)
{
    outr__stream_item *item = msg->broker_data;
    outr_link_remove(&item->link);
    item->is_settled = true;
    sub->unsettled--;
    if (how == OUTR_SETTLE_RETRY) { /* found again when processingTimeout is over */
        outr__stream_forget(sub, item);
    } else {
        bool is_ack = how == OUTR_SETTLE_ACK;
        sub->acking += is_ack;
        outr_list_push(is_ack ? &sub->acks : &sub->releases, &item->link);
        outr__stream_confirm_soon(sub);
    }
    outr__stream_pump_soon(sub);
}

static outr_kvs read_metadata(outr_arena *arena, outr_str text)
{
    outr_json *json;
    if (text.n == 0 || outr_str_is(text, "{}") ||
        outr_json_parse(&json, arena, text, NULL) != OUTR_OK || json->kind != OUTR_JSON_OBJECT)
        return (outr_kvs){0};
    outr_kv *items = outr_arena_alloc(arena, (json->count + 1) * sizeof *items);
    size_t n = 0;
    for (const outr_json *one = json->child; one; one = one->next) {
        if (one->kind == OUTR_JSON_STRING)
            items[n++] = (outr_kv){one->key, one->text};
    }
    return (outr_kvs){items, n};
}

/* [id, [field, value, ...]]; NULL: it is no such thing. */
static outr__stream_item *new_item(outr_broker_sub *sub, const outr_redis_reply *entry)
{
    if (entry->kind != OUTR_REDIS_ARRAY || entry->count != 2 ||
        entry->items[0].kind != OUTR_REDIS_STRING || entry->items[1].kind != OUTR_REDIS_ARRAY)
        return NULL;
    outr__stream_batch *batch = sub->batch;
    outr__stream_item *item = outr_arena_alloc(batch->arena, sizeof *item);
    const outr_redis_reply *fields = &entry->items[1];
    outr_str metadata = OUTR_STR_NONE;
    item->id = entry->items[0].text;
    item->batch = batch;
    item->renewed_ns = now(sub);
    item->msg = (outr_message_in){.topic = sub->req.topic, .attempt = 1, .broker_data = item};
    for (size_t i = 0; i + 1 < fields->count; i += 2) {
        if (outr_str_is(fields->items[i].text, "data"))
            item->msg.data = fields->items[i + 1].text;
        else if (outr_str_is(fields->items[i].text, "metadata"))
            metadata = fields->items[i + 1].text;
    }
    item->msg.metadata = read_metadata(batch->arena, metadata);
    sub->average += (item->msg.data.n + metadata.n) / 8;
    sub->average -= sub->average / 8;
    return item;
}

static void start_renewing(outr_broker_sub *sub);

static void hand_over(outr_broker_sub *sub, const outr_redis_reply *entry, uint32_t attempt)
{
    outr__stream_item *item = new_item(sub, entry);
    if (!item)
        return;
    if (outr_map_get(sub->in_hand, item->id))
        return; /* it came twice: of a claim of ours that seemed to have failed */
    item->batch->refs++;
    outr_map_put(sub->in_hand, item->id, item);
    outr_list_push(&sub->handed, &item->link);
    sub->unsettled++;
    item->msg.attempt = attempt;
    start_renewing(sub);
    if (sub->is_paused || sub->is_closing)
        outr__stream_settle(sub, &item->msg, OUTR_SETTLE_RELEASE);
    else
        sub->req.on_message(sub->req.ctx, &item->msg);
}

/* ---- renewal --------------------------------------------------------------------------------- */

typedef struct renewal {
    outr_broker_sub *sub;
    outr_arena *arena;
    outr_redis_call call;
    outr_redis_command command;
    outr_op op;
} renewal;

static uint64_t renew_after(const outr_broker_sub *sub)
{
    int64_t limit = sub->broker->c.timeout_ns;
    return limit > 0 ? (uint64_t)limit / 3 : RENEWAL_NS;
}

static void start_renewing(outr_broker_sub *sub)
{
    if (!outr_timer_is_on(&sub->renewer))
        outr_timer_start(sub->req.loop, &sub->renewer, now(sub) + renew_after(sub));
}

static void on_renewed(outr_op *op)
{
    renewal *r = OUTR_CONTAINER(op, renewal, op);
    outr_broker_sub *sub = r->sub;
    sub->confirming--;
    outr_arena_free(r->arena);
    free(r);
    outr__stream_pump_soon(sub);
}

/* JUSTID: it is no delivery. An entry that was acknowledged meanwhile is left alone. */
static void renew(outr_broker_sub *sub, outr__stream_item *const *items, size_t count)
{
    renewal *r = outr_alloc(sizeof *r);
    r->sub = sub;
    r->arena = outr_arena_new(OUTR_MIB + count * 128);
    outr_str *args = outr_arena_alloc(r->arena, (count + 6) * sizeof *args);
    args[0] = OUTR_STR("XCLAIM");
    args[1] = sub->topic;
    args[2] = args[3] = sub->group;
    args[4] = OUTR_STR("0");
    for (size_t i = 0; i < count; i++)
        args[5 + i] = outr_arena_str(r->arena, items[i]->id);
    args[5 + count] = OUTR_STR("JUSTID");
    r->command = (outr_redis_command){args, count + 6, sub->topic};
    r->call = (outr_redis_call){
        .arena = r->arena, .commands = &r->command, .count = 1, .is_repeatable = true};
    sub->confirming++;
    outr_op_init(&r->op, sub->req.loop, NULL, now(sub) + renew_after(sub), on_renewed);
    outr_redis_call_start(sub->broker->redis, &r->call, &r->op);
}

static void on_renewer(outr_timer *timer)
{
    outr_broker_sub *sub = OUTR_CONTAINER(timer, outr_broker_sub, renewer);
    size_t due = 0;
    if (sub->unsettled == 0)
        return;
    outr__stream_item **items = outr_alloc(sub->unsettled * sizeof *items);
    OUTR_LIST_EACH(link, &sub->handed) {
        outr__stream_item *item = OUTR_LIST_ITEM(link, outr__stream_item, link);
        if (now(sub) - item->renewed_ns < renew_after(sub) / 2)
            continue;
        item->renewed_ns = now(sub);
        items[due++] = item;
    }
    if (due > 0)
        renew(sub, items, due);
    free(items);
    start_renewing(sub);
}

/* ---- what the line does ---------------------------------------------------------------------- */

static void on_done(outr_op *op);

static void start_task(outr_broker_sub *sub, outr__stream_task task, size_t count, uint64_t wait_ns)
{
    sub->task = task;
    sub->call = (outr_redis_call){.arena = sub->batch->arena,
                                  .commands = sub->commands,
                                  .count = count,
                                  .wait_ns = wait_ns};
    outr_op_init(&sub->op, sub->req.loop, NULL, 0, on_done);
    outr_redis_line_start(sub->line, &sub->call, &sub->op);
}

static void new_batch(outr_broker_sub *sub)
{
    sub->batch = outr_alloc(sizeof *sub->batch);
    sub->batch->refs = 1;
    sub->batch->arena = outr_arena_new(BATCH_MAX);
}

static void set_command(outr_broker_sub *sub, size_t at, size_t count, const outr_str *args)
{
    sub->commands[at] = outr_redis_command_of(sub->batch->arena, sub->topic, count, args);
}

static outr_str number(outr_broker_sub *sub, uint64_t n)
{
    return outr_arena_printf(sub->batch->arena, "%llu", (unsigned long long)n);
}

static void make_group(outr_broker_sub *sub)
{
    const outr_str args[] = {OUTR_STR("XGROUP"), OUTR_STR("CREATE"), sub->topic,
                             sub->group,         OUTR_STR("0"),      OUTR_STR("MKSTREAM")};
    new_batch(sub);
    set_command(sub, 0, OUTR_LEN(args), args);
    start_task(sub, OUTR__STREAM_GROUP, 1, 0);
}

static size_t room(const outr_broker_sub *sub)
{
    if (sub->unsettled >= sub->credit || sub->acking >= sub->credit + ACKING_MAX)
        return 0;
    size_t n = OUTR_MIN(sub->credit - sub->unsettled, (size_t)sub->broker->c.depth);
    size_t fit = BATCH_AIM / OUTR_MAX(sub->average, (size_t)1);
    return OUTR_MIN(n, OUTR_MAX(fit, (size_t)1));
}

/* CLIENT ID comes back at once: with it a read that waits can be ended. */
static void read_new(outr_broker_sub *sub, size_t count)
{
    uint64_t wait_ns = BLOCK_NS;
    const outr_str id[] = {OUTR_STR("CLIENT"), OUTR_STR("ID")};
    if (outr_timer_is_on(&sub->looker)) {
        uint64_t due_ns = sub->looker.node.key;
        wait_ns = OUTR_MIN(wait_ns, due_ns > now(sub) ? due_ns - now(sub) : 0);
    }
    new_batch(sub);
    const outr_str args[] = {
        OUTR_STR("XREADGROUP"), OUTR_STR("GROUP"), sub->group,
        sub->group,             OUTR_STR("COUNT"), number(sub, count),
        OUTR_STR("BLOCK"),      number(sub, wait_ns / OUTR_MS + 1),
        OUTR_STR("STREAMS"),    sub->topic,        OUTR_STR(">"),
    };
    set_command(sub, 0, OUTR_LEN(id), id);
    set_command(sub, 1, OUTR_LEN(args), args);
    start_task(sub, OUTR__STREAM_READ, 2, wait_ns);
}

/* A page of pending entries, those from sub->from on. */
static void look(outr_broker_sub *sub)
{
    new_batch(sub);
    const outr_str args[] = {
        OUTR_STR("XPENDING"), sub->topic,
        sub->group,           outr_arena_str(sub->batch->arena, outr_str_from(sub->from)),
        OUTR_STR("+"),        number(sub, PAGE)};
    set_command(sub, 0, OUTR_LEN(args), args);
    start_task(sub, OUTR__STREAM_LOOK, 1, 0);
}

/* Milliseconds without a claim after which an entry is anybody's. */
static int64_t lost_after(const outr_broker_sub *sub)
{
    if (outr__stream_recovers(sub->broker))
        return sub->broker->c.timeout_ns / (int64_t)OUTR_MS;
    return OUTR__STREAM_RELEASED_MS / 2;
}

static void claim(outr_broker_sub *sub)
{
    outr__stream_batch *before = sub->batch; /* the ids lie on it */
    new_batch(sub);
    outr_str *args = outr_arena_alloc(sub->batch->arena, (sub->lost_count + 5) * sizeof *args);
    args[0] = OUTR_STR("XCLAIM");
    args[1] = sub->topic;
    args[2] = args[3] = sub->group;
    args[4] = number(sub, (uint64_t)lost_after(sub));
    outr_str *ids = args + 5;
    for (size_t i = 0; i < sub->lost_count; i++)
        ids[i] = outr_arena_str(sub->batch->arena, sub->lost[i]);
    int64_t *counts = outr_arena_alloc(sub->batch->arena, sub->lost_count * sizeof *counts);
    memcpy(counts, sub->lost_counts, sub->lost_count * sizeof *counts);
    sub->lost = ids;
    sub->lost_counts = counts;
    sub->commands[0] = (outr_redis_command){args, sub->lost_count + 5, sub->topic};
    outr__stream_batch_unref(before);
    start_task(sub, OUTR__STREAM_CLAIM, 1, 0);
}

/* Through all pending entries. */
static void look_soon(outr_broker_sub *sub)
{
    sub->wants_look = true;
    snprintf(sub->from, sizeof sub->from, "-");
}

/* ---- what came of it ------------------------------------------------------------------------- */

static void fail(outr_broker_sub *sub, const outr_err *err)
{
    if (!sub->is_failing && !sub->is_closing)
        OUTR_LOG(sub->broker->log, WARN, "messages could not be read, trying again",
                 OUTR_S("topic", sub->topic), OUTR_ERR(err));
    sub->is_failing = true;
    sub->is_recovering = true; /* what was on its way to us is pending */
    look_soon(sub);
    if (!sub->is_closing)
        outr_timer_start(sub->req.loop, &sub->again,
                         now(sub) + outr_redis_pause(sub->req.loop, sub->failures++));
}

static void end_look(outr_broker_sub *sub)
{
    uint64_t after_ns = (uint64_t)sub->broker->c.redeliver_ns;
    sub->wants_look = false;
    snprintf(sub->from, sizeof sub->from, "-");
    if (!outr__stream_recovers(sub->broker))
        return;
    if (sub->is_recovering && sub->soonest_ns) /* of a process that ended, perhaps ours */
        after_ns = OUTR_MIN(after_ns, sub->soonest_ns + 10 * OUTR_MS);
    sub->is_recovering = false;
    sub->soonest_ns = 0;
    outr_timer_start(sub->req.loop, &sub->looker, now(sub) + after_ns);
}

/* The smallest id after this one. */
static bool set_next_id(outr_broker_sub *sub, outr_str id)
{
    outr_str ms, seq = outr_str_cut(id, '-', &ms);
    uint64_t n;
    if (id.n > 42 || !outr_str_to_u64(seq, UINT64_MAX, &n) || n == UINT64_MAX)
        return false;
    snprintf(sub->from, sizeof sub->from, OUTR_FMT "-%llu", OUTR_ARG(ms),
             (unsigned long long)n + 1);
    return true;
}

/* [[id, consumer, idle, deliveries], ...] */
static void on_looked(outr_broker_sub *sub, const outr_redis_reply *page)
{
    size_t limit = room(sub), i = 0;
    int64_t after_ms = lost_after(sub);
    bool is_last = page->kind != OUTR_REDIS_ARRAY || page->count < PAGE;
    sub->lost = outr_arena_alloc(sub->batch->arena, (page->count + 1) * sizeof *sub->lost);
    sub->lost_counts =
        outr_arena_alloc(sub->batch->arena, (page->count + 1) * sizeof *sub->lost_counts);
    sub->lost_count = 0;
    for (; i < page->count && sub->lost_count < limit; i++) {
        const outr_redis_reply *row = &page->items[i];
        if (row->kind != OUTR_REDIS_ARRAY || row->count < 4)
            continue;
        outr_str id = row->items[0].text;
        int64_t idle_ms = row->items[2].integer;
        if (!set_next_id(sub, id))
            is_last = true;
        if (outr_map_get(sub->in_hand, id) || outr_map_get(sub->parked, id))
            continue;
        if (idle_ms >= after_ms) {
            sub->lost[sub->lost_count] = id;
            sub->lost_counts[sub->lost_count++] = row->items[3].integer;
            continue;
        }
        uint64_t left_ns = (uint64_t)(after_ms - idle_ms) * OUTR_MS;
        if (!sub->soonest_ns || left_ns < sub->soonest_ns)
            sub->soonest_ns = left_ns;
    }
    if (i == page->count && is_last)
        end_look(sub);
    if (sub->lost_count > 0 && !sub->is_paused && !sub->is_closing)
        claim(sub);
}

/* Entries that were trimmed while they were pending: before version 7 they are told as nil, and
 * stay pending until somebody acknowledges them. */
static void drop_trimmed(outr_broker_sub *sub, const outr_redis_reply *entries)
{
    size_t nils = 0, missing = 0;
    for (size_t i = 0; i < entries->count; i++)
        nils += entries->items[i].kind == OUTR_REDIS_NIL;
    missing = sub->lost_count - OUTR_MIN(entries->count - nils, sub->lost_count);
    if (nils == 0 || nils != missing)
        return;
    for (size_t i = 0; i < sub->lost_count; i++) {
        bool is_there = false;
        for (size_t k = 0; k < entries->count && !is_there; k++)
            is_there = entries->items[k].kind == OUTR_REDIS_ARRAY && entries->items[k].count > 0 &&
                       outr_str_eq(entries->items[k].items[0].text, sub->lost[i]);
        if (is_there)
            continue;
        outr__stream_item *item = outr_arena_alloc(sub->batch->arena, sizeof *item);
        item->id = sub->lost[i];
        item->batch = sub->batch;
        sub->batch->refs++;
        outr_map_put(sub->in_hand, item->id, item);
        sub->acking++;
        outr_list_push(&sub->acks, &item->link);
    }
    outr__stream_confirm_soon(sub);
}

static void on_claimed(outr_broker_sub *sub, const outr_redis_reply *entries)
{
    if (entries->kind != OUTR_REDIS_ARRAY)
        return;
    drop_trimmed(sub, entries);
    for (size_t i = 0, at = 0; i < entries->count; i++) {
        const outr_redis_reply *entry = &entries->items[i];
        int64_t count = 0;
        if (entry->kind != OUTR_REDIS_ARRAY || entry->count == 0)
            continue;
        while (at < sub->lost_count && !outr_str_eq(sub->lost[at], entry->items[0].text))
            at++;
        if (at < sub->lost_count)
            count = sub->lost_counts[at];
        hand_over(sub, entry, (uint32_t)OUTR_MIN(count, UINT32_MAX - 1) + 1);
    }
}

/* [[topic, [entry, ...]]] or nil. */
static void on_read(outr_broker_sub *sub, const outr_redis_reply *streams)
{
    if (streams->kind != OUTR_REDIS_ARRAY || streams->count < 1 ||
        streams->items[0].kind != OUTR_REDIS_ARRAY || streams->items[0].count != 2)
        return;
    const outr_redis_reply *entries = &streams->items[0].items[1];
    for (size_t i = 0; i < entries->count; i++)
        hand_over(sub, &entries->items[i], 1);
}

/* Claimed alone it was more than a reply may be, and would be each time. It is not ours to throw
 * away: it stays pending, for whoever can take it, and whoever looks. */
static void park(outr_broker_sub *sub)
{
    outr_str id = sub->lost[0];
    if (outr_map_count(sub->parked) == PARKED_MAX)
        return;
    outr_map_put(sub->parked, id, sub);
    OUTR_LOG(sub->broker->log, ERROR,
             "a message is too large to be read, it is left pending in its stream",
             OUTR_S("topic", sub->topic), OUTR_S("group", sub->group), OUTR_S("id", id));
}

/* An error that the server answered. */
static void on_refusal(outr_broker_sub *sub, const outr_err *err)
{
    outr_str text = outr_str_from(err->text);
    bool is_groupless = outr_str_starts(text, OUTR_STR("NOGROUP"));
    if (is_groupless)
        sub->has_group = false; /* the data were deleted, or the server began without any */
    if (sub->task == OUTR__STREAM_GROUP && outr_str_starts(text, OUTR_STR("BUSYGROUP"))) {
        sub->has_group = true;
    } else if (is_groupless && sub->groups_made++ == 0) {
        look_soon(sub);
    } else if (!outr_str_starts(text, OUTR_STR("UNBLOCKED"))) {
        fail(sub, err);
    }
}

static void on_done(outr_op *op)
{
    outr_broker_sub *sub = OUTR_CONTAINER(op, outr_broker_sub, op);
    outr__stream_task task = sub->task;
    outr__stream_batch *batch = sub->batch;
    outr_err err = op->err;
    bool is_transport = err.code != OUTR_OK;
    const outr_redis_reply *reply =
        is_transport ? NULL : &sub->call.replies[sub->call.count - 1];
    outr_timer_stop(sub->req.loop, &sub->unblocker);
    batch->refs++; /* the task may go on with another */
    if (is_transport || outr_redis_check(reply, &err)) {
        if (err.code == OUTR_RESOURCE_EXHAUSTED && is_transport) {
            sub->average = BATCH_AIM; /* one by one from now on */
            if (task == OUTR__STREAM_CLAIM && sub->lost_count == 1)
                park(sub);
        }
        if (is_transport)
            fail(sub, &err);
        else
            on_refusal(sub, &err);
        sub->task = OUTR__STREAM_REST;
    } else {
        if (sub->is_failing)
            OUTR_LOG(sub->broker->log, INFO, "messages are read again",
                     OUTR_S("topic", sub->topic));
        sub->is_failing = false;
        sub->failures = 0;
        sub->task = OUTR__STREAM_REST;
        if (task == OUTR__STREAM_GROUP)
            sub->has_group = true;
        else
            sub->groups_made = 0;
        if (task == OUTR__STREAM_LOOK)
            on_looked(sub, reply);
        else if (task == OUTR__STREAM_CLAIM)
            on_claimed(sub, reply);
        else if (task == OUTR__STREAM_READ)
            on_read(sub, reply);
    }
    if (sub->task == OUTR__STREAM_REST)
        outr__stream_batch_unref(outr_take(&sub->batch));
    outr__stream_batch_unref(batch);
    outr__stream_pump_soon(sub);
}

/* ---- ending a read that waits ---------------------------------------------------------------- */

static void unblock(outr_broker_sub *sub);

static void on_unblocked(outr_op *op)
{
    outr_broker_sub *sub = OUTR_CONTAINER(op, outr_broker_sub, unblock_op);
    outr_arena_free(outr_take(&sub->unblock_arena));
    if (sub->task == OUTR__STREAM_READ) /* it had not begun to wait, or will come back now */
        outr_timer_start(sub->req.loop, &sub->unblocker, now(sub) + UNBLOCK_AGAIN);
    outr__stream_pump_soon(sub);
}

static void on_unblocker(outr_timer *timer)
{
    unblock(OUTR_CONTAINER(timer, outr_broker_sub, unblocker));
}

static void unblock(outr_broker_sub *sub)
{
    if (sub->task != OUTR__STREAM_READ || sub->unblock_arena)
        return;
    const outr_redis_reply *id = sub->call.replies;
    if (++sub->unblocks > UNBLOCKS_MAX || (id && id->kind == OUTR_REDIS_ERROR)) {
        outr_op_cancel(&sub->op, OUTR_CANCELLED);
        return;
    }
    if (!id || id->kind != OUTR_REDIS_INTEGER) {
        outr_timer_start(sub->req.loop, &sub->unblocker, now(sub) + UNBLOCK_AGAIN);
        return;
    }
    sub->unblock_arena = outr_arena_new(64 * OUTR_KIB);
    sub->unblock_args[0] = OUTR_STR("CLIENT");
    sub->unblock_args[1] = OUTR_STR("UNBLOCK");
    sub->unblock_args[2] =
        outr_arena_printf(sub->unblock_arena, "%lld", (long long)id->integer);
    sub->unblock_command = (outr_redis_command){sub->unblock_args, 3, sub->topic};
    sub->unblock_call = (outr_redis_call){
        .arena = sub->unblock_arena, .commands = &sub->unblock_command, .count = 1};
    outr_op_init(&sub->unblock_op, sub->req.loop, NULL, now(sub) + OUTR_SEC, on_unblocked);
    outr_redis_call_start(sub->broker->redis, &sub->unblock_call, &sub->unblock_op);
}

static void end_read(outr_broker_sub *sub)
{
    sub->unblocks = 0;
    unblock(sub);
}

/* ---- life ------------------------------------------------------------------------------------ */

static void free_sub(outr_broker_sub *sub)
{
    outr_op *op = sub->closing;
    outr_loop *loop = sub->req.loop;
    outr_timer *timers[] = {&sub->again, &sub->looker, &sub->renewer, &sub->unblocker};
    outr__stream_confirm_stop(sub);
    outr_loop_undefer(&sub->pump);
    for (size_t i = 0; i < OUTR_LEN(timers); i++)
        outr_timer_stop(loop, timers[i]);
    outr_redis_line_close(sub->line);
    outr_map_free(sub->in_hand);
    outr_map_free(sub->parked);
    free(sub->text);
    free(sub);
    outr_op_finish(op);
}

static void on_pump(outr_deferred *deferred)
{
    outr_broker_sub *sub = OUTR_CONTAINER(deferred, outr_broker_sub, pump);
    bool is_busy = sub->task != OUTR__STREAM_REST;
    if (sub->is_closing) {
        if (!is_busy && sub->unsettled == 0 && !sub->unblock_arena &&
            outr__stream_is_confirmed(sub))
            free_sub(sub);
        return;
    }
    size_t count = room(sub);
    if (is_busy || sub->is_paused || count == 0 || outr_timer_is_on(&sub->again))
        return;
    if (!sub->has_group)
        make_group(sub);
    else if (sub->wants_look)
        look(sub);
    else
        read_new(sub, count);
}

static void on_again(outr_timer *timer)
{
    outr__stream_pump_soon(OUTR_CONTAINER(timer, outr_broker_sub, again));
}

static void on_looker(outr_timer *timer)
{
    outr_broker_sub *sub = OUTR_CONTAINER(timer, outr_broker_sub, looker);
    sub->wants_look = true;
    outr__stream_pump_soon(sub);
}

outr_code outr__stream_subscribe(outr_broker *base, const outr_subscribe *req,
                                 outr_broker_sub **out, outr_err *err OUTR_UNUSED)
{
    outr__stream_broker *b = outr__stream_of(base);
    outr_broker_sub *sub = outr_alloc(sizeof *sub);
    size_t n = req->topic.n;
    sub->broker = b;
    sub->req = *req;
    sub->text = outr_alloc(n + b->consumer.n + 2);
    memcpy(sub->text, req->topic.p, n);
    memcpy(sub->text + n + 1, b->consumer.p, b->consumer.n);
    sub->topic = sub->req.topic = outr_str_of(sub->text, n);
    sub->group = outr_str_of(sub->text + n + 1, b->consumer.n);
    sub->credit = b->concurrency ? OUTR_MIN(req->credit, b->concurrency) : req->credit;
    sub->line = outr_redis_line_open(b->redis, req->loop, sub->topic);
    sub->in_hand = outr_map_new();
    sub->parked = outr_map_new();
    sub->is_recovering = true;
    look_soon(sub);
    outr_list_init(&sub->handed);
    outr__stream_confirm_init(sub);
    sub->pump.run = on_pump;
    sub->again.fire = on_again;
    sub->looker.fire = on_looker;
    sub->renewer.fire = on_renewer;
    sub->unblocker.fire = on_unblocker;
    outr__stream_pump_soon(sub);
    *out = sub;
    return OUTR_OK;
}

void outr__stream_pause(outr_broker_sub *sub, bool is_paused)
{
    if (sub->is_paused == is_paused)
        return;
    sub->is_paused = is_paused;
    if (is_paused)
        end_read(sub);
    else
        look_soon(sub); /* for what was released */
    outr__stream_pump_soon(sub);
}

void outr__stream_unsubscribe(outr_broker_sub *sub, outr_op *op)
{
    outr_op_begin(op, sub, NULL);
    sub->is_closing = true;
    sub->closing = op;
    outr_timer_stop(sub->req.loop, &sub->again);
    outr_timer_stop(sub->req.loop, &sub->confirm_again);
    outr__stream_confirm_soon(sub);
    if (sub->task == OUTR__STREAM_GROUP || sub->task == OUTR__STREAM_LOOK)
        outr_op_cancel(&sub->op, OUTR_CANCELLED); /* nothing comes of it */
    end_read(sub);
    outr__stream_pump_soon(sub);
}
