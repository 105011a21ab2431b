#include "security/workload.h"

#include "security/identity.h"
#include "security/machine.h"
#include "security/rotation.h"
#include "security/sentry.h"
#include "security/trust.h"

#define TOKEN_MAX (64 * OUTR_KIB)
#define LOOK_MS   60000 /* at the wall clock, at least so often */
#define TELL_MS   10000 /* between warnings of a request that gets no answer */
#define CHAIN_MAX OUTR_MIB

struct outr_workload {
    outr_workload_options o;
    outr_trust trust;
    outr_machine machine; /* signs_here: whose issuer it is */
    outr_watched issuer;  /* its certificate */
    outr_store store;
    outr_tls *server, *client;
    outr_arena *arena; /* for as long as it lives: ids */
    outr_str sentry_id, path;
    outr_timer timer;
    outr_op *first; /* the first certificate is waited for */
    /* of the certificate in use */
    outr_key *key;
    outr_buf chain;
    int64_t issued_ms, expires_ms;
    /* of the request under way */
    outr_sentry_sign sign;
    outr_op op;
    outr_key *next_key;
    outr_buf csr, token;
    unsigned failures;
    int64_t due_ms; /* when the timer is meant to do something */
    bool is_stopped, is_freed, is_asking, signs_here;
    bool asks_again; /* what is under way goes by anchors that are no longer ours */
};

static const outr_metric_desc init_total = {
    "dapr_runtime_mtls_init_total", "first certificate obtained", OUTR_COUNTER, 0, {NULL}};
static const outr_metric_desc init_fail = {
    "dapr_runtime_mtls_init_fail_total", "first certificate failed", OUTR_COUNTER, 0, {"reason"}};
static const outr_metric_desc rotated = {"dapr_runtime_mtls_workload_cert_rotated_total",
                                         "certificate renewed",
                                         OUTR_COUNTER,
                                         0,
                                         {NULL}};
static const outr_metric_desc rotated_fail = {"dapr_runtime_mtls_workload_cert_rotated_fail_total",
                                              "renewal failed",
                                              OUTR_COUNTER,
                                              0,
                                              {"reason"}};
static const outr_metric_desc expires_at = {"outrigger_mtls_certificate_expires_seconds",
                                            "end of the certificate in use, Unix time",
                                            OUTR_GAUGE,
                                            0,
                                            {NULL}};

static const outr_metric_desc issuer_expires_at = {
    "outrigger_mtls_issuer_expires_seconds",
    "end of this machine's issuer, Unix time; when it signs here",
    OUTR_GAUGE,
    0,
    {NULL}};

static const char *const h2_only[] = {"h2", NULL};

static int64_t now_ms(const outr_workload *w)
{
    return outr_loop_unix_ns(w->o.loop) / (int64_t)OUTR_MS;
}

static void free_if_over(outr_workload *w)
{
    if (!w->is_freed || w->is_asking)
        return;
    outr_watched_stop(&w->issuer);
    outr_trust_close(&w->trust);
    outr_store_done(&w->store);
    outr_tls_unref(w->server);
    outr_tls_unref(w->client);
    outr_key_unref(w->next_key);
    outr_buf_done(&w->csr);
    outr_secret_done(&w->token);
    outr_arena_free(w->arena);
    free(w);
}

/* ---- what is in use -------------------------------------------------------------------------- */

static outr_tls_options tls_options(const outr_workload *w, bool is_server, outr_str chain,
                                    outr_key *key)
{
    return (outr_tls_options){.is_server = is_server,
                              .verify_peer = true,
                              .verify_uri = true,
                              .requires_alpn = true,
                              .ca_pem = outr_buf_view(&w->trust.pem),
                              .certificate_pem = chain,
                              .key = key,
                              .alpn = h2_only};
}

static outr_code use(outr_workload *w, outr_str chain, outr_key *key, outr_err *err)
{
    const outr_tls_options server = tls_options(w, true, chain, key);
    const outr_tls_options client = tls_options(w, false, chain, key);
    outr_code rc = outr_tls_renew(w->server, &server, err);
    return rc ? rc : outr_tls_renew(w->client, &client, err);
}

