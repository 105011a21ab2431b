/* registry - the one place that names backends. */
#ifndef OUTR_COMPONENTS_REGISTRY_H
#define OUTR_COMPONENTS_REGISTRY_H

#include "components/bindings.h"
#include "components/configuration.h"
#include "components/lock.h"
#include "components/middleware.h"
#include "components/nameresolution.h"
#include "components/pubsub.h"
#include "components/secretstores.h"
#include "components/state.h"

/* By full type ("state.sqlite") and version ("v1"); NULL: no such backend. Missing functions are
 * already filled with the generic ones. */
const outr_state_backend *outr_registry_state(outr_str type, outr_str version);
const outr_pubsub_backend *outr_registry_pubsub(outr_str type, outr_str version);
const outr_secret_backend *outr_registry_secret(outr_str type, outr_str version);
const outr_binding_backend *outr_registry_binding(outr_str type, outr_str version);
const outr_middleware_backend *outr_registry_middleware(outr_str type, outr_str version);
const outr_resolver_backend *outr_registry_resolver(outr_str type, outr_str version);

/* What a component of a type is made with: at most one is set. A type that is none of ours is a
 * pluggable component's when sockets_dir says where such are (NONE: nowhere), whether its socket is
 * there yet or not. Some of ours are modules, which are loaded here. */
typedef struct outr_backends {
    const outr_state_backend *state;
    const outr_pubsub_backend *pubsub;
    const outr_secret_backend *secrets;
    const outr_binding_backend *binding;
    const outr_middleware_backend *middleware;
    const outr_lock_backend *lock;
    const outr_configuration_backend *configuration;
} outr_backends;
/* FAILED_PRECONDITION: it is a module, and that cannot be loaded. */
outr_code outr_registry_find(outr_backends *out, outr_str type, outr_str version,
                             outr_str sockets_dir, outr_err *err);

#endif
