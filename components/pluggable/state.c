/* State stores behind a socket. Bulk calls that a store does not know are made one by one. */
#include <dapr/proto/components/v1/state.pb-c.h>
#include <google/rpc/error_details.pb-c.h>
#include <google/rpc/status.pb-c.h>

#include "components/pluggable/client.h"
#include "components/state.h"

#define V1(name)          Dapr__Proto__Components__V1__##name
#define V1_TYPE(name)     dapr__proto__components__v1__##name##__descriptor
#define OPTION(kind, x)   DAPR__PROTO__COMPONENTS__V1__STATE_OPTIONS__STATE_##kind##__##kind##_##x
#define CONSISTENCY(name) OPTION(CONSISTENCY, name)
#define CONCURRENCY(name) OPTION(CONCURRENCY, name)
#define STORE(method)     OUTR__PLUG_PATH("StateStore", method)
#define BAD_REQUEST       "google.rpc.BadRequest"

enum { SERVES_STATE = 1, SERVES_TRANSACTIONS = 2, SERVES_MAX_SIZE = 4 };

static const outr__plug_service services[] = {
    {"dapr.proto.components.v1.StateStore", STORE("Init"), STORE("Features"), STORE("Ping"),
     SERVES_STATE},
    {0},
};
static const outr__plug_name more[] = {
    {"dapr.proto.components.v1.TransactionalStateStore", SERVES_TRANSACTIONS},
    {"dapr.proto.components.v1.TransactionalStoreMultiMaxSize", SERVES_MAX_SIZE},
    {0},
};
/* QUERY_API is left out: the engine has no queries, so no app is told of them. */
static const outr__plug_name feature_names[] = {
    {"ETAG", OUTR_STATE_ETAG},
    {"TRANSACTIONAL", OUTR_STATE_TRANSACTIONAL},
    {"TTL", OUTR_STATE_TTL},
    {"DELETE_WITH_PREFIX", OUTR_STATE_DELETE_PREFIX},
    {"KEYS_LIKE", OUTR_STATE_KEYS_LIKE},
    {0},
};
static const outr__plug_kind kind = {"state", services, more, feature_names};

typedef struct store {
    outr_state_store base;
    outr__plug *plug;
    /* UNIMPLEMENTED was the answer; not asked again. Atomic. */
    bool has_no_bulk_get, has_no_bulk_set, has_no_bulk_delete;
} store;

/* One read or write on its way; on the request's arena. */
typedef struct job {
    store *st;
    outr_op *op;
    outr_op inner;
    outr__plug_call call;
    outr__plug_each each;
    outr_state_get *get;
    outr_state_writes *writes;
    outr_err first; /* of the items */
    bool *lacks;    /* what to set when the bulk method is not there */
} job;

extern const outr_state_backend outr_state_pluggable;

static store *of(outr_state_store *base)
{
    return OUTR_CONTAINER(base, store, base);
}

static job *new_job(store *st, outr_arena *arena, outr_op *op)
{
    job *j = outr_arena_alloc(arena, sizeof *j);
    j->st = st;
    j->op = op;
    outr_op_begin(op, j, NULL);
    return j;
}

static void finish(job *j, const outr_err *err)
{
    if (err)
        outr_op_fail(j->op, err);
    else
        outr_op_finish(j->op);
}

static void call(job *j, const char *path, const void *message,
                 const ProtobufCMessageDescriptor *type, outr_op_fn *done)
{
    j->call = (outr__plug_call){.path = path, .message = message, .type = type};
    outr_op_init(&j->inner, j->op->loop, j->op, 0, done);
    outr__plug_call_start(j->st->plug, &j->call, &j->inner);
}

static void call_each(job *j, outr_arena *arena, size_t count, outr_op_fn *done,
                      outr__plug_prepare_fn *prepare, outr__plug_take_fn *take)
{
    j->each = (outr__plug_each){
        .arena = arena, .count = count, .prepare = prepare, .take = take, .user = j};
    outr_op_init(&j->inner, j->op->loop, j->op, 0, done);
    outr__plug_each_start(j->st->plug, &j->each, &j->inner);
}

static bool lacks(const bool *flag)
{
    return __atomic_load_n(flag, __ATOMIC_RELAXED);
}

/* Whether the bulk method turned out not to be there. */
static bool is_lacking(job *j)
{
    if (!j->call.is_said || j->call.status.code != OUTR_UNIMPLEMENTED)
        return false;
    __atomic_store_n(j->lacks, true, __ATOMIC_RELAXED);
    outr__plug_call_done(&j->call);
    return true;
}

