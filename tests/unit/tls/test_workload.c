/* Handshakes between workloads: who shows what, and who is let in. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <time.h>

#include "lib/wire.h"
#include "pki.h"
#include "tls/tls.h"

#define DAY (24 * 3600)

static const char *const h2_only[] = {"h2", NULL}, *const h1_only[] = {"http/1.1", NULL};

/* A certificate by outr_cert_sign, as sentry makes them; names by pki.h where they are odd. */
typedef struct authority {
    outr_buf root, issuer;
    outr_key *root_key, *issuer_key;
} authority;

typedef struct workload {
    outr_buf chain;
    outr_key *key;
} workload;

static authority ca, other_ca;

static void make_authority(authority *a)
{
    outr_err err;
    int64_t now = time(NULL);
    a->root = a->issuer = OUTR_BUF_MAX(8 * OUTR_KIB);
    assert_int_equal(outr_key_make(&a->root_key, &err), OUTR_OK);
    assert_int_equal(outr_key_make(&a->issuer_key, &err), OUTR_OK);
    outr_cert_order o = {.subject_key = a->root_key,
                         .organization = OUTR_STR("localhost"),
                         .is_ca = true,
                         .not_before_s = now - 60,
                         .not_after_s = now + DAY,
                         .issuer_key = a->root_key};
    assert_int_equal(outr_cert_sign(&a->root, &o, &err), OUTR_OK);
    o.subject_key = a->issuer_key;
    o.organization = OUTR_STR("issuer");
    o.issuer_pem = outr_buf_view(&a->root);
    assert_int_equal(outr_cert_sign(&a->issuer, &o, &err), OUTR_OK);
}

static workload make_workload(const authority *a, outr_str uri, int64_t from_s, int64_t until_s,
                              bool with_issuer)
{
    workload w = {.chain = OUTR_BUF_MAX(16 * OUTR_KIB)};
    outr_err err;
    int64_t now = time(NULL);
    assert_int_equal(outr_key_make(&w.key, &err), OUTR_OK);
    const outr_cert_order o = {.subject_key = w.key,
                               .uri = uri,
                               .not_before_s = now + from_s,
                               .not_after_s = now + until_s,
                               .issuer_pem = outr_buf_view(&a->issuer),
                               .issuer_key = a->issuer_key};
    assert_int_equal(outr_cert_sign(&w.chain, &o, &err), OUTR_OK);
    if (with_issuer)
        outr_buf_str(&w.chain, outr_buf_view(&a->issuer));
    return w;
}

static void free_workload(workload *w)
{
    outr_key_unref(w->key);
    outr_buf_done(&w->chain);
}

static workload good(const char *uri)
{
    return make_workload(&ca, outr_str_from(uri), -60, DAY, true);
}

/* Names as OpenSSL's configuration writes them, by the issuer of ca. */
static workload odd(const char *names)
{
    workload w = {.chain = OUTR_BUF_MAX(16 * OUTR_KIB)};
    pki_identity issuer = {.key = ca.issuer_key};
    BIO *bio = BIO_new_mem_buf(ca.issuer.p, (int)ca.issuer.n);
    issuer.x509 = PEM_read_bio_X509(bio, NULL, NULL, NULL);
    BIO_free(bio);
    pki_identity id = pki_make("odd", names, NULL, DAY);
    X509_set_issuer_name(id.x509, X509_get_subject_name(issuer.x509));
    X509_sign(id.x509, issuer.key, NULL);
    bio = BIO_new(BIO_s_mem());
    PEM_write_bio_X509(bio, id.x509);
    char *text = pki_text(bio);
    outr_buf_z(&w.chain, text);
    outr_buf_str(&w.chain, outr_buf_view(&ca.issuer));
    free(text);
    w.key = id.key;
    EVP_PKEY_up_ref(w.key);
    X509_free(issuer.x509);
    pki_free(&id);
    return w;
}

static int make_pki(void **state)
{
    (void)state;
    make_authority(&ca);
    make_authority(&other_ca);
    return 0;
}

static int free_pki(void **state)
{
    authority *all[] = {&ca, &other_ca};
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(all); i++) {
        outr_buf_done(&all[i]->root);
        outr_buf_done(&all[i]->issuer);
        outr_key_unref(all[i]->root_key);
        outr_key_unref(all[i]->issuer_key);
    }
    return 0;
}

/* ---- a handshake ----------------------------------------------------------------------------- */

