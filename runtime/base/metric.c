#include "base/metric.h"

#include <pthread.h>

#include "base/map.h"

#define MAX_VALUES_DEFAULT 100
#define OTHER              "other"
#define RECENT             64 /* a power of two */

static const double latency_ms[] = {0.1,  0.25, 0.5,  1,     2,     3,     4,     5,   6,   8,
                                    10,   13,   16,   20,    25,    30,    40,    50,  65,  80,
                                    100,  130,  160,  200,   250,   300,   400,   500, 650, 800,
                                    1000, 2000, 5000, 10000, 20000, 50000, 100000};
static const double sizes[] = {1 << 10,   2 << 10, 4 << 10,     16 << 10, 64 << 10,
                               256 << 10, 1 << 20, 4 << 20,     16 << 20, 64 << 20,
                               256 << 20, 1 << 30, 4294967296.0};
static const double ratios[] = {0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1, 1.5, 2};

struct outr_metric_series {
    const outr_metric_desc *desc;
    outr_str values[OUTR_METRIC_LABELS_MAX]; /* owned */
    size_t value_count;
    double value; /* counter, gauge; histogram: sum. One writer */
    const double *bounds;
    uint64_t *buckets; /* per bound, and one for +Inf; not cumulative */
    size_t bound_count;
};

/* One family in one shard: its series by their joined label values. */
typedef struct family {
    const outr_metric_desc *desc;
    outr_map *series;
    outr_map *seen[OUTR_METRIC_LABELS_MAX]; /* distinct values per label */
} family;

struct outr_metric_shard {
    outr_metrics *metrics;
    /* What was looked up lately, so that a request's next one finds it without lock or key. The
     * writer's alone; a slot is chosen by family and labels. */
    outr_metric_series *recent[RECENT];
    /* A lock: taken to add a series and to scrape, not to count. */
    pthread_mutex_t lock;
    outr_map *families; /* by name */
};

struct outr_metrics {
    char *app_id;
    size_t max_values, shard_count;
    double *latency;
    size_t latency_count;
    outr_metric_shard *shards;
    outr_metric_write_fn *look_up; /* NULL: nothing is */
    void *look_up_ctx;
};

/* Where counting goes when metrics are off. */
static outr_metric_series nowhere;

outr_metrics *outr_metrics_new(const outr_metrics_options *options)
{
    outr_metrics *m = outr_alloc(sizeof *m);
    const double *bounds = options->latency_bucket_count ? options->latency_buckets_ms : latency_ms;
    m->latency_count =
        options->latency_bucket_count ? options->latency_bucket_count : OUTR_LEN(latency_ms);
    m->latency = outr_alloc(m->latency_count * sizeof *m->latency);
    memcpy(m->latency, bounds, m->latency_count * sizeof *m->latency);
    m->app_id = outr_str_dup(options->app_id);
    m->max_values = options->max_values ? options->max_values : MAX_VALUES_DEFAULT;
    m->shard_count = options->shard_count;
    m->shards = outr_alloc(m->shard_count * sizeof *m->shards);
    for (size_t i = 0; i < m->shard_count; i++) {
        m->shards[i].metrics = m;
        pthread_mutex_init(&m->shards[i].lock, NULL);
        m->shards[i].families = outr_map_new();
    }
    return m;
}

static void free_series(outr_metric_series *s)
{
    for (size_t i = 0; i < s->value_count; i++)
        free((void *)s->values[i].p);
    free(s->buckets);
    free(s);
}

static void free_family(family *f)
{
    void *item;
    for (size_t at = 0; outr_map_next(f->series, &at, NULL, &item);)
        free_series(item);
    outr_map_free(f->series);
    for (size_t i = 0; i < OUTR_METRIC_LABELS_MAX; i++)
        outr_map_free(f->seen[i]);
    free(f);
}

void outr_metrics_free(outr_metrics *m)
{
    if (!m)
        return;
    for (size_t i = 0; i < m->shard_count; i++) {
        void *item;
        for (size_t at = 0; outr_map_next(m->shards[i].families, &at, NULL, &item);)
            free_family(item);
        outr_map_free(m->shards[i].families);
        pthread_mutex_destroy(&m->shards[i].lock);
    }
    free(m->shards);
    free(m->latency);
    free(m->app_id);
    free(m);
}

