#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "loop/step.h"

enum { A, B, C, STATES };

static char path[64]; /* which steps ran, in order */
static int next_of[STATES];
static bool nests;

static int run_one(outr_steps *steps, char name)
{
    size_t n = strlen(path);
    path[n] = name;
    path[n + 1] = 0;
    if (nests)
        outr_steps_run(steps);
    return next_of[steps->state];
}

static int step_a(outr_steps *steps)
{
    return run_one(steps, 'a');
}

static int step_b(outr_steps *steps)
{
    return run_one(steps, 'b');
}

static int step_c(outr_steps *steps)
{
    return run_one(steps, 'c');
}

static const outr_step table[STATES] = {
    [A] = {"a", step_a, TO(B) | TO(C)},
    [B] = {"b", step_b, TO(C)},
    [C] = {"c", step_c, TO(A)},
};

static int reset(void **state)
{
    (void)state;
    path[0] = 0;
    nests = false;
    return 0;
}

static void steps_run_until_one_waits_or_ends(void **state)
{
    outr_steps steps;
    (void)state;
    outr_steps_init(&steps, table, A, NULL);
    next_of[A] = B;
    next_of[B] = OUTR_WAIT;
    outr_steps_run(&steps);
    assert_string_equal(path, "ab");
    assert_int_equal(steps.state, B);
    outr_steps_run(&steps); /* what it waited for came */
    assert_string_equal(path, "abb");
    next_of[B] = C;
    next_of[C] = OUTR_END;
    outr_steps_run(&steps);
    assert_string_equal(path, "abbbc");
    outr_steps_run(&steps); /* after its end nothing runs */
    assert_string_equal(path, "abbbc");
}

static void an_event_moves_it_on(void **state)
{
    outr_steps steps;
    (void)state;
    outr_steps_init(&steps, table, A, NULL);
    next_of[A] = OUTR_WAIT;
    next_of[C] = OUTR_WAIT;
    outr_steps_run(&steps);
    outr_steps_go(&steps, C);
    assert_string_equal(path, "ac");
    assert_int_equal(steps.state, C);
}

static void a_step_is_not_run_within_a_step(void **state)
{
    outr_steps steps;
    (void)state;
    outr_steps_init(&steps, table, A, NULL);
    nests = true;
    next_of[A] = B;
    next_of[B] = OUTR_WAIT;
    outr_steps_run(&steps);
    assert_string_equal(path, "ab");
}

static int go_to_c_and_wait(outr_steps *steps)
{
    memcpy(path, "x", 2);
    outr_steps_go(steps, C);
    return OUTR_WAIT;
}

/* What a step starts may report back at once: the move is made when the step has returned. */
static void an_event_within_a_step_is_not_lost(void **state)
{
    static const outr_step own[STATES] = {
        [A] = {"a", go_to_c_and_wait, TO(C)}, [B] = {"b", step_b, 0}, [C] = {"c", step_c, 0}};
    outr_steps steps;
    (void)state;
    outr_steps_init(&steps, own, A, NULL);
    next_of[C] = OUTR_WAIT;
    outr_steps_run(&steps);
    assert_string_equal(path, "xc");
}

/* A child process runs it; true when it was aborted. */
static bool aborts(void (*run)(void))
{
    int status = 0;
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        const struct rlimit none = {0, 0};
        int nowhere = open("/dev/null", O_WRONLY);
        setrlimit(RLIMIT_CORE, &none);
        dup2(nowhere, STDERR_FILENO);
        signal(SIGABRT, SIG_DFL);
        run();
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

static void run_to_forbidden(void)
{
    outr_steps steps;
    outr_steps_init(&steps, table, B, NULL);
    next_of[B] = A;
    outr_steps_run(&steps);
}

static void go_to_forbidden(void)
{
    outr_steps steps;
    outr_steps_init(&steps, table, B, NULL);
    outr_steps_go(&steps, A);
}

static void run_to_allowed(void)
{
    outr_steps steps;
    outr_steps_init(&steps, table, B, NULL);
    next_of[B] = C;
    next_of[C] = OUTR_END;
    outr_steps_run(&steps);
}

static void a_move_the_table_does_not_have_ends_the_process(void **state)
{
    (void)state;
    assert_true(aborts(run_to_forbidden));
    assert_true(aborts(go_to_forbidden));
    assert_false(aborts(run_to_allowed));
}

#define RESET(f) cmocka_unit_test_setup(f, reset)

int main(void)
{
    const struct CMUnitTest tests[] = {
        RESET(steps_run_until_one_waits_or_ends),
        RESET(an_event_moves_it_on),
        RESET(a_step_is_not_run_within_a_step),
        RESET(an_event_within_a_step_is_not_lost),
        RESET(a_move_the_table_does_not_have_ends_the_process),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
