#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "http/issuers.h"
#include "lib/folder.h"
#include "lib/tokens.h"
#include "lib/web.h"
#include "lib/wire.h"

/* An issuer at every address, which answers what the test wants, or nothing. */
typedef struct world {
    wire w;
    outr_http_server *server;
    unsigned reads;
    const char *answer; /* NULL: silence */
    int status;
    const char *location;
    outr_exchange *held;
    outr_issuers *set;
    outr_op op;
    outr_err err;
    unsigned opened, closed;
    outr_arena *arena;
} world;

static tokens is;

static void on_gone(outr_exchange *x, const outr_err *err)
{
    world *w = x->user;
    (void)err;
    w->held = NULL;
    outr_http_done(x);
}

static void on_request(void *ctx, outr_exchange *x)
{
    world *w = ctx;
    w->reads++;
    if (!w->answer) {
        x->user = w;
        x->on_gone = on_gone;
        w->held = x;
        return;
    }
    outr_http_response head = {.status = w->status, .content_length = (int64_t)strlen(w->answer)};
    outr_headers_init(&head.headers, x->arena);
    if (w->location)
        outr_headers_add(&head.headers, OUTR_STR("Location"), outr_str_from(w->location));
    outr_http_reply(x, &head, outr_str_from(w->answer));
    outr_http_done(x);
}

static const outr_http_handler handler = {.on_request = on_request};

static void on_accept(void *ctx, outr_stream *own_stream)
{
    outr_http_server_take(((world *)ctx)->server, own_stream);
}

static void on_opened(outr_op *op)
{
    world *w = OUTR_CONTAINER(op, world, op);
    w->opened++;
    w->err = op->err;
}

static void on_closed(outr_op *op)
{
    OUTR_CONTAINER(op, world, op)->closed++;
}

static const outr_str me = {"me", 2};

static outr_issuer_spec by_url(const char *name)
{
    return (outr_issuer_spec){.name = outr_str_from(name),
                              .audiences = &me,
                              .audience_count = 1,
                              .keys_url = OUTR_STR("http://127.0.0.1:80/keys")};
}

static void init(world *w)
{
    *w = (world){.status = 200, .answer = is.jwks.p, .arena = outr_arena_new(64 * OUTR_MIB)};
    wire_init(&w->w, 1);
    w->w.on_accept = on_accept;
    w->w.ctx = w;
    w->server = outr_http_server_new(&(outr_http_server_options){
        .loop = w->w.loop, .handler = &handler, .ctx = w, .allow_h1 = true});
}

static outr_issuers *new_set(world *w, const outr_issuer_spec *specs, size_t count)
{
    return outr_issuers_new(&(outr_issuers_options){
        .loop = w->w.loop, .items = specs, .count = count, .skew_s = 60});
}

static void begin(world *w, const outr_issuer_spec *specs, size_t count)
{
    w->set = new_set(w, specs, count);
    outr_op_init(&w->op, w->w.loop, NULL, 0, on_opened);
    outr_issuers_open(w->set, &w->op);
    assert_int_equal(w->opened, 0);
    wire_run(&w->w);
}

static void close_set(world *w, outr_issuers *set)
{
    w->closed = 0;
    outr_op_init(&w->op, w->w.loop, NULL, 0, on_closed);
    outr_issuers_close(set, &w->op);
    wire_run(&w->w);
    assert_int_equal(w->closed, 1);
}

static void done(world *w)
{
    if (w->set)
        close_set(w, w->set);
    outr_http_server_free(w->server);
    outr_arena_free(w->arena);
    wire_run(&w->w);
    wire_done(&w->w);
}

static int64_t now_s(const world *w)
{
    return outr_loop_unix_ns(w->w.loop) / (int64_t)OUTR_SEC;
}

static const char *ask(world *w, outr_str token, const outr_claims **claims)
{
    const outr_claims *unused;
    const char *reason =
        outr_issuers_ask(w->set, w->w.loop, token, w->arena, claims ? claims : &unused);
    return reason ? reason : "good";
}

