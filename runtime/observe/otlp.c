#include <opentelemetry/proto/collector/trace/v1/trace_service.pb-c.h>

#include "grpc/proto.h"
#include "observe/collector.h"

/* OTLP: one ResourceSpans of one ScopeSpans a batch. The request is written straight from the
 * batch, back to front, so that the length of what a field holds is known when its head is written:
 * a message tree costs ten times as much, and each sampled call pays for it. Numbers are those of
 * proto/opentelemetry. */

enum { VARINT = 0, FIXED64 = 1, BYTES = 2, FIXED32 = 5 }; /* wire types */

enum {
    REQUEST_RESOURCE_SPANS = 1,
    RESOURCE_SPANS_RESOURCE = 1,
    RESOURCE_SPANS_SCOPE_SPANS = 2,
    RESOURCE_ATTRIBUTES = 1,
    SCOPE_SPANS_SCOPE = 1,
    SCOPE_SPANS_SPANS = 2,
    SCOPE_NAME = 1,
    SCOPE_VERSION = 2,
    SPAN_TRACE_ID = 1,
    SPAN_ID = 2,
    SPAN_TRACE_STATE = 3,
    SPAN_PARENT_ID = 4,
    SPAN_NAME = 5,
    SPAN_KIND = 6,
    SPAN_START = 7,
    SPAN_END = 8,
    SPAN_ATTRIBUTES = 9,
    SPAN_STATUS = 15,
    SPAN_FLAGS = 16,
    STATUS_MESSAGE = 2,
    STATUS_CODE = 3,
    PAIR_KEY = 1,
    PAIR_VALUE = 2,
    VALUE_STRING = 1,
};

#define STATUS_ERROR  2
#define SPAN_OVERHEAD 128 /* of a span beside its record: heads of fields */
#define PAIR_OVERHEAD 24  /* and of each attribute */

/* Writes towards the front of memory that is large enough. */
typedef struct writer {
    char *at;
} writer;

static void put_bytes(writer *w, const void *p, size_t n)
{
    w->at -= n;
    if (n > 0)
        memcpy(w->at, p, n);
}

static void put_varint(writer *w, uint64_t value)
{
    char bytes[10];
    size_t n = 0;
    do {
        bytes[n++] = (char)((value & 0x7f) | (value > 0x7f ? 0x80 : 0));
        value >>= 7;
    } while (value > 0);
    put_bytes(w, bytes, n);
}

static void put_head(writer *w, uint32_t number, uint32_t type)
{
    put_varint(w, (uint64_t)number << 3 | type);
}

/* The head of a field whose content has been written up to end. */
static void close_field(writer *w, uint32_t number, const char *end)
{
    put_varint(w, (uint64_t)(end - w->at));
    put_head(w, number, BYTES);
}

static void put_text(writer *w, uint32_t number, const char *p, size_t n)
{
    const char *end = w->at;
    put_bytes(w, p, n);
    close_field(w, number, end);
}

static void put_number(writer *w, uint32_t number, uint64_t value)
{
    put_varint(w, value);
    put_head(w, number, VARINT);
}

static void put_fixed64(writer *w, uint32_t number, int64_t value)
{
    char bytes[8];
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (char)((uint64_t)value >> (8 * i));
    put_bytes(w, bytes, sizeof bytes);
    put_head(w, number, FIXED64);
}

static void put_pair(writer *w, uint32_t number, outr_str key, outr_str value)
{
    const char *end = w->at;
    put_text(w, VALUE_STRING, value.p, value.n);
    close_field(w, PAIR_VALUE, end);
    put_text(w, PAIR_KEY, key.p, key.n);
    close_field(w, number, end);
}

static void put_status(writer *w, const outr_span_view *v)
{
    const char *end = w->at;
    put_number(w, STATUS_CODE, STATUS_ERROR);
    put_text(w, STATUS_MESSAGE, v->failure, strlen(v->failure));
    close_field(w, SPAN_STATUS, end);
}