typedef struct end {
    outr_tls_handshake shake;
    outr_op op;
    bool is_done, has_failed;
    outr_err err;
    outr_buf got;
} end;

static void on_data(outr_stream *s, outr_chunk *chunk OUTR_UNUSED, const char *p, size_t n)
{
    outr_buf_append(&((end *)s->owner)->got, p, n);
}

static void on_eof(outr_stream *s OUTR_UNUSED) {}

static void on_error(outr_stream *s, const outr_err *err)
{
    end *e = s->owner;
    e->has_failed = true;
    e->err = *err;
    e->shake.stream = NULL;
    outr_stream_close(s);
}

static const outr_stream_events events = {.on_data = on_data, .on_eof = on_eof, .on_error = on_error};

static void on_shaken(outr_op *op)
{
    end *e = OUTR_CONTAINER(op, end, op);
    e->is_done = true;
    e->err = op->err;
    if (!e->shake.stream)
        return;
    e->shake.stream->owner = e;
    e->shake.stream->events = &events;
    outr_stream_read_start(e->shake.stream);
}

static outr_code is_wanted(const void *ctx, outr_str uri, outr_err *err)
{
    if (outr_str_is(uri, ctx))
        return OUTR_OK;
    return outr_fail(err, OUTR_PERMISSION_DENIED, "unexpected SPIFFE ID: \"" OUTR_FMT "\"",
                     OUTR_ARG(uri));
}

static outr_tls_options options(bool is_server, const workload *w, const authority *anchor,
                                const char *const *alpn)
{
    outr_tls_options o = {.is_server = is_server,
                          .verify_peer = true,
                          .verify_uri = true,
                          .requires_alpn = true,
                          .ca_pem = outr_buf_view(&anchor->root),
                          .alpn = alpn};
    if (w) {
        o.certificate_pem = outr_buf_view(&w->chain);
        o.key = w->key;
    }
    return o;
}

static outr_tls *context(bool is_server, const workload *w)
{
    const outr_tls_options o = options(is_server, w, &ca, h2_only);
    outr_tls *tls = NULL;
    outr_err err;
    if (outr_tls_new(&tls, &o, &err))
        fail_msg("%s", err.text);
    return tls;
}

typedef struct pair {
    wire w;
    end client, server;
} pair;

static void shake(pair *p, outr_tls *client, outr_tls *server, const char *wanted,
                  outr_tls_sessions *sessions)
{
    wire_stream *below[2];
    memset(p, 0, sizeof *p);
    wire_init(&p->w, 1);
    wire_pair(&p->w, &below[0], &below[1]);
    p->client.got = p->server.got = OUTR_BUF_MAX(OUTR_MIB);
    p->client.shake = (outr_tls_handshake){.tls = client,
                                           .own_below = &below[0]->base,
                                           .check = {wanted ? is_wanted : NULL, wanted},
                                           .sessions = sessions};
    p->server.shake = (outr_tls_handshake){.tls = server, .own_below = &below[1]->base};
    outr_op_init(&p->client.op, p->w.loop, NULL, 0, on_shaken);
    outr_op_init(&p->server.op, p->w.loop, NULL, 0, on_shaken);
    outr_tls_handshake_start(&p->client.shake, &p->client.op);
    outr_tls_handshake_start(&p->server.shake, &p->server.op);
    wire_run(&p->w);
}

static void end_pair(pair *p)
{
    end *const ends[] = {&p->client, &p->server};
    for (size_t i = 0; i < OUTR_LEN(ends); i++) {
        if (ends[i]->shake.stream)
            outr_stream_close(ends[i]->shake.stream);
        outr_buf_done(&ends[i]->got);
    }
    wire_run(&p->w);
    wire_done(&p->w);
}

/* ---- tests ----------------------------------------------------------------------------------- */

#define CALLEE "spiffe://public/ns/default/callee"
#define CALLER "spiffe://public/ns/default/caller"

static void both_sides_know_each_other(void **state)
{
    workload a = good(CALLER), b = good(CALLEE);
    outr_tls *client = context(false, &a), *server = context(true, &b);
    pair p;
    (void)state;
    shake(&p, client, server, CALLEE, NULL);
    assert_non_null(p.client.shake.stream);
    assert_non_null(p.server.shake.stream);
    assert_true(outr_str_is(p.server.shake.stream->peer_id, CALLER));
    assert_true(outr_str_is(p.client.shake.stream->peer_id, CALLEE));
    assert_true(p.client.shake.stream->expires_ns > 0);
    assert_true(outr_tls_is_covered(p.server.shake.stream));
    end_pair(&p);
    outr_tls_unref(client);
    outr_tls_unref(server);
    free_workload(&a);
    free_workload(&b);
}

