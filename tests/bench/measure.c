#include "bench/measure.h"

#include <stdlib.h>
#include <time.h>

#include "lib/folder.h"

#define ROUNDS 9

void measure_fail(const char *text)
{
    fprintf(stderr, "%s\n", text);
    exit(1);
}

double measure_cpu_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double measure_calls(unsigned calls, void (*call)(void *ctx, unsigned i), void *ctx)
{
    double rounds[ROUNDS];
    for (unsigned i = 0; i < calls / 2; i++)
        call(ctx, i);
    for (size_t r = 0; r < ROUNDS; r++) {
        double before = measure_cpu_ns();
        for (unsigned i = 0; i < calls; i++)
            call(ctx, i);
        rounds[r] = (measure_cpu_ns() - before) / calls;
    }
    qsort(rounds, ROUNDS, sizeof rounds[0], by_value);
    return rounds[ROUNDS / 2];
}

void measure_print_us(const char *name, double ns)
{
    printf("{\"name\": \"%s\", \"us\": %.3f}\n", name, ns / 1000);
    fflush(stdout);
}

outr_snapshot *measure_load(const char *app_id, const char *head, const char *item, unsigned count)
{
    OUTR_AUTO(outr_buf) text = OUTR_BUF_MAX(4 * OUTR_MIB);
    OUTR_AUTO(outr_err_list) errors = {0};
    OUTR_AUTO(outr_err_list) warnings = {0};
    outr_settings settings = {.app_id = outr_str_from(app_id)};
    outr_snapshot *snapshot;
    folder f;
    outr_buf_z(&text, head);
    for (unsigned i = 0; i < count; i++) {
        for (const char *p = item; *p; p++) {
            if (*p == '%')
                outr_buf_printf(&text, "%u", i);
            else
                outr_buf_char(&text, *p);
        }
        outr_buf_char(&text, '\n');
    }
    outr_buf_char(&text, 0);
    if (text.is_full)
        measure_fail("too long");
    folder_make(&f);
    folder_write(&f, "policy.yaml", text.p);
    settings.resources_paths.items[0] = outr_str_from(f.path);
    settings.resources_paths.count = 1;
    if (outr_snapshot_load(&snapshot, &settings, NULL, &errors, &warnings))
        measure_fail(errors.items[0].text);
    folder_remove(&f);
    return snapshot;
}
