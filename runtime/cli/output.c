#include "cli/output.h"

#include <unistd.h>

#include "cli/cli.h"

#define BATCH_MAX (4 * OUTR_MIB)

bool outr_output_is_colourful(int fd)
{
    const char *no_color = getenv("NO_COLOR"), *term = getenv("TERM");
    return isatty(fd) && !(no_color && no_color[0]) && term && strcmp(term, "dumb") != 0;
}

void outr_output_init(outr_output *out, int fd, const char *name, int width, const char *colour)
{
    *out = (outr_output){.fd = fd, .line = OUTR_BUF_MAX(OUTR_OUTPUT_LINE_MAX)};
    snprintf(out->prefix, sizeof out->prefix, "%s%s%s%-*.100s |%s ", colour ? "\033[" : "",
             colour ? colour : "", colour ? "m" : "", width, name, colour ? "\033[0m" : "");
}

static void end_line(outr_output *out, outr_buf *batch)
{
    outr_buf_z(batch, out->prefix);
    outr_buf_str(batch, outr_buf_view(&out->line));
    outr_buf_char(batch, '\n');
    outr_buf_drop(&out->line, out->line.n);
}

/* A reader that went away does not stop the children. */
static void send_batch(outr_output *out, outr_buf *batch)
{
    outr_cli_write(out->fd, batch->p, batch->n);
    outr_buf_done(batch);
}

void outr_output_feed(outr_output *out, const char *p, size_t n)
{
    outr_buf batch = OUTR_BUF_MAX(BATCH_MAX);
    outr_str rest = {p, n};
    while (rest.n > 0) {
        ptrdiff_t end = outr_str_find(rest, '\n');
        size_t length = end < 0 ? rest.n : (size_t)end;
        size_t room = OUTR_OUTPUT_LINE_MAX - out->line.n;
        bool is_over = length > room;
        outr_buf_str(&out->line, outr_str_head(rest, is_over ? room : length));
        rest = outr_str_skip(rest, is_over ? room : length + (end >= 0));
        if (is_over || end >= 0)
            end_line(out, &batch);
        if (batch.n > BATCH_MAX / 2)
            send_batch(out, &batch);
    }
    send_batch(out, &batch);
}

void outr_output_done(outr_output *out)
{
    if (out->line.n > 0)
        outr_output_feed(out, "\n", 1);
    outr_buf_done(&out->line);
}
