#include "security/access.h"

#include "base/encode.h"
#include "base/url.h"

/* The trie is the reference's, with its ways: of the children of a node that match a segment the
 * one that was listed first is taken, and there is no way back; an operation covers what lies below
 * it, except when it ends in a wildcard segment; "*" as a whole segment is the last one of a path,
 * or nothing. */

enum { VERB_ANY = 1u << 0 };

typedef struct rule {
    unsigned verbs; /* bits of verb_bit */
    bool is_allowed;
} rule;

typedef struct node node;

/* Globs that begin (or, when nothing stands before the first star, end) with the same text. */
typedef struct glob_list {
    node *first; /* in order, linked by next_glob */
} glob_list;

/* Globs by that text, one group for each length it has: a segment asks for its own head or tail of
 * each length. */
typedef struct glob_group {
    bool is_tail;
    size_t n;
    outr_map *by_text; /* glob_list */
    struct glob_group *next;
} glob_group;

struct node {
    outr_str segment;
    uint32_t order; /* among its siblings */
    const rule *rule;
    outr_map *children; /* by segment, wildcards by their own text too; NULL: none */
    node *one, *any;    /* the children "*" and "**" */
    glob_group *globs;
    node *next_glob;
};

typedef struct caller {
    outr_str trust_domain;
    bool is_allowed, has_default;
    node operations;
} caller;

struct outr_access {
    outr_arena *arena;
    outr_map *callers; /* by app id and namespace */
    bool is_allowed, is_http;
};

/* ---- compiling ------------------------------------------------------------------------------- */

static unsigned verb_bit(outr_str verb)
{
    static const char *const verbs[] = {"*",      "GET",     "HEAD",    "POST",  "PUT",
                                        "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"};
    for (unsigned i = 0; i < OUTR_LEN(verbs); i++) {
        if (outr_str_iis(verb, verbs[i]))
            return 1u << i;
    }
    return 0;
}

static outr_map *new_map(outr_arena *arena)
{
    outr_map *map = outr_map_new();
    outr_arena_defer(arena, (void (*)(void *))outr_map_free, map);
    return map;
}

static outr_str lower(outr_arena *arena, outr_str s)
{
    size_t i = 0;
    while (i < s.n && !(s.p[i] >= 'A' && s.p[i] <= 'Z'))
        i++;
    if (i == s.n)
        return s;
    char *out = outr_arena_alloc(arena, s.n);
    for (i = 0; i < s.n; i++)
        out[i] = s.p[i] >= 'A' && s.p[i] <= 'Z' ? (char)(s.p[i] - 'A' + 'a') : s.p[i];
    return outr_str_of(out, s.n);
}

static void add_glob(outr_arena *arena, node *parent, node *child)
{
    outr_str s = child->segment;
    size_t head = (size_t)outr_str_find(s, '*'), tail = s.n - (size_t)outr_str_rfind(s, '*') - 1;
    bool is_tail = head == 0;
    size_t n = is_tail ? tail : head;
    outr_str text = is_tail ? outr_str_skip(s, s.n - n) : outr_str_head(s, n);
    glob_group *group = parent->globs;
    while (group && (group->n != n || group->is_tail != is_tail))
        group = group->next;
    if (!group) {
        group = outr_arena_alloc(arena, sizeof *group);
        *group = (glob_group){is_tail, n, new_map(arena), parent->globs};
        parent->globs = group;
    }
    glob_list *list = outr_map_get(group->by_text, text);
    if (!list) {
        list = outr_arena_alloc(arena, sizeof *list);
        outr_map_put(group->by_text, text, list);
    }
    node **end = &list->first;
    while (*end)
        end = &(*end)->next_glob;
    *end = child;
}

static node *child_of(outr_arena *arena, node *parent, outr_str segment)
{
    if (!parent->children)
        parent->children = new_map(arena);
    node *child = outr_map_get(parent->children, segment);
    if (child)
        return child;
    child = outr_arena_alloc(arena, sizeof *child);
    child->segment = segment;
    child->order = (uint32_t)outr_map_count(parent->children);
    outr_map_put(parent->children, segment, child);
    if (outr_str_is(segment, "*"))
        parent->one = child;
    else if (outr_str_is(segment, "**"))
        parent->any = child;
    else if (outr_str_find(segment, '*') >= 0)
        add_glob(arena, parent, child);
    return child;
}

