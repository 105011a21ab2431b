#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "config/settings.h"
#include "lib/table.h"

#define ARGS_MAX 16

/* A command line and an environment, parsed. */
typedef struct line {
    outr_arena *arena;
    outr_settings s;
    outr_code rc;
    outr_err err;
    int exit_code;
} line;

static void parse(line *l, char *const *envp, ...)
{
    const char *argv[ARGS_MAX] = {"outriggerd"};
    int argc = 1;
    va_list args;
    va_start(args, envp);
    for (const char *arg; (arg = va_arg(args, const char *));)
        argv[argc++] = arg;
    va_end(args);
    *l = (line){.arena = outr_arena_new(OUTR_MIB)};
    l->rc = outr_settings_parse(&l->s, l->arena, argc, (char *const *)argv, envp, &l->exit_code,
                                &l->err);
}

static void done(line *l)
{
    outr_arena_free(l->arena);
}

#define PARSE(l, ...)                                                                              \
    line l;                                                                                        \
    parse(&l, NULL, __VA_ARGS__, (const char *)NULL)
#define PARSE_ENV(l, envp, ...)                                                                    \
    line l;                                                                                        \
    parse(&l, envp, __VA_ARGS__, (const char *)NULL)

static void assert_good(const line *l)
{
    if (l->rc)
        fail_msg("refused: %s", l->err.text);
}

static void assert_bad(const line *l, int exit_code, const char *names)
{
    assert_int_not_equal(l->rc, OUTR_OK);
    assert_int_equal(l->exit_code, exit_code);
    if (!strstr(l->err.text, names))
        fail_msg("\"%s\" does not name \"%s\"", l->err.text, names);
}

#define assert_text(s, z) assert_true(outr_str_is(s, z))

/* ---- defaults ------------------------------------------------------------------------------- */

static void defaults_are_those_of_the_contract(void **state)
{
    (void)state;
    PARSE(l, "--app-id", "a");
    assert_good(&l);
    assert_text(l.s.app_id, "a");
    assert_text(l.s.namespace_, "default");
    assert_false(l.s.has_namespace);
    assert_int_equal(l.s.app_port, 0);
    assert_int_equal(l.s.app_protocol, OUTR_APP_HTTP);
    assert_text(l.s.app_protocol_name, "http");
    assert_text(l.s.app_channel_address, "127.0.0.1");
    assert_int_equal(l.s.app_max_concurrency, 0);
    assert_false(l.s.app_health_check);
    assert_text(l.s.app_health_path, "/healthz");
    assert_int_equal(l.s.app_health_interval_ns, 5 * OUTR_SEC);
    assert_int_equal(l.s.app_health_timeout_ns, 500 * OUTR_MS);
    assert_int_equal(l.s.app_health_threshold, 3);
    assert_int_equal(l.s.http_port, 3500);
    assert_int_equal(l.s.grpc_port, 50001);
    assert_int_equal(l.s.internal_port, 0);
    assert_int_equal(l.s.public_port, 0);
    assert_int_equal(l.s.metrics_port, 9090);
    assert_text(l.s.metrics_listen_address, "0.0.0.0");
    assert_true(l.s.enable_metrics);
    assert_int_equal(l.s.max_body_bytes, 4 * OUTR_MIB);
    assert_int_equal(l.s.read_buffer_bytes, 4 * OUTR_KIB);
    assert_int_equal(l.s.api_logging, -1);
    assert_int_equal(l.s.graceful_shutdown_ns, 5 * OUTR_SEC);
    assert_int_equal(l.s.block_shutdown_ns, 0);
    assert_int_equal(l.s.reconcile_interval_ns, 60 * OUTR_SEC);
    assert_int_equal(l.s.allowed_origins.count, 0);
    assert_int_equal(l.s.listen_addresses.count, 0);
    assert_true(l.s.enable_h2c);
    assert_false(l.s.enable_mtls);
    assert_int_equal(l.s.log_level, OUTR_INFO);
    assert_int_equal(l.s.unused_count, 0);
    assert_true(l.s.loops >= 1);
    done(&l);
}

/* ---- forms ---------------------------------------------------------------------------------- */

