/* internal - what the files of the Kafka client share. */
#ifndef OUTR_COMPONENTS_COMMON_KAFKA_INTERNAL_H
#define OUTR_COMPONENTS_COMMON_KAFKA_INTERNAL_H

#include <librdkafka/rdkafka.h>
#include <pthread.h>

#include "base/regex.h"
#include "components/common/kafka/kafka.h"
#include "loop/fd_watch.h"
#include "loop/worker.h"

#define OUTR__KAFKA_TEXT_MAX 256

/* A queue of librdkafka that wakes a loop. */
typedef struct outr__kafka_wake {
    void (*ready)(struct outr__kafka_wake *wake); /* set by the caller; serves until it is empty */
    rd_kafka_queue_t *queue;
    outr_fd_watch watch; /* of an eventfd */
} outr__kafka_wake;

/* own_queue is destroyed by stop, or now on failure. */
outr_code outr__kafka_wake_start(outr__kafka_wake *wake, rd_kafka_queue_t *own_queue,
                                 outr_loop *loop, outr_err *err);
void outr__kafka_wake_stop(outr__kafka_wake *wake);

struct outr_kafka {
    outr_kafka_settings s;
    outr_arena *arena;
    outr_str name, group, client_id;
    outr_loop *loop; /* main */
    const outr_log *log;
    outr_regex *excluded;
    bool has_tls, has_sasl;
    /* opened */
    rd_kafka_t *producer;
    outr__kafka_wake wake;
    outr_worker *worker; /* for what blocks: the first contact, destroying clients */
    uint64_t outstanding; /* atomic: messages that librdkafka has not reported on */
    outr_op *closing;
    outr_timer patience;
    /* A lock: clients' threads and loops tell each other what the last failure was; rarely. */
    pthread_mutex_t lock;
    rd_kafka_resp_err_t trouble;
    char trouble_text[OUTR__KAFKA_TEXT_MAX];
};

/* What both kinds of client are made by; of kind, "producer" or "consumer" settings on top. */
rd_kafka_conf_t *outr__kafka_conf(outr_kafka *kafka, outr_err *err);
/* property gets value; field: of the metadata, for the error. On failure conf is gone. */
outr_code outr__kafka_set(rd_kafka_conf_t **conf, const char *field, const char *property,
                          outr_err *err, const char *fmt, ...) OUTR_PRINTF(5, 6);
/* Checks settings beyond what their table does, reads certificates. */
outr_code outr__kafka_check(outr_kafka *kafka, outr_err *err);

/* A client's trouble with its brokers is told once, until it is over. Any thread. */
void outr__kafka_troubled(outr_kafka *kafka, rd_kafka_resp_err_t code, const char *text);
void outr__kafka_untroubled(outr_kafka *kafka);
/* User or password were refused. */
bool outr__kafka_is_refused(outr_kafka *kafka);
/* Puts the trouble there is, if any, behind the text of err. */
void outr__kafka_add_trouble(outr_kafka *kafka, outr_err *err);
/* The field that such an error is about, or NULL. */
const char *outr__kafka_field_of(rd_kafka_resp_err_t code);
/* "<what>: <librdkafka's text>", and the trouble that is behind it when there is one. */
outr_code outr__kafka_fail(outr_kafka *kafka, outr_err *err, rd_kafka_resp_err_t code,
                           const char *what);

/* What blocks, on the worker. */
typedef struct outr__kafka_job {
    outr_work work;
    void (*run)(struct outr__kafka_job *job);
} outr__kafka_job;
outr_code outr__kafka_open_worker(outr_kafka *kafka, outr_err *err);

/* Destroys a client on the worker; any loop. After it was closed, when it was a consumer. */
typedef struct outr__kafka_burial {
    outr__kafka_job job;
    outr_op op; /* initialised by the caller */
    outr_kafka *kafka;
    rd_kafka_t *client;
    bool is_hasty; /* a consumer that could not leave its group */
} outr__kafka_burial;
/* Takes event over: impl. The record, the list of its metadata and their texts are one piece. */
struct outr_kafka_record *outr__kafka_record_new(const outr_kafka *kafka, const char *topic,
                                                 int32_t number, rd_kafka_event_t *own_event,
                                                 const rd_kafka_message_t *message);
void outr__kafka_free(outr_kafka *kafka);
void outr__kafka_bury(outr_kafka *kafka, outr__kafka_burial *burial);

#endif
