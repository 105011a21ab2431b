#include "security/watched.h"

#include <sys/stat.h>

#define LOOK_NS (2 * OUTR_SEC)

/* All zero: there is nothing. */
static void look(const char *path, uint64_t seen[5])
{
    struct stat st;
    memset(seen, 0, 5 * sizeof seen[0]);
    if (stat(path, &st) != 0)
        return;
    seen[0] = (uint64_t)st.st_dev;
    seen[1] = (uint64_t)st.st_ino;
    seen[2] = (uint64_t)st.st_size;
    seen[3] = (uint64_t)st.st_ctim.tv_sec * OUTR_SEC + (uint64_t)st.st_ctim.tv_nsec;
    seen[4] = (uint64_t)st.st_mtim.tv_sec * OUTR_SEC + (uint64_t)st.st_mtim.tv_nsec;
}

void outr_watched_note(outr_watched *watched, const char *path)
{
    watched->path = path;
    look(path, watched->seen);
}

static void on_time(outr_timer *timer)
{
    outr_watched *w = OUTR_CONTAINER(timer, outr_watched, timer);
    uint64_t seen[5];
    outr_timer_start(w->loop, timer, outr_loop_now(w->loop) + LOOK_NS);
    look(w->path, seen);
    if (memcmp(seen, w->seen, sizeof seen) == 0)
        return;
    if (w->changed(w))
        memcpy(w->seen, seen, sizeof seen);
}

void outr_watched_start(outr_watched *watched, outr_loop *loop,
                        bool (*changed)(outr_watched *watched))
{
    watched->loop = loop;
    watched->changed = changed;
    watched->timer.fire = on_time;
    outr_timer_start(loop, &watched->timer, outr_loop_now(loop) + LOOK_NS);
}

void outr_watched_stop(outr_watched *watched)
{
    if (watched->loop)
        outr_timer_stop(watched->loop, &watched->timer);
    watched->loop = NULL;
}
