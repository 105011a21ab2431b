#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "http/remote.h"
#include "lib/wire.h"

/* One call whose server's name is being looked up, for as long as the test likes. */
typedef struct bench {
    wire w;
    outr_remote *remote;
    outr_remote_call call;
    outr_arena *arena;
    outr_op op, closing;
    outr_lookup *asked;
    outr_op *asked_op;
    outr_code code;
    bool is_done, is_closed;
} bench;

static bench *the_bench; /* for the environment's look-up, which has no context */

static void env_lookup(outr_env *env OUTR_UNUSED, outr_loop *loop OUTR_UNUSED, outr_lookup *req,
                       outr_op *op)
{
    outr_op_begin(op, NULL, NULL);
    the_bench->asked = req;
    the_bench->asked_op = op;
}

static void on_done(outr_op *op)
{
    bench *b = OUTR_CONTAINER(op, bench, op);
    b->is_done = true;
    b->code = op->err.code;
}

static void on_closed(outr_op *op)
{
    OUTR_CONTAINER(op, bench, closing)->is_closed = true;
}

static void begin(bench *b)
{
    *b = (bench){.arena = outr_arena_new(OUTR_MIB)};
    the_bench = b;
    wire_init(&b->w, 1);
    b->w.env.lookup = env_lookup;
    b->remote = outr_remote_new(b->w.loop, NULL);
    b->call = (outr_remote_call){.arena = b->arena,
                                 .method = OUTR_STR("GET"),
                                 .url = OUTR_STR("http://server.test:81/"),
                                 .max_answer = OUTR_KIB};
    outr_headers_init(&b->call.headers, b->arena);
    outr_op_init(&b->op, b->w.loop, NULL, 0, on_done);
    outr_remote_call_start(b->remote, &b->call, &b->op);
    wire_run(&b->w);
    assert_non_null(b->asked);
    outr_addr_from_ip(&b->asked->addrs[0], OUTR_STR("10.0.0.1"), 81, NULL);
    b->asked->count = 1;
}

static void an_address_found_after_the_end_is_not_called(void **state)
{
    static bench b;
    (void)state;
    for (int is_at_once = 0; is_at_once < 2; is_at_once++) {
        begin(&b);
        if (is_at_once)
            outr_op_finish_soon(b.asked_op); /* and is behind the end all the same */
        outr_op_init(&b.closing, b.w.loop, NULL, 0, on_closed);
        outr_remote_close(b.remote, &b.closing);
        wire_run(&b.w);
        assert_true(b.is_closed);
        if (!is_at_once)
            outr_op_finish(b.asked_op);
        wire_run(&b.w);
        assert_true(b.is_done);
        assert_int_equal(b.code, OUTR_CANCELLED);
        assert_int_equal(b.w.connect_count, 0);
        outr_arena_free(b.arena);
        wire_done(&b.w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_address_found_after_the_end_is_not_called),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
