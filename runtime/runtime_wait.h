/* runtime_wait - `outriggerd --wait`: polls the outbound health of the sidecar on this machine. */
#ifndef OUTR_RUNTIME_WAIT_H
#define OUTR_RUNTIME_WAIT_H

#include "base/base.h"

/* Asks each 100 ms for a minute; false when it never became ready. Blocks. */
bool outr_wait_until_ready(uint16_t http_port);

#endif
