#include "components/common/kafka/reader.h"

#include "components/common/kafka/internal.h"
#include "components/common/kafka/offsets.h"

#define COMMIT_NS    (200 * OUTR_MS)
#define LEAVE_NS     (10 * OUTR_SEC)
#define CLOSE_NS     (10 * OUTR_SEC)
#define POLL_NS      (60 * OUTR_SEC) /* a hung app keeps its place: it may take 5 min */
#define BUFFER_BYTES (4 * OUTR_MIB)
/* What librdkafka has for us before it stops fetching, and of one fetch beyond that. */
#define PREFETCH_KIB  1024
#define PREFETCH      2000
#define FETCH_BYTES   (1024 * 1024)
#define WAKE_BYTES    (PREFETCH_KIB * 512)
#define BACKOFF_MS    5 /* of a full queue; also after a failed fetch */
#define WOKEN_MAX     8
#define EVENTS_A_TURN 2000
#define MEMORY_NS     (60 * OUTR_SEC) /* a topic may be made anew: not for long */
#define MEMORIES_MAX  1024
#define LOOK_NS       (250 * OUTR_MS) /* doubles */
#define LOOK_MAX_NS   (16 * OUTR_SEC)
#define LOOK_MS       3000

struct outr__kafka_partition {
    outr_kafka_reader *reader;
    outr_link link;
    char *topic;
    int32_t number;
    outr_offsets offsets;
    outr_list waiting; /* records, by offset */
    size_t in_hand;
    uint64_t round;    /* the batch that what is in hand went to */
    size_t given;      /* in this round */
    uint64_t again_ns; /* nothing before it; 0: at once */
    bool is_leaving, is_gone;
};

/* How far a partition was settled when it was taken from us. A commit that waits behind a JoinGroup
 * request comes too late and costs us all partitions (librdkafka 2.0, cooperative): given back to
 * us, they would begin where they were committed. */
typedef struct memory {
    outr_link link;
    uint64_t at_ns;
    int64_t place;
    int32_t number;
    char topic[];
} memory;

struct outr_kafka_reader {
    outr_kafka *kafka;
    outr_kafka_read req;
    rd_kafka_t *client;
    outr__kafka_wake wake;
    rd_kafka_queue_t *fetched; /* messages of all partitions */
    bool has_more;             /* it was not empty when it was looked at last */
    bool is_full;              /* it may have made librdkafka stop */
    size_t taken;              /* bytes, since it was told of room */
    outr_list partitions, memories;
    size_t in_hand, buffered, memory_count;
    bool is_paused, is_stopping, is_leaving_group, is_buried, is_cooperative;
    bool is_final_commit, is_committing;
    rd_kafka_resp_err_t told; /* what was logged last, until something works again */
    rd_kafka_topic_partition_list_t *leaving;
    outr_deferred pump, again_ready;
    outr_timer again, committer, poller, patience, waker;
    outr_op *stopping;
    outr__kafka_burial burial;
    /* looking for topics that are not there */
    outr__kafka_job look;
    outr_op look_op;
    outr_timer look_again;
    bool is_looking, is_missing; /* is_missing: the job's result */
    uint64_t look_pause_ns;
    /* telling brokers' threads that there is room */
    outr__kafka_job wake_up;
    outr_op wake_op;
    rd_kafka_topic_partition_list_t *asked; /* NULL: none is being told */
    bool is_waking_again;
};

/* ---- records --------------------------------------------------------------------------------- */

static void free_record(outr_kafka_record *record)
{
    rd_kafka_event_destroy((rd_kafka_event_t *)record->impl);
    free(record);
}

static void put_back(outr__kafka_partition *p, outr_kafka_record *record)
{
    OUTR_LIST_EACH(link, &p->waiting) {
        if (OUTR_LIST_ITEM(link, outr_kafka_record, link)->offset > record->offset) {
            outr_list_push(link, &record->link);
            return;
        }
    }
    outr_list_push(&p->waiting, &record->link);
}

/* ---- partitions ------------------------------------------------------------------------------ */

static outr__kafka_partition *find_partition(outr_kafka_reader *reader, const char *topic,
                                             int32_t number)
{
    OUTR_LIST_EACH(link, &reader->partitions) {
        outr__kafka_partition *p = OUTR_LIST_ITEM(link, outr__kafka_partition, link);
        if (p->number == number && strcmp(p->topic, topic) == 0)
            return p;
    }
    return NULL;
}

static void forget(outr_kafka_reader *reader, memory *m)
{
    outr_link_remove(&m->link);
    reader->memory_count--;
    free(m);
}

static void remember(const outr__kafka_partition *p)
{
    outr_kafka_reader *reader = p->reader;
    size_t n = strlen(p->topic) + 1;
    int64_t place;
    if (!outr_offsets_committable(&p->offsets, &place)) /* all of it is committed */
        return;
    if (reader->memory_count == MEMORIES_MAX)
        forget(reader, OUTR_LIST_ITEM(reader->memories.next, memory, link));
    memory *m = outr_alloc(sizeof *m + n);
    m->at_ns = outr_loop_now(reader->req.loop);
    m->place = place;
    m->number = p->number;
    memcpy(m->topic, p->topic, n);
    outr_list_push(&reader->memories, &m->link);
    reader->memory_count++;
}