static void a_flag_takes_one_dash_or_two_and_equals_or_space(void **state)
{
    (void)state;
    PARSE(l, "-app-id", "one", "--dapr-http-port=4000", "-dapr-grpc-port=4001", "--app-port",
          "4002");
    assert_good(&l);
    assert_text(l.s.app_id, "one");
    assert_int_equal(l.s.http_port, 4000);
    assert_int_equal(l.s.grpc_port, 4001);
    assert_int_equal(l.s.app_port, 4002);
    done(&l);
}

static void a_boolean_is_bare_or_has_a_value(void **state)
{
    (void)state;
    PARSE(l, "--app-id=a", "--enable-app-health-check", "--log-as-json=true",
          "--enable-metrics=false", "--enable-profiling", "--enable-api-logging=false");
    assert_good(&l);
    assert_true(l.s.app_health_check);
    assert_true(l.s.log_as_json);
    assert_false(l.s.enable_metrics);
    assert_int_equal(l.s.api_logging, 0);
    done(&l);
    PARSE(bare, "--app-id=a", "--enable-api-logging");
    assert_int_equal(bare.s.api_logging, 1);
    done(&bare);
}

static void a_bare_boolean_does_not_eat_the_next_flag(void **state)
{
    (void)state;
    PARSE(l, "--log-as-json", "--app-id", "a");
    assert_good(&l);
    assert_text(l.s.app_id, "a");
    done(&l);
}

static void a_value_may_hold_equals_signs_and_dashes(void **state)
{
    (void)state;
    PARSE(l, "--app-id", "--a=b", "--unix-domain-socket=/x=y");
    assert_good(&l);
    assert_text(l.s.app_id, "--a=b");
    assert_text(l.s.unix_socket_dir, "/x=y");
    done(&l);
}

static void the_last_of_a_repeated_flag_wins(void **state)
{
    (void)state;
    PARSE(l, "--app-id=a", "--app-id=b", "--log-level=debug", "--log-level=error");
    assert_text(l.s.app_id, "b");
    assert_int_equal(l.s.log_level, OUTR_ERROR);
    done(&l);
}

static void lists_repeat_and_address_lists_are_split_at_commas(void **state)
{
    (void)state;
    PARSE(l, "--app-id=a", "--resources-path=/one", "--resources-path", "/two,three",
          "--components-path=/four", "--config=c1", "--config=c2",
          "--dapr-listen-addresses=127.0.0.1, ::1", "--disable-init-endpoints=config,subscribe");
    assert_good(&l);
    assert_int_equal(l.s.resources_paths.count, 3);
    assert_text(l.s.resources_paths.items[0], "/one");
    assert_text(l.s.resources_paths.items[1], "/two,three");
    assert_text(l.s.resources_paths.items[2], "/four");
    assert_int_equal(l.s.config_files.count, 2);
    assert_int_equal(l.s.listen_addresses.count, 2);
    assert_text(l.s.listen_addresses.items[1], "::1");
    assert_true(l.s.skip_app_config);
    assert_true(l.s.skip_app_subscribe);
    done(&l);
}

static void more_list_values_than_there_is_room_for_are_an_error(void **state)
{
    (void)state;
    PARSE(l, "--app-id=a", "--allowed-origins=1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17");
    assert_bad(&l, 2, "allowed-origins");
    done(&l);
}

static void the_protocol_is_read_without_case_and_app_ssl_adds_tls(void **state)
{
    static const struct {
        const char *given, *ssl;
        outr_app_protocol protocol;
        const char *name;
    } rows[] = {
        {"HTTP", "--app-ssl=false", OUTR_APP_HTTP, "http"},
        {"http", "--app-ssl", OUTR_APP_HTTPS, "https"},
        {"https", "--app-ssl=0", OUTR_APP_HTTPS, "https"},
        {"Grpc", "--app-ssl=true", OUTR_APP_GRPCS, "grpcs"},
        {"grpc", "--app-ssl=false", OUTR_APP_GRPC, "grpc"},
        {"gRPCs", "--app-ssl=false", OUTR_APP_GRPCS, "grpcs"},
        {"h2c", "--app-ssl=false", OUTR_APP_H2C, "h2c"},
    };
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(rows); i++) {
        PARSE(l, "--app-id=a", "--app-protocol", rows[i].given, rows[i].ssl);
        assert_good(&l);
        assert_int_equal(l.s.app_protocol, rows[i].protocol);
        assert_text(l.s.app_protocol_name, rows[i].name);
        done(&l);
    }
}

