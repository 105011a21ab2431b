#include <errno.h>

#include "components/common/kafka/internal.h"
#include "components/common/pem.h"

enum { AUTH_NOT_GIVEN, AUTH_NONE, AUTH_PASSWORD, AUTH_MTLS, AUTH_CERTIFICATE, AUTH_REFUSED };

const char *const outr_kafka_auth_types[] = {
    "", "none", "password", "mtls", "certificate", "oidc", "oidc_private_key_jwt", "awsiam", NULL};
const char *const outr_kafka_switches[] = {"", "true", "false", NULL};
const char *const outr_kafka_mechanisms[] = {"PLAINTEXT", "PLAIN", "SHA-256", "SHA-512", NULL};
const char *const outr_kafka_offsets[] = {"newest", "oldest", NULL};
const char *const outr_kafka_acks[] = {"all", "-1", "1", "0", NULL};
const char *const outr_kafka_compressions[] = {"none", "gzip", "snappy", "lz4", "zstd", NULL};
const char *const outr_kafka_strategies[] = {"range", "roundrobin", "sticky", NULL};

static const char *const mechanisms[] = {"PLAIN", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"};

/* ---- checks ---------------------------------------------------------------------------------- */

static outr_code check_auth(outr_kafka *kafka, outr_err *err)
{
    outr_kafka_settings *s = &kafka->s;
    if (s->auth_type == AUTH_NOT_GIVEN && s->auth_required)
        s->auth_type = s->auth_required == 1 ? AUTH_PASSWORD : AUTH_NONE;
    if (s->auth_type == AUTH_NOT_GIVEN)
        return outr_fail(err, OUTR_INVALID_ARGUMENT, "authType: required but not given");
    if (s->auth_type >= AUTH_REFUSED)
        return outr_fail(err, OUTR_UNIMPLEMENTED,
                         "authType: %s is not supported; none, password, mtls and certificate are",
                         outr_kafka_auth_types[s->auth_type]);
    kafka->has_sasl = s->auth_type == AUTH_PASSWORD;
    kafka->has_tls = s->auth_type != AUTH_NONE && !s->disable_tls;
    if (kafka->has_sasl && s->sasl_username.n == 0)
        return outr_fail(err, OUTR_INVALID_ARGUMENT,
                         "saslUsername: required with authType password but not given");
    if (kafka->has_sasl && s->sasl_password.n == 0)
        return outr_fail(err, OUTR_INVALID_ARGUMENT,
                         "saslPassword: required with authType password but not given");
    if (s->auth_type != AUTH_MTLS)
        return OUTR_OK;
    const char *missing = s->client_cert.n == 0  ? "clientCert"
                          : s->client_key.n == 0 ? "clientKey"
                                                 : NULL;
    if (missing)
        return outr_fail(err, OUTR_INVALID_ARGUMENT,
                         "%s: required with authType mtls but not given", missing);
    if (!kafka->has_tls)
        return outr_fail(err, OUTR_INVALID_ARGUMENT, "disableTls: authType mtls needs TLS");
    return OUTR_OK;
}

static outr_code check_certificates(outr_kafka *kafka, outr_err *err)
{
    outr_kafka_settings *s = &kafka->s;
    if (!kafka->has_tls)
        return OUTR_OK;
    outr_code rc = outr_pem_read(kafka->arena, "caCert", &s->ca_cert, err);
    if (!rc)
        rc = outr_pem_read(kafka->arena, "clientCert", &s->client_cert, err);
    if (!rc)
        rc = outr_pem_read(kafka->arena, "clientKey", &s->client_key, err);
    if (!rc && (s->client_cert.n > 0) != (s->client_key.n > 0))
        rc = outr_fail(err, OUTR_INVALID_ARGUMENT, "clientCert and clientKey go together");
    return rc;
}

/* "2.0.0" or "2.0.0.0". */
static bool is_version(outr_str text)
{
    outr_str rest = text, one;
    size_t count = 0;
    int64_t n;
    while (rest.p) {
        rest = outr_str_cut(rest, '.', &one);
        if (!outr_str_to_i64(one, 0, 999, &n))
            return false;
        count++;
    }
    return count == 3 || count == 4;
}

outr_code outr__kafka_check(outr_kafka *kafka, outr_err *err)
{
    outr_kafka_settings *s = &kafka->s;
    outr_code rc = check_auth(kafka, err);
    if (!rc)
        rc = check_certificates(kafka, err);
    if (rc)
        return rc;
    if (s->registry_url.n > 0 || s->avro_json)
        return outr_fail(err, OUTR_UNIMPLEMENTED,
                         "%s: Avro and schema registries are not supported",
                         s->avro_json ? "useAvroJSON" : "schemaRegistryURL");
    if (s->version.n > 0 && !is_version(s->version))
        return outr_fail(err, OUTR_INVALID_ARGUMENT, "version: not a version: \"" OUTR_FMT "\"",
                         OUTR_ARG(s->version));
    if (s->exclude_headers.n > 0 && outr_regex_new(&kafka->excluded, s->exclude_headers, err))
        return outr_wrap(err, "excludeHeaderMetaRegex");
    return OUTR_OK;
}

outr_code outr_kafka_check_topic(outr_str topic, outr_err *err)
{
    bool is_good = topic.n > 0 && topic.n <= 249 && !outr_str_is(topic, ".") &&
                   !outr_str_is(topic, "..");
    for (size_t i = 0; is_good && i < topic.n; i++) {
        char c = topic.p[i];
        is_good = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                  c == '.' || c == '_' || c == '-';
    }
    if (is_good)
        return OUTR_OK;
    return outr_fail(err, OUTR_INVALID_ARGUMENT,
                     "topic \"" OUTR_FMT "\": a name in Kafka is 1 to 249 of a-z, A-Z, 0-9, '.', "
                     "'_' and '-'",
                     OUTR_ARG(outr_str_head(topic, 64)));
}

/* ---- as librdkafka's properties -------------------------------------------------------------- */

outr_code outr__kafka_set(rd_kafka_conf_t **conf, const char *field, const char *property,
                          outr_err *err, const char *fmt, ...)
{
    char why[256], *text = NULL;
    va_list args;
    if (err->code)
        return err->code; /* of one before */
    va_start(args, fmt);
    int n = vasprintf(&text, fmt, args);
    va_end(args);
    if (n < 0)
        abort();
    rd_kafka_conf_res_t done = rd_kafka_conf_set(*conf, property, text, why, sizeof why);
    explicit_bzero(text, (size_t)n);
    free(text);
    if (done == RD_KAFKA_CONF_OK)
        return OUTR_OK;
    rd_kafka_conf_destroy(outr_take(conf));
    return outr_fail(err, OUTR_INVALID_ARGUMENT, "%s: %s", field, why);
}

static long long ms(int64_t ns, int64_t least, int64_t most)
{
    return (long long)OUTR_MIN(OUTR_MAX(ns / (int64_t)OUTR_MS, least), most);
}

static void set_security(outr_kafka *kafka, rd_kafka_conf_t **conf, outr_err *err)
{
    const outr_kafka_settings *s = &kafka->s;
    outr__kafka_set(conf, "authType", "security.protocol", err, "%s",
                    kafka->has_sasl  ? kafka->has_tls ? "sasl_ssl" : "sasl_plaintext"
                    : kafka->has_tls ? "ssl"
                                     : "plaintext");
    if (kafka->has_sasl) {
        outr__kafka_set(conf, "saslMechanism", "sasl.mechanism", err, "%s",
                        mechanisms[s->sasl_mechanism]);
        outr__kafka_set(conf, "saslUsername", "sasl.username", err, OUTR_FMT,
                        OUTR_ARG(s->sasl_username));
        outr__kafka_set(conf, "saslPassword", "sasl.password", err, OUTR_FMT,
                        OUTR_ARG(s->sasl_password));
    }
    if (!kafka->has_tls)
        return;
    if (s->skip_verify)
        outr__kafka_set(conf, "skipVerify", "enable.ssl.certificate.verification", err, "false");
    if (s->ca_cert.n > 0)
        outr__kafka_set(conf, "caCert", "ssl.ca.pem", err, OUTR_FMT, OUTR_ARG(s->ca_cert));
    if (s->client_cert.n > 0) {
        outr__kafka_set(conf, "clientCert", "ssl.certificate.pem", err, OUTR_FMT,
                        OUTR_ARG(s->client_cert));
        outr__kafka_set(conf, "clientKey", "ssl.key.pem", err, OUTR_FMT, OUTR_ARG(s->client_key));
    }
}

static void on_client_log(const rd_kafka_t *client, int level OUTR_UNUSED, const char *facility,
                          const char *text)
{
    const outr_kafka *kafka = rd_kafka_opaque(client);
    if (kafka) /* what matters of it comes as an error, too, and is told once */
        OUTR_LOG(kafka->log, DEBUG, "librdkafka", OUTR_S("component", kafka->name),
                 OUTR_Z("facility", facility), OUTR_Z("text", text));
}

rd_kafka_conf_t *outr__kafka_conf(outr_kafka *kafka, outr_err *err)
{
    const outr_kafka_settings *s = &kafka->s;
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    outr_err_clear(err);
    rd_kafka_conf_set_opaque(conf, kafka);
    rd_kafka_conf_set_log_cb(conf, on_client_log);
    outr__kafka_set(&conf, "brokers", "bootstrap.servers", err, OUTR_FMT, OUTR_ARG(s->brokers));
    outr__kafka_set(&conf, "clientID", "client.id", err, OUTR_FMT, OUTR_ARG(kafka->client_id));
    outr__kafka_set(&conf, "dialTimeout", "socket.connection.setup.timeout.ms", err, "%lld",
                    ms(s->dial_ns, 1000, INT32_MAX));
    outr__kafka_set(&conf, "readTimeout", "socket.timeout.ms", err, "%lld",
                    ms(s->read_ns, 1000, 300000));
    outr__kafka_set(&conf, "clientConnectionTopicMetadataRefreshInterval",
                    "topic.metadata.refresh.interval.ms", err, "%lld",
                    ms(s->refresh_ns, 1000, 3600000));
    outr__kafka_set(&conf, "clientConnectionKeepAliveInterval", "socket.keepalive.enable", err,
                    "%s", s->keep_alive_ns > 0 ? "true" : "false");
    outr__kafka_set(&conf, "brokers", "socket.nagle.disable", err, "true");
    outr__kafka_set(&conf, "brokers", "reconnect.backoff.max.ms", err, "5000");
    set_security(kafka, &conf, err);
    return conf;
}