static void tokens_are_judged_by_the_rules_of_their_issuer(void **state)
{
    const outr_str you = OUTR_STR("you");
    const outr_claims *claims;
    size_t count;
    world w;
    (void)state;
    init(&w);
    const outr_issuer_spec specs[] = {
        {.name = OUTR_STR("https://first"),
         .audiences = &you,
         .audience_count = 1,
         .keys = is.jwks},
        {.name = OUTR_STR("https://issuer"),
         .audiences = &me,
         .audience_count = 1,
         .keys = is.jwks},
        {.name = OUTR_STR("https://strict"),
         .audiences = &me,
         .audience_count = 1,
         .algorithms = outr_jwt_algorithm(OUTR_STR("EdDSA")),
         .keys = is.jwks}};
    begin(&w, specs, 3);
    assert_int_equal(w.opened, 1);
    assert_int_equal(w.err.code, OUTR_OK);
    assert_int_equal(w.reads, 0);
    for (int i = 0; i < 3; i++) { /* verified, then remembered */
        outr_str token = tokens_good(&is, now_s(&w) + 100, ",\"sub\":\"joe\"");
        claims = NULL;
        assert_string_equal(ask(&w, token, &claims), "good");
        assert_true(outr_str_is(outr_claims_find(claims, OUTR_STR("sub"), &count)->value, "joe"));
    }
    static const struct {
        const char *claims, *reason;
    } rows[] = {
        {"{\"iss\":\"https://first\",\"aud\":\"you\",\"exp\":99999999999}", "good"},
        {"{\"iss\":\"https://first\",\"aud\":\"me\",\"exp\":99999999999}", OUTR_JWT_AUDIENCE},
        {"{\"iss\":\"https://strict\",\"aud\":\"me\",\"exp\":99999999999}", OUTR_JWT_ALGORITHM},
        {"{\"iss\":\"https://nobody\",\"aud\":\"me\",\"exp\":99999999999}", OUTR_JWT_ISSUER},
        {"{\"aud\":\"me\",\"exp\":99999999999}", OUTR_JWT_ISSUER},
        {"{\"iss\":7,\"aud\":\"me\",\"exp\":99999999999}", OUTR_JWT_ISSUER},
        {"[", OUTR_JWT_ISSUER},
    };
    for (size_t i = 0; i < OUTR_LEN(rows); i++)
        assert_string_equal(ask(&w,
                                tokens_sign(&is, is.p256, "ES256",
                                            "{\"alg\":\"ES256\",\"kid\":\"P-256\"}",
                                            rows[i].claims),
                                NULL),
                            rows[i].reason);
    char *large = outr_arena_alloc(w.arena, OUTR_MIB);
    memset(large, 'a', OUTR_MIB);
    assert_string_equal(ask(&w, outr_str_of(large, OUTR_MIB), NULL), OUTR_JWT_TOO_LARGE);
    assert_string_equal(ask(&w, OUTR_STR("a.b.c"), NULL), OUTR_JWT_MALFORMED);
    done(&w);
}

static void a_remembered_token_ends_with_its_time(void **state)
{
    world w;
    (void)state;
    init(&w);
    const outr_issuer_spec spec = {
        .name = OUTR_STR("https://issuer"), .audiences = &me, .audience_count = 1, .keys = is.jwks};
    begin(&w, &spec, 1);
    outr_str token = tokens_good(&is, now_s(&w) + 10, "");
    assert_string_equal(ask(&w, token, NULL), "good");
    wire_sleep(&w.w, 69 * OUTR_SEC);
    assert_string_equal(ask(&w, token, NULL), "good");
    wire_sleep(&w.w, 2 * OUTR_SEC);
    assert_string_equal(ask(&w, token, NULL), OUTR_JWT_EXPIRED);
    done(&w);
}

