#include "cli/cli.h"

#include <time.h>

#include "base/clock.h"
#include "base/json.h"
#include "cli/instance.h"

#define ARENA_MAX   (64 * OUTR_MIB)
#define OUT_MAX     (64 * OUTR_MIB)
#define COMMAND_MAX 60

typedef struct list_options {
    const char *output;
} list_options;

static const outr_cli_flag list_flags[] = {
    {"output", 'o', "table|json|id", offsetof(list_options, output), "form of the answer (table)"},
};

static void write_age(char *out, size_t size, int64_t seconds)
{
    seconds = OUTR_MAX(seconds, 0);
    if (seconds < 60)
        snprintf(out, size, "%llds", (long long)seconds);
    else if (seconds < 3600)
        snprintf(out, size, "%lldm", (long long)seconds / 60);
    else if (seconds < 86400)
        snprintf(out, size, "%lldh%02lldm", (long long)seconds / 3600,
                 (long long)seconds / 60 % 60);
    else
        snprintf(out, size, "%lldd", (long long)seconds / 86400);
}

static void write_number(char *out, size_t size, int64_t value)
{
    if (value > 0)
        snprintf(out, size, "%lld", (long long)value);
    else
        snprintf(out, size, "-");
}

enum { COLUMNS = 10, CELL_MAX = 128 };

static void fill_row(char cells[COLUMNS][CELL_MAX], const outr_instance *in, int64_t now_s)
{
    snprintf(cells[0], CELL_MAX, OUTR_FMT, OUTR_ARG(in->app_id));
    write_number(cells[1], CELL_MAX, in->http_port);
    write_number(cells[2], CELL_MAX, in->grpc_port);
    write_number(cells[3], CELL_MAX, in->metrics_port);
    write_number(cells[4], CELL_MAX, in->app_port);
    write_age(cells[5], CELL_MAX, now_s - in->created_s);
    write_number(cells[6], CELL_MAX, in->cli_pid);
    write_number(cells[7], CELL_MAX, in->sidecar_pid);
    write_number(cells[8], CELL_MAX, in->app_pid);
    bool is_long = in->command.n > COMMAND_MAX;
    snprintf(cells[9], CELL_MAX, OUTR_FMT "%s", OUTR_ARG(outr_str_head(in->command, COMMAND_MAX)),
             is_long ? "..." : "");
}

static void write_table(outr_buf *out, const outr_instances *all, int64_t now_s)
{
    static const char *const titles[COLUMNS] = {"APP ID",   "HTTP",   "GRPC", "METRICS",
                                                "APP PORT", "AGE",    "PID",  "SIDECAR PID",
                                                "APP PID",  "COMMAND"};
    char cells[COLUMNS][CELL_MAX];
    int widths[COLUMNS];
    for (size_t c = 0; c < COLUMNS; c++)
        widths[c] = (int)strlen(titles[c]);
    for (size_t i = 0; i < all->count; i++) {
        fill_row(cells, &all->items[i], now_s);
        for (size_t c = 0; c < COLUMNS; c++)
            widths[c] = OUTR_MAX(widths[c], (int)strlen(cells[c]));
    }
    for (size_t i = 0; i <= all->count; i++) {
        if (i > 0)
            fill_row(cells, &all->items[i - 1], now_s);
        for (size_t c = 0; c < COLUMNS; c++) {
            const char *cell = i > 0 ? cells[c] : titles[c];
            if (c + 1 < COLUMNS)
                outr_buf_printf(out, "%-*s  ", widths[c], cell);
            else
                outr_buf_printf(out, "%s\n", cell);
        }
    }
}

static void put(outr_json *o, const char *key, outr_json *value)
{
    outr_json_put(o, outr_str_from(key), value);
}

/* Names as the JSON of `dapr list` has them, and the rest in the same manner. */
static outr_json *instance_json(outr_arena *arena, const outr_instance *in, int64_t now_s)
{
    char age[32], created[40];
    outr_json *o = outr_json_new(arena, OUTR_JSON_OBJECT);
    write_age(age, sizeof age, now_s - in->created_s);
    size_t n = outr_time_rfc3339(in->created_s * (int64_t)OUTR_SEC, created);
    put(o, "appId", outr_json_string(arena, in->app_id));
    put(o, "httpPort", outr_json_number(arena, in->http_port));
    put(o, "grpcPort", outr_json_number(arena, in->grpc_port));
    put(o, "internalPort", outr_json_number(arena, in->internal_port));
    put(o, "metricsPort", outr_json_number(arena, in->metrics_port));
    put(o, "appPort", outr_json_number(arena, in->app_port));
    put(o, "age", outr_json_string(arena, outr_arena_str(arena, outr_str_from(age))));
    put(o, "created", outr_json_string(arena, outr_arena_str(arena, outr_str_of(created, n))));
    put(o, "cliPid", outr_json_number(arena, in->cli_pid));
    put(o, "daprdPid", outr_json_number(arena, in->sidecar_pid));
    put(o, "appPid", outr_json_number(arena, in->app_pid));
    put(o, "command", outr_json_string(arena, in->command));
    if (in->socket.n > 0)
        put(o, "socket", outr_json_string(arena, in->socket));
    return o;
}

static void write_json(outr_buf *out, outr_arena *arena, const outr_instances *all, int64_t now_s)
{
    outr_json *array = outr_json_new(arena, OUTR_JSON_ARRAY);
    for (size_t i = 0; i < all->count; i++)
        outr_json_push(array, instance_json(arena, &all->items[i], now_s));
    outr_json_write(out, array, OUTR_JSON_PLAIN);
    outr_buf_char(out, '\n');
}

static int list(const outr_command *self, int argc, char **argv)
{
    list_options options = {.output = "table"};
    outr_instances all;
    outr_err err;
    size_t words;
    if (!outr_cli_parse(self, argc, argv, &options, NULL, 0, &words))
        return OUTR_EXIT_USAGE;
    outr_arena *arena = outr_arena_new(ARENA_MAX);
    OUTR_AUTO(outr_buf) out = OUTR_BUF_MAX(OUT_MAX);
    int exit_code = OUTR_EXIT_OK;
    int64_t now_s = time(NULL);
    if (outr_instances_load(&all, arena, &err)) {
        exit_code = outr_cli_fail(self, "%s", err.text);
    } else if (strcmp(options.output, "json") == 0) {
        write_json(&out, arena, &all, now_s);
    } else if (strcmp(options.output, "id") == 0) {
        for (size_t i = 0; i < all.count; i++)
            outr_buf_printf(&out, OUTR_FMT "\n", OUTR_ARG(all.items[i].app_id));
    } else if (all.count == 0) {
        outr_buf_z(&out, "Nothing runs here; `outrigger run` starts an app.\n");
    } else {
        write_table(&out, &all, now_s);
    }
    if (!outr_cli_write(1, out.p, out.n))
        exit_code = OUTR_EXIT_FAILED;
    outr_arena_free(arena);
    return exit_code;
}

const outr_command outr_command_list = {
    .name = "list",
    .summary = "List the apps that run here",
    .synopsis = "[-o table|json|id]",
    .text = "Shows what this user started with `outrigger run` and has not ended yet.",
    .examples = "  outrigger list\n"
                "  outrigger list -o json\n",
    .flags = list_flags,
    .flag_count = OUTR_LEN(list_flags),
    .run = list,
};
