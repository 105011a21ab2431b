#include "api/core/mesh.h"

#include "mesh/endpoints.h"

/* ---- JSON ------------------------------------------------------------------------------------ */

static void put(outr_json *o, const char *key, outr_json *value)
{
    outr_json_put(o, outr_str_from(key), value);
}

static void put_text(outr_arena *arena, outr_json *o, const char *key, outr_str text)
{
    put(o, key, outr_json_string(arena, text));
}

static void put_count(outr_arena *arena, outr_json *o, const char *key, uint64_t value)
{
    put(o, key, outr_json_number(arena, (int64_t)OUTR_MIN(value, (uint64_t)INT64_MAX)));
}

static void put_fraction(outr_arena *arena, outr_json *o, const char *key, double value)
{
    outr_json *number = outr_json_new(arena, OUTR_JSON_NUMBER);
    number->text = outr_arena_printf(arena, "%.3f", value);
    put(o, key, number);
}

static outr_json *kvs_json(outr_arena *arena, outr_kvs kvs)
{
    outr_json *o = outr_json_new(arena, OUTR_JSON_OBJECT);
    for (size_t i = 0; i < kvs.count; i++)
        outr_json_put(o, kvs.items[i].key, outr_json_string(arena, kvs.items[i].value));
    return o;
}

/* ---- instances ------------------------------------------------------------------------------- */

static outr_json *endpoint_json(outr_arena *arena, const outr_endpoint_view *v)
{
    outr_json *o = outr_json_new(arena, OUTR_JSON_OBJECT);
    put_text(arena, o, "address", v->address);
    put(o, "labels", kvs_json(arena, v->labels));
    put_text(arena, o, "state", outr_str_from(outr_endpoint_state_name(v->state)));
    put_text(arena, o, "reason", outr_str_from(v->reason));
    put_fraction(arena, o, "scoreMs", v->score_ms);
    put_fraction(arena, o, "share", v->share);
    put_count(arena, o, "pending", v->pending);
    put_count(arena, o, "ejections", v->ejections);
    put_count(arena, o, "nextProbeMs", v->next_probe_ms);
    return o;
}

static outr_json *callee_json(outr_arena *arena, const outr_callee_view *v)
{
    outr_json *o = outr_json_new(arena, OUTR_JSON_OBJECT);
    outr_json *instances = outr_json_new(arena, OUTR_JSON_ARRAY);
    for (size_t i = 0; i < v->count; i++)
        outr_json_push(instances, endpoint_json(arena, &v->items[i]));
    put_text(arena, o, "name", v->name);
    put_count(arena, o, "calls", v->calls);
    put_count(arena, o, "retries", v->retries);
    put_count(arena, o, "ejected", v->ejected);
    put_count(arena, o, "ageMs", v->age_ms);
    put(o, "instances", instances);
    return o;
}

outr_json *outr_core_endpoints(const outr_core *core, outr_str app)
{
    outr_arena *arena = core->arena;
    outr_callee_view *views;
    outr_str app_id, namespace_ = outr_str_cut(app, '.', &app_id);
    size_t count = outr_mesh_list_endpoints(core->api->mesh, app_id, namespace_, arena, &views);
    outr_json *callees = outr_json_new(arena, OUTR_JSON_ARRAY);
    outr_json *o = outr_json_new(arena, OUTR_JSON_OBJECT);
    for (size_t i = 0; i < count; i++)
        outr_json_push(callees, callee_json(arena, &views[i]));
    put(o, "callees", callees);
    return o;
}
