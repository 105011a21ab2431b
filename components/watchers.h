/* watchers - who is told that a registry's answers may be other ones now.
 *
 * A resolver that can watch its registry has such a list, and says so from whichever thread hears
 * of it. Each watcher is told on its own loop, soon; what is said several times before is told
 * once. The list lives as long as anybody holds it: a watch may end after its resolver. */
#ifndef OUTR_COMPONENTS_WATCHERS_H
#define OUTR_COMPONENTS_WATCHERS_H

#include "loop/loop.h"

typedef struct outr_watchers outr_watchers;
typedef struct outr_watch outr_watch;

outr_watchers *outr_watchers_new(void);
/* The resolver's word that nothing comes any more: when this returns nobody is being told, and
 * nobody will be. NULL is fine. */
void outr_watchers_close(outr_watchers *watchers);
/* From any thread. An empty app_id: any may have changed. */
void outr_watchers_tell(outr_watchers *watchers, outr_str app_id, outr_str namespace_);

/* changed is called on loop, one at a time among all watchers of a list, and never once the list is
 * closed: it may ask the resolver. */
typedef void outr_changed_fn(void *ctx, outr_str app_id, outr_str namespace_);
outr_watch *outr_watch_start(outr_watchers *watchers, outr_loop *loop, outr_changed_fn *changed,
                             void *ctx);
/* To be told that once more, soon. On loop. */
void outr_watch_again(outr_watch *watch, outr_str app_id, outr_str namespace_);
void outr_watch_end(outr_watch *watch); /* NULL is fine; not from within changed */

#endif