/* ---- sizes and numbers ---------------------------------------------------------------------- */

static void a_size_is_a_quantity_and_beats_its_deprecated_form(void **state)
{
    static const struct {
        const char *a, *b;
        int64_t body, buffer;
    } rows[] = {
        {"--max-body-size=1Mi", "--read-buffer-size=8Ki", 1048576, 8192},
        {"--max-body-size=-1", "--read-buffer-size=10k", 4 * 1048576, 10000},
        {"--max-body-size=0", "--read-buffer-size=16384", 0, 16384},
        {"--dapr-http-max-request-size=2", "--dapr-http-read-buffer-size=1", 2 * 1048576, 1024},
        {"--dapr-http-max-request-size=-1", "--dapr-http-read-buffer-size=-1", 4 * 1048576, 4096},
    };
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(rows); i++) {
        PARSE(l, "--app-id=a", rows[i].a, rows[i].b);
        assert_good(&l);
        assert_int_equal(l.s.max_body_bytes, rows[i].body);
        assert_int_equal(l.s.read_buffer_bytes, rows[i].buffer);
        done(&l);
    }
    PARSE(both, "--app-id=a", "--max-body-size=1Mi", "--dapr-http-max-request-size=9");
    assert_int_equal(both.s.max_body_bytes, OUTR_MIB);
    done(&both);
}

static void zero_probe_settings_mean_their_defaults(void **state)
{
    (void)state;
    PARSE(l, "--app-id=a", "--enable-app-health-check", "--app-health-probe-interval=0",
          "--app-health-threshold=0", "--app-max-concurrency=-1");
    assert_good(&l);
    assert_int_equal(l.s.app_health_interval_ns, 5 * OUTR_SEC);
    assert_int_equal(l.s.app_health_threshold, 3);
    assert_int_equal(l.s.app_max_concurrency, 0);
    done(&l);
}

static void durations_are_gos_and_negative_grace_is_the_default(void **state)
{
    (void)state;
    PARSE(l, "--app-id=a", "--dapr-block-shutdown-duration=1m30s",
          "--hot-reload-reconcile-interval=250ms", "--dapr-graceful-shutdown-seconds=-1");
    assert_good(&l);
    assert_int_equal(l.s.block_shutdown_ns, 90 * OUTR_SEC);
    assert_int_equal(l.s.reconcile_interval_ns, 250 * OUTR_MS);
    assert_int_equal(l.s.graceful_shutdown_ns, 5 * OUTR_SEC);
    done(&l);
    PARSE(none, "--app-id=a", "--dapr-graceful-shutdown-seconds=0");
    assert_int_equal(none.s.graceful_shutdown_ns, 0);
    done(&none);
}

/* ---- what is refused ------------------------------------------------------------------------ */

static void syntax_errors_end_with_2_and_name_the_flag(void **state)
{
    static const struct {
        const char *arg, *names;
    } rows[] = {
        {"--no-such-flag", "no-such-flag"},
        {"-no-such-flag=1", "no-such-flag"},
        {"---app-id=a", "app-id"},
        {"stray", "stray"},
        {"--", "--"},
        {"-", "-"},
        {"--=x", "unknown flag"},
        {"--app-port=65536", "app-port"},
        {"--app-port=-1", "app-port"},
        {"--app-port=http", "app-port"},
        {"--app-port=80 ", "app-port"},
        {"--app-max-concurrency=many", "app-max-concurrency"},
        {"--app-max-concurrency=", "app-max-concurrency"},
        {"--app-health-threshold=2147483648", "app-health-threshold"},
        {"--max-body-size=4Q", "max-body-size"},
        {"--max-body-size=", "max-body-size"},
        {"--dapr-block-shutdown-duration=5", "dapr-block-shutdown-duration"},
        {"--log-as-json=perhaps", "log-as-json"},
        {"--enable-api-logging=perhaps", "enable-api-logging"},
        {"--log-level=loud", "log-level"},
        {"--app-protocol=soap", "app-protocol"},
        {"--disable-builtin-k8s-secret-store=perhaps", "disable-builtin-k8s-secret-store"},
        {"--app-id", "app-id"},
    };
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(rows); i++) {
        PARSE(l, "--app-id=a", rows[i].arg);
        assert_bad(&l, 2, rows[i].names);
        done(&l);
    }
}

