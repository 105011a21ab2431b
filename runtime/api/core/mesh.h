/* mesh - what the mesh does, for people to look at, as JSON that all front ends and the command
 * line show alike. README "Seeing what the mesh does". */
#ifndef OUTR_API_CORE_MESH_H
#define OUTR_API_CORE_MESH_H

#include "api/core/core.h"
#include "base/json.h"

/* {"callees": [...]}: of one callee ("id" or "id.namespace"), or, when app is empty, of all that
 * have been called. On the arena. */
outr_json *outr_core_endpoints(const outr_core *core, outr_str app);

#endif