static void add_operation(outr_access *a, node *root, const outr_access_operation *op)
{
    outr_str name = a->is_http ? lower(a->arena, op->name) : op->name, segment;
    outr_str rest = outr_str_starts(name, OUTR_STR("/")) ? outr_str_skip(name, 1) : name;
    rule *r = outr_arena_alloc(a->arena, sizeof *r);
    node *at = root;
    r->is_allowed = op->is_allowed;
    for (size_t i = 0; i < op->verb_count; i++)
        r->verbs |= verb_bit(op->verbs[i]);
    do {
        rest = outr_str_cut(rest, '/', &segment);
        at = child_of(a->arena, at, segment);
    } while (rest.p);
    if (!at->rule)
        at->rule = r;
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
    a->callers = new_map(a->arena);
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

static void free_of_snapshot(void *access)
{
    outr_access_free(access);
}

const outr_access *outr_access_of(const outr_snapshot *snapshot, bool is_http_app)
{
    outr_snapshot *s = (outr_snapshot *)snapshot;
    void *made = __atomic_load_n(&s->access, __ATOMIC_ACQUIRE), *none = NULL;
    if (made || !s->configuration.access.is_on)
        return made;
    outr_access *fresh = outr_access_new(&s->configuration.access, is_http_app);
    __atomic_store_n(&s->free_access, free_of_snapshot, __ATOMIC_RELAXED);
    if (__atomic_compare_exchange_n(&s->access, &none, fresh, false, __ATOMIC_ACQ_REL,
                                    __ATOMIC_ACQUIRE))
        return fresh;
    outr_access_free(fresh); /* another loop was first */
    return none;
}

/* ---- judging --------------------------------------------------------------------------------- */

/* "*" stands for any text, also none. */
static bool matches(outr_str glob, outr_str text)
{
    size_t g = 0, t = 0, star = SIZE_MAX, from = 0;
    while (t < text.n) {
        if (g < glob.n && glob.p[g] == '*') {
            star = g++;
            from = t;
        } else if (g < glob.n && glob.p[g] == text.p[t]) {
            g++;
            t++;
        } else if (star != SIZE_MAX) {
            g = star + 1;
            t = ++from;
        } else {
            return false;
        }
    }
    while (g < glob.n && glob.p[g] == '*')
        g++;
    return g == glob.n;
}

static node *earlier(node *a, node *b)
{
    return !a || (b && b->order < a->order) ? b : a;
}

static node *find_child(const node *parent, outr_str segment, bool is_last)
{
    if (!parent->children)
        return NULL;
    node *best = earlier(outr_map_get(parent->children, segment), parent->any);
    if (is_last)
        best = earlier(best, parent->one);
    for (const glob_group *group = parent->globs; group; group = group->next) {
        if (group->n > segment.n)
            continue;
        outr_str text = group->is_tail ? outr_str_skip(segment, segment.n - group->n)
                                       : outr_str_head(segment, group->n);
        const glob_list *list = outr_map_get(group->by_text, text);
        for (node *glob = list ? list->first : NULL;
             glob && (!best || glob->order < best->order); glob = glob->next_glob) {
            if (matches(glob->segment, segment))
                best = glob;
        }
    }
    return best;
}

/* path begins with its slash. */
static const rule *find_rule(const node *root, outr_str path)
{
    outr_str rest = outr_str_skip(path, 1), segment;
    const node *at = root;
    for (bool is_last = false; !is_last;) {
        rest = outr_str_cut(rest, '/', &segment);
        is_last = !rest.p;
        at = find_child(at, segment, is_last);
        if (!at)
            return NULL;
        if (at->rule && (is_last || !outr_str_is(at->segment, "*")))
            return at->rule;
    }
    at = find_child(at, OUTR_STR("*"), true); /* "/a/" followed by any one segment is also "/a" */
    return at ? at->rule : NULL;
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
    if (path.n > 1 && path.p[path.n - 1] == '/')
        path.n--;
    const rule *r = find_rule(&c->operations, is_http ? lower(j->scratch, path) : path);
    if (!r)
        return c->is_allowed;
    if (!is_http || j->request->is_proxied)
        return r->is_allowed;
    if (outr_str_is(j->request->verb, "NONE"))
        return c->has_default && c->is_allowed;
    bool is_listed = r->verbs & (VERB_ANY | verb_bit(j->request->verb));
    return is_listed ? r->is_allowed : c->is_allowed;
}

static bool is_plain(outr_str path)
{
    for (size_t i = 0; i < path.n; i++) {
        if ((unsigned char)path.p[i] < 0x20 || path.p[i] == 0x7f)
            return false;
    }
    return true;
}

/* "%2F" stays, for apps to which it is no separator. */
static outr_str keep_slashes(outr_arena *arena, outr_str path)
{
    char *out = outr_arena_alloc(arena, path.n * 5 / 3 + 1);
    size_t n = 0;
    for (size_t i = 0; i < path.n; i++) {
        if (path.n - i >= 3 && path.p[i] == '%' && path.p[i + 1] == '2' &&
            (path.p[i + 2] | 0x20) == 'f') {
            memcpy(out + n, "%25", 3);
            n += 3;
        } else {
            out[n++] = path.p[i];
        }
    }
    return outr_str_of(out, n);
}

static size_t count_slashes(outr_str s)
{
    size_t n = 0;
    for (size_t i = 0; i < s.n; i++)
        n += s.p[i] == '/';
    return n;
}

static bool allows(const judge *j)
{
    outr_str path, decoded, kept;
    outr_str_cut(j->request->target, '?', &path);
    if (path.n == 0 || path.p[0] != '/' || !is_plain(path))
        return false;
    if (outr_str_find(path, '%') < 0)
        return allows_path(j, path);
    if (!outr_percent_decode(j->scratch, path, false, &decoded) || !is_plain(decoded) ||
        !outr_str_eq(outr_path_clean(j->scratch, decoded), decoded) || !allows_path(j, decoded))
        return false;
    if (j->request->is_proxied && !allows_path(j, path)) /* gRPC's paths have no escapes */
        return false;
    if (count_slashes(decoded) == count_slashes(path))
        return true;
    return outr_percent_decode(j->scratch, keep_slashes(j->scratch, path), false, &kept) &&
           allows_path(j, kept);
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
