/* kafka - the client that pubsub.kafka and bindings.kafka are built on: librdkafka, whose threads
 * stay behind it.
 *
 * One outr_kafka for a component: a producer, owned by the main loop, which its delivery reports
 * wake by a file descriptor; and any number of readers (reader.h), each a member of the consumer
 * group on the loop of its subscription. Publishing may be asked for on any loop. A publish is done
 * when the broker has confirmed it (producerRequiredAcks), or failed for good: until then
 * librdkafka tries again, across restarts of brokers, for DELIVERY_MS. What waits for a broker is
 * bounded (RESOURCE_EXHAUSTED beyond). Errors name the metadata field they are about, when they
 * are; who calls adds the component. Brokers that are away are looked for again for ever.
 *
 * Source: contract/components.csv, contract/pubsub.md, librdkafka's CONFIGURATION.md. */
#ifndef OUTR_COMPONENTS_COMMON_KAFKA_KAFKA_H
#define OUTR_COMPONENTS_COMMON_KAFKA_KAFKA_H

#include "components/pubsub.h"

typedef struct outr_kafka outr_kafka;

/* The metadata that both components have, as a part of their own configuration (as in redis.h).
 * Strings are borrowed from the metadata. Durations that are plain numbers count milliseconds. */
typedef struct outr_kafka_settings {
    outr_str brokers, consumer_group, consumer_id, client_id;
    int auth_type, auth_required;
    outr_str sasl_username, sasl_password;
    int sasl_mechanism;
    outr_str ca_cert, client_cert, client_key; /* PEM text or path */
    bool skip_verify, disable_tls;
    int initial_offset, acks, compression, strategy;
    int64_t max_message_bytes; /* 0: not given */
    int64_t fetch_min, fetch_default, retry_max, buffer_size;
    int64_t retry_interval_ns, heartbeat_ns, session_ns, refresh_ns, keep_alive_ns, dial_ns,
        read_ns, write_ns, metadata_ns;
    bool retry_enabled, escape_headers, avro_json, schema_caching;
    outr_str version, exclude_headers;
    outr_str registry_url, registry_key, registry_secret;
    int64_t registry_ttl_ns;
} outr_kafka_settings;

extern const char *const outr_kafka_auth_types[], *const outr_kafka_mechanisms[],
    *const outr_kafka_offsets[], *const outr_kafka_acks[], *const outr_kafka_compressions[],
    *const outr_kafka_strategies[], *const outr_kafka_switches[];

#define OUTR_KAFKA_ROW(type, field, name, alias, kind, flags, member, min, max, otherwise,         \
                       choices, unit, text)                                                        \
    {name,                                                                                         \
     alias,                                                                                        \
     kind,                                                                                         \
     flags,                                                                                        \
     offsetof(type, field) + offsetof(outr_kafka_settings, member),                                \
     min,                                                                                          \
     max,                                                                                          \
     otherwise,                                                                                    \
     choices,                                                                                      \
     unit,                                                                                         \
     text}
#define OUTR_KAFKA_TEXT_(t, f, name, flags, member, text)                                          \
    OUTR_KAFKA_ROW(t, f, name, NULL, OUTR_BIND_STR, flags, member, 0, 0, NULL, NULL, 0, text)
#define OUTR_KAFKA_BOOL_(t, f, name, member, otherwise, text)                                      \
    OUTR_KAFKA_ROW(t, f, name, NULL, OUTR_BIND_BOOL, 0, member, 0, 0, otherwise, NULL, 0, text)
#define OUTR_KAFKA_INT_(t, f, name, member, min, max, otherwise, text)                             \
    OUTR_KAFKA_ROW(t, f, name, NULL, OUTR_BIND_I64, 0, member, min, max, otherwise, NULL, 0, text)
#define OUTR_KAFKA_ENUM_(t, f, name, member, otherwise, choices, text)                             \
    OUTR_KAFKA_ROW(t, f, name, NULL, OUTR_BIND_ENUM, 0, member, 0, 0, otherwise, choices, 0, text)
