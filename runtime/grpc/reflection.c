#include "grpc/reflection.h"

#include <grpc/reflection/v1/reflection.pb-c.h>

#define ANSWER_ARENA_MAX OUTR_MIB

#define REQUEST(kind)  GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_##kind
#define RESPONSE(kind) GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_##kind

typedef Grpc__Reflection__V1__ServerReflectionRequest request;
typedef Grpc__Reflection__V1__ServerReflectionResponse response;

/* One client's stream; lies on the call's arena. */
typedef struct stream {
    const outr_reflection *what;
    uint64_t sent; /* files the client has got: bit i of the i-th */
} stream;

/* ---- descriptor.proto, by its field numbers -------------------------------------------------- */

enum { SET_FILE = 1, FILE_NAME = 1, FILE_PACKAGE = 2, FILE_IMPORT = 3, ENUM_VALUE = 2, NAME = 1 };

typedef struct scope scope;
struct scope {
    unsigned number; /* of the field; 0: end of a list */
    const scope *inner;
    bool is_enum; /* whose values are named beside it, not below it */
};

static const scope in_service[] = {{2, NULL, false}, {0}};
static const scope in_message[] = {{2, NULL, false}, {3, in_message, false}, {4, NULL, true},
                                   {6, NULL, false}, {8, NULL, false},       {0}};
static const scope in_file[] = {
    {4, in_message, false}, {5, NULL, true}, {6, in_service, false}, {7, NULL, false}, {0}};

static outr_str text_of(outr_str message, unsigned number)
{
    outr_proto_field f;
    while (outr_proto_next(&message, &f)) {
        if (f.number == number)
            return f.bytes;
    }
    return OUTR_STR("");
}

static bool has_value(outr_str type, outr_str name)
{
    outr_proto_field f;
    while (outr_proto_next(&type, &f)) {
        if (f.number == ENUM_VALUE && outr_str_eq(text_of(f.bytes, NAME), name))
            return true;
    }
    return false;
}

/* "a.b" with prefix "a": "b". p == NULL: it is not below it. */
static outr_str below(outr_str name, outr_str prefix)
{
    if (!outr_str_starts(name, prefix) || name.n <= prefix.n || name.p[prefix.n] != '.')
        return OUTR_STR_NONE;
    return outr_str_skip(name, prefix.n + 1);
}

static bool defines(outr_str message, const scope *scopes, outr_str symbol)
{
    outr_proto_field f;
    while (outr_proto_next(&message, &f)) {
        const scope *s = scopes;
        while (s->number && s->number != f.number)
            s++;
        if (!s->number)
            continue;
        outr_str name = text_of(f.bytes, NAME), rest = below(symbol, name);
        if (outr_str_eq(name, symbol) || (s->is_enum && has_value(f.bytes, symbol)) ||
            (s->inner && rest.p && defines(f.bytes, s->inner, rest)))
            return true;
    }
    return false;
}

/* ---- files ----------------------------------------------------------------------------------- */

/* Whether a file is the one wanted. */
typedef bool matcher(outr_str file, outr_str wanted);

static bool is_named(outr_str file, outr_str wanted)
{
    return outr_str_eq(text_of(file, FILE_NAME), wanted);
}

static bool has_symbol(outr_str file, outr_str wanted)
{
    outr_str package = text_of(file, FILE_PACKAGE);
    outr_str symbol = package.n ? below(wanted, package) : wanted;
    return symbol.p && defines(file, in_file, symbol);
}

static bool has_message(outr_str file, outr_str wanted)
{
    static const scope messages[] = {{4, in_message, false}, {0}};
    outr_str package = text_of(file, FILE_PACKAGE);
    outr_str symbol = package.n ? below(wanted, package) : wanted;
    return symbol.p && defines(file, messages, symbol);
}

/* -1: none. */
static int find(const outr_reflection *what, matcher *is_it, outr_str wanted, outr_str *file)
{
    outr_str set = what->files;
    outr_proto_field f;
    for (int i = 0; i < OUTR_REFLECTION_FILES_MAX && outr_proto_next(&set, &f); i++) {
        if (f.number == SET_FILE && is_it(f.bytes, wanted)) {
            *file = f.bytes;
            return i;
        }
    }
    return -1;
}

/* ---- answers --------------------------------------------------------------------------------- */

static void fail(response *out, Grpc__Reflection__V1__ErrorResponse *error, outr_arena *arena,
                 const char *what, outr_str name)
{
    error->error_code = OUTR_NOT_FOUND;
    error->error_message = outr_proto_text(
        arena, outr_arena_printf(arena, "%s not found: " OUTR_FMT, what, OUTR_ARG(name)));
    out->message_response_case = RESPONSE(ERROR_RESPONSE);
    out->error_response = error;
}

/* The file, and of what it imports all that the client has not got. */
static size_t gather(stream *s, int index, outr_str file, ProtobufCBinaryData *out)
{
    outr_str queue[OUTR_REFLECTION_FILES_MAX] = {file};
    size_t queued = 1, count = 0;
    uint64_t seen = UINT64_C(1) << index;
    out[count++] = outr_proto_data(file);
    for (size_t i = 0; i < queued; i++) {
        outr_str rest = queue[i];
        outr_proto_field f;
        while (outr_proto_next(&rest, &f)) {
            outr_str import;
            int at = f.number == FILE_IMPORT ? find(s->what, is_named, f.bytes, &import) : -1;
            if (at < 0 || seen >> at & 1)
                continue;
            seen |= UINT64_C(1) << at;
            queue[queued++] = import;
            if (!(s->sent >> at & 1))
                out[count++] = outr_proto_data(import);
        }
    }
    s->sent |= seen;
    return count;
}

