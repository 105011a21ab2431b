/* Any bytes as an HTTP/1 client. The first byte says in which pieces they come. */
#include "tests/lib/wire.c"
#include "tests/lib/web.c"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static unsigned open_count;

static void on_request(void *ctx, outr_exchange *x)
{
    (void)ctx;
    open_count++;
    if (x->body)
        web_echo(x, x->body, 200);
    else if (x->tunnel && x->req.target.n % 2)
        web_echo(x, x->tunnel, 101);
    else
        web_answer(x, 200, "hello");
}

static void on_finished(void *ctx, outr_exchange *x, bool is_broken)
{
    (void)ctx;
    (void)x;
    (void)is_broken;
    open_count--;
}

static const outr_http_handler handler = {on_request, on_finished};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    wire w;
    if (size < 1)
        return 0;
    wire_init(&w, data[0]);
    w.piece_max = data[0] % 4 == 0 ? 1 : data[0] % 4 == 1 ? 20 : 0;
    const outr_http_server_options o = {.loop = w.loop,
                                        .handler = &handler,
                                        .allow_h1 = true,
                                        .allow_h2 = data[0] & 128,
                                        .limits = {.max_header_bytes = 1024}};
    outr_http_server *server = outr_http_server_new(&o);
    wire_stream *s = wire_open(&w);
    outr_http_server_take(server, &s->base);
    wire_feed(s, data + 1, size - 1);
    if (data[0] & 64)
        wire_eof(s);
    if (!wire_run(&w))
        abort();
    wire_sleep(&w, 300 * OUTR_SEC);
    outr_http_server_free(server);
    wire_run(&w);
    if (open_count)
        abort(); /* a request nobody finishes */
    wire_done(&w);
    return 0;
}