static void recall(outr__kafka_partition *p)
{
    outr_kafka_reader *reader = p->reader;
    uint64_t now = outr_loop_now(reader->req.loop);
    int64_t place = 0;
    OUTR_LIST_EACH(link, &reader->memories) {
        memory *m = OUTR_LIST_ITEM(link, memory, link);
        bool is_its = m->number == p->number && strcmp(m->topic, p->topic) == 0;
        if (is_its && m->at_ns + MEMORY_NS > now)
            place = OUTR_MAX(place, m->place);
        if (is_its || m->at_ns + MEMORY_NS <= now)
            forget(reader, m);
    }
    if (place > 0)
        outr_offsets_resume(&p->offsets, place);
}

/* Messages do not go through the consumer's queue but through one of ours: what is left in there
 * makes librdkafka stop fetching, while the group is served all the same. Before it is assigned, or
 * it would be undone. */
static void split_queue(const outr__kafka_partition *p)
{
    rd_kafka_queue_t *queue = rd_kafka_queue_get_partition(p->reader->client, p->topic, p->number);
    if (!queue) /* they come through the consumer's then */
        return;
    rd_kafka_queue_forward(queue, p->reader->fetched);
    rd_kafka_queue_destroy(queue);
}

static void add_partition(outr_kafka_reader *reader, const char *topic, int32_t number)
{
    outr__kafka_partition *p = outr_alloc(sizeof *p);
    p->reader = reader;
    p->topic = outr_strdup(topic);
    p->number = number;
    outr_list_init(&p->waiting);
    outr_list_push(&reader->partitions, &p->link);
    split_queue(p);
    recall(p);
}

static void drop_waiting(outr__kafka_partition *p)
{
    for (outr_link *link; (link = outr_list_pop(&p->waiting));) {
        outr_kafka_record *record = OUTR_LIST_ITEM(link, outr_kafka_record, link);
        p->reader->buffered -= record->bytes;
        free_record(record);
    }
}

static void free_partition(outr__kafka_partition *p)
{
    outr_offsets_done(&p->offsets);
    free(p->topic);
    free(p);
}

/* It is somebody else's; with records in hand it waits for them. */
static void lose_partition(outr__kafka_partition *p)
{
    remember(p);
    drop_waiting(p);
    outr_link_remove(&p->link);
    p->is_gone = true;
    if (p->in_hand == 0)
        free_partition(p);
}

/* ---- committing ------------------------------------------------------------------------------ */

static rd_kafka_topic_partition_list_t *committable(outr_kafka_reader *reader, bool only_leaving)
{
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(8);
    OUTR_LIST_EACH(link, &reader->partitions) {
        const outr__kafka_partition *p = OUTR_LIST_ITEM(link, outr__kafka_partition, link);
        int64_t offset;
        if ((!only_leaving || p->is_leaving) && outr_offsets_committable(&p->offsets, &offset))
            rd_kafka_topic_partition_list_add(list, p->topic, p->number)->offset = offset;
    }
    return list;
}

/* False: nothing to commit, or it could not even be asked for. */
static bool commit(outr_kafka_reader *reader, bool only_leaving)
{
    rd_kafka_topic_partition_list_t *list = committable(reader, only_leaving);
    bool is_asked = list->cnt > 0 &&
                    !rd_kafka_commit_queue(reader->client, list, reader->wake.queue, NULL, NULL);
    rd_kafka_topic_partition_list_destroy(list);
    reader->is_committing = reader->is_committing || is_asked;
    return is_asked;
}

static void commit_soon(outr_kafka_reader *reader)
{
    if (!outr_timer_is_on(&reader->committer) && !reader->is_leaving_group)
        outr_timer_start(reader->req.loop, &reader->committer,
                         outr_loop_now(reader->req.loop) + COMMIT_NS);
}

static void on_commit_time(outr_timer *timer)
{
    outr_kafka_reader *reader = OUTR_CONTAINER(timer, outr_kafka_reader, committer);
    if (reader->is_committing)
        commit_soon(reader); /* one at a time, so that they arrive in order */
    else
        commit(reader, false);
}

/* ---- telling --------------------------------------------------------------------------------- */

static void tell(outr_kafka_reader *reader, rd_kafka_resp_err_t code, const char *text)
{
    const char *field = outr__kafka_field_of(code);
    if (code == reader->told)
        return;
    reader->told = code;
    OUTR_LOG(reader->kafka->log, WARN, "kafka: a subscription has trouble, trying again",
             OUTR_S("component", reader->kafka->name), OUTR_S("topic", reader->req.topics[0]),
             OUTR_S("group", reader->kafka->group), OUTR_Z("field", field ? field : ""),
             OUTR_Z("error", text ? text : rd_kafka_err2str(code)));
}

