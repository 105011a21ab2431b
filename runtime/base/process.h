/* process - what Prometheus' process collector shows, read from /proc/self. */
#ifndef OUTR_BASE_PROCESS_H
#define OUTR_BASE_PROCESS_H

#include "base/buf.h"

/* process_cpu_seconds_total, process_resident_memory_bytes, process_open_fds and the like. */
void outr_metrics_write_process(outr_buf *out);

#endif
