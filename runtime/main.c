#include "runtime.h"

#include <malloc.h>
#include <signal.h>
#include <unistd.h>

#include "base/buf.h"
#include "runtime_wait.h"

/* argv -> settings -> runs. The process ends as contract/dropin.md says: 0 after a graceful stop, 1
 * after a fatal error, 2 for flags it does not understand. */

extern char **environ;

#define SETTINGS_MAX (4 * OUTR_MIB)

static int show(const outr_settings *settings)
{
    if (settings->show_help) {
        OUTR_AUTO(outr_buf) text = OUTR_BUF_MAX(OUTR_MIB);
        outr_settings_help(&text);
        fwrite(text.p, 1, text.n, stdout);
    } else if (settings->show_build_info) {
        printf("Version: %s\nDapr: %s\n", OUTR_VERSION, OUTR_DAPR_VERSION);
    } else {
        printf("%s\n", OUTR_DAPR_VERSION);
    }
    return 0;
}

static void prepare_process(void)
{
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a file at its size limit is an error of that write */
    /* Two arenas do for a thread per core, and keep the idle process small; big blocks go back to
     * the
     * system as soon as they are freed. */
    mallopt(M_ARENA_MAX, 2);
    mallopt(M_TRIM_THRESHOLD, 256 * 1024);
    mallopt(M_MMAP_THRESHOLD, 256 * 1024);
    /* libuv's pool only looks names up; its default of four threads is memory for nothing. */
    setenv("UV_THREADPOOL_SIZE", "1", 0);
}

/* daprd tells its own process (and so components that read variables) who it is. */
static void export_identity(const outr_settings *s)
{
    char port[8];
    setenv("APP_ID", s->app_id.p, 1);
    snprintf(port, sizeof port, "%u", s->app_port);
    if (s->app_port)
        setenv("APP_PORT", port, 1);
    snprintf(port, sizeof port, "%u", s->http_port);
    setenv("DAPR_HTTP_PORT", port, 1);
    snprintf(port, sizeof port, "%u", s->grpc_port);
    setenv("DAPR_GRPC_PORT", port, 1);
    snprintf(port, sizeof port, "%u", s->metrics_port);
    setenv("DAPR_METRICS_PORT", port, 1);
}

/* Before there are keys, and before there are threads. */
static bool confine(const outr_settings *s)
{
    outr_err err;
    if (s->enable_mtls)
        outr_harden_memory();
    if (outr_harden_syscalls(s->seccomp, &err) == OUTR_OK)
        return true;
    fprintf(stderr, "outriggerd: --seccomp: %s\n", err.text);
    return false;
}

int main(int argc, char **argv)
{
    prepare_process();
    outr_arena *arena = outr_arena_new(SETTINGS_MAX);
    outr_settings settings;
    outr_err err;
    int exit_code = 1;
    if (outr_settings_parse(&settings, arena, argc, argv, environ, &exit_code, &err)) {
        fprintf(stderr, "outriggerd: %s\n", err.text);
        outr_arena_free(arena);
        return exit_code;
    }
    outr_ending ending = OUTR_FAILED;
    if (settings.show_help || settings.show_version || settings.show_build_info) {
        show(&settings);
        ending = OUTR_ENDED;
    } else if (settings.wait_ready) {
        ending = outr_wait_until_ready(settings.http_port) ? OUTR_ENDED : OUTR_FAILED;
    } else if (confine(&settings)) {
        outr_kept_identity kept = {0};
        export_identity(&settings);
        do
            ending = outr_runtime_run(&settings, environ, &kept);
        while (ending == OUTR_RESTART);
        outr_kept_identity_done(&kept);
    }
    outr_arena_free(arena);
    return ending == OUTR_ENDED ? 0 : 1;
}