/* By the wall clock, which certificates go by: it may jump, and machines sleep. */
static void ask_at(outr_workload *w, int64_t at_ms)
{
    int64_t left_ms = OUTR_MIN(OUTR_MAX(at_ms - now_ms(w), 0), LOOK_MS);
    w->due_ms = at_ms;
    outr_timer_start(w->o.loop, &w->timer,
                     outr_loop_now(w->o.loop) + (uint64_t)left_ms * OUTR_MS);
}

/* What came must be what was asked for, and of use to us, before it replaces what works. */
static outr_code check_answer(const outr_workload *w, outr_str chain, outr_cert_info *info,
                              outr_err *err)
{
    outr_code rc = outr_cert_info_read(info, chain, err);
    if (!rc && !outr_cert_has_key(chain, w->next_key))
        rc = outr_fail(err, OUTR_INTERNAL, "the certificate is for another key");
    if (!rc && info->not_after_s * 1000 <= now_ms(w))
        rc = outr_fail(err, OUTR_INTERNAL, "the certificate is over already: is a clock wrong?");
    if (!rc)
        rc = outr_cert_verify(chain, outr_buf_view(&w->trust.pem), now_ms(w) / 1000, err);
    return rc ? outr_wrap(err, "the certificate authority's answer cannot be used") : OUTR_OK;
}

static void keep_on_disk(outr_workload *w)
{
    outr_err err;
    if (w->store.path &&
        outr_store_save(&w->store, w->key, outr_buf_view(&w->chain), w->issued_ms, &err))
        OUTR_LOG(w->o.log, ERROR, "the identity cannot be kept for another start", OUTR_ERR(&err));
}

static outr_code take_answer(outr_workload *w, outr_err *err)
{
    outr_str chain = outr_buf_view(&w->sign.chain_pem);
    outr_cert_info info;
    outr_code rc = check_answer(w, chain, &info, err);
    if (!rc)
        rc = use(w, chain, w->next_key, err);
    if (rc)
        return rc;
    outr_key_unref(w->key);
    outr_buf_done(&w->chain);
    w->key = outr_take(&w->next_key);
    w->chain = w->sign.chain_pem;
    w->sign.chain_pem = OUTR_BUF_MAX(0);
    w->issued_ms = now_ms(w);
    w->expires_ms = info.not_after_s * 1000;
    keep_on_disk(w);
    return OUTR_OK;
}

/* ---- asking ---------------------------------------------------------------------------------- */

static void show_end(outr_workload *w)
{
    outr_metric_set(outr_metric_series_get(outr_loop_metrics(w->o.loop), &expires_at, NULL),
                    (double)w->expires_ms / 1000);
}

static void succeed(outr_workload *w)
{
    outr_metric_shard *metrics = outr_loop_metrics(w->o.loop);
    outr_op *first = outr_take(&w->first);
    w->failures = 0;
    outr_metric_count(metrics, first ? &init_total : &rotated, NULL, 1);
    show_end(w);
    OUTR_LOG(w->o.log, INFO, first ? "identity obtained" : "identity renewed",
             OUTR_S("path", w->path), OUTR_I("seconds", (w->expires_ms - w->issued_ms) / 1000));
    ask_at(w, outr_rotation_due(w->issued_ms, w->expires_ms,
                                outr_rand_unit(outr_loop_rand(w->o.loop))));
    if (first)
        outr_op_finish(first);
}

static void tell_failure(outr_workload *w, const outr_err *err)
{
    bool is_over = now_ms(w) >= w->expires_ms;
    bool is_late = outr_rotation_is_late(w->issued_ms, w->expires_ms, now_ms(w));
    int64_t left_s = (w->expires_ms - now_ms(w)) / 1000;
    if (is_over)
        OUTR_LOG(w->o.log, ERROR,
                 "the certificate has expired and cannot be renewed: no sidecar can be called",
                 OUTR_ERR(err));
    else if (is_late)
        OUTR_LOG(w->o.log, WARN, "the certificate cannot be renewed yet",
                 OUTR_I("seconds_left", left_s), OUTR_ERR(err));
    else
        OUTR_LOG(w->o.log, INFO, "the certificate cannot be renewed yet",
                 OUTR_I("seconds_left", left_s), OUTR_ERR(err));
}

