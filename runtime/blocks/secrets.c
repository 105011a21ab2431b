#include "blocks/host.h"

outr_code outr_secret_pick(outr_str *out, const outr_secret_get *get, outr_str key, outr_err *err)
{
    outr_kvs values = get->count ? get->secrets[0].values : (outr_kvs){0};
    const outr_kv *kv = outr_kvs_find_exact(values, key);
    if (!kv && values.count == 1)
        kv = &values.items[0];
    if (!kv)
        return outr_fail(err, OUTR_NOT_FOUND, "secret " OUTR_FMT " has no key " OUTR_FMT,
                         OUTR_ARG(get->name), OUTR_ARG(key));
    *out = kv->value;
    return OUTR_OK;
}

static void on_read(outr_op *inner)
{
    outr_secret_value *v = OUTR_CONTAINER(inner, outr_secret_value, inner);
    outr_err err = inner->err;
    if (!err.code)
        outr_secret_pick(&v->value, &v->get, v->key, &err);
    outr_view_unpin(v->pin);
    if (err.code)
        outr_op_fail(v->op, &err);
    else
        outr_op_finish(v->op);
}

static void on_cancel(outr_op *op)
{
    outr_secret_value *v = op->impl;
    outr_op_cancel(&v->inner, op->err.code);
}

void outr_host_read_secret(void *ctx, outr_secret_value *v, outr_op *op)
{
    outr_view *view = outr_host_pin(ctx, op->loop);
    const outr_component *c = outr_view_find(view, OUTR_KIND_SECRETS, v->store);
    v->op = op;
    outr_op_begin(op, v, on_cancel);
    if (!c) {
        outr_err err;
        outr_fail(&err, OUTR_NOT_FOUND, "secret store \"" OUTR_FMT "\" not found",
                  OUTR_ARG(v->store));
        outr_view_unpin(view);
        outr_op_fail_soon(op, &err);
        return;
    }
    v->pin = view;
    v->get = (outr_secret_get){.arena = v->arena, .name = v->name};
    outr_op_init(&v->inner, op->loop, op, 0, on_read);
    c->secrets->backend->get(c->secrets, &v->get, &v->inner);
}
