#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "lib/wire.h"
#include "pki.h"
#include "tls/tls.h"

#define DAY (24 * 3600)

static pki_identity ca, other_ca, server_id, expired_id, client_id, stranger_id;

static int make_pki(void **state)
{
    (void)state;
    ca = pki_make("authority", NULL, NULL, DAY);
    other_ca = pki_make("another", NULL, NULL, DAY);
    server_id = pki_make("server", "DNS:server.test,DNS:*.wild.test,IP:127.0.0.1", &ca, DAY);
    expired_id = pki_make("expired", "DNS:server.test", &ca, -60);
    client_id = pki_make("client", "DNS:client.test", &ca, DAY);
    stranger_id = pki_make("stranger", "DNS:client.test", &other_ca, DAY);
    return 0;
}

static int free_pki(void **state)
{
    pki_identity *all[] = {&ca, &other_ca, &server_id, &expired_id, &client_id, &stranger_id};
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(all); i++)
        pki_free(all[i]);
    return 0;
}

/* One end of a connection: its handshake, and what it read since. */
typedef struct end {
    outr_tls *tls;
    outr_tls_handshake shake;
    outr_op op;
    unsigned done_count;
    outr_err err;
    outr_stream *s;
    outr_buf got;
    bool has_eof, has_failed, is_closed, is_paused_by_data;
    unsigned drains;
} end;

typedef struct pair {
    wire w;
    wire_stream *below[2];
    end client, server;
} pair;

static void on_data(outr_stream *s, outr_chunk *chunk OUTR_UNUSED, const char *p, size_t n)
{
    end *e = s->owner;
    outr_buf_append(&e->got, p, n);
    if (e->is_paused_by_data)
        outr_stream_read_stop(s);
}

static void on_eof(outr_stream *s)
{
    ((end *)s->owner)->has_eof = true;
}

static void on_drain(outr_stream *s)
{
    ((end *)s->owner)->drains++;
}

static void on_error(outr_stream *s, const outr_err *err)
{
    end *e = s->owner;
    e->has_failed = true;
    e->err = *err;
    outr_stream_close(s);
}

static void on_closed(outr_stream *s)
{
    end *e = s->owner;
    e->is_closed = true;
    e->s = NULL;
}

static const outr_stream_events events = {on_data, on_eof, on_drain, on_error, on_closed};

static void on_shaken(outr_op *op)
{
    end *e = OUTR_CONTAINER(op, end, op);
    e->done_count++;
    e->err = op->err;
    e->s = e->shake.stream;
    if (!e->s)
        return;
    e->s->owner = e;
    e->s->events = &events;
    outr_stream_read_start(e->s);
}

static outr_str text_of(const char *z)
{
    return z ? outr_str_from(z) : OUTR_STR_NONE;
}

static outr_tls *context(bool is_server, const pki_identity *id, const pki_identity *anchor,
                         const char *const *alpn)
{
    const outr_tls_options o = {.is_server = is_server,
                                .verify_peer = anchor != NULL,
                                .ca_pem = text_of(anchor ? anchor->certificate_pem : NULL),
                                .certificate_pem = text_of(id ? id->certificate_pem : NULL),
                                .key_pem = text_of(id ? id->key_pem : NULL),
                                .alpn = alpn};
    outr_tls *tls = NULL;
    outr_err err;
    if (outr_tls_new(&tls, &o, &err))
        fail_msg("%s", err.text);
    return tls;
}

static void start(end *e, outr_tls *own_tls, outr_stream *below, const char *name)
{
    e->tls = own_tls;
    e->got = OUTR_BUF_MAX(64 * OUTR_MIB);
    e->shake =
        (outr_tls_handshake){.tls = own_tls, .own_below = below, .server_name = text_of(name)};
    outr_op_init(&e->op, below->loop, NULL, 0, on_shaken);
    outr_tls_handshake_start(&e->shake, &e->op);
    assert_int_equal(e->done_count, 0);
}

static pair *open_pair(outr_tls *own_client, outr_tls *own_server, const char *name,
                       unsigned piece_max)
{
    pair *p = outr_alloc(sizeof *p);
    wire_init(&p->w, 1);
    p->w.piece_max = piece_max;
    wire_pair(&p->w, &p->below[0], &p->below[1]);
    start(&p->client, own_client, &p->below[0]->base, name);
    start(&p->server, own_server, &p->below[1]->base, NULL);
    return p;
}

