/* reload - watches the resource folders and says what changed.
 *
 * inotify through libuv, a settle time of 50 ms (several writes are one change) and a full
 * comparison every reconcile interval, so that a missed event (rename over, symlink swap) is
 * noticed
 * (pitfall 23). A folder that does not parse changes nothing and is reported once. */
#ifndef OUTR_CONFIG_RELOAD_H
#define OUTR_CONFIG_RELOAD_H

#include "config/snapshot.h"
#include "loop/loop.h"

typedef struct outr_reload outr_reload;

typedef struct outr_reload_diff {
    const outr_snapshot *before, *after;
    /* Components, subscriptions and Resiliency changed in place; anything else asks for a restart
     * (Dapr: SIGHUP, also for Resiliency). */
    const outr_component_spec **added, **removed; /* changed = in both */
    size_t added_count, removed_count;
    bool subscriptions_changed, policies_changed, traffic_changed;
    bool access_changed; /* AccessPolicy, Authentication */
    bool needs_restart;  /* Configuration or HTTPEndpoint in the folders changed */
    const outr_err_list *warnings; /* of after; for the call only */
} outr_reload_diff;

typedef struct outr_reload_options {
    outr_loop *loop;
    const outr_settings *settings;
    char *const *envp;
    const outr_snapshot *current; /* referenced */
    /* on loop; diff is borrowed for the call */
    void (*changed)(void *ctx, const outr_reload_diff *diff);
    void (*failed)(void *ctx, const outr_err_list *errors);
    void *ctx;
} outr_reload_options;

outr_code outr_reload_start(outr_reload **out, const outr_reload_options *options, outr_err *err);
void outr_reload_check(outr_reload *reload); /* now */
/* asynchronous handles close with the loop */
void outr_reload_stop(outr_reload *reload);

#endif
