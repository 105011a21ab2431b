#include "cli/ask.h"

#include "cli/send.h"

#define TIMEOUT_MS 10000

static outr_code find_instance(const outr_instance **out, outr_arena *arena, const outr_ask *ask,
                               outr_err *err)
{
    if (!ask->address)
        return outr_instances_find(out, arena, ask->app_id, err);
    outr_instance *instance = outr_arena_alloc(arena, sizeof *instance);
    outr_str address = outr_str_from(ask->address);
    ptrdiff_t colon = outr_str_rfind(address, ':');
    uint64_t port;
    if (colon < 0 ||
        !outr_str_to_u64(outr_str_skip(address, (size_t)colon + 1), UINT16_MAX, &port) || !port)
        return outr_fail(err, OUTR_INVALID_ARGUMENT, "--address: not HOST:PORT: \"%s\"",
                         ask->address);
    instance->host = colon > 0 ? outr_str_head(address, (size_t)colon) : OUTR_STR("127.0.0.1");
    instance->http_port = (uint16_t)port;
    *out = instance;
    return OUTR_OK;
}

/* An older sidecar, or a daprd, takes the path for something else. */
static int explain_status(const outr_command *self, const outr_cli_call *call)
{
    if (call->status == 404)
        return outr_cli_fail(self, "that sidecar does not answer such questions");
    return outr_send_show(self, call);
}

int outr_ask_run(const outr_command *self, outr_ask *ask, outr_arena *arena)
{
    const outr_instance *instance;
    outr_err err;
    if (!ask->app_id == !ask->address)
        return outr_cli_mistake(self, "--app-id or --address is required, and not both");
    if (find_instance(&instance, arena, ask, &err))
        return outr_cli_fail(self, "%s", err.text);
    outr_cli_call call = {.method = ask->body.p ? "POST" : "GET",
                          .target = ask->target,
                          .content_type = ask->body.p ? "application/json" : NULL,
                          .body = ask->body,
                          .timeout_ms = TIMEOUT_MS,
                          .answer = OUTR_BUF_MAX(OUTR_SEND_MAX)};
    if (outr_cli_http(instance, &call, &err)) {
        outr_buf_done(&call.answer);
        return outr_cli_fail(self, "%s", err.text);
    }
    ask->text = call.answer;
    if (call.status != 200)
        return explain_status(self, &call);
    if (outr_json_parse(&ask->answer, arena, outr_buf_view(&ask->text), &err))
        return outr_cli_fail(self, "the sidecar's answer: %s", err.text);
    return OUTR_EXIT_OK;
}

void outr_ask_table(outr_buf *out, const char *const *titles, size_t columns,
                    const outr_str *cells, size_t rows)
{
    for (size_t row = 0; row <= rows; row++) {
        for (size_t c = 0; c < columns; c++) {
            size_t width = strlen(titles[c]);
            for (size_t k = 0; k < rows; k++)
                width = OUTR_MAX(width, cells[k * columns + c].n);
            outr_str cell = row ? cells[(row - 1) * columns + c] : outr_str_from(titles[c]);
            bool is_last = c + 1 == columns;
            outr_buf_printf(out, OUTR_FMT "%*s%s", OUTR_ARG(cell),
                            is_last ? 0 : (int)(width - cell.n), "", is_last ? "\n" : "  ");
        }
    }
}
