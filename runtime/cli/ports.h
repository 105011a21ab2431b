/* ports - free TCP ports from the kernel, held until the sidecar has taken them.
 *
 * A held port is bound but does not listen and allows address reuse: the sidecar can bind it, while
 * neither another `outrigger run` nor the kernel's choice for an outgoing connection gets it. */
#ifndef OUTR_CLI_PORTS_H
#define OUTR_CLI_PORTS_H

#include "base/err.h"

#define OUTR_PORTS_MAX 8

typedef struct outr_ports {
    int fds[OUTR_PORTS_MAX];
    size_t count;
} outr_ports;

outr_code outr_ports_take(outr_ports *ports, uint16_t *port, outr_err *err);
void outr_ports_release(outr_ports *ports); /* twice is fine */

#endif
