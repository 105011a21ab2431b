#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <pthread.h>

#include "components/watchers.h"
#include "lib/wire.h"

/* One who is told, and what. */
typedef struct listener {
    outr_watch *watch;
    unsigned count, any;
    char text[256];
} listener;

static void on_changed(void *ctx, outr_str app_id, outr_str namespace_)
{
    listener *l = ctx;
    l->count++;
    l->any += app_id.n == 0;
    snprintf(l->text + strlen(l->text), sizeof l->text - strlen(l->text), OUTR_FMT "." OUTR_FMT " ",
             OUTR_ARG(app_id), OUTR_ARG(namespace_));
}

static void tell(outr_watchers *list, const char *app_id)
{
    outr_watchers_tell(list, outr_str_from(app_id), OUTR_STR("ns"));
}

static void what_is_said_several_times_is_told_once(void **state)
{
    wire w;
    listener a = {0}, b = {0};
    outr_watchers *list = outr_watchers_new();
    (void)state;
    wire_init(&w, 1);
    tell(list, "nobody"); /* is here yet */
    a.watch = outr_watch_start(list, w.loop, on_changed, &a);
    b.watch = outr_watch_start(list, w.loop, on_changed, &b);
    tell(list, "x");
    tell(list, "y");
    tell(list, "x");
    assert_int_equal(a.count, 0); /* soon, not now */
    wire_run(&w);
    assert_string_equal(a.text, "x.ns y.ns ");
    assert_string_equal(b.text, "x.ns y.ns ");
    tell(list, "x");
    outr_watchers_tell(list, OUTR_STR_NONE, OUTR_STR_NONE);
    wire_run(&w);
    assert_int_equal(a.count, 3); /* any of them says it all */
    assert_int_equal(a.any, 1);
    outr_watch_again(b.watch, OUTR_STR("z"), OUTR_STR("ns"));
    wire_run(&w);
    assert_int_equal(a.count, 3);
    assert_non_null(strstr(b.text, "z.ns"));
    for (int i = 0; i < 1000; i++) {
        char name[16];
        snprintf(name, sizeof name, "app-%d", i);
        tell(list, name);
    }
    wire_run(&w);
    assert_int_equal(a.count, 4);
    assert_int_equal(a.any, 2);
    outr_watch_end(a.watch);
    outr_watch_end(b.watch);
    outr_watchers_close(list);
    wire_done(&w);
}

static void nobody_is_told_behind_an_end(void **state)
{
    wire w;
    listener a = {0}, b = {0};
    outr_watchers *list = outr_watchers_new();
    (void)state;
    wire_init(&w, 1);
    a.watch = outr_watch_start(list, w.loop, on_changed, &a);
    b.watch = outr_watch_start(list, w.loop, on_changed, &b);
    tell(list, "x");
    outr_watch_end(a.watch); /* with the word under way */
    wire_run(&w);
    assert_int_equal(a.count, 0);
    assert_int_equal(b.count, 1);
    tell(list, "y");
    outr_watchers_close(list); /* before its watchers */
    outr_watch_again(b.watch, OUTR_STR("z"), OUTR_STR("ns"));
    wire_run(&w);
    assert_int_equal(b.count, 1);
    outr_watch_end(b.watch);
    outr_watch_end(NULL);
    outr_watchers_close(NULL);
    wire_done(&w);
}

#define TELLERS 4
#define WORDS   2000

static void *tell_much(void *ctx)
{
    char name[16];
    for (int i = 0; i < WORDS; i++) {
        snprintf(name, sizeof name, "app-%d", i % 7);
        tell(ctx, name);
    }
    return NULL;
}

static void any_thread_may_tell(void **state)
{
    wire w;
    listener a = {0};
    pthread_t threads[TELLERS];
    outr_watchers *list = outr_watchers_new();
    (void)state;
    wire_init(&w, 1);
    for (int i = 0; i < TELLERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, tell_much, list), 0);
    for (int i = 0; i < 200; i++) {
        outr_watch *watch = outr_watch_start(list, w.loop, on_changed, &a);
        wire_run(&w);
        outr_watch_end(watch);
    }
    for (int i = 0; i < TELLERS; i++)
        pthread_join(threads[i], NULL);
    outr_watchers_close(list);
    wire_run(&w);
    wire_done(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_said_several_times_is_told_once),
        cmocka_unit_test(nobody_is_told_behind_an_end),
        cmocka_unit_test(any_thread_may_tell),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