outr_metric_shard *outr_metrics_shard(outr_metrics *metrics, size_t index)
{
    return &metrics->shards[index];
}

static size_t label_count(const outr_metric_desc *desc)
{
    size_t n = 0;
    while (n < OUTR_METRIC_LABELS_MAX && desc->labels[n])
        n++;
    return n;
}

static family *find_family(outr_metric_shard *shard, const outr_metric_desc *desc)
{
    outr_str name = outr_str_from(desc->name);
    family *f = outr_map_get(shard->families, name);
    if (f)
        return f;
    f = outr_alloc(sizeof *f);
    f->desc = desc;
    f->series = outr_map_new();
    outr_map_put(shard->families, name, f);
    return f;
}

/* The value, or "other" when this label of this family has had its share of distinct ones. */
static outr_str bounded(family *f, size_t label, outr_str value, size_t max)
{
    if (!f->seen[label])
        f->seen[label] = outr_map_new();
    if (outr_map_get(f->seen[label], value))
        return value;
    if (outr_map_count(f->seen[label]) >= max)
        return OUTR_STR(OTHER);
    outr_map_put(f->seen[label], value, f);
    return value;
}

static void choose_bounds(const outr_metrics *m, outr_metric_series *s)
{
    switch (s->desc->buckets) {
    case OUTR_BUCKETS_LATENCY_MS:
        s->bounds = m->latency;
        s->bound_count = m->latency_count;
        break;
    case OUTR_BUCKETS_BYTES:
        s->bounds = sizes;
        s->bound_count = OUTR_LEN(sizes);
        break;
    case OUTR_BUCKETS_RATIO:
        s->bounds = ratios;
        s->bound_count = OUTR_LEN(ratios);
        break;
    }
    s->buckets = outr_alloc((s->bound_count + 1) * sizeof *s->buckets);
}

/* Label values joined with a byte that UTF-8 never has. */
static void join(outr_buf *key, const outr_str *values, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        outr_buf_str(key, values[i]);
        outr_buf_char(key, (char)0xff);
    }
}

static outr_metric_series *get_locked(outr_metric_shard *shard, const outr_metric_desc *desc,
                                      const outr_str *values)
{
    size_t count = label_count(desc);
    family *f = find_family(shard, desc);
    outr_str kept[OUTR_METRIC_LABELS_MAX];
    OUTR_AUTO(outr_buf) key = OUTR_BUF_MAX(64 * OUTR_KIB);
    join(&key, values, count);
    outr_metric_series *s = outr_map_get(f->series, outr_buf_view(&key));
    if (s)
        return s;
    key.n = 0;
    for (size_t i = 0; i < count; i++)
        kept[i] = bounded(f, i, values[i], shard->metrics->max_values);
    join(&key, kept, count);
    s = outr_map_get(f->series, outr_buf_view(&key));
    if (s)
        return s;
    s = outr_alloc(sizeof *s);
    s->desc = desc;
    s->value_count = count;
    for (size_t i = 0; i < count; i++)
        s->values[i] = outr_str_of(outr_str_dup(kept[i]), kept[i].n);
    if (desc->kind == OUTR_HISTOGRAM)
        choose_bounds(shard->metrics, s);
    outr_map_put(f->series, outr_buf_view(&key), s);
    return s;
}

/* Cheap rather than good: families differ in their address, labels mostly in length and last byte.
 */
static outr_metric_series **recent_slot(outr_metric_shard *shard, const outr_metric_desc *desc,
                                        const outr_str *values, size_t count)
{
    size_t hash = (uintptr_t)desc / sizeof *desc;
    for (size_t i = 0; i < count; i++)
        hash = hash * 31 + values[i].n +
               (values[i].n ? (unsigned char)values[i].p[values[i].n - 1] : 0);
    return &shard->recent[hash & (RECENT - 1)];
}

