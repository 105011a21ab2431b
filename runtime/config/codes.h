/* codes - sets of status codes as policies name them: "429,500-599".
 *
 * Source: contract/yaml-resiliency.csv (matching). A set is borrowed text that was checked once and
 * is read anew each time it is asked, which happens after failures only. */
#ifndef OUTR_CONFIG_CODES_H
#define OUTR_CONFIG_CODES_H

#include "base/err.h"
#include "base/str.h"

/* INVALID_ARGUMENT: an item is no number or range, runs backwards or leaves [min, max]. Empty items
 * are passed over, as in Dapr. */
outr_code outr_codes_check(outr_str set, int min, int max, outr_err *err);
/* set has been checked. An empty one has every code; one of commas alone has none. */
bool outr_codes_has(outr_str set, int code);

#endif