/* What tls.jsonl says of servers and clients alike: who shows this is refused, for this reason. */
static void bad_certificates_are_refused_on_either_side(void **state)
{
    workload ours = good(CALLEE);
    struct {
        workload w;
        const char *reason, *said;
    } rows[] = {
        {odd("URI:" CALLEE ",URI:spiffe://public/ns/default/x"), OUTR_TLS_IDENTITY,
         "more than one URI SAN"},
        {odd("DNS:callee,DNS:localhost"), OUTR_TLS_IDENTITY, "no URI SAN"},
        {make_workload(&ca, OUTR_STR_NONE, -60, DAY, true), OUTR_TLS_IDENTITY, "no URI SAN"},
        {make_workload(&ca, OUTR_STR(CALLEE "\0.evil"), -60, DAY, true), OUTR_TLS_IDENTITY, "NUL"},
        {make_workload(&ca, OUTR_STR(CALLEE "\0"), -60, DAY, true), OUTR_TLS_IDENTITY, "NUL"},
        {make_workload(&ca, OUTR_STR(CALLEE), -DAY, -60, true), OUTR_TLS_EXPIRED, "expired"},
        {make_workload(&ca, OUTR_STR(CALLEE), 3600, DAY, true), OUTR_TLS_NOT_YET, "not yet valid"},
        {make_workload(&other_ca, OUTR_STR(CALLEE), -60, DAY, true), OUTR_TLS_UNTRUSTED,
         "could not verify"},
        {make_workload(&ca, OUTR_STR(CALLEE), -60, DAY, false), OUTR_TLS_UNTRUSTED,
         "could not verify"},
    };
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(rows); i++) {
        for (int as_server = 0; as_server < 2; as_server++) {
            outr_tls *client = context(false, as_server ? &ours : &rows[i].w);
            outr_tls *server = context(true, as_server ? &rows[i].w : &ours);
            pair p;
            shake(&p, client, server, CALLEE, NULL);
            const end *judge = as_server ? &p.client : &p.server;
            assert_null(judge->shake.stream);
            if (!judge->shake.reason || strcmp(judge->shake.reason, rows[i].reason) != 0 ||
                !strstr(judge->err.text, rows[i].said))
                fail_msg("row %zu: %s, %s", i, judge->shake.reason, judge->err.text);
            end_pair(&p);
            outr_tls_unref(client);
            outr_tls_unref(server);
        }
        free_workload(&rows[i].w);
    }
    free_workload(&ours);
}

static void other_names_and_usages_beside_the_id_do_not_matter(void **state)
{
    workload ours = good(CALLER), odd_one = odd("URI:" CALLEE ",DNS:x.example,IP:10.0.0.1");
    outr_tls *client = context(false, &ours), *server = context(true, &odd_one);
    pair p;
    (void)state;
    shake(&p, client, server, CALLEE, NULL);
    assert_non_null(p.client.shake.stream);
    end_pair(&p);
    outr_tls_unref(client);
    outr_tls_unref(server);
    free_workload(&ours);
    free_workload(&odd_one);
}

static void a_server_of_another_name_is_not_the_one_wanted(void **state)
{
    static const char *const names[] = {"spiffe://public/ns/default/someone",
                                        "spiffe://public/ns/Default/callee", CALLEE "/x"};
    workload ours = good(CALLER);
    outr_tls *client = context(false, &ours);
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(names); i++) {
        workload w = good(names[i]);
        outr_tls *server = context(true, &w);
        pair p;
        shake(&p, client, server, CALLEE, NULL);
        assert_null(p.client.shake.stream);
        assert_string_equal(p.client.shake.reason, OUTR_TLS_IDENTITY);
        assert_non_null(strstr(p.client.err.text, "unexpected SPIFFE ID"));
        /* and the server hears of a bad certificate, no more */
        assert_string_equal(p.server.shake.reason, OUTR_TLS_REFUSED);
        assert_non_null(strstr(p.server.err.text, "bad certificate"));
        end_pair(&p);
        outr_tls_unref(server);
        free_workload(&w);
    }
    outr_tls_unref(client);
    free_workload(&ours);
}

