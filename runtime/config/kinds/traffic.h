/* traffic - pieces of the kind TrafficPolicy: routes with their matches, and what both files
 * check. */
#ifndef OUTR_CONFIG_KINDS_TRAFFIC_H
#define OUTR_CONFIG_KINDS_TRAFFIC_H

#include "config/kinds/kinds.h"

/* A mapping that was bound, for checks of its members; those that are not there pass. */
typedef struct outr__part {
    outr_binder *b; /* strict: warnings are errors */
    const outr_yaml *node;
    const char *path; /* "spec.ejection" */
    int64_t now_unix_ns;
} outr__part;

/* NULL: not there, or null. */
const outr_yaml *outr__part_child(const outr__part *part, const char *key);
const outr_yaml *outr__list_first(const outr_yaml *list); /* NULL: empty, or no list */
outr__part outr__part_inner(const outr__part *parent, const char *key); /* node NULL: not there */
outr__part outr__part_element(const outr__part *parent, const outr_yaml *node, const char *key,
                              size_t i);
bool outr__part_has(const outr__part *part, const char *key);
/* key NULL: the part as a whole. */
void outr__part_error(const outr__part *part, const char *key, const char *fmt, ...)
    OUTR_PRINTF(3, 4);
void outr__part_integer(const outr__part *part, const char *key, int64_t value, int64_t min,
                        int64_t max);
void outr__part_number(const outr__part *part, const char *key, double value, double min,
                       double max);
/* A day at most: more is a slip of the unit. */
void outr__part_duration(const outr__part *part, const char *key, uint64_t value, uint64_t min_ns);
void outr__part_codes(const outr__part *part, const char *key, outr_str set, int min, int max);
/* "id" or "id.namespace". */
void outr__part_app(const outr__part *part, const char *key, outr_str app_id);

extern const outr_yaml_row outr__rows_match[]; /* into outr_traffic_match */
/* match of parent. */
void outr__matches_finish(const outr__part *parent, const outr_traffic_match *items, size_t count);
void outr__subsets_finish(const outr__part *spec, const outr_traffic_spec *policy);
/* routes of spec, bound and checked; subsets have been. What document gets as a warning is one. */
void outr__routes_bind(const outr__part *spec, outr_binder *document, outr_traffic_spec *out);

#endif
