#include "observe/exposition.h"

#include "base/process.h"

/* What the labels' caps allow for stays far below this. */
#define EXPOSITION_MAX (64 * OUTR_MIB)

static void on_request(void *ctx, outr_exchange *x)
{
    OUTR_AUTO(outr_buf) text = OUTR_BUF_MAX(EXPOSITION_MAX);
    outr_metrics_write(ctx, &text);
    outr_metrics_write_looked_up(ctx, outr_loop_now(x->loop), &text);
    outr_metrics_write_process(&text);
    outr_http_response head = {.status = 200, .content_length = (int64_t)text.n};
    outr_headers_init(&head.headers, x->arena);
    outr_headers_add(&head.headers, OUTR_STR("Content-Type"),
                     OUTR_STR("text/plain; version=0.0.4; charset=utf-8; escaping=underscores"));
    outr_http_reply(x, &head, outr_buf_view(&text));
    outr_http_done(x);
}

const outr_http_handler outr_exposition_handler = {.on_request = on_request};