/* ---- the group takes and gives --------------------------------------------------------------- */

static void finish_if_left(outr_kafka_reader *reader);

static void give_up(outr_kafka_reader *reader)
{
    rd_kafka_topic_partition_list_t *list = outr_take(&reader->leaving);
    outr_timer_stop(reader->req.loop, &reader->patience);
    OUTR_LIST_EACH(link, &reader->partitions) {
        outr__kafka_partition *p = OUTR_LIST_ITEM(link, outr__kafka_partition, link);
        if (p->is_leaving)
            lose_partition(p);
    }
    reader->is_final_commit = false;
    if (reader->is_cooperative) {
        rd_kafka_error_t *failure = rd_kafka_incremental_unassign(reader->client, list);
        if (failure)
            rd_kafka_error_destroy(failure); /* they are lost already */
    } else {
        rd_kafka_assign(reader->client, NULL);
    }
    rd_kafka_topic_partition_list_destroy(list);
}

/* What leaves is given up once nothing of it is in hand and all of it is committed. */
static void go_on_leaving(outr_kafka_reader *reader)
{
    if (!reader->leaving || reader->is_final_commit)
        return;
    OUTR_LIST_EACH(link, &reader->partitions) {
        const outr__kafka_partition *p = OUTR_LIST_ITEM(link, outr__kafka_partition, link);
        if (p->is_leaving && p->in_hand > 0)
            return;
    }
    if (commit(reader, true))
        reader->is_final_commit = true; /* until its answer */
    else
        give_up(reader);
}

static void on_patience_over(outr_timer *timer)
{
    outr_kafka_reader *reader = OUTR_CONTAINER(timer, outr_kafka_reader, patience);
    if (!reader->leaving)
        return;
    OUTR_LOG(reader->kafka->log, WARN,
             "kafka: messages in hand were not answered in time and go to another consumer",
             OUTR_S("component", reader->kafka->name), OUTR_S("topic", reader->req.topics[0]));
    commit(reader, true); /* what it may; nobody waits for the answer */
    give_up(reader);
}

static void on_revoked(outr_kafka_reader *reader, const rd_kafka_topic_partition_list_t *list)
{
    if (reader->leaving)
        give_up(reader);
    reader->leaving = rd_kafka_topic_partition_list_copy(list);
    for (int i = 0; i < list->cnt; i++) {
        outr__kafka_partition *p =
            find_partition(reader, list->elems[i].topic, list->elems[i].partition);
        if (!p)
            continue;
        p->is_leaving = true;
        drop_waiting(p);
    }
    if (rd_kafka_assignment_lost(reader->client)) {
        give_up(reader);
        return;
    }
    outr_timer_start(reader->req.loop, &reader->patience,
                     outr_loop_now(reader->req.loop) + LEAVE_NS);
    go_on_leaving(reader);
}

static void on_assigned(outr_kafka_reader *reader, const rd_kafka_topic_partition_list_t *list)
{
    const char *protocol = rd_kafka_rebalance_protocol(reader->client);
    reader->is_cooperative = strcmp(protocol, "COOPERATIVE") == 0;
    reader->told = RD_KAFKA_RESP_ERR_NO_ERROR;
    for (int i = 0; i < list->cnt; i++)
        add_partition(reader, list->elems[i].topic, list->elems[i].partition);
    if (reader->is_cooperative) {
        rd_kafka_error_t *failure = rd_kafka_incremental_assign(reader->client, list);
        if (failure) {
            tell(reader, rd_kafka_error_code(failure), rd_kafka_error_string(failure));
            rd_kafka_error_destroy(failure);
        }
    } else {
        rd_kafka_resp_err_t code = rd_kafka_assign(reader->client, list);
        if (code)
            tell(reader, code, NULL);
    }
    OUTR_LOG(reader->kafka->log, DEBUG, "kafka: partitions assigned",
             OUTR_S("component", reader->kafka->name), OUTR_I("count", list->cnt));
}

static void on_rebalance(outr_kafka_reader *reader, rd_kafka_event_t *event)
{
    const rd_kafka_topic_partition_list_t *list = rd_kafka_event_topic_partition_list(event);
    if (rd_kafka_event_error(event) == RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS)
        on_assigned(reader, list);
    else
        on_revoked(reader, list);
}

/* ---- topics that are not there --------------------------------------------------------------- */

static bool has_topic(const struct rd_kafka_metadata *metadata, outr_str topic)
{
    for (int i = 0; i < metadata->topic_cnt; i++) {
        const struct rd_kafka_metadata_topic *one = &metadata->topics[i];
        if (outr_str_is(topic, one->topic))
            return one->err == RD_KAFKA_RESP_ERR_NO_ERROR && one->partition_cnt > 0;
    }
    return false;
}

/* A broker that may makes a topic when it is asked about it; subscribing does not ask so. False:
 * nobody answers. */
