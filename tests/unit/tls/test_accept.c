#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "lib/wire.h"
#include "pki.h"
#include "tls/accept.h"

typedef struct world {
    wire w;
    pki_identity id;
    outr_tls *tls;
    outr_tls_acceptor *acceptor;
    outr_stream *ready;
    const char *reason;
    unsigned refused;
} world;

static void on_ready(void *ctx, outr_stream *own_stream)
{
    ((world *)ctx)->ready = own_stream;
}

static void on_refused(void *ctx, const outr_addr *peer OUTR_UNUSED, const char *reason,
                       const outr_err *err OUTR_UNUSED)
{
    world *w = ctx;
    w->reason = reason;
    w->refused++;
}

static world *open_world(size_t max_pending)
{
    world *w = outr_alloc(sizeof *w);
    outr_err err;
    wire_init(&w->w, 1);
    w->id = pki_make("server", "DNS:server.test", NULL, 3600);
    const outr_tls_options o = {.is_server = true,
                                .certificate_pem = outr_str_from(w->id.certificate_pem),
                                .key_pem = outr_str_from(w->id.key_pem)};
    assert_int_equal(outr_tls_new(&w->tls, &o, &err), OUTR_OK);
    w->acceptor =
        outr_tls_acceptor_new(&(outr_tls_acceptor_options){.loop = w->w.loop,
                                                           .tls = w->tls,
                                                           .timeout_ns = OUTR_SEC,
                                                           .max_pending = max_pending,
                                                           .ready = on_ready,
                                                           .refused = on_refused,
                                                           .ctx = w});
    return w;
}

static void close_world(world *w)
{
    outr_tls_acceptor_close(w->acceptor);
    wire_run(&w->w);
    outr_tls_unref(w->tls);
    pki_free(&w->id);
    wire_done(&w->w);
    free(w);
}

static void silent_peers_are_dropped_in_time(void **state)
{
    world *w = open_world(0);
    wire_stream *s = wire_open(&w->w);
    (void)state;
    outr_tls_acceptor_take(w->acceptor, &s->base);
    wire_run(&w->w);
    assert_int_equal(w->refused, 0);
    wire_sleep(&w->w, OUTR_SEC);
    assert_int_equal(w->refused, 1);
    assert_string_equal(w->reason, OUTR_TLS_TIMEOUT);
    assert_true(s->is_gone);
    close_world(w);
}

static void there_is_a_limit_to_handshakes(void **state)
{
    world *w = open_world(2);
    wire_stream *s[3];
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(s); i++) {
        s[i] = wire_open(&w->w);
        outr_tls_acceptor_take(w->acceptor, &s[i]->base);
    }
    wire_run(&w->w);
    assert_true(s[2]->was_reset);
    assert_false(s[0]->is_gone || s[1]->is_gone);
    wire_feed_z(s[0], "GET / HTTP/1.1\r\n\r\n"); /* makes room */
    wire_run(&w->w);
    assert_string_equal(w->reason, OUTR_TLS_PLAIN);
    wire_stream *next = wire_open(&w->w);
    outr_tls_acceptor_take(w->acceptor, &next->base);
    wire_run(&w->w);
    assert_false(next->was_reset);
    close_world(w);
}

static void closing_ends_what_is_under_way_and_tells_nobody(void **state)
{
    world *w = open_world(0);
    wire_stream *s = wire_open(&w->w);
    (void)state;
    outr_tls_acceptor_take(w->acceptor, &s->base);
    wire_run(&w->w);
    outr_tls_acceptor_close(w->acceptor);
    w->acceptor = NULL;
    wire_run(&w->w);
    assert_true(s->is_gone);
    assert_int_equal(w->refused, 0);
    close_world(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(silent_peers_are_dropped_in_time),
        cmocka_unit_test(there_is_a_limit_to_handshakes),
        cmocka_unit_test(closing_ends_what_is_under_way_and_tells_nobody),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
