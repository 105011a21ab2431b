/* checks - asks ejected instances whether they are well: by a GET of the app's, or, where no path
 * is given and it could not be reached, whether its sidecar answers. A good answer lets the next
 * call probe it at once; nothing but that call revives it. Of a callee one loop does it, and only
 * while instances are ejected: nothing wakes up for an app that is well. */
#ifndef OUTR_MESH_CHECKS_H
#define OUTR_MESH_CHECKS_H

#include "mesh/peers.h"

/* Instances of it may be ejected, and its rules may want checks: begins, unless some loop has. */
void outr__check_begin(outr__peers *peers, outr__known *known);
void outr__check_end(outr__peers *peers, outr__known *known); /* nothing when there is none */

#endif
