#include "cli/keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define GROUPS_MAX 8
#define PAUSE_MS   50

static int32_t find_slot(const int32_t groups[GROUPS_MAX], int32_t value)
{
    for (int32_t i = 0; i < GROUPS_MAX; i++) {
        if (groups[i] == value)
            return i;
    }
    return -1;
}

static bool signal_all(const int32_t groups[GROUPS_MAX], int signum)
{
    bool is_any_left = false;
    for (size_t i = 0; i < GROUPS_MAX; i++)
        is_any_left |= groups[i] > 0 && kill(-groups[i], signum) == 0;
    return is_any_left;
}

static void end_groups(const int32_t groups[GROUPS_MAX])
{
    signal_all(groups, SIGTERM);
    for (int ms = 0; ms < OUTR_KEEPER_GRACE_S * 1000; ms += PAUSE_MS) {
        if (!signal_all(groups, 0))
            return;
        poll(NULL, 0, PAUSE_MS);
    }
    signal_all(groups, SIGKILL);
}

static _Noreturn void keep(int fd)
{
    int32_t groups[GROUPS_MAX] = {0}, message;
    setsid(); /* the terminal's Ctrl-C and hang-up are not ours */
    prctl(PR_SET_NAME, "outrigger-keep");
    /* Nothing inherited stays open: our output must reach its end when the run does. */
    dup2(fd, 0);
    close_range(1, ~0U, 0);
    if (chdir("/"))
        _exit(1);
    while (read(0, &message, sizeof message) == (ssize_t)sizeof message) {
        if (message == 0)
            _exit(0);
        int32_t slot = find_slot(groups, message > 0 ? 0 : -message);
        if (slot >= 0)
            groups[slot] = message > 0 ? message : 0;
    }
    end_groups(groups);
    _exit(0);
}

outr_code outr_keeper_start(outr_keeper *keeper, outr_err *err)
{
    int fds[2];
    if (pipe2(fds, O_CLOEXEC))
        return outr_fail_errno(err, errno, "pipe");
    pid_t pid = fork();
    if (pid < 0) {
        outr_fail_errno(err, errno, "fork");
        close(fds[0]);
        close(fds[1]);
        return err->code;
    }
    if (pid == 0) {
        close(fds[1]);
        keep(fds[0]);
    }
    close(fds[0]);
    *keeper = (outr_keeper){fds[1], pid};
    return OUTR_OK;
}

/* Without its keeper (killed by somebody) a run goes on; nothing can be done about it here. */
static void tell(outr_keeper *keeper, int32_t message)
{
    OUTR_UNUSED ssize_t n = write(keeper->fd, &message, sizeof message);
}

void outr_keeper_watch(outr_keeper *keeper, pid_t group)
{
    tell(keeper, group);
}

void outr_keeper_forget(outr_keeper *keeper, pid_t group)
{
    tell(keeper, -group);
}

void outr_keeper_stop(outr_keeper *keeper)
{
    tell(keeper, 0);
    close(keeper->fd);
    waitpid(keeper->pid, NULL, 0);
}
