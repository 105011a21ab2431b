#include "base/encode.h"
#include "cli/send.h"

#define ARENA_MAX (64 * OUTR_MIB)

typedef struct invoke_options {
    const char *app_id, *method, *data, *data_file, *verb, *content_type, *timeout;
} invoke_options;

static const outr_cli_flag invoke_flags[] = {
    {"app-id", 'a', "ID", offsetof(invoke_options, app_id), "the app to call (required)"},
    {"method", 'm', "PATH", offsetof(invoke_options, method),
     "what to call, with a query if need be (required)"},
    {"data", 'd', "TEXT", offsetof(invoke_options, data), "body of the request"},
    {"data-file", 'f', "FILE", offsetof(invoke_options, data_file),
     "file with the body; -: standard input"},
    {"verb", 'v', "VERB", offsetof(invoke_options, verb),
     "HTTP method (POST with a body or without)"},
    {"content-type", 0, "TYPE", offsetof(invoke_options, content_type),
     "of the body (JSON when it is, else text)"},
    {"timeout", 0, "DURATION", offsetof(invoke_options, timeout), "longest silence (60s)"},
};

static bool is_token(const char *verb)
{
    return verb[0] &&
           verb[strspn(verb, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-")] == 0;
}

static bool is_target(outr_str method)
{
    for (size_t i = 0; i < method.n; i++) {
        if ((unsigned char)method.p[i] <= ' ' || method.p[i] == 0x7f)
            return false;
    }
    return true;
}

static int call_app(const outr_command *self, const invoke_options *options, outr_arena *arena,
                    int timeout_ms)
{
    const outr_instance *instance;
    OUTR_AUTO(outr_buf) file = OUTR_BUF_MAX(OUTR_SEND_MAX);
    outr_err err;
    outr_str method = outr_str_from(options->method);
    method = outr_str_skip(method, outr_str_starts(method, OUTR_STR("/")));
    outr_cli_call call = {
        .method = options->verb,
        .target = outr_arena_printf(
            arena, "/v1.0/invoke/" OUTR_FMT "/method/" OUTR_FMT,
            OUTR_ARG(outr_percent_encode(arena, outr_str_from(options->app_id), "")),
            OUTR_ARG(method)),
        .timeout_ms = timeout_ms,
        .answer = OUTR_BUF_MAX(OUTR_SEND_MAX),
    };
    if (outr_send_data(&call.body, &file, options->data, options->data_file, &err) ||
        outr_instances_find(&instance, arena, options->app_id, &err))
        return outr_cli_fail(self, "%s", err.text);
    if (call.body.p)
        call.content_type = options->content_type ? options->content_type
                                                  : outr_send_content_type(call.body, false);
    int exit_code = outr_cli_http(instance, &call, &err) ? outr_cli_fail(self, "%s", err.text)
                                                         : outr_send_show(self, &call);
    outr_buf_done(&call.answer);
    return exit_code;
}

static int invoke(const outr_command *self, int argc, char **argv)
{
    invoke_options options = {.verb = "POST", .timeout = "60s"};
    int64_t timeout_ns;
    size_t words;
    if (!outr_cli_parse(self, argc, argv, &options, NULL, 0, &words))
        return OUTR_EXIT_USAGE;
    if (!options.app_id || !options.method)
        return outr_cli_mistake(self, "--app-id and --method are required");
    if (options.data && options.data_file)
        return outr_cli_mistake(self, "--data or --data-file, not both");
    if (!is_token(options.verb))
        return outr_cli_mistake(self, "--verb: not an HTTP method: \"%s\"", options.verb);
    if (!is_target(outr_str_from(options.method)))
        return outr_cli_mistake(self, "--method: must not contain spaces; write %%20");
    if (!outr_str_to_duration(outr_str_from(options.timeout), &timeout_ns) || timeout_ns <= 0)
        return outr_cli_mistake(self, "--timeout: not a duration: \"%s\"", options.timeout);
    outr_arena *arena = outr_arena_new(ARENA_MAX);
    int exit_code =
        call_app(self, &options, arena, (int)OUTR_MIN(timeout_ns / (int64_t)OUTR_MS, INT32_MAX));
    outr_arena_free(arena);
    return exit_code;
}

const outr_command outr_command_invoke = {
    .name = "invoke",
    .summary = "Call a method of an app that runs here",
    .synopsis = "--app-id ID --method PATH [flags]",
    .text = "Goes through the app's own sidecar, as a call by another app does. Prints the body of "
            "the answer;\n"
            "a status outside 2xx goes to standard error and makes the exit code 1.",
    .examples = "  outrigger invoke --app-id orders --method orders/42 --verb GET\n"
                "  outrigger invoke -a orders -m orders -d '{\"item\":\"tea\"}'\n"
                "  tar c . | outrigger invoke -a archive -m upload -f -\n",
    .flags = invoke_flags,
    .flag_count = OUTR_LEN(invoke_flags),
    .run = invoke,
};