static void fail_once(outr_workload *w, const outr_err *err)
{
    const outr_str reason = w->sign.was_refused ? OUTR_STR("sign") : OUTR_STR("sentry_conn");
    outr_op *first = outr_take(&w->first);
    outr_metric_count(outr_loop_metrics(w->o.loop), first ? &init_fail : &rotated_fail, &reason, 1);
    if (first) {
        outr_err wrapped = *err;
        outr_wrap(&wrapped, "failed to retrieve the initial identity");
        outr_op_fail(first, &wrapped);
        return;
    }
    tell_failure(w, err);
    w->failures++;
    ask_at(w, now_ms(w) + outr_rotation_pause(w->failures, w->expires_ms - now_ms(w),
                                              outr_rand_unit(outr_loop_rand(w->o.loop))));
}

static void ask(outr_workload *w);

static void on_signed(outr_op *op)
{
    outr_workload *w = OUTR_CONTAINER(op, outr_workload, op);
    outr_err err = op->err;
    bool was_given_up = w->asks_again && err.code == OUTR_CANCELLED && !w->is_stopped &&
                        !(w->first && outr_op_is_cancelled(w->first));
    w->is_asking = w->asks_again = false;
    if (was_given_up) {
        outr_sentry_sign_done(&w->sign);
        ask(w);
        return;
    }
    if (!w->is_stopped) {
        if (err.code == OUTR_OK && take_answer(w, &err) == OUTR_OK)
            succeed(w);
        else
            fail_once(w, &err);
    } else if (w->first) {
        outr_op_finish(outr_take(&w->first));
    }
    outr_sentry_sign_done(&w->sign);
    free_if_over(w);
}

static outr_code read_token(outr_workload *w, outr_err *err)
{
    const char *path = w->o.settings->sentry_token_file.p;
    outr_secret_done(&w->token);
    if (!path || !path[0])
        return OUTR_OK;
    outr_code rc = outr_secretfile_read(&w->token, path, TOKEN_MAX, OUTR_FILE_ANY, err);
    return rc ? outr_wrap(err, "DAPR_SENTRY_TOKEN_FILE") : OUTR_OK;
}

/* A new key each time, and a new look at the token's file. */
static outr_code prepare(outr_workload *w, outr_err *err)
{
    outr_key_unref(outr_take(&w->next_key));
    outr_buf_done(&w->csr);
    w->csr = OUTR_BUF_MAX(4 * OUTR_KIB);
    outr_code rc = read_token(w, err);
    if (!rc)
        rc = outr_key_make(&w->next_key, err);
    return rc ? rc : outr_csr_write(&w->csr, w->next_key, err);
}

static outr_str id_of(const outr_workload *w)
{
    const outr_settings *s = w->o.settings;
    return s->sentry_identity.n ? s->sentry_identity : s->app_id;
}

static outr_code sign_with(outr_workload *w, const outr_issuer *issuer, int64_t now_s,
                           outr_err *err)
{
    OUTR_AUTO(outr_buf) uri = OUTR_BUF_MAX(OUTR_SPIFFE_MAX);
    int64_t expires_s, left_s = issuer->expires_s - now_s;
    outr_code rc = outr_issuer_check_id(id_of(w), err);
    if (!rc)
        rc = outr_issuer_name(&uri, OUTR_STR_NONE, w->o.settings->namespace_, id_of(w), err);
    const outr_issuer_order order = {.key = w->next_key,
                                     .uri = outr_buf_view(&uri),
                                     .life_s = w->o.ttl_s ? w->o.ttl_s : OUTR_ISSUER_TTL_S,
                                     .skew_s = w->o.skew_s ? w->o.skew_s : OUTR_ISSUER_SKEW_S};
    w->sign.chain_pem = OUTR_BUF_MAX(CHAIN_MAX);
    if (!rc)
        rc = outr_issuer_sign(issuer, &order, now_s, &w->sign.chain_pem, &expires_s, err);
    outr_metric_set(
        outr_metric_series_get(outr_loop_metrics(w->o.loop), &issuer_expires_at, NULL),
        (double)issuer->expires_s);
    if (!rc && left_s < OUTR_ISSUER_WARN_S)
        OUTR_LOG(w->o.log, WARN, "this machine's issuer ends soon: `outrigger mtls expiry` tells",
                 OUTR_I("seconds_left", left_s));
    return rc;
}

