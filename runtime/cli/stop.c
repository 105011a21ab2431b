#include "cli/cli.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>

#include "cli/instance.h"

#define ARENA_MAX (64 * OUTR_MIB)
#define PAUSE_MS  20
#define WORDS_MAX 64

typedef struct stop_options {
    const char *app_id, *timeout;
} stop_options;

static const outr_cli_flag stop_flags[] = {
    {"app-id", 'a', "ID", offsetof(stop_options, app_id), "the app, instead of the plain argument"},
    {"timeout", 0, "DURATION", offsetof(stop_options, timeout),
     "how long to wait for its end (30s)"},
};

/* Those with this id; signalled when signum is not 0. */
static size_t each_instance(const char *app_id, int signum, outr_err *err)
{
    outr_arena *arena = outr_arena_new(ARENA_MAX);
    outr_instances all = {0};
    size_t count = 0;
    outr_err_clear(err);
    if (outr_instances_load(&all, arena, err) == OUTR_OK) {
        for (size_t i = 0; i < all.count; i++) {
            if (!outr_str_is(all.items[i].app_id, app_id))
                continue;
            count++;
            if (signum && kill(all.items[i].cli_pid, signum) && errno != ESRCH)
                outr_fail_errno(err, errno, "process %ld", (long)all.items[i].cli_pid);
        }
    }
    outr_arena_free(arena);
    return count;
}

static int stop_one(const outr_command *self, const char *app_id, int64_t timeout_ms)
{
    outr_err err;
    size_t count = each_instance(app_id, SIGTERM, &err);
    if (err.code)
        return outr_cli_fail(self, "%s", err.text);
    if (count == 0) {
        const outr_instance *none;
        outr_arena *arena = outr_arena_new(ARENA_MAX);
        outr_instances_find(&none, arena, app_id, &err); /* for its text */
        outr_arena_free(arena);
        return outr_cli_fail(self, "%s", err.text);
    }
    for (int64_t ms = 0; each_instance(app_id, 0, &err) > 0; ms += PAUSE_MS) {
        if (ms >= timeout_ms)
            return outr_cli_fail(self, "%s was asked to end but still runs", app_id);
        poll(NULL, 0, PAUSE_MS);
    }
    if (count == 1)
        printf("%s stopped\n", app_id);
    else
        printf("%s stopped (%zu instances)\n", app_id, count);
    return OUTR_EXIT_OK;
}

static int stop(const outr_command *self, int argc, char **argv)
{
    stop_options options = {.timeout = "30s"};
    const char *words[WORDS_MAX];
    size_t count;
    int64_t timeout_ns;
    if (!outr_cli_parse(self, argc, argv, &options, words, WORDS_MAX - 1, &count))
        return OUTR_EXIT_USAGE;
    if (options.app_id)
        words[count++] = options.app_id;
    if (count == 0)
        return outr_cli_mistake(self, "which app?");
    if (!outr_str_to_duration(outr_str_from(options.timeout), &timeout_ns) || timeout_ns < 0)
        return outr_cli_mistake(self, "--timeout: not a duration: \"%s\"", options.timeout);
    int exit_code = OUTR_EXIT_OK;
    for (size_t i = 0; i < count; i++)
        exit_code |= stop_one(self, words[i], timeout_ns / (int64_t)OUTR_MS);
    return exit_code;
}

const outr_command outr_command_stop = {
    .name = "stop",
    .summary = "Stop an app and its sidecar",
    .synopsis = "APP-ID...",
    .text = "Does what Ctrl-C does to every `outrigger run` of that app, and waits for the end.",
    .examples = "  outrigger stop orders\n"
                "  outrigger stop orders kitchen --timeout 5s\n",
    .flags = stop_flags,
    .flag_count = OUTR_LEN(stop_flags),
    .words = "APP-ID",
    .run = stop,
};
