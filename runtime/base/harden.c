#include "base/harden.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

void outr_harden_memory(void)
{
    setrlimit(RLIMIT_CORE, &(struct rlimit){0});
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0); /* a core_pattern with a pipe does not ask for the limit */
}

bool outr_seccomp_parse(outr_str text, outr_seccomp *out)
{
    static const char *const names[] = {"off", "log", "deny", "kill"};
    for (size_t i = 0; i < OUTR_LEN(names); i++) {
        if (outr_str_is(text, names[i])) {
            *out = (outr_seccomp)i;
            return true;
        }
    }
    return false;
}

/* ---- what is allowed ------------------------------------------------------------------------- */

#if defined(__x86_64__)
#define ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCH AUDIT_ARCH_AARCH64
#endif

/* Whatever their arguments. The older ones do not exist on arm64. */
static const int allowed[] = {
    /* files */
    SYS_read, SYS_write, SYS_readv, SYS_writev, SYS_pread64, SYS_pwrite64, SYS_preadv, SYS_pwritev,
    SYS_close, SYS_fstat, SYS_newfstatat, SYS_statx, SYS_statfs, SYS_fstatfs, SYS_lseek, SYS_openat,
    SYS_faccessat, SYS_fcntl, SYS_flock, SYS_fsync, SYS_fdatasync, SYS_ftruncate, SYS_fallocate,
    SYS_fadvise64, SYS_getdents64, SYS_getcwd, SYS_mkdirat, SYS_unlinkat, SYS_renameat, SYS_linkat,
    SYS_symlinkat, SYS_readlinkat, SYS_fchmod, SYS_fchmodat, SYS_fchown, SYS_umask, SYS_utimensat,
    SYS_dup, SYS_dup3, SYS_pipe2, SYS_inotify_init1, SYS_inotify_add_watch, SYS_inotify_rm_watch,
    SYS_copy_file_range,
    /* sockets; socket(2) itself is below */
    SYS_connect, SYS_accept, SYS_accept4, SYS_sendto, SYS_recvfrom, SYS_sendmsg, SYS_recvmsg,
    SYS_sendmmsg, SYS_recvmmsg, SYS_shutdown, SYS_bind, SYS_listen, SYS_getsockname,
    SYS_getpeername, SYS_socketpair, SYS_setsockopt, SYS_getsockopt, SYS_sendfile, SYS_splice,
    /* waiting */
    SYS_ppoll, SYS_pselect6, SYS_epoll_create1, SYS_epoll_ctl, SYS_epoll_pwait, SYS_eventfd2,
    SYS_timerfd_create, SYS_timerfd_settime, SYS_timerfd_gettime, SYS_signalfd4, SYS_nanosleep,
    SYS_clock_nanosleep, SYS_clock_gettime, SYS_clock_getres, SYS_gettimeofday,
    SYS_restart_syscall,
    /* memory and threads; mmap, mprotect, clone are below */
    SYS_munmap, SYS_mremap, SYS_madvise, SYS_brk, SYS_msync, SYS_mincore, SYS_mlock, SYS_munlock,
    SYS_membarrier, SYS_futex, SYS_set_robust_list, SYS_get_robust_list, SYS_set_tid_address,
    SYS_sched_yield, SYS_sched_getaffinity, SYS_sched_setaffinity, SYS_sched_getparam,
    SYS_sched_getscheduler, SYS_getcpu, SYS_exit, SYS_exit_group, SYS_rt_sigaction,
    SYS_rt_sigprocmask, SYS_rt_sigreturn, SYS_rt_sigpending, SYS_rt_sigtimedwait, SYS_sigaltstack,
    SYS_gettid, SYS_getpid, SYS_getppid, SYS_getpgid,
    /* about itself */
    SYS_getuid, SYS_geteuid, SYS_getgid, SYS_getegid, SYS_getgroups, SYS_getrusage, SYS_times,
    SYS_prlimit64, SYS_getrlimit, SYS_setrlimit, SYS_uname, SYS_sysinfo, SYS_getrandom, SYS_prctl,
#ifdef SYS_rseq
    SYS_rseq,
#endif
#ifdef SYS_close_range
    SYS_close_range,
#endif
#ifdef SYS_faccessat2
    SYS_faccessat2,
#endif
#ifdef SYS_openat2
    SYS_openat2,
#endif
#ifdef SYS_epoll_pwait2
    SYS_epoll_pwait2,
#endif
#ifdef SYS_futex_waitv
    SYS_futex_waitv,
#endif
#ifdef SYS_renameat2
    SYS_renameat2,
#endif
#ifdef SYS_preadv2
    SYS_preadv2, SYS_pwritev2,
#endif
#ifdef __x86_64__
    SYS_open, SYS_stat, SYS_lstat, SYS_access, SYS_mkdir, SYS_rmdir, SYS_unlink, SYS_rename,
    SYS_link, SYS_symlink, SYS_readlink, SYS_chmod, SYS_chown, SYS_dup2, SYS_pipe, SYS_poll,
    SYS_select, SYS_epoll_create, SYS_epoll_wait, SYS_eventfd, SYS_inotify_init, SYS_getdents,
    SYS_time, SYS_arch_prctl, SYS_utimes, SYS_getpgrp,
#endif
};

static const int families[] = {AF_UNIX, AF_INET, AF_INET6, AF_NETLINK /* addresses of names */};
static const unsigned ioctls[] = {FIONBIO, FIONREAD, FIOCLEX, FIONCLEX, TCGETS, TIOCGWINSZ};

/* ---- the filter ------------------------------------------------------------------------------ */

#define FILTER_MAX 1024

