/* configuration - the engine above the configuration stores: who watches what.
 *
 * One for the process. A subscription lives on its client's loop, from outr_config_sub_open to
 * on_end, under an id by which any loop may end it. Over a reload it goes on with the store of its
 * name as it is then, and ends when there is none. One update at a time is with its client: what
 * changes meanwhile comes afterwards, as it is then. Source: contract/http-routes.csv. */
#ifndef OUTR_BLOCKS_CONFIGURATION_CONFIGURATION_H
#define OUTR_BLOCKS_CONFIGURATION_CONFIGURATION_H

#include "blocks/host.h"

typedef struct outr_configurations outr_configurations;
typedef struct outr_config_sub outr_config_sub;

/* Loops and host are borrowed. */
outr_configurations *outr_configurations_new(outr_loop *const *loops, size_t loop_count,
                                             outr_host *host);
void outr_configurations_free(outr_configurations *engine);
/* Main loop: components have changed, and every loop has them. */
void outr_configurations_update(outr_configurations *engine);
/* Main loop: all subscriptions end, new ones are refused. */
void outr_configurations_stop(outr_configurations *engine, outr_op *op);

struct outr_config_sub {
    /* in; texts are copied */
    outr_str store;
    const outr_str *keys; /* none: all */
    size_t key_count;
    outr_kvs metadata;
    outr_loop *loop;
    /* items are borrowed for the call; the next comes after outr_config_sub_go_on. */
    void (*on_update)(outr_config_sub *sub, const outr_configuration_item *items, size_t count);
    /* Last call, from an event of its own; the memory is the caller's again. err NULL: it was
     * closed, or the sidecar stops. */
    void (*on_end)(outr_config_sub *sub, const outr_err *err);
    /* out */
    char id[OUTR_UUID_LEN + 1];
    /* machinery */
    outr_configurations *engine;
    outr_arena *arena;
    outr_view *view;
    outr_configuration_store *of; /* of the view */
    outr_configuration_subscribe req;
    outr_configuration_watch *watch; /* NULL: none yet, or no more */
    outr_op op;                      /* subscribing or unsubscribing */
    outr_op *opening;
    outr_deferred ender;
    outr_link link;    /* of its loop's */
    outr_list leavers; /* who waits for its end */
    outr_err err;      /* why it ends */
    bool is_closing, is_moving;
};

/* Done when changes from then on will be told. On failure there is no subscription and on_end is
 * not called; NOT_FOUND: no such store, UNAVAILABLE: the sidecar stops, else the store's error. */
void outr_config_sub_open(outr_configurations *engine, outr_config_sub *sub, outr_op *op);
void outr_config_sub_go_on(outr_config_sub *sub);
/* on_end follows, once. While it opens: the opening fails. Again: nothing. */
void outr_config_sub_close(outr_config_sub *sub);

/* Ends a subscription by its id, from any loop. */
typedef struct outr_config_leave {
    /* in, borrowed until done */
    outr_str store, id;
    /* machinery */
    outr_configurations *engine;
    outr_message message;
    outr_link link;
    outr_op *op;
    bool is_found;
} outr_config_leave;
/* Done when it has ended. NOT_FOUND: that store has no such subscription. */
void outr_config_leave_start(outr_configurations *engine, outr_config_leave *leave, outr_op *op);

#endif