static void put_span(writer *w, const outr_span_view *v)
{
    const outr_span_item *item = v->item;
    const char *end = w->at, flags[4] = {(char)item->flags, 0, 0, 0};
    put_bytes(w, flags, sizeof flags);
    put_head(w, SPAN_FLAGS, FIXED32);
    if (item->is_error)
        put_status(w, v);
    for (uint32_t i = item->attribute_count; i-- > 0;)
        put_pair(w, SPAN_ATTRIBUTES, outr_str_from(v->keys[i]), outr_str_from(v->values[i]));
    put_fixed64(w, SPAN_END, item->ended_unix_ns);
    put_fixed64(w, SPAN_START, item->began_unix_ns);
    put_number(w, SPAN_KIND, item->kind);
    put_text(w, SPAN_NAME, v->name, strlen(v->name));
    if (item->has_parent)
        put_text(w, SPAN_PARENT_ID, (const char *)item->parent_id, sizeof item->parent_id);
    if (v->state[0])
        put_text(w, SPAN_TRACE_STATE, v->state, strlen(v->state));
    put_text(w, SPAN_ID, (const char *)item->span_id, sizeof item->span_id);
    put_text(w, SPAN_TRACE_ID, (const char *)item->trace_id, sizeof item->trace_id);
    close_field(w, SCOPE_SPANS_SPANS, end);
}

static void put_scope(writer *w)
{
    static const char name[] = "outrigger", version[] = OUTR_VERSION;
    const char *end = w->at;
    put_text(w, SCOPE_VERSION, version, sizeof version - 1);
    put_text(w, SCOPE_NAME, name, sizeof name - 1);
    close_field(w, SCOPE_SPANS_SCOPE, end);
}

static void put_resource(writer *w, const outr__resource *resource)
{
    const char *end = w->at;
    for (size_t i = resource->attributes.count; i-- > 0;)
        put_pair(w, RESOURCE_ATTRIBUTES, resource->attributes.items[i].key,
                 resource->attributes.items[i].value);
    put_pair(w, RESOURCE_ATTRIBUTES, OUTR_STR("service.name"), resource->service_name);
    close_field(w, RESOURCE_SPANS_RESOURCE, end);
}

static size_t size_of(const outr__resource *resource, const outr_span_batch *batch)
{
    size_t n = 1024 + resource->service_name.n + batch->used + (size_t)batch->count * SPAN_OVERHEAD;
    outr_span_view view;
    for (size_t i = 0; i < resource->attributes.count; i++)
        n += resource->attributes.items[i].key.n + resource->attributes.items[i].value.n +
             PAIR_OVERHEAD;
    for (size_t at = 0; outr_span_batch_next(batch, &at, &view);)
        n += (size_t)view.item->attribute_count * PAIR_OVERHEAD;
    return n;
}

outr_str outr__otlp_request(outr_arena *arena, const outr__resource *resource,
                            const outr_span_batch *batch)
{
    size_t size = size_of(resource, batch);
    char *memory = outr_arena_alloc(arena, size), *end = memory + size;
    size_t places[OUTR_SPAN_BATCH_SPANS], count = 0;
    writer w = {end};
    outr_span_view view;
    for (size_t at = 0, here = 0; outr_span_batch_next(batch, &at, &view); here = at)
        places[count++] = here;
    while (count-- > 0) {
        outr_span_batch_next(batch, &places[count], &view);
        put_span(&w, &view);
    }
    put_scope(&w);
    close_field(&w, RESOURCE_SPANS_SCOPE_SPANS, end);
    put_resource(&w, resource);
    close_field(&w, REQUEST_RESOURCE_SPANS, end);
    assert(w.at >= memory);
    return outr_str_of(w.at, (size_t)(end - w.at));
}

uint64_t outr__otlp_rejected(outr_arena *arena, outr_str bytes, outr_str *why)
{
    Opentelemetry__Proto__Collector__Trace__V1__ExportTraceServiceResponse *answer;
    *why = OUTR_STR_NONE;
    if (outr_proto_read(
            &answer, arena,
            &opentelemetry__proto__collector__trace__v1__export_trace_service_response__descriptor,
            bytes, NULL) ||
        !answer->partial_success)
        return 0;
    *why = outr_str_from(answer->partial_success->error_message);
    return (uint64_t)OUTR_MAX(answer->partial_success->rejected_spans, 0);
}