static void done_end(end *e)
{
    if (e->s)
        outr_stream_close(e->s);
    outr_buf_done(&e->got);
    outr_tls_unref(e->tls);
}

static void close_pair(pair *p)
{
    done_end(&p->client);
    done_end(&p->server);
    wire_run(&p->w);
    wire_done(&p->w);
    free(p);
}

static pair *connect_with(outr_tls *own_client, outr_tls *own_server, const char *name)
{
    pair *p = open_pair(own_client, own_server, name, 0);
    assert_true(wire_run(&p->w));
    assert_int_equal(p->client.done_count, 1);
    assert_int_equal(p->server.done_count, 1);
    return p;
}

static pair *connected(void)
{
    pair *p = connect_with(context(false, NULL, &ca, NULL), context(true, &server_id, NULL, NULL),
                           "server.test");
    assert_non_null(p->client.s);
    assert_non_null(p->server.s);
    return p;
}

static void say(end *e, const void *bytes, size_t n)
{
    outr_bufq q = {0};
    outr_bufq_copy(&q, bytes, n);
    outr_stream_write(e->s, &q);
}

/* ---- contexts ----------------------------------------------------------------------------------- */

static void a_context_says_what_is_wrong_with_it(void **state)
{
    const char *const cert = server_id.certificate_pem, *const key = server_id.key_pem;
    const struct {
        const char *ca, *certificate, *key, *said;
    } bad[] = {
        {"nonsense", NULL, NULL, "trust anchors"},
        {"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", NULL, NULL,
         "trust anchors"},
        {NULL, "nonsense", key, "certificate"},
        {NULL, key, key, "certificate"},
        {NULL, cert, "nonsense", "private key"},
        {NULL, cert, NULL, "private key"},
        {NULL, cert, client_id.key_pem, "private key"}, /* somebody else's */
    };
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(bad); i++) {
        const outr_tls_options o = {.is_server = i % 2,
                                    .ca_pem = text_of(bad[i].ca),
                                    .certificate_pem = text_of(bad[i].certificate),
                                    .key_pem = text_of(bad[i].key)};
        outr_tls *tls = NULL;
        outr_err err;
        if (outr_tls_new(&tls, &o, &err) != OUTR_INVALID_ARGUMENT || tls)
            fail_msg("row %zu was taken", i);
        if (!strstr(err.text, bad[i].said) || strstr(err.text, "BEGIN"))
            fail_msg("row %zu: %s", i, err.text);
    }
    assert_int_equal(ERR_peek_error(), 0);
}

static void a_context_lives_as_long_as_its_references(void **state)
{
    outr_tls *tls = context(false, NULL, NULL, NULL);
    (void)state;
    assert_ptr_equal(outr_tls_ref(tls), tls);
    outr_tls_unref(tls);
    outr_tls_unref(tls);
    outr_tls_unref(NULL);
}

/* ---- who may talk to whom ----------------------------------------------------------------------- */

static void assert_refused(pair *p, const char *why)
{
    assert_null(p->client.s);
    assert_int_not_equal(p->client.err.code, OUTR_OK);
    if (!strstr(p->client.err.text, why))
        fail_msg("\"%s\" does not say: %s", p->client.err.text, why);
    close_pair(p);
}

static pair *ask_for(const char *name, const pki_identity *server, const pki_identity *anchor)
{
    return connect_with(context(false, NULL, anchor, NULL), context(true, server, NULL, NULL),
                        name);
}

static void names_and_addresses_in_the_certificate_are_the_servers(void **state)
{
    static const char *const good[] = {"server.test", "SERVER.test", "a.wild.test", "127.0.0.1"};
    static const char *const bad[] = {"other.test", "a.b.wild.test",    "wild.test",
                                      "127.0.0.2",  "server.test.evil", "server"};
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(good); i++) {
        pair *p = ask_for(good[i], &server_id, &ca);
        if (!p->client.s)
            fail_msg("%s: %s", good[i], p->client.err.text);
        assert_true(p->client.s->is_secure);
        close_pair(p);
    }
    for (size_t i = 0; i < OUTR_LEN(bad); i++)
        assert_refused(ask_for(bad[i], &server_id, &ca), "mismatch");
}

