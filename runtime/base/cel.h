/* cel - the part of the Common Expression Language that match rules and breaker conditions use
 * (github.com/google/cel-spec): literals, operators, members, has(), size(), string tests, list
 * macros.
 *
 * Compiled once to a tree on an arena, evaluated over JSON; depth and steps are capped. */
#ifndef OUTR_BASE_CEL_H
#define OUTR_BASE_CEL_H

#include "base/json.h"

typedef struct outr_cel outr_cel;

/* Errors say the byte position. text is borrowed as long as the arena lives. */
outr_code outr_cel_compile(outr_cel **out, outr_arena *arena, outr_str text, outr_err *err);
/* name is the one variable, bound to value. INVALID_ARGUMENT: evaluation failed (a member that is
 * not
 * there, types that do not fit) or the result is no boolean. arena holds intermediate values. */
outr_code outr_cel_test(const outr_cel *cel, outr_arena *arena, const char *name,
                        const outr_json *value, bool *out, outr_err *err);
/* The same where each member of the object variables is a variable. */
outr_code outr_cel_test_all(const outr_cel *cel, outr_arena *arena, const outr_json *variables,
                            bool *out, outr_err *err);

#endif
