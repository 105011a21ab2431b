#include "cli/child.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define PIECE_MAX (64 * OUTR_KIB)

static void on_room(uv_handle_t *handle OUTR_UNUSED, size_t wanted OUTR_UNUSED, uv_buf_t *room)
{
    *room = uv_buf_init(malloc(PIECE_MAX),
                        PIECE_MAX); /* NULL gives UV_ENOBUFS, which closes the pipe */
}

static void close_pipe(outr_child_pipe *pipe)
{
    if (!pipe->is_open)
        return;
    pipe->is_open = false;
    outr_output_done(&pipe->output);
    uv_close((uv_handle_t *)&pipe->handle, NULL);
}

static void on_output(uv_stream_t *stream, ssize_t n, const uv_buf_t *room)
{
    outr_child_pipe *pipe = stream->data;
    if (n > 0)
        outr_output_feed(&pipe->output, room->base, (size_t)n);
    free(room->base);
    if (n < 0)
        close_pipe(pipe);
}

/* own_fd: the reading end. */
static void open_pipe(outr_child_pipe *pipe, outr_child *child, const outr_child_options *options,
                      int own_fd, int to_fd)
{
    outr_output_init(&pipe->output, to_fd, options->name, options->name_width, options->colour);
    pipe->child = child;
    pipe->is_open = true;
    uv_pipe_init(options->loop, &pipe->handle, 0);
    pipe->handle.data = pipe;
    if (uv_pipe_open(&pipe->handle, own_fd) ||
        uv_read_start((uv_stream_t *)&pipe->handle, on_room, on_output))
        close_pipe(pipe);
}

static void reset_signals(void)
{
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    /* What was ignored stays ignored over exec; a background job of a shell ignores SIGINT. */
    static const int signals[] = {SIGPIPE, SIGINT, SIGQUIT, SIGTERM, SIGHUP, SIGCHLD};
    for (size_t i = 0; i < OUTR_LEN(signals); i++)
        signal(signals[i], SIG_DFL);
}

/* In the new process; errno goes to report_fd when it does not become the command. */
static _Noreturn void become(const outr_child_options *options, int out_fd, int err_fd,
                             int report_fd, pid_t parent)
{
    setpgid(0, 0);
    reset_signals();
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent) /* it died before we asked */
        _exit(1);
    if (!options->takes_input || isatty(0)) { /* a background group must not read the terminal */
        int null = open("/dev/null", O_RDONLY);
        dup2(null, 0);
        close(null);
    }
    dup2(out_fd, 1);
    dup2(err_fd, 2);
    for (size_t i = 0; options->variables && options->variables[i]; i++)
        putenv(options->variables[i]);
    execvp(options->argv[0], options->argv);
    int why = errno;
    OUTR_UNUSED ssize_t n = write(report_fd, &why, sizeof why);
    _exit(127);
}

static void close_all(const int *fds, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (fds[i] >= 0)
            close(fds[i]);
    }
}

enum { OUT, ERR = 2, REPORT = 4, FDS = 6 }; /* reading ends; the writing ends follow */

outr_code outr_child_start(outr_child *child, const outr_child_options *options, outr_err *err)
{
    int fds[FDS] = {-1, -1, -1, -1, -1, -1}, why = 0;
    pid_t pid = -1, self = getpid();
    if (pipe2(fds + OUT, O_CLOEXEC) == 0 && pipe2(fds + ERR, O_CLOEXEC) == 0 &&
        pipe2(fds + REPORT, O_CLOEXEC) == 0)
        pid = fork();
    if (pid < 0) {
        outr_fail_errno(err, errno, "starting %s", options->argv[0]);
        close_all(fds, FDS);
        return err->code;
    }
    if (pid == 0)
        become(options, fds[OUT + 1], fds[ERR + 1], fds[REPORT + 1], self);
    setpgid(pid, pid); /* here too: whoever comes first, a signal to the group finds it */
    close(fds[OUT + 1]);
    close(fds[ERR + 1]);
    close(fds[REPORT + 1]);
    bool has_failed = read(fds[REPORT], &why, sizeof why) == (ssize_t)sizeof why;
    close(fds[REPORT]);
    if (has_failed) {
        waitpid(pid, NULL, 0);
        close(fds[OUT]);
        close(fds[ERR]);
        return outr_fail_errno(err, why, "starting %s", options->argv[0]);
    }
    *child = (outr_child){.pid = pid};
    open_pipe(&child->out, child, options, fds[OUT], 1);
    open_pipe(&child->err, child, options, fds[ERR], 2);
    return OUTR_OK;
}

void outr_child_signal(outr_child *child, int signum)
{
    if (child->pid > 0 && !child->has_ended)
        kill(-child->pid, signum);
}

bool outr_child_reap(outr_child *child)
{
    int status;
    if (child->has_ended || child->pid <= 0 || waitpid(child->pid, &status, WNOHANG) != child->pid)
        return false;
    child->has_ended = true;
    child->signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    child->exit_code = child->signal ? 128 + child->signal : WEXITSTATUS(status);
    /* The group's number stays taken as long as one of its processes is left. */
    kill(-child->pid, SIGTERM);
    return true;
}

/* The reading end is non-blocking by uv_pipe_open. */
static void drain(outr_child_pipe *pipe)
{
    uv_os_fd_t fd;
    char piece[4096];
    ssize_t n;
    if (!pipe->is_open || uv_fileno((uv_handle_t *)&pipe->handle, &fd))
        return;
    while ((n = read(fd, piece, sizeof piece)) > 0)
        outr_output_feed(&pipe->output, piece, (size_t)n);
}

void outr_child_close(outr_child *child)
{
    if (child->pid > 0)
        kill(-child->pid, SIGKILL);
    drain(&child->out);
    drain(&child->err);
    close_pipe(&child->out);
    close_pipe(&child->err);
}
