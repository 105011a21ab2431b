#include "base/url.h"
#include "components/common/dns.h"
#include "components/nameresolution.h"

/* Resolvers that need no registry: a pattern, or a list of addresses per app id. Hosts are literal
 * addresses or names the system can look up. A pattern that begins with '_' is a service (SRV, RFC
 * 2782), whose hosts and ports DNS knows: those of the best priority, all alike, for the mesh finds
 * the fastest by itself. */

#define ADDRESS_MAX 1024 /* a pattern, filled in */
#define HOST_MAX    128  /* addresses of the one host that is asked for; of several 8 each */

typedef struct resolver {
    outr_resolver base;
    outr_arena *arena;
    outr_kvs entries; /* static: app id -> "host:port,host:port;version=2;zone=a" */
    outr_str format;  /* nameformat: pattern with {appid} */
} resolver;

/* What stands behind an address: "version=2;zone=a". */
static outr_code read_labels(outr_kvs *out, outr_arena *arena, outr_str text, outr_err *err)
{
    char *list = outr_arena_strz(arena, text);
    for (char *c = list; *c; c++)
        *c = *c == ';' ? ',' : *c;
    return outr_labels_parse(out, arena, outr_str_of(list, text.n), err);
}

/* One question: its names are looked up one after the other. */
typedef struct question {
    resolver *r;
    outr_resolve *req;
    outr_op *op;
    outr_op inner;
    outr_lookup lookup;
    outr_query query;
    size_t max;      /* instances */
    outr_addr *more; /* NULL: not of several hosts */
    outr_str rest;   /* addresses still to look up */
    outr_kvs labels; /* of the one that is looked up */
} question;

static resolver *of(outr_resolver *base)
{
    return OUTR_CONTAINER(base, resolver, base);
}

static void finish_now(outr_op *op)
{
    outr_op_begin(op, NULL, NULL);
    outr_op_finish_soon(op);
}

static void open_resolver(outr_resolver *base OUTR_UNUSED, outr_op *op)
{
    finish_now(op);
}

static void close_resolver(outr_resolver *base, outr_op *op)
{
    outr_arena_free(of(base)->arena);
    finish_now(op);
}

static void join(outr_resolver *base OUTR_UNUSED, const outr_self *self OUTR_UNUSED, outr_op *op)
{
    finish_now(op); /* there is nothing to register with */
}

static void look_up_next(question *q);

static void on_looked_up(outr_op *inner)
{
    question *q = OUTR_CONTAINER(inner, question, inner);
    outr_resolve *req = q->req;
    if (outr_op_is_cancelled(q->op)) {
        outr_op_finish(q->op);
        return;
    }
    size_t found = inner->err.code ? 0 : q->lookup.count + q->lookup.more_count;
    for (size_t i = 0; i < found && req->count < q->max; i++) {
        const outr_addr *addr =
            i < q->lookup.count ? &q->lookup.addrs[i] : &q->lookup.more[i - q->lookup.count];
        req->instances[req->count++] = (outr_instance){.addr = *addr, .labels = q->labels};
    }
    if (q->rest.p && req->count < q->max)
        look_up_next(q);
    else if (inner->err.code && req->count == 0)
        outr_op_fail(q->op, &inner->err);
    else
        outr_op_finish(q->op);
}

static void look_up_next(question *q)
{
    outr_loop *loop = q->op->loop;
    outr_env *env = outr_loop_env(loop);
    outr_str one, labels, host = OUTR_STR_NONE;
    uint16_t port = 0;
    q->rest = outr_str_cut(q->rest, ',', &one);
    labels = outr_str_cut(one, ';', &one);
    q->labels = (outr_kvs){0};
    read_labels(&q->labels, q->req->arena, labels, NULL); /* which create has tried */
    outr_hostport_parse(outr_str_trim(one), &host, &port, NULL);
    q->lookup = (outr_lookup){.host = host,
                              .port = port ? port : q->req->port,
                              .more = q->more,
                              .more_max = q->more ? HOST_MAX - OUTR_LEN(q->lookup.addrs) : 0};
    outr_op_init(&q->inner, loop, q->op, 0, on_looked_up);
    env->lookup(env, loop, &q->lookup, &q->inner);
}

static void on_cancel(outr_op *op)
{
    question *q = op->impl;
    outr_op_cancel(&q->inner, op->err.code);
}