static void a_name_too_long_to_check_is_not_taken_for_checked(void **state)
{
    char name[400];
    (void)state;
    memset(name, 'a', sizeof name);
    name[sizeof name - 1] = 0;
    assert_refused(ask_for(name, &server_id, &ca), "name");
    end e = {0};
    wire w;
    wire_init(&w, 1);
    e.tls = context(false, NULL, &ca, NULL);
    e.shake = (outr_tls_handshake){.tls = e.tls,
                                   .own_below = &wire_open(&w)->base,
                                   .server_name = OUTR_STR("server.test\0.evil")};
    outr_op_init(&e.op, w.loop, NULL, 0, on_shaken);
    outr_tls_handshake_start(&e.shake, &e.op);
    wire_run(&w);
    assert_int_equal(e.err.code, OUTR_INVALID_ARGUMENT);
    outr_tls_unref(e.tls);
    wire_done(&w);
}

static void strangers_and_what_is_over_are_refused(void **state)
{
    (void)state;
    assert_refused(ask_for("server.test", &server_id, &other_ca), "certificate");
    assert_refused(ask_for("server.test", &expired_id, &ca), "expired");
    assert_refused(ask_for("server.test", &stranger_id, &ca), "certificate");
}

static void without_verification_anybody_will_do(void **state)
{
    pair *p = ask_for("whatever", &expired_id, NULL);
    (void)state;
    assert_non_null(p->client.s);
    close_pair(p);
}

static void a_server_may_ask_who_the_client_is(void **state)
{
    const pki_identity *const ids[] = {&client_id, NULL, &stranger_id};
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(ids); i++) {
        pair *p = connect_with(context(false, ids[i], &ca, NULL),
                               context(true, &server_id, &ca, NULL), "server.test");
        assert_int_equal(p->server.s != NULL, i == 0);
        /* TLS 1.3: the client hears of it with its first read. */
        assert_int_equal(p->client.has_failed || !p->client.done_count, i != 0);
        close_pair(p);
    }
}

static void the_protocol_is_the_servers_choice_among_the_clients(void **state)
{
    static const char *const both[] = {"h2", "http/1.1", NULL}, *const old[] = {"http/1.1", NULL},
                             *const new[] = {"h2", NULL};
    (void)state;
    pair *p = connect_with(context(false, NULL, &ca, both), context(true, &server_id, NULL, both),
                           "server.test");
    assert_true(outr_str_is(p->client.s->alpn, "h2") && outr_str_is(p->server.s->alpn, "h2"));
    close_pair(p);
    p = connect_with(context(false, NULL, &ca, old), context(true, &server_id, NULL, both),
                     "server.test");
    assert_true(outr_str_is(p->client.s->alpn, "http/1.1"));
    close_pair(p);
    p = connect_with(context(false, NULL, &ca, NULL), context(true, &server_id, NULL, both),
                     "server.test");
    assert_int_equal(p->client.s->alpn.n, 0);
    close_pair(p);
    assert_refused(connect_with(context(false, NULL, &ca, old),
                                context(true, &server_id, NULL, new), "server.test"),
                   "protocol");
}

/* ---- the handshake ------------------------------------------------------------------------------ */

static void a_handshake_in_single_bytes_succeeds(void **state)
{
    pair *p = open_pair(context(false, NULL, &ca, NULL), context(true, &server_id, NULL, NULL),
                        "server.test", 1);
    (void)state;
    wire_run(&p->w);
    assert_non_null(p->client.s);
    assert_non_null(p->server.s);
    close_pair(p);
}

static void nonsense_instead_of_a_handshake_fails(void **state)
{
    static const char *const texts[] = {"GET / HTTP/1.1\r\nHost: h\r\n\r\n", "\x16\x03\x01\xff\xff",
                                        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"};
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(texts); i++) {
        end e = {0};
        wire w;
        wire_init(&w, 1);
        wire_stream *s = wire_open(&w);
        start(&e, context(true, &server_id, NULL, NULL), &s->base, NULL);
        wire_feed_z(s, texts[i]);
        wire_eof(s);
        wire_run(&w);
        assert_int_equal(e.done_count, 1);
        assert_int_equal(e.err.code, OUTR_UNAVAILABLE);
        assert_true(s->is_gone);
        outr_tls_unref(e.tls);
        wire_done(&w);
    }
}

