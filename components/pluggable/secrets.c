/* Secret stores behind a socket. */
#include <dapr/proto/components/v1/secretstore.pb-c.h>

#include "components/pluggable/client.h"
#include "components/secretstores.h"

#define STORE(method) OUTR__PLUG_PATH("SecretStore", method)

static const outr__plug_service services[] = {
    {"dapr.proto.components.v1.SecretStore", STORE("Init"), STORE("Features"), STORE("Ping"), 1},
    {0},
};
static const outr__plug_name feature_names[] = {
    {"MULTIPLE_KEY_VALUES_PER_SECRET", OUTR_SECRET_MULTIPLE},
    {0},
};
static const outr__plug_kind kind = {"secretstores", services, NULL, feature_names};

typedef struct store {
    outr_secret_store base;
    outr__plug *plug;
} store;

typedef struct job {
    outr_secret_get *req;
    outr_op *op;
    outr_op inner;
    outr__plug_call call;
} job;

extern const outr_secret_backend outr_secretstores_pluggable;

static store *of(outr_secret_store *base)
{
    return OUTR_CONTAINER(base, store, base);
}

static void take_one(outr_secret_get *req, const Dapr__Proto__Components__V1__GetSecretResponse *m)
{
    req->secrets = outr_arena_alloc(req->arena, sizeof *req->secrets);
    req->secrets[0] =
        (outr_secret){req->name, outr__plug_kvs(req->arena, m->data, m->n_data)};
    req->count = 1;
}

static void take_all(outr_secret_get *req,
                     const Dapr__Proto__Components__V1__BulkGetSecretResponse *m)
{
    req->secrets = outr_arena_alloc(req->arena, (m->n_data + 1) * sizeof *req->secrets);
    req->count = 0;
    for (size_t i = 0; i < m->n_data; i++) {
        const Dapr__Proto__Components__V1__SecretResponse *one = m->data[i]->value;
        outr_kvs values = {0};
        if (one)
            values = outr__plug_kvs(req->arena, one->secrets, one->n_secrets);
        req->secrets[req->count++] = (outr_secret){outr_str_from(m->data[i]->key), values};
    }
}

static void on_got(outr_op *inner)
{
    job *j = OUTR_CONTAINER(inner, job, inner);
    if (inner->err.code) {
        outr__plug_call_done(&j->call);
        outr_op_fail(j->op, &inner->err);
        return;
    }
    if (j->req->is_bulk)
        take_all(j->req, j->call.answer);
    else
        take_one(j->req, j->call.answer);
    outr__plug_call_keep(&j->call, j->req->arena);
    outr_op_finish(j->op);
}

static const void *bulk_message(outr__plug_text *text, const outr_secret_get *req)
{
    Dapr__Proto__Components__V1__BulkGetSecretRequest *m =
        outr_arena_alloc(text->arena, sizeof *m);
    dapr__proto__components__v1__bulk_get_secret_request__init(m);
    m->metadata = outr__plug_map(
        text, req->metadata,
        &dapr__proto__components__v1__bulk_get_secret_request__metadata_entry__descriptor);
    m->n_metadata = req->metadata.count;
    return m;
}

static const void *message(outr__plug_text *text, const outr_secret_get *req)
{
    Dapr__Proto__Components__V1__GetSecretRequest *m = outr_arena_alloc(text->arena, sizeof *m);
    dapr__proto__components__v1__get_secret_request__init(m);
    m->key = outr__plug_z(text, req->name);
    m->metadata = outr__plug_map(
        text, req->metadata,
        &dapr__proto__components__v1__get_secret_request__metadata_entry__descriptor);
    m->n_metadata = req->metadata.count;
    return m;
}

static void get(outr_secret_store *base, outr_secret_get *req, outr_op *op)
{
    job *j = outr_arena_alloc(req->arena, sizeof *j);
    outr__plug_text text = {.arena = req->arena};
    outr_err err;
    j->req = req;
    j->op = op;
    if (req->is_bulk)
        j->call = (outr__plug_call){
            .path = STORE("BulkGet"),
            .message = bulk_message(&text, req),
            .type = &dapr__proto__components__v1__bulk_get_secret_response__descriptor};
    else
        j->call = (outr__plug_call){
            .path = STORE("Get"),
            .message = message(&text, req),
            .type = &dapr__proto__components__v1__get_secret_response__descriptor};
    outr_op_begin(op, j, NULL);
    if (outr__plug_check(&text, &err)) {
        outr_op_fail_soon(op, &err);
        return;
    }
    outr_op_init(&j->inner, op->loop, op, 0, on_got);
    outr__plug_call_start(of(base)->plug, &j->call, &j->inner);
}

static outr_code create(outr_secret_store **out, const outr_component_init *init,
                        outr_err *err OUTR_UNUSED)
{
    store *st = outr_alloc(sizeof *st);
    st->base.backend = &outr_secretstores_pluggable;
    st->plug = outr__plug_new(init, &kind, OUTR_STR_NONE);
    *out = &st->base;
    return OUTR_OK;
}

static void open_store(outr_secret_store *base, outr_op *op)
{
    outr__plug_open(of(base)->plug, op);
}

static void close_store(outr_secret_store *base, outr_op *op)
{
    outr__plug_close(of(base)->plug, op);
    free(of(base));
}

static unsigned features(const outr_secret_store *base)
{
    return outr__plug_features(OUTR_CONTAINER(base, store, base)->plug);
}

const outr_secret_backend outr_secretstores_pluggable = {
    .create = create,
    .open = open_store,
    .close = close_store,
    .features = features,
    .get = get,
};
