/* What the files of app/ share. */
#ifndef OUTR_APP_INTERNAL_H
#define OUTR_APP_INTERNAL_H

#include "app/channel.h"
#include "app/unary.h"

/* One loop's place in what all loops share. */
typedef struct outr__shared_loop {
    outr_app *app;
    outr_message wake, notice;
    uint32_t waiting;      /* atomic: calls that wait for a slot */
    uint8_t wake_posted;   /* atomic */
    uint8_t notice_posted; /* atomic */
} outr__shared_loop;

struct outr_app_state {
    const outr_settings *settings;
    int64_t limit;             /* 0: none */
    int64_t in_flight;         /* atomic */
    uint8_t is_up, is_healthy; /* atomic */
    size_t loop_count;
    outr__shared_loop loops[];
};

struct outr_app {
    outr_loop *loop;
    const outr_settings *settings;
    outr_app_state *state;
    outr__shared_loop *shared;
    outr_http_pool *pool;   /* NULL: no app channel, or its name is not known yet */
    outr_http_pool *former; /* of the address before, for the calls that are still on it */
    outr_tls *tls;
    outr_token_view token;
    outr_str authority;
    char authority_text[300];
    outr_list waiting, watchers;
    outr_deferred greeter; /* tells new watchers the present state */
    /* --app-channel-address is a name */
    outr_lookup lookup;
    outr_op lookup_op;
    outr_timer lookup_timer;
    size_t lookups; /* how often its addresses were asked for: each in turn */
    bool is_named;
    /* main loop: waiting for the port, probing */
    outr_timer timer;
    outr_op op;
    outr_connect connect;
    outr_app_fetch probe;       /* over HTTP */
    outr_app_unary grpc_probe;
    outr_arena *probe_arena;
    int64_t failures;
    bool is_stopped, is_freed;
};

/* Nobody answered where the app should be: its name, if it has one, is looked up again soon. */
void outr__app_look_again(outr_app *app);
/* Main loop: tells all loops when something has changed. */
void outr__app_set_state(outr_app *app, bool is_up, bool is_healthy);
/* After outr_app_free: frees it once its last operation has ended. */
void outr__app_free_if_over(outr_app *app);
static inline bool outr__app_is_grpc(const outr_app *app)
{
    return app->settings->app_protocol >= OUTR_APP_GRPC;
}

#endif