static void more_tokens_than_are_remembered_are_all_judged(void **state)
{
    char filler[9000];
    world w;
    (void)state;
    init(&w);
    const outr_issuer_spec spec = {
        .name = OUTR_STR("https://issuer"), .audiences = &me, .audience_count = 1, .keys = is.jwks};
    begin(&w, &spec, 1);
    memset(filler, 'x', sizeof filler);
    for (int i = 0; i < 800; i++) { /* each takes more than 30 KiB, 8 MiB are kept */
        char more[9100];
        snprintf(more, sizeof more, ",\"n\":%d,\"filler\":\"%.*s\"", i % 400,
                 (int)sizeof filler, filler);
        assert_string_equal(ask(&w, tokens_good(&is, now_s(&w) + 100, more), NULL), "good");
    }
    done(&w);
}

static void new_keys_are_found_and_old_tokens_forgotten(void **state)
{
    tokens other;
    world w;
    (void)state;
    tokens_open(&other);
    init(&w);
    const outr_issuer_spec spec = by_url("https://issuer");
    begin(&w, &spec, 1);
    assert_int_equal(w.opened, 1);
    assert_int_equal(w.err.code, OUTR_OK);
    outr_str old = tokens_good(&is, now_s(&w) + 3600, "");
    assert_string_equal(ask(&w, old, NULL), "good");
    assert_int_equal(w.reads, 1);
    wire_sleep(&w.w, 599 * OUTR_SEC);
    assert_int_equal(w.reads, 1);
    wire_sleep(&w.w, 2 * OUTR_SEC); /* the same keys again: nothing is forgotten */
    assert_int_equal(w.reads, 2);
    /* a token of a key that is not known makes them be read, but not more often than each 5 s */
    outr_str unknown = tokens_sign(&is, is.p256, "ES256", "{\"alg\":\"ES256\",\"kid\":\"new\"}",
                                   "{\"iss\":\"https://issuer\"}");
    wire_sleep(&w.w, 6 * OUTR_SEC);
    for (int i = 0; i < 20; i++) {
        assert_string_equal(ask(&w, unknown, NULL), OUTR_JWT_KEY);
        wire_run(&w.w);
    }
    wire_sleep(&w.w, OUTR_SEC);
    assert_int_equal(w.reads, 3);
    w.answer = other.jwks.p;
    outr_str fresh = tokens_good(&other, now_s(&w) + 3600, "");
    assert_string_equal(ask(&w, fresh, NULL), OUTR_JWT_SIGNATURE); /* of the same name */
    wire_sleep(&w.w, 601 * OUTR_SEC);
    assert_string_equal(ask(&w, fresh, NULL), "good");
    assert_string_equal(ask(&w, old, NULL), OUTR_JWT_SIGNATURE); /* was remembered */
    done(&w);
    tokens_close(&other);
}

static void keys_stay_while_the_issuer_is_away_hangs_or_lies(void **state)
{
    static const char *const lies[] = {"", "{}", "{\"keys\":[]}", "<html>", "[1]",
                                       "{\"keys\":[{\"kty\":\"oct\",\"k\":\"AAAA\"}]}"};
    world w;
    (void)state;
    init(&w);
    const outr_issuer_spec spec = by_url("https://issuer");
    begin(&w, &spec, 1);
    char *huge = outr_arena_alloc(w.arena, OUTR_MIB + 1);
    memset(huge, ' ', OUTR_MIB);
    for (size_t i = 0; i < OUTR_LEN(lies) + 3; i++) {
        unsigned before = w.reads;
        w.answer = i < OUTR_LEN(lies) ? lies[i] : i == OUTR_LEN(lies) ? huge : is.jwks.p;
        w.status = i == OUTR_LEN(lies) + 1 ? 500 : 200;
        if (i == OUTR_LEN(lies) + 2)
            w.answer = NULL;
        wire_sleep(&w.w, 1300 * OUTR_SEC);
        assert_true(w.reads > before);
        assert_true(w.reads < before + 20); /* with growing pauses */
        assert_string_equal(ask(&w, tokens_good(&is, now_s(&w) + 100, ""), NULL), "good");
    }
    done(&w); /* while it is being read */
}

