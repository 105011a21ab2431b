#include "config/kinds/kinds.h"

#define S(field) offsetof(outr_access_spec, field)
#define A(field) offsetof(outr_access_caller, field)
#define O(field) offsetof(outr_access_operation, field)

static const outr_yaml_row operation[] = {
    {"name", OUTR_YT_TEXT, O(name), 0, NULL, 0, 0},
    {"httpVerb", OUTR_YT_TEXTS, O(verbs), 0, NULL, 0, 0},
    {"action", OUTR_YT_TEXT, O(action), 0, NULL, 0, 0},
    {0},
};
static const outr_yaml_row caller[] = {
    {"appId", OUTR_YT_TEXT, A(app_id), 0, NULL, 0, 0},
    {"namespace", OUTR_YT_TEXT, A(namespace_), 0, NULL, 0, 0},
    {"trustDomain", OUTR_YT_TEXT, A(trust_domain), 0, NULL, 0, 0},
    {"defaultAction", OUTR_YT_TEXT, A(default_action), 0, NULL, 0, 0},
    {"operations", OUTR_YT_LIST, A(operations), 0, operation, sizeof(outr_access_operation),
     O(line)},
    {0},
};
static const outr_yaml_row rows[] = {
    {"defaultAction", OUTR_YT_TEXT, S(default_action), 0, NULL, 0, 0},
    {"trustDomain", OUTR_YT_TEXT, S(trust_domain), 0, NULL, 0, 0},
    {"policies", OUTR_YT_LIST, S(callers), 0, caller, sizeof(outr_access_caller), A(line)},
    {0},
};

/* Where a mistake in an element is shown. */
static outr_yaml at(int line, int column)
{
    return (outr_yaml){.line = line, .column = column};
}

static void require(outr_binder *b, const outr_yaml *place, const char *what, outr_str text)
{
    if (text.n == 0)
        outr_bind_error(b, place, "spec.accessControl: %s: required", what);
}

static bool read_action(outr_binder *b, const outr_yaml *place, const char *what, outr_str text,
                        bool otherwise)
{
    if (text.n == 0)
        return otherwise;
    bool is_allowed = outr_str_iis(text, "allow");
    if (!is_allowed && !outr_str_iis(text, "deny"))
        outr_bind_error(b, place,
                        "spec.accessControl: %s: must be allow or deny, not \"" OUTR_FMT "\"", what,
                        OUTR_ARG(outr_str_head(text, 64)));
    return is_allowed;
}

/* Verbs are compared as they are written: one that is never sent would be a rule without effect. */
static void check_verbs(outr_binder *b, const outr_access_operation *op)
{
    static const char *const known[] = {"*",      "GET",     "HEAD",    "POST",  "PUT",
                                        "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"};
    const outr_yaml place = at(op->line, op->column);
    for (size_t i = 0; i < op->verb_count; i++) {
        bool is_known = false;
        for (size_t k = 0; k < OUTR_LEN(known); k++)
            is_known |= outr_str_is(op->verbs[i], known[k]);
        if (!is_known)
            outr_bind_error(b, &place,
                            "httpVerb: must be a verb in upper case or *, not \"" OUTR_FMT "\"",
                            OUTR_ARG(outr_str_head(op->verbs[i], 32)));
    }
}

static bool has_verb(const outr_access_operation *op, outr_str verb)
{
    for (size_t i = 0; i < op->verb_count; i++) {
        if (outr_str_eq(op->verbs[i], verb))
            return true;
    }
    return false;
}

static bool says_the_same(const outr_access_operation *a, const outr_access_operation *b)
{
    bool is_same = a->is_allowed == b->is_allowed;
    for (size_t i = 0; i < a->verb_count; i++)
        is_same &= has_verb(b, a->verbs[i]);
    for (size_t i = 0; i < b->verb_count; i++)
        is_same &= has_verb(a, b->verbs[i]);
    return is_same;
}

/* Of two operations with one name the first alone counts, of two policies for one caller the last:
 * half of what was written would not be enforced. */
static void check_operation(outr_binder *b, outr_map *seen, outr_access_operation *op)
{
    const outr_yaml place = at(op->line, op->column);
    outr_str name =
        outr_str_starts(op->name, OUTR_STR("/")) ? outr_str_skip(op->name, 1) : op->name;
    require(b, &place, "operation's name", op->name);
    require(b, &place, "operation's action", op->action);
    op->is_allowed = read_action(b, &place, "action", op->action, false);
    check_verbs(b, op);
    const outr_access_operation *before = outr_map_get(seen, name);
    if (before && !says_the_same(before, op))
        outr_bind_error(b, &place,
                        "operation \"" OUTR_FMT "\" contradicts line %d: give each operation of a "
                        "policy once, with all its verbs",
                        OUTR_ARG(outr_str_head(op->name, 80)), before->line);
    else if (!before)
        outr_map_put(seen, name, op);
}

static void check_caller(outr_binder *b, outr_access_caller *c, bool default_action)
{
    const outr_yaml place = at(c->line, c->column);
    outr_map *seen = outr_map_new();
    require(b, &place, "policy's appId", c->app_id);
    require(b, &place, "policy's namespace", c->namespace_);
    require(b, &place, "policy's trustDomain", c->trust_domain);
    c->is_allowed = read_action(b, &place, "defaultAction", c->default_action, default_action);
    for (size_t i = 0; i < c->operation_count; i++)
        check_operation(b, seen, (outr_access_operation *)&c->operations[i]);
    outr_map_free(seen);
}

void outr_kind_access(outr_binder *binder, const outr_yaml *node, outr_access_spec *out)
{
    outr_binder strict = *binder;
    strict.warnings = binder->errors;
    outr_bind_yaml(&strict, rows, node, "spec.accessControl", out);
    out->is_on = out->default_action.n > 0 || out->trust_domain.n > 0 || out->caller_count > 0;
    out->is_allowed =
        read_action(&strict, node, "defaultAction", out->default_action, out->caller_count == 0);
    outr_map *seen = outr_map_new();
    for (size_t i = 0; i < out->caller_count; i++) {
        outr_access_caller *c = (outr_access_caller *)&out->callers[i];
        const outr_yaml place = at(c->line, c->column);
        outr_str key = outr_arena_join(strict.arena, c->app_id, OUTR_STR("||"), c->namespace_);
        check_caller(&strict, c, out->is_allowed);
        const outr_access_caller *before = outr_map_put(seen, key, c);
        if (before && c->app_id.n > 0)
            outr_bind_error(&strict, &place,
                            "a policy for app \"" OUTR_FMT "\" in namespace \"" OUTR_FMT
                            "\" is there already, in line %d",
                            OUTR_ARG(outr_str_head(c->app_id, 80)),
                            OUTR_ARG(outr_str_head(c->namespace_, 80)), before->line);
    }
    outr_map_free(seen);
}