static void an_authority_is_no_workload(void **state)
{
    workload ours = good(CALLER), w = {.chain = OUTR_BUF_MAX(8 * OUTR_KIB), .key = ca.issuer_key};
    pair p;
    (void)state;
    EVP_PKEY_up_ref(w.key);
    outr_buf_str(&w.chain, outr_buf_view(&ca.issuer));
    outr_tls *client = context(false, &ours), *server = context(true, &w);
    shake(&p, client, server, NULL, NULL);
    assert_null(p.client.shake.stream);
    assert_non_null(strstr(p.client.err.text, "CA flag"));
    end_pair(&p);
    outr_tls_unref(client);
    outr_tls_unref(server);
    free_workload(&ours);
    free_workload(&w);
}

static void nobody_comes_in_without_certificate_or_protocol(void **state)
{
    workload ours = good(CALLER), theirs = good(CALLEE);
    const struct {
        const workload *client;
        const char *const *client_alpn, *reason;
    } rows[] = {
        {NULL, h2_only, OUTR_TLS_NO_CERT},
        {&ours, NULL, OUTR_TLS_ALPN},
        {&ours, h1_only, OUTR_TLS_ALPN},
    };
    outr_tls *server = context(true, &theirs);
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(rows); i++) {
        outr_tls_options o = options(false, rows[i].client, &ca, rows[i].client_alpn);
        outr_tls *client;
        outr_err err;
        pair p;
        o.requires_alpn = false;
        assert_int_equal(outr_tls_new(&client, &o, &err), OUTR_OK);
        shake(&p, client, server, CALLEE, NULL);
        assert_null(p.server.shake.stream);
        if (!p.server.shake.reason || strcmp(p.server.shake.reason, rows[i].reason) != 0)
            fail_msg("row %zu: %s", i, p.server.err.text);
        end_pair(&p);
        outr_tls_unref(client);
    }
    outr_tls_unref(server);
    free_workload(&ours);
    free_workload(&theirs);
}

static void a_client_wants_a_protocol_too(void **state)
{
    workload ours = good(CALLER), theirs = good(CALLEE);
    outr_tls_options o = options(true, &theirs, &ca, NULL);
    outr_tls *client = context(false, &ours), *server;
    outr_err err;
    pair p;
    (void)state;
    o.requires_alpn = false;
    assert_int_equal(outr_tls_new(&server, &o, &err), OUTR_OK);
    shake(&p, client, server, CALLEE, NULL);
    assert_null(p.client.shake.stream);
    assert_string_equal(p.client.shake.reason, OUTR_TLS_ALPN);
    assert_non_null(strstr(p.client.err.text, "missing selected ALPN property"));
    end_pair(&p);
    outr_tls_unref(client);
    outr_tls_unref(server);
    free_workload(&ours);
    free_workload(&theirs);
}

static void plain_bytes_and_broken_ones_are_told_apart(void **state)
{
    static const struct {
        const char *bytes;
        size_t n;
        const char *reason;
    } rows[] = {
        {"GET / HTTP/1.1\r\nHost: h\r\n\r\n", 27, OUTR_TLS_PLAIN},
        {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 24, OUTR_TLS_PLAIN},
        {"\x16\x03\x01\x00\x05\xff\xff\xff\xff\xff", 10, OUTR_TLS_PROTOCOL},
        {"\x16\x03\x01", 3, OUTR_TLS_CLOSED},
    };
    workload ours = good(CALLEE);
    outr_tls *server = context(true, &ours);
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(rows); i++) {
        end e = {0};
        wire w;
        wire_init(&w, 1);
        wire_stream *s = wire_open(&w);
        e.shake = (outr_tls_handshake){.tls = server, .own_below = &s->base};
        outr_op_init(&e.op, w.loop, NULL, 0, on_shaken);
        outr_tls_handshake_start(&e.shake, &e.op);
        wire_feed(s, rows[i].bytes, rows[i].n);
        wire_eof(s);
        wire_run(&w);
        assert_true(e.is_done && !e.shake.stream);
        if (!e.shake.reason || strcmp(e.shake.reason, rows[i].reason) != 0)
            fail_msg("row %zu: %s %s", i, e.shake.reason, e.err.text);
        wire_done(&w);
    }
    outr_tls_unref(server);
    free_workload(&ours);
}

