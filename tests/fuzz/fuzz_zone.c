/* Any bytes as a time zone's table: what is taken gives offsets within a week, at any moment. */
#include "components/common/zone.h"
#include "tests/fuzz/property.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const int64_t moments[] = {0,          INT64_C(-99999999999), 1330000000, 1340000000,
                                      1352008799, INT64_C(4102444800),   INT64_C(99999999999)};
    outr_zone *zone = NULL;
    outr_err err = {0};
    if (outr_zone_parse(&zone, outr_str_of(data, size), &err)) {
        PROPERTY(err.code == OUTR_INVALID_ARGUMENT && !zone);
        return 0;
    }
    for (size_t i = 0; i < OUTR_LEN(moments); i++) {
        int64_t offset = outr_zone_offset(zone, moments[i]);
        PROPERTY(offset > -8 * 86400 && offset < 8 * 86400);
    }
    outr_zone_free(zone);
    return 0;
}
