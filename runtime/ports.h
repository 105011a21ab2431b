/* ports - which addresses the sidecar listens on: bound first, before anything else starts, and
 * accepting nothing yet (contract/lifecycle.md). */
#ifndef OUTR_PORTS_H
#define OUTR_PORTS_H

#include "lane.h"

/* Binds all ports on all lanes. Waits up to 5 s for a port that somebody still holds. Errors name
 * the port: "HTTP API port: port 3500 on 127.0.0.1: address already in use". */
outr_code outr_ports_bind(outr_lane *lanes, unsigned lane_count, const outr_settings *settings,
                          bool has_metrics, const outr_log *log, outr_err *err);

/* Who we are to others: the host's name, and --host-ip or an address of the host. */
void outr_ports_find_host(const outr_settings *settings, char *name, size_t name_size,
                          char address[OUTR_ADDR_TEXT_MAX]);

#endif
