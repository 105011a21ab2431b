#include "cli/send.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

outr_code outr_send_data(outr_str *data, outr_buf *out, const char *text, const char *file,
                         outr_err *err)
{
    *data = outr_str_from(text);
    if (!file)
        return OUTR_OK;
    int fd = strcmp(file, "-") == 0 ? dup(0) : open(file, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return outr_fail_errno(err, errno, "%s", file);
    ssize_t n;
    char piece[16 * OUTR_KIB];
    while ((n = read(fd, piece, sizeof piece)) > 0 && outr_buf_append(out, piece, (size_t)n))
        ;
    int why = errno;
    close(fd);
    if (n < 0)
        return outr_fail_errno(err, why, "%s", file);
    if (out->is_full)
        return outr_fail(err, OUTR_RESOURCE_EXHAUSTED, "%s: larger than %zu bytes", file, out->max);
    *data = out->n ? outr_buf_view(out) : OUTR_STR("");
    return OUTR_OK;
}

/* What CloudEvents 1.0 requires is there. */
static bool is_cloud_event(const outr_json *o)
{
    static const char *const required[] = {"id", "source", "specversion", "type"};
    for (size_t i = 0; i < OUTR_LEN(required); i++) {
        if (o->kind != OUTR_JSON_OBJECT || outr_json_text(o, required[i]).n == 0)
            return false;
    }
    return true;
}

const char *outr_send_content_type(outr_str data, bool with_cloud_events)
{
    outr_arena *arena = outr_arena_new(16 * OUTR_SEND_MAX);
    outr_json *o = NULL;
    outr_err err;
    const char *type = "text/plain";
    if (outr_json_parse(&o, arena, data, &err) == OUTR_OK)
        type = with_cloud_events && is_cloud_event(o) ? "application/cloudevents+json"
                                                      : "application/json";
    outr_arena_free(arena);
    return type;
}

int outr_send_show(const outr_command *self, const outr_cli_call *call)
{
    bool is_good = call->status >= 200 && call->status < 300;
    outr_cli_write(1, call->answer.p, call->answer.n);
    if (call->answer.n > 0 && call->answer.p[call->answer.n - 1] != '\n' && isatty(1))
        outr_cli_write(1, "\n", 1);
    if (is_good)
        return OUTR_EXIT_OK;
    if (call->answer.n > 0 && call->answer.p[call->answer.n - 1] != '\n' && !isatty(1) && isatty(2))
        outr_cli_write(2, "\n", 1);
    return outr_cli_fail(self, "the answer has status %d", call->status);
}
