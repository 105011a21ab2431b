/* traces - the exporter of spans, as spec.tracing and the environment want it. Main loop. */
#ifndef OUTR_TRACES_H
#define OUTR_TRACES_H

#include "config/snapshot.h"
#include "observe/export.h"

/* *out stays NULL when spans go nowhere. */
outr_code outr_traces_open(outr_exporter **out, outr_loop *loop, const outr_settings *settings,
                           const outr_configuration *configuration, const outr_log *log,
                           outr_err *err);
/* What there is goes out. A collector that is not there does not hold up the end, which is at
 * end_ns (0: no time is set): what is left of it is not its. */
void outr_traces_close(outr_exporter *exporter, outr_loop *loop, uint64_t end_ns, outr_op *op);

#endif
