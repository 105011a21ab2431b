#include "components/watchers.h"

#include <pthread.h>

#include "base/map.h"

#define NAMES_MAX 256 /* more at once are "any" */

struct outr_watchers {
    /* Tellers, watchers and the resolver's end are on different threads. Held while somebody is
     * told, so that the resolver is there for his questions: those never wait. */
    pthread_mutex_t lock;
    outr_list watches;
    size_t refs; /* the resolver's, and one for each watch */
    bool is_closed;
};

struct outr_watch {
    outr_link link;
    outr_watchers *list;
    outr_loop *loop;
    outr_changed_fn *changed;
    void *ctx;
    outr_message message;
    /* under the list's lock */
    outr_map *names; /* "app namespace" -> itself */
    bool is_any, is_posted, is_over;
};

outr_watchers *outr_watchers_new(void)
{
    outr_watchers *list = outr_alloc(sizeof *list);
    pthread_mutex_init(&list->lock, NULL);
    outr_list_init(&list->watches);
    list->refs = 1;
    return list;
}

/* Under the lock, which it gives back. */
static void unref(outr_watchers *list)
{
    bool is_last = --list->refs == 0;
    pthread_mutex_unlock(&list->lock);
    if (!is_last)
        return;
    pthread_mutex_destroy(&list->lock);
    free(list);
}

void outr_watchers_close(outr_watchers *list)
{
    if (!list)
        return;
    pthread_mutex_lock(&list->lock);
    list->is_closed = true;
    unref(list);
}

static void free_watch(outr_watch *watch)
{
    outr_map_free(watch->names);
    free(watch);
}

static void on_told(outr_message *message, outr_loop *loop OUTR_UNUSED)
{
    outr_watch *watch = OUTR_CONTAINER(message, outr_watch, message);
    outr_watchers *list = watch->list;
    outr_str key, app_id, namespace_;
    pthread_mutex_lock(&list->lock);
    watch->is_posted = false;
    if (watch->is_over) {
        unref(list);
        free_watch(watch);
        return;
    }
    bool is_any = watch->is_any && !list->is_closed;
    if (is_any)
        watch->changed(watch->ctx, OUTR_STR_NONE, OUTR_STR_NONE);
    for (size_t at = 0; outr_map_next(watch->names, &at, &key, NULL);) {
        namespace_ = outr_str_cut(key, ' ', &app_id);
        if (!is_any && !list->is_closed)
            watch->changed(watch->ctx, app_id, namespace_);
        outr_map_remove(watch->names, key);
    }
    watch->is_any = false;
    pthread_mutex_unlock(&list->lock);
}

static void add(outr_watch *watch, outr_str app_id, outr_str namespace_)
{
    char key[512];
    int n =
        snprintf(key, sizeof key, OUTR_FMT " " OUTR_FMT, OUTR_ARG(app_id), OUTR_ARG(namespace_));
    if (watch->list->is_closed || n < 0 || (size_t)n >= sizeof key)
        return; /* nobody asks for a name that long */
    if (app_id.n == 0 || outr_map_count(watch->names) >= NAMES_MAX)
        watch->is_any = true;
    else
        outr_map_put(watch->names, outr_str_of(key, (size_t)n), watch);
    if (watch->is_posted)
        return;
    watch->is_posted = true;
    outr_loop_post(watch->loop, &watch->message);
}

void outr_watchers_tell(outr_watchers *list, outr_str app_id, outr_str namespace_)
{
    pthread_mutex_lock(&list->lock);
    OUTR_LIST_EACH(link, &list->watches) {
        add(OUTR_LIST_ITEM(link, outr_watch, link), app_id, namespace_);
    }
    pthread_mutex_unlock(&list->lock);
}

void outr_watch_again(outr_watch *watch, outr_str app_id, outr_str namespace_)
{
    pthread_mutex_lock(&watch->list->lock);
    add(watch, app_id, namespace_);
    pthread_mutex_unlock(&watch->list->lock);
}

outr_watch *outr_watch_start(outr_watchers *list, outr_loop *loop, outr_changed_fn *changed,
                             void *ctx)
{
    outr_watch *watch = outr_alloc(sizeof *watch);
    *watch = (outr_watch){.list = list,
                          .loop = loop,
                          .changed = changed,
                          .ctx = ctx,
                          .message = {.run = on_told},
                          .names = outr_map_new()};
    pthread_mutex_lock(&list->lock);
    list->refs++;
    outr_list_push(&list->watches, &watch->link);
    pthread_mutex_unlock(&list->lock);
    return watch;
}

void outr_watch_end(outr_watch *watch)
{
    if (!watch)
        return;
    outr_watchers *list = watch->list;
    pthread_mutex_lock(&list->lock);
    outr_link_remove(&watch->link);
    watch->is_over = true;
    if (watch->is_posted) { /* the message frees it */
        pthread_mutex_unlock(&list->lock);
        return;
    }
    unref(list);
    free_watch(watch);
}
