/* host - owns the components: opens them in order, finds them by name, reopens them on reload.
 *
 * Secret stores open first; a component that names a secret store waits for it. A component that
 * fails without ignoreErrors fails the whole; with it, its name answers errors that say so, and it
 * is tried again in the background until it comes up (left_out.h). Loops see the components through
 * an immutable view that the main loop swaps; a request pins the view of its loop, and a removed
 * component is closed when its last pin is gone. */
#ifndef OUTR_BLOCKS_HOST_H
#define OUTR_BLOCKS_HOST_H

#include "components/registry.h"
#include "config/reload.h"
#include "config/snapshot.h"
#include "resiliency/policies.h"

typedef struct outr_host outr_host;
typedef struct outr_view outr_view;

typedef struct outr_instance_of {    /* one open component */
    const outr_component_spec *spec; /* lives as long as the view */
    enum {
        OUTR_KIND_STATE,
        OUTR_KIND_PUBSUB,
        OUTR_KIND_SECRETS,
        OUTR_KIND_BINDINGS,
        OUTR_KIND_MIDDLEWARE,
        OUTR_KIND_LOCK,
        OUTR_KIND_CONFIGURATION,
        OUTR_KIND_OTHER
    } kind;
    union {
        outr_state_store *state;
        outr_broker *broker;
        outr_secret_store *secrets;
        outr_binding *binding;
        outr_middleware *middleware;
        outr_lock_store *lock;
        outr_configuration_store *configuration;
    };
    unsigned directions; /* bindings: OUTR_BINDING_*, as far as metadata `direction` leaves them */
    outr_kvs metadata;   /* as given to it, secrets included: never log */
    const char *capabilities[8]; /* NULL-terminated, for metadata */
} outr_component;

typedef struct outr_host_options {
    outr_loop *const *loops; /* loops[0] is the main loop */
    size_t loop_count;
    const outr_settings *settings;
    outr_str run_dir;
    const outr_log *log;
} outr_host_options;

outr_host *outr_host_new(const outr_host_options *options);
/* All on the main loop. open: everything of the snapshot. apply: one at a time; diff lives until op
 * is done. A second try that is under way gives way to it, and to close. */
void outr_host_open(outr_host *host, const outr_snapshot *snapshot, outr_op *op);
void outr_host_apply(outr_host *host, const outr_reload_diff *diff, outr_op *op);
void outr_host_close(outr_host *host, outr_op *op);
void outr_host_free(outr_host *host);
/* Called on the main loop when components that had been left out are in every loop's view. */
void outr_host_on_change(outr_host *host, void (*changed)(void *ctx), void *ctx);

/* Any loop: the view of this loop, pinned until outr_view_unpin on the same loop. */
outr_view *outr_host_pin(outr_host *host, const outr_loop *loop);
void outr_view_unpin(outr_view *view);
/* Reads one value of a secret; ctx: the host. Any loop, op's. */
outr_secret_read_fn outr_host_read_secret;
/* Asks a state store for shares; ctx: the host. Any loop, op's. */
outr_state_share_fn outr_host_share;
/* The pipelines of the Configuration as far as their middlewares are open, as long as the view. */
const outr_chain *outr_view_http_chain(const outr_view *view);
/* Of the view of loop, which is pinned for it; NULL when it is empty. ctx: the host. */
const outr_chain *outr_host_pin_app_chain(void *ctx, const outr_loop *loop, void **pin);
void outr_host_unpin_chain(void *pin);
/* The Resiliency policies that hold as long as the view; NULL: none. */
const outr_policies *outr_view_policies(const outr_view *view);
/* NULL: no such component of that kind. */
const outr_component *outr_view_find(const outr_view *view, int kind, outr_str name);
size_t outr_view_count(const outr_view *view, int kind);
/* Walks all (metadata): NULL at the end. */
const outr_component *outr_view_at(const outr_view *view, size_t index);
/* The components that failed to start: name, and why. As long as the view. */
outr_kvs outr_view_left_out(const outr_view *view);

#endif