static bool make_topic(outr_kafka_reader *reader, const char *name)
{
    const struct rd_kafka_metadata *metadata;
    rd_kafka_topic_t *topic = rd_kafka_topic_new(reader->client, name, NULL);
    if (!topic)
        return false;
    bool is_asked = !rd_kafka_metadata(reader->client, 0, topic, &metadata, LOOK_MS);
    if (is_asked)
        rd_kafka_metadata_destroy(metadata);
    rd_kafka_topic_destroy(topic);
    return is_asked;
}

/* On the worker. By itself librdkafka would look again when topics are refreshed, in minutes; only
 * an answer about all topics makes it join anew. */
static void look(outr__kafka_job *job)
{
    outr_kafka_reader *reader = OUTR_CONTAINER(job, outr_kafka_reader, look);
    const struct rd_kafka_metadata *metadata;
    bool is_answered = true;
    reader->is_missing = true;
    if (rd_kafka_metadata(reader->client, 1, NULL, &metadata, LOOK_MS))
        return;
    reader->is_missing = false;
    for (size_t i = 0; i < reader->req.topic_count; i++) {
        if (has_topic(metadata, reader->req.topics[i]))
            continue;
        reader->is_missing = true;
        is_answered = is_answered && make_topic(reader, reader->req.topics[i].p);
    }
    rd_kafka_metadata_destroy(metadata);
}

static void look_later(outr_kafka_reader *reader)
{
    outr_loop *loop = reader->req.loop;
    if (!reader->is_looking && !reader->is_stopping && !outr_timer_is_on(&reader->look_again))
        outr_timer_start(loop, &reader->look_again, outr_loop_now(loop) + reader->look_pause_ns);
}

static void on_looked(outr_op *op)
{
    outr_kafka_reader *reader = OUTR_CONTAINER(op, outr_kafka_reader, look_op);
    reader->is_looking = false;
    reader->look_pause_ns =
        reader->is_missing ? OUTR_MIN(2 * reader->look_pause_ns, LOOK_MAX_NS) : LOOK_NS;
    if (reader->is_missing)
        look_later(reader);
}

static void on_look_time(outr_timer *timer)
{
    outr_kafka_reader *reader = OUTR_CONTAINER(timer, outr_kafka_reader, look_again);
    reader->is_looking = true;
    reader->look.run = look;
    outr_op_init(&reader->look_op, reader->req.loop, NULL, 0, on_looked);
    outr_worker_submit(reader->kafka->worker, &reader->look.work, &reader->look_op);
}

/* ---- what librdkafka has for us -------------------------------------------------------------- */

/* Takes event over. */
static void on_fetched(outr_kafka_reader *reader, rd_kafka_event_t *own_event)
{
    const rd_kafka_message_t *message = rd_kafka_event_message_next(own_event);
    if (!message) {
        rd_kafka_event_destroy(own_event);
        return;
    }
    if (message->err) {
        tell(reader, message->err, message->payload ? rd_kafka_message_errstr(message) : NULL);
        rd_kafka_event_destroy(own_event);
        return;
    }
    outr__kafka_partition *p =
        find_partition(reader, rd_kafka_topic_name(message->rkt), message->partition);
    if (!p || p->is_leaving || !outr_offsets_take(&p->offsets, message->offset)) {
        rd_kafka_event_destroy(own_event);
        return;
    }
    outr_kafka_record *record =
        outr__kafka_record_new(reader->kafka, p->topic, p->number, own_event, message);
    record->partition = p;
    reader->taken += message->len;
    reader->buffered += record->bytes;
    outr_list_push(&p->waiting, &record->link);
}

static void on_committed(outr_kafka_reader *reader, rd_kafka_event_t *event)
{
    const rd_kafka_topic_partition_list_t *list = rd_kafka_event_topic_partition_list(event);
    rd_kafka_resp_err_t code = rd_kafka_event_error(event);
    reader->is_committing = false;
    for (int i = 0; list && i < list->cnt; i++) {
        const rd_kafka_topic_partition_t *one = &list->elems[i];
        outr__kafka_partition *p = find_partition(reader, one->topic, one->partition);
        if (p && !code && !one->err)
            outr_offsets_committed(&p->offsets, one->offset);
        if (one->err)
            code = one->err;
    }
    bool is_failed = code && code != RD_KAFKA_RESP_ERR__NO_OFFSET;
    bool is_rebalance = code == RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION ||
                        code == RD_KAFKA_RESP_ERR_REBALANCE_IN_PROGRESS;
    if (is_failed && !is_rebalance)
        tell(reader, code, NULL);
    if (reader->leaving && reader->is_final_commit)
        give_up(reader); /* committed, or it will come again elsewhere */
    else if (is_failed)
        commit_soon(reader);
}