/* ---- etag errors ----------------------------------------------------------------------------- */

/* The one detail of a status, when it says what is wrong with the field "etag". */
static const char *etag_violation(outr_arena *arena, outr_str details)
{
    Google__Rpc__Status *status;
    Google__Rpc__BadRequest *bad;
    if (!details.n ||
        outr_proto_read(&status, arena, &google__rpc__status__descriptor, details, NULL) ||
        status->n_details != 1 ||
        !outr_str_ends(outr_str_from(status->details[0]->type_url), OUTR_STR("/" BAD_REQUEST)) ||
        outr_proto_read(&bad, arena, &google__rpc__bad_request__descriptor,
                        outr_proto_bytes(status->details[0]->value), NULL) ||
        bad->n_field_violations != 1 || strcmp(bad->field_violations[0]->field, "etag") != 0)
        return NULL;
    return bad->field_violations[0]->description;
}

/* INVALID_ARGUMENT and ABORTED are kept for etags: what else a store calls so is its own trouble.
 */
static void take_etag_error(const outr__plug_call *c, outr_arena *arena, outr_err *err)
{
    outr_code said = c->is_said ? c->status.code : OUTR_OK;
    if (said != OUTR_FAILED_PRECONDITION && said != OUTR_INVALID_ARGUMENT)
        return;
    const char *text = etag_violation(arena, c->status.details);
    if (!text)
        return;
    if (said == OUTR_FAILED_PRECONDITION)
        outr_fail(err, OUTR_ABORTED, "possible etag mismatch. error from state store: %s", text);
    else
        outr_fail(err, OUTR_INVALID_ARGUMENT, "invalid etag value: %s", text);
}

/* ---- reading --------------------------------------------------------------------------------- */

static V1(StateOptions__StateConsistency) consistency_of(outr_consistency consistency)
{
    switch (consistency) {
    case OUTR_EVENTUAL:
        return CONSISTENCY(EVENTUAL);
    case OUTR_STRONG:
        return CONSISTENCY(STRONG);
    default:
        return CONSISTENCY(UNSPECIFIED);
    }
}

static void fill_get(V1(GetRequest) *m, outr__plug_text *text, const outr_state_get *req, size_t i)
{
    dapr__proto__components__v1__get_request__init(m);
    m->key = outr__plug_z(text, req->items[i].key);
    m->metadata =
        outr__plug_map(text, req->metadata, &V1_TYPE(get_request__metadata_entry));
    m->n_metadata = req->metadata.count;
    m->consistency = consistency_of(req->consistency);
}

/* As daprd: no value, no item. */
static void take_item(outr_state_item *item, outr_arena *arena, ProtobufCBinaryData data,
                      const V1(Etag) *etag, outr_kvs metadata)
{
    const outr_kv *expires = outr_kvs_find(metadata, "ttlExpireTime");
    (void)arena;
    item->is_found = data.len > 0;
    if (!item->is_found)
        return;
    item->value = outr_proto_bytes(data);
    item->etag = etag ? outr_str_from(etag->value) : OUTR_STR_NONE;
    item->ttl_expire_time = expires ? expires->value : OUTR_STR_NONE;
}

static void take_got(job *j, outr_state_item *item, outr__plug_call *c)
{
    const V1(GetResponse) *m = c->answer;
    outr_arena *arena = j->get->arena;
    take_item(item, arena, m->data, m->etag, outr__plug_kvs(arena, m->metadata, m->n_metadata));
    outr__plug_call_keep(c, arena);
}

static void on_got(outr_op *op)
{
    job *j = OUTR_CONTAINER(op, job, inner);
    if (!op->err.code)
        take_got(j, &j->get->items[0], &j->call);
    outr__plug_call_done(&j->call);
    finish(j, op->err.code ? &op->err : NULL);
}

static outr_code prepare_get(outr__plug_each *e, size_t i, outr__plug_call *c, outr_err *err)
{
    job *j = e->user;
    V1(GetRequest) *m = outr_arena_alloc(e->arena, sizeof *m);
    outr__plug_text text = {.arena = e->arena};
    fill_get(m, &text, j->get, i);
    *c = (outr__plug_call){
        .path = STORE("Get"), .message = m, .type = &V1_TYPE(get_response)};
    return outr__plug_check(&text, err);
}

static void take_get(outr__plug_each *e, size_t i, outr__plug_call *c, const outr_err *err)
{
    job *j = e->user;
    if (err)
        j->get->items[i].err = *err;
    else
        take_got(j, &j->get->items[i], c);
}