static void impossible_settings_end_with_1_and_say_why(void **state)
{
    static const struct {
        const char *a, *b, *names;
    } rows[] = {
        {"--app-id=", "--log-level=info", "app-id"},
        {"--app-id=a.b", "--log-level=info", "dot"},
        {"--app-id=a", "--mode=kubernetes", "kubernetes"},
        {"--app-id=a", "--mode=other", "other"},
        {"--app-id=a", "--app-port=3500", "app-port"},
        {"--app-id=a", "--app-port=50001", "dapr-grpc-port"},
        {"--app-id=a", "--metrics-port=3500", "metrics-port"},
        {"--app-id=a", "--dapr-public-port=9090", "dapr-public-port"},
        {"--app-id=a", "--dapr-internal-grpc-port=3500", "dapr-internal-grpc-port"},
        {"--app-id=a", "--dapr-block-shutdown-duration=-1s", "negative"},
        {"--app-id=a", "--hot-reload-reconcile-interval=-1s", "negative"},
    };
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(rows); i++) {
        PARSE(l, rows[i].a, rows[i].b);
        assert_bad(&l, 1, rows[i].names);
        done(&l);
    }
    PARSE(probe, "--app-id=a", "--enable-app-health-check", "--app-health-probe-interval=1",
          "--app-health-probe-timeout=1001");
    assert_bad(&probe, 1, "app-health-probe-timeout");
    done(&probe);
}

static void a_probe_may_take_as_long_as_the_interval(void **state)
{
    (void)state;
    PARSE(l, "--app-id=a", "--enable-app-health-check", "--app-health-probe-interval=1",
          "--app-health-probe-timeout=1000");
    assert_good(&l);
    done(&l);
    PARSE(off, "--app-id=a", "--app-health-probe-timeout=900000");
    assert_good(&off);
    done(&off);
}

static void ports_of_servers_that_are_off_do_not_collide(void **state)
{
    (void)state;
    PARSE(metrics, "--app-id=a", "--app-port=9090", "--enable-metrics=false");
    assert_good(&metrics);
    done(&metrics);
    PARSE(sockets, "--app-id=a", "--app-port=3500", "--unix-domain-socket=/tmp");
    assert_good(&sockets);
    done(&sockets);
}

static void help_version_and_wait_need_no_app_id(void **state)
{
    static const char *const flags[] = {"--help", "--version", "--build-info", "--wait"};
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(flags); i++) {
        PARSE(l, flags[i]);
        assert_good(&l);
        done(&l);
    }
}

/* ---- the certificate authority --------------------------------------------------------------- */

static void the_control_plane_is_named_by_flags_and_variables(void **state)
{
    char *const envp[] = {"DAPR_CONTROLPLANE_TRUST_DOMAIN=cp.example",
                          "DAPR_CONTROLPLANE_NAMESPACE=plane", "DAPR_TRUST_ANCHORS=pem",
                          "OUTRIGGER_TRUST_ANCHORS_FILE=/f", "DAPR_SENTRY_TOKEN_FILE=/t",
                          "SENTRY_LOCAL_IDENTITY=other", NULL};
    (void)state;
    PARSE(none, "--app-id=a");
    assert_good(&none);
    assert_text(none.s.control_plane_trust_domain, "localhost");
    assert_text(none.s.control_plane_namespace, "default");
    assert_int_equal(none.s.trust_anchors.n + none.s.sentry_identity.n, 0);
    done(&none);
    PARSE_ENV(l, envp, "--app-id=a", "--sentry-address=h:1", "--enable-mtls",
              "--control-plane-namespace=flag", "--sentry-request-jwt-audiences=a,b");
    assert_good(&l);
    assert_true(l.s.enable_mtls);
    assert_text(l.s.sentry_address, "h:1");
    assert_text(l.s.control_plane_trust_domain, "cp.example");
    assert_text(l.s.control_plane_namespace, "flag");
    assert_text(l.s.trust_anchors, "pem");
    assert_text(l.s.trust_anchors_file, "/f");
    assert_text(l.s.sentry_token_file, "/t");
    assert_text(l.s.sentry_identity, "other");
    assert_int_equal(l.s.sentry_audiences.count, 2);
    done(&l);
}