/* What an authority would answer. */
static void sign_here(outr_workload *w)
{
    const outr_issuer_paths paths = outr_machine_paths(&w->machine);
    int64_t now_s = now_ms(w) / 1000;
    outr_issuer issuer = {0};
    outr_err err;
    outr_code rc = outr_issuer_load(&issuer, &paths, OUTR_FILE_OWN, now_s, &err);
    if (!rc)
        rc = sign_with(w, &issuer, now_s, &err);
    outr_issuer_done(&issuer);
    w->sign.was_refused = rc != OUTR_OK;
    outr_op_begin(&w->op, w, NULL);
    if (rc)
        outr_op_fail_soon(&w->op, &err);
    else
        outr_op_finish_soon(&w->op);
}

static void ask(outr_workload *w)
{
    const outr_settings *s = w->o.settings;
    outr_err err;
    w->sign = (outr_sentry_sign){.loop = w->o.loop,
                                 .address = s->sentry_address,
                                 .sentry_id = w->sentry_id,
                                 .anchors_pem = outr_buf_view(&w->trust.pem),
                                 .id = id_of(w),
                                 .namespace_ = s->namespace_,
                                 .audiences = &s->sentry_audiences};
    w->is_asking = true;
    outr_op_init(&w->op, w->o.loop, NULL, 0, on_signed);
    if (prepare(w, &err)) {
        outr_op_begin(&w->op, w, NULL);
        outr_op_fail_soon(&w->op, &err);
        return;
    }
    if (w->signs_here) {
        sign_here(w);
        return;
    }
    w->sign.csr_pem = outr_buf_view(&w->csr);
    w->sign.token = outr_str_trim(outr_buf_view(&w->token));
    outr_sentry_sign_start(&w->sign, &w->op);
    /* from the second on: one that hangs must not keep warnings from being given */
    if (!w->first)
        ask_at(w, OUTR_MAX(w->issued_ms + (w->expires_ms - w->issued_ms) / 2, now_ms(w) + TELL_MS));
}

static void on_time(outr_timer *timer)
{
    outr_workload *w = OUTR_CONTAINER(timer, outr_workload, timer);
    if (now_ms(w) < w->due_ms) {
        ask_at(w, w->due_ms);
        return;
    }
    if (!w->is_asking) {
        ask(w);
        return;
    }
    outr_err err; /* still under way: the authority cannot be reached */
    outr_fail(&err, OUTR_UNAVAILABLE, "the certificate authority does not answer");
    tell_failure(w, &err);
    ask_at(w, now_ms(w) + TELL_MS);
}

static void on_trust(outr_trust *trust)
{
    outr_workload *w = OUTR_CONTAINER(trust, outr_workload, trust);
    outr_err err;
    if (w->is_asking) { /* by the former bundle, for which nobody may be left */
        w->asks_again = true;
        outr_op_cancel(&w->op, OUTR_CANCELLED);
    }
    if (!w->key)
        return;
    if (use(w, outr_buf_view(&w->chain), w->key, &err)) {
        OUTR_LOG(w->o.log, ERROR, "new trust anchors cannot be used", OUTR_ERR(&err));
        return;
    }
    OUTR_LOG(w->o.log, INFO, "trust anchors have changed");
    w->o.trust_changed(w->o.ctx);
    /* those who have the new ones may not know the issuer of ours: ask for what they know */
    if (!w->is_asking && outr_cert_verify(outr_buf_view(&w->chain), outr_buf_view(&trust->pem),
                                          now_ms(w) / 1000, &err))
        ask_at(w, now_ms(w));
}

/* Another issuer, or the same one touched (`outrigger mtls renew leaf`). */
static bool on_issuer(outr_watched *watched)
{
    outr_workload *w = OUTR_CONTAINER(watched, outr_workload, issuer);
    if (w->key && !w->is_asking)
        ask_at(w, now_ms(w));
    return true;
}

/* ---- making and ending ----------------------------------------------------------------------- */