static void a_peer_that_leaves_or_breaks_ends_it(void **state)
{
    (void)state;
    for (int how = 0; how < 2; how++) {
        end e = {0};
        wire w;
        wire_init(&w, 1);
        wire_stream *s = wire_open(&w);
        start(&e, context(false, NULL, &ca, NULL), &s->base, "server.test");
        wire_run(&w);
        assert_int_equal(e.done_count, 0);
        if (how)
            wire_eof(s);
        else
            wire_break(s);
        wire_run(&w);
        assert_int_equal(e.done_count, 1);
        assert_int_equal(e.err.code, OUTR_UNAVAILABLE);
        assert_null(e.shake.stream);
        outr_tls_unref(e.tls);
        wire_done(&w);
    }
}

static void a_handshake_can_be_cancelled_at_any_point(void **state)
{
    (void)state;
    for (size_t fed = 0; fed < 400; fed += 7) {
        end client = {0};
        wire w;
        wire_init(&w, 1);
        wire_stream *s = wire_open(&w);
        start(&client, context(false, NULL, &ca, NULL), &s->base, "server.test");
        if (fed) {
            wire_run(&w);
            wire_feed(s, "\x16\x03\x03\x01\x00", OUTR_MIN(fed, (size_t)5));
            wire_run(&w);
        }
        outr_op_cancel(&client.op, OUTR_CANCELLED);
        wire_run(&w);
        assert_int_equal(client.done_count, 1);
        assert_int_equal(client.err.code, OUTR_CANCELLED);
        assert_true(s->is_gone);
        outr_tls_unref(client.tls);
        wire_done(&w);
        fed += fed == 0 ? 0 : 90;
    }
}

static void a_handshake_has_its_deadline(void **state)
{
    end e = {.got = OUTR_BUF_MAX(OUTR_KIB)};
    wire w;
    (void)state;
    wire_init(&w, 1);
    wire_stream *s = wire_open(&w);
    e.tls = context(true, &server_id, NULL, NULL);
    e.shake = (outr_tls_handshake){.tls = e.tls, .own_below = &s->base};
    outr_op_init(&e.op, w.loop, NULL, w.now + OUTR_SEC, on_shaken);
    outr_tls_handshake_start(&e.shake, &e.op);
    wire_sleep(&w, OUTR_SEC);
    assert_int_equal(e.done_count, 1);
    assert_int_equal(e.err.code, OUTR_DEADLINE_EXCEEDED);
    outr_tls_unref(e.tls);
    wire_done(&w);
}

/* ---- bytes -------------------------------------------------------------------------------------- */

static void bytes_go_both_ways_in_order_in_any_pieces(void **state)
{
    static const unsigned pieces[] = {0, 1, 37, 20000};
    enum { SIZE = 100000 };
    char *bytes = outr_alloc(SIZE);
    (void)state;
    for (size_t i = 0; i < SIZE; i++)
        bytes[i] = (char)(i * 2654435761u >> 13);
    for (size_t i = 0; i < OUTR_LEN(pieces); i++) {
        pair *p = connected();
        p->w.piece_max = pieces[i];
        say(&p->client, bytes, SIZE);
        say(&p->server, bytes + 5, SIZE - 5);
        wire_run(&p->w);
        assert_int_equal(p->server.got.n, SIZE);
        assert_memory_equal(p->server.got.p, bytes, SIZE);
        assert_int_equal(p->client.got.n, SIZE - 5);
        assert_memory_equal(p->client.got.p, bytes + 5, SIZE - 5);
        assert_null(memmem(p->below[0]->sent.p, p->below[0]->sent.n, bytes, 64));
        close_pair(p);
    }
    free(bytes);
}

/* Who pauses gets no more; what it did not read holds the writer back. */
static void a_reader_that_pauses_stops_the_writer(void **state)
{
    enum { SIZE = 4 * 1024 * 1024 };
    pair *p = connected();
    char *bytes = outr_alloc(SIZE);
    (void)state;
    p->server.is_paused_by_data = true;
    say(&p->client, bytes, SIZE);
    wire_run(&p->w);
    assert_true(p->server.got.n > 0 && p->server.got.n <= 16384);
    assert_true(outr_stream_is_full(p->client.s));
    assert_int_equal(p->client.drains, 0);
    size_t before = p->server.got.n;
    outr_stream_read_start(p->server.s); /* one piece more, and it pauses again */
    wire_run(&p->w);
    assert_true(p->server.got.n > before && p->server.got.n <= before + 16384);
    p->server.is_paused_by_data = false;
    outr_stream_read_start(p->server.s);
    wire_run(&p->w);
    assert_int_equal(p->server.got.n, SIZE);
    assert_true(p->client.drains > 0);
    assert_false(outr_stream_is_full(p->client.s));
    close_pair(p);
    free(bytes);
}

