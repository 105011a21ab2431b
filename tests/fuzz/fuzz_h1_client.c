/* Any bytes as the answers of an HTTP/1 server. The first byte says in which pieces they come. */
#include "tests/lib/wire.c"
#include "tests/lib/web.c"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CALLS 3

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    wire w;
    web_call calls[CALLS];
    if (size < 1)
        return 0;
    wire_init(&w, data[0]);
    w.piece_max = data[0] % 4 == 0 ? 1 : data[0] % 4 == 1 ? 20 : 0;
    const outr_http_pool_options o = {
        .loop = w.loop, .max_connections = 1, .limits = {.max_header_bytes = 1024}};
    outr_http_pool *pool = outr_http_pool_new(&o);
    for (int i = 0; i < CALLS; i++) {
        web_call_init(&calls[i], w.loop, data[0] & 16 ? "HEAD" : "POST", "/");
        if (data[0] & 32)
            web_call_bytes(&calls[i], "hello", 5);
        else if (data[0] & 8)
            calls[i].req.upgrade = OUTR_STR("websocket");
        web_call_start(&calls[i], pool);
    }
    wire_run(&w);
    wire_feed(w.last, data + 1, size - 1);
    if (data[0] & 64)
        wire_eof(w.last);
    if (!wire_run(&w))
        abort();
    outr_http_pool_free(pool);
    wire_run(&w);
    for (int i = 0; i < CALLS; i++) {
        if (calls[i].done_count != 1)
            abort();
        if (calls[i].err.code == OUTR_OK && calls[i].call.response && !calls[i].taker.has_ended)
            abort();
        web_call_done(&calls[i]);
    }
    wire_done(&w);
    return 0;
}