/* Where certificates come from. */
static outr_code find_source(outr_workload *w, outr_err *err)
{
    const outr_settings *s = w->o.settings;
    if (s->sentry_address.n > 0)
        return OUTR_OK;
    if (outr_machine_find(&w->machine, s->mtls_dir, s->home, err))
        return outr_wrap(err, "--enable-mtls needs --sentry-address, or a machine that is a member "
                              "of a fleet");
    if (!outr_machine_is_member(&w->machine))
        return outr_fail(err, OUTR_INVALID_ARGUMENT,
                         "--enable-mtls needs --sentry-address, or a machine that is a member of a "
                         "fleet (`outrigger mtls init`, `join`): %s is not there", w->machine.key);
    w->signs_here = true;
    outr_watched_note(&w->issuer, w->machine.issuer);
    return OUTR_OK;
}

static outr_code open_store(outr_workload *w, outr_err *err)
{
    const outr_settings *s = w->o.settings;
    if (s->identity_file.n == 0)
        return OUTR_OK;
    if (s->identity_passphrase_file.n == 0)
        return outr_fail(err, OUTR_INVALID_ARGUMENT,
                         "--identity-file needs --identity-passphrase-file: a key is not written "
                         "as it is");
    outr_code rc = outr_store_open(&w->store, s->identity_file.p, s->identity_passphrase_file.p,
                                   err);
    return rc ? outr_wrap(err, "--identity-passphrase-file") : OUTR_OK;
}

static outr_code open_trust(outr_workload *w, outr_err *err)
{
    const outr_settings *s = w->o.settings;
    const char *file = s->trust_anchors_file.n ? s->trust_anchors_file.p : NULL;
    if (!file && s->trust_anchors.n == 0 && w->signs_here)
        file = w->machine.roots;
    if (!file && s->trust_anchors.n == 0)
        return outr_fail(err, OUTR_INVALID_ARGUMENT,
                         "--enable-mtls needs trust anchors: DAPR_TRUST_ANCHORS (PEM) or "
                         "OUTRIGGER_TRUST_ANCHORS_FILE");
    return outr_trust_open(&w->trust, s->trust_anchors, file, err);
}

outr_code outr_workload_new(outr_workload **out, const outr_workload_options *options,
                            outr_err *err)
{
    const outr_settings *s = options->settings;
    outr_spiffe spiffe;
    outr_workload *w = outr_alloc(sizeof *w);
    w->o = *options;
    w->arena = outr_arena_new(64 * OUTR_KIB);
    w->timer.fire = on_time;
    w->sentry_id = outr_arena_printf(w->arena, "spiffe://" OUTR_FMT "/ns/" OUTR_FMT "/dapr-sentry",
                                     OUTR_ARG(s->control_plane_trust_domain),
                                     OUTR_ARG(s->control_plane_namespace));
    w->path = outr_identity_path(w->arena, s->namespace_, id_of(w));
    outr_code rc = find_source(w, err);
    if (!rc)
        rc = open_trust(w, err);
    if (!rc)
        rc = open_store(w, err);
    if (!rc && outr_spiffe_parse(&spiffe, w->sentry_id, err))
        rc = outr_wrap(err, "control plane \"" OUTR_FMT "\"", OUTR_ARG(w->sentry_id));
    if (!rc) {
        const outr_tls_options server = tls_options(w, true, OUTR_STR_NONE, NULL);
        const outr_tls_options client = tls_options(w, false, OUTR_STR_NONE, NULL);
        rc = outr_tls_new(&w->server, &server, err);
        if (!rc)
            rc = outr_tls_new(&w->client, &client, err);
    }
    if (rc) {
        outr_workload_free(w);
        return rc;
    }
    *out = w;
    return OUTR_OK;
}

static void on_cancel(outr_op *op)
{
    outr_workload *w = op->impl;
    outr_op_cancel(&w->op, op->err.code);
}

