#include "base/encode.h"
#include "cli/ask.h"

#define ARENA_MAX (256 * OUTR_MIB)
#define OUT_MAX   (64 * OUTR_MIB)

typedef struct endpoints_options {
    const char *app_id, *address, *output;
} endpoints_options;

static const outr_cli_flag endpoints_flags[] = {
    {"app-id", 'a', "ID", offsetof(endpoints_options, app_id),
     "the app that calls; its sidecar is asked"},
    {"address", 0, "HOST:PORT", offsetof(endpoints_options, address),
     "the HTTP port of the sidecar to ask, when `outrigger run` did not start it"},
    {"output", 'o', "table|json", offsetof(endpoints_options, output),
     "form of the answer (table)"},
};

enum { COLUMNS = 8 };

static outr_str number(const outr_json *o, const char *key)
{
    const outr_json *value = outr_json_find(o, key);
    return value && value->kind == OUTR_JSON_NUMBER ? value->text : OUTR_STR("0");
}

static outr_str or_dash(outr_str text)
{
    return text.n ? text : OUTR_STR("-");
}

static outr_str labels(outr_arena *arena, const outr_json *o)
{
    const outr_json *all = outr_json_find(o, "labels");
    outr_str text = OUTR_STR("");
    for (const outr_json *one = all ? all->child : NULL; one; one = one->next)
        text = outr_arena_printf(arena, OUTR_FMT "%s" OUTR_FMT "=" OUTR_FMT, OUTR_ARG(text),
                                 text.n ? "," : "", OUTR_ARG(one->key), OUTR_ARG(one->text));
    return text;
}

/* "1.5s", "250ms"; "-" for none. */
static outr_str duration(outr_arena *arena, outr_str ms)
{
    uint64_t n;
    if (!outr_str_to_u64(ms, UINT64_MAX, &n) || n == 0)
        return OUTR_STR("-");
    return n < 1000 ? outr_arena_printf(arena, "%llums", (unsigned long long)n)
                    : outr_arena_printf(arena, "%.1fs", (double)n / 1000);
}

static outr_str state(outr_arena *arena, const outr_json *o)
{
    outr_str name = outr_json_text(o, "state"), share = number(o, "share");
    if (!outr_str_is(name, "ramping"))
        return name;
    return outr_arena_printf(arena, OUTR_FMT " (" OUTR_FMT ")", OUTR_ARG(name), OUTR_ARG(share));
}

static void write_callee(outr_buf *out, outr_arena *arena, const outr_json *callee)
{
    static const char *const titles[COLUMNS] = {"ADDRESS", "STATE",  "SCORE MS",   "PENDING",
                                                "REASON",  "PROBED IN", "EJECTIONS", "LABELS"};
    const outr_json *instances = outr_json_find(callee, "instances");
    size_t count = instances ? instances->count : 0, row = 0;
    outr_str *cells = outr_arena_alloc(arena, (count * COLUMNS + 1) * sizeof *cells);
    for (const outr_json *one = count ? instances->child : NULL; one; one = one->next, row++) {
        outr_str *c = &cells[row * COLUMNS];
        c[0] = outr_json_text(one, "address");
        c[1] = state(arena, one);
        c[2] = number(one, "scoreMs");
        c[3] = number(one, "pending");
        c[4] = or_dash(outr_json_text(one, "reason"));
        c[5] = duration(arena, number(one, "nextProbeMs"));
        c[6] = number(one, "ejections");
        c[7] = or_dash(labels(arena, one));
    }
    outr_buf_printf(out,
                    OUTR_FMT ": %zu instances, " OUTR_FMT " ejected; " OUTR_FMT
                             " calls and " OUTR_FMT " retries in the last ten seconds\n",
                    OUTR_ARG(outr_json_text(callee, "name")), count,
                    OUTR_ARG(number(callee, "ejected")), OUTR_ARG(number(callee, "calls")),
                    OUTR_ARG(number(callee, "retries")));
    outr_ask_table(out, titles, COLUMNS, cells, count);
}

static int show(const outr_command *self, const endpoints_options *options, const char *callee,
                outr_arena *arena)
{
    OUTR_AUTO(outr_buf) out = OUTR_BUF_MAX(OUT_MAX);
    outr_ask ask = {
        .app_id = options->app_id,
        .address = options->address,
        .target = outr_arena_join(arena, OUTR_STR("/v1.0/outrigger/endpoints"),
                                  callee ? OUTR_STR("/") : OUTR_STR(""),
                                  outr_percent_encode(arena, outr_str_from(callee), "")),
    };
    int exit_code = outr_ask_run(self, &ask, arena);
    const outr_json *callees = ask.answer ? outr_json_find(ask.answer, "callees") : NULL;
    if (exit_code == OUTR_EXIT_OK && strcmp(options->output, "json") == 0)
        outr_buf_printf(&out, OUTR_FMT "\n", OUTR_ARG(outr_buf_view(&ask.text)));
    else if (exit_code == OUTR_EXIT_OK && (!callees || callees->count == 0))
        exit_code = outr_cli_fail(self, callee ? "that sidecar has not called %s yet"
                                               : "that sidecar has called nobody yet",
                                  callee);
    for (const outr_json *one = callees && !out.n ? callees->child : NULL; one; one = one->next) {
        write_callee(&out, arena, one);
        if (one->next)
            outr_buf_char(&out, '\n');
    }
    outr_buf_done(&ask.text);
    return outr_cli_write(1, out.p, out.n) ? exit_code : OUTR_EXIT_FAILED;
}

static int endpoints(const outr_command *self, int argc, char **argv)
{
    endpoints_options options = {.output = "table"};
    const char *words[1] = {NULL};
    size_t count;
    if (!outr_cli_parse(self, argc, argv, &options, words, 1, &count))
        return OUTR_EXIT_USAGE;
    outr_arena *arena = outr_arena_new(ARENA_MAX);
    int exit_code = show(self, &options, words[0], arena);
    outr_arena_free(arena);
    return exit_code;
}

const outr_command outr_command_endpoints = {
    .name = "endpoints",
    .summary = "Show what a sidecar knows of the instances it calls",
    .synopsis = "[APP] --app-id ID [-o table|json]",
    .text = "For each instance: its score (what an answer costs by what is known now), calls in "
            "hand, whether\n"
            "it gets calls, why not, and when it is tried again. Without APP all that have been "
            "called.",
    .examples = "  outrigger endpoints kitchen --app-id waiter\n"
                "  outrigger endpoints --address 127.0.0.1:3500 -o json\n",
    .flags = endpoints_flags,
    .flag_count = OUTR_LEN(endpoints_flags),
    .words = "APP-ID",
    .run = endpoints,
};
