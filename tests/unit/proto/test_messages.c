#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <dapr/proto/common/v1/common.pb-c.h>
#include <dapr/proto/internals/v1/service_invocation.pb-c.h>

typedef Dapr__Proto__Common__V1__JobFailurePolicyConstant policy;
typedef Dapr__Proto__Common__V1__StreamPayload payload;
typedef Dapr__Proto__Internals__V1__InternalInvokeRequest request;

/* ver V1, one header "k" with the values "a" and "b". */
static const uint8_t request_bytes[] = {0x08, 0x01, 0x12, 0x0b, 0x0a, 0x01, 'k', 0x12,
                                        0x06, 0x0a, 0x01, 'a',  0x0a, 0x01, 'b'};

static void check_bytes(const ProtobufCMessage *message, const uint8_t *bytes, size_t size)
{
    uint8_t packed[64];
    assert_int_equal(protobuf_c_message_get_packed_size(message), size);
    assert_int_equal(protobuf_c_message_pack(message, packed), size);
    assert_memory_equal(packed, bytes, size);
}

static void optional_zero_is_sent_and_unset_is_not(void **state)
{
    (void)state;
    policy sent = DAPR__PROTO__COMMON__V1__JOB_FAILURE_POLICY_CONSTANT__INIT;
    assert_int_equal(protobuf_c_message_get_packed_size(&sent.base), 0);
    sent._max_retries_case =
        DAPR__PROTO__COMMON__V1__JOB_FAILURE_POLICY_CONSTANT___MAX_RETRIES_MAX_RETRIES;
    static const uint8_t bytes[] = {0x10, 0x00};
    check_bytes(&sent.base, bytes, sizeof bytes);
}

static void optional_zero_received_is_not_unset(void **state)
{
    (void)state;
    static const uint8_t bytes[] = {0x10, 0x00};
    policy *zero =
        dapr__proto__common__v1__job_failure_policy_constant__unpack(NULL, sizeof bytes, bytes);
    policy *unset = dapr__proto__common__v1__job_failure_policy_constant__unpack(NULL, 0, bytes);
    assert_int_equal(
        zero->_max_retries_case,
        DAPR__PROTO__COMMON__V1__JOB_FAILURE_POLICY_CONSTANT___MAX_RETRIES_MAX_RETRIES);
    assert_int_equal(zero->max_retries, 0);
    assert_int_equal(unset->_max_retries_case,
                     DAPR__PROTO__COMMON__V1__JOB_FAILURE_POLICY_CONSTANT___MAX_RETRIES__NOT_SET);
    dapr__proto__common__v1__job_failure_policy_constant__free_unpacked(zero, NULL);
    dapr__proto__common__v1__job_failure_policy_constant__free_unpacked(unset, NULL);
}

static void headers_between_sidecars_are_a_map_of_lists(void **state)
{
    (void)state;
    char *values[] = {"a", "b"};
    Dapr__Proto__Internals__V1__ListStringValue list =
        DAPR__PROTO__INTERNALS__V1__LIST_STRING_VALUE__INIT;
    list.n_values = 2;
    list.values = values;
    Dapr__Proto__Internals__V1__InternalInvokeRequest__MetadataEntry entry =
        DAPR__PROTO__INTERNALS__V1__INTERNAL_INVOKE_REQUEST__METADATA_ENTRY__INIT;
    entry.key = "k";
    entry.value = &list;
    Dapr__Proto__Internals__V1__InternalInvokeRequest__MetadataEntry *entries[] = {&entry};
    request sent = DAPR__PROTO__INTERNALS__V1__INTERNAL_INVOKE_REQUEST__INIT;
    sent.ver = DAPR__PROTO__INTERNALS__V1__APIVERSION__V1;
    sent.n_metadata = 1;
    sent.metadata = entries;
    check_bytes(&sent.base, request_bytes, sizeof request_bytes);
}

static void fields_of_a_newer_peer_survive(void **state)
{
    (void)state;
    static const uint8_t bytes[] = {0x10, 0x07, 0x7a, 0x02, 'h', 'i'};
    payload *got = dapr__proto__common__v1__stream_payload__unpack(NULL, sizeof bytes, bytes);
    assert_non_null(got);
    assert_int_equal(got->seq, 7);
    check_bytes(&got->base, bytes, sizeof bytes);
    dapr__proto__common__v1__stream_payload__free_unpacked(got, NULL);
}

static void a_message_cut_short_is_refused(void **state)
{
    (void)state;
    for (size_t size = 0; size < sizeof request_bytes; size++) {
        request *got =
            dapr__proto__internals__v1__internal_invoke_request__unpack(NULL, size, request_bytes);
        int is_at_field = size == 0 || size == 2;
        assert_int_equal(got != NULL, is_at_field);
        dapr__proto__internals__v1__internal_invoke_request__free_unpacked(got, NULL);
    }
}

struct budget {
    int left;
    int held;
};

static void *spend(void *data, size_t size)
{
    struct budget *budget = data;
    if (budget->left == 0)
        return NULL;
    budget->left--;
    budget->held++;
    return malloc(size);
}

static void give_back(void *data, void *memory)
{
    struct budget *budget = data;
    budget->held -= memory != NULL;
    free(memory);
}

static void without_memory_unpacking_fails_and_leaves_nothing(void **state)
{
    (void)state;
    for (int allowed = 0;; allowed++) {
        struct budget budget = {.left = allowed};
        ProtobufCAllocator allocator = {spend, give_back, &budget};
        request *got = dapr__proto__internals__v1__internal_invoke_request__unpack(
            &allocator, sizeof request_bytes, request_bytes);
        int is_done = got != NULL;
        assert_int_equal(budget.held > 0, is_done);
        dapr__proto__internals__v1__internal_invoke_request__free_unpacked(got, &allocator);
        assert_int_equal(budget.held, 0);
        if (is_done)
            break;
        assert_int_not_equal(allowed, 100);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(optional_zero_is_sent_and_unset_is_not),
        cmocka_unit_test(optional_zero_received_is_not_unset),
        cmocka_unit_test(headers_between_sidecars_are_a_map_of_lists),
        cmocka_unit_test(fields_of_a_newer_peer_survive),
        cmocka_unit_test(a_message_cut_short_is_refused),
        cmocka_unit_test(without_memory_unpacking_fails_and_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