static void without_keys_tokens_are_refused_until_there_are_some(void **state)
{
    world w;
    (void)state;
    init(&w);
    w.status = 503;
    const outr_issuer_spec specs[] = {
        by_url("https://issuer"),
        {.name = OUTR_STR("https://other"),
         .audiences = &me,
         .audience_count = 1,
         .keys = is.jwks}};
    begin(&w, specs, 2);
    assert_int_equal(w.opened, 1);
    assert_int_equal(w.err.code, OUTR_UNAVAILABLE);
    outr_str token = tokens_good(&is, now_s(&w) + 3600, "");
    assert_string_equal(ask(&w, token, NULL), OUTR_JWT_NO_KEYS);
    /* the other issuer is not affected */
    assert_string_equal(ask(&w,
                            tokens_sign(&is, is.ed, "EdDSA", "{\"alg\":\"EdDSA\"}",
                                        "{\"iss\":\"https://other\",\"aud\":\"me\","
                                        "\"exp\":99999999999}"),
                            NULL),
                        "good");
    wire_sleep(&w.w, 100 * OUTR_SEC);
    assert_string_equal(ask(&w, token, NULL), OUTR_JWT_NO_KEYS);
    w.status = 200;
    wire_sleep(&w.w, 31 * OUTR_SEC);
    assert_string_equal(ask(&w, token, NULL), "good");
    done(&w);
}

static void whoever_waits_may_give_up_and_reading_goes_on(void **state)
{
    world w;
    (void)state;
    init(&w);
    w.answer = NULL;
    const outr_issuer_spec spec = by_url("https://issuer");
    begin(&w, &spec, 1);
    assert_int_equal(w.opened, 0);
    outr_op_cancel(&w.op, OUTR_CANCELLED);
    assert_int_equal(w.opened, 1);
    w.answer = is.jwks.p;
    wire_sleep(&w.w, 30 * OUTR_SEC); /* the one that hangs ends after 10 s */
    assert_string_equal(ask(&w, tokens_good(&is, now_s(&w) + 100, ""), NULL), "good");
    done(&w);
}

static void a_set_takes_over_what_another_has(void **state)
{
    world w;
    (void)state;
    init(&w);
    const outr_issuer_spec spec = by_url("https://issuer");
    begin(&w, &spec, 1);
    outr_issuers *before = w.set;
    w.answer = NULL; /* from now on nobody answers */
    const outr_issuer_spec specs[] = {by_url("https://new"), by_url("https://issuer")};
    w.set = new_set(&w, specs, 2);
    outr_issuers_inherit(w.set, before);
    close_set(&w, before);
    assert_string_equal(ask(&w, tokens_good(&is, now_s(&w) + 100, ""), NULL), "good");
    done(&w); /* was never opened */
}

static void a_file_is_looked_at_again(void **state)
{
    tokens other;
    folder f;
    world w;
    (void)state;
    tokens_open(&other);
    folder_make(&f);
    init(&w);
    outr_issuer_spec spec = {.name = OUTR_STR("https://issuer"),
                             .audiences = &me,
                             .audience_count = 1,
                             .keys_file = outr_str_from(folder_path(&f, "keys.json"))};
    begin(&w, &spec, 1);
    assert_int_equal(w.opened, 1);
    assert_int_equal(w.err.code, OUTR_NOT_FOUND);
    outr_str token = tokens_good(&is, now_s(&w) + 3600, "");
    folder_write(&f, "keys.json", is.jwks.p);
    wire_sleep(&w.w, 3 * OUTR_SEC);
    assert_string_equal(ask(&w, token, NULL), "good");
    folder_write(&f, "keys.json", "half of");
    wire_sleep(&w.w, 3 * OUTR_SEC);
    assert_string_equal(ask(&w, token, NULL), "good");
    folder_write(&f, "keys.json", other.jwks.p);
    wire_sleep(&w.w, 3 * OUTR_SEC);
    assert_string_equal(ask(&w, token, NULL), OUTR_JWT_SIGNATURE);
    done(&w);
    folder_remove(&f);
    tokens_close(&other);
}