static void on_error(outr_kafka_reader *reader, rd_kafka_event_t *event)
{
    rd_kafka_resp_err_t code = rd_kafka_event_error(event);
    char text[OUTR__KAFKA_TEXT_MAX];
    if (code == RD_KAFKA_RESP_ERR__FATAL)
        code = rd_kafka_fatal_error(reader->client, text, sizeof text);
    else
        snprintf(text, sizeof text, "%s", rd_kafka_event_error_string(event));
    if (code == RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART)
        look_later(reader);
    tell(reader, code, text);
}

/* Takes event over. */
static void take_event(outr_kafka_reader *reader, rd_kafka_event_t *own_event)
{
    switch (rd_kafka_event_type(own_event)) {
    case RD_KAFKA_EVENT_FETCH:
        on_fetched(reader, own_event);
        return;
    case RD_KAFKA_EVENT_REBALANCE:
        on_rebalance(reader, own_event);
        break;
    case RD_KAFKA_EVENT_OFFSET_COMMIT:
        on_committed(reader, own_event);
        break;
    case RD_KAFKA_EVENT_ERROR:
        on_error(reader, own_event);
        break;
    default:
        break;
    }
    rd_kafka_event_destroy(own_event);
}

static void drain(outr_kafka_reader *reader)
{
    int left = EVENTS_A_TURN;
    rd_kafka_event_t *event;
    while (left > 0 && reader->wake.queue && (event = rd_kafka_queue_poll(reader->wake.queue, 0))) {
        take_event(reader, event);
        left--;
    }
    reader->has_more = true;
    if (left == 0)
        outr_loop_defer(reader->req.loop, &reader->again_ready);
    outr_loop_defer(reader->req.loop, &reader->pump);
    finish_if_left(reader);
}

static void on_ready(outr__kafka_wake *wake)
{
    drain(OUTR_CONTAINER(wake, outr_kafka_reader, wake));
}

static void on_more(outr_deferred *deferred)
{
    drain(OUTR_CONTAINER(deferred, outr_kafka_reader, again_ready));
}

static void on_poll_time(outr_timer *timer)
{
    outr_kafka_reader *reader = OUTR_CONTAINER(timer, outr_kafka_reader, poller);
    outr_timer_start(reader->req.loop, timer, outr_loop_now(reader->req.loop) + POLL_NS);
    drain(reader);
}

/* ---- to the taker ---------------------------------------------------------------------------- */

/* Nothing of it is in hand, or what is in hand is still being gathered and has room. */
static bool may_give(const outr_kafka_reader *reader, const outr__kafka_partition *p)
{
    if (p->is_leaving || outr_list_is_empty(&p->waiting))
        return false;
    if (p->in_hand == 0)
        return true;
    return reader->req.batches && p->round == *reader->req.batches && p->given < reader->req.batch;
}

/* False: no credit is left. */
static bool hand_over(outr_kafka_reader *reader, outr__kafka_partition *p)
{
    uint64_t now = outr_loop_now(reader->req.loop);
    for (size_t n = 0; n < reader->req.batch && p->again_ns <= now && may_give(reader, p); n++) {
        if (reader->in_hand >= reader->req.credit || reader->is_paused || reader->is_stopping)
            return false;
        outr_kafka_record *record =
            OUTR_LIST_ITEM(outr_list_pop(&p->waiting), outr_kafka_record, link);
        if (p->in_hand == 0) {
            p->given = 0;
            p->round = reader->req.batches ? *reader->req.batches : 0;
        }
        p->given++;
        p->in_hand++;
        reader->in_hand++;
        reader->buffered -= record->bytes;
        reader->req.on_record(reader->req.own_ctx, record);
    }
    return true;
}

/* On the worker: it waits for answers, which a broker that has nothing new gives after half a
 * second. */
static void ask_brokers(outr__kafka_job *job)
{
    const outr_kafka_reader *reader = OUTR_CONTAINER(job, outr_kafka_reader, wake_up);
    int64_t low, high;
    for (int i = 0; i < reader->asked->cnt; i++)
        rd_kafka_query_watermark_offsets(reader->client, reader->asked->elems[i].topic,
                                         reader->asked->elems[i].partition, &low, &high, 0);
}

static void wake_brokers(outr_kafka_reader *reader);

static void on_brokers_asked(outr_op *op)
{
    outr_kafka_reader *reader = OUTR_CONTAINER(op, outr_kafka_reader, wake_op);
    rd_kafka_topic_partition_list_destroy(outr_take(&reader->asked));
    if (reader->is_waking_again && !reader->is_buried)
        wake_brokers(reader);
}

/* Librdkafka 2.0 does not wake the thread of a broker when there is room again; it would sleep up
 * to a second. A question to the broker wakes it, whatever the answer is. */
