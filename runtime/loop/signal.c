#include "loop/signal.h"

#include <uv.h>

#define SIGNALS_MAX 8

struct outr_signals {
    uv_signal_t handles[SIGNALS_MAX];
    unsigned count, open;
    void (*fn)(void *ctx, int signum);
    void *ctx;
};

static void on_signal(uv_signal_t *handle, int signum)
{
    outr_signals *signals = handle->data;
    if (signals->fn)
        signals->fn(signals->ctx, signum);
}

outr_signals *outr_signals_watch(outr_loop *loop, const int *signums,
                                 void (*fn)(void *ctx, int signum), void *ctx)
{
    outr_signals *signals = outr_alloc(sizeof *signals);
    signals->fn = fn;
    signals->ctx = ctx;
    for (; signums[signals->count] && signals->count < SIGNALS_MAX; signals->count++) {
        uv_signal_t *handle = &signals->handles[signals->count];
        uv_signal_init(outr_loop_uv(loop), handle);
        handle->data = signals;
        uv_signal_start(handle, on_signal, signums[signals->count]);
        uv_unref((uv_handle_t *)handle);
        signals->open++;
    }
    return signals;
}

static void on_closed(uv_handle_t *handle)
{
    outr_signals *signals = handle->data;
    if (--signals->open == 0)
        free(signals);
}

void outr_signals_free(outr_signals *signals)
{
    if (!signals)
        return;
    signals->fn = NULL;
    for (unsigned i = 0; i < signals->count; i++)
        uv_close((uv_handle_t *)&signals->handles[i], on_closed);
}
