#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "lib/wire.h"
#include "observe/exposition.h"
#include "observe/health.h"

static const outr_metric_desc calls = {"calls_total", "calls", OUTR_COUNTER, 0, {"path"}};

/* What a scrape of metrics is answered, NUL-terminated; the caller's. */
static outr_buf scrape(outr_metrics *metrics, const char *request)
{
    outr_buf out = OUTR_BUF_MAX(16 * OUTR_MIB);
    wire w;
    size_t n;
    wire_init(&w, 1);
    const outr_http_server_options o = {
        .loop = w.loop, .handler = &outr_exposition_handler, .ctx = metrics, .allow_h1 = true};
    outr_http_server *server = outr_http_server_new(&o);
    wire_stream *s = wire_open(&w);
    outr_http_server_take(server, &s->base);
    wire_feed_z(s, request);
    wire_run(&w);
    const char *text = wire_take(s, &n);
    outr_buf_append(&out, text, n + 1);
    outr_http_server_free(server);
    wire_done(&w);
    return out;
}

static outr_metrics *metrics_with(const char *path, unsigned times)
{
    const outr_metrics_options o = {.app_id = OUTR_STR("app"), .shard_count = 1, .max_values = 2};
    const outr_str value = outr_str_from(path);
    outr_metrics *metrics = outr_metrics_new(&o);
    for (unsigned i = 0; i < times; i++)
        outr_metric_count(outr_metrics_shard(metrics, 0), &calls, &value, 1);
    return metrics;
}

static void any_path_answers_the_text_format(void **state)
{
    outr_metrics *metrics = metrics_with("/a", 3);
    (void)state;
    OUTR_AUTO(outr_buf) out = scrape(metrics, "GET /whatever HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_non_null(strstr(out.p, "HTTP/1.1 200"));
    assert_non_null(strstr(out.p, "Content-Type: text/plain; version=0.0.4; charset=utf-8"));
    assert_non_null(strstr(out.p, "# HELP calls_total calls\n# TYPE calls_total counter\n"));
    assert_non_null(strstr(out.p, "calls_total{app_id=\"app\",path=\"/a\"} 3\n"));
    assert_non_null(strstr(out.p, "\nprocess_cpu_seconds_total "));
    assert_non_null(strstr(out.p, "\nprocess_open_fds "));
    outr_metrics_free(metrics);
}

/* Every line is a comment or name{labels} value: what a label holds never begins a line. */
static void no_label_breaks_its_line(void **state)
{
    outr_metrics *metrics = metrics_with("a\nevil_total 1\n\"} 2\\", 1);
    (void)state;
    OUTR_AUTO(outr_buf) out = scrape(metrics, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    char *body = strstr(out.p, "\r\n\r\n");
    assert_non_null(body);
    assert_non_null(strstr(body, "path=\"a\\nevil_total 1\\n\\\"} 2\\\\\"} 1\n"));
    assert_null(strstr(body, "\nevil_total"));
    outr_str rest = outr_str_from(body + 4), line;
    while (rest.p) {
        rest = outr_str_cut(rest, '\n', &line);
        if (line.n == 0 || line.p[0] == '#')
            continue;
        double value;
        ptrdiff_t space = outr_str_rfind(line, ' ');
        assert_true(space > 0);
        if (!outr_str_to_double(outr_str_skip(line, (size_t)space + 1), &value))
            fail_msg("no value at the end of: " OUTR_FMT, OUTR_ARG(line));
    }
    outr_metrics_free(metrics);
}

static void a_flood_of_values_becomes_other(void **state)
{
    outr_metrics *metrics = metrics_with("/a", 1);
    (void)state;
    for (int i = 0; i < 500; i++) {
        char text[20];
        const outr_str value = {text, (size_t)snprintf(text, sizeof text, "/%d", i)};
        outr_metric_count(outr_metrics_shard(metrics, 0), &calls, &value, 1);
    }
    OUTR_AUTO(outr_buf) out = scrape(metrics, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_non_null(strstr(out.p, "path=\"/0\"} 1\n"));
    assert_null(strstr(out.p, "path=\"/1\"}"));
    assert_non_null(strstr(out.p, "path=\"other\"} 499\n"));
    outr_metrics_free(metrics);
}

static void health_names_what_is_missing(void **state)
{
    OUTR_AUTO(outr_buf) some = OUTR_BUF_MAX(OUTR_KIB), none = OUTR_BUF_MAX(OUTR_KIB);
    outr_health health = {0};
    (void)state;
    for (int i = 0; i < OUTR_HEALTH_COUNT; i++) {
        if (i != OUTR_HEALTH_GRPC_API && i != OUTR_HEALTH_SECURITY && i != OUTR_HEALTH_OUTBOUND)
            outr_health_set(&health, (outr_health_target)i, true);
    }
    assert_false(outr_health_is_ready(&health));
    outr_health_missing(&health, &some);
    assert_true(outr_str_is(outr_buf_view(&some), "[grpc-api-server security-provider]"));
    outr_health_set(&health, OUTR_HEALTH_GRPC_API, true);
    outr_health_set(&health, OUTR_HEALTH_SECURITY, true);
    assert_true(outr_health_is_ready(&health)); /* whatever the app does */
    assert_false(outr_health_is_outbound_ready(&health));
    outr_health_missing(&health, &none);
    assert_true(outr_str_is(outr_buf_view(&none), "[]"));
    outr_health_set(&health, OUTR_HEALTH_OUTBOUND, true);
    outr_health_set(&health, OUTR_HEALTH_METRICS, false);
    assert_true(outr_health_is_outbound_ready(&health));
    assert_false(outr_health_is_ready(&health));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_path_answers_the_text_format),
        cmocka_unit_test(no_label_breaks_its_line),
        cmocka_unit_test(a_flood_of_values_becomes_other),
        cmocka_unit_test(health_names_what_is_missing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
