#include "components/common/kafka/internal.h"

#define CLOSE_PATIENCE_NS (5 * OUTR_SEC)
#define ASK_MS            300
#define QUEUE_MESSAGES    100000
#define QUEUE_KIB         32768 /* of messages that wait for a broker */
#define DELIVERY_MS       30000
#define MESSAGE_MAX       1048576

/* ---- publishing ------------------------------------------------------------------------------ */

typedef struct sending sending;

typedef struct slot {
    sending *s;
    rd_kafka_resp_err_t code;
} slot;

/* A publish until librdkafka has reported on all of its messages, which may be after its op. */
struct sending {
    outr_kafka *kafka;
    outr_publish *req; /* while op is there */
    outr_op *op;       /* NULL: cancelled. On loop only */
    outr_loop *loop;
    outr_message message;
    size_t count;
    size_t left; /* atomic: not reported, and one for the start */
    slot slots[];
};

static void on_all_reported(outr_message *message, outr_loop *loop OUTR_UNUSED)
{
    sending *s = OUTR_CONTAINER(message, sending, message);
    outr_op *op = s->op;
    outr_err first = {0};
    for (size_t i = 0; op && i < s->count; i++) {
        outr_err *err = &s->req->items[i].err;
        if (s->slots[i].code != RD_KAFKA_RESP_ERR_NO_ERROR)
            outr__kafka_fail(s->kafka, err, s->slots[i].code, "kafka: publishing failed");
        if (err->code && !first.code)
            first = *err;
    }
    free(s);
    if (!op)
        return;
    if (first.code)
        outr_op_fail(op, &first);
    else
        outr_op_finish(op);
}

