#include "security/access.h"

#include "security/paths.h"

/* The trie is the reference's, with its ways: of the children of a node that match a segment the
 * one that was listed first is taken, and there is no way back; an operation covers what lies below
 * it, except when it ends in a wildcard segment; "*" as a whole segment is the last one of a path,
 * or nothing. */

enum { VERB_ANY = 1u << 0 };

typedef struct rule {
    unsigned verbs; /* bits of outr_access_verb */
    bool is_allowed;
} rule;

typedef struct caller {
    outr_str trust_domain;
    bool is_allowed, has_default;
    outr_path_node operations; /* their values are rules */
} caller;

struct outr_access {
    outr_arena *arena;
    outr_map *callers; /* by app id and namespace */
    bool is_allowed, is_http;
};

/* ---- compiling ------------------------------------------------------------------------------- */

unsigned outr_access_verb(outr_str verb)
{
    static const char *const verbs[OUTR_ACCESS_VERBS] = {
        "*", "GET", "HEAD", "POST", "PUT",
        "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"};
    for (unsigned i = 0; i < OUTR_LEN(verbs); i++) {
        if (outr_str_iis(verb, verbs[i]))
            return 1u << i;
    }
    return 0;
}

static void add_operation(outr_access *a, outr_path_node *root, const outr_access_operation *op)
{
    outr_str name = a->is_http ? outr_path_lower(a->arena, op->name) : op->name, segment;
    outr_str rest = outr_str_starts(name, OUTR_STR("/")) ? outr_str_skip(name, 1) : name;
    rule *r = outr_arena_alloc(a->arena, sizeof *r);
    outr_path_node *at = root;
    r->is_allowed = op->is_allowed;
    for (size_t i = 0; i < op->verb_count; i++)
        r->verbs |= outr_access_verb(op->verbs[i]);
    do {
        rest = outr_str_cut(rest, '/', &segment);
        at = outr_path_child(a->arena, at, segment);
    } while (rest.p);
    if (!at->value)
        at->value = r;
}

/* Neither part of a SPIFFE id has a slash in it. False: longer than any id is. */
#define KEY_MAX (OUTR_SPIFFE_MAX + 1)
static bool key_of(char text[KEY_MAX], outr_str *key, outr_str app_id, outr_str namespace_)
{
    if (app_id.n + namespace_.n + 1 > KEY_MAX)
        return false;
    memcpy(text, app_id.p, app_id.n);
    text[app_id.n] = '/';
    memcpy(text + app_id.n + 1, namespace_.p, namespace_.n);
    *key = outr_str_of(text, app_id.n + 1 + namespace_.n);
    return true;
}

static void add_caller(outr_access *a, const outr_access_caller *spec)
{
    char text[KEY_MAX];
    outr_str key;
    if (!key_of(text, &key, spec->app_id, spec->namespace_))
        return; /* nobody can have that name */
    caller *c = outr_arena_alloc(a->arena, sizeof *c);
    c->trust_domain = spec->trust_domain;
    c->is_allowed = spec->is_allowed;
    c->has_default = spec->default_action.n > 0;
    for (size_t i = 0; i < spec->operation_count; i++)
        add_operation(a, &c->operations, &spec->operations[i]);
    outr_map_put(a->callers, key, c);
}

outr_access *outr_access_new(const outr_access_spec *spec, bool is_http_app)
{
    outr_access *a = outr_alloc(sizeof *a);
    a->arena = outr_arena_new(256 * OUTR_MIB); /* configuration, whose files have their own limit */
    a->callers = outr_path_map(a->arena);
    a->is_allowed = spec->is_allowed;
    a->is_http = is_http_app;
    for (size_t i = 0; i < spec->caller_count; i++)
        add_caller(a, &spec->callers[i]);
    return a;
}

void outr_access_free(outr_access *access)
{
    if (!access)
        return;
    outr_arena_free(access->arena);
    free(access);
}

/* ---- judging --------------------------------------------------------------------------------- */

static const outr_path_node *earlier(const outr_path_node *a, const outr_path_node *b)
{
    return !a || (b && b->order < a->order) ? b : a;
}

static const outr_path_node *find_child(const outr_path_node *parent, outr_str segment,
                                        bool is_last)
{
    outr_path_cursor cursor = {0};
    if (!parent->children)
        return NULL;
    const outr_path_node *best = earlier(outr_map_get(parent->children, segment), parent->any);
    if (is_last)
        best = earlier(best, parent->one);
    for (const outr_path_node *glob; (glob = outr_path_next_glob(parent, segment, &cursor));)
        best = earlier(best, glob);
    return best;
}

/* path begins with its slash. */
static const rule *find_rule(const outr_path_node *root, outr_str path)
{
    outr_str rest = outr_str_skip(path, 1), segment;
    const outr_path_node *at = root;
    for (bool is_last = false; !is_last;) {
        rest = outr_str_cut(rest, '/', &segment);
        is_last = !rest.p;
        at = find_child(at, segment, is_last);
        if (!at)
            return NULL;
        if (at->value && (is_last || !outr_str_is(at->segment, "*")))
            return at->value;
    }
    at = find_child(at, OUTR_STR("*"), true); /* "/a/" followed by any one segment is also "/a" */
    return at ? at->value : NULL;
}

typedef struct judge {
    const outr_access *access;
    const caller *caller;
    const outr_access_request *request;
    outr_arena *scratch;
} judge;

static bool allows_path(const judge *j, outr_str path)
{
    const caller *c = j->caller;
    bool is_http = j->access->is_http;
    const rule *r = find_rule(&c->operations, is_http ? outr_path_lower(j->scratch, path) : path);
    if (!r)
        return c->is_allowed;
    if (!is_http || j->request->is_proxied)
        return r->is_allowed;
    if (outr_str_is(j->request->verb, "NONE"))
        return c->has_default && c->is_allowed;
    bool is_listed = r->verbs & (VERB_ANY | outr_access_verb(j->request->verb));
    return is_listed ? r->is_allowed : c->is_allowed;
}

static bool allows(const judge *j)
{
    outr_str readings[OUTR_PATH_READINGS];
    size_t count =
        outr_path_readings(readings, j->scratch, j->request->target, j->request->is_proxied);
    for (size_t i = 0; i < count; i++) {
        if (!allows_path(j, readings[i]))
            return false;
    }
    return count > 0;
}

outr_access_verdict outr_access_judge(const outr_access *a, const outr_access_request *request,
                                      outr_arena *scratch)
{
    const outr_identity *who = request->caller;
    char text[KEY_MAX];
    outr_str key;
    const outr_access_verdict otherwise = {.is_allowed = a->is_allowed};
    if (!who || !who->is_authenticated || !key_of(text, &key, who->app_id, who->namespace_))
        return otherwise;
    const judge j = {a, outr_map_get(a->callers, key), request, scratch};
    if (!j.caller || !outr_str_eq(j.caller->trust_domain, who->trust_domain))
        return otherwise;
    return (outr_access_verdict){.is_allowed = allows(&j), .is_of_policy = j.caller->has_default};
}