static void redirects_come_to_an_end(void **state)
{
    world w;
    (void)state;
    init(&w);
    w.status = 302;
    w.location = "/elsewhere";
    const outr_issuer_spec spec = by_url("https://issuer");
    begin(&w, &spec, 1);
    assert_int_equal(w.err.code, OUTR_UNAVAILABLE); /* ten of them */
    assert_int_equal(w.reads, 11);
    done(&w);
}

static void what_is_wrong_with_a_spec_is_told(void **state)
{
    const outr_str keys = OUTR_STR("{}");
    const outr_issuer_spec bad[] = {
        {.name = OUTR_STR("issuer")},
        {.name = OUTR_STR("i"), .keys_url = OUTR_STR("ftp://x/")},
        {.name = OUTR_STR("i"), .keys = keys},
        {.name = OUTR_STR("i"), .keys_file = OUTR_STR("/f"), .keys_url = OUTR_STR("https://x/")}};
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(bad); i++) {
        outr_err err = {0};
        assert_int_not_equal(outr_issuer_check(&bad[i], &err), OUTR_OK);
        assert_true(err.text[0]);
    }
    const outr_issuer_spec good[] = {
        {.name = OUTR_STR("https://issuer")},
        {.name = OUTR_STR("i"), .keys_url = OUTR_STR("https://x/")},
        {.name = OUTR_STR("i"), .keys = is.jwks},
        {.name = OUTR_STR("i"), .keys_file = OUTR_STR("/f")}};
    for (size_t i = 0; i < OUTR_LEN(good); i++)
        assert_int_equal(outr_issuer_check(&good[i], NULL), OUTR_OK);
}

static void one_authorization_is_read(void **state)
{
    static const struct {
        const char *values[3], *reason, *token;
    } rows[] = {
        {{"Bearer x.y.z"}, NULL, "x.y.z"},     {{"bearer  x "}, NULL, "x"},
        {{"BEARER x"}, NULL, "x"},             {{0}, OUTR_JWT_MISSING, NULL},
        {{"Basic eDp5"}, OUTR_JWT_MISSING, NULL}, {{"Bearer"}, OUTR_JWT_MISSING, NULL},
        {{"Bearer x", "Bearer x"}, OUTR_JWT_MALFORMED, NULL},
        {{"Basic x", "Bearer x"}, OUTR_JWT_MALFORMED, NULL}};
    outr_arena *arena = outr_arena_new(OUTR_MIB);
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(rows); i++) {
        outr_headers h;
        outr_str token = OUTR_STR_NONE;
        outr_headers_init(&h, arena);
        for (int v = 0; v < 3 && rows[i].values[v]; v++)
            outr_headers_add(&h, OUTR_STR("Authorization"), outr_str_from(rows[i].values[v]));
        const char *reason = outr_bearer_token(&token, &h);
        assert_int_equal(!reason, !rows[i].reason);
        if (reason)
            assert_string_equal(reason, rows[i].reason);
        else
            assert_true(outr_str_is(token, rows[i].token));
    }
    outr_arena_free(arena);
}

static int open_tokens(void **state)
{
    (void)state;
    tokens_open(&is);
    return 0;
}

static int close_tokens(void **state)
{
    (void)state;
    tokens_close(&is);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokens_are_judged_by_the_rules_of_their_issuer),
        cmocka_unit_test(a_remembered_token_ends_with_its_time),
        cmocka_unit_test(more_tokens_than_are_remembered_are_all_judged),
        cmocka_unit_test(new_keys_are_found_and_old_tokens_forgotten),
        cmocka_unit_test(keys_stay_while_the_issuer_is_away_hangs_or_lies),
        cmocka_unit_test(without_keys_tokens_are_refused_until_there_are_some),
        cmocka_unit_test(whoever_waits_may_give_up_and_reading_goes_on),
        cmocka_unit_test(a_set_takes_over_what_another_has),
        cmocka_unit_test(a_file_is_looked_at_again),
        cmocka_unit_test(redirects_come_to_an_end),
        cmocka_unit_test(what_is_wrong_with_a_spec_is_told),
        cmocka_unit_test(one_authorization_is_read),
    };
    return cmocka_run_group_tests(tests, open_tokens, close_tokens);
}
