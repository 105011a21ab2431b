#include "api/core/secrets.h"
#include "api/http/http_api.h"
#include "base/json.h"

/* Secrets: one and all of a store. */

#define ANSWER_MAX (16 * OUTR_MIB)

static void write_secrets(outr_buf *out, const outr_core_secrets *s)
{
    outr_buf_char(out, '{');
    for (size_t i = 0; i < s->count; i++) {
        if (i)
            outr_buf_char(out, ',');
        outr_json_quote(out, s->secrets[i].name);
        outr_buf_char(out, ':');
        outr_json_quote_kvs(out, s->secrets[i].values);
    }
    outr_buf_char(out, '}');
}

static void on_done(outr_op *op)
{
    outr_api_request *r = OUTR_CONTAINER(op, outr_api_request, op);
    const outr_core_secrets *s = r->user;
    OUTR_AUTO(outr_buf) out = OUTR_BUF_MAX(ANSWER_MAX);
    outr_err err = op->err;
    if (!err.code && s->is_bulk)
        write_secrets(&out, s);
    else if (!err.code)
        outr_json_quote_kvs(&out, s->count ? s->secrets[0].values : (outr_kvs){0});
    if (out.is_full)
        outr_core_fail(&err, OUTR_REASON_SECRET_GET, "the secrets are too large for one answer");
    if (err.code)
        outr_api_fail(r, &err, NULL);
    else
        outr_api_reply(r, 200, "application/json", outr_buf_view(&out));
}

static void read_secrets(outr_api_request *r, bool is_bulk)
{
    outr_core_secrets *s = outr_arena_alloc(r->x->arena, sizeof *s);
    *s = (outr_core_secrets){.core = {r->api, r->view, r->x->arena},
                             .store_name = r->params[0],
                             .name = r->params[1],
                             .is_bulk = is_bulk,
                             .metadata = outr_api_metadata(r)};
    r->user = s;
    outr_op_init(&r->op, r->api->loop, NULL, 0, on_done);
    outr_core_secrets_start(s, &r->op);
}

static void get(outr_api_request *r)
{
    read_secrets(r, false);
}

static void get_all(outr_api_request *r)
{
    read_secrets(r, true);
}

const outr_api_route outr_routes_secrets[] = {
    {"GET", "/v1.0/secrets/{store}/{key}", 0, "secrets", "v1", NULL, get, NULL},
    {"GET", "/v1.0/secrets/{store}/bulk", 0, "secrets", "v1", NULL, get_all, NULL},
    {0},
};
