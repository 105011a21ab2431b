/* middleware - vtable of HTTP middlewares: each looks at a request on its way to the API or to the
 * app, lets it pass (changed or not) or answers it. A pipeline is a chain of them, in the order in
 * which the Configuration names them.
 *
 * The head comes first; the body is not touched unless a middleware puts itself in front of it, and
 * streams then too. Functions are called on the loop of the request, from several loops at once. */
#ifndef OUTR_COMPONENTS_MIDDLEWARE_H
#define OUTR_COMPONENTS_MIDDLEWARE_H

#include "components/component.h"
#include "http/message.h"
#include "net/pipe.h"

typedef struct outr_middleware outr_middleware;

typedef enum outr_middleware_verdict {
    OUTR_MIDDLEWARE_PASS,
    OUTR_MIDDLEWARE_ANSWER, /* `answer` goes back, nobody behind sees the request */
    OUTR_MIDDLEWARE_WAIT,   /* op is pending; when it is done `verdict` holds one of the others */
} outr_middleware_verdict;

typedef struct outr_middleware_call {
    outr_loop *loop;
    outr_arena *arena;       /* the request's */
    outr_http_request *req;  /* target and headers may be changed; the target stays rooted */
    outr_source *body;       /* may be replaced by a source that reads it; NULL: none */
    const outr_addr *client; /* who asks; NULL: not known */
    /* out */
    outr_middleware_verdict verdict; /* after WAIT */
    outr_http_response answer;       /* ANSWER; headers on arena */
    outr_str answer_body;            /* on arena */
    outr_headers extra;              /* added to whatever answer there will be */
} outr_middleware_call;

typedef struct outr_middleware_backend {
    outr_backend base;
    outr_code (*create)(outr_middleware **out, const outr_component_init *init, outr_err *err);
    void (*open)(outr_middleware *m, outr_op *op);
    void (*close)(outr_middleware *m, outr_op *op); /* no request is in it any more; frees */
    /* op: initialised by the caller, begun only by one that answers WAIT. A failure of it is
     * 500. */
    outr_middleware_verdict (*handle)(outr_middleware *m, outr_middleware_call *call, outr_op *op);
} outr_middleware_backend;

struct outr_middleware {
    const outr_middleware_backend *backend;
};

typedef struct outr_chain {
    outr_middleware *const *items;
    size_t count;
} outr_chain;

/* An answer as Go's http.Error and its like give it: text/plain. */
outr_middleware_verdict outr_middleware_refuse(outr_middleware_call *call, int status,
                                               const char *text);
/* open of those that have nothing to wait for. */
void outr_middleware_open(outr_middleware *m, outr_op *op);

#endif