/* Whether it still does, and is ours. */
static outr_code check_kept(const outr_workload *w, const outr_kept_identity *kept, outr_err *err)
{
    OUTR_AUTO(outr_buf) uri = OUTR_BUF_MAX(OUTR_SPIFFE_MAX);
    outr_str chain = outr_buf_view(&kept->chain);
    outr_spiffe spiffe;
    outr_code rc = outr_cert_uri(&uri, chain, err);
    if (!rc)
        rc = outr_spiffe_parse(&spiffe, outr_buf_view(&uri), err);
    if (rc)
        return rc;
    if (!outr_str_eq(spiffe.path, w->path))
        return outr_fail(err, OUTR_PERMISSION_DENIED, "it is that of " OUTR_FMT,
                         OUTR_ARG(outr_str_head(outr_buf_view(&uri), 256)));
    if (kept->expires_ms <= now_ms(w))
        return outr_fail(err, OUTR_FAILED_PRECONDITION, "it has expired");
    return outr_cert_verify(chain, outr_buf_view(&w->trust.pem), now_ms(w) / 1000, err);
}

/* Into what a life of this process would have left, when none has. */
static void load_kept(outr_workload *w)
{
    outr_kept_identity kept = {0};
    outr_err err;
    if (!w->store.path || w->o.kept->key)
        return;
    outr_code rc = outr_store_load(&w->store, &kept, &err);
    if (!rc && check_kept(w, &kept, &err))
        rc = outr_wrap(&err, "%s", w->store.path);
    if (!rc) {
        OUTR_LOG(w->o.log, INFO, "the identity of an earlier start goes on",
                 OUTR_S("path", w->path),
                 OUTR_I("seconds_left", (kept.expires_ms - now_ms(w)) / 1000));
        *w->o.kept = kept;
        return;
    }
    if (rc == OUTR_NOT_FOUND)
        OUTR_LOG(w->o.log, INFO, "no identity has been kept yet", OUTR_ERR(&err));
    else
        OUTR_LOG(w->o.log, WARN, "the kept identity is not used", OUTR_ERR(&err));
    outr_kept_identity_done(&kept);
}

static bool use_kept(outr_workload *w)
{
    outr_kept_identity *kept = w->o.kept;
    outr_str chain = outr_buf_view(&kept->chain);
    outr_err err;
    if (!kept->key || check_kept(w, kept, &err) || use(w, chain, kept->key, &err))
        return false;
    w->key = kept->key;
    w->chain = kept->chain;
    w->issued_ms = OUTR_MIN(kept->issued_ms, now_ms(w)); /* a clock may have been set back */
    w->expires_ms = kept->expires_ms;
    *kept = (outr_kept_identity){0};
    show_end(w);
    ask_at(w, outr_rotation_due(w->issued_ms, w->expires_ms,
                                outr_rand_unit(outr_loop_rand(w->o.loop))));
    return true;
}

void outr_workload_open_start(outr_workload *w, outr_op *op)
{
    w->first = op;
    outr_op_begin(op, w, on_cancel);
    outr_trust_watch(&w->trust, w->o.loop, on_trust);
    if (w->signs_here)
        outr_watched_start(&w->issuer, w->o.loop, on_issuer);
    load_kept(w);
    if (use_kept(w)) {
        outr_op_finish_soon(outr_take(&w->first));
        return;
    }
    if (w->signs_here)
        OUTR_LOG(w->o.log, INFO, "signing initial identity", OUTR_Z("folder", w->machine.dir));
    else
        OUTR_LOG(w->o.log, INFO, "fetching initial identity",
                 OUTR_S("sentry", w->o.settings->sentry_address));
    ask(w);
}

outr_tls *outr_workload_server(const outr_workload *workload)
{
    return workload->server;
}

outr_tls *outr_workload_client(const outr_workload *workload)
{
    return workload->client;
}

void outr_workload_stop(outr_workload *w)
{
    if (w->is_stopped)
        return;
    w->is_stopped = true;
    outr_timer_stop(w->o.loop, &w->timer);
    outr_watched_stop(&w->issuer);
    outr_trust_close(&w->trust);
    if (w->is_asking)
        outr_op_cancel(&w->op, OUTR_CANCELLED);
}

void outr_workload_free(outr_workload *w)
{
    if (!w)
        return;
    w->is_freed = true;
    const outr_kept_identity ours = {w->key, w->chain, w->issued_ms, w->expires_ms};
    if (w->key) {
        outr_kept_identity_done(w->o.kept);
        *w->o.kept = ours;
    }
    w->key = NULL;
    free_if_over(w);
}