static void wake_brokers(outr_kafka_reader *reader)
{
    int left = WOKEN_MAX; /* in turn: on_pump moves them */
    reader->is_waking_again = reader->asked != NULL;
    if (reader->asked || outr_list_is_empty(&reader->partitions))
        return;
    reader->asked = rd_kafka_topic_partition_list_new(WOKEN_MAX);
    OUTR_LIST_EACH(link, &reader->partitions) {
        const outr__kafka_partition *p = OUTR_LIST_ITEM(link, outr__kafka_partition, link);
        if (left-- > 0)
            rd_kafka_topic_partition_list_add(reader->asked, p->topic, p->number);
    }
    reader->wake_up.run = ask_brokers;
    outr_op_init(&reader->wake_op, reader->req.loop, NULL, 0, on_brokers_asked);
    outr_worker_submit(reader->kafka->worker, &reader->wake_up.work, &reader->wake_op);
}

static void on_waker(outr_timer *timer)
{
    wake_brokers(OUTR_CONTAINER(timer, outr_kafka_reader, waker));
}

/* before: messages that were in the queue. Within its back-off it does not hear us, so it is told
 * twice. */
static void tell_of_room(outr_kafka_reader *reader, size_t before)
{
    if (before >= PREFETCH || reader->taken > WAKE_BYTES)
        reader->is_full = true;
    if (!reader->is_full || rd_kafka_queue_length(reader->fetched) >= PREFETCH)
        return;
    reader->is_full = false;
    reader->taken = 0;
    wake_brokers(reader);
    outr_timer_start(reader->req.loop, &reader->waker,
                     outr_loop_now(reader->req.loop) + (BACKOFF_MS + 1) * OUTR_MS);
}

/* Takes over from librdkafka what there is room for. */
static void fill(outr_kafka_reader *reader)
{
    int left = EVENTS_A_TURN;
    if (!reader->has_more || reader->buffered > BUFFER_BYTES / 2)
        return;
    size_t before = rd_kafka_queue_length(reader->fetched);
    while (reader->buffered < BUFFER_BYTES && left > 0 && reader->has_more) {
        rd_kafka_event_t *event = rd_kafka_queue_poll(reader->fetched, 0);
        reader->has_more = event != NULL;
        if (event)
            take_event(reader, event);
        left--;
    }
    tell_of_room(reader, before);
    if (left == 0)
        outr_loop_defer(reader->req.loop, &reader->pump);
}

static void on_pump(outr_deferred *deferred)
{
    outr_kafka_reader *reader = OUTR_CONTAINER(deferred, outr_kafka_reader, pump);
    fill(reader);
    uint64_t now = outr_loop_now(reader->req.loop), next = UINT64_MAX;
    size_t left = 0;
    bool has_credit = true;
    OUTR_LIST_EACH(link, &reader->partitions)
        left++;
    /* Who was served goes to the end, so that all have a share of the credit. All stay in the list
     * meanwhile: what is settled at once may end the leaving of others, or the reader. */
    for (; left > 0 && !outr_list_is_empty(&reader->partitions); left--) {
        outr__kafka_partition *p =
            OUTR_LIST_ITEM(outr_list_pop(&reader->partitions), outr__kafka_partition, link);
        outr_list_push(&reader->partitions, &p->link);
        bool is_due = p->again_ns <= now;
        bool is_ready = may_give(reader, p);
        if (is_ready && !is_due)
            next = OUTR_MIN(next, p->again_ns);
        if (is_ready && is_due && has_credit)
            has_credit = hand_over(reader, p);
    }
    if (next != UINT64_MAX)
        outr_timer_start(reader->req.loop, &reader->again, next);
}

static void on_again(outr_timer *timer)
{
    outr_kafka_reader *reader = OUTR_CONTAINER(timer, outr_kafka_reader, again);
    outr_loop_defer(reader->req.loop, &reader->pump);
}

static void stop_if_settled(outr_kafka_reader *reader);

void outr_kafka_reader_settle(outr_kafka_reader *reader, outr_kafka_record *record,
                              outr_settlement how)
{
    outr__kafka_partition *p = record->partition;
    reader->in_hand--;
    p->in_hand--;
    if (p->is_gone) {
        free_record(record);
        if (p->in_hand == 0)
            free_partition(p);
    } else if (how == OUTR_SETTLE_ACK) {
        outr_offsets_settle(&p->offsets, record->offset);
        free_record(record);
        commit_soon(reader);
    } else if (p->is_leaving) {
        free_record(record);
    } else {
        if (how == OUTR_SETTLE_RETRY) {
            record->msg.attempt++;
            p->again_ns =
                outr_loop_now(reader->req.loop) + (uint64_t)reader->kafka->s.retry_interval_ns;
        }
        reader->buffered += record->bytes;
        put_back(p, record);
    }
    outr_loop_defer(reader->req.loop, &reader->pump);
    go_on_leaving(reader);
    stop_if_settled(reader);
}

void outr_kafka_reader_pause(outr_kafka_reader *reader, bool is_paused)
{
    reader->is_paused = is_paused;
    outr_loop_defer(reader->req.loop, &reader->pump);
}

/* ---- life ------------------------------------------------------------------------------------ */

