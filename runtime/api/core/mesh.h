/* mesh - what the mesh does, for people to look at, as JSON that all front ends and the command
 * line show alike. README "Seeing what the mesh does". */
#ifndef OUTR_API_CORE_MESH_H
#define OUTR_API_CORE_MESH_H

#include "api/core/core.h"
#include "base/json.h"

/* {"callees": [...]}: of one callee ("id" or "id.namespace"), or, when app is empty, of all that
 * have been called. On the arena. */
outr_json *outr_core_endpoints(const outr_core *core, outr_str app);

/* What would be done with a call, and why other routes are not taken. question: {"app": "id",
 * "path": "/orders/1?x=1", "method": "GET", "headers": {"name": "value" or [...]}, "claims": {...}}
 * of which app and path must be there; INVALID_ARGUMENT names what is wrong with it. A copy of one
 * moment: of a split one subset is drawn, as for a call. */
outr_code outr_core_explain(const outr_core *core, const outr_json *question, outr_json **out,
                            outr_err *err);

#endif
