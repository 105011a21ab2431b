#include "security/paths.h"

#include "base/encode.h"
#include "base/url.h"

/* Globs by that text, one group for each length it has: a segment asks for its own head or tail of
 * each length. */
struct outr__path_globs {
    bool is_tail;
    size_t n;
    outr_map *by_text; /* outr_path_node: the first one, linked by next */
    struct outr__path_globs *next;
};

outr_map *outr_path_map(outr_arena *arena)
{
    outr_map *map = outr_map_new();
    outr_arena_defer(arena, (void (*)(void *))outr_map_free, map);
    return map;
}

outr_str outr_path_lower(outr_arena *arena, outr_str s)
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

/* ---- the tree -------------------------------------------------------------------------------- */

static void add_glob(outr_arena *arena, outr_path_node *parent, outr_path_node *child)
{
    outr_str s = child->segment;
    size_t head = (size_t)outr_str_find(s, '*'), tail = s.n - (size_t)outr_str_rfind(s, '*') - 1;
    bool is_tail = head == 0;
    size_t n = is_tail ? tail : head;
    outr_str text = is_tail ? outr_str_skip(s, s.n - n) : outr_str_head(s, n);
    struct outr__path_globs *group = parent->globs;
    while (group && (group->n != n || group->is_tail != is_tail))
        group = group->next;
    if (!group) {
        group = outr_arena_alloc(arena, sizeof *group);
        *group = (struct outr__path_globs){is_tail, n, outr_path_map(arena), parent->globs};
        parent->globs = group;
    }
    outr_path_node *last = outr_map_get(group->by_text, text);
    while (last && last->next)
        last = last->next;
    if (last)
        last->next = child;
    else
        outr_map_put(group->by_text, text, child);
}

outr_path_node *outr_path_child(outr_arena *arena, outr_path_node *parent, outr_str segment)
{
    if (!parent->children)
        parent->children = outr_path_map(arena);
    outr_path_node *child = outr_map_get(parent->children, segment);
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

/* The first glob of a group that may match. */
static outr_path_node *enter(const struct outr__path_globs *group, outr_str segment)
{
    if (group->n > segment.n)
        return NULL;
    return outr_map_get(group->by_text, group->is_tail
                                            ? outr_str_skip(segment, segment.n - group->n)
                                            : outr_str_head(segment, group->n));
}

outr_path_node *outr_path_next_glob(const outr_path_node *parent, outr_str segment,
                                    outr_path_cursor *cursor)
{
    if (!cursor->has_begun) {
        *cursor = (outr_path_cursor){.globs = parent->globs, .has_begun = true};
        cursor->node = cursor->globs ? enter(cursor->globs, segment) : NULL;
    }
    while (cursor->globs) {
        while (cursor->node) {
            outr_path_node *node = cursor->node;
            cursor->node = node->next;
            if (matches(node->segment, segment))
                return node;
        }
        cursor->globs = cursor->globs->next;
        cursor->node = cursor->globs ? enter(cursor->globs, segment) : NULL;
    }
    return NULL;
}

/* ---- readings -------------------------------------------------------------------------------- */

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

outr_str outr_path_trim(outr_str path)
{
    return path.n > 1 && path.p[path.n - 1] == '/' ? outr_str_head(path, path.n - 1) : path;
}

size_t outr_path_readings(outr_str out[OUTR_PATH_READINGS], outr_arena *arena, outr_str target,
                          bool is_literal)
{
    outr_str path, decoded, kept;
    size_t n = 0;
    outr_str_cut(target, '?', &path);
    if (path.n == 0 || path.p[0] != '/' || !is_plain(path))
        return 0;
    if (outr_str_find(path, '%') < 0) {
        out[0] = outr_path_trim(path);
        return 1;
    }
    if (!outr_percent_decode(arena, path, false, &decoded) || !is_plain(decoded) ||
        !outr_str_eq(outr_path_clean(arena, decoded), decoded))
        return 0;
    out[n++] = outr_path_trim(decoded);
    if (is_literal) /* gRPC's paths have no escapes */
        out[n++] = outr_path_trim(path);
    if (count_slashes(decoded) == count_slashes(path))
        return n;
    if (!outr_percent_decode(arena, keep_slashes(arena, path), false, &kept))
        return 0;
    out[n++] = outr_path_trim(kept);
    return n;
}