static rd_kafka_t *new_consumer(outr_kafka *kafka, outr_err *err)
{
    static const char *const strategies[] = {"range", "roundrobin", "cooperative-sticky"};
    const outr_kafka_settings *s = &kafka->s;
    char why[256];
    rd_kafka_conf_t *conf = outr__kafka_conf(kafka, err);
    outr__kafka_set(&conf, "consumerGroup", "group.id", err, OUTR_FMT, OUTR_ARG(kafka->group));
    outr__kafka_set(&conf, "consumerGroup", "enable.auto.commit", err, "false");
    outr__kafka_set(&conf, "consumerGroup", "enable.auto.offset.store", err, "false");
    outr__kafka_set(&conf, "consumerGroup", "allow.auto.create.topics", err, "true");
    outr__kafka_set(&conf, "initialOffset", "auto.offset.reset", err, "%s",
                    s->initial_offset ? "earliest" : "latest");
    outr__kafka_set(&conf, "heartbeatInterval", "heartbeat.interval.ms", err, "%lld",
                    (long long)(s->heartbeat_ns / (int64_t)OUTR_MS));
    outr__kafka_set(&conf, "sessionTimeout", "session.timeout.ms", err, "%lld",
                    (long long)(s->session_ns / (int64_t)OUTR_MS));
    outr__kafka_set(&conf, "consumerGroupRebalanceStrategy", "partition.assignment.strategy", err,
                    "%s", strategies[s->strategy]);
    outr__kafka_set(&conf, "consumerFetchMin", "fetch.min.bytes", err, "%lld",
                    (long long)s->fetch_min);
    outr__kafka_set(&conf, "consumerFetchDefault", "fetch.message.max.bytes", err, "%lld",
                    (long long)s->fetch_default);
    outr__kafka_set(&conf, "consumerFetchDefault", "fetch.max.bytes", err, "%lld",
                    (long long)OUTR_MAX(s->fetch_default, FETCH_BYTES));
    outr__kafka_set(&conf, "consumerFetchDefault", "queued.max.messages.kbytes", err, "%d",
                    PREFETCH_KIB);
    outr__kafka_set(&conf, "consumerFetchDefault", "queued.min.messages", err, "%d", PREFETCH);
    outr__kafka_set(&conf, "consumerFetchDefault", "fetch.error.backoff.ms", err, "%d", BACKOFF_MS);
    if (err->code)
        return NULL;
    rd_kafka_conf_set_events(conf, RD_KAFKA_EVENT_REBALANCE | RD_KAFKA_EVENT_FETCH |
                                       RD_KAFKA_EVENT_OFFSET_COMMIT | RD_KAFKA_EVENT_ERROR);
    rd_kafka_t *client = rd_kafka_new(RD_KAFKA_CONSUMER, conf, why, sizeof why);
    if (!client) {
        rd_kafka_conf_destroy(conf);
        outr_fail(err, OUTR_INVALID_ARGUMENT, "kafka: %s", why);
    }
    return client;
}

static outr_code join(outr_kafka_reader *reader, outr_err *err)
{
    char topic[256];
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
    for (size_t i = 0; i < reader->req.topic_count; i++) {
        snprintf(topic, sizeof topic, OUTR_FMT, OUTR_ARG(reader->req.topics[i]));
        rd_kafka_topic_partition_list_add(list, topic, RD_KAFKA_PARTITION_UA);
    }
    rd_kafka_resp_err_t code = rd_kafka_subscribe(reader->client, list);
    rd_kafka_topic_partition_list_destroy(list);
    return code ? outr__kafka_fail(reader->kafka, err, code, "kafka: subscribing failed") : OUTR_OK;
}

static void open_fetched(outr_kafka_reader *reader)
{
    static const uint64_t one = 1;
    reader->fetched = rd_kafka_queue_new(reader->client);
    rd_kafka_queue_io_event_enable(reader->fetched, reader->wake.watch.fd, &one, sizeof one);
}

static void close_fetched(outr_kafka_reader *reader)
{
    if (!reader->fetched)
        return;
    rd_kafka_queue_io_event_enable(reader->fetched, -1, NULL, 0);
    rd_kafka_queue_destroy(outr_take(&reader->fetched));
}

static void free_reader(outr_kafka_reader *reader)
{
    while (!outr_list_is_empty(&reader->memories))
        forget(reader, OUTR_LIST_ITEM(reader->memories.next, memory, link));
    for (size_t i = 0; i < reader->req.topic_count; i++)
        free((void *)reader->req.topics[i].p);
    free((void *)reader->req.topics);
    free(reader->req.own_ctx);
    free(reader);
}

static void copy_topics(outr_kafka_reader *reader)
{
    outr_str *topics = outr_alloc(reader->req.topic_count * sizeof *topics);
    for (size_t i = 0; i < reader->req.topic_count; i++)
        topics[i] = outr_str_of(outr_str_dup(reader->req.topics[i]), reader->req.topics[i].n);
    reader->req.topics = topics;
}

