#include "base/encode.h"
#include "base/regex.h"
#include "base/url.h"
#include "mesh/route_internal.h"
#include "observe/baggage.h"

/* Does what is asked of a request hold? Used on the request path: nothing is allocated but what
 * escapes make necessary. */

static bool value_matches(const outr_value_match *m, outr_str value)
{
    if (m->has_exact)
        return outr_str_eq(value, m->exact);
    if (m->has_prefix)
        return outr_str_starts(value, m->prefix);
    return !m->regex || outr_regex_search(m->regex, value);
}

/* By whole segments: "/a" is the beginning of "/a/b", not of "/ab". */
static bool prefix_matches(outr_str prefix, outr_str path)
{
    if (prefix.n > 0 && prefix.p[prefix.n - 1] == '/')
        prefix.n--;
    return outr_str_starts(path, prefix) && (path.n == prefix.n || path.p[prefix.n] == '/');
}

void outr__question_init(outr__question *q, const outr_route_request *request, outr_arena *scratch)
{
    outr_str path, decoded;
    outr_str query = outr_str_cut(request->target, '?', &path);
    *q = (outr__question){.request = request, .path = path, .query = query, .scratch = scratch};
    if (outr_str_find(path, '%') >= 0 && outr_percent_decode(scratch, path, false, &decoded))
        q->path = decoded;
}

static bool path_matches(const outr_value_match *m, outr_str path)
{
    if (m->has_prefix)
        return prefix_matches(m->prefix, path);
    return value_matches(m, path);
}

static bool method_matches(const outr_traffic_match *m, outr_str method)
{
    for (size_t i = 0; i < m->method_count; i++) {
        if (outr_str_eq(m->methods[i], method))
            return true;
    }
    return m->method_count == 0;
}

/* Of several lines of one name each is looked at. */
static bool header_matches(const outr_value_match *m, const outr_headers *headers)
{
    for (size_t i = 0; headers && i < headers->count; i++) {
        if (outr_str_ieq(headers->items[i].name, m->name) &&
            value_matches(m, headers->items[i].value))
            return true;
    }
    return false;
}

static outr_str unescape(const outr__question *q, outr_str text)
{
    outr_str decoded;
    if (outr_str_find(text, '%') < 0 && outr_str_find(text, '+') < 0)
        return text;
    return outr_percent_decode(q->scratch, text, true, &decoded) ? decoded : text;
}

static bool query_matches(const outr_value_match *m, const outr__question *q)
{
    outr_str rest = q->query, key, value;
    while (outr_query_next(&rest, &key, &value)) {
        if (outr_str_eq(unescape(q, key), m->name) && value_matches(m, unescape(q, value)))
            return true;
    }
    return false;
}

static bool baggage_matches(const outr_value_match *m, const outr__question *q)
{
    unsigned lines;
    outr_str value = q->request->headers ? outr_baggage_get(q->request->headers, m->name,
                                                            q->scratch, &lines)
                                         : OUTR_STR_NONE;
    return value.p && value_matches(m, value);
}

static bool claim_matches(const outr_value_match *m, const outr_claims *claims)
{
    size_t count = 0;
    const outr_claim *found = claims ? outr_claims_find(claims, m->name, &count) : NULL;
    for (size_t i = 0; i < count; i++) {
        if (value_matches(m, found[i].value))
            return true;
    }
    return false;
}

static bool source_matches(const outr_traffic_match *m, outr_str source)
{
    for (size_t i = 0; i < m->source_count; i++) {
        if (outr_str_eq(m->sources[i], source))
            return true;
    }
    return m->source_count == 0;
}

static outr_mismatch beyond_path(const outr_traffic_match *m, const outr__question *q)
{
    const outr_route_request *r = q->request;
    if (!method_matches(m, r->method))
        return (outr_mismatch){"methods", r->method};
    if (!source_matches(m, r->source))
        return (outr_mismatch){"sources", r->source};
    for (size_t i = 0; i < m->header_count; i++) {
        if (!header_matches(&m->headers[i], r->headers))
            return (outr_mismatch){"headers", m->headers[i].name};
    }
    for (size_t i = 0; i < m->query_count; i++) {
        if (!query_matches(&m->query[i], q))
            return (outr_mismatch){"query", m->query[i].name};
    }
    for (size_t i = 0; i < m->baggage_count; i++) {
        if (!baggage_matches(&m->baggage[i], q))
            return (outr_mismatch){"baggage", m->baggage[i].name};
    }
    for (size_t i = 0; i < m->claim_count; i++) {
        if (!claim_matches(&m->claims[i], r->claims))
            return (outr_mismatch){"claims", m->claims[i].name};
    }
    return (outr_mismatch){NULL, OUTR_STR_NONE};
}

outr_mismatch outr__mismatch(const outr_traffic_match *m, const outr__question *q)
{
    if (m->has_path && !path_matches(&m->path, q->path))
        return (outr_mismatch){"path", OUTR_STR_NONE};
    return beyond_path(m, q);
}

outr_mismatch outr_traffic_mismatch(const outr_traffic_match *match,
                                    const outr_route_request *request, outr_arena *scratch)
{
    outr__question q;
    outr__question_init(&q, request, scratch);
    return outr__mismatch(match, &q);
}

bool outr_traffic_matches(const outr_traffic_match *match, const outr_route_request *request,
                          outr_arena *scratch)
{
    return outr_traffic_mismatch(match, request, scratch).what == NULL;
}

/* ---- values of a name ------------------------------------------------------------------------ */

static bool next_header(const outr_headers *headers, outr_str name, outr__values *v,
                        outr_str *value)
{
    while (headers && v->at < headers->count) {
        const outr_header *h = &headers->items[v->at++];
        if (outr_str_ieq(h->name, name)) {
            *value = h->value;
            return true;
        }
    }
    return false;
}

static bool next_query(const outr__question *q, outr_str name, outr__values *v, outr_str *value)
{
    outr_str key;
    if (v->at++ == 0)
        v->rest = q->query;
    while (outr_query_next(&v->rest, &key, value)) {
        if (outr_str_eq(unescape(q, key), name)) {
            *value = unescape(q, *value);
            return true;
        }
    }
    return false;
}

bool outr__question_next(const outr__question *q, outr__kind kind, outr_str name, outr__values *v,
                         outr_str *value)
{
    const outr_route_request *r = q->request;
    unsigned lines;
    size_t count = 0;
    switch (kind) {
    case OUTR__OF_HEADER:
        return next_header(r->headers, name, v, value);
    case OUTR__OF_QUERY:
        return next_query(q, name, v, value);
    case OUTR__OF_BAGGAGE:
        *value = r->headers && v->at == 0 ? outr_baggage_get(r->headers, name, q->scratch, &lines)
                                          : OUTR_STR_NONE;
        break;
    case OUTR__OF_CLAIM: {
        const outr_claim *found = r->claims ? outr_claims_find(r->claims, name, &count) : NULL;
        *value = v->at < count ? found[v->at].value : OUTR_STR_NONE;
        break;
    }
    case OUTR__OF_SOURCE:
        *value = v->at == 0 ? r->source : OUTR_STR_NONE;
        break;
    }
    v->at++;
    return value->p != NULL;
}
