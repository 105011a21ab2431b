#include "components/common/kafka/kafka.h"
#include "components/common/kafka/reader.h"
#include "components/module.h"

/* Topics of Kafka. What a message is on the wire stands in contract/pubsub.md; the work is done in
 * components/common/kafka. */

typedef struct config {
    outr_kafka_settings kafka;
} config;

static const outr_bind_row rows[] = {OUTR_KAFKA_ROWS(config, kafka)};

typedef struct broker {
    outr_broker base;
    outr_kafka *kafka;
} broker;

struct outr_broker_sub {
    outr_kafka_reader *reader;
    outr_subscribe req;
};

static broker *of(outr_broker *base)
{
    return OUTR_CONTAINER(base, broker, base);
}

static void publish(outr_broker *base, outr_publish *req, outr_op *op)
{
    outr_kafka_publish(of(base)->kafka, req, op);
}

/* ---- subscriptions --------------------------------------------------------------------------- */

static void on_record(void *ctx, outr_kafka_record *record)
{
    outr_broker_sub *sub = ctx;
    sub->req.on_message(sub->req.ctx, &record->msg);
}

static outr_code subscribe(outr_broker *base, const outr_subscribe *req, outr_broker_sub **out,
                           outr_err *err)
{
    const outr_kv *schema = outr_kvs_find(req->metadata, "valueSchemaType");
    if (schema && !outr_str_iis(schema->value, "None"))
        return outr_fail(err, OUTR_UNIMPLEMENTED,
                         "valueSchemaType: Avro and schema registries are not supported");
    outr_broker_sub *sub = outr_alloc(sizeof *sub);
    sub->req = *req;
    const outr_kafka_read read = {.topics = &req->topic,
                                  .topic_count = 1,
                                  .loop = req->loop,
                                  .credit = req->credit,
                                  .batch = req->batch,
                                  .batches = req->batches,
                                  .on_record = on_record,
                                  .own_ctx = sub};
    outr_code rc = outr_kafka_reader_start(&sub->reader, of(base)->kafka, &read, err);
    if (!rc)
        *out = sub;
    return rc;
}

static void settle(outr_broker_sub *sub, outr_message_in *msg, outr_settlement how)
{
    outr_kafka_reader_settle(sub->reader, msg->broker_data, how);
}

static void pause_sub(outr_broker_sub *sub, bool is_paused)
{
    outr_kafka_reader_pause(sub->reader, is_paused);
}

static void unsubscribe(outr_broker_sub *sub, outr_op *op)
{
    outr_kafka_reader_stop(sub->reader, op);
}

/* ---- life ------------------------------------------------------------------------------------ */

extern const outr_pubsub_backend outr_pubsub_kafka OUTR_MODULE;

static outr_code create(outr_broker **out, const outr_component_init *init, outr_err *err)
{
    OUTR_AUTO(outr_err_list) errors = {0};
    config c = {0};
    broker *b = outr_alloc(sizeof *b);
    outr_code rc = outr_bind_kvs(rows, OUTR_LEN(rows), &c, init->metadata, &errors);
    if (rc)
        *err = errors.items[0];
    else
        rc = outr_kafka_new(&b->kafka, &c.kafka, init, err);
    if (rc) {
        free(b);
        return rc;
    }
    b->base.backend = &outr_pubsub_kafka;
    *out = &b->base;
    return OUTR_OK;
}

static void open_broker(outr_broker *base, outr_op *op)
{
    outr_kafka_open(of(base)->kafka, op);
}

static void close_broker(outr_broker *base, outr_op *op)
{
    broker *b = of(base);
    outr_kafka *kafka = b->kafka;
    free(b);
    outr_kafka_close(kafka, op);
}

static unsigned features(const outr_broker *base OUTR_UNUSED)
{
    return OUTR_PUBSUB_BULK_PUBLISH;
}

const outr_pubsub_backend outr_pubsub_kafka = {
    .base = {"pubsub.kafka", "v1", rows, OUTR_LEN(rows)},
    .create = create,
    .open = open_broker,
    .close = close_broker,
    .features = features,
    .publish = publish,
    .subscribe = subscribe,
    .settle = settle,
    .pause = pause_sub,
    .unsubscribe = unsubscribe,
};
