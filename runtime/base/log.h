/* log - one line per event: a constant text, data in fields.
 *
 *     OUTR_LOG(log, WARN, "component init failed", OUTR_S("component", name), OUTR_ERR(&err));
 *
 * Text form as daprd writes it (contract/dropin.md): time="..." level=info msg="..." app_id=orders
 * instance=host scope=outrigger.runtime type=log ver=1.2.3 and then the fields; JSON has the same
 * keys. One write(2) per line, safe from every thread. Libraries return errors; only who handles
 * one
 * logs it, once. */
#ifndef OUTR_BASE_LOG_H
#define OUTR_BASE_LOG_H

#include "base/base.h"
#include "base/err.h"
#include "base/str.h"

typedef enum outr_log_level {
    OUTR_DEBUG,
    OUTR_INFO,
    OUTR_WARN,
    OUTR_ERROR,
    OUTR_FATAL
} outr_log_level;

typedef struct outr_log_sink outr_log_sink; /* shared by all loggers of the process */

typedef struct outr_log {
    outr_log_sink *sink;
    const char *scope; /* "outrigger.runtime.pubsub"; static text */
} outr_log;

typedef struct outr_log_options {
    outr_log_level level;
    bool is_json;
    int fd; /* borrowed */
    outr_str app_id;
    outr_str instance; /* host name */
    outr_str version;
} outr_log_options;

typedef enum outr_field_kind {
    OUTR_FIELD_STR,
    OUTR_FIELD_I64,
    OUTR_FIELD_DOUBLE,
    OUTR_FIELD_BOOL
} outr_field_kind;
typedef struct outr_field {
    const char *key;
    outr_field_kind kind;
    outr_str str;
    int64_t i64;
    double dbl;
} outr_field;

#define OUTR_S(k, v) ((outr_field){.key = (k), .kind = OUTR_FIELD_STR, .str = (v)})
#define OUTR_Z(k, v) ((outr_field){.key = (k), .kind = OUTR_FIELD_STR, .str = outr_str_from(v)})
#define OUTR_I(k, v) ((outr_field){.key = (k), .kind = OUTR_FIELD_I64, .i64 = (int64_t)(v)})
#define OUTR_F(k, v) ((outr_field){.key = (k), .kind = OUTR_FIELD_DOUBLE, .dbl = (v)})
#define OUTR_B(k, v) ((outr_field){.key = (k), .kind = OUTR_FIELD_BOOL, .i64 = (v)})
#define OUTR_ERR(e)                                                                                \
    ((outr_field){.key = "error", .kind = OUTR_FIELD_STR, .str = outr_str_from((e)->text)})

outr_log_sink *outr_log_sink_new(const outr_log_options *options);
void outr_log_sink_free(outr_log_sink *sink);
bool outr_log_level_parse(outr_str s, outr_log_level *out);
bool outr_log_is_on(const outr_log *log, outr_log_level level);
void outr_log_write(const outr_log *log, outr_log_level level, const char *event,
                    const outr_field *fields, size_t count);

/* log may be NULL: nothing is written. */
#define OUTR_LOG(log, level, event, ...)                                                           \
    do {                                                                                           \
        if (outr_log_is_on((log), OUTR_##level)) {                                                 \
            const outr_field fields_[] = {{0}, ##__VA_ARGS__};                                     \
            outr_log_write((log), OUTR_##level, (event), fields_ + 1, OUTR_LEN(fields_) - 1);      \
        }                                                                                          \
    } while (0)

#endif
