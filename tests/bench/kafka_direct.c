/* kafka_direct BROKERS TOPIC produce|consume|single COUNT BYTES: librdkafka without a sidecar, as
 * rdkafka_performance does it; a consumer commits after each 1000 messages. Prints messages a
 * second, or for single (one at a time, each confirmed before the next) the median in microseconds.
 */
#include <librdkafka/rdkafka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static double now(void)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (double)at.tv_sec + (double)at.tv_nsec / 1e9;
}

static void on_report(rd_kafka_t *client, const rd_kafka_message_t *message, void *opaque)
{
    (void)client;
    if (message->err) {
        fprintf(stderr, "%s\n", rd_kafka_err2str(message->err));
        exit(1);
    }
    (*(long *)opaque)++;
}

static void set(rd_kafka_conf_t *conf, const char *name, const char *value)
{
    char why[256];
    if (rd_kafka_conf_set(conf, name, value, why, sizeof why) != RD_KAFKA_CONF_OK) {
        fprintf(stderr, "%s\n", why);
        exit(1);
    }
}

static void produce_one(rd_kafka_t *client, const char *topic, char *data, size_t n)
{
    while (rd_kafka_producev(client, RD_KAFKA_V_TOPIC(topic), RD_KAFKA_V_VALUE(data, n),
                             RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_END))
        rd_kafka_poll(client, 10); /* its queue is full */
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static void produce(rd_kafka_t *client, const char *topic, long count, size_t n, long *done, int is_single)
{
    char *data = malloc(n);
    double *took = malloc((size_t)count * sizeof *took), began = now();
    memset(data, 'x', n);
    for (long i = 0; i < count; i++) {
        double at = now();
        produce_one(client, topic, data, n);
        rd_kafka_poll(client, 0);
        while (is_single && *done <= i)
            rd_kafka_poll(client, 100);
        took[i] = now() - at;
    }
    while (*done < count)
        rd_kafka_poll(client, 100);
    double all = now() - began;
    qsort(took, (size_t)count, sizeof *took, compare);
    printf("%.1f\n", is_single ? took[count / 2] * 1e6 : (double)count / all);
}

static void consume(rd_kafka_t *client, const char *topic, long count)
{
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
    rd_kafka_topic_partition_list_add(list, topic, RD_KAFKA_PARTITION_UA);
    rd_kafka_poll_set_consumer(client);
    rd_kafka_subscribe(client, list);
    double began = 0;
    for (long i = 0; i < count;) {
        rd_kafka_message_t *message = rd_kafka_consumer_poll(client, 1000);
        if (!message)
            continue;
        if (!message->err && i++ == 0)
            began = now();
        int is_due = !message->err && i % 1000 == 0;
        rd_kafka_message_destroy(message);
        if (is_due)
            rd_kafka_commit(client, NULL, 1);
    }
    rd_kafka_commit(client, NULL, 0);
    printf("%.1f\n", (double)count / (now() - began));
    rd_kafka_consumer_close(client);
}

int main(int argc, char **argv)
{
    char why[256];
    long done = 0;
    if (argc != 6)
        return 2;
    int is_consumer = strcmp(argv[3], "consume") == 0, is_single = strcmp(argv[3], "single") == 0;
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    set(conf, "bootstrap.servers", argv[1]);
    if (is_consumer) {
        snprintf(why, sizeof why, "direct-%ld", (long)time(NULL)); /* each run reads all */
        set(conf, "group.id", why);
        set(conf, "auto.offset.reset", "earliest");
        set(conf, "enable.auto.commit", "false");
    } else {
        rd_kafka_conf_set_dr_msg_cb(conf, on_report);
        rd_kafka_conf_set_opaque(conf, &done);
        if (is_single)
            set(conf, "linger.ms", "0");
    }
    rd_kafka_t *client = rd_kafka_new(is_consumer ? RD_KAFKA_CONSUMER : RD_KAFKA_PRODUCER, conf, why, sizeof why);
    if (!client)
        return 1;
    if (is_consumer)
        consume(client, argv[2], atol(argv[4]));
    else
        produce(client, argv[2], atol(argv[4]), (size_t)atol(argv[5]), &done, is_single);
    rd_kafka_destroy(client);
    return 0;
}
