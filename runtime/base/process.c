#include "base/process.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

static void family(outr_buf *out, const char *name, const char *kind, const char *help,
                   double value)
{
    outr_buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n%s %.17g\n", name, help, name, kind, name,
                    value);
}

/* Field 22 of /proc/self/stat: start time in clock ticks since boot; 0 when it cannot be read. */
static double start_seconds(void)
{
    char text[1024];
    int fd = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, text, sizeof text - 1) : -1;
    if (fd >= 0)
        close(fd);
    if (n <= 0)
        return 0;
    outr_str rest = outr_str_of(text, (size_t)n), word = OUTR_STR_NONE;
    rest = outr_str_skip(rest, (size_t)outr_str_rfind(rest, ')') + 2);
    for (int field = 3; field <= 22 && rest.p; field++)
        rest = outr_str_cut(rest, ' ', &word);
    uint64_t ticks;
    struct timespec real, boot;
    if (!outr_str_to_u64(word, UINT64_MAX, &ticks))
        return 0;
    clock_gettime(CLOCK_REALTIME, &real);
    clock_gettime(CLOCK_BOOTTIME, &boot);
    return (double)(real.tv_sec - boot.tv_sec) + (double)ticks / (double)sysconf(_SC_CLK_TCK);
}

static size_t open_fds(void)
{
    size_t count = 0;
    DIR *dir = opendir("/proc/self/fd");
    if (!dir)
        return 0;
    while (readdir(dir))
        count++;
    closedir(dir);
    return count > 3 ? count - 3 : 0; /* without ".", ".." and the directory itself */
}

static void memory(double *virtual_bytes, double *resident_bytes)
{
    char text[128];
    int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, text, sizeof text) : -1;
    outr_str size, resident, rest = outr_str_of(text, n > 0 ? (size_t)n : 0);
    uint64_t pages = 0;
    double page = (double)sysconf(_SC_PAGESIZE);
    if (fd >= 0)
        close(fd);
    rest = outr_str_cut(rest, ' ', &size);
    outr_str_cut(rest, ' ', &resident);
    *virtual_bytes = outr_str_to_u64(size, UINT64_MAX, &pages) ? (double)pages * page : 0;
    *resident_bytes = outr_str_to_u64(resident, UINT64_MAX, &pages) ? (double)pages * page : 0;
}

void outr_metrics_write_process(outr_buf *out)
{
    struct rusage usage;
    struct rlimit limit;
    double virtual_bytes, resident_bytes;
    getrusage(RUSAGE_SELF, &usage);
    getrlimit(RLIMIT_NOFILE, &limit);
    memory(&virtual_bytes, &resident_bytes);
    family(out, "process_cpu_seconds_total", "counter",
           "Total user and system CPU time spent in seconds.",
           (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
               (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6);
    family(out, "process_max_fds", "gauge", "Maximum number of open file descriptors.",
           (double)limit.rlim_cur);
    family(out, "process_open_fds", "gauge", "Number of open file descriptors.",
           (double)open_fds());
    family(out, "process_resident_memory_bytes", "gauge", "Resident memory size in bytes.",
           resident_bytes);
    family(out, "process_start_time_seconds", "gauge",
           "Start time of the process since unix epoch in seconds.", start_seconds());
    family(out, "process_virtual_memory_bytes", "gauge", "Virtual memory size in bytes.",
           virtual_bytes);
}
