/* watched - a file that is looked at every two seconds, by what its path leads to.
 *
 * A file renamed over it and a symbolic link turned elsewhere (mounted secrets) are seen like any
 * other change, and there is no event that could be missed (pitfall 23). Lives on one loop. */
#ifndef OUTR_SECURITY_WATCHED_H
#define OUTR_SECURITY_WATCHED_H

#include "loop/loop.h"

typedef struct outr_watched {
    const char *path; /* borrowed */
    /* machinery */
    outr_loop *loop;
    outr_timer timer;
    uint64_t seen[5]; /* device, inode, size, change time, modification time */
    bool (*changed)(struct outr_watched *watched);
} outr_watched;

/* What is there now counts as seen; before it is read, so that no change falls in between. */
void outr_watched_note(outr_watched *watched, const char *path);
/* changed is called, on loop, when something else is there, or nothing; false: it was of no use
 * (half written, perhaps), look again even if it stays as it is. */
void outr_watched_start(outr_watched *watched, outr_loop *loop,
                        bool (*changed)(outr_watched *watched));
void outr_watched_stop(outr_watched *watched); /* also one that was never started */

#endif