static bool is_same(const outr_metric_series *s, const outr_metric_desc *desc,
                    const outr_str *values)
{
    if (!s || s->desc != desc)
        return false;
    for (size_t i = 0; i < s->value_count; i++) {
        if (!outr_str_eq(s->values[i], values[i]))
            return false;
    }
    return true;
}

outr_metric_series *outr_metric_series_get(outr_metric_shard *shard, const outr_metric_desc *desc,
                                           const outr_str *values)
{
    if (!shard)
        return &nowhere;
    outr_metric_series **recent = recent_slot(shard, desc, values, label_count(desc));
    if (!is_same(*recent, desc, values)) {
        pthread_mutex_lock(&shard->lock);
        *recent = get_locked(shard, desc, values);
        pthread_mutex_unlock(&shard->lock);
    }
    return *recent;
}

/* One writer per shard: load, add, store, all relaxed; a scrape reads a value a moment old. */
static void add(double *to, double n)
{
    double value, sum;
    __atomic_load(to, &value, __ATOMIC_RELAXED);
    sum = value + n;
    __atomic_store(to, &sum, __ATOMIC_RELAXED);
}

void outr_metric_add(outr_metric_series *s, double n)
{
    if (s != &nowhere)
        add(&s->value, n);
}

void outr_metric_set(outr_metric_series *s, double value)
{
    if (s != &nowhere)
        __atomic_store(&s->value, &value, __ATOMIC_RELAXED);
}

void outr_metric_observe(outr_metric_series *s, double value)
{
    if (s == &nowhere)
        return;
    size_t low = 0, high = s->bound_count;
    while (low < high) { /* first bound >= value */
        size_t middle = (low + high) / 2;
        if (s->bounds[middle] < value)
            low = middle + 1;
        else
            high = middle;
    }
    uint64_t n = __atomic_load_n(&s->buckets[low], __ATOMIC_RELAXED);
    __atomic_store_n(&s->buckets[low], n + 1, __ATOMIC_RELAXED);
    add(&s->value, value);
}

void outr_metric_count(outr_metric_shard *shard, const outr_metric_desc *desc,
                       const outr_str *values, double n)
{
    outr_metric_series *s = outr_metric_series_get(shard, desc, values);
    if (desc->kind == OUTR_HISTOGRAM)
        outr_metric_observe(s, n);
    else
        outr_metric_add(s, n);
}

/* ---- scrape ---------------------------------------------------------------------------------- */

/* What the shards have of one series, added up. */
typedef struct sum {
    const outr_metric_series *any;
    double value;
    uint64_t *buckets;
} sum;

static void add_series(outr_map *sums, outr_str key, const outr_metric_series *s)
{
    sum *total = outr_map_get(sums, key);
    double value;
    if (!total) {
        total = outr_alloc(sizeof *total);
        total->any = s;
        total->buckets = outr_alloc((s->bound_count + 1) * sizeof *total->buckets);
        outr_map_put(sums, key, total);
    }
    __atomic_load(&s->value, &value, __ATOMIC_RELAXED);
    total->value += value;
    for (size_t i = 0; s->buckets && i <= s->bound_count; i++)
        total->buckets[i] += __atomic_load_n(&s->buckets[i], __ATOMIC_RELAXED);
}

void outr_metric_write_value(outr_buf *out, outr_str value)
{
    outr_buf_char(out, '"');
    for (size_t i = 0; i < value.n; i++) {
        if (value.p[i] == '\n')
            outr_buf_z(out, "\\n");
        else if (value.p[i] == '"' || value.p[i] == '\\')
            outr_buf_printf(out, "\\%c", value.p[i]);
        else
            outr_buf_char(out, value.p[i]);
    }
    outr_buf_char(out, '"');
}

typedef struct label {
    const char *name;
    outr_str value;
} label;

static int by_name(const void *a, const void *b)
{
    return strcmp(((const label *)a)->name, ((const label *)b)->name);
}