/* One message less is under way. */
static void reported(sending *s)
{
    if (__atomic_sub_fetch(&s->left, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    s->message.run = on_all_reported;
    outr_loop_post(s->loop, &s->message);
}

static void on_report(rd_kafka_t *client OUTR_UNUSED, const rd_kafka_message_t *message,
                      void *opaque)
{
    outr_kafka *kafka = opaque;
    slot *own = message->_private;
    own->code = message->err;
    if (message->err == RD_KAFKA_RESP_ERR_NO_ERROR)
        outr__kafka_untroubled(kafka);
    __atomic_sub_fetch(&kafka->outstanding, 1, __ATOMIC_ACQ_REL);
    reported(own->s);
}

static void on_publish_cancel(outr_op *op)
{
    sending *s = op->impl;
    outr_publish *req = s->req;
    outr__kafka_add_trouble(s->kafka, &op->err);
    for (size_t i = 0; i < req->count; i++)
        req->items[i].err = op->err;
    s->op = NULL;
    s->req = NULL;
    outr_op_finish(op);
}

/* INVALID_ARGUMENT: its metadata are no good. */
static outr_code read_metadata(const outr_publish_item *item, rd_kafka_vu_t *key,
                               rd_kafka_vu_t *partition, rd_kafka_headers_t **headers,
                               outr_err *err)
{
    *headers = NULL;
    for (size_t i = 0; i < item->metadata.count; i++) {
        const outr_kv *kv = &item->metadata.items[i];
        int64_t number;
        if (outr_str_is(kv->key, "partitionKey") || outr_str_is(kv->key, "__key")) {
            key->u.mem.ptr = (void *)kv->value.p;
            key->u.mem.size = kv->value.n;
        } else if (outr_str_is(kv->key, "partitionNumber")) {
            if (!outr_str_to_i64(kv->value, 0, INT32_MAX, &number))
                return outr_fail(err, OUTR_INVALID_ARGUMENT,
                                 "kafka: partitionNumber: not a partition: \"" OUTR_FMT "\"",
                                 OUTR_ARG(outr_str_head(kv->value, 64)));
            partition->u.i32 = (int32_t)number;
        } else if (outr_str_is(kv->key, "valueSchemaType") && !outr_str_iis(kv->value, "None")) {
            return outr_fail(err, OUTR_UNIMPLEMENTED,
                             "kafka: valueSchemaType: Avro and schema registries are not "
                             "supported");
        } else {
            if (!*headers)
                *headers = rd_kafka_headers_new(8);
            rd_kafka_header_add(*headers, kv->key.p, (ssize_t)kv->key.n, kv->value.p,
                                (ssize_t)kv->value.n);
        }
    }
    return OUTR_OK;
}

static void send_one(sending *s, const char *topic, size_t i)
{
    outr_publish_item *item = &s->req->items[i];
    rd_kafka_headers_t *headers = NULL;
    enum { TOPIC, VALUE, FLAGS, OPAQUE, PARTITION, KEY, HEADERS };
    rd_kafka_vu_t args[] = {
        [TOPIC] = {.vtype = RD_KAFKA_VTYPE_TOPIC, .u.cstr = topic},
        [VALUE] = {.vtype = RD_KAFKA_VTYPE_VALUE,
                   .u.mem = {(void *)(item->data.p ? item->data.p : ""), item->data.n}},
        [FLAGS] = {.vtype = RD_KAFKA_VTYPE_MSGFLAGS, .u.i = RD_KAFKA_MSG_F_COPY},
        [OPAQUE] = {.vtype = RD_KAFKA_VTYPE_OPAQUE, .u.ptr = &s->slots[i]},
        [PARTITION] = {.vtype = RD_KAFKA_VTYPE_PARTITION, .u.i32 = RD_KAFKA_PARTITION_UA},
        [KEY] = {.vtype = RD_KAFKA_VTYPE_KEY},
        [HEADERS] = {.vtype = RD_KAFKA_VTYPE_HEADERS},
    };
    outr_err_clear(&item->err);
    s->slots[i].s = s;
    if (read_metadata(item, &args[KEY], &args[PARTITION], &headers, &item->err)) {
        if (headers)
            rd_kafka_headers_destroy(headers);
        reported(s);
        return;
    }
    args[HEADERS].u.headers = headers;
    __atomic_add_fetch(&s->kafka->outstanding, 1, __ATOMIC_ACQ_REL);
    rd_kafka_error_t *failure =
        rd_kafka_produceva(s->kafka->producer, args, headers ? OUTR_LEN(args) : HEADERS);
    if (!failure)
        return; /* headers are the message's now; it may be reported on already */
    s->slots[i].code = rd_kafka_error_code(failure);
    rd_kafka_error_destroy(failure);
    if (headers)
        rd_kafka_headers_destroy(headers);
    __atomic_sub_fetch(&s->kafka->outstanding, 1, __ATOMIC_ACQ_REL);
    reported(s);
}

void outr_kafka_publish(outr_kafka *kafka, outr_publish *req, outr_op *op)
{
    char topic[256];
    outr_err err;
    size_t count = req->count;
    if (outr_kafka_check_topic(req->topic, &err)) {
        outr_op_begin(op, NULL, NULL);
        for (size_t i = 0; i < count; i++)
            req->items[i].err = err;
        outr_op_fail_soon(op, &err);
        return;
    }
    snprintf(topic, sizeof topic, OUTR_FMT, OUTR_ARG(req->topic));
    sending *s = outr_alloc(sizeof *s + count * sizeof *s->slots);
    *s = (sending){.kafka = kafka,
                   .req = req,
                   .op = op,
                   .loop = op->loop,
                   .count = count,
                   .left = count + 1};
    outr_op_begin(op, s, on_publish_cancel);
    for (size_t i = 0; i < count; i++)
        send_one(s, topic, i);
    reported(s);
}

/* ---- a producer's life ----------------------------------------------------------------------- */

static void on_client_error(rd_kafka_t *client, int code, const char *text, void *opaque)
{
    char fatal[OUTR__KAFKA_TEXT_MAX];
    if (code == RD_KAFKA_RESP_ERR__FATAL)
        code = (int)rd_kafka_fatal_error(client, fatal, sizeof fatal);
    outr__kafka_troubled(opaque, (rd_kafka_resp_err_t)code, text);
}

static void end_if_reported(outr_kafka *kafka);

static void on_reports(outr__kafka_wake *wake)
{
    outr_kafka *kafka = OUTR_CONTAINER(wake, outr_kafka, wake);
    rd_kafka_poll(kafka->producer, 0);
    end_if_reported(kafka);
}

static rd_kafka_t *new_producer(outr_kafka *kafka, outr_err *err)
{
    static const char *const acks[] = {"-1", "-1", "1", "0"};
    const outr_kafka_settings *s = &kafka->s;
    char why[256];
    rd_kafka_conf_t *conf = outr__kafka_conf(kafka, err);
    outr__kafka_set(&conf, "brokers", "linger.ms", err, "0");
    /* One request to a broker at a time: what comes meanwhile goes as one batch with the next, and
     * no retry overtakes what came before it. */
    outr__kafka_set(&conf, "brokers", "max.in.flight.requests.per.connection", err, "1");
    /* what a key hashes to in a daprd */
    outr__kafka_set(&conf, "brokers", "partitioner", err, "fnv1a_random");
    outr__kafka_set(&conf, "brokers", "queue.buffering.max.messages", err, "%d", QUEUE_MESSAGES);
    outr__kafka_set(&conf, "brokers", "queue.buffering.max.kbytes", err, "%d", QUEUE_KIB);
    outr__kafka_set(&conf, "brokers", "message.timeout.ms", err, "%d", DELIVERY_MS);
    outr__kafka_set(&conf, "producerRequiredAcks", "request.required.acks", err, "%s",
                    acks[s->acks]);
    outr__kafka_set(&conf, "producerRetryMax", "message.send.max.retries", err, "%lld",
                    (long long)s->retry_max);
    outr__kafka_set(&conf, "compression", "compression.type", err, "%s",
                    outr_kafka_compressions[s->compression]);
    outr__kafka_set(&conf, "maxMessageBytes", "message.max.bytes", err, "%lld",
                    s->max_message_bytes ? (long long)OUTR_MAX(s->max_message_bytes, 1000)
                                         : MESSAGE_MAX);
    if (err->code)
        return NULL;
    rd_kafka_conf_set_error_cb(conf, on_client_error);
    rd_kafka_conf_set_dr_msg_cb(conf, on_report);
    rd_kafka_t *client = rd_kafka_new(RD_KAFKA_PRODUCER, conf, why, sizeof why);
    if (!client) {
        rd_kafka_conf_destroy(conf);
        outr_fail(err, OUTR_INVALID_ARGUMENT, "%s", why);
    }
    return client;
}

/* ---- the first contact ----------------------------------------------------------------------- */

typedef struct opening {
    outr_kafka *kafka;
    outr__kafka_job job;
    outr_op inner;
    outr_op *op;
    rd_kafka_resp_err_t code;
} opening;

/* On the worker. A broker answers, or there is no sense in asking again, or nobody waits. */
static void ask(outr__kafka_job *job)
{
    opening *o = OUTR_CONTAINER(job, opening, job);
    const struct rd_kafka_metadata *metadata;
    do {
        o->code = rd_kafka_metadata(o->kafka->producer, 0, NULL, &metadata, ASK_MS);
        if (o->code == RD_KAFKA_RESP_ERR_NO_ERROR)
            rd_kafka_metadata_destroy(metadata);
    } while (o->code && !outr__kafka_is_refused(o->kafka) &&
             !__atomic_load_n(&job->work.is_abandoned, __ATOMIC_ACQUIRE));
}

static void on_asked(outr_op *inner)
{
    opening *o = OUTR_CONTAINER(inner, opening, inner);
    outr_op *op = o->op;
    outr_err err = {0};
    if (o->code)
        outr__kafka_fail(o->kafka, &err, o->code, "kafka: no broker answers");
    else if (inner->err.code)
        err = inner->err;
    else
        outr__kafka_untroubled(o->kafka);
    free(o);
    if (err.code)
        outr_op_fail(op, &err);
    else
        outr_op_finish(op);
}

static void on_open_cancel(outr_op *op)
{
    opening *o = op->impl;
    outr__kafka_add_trouble(o->kafka, &op->err);
    outr_op_cancel(&o->inner, op->err.code);
}

void outr_kafka_open(outr_kafka *kafka, outr_op *op)
{
    outr_err err = {0};
    kafka->producer = new_producer(kafka, &err);
    kafka->wake.ready = on_reports;
    if (kafka->producer)
        outr__kafka_wake_start(&kafka->wake, rd_kafka_queue_get_main(kafka->producer), kafka->loop,
                               &err);
    if (!err.code)
        outr__kafka_open_worker(kafka, &err);
    if (err.code) {
        outr_op_begin(op, NULL, NULL);
        outr_op_fail_soon(op, &err);
        return;
    }
    opening *o = outr_alloc(sizeof *o);
    o->kafka = kafka;
    o->op = op;
    o->job.run = ask;
    outr_op_begin(op, o, on_open_cancel);
    outr_op_init(&o->inner, kafka->loop, NULL, 0, on_asked);
    outr_worker_submit(kafka->worker, &o->job.work, &o->inner);
}

/* ---- the end --------------------------------------------------------------------------------- */

static void on_buried(outr_op *inner)
{
    outr__kafka_burial *burial = OUTR_CONTAINER(inner, outr__kafka_burial, op);
    outr_kafka *kafka = burial->kafka;
    outr_op *op = kafka->closing;
    free(burial);
    outr__kafka_free(kafka);
    outr_op_finish(op);
}

/* Once librdkafka holds no message of ours the producer goes. */
static void end_if_reported(outr_kafka *kafka)
{
    if (!kafka->closing || !kafka->producer ||
        __atomic_load_n(&kafka->outstanding, __ATOMIC_ACQUIRE) > 0)
        return;
    outr_timer_stop(kafka->loop, &kafka->patience);
    outr__kafka_wake_stop(&kafka->wake);
    outr__kafka_burial *burial = outr_alloc(sizeof *burial);
    burial->kafka = kafka;
    burial->client = outr_take(&kafka->producer);
    outr_op_init(&burial->op, kafka->loop, NULL, 0, on_buried);
    outr__kafka_bury(kafka, burial);
}

static void on_patience_over(outr_timer *timer)
{
    outr_kafka *kafka = OUTR_CONTAINER(timer, outr_kafka, patience);
    rd_kafka_purge(kafka->producer, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT);
}

void outr_kafka_close(outr_kafka *kafka, outr_op *op)
{
    outr_op_begin(op, kafka, NULL);
    if (!kafka->worker) { /* never opened, or not far */
        outr__kafka_wake_stop(&kafka->wake);
        if (kafka->producer)
            rd_kafka_destroy(kafka->producer);
        outr__kafka_free(kafka);
        outr_op_finish_soon(op);
        return;
    }
    kafka->closing = op;
    kafka->patience.fire = on_patience_over;
    outr_timer_start(kafka->loop, &kafka->patience,
                     outr_loop_now(kafka->loop) + CLOSE_PATIENCE_NS);
    end_if_reported(kafka);
}