#define OUTR_KAFKA_TIME_(t, f, name, member, otherwise, text)                                      \
    OUTR_KAFKA_ROW(t, f, name, NULL, OUTR_BIND_DURATION, 0, member, 0, INT64_MAX, otherwise, NULL, \
                   1000000, text)
#define OUTR_KAFKA_ROWS(t, f)                                                                      \
    OUTR_KAFKA_TEXT_(t, f, "brokers", OUTR_BIND_REQUIRED, brokers, "host:port, or several"),       \
        OUTR_KAFKA_TEXT_(t, f, "consumerGroup", 0, consumer_group, "default: consumerID"),         \
        OUTR_KAFKA_TEXT_(t, f, "consumerID", 0, consumer_id, "default: the app id"),               \
        OUTR_KAFKA_TEXT_(t, f, "clientID", 0, client_id, "who we are, default: sarama"),           \
        OUTR_KAFKA_ENUM_(t, f, "authType", auth_type, NULL, outr_kafka_auth_types,                 \
                         "none, password, mtls or certificate; others are refused"),               \
        OUTR_KAFKA_ENUM_(t, f, "authRequired", auth_required, NULL, outr_kafka_switches,           \
                         "before there was authType: password or none"),                           \
        OUTR_KAFKA_TEXT_(t, f, "saslUsername", 0, sasl_username, "SASL user name"),                \
        OUTR_KAFKA_TEXT_(t, f, "saslPassword", OUTR_BIND_SECRET, sasl_password, "SASL password"),  \
        OUTR_KAFKA_ENUM_(t, f, "saslMechanism", sasl_mechanism, "PLAINTEXT",                       \
                         outr_kafka_mechanisms, "SHA-256, SHA-512 or PLAINTEXT"),                  \
        OUTR_KAFKA_TEXT_(t, f, "caCert", 0, ca_cert, "CA certificates: PEM text or path"),         \
        OUTR_KAFKA_TEXT_(t, f, "clientCert", 0, client_cert, "client certificate: PEM or path"),   \
        OUTR_KAFKA_TEXT_(t, f, "clientKey", OUTR_BIND_SECRET, client_key,                          \
                         "client private key: PEM or path"),                                       \
        OUTR_KAFKA_BOOL_(t, f, "skipVerify", skip_verify, NULL, "do not verify the server"),       \
        OUTR_KAFKA_BOOL_(t, f, "disableTls", disable_tls, NULL, "turn TLS off"),                   \
        OUTR_KAFKA_ENUM_(t, f, "initialOffset", initial_offset, "newest", outr_kafka_offsets,      \
                         "where a new group starts: newest or oldest"),                            \
        OUTR_KAFKA_INT_(t, f, "maxMessageBytes", max_message_bytes, 0, 1000000000, NULL,           \
                        "largest message to produce; default: 1 MiB"),                             \
        OUTR_KAFKA_TIME_(t, f, "consumeRetryInterval", retry_interval_ns, "100ms",                 \
                         "pause before a refused message comes again"),                            \
        OUTR_KAFKA_BOOL_(t, f, "consumeRetryEnabled", retry_enabled, NULL,                         \
                         "no effect: refused messages come again"),                                \
        OUTR_KAFKA_TIME_(t, f, "heartbeatInterval", heartbeat_ns, "3s", "group heartbeat"),        \
        OUTR_KAFKA_TIME_(t, f, "sessionTimeout", session_ns, "10s", "group session time limit"),   \
        OUTR_KAFKA_TEXT_(t, f, "version", 0, version, "checked; brokers say what they speak"),     \
        OUTR_KAFKA_INT_(t, f, "channelBufferSize", buffer_size, 0, 0, NULL, "no effect"),          \
        OUTR_KAFKA_INT_(t, f, "consumerFetchMin", fetch_min, 1, 100000000, "1",                    \
                        "smallest fetch the broker should answer"),                                \
        OUTR_KAFKA_INT_(t, f, "consumerFetchDefault", fetch_default, 1, 1000000000, "1048576",     \
                        "bytes asked of a partition per fetch"),                                   \
        OUTR_KAFKA_TIME_(t, f, "clientConnectionTopicMetadataRefreshInterval", refresh_ns, "9m",   \
                         "period of refreshing topic metadata"),                                   \
        OUTR_KAFKA_TIME_(t, f, "clientConnectionKeepAliveInterval", keep_alive_ns, "0",            \
                         "above 0: TCP keep-alive"),                                               \
        OUTR_KAFKA_TIME_(t, f, "dialTimeout", dial_ns, "30s", "time limit for connecting"),        \
        OUTR_KAFKA_TIME_(t, f, "readTimeout", read_ns, "30s", "time limit for answers"),           \
        OUTR_KAFKA_TIME_(t, f, "writeTimeout", write_ns, "30s", "no effect: readTimeout"),         \
        OUTR_KAFKA_TIME_(t, f, "metadataTimeout", metadata_ns, "0", "no effect"),                  \
        OUTR_KAFKA_ENUM_(t, f, "producerRequiredAcks", acks, "all", outr_kafka_acks,               \
                         "acks a producer waits for: 0, 1 or -1"),                                 \
        OUTR_KAFKA_INT_(t, f, "producerRetryMax", retry_max, 0, 1000000, "5",                      \
                        "attempts of a produce request after the first"),                          \
        OUTR_KAFKA_ENUM_(t, f, "compression", compression, "none", outr_kafka_compressions,        \
                         "none, gzip, snappy, lz4 or zstd"),                                       \
        OUTR_KAFKA_ENUM_(t, f, "consumerGroupRebalanceStrategy", strategy, "range",                \
                         outr_kafka_strategies, "range, roundrobin or sticky (cooperative)"),      \
        OUTR_KAFKA_BOOL_(t, f, "escapeHeaders", escape_headers, NULL,                              \
                         "percent-encode header values"),                                          \
        OUTR_KAFKA_TEXT_(t, f, "excludeHeaderMetaRegex", 0, exclude_headers,                       \
                         "headers that are not turned into metadata"),                             \
        OUTR_KAFKA_TEXT_(t, f, "schemaRegistryURL", 0, registry_url, "refused"),                   \
        OUTR_KAFKA_TEXT_(t, f, "schemaRegistryAPIKey", 0, registry_key, "no effect"),              \
        OUTR_KAFKA_TEXT_(t, f, "schemaRegistryAPISecret", OUTR_BIND_SECRET, registry_secret,       \
                         "no effect"),                                                             \
        OUTR_KAFKA_BOOL_(t, f, "schemaCachingEnabled", schema_caching, "true", "no effect"),       \
        OUTR_KAFKA_TIME_(t, f, "schemaLatestVersionCacheTTL", registry_ttl_ns, "5m", "no effect"), \
        OUTR_KAFKA_BOOL_(t, f, "useAvroJSON", avro_json, NULL, "refused")

/* Checks settings; no I/O but the files of certificates. init is borrowed for the call, what it
 * points to lives as long as the component. */
outr_code outr_kafka_new(outr_kafka **out, const outr_kafka_settings *settings,
                         const outr_component_init *init, outr_err *err);
/* Main loop. Asks a broker; tries again until one answers or op ends (initTimeout).
 * UNAUTHENTICATED: user or password were refused, at once. */
void outr_kafka_open(outr_kafka *kafka, outr_op *op);
/* Main loop; after all readers are closed. Also for one that was never opened. Waits a few seconds
 * for what is still on its way, and frees kafka. */
void outr_kafka_close(outr_kafka *kafka, outr_op *op);

/* Any loop, after open. Metadata of an item: partitionKey or __key is the key, partitionNumber the
 * partition, the rest become headers. What a cancelled op had handed over may still arrive. */
void outr_kafka_publish(outr_kafka *kafka, outr_publish *req, outr_op *op);

/* INVALID_ARGUMENT: Kafka cannot have a topic of this name. */
outr_code outr_kafka_check_topic(outr_str topic, outr_err *err);

#endif
