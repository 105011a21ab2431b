/* Any text as metadata: a header a line, its name and value parted by the first space. */
#include "grpc/status.h"
#include "property.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_status(outr_arena *arena, const outr_headers *headers)
{
    outr_grpc_status status, again;
    outr_headers copy;
    outr_grpc_status_read(&status, headers, 200);
    outr_headers_init(&copy, arena);
    outr_grpc_status_write(&copy, &status);
    for (size_t i = 0; i < copy.count; i++)
        PROPERTY(outr_header_value_is_valid(copy.items[i].value));
    outr_grpc_status_read(&again, &copy, 200);
    PROPERTY(again.code == status.code && outr_str_eq(again.message, status.message));
    PROPERTY(outr_str_eq(again.details, status.details));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    outr_arena *arena = outr_arena_new(4 * OUTR_MIB);
    outr_str rest = outr_str_of((const char *)data, size);
    outr_headers headers;
    uint64_t ns;
    outr_err err;
    outr_headers_init(&headers, arena);
    while (rest.p && headers.count < 1000) {
        outr_str line, name;
        rest = outr_str_cut(rest, '\n', &line);
        outr_str value = outr_str_cut(line, ' ', &name);
        outr_headers_add(&headers, name, value.p ? value : OUTR_STR(""));
    }
    if (outr_grpc_timeout_read(&ns, &headers))
        PROPERTY(ns <= OUTR_GRPC_TIMEOUT_MAX_NS);
    PROPERTY(outr_grpc_timeout_write(arena, ns).n <= 9);
    if (outr_grpc_metadata_check(&headers, &err) == OUTR_OK) {
        for (size_t i = 0; i < headers.count; i++) {
            outr_str list = headers.items[i].value, bytes, same;
            while (outr_grpc_is_bin(headers.items[i].name) && list.p) {
                PROPERTY(outr_grpc_bin_next(arena, &list, &bytes));
                outr_str text = outr_grpc_bin_write(arena, bytes);
                PROPERTY(outr_grpc_bin_next(arena, &text, &same) && outr_str_eq(same, bytes));
            }
        }
    }
    check_status(arena, &headers);
    outr_arena_free(arena);
    return 0;
}
