/* env_real - the real clock, entropy, sockets and resolver (libuv, getrandom, getaddrinfo on
 * libuv's
 * pool, which is kept to one thread and started by the first look-up). */
#ifndef OUTR_NET_ENV_REAL_H
#define OUTR_NET_ENV_REAL_H

#include "loop/env.h"

outr_env *outr_env_real(void); /* one for the process */
/* The address this machine is reached by: source address of a route to the outside, else the first
 * interface address, else loopback (Dapr: DAPR_HOST_IP is checked by the caller first). */
outr_code outr_host_address(outr_addr *out, outr_err *err);

#endif
