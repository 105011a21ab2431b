/* Brokers behind a socket: publishing, and the life of the component. subscribe.c has the rest. */
#include "components/pluggable/pubsub.h"

#include <dapr/proto/components/v1/pubsub.pb-c.h>

#define BROKER(method) OUTR__PLUG_PATH("PubSub", method)

static const outr__plug_service services[] = {
    {"dapr.proto.components.v1.PubSub", BROKER("Init"), BROKER("Features"), BROKER("Ping"), 1},
    {0},
};
static const outr__plug_name feature_names[] = {
    {"MESSAGE_TTL", OUTR_PUBSUB_TTL},
    {"SUBSCRIBE_WILDCARDS", OUTR_PUBSUB_WILDCARDS},
    {"BULK_PUBSUB", OUTR_PUBSUB_BULK_PUBLISH},
    {0},
};
static const outr__plug_kind kind = {"pubsub", services, NULL, feature_names};

/* One publishing on its way; on an arena of its own. */
typedef struct job {
    outr__plug_broker *b;
    outr_arena *arena;
    outr_publish *req;
    outr_op *op;
    outr_op inner;
    outr__plug_call call;
    outr__plug_each each;
} job;

#define JOB_ARENA (64 * OUTR_MIB)

static outr__plug_broker *of(outr_broker *base)
{
    return OUTR_CONTAINER(base, outr__plug_broker, base);
}

static void finish(job *j, const outr_err *err)
{
    outr_op *op = j->op;
    outr_err copy;
    if (err)
        copy = *err;
    outr__plug_call_done(&j->call);
    outr_arena_free(j->arena);
    if (err)
        outr_op_fail(op, &copy);
    else
        outr_op_finish(op);
}

/* ---- one by one ------------------------------------------------------------------------------ */

static outr_code prepare(outr__plug_each *e, size_t i, outr__plug_call *c, outr_err *err)
{
    const job *j = e->user;
    const outr_publish_item *item = &j->req->items[i];
    outr__plug_text text = {.arena = e->arena};
    Dapr__Proto__Components__V1__PublishRequest *m = outr_arena_alloc(e->arena, sizeof *m);
    dapr__proto__components__v1__publish_request__init(m);
    m->data = outr_proto_data(item->data);
    m->pubsub_name = outr__plug_z(&text, outr__plug_id(j->b->plug));
    m->topic = outr__plug_z(&text, j->req->topic);
    m->metadata = outr__plug_map(
        &text, item->metadata,
        &dapr__proto__components__v1__publish_request__metadata_entry__descriptor);
    m->n_metadata = item->metadata.count;
    m->content_type = outr__plug_z(&text, item->content_type);
    *c = (outr__plug_call){.path = BROKER("Publish"),
                           .message = m,
                           .type = &dapr__proto__components__v1__publish_response__descriptor};
    return outr__plug_check(&text, err);
}

static void take(outr__plug_each *e, size_t i, outr__plug_call *c OUTR_UNUSED, const outr_err *err)
{
    const job *j = e->user;
    if (err)
        j->req->items[i].err = *err;
}

static const outr_err *first_error(const outr_publish *req)
{
    for (size_t i = 0; i < req->count; i++) {
        if (req->items[i].err.code)
            return &req->items[i].err;
    }
    return NULL;
}

static void on_each(outr_op *inner)
{
    job *j = OUTR_CONTAINER(inner, job, inner);
    finish(j, inner->err.code ? &inner->err : first_error(j->req));
}

static void publish_each(job *j)
{
    j->each = (outr__plug_each){
        .arena = j->arena, .count = j->req->count, .prepare = prepare, .take = take, .user = j};
    outr_op_init(&j->inner, j->op->loop, j->op, 0, on_each);
    outr__plug_each_start(j->b->plug, &j->each, &j->inner);
}

/* ---- all at once ----------------------------------------------------------------------------- */

static void take_failures(job *j)
{
    const Dapr__Proto__Components__V1__BulkPublishResponse *m = j->call.answer;
    outr_map *failed = outr_map_new();
    for (size_t i = 0; i < m->n_failed_entries; i++)
        outr_map_put(failed, outr_str_from(m->failed_entries[i]->entry_id), m->failed_entries[i]);
    for (size_t i = 0; i < j->req->count && m->n_failed_entries > 0; i++) {
        outr_publish_item *item = &j->req->items[i];
        const Dapr__Proto__Components__V1__BulkPublishResponseFailedEntry *entry =
            outr_map_get(failed, item->entry_id);
        if (entry)
            outr_fail(&item->err, OUTR_INTERNAL, "%s", entry->error);
    }
    outr_map_free(failed);
}

