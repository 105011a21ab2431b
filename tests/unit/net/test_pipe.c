#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "lib/web.h"
#include "lib/wire.h"

static wire w;

static int open_wire(void **state)
{
    (void)state;
    wire_init(&w, 1);
    return 0;
}

static int close_wire(void **state)
{
    (void)state;
    wire_done(&w);
    return 0;
}

/* A sink that does one thing with each piece, and counts what it is told. */
typedef enum habit { TAKE, FULL, RESUME_AND_TAKE, RESUME_AND_FULL, GIVE_UP, FREE_SOURCE } habit;

typedef struct counter {
    outr_sink base;
    habit habit;
    size_t bytes;
    unsigned data_count, end_count, abort_count;
    outr_code code;
    void *to_free;
} counter;

static counter *of(outr_sink *sink)
{
    return OUTR_CONTAINER(sink, counter, base);
}

static bool count_data(outr_sink *sink, outr_slice own_slice)
{
    counter *c = of(sink);
    c->data_count++;
    c->bytes += own_slice.n;
    outr_slice_done(&own_slice);
    switch (c->habit) {
    case TAKE:
        return true;
    case FULL:
        return false;
    case RESUME_AND_TAKE:
    case RESUME_AND_FULL:
        outr_source_resume(sink->source);
        return c->habit == RESUME_AND_TAKE;
    case GIVE_UP:
        outr_source_cancel(sink->source, NULL);
        return true;
    case FREE_SOURCE:
        outr_source_cancel(sink->source, NULL);
        free(c->to_free);
        return false;
    }
    return true;
}

static void count_end(outr_sink *sink, const struct outr_headers *trailers)
{
    assert_null(trailers);
    of(sink)->end_count++;
}

static void count_abort(outr_sink *sink, const outr_err *err)
{
    of(sink)->abort_count++;
    of(sink)->code = err->code;
}

static const outr_sink_ops counter_ops = {count_data, count_end, count_abort};

static counter make_counter(habit h)
{
    return (counter){.base.ops = &counter_ops, .habit = h};
}

static void assert_ended(const counter *c, size_t bytes)
{
    assert_int_equal(c->bytes, bytes);
    assert_int_equal(c->end_count, 1);
    assert_int_equal(c->abort_count, 0);
}

/* ---- memory ------------------------------------------------------------------------------------ */

static void bytes_in_memory_come_later_whole_and_then_the_end(void **state)
{
    outr_memory_source m;
    counter c = make_counter(TAKE);
    (void)state;
    outr_memory_source_init(&m, w.loop, OUTR_STR("hello"));
    assert_int_equal(m.base.length, 5);
    outr_source_attach(&m.base, &c.base);
    assert_int_equal(c.data_count + c.end_count, 0); /* never from inside attach */
    wire_run(&w);
    assert_ended(&c, 5);
    assert_null(c.base.source);
    outr_source_resume(c.base.source);
    wire_run(&w);
    assert_ended(&c, 5);
}

static void nothing_at_all_is_only_an_end(void **state)
{
    outr_memory_source m;
    counter c = make_counter(TAKE);
    (void)state;
    outr_memory_source_init(&m, w.loop, OUTR_STR_NONE);
    outr_source_attach(&m.base, &c.base);
    wire_run(&w);
    assert_ended(&c, 0);
    assert_int_equal(c.data_count, 0);
}

static void a_full_sink_gets_its_end_when_it_has_room(void **state)
{
    outr_memory_source m;
    counter c = make_counter(FULL);
    (void)state;
    outr_memory_source_init(&m, w.loop, OUTR_STR("hello"));
    outr_source_attach(&m.base, &c.base);
    wire_run(&w);
    assert_int_equal(c.end_count, 0);
    outr_source_resume(&m.base);
    assert_int_equal(c.end_count, 0);
    wire_run(&w);
    assert_ended(&c, 5);
}

/* A sink that passes its bytes on at once may ask for more before data has returned. */
static void a_sink_that_resumes_at_once_gets_one_end(void **state)
{
    static const habit habits[] = {RESUME_AND_TAKE, RESUME_AND_FULL};
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(habits); i++) {
        outr_memory_source *m = outr_alloc(sizeof *m);
        counter c = make_counter(habits[i]);
        outr_memory_source_init(m, w.loop, OUTR_STR("hello"));
        outr_source_attach(&m->base, &c.base);
        outr_source_resume(&m->base);
        while (!c.end_count)
            outr_loop_tick(w.loop);
        free(m); /* after the end nobody holds it */
        wire_run(&w);
        assert_ended(&c, 5);
    }
}

static void a_sink_that_gives_up_hears_nothing_more(void **state)
{
    outr_memory_source m, *heap = outr_alloc(sizeof *heap);
    counter early = make_counter(TAKE), within = make_counter(GIVE_UP),
            freeing = make_counter(FREE_SOURCE);
    (void)state;
    outr_memory_source_init(&m, w.loop, OUTR_STR("hello"));
    outr_source_attach(&m.base, &early.base);
    outr_source_cancel(&m.base, NULL);
    outr_memory_source_init(&m, w.loop, OUTR_STR("hello"));
    outr_source_attach(&m.base, &within.base);
    outr_memory_source_init(heap, w.loop, OUTR_STR("hello"));
    freeing.to_free = heap;
    outr_source_attach(&heap->base, &freeing.base);
    wire_run(&w);
    assert_int_equal(early.data_count, 0);
    assert_int_equal(within.data_count, 1);
    assert_int_equal(freeing.data_count, 1);
    assert_int_equal(early.end_count + within.end_count + freeing.end_count, 0);
    assert_int_equal(early.abort_count + within.abort_count + freeing.abort_count, 0);
    assert_null(within.base.source);
    outr_source_cancel(NULL, NULL);
}

