#include "blocks/state/keys.h"

#include "base/copy.h"

#define SEPARATOR "||"

static outr_str prefix_of(outr_arena *arena, const outr_component *c, const outr_settings *s)
{
    const outr_kv *kv = outr_kvs_find(c->metadata, "keyPrefix");
    outr_str strategy = kv ? outr_str_lower(arena, outr_str_trim(kv->value)) : OUTR_STR("appid");
    if (outr_str_is(strategy, "appid") || strategy.n == 0)
        return s->app_id;
    if (outr_str_is(strategy, "name"))
        return c->spec->base.name;
    if (outr_str_is(strategy, "none"))
        return OUTR_STR_NONE;
    if (outr_str_is(strategy, "namespace"))
        return s->has_namespace && s->namespace_.n
                   ? outr_arena_join(arena, s->namespace_, OUTR_STR("."), s->app_id)
                   : s->app_id;
    return strategy;
}

outr_code outr_state_key(outr_str *out, outr_arena *arena, const outr_component *c,
                         const outr_settings *settings, outr_str key, outr_err *err)
{
    if (outr_str_search(key, OUTR_STR(SEPARATOR)) >= 0)
        return outr_fail_reason(err, OUTR_INVALID_ARGUMENT, OUTR_REASON_STATE_ILLEGAL_KEY,
                                "input key/keyPrefix '" OUTR_FMT "' can't contain '||'",
                                OUTR_ARG(key));
    outr_str prefix = prefix_of(arena, c, settings);
    *out = prefix.n ? outr_arena_join(arena, prefix, OUTR_STR(SEPARATOR), key) : key;
    return OUTR_OK;
}

outr_code outr_lock_name(outr_str *out, outr_arena *arena, const outr_component *c,
                         const outr_settings *settings, outr_str resource, outr_err *err)
{
    outr_code rc = outr_state_key(out, arena, c, settings, resource, err);
    if (!rc)
        *out = outr_arena_join(arena, OUTR_STR("lock" SEPARATOR), *out, OUTR_STR_NONE);
    return rc;
}
