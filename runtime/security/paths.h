/* paths - patterns of request paths as a tree of segments, and how a path may be read.
 *
 * "*" in a segment stands for any text; what whole segments "*" and "**" mean is its user's to say.
 * Children are found by hash, globs by the text before their first star (or behind the last one,
 * when nothing stands before the first), so that a look-up takes no longer with more of them. */
#ifndef OUTR_SECURITY_PATHS_H
#define OUTR_SECURITY_PATHS_H

#include "base/arena.h"
#include "base/map.h"

typedef struct outr_path_node outr_path_node;
struct outr_path_node {
    outr_str segment;
    uint32_t order;            /* among its siblings, as they were added */
    void *value;               /* the user's */
    outr_map *children;        /* by segment, patterns by their own text too; NULL: none */
    outr_path_node *one, *any; /* the children "*" and "**" */
    struct outr__path_globs *globs;
    outr_path_node *next; /* machinery */
};

/* The child of that segment, made when it is not there; segment is borrowed. */
outr_path_node *outr_path_child(outr_arena *arena, outr_path_node *parent, outr_str segment);
/* Children that are globs and match, one after the other: *cursor starts zeroed. `one` and `any`
 * are not among them. */
typedef struct outr_path_cursor {
    const struct outr__path_globs *globs;
    outr_path_node *node;
    bool has_begun;
} outr_path_cursor;
outr_path_node *outr_path_next_glob(const outr_path_node *parent, outr_str segment,
                                    outr_path_cursor *cursor);

outr_map *outr_path_map(outr_arena *arena); /* freed with arena */
/* In lower case; itself when it is. */
outr_str outr_path_lower(outr_arena *arena, outr_str s);
outr_str outr_path_trim(outr_str path); /* without a slash at its end, unless it is all of it */

/* The ways in which an app may read the path of a target ("%2F" as a slash or not; as it is, too,
 * when is_literal): what is to be let in must be let in by each. 0: it hides dot or empty segments
 * or control characters, and nobody can say what it means. Trailing slashes are cut. */
#define OUTR_PATH_READINGS 3
size_t outr_path_readings(outr_str out[OUTR_PATH_READINGS], outr_arena *arena, outr_str target,
                          bool is_literal);

#endif