/* ---- what has no function yet --------------------------------------------------------------- */

static void what_has_no_function_yet_is_noted_with_whether_it_was_the_default(void **state)
{
    (void)state;
    PARSE(l, "--app-id=a", "--control-plane-address=host:1",
          "--placement-host-address=", "--scheduler-job-streams=3", "--enable-profiling",
          "--enable-profiling=false");
    assert_good(&l);
    assert_int_equal(l.s.unused_count, 4);
    assert_text(l.s.unused[0].text, "--control-plane-address=host:1");
    assert_false(l.s.unused[0].is_default);
    assert_true(l.s.unused[1].is_default);
    assert_true(l.s.unused[2].is_default);
    assert_text(l.s.unused[3].text, "--enable-profiling=false");
    assert_true(l.s.unused[3].is_default);
    done(&l);
}

static void a_variable_without_function_yet_is_noted_by_its_name_alone(void **state)
{
    char *const envp[] = {"POD_NAME=secret", "DAPR_SCHEDULER_HOST_ADDRESS_DNS_A=a",
                          "DAPR_UNSAFE_SKIP_CONTAINER_UID_GID_CHECK=", "HOME=/root", NULL};
    (void)state;
    PARSE_ENV(l, envp, "--app-id=a");
    assert_good(&l);
    assert_int_equal(l.s.unused_count, 3);
    for (size_t i = 0; i < l.s.unused_count; i++) {
        bool is_empty = outr_str_is(l.s.unused[i].text,
                                    "DAPR_UNSAFE_SKIP_CONTAINER_UID_GID_CHECK");
        assert_int_equal(outr_str_find(l.s.unused[i].text, '='), -1);
        assert_int_equal(l.s.unused[i].is_default, is_empty);
    }
    done(&l);
}

/* ---- environment ---------------------------------------------------------------------------- */

static void variables_reach_the_settings(void **state)
{
    char *const envp[] = {"NAMESPACE=prod",          "DAPR_API_TOKEN= secret ",
                          "APP_API_TOKEN=other",     "DAPR_HOST_IP=10.0.0.1",
                          "DAPR_ENV_KEYS=A B",       "DAPR_HTTP_DISABLE_H2C=on",
                          "OUTRIGGER_LOOPS=3",       "OUTRIGGER_METRICS_MAX_VALUES=7",
                          "NAMESPACE_=not this one", NULL};
    (void)state;
    PARSE_ENV(l, envp, "--app-id=a");
    assert_text(l.s.namespace_, "prod");
    assert_true(l.s.has_namespace);
    assert_text(l.s.api_token, "secret");
    assert_text(l.s.app_token, "other");
    assert_text(l.s.host_ip, "10.0.0.1");
    assert_text(l.s.env_keys, "A B");
    assert_false(l.s.enable_h2c);
    assert_int_equal(l.s.loops, 3);
    assert_int_equal(l.s.metrics_max_values, 7);
    done(&l);
}

static void words_that_turn_h2c_off(void **state)
{
    static const struct {
        char *variable;
        bool is_off;
    } rows[] = {{"DAPR_HTTP_DISABLE_H2C=y", true},     {"DAPR_HTTP_DISABLE_H2C=yes", true},
                {"DAPR_HTTP_DISABLE_H2C=true", true},  {"DAPR_HTTP_DISABLE_H2C=t", true},
                {"DAPR_HTTP_DISABLE_H2C=on", true},    {"DAPR_HTTP_DISABLE_H2C=1", true},
                {"DAPR_HTTP_DISABLE_H2C=YES", true},   {"DAPR_HTTP_DISABLE_H2C=false", false},
                {"DAPR_HTTP_DISABLE_H2C=", false},     {"DAPR_HTTP_DISABLE_H2C=2", false},
                {"DAPR_HTTP_DISABLE_H2C=maybe", false}};
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(rows); i++) {
        char *const envp[] = {rows[i].variable, NULL};
        PARSE_ENV(l, envp, "--app-id=a");
        assert_good(&l);
        assert_int_equal(l.s.enable_h2c, !rows[i].is_off);
        done(&l);
    }
}