typedef struct filter {
    struct sock_filter code[FILTER_MAX];
    unsigned short n;
    unsigned otherwise; /* what happens to the rest */
} filter;

static void add(filter *f, unsigned short code, uint32_t k, uint8_t yes, uint8_t no)
{
    if (f->n < FILTER_MAX)
        f->code[f->n] = (struct sock_filter){code, yes, no, k};
    f->n++;
}

static void load(filter *f, size_t offset)
{
    add(f, BPF_LD | BPF_W | BPF_ABS, (uint32_t)offset, 0, 0);
}

static void end(filter *f, unsigned verdict)
{
    add(f, BPF_RET | BPF_K, verdict, 0, 0);
}

static void load_argument(filter *f, size_t i)
{
    /* the lower half, on machines whose lower half comes first: those of ARCH */
    load(f, offsetof(struct seccomp_data, args) + 8 * i);
}

static void allow_if_equal(filter *f, uint32_t value)
{
    add(f, BPF_JMP | BPF_JEQ | BPF_K, value, 0, 1);
    end(f, SECCOMP_RET_ALLOW);
}

/* Of a system call: the commands that check its arguments follow, and end in a verdict. The number
 * is loaded before it, and behind it for whoever is another call. */
static unsigned short begin_call(filter *f, long number)
{
    unsigned short at = f->n;
    add(f, BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)number, 0, 0);
    return at;
}

static void end_call(filter *f, unsigned short at, unsigned verdict)
{
    end(f, verdict);
    if (f->n <= FILTER_MAX)
        f->code[at].jf = (uint8_t)(f->n - at - 1);
}

/* Threads, no processes: clone3 hides its flags in memory, so libc is told to use clone. */
static void allow_threads(filter *f)
{
    unsigned short at;
#ifdef SYS_clone3
    at = begin_call(f, SYS_clone3);
    end_call(f, at, SECCOMP_RET_ERRNO | ENOSYS);
#endif
    at = begin_call(f, SYS_clone);
    load_argument(f, 0);
    add(f, BPF_ALU | BPF_AND | BPF_K, CLONE_THREAD | CLONE_VM, 0, 0);
    allow_if_equal(f, CLONE_THREAD | CLONE_VM);
    end_call(f, at, f->otherwise);
}

/* Signals go to this process alone. */
static void allow_signals(filter *f)
{
    static const long calls[] = {SYS_kill, SYS_tgkill};
    for (size_t i = 0; i < OUTR_LEN(calls); i++) {
        unsigned short at = begin_call(f, calls[i]);
        load_argument(f, 0);
        allow_if_equal(f, (uint32_t)getpid());
        end_call(f, at, f->otherwise);
    }
}

/* No memory that is written and executed. */
static void allow_memory(filter *f, long number)
{
    unsigned short at = begin_call(f, number);
    load_argument(f, 2);
    add(f, BPF_ALU | BPF_AND | BPF_K, PROT_WRITE | PROT_EXEC, 0, 0);
    add(f, BPF_JMP | BPF_JEQ | BPF_K, PROT_WRITE | PROT_EXEC, 1, 0);
    end(f, SECCOMP_RET_ALLOW);
    end_call(f, at, f->otherwise);
}

static void allow_sockets(filter *f)
{
    unsigned short at = begin_call(f, SYS_socket);
    load_argument(f, 0);
    for (size_t i = 0; i < OUTR_LEN(families); i++)
        allow_if_equal(f, (uint32_t)families[i]);
    end_call(f, at, f->otherwise);
    at = begin_call(f, SYS_ioctl);
    load_argument(f, 1);
    for (size_t i = 0; i < OUTR_LEN(ioctls); i++)
        allow_if_equal(f, ioctls[i]);
    end_call(f, at, f->otherwise);
}

#ifdef ARCH
static void build(filter *f)
{
    load(f, offsetof(struct seccomp_data, arch));
    add(f, BPF_JMP | BPF_JEQ | BPF_K, ARCH, 1, 0);
    end(f, SECCOMP_RET_KILL_PROCESS);
    load(f, offsetof(struct seccomp_data, nr));
    for (size_t i = 0; i < OUTR_LEN(allowed); i++)
        allow_if_equal(f, (uint32_t)allowed[i]);
    allow_threads(f);
    allow_signals(f);
    allow_memory(f, SYS_mmap);
    allow_memory(f, SYS_mprotect);
    allow_sockets(f);
    end(f, f->otherwise); /* calls of the x32 kind, too: they have numbers of their own */
}

outr_code outr_harden_syscalls(outr_seccomp mode, outr_err *err)
{
    static const unsigned verdicts[] = {
        [OUTR_SECCOMP_LOG] = SECCOMP_RET_LOG,
        [OUTR_SECCOMP_DENY] = SECCOMP_RET_ERRNO | EPERM,
        [OUTR_SECCOMP_KILL] = SECCOMP_RET_KILL_PROCESS,
    };
    filter f = {.otherwise = verdicts[mode]};
    if (mode == OUTR_SECCOMP_OFF)
        return OUTR_OK;
    build(&f);
    assert(f.n <= FILTER_MAX);
    const struct sock_fprog program = {f.n, f.code};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        return outr_fail_errno(err, errno, "seccomp: no new privileges");
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program) != 0) {
        outr_fail_errno(err, errno, "seccomp");
        err->code = OUTR_UNAVAILABLE; /* an old kernel, a container that forbids it */
        return err->code;
    }
    return OUTR_OK;
}
#else
outr_code outr_harden_syscalls(outr_seccomp mode, outr_err *err)
{
    if (mode == OUTR_SECCOMP_OFF)
        return OUTR_OK;
    return outr_fail(err, OUTR_UNAVAILABLE, "seccomp: not on this kind of machine");
}
#endif
