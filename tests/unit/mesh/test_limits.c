#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <pthread.h>

#include "mesh/limits.h"

static void use(outr_limits *l, int64_t requests, int64_t pending)
{
    const outr_limits_spec spec = {.connections = 1, .pending = pending, .requests = requests};
    outr_limits_use(l, &spec);
}

static void requests_are_under_way_up_to_their_limit(void **state)
{
    (void)state;
    outr_limits l;
    outr_limits_init(&l);
    use(&l, 2, 10);
    assert_int_equal(outr_limits_enter(&l), OUTR_LIMIT_NONE);
    outr_limits_placed(&l);
    assert_int_equal(outr_limits_enter(&l), OUTR_LIMIT_NONE);
    assert_int_equal(outr_limits_enter(&l), OUTR_LIMIT_OF_REQUESTS);
    assert_int_equal(outr_limits_requests(&l), 2);
    assert_int_equal(outr_limits_pending(&l), 1);
    outr_limits_leave(&l, false);
    assert_int_equal(outr_limits_enter(&l), OUTR_LIMIT_NONE);
    outr_limits_leave(&l, true);
    outr_limits_leave(&l, true);
    assert_int_equal(outr_limits_requests(&l), 0);
    assert_int_equal(outr_limits_pending(&l), 0);
    outr_limits_done(&l);
}

static void those_without_a_connection_have_a_limit_of_their_own(void **state)
{
    (void)state;
    outr_limits l;
    outr_limits_init(&l);
    use(&l, 10, 1);
    assert_int_equal(outr_limits_enter(&l), OUTR_LIMIT_NONE);
    assert_int_equal(outr_limits_enter(&l), OUTR_LIMIT_OF_PENDING);
    outr_limits_placed(&l);
    assert_int_equal(outr_limits_enter(&l), OUTR_LIMIT_NONE);
    assert_int_equal(outr_limits_requests(&l), 2);
    outr_limits_done(&l);
}

static void a_lower_limit_lets_what_is_under_way_be(void **state)
{
    (void)state;
    outr_limits l;
    outr_limits_init(&l);
    for (int i = 0; i < 5; i++)
        assert_int_equal(outr_limits_enter(&l), OUTR_LIMIT_NONE);
    use(&l, 2, 100);
    assert_int_equal(outr_limits_enter(&l), OUTR_LIMIT_OF_REQUESTS);
    for (int i = 0; i < 4; i++)
        outr_limits_leave(&l, true);
    assert_int_equal(outr_limits_enter(&l), OUTR_LIMIT_NONE);
    outr_limits_done(&l);
}

static void *come_and_go(void *ctx)
{
    outr_limits *l = ctx;
    for (int i = 0; i < 100000; i++) {
        if (outr_limits_enter(l))
            continue;
        outr_limits_placed(l);
        outr_limits_leave(l, false);
    }
    return NULL;
}

static void loops_count_together(void **state)
{
    (void)state;
    outr_limits l;
    pthread_t threads[4];
    outr_limits_init(&l);
    use(&l, 2, 2);
    for (size_t i = 0; i < OUTR_LEN(threads); i++)
        pthread_create(&threads[i], NULL, come_and_go, &l);
    for (size_t i = 0; i < OUTR_LEN(threads); i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(outr_limits_requests(&l), 0);
    assert_int_equal(outr_limits_pending(&l), 0);
    outr_limits_done(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_are_under_way_up_to_their_limit),
        cmocka_unit_test(those_without_a_connection_have_a_limit_of_their_own),
        cmocka_unit_test(a_lower_limit_lets_what_is_under_way_be),
        cmocka_unit_test(loops_count_together),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
