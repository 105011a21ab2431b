#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/metric.h"

static const outr_metric_desc calls = {"calls_total", "calls", OUTR_COUNTER, 0, {"method", "path"}};
static const outr_metric_desc twin = {"twins_total", "twins", OUTR_COUNTER, 0, {"method", "path"}};
static const outr_metric_desc latency = {
    "latency_ms", "time", OUTR_HISTOGRAM, OUTR_BUCKETS_LATENCY_MS, {"path"}};

static outr_metrics *open_metrics(size_t shards, size_t max_values)
{
    const outr_metrics_options o = {
        .app_id = OUTR_STR("a\"b"), .shard_count = shards, .max_values = max_values};
    return outr_metrics_new(&o);
}

/* The exposition, NUL-terminated; the caller's. */
static outr_buf write(outr_metrics *m)
{
    outr_buf out = OUTR_BUF_MAX(4 * OUTR_MIB);
    outr_metrics_write(m, &out);
    outr_buf_char(&out, 0);
    return out;
}

static void count(outr_metric_shard *shard, const outr_metric_desc *desc, const char *method,
                  const char *path)
{
    const outr_str values[] = {outr_str_from(method), outr_str_from(path)};
    outr_metric_count(shard, desc, values, 1);
}

static size_t lines_with(const char *text, const char *what)
{
    size_t n = 0;
    for (const char *p = text; (p = strstr(p, what)); p++)
        n++;
    return n;
}

static void shards_are_added_up_and_labels_escaped_and_sorted(void **state)
{
    outr_metrics *m = open_metrics(2, 0);
    (void)state;
    for (size_t i = 0; i < 4; i++)
        count(outr_metrics_shard(m, i % 2), &calls, "GET", "/a\n\\");
    OUTR_AUTO(outr_buf) out = write(m);
    assert_non_null(strstr(out.p, "# TYPE calls_total counter\n"));
    assert_non_null(
        strstr(out.p, "calls_total{app_id=\"a\\\"b\",method=\"GET\",path=\"/a\\n\\\\\"} 4\n"));
    outr_metrics_free(m);
}

static void series_that_look_alike_are_told_apart(void **state)
{
    outr_metrics *m = open_metrics(1, 0);
    outr_metric_shard *shard = outr_metrics_shard(m, 0);
    (void)state;
    for (int i = 0; i < 3;
         i++) { /* same lengths, same last bytes: all in one place of the short memory */
        count(shard, &calls, "GET", "/ax");
        count(shard, &calls, "PUT", "/ax");
        count(shard, &calls, "GET", "/bx");
        count(shard, &twin, "GET", "/ax");
    }
    OUTR_AUTO(outr_buf) out = write(m);
    assert_int_equal(lines_with(out.p, "} 3\n"), 4);
    outr_metrics_free(m);
}

static void a_label_takes_so_many_values_and_then_other(void **state)
{
    outr_metrics *m = open_metrics(1, 10);
    (void)state;
    for (int i = 0; i < 1000; i++) {
        char path[20];
        snprintf(path, sizeof path, "/%d", i);
        count(outr_metrics_shard(m, 0), &calls, "GET", path);
        count(outr_metrics_shard(m, 0), &calls, "GET", path);
    }
    OUTR_AUTO(outr_buf) out = write(m);
    assert_int_equal(lines_with(out.p, "calls_total{"), 11);
    assert_non_null(strstr(out.p, "path=\"other\"} 1980\n"));
    outr_metrics_free(m);
}

static void a_histogram_is_cumulative_and_resolves_below_a_millisecond(void **state)
{
    static const double values[] = {0.05, 0.2, 0.2, 3, 1e9};
    const outr_str path = OUTR_STR("/x");
    outr_metrics *m = open_metrics(1, 0);
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(values); i++)
        outr_metric_count(outr_metrics_shard(m, 0), &latency, &path, values[i]);
    OUTR_AUTO(outr_buf) out = write(m);
    assert_non_null(strstr(out.p, "le=\"0.1\"} 1\n"));
    assert_non_null(strstr(out.p, "le=\"0.25\"} 3\n"));
    assert_non_null(strstr(out.p, "le=\"2\"} 3\n"));
    assert_non_null(strstr(out.p, "le=\"3\"} 4\n"));
    assert_non_null(strstr(out.p, "le=\"+Inf\"} 5\n"));
    assert_non_null(strstr(out.p, "latency_ms_count{app_id=\"a\\\"b\",path=\"/x\"} 5\n"));
    outr_metrics_free(m);
}

static void without_metrics_counting_is_nothing(void **state)
{
    (void)state;
    count(NULL, &calls, "GET", "/");
    outr_metric_add(outr_metric_series_get(NULL, &calls, NULL), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shards_are_added_up_and_labels_escaped_and_sorted),
        cmocka_unit_test(series_that_look_alike_are_told_apart),
        cmocka_unit_test(a_label_takes_so_many_values_and_then_other),
        cmocka_unit_test(a_histogram_is_cumulative_and_resolves_below_a_millisecond),
        cmocka_unit_test(without_metrics_counting_is_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
