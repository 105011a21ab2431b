#include <malloc.h>
#include <signal.h>

#include "control/ca/ca.h"

/* outrigger-control: what a fleet needs once, one subcommand each. Exit codes are outriggerd's. */

extern char **environ;

#define HELP_MAX (64 * OUTR_KIB)

static int run_ca(int argc, char **argv)
{
    outr_ca_settings settings;
    outr_err err;
    if (outr_ca_settings_parse(&settings, argc, argv, environ, &err)) {
        fprintf(stderr, "outrigger-control: %s\n", err.text);
        return 2;
    }
    if (settings.show_help) {
        OUTR_AUTO(outr_buf) text = OUTR_BUF_MAX(HELP_MAX);
        outr_ca_settings_help(&text);
        fwrite(text.p, 1, text.n, stdout);
        return 0;
    }
    if (settings.show_version) {
        printf("%s\n", OUTR_DAPR_VERSION);
        return 0;
    }
    outr_harden_memory(); /* the issuer's key will be in it */
    if (outr_harden_syscalls(settings.seccomp, &err)) {
        fprintf(stderr, "outrigger-control: --seccomp: %s\n", err.text);
        return 1;
    }
    return outr_ca_run(&settings, environ);
}

static void show_overview(FILE *out)
{
    fprintf(out, "outrigger-control - what a fleet of sidecars needs once\n\nUsage:\n"
                 "  outrigger-control COMMAND [flags]\n\nCommands:\n"
                 "  ca           Certificate authority with sentry's flags and files\n"
                 "  help         Show this; `COMMAND --help` shows its flags\n");
}

int main(int argc, char **argv)
{
    signal(SIGPIPE, SIG_IGN);
    mallopt(M_ARENA_MAX, 2);
    setenv("UV_THREADPOOL_SIZE", "1", 0); /* only looks names up */
    const char *name = argc > 1 ? argv[1] : "help";
    if (strcmp(name, "ca") == 0)
        return run_ca(argc - 1, argv + 1);
    if (strcmp(name, "--version") == 0 || strcmp(name, "version") == 0) {
        printf("%s\n", OUTR_DAPR_VERSION);
        return 0;
    }
    bool is_help = strcmp(name, "help") == 0 || strcmp(name, "--help") == 0;
    show_overview(is_help ? stdout : stderr);
    return is_help ? 0 : 2;
}
