#include <google/rpc/error_details.pb-c.h>
#include <google/rpc/status.pb-c.h>

#include "api/grpc/grpc_api.h"
#include "api/api_metrics.h"

#define TYPE_PREFIX "type.googleapis.com/google.rpc."

/* Errors as google.rpc.Status: the same picture that api/http/reply.c prints as JSON. */

typedef struct details_list {
    outr_arena *arena;
    Google__Protobuf__Any items[4];
    Google__Protobuf__Any *pointers[4];
    size_t count;
} details_list;

static void add(details_list *list, const char *type, const void *message)
{
    Google__Protobuf__Any *any = &list->items[list->count];
    google__protobuf__any__init(any);
    any->type_url = (char *)(uintptr_t)type;
    any->value = outr_proto_data(outr_proto_write(list->arena, message));
    list->pointers[list->count++] = any;
}

static char *text(outr_arena *arena, outr_str s)
{
    return outr_rpc_text(arena, s);
}

static void add_info(details_list *list, outr_str reason, const outr_kv *metadata, size_t count)
{
    Google__Rpc__ErrorInfo info = GOOGLE__RPC__ERROR_INFO__INIT;
    Google__Rpc__ErrorInfo__MetadataEntry entries[4], *pointers[4];
    info.reason = text(list->arena, reason);
    info.domain = (char *)(uintptr_t) "dapr.io";
    for (size_t i = 0; i < count; i++) {
        google__rpc__error_info__metadata_entry__init(&entries[i]);
        entries[i].key = text(list->arena, metadata[i].key);
        entries[i].value = text(list->arena, metadata[i].value);
        pointers[i] = &entries[i];
    }
    info.n_metadata = count;
    info.metadata = pointers;
    add(list, TYPE_PREFIX "ErrorInfo", &info);
}

static void add_resource(details_list *list, const outr_details *d)
{
    Google__Rpc__ResourceInfo info = GOOGLE__RPC__RESOURCE_INFO__INIT;
    info.resource_type = text(list->arena, d->resource_type);
    info.resource_name = text(list->arena, d->resource_name);
    info.owner = text(list->arena, d->resource_owner);
    info.description = text(list->arena, d->resource_description);
    add(list, TYPE_PREFIX "ResourceInfo", &info);
}

static void add_field(details_list *list, const outr_details *d)
{
    Google__Rpc__BadRequest bad = GOOGLE__RPC__BAD_REQUEST__INIT;
    Google__Rpc__BadRequest__FieldViolation violation =
        GOOGLE__RPC__BAD_REQUEST__FIELD_VIOLATION__INIT;
    Google__Rpc__BadRequest__FieldViolation *violations[] = {&violation};
    violation.field = text(list->arena, d->field);
    violation.description = text(list->arena, d->field_description);
    bad.n_field_violations = 1;
    bad.field_violations = violations;
    add(list, TYPE_PREFIX "BadRequest", &bad);
}

static void add_help(details_list *list, const outr_details *d)
{
    Google__Rpc__Help help = GOOGLE__RPC__HELP__INIT;
    Google__Rpc__Help__Link link = GOOGLE__RPC__HELP__LINK__INIT;
    Google__Rpc__Help__Link *links[] = {&link};
    link.description = text(list->arena, d->help_description);
    link.url = text(list->arena, d->help_url);
    help.n_links = 1;
    help.links = links;
    add(list, TYPE_PREFIX "Help", &help);
}

static outr_grpc_status make_status(outr_arena *arena, outr_code code, outr_str message,
                                    details_list *list)
{
    Google__Rpc__Status status = GOOGLE__RPC__STATUS__INIT;
    status.code = (int32_t)code;
    status.message = text(arena, message);
    status.n_details = list->count;
    status.details = list->pointers;
    return (outr_grpc_status){
        .code = code, .message = message, .details = outr_proto_write(arena, &status)};
}

outr_grpc_status outr_rpc_http_status(outr_arena *arena, outr_code code, const char *reason,
                                      int http_code, outr_str http_message)
{
    details_list list = {.arena = arena};
    const outr_kv metadata[] = {
        {OUTR_STR("http.code"), outr_arena_printf(arena, "%d", http_code)},
        {OUTR_STR("http.error_message"), http_message},
    };
    add_info(&list, outr_str_from(reason), metadata, OUTR_LEN(metadata));
    return make_status(arena, code, outr_str_from(reason), &list);
}

void outr_rpc_fail(outr_grpc_call *call, const outr_err *err, const outr_details *details)
{
    static const outr_details none = {0};
    const char *rich = outr_reason_find(err->reason)->rich;
    const outr_details *d = details ? details : &none;
    details_list list = {.arena = call->arena};
    outr_str message = outr_arena_str(call->arena, outr_str_from(err->text));
    if (err->reason)
        outr_api_metrics_error(outr_rpc_of(call)->api->http_metrics, err->reason);
    if (rich[0] == 0) {
        outr_grpc_fail(call, &(outr_grpc_status){.code = err->code, .message = message});
        return;
    }
    if (d->help_url.p)
        add_help(&list, d);
    if (d->field.p)
        add_field(&list, d);
    if (d->has_resource)
        add_resource(&list, d);
    add_info(&list, outr_str_from(rich), d->metadata, d->metadata_count);
    outr_grpc_status status = make_status(call->arena, err->code, message, &list);
    outr_grpc_fail(call, &status);
}
