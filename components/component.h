/* component - what every backend is given, and what it exports: one const struct per backend.
 *
 * A backend calls no one above it. Its functions may be called from any loop's thread unless its
 * vtable says otherwise; each op is finished on the op's own loop. */
#ifndef OUTR_COMPONENTS_COMPONENT_H
#define OUTR_COMPONENTS_COMPONENT_H

#include "base/bind.h"
#include "base/log.h"
#include "base/map.h"
#include "loop/op.h"

typedef struct outr_component_init {
    outr_str name, type, version; /* of the component; live as long as it */
    outr_str app_id, namespace_;
    outr_str run_dir;     /* per-user runtime directory, exists, 0700 */
    outr_str sockets_dir; /* where pluggable components are; lives as long as the process */
    outr_kvs metadata;    /* secrets and variables already read; lives as long as the component */
    outr_loop *loop;      /* main loop: timers, watches */
    const outr_log *log;
} outr_component_init;

/* Common head of every backend's vtable. */
typedef struct outr_backend {
    const char *type;          /* "state.sqlite" */
    const char *versions;      /* "v1" or "v1|v2" */
    const outr_bind_row *rows; /* metadata, for documentation and warnings about unknown names */
    size_t row_count;
} outr_backend;

#endif
