#include "base/regex.h"
#include "components/middleware.h"

/* Lets pass what matches a rule, by path and query as they were sent. */

extern const outr_middleware_backend outr_middleware_routerchecker;

typedef struct checker {
    outr_middleware base;
    outr_regex *rule;
} checker;

typedef struct config {
    outr_str rule;
} config;

static const outr_bind_row rows[] = {
    {"rule", NULL, OUTR_BIND_STR, OUTR_BIND_REQUIRED, offsetof(config, rule), 0, 0, NULL, NULL, 0,
     "regular expression a request path must match"},
};

static outr_middleware_verdict handle(outr_middleware *m, outr_middleware_call *call,
                                      outr_op *op OUTR_UNUSED)
{
    const checker *c = OUTR_CONTAINER(m, checker, base);
    return outr_regex_search(c->rule, call->req->target)
               ? OUTR_MIDDLEWARE_PASS
               : outr_middleware_refuse(call, 400, "invalid router");
}

static void close_it(outr_middleware *m, outr_op *op)
{
    checker *c = OUTR_CONTAINER(m, checker, base);
    outr_regex_free(c->rule);
    free(c);
    outr_op_begin(op, NULL, NULL);
    outr_op_finish_soon(op);
}

static outr_code create(outr_middleware **out, const outr_component_init *init, outr_err *err)
{
    OUTR_AUTO(outr_err_list) errors = {0};
    config given = {0};
    if (outr_bind_kvs(rows, OUTR_LEN(rows), &given, init->metadata, &errors)) {
        *err = errors.items[0];
        return err->code;
    }
    outr_regex *rule;
    if (outr_regex_new(&rule, given.rule, err))
        return outr_wrap(err, "rule");
    checker *c = outr_alloc(sizeof *c);
    c->base.backend = &outr_middleware_routerchecker;
    c->rule = rule;
    *out = &c->base;
    return OUTR_OK;
}

const outr_middleware_backend outr_middleware_routerchecker = {
    .base = {"middleware.http.routerchecker", "v1", rows, OUTR_LEN(rows)},
    .create = create,
    .open = outr_middleware_open,
    .close = close_it,
    .handle = handle,
};