static void nonsense_in_our_own_variables_leaves_the_defaults(void **state)
{
    char *const envp[] = {"OUTRIGGER_LOOPS=0", "OUTRIGGER_METRICS_MAX_VALUES=-1", NULL};
    char *const huge[] = {"OUTRIGGER_LOOPS=65", "OUTRIGGER_METRICS_MAX_VALUES=99999999999999999999",
                          NULL};
    (void)state;
    PARSE_ENV(l, envp, "--app-id=a");
    assert_true(l.s.loops >= 1 && l.s.loops <= 64);
    assert_int_equal(l.s.metrics_max_values, 100);
    done(&l);
    PARSE_ENV(h, huge, "--app-id=a");
    assert_true(h.s.loops >= 1 && h.s.loops <= 64);
    assert_int_equal(h.s.metrics_max_values, 100);
    done(&h);
}

/* ---- the tables of the contract ------------------------------------------------------------- */

static const char *value_for(const char *flag, const char *type)
{
    static const struct {
        const char *flag, *value;
    } special[] = {
        {"--mode", "standalone"},      {"--app-protocol", "grpc"},
        {"--log-level", "debug"},      {"--app-port", "12345"},
        {"--dapr-http-port", "12345"}, {"--dapr-grpc-port", "12345"},
        {"--metrics-port", "12345"},   {"--dapr-internal-grpc-port", "12345"},
        {"--profile-port", "12345"},   {"--dapr-public-port", "12345"},
    };
    static const struct {
        const char *type, *value;
    } usual[] = {
        {"int", "2"}, {"uint", "2"}, {"duration", "3s"}, {"quantity", "5Mi"}, {"bool", "true"}};
    for (size_t i = 0; i < OUTR_LEN(special); i++) {
        if (strcmp(flag, special[i].flag) == 0)
            return special[i].value;
    }
    for (size_t i = 0; i < OUTR_LEN(usual); i++) {
        if (strncmp(type, usual[i].type, strlen(usual[i].type)) == 0)
            return usual[i].value;
    }
    return "text";
}

static void must_take(const char *a, const char *b)
{
    line l;
    parse(&l, NULL, "--app-id=a", a, b, (const char *)NULL);
    if (l.rc)
        fail_msg("%s %s: %s", a, b ? b : "", l.err.text);
    done(&l);
}

static void every_flag_of_the_contract_is_taken_in_every_form(void **state)
{
    table t;
    char text[256];
    (void)state;
    if (!table_open(&t, TABLE_CONTRACT("cli-flags.csv")))
        skip();
    size_t flags = 0;
    for (char *cells[8]; table_next(&t, cells, 8) >= 2;) {
        if (strncmp(cells[0], "--", 2))
            continue;
        const char *value = value_for(cells[0], cells[1]);
        flags++;
        for (int dash = 0; dash < 2; dash++) {
            const char *name = cells[0] + dash;
            snprintf(text, sizeof text, "%s=%s", name, value);
            must_take(text, NULL);
            if (strncmp(cells[1], "bool", 4)) {
                must_take(name, value);
            } else {
                must_take(name, NULL);
                snprintf(text, sizeof text, "%s=false", name);
                must_take(text, NULL);
            }
        }
    }
    assert_true(flags > 50);
    table_close(&t);
}

static void every_variable_of_the_contract_is_taken(void **state)
{
    table t;
    char text[256];
    (void)state;
    if (!table_open(&t, TABLE_CONTRACT("env.csv")))
        skip();
    size_t variables = 0;
    for (char *cells[8]; table_next(&t, cells, 8) >= 2;) {
        if (strcmp(cells[1], "read by daprd") || cells[0][0] == '(')
            continue;
        snprintf(text, sizeof text, "%s=1", cells[0]);
        char *const envp[] = {text, NULL};
        static const char *const used[] = {"DAPR_API_TOKEN", "APP_API_TOKEN",
                                           "NAMESPACE",      "DAPR_HOST_IP",
                                           "DAPR_ENV_KEYS",  "DAPR_HTTP_DISABLE_H2C",
                                           "DAPR_COMPONENTS_SOCKETS_FOLDER",
                                           "DAPR_TRUST_ANCHORS", "DAPR_CONTROLPLANE_NAMESPACE",
                                           "DAPR_CONTROLPLANE_TRUST_DOMAIN",
                                           "DAPR_SENTRY_TOKEN_FILE", "SENTRY_LOCAL_IDENTITY"};
        bool is_used = strncmp(cells[0], "OTEL_", 5) == 0; /* config/kinds/tracing.c */
        for (size_t i = 0; i < OUTR_LEN(used); i++)
            is_used |= strcmp(cells[0], used[i]) == 0;
        PARSE_ENV(l, envp, "--app-id=a");
        assert_good(&l);
        if (!is_used && l.s.unused_count != 1)
            fail_msg("%s has no function and nothing says so", cells[0]);
        done(&l);
        variables++;
    }
    assert_true(variables > 20);
    table_close(&t);
}