static void sessions_are_resumed_until_certificates_change(void **state)
{
    workload a = good(CALLER), b = good(CALLEE), c = good(CALLEE);
    outr_tls *client = context(false, &a), *server = context(true, &b);
    outr_tls_sessions *sessions = outr_tls_sessions_new();
    const outr_tls_options renewed = options(true, &c, &ca, h2_only);
    outr_err err;
    (void)state;
    for (int round = 0; round < 5; round++) {
        pair p;
        if (round == 3)
            assert_int_equal(outr_tls_renew(server, &renewed, &err), OUTR_OK);
        shake(&p, client, server, CALLEE, sessions);
        assert_non_null(p.client.shake.stream);
        assert_non_null(p.server.shake.stream);
        assert_int_equal(p.client.shake.was_resumed, round != 0 && round != 3);
        assert_int_equal(p.server.shake.was_resumed, round != 0 && round != 3);
        assert_true(outr_str_is(p.server.shake.stream->peer_id, CALLER));
        assert_true(outr_str_is(p.client.shake.stream->peer_id, CALLEE));
        assert_true(p.server.shake.stream->expires_ns > 0);
        assert_true(p.client.shake.stream->expires_ns > 0);
        end_pair(&p);
    }
    /* a session is with one peer: for another name it does not do */
    pair p;
    shake(&p, client, server, "spiffe://public/ns/default/another", sessions);
    assert_null(p.client.shake.stream);
    end_pair(&p);
    outr_tls_sessions_unref(sessions);
    outr_tls_unref(client);
    outr_tls_unref(server);
    free_workload(&a);
    free_workload(&b);
    free_workload(&c);
}

/* By OpenSSL's own clock; our check by the loop's, which stands, lets the second try: the ticket is
 * worth nothing. False: the machine was too slow for so short a life. */
static bool session_ends_with_its_certificate(int64_t life_s)
{
    workload a = make_workload(&ca, OUTR_STR(CALLER), -60, life_s, true), b = good(CALLEE);
    outr_tls_options o = options(false, &a, &ca, h2_only);
    outr_tls *client, *server = context(true, &b);
    outr_tls_sessions *sessions = outr_tls_sessions_new();
    outr_err err;
    pair p;
    assert_int_equal(outr_tls_new(&client, &o, &err), OUTR_OK);
    shake(&p, client, server, CALLEE, sessions);
    bool was_in_time = p.server.shake.stream;
    end_pair(&p);
    while (time(NULL) < outr_tls_expires(client))
        ;
    shake(&p, client, server, CALLEE, sessions);
    assert_null(p.server.shake.stream);
    end_pair(&p);
    outr_tls_sessions_unref(sessions);
    outr_tls_unref(client);
    outr_tls_unref(server);
    free_workload(&a);
    free_workload(&b);
    return was_in_time;
}

static void a_session_ends_with_the_certificate_it_was_made_by(void **state)
{
    (void)state;
    int64_t life_s = 1;
    while (!session_ends_with_its_certificate(life_s)) {
        assert_true(life_s < 60);
        life_s *= 2;
    }
}

/* As sentry's are: one name, and no key id in what they sign. */
static void roots_of_one_name_in_one_bundle_are_told_apart(void **state)
{
    (void)state;
    for (int turned = 0; turned < 2; turned++) {
        workload a = good(CALLER),
                 b = make_workload(&other_ca, OUTR_STR(CALLEE), -60, DAY, true);
        OUTR_AUTO(outr_buf) bundle = OUTR_BUF_MAX(OUTR_MIB);
        outr_tls_options o[2] = {options(false, &a, &ca, h2_only),
                                 options(true, &b, &ca, h2_only)};
        outr_tls *tls[2];
        outr_err err;
        pair p;
        outr_buf_str(&bundle, outr_buf_view(turned ? &ca.root : &other_ca.root));
        outr_buf_str(&bundle, outr_buf_view(turned ? &other_ca.root : &ca.root));
        for (size_t i = 0; i < 2; i++) {
            o[i].ca_pem = outr_buf_view(&bundle);
            assert_int_equal(outr_tls_new(&tls[i], &o[i], &err), OUTR_OK);
        }
        shake(&p, tls[0], tls[1], CALLEE, NULL);
        assert_non_null(p.client.shake.stream);
        assert_non_null(p.server.shake.stream);
        assert_true(outr_tls_is_covered(p.client.shake.stream));
        assert_int_equal(outr_cert_verify(outr_buf_view(&b.chain), outr_buf_view(&bundle),
                                          time(NULL), &err),
                         OUTR_OK);
        end_pair(&p);
        outr_tls_unref(tls[0]);
        outr_tls_unref(tls[1]);
        free_workload(&a);
        free_workload(&b);
    }
}

