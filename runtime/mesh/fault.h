/* fault - does a call get the fault that a route asks for? Time and lot come in. */
#ifndef OUTR_MESH_FAULT_H
#define OUTR_MESH_FAULT_H

#include "base/rand.h"
#include "config/traffic.h"

typedef struct outr_fault {
    uint64_t delay_ns; /* 0: none */
    bool aborts;       /* after the delay: with abort_status, abort_grpc of the spec */
} outr_fault;

/* Nothing when it is off or has expired. Delay and abort are drawn apart. */
outr_fault outr_fault_draw(const outr_fault_spec *spec, int64_t now_unix_ns, outr_rand *rand);

#endif
