#include "components/bindings.h"
#include "components/common/kafka/kafka.h"
#include "components/common/kafka/reader.h"
#include "components/module.h"

/* Output: "create" publishes to publishTopic, or to the topic that the request's metadata name.
 * Input: a member of the consumer group brings what is published to topics; an event that the app
 * failed on comes again, and what is behind it in its partition waits. */

#define TOPICS_MAX 256

typedef struct config {
    outr_kafka_settings kafka;
    outr_str topics, publish_topic;
} config;

static const outr_bind_row rows[] = {
    OUTR_KAFKA_ROWS(config, kafka),
    {"topics", NULL, OUTR_BIND_STR, 0, offsetof(config, topics), 0, 0, NULL, NULL, 0,
     "input: topics to read, separated by commas"},
    {"publishTopic", NULL, OUTR_BIND_STR, 0, offsetof(config, publish_topic), 0, 0, NULL, NULL, 0,
     "output: topic to publish to"},
};

typedef struct binding {
    outr_binding base;
    outr_kafka *kafka;
    outr_str publish_topic;
    outr_str topics[TOPICS_MAX];
    size_t topic_count;
} binding;

struct outr_binding_reader {
    outr_kafka_reader *reader;
    outr_binding_read req;
};

static binding *of(const outr_binding *base)
{
    return OUTR_CONTAINER(base, binding, base);
}

static unsigned directions(const outr_binding *base)
{
    const binding *b = of(base);
    return (b->topic_count > 0 ? OUTR_BINDING_INPUT : 0) |
           (b->publish_topic.n > 0 ? OUTR_BINDING_OUTPUT : 0);
}

/* ---- output ---------------------------------------------------------------------------------- */

static const char *const *operations(const outr_binding *base OUTR_UNUSED)
{
    static const char *const names[] = {"create", NULL};
    return names;
}

/* On the caller's arena. */
typedef struct creating {
    outr_publish_item item;
    outr_publish req;
} creating;

static void invoke(outr_binding *base, outr_binding_invoke *req, outr_op *op)
{
    const binding *b = of(base);
    creating *c = outr_arena_alloc(req->arena, sizeof *c);
    const outr_kv *topic = outr_kvs_find_exact(req->metadata, OUTR_STR("topic"));
    outr_kv *kept = outr_arena_alloc(req->arena, (req->metadata.count + 1) * sizeof *kept);
    size_t n = 0;
    for (size_t i = 0; i < req->metadata.count; i++) {
        if (&req->metadata.items[i] != topic)
            kept[n++] = req->metadata.items[i];
    }
    c->item = (outr_publish_item){.data = req->data, .metadata = {kept, n}};
    c->req = (outr_publish){
        .topic = topic ? topic->value : b->publish_topic, .items = &c->item, .count = 1};
    outr_kafka_publish(b->kafka, &c->req, op);
}

/* ---- input ----------------------------------------------------------------------------------- */

static void on_record(void *ctx, outr_kafka_record *record)
{
    outr_binding_reader *reader = ctx;
    record->event = (outr_binding_event){
        .data = record->msg.data, .metadata = record->msg.metadata, .binding_data = record};
    reader->req.on_event(reader->req.ctx, &record->event);
}

static outr_code read_topics(outr_binding *base, const outr_binding_read *req,
                             outr_binding_reader **out, outr_err *err)
{
    const binding *b = of(base);
    outr_binding_reader *reader = outr_alloc(sizeof *reader);
    reader->req = *req;
    const outr_kafka_read read = {.topics = b->topics,
                                  .topic_count = b->topic_count,
                                  .loop = req->loop,
                                  .credit = req->credit,
                                  .batch = 1,
                                  .on_record = on_record,
                                  .own_ctx = reader};
    outr_code rc = outr_kafka_reader_start(&reader->reader, b->kafka, &read, err);
    if (!rc)
        *out = reader;
    return rc;
}

static void settle(outr_binding_reader *reader, outr_binding_event *event,
                   outr_str answer OUTR_UNUSED, const outr_err *err)
{
    outr_kafka_reader_settle(reader->reader, event->binding_data,
                             err ? OUTR_SETTLE_RETRY : OUTR_SETTLE_ACK);
}

static void stop(outr_binding_reader *reader, outr_op *op)
{
    outr_kafka_reader_stop(reader->reader, op);
}

/* ---- life ------------------------------------------------------------------------------------ */

extern const outr_binding_backend outr_bindings_kafka OUTR_MODULE;

static outr_code take_topics(binding *b, outr_str list, outr_err *err)
{
    outr_str rest = list, one;
    while (rest.p) {
        rest = outr_str_cut(rest, ',', &one);
        one = outr_str_trim(one);
        if (one.n == 0)
            continue;
        if (b->topic_count == TOPICS_MAX)
            return outr_fail(err, OUTR_INVALID_ARGUMENT, "topics: more than %d", TOPICS_MAX);
        if (outr_kafka_check_topic(one, err))
            return outr_wrap(err, "topics");
        b->topics[b->topic_count++] = one;
    }
    if (b->publish_topic.n > 0 && outr_kafka_check_topic(b->publish_topic, err))
        return outr_wrap(err, "publishTopic");
    if (b->topic_count == 0 && b->publish_topic.n == 0)
        return outr_fail(err, OUTR_INVALID_ARGUMENT,
                         "publishTopic: required without topics but not given");
    return OUTR_OK;
}

static outr_code create(outr_binding **out, const outr_component_init *init, outr_err *err)
{
    OUTR_AUTO(outr_err_list) errors = {0};
    config c = {0};
    binding *b = outr_alloc(sizeof *b);
    outr_code rc = outr_bind_kvs(rows, OUTR_LEN(rows), &c, init->metadata, &errors);
    b->publish_topic = c.publish_topic;
    if (rc)
        *err = errors.items[0];
    else
        rc = take_topics(b, c.topics, err);
    if (!rc)
        rc = outr_kafka_new(&b->kafka, &c.kafka, init, err);
    if (rc) {
        free(b);
        return rc;
    }
    b->base.backend = &outr_bindings_kafka;
    *out = &b->base;
    return OUTR_OK;
}

static void open_binding(outr_binding *base, outr_op *op)
{
    outr_kafka_open(of(base)->kafka, op);
}

static void close_binding(outr_binding *base, outr_op *op)
{
    binding *b = of(base);
    outr_kafka *kafka = b->kafka;
    free(b);
    outr_kafka_close(kafka, op);
}

const outr_binding_backend outr_bindings_kafka = {
    .base = {"bindings.kafka", "v1", rows, OUTR_LEN(rows)},
    .create = create,
    .open = open_binding,
    .close = close_binding,
    .directions = directions,
    .operations = operations,
    .invoke = invoke,
    .read = read_topics,
    .settle = settle,
    .stop = stop,
};
