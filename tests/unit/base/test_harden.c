#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/harden.h"

/* Confinement is for life: each look is in a child of its own. Returns its wait status. */
static int in_child(outr_seccomp mode, int (*look)(void))
{
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        outr_err err;
        if (outr_harden_syscalls(mode, &err)) {
            fprintf(stderr, "%s\n", err.text);
            _exit(99);
        }
        _exit(look());
    }
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

static int is_eperm(long rc)
{
    return rc == -1 && errno == EPERM;
}

static int run_program(void)
{
    char *argv[] = {(char *)(uintptr_t) "true", NULL};
    execv("/bin/true", argv);
    return is_eperm(-1) ? 0 : 1;
}

static int start_process(void)
{
    return is_eperm(syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL)) ? 0 : 1;
}

static int start_process_by_clone3(void)
{
    unsigned long args[11] = {[4] = SIGCHLD};
    long rc = syscall(435, args, sizeof args); /* clone3 */
    return rc == -1 && errno == ENOSYS ? 0 : 1;
}

static int look_into_parent(void)
{
    return is_eperm(ptrace(PTRACE_ATTACH, getppid(), NULL, NULL)) ? 0 : 1;
}

static int signal_parent(void)
{
    return is_eperm(kill(getppid(), 0)) && kill(getpid(), 0) == 0 ? 0 : 1;
}

static int write_and_execute(void)
{
    void *both = mmap(NULL, 4096, PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (!is_eperm(both == MAP_FAILED ? -1 : 0))
        return 1;
    void *one = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (one == MAP_FAILED || mprotect(one, 4096, PROT_READ | PROT_EXEC) != 0)
        return 2;
    return is_eperm(mprotect(one, 4096, PROT_READ | PROT_WRITE | PROT_EXEC)) ? 0 : 3;
}

static int open_other_sockets(void)
{
    static const int good[] = {AF_UNIX, AF_INET, AF_INET6}, bad[] = {AF_PACKET, AF_ALG, AF_VSOCK};
    for (size_t i = 0; i < OUTR_LEN(good); i++) {
        int fd = socket(good[i], SOCK_STREAM, 0);
        if (fd < 0 && errno == EPERM)
            return 1;
        close(fd);
    }
    for (size_t i = 0; i < OUTR_LEN(bad); i++) {
        if (!is_eperm(socket(bad[i], SOCK_RAW, 0)))
            return 2;
    }
    return 0;
}

static int type_into_terminal(void)
{
    return is_eperm(ioctl(0, TIOCSTI, "x")) ? 0 : 1;
}

/* Such as do nothing where they are allowed, too. */
static int ask_for_privileges(void)
{
    return is_eperm(syscall(SYS_mount, NULL, (void *)1, NULL, 0, NULL)) &&
                   is_eperm(syscall(SYS_setuid, getuid())) && is_eperm(syscall(SYS_unshare, 0)) &&
                   is_eperm(syscall(SYS_bpf, 0, NULL, 0)) && is_eperm(syscall(SYS_keyctl, 0)) &&
                   is_eperm(syscall(SYS_process_vm_readv, getppid(), NULL, 0, NULL, 0, 0))
               ? 0
               : 1;
}

static void *touch(void *arg)
{
    *(int *)arg = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
    return NULL;
}

static int do_a_servers_work(void)
{
    pthread_t thread;
    int fd = -1, pair[2], one = 1;
    char text[4096];
    if (pthread_create(&thread, NULL, touch, &fd) != 0 || pthread_join(thread, NULL) != 0)
        return 1;
    ssize_t n = read(fd, text, sizeof text - 1);
    if (n <= 0)
        return 2;
    text[n] = 0;
    if (!strstr(text, "Seccomp:\t2\n") || !strstr(text, "NoNewPrivs:\t1\n"))
        return 3;
    return socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0 && ioctl(pair[0], FIONBIO, &one) == 0 ? 0
                                                                                               : 4;
}

static void what_a_server_does_not_do_is_denied(void **state)
{
    static const struct {
        const char *name;
        int (*look)(void);
    } rows[] = {{"exec", run_program},
                {"fork", start_process},
                {"clone3", start_process_by_clone3},
                {"ptrace", look_into_parent},
                {"kill", signal_parent},
                {"write and execute", write_and_execute},
                {"sockets", open_other_sockets},
                {"TIOCSTI", type_into_terminal},
                {"privileges", ask_for_privileges},
                {"a server's work", do_a_servers_work}};
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(rows); i++) {
        int status = in_child(OUTR_SECCOMP_DENY, rows[i].look);
        if (status != 0)
            fail_msg("%s: %x", rows[i].name, (unsigned)status);
    }
}

static void or_is_the_end(void **state)
{
    (void)state;
    int status = in_child(OUTR_SECCOMP_KILL, run_program);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGSYS);
    assert_int_equal(in_child(OUTR_SECCOMP_KILL, do_a_servers_work), 0);
}

static void without_the_flag_nothing_is_denied(void **state)
{
    (void)state;
    assert_int_equal(in_child(OUTR_SECCOMP_OFF, run_program), 0); /* it has become true(1) */
    int status = in_child(OUTR_SECCOMP_OFF, ask_for_privileges);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 1);
}

static int check_memory(void)
{
    struct rlimit limit = {1, 1};
    outr_harden_memory();
    return getrlimit(RLIMIT_CORE, &limit) == 0 && limit.rlim_cur == 0 && limit.rlim_max == 0 &&
                   prctl(PR_GET_DUMPABLE) == 0
               ? 0
               : 1;
}

static void memory_with_keys_stays_here(void **state)
{
    (void)state;
    assert_int_equal(in_child(OUTR_SECCOMP_OFF, check_memory), 0);
}

static void modes_have_names(void **state)
{
    outr_seccomp mode = OUTR_SECCOMP_OFF;
    (void)state;
    assert_true(outr_seccomp_parse(OUTR_STR("kill"), &mode));
    assert_int_equal(mode, OUTR_SECCOMP_KILL);
    assert_false(outr_seccomp_parse(OUTR_STR("on"), &mode));
    assert_false(outr_seccomp_parse(OUTR_STR(""), &mode));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_a_server_does_not_do_is_denied),
        cmocka_unit_test(or_is_the_end),
        cmocka_unit_test(without_the_flag_nothing_is_denied),
        cmocka_unit_test(memory_with_keys_stays_here),
        cmocka_unit_test(modes_have_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