static void look_up_all(question *q, outr_str addresses)
{
    outr_resolve *req = q->req;
    size_t names = 1;
    for (size_t i = 0; i < addresses.n; i++)
        names += addresses.p[i] == ',';
    q->rest = addresses;
    q->max = names == 1 ? HOST_MAX : OUTR_MIN(names * OUTR_LEN(q->lookup.addrs), OUTR_RESOLVE_MAX);
    if (names == 1)
        q->more = outr_arena_alloc(req->arena, HOST_MAX * sizeof *q->more);
    req->instances = outr_arena_alloc(req->arena, q->max * sizeof *req->instances);
    look_up_next(q);
}

/* "host:port,host:port" of the records with the best priority. */
static outr_str read_services(outr_arena *arena, outr_str answer)
{
    OUTR_AUTO(outr_buf) out = OUTR_BUF_MAX(2 * OUTR_QUERY_MAX);
    outr_dns_record *record = outr_arena_alloc(arena, sizeof *record);
    outr_dns_reader reader;
    unsigned best = UINT16_MAX + 1;
    if (!outr_dns_read(&reader, answer))
        return OUTR_STR_NONE;
    while (outr_dns_next(&reader, record)) {
        bool is_one = !record->is_question && record->type == OUTR_DNS_SRV &&
                      record->target.n > 0 && record->port > 0; /* without: it is not served */
        if (!is_one || record->priority > best)
            continue;
        if (record->priority < best)
            out.n = 0;
        best = record->priority;
        outr_buf_printf(&out, "%s%s:%u", out.n ? "," : "", record->target.text, record->port);
    }
    return outr_arena_str(arena, outr_buf_view(&out));
}

static void on_queried(outr_op *inner)
{
    question *q = OUTR_CONTAINER(inner, question, inner);
    outr_err err = inner->err;
    if (!err.code && !outr_op_is_cancelled(q->op))
        q->rest = read_services(q->req->arena, q->query.answer);
    if (err.code && !outr_op_is_cancelled(q->op))
        outr_op_fail(q->op, &err);
    else if (q->rest.n > 0 && !outr_op_is_cancelled(q->op))
        look_up_all(q, q->rest);
    else
        outr_op_finish(q->op);
}

static void ask(resolver *r, outr_resolve *req, outr_str addresses, outr_op *op)
{
    question *q = outr_arena_alloc(req->arena, sizeof *q);
    req->count = 0;
    if (addresses.n == 0) {
        finish_now(op);
        return;
    }
    *q = (question){.r = r, .req = req, .op = op};
    outr_op_begin(op, q, on_cancel);
    look_up_all(q, addresses);
}

/* What a pattern has become. */
static void ask_filled(resolver *r, outr_resolve *req, const outr_buf *text, outr_op *op)
{
    outr_env *env = outr_loop_env(op->loop);
    outr_err err;
    outr_str address = outr_arena_str(req->arena, outr_buf_view(text)), name;
    if (text->is_full) {
        req->count = 0;
        outr_fail(&err, OUTR_INVALID_ARGUMENT,
                  "the address of \"" OUTR_FMT "\" would have more than %d bytes",
                  OUTR_ARG(outr_str_head(req->app_id, 60)), ADDRESS_MAX);
        outr_op_begin(op, NULL, NULL);
        outr_op_fail_soon(op, &err);
        return;
    }
    if (!env->query || !outr_str_starts(address, OUTR_STR("_"))) {
        ask(r, req, address, op);
        return;
    }
    question *q = outr_arena_alloc(req->arena, sizeof *q);
    outr_str_cut(address, ':', &name); /* its port is DNS's to say */
    req->count = 0;
    *q = (question){.r = r, .req = req, .op = op};
    q->query = (outr_query){
        .name = outr_arena_strz(req->arena, name), .type = OUTR_DNS_SRV, .arena = req->arena};
    outr_op_begin(op, q, on_cancel);
    outr_op_init(&q->inner, op->loop, op, 0, on_queried);
    env->query(env, op->loop, &q->query, &q->inner);
}

/* ---- static ---------------------------------------------------------------------------------- */