/* ---- gather ------------------------------------------------------------------------------------ */

typedef struct gathered {
    outr_gather gather;
    unsigned done_count;
    outr_code code;
    char text[64];
    void *to_free;
} gathered;

static void on_gathered(outr_gather *gather, const outr_err *err)
{
    gathered *g = gather->ctx;
    g->done_count++;
    g->code = err ? err->code : OUTR_OK;
    snprintf(g->text, sizeof g->text, "%.*s", (int)gather->body.n,
             gather->body.p ? gather->body.p : "");
    free(g->to_free);
    g->to_free = NULL;
}

static void a_body_is_gathered_from_its_pieces(void **state)
{
    web_giver giver;
    gathered g = {0};
    (void)state;
    web_giver_init(&giver, -1);
    outr_gather_start(&g.gather, &giver.base, 10, on_gathered, &g);
    web_give(&giver, "hel");
    web_give(&giver, "");
    web_give(&giver, "lo w");
    assert_int_equal(g.done_count, 0);
    web_give_end(&giver);
    assert_int_equal(g.done_count, 1);
    assert_int_equal(g.code, OUTR_OK);
    assert_string_equal(g.text, "hello w");
    outr_buf_done(&g.gather.body);
}

static void exactly_the_limit_fits_and_one_byte_more_does_not(void **state)
{
    web_giver fits, over, declared;
    gathered a = {0}, b = {0}, c = {0};
    (void)state;
    web_giver_init(&fits, 5);
    outr_gather_start(&a.gather, &fits.base, 5, on_gathered, &a);
    assert_true(web_give(&fits, "hello"));
    web_give_end(&fits);
    assert_string_equal(a.text, "hello");
    outr_buf_done(&a.gather.body);

    web_giver_init(&over, -1);
    outr_gather_start(&b.gather, &over.base, 5, on_gathered, &b);
    web_give(&over, "hello");
    assert_false(web_give(&over, "!"));
    assert_int_equal(b.done_count, 1);
    assert_int_equal(b.code, OUTR_RESOURCE_EXHAUSTED);
    assert_true(over.was_cancelled); /* the rest need not be sent */
    assert_null(b.gather.body.p);
    web_give(&over, "more");
    web_give_end(&over);
    assert_int_equal(b.done_count, 1);

    web_giver_init(&declared, INT64_MAX); /* what is declared reserves no memory by itself */
    outr_gather_start(&c.gather, &declared.base, SIZE_MAX / 2, on_gathered, &c);
    assert_true(c.gather.body.cap <= OUTR_MIB);
    web_give_abort(&declared);
    assert_int_equal(c.done_count, 1);
}

static void a_body_that_breaks_off_is_no_body(void **state)
{
    web_giver giver;
    gathered g = {0};
    (void)state;
    web_giver_init(&giver, 10);
    outr_gather_start(&g.gather, &giver.base, 10, on_gathered, &g);
    web_give(&giver, "hello");
    web_give_abort(&giver);
    assert_int_equal(g.done_count, 1);
    assert_int_not_equal(g.code, OUTR_OK);
    assert_string_equal(g.text, "");
    assert_null(g.gather.body.p);
}

static void who_stops_gathering_is_not_called(void **state)
{
    web_giver giver;
    gathered g = {0};
    (void)state;
    web_giver_init(&giver, -1);
    outr_gather_start(&g.gather, &giver.base, 10, on_gathered, &g);
    web_give(&giver, "hello");
    outr_gather_cancel(&g.gather);
    assert_true(giver.was_cancelled);
    web_give(&giver, "more");
    web_give_end(&giver);
    assert_int_equal(g.done_count, 0);
    outr_gather_cancel(&g.gather); /* harmless */
}

/* Over the limit, done frees the source from inside of its own push. */
static void the_source_may_be_gone_when_its_body_is_too_large(void **state)
{
    outr_memory_source *m = outr_alloc(sizeof *m);
    gathered g = {.to_free = m};
    (void)state;
    outr_memory_source_init(m, w.loop, OUTR_STR("hello"));
    outr_gather_start(&g.gather, &m->base, 4, on_gathered, &g);
    wire_run(&w);
    assert_int_equal(g.done_count, 1);
    assert_int_equal(g.code, OUTR_RESOURCE_EXHAUSTED);
}

#define WITH_WIRE(f) cmocka_unit_test_setup_teardown(f, open_wire, close_wire)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_WIRE(bytes_in_memory_come_later_whole_and_then_the_end),
        WITH_WIRE(nothing_at_all_is_only_an_end),
        WITH_WIRE(a_full_sink_gets_its_end_when_it_has_room),
        WITH_WIRE(a_sink_that_resumes_at_once_gets_one_end),
        WITH_WIRE(a_sink_that_gives_up_hears_nothing_more),
        WITH_WIRE(a_body_is_gathered_from_its_pieces),
        WITH_WIRE(exactly_the_limit_fits_and_one_byte_more_does_not),
        WITH_WIRE(a_body_that_breaks_off_is_no_body),
        WITH_WIRE(who_stops_gathering_is_not_called),
        WITH_WIRE(the_source_may_be_gone_when_its_body_is_too_large),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
