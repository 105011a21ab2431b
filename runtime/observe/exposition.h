/* exposition - the metrics port: every path answers the Prometheus text of this process. */
#ifndef OUTR_OBSERVE_EXPOSITION_H
#define OUTR_OBSERVE_EXPOSITION_H

#include "base/metric.h"
#include "http/server.h"

extern const outr_http_handler outr_exposition_handler; /* ctx: outr_metrics */

#endif
