#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/rand.h"
#include "components/common/kafka/offsets.h"

static int64_t committable(const outr_offsets *offsets)
{
    int64_t at = -1;
    return outr_offsets_committable(offsets, &at) ? at : -1;
}

static void nothing_taken_is_nothing_to_commit(void **state OUTR_UNUSED)
{
    outr_offsets offsets = {0};
    assert_int_equal(committable(&offsets), -1);
    assert_false(outr_offsets_settle(&offsets, 0));
    outr_offsets_done(&offsets);
}

static void what_is_in_hand_holds_back_what_came_after_it(void **state OUTR_UNUSED)
{
    outr_offsets offsets = {0};
    for (int64_t offset = 7; offset < 10; offset++)
        assert_true(outr_offsets_take(&offsets, offset));
    assert_true(outr_offsets_settle(&offsets, 9));
    assert_true(outr_offsets_settle(&offsets, 8));
    outr_offsets_committed(&offsets, 7); /* where it began */
    assert_int_equal(committable(&offsets), -1);
    assert_true(outr_offsets_settle(&offsets, 7));
    assert_int_equal(committable(&offsets), 10);
    outr_offsets_committed(&offsets, 10);
    assert_int_equal(committable(&offsets), -1);
    outr_offsets_done(&offsets);
}

static void gaps_are_passed_over(void **state OUTR_UNUSED)
{
    outr_offsets offsets = {0};
    assert_true(outr_offsets_take(&offsets, 3));
    assert_true(outr_offsets_take(&offsets, 40));
    assert_true(outr_offsets_settle(&offsets, 3));
    assert_int_equal(committable(&offsets), 40);
    assert_true(outr_offsets_settle(&offsets, 40));
    assert_int_equal(committable(&offsets), 41);
    outr_offsets_done(&offsets);
}

static void what_comes_twice_is_taken_once(void **state OUTR_UNUSED)
{
    outr_offsets offsets = {0};
    assert_true(outr_offsets_take(&offsets, 0));
    assert_true(outr_offsets_take(&offsets, 1));
    assert_false(outr_offsets_take(&offsets, 1));
    assert_false(outr_offsets_take(&offsets, 0));
    assert_true(outr_offsets_settle(&offsets, 0));
    assert_false(outr_offsets_settle(&offsets, 0));
    assert_false(outr_offsets_take(&offsets, 0));
    assert_int_equal(committable(&offsets), 1);
    outr_offsets_done(&offsets);
}

static void an_older_answer_does_not_take_a_commit_back(void **state OUTR_UNUSED)
{
    outr_offsets offsets = {0};
    for (int64_t offset = 0; offset < 5; offset++) {
        assert_true(outr_offsets_take(&offsets, offset));
        assert_true(outr_offsets_settle(&offsets, offset));
    }
    outr_offsets_committed(&offsets, 5);
    outr_offsets_committed(&offsets, 2);
    assert_int_equal(committable(&offsets), -1);
    outr_offsets_done(&offsets);
}

static void what_was_settled_in_an_earlier_life_is_not_taken(void **state OUTR_UNUSED)
{
    outr_offsets offsets = {0};
    outr_offsets_resume(&offsets, 20);
    assert_int_equal(committable(&offsets), 20); /* it may not have been committed then */
    assert_false(outr_offsets_take(&offsets, 19));
    assert_true(outr_offsets_take(&offsets, 20));
    outr_offsets_committed(&offsets, 20);
    assert_int_equal(committable(&offsets), -1);
    assert_true(outr_offsets_settle(&offsets, 20));
    assert_int_equal(committable(&offsets), 21);
    outr_offsets_done(&offsets);
}

/* Against the plain definition: the lowest that is not settled. */
static void in_any_order_it_is_the_lowest_in_hand(void **state OUTR_UNUSED)
{
    enum { N = 300 };
    for (uint64_t seed = 1; seed <= 20; seed++) {
        outr_rand rand;
        outr_offsets offsets = {0};
        int64_t taken[N];
        bool settled[N] = {false};
        size_t count = 0, done = 0;
        int64_t at = 1;
        outr_rand_seed(&rand, seed);
        while (done < N) {
            if (count < N && (count == done || outr_rand_below(&rand, 2))) {
                at += 1 + (int64_t)outr_rand_below(&rand, 3);
                taken[count++] = at;
                assert_true(outr_offsets_take(&offsets, at));
            } else {
                size_t i = (size_t)outr_rand_below(&rand, count);
                while (settled[i])
                    i = (i + 1) % count;
                settled[i] = true;
                done++;
                assert_true(outr_offsets_settle(&offsets, taken[i]));
            }
            size_t lowest = 0;
            while (lowest < count && settled[lowest])
                lowest++;
            assert_int_equal(committable(&offsets),
                             lowest < count ? taken[lowest] : taken[count - 1] + 1);
        }
        outr_offsets_done(&offsets);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_taken_is_nothing_to_commit),
        cmocka_unit_test(what_is_in_hand_holds_back_what_came_after_it),
        cmocka_unit_test(gaps_are_passed_over),
        cmocka_unit_test(what_comes_twice_is_taken_once),
        cmocka_unit_test(an_older_answer_does_not_take_a_commit_back),
        cmocka_unit_test(what_was_settled_in_an_earlier_life_is_not_taken),
        cmocka_unit_test(in_any_order_it_is_the_lowest_in_hand),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
