#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "components/common/kafka/internal.h"

/* ---- being woken ----------------------------------------------------------------------------- */

static void on_readable(outr_fd_watch *watch)
{
    outr__kafka_wake *wake = OUTR_CONTAINER(watch, outr__kafka_wake, watch);
    uint64_t count;
    ssize_t n = read(wake->watch.fd, &count, sizeof count);
    if (n == sizeof count)
        wake->ready(wake);
}

outr_code outr__kafka_wake_start(outr__kafka_wake *wake, rd_kafka_queue_t *own_queue,
                                 outr_loop *loop, outr_err *err)
{
    static const uint64_t one = 1;
    wake->watch.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (wake->watch.fd < 0) {
        rd_kafka_queue_destroy(own_queue);
        return outr_fail_errno(err, errno, "eventfd");
    }
    wake->watch.ready = on_readable;
    outr_code rc = outr_fd_watch_start(&wake->watch, loop, err);
    if (rc) {
        close(wake->watch.fd);
        rd_kafka_queue_destroy(own_queue);
        return rc;
    }
    wake->queue = own_queue;
    rd_kafka_queue_io_event_enable(own_queue, wake->watch.fd, &one, sizeof one);
    return OUTR_OK;
}

void outr__kafka_wake_stop(outr__kafka_wake *wake)
{
    if (!wake->queue)
        return;
    rd_kafka_queue_io_event_enable(wake->queue, -1, NULL, 0);
    outr_fd_watch_stop(&wake->watch);
    rd_kafka_queue_destroy(outr_take(&wake->queue));
    close(wake->watch.fd);
}

/* ---- trouble --------------------------------------------------------------------------------- */

const char *outr__kafka_field_of(rd_kafka_resp_err_t code)
{
    static const struct {
        rd_kafka_resp_err_t code;
        const char *field;
    } fields[] = {
        {RD_KAFKA_RESP_ERR__AUTHENTICATION, "saslUsername, saslPassword"},
        {RD_KAFKA_RESP_ERR_SASL_AUTHENTICATION_FAILED, "saslUsername, saslPassword"},
        {RD_KAFKA_RESP_ERR_UNSUPPORTED_SASL_MECHANISM, "saslMechanism"},
        {RD_KAFKA_RESP_ERR__SSL, "caCert, clientCert"},
        {RD_KAFKA_RESP_ERR__RESOLVE, "brokers"},
        {RD_KAFKA_RESP_ERR__TRANSPORT, "brokers"},
        {RD_KAFKA_RESP_ERR__TIMED_OUT, "brokers"},
        {RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN, "brokers"},
        {RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE, "maxMessageBytes"},
        {RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED, "consumerGroup"},
        {RD_KAFKA_RESP_ERR_INVALID_SESSION_TIMEOUT, "sessionTimeout"},
        {RD_KAFKA_RESP_ERR_INCONSISTENT_GROUP_PROTOCOL, "consumerGroupRebalanceStrategy"},
    };
    for (size_t i = 0; i < OUTR_LEN(fields); i++) {
        if (fields[i].code == code)
            return fields[i].field;
    }
    return NULL;
}

static outr_code code_of(rd_kafka_resp_err_t code)
{
    switch (code) {
    case RD_KAFKA_RESP_ERR__AUTHENTICATION:
    case RD_KAFKA_RESP_ERR_SASL_AUTHENTICATION_FAILED:
        return OUTR_UNAUTHENTICATED;
    case RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED:
    case RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED:
    case RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED:
        return OUTR_PERMISSION_DENIED;
    case RD_KAFKA_RESP_ERR__QUEUE_FULL:
    case RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE:
        return OUTR_RESOURCE_EXHAUSTED;
    case RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC:
    case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART:
    case RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION:
        return OUTR_NOT_FOUND;
    case RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION:
    case RD_KAFKA_RESP_ERR__INVALID_ARG:
        return OUTR_INVALID_ARGUMENT;
    default:
        return OUTR_UNAVAILABLE;
    }
}

void outr__kafka_troubled(outr_kafka *kafka, rd_kafka_resp_err_t code, const char *text)
{
    const char *field = outr__kafka_field_of(code);
    pthread_mutex_lock(&kafka->lock);
    bool is_new = kafka->trouble == RD_KAFKA_RESP_ERR_NO_ERROR;
    bool is_worse = code == RD_KAFKA_RESP_ERR__AUTHENTICATION && kafka->trouble != code;
    /* "all brokers are down" says less than what came before it */
    if (code != RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN || is_new) {
        __atomic_store_n(&kafka->trouble, code, __ATOMIC_RELAXED);
        snprintf(kafka->trouble_text, sizeof kafka->trouble_text, "%s", text);
    }
    pthread_mutex_unlock(&kafka->lock);
    if (is_new || is_worse)
        OUTR_LOG(kafka->log, WARN, "kafka is away, trying again", OUTR_S("component", kafka->name),
                 OUTR_Z("field", field ? field : ""), OUTR_Z("error", text));
}