static bool send_files(outr_grpc_call *call, response *out, outr_arena *arena, matcher *is_it,
                       const char *kind, const char *wanted)
{
    Grpc__Reflection__V1__FileDescriptorResponse files =
        GRPC__REFLECTION__V1__FILE_DESCRIPTOR_RESPONSE__INIT;
    Grpc__Reflection__V1__ErrorResponse error = GRPC__REFLECTION__V1__ERROR_RESPONSE__INIT;
    ProtobufCBinaryData items[OUTR_REFLECTION_FILES_MAX];
    stream *s = call->user;
    outr_str file;
    int index = find(s->what, is_it, outr_str_from(wanted), &file);
    if (index < 0) {
        fail(out, &error, arena, kind, outr_str_from(wanted));
    } else {
        files.n_file_descriptor_proto = gather(s, index, file, items);
        files.file_descriptor_proto = items;
        out->message_response_case = RESPONSE(FILE_DESCRIPTOR_RESPONSE);
        out->file_descriptor_response = &files;
    }
    return outr_grpc_send(call, out);
}

static bool send_list(outr_grpc_call *call, response *out, outr_arena *arena)
{
    Grpc__Reflection__V1__ListServiceResponse list =
        GRPC__REFLECTION__V1__LIST_SERVICE_RESPONSE__INIT;
    const stream *s = call->user;
    size_t n = 0;
    while (s->what->services[n])
        n++;
    Grpc__Reflection__V1__ServiceResponse *items = outr_arena_alloc(arena, n * sizeof *items);
    list.service = outr_arena_alloc(arena, n * sizeof(void *));
    for (; list.n_service < n; list.n_service++) {
        grpc__reflection__v1__service_response__init(&items[list.n_service]);
        items[list.n_service].name = (char *)(uintptr_t)s->what->services[list.n_service];
        list.service[list.n_service] = &items[list.n_service];
    }
    out->message_response_case = RESPONSE(LIST_SERVICES_RESPONSE);
    out->list_services_response = &list;
    return outr_grpc_send(call, out);
}

/* No file here extends anything. */
static bool send_extensions(outr_grpc_call *call, response *out, outr_arena *arena,
                            const char *wanted)
{
    Grpc__Reflection__V1__ExtensionNumberResponse none =
        GRPC__REFLECTION__V1__EXTENSION_NUMBER_RESPONSE__INIT;
    Grpc__Reflection__V1__ErrorResponse error = GRPC__REFLECTION__V1__ERROR_RESPONSE__INIT;
    const stream *s = call->user;
    outr_str file;
    if (find(s->what, has_message, outr_str_from(wanted), &file) < 0) {
        fail(out, &error, arena, "type", outr_str_from(wanted));
    } else {
        none.base_type_name = (char *)(uintptr_t)wanted;
        out->message_response_case = RESPONSE(ALL_EXTENSION_NUMBERS_RESPONSE);
        out->all_extension_numbers_response = &none;
    }
    return outr_grpc_send(call, out);
}

static bool send_no_extension(outr_grpc_call *call, response *out, outr_arena *arena,
                              const Grpc__Reflection__V1__ExtensionRequest *wanted)
{
    Grpc__Reflection__V1__ErrorResponse error = GRPC__REFLECTION__V1__ERROR_RESPONSE__INIT;
    fail(out, &error, arena, "extension", outr_str_from(wanted->containing_type));
    return outr_grpc_send(call, out);
}

static bool answer(outr_grpc_call *call, request *req, outr_arena *arena)
{
    response out = GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__INIT;
    out.valid_host = req->host;
    out.original_request = req;
    switch (req->message_request_case) {
    case REQUEST(FILE_BY_FILENAME):
        return send_files(call, &out, arena, is_named, "file", req->file_by_filename);
    case REQUEST(FILE_CONTAINING_SYMBOL):
        return send_files(call, &out, arena, has_symbol, "symbol", req->file_containing_symbol);
    case REQUEST(FILE_CONTAINING_EXTENSION):
        return send_no_extension(call, &out, arena, req->file_containing_extension);
    case REQUEST(ALL_EXTENSION_NUMBERS_OF_TYPE):
        return send_extensions(call, &out, arena, req->all_extension_numbers_of_type);
    case REQUEST(LIST_SERVICES):
        return send_list(call, &out, arena);
    default:
        outr_grpc_fail(call, &(outr_grpc_status){.code = OUTR_INVALID_ARGUMENT,
                                                 .message = OUTR_STR("invalid MessageRequest")});
        return true;
    }
}

static bool on_message(outr_grpc_call *call, void *message)
{
    outr_arena *arena = outr_arena_new(ANSWER_ARENA_MAX);
    bool goes_on = answer(call, message, arena);
    outr_arena_free(arena);
    return goes_on;
}

void outr_grpc_reflect(outr_grpc_call *call, const outr_reflection *what)
{
    stream *s = outr_arena_alloc(call->arena, sizeof *s);
    s->what = what;
    call->user = s;
    call->on_message = on_message;
    call->on_half_close = outr_grpc_end;
    call->on_writable = outr_grpc_resume;
    call->on_gone = outr_grpc_end;
}