static void resolve_static(outr_resolver *base, outr_resolve *req, outr_op *op)
{
    const outr_kv *kv = outr_kvs_find_exact(of(base)->entries, req->app_id);
    /* a copy: a look-up may outlast close */
    ask(of(base), req, kv ? outr_arena_str(req->arena, kv->value) : OUTR_STR_NONE, op);
}

/* ---- nameformat ------------------------------------------------------------------------------ */

static void resolve_format(outr_resolver *base, outr_resolve *req, outr_op *op)
{
    static const char mark[] = "{appid}";
    outr_str format = of(base)->format;
    OUTR_AUTO(outr_buf) out = OUTR_BUF_MAX(ADDRESS_MAX);
    ptrdiff_t at;
    while ((at = outr_str_search(format, OUTR_STR(mark))) >= 0) {
        outr_buf_str(&out, outr_str_head(format, (size_t)at));
        outr_buf_str(&out, req->app_id);
        format = outr_str_skip(format, (size_t)at + sizeof mark - 1);
    }
    outr_buf_str(&out, format);
    ask_filled(of(base), req, &out, op);
}

/* ---- kubernetes ------------------------------------------------------------------------------ */

/* What a template may say between its braces, spaces aside. */
static bool put_field(outr_buf *out, outr_str field, const outr_resolve *req)
{
    if (outr_str_is(field, ".ID"))
        outr_buf_str(out, req->app_id);
    else if (outr_str_is(field, ".Namespace"))
        outr_buf_str(out, req->namespace_);
    else if (outr_str_is(field, ".Port"))
        outr_buf_printf(out, "%u", req->port);
    else
        return false;
    return true;
}

static bool fill_template(outr_buf *out, outr_str template, const outr_resolve *req)
{
    ptrdiff_t at;
    while ((at = outr_str_search(template, OUTR_STR("{{"))) >= 0) {
        outr_buf_str(out, outr_str_head(template, (size_t)at));
        template = outr_str_skip(template, (size_t)at + 2);
        ptrdiff_t end = outr_str_search(template, OUTR_STR("}}"));
        if (end < 0 || !put_field(out, outr_str_trim(outr_str_head(template, (size_t)end)), req))
            return false;
        template = outr_str_skip(template, (size_t)end + 2);
    }
    outr_buf_str(out, template);
    return true;
}

static const char kubernetes_form[] = "{{.ID}}-dapr.{{.Namespace}}.svc.";

static void resolve_kubernetes(outr_resolver *base, outr_resolve *req, outr_op *op)
{
    OUTR_AUTO(outr_buf) out = OUTR_BUF_MAX(ADDRESS_MAX);
    fill_template(&out, of(base)->format, req); /* which create has tried */
    ask_filled(of(base), req, &out, op);
}

static outr_code create(outr_resolver **out, const outr_component_init *init,
                        const outr_resolver_backend *backend, bool needs_format, outr_err *err)
{
    const outr_kv *format = outr_kvs_find(init->metadata, "format");
    if (needs_format && (!format || outr_str_search(format->value, OUTR_STR("{appid}")) < 0))
        return outr_fail(err, OUTR_INVALID_ARGUMENT, "format: required, with {appid} in it");
    outr_arena *arena = outr_arena_new(OUTR_MIB);
    resolver *r = outr_arena_alloc(arena, sizeof *r);
    outr_kv *items = outr_arena_alloc(arena, (init->metadata.count + 1) * sizeof *items);
    for (size_t i = 0; i < init->metadata.count; i++)
        items[i] = (outr_kv){outr_arena_str(arena, init->metadata.items[i].key),
                             outr_arena_str(arena, init->metadata.items[i].value)};
    r->base.backend = backend;
    r->arena = arena;
    r->entries = (outr_kvs){items, init->metadata.count};
    r->format = format ? outr_arena_str(arena, format->value) : OUTR_STR_NONE;
    *out = &r->base;
    return OUTR_OK;
}

extern const outr_resolver_backend outr_nameresolution_static, outr_nameresolution_nameformat,
    outr_nameresolution_structuredformat, outr_nameresolution_dns, outr_nameresolution_kubernetes;

static outr_code check_entry(outr_arena *arena, const outr_kv *entry, outr_err *err)
{
    outr_str rest = entry->value, one, host, labels;
    outr_kvs read;
    uint16_t port;
    while (rest.n > 0) {
        rest = outr_str_cut(rest, ',', &one);
        labels = outr_str_cut(one, ';', &one);
        if (outr_hostport_parse(outr_str_trim(one), &host, &port, err) ||
            (labels.p && read_labels(&read, arena, labels, err)))
            return outr_wrap(err, OUTR_FMT, OUTR_ARG(entry->key));
    }
    return OUTR_OK;
}