static void write_labels(outr_buf *out, const outr_metrics *m, const outr_metric_series *s,
                         const char *le)
{
    label labels[OUTR_METRIC_LABELS_MAX + 2];
    size_t n = 0;
    labels[n++] = (label){"app_id", outr_str_from(m->app_id)};
    for (size_t i = 0; i < s->value_count; i++)
        labels[n++] = (label){s->desc->labels[i], s->values[i]};
    qsort(labels, n, sizeof *labels, by_name);
    if (le)
        labels[n++] = (label){"le", outr_str_from(le)};
    for (size_t i = 0; i < n; i++) {
        outr_buf_printf(out, "%c%s=", i ? ',' : '{', labels[i].name);
        outr_metric_write_value(out, labels[i].value);
    }
    outr_buf_char(out, '}');
}

static void write_histogram(outr_buf *out, const outr_metrics *m, const sum *total)
{
    const outr_metric_series *s = total->any;
    uint64_t count = 0;
    for (size_t i = 0; i <= s->bound_count; i++) {
        char le[32] = "+Inf";
        if (i < s->bound_count)
            snprintf(le, sizeof le, "%.15g", s->bounds[i]);
        count += total->buckets[i];
        outr_buf_printf(out, "%s_bucket", s->desc->name);
        write_labels(out, m, s, le);
        outr_buf_printf(out, " %llu\n", (unsigned long long)count);
    }
    outr_buf_printf(out, "%s_sum", s->desc->name);
    write_labels(out, m, s, NULL);
    outr_buf_printf(out, " %.17g\n%s_count", total->value, s->desc->name);
    write_labels(out, m, s, NULL);
    outr_buf_printf(out, " %llu\n", (unsigned long long)count);
}

static void write_family(outr_buf *out, const outr_metrics *m, const outr_metric_desc *desc,
                         outr_map *sums)
{
    static const char *const kinds[] = {"counter", "gauge", "histogram"};
    void *item;
    outr_buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", desc->name, desc->help, desc->name,
                    kinds[desc->kind]);
    for (size_t at = 0; outr_map_next(sums, &at, NULL, &item);) {
        const sum *total = item;
        if (desc->kind == OUTR_HISTOGRAM) {
            write_histogram(out, m, total);
            continue;
        }
        outr_buf_z(out, desc->name);
        write_labels(out, m, total->any, NULL);
        outr_buf_printf(out, " %.17g\n", total->value);
    }
}

static void add_shard(outr_map *all, outr_metric_shard *shard)
{
    outr_str name, key;
    void *item, *series;
    pthread_mutex_lock(&shard->lock);
    for (size_t at = 0; outr_map_next(shard->families, &at, &name, &item);) {
        const family *f = item;
        outr_map *sums = outr_map_get(all, name);
        if (!sums) {
            sums = outr_map_new();
            outr_map_put(all, name, sums);
        }
        for (size_t i = 0; outr_map_next(f->series, &i, &key, &series);)
            add_series(sums, key, series);
    }
    pthread_mutex_unlock(&shard->lock);
}

void outr_metrics_write(outr_metrics *m, outr_buf *out)
{
    outr_map *all = outr_map_new();
    void *item, *total;
    for (size_t i = 0; i < m->shard_count; i++)
        add_shard(all, &m->shards[i]);
    for (size_t at = 0; outr_map_next(all, &at, NULL, &item);) {
        outr_map *sums = item;
        const outr_metric_desc *desc = NULL;
        for (size_t i = 0; outr_map_next(sums, &i, NULL, &total) && !desc;)
            desc = ((const sum *)total)->any->desc;
        if (desc)
            write_family(out, m, desc, sums);
        for (size_t i = 0; outr_map_next(sums, &i, NULL, &total);) {
            free(((sum *)total)->buckets);
            free(total);
        }
        outr_map_free(sums);
    }
    outr_map_free(all);
}

void outr_metrics_look_up(outr_metrics *m, outr_metric_write_fn *write, void *ctx)
{
    if (!m)
        return;
    m->look_up = write;
    m->look_up_ctx = ctx;
}

void outr_metrics_write_looked_up(outr_metrics *m, uint64_t now_ns, outr_buf *out)
{
    if (m->look_up)
        m->look_up(m->look_up_ctx, outr_str_from(m->app_id), now_ns, out);
}
