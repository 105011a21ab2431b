/* load - the first reading of settings and resources, and what is wrong with them, told. */
#ifndef OUTR_LOAD_H
#define OUTR_LOAD_H

#include "base/log.h"
#include "config/snapshot.h"

/* Every mistake is a line of the log, with its place. */
outr_code outr_load_snapshot(outr_snapshot **out, const outr_settings *settings, char *const *envp,
                             const outr_log *log);
void outr_load_tell_warnings(const outr_err_list *warnings, const outr_log *log);
/* Settings that are given and have no function here. */
void outr_load_tell_unused(const outr_settings *settings, const outr_log *log);

#endif
