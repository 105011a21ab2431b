/* Any bytes as a message. The first byte says of which type. */
#include <dapr/proto/runtime/v1/dapr.pb-c.h>
#include <google/protobuf/struct.pb-c.h>
#include <google/rpc/status.pb-c.h>
#include <grpc/reflection/v1/reflection.pb-c.h>

#include "grpc/proto.h"
#include "property.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const ProtobufCMessageDescriptor *const types[] = {
        &google__rpc__status__descriptor,
        &google__protobuf__value__descriptor,
        &google__protobuf__struct__descriptor,
        &dapr__proto__runtime__v1__save_state_request__descriptor,
        &dapr__proto__runtime__v1__publish_event_request__descriptor,
        &dapr__proto__runtime__v1__invoke_service_request__descriptor,
        &grpc__reflection__v1__server_reflection_request__descriptor,
    };
    if (size < 1)
        return 0;
    outr_arena *arena = outr_arena_new(4 * OUTR_MIB);
    const ProtobufCMessageDescriptor *type = types[data[0] % OUTR_LEN(types)];
    outr_err err;
    void *message;
    if (!outr_proto_read(&message, arena, type, outr_str_of((const char *)data + 1, size - 1),
                         &err)) {
        outr_str again = outr_proto_write(arena, message);
        void *copy;
        outr_code rc = outr_proto_read(&copy, arena, type, again, &err);
        PROPERTY(rc == OUTR_OK || rc == OUTR_RESOURCE_EXHAUSTED);
    } else {
        PROPERTY(err.code == OUTR_INTERNAL || err.code == OUTR_RESOURCE_EXHAUSTED);
    }
    outr_arena_free(arena);
    return 0;
}