static void on_each_got(outr_op *op)
{
    finish(OUTR_CONTAINER(op, job, inner), op->err.code ? &op->err : NULL);
}

static void get_each(job *j)
{
    call_each(j, j->get->arena, j->get->count, on_each_got, prepare_get, take_get);
}

/* Answers may come in any order, and some not at all. A key asked for twice is answered twice. */
static void take_bulk(job *j)
{
    const V1(BulkGetResponse) *m = j->call.answer;
    outr_arena *arena = j->get->arena;
    outr_map *by_key = outr_map_new();
    for (size_t i = 0; i < m->n_items; i++)
        outr_map_put(by_key, outr_str_from(m->items[i]->key), m->items[i]);
    for (size_t i = 0; i < j->get->count; i++) {
        outr_state_item *item = &j->get->items[i];
        const V1(BulkStateItem) *from = outr_map_get(by_key, item->key);
        if (from && from->error[0])
            outr_fail(&item->err, OUTR_INTERNAL, "%s", from->error);
        else if (from)
            take_item(item, arena, from->data, from->etag,
                      outr__plug_kvs(arena, from->metadata, from->n_metadata));
    }
    outr_map_free(by_key);
    outr__plug_call_keep(&j->call, arena);
}

static void on_bulk_got(outr_op *op)
{
    job *j = OUTR_CONTAINER(op, job, inner);
    if (op->err.code && is_lacking(j) && !outr_op_is_cancelled(j->op)) {
        get_each(j);
        return;
    }
    if (!op->err.code)
        take_bulk(j);
    outr__plug_call_done(&j->call);
    finish(j, op->err.code ? &op->err : NULL);
}

static void fail_soon(job *j, const outr_err *err)
{
    outr_op_fail_soon(j->op, err);
}

static void get_one(job *j)
{
    V1(GetRequest) *m = outr_arena_alloc(j->get->arena, sizeof *m);
    outr__plug_text text = {.arena = j->get->arena};
    outr_err err;
    fill_get(m, &text, j->get, 0);
    if (outr__plug_check(&text, &err))
        fail_soon(j, &err);
    else
        call(j, STORE("Get"), m, &V1_TYPE(get_response), on_got);
}

static void get_bulk(job *j)
{
    const outr_state_get *req = j->get;
    outr_arena *arena = req->arena;
    V1(BulkGetRequest) *m = outr_arena_alloc(arena, sizeof *m);
    V1(GetRequest) *items = outr_arena_alloc(arena, req->count * sizeof *items);
    V1(BulkGetRequestOptions) *options = outr_arena_alloc(arena, sizeof *options);
    outr__plug_text text = {.arena = arena};
    outr_err err;
    dapr__proto__components__v1__bulk_get_request__init(m);
    dapr__proto__components__v1__bulk_get_request_options__init(options);
    m->options = options;
    m->n_items = req->count;
    m->items = outr_arena_alloc(arena, req->count * sizeof *m->items);
    for (size_t i = 0; i < req->count; i++) {
        fill_get(&items[i], &text, req, i);
        m->items[i] = &items[i];
    }
    j->lacks = &j->st->has_no_bulk_get;
    if (outr__plug_check(&text, &err))
        fail_soon(j, &err);
    else
        call(j, STORE("BulkGet"), m, &V1_TYPE(bulk_get_response), on_bulk_got);
}

static void get(outr_state_store *base, outr_state_get *req, outr_op *op)
{
    store *st = of(base);
    job *j = new_job(st, req->arena, op);
    j->get = req;
    if (req->count == 1)
        get_one(j);
    else if (req->count == 0 || lacks(&st->has_no_bulk_get))
        get_each(j);
    else
        get_bulk(j);
}

/* ---- writing --------------------------------------------------------------------------------- */

static V1(StateOptions) *options_of(outr_arena *arena, const outr_state_write *w)
{
    V1(StateOptions) *m = outr_arena_alloc(arena, sizeof *m);
    dapr__proto__components__v1__state_options__init(m);
    m->consistency = consistency_of(w->consistency);
    if (w->concurrency == OUTR_FIRST_WRITE)
        m->concurrency = CONCURRENCY(FIRST_WRITE);
    else if (w->concurrency == OUTR_LAST_WRITE)
        m->concurrency = CONCURRENCY(LAST_WRITE);
    return m;
}

