#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "lib/folder.h"
#include "loop/op.h"
#include "net/env_real.h"
#include "net/listen.h"
#include "net/stream.h"

#define TOO_LONG_NS (10 * OUTR_SEC)

/* A real loop, a folder for sockets, and what was accepted. */
typedef struct bench {
    outr_loop *loop;
    folder dir;
    outr_listener *listener;
    unsigned accepted, wanted; /* the loop ends when so many came, and what connects is done */
    bool closes_itself;
    outr_timer watchdog;
    outr_op op;
    bool is_connecting;
    outr_code code;
} bench;

static void check_over(bench *b)
{
    if (b->accepted >= b->wanted && !b->is_connecting)
        outr_loop_stop(b->loop);
}

static void on_watchdog(outr_timer *timer OUTR_UNUSED)
{
    fail_msg("nothing happened for too long");
}

static void on_closed(outr_stream *s OUTR_UNUSED) {}

static void on_error(outr_stream *s, const outr_err *err OUTR_UNUSED)
{
    outr_stream_close(s);
}

static const outr_stream_events quiet = {.on_error = on_error, .on_closed = on_closed};

static void on_accept(void *ctx, outr_stream *own_stream)
{
    bench *b = ctx;
    own_stream->events = &quiet;
    outr_stream_close(own_stream);
    if (b->closes_itself) {
        outr_listener_close(b->listener);
        b->listener = NULL;
    }
    b->accepted++;
    check_over(b);
}

static int open_bench(void **state)
{
    bench *b = outr_alloc(sizeof *b);
    b->loop = outr_loop_new(&(outr_loop_options){.env = outr_env_real()});
    folder_make(&b->dir);
    *state = b;
    return 0;
}

static int close_bench(void **state)
{
    bench *b = *state;
    outr_listener_close(b->listener);
    outr_loop_free(b->loop);
    folder_remove(&b->dir);
    free(b);
    return 0;
}

static outr_addr address(const char *text)
{
    outr_addr addr;
    outr_err err;
    assert_int_equal(outr_addr_parse(&addr, outr_str_from(text), &err), OUTR_OK);
    return addr;
}

static outr_addr socket_address(const bench *b)
{
    char text[300];
    snprintf(text, sizeof text, "unix:%s", folder_path(&b->dir, "s.sock"));
    return address(text);
}

static outr_code listen_on(bench *b, outr_listener **out, outr_addr addr, bool is_shared,
                           bool is_first, outr_err *err)
{
    const outr_listen_options o = {.addr = addr,
                                   .is_shared = is_shared,
                                   .is_first = is_first,
                                   .on_accept = on_accept,
                                   .ctx = b};
    return outr_env_real()->listen(outr_env_real(), b->loop, &o, out, err);
}

static void run(bench *b)
{
    b->watchdog.fire = on_watchdog;
    outr_timer_start(b->loop, &b->watchdog, outr_loop_update(b->loop) + TOO_LONG_NS);
    outr_loop_run(b->loop);
    outr_timer_stop(b->loop, &b->watchdog);
}

static void on_connected(outr_op *op)
{
    bench *b = OUTR_CONTAINER(op, bench, op);
    b->is_connecting = false;
    b->code = op->err.code;
    check_over(b);
}

static void start_connect(bench *b, outr_connect *req)
{
    b->is_connecting = true;
    outr_op_init(&b->op, b->loop, NULL, 0, on_connected);
    outr_env_real()->connect(outr_env_real(), b->loop, req, &b->op);
    assert_true(b->is_connecting); /* never done inside the start */
}

/* Connects and lets the listener take it. Once in a bench: a loop that stopped does not run again. */
static void connect_once(bench *b, outr_addr to)
{
    outr_connect req = {.addr = to};
    b->wanted = 1;
    start_connect(b, &req);
    run(b);
    assert_true(b->accepted >= 1); /* more where another listener looked whether this one lives */
    assert_int_equal(b->code, OUTR_OK);
    req.stream->events = &quiet;
    outr_stream_close(req.stream);
}

/* A plain socket of our own: the kernel completes the connection from the backlog. */
static int connect_plain(const outr_addr *to)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    memcpy(un.sun_path, to->path, sizeof to->path);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&un, sizeof un), 0);
    return fd;
}

static void port_zero_becomes_a_real_port_that_answers(void **state)
{
    bench *b = *state;
    outr_err err;
    assert_int_equal(listen_on(b, &b->listener, address("127.0.0.1:0"), false, false, &err),
                     OUTR_OK);
    assert_true(b->listener->addr.port > 0);
    connect_once(b, b->listener->addr);
}

static void a_taken_port_is_an_error_with_its_address(void **state)
{
    bench *b = *state;
    outr_listener *second = NULL;
    outr_err err;
    assert_int_equal(listen_on(b, &b->listener, address("127.0.0.1:0"), false, false, &err),
                     OUTR_OK);
    outr_addr taken = b->listener->addr;
    assert_int_not_equal(listen_on(b, &second, taken, false, false, &err), OUTR_OK);
    assert_non_null(strstr(err.text, "127.0.0.1:"));
    assert_null(second);
    /* Sharing does not help against somebody who does not share, nor does being first. */
    assert_int_not_equal(listen_on(b, &second, taken, true, true, &err), OUTR_OK);
    assert_int_not_equal(listen_on(b, &second, taken, true, false, &err), OUTR_OK);
}

