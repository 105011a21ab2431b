/* inside - paths below a folder, resolved as if that folder were the root of the file system.
 *
 * ".." ends at the folder, links are followed but never lead out of it. Every step opens the next
 * folder from the one before and refuses a link that has come in between, so there is no moment at
 * which another process could swap one for the other. Blocks. */
#ifndef OUTR_COMPONENTS_COMMON_INSIDE_H
#define OUTR_COMPONENTS_COMMON_INSIDE_H

#include <limits.h>

#include "base/err.h"
#include "base/str.h"

#define OUTR_INSIDE_DEPTH_MAX 64 /* folders within folders: each costs a descriptor on the way */

typedef struct outr_inside {
    int dir;                 /* the folder it is in; the caller closes it */
    char name[NAME_MAX + 1]; /* in dir; "." when path leads to the root itself */
    char path[PATH_MAX];     /* below the root, links resolved: "a/b.txt", "." for the root */
} outr_inside;

/* The last part need not exist. makes_folders: those on the way are made when absent, else
 * NOT_FOUND. INVALID_ARGUMENT: no path that a file can have, or links in a circle. */
outr_code outr_inside_find(outr_inside *out, const char *root, outr_str path, bool makes_folders,
                           outr_err *err);

#endif
