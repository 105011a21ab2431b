#include "cli/cli.h"

#include <signal.h>

#define HELP_MAX (64 * OUTR_KIB)

const outr_command *const outr_commands[] = {
    &outr_command_run,     &outr_command_list, &outr_command_stop,
    &outr_command_invoke,  &outr_command_publish, &outr_command_endpoints,
    &outr_command_route,   &outr_command_mtls,
    &outr_command_version, &outr_command_completion, NULL,
};

static const outr_command *find_command(const char *name)
{
    for (size_t i = 0; outr_commands[i]; i++) {
        if (strcmp(outr_commands[i]->name, name) == 0)
            return outr_commands[i];
    }
    return NULL;
}

static void show_overview(FILE *out)
{
    fprintf(out, "Outrigger runs your apps, each with a sidecar beside it.\n\nUsage:\n"
                 "  outrigger COMMAND [flags]\n\nCommands:\n");
    for (size_t i = 0; outr_commands[i]; i++)
        fprintf(out, "  %-12s %s\n", outr_commands[i]->name, outr_commands[i]->summary);
    fprintf(out, "  %-12s %s\n", "help", "Show this text, or `help COMMAND` that of a command");
    fprintf(out, "\nStart with:\n"
                 "  outrigger run --app-id orders --app-port 8000 -- python3 app.py\n"
                 "  outrigger invoke --app-id orders --method ping\n");
}

static int show_help(const outr_command *command)
{
    OUTR_AUTO(outr_buf) text = OUTR_BUF_MAX(HELP_MAX);
    outr_cli_help(command, &text);
    return outr_cli_write(1, text.p, text.n) ? OUTR_EXIT_OK : OUTR_EXIT_FAILED;
}

/* --help anywhere before the command line of an app. */
static bool wants_help(int argc, char **argv)
{
    for (int i = 0; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
            return true;
    }
    return false;
}

int main(int argc, char **argv)
{
    signal(SIGPIPE, SIG_IGN);
    const char *name = argc > 1 ? argv[1] : "help";
    if (strcmp(name, "--version") == 0)
        name = "version";
    bool is_help =
        strcmp(name, "help") == 0 || strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0;
    if (is_help && argc > 2)
        name = argv[2];
    else if (is_help)
        return show_overview(stdout), OUTR_EXIT_OK;
    const outr_command *command = find_command(name);
    if (!command) {
        fprintf(stderr, "outrigger: unknown command \"%s\"\n\n", name);
        show_overview(stderr);
        return OUTR_EXIT_USAGE;
    }
    if (is_help || wants_help(argc - 2, argv + 2))
        return show_help(command);
    return command->run(command, argc - 2, argv + 2);
}