void outr__kafka_untroubled(outr_kafka *kafka)
{
    if (!__atomic_load_n(&kafka->trouble, __ATOMIC_RELAXED)) /* the common case takes no lock */
        return;
    pthread_mutex_lock(&kafka->lock);
    bool was = kafka->trouble != RD_KAFKA_RESP_ERR_NO_ERROR;
    __atomic_store_n(&kafka->trouble, RD_KAFKA_RESP_ERR_NO_ERROR, __ATOMIC_RELAXED);
    pthread_mutex_unlock(&kafka->lock);
    if (was)
        OUTR_LOG(kafka->log, INFO, "kafka is back", OUTR_S("component", kafka->name));
}

bool outr__kafka_is_refused(outr_kafka *kafka)
{
    pthread_mutex_lock(&kafka->lock);
    bool is_refused = kafka->trouble == RD_KAFKA_RESP_ERR__AUTHENTICATION;
    pthread_mutex_unlock(&kafka->lock);
    return is_refused;
}

void outr__kafka_add_trouble(outr_kafka *kafka, outr_err *err)
{
    char text[OUTR__KAFKA_TEXT_MAX] = "";
    pthread_mutex_lock(&kafka->lock);
    const char *field = outr__kafka_field_of(kafka->trouble);
    if (kafka->trouble)
        snprintf(text, sizeof text, "kafka: %.200s%s%s%s", kafka->trouble_text, field ? " (" : "",
                 field ? field : "", field ? ")" : "");
    pthread_mutex_unlock(&kafka->lock);
    outr_wrap(err, "%s", text[0] ? text : "kafka: no answer (brokers)");
}

outr_code outr__kafka_fail(outr_kafka *kafka, outr_err *err, rd_kafka_resp_err_t code,
                           const char *what)
{
    bool is_waiting = code == RD_KAFKA_RESP_ERR__MSG_TIMED_OUT ||
                      code == RD_KAFKA_RESP_ERR__TIMED_OUT ||
                      code == RD_KAFKA_RESP_ERR__TRANSPORT || code == RD_KAFKA_RESP_ERR__QUEUE_FULL;
    char text[OUTR__KAFKA_TEXT_MAX + 2] = "";
    rd_kafka_resp_err_t behind = RD_KAFKA_RESP_ERR_NO_ERROR;
    if (is_waiting) {
        pthread_mutex_lock(&kafka->lock);
        behind = kafka->trouble;
        if (behind)
            snprintf(text, sizeof text, ": %s", kafka->trouble_text);
        pthread_mutex_unlock(&kafka->lock);
    }
    const char *field = outr__kafka_field_of(behind ? behind : code);
    return outr_fail(err, code_of(behind == RD_KAFKA_RESP_ERR__AUTHENTICATION ? behind : code),
                     "%s: %s%s%s%s%s", what, rd_kafka_err2str(code), text, field ? " (" : "",
                     field ? field : "", field ? ")" : "");
}

/* ---- what blocks ----------------------------------------------------------------------------- */

static void on_jobs(void *ctx OUTR_UNUSED, outr_work **items, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        outr__kafka_job *job = OUTR_CONTAINER(items[i], outr__kafka_job, work);
        job->run(job);
    }
}

outr_code outr__kafka_open_worker(outr_kafka *kafka, outr_err *err)
{
    const outr_worker_options options = {
        .name = "kafka", .handle = on_jobs, .ctx = kafka, .max_batch = 1};
    return outr_worker_open(&kafka->worker, &options, err);
}

static void bury(outr__kafka_job *job)
{
    outr__kafka_burial *burial = OUTR_CONTAINER(job, outr__kafka_burial, job);
    rd_kafka_destroy_flags(burial->client,
                           burial->is_hasty ? RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE : 0);
}

void outr__kafka_bury(outr_kafka *kafka, outr__kafka_burial *burial)
{
    burial->job.run = bury;
    outr_worker_submit(kafka->worker, &burial->job.work, &burial->op);
}

/* ---- life ------------------------------------------------------------------------------------ */

outr_code outr_kafka_new(outr_kafka **out, const outr_kafka_settings *settings,
                         const outr_component_init *init, outr_err *err)
{
    outr_kafka *kafka = outr_alloc(sizeof *kafka);
    kafka->s = *settings;
    kafka->arena = outr_arena_new(8 * OUTR_MIB);
    kafka->name = init->name;
    kafka->loop = init->loop;
    kafka->log = init->log;
    kafka->group = settings->consumer_group.n > 0 ? settings->consumer_group
                   : settings->consumer_id.n > 0  ? settings->consumer_id
                                                  : init->app_id;
    kafka->client_id = settings->client_id.n > 0 ? settings->client_id : OUTR_STR("sarama");
    pthread_mutex_init(&kafka->lock, NULL);
    outr_code rc = outr__kafka_check(kafka, err);
    if (!rc) { /* what librdkafka refuses is refused here, too */
        rd_kafka_conf_t *conf = outr__kafka_conf(kafka, err);
        if (conf)
            rd_kafka_conf_destroy(conf);
        rc = err->code;
    }
    if (rc) {
        outr__kafka_free(kafka);
        return rc;
    }
    *out = kafka;
    return OUTR_OK;
}

void outr__kafka_free(outr_kafka *kafka)
{
    if (kafka->worker)
        outr_worker_close(kafka->worker);
    outr_regex_free(kafka->excluded);
    outr_arena_free(kafka->arena);
    pthread_mutex_destroy(&kafka->lock);
    free(kafka);
}
