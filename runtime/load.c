#include "load.h"

static void tell(const outr_log *log, bool is_fatal, const outr_err_list *list)
{
    for (size_t i = 0; i < list->count; i++) {
        if (is_fatal)
            OUTR_LOG(log, FATAL, list->items[i].text);
        else
            OUTR_LOG(log, WARN, list->items[i].text);
    }
    if (list->dropped > 0)
        OUTR_LOG(log, WARN, "more mistakes follow", OUTR_I("count", list->dropped));
}

outr_code outr_load_snapshot(outr_snapshot **out, const outr_settings *settings, char *const *envp,
                             const outr_log *log)
{
    OUTR_AUTO(outr_err_list) errors = {0};
    OUTR_AUTO(outr_err_list) warnings = {0};
    outr_code rc = outr_snapshot_load(out, settings, envp, &errors, &warnings);
    tell(log, false, &warnings);
    tell(log, true, &errors);
    return rc;
}

void outr_load_tell_warnings(const outr_err_list *warnings, const outr_log *log)
{
    tell(log, false, warnings);
}

void outr_load_tell_unused(const outr_settings *settings, const outr_log *log)
{
    for (size_t i = 0; i < settings->unused_count; i++) {
        if (settings->unused[i].is_default)
            OUTR_LOG(log, DEBUG, "setting has no function yet",
                     OUTR_S("setting", settings->unused[i].text));
        else
            OUTR_LOG(log, WARN, "setting has no function yet",
                     OUTR_S("setting", settings->unused[i].text));
    }
}
