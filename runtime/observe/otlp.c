#include <opentelemetry/proto/collector/trace/v1/trace_service.pb-c.h>

#include "grpc/proto.h"
#include "observe/collector.h"

/* OTLP: one ResourceSpans of one ScopeSpans a batch. Texts point into the batch. */

typedef Opentelemetry__Proto__Common__V1__KeyValue key_value;
typedef Opentelemetry__Proto__Common__V1__AnyValue any_value;
typedef Opentelemetry__Proto__Trace__V1__Span otlp_span;
typedef Opentelemetry__Proto__Trace__V1__Status otlp_status;

/* protobuf-c has no const fields; nothing is written through them. */
static char *unconst(const char *text)
{
    return (char *)(uintptr_t)text;
}

static key_value *new_attribute(outr_arena *arena, const char *key, const char *value)
{
    struct both {
        key_value pair;
        any_value value;
    } *both = outr_arena_alloc(arena, sizeof *both);
    opentelemetry__proto__common__v1__key_value__init(&both->pair);
    opentelemetry__proto__common__v1__any_value__init(&both->value);
    both->value.value_case = OPENTELEMETRY__PROTO__COMMON__V1__ANY_VALUE__VALUE_STRING_VALUE;
    both->value.string_value = unconst(value);
    both->pair.key = unconst(key);
    both->pair.value = &both->value;
    return &both->pair;
}

static ProtobufCBinaryData id(const uint8_t *bytes, size_t n)
{
    return outr_proto_data(outr_str_of(bytes, n));
}

static otlp_span *new_span(outr_arena *arena, const outr_span_view *v)
{
    const outr_span_item *item = v->item;
    otlp_span *span = outr_arena_alloc(arena, sizeof *span);
    opentelemetry__proto__trace__v1__span__init(span);
    span->trace_id = id(item->trace_id, sizeof item->trace_id);
    span->span_id = id(item->span_id, sizeof item->span_id);
    if (item->has_parent)
        span->parent_span_id = id(item->parent_id, sizeof item->parent_id);
    span->trace_state = unconst(v->state);
    span->name = unconst(v->name);
    span->kind = (Opentelemetry__Proto__Trace__V1__Span__SpanKind)item->kind;
    span->flags = item->flags;
    span->start_time_unix_nano = (uint64_t)item->began_unix_ns;
    span->end_time_unix_nano = (uint64_t)item->ended_unix_ns;
    span->n_attributes = item->attribute_count;
    span->attributes =
        outr_arena_alloc(arena, (item->attribute_count + 1) * sizeof *span->attributes);
    for (uint32_t i = 0; i < item->attribute_count; i++)
        span->attributes[i] = new_attribute(arena, v->keys[i], v->values[i]);
    if (item->is_error) {
        span->status = outr_arena_alloc(arena, sizeof *span->status);
        opentelemetry__proto__trace__v1__status__init(span->status);
        span->status->code =
            OPENTELEMETRY__PROTO__TRACE__V1__STATUS__STATUS_CODE__STATUS_CODE_ERROR;
        span->status->message = unconst(v->failure);
    }
    return span;
}

const void *outr__otlp_request(outr_arena *arena, const outr__resource *resource,
                               const outr_span_batch *batch)
{
    struct all {
        Opentelemetry__Proto__Collector__Trace__V1__ExportTraceServiceRequest request;
        Opentelemetry__Proto__Trace__V1__ResourceSpans of_resource, *of_resources[1];
        Opentelemetry__Proto__Trace__V1__ScopeSpans of_scope, *of_scopes[1];
        Opentelemetry__Proto__Resource__V1__Resource resource;
        Opentelemetry__Proto__Common__V1__InstrumentationScope scope;
    } *all = outr_arena_alloc(arena, sizeof *all);
    outr_span_view view;
    opentelemetry__proto__collector__trace__v1__export_trace_service_request__init(&all->request);
    opentelemetry__proto__trace__v1__resource_spans__init(&all->of_resource);
    opentelemetry__proto__trace__v1__scope_spans__init(&all->of_scope);
    opentelemetry__proto__resource__v1__resource__init(&all->resource);
    opentelemetry__proto__common__v1__instrumentation_scope__init(&all->scope);
    all->request.n_resource_spans = 1;
    all->request.resource_spans = all->of_resources;
    all->of_resources[0] = &all->of_resource;
    all->of_resource.resource = &all->resource;
    all->of_resource.n_scope_spans = 1;
    all->of_resource.scope_spans = all->of_scopes;
    all->of_scopes[0] = &all->of_scope;
    all->of_scope.scope = &all->scope;
    all->scope.name = unconst("outrigger");
    all->scope.version = unconst(OUTR_VERSION);

    key_value **about =
        outr_arena_alloc(arena, (resource->attributes.count + 1) * sizeof *about);
    about[all->resource.n_attributes++] = new_attribute(
        arena, "service.name", outr_proto_text(arena, resource->service_name));
    for (size_t i = 0; i < resource->attributes.count; i++)
        about[all->resource.n_attributes++] =
            new_attribute(arena, outr_proto_text(arena, resource->attributes.items[i].key),
                          outr_proto_text(arena, resource->attributes.items[i].value));
    all->resource.attributes = about;

    all->of_scope.spans = outr_arena_alloc(arena, batch->count * sizeof *all->of_scope.spans);
    for (size_t at = 0; outr_span_batch_next(batch, &at, &view);)
        all->of_scope.spans[all->of_scope.n_spans++] = new_span(arena, &view);
    return &all->request;
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
