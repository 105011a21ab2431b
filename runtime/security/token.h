/* token - the API's or the app's token, from a file that may change while we run.
 *
 * The file is watched (security/watched.h) on the main loop; every other loop has a view, which
 * costs one atomic load when nothing has changed. A file that cannot be read, is empty or holds
 * what no header can carry changes nothing: an API once closed is not opened by an accident. */
#ifndef OUTR_SECURITY_TOKEN_H
#define OUTR_SECURITY_TOKEN_H

#include <pthread.h>

#include "base/buf.h"
#include "security/watched.h"

#define OUTR_TOKEN_MAX_BYTES ((size_t)4096)

typedef struct outr_token {
    /* Held to copy the text: it is replaced by another thread than those that read it. */
    pthread_mutex_t lock;
    outr_buf text;
    unsigned generation; /* atomic; 0: there is no file */
    /* machinery, main loop */
    const char *variable; /* that names the file; for texts */
    outr_watched watched;
    bool was_bad;
} outr_token;

/* path: "" or NULL: there is no file, views give what stands in settings. variable: static text.
 * Spaces and line ends around the token do not count. */
outr_code outr_token_open(outr_token *token, const char *path, const char *variable, outr_err *err);
void outr_token_watch(outr_token *token, outr_loop *loop); /* the main one */
void outr_token_stop(outr_token *token);                   /* on it; also one never watched */
void outr_token_close(outr_token *token); /* no view is used any more; also one never opened */

/* One loop's. Zero-initialised with its token, which may be NULL. */
typedef struct outr_token_view {
    outr_token *token;
    unsigned generation;
    outr_buf text;
} outr_token_view;
/* The token as it is now, borrowed until the next call; otherwise: what is taken when there is no
 * file. */
outr_str outr_token_get(outr_token_view *view, outr_str otherwise);
void outr_token_view_done(outr_token_view *view);

#endif