static void lanes_share_a_port_and_strangers_are_noticed(void **state)
{
    bench *b = *state;
    outr_listener *second = NULL, *third = NULL;
    outr_err err;
    assert_int_equal(listen_on(b, &b->listener, address("127.0.0.1:0"), true, true, &err), OUTR_OK);
    outr_addr shared = b->listener->addr;
    assert_int_equal(listen_on(b, &second, shared, true, false, &err), OUTR_OK);
    assert_int_not_equal(listen_on(b, &third, shared, true, true, &err), OUTR_OK);
    connect_once(b, shared);
    outr_listener_close(second);
}

static void a_socket_file_is_the_owners_only_and_goes_with_the_listener(void **state)
{
    bench *b = *state;
    outr_addr addr = socket_address(b);
    struct stat st;
    outr_err err;
    assert_int_equal(listen_on(b, &b->listener, addr, false, false, &err), OUTR_OK);
    assert_int_equal(stat(addr.path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    connect_once(b, addr);
    outr_listener_close(b->listener);
    b->listener = NULL;
    assert_int_equal(stat(addr.path, &st), -1);
}

static void a_socket_file_in_use_is_left_alone_and_a_dead_one_replaced(void **state)
{
    bench *b = *state;
    outr_addr addr = socket_address(b);
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    outr_listener *second = NULL;
    outr_err err;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    memcpy(un.sun_path, addr.path, sizeof addr.path);
    assert_int_equal(bind(fd, (struct sockaddr *)&un, sizeof un), 0);
    close(fd); /* its process ended without cleaning up */
    assert_int_equal(listen_on(b, &b->listener, addr, false, false, &err), OUTR_OK);
    assert_int_not_equal(listen_on(b, &second, addr, false, false, &err), OUTR_OK);
    connect_once(b, addr);
}

static void a_file_that_is_no_socket_is_never_removed(void **state)
{
    bench *b = *state;
    struct stat st;
    outr_err err;
    folder_write(&b->dir, "s.sock", "precious");
    assert_int_not_equal(listen_on(b, &b->listener, socket_address(b), false, false, &err),
                         OUTR_OK);
    assert_int_equal(stat(folder_path(&b->dir, "s.sock"), &st), 0);
    assert_int_equal(st.st_size, 8);
}

static void on_turn(outr_timer *timer)
{
    bench *b = OUTR_CONTAINER(timer, bench, watchdog);
    outr_loop_stop(b->loop);
}

static void while_paused_connections_wait_in_the_backlog(void **state)
{
    bench *b = *state;
    outr_addr addr = socket_address(b);
    outr_err err;
    assert_int_equal(listen_on(b, &b->listener, addr, false, false, &err), OUTR_OK);
    outr_listener_pause(b->listener, true);
    int first = connect_plain(&addr), second = connect_plain(&addr);
    b->watchdog.fire = on_turn;
    outr_timer_start(b->loop, &b->watchdog, outr_loop_update(b->loop) + 5 * OUTR_MS);
    outr_loop_run(b->loop);
    assert_int_equal(b->accepted, 0);
    close(first);
    close(second);
}

static void after_the_pause_they_are_all_taken(void **state)
{
    bench *b = *state;
    outr_addr addr = socket_address(b);
    outr_err err;
    assert_int_equal(listen_on(b, &b->listener, addr, false, false, &err), OUTR_OK);
    outr_listener_pause(b->listener, true);
    int first = connect_plain(&addr), second = connect_plain(&addr);
    outr_listener_pause(b->listener, false);
    b->wanted = 2;
    run(b);
    assert_int_equal(b->accepted, 2);
    close(first);
    close(second);
}

static void a_listener_may_be_closed_by_what_it_accepts(void **state)
{
    bench *b = *state;
    outr_addr addr = socket_address(b);
    outr_err err;
    assert_int_equal(listen_on(b, &b->listener, addr, false, false, &err), OUTR_OK);
    int first = connect_plain(&addr), second = connect_plain(&addr);
    b->closes_itself = true;
    b->wanted = 1;
    run(b);
    assert_int_equal(b->accepted, 1);
    assert_null(b->listener);
    close(first);
    close(second);
}

static void where_nobody_listens_a_connect_fails_and_may_be_repeated(void **state)
{
    bench *b = *state;
    outr_connect req = {.addr = socket_address(b)};
    start_connect(b, &req);
    run(b);
    assert_int_equal(b->code, OUTR_UNAVAILABLE);
    assert_true(b->op.err.retriable);
    assert_null(req.stream);
}

#define WITH_BENCH(f) cmocka_unit_test_setup_teardown(f, open_bench, close_bench)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_BENCH(port_zero_becomes_a_real_port_that_answers),
        WITH_BENCH(a_taken_port_is_an_error_with_its_address),
        WITH_BENCH(lanes_share_a_port_and_strangers_are_noticed),
        WITH_BENCH(a_socket_file_is_the_owners_only_and_goes_with_the_listener),
        WITH_BENCH(a_socket_file_in_use_is_left_alone_and_a_dead_one_replaced),
        WITH_BENCH(a_file_that_is_no_socket_is_never_removed),
        WITH_BENCH(while_paused_connections_wait_in_the_backlog),
        WITH_BENCH(after_the_pause_they_are_all_taken),
        WITH_BENCH(a_listener_may_be_closed_by_what_it_accepts),
        WITH_BENCH(where_nobody_listens_a_connect_fails_and_may_be_repeated),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
