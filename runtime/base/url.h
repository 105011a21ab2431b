/* url - taking apart absolute URLs and request targets; cleaning paths. RFC 3986, Go's path.Clean.
 */
#ifndef OUTR_BASE_URL_H
#define OUTR_BASE_URL_H

#include "base/arena.h"
#include "base/err.h"
#include "base/str.h"

typedef struct outr_url {
    outr_str scheme; /* lower case as given */
    outr_str userinfo;
    outr_str host;  /* without the brackets of IPv6 */
    uint16_t port;  /* 0: none given */
    outr_str path;  /* as given, still encoded; may be empty */
    outr_str query; /* without "?" */
} outr_url;

outr_code outr_url_parse(outr_url *out, outr_str text, outr_err *err); /* parts borrow from text */
/* "host:port", "[v6]:port", ":port", "host", a bare v6; port 0 when none. */
outr_code outr_hostport_parse(outr_str text, outr_str *host, uint16_t *port, outr_err *err);
/* The other way, as Host says it: a v6 in brackets; port 0: none. Borrowed when it is the host. */
outr_str outr_hostport_join(outr_arena *arena, outr_str host, uint16_t port) OUTR_MUST_USE;
/* Go's path.Clean for a rooted path: "//", ".", ".." resolved, a trailing slash kept. Copies only
 * when something changes. */
outr_str outr_path_clean(outr_arena *arena, outr_str path);
/* Query iteration: takes the next pair off *query; still encoded. */
bool outr_query_next(outr_str *query, outr_str *key, outr_str *value);

#endif
