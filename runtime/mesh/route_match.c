#include "base/encode.h"
#include "base/regex.h"
#include "base/url.h"
#include "mesh/route_internal.h"
#include "observe/baggage.h"

/* Does what is asked of a request hold? On the request path: a list of the query, or of baggage, is
 * made when something is first asked of it; else nothing is allocated but for escapes. */

void outr_route_question_init(outr_route_question *q, const outr_route_request *request,
                              outr_arena *scratch)
{
    outr_str path, decoded;
    outr_str query = outr_str_cut(request->target, '?', &path);
    *q = (outr_route_question){
        .request = request, .path = path, .raw_query = query, .scratch = scratch};
    if (outr_str_find(path, '%') >= 0 && outr_percent_decode(scratch, path, false, &decoded))
        q->path = decoded;
}

/* ---- values of a name ------------------------------------------------------------------------ */

static outr_str unescape(outr_arena *arena, outr_str text)
{
    outr_str decoded;
    if (outr_str_find(text, '%') < 0 && outr_str_find(text, '+') < 0)
        return text;
    return outr_percent_decode(arena, text, true, &decoded) ? decoded : text;
}

static outr_kvs unfold_query(outr_str query, outr_arena *arena)
{
    outr_str rest = query, key, value;
    size_t most = 0, count = 0;
    while (outr_query_next(&rest, &key, &value))
        most++;
    outr_kv *items = outr_arena_alloc(arena, (most + 1) * sizeof *items);
    for (rest = query; outr_query_next(&rest, &key, &value);)
        items[count++] = (outr_kv){unescape(arena, key), unescape(arena, value)};
    return (outr_kvs){items, count};
}

static bool next_header(const outr_headers *headers, outr_str name, size_t *at, outr_str *value)
{
    while (headers && *at < headers->count) {
        const outr_header *h = &headers->items[(*at)++];
        if (outr_str_ieq(h->name, name)) {
            *value = h->value;
            return true;
        }
    }
    return false;
}

static bool next_of(outr_kvs kvs, outr_str name, size_t *at, outr_str *value)
{
    while (*at < kvs.count) {
        const outr_kv *kv = &kvs.items[(*at)++];
        if (outr_str_eq(kv->key, name)) {
            *value = kv->value;
            return true;
        }
    }
    return false;
}

static bool next_query(outr_route_question *q, outr_str name, size_t *at, outr_str *value)
{
    if (!q->query.items)
        q->query = unfold_query(q->raw_query, q->scratch);
    return next_of(q->query, name, at, value);
}

/* Of several members of one name the first is the one that counts. */
static bool next_baggage(outr_route_question *q, outr_str name, size_t *at, outr_str *value)
{
    if (*at > 0 || !q->request->headers)
        return false;
    if (!q->baggage.items)
        q->baggage = outr_baggage_members(q->request->headers, q->scratch);
    bool is_there = next_of(q->baggage, name, at, value);
    *at = 1;
    return is_there;
}

static bool next_claim(const outr_claims *claims, outr_str name, size_t *at, outr_str *value)
{
    size_t count = 0;
    const outr_claim *found = claims ? outr_claims_find(claims, name, &count) : NULL;
    if (*at >= count)
        return false;
    *value = found[(*at)++].value;
    return true;
}

bool outr__question_next(outr_route_question *q, outr__kind kind, outr_str name, size_t *at,
                         outr_str *value)
{
    const outr_route_request *r = q->request;
    switch (kind) {
    case OUTR__OF_HEADER:
        return next_header(r->headers, name, at, value);
    case OUTR__OF_QUERY:
        return next_query(q, name, at, value);
    case OUTR__OF_BAGGAGE:
        return next_baggage(q, name, at, value);
    case OUTR__OF_CLAIM:
        return next_claim(r->claims, name, at, value);
    case OUTR__OF_SOURCE:
        break;
    }
    *value = r->source;
    return (*at)++ == 0 && value->p;
}

/* ---- what is asked --------------------------------------------------------------------------- */

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

/* Of several values under one name each is looked at. */
static bool any_matches(outr_route_question *q, outr__kind kind, const outr_value_match *m)
{
    outr_str value;
    for (size_t at = 0; outr__question_next(q, kind, m->name, &at, &value);) {
        if (value_matches(m, value))
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

static outr_mismatch beyond_path(const outr_traffic_match *m, outr_route_question *q)
{
    const outr_route_request *r = q->request;
    const struct {
        const outr_value_match *items;
        size_t count;
        outr__kind kind;
        const char *what;
    } lists[] = {
        {m->headers, m->header_count, OUTR__OF_HEADER, "headers"},
        {m->query, m->query_count, OUTR__OF_QUERY, "query"},
        {m->baggage, m->baggage_count, OUTR__OF_BAGGAGE, "baggage"},
        {m->claims, m->claim_count, OUTR__OF_CLAIM, "claims"},
    };
    if (!method_matches(m, r->method))
        return (outr_mismatch){"methods", r->method};
    if (!source_matches(m, r->source))
        return (outr_mismatch){"sources", r->source};
    for (size_t l = 0; l < OUTR_LEN(lists); l++) {
        for (size_t i = 0; i < lists[l].count; i++) {
            if (!any_matches(q, lists[l].kind, &lists[l].items[i]))
                return (outr_mismatch){lists[l].what, lists[l].items[i].name};
        }
    }
    return (outr_mismatch){NULL, OUTR_STR_NONE};
}

outr_mismatch outr_traffic_mismatch(const outr_traffic_match *m, outr_route_question *q)
{
    if (m->has_path && !path_matches(&m->path, q->path))
        return (outr_mismatch){"path", OUTR_STR_NONE};
    return beyond_path(m, q);
}

bool outr_traffic_matches(const outr_traffic_match *m, outr_route_question *q)
{
    return outr_traffic_mismatch(m, q).what == NULL;
}