static outr_code create_static(outr_resolver **out, const outr_component_init *init, outr_err *err)
{
    outr_arena *arena = outr_arena_new(OUTR_MIB);
    outr_code rc = OUTR_OK;
    for (size_t i = 0; i < init->metadata.count && !rc; i++)
        rc = check_entry(arena, &init->metadata.items[i], err);
    outr_arena_free(arena);
    return rc ? rc : create(out, init, &outr_nameresolution_static, false, err);
}

static outr_code create_format(outr_resolver **out, const outr_component_init *init, outr_err *err)
{
    return create(out, init, &outr_nameresolution_nameformat, true, err);
}

static outr_code create_kubernetes(outr_resolver **out, const outr_component_init *init,
                                   outr_err *err)
{
    const outr_kv *domain = outr_kvs_find(init->metadata, "clusterDomain"),
                  *template = outr_kvs_find(init->metadata, "template");
    const outr_resolve nobody = {.app_id = OUTR_STR("a"), .namespace_ = OUTR_STR("b"), .port = 1};
    OUTR_AUTO(outr_buf) trial = OUTR_BUF_MAX(ADDRESS_MAX);
    if (template && !fill_template(&trial, template->value, &nobody))
        return outr_fail(err, OUTR_INVALID_ARGUMENT,
                         "template: only {{.ID}}, {{.Namespace}} and {{.Port}} are known");
    if (trial.is_full || (domain && domain->value.n > 255))
        return outr_fail(err, OUTR_INVALID_ARGUMENT, "%s: more than %d bytes",
                         trial.is_full ? "template" : "clusterDomain",
                         trial.is_full ? ADDRESS_MAX : 255);
    outr_code rc = create(out, init, &outr_nameresolution_kubernetes, false, err);
    if (rc)
        return rc;
    resolver *r = of(*out);
    outr_str suffix = domain && domain->value.n ? domain->value : OUTR_STR("cluster.local");
    r->format = template ? outr_arena_str(r->arena, template->value)
                         : outr_arena_join(r->arena, OUTR_STR(kubernetes_form), suffix,
                                           OUTR_STR(":{{.Port}}"));
    return OUTR_OK;
}

static const outr_bind_row kubernetes_rows[] = {
    {"clusterDomain", NULL, OUTR_BIND_STR, 0, 0, 0, 0, "cluster.local", NULL, 0, "DNS suffix"},
    {"template", NULL, OUTR_BIND_STR, 0, 0, 0, 0, NULL, NULL, 0,
     "instead of the built-in pattern: {{.ID}}, {{.Namespace}}, {{.Port}}"},
};

static const outr_bind_row format_rows[] = {
    {"format", NULL, OUTR_BIND_STR, OUTR_BIND_REQUIRED, 0, 0, 0, NULL, NULL, 0,
     "address of an app id: host, host:port or _service._proto.name with {appid}"},
};

/* Static addresses are asked of the configuration; all others of DNS. */
#define FIXED(type_text, rows_, count_, create_, resolve_)                                         \
    {                                                                                              \
        .base = {"nameresolution." type_text, "v1", rows_, count_}, .create = create_,             \
        .open = open_resolver, .close = close_resolver, .join = join, .resolve = resolve_,         \
        .may_be_away = true, .cache_ns = 5 * OUTR_SEC                                              \
    }

const outr_resolver_backend outr_nameresolution_static =
    FIXED("static", NULL, 0, create_static, resolve_static);
const outr_resolver_backend outr_nameresolution_nameformat =
    FIXED("nameformat", format_rows, 1, create_format, resolve_format);
const outr_resolver_backend outr_nameresolution_structuredformat =
    FIXED("structuredformat", format_rows, 1, create_format, resolve_format);
const outr_resolver_backend outr_nameresolution_dns =
    FIXED("dns", format_rows, 1, create_format, resolve_format);
const outr_resolver_backend outr_nameresolution_kubernetes =
    FIXED("kubernetes", kubernetes_rows, 2, create_kubernetes, resolve_kubernetes);
