/* web - both sides of HTTP for tests: a sink that remembers, a call that remembers its answer. */
#ifndef OUTR_TESTS_WEB_H
#define OUTR_TESTS_WEB_H

#include "http/client.h"
#include "http/server.h"

typedef struct web_taker {
    outr_sink base;
    outr_buf body;
    bool has_ended, was_aborted;
    bool is_full; /* take no more until web_taker_resume */
    outr_err err;
    char trailers[256]; /* "name=value;" each */
} web_taker;

void web_taker_start(web_taker *taker, outr_source *source);
void web_taker_resume(web_taker *taker);
void web_taker_done(web_taker *taker);

/* A source the test pushes by hand. */
typedef struct web_giver {
    outr_source base;
    bool is_wanted, was_cancelled; /* wanted: attached, and not full */
} web_giver;

void web_giver_init(web_giver *giver, int64_t length);
/* Nothing once nobody listens any more. */
bool web_give(web_giver *giver, const char *text);
void web_give_end(web_giver *giver);
void web_give_abort(web_giver *giver);

typedef struct web_call {
    outr_http_call call;
    outr_http_request req;
    outr_op op;
    outr_arena *arena;
    outr_memory_source bytes;
    web_taker taker;
    unsigned informs;
    int inform_status;
    unsigned done_count;
    outr_err err;
    bool cancels_body; /* give the response body up */
} web_call;

void web_call_init(web_call *c, outr_loop *loop, const char *method, const char *target);
void web_call_bytes(web_call *c, const char *p, size_t n); /* request body; length declared */
void web_call_start(web_call *c, outr_http_pool *pool);
void web_call_done(web_call *c);

/* Handlers: what comes from source goes back; a whole answer. Both call done. */
void web_echo(outr_exchange *x, outr_source *source, int status);
void web_answer(outr_exchange *x, int status, const char *body);

#endif
