#include "api/api_metrics.h"

#include "http/router.h"

#define CACHE_SIZE     256 /* a power of two */
#define PATH_MAX_LABEL 256

static const outr_metric_desc request_count = {"dapr_http_server_request_count",
                                               "HTTP requests",
                                               OUTR_COUNTER,
                                               0,
                                               {"method", "path", "status"}};
static const outr_metric_desc response_count = {"dapr_http_server_response_count",
                                                "HTTP responses",
                                                OUTR_COUNTER,
                                                0,
                                                {"method", "path", "status"}};
static const outr_metric_desc latency = {"dapr_http_server_latency",
                                         "time from request head to end of answer, ms",
                                         OUTR_HISTOGRAM,
                                         OUTR_BUCKETS_LATENCY_MS,
                                         {"method", "path", "status"}};
static const outr_metric_desc request_bytes = {"dapr_http_server_request_bytes",
                                               "size of request bodies",
                                               OUTR_HISTOGRAM,
                                               OUTR_BUCKETS_BYTES,
                                               {NULL}};
static const outr_metric_desc response_bytes = {"dapr_http_server_response_bytes",
                                                "size of response bodies",
                                                OUTR_HISTOGRAM,
                                                OUTR_BUCKETS_BYTES,
                                                {NULL}};
static const outr_metric_desc error_codes = {
    "dapr_error_code_total", "error answers by code", OUTR_COUNTER, 0, {"error_code", "category"}};

typedef struct series {
    uint64_t hash;
    outr_metric_series *requests, *responses, *latency;
} series;

struct outr_api_metrics {
    outr_metric_shard *shard;
    const outr_configuration *configuration;
    outr_router *patterns; /* pathMatching; NULL when none */
    outr_metric_series *request_bytes, *response_bytes;
    series cache[CACHE_SIZE];
};

outr_api_metrics *outr_api_metrics_new(outr_metric_shard *shard,
                                       const outr_configuration *configuration)
{
    outr_api_metrics *m = outr_alloc(sizeof *m);
    m->shard = shard;
    m->configuration = configuration;
    m->request_bytes = outr_metric_series_get(shard, &request_bytes, NULL);
    m->response_bytes = outr_metric_series_get(shard, &response_bytes, NULL);
    if (configuration->metrics_path_count > 0)
        m->patterns = outr_router_new();
    for (size_t i = 0; i < configuration->metrics_path_count; i++)
        outr_router_add(m->patterns, "*", configuration->metrics_paths[i].p,
                        &configuration->metrics_paths[i]);
    return m;
}

void outr_api_metrics_free(outr_api_metrics *m)
{
    if (!m)
        return;
    outr_router_free(m->patterns);
    free(m);
}

/* Where the path of an API group is cut, and which segment becomes a placeholder. */
static const struct {
    const char *group;
    size_t keep; /* segments kept, the version being the first */
    size_t hide; /* segment replaced, counted from 0; 0: none */
    const char *shown;
} shapes[] = {
    {"state", 3, 0, NULL},
    {"secrets", 3, 0, NULL},
    {"actors", 5, 3, "{id}"},
    {"workflows", 5, 3, "{instanceId}"},
};

/* Dapr's shortening: /v1.0/state/store/key -> /v1.0/state/store. scratch holds the result if built.
 */
static outr_str shorten(outr_str path, char scratch[PATH_MAX_LABEL])
{
    outr_str parts[6];
    size_t count = 0;
    outr_str rest = path.n && path.p[0] == '/' ? outr_str_skip(path, 1) : path;
    while (rest.p && count < OUTR_LEN(parts))
        rest = outr_str_cut(rest, '/', &parts[count++]);
    for (size_t s = 0; s < OUTR_LEN(shapes) && count >= 3; s++) {
        if (!outr_str_is(parts[1], shapes[s].group))
            continue;
        if (shapes[s].hide && count <= shapes[s].hide)
            return path;
        size_t used = 0;
        for (size_t i = 0; i < OUTR_MIN(count, shapes[s].keep); i++) {
            outr_str part = shapes[s].hide == i && i ? outr_str_from(shapes[s].shown) : parts[i];
            int n = snprintf(scratch + used, PATH_MAX_LABEL - used, "/" OUTR_FMT, OUTR_ARG(part));
            used = OUTR_MIN(used + (size_t)n, (size_t)PATH_MAX_LABEL - 1);
        }
        return outr_str_of(scratch, used);
    }
    return path;
}

static outr_str path_label(const outr_api_metrics *m, outr_str path, char scratch[PATH_MAX_LABEL])
{
    outr_route_match match;
    if (m->patterns && outr_router_find(m->patterns, OUTR_STR("GET"), path, &match))
        return *(const outr_str *)match.route;
    if (m->configuration->metrics_full_paths)
        return outr_str_head(shorten(path, scratch), PATH_MAX_LABEL);
    if (outr_str_starts(path, OUTR_STR("/v1.0/healthz")) || outr_str_is(path, "/v1.0/metadata") ||
        outr_str_is(path, "/v1.0/shutdown"))
        return path;
    return OUTR_STR("");
}

static outr_str method_label(const outr_api_metrics *m, outr_str method)
{
    static const char *const usual[] = {"GET",  "POST",    "PUT",     "DELETE", "PATCH",
                                        "HEAD", "OPTIONS", "CONNECT", "TRACE"};
    if (m->configuration->metrics_exclude_verbs)
        return OUTR_STR("");
    for (size_t i = 0; i < OUTR_LEN(usual); i++) {
        if (outr_str_iis(method, usual[i]))
            return outr_str_from(usual[i]);
    }
    return OUTR_STR("UNKNOWN");
}

static const series *find_series(outr_api_metrics *m, outr_str method, outr_str path, int status)
{
    uint64_t hash = outr_str_hash(path, outr_str_hash(method, (uint64_t)status)) | 1;
    series *s = &m->cache[hash & (CACHE_SIZE - 1)];
    if (s->hash == hash)
        return s;
    char scratch[PATH_MAX_LABEL], number[12];
    int digits = snprintf(number, sizeof number, "%d", status);
    const outr_str labels[] = {method_label(m, method), path_label(m, path, scratch),
                               outr_str_of(number, (size_t)digits)};
    bool has_responses = m->configuration->metrics_full_paths || m->patterns;
    *s = (series){
        .hash = hash,
        .requests = outr_metric_series_get(m->shard, &request_count, labels),
        .latency = outr_metric_series_get(m->shard, &latency, labels),
        .responses =
            has_responses ? outr_metric_series_get(m->shard, &response_count, labels) : NULL,
    };
    return s;
}

void outr_api_metrics_record(outr_api_metrics *m, const outr_exchange *x, outr_str path)
{
    if (!m->shard)
        return;
    const series *s = find_series(m, x->req.method, path, x->status);
    outr_metric_add(s->requests, 1);
    if (s->responses)
        outr_metric_add(s->responses, 1);
    outr_metric_observe(s->latency,
                        (double)(outr_loop_update(x->loop) - x->started_ns) / (double)OUTR_MS);
    outr_metric_observe(m->request_bytes, (double)OUTR_MAX(x->req.content_length, 0));
    outr_metric_observe(m->response_bytes, (double)x->sent_bytes);
}

void outr_api_metrics_error(outr_api_metrics *m, outr_reason reason)
{
    if (!m->configuration->metrics_record_error_codes)
        return;
    const outr_reason_info *info = outr_reason_find(reason);
    const outr_str labels[] = {outr_str_from(info->error_code), outr_str_from(info->category)};
    outr_metric_count(m->shard, &error_codes, labels, 1);
}
