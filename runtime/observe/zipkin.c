#include "base/encode.h"
#include "base/json.h"
#include "observe/collector.h"

/* Zipkin's JSON, version 2: a list of spans, times in microseconds. */

static void put_id(outr_buf *out, const char *name, const uint8_t *id, size_t n)
{
    char text[33];
    outr_hex_encode(id, n, text);
    outr_buf_printf(out, "\"%s\":\"", name);
    outr_buf_append(out, text, 2 * n);
    outr_buf_char(out, '"');
}

static void put_tag(outr_buf *out, outr_str key, outr_str value, bool *is_first)
{
    if (!*is_first)
        outr_buf_char(out, ',');
    *is_first = false;
    outr_json_quote(out, key);
    outr_buf_char(out, ':');
    outr_json_quote(out, value);
}

static void put_span(outr_buf *out, const outr__resource *resource, const outr_span_view *v)
{
    static const char *const kinds[] = {NULL, NULL, "SERVER", "CLIENT", "PRODUCER", "CONSUMER"};
    const outr_span_item *item = v->item;
    int64_t took_us = (item->ended_unix_ns - item->began_unix_ns) / 1000;
    bool is_first = true;
    outr_buf_char(out, '{');
    put_id(out, "traceId", item->trace_id, sizeof item->trace_id);
    outr_buf_char(out, ',');
    put_id(out, "id", item->span_id, sizeof item->span_id);
    if (item->has_parent) {
        outr_buf_char(out, ',');
        put_id(out, "parentId", item->parent_id, sizeof item->parent_id);
    }
    if (item->kind < OUTR_LEN(kinds) && kinds[item->kind])
        outr_buf_printf(out, ",\"kind\":\"%s\"", kinds[item->kind]);
    outr_buf_z(out, ",\"name\":");
    outr_json_quote(out, outr_str_from(v->name));
    /* a duration of 0 means that it is not known */
    outr_buf_printf(out, ",\"timestamp\":%lld,\"duration\":%lld",
                    (long long)(item->began_unix_ns / 1000), (long long)OUTR_MAX(took_us, 1));
    outr_buf_z(out, ",\"localEndpoint\":{\"serviceName\":");
    outr_json_quote(out, resource->service_name);
    outr_buf_z(out, "},\"tags\":{");
    for (uint32_t i = 0; i < item->attribute_count; i++)
        put_tag(out, outr_str_from(v->keys[i]), outr_str_from(v->values[i]), &is_first);
    for (size_t i = 0; i < resource->attributes.count; i++)
        put_tag(out, resource->attributes.items[i].key, resource->attributes.items[i].value,
                &is_first);
    if (item->is_error) {
        put_tag(out, OUTR_STR("otel.status_code"), OUTR_STR("ERROR"), &is_first);
        put_tag(out, OUTR_STR("error"), outr_str_from(v->failure[0] ? v->failure : "true"),
                &is_first);
    }
    outr_buf_z(out, "}}");
}

outr_str outr__zipkin_list(outr_arena *arena, const outr__resource *resource,
                           const outr_span_batch *batch)
{
    OUTR_AUTO(outr_buf) out = OUTR_BUF_MAX(16 * OUTR_MIB); /* a batch has its limit */
    outr_span_view view;
    bool is_first = true;
    outr_buf_char(&out, '[');
    for (size_t at = 0; outr_span_batch_next(batch, &at, &view);) {
        if (!is_first)
            outr_buf_char(&out, ',');
        is_first = false;
        put_span(&out, resource, &view);
    }
    outr_buf_char(&out, ']');
    return outr_arena_str(arena, outr_buf_view(&out));
}
