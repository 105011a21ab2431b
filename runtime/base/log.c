#include "base/log.h"

#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/json.h"

#define LINE_MAX_BYTES 8192

struct outr_log_sink {
    outr_log_level level;
    bool is_json;
    int fd;
    char *app_id, *instance, *version;
};

static const char *const level_names[] = {"debug", "info", "warn", "error", "fatal"};

outr_log_sink *outr_log_sink_new(const outr_log_options *options)
{
    outr_log_sink *sink = outr_alloc(sizeof *sink);
    sink->level = options->level;
    sink->is_json = options->is_json;
    sink->fd = options->fd;
    sink->app_id = outr_str_dup(options->app_id);
    sink->instance = outr_str_dup(options->instance);
    sink->version = outr_str_dup(options->version);
    return sink;
}

void outr_log_sink_free(outr_log_sink *sink)
{
    if (!sink)
        return;
    free(sink->app_id);
    free(sink->instance);
    free(sink->version);
    free(sink);
}

bool outr_log_level_parse(outr_str s, outr_log_level *out)
{
    for (size_t i = 0; i < OUTR_LEN(level_names); i++) {
        if (outr_str_iis(s, level_names[i]) || (i == OUTR_WARN && outr_str_iis(s, "warning"))) {
            *out = (outr_log_level)i;
            return true;
        }
    }
    return false;
}

bool outr_log_is_on(const outr_log *log, outr_log_level level)
{
    return log && log->sink && level >= log->sink->level;
}

/* logrus leaves these bare; everything else is quoted. */
static bool is_plain(outr_str s)
{
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
              (c && strchr("-._/@^+", c))))
            return false;
    }
    return s.n > 0;
}

/* Go's %q, near enough: control characters and quotes escaped. */
static void quote(outr_buf *out, outr_str s)
{
    outr_buf_char(out, '"');
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if (c == '"' || c == '\\')
            outr_buf_printf(out, "\\%c", c);
        else if (c == '\n')
            outr_buf_z(out, "\\n");
        else if (c == '\t')
            outr_buf_z(out, "\\t");
        else if (c < 0x20 || c == 0x7f)
            outr_buf_printf(out, "\\x%02x", c);
        else
            outr_buf_char(out, (char)c);
    }
    outr_buf_char(out, '"');
}

static void pair(const outr_log_sink *sink, outr_buf *out, const char *key, outr_str value,
                 bool always_quoted)
{
    if (out->n > (sink->is_json ? 1u : 0u))
        outr_buf_char(out, sink->is_json ? ',' : ' ');
    if (sink->is_json) {
        outr_buf_printf(out, "\"%s\":", key);
        outr_json_quote(out, value);
        return;
    }
    outr_buf_printf(out, "%s=", key);
    if (always_quoted || !is_plain(value))
        quote(out, value);
    else
        outr_buf_str(out, value);
}

static void write_field(const outr_log_sink *sink, outr_buf *out, const outr_field *field)
{
    char text[40];
    int n = 0;
    switch (field->kind) {
    case OUTR_FIELD_STR:
        pair(sink, out, field->key, field->str, false);
        return;
    case OUTR_FIELD_I64:
        n = snprintf(text, sizeof text, "%lld", (long long)field->i64);
        break;
    case OUTR_FIELD_DOUBLE:
        n = snprintf(text, sizeof text, "%g", field->dbl);
        break;
    case OUTR_FIELD_BOOL:
        n = snprintf(text, sizeof text, "%s", field->i64 ? "true" : "false");
        break;
    }
    pair(sink, out, field->key, outr_str_of(text, (size_t)n), false);
}

void outr_log_write(const outr_log *log, outr_log_level level, const char *event,
                    const outr_field *fields, size_t count)
{
    const outr_log_sink *sink = log->sink;
    OUTR_AUTO(outr_buf) line = OUTR_BUF_MAX(LINE_MAX_BYTES);
    char time_text[40];
    struct timespec now;
    clock_gettime(CLOCK_REALTIME,
                  &now); /* a line's time concerns people, not behaviour: not through env */
    size_t n = outr_time_rfc3339_nano((int64_t)now.tv_sec * 1000000000 + now.tv_nsec, time_text);
    if (sink->is_json)
        outr_buf_char(&line, '{');
    pair(sink, &line, "time", outr_str_of(time_text, n), true);
    pair(sink, &line, "level", outr_str_from(level_names[level]), false);
    pair(sink, &line, "msg", outr_str_from(event), true);
    pair(sink, &line, "app_id", outr_str_from(sink->app_id), false);
    pair(sink, &line, "instance", outr_str_from(sink->instance), false);
    pair(sink, &line, "scope", outr_str_from(log->scope), false);
    pair(sink, &line, "type", OUTR_STR("log"), false);
    pair(sink, &line, "ver", outr_str_from(sink->version), false);
    for (size_t i = 0; i < count; i++)
        write_field(sink, &line, &fields[i]);
    if (line.n > LINE_MAX_BYTES - 3)
        line.n = LINE_MAX_BYTES - 3;
    outr_buf_z(&line, sink->is_json ? "}\n" : "\n");
    ssize_t written =
        write(sink->fd, line.p, line.n); /* a log that cannot be written has nowhere to say so */
    (void)written;
}