static void help_names_every_flag(void **state)
{
    OUTR_AUTO(outr_buf) help = OUTR_BUF_MAX(OUTR_MIB);
    (void)state;
    outr_settings_help(&help);
    assert_true(outr_str_search(outr_buf_view(&help), OUTR_STR("--app-id")) > 0);
    assert_true(outr_str_search(outr_buf_view(&help), OUTR_STR("(default 3500)")) > 0);
    assert_true(outr_str_search(outr_buf_view(&help), OUTR_STR("no function yet")) > 0);
}

static void labels_come_from_the_flag_or_the_environment(void **state)
{
    char *envp[] = {"OUTRIGGER_LABELS=version=1", NULL};
    (void)state;
    PARSE_ENV(l, envp, "--app-id", "a");
    assert_good(&l);
    assert_int_equal(l.s.labels.count, 1);
    assert_text(l.s.labels.items[0].value, "1");
    PARSE_ENV(flag, envp, "--app-id", "a", "--labels", "version=2,zone=a");
    assert_good(&flag);
    assert_int_equal(flag.s.labels.count, 2);
    assert_text(flag.s.labels.items[0].value, "2");
    PARSE(bad, "--app-id", "a", "--labels", "version");
    assert_bad(&bad, 1, "--labels: \"version\" is no label: NAME=VALUE");
    done(&l);
    done(&flag);
    done(&bad);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(labels_come_from_the_flag_or_the_environment),
        cmocka_unit_test(defaults_are_those_of_the_contract),
        cmocka_unit_test(a_flag_takes_one_dash_or_two_and_equals_or_space),
        cmocka_unit_test(a_boolean_is_bare_or_has_a_value),
        cmocka_unit_test(a_bare_boolean_does_not_eat_the_next_flag),
        cmocka_unit_test(a_value_may_hold_equals_signs_and_dashes),
        cmocka_unit_test(the_last_of_a_repeated_flag_wins),
        cmocka_unit_test(lists_repeat_and_address_lists_are_split_at_commas),
        cmocka_unit_test(more_list_values_than_there_is_room_for_are_an_error),
        cmocka_unit_test(the_protocol_is_read_without_case_and_app_ssl_adds_tls),
        cmocka_unit_test(a_size_is_a_quantity_and_beats_its_deprecated_form),
        cmocka_unit_test(zero_probe_settings_mean_their_defaults),
        cmocka_unit_test(durations_are_gos_and_negative_grace_is_the_default),
        cmocka_unit_test(syntax_errors_end_with_2_and_name_the_flag),
        cmocka_unit_test(impossible_settings_end_with_1_and_say_why),
        cmocka_unit_test(a_probe_may_take_as_long_as_the_interval),
        cmocka_unit_test(ports_of_servers_that_are_off_do_not_collide),
        cmocka_unit_test(help_version_and_wait_need_no_app_id),
        cmocka_unit_test(the_control_plane_is_named_by_flags_and_variables),
        cmocka_unit_test(what_has_no_function_yet_is_noted_with_whether_it_was_the_default),
        cmocka_unit_test(a_variable_without_function_yet_is_noted_by_its_name_alone),
        cmocka_unit_test(variables_reach_the_settings),
        cmocka_unit_test(words_that_turn_h2c_off),
        cmocka_unit_test(nonsense_in_our_own_variables_leaves_the_defaults),
        cmocka_unit_test(every_flag_of_the_contract_is_taken_in_every_form),
        cmocka_unit_test(every_variable_of_the_contract_is_taken),
        cmocka_unit_test(help_names_every_flag),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
