/* zone - a time zone from the system's tables: what clocks there show at a moment.
 *
 * Reads TZif (RFC 9636, versions 2 to 4) and, for the time beyond its table, the rule in its
 * footer. Immutable: any thread. */
#ifndef OUTR_COMPONENTS_COMMON_ZONE_H
#define OUTR_COMPONENTS_COMMON_ZONE_H

#include "base/err.h"
#include "base/str.h"

typedef struct outr_zone outr_zone;

/* From a file's bytes. */
outr_code outr_zone_parse(outr_zone **out, outr_str bytes, outr_err *err);
/* By name, "Europe/Berlin": from $ZONEINFO or where systems keep them. NOT_FOUND; INVALID_ARGUMENT:
 * no name that a zone can have. Blocks. */
outr_code outr_zone_load(outr_zone **out, outr_str name, outr_err *err);
void outr_zone_free(outr_zone *zone);
/* Seconds east of UTC at that moment. */
int64_t outr_zone_offset(const outr_zone *zone, int64_t unix_s);

#endif
