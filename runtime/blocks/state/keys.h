/* keys - the prefix strategies of state keys, which are those of locks too. Source:
 * contract/state.md. */
#ifndef OUTR_BLOCKS_STATE_KEYS_H
#define OUTR_BLOCKS_STATE_KEYS_H

#include "blocks/host.h"

/* "<prefix>||<key>" as the component's keyPrefix says; INVALID_ARGUMENT when key holds "||". */
outr_code outr_state_key(outr_str *out, outr_arena *arena, const outr_component *c,
                         const outr_settings *settings, outr_str key, outr_err *err);
/* The name under which a lock of this resource is stored: "lock||<prefix>||<resource>". */
outr_code outr_lock_name(outr_str *out, outr_arena *arena, const outr_component *c,
                         const outr_settings *settings, outr_str resource, outr_err *err);

#endif