outr_code outr_kafka_reader_start(outr_kafka_reader **out, outr_kafka *kafka,
                                  const outr_kafka_read *read, outr_err *err)
{
    for (size_t i = 0; i < read->topic_count; i++) {
        if (outr_kafka_check_topic(read->topics[i], err)) {
            free(read->own_ctx);
            return err->code;
        }
    }
    outr_kafka_reader *reader = outr_alloc(sizeof *reader);
    reader->kafka = kafka;
    reader->req = *read;
    reader->req.batch = OUTR_MAX(read->batch, 1);
    copy_topics(reader);
    outr_list_init(&reader->partitions);
    outr_list_init(&reader->memories);
    reader->wake.ready = on_ready;
    reader->pump.run = on_pump;
    reader->again_ready.run = on_more;
    reader->again.fire = on_again;
    reader->committer.fire = on_commit_time;
    reader->poller.fire = on_poll_time;
    reader->patience.fire = on_patience_over;
    reader->waker.fire = on_waker;
    reader->look_again.fire = on_look_time;
    reader->look_pause_ns = LOOK_NS;
    reader->client = new_consumer(kafka, err);
    if (!reader->client) {
        free_reader(reader);
        return err->code;
    }
    rd_kafka_poll_set_consumer(reader->client);
    outr_code rc = outr__kafka_wake_start(
        &reader->wake, rd_kafka_queue_get_consumer(reader->client), read->loop, err);
    if (!rc)
        open_fetched(reader);
    if (!rc)
        rc = join(reader, err);
    if (rc) { /* nothing was joined, so this does not wait */
        close_fetched(reader);
        outr__kafka_wake_stop(&reader->wake);
        rd_kafka_destroy_flags(reader->client, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
        free_reader(reader);
        return rc;
    }
    outr_timer_start(read->loop, &reader->poller, outr_loop_now(read->loop) + POLL_NS);
    *out = reader;
    return OUTR_OK;
}

static void on_buried(outr_op *inner)
{
    outr_kafka_reader *reader = OUTR_CONTAINER(inner, outr_kafka_reader, burial.op);
    outr_op *op = reader->stopping;
    free_reader(reader);
    outr_op_finish(op);
}

static void end_reader(outr_kafka_reader *reader, bool is_hasty)
{
    outr_loop *loop = reader->req.loop;
    reader->is_buried = true;
    OUTR_LIST_EACH(link, &reader->partitions)
        lose_partition(OUTR_LIST_ITEM(link, outr__kafka_partition, link));
    if (reader->leaving)
        rd_kafka_topic_partition_list_destroy(outr_take(&reader->leaving));
    outr_timer_stop(loop, &reader->again);
    outr_timer_stop(loop, &reader->committer);
    outr_timer_stop(loop, &reader->poller);
    outr_timer_stop(loop, &reader->patience);
    outr_timer_stop(loop, &reader->waker);
    outr_timer_stop(loop, &reader->look_again);
    outr_loop_undefer(&reader->pump);
    outr_loop_undefer(&reader->again_ready);
    close_fetched(reader);
    outr__kafka_wake_stop(&reader->wake);
    reader->burial.client = reader->client; /* after the look that may still be under way */
    reader->burial.is_hasty = is_hasty;
    outr_op_init(&reader->burial.op, loop, NULL, 0, on_buried);
    outr__kafka_bury(reader->kafka, &reader->burial);
}

static void finish_if_left(outr_kafka_reader *reader)
{
    if (reader->is_leaving_group && !reader->is_buried && rd_kafka_consumer_closed(reader->client))
        end_reader(reader, false);
}

static void on_close_time(outr_timer *timer)
{
    outr_kafka_reader *reader = OUTR_CONTAINER(timer, outr_kafka_reader, poller);
    OUTR_LOG(reader->kafka->log, WARN, "kafka: the group could not be left in time",
             OUTR_S("component", reader->kafka->name), OUTR_S("topic", reader->req.topics[0]));
    end_reader(reader, true);
}

static void stop_if_settled(outr_kafka_reader *reader)
{
    outr_loop *loop = reader->req.loop;
    if (!reader->is_stopping || reader->in_hand > 0 || reader->is_leaving_group)
        return;
    reader->is_leaving_group = true;
    outr_timer_stop(loop, &reader->committer);
    outr_timer_stop(loop, &reader->poller);
    reader->poller.fire = on_close_time;
    outr_timer_start(loop, &reader->poller, outr_loop_now(loop) + CLOSE_NS);
    rd_kafka_error_t *failure = rd_kafka_consumer_close_queue(reader->client, reader->wake.queue);
    if (failure) { /* fatal: it has left already */
        rd_kafka_error_destroy(failure);
        end_reader(reader, true);
    }
}

void outr_kafka_reader_stop(outr_kafka_reader *reader, outr_op *op)
{
    outr_op_begin(op, reader, NULL);
    reader->is_stopping = true;
    reader->stopping = op;
    stop_if_settled(reader);
}