static void a_clean_end_is_told_as_one_and_the_other_way_stays_open(void **state)
{
    pair *p = connected();
    (void)state;
    say(&p->client, "bye", 3);
    outr_stream_shutdown(p->client.s);
    wire_run(&p->w);
    assert_int_equal(p->server.got.n, 3);
    assert_true(p->server.has_eof);
    assert_false(p->server.has_failed);
    say(&p->server, "still here", 10);
    wire_run(&p->w);
    assert_int_equal(p->client.got.n, 10);
    close_pair(p);
}

/* Anyone on the way can end a TCP connection: without close_notify it is no end. */
static void a_connection_cut_off_is_an_error_not_an_end(void **state)
{
    pair *p = connected();
    (void)state;
    say(&p->client, "half a", 6);
    wire_run(&p->w);
    wire_eof(p->below[1]);
    wire_run(&p->w);
    assert_int_equal(p->server.got.n, 6);
    assert_false(p->server.has_eof);
    assert_true(p->server.has_failed);
    close_pair(p);
}

static void bytes_that_were_changed_on_the_way_break_it(void **state)
{
    pair *p = connected();
    (void)state;
    static const char record[] = "\x17\x03\x03\x00\x20"
                                 "0123456789abcdef0123456789abcdef";
    wire_feed(p->below[1], record, sizeof record - 1);
    wire_run(&p->w);
    assert_int_equal(p->server.got.n, 0);
    assert_true(p->server.has_failed);
    assert_true(p->server.is_closed);
    close_pair(p);
}

/* OpenSSL keeps its errors per thread, for whoever asks next. */
static void a_failure_of_one_connection_is_not_anothers(void **state)
{
    pair *good = connected();
    (void)state;
    assert_refused(ask_for("server.test", &server_id, &other_ca), "certificate");
    say(&good->client, "one", 3);
    wire_run(&good->w);
    assert_false(good->server.has_failed);
    assert_int_equal(good->server.got.n, 3);
    assert_refused(ask_for("other.test", &server_id, &ca), "mismatch");
    ERR_raise(ERR_LIB_USER, 1); /* as a library of somebody else may leave it */
    say(&good->server, "two", 3);
    wire_run(&good->w);
    assert_false(good->client.has_failed);
    assert_int_equal(good->client.got.n, 3);
    ERR_clear_error();
    close_pair(good);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_context_says_what_is_wrong_with_it),
        cmocka_unit_test(a_context_lives_as_long_as_its_references),
        cmocka_unit_test(names_and_addresses_in_the_certificate_are_the_servers),
        cmocka_unit_test(a_name_too_long_to_check_is_not_taken_for_checked),
        cmocka_unit_test(strangers_and_what_is_over_are_refused),
        cmocka_unit_test(without_verification_anybody_will_do),
        cmocka_unit_test(a_server_may_ask_who_the_client_is),
        cmocka_unit_test(the_protocol_is_the_servers_choice_among_the_clients),
        cmocka_unit_test(a_handshake_in_single_bytes_succeeds),
        cmocka_unit_test(nonsense_instead_of_a_handshake_fails),
        cmocka_unit_test(a_peer_that_leaves_or_breaks_ends_it),
        cmocka_unit_test(a_handshake_can_be_cancelled_at_any_point),
        cmocka_unit_test(a_handshake_has_its_deadline),
        cmocka_unit_test(bytes_go_both_ways_in_order_in_any_pieces),
        cmocka_unit_test(a_reader_that_pauses_stops_the_writer),
        cmocka_unit_test(a_clean_end_is_told_as_one_and_the_other_way_stays_open),
        cmocka_unit_test(a_connection_cut_off_is_an_error_not_an_end),
        cmocka_unit_test(bytes_that_were_changed_on_the_way_break_it),
        cmocka_unit_test(a_failure_of_one_connection_is_not_anothers),
    };
    return cmocka_run_group_tests(tests, make_pki, free_pki);
}