static V1(Etag) *etag_of(outr__plug_text *text, const outr_state_write *w)
{
    if (!w->has_etag)
        return NULL;
    V1(Etag) *m = outr_arena_alloc(text->arena, sizeof *m);
    dapr__proto__components__v1__etag__init(m);
    m->value = outr__plug_z(text, w->etag);
    return m;
}

static V1(SetRequest) *set_of(outr__plug_text *text, const outr_state_write *w)
{
    V1(SetRequest) *m = outr_arena_alloc(text->arena, sizeof *m);
    dapr__proto__components__v1__set_request__init(m);
    m->key = outr__plug_z(text, w->key);
    m->value = outr_proto_data(w->value);
    m->etag = etag_of(text, w);
    m->metadata = outr__plug_map(text, w->metadata, &V1_TYPE(set_request__metadata_entry));
    m->n_metadata = w->metadata.count;
    m->options = options_of(text->arena, w);
    m->content_type = outr__plug_z(text, w->content_type);
    return m;
}

static V1(DeleteRequest) *delete_of(outr__plug_text *text, const outr_state_write *w)
{
    V1(DeleteRequest) *m = outr_arena_alloc(text->arena, sizeof *m);
    dapr__proto__components__v1__delete_request__init(m);
    m->key = outr__plug_z(text, w->key);
    m->etag = etag_of(text, w);
    m->metadata = outr__plug_map(text, w->metadata, &V1_TYPE(delete_request__metadata_entry));
    m->n_metadata = w->metadata.count;
    m->options = options_of(text->arena, w);
    return m;
}

static outr_code prepare_write(outr__plug_each *e, size_t i, outr__plug_call *c, outr_err *err)
{
    job *j = e->user;
    const outr_state_write *w = &j->writes->items[i];
    outr__plug_text text = {.arena = e->arena};
    if (w->kind == OUTR_STATE_DELETE)
        *c = (outr__plug_call){.path = STORE("Delete"),
                               .message = delete_of(&text, w),
                               .type = &V1_TYPE(delete_response)};
    else
        *c = (outr__plug_call){.path = STORE("Set"),
                               .message = set_of(&text, w),
                               .type = &V1_TYPE(set_response)};
    return outr__plug_check(&text, err);
}

static void take_write(outr__plug_each *e, size_t i OUTR_UNUSED, outr__plug_call *c,
                       const outr_err *err)
{
    job *j = e->user;
    if (!err || j->first.code)
        return;
    j->first = *err;
    take_etag_error(c, e->arena, &j->first);
}

static void on_each_written(outr_op *op)
{
    job *j = OUTR_CONTAINER(op, job, inner);
    const outr_err *err = op->err.code ? &op->err : &j->first;
    finish(j, err->code ? err : NULL);
}

static void write_each(job *j)
{
    call_each(j, j->writes->arena, j->writes->count, on_each_written, prepare_write, take_write);
}

static void on_written(outr_op *op)
{
    job *j = OUTR_CONTAINER(op, job, inner);
    outr_err err = op->err;
    if (err.code && j->lacks && is_lacking(j) && !outr_op_is_cancelled(j->op)) {
        write_each(j);
        return;
    }
    if (err.code)
        take_etag_error(&j->call, j->writes->arena, &err);
    outr__plug_call_done(&j->call);
    finish(j, err.code ? &err : NULL);
}

static void set_bulk(job *j, outr__plug_text *text)
{
    const outr_state_writes *req = j->writes;
    V1(BulkSetRequest) *m = outr_arena_alloc(req->arena, sizeof *m);
    V1(BulkSetRequestOptions) *options = outr_arena_alloc(req->arena, sizeof *options);
    outr_err err;
    dapr__proto__components__v1__bulk_set_request__init(m);
    dapr__proto__components__v1__bulk_set_request_options__init(options);
    m->options = options;
    m->n_items = req->count;
    m->items = outr_arena_alloc(req->arena, req->count * sizeof *m->items);
    for (size_t i = 0; i < req->count; i++)
        m->items[i] = set_of(text, &req->items[i]);
    j->lacks = &j->st->has_no_bulk_set;
    if (outr__plug_check(text, &err))
        fail_soon(j, &err);
    else
        call(j, STORE("BulkSet"), m, &V1_TYPE(bulk_set_response), on_written);
}

