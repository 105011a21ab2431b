#include "grpc/proto.h"

#define PREFIX_LEN 5 /* compressed flag, length: PROTOCOL-HTTP2 "Length-Prefixed-Message" */

/* ---- on the wire: encoding.proto's rules ----------------------------------------------------- */

enum wire { WIRE_VARINT, WIRE_64, WIRE_BYTES, WIRE_GROUP, WIRE_GROUP_END, WIRE_32 };

static bool read_varint(outr_str *s, uint64_t *out)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < 10 && i < s->n; i++) {
        unsigned char c = (unsigned char)s->p[i];
        value |= (uint64_t)(c & 0x7f) << (7 * i);
        if (c < 0x80) {
            *s = outr_str_skip(*s, i + 1);
            *out = value;
            return true;
        }
    }
    return false;
}

bool outr_proto_next(outr_str *rest, outr_proto_field *out)
{
    outr_str s = *rest;
    uint64_t tag, n;
    if (!read_varint(&s, &tag) || tag >> 3 == 0 || tag >> 3 > 0x1fffffff)
        return false;
    *out = (outr_proto_field){.number = (uint32_t)(tag >> 3), .bytes = OUTR_STR_NONE};
    switch ((enum wire)(tag & 7)) {
    case WIRE_VARINT:
        if (!read_varint(&s, &out->value))
            return false;
        *rest = s;
        return true;
    case WIRE_64:
        n = 8;
        break;
    case WIRE_32:
        n = 4;
        break;
    case WIRE_BYTES:
        if (!read_varint(&s, &n))
            return false;
        break;
    case WIRE_GROUP:
    case WIRE_GROUP_END:
    default:
        return false;
    }
    if (n > s.n)
        return false;
    if ((tag & 7) == WIRE_BYTES)
        out->bytes = outr_str_of(s.p, (size_t)n);
    *rest = outr_str_skip(s, (size_t)n);
    return true;
}

static outr_code check(const ProtobufCMessageDescriptor *type, outr_str s, int depth,
                       outr_err *err);

static outr_code check_bytes(const ProtobufCFieldDescriptor *field, outr_str value, int depth,
                             outr_err *err)
{
    bool is_text = field && field->type == PROTOBUF_C_TYPE_STRING;
    if (is_text && !outr_str_is_utf8(value))
        return outr_fail(err, OUTR_INTERNAL,
                         "grpc: error unmarshalling request: string field contains invalid UTF-8");
    if (is_text && value.n > 0 && memchr(value.p, 0, value.n))
        return outr_fail(err, OUTR_INTERNAL,
                         "grpc: error unmarshalling request: string field contains a NUL");
    if (field && field->type == PROTOBUF_C_TYPE_MESSAGE)
        return check(field->descriptor, value, depth - 1, err);
    return OUTR_OK;
}

static outr_code check(const ProtobufCMessageDescriptor *type, outr_str s, int depth, outr_err *err)
{
    outr_proto_field f;
    if (depth == 0)
        return outr_fail(err, OUTR_INTERNAL,
                         "grpc: error unmarshalling request: message is nested too deep");
    while (s.n > 0) {
        if (!outr_proto_next(&s, &f))
            return outr_fail(err, OUTR_INTERNAL,
                             "grpc: error unmarshalling request: proto: cannot parse invalid "
                             "wire-format data");
        outr_code rc = f.bytes.p ? check_bytes(protobuf_c_message_descriptor_get_field(
                                                   type, f.number),
                                               f.bytes, depth, err)
                                 : OUTR_OK;
        if (rc)
            return rc;
    }
    return OUTR_OK;
}

/* ---- messages -------------------------------------------------------------------------------- */

typedef struct on_arena {
    ProtobufCAllocator base;
    outr_arena *arena;
    bool is_full;
} on_arena;

static void *allocate(void *data, size_t size)
{
    on_arena *a = data;
    void *p = outr_arena_try(a->arena, size);
    a->is_full |= !p;
    return p;
}

static void release(void *data OUTR_UNUSED, void *pointer OUTR_UNUSED) {}

outr_code outr_proto_read(void *out_message, outr_arena *arena,
                          const ProtobufCMessageDescriptor *type, outr_str bytes, outr_err *err)
{
    on_arena a = {.base = {.alloc = allocate, .free = release}, .arena = arena};
    a.base.allocator_data = &a;
    outr_code rc = check(type, bytes, OUTR_PROTO_DEPTH_MAX, err);
    if (rc)
        return rc;
    void *message = protobuf_c_message_unpack(type, &a.base, bytes.n,
                                              (const uint8_t *)(bytes.n ? bytes.p : ""));
    if (!message && a.is_full)
        return outr_fail(err, OUTR_RESOURCE_EXHAUSTED, "grpc: the message takes too much memory");
    if (!message)
        return outr_fail(err, OUTR_INTERNAL,
                         "grpc: error unmarshalling request: the message does not fit its type");
    *(void **)out_message = message;
    return OUTR_OK;
}

outr_str outr_proto_write(outr_arena *arena, const void *message)
{
    size_t n = protobuf_c_message_get_packed_size(message);
    char *p = outr_arena_alloc(arena, n + 1);
    protobuf_c_message_pack(message, (uint8_t *)p);
    return outr_str_of(p, n);
}

static outr_slice new_frame(size_t n)
{
    outr_chunk *chunk = outr_chunk_new(PREFIX_LEN + n);
    chunk->bytes[0] = 0;
    for (int i = 0; i < 4; i++)
        chunk->bytes[1 + i] = (char)(unsigned char)(n >> (24 - 8 * i));
    return (outr_slice){chunk, chunk->bytes, PREFIX_LEN + n};
}

outr_slice outr_grpc_frame(const void *message)
{
    outr_slice frame = new_frame(protobuf_c_message_get_packed_size(message));
    protobuf_c_message_pack(message, (uint8_t *)frame.chunk->bytes + PREFIX_LEN);
    return frame;
}

outr_slice outr_grpc_frame_bytes(outr_str message)
{
    outr_slice frame = new_frame(message.n);
    if (message.n > 0)
        memcpy(frame.chunk->bytes + PREFIX_LEN, message.p, message.n);
    return frame;
}
