/* nameresolution - vtable of resolvers: app ids to instances of sidecars. */
#ifndef OUTR_COMPONENTS_NAMERESOLUTION_H
#define OUTR_COMPONENTS_NAMERESOLUTION_H

#include "base/labels.h"
#include "components/component.h"
#include "components/watchers.h"

#define OUTR_RESOLVE_MAX 1024 /* instances of one answer: callers take no more */

typedef struct outr_resolver outr_resolver;

typedef struct outr_instance { /* one sidecar */
    outr_addr addr;            /* internal port */
    outr_str id;               /* registration id, or the address */
    outr_kvs labels;           /* as it has registered them; sorted by name (base/labels.h) */
} outr_instance;

typedef struct outr_self { /* what is registered */
    outr_str app_id, namespace_, instance_id;
    outr_str host; /* address others reach us by */
    uint16_t internal_port;
    outr_kvs labels; /* others route by them */
} outr_self;

typedef struct outr_resolve {
    outr_arena *arena;
    outr_str app_id, namespace_;
    uint16_t port;            /* our own internal port, for resolvers that know only hosts */
    outr_instance *instances; /* out, on arena with all in it; empty: nobody has that id */
    size_t count;
} outr_resolve;

typedef struct outr_resolver_backend {
    outr_backend base;
    outr_code (*create)(outr_resolver **out, const outr_component_init *init, outr_err *err);
    void (*open)(outr_resolver *resolver, outr_op *op);
    void (*close)(outr_resolver *resolver, outr_op *op); /* deregisters first */
    void (*join)(outr_resolver *resolver, const outr_self *self,
                 outr_op *op); /* registers, keeps renewing */
    void (*resolve)(outr_resolver *resolver, outr_resolve *req, outr_op *op);
    /* What it asks may not answer: the mesh keeps its last answers, on disk too (mesh/kept.h). */
    bool may_be_away;
    /* How long an answer may be used without asking again. */
    uint64_t cache_ns;
} outr_resolver_backend;

struct outr_resolver {
    const outr_resolver_backend *backend;
    /* Are told when answers may be other ones, before cache_ns is over; NULL: it does not hear of
     * that. Made by create, closed with the resolver. */
    outr_watchers *watchers;
};

#endif