static void a_changed_bundle_no_longer_covers_who_came_by_the_old_one(void **state)
{
    workload a = good(CALLER), b = good(CALLEE);
    outr_tls *client = context(false, &a), *server = context(true, &b);
    const outr_tls_options renewed = options(true, &b, &other_ca, h2_only);
    outr_tls_options broken = renewed;
    outr_err err;
    pair p;
    (void)state;
    shake(&p, client, server, CALLEE, NULL);
    broken.ca_pem = OUTR_STR("nonsense");
    assert_int_equal(outr_tls_renew(server, &broken, &err), OUTR_INVALID_ARGUMENT);
    assert_true(outr_tls_is_covered(p.server.shake.stream));
    assert_int_equal(outr_tls_renew(server, &renewed, &err), OUTR_OK);
    assert_false(outr_tls_is_covered(p.server.shake.stream));
    end_pair(&p);
    shake(&p, client, server, CALLEE, NULL);
    assert_null(p.server.shake.stream);
    end_pair(&p);
    outr_tls_unref(client);
    outr_tls_unref(server);
    free_workload(&a);
    free_workload(&b);
}

/* Of a resumed session only the leaf is left on the server's side, and there it is known all the
 * same by which anchor it came. */
static void who_resumes_is_covered_as_long_as_his_anchor_is_there(void **state)
{
    workload a = good(CALLER), b = good(CALLEE);
    outr_tls *client = context(false, &a), *server = context(true, &b);
    outr_tls_sessions *sessions = outr_tls_sessions_new();
    OUTR_AUTO(outr_buf) bundle = OUTR_BUF_MAX(OUTR_MIB);
    outr_tls_options both[2] = {options(true, &b, &ca, h2_only), options(false, &a, &ca, h2_only)};
    const outr_tls_options other[2] = {options(true, &b, &other_ca, h2_only),
                                       options(false, &a, &other_ca, h2_only)};
    outr_err err;
    pair p;
    (void)state;
    outr_buf_str(&bundle, outr_buf_view(&other_ca.root));
    outr_buf_str(&bundle, outr_buf_view(&ca.root));
    both[0].ca_pem = both[1].ca_pem = outr_buf_view(&bundle);
    shake(&p, client, server, CALLEE, sessions);
    end_pair(&p);
    shake(&p, client, server, CALLEE, sessions);
    assert_true(p.server.shake.was_resumed);
    assert_true(outr_tls_is_covered(p.server.shake.stream));
    assert_int_equal(outr_tls_renew(server, &both[0], &err), OUTR_OK);
    assert_int_equal(outr_tls_renew(client, &both[1], &err), OUTR_OK);
    assert_true(outr_tls_is_covered(p.server.shake.stream));
    assert_true(outr_tls_is_covered(p.client.shake.stream));
    assert_int_equal(outr_tls_renew(server, &other[0], &err), OUTR_OK);
    assert_int_equal(outr_tls_renew(client, &other[1], &err), OUTR_OK);
    assert_false(outr_tls_is_covered(p.server.shake.stream));
    assert_false(outr_tls_is_covered(p.client.shake.stream));
    end_pair(&p);
    outr_tls_sessions_unref(sessions);
    outr_tls_unref(client);
    outr_tls_unref(server);
    free_workload(&a);
    free_workload(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_resumes_is_covered_as_long_as_his_anchor_is_there),
        cmocka_unit_test(both_sides_know_each_other),
        cmocka_unit_test(bad_certificates_are_refused_on_either_side),
        cmocka_unit_test(other_names_and_usages_beside_the_id_do_not_matter),
        cmocka_unit_test(a_server_of_another_name_is_not_the_one_wanted),
        cmocka_unit_test(an_authority_is_no_workload),
        cmocka_unit_test(nobody_comes_in_without_certificate_or_protocol),
        cmocka_unit_test(a_client_wants_a_protocol_too),
        cmocka_unit_test(plain_bytes_and_broken_ones_are_told_apart),
        cmocka_unit_test(sessions_are_resumed_until_certificates_change),
        cmocka_unit_test(a_session_ends_with_the_certificate_it_was_made_by),
        cmocka_unit_test(roots_of_one_name_in_one_bundle_are_told_apart),
        cmocka_unit_test(a_changed_bundle_no_longer_covers_who_came_by_the_old_one),
    };
    return cmocka_run_group_tests(tests, make_pki, free_pki);
}
