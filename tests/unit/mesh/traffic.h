/* traffic - a TrafficPolicy given as text, for a snapshot of the test's own (resiliency/yaml.h). */
#ifndef OUTR_TESTS_MESH_TRAFFIC_H
#define OUTR_TESTS_MESH_TRAFFIC_H

#include "unit/resiliency/yaml.h"

/* spec: what stands under spec. Its clock is that of lib/wire.h at the beginning,
 * 2023-11-14T22:13:20Z. */
static inline void traffic_use(outr_snapshot *s, const char *spec)
{
    outr_err_list errors = {0}, warnings = {0};
    outr_binder binder = {s->arena, "traffic.yaml", &errors, &warnings};
    outr_kind_env env = {.binder = &binder};
    outr_traffic_spec *policy = outr_arena_alloc(s->arena, sizeof *policy);
    outr_str text = outr_arena_printf(s->arena,
                                      "apiVersion: outrigger.io/v1alpha1\nkind: TrafficPolicy\n"
                                      "metadata: {name: t}\nspec: %s",
                                      spec);
    outr_yaml_doc *doc;
    outr_err err;
    if (outr_yaml_parse(&doc, s->arena, "traffic.yaml", text, 10000, &err))
        fail_msg("%s", err.text);
    outr_kind_traffic(&env, doc->root, INT64_C(1700000000) * (int64_t)OUTR_SEC, policy);
    if (errors.count)
        fail_msg("%s", errors.items[0].text);
    outr_err_list_done(&errors);
    outr_err_list_done(&warnings);
    s->traffic = policy;
    s->traffic_count = 1;
}

static inline outr_snapshot *traffic_one(const char *spec)
{
    outr_snapshot *s = yaml_one("spec: {}");
    traffic_use(s, spec);
    return s;
}

#endif
