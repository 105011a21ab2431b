/* discover - sockets of pluggable components: files in one folder, named like the type they serve.
 *
 * "state.foo" is looked for in foo.sock, foo.anything or foo. Nothing is opened here, and nothing
 * that no component asks for: a socket in the folder costs nothing until a resource names it. */
#ifndef OUTR_COMPONENTS_PLUGGABLE_DISCOVER_H
#define OUTR_COMPONENTS_PLUGGABLE_DISCOVER_H

#include "components/component.h"

#define OUTR__PLUG_SOCKETS 4

typedef struct outr__plug_sockets {
    outr_addr addrs[OUTR__PLUG_SOCKETS]; /* by name */
    size_t count;
} outr__plug_sockets;

/* NOT_FOUND: no folder or no such socket in it, which may change. */
outr_code outr__plug_find(outr__plug_sockets *out, outr_str folder, outr_str name, outr_err *err);

#endif
