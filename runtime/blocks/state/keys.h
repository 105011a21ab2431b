/* keys - the prefix strategies of state keys. Source: contract/state.md. */
#ifndef OUTR_BLOCKS_STATE_KEYS_H
#define OUTR_BLOCKS_STATE_KEYS_H

#include "blocks/host.h"

/* "<prefix>||<key>" as the component's keyPrefix says; INVALID_ARGUMENT when key holds "||". */
outr_code outr_state_key(outr_str *out, outr_arena *arena, const outr_component *c,
                         const outr_settings *settings, outr_str key, outr_err *err);

#endif