static void on_bulk(outr_op *inner)
{
    job *j = OUTR_CONTAINER(inner, job, inner);
    if (inner->err.code) {
        finish(j, &inner->err);
        return;
    }
    take_failures(j);
    finish(j, first_error(j->req));
}

static outr_code publish_bulk(job *j, outr_err *err)
{
    const outr_publish *req = j->req;
    outr__plug_text text = {.arena = j->arena};
    Dapr__Proto__Components__V1__BulkPublishRequest *m = outr_arena_alloc(j->arena, sizeof *m);
    Dapr__Proto__Components__V1__BulkMessageEntry *entries =
        outr_arena_alloc(j->arena, req->count * sizeof *entries);
    dapr__proto__components__v1__bulk_publish_request__init(m);
    m->pubsub_name = outr__plug_z(&text, outr__plug_id(j->b->plug));
    m->topic = outr__plug_z(&text, req->topic);
    m->metadata = outr__plug_map(
        &text, req->metadata,
        &dapr__proto__components__v1__bulk_publish_request__metadata_entry__descriptor);
    m->n_metadata = req->metadata.count;
    m->n_entries = req->count;
    m->entries = outr_arena_alloc(j->arena, req->count * sizeof *m->entries);
    for (size_t i = 0; i < req->count; i++) {
        const outr_publish_item *item = &req->items[i];
        dapr__proto__components__v1__bulk_message_entry__init(&entries[i]);
        entries[i].entry_id = outr__plug_z(&text, item->entry_id);
        entries[i].event = outr_proto_data(item->data);
        entries[i].content_type = outr__plug_z(&text, item->content_type);
        entries[i].metadata = outr__plug_map(
            &text, item->metadata,
            &dapr__proto__components__v1__bulk_message_entry__metadata_entry__descriptor);
        entries[i].n_metadata = item->metadata.count;
        m->entries[i] = &entries[i];
    }
    if (outr__plug_check(&text, err))
        return err->code;
    j->call = (outr__plug_call){
        .path = BROKER("BulkPublish"),
        .message = m,
        .type = &dapr__proto__components__v1__bulk_publish_response__descriptor};
    outr_op_init(&j->inner, j->op->loop, j->op, 0, on_bulk);
    outr__plug_call_start(j->b->plug, &j->call, &j->inner);
    return OUTR_OK;
}

static void publish(outr_broker *base, outr_publish *req, outr_op *op)
{
    outr_arena *arena = outr_arena_new(JOB_ARENA);
    job *j = outr_arena_alloc(arena, sizeof *j);
    outr_err err;
    *j = (job){.b = of(base), .arena = arena, .req = req, .op = op};
    bool is_bulk = req->count > 1 || (req->count == 1 && req->items[0].entry_id.n > 0);
    outr_op_begin(op, j, NULL);
    for (size_t i = 0; i < req->count; i++)
        outr_err_clear(&req->items[i].err);
    if (!is_bulk || !(outr__plug_features(j->b->plug) & OUTR_PUBSUB_BULK_PUBLISH)) {
        publish_each(j);
    } else if (publish_bulk(j, &err)) {
        outr_arena_free(arena);
        outr_op_fail_soon(op, &err);
    }
}

/* ---- life ------------------------------------------------------------------------------------ */

static outr_code create(outr_broker **out, const outr_component_init *init,
                        outr_err *err OUTR_UNUSED)
{
    outr__plug_broker *b = outr_alloc(sizeof *b);
    b->base.backend = &outr_pubsub_pluggable;
    b->plug = outr__plug_new(init, &kind, init->app_id);
    *out = &b->base;
    return OUTR_OK;
}

static void open_broker(outr_broker *base, outr_op *op)
{
    outr__plug_open(of(base)->plug, op);
}

static void close_broker(outr_broker *base, outr_op *op)
{
    outr__plug_close(of(base)->plug, op);
    free(of(base));
}

static unsigned features(const outr_broker *base)
{
    return outr__plug_features(OUTR_CONTAINER(base, outr__plug_broker, base)->plug);
}

const outr_pubsub_backend outr_pubsub_pluggable = {
    .create = create,
    .open = open_broker,
    .close = close_broker,
    .features = features,
    .publish = publish,
    .subscribe = outr__plug_subscribe,
    .settle = outr__plug_settle,
    .pause = outr__plug_pause,
    .unsubscribe = outr__plug_unsubscribe,
};
