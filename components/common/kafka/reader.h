/* reader - a member of a component's consumer group: brings the records of some topics to a loop.
 *
 * Lives on one loop. A partition's records are handed over in order, and what comes behind one that
 * is in hand waits until it is settled: one at a time, or `batch` of them for who takes many
 * together. Partitions do not wait for each other, within the credit. What was refused comes again
 * after consumeRetryInterval, before anything behind it; what was released at once.
 *
 * An offset is committed when everything up to it was settled (offsets.h), within COMMIT_NS. When
 * the group takes partitions away, what is in hand is waited for, at most LEAVE_NS, and committed
 * before they are given up; what was not settled by then is somebody else's, and what becomes of it
 * here changes nothing. Librdkafka's queue is emptied into ours as it fills; over BUFFER_BYTES the
 * partitions are paused, so a slow or hung app costs no more than that. */
#ifndef OUTR_COMPONENTS_COMMON_KAFKA_READER_H
#define OUTR_COMPONENTS_COMMON_KAFKA_READER_H

#include "components/bindings.h"
#include "components/common/kafka/kafka.h"

typedef struct outr_kafka_reader outr_kafka_reader;
typedef struct outr__kafka_partition outr__kafka_partition;

/* Handed over until it is settled. */
typedef struct outr_kafka_record {
    outr_message_in msg;      /* metadata: headers, and __key, __offset, __partition, ... */
    outr_binding_event event; /* the reader's user's */
    /* machinery */
    outr_link link;
    outr__kafka_partition *partition;
    struct rd_kafka_op_s *impl; /* librdkafka's event, which holds the bytes */
    int64_t offset;
    size_t bytes;
} outr_kafka_record;

typedef struct outr_kafka_read {
    const outr_str *topics; /* copied */
    size_t topic_count;
    outr_loop *loop;
    size_t credit; /* records that may be in hand */
    size_t batch;  /* of one partition */
    const uint64_t *batches; /* as in outr_subscribe */
    void (*on_record)(void *ctx, outr_kafka_record *record);
    void *own_ctx; /* freed with the reader, or now on failure */
} outr_kafka_read;

/* On its loop, as all of these. */
outr_code outr_kafka_reader_start(outr_kafka_reader **out, outr_kafka *kafka,
                                  const outr_kafka_read *read, outr_err *err);
void outr_kafka_reader_settle(outr_kafka_reader *reader, outr_kafka_record *record,
                              outr_settlement how);
void outr_kafka_reader_pause(outr_kafka_reader *reader, bool is_paused);
/* Nothing new. Done when what is in hand was settled and the group was left; frees reader. */
void outr_kafka_reader_stop(outr_kafka_reader *reader, outr_op *op);

#endif
