/* module - back ends that need a library of their own, in files that are loaded when a component
 * of their type is configured.
 *
 * Module "pubsub.redis" is the file pubsub-redis.so in ../lib/outrigger beside the binary, so an
 * installed tree may be moved. It exports its vtable, as outr_pubsub_redis, and outr_module, by
 * which a file of another build is refused. It stays loaded until the process ends. Without such a
 * component nothing of it is opened or mapped.
 *
 * A module calls the runtime's functions by their names; the binary exports those, and only those,
 * that components/module.syms lists (the linker's dynamic list). That is why the runtime is not
 * compiled with hidden visibility: in a program it would make no difference, but such symbols could
 * not be listed. What a module has itself is hidden, but for OUTR_MODULE. */
#ifndef OUTR_COMPONENTS_MODULE_H
#define OUTR_COMPONENTS_MODULE_H

#include "components/component.h"

#define OUTR_MODULE __attribute__((visibility("default")))

/* What both sides must agree about. */
typedef struct outr_module_mark {
    char version[32];
    size_t sizes[6];
} outr_module_mark;

#define OUTR_MODULE_MARK                                                                           \
    {                                                                                              \
        OUTR_VERSION,                                                                              \
        {                                                                                          \
            sizeof(outr_op), sizeof(outr_err), sizeof(outr_timer), sizeof(outr_component_init),    \
                sizeof(outr_backend), sizeof(outr_bind_row)                                        \
        }                                                                                          \
    }

/* A type that is a module of ours. */
typedef struct outr_module_type {
    const char *type;    /* "pubsub.redis" */
    const char *package; /* of Debian, that brings the library it needs */
} outr_module_type;

/* The module's vtable, which begins with its outr_backend. FAILED_PRECONDITION: the file or its
 * library is missing, or it is of another build. Blocks for as long as it takes to map a file. */
outr_code outr_module_load(const outr_backend **out, const outr_module_type *type, outr_err *err);

#endif
