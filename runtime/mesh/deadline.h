/* deadline - how much time is left for a call, over HTTP: a header of ours, where gRPC has
 * grpc-timeout, and written like it ("50m": 50 ms). What is left is told, not a time of day, since
 * clocks differ. An app may give it, gets it, and passes it on by copying it; each hop takes the
 * smaller one of it and its own. A daprd does not look at it. */
#ifndef OUTR_MESH_DEADLINE_H
#define OUTR_MESH_DEADLINE_H

#include "http/message.h"

#define OUTR_DEADLINE_HEADER "outrigger-timeout"

/* False: malformed. *deadline_ns: 0: none is said; else the time at which it is over. */
bool outr_deadline_read(uint64_t *deadline_ns, const outr_headers *headers, uint64_t now_ns);
/* Replaces what is there. deadline_ns 0: nothing is said. */
void outr_deadline_write(outr_headers *headers, uint64_t now_ns, uint64_t deadline_ns);

#endif
