#include "components/common/kafka/internal.h"
#include "components/common/kafka/reader.h"

/* A record as its taker sees it: headers and Kafka's own fields as metadata. */

#define RECORD_COST 1024 /* beside its data, here and in librdkafka */
#define HEADERS_MAX 1000
#define OWN_FIELDS  5

static bool is_own_field(outr_str name)
{
    return outr_str_is(name, "__key") || outr_str_is(name, "__offset") ||
           outr_str_is(name, "__topic") || outr_str_is(name, "__timestamp") ||
           outr_str_is(name, "__partition");
}

/* As Go's QueryEscape: a space is '+'. */
static size_t escape(char *out, const char *in, size_t n)
{
    static const char hex[] = "0123456789ABCDEF";
    size_t used = 0;
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)in[i];
        bool is_plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                        (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.' || c == '~';
        if (is_plain || c == ' ') {
            out[used++] = is_plain ? (char)c : '+';
            continue;
        }
        out[used++] = '%';
        out[used++] = hex[c >> 4];
        out[used++] = hex[c & 15];
    }
    return used;
}

typedef struct text_room {
    char *p;
    bool is_escaped;
} text_room;

static outr_str value_of(text_room *room, const void *bytes, size_t n)
{
    if (!room->is_escaped)
        return outr_str_of(n ? bytes : "", n);
    outr_str value = outr_str_of(room->p, escape(room->p, bytes, n));
    room->p += value.n;
    return value;
}

/* Four for each record: printf would take longer than all the rest of making one. */
static outr_str number_of(text_room *room, int64_t n)
{
    char digits[20];
    size_t used = sizeof digits;
    char *begin = room->p;
    uint64_t rest = n < 0 ? 0 - (uint64_t)n : (uint64_t)n;
    do
        digits[--used] = (char)('0' + rest % 10);
    while ((rest /= 10) > 0);
    if (n < 0)
        *room->p++ = '-';
    memcpy(room->p, digits + used, sizeof digits - used);
    room->p += sizeof digits - used;
    return outr_str_of(begin, (size_t)(room->p - begin));
}

static void count_headers(const rd_kafka_headers_t *headers, size_t *count, size_t *bytes)
{
    const char *name;
    const void *value;
    size_t n;
    *count = *bytes = 0;
    while (headers && *count < HEADERS_MAX &&
           !rd_kafka_header_get_all(headers, *count, &name, &value, &n)) {
        *bytes += n;
        (*count)++;
    }
}

static size_t add_headers(const outr_kafka *kafka, const rd_kafka_headers_t *headers, size_t count,
                          outr_kv *kvs, text_room *room)
{
    size_t used = 0;
    for (size_t i = 0; i < count; i++) {
        const char *name;
        const void *value;
        size_t n;
        rd_kafka_header_get_all(headers, i, &name, &value, &n);
        outr_str key = outr_str_from(name);
        if (!is_own_field(key) && !(kafka->excluded && outr_regex_search(kafka->excluded, key)))
            kvs[used++] = (outr_kv){key, value_of(room, value, n)};
    }
    return used;
}

outr_kafka_record *outr__kafka_record_new(const outr_kafka *kafka, const char *topic,
                                          int32_t number, rd_kafka_event_t *own_event,
                                          const rd_kafka_message_t *message)
{
    rd_kafka_headers_t *headers = NULL;
    rd_kafka_timestamp_type_t kind;
    size_t count, bytes;
    rd_kafka_message_headers(message, &headers);
    count_headers(headers, &count, &bytes);
    size_t room_n = 5 * 24 + (kafka->s.escape_headers ? 3 * (bytes + message->key_len) : 0);
    outr_kafka_record *record =
        outr_alloc(sizeof *record + (count + OWN_FIELDS) * sizeof(outr_kv) + room_n);
    outr_kv *kvs = (outr_kv *)(record + 1);
    text_room room = {(char *)(kvs + count + OWN_FIELDS), kafka->s.escape_headers};
    size_t used = add_headers(kafka, headers, count, kvs, &room);
    if (message->key)
        kvs[used++] = (outr_kv){OUTR_STR("__key"), value_of(&room, message->key, message->key_len)};
    outr_str offset = number_of(&room, message->offset);
    kvs[used++] = (outr_kv){OUTR_STR("__offset"), offset};
    kvs[used++] = (outr_kv){OUTR_STR("__topic"), outr_str_from(topic)};
    kvs[used++] = (outr_kv){OUTR_STR("__timestamp"),
                            number_of(&room, rd_kafka_message_timestamp(message, &kind))};
    outr_str partition = number_of(&room, number);
    kvs[used++] = (outr_kv){OUTR_STR("__partition"), partition};
    record->impl = own_event;
    record->offset = message->offset;
    record->bytes = message->len + RECORD_COST;
    char *id = room.p;
    memcpy(id, partition.p, partition.n);
    id[partition.n] = '-';
    memcpy(id + partition.n + 1, offset.p, offset.n);
    record->msg = (outr_message_in){
        .topic = outr_str_from(topic),
        .data = outr_str_of(message->len ? message->payload : "", message->len),
        .id = outr_str_of(id, partition.n + 1 + offset.n),
        .metadata = {kvs, used},
        .attempt = 1,
        .broker_data = record,
    };
    return record;
}