static void delete_bulk(job *j, outr__plug_text *text)
{
    const outr_state_writes *req = j->writes;
    V1(BulkDeleteRequest) *m = outr_arena_alloc(req->arena, sizeof *m);
    V1(BulkDeleteRequestOptions) *options = outr_arena_alloc(req->arena, sizeof *options);
    outr_err err;
    dapr__proto__components__v1__bulk_delete_request__init(m);
    dapr__proto__components__v1__bulk_delete_request_options__init(options);
    m->options = options;
    m->n_items = req->count;
    m->items = outr_arena_alloc(req->arena, req->count * sizeof *m->items);
    for (size_t i = 0; i < req->count; i++)
        m->items[i] = delete_of(text, &req->items[i]);
    j->lacks = &j->st->has_no_bulk_delete;
    if (outr__plug_check(text, &err))
        fail_soon(j, &err);
    else
        call(j, STORE("BulkDelete"), m, &V1_TYPE(bulk_delete_response), on_written);
}

static void transact(job *j, outr__plug_text *text)
{
    const outr_state_writes *req = j->writes;
    V1(TransactionalStateRequest) *m = outr_arena_alloc(req->arena, sizeof *m);
    V1(TransactionalStateOperation) *items = outr_arena_alloc(
        req->arena, (req->count + 1) * sizeof *items);
    outr_err err;
    dapr__proto__components__v1__transactional_state_request__init(m);
    m->n_operations = req->count;
    m->operations = outr_arena_alloc(req->arena, (req->count + 1) * sizeof *m->operations);
    for (size_t i = 0; i < req->count; i++) {
        V1(TransactionalStateOperation) *item = m->operations[i] = &items[i];
        dapr__proto__components__v1__transactional_state_operation__init(item);
        if (req->items[i].kind == OUTR_STATE_DELETE) {
            item->request_case =
                DAPR__PROTO__COMPONENTS__V1__TRANSACTIONAL_STATE_OPERATION__REQUEST_DELETE;
            item->delete_ = delete_of(text, &req->items[i]);
        } else {
            item->request_case =
                DAPR__PROTO__COMPONENTS__V1__TRANSACTIONAL_STATE_OPERATION__REQUEST_SET;
            item->set = set_of(text, &req->items[i]);
        }
    }
    m->metadata = outr__plug_map(text, req->metadata,
                                 &V1_TYPE(transactional_state_request__metadata_entry));
    m->n_metadata = req->metadata.count;
    if (outr__plug_check(text, &err))
        fail_soon(j, &err);
    else
        call(j, OUTR__PLUG_PATH("TransactionalStateStore", "Transact"), m,
             &V1_TYPE(transactional_state_response), on_written);
}

static bool are_all(const outr_state_writes *req, int kind_of_write)
{
    for (size_t i = 0; i < req->count; i++) {
        if ((int)req->items[i].kind != kind_of_write)
            return false;
    }
    return true;
}

static void do_write(outr_state_store *base, outr_state_writes *req, outr_op *op)
{
    store *st = of(base);
    job *j = new_job(st, req->arena, op);
    outr__plug_text text = {.arena = req->arena};
    j->writes = req;
    if (req->is_atomic)
        transact(j, &text);
    else if (req->count > 1 && are_all(req, OUTR_STATE_UPSERT) && !lacks(&st->has_no_bulk_set))
        set_bulk(j, &text);
    else if (req->count > 1 && are_all(req, OUTR_STATE_DELETE) && !lacks(&st->has_no_bulk_delete))
        delete_bulk(j, &text);
    else
        write_each(j);
}

/* ---- life ------------------------------------------------------------------------------------ */

static outr_code create(outr_state_store **out, const outr_component_init *init,
                        outr_err *err OUTR_UNUSED)
{
    store *st = outr_alloc(sizeof *st);
    st->base.backend = &outr_state_pluggable;
    st->plug = outr__plug_new(init, &kind, OUTR_STR_NONE);
    *out = &st->base;
    return OUTR_OK;
}

static void open_store(outr_state_store *base, outr_op *op)
{
    outr__plug_open(of(base)->plug, op);
}

static void close_store(outr_state_store *base, outr_op *op)
{
    outr__plug_close(of(base)->plug, op);
    free(of(base));
}

static unsigned features(const outr_state_store *base)
{
    const outr__plug *plug = OUTR_CONTAINER(base, store, base)->plug;
    unsigned bits = outr__plug_features(plug);
    return outr__plug_services(plug) & SERVES_TRANSACTIONS ? bits
                                                           : bits & ~OUTR_STATE_TRANSACTIONAL;
}

const outr_state_backend outr_state_pluggable = {
    .create = create,
    .open = open_store,
    .close = close_store,
    .features = features,
    .get = get,
    .write = do_write,
};
