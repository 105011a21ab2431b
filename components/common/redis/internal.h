/* internal - how the files of the Redis client work together.
 *
 * call.c owns calls: cuts them into parts (what goes to one server in one piece), gives parts to
 * servers, servers give them to connections, and whatever happens to a part is decided there.
 * conn.c owns a connection: making it, writing parts, reading replies into their calls. cluster.c
 * and sentinel.c answer "which server". line.c and listener.c have connections of their own. All on
 * one loop, but for redis.c, which has what the loops share and nobody changes. */
#ifndef OUTR_COMPONENTS_COMMON_REDIS_INTERNAL_H
#define OUTR_COMPONENTS_COMMON_REDIS_INTERNAL_H

#include <read.h>

#include "base/chunk.h"
#include "components/common/redis/redis.h"
#include "net/stream.h"
#include "tls/tls.h"

#define OUTR__REDIS_LOOPS_MAX   64 /* OUTRIGGER_LOOPS allows no more */
#define OUTR__REDIS_REPLY_MAX   (64 * OUTR_MIB) /* one text in a reply */
#define OUTR__REDIS_FLIGHT_MAX  65536           /* unanswered commands of a connection */
#define OUTR__REDIS_PENDING_MAX 65536           /* unfinished calls of a loop */
#define OUTR__REDIS_SLOTS       16384           /* cluster-spec: hash slots */

typedef struct outr__redis_site outr__redis_site;
typedef struct outr__redis_conn outr__redis_conn;
typedef struct outr__redis_server outr__redis_server;

/* Where a server is. port 0: host is the path of a Unix socket. */
typedef struct outr__redis_where {
    outr_str host;
    uint16_t port;
} outr__redis_where;
#define OUTR__REDIS_WHERE_MAX 300
/* "host:port", for errors. */
const char *outr__redis_where_text(const outr__redis_where *where, char out[OUTR__REDIS_WHERE_MAX]);

struct outr_redis {
    outr_redis_settings s; /* texts live as long as the component */
    outr_arena *arena;     /* what was made of them; only read once it is new */
    outr_str name;
    outr_loop *main_loop;
    const outr_log *log;
    outr__redis_where *hosts;
    size_t host_count;
    bool is_cluster, is_sentinel;
    outr_tls *tls; /* NULL: clear text */
    outr__redis_site *sites[OUTR__REDIS_LOOPS_MAX]; /* each is its loop's alone until the end */
    size_t open_sites;
    outr_op *closing;
    uint8_t is_up; /* atomic */
};

/* ---- connections ----------------------------------------------------------------------------- */

typedef struct outr__redis_owner {
    void (*on_up)(outr__redis_conn *c);
    /* It is closed. Its parts have left it and are in `parts`, in order: each is the owner's.
     * err->code is 0 when it had only been idle. */
    void (*on_down)(outr__redis_conn *c, outr_list *parts, const outr_err *err);
    /* An error was answered to command `index` of p. True: the owner has made another part of the
     * call that asks again (of an atomic call: everything). NULL: the owner has no parts. */
    bool (*on_refused)(outr__redis_conn *c, outr__redis_part *p, uint32_t index,
                       const outr_redis_reply *reply);
    /* A reply that nobody asked for. NULL: breaks the connection. */
    void (*on_push)(outr__redis_conn *c, const outr_redis_reply *reply);
} outr__redis_owner;

/* What a reply is to be. */
typedef struct outr__redis_slot {
    outr__redis_part *part; /* NULL: it has left */
    uint32_t index;
    enum {
        OUTR__REDIS_GREETING,
        OUTR__REDIS_ASIDE, /* +OK of MULTI and ASKING */
        OUTR__REDIS_COMMAND,
        OUTR__REDIS_QUEUED,
        OUTR__REDIS_EXEC,
    } kind;
} outr__redis_slot;

struct outr__redis_conn {
    outr__redis_site *site;
    const outr__redis_owner *owner;
    void *ctx;      /* the owner's */
    outr_link link; /* the owner's */
    outr_link of_site;
    outr__redis_where where;
    char host[OUTR__REDIS_WHERE_MAX];
    bool is_sentinels, wants_master; /* another login; another way to find it */
    enum { OUTR__REDIS_DIALING, OUTR__REDIS_GREETED, OUTR__REDIS_UP, OUTR__REDIS_DOWN } state;
    /* dialing */
    outr_op op;
    uint64_t dial_by_ns;
    struct outr__redis_master *master;
    outr_lookup lookup;
    size_t at;
    outr_connect connect;
    outr_tls_handshake handshake;
    uint32_t greetings; /* replies still to come */
    /* up */
    outr_stream *stream;
    redisReader *reader;
    outr_list sent, unsent; /* parts; the first unsent one may be written in part */
    size_t unwritten;
    outr__redis_slot *ring;
    uint64_t head, tail; /* slots come and go in order; ring[n & (ring_size - 1)] */
    uint32_t ring_size;
    outr_bufq out;
    outr_deferred flusher;
    outr_timer watchdog;
    size_t pending_bytes; /* of the stream, when it was looked at last */
    uint64_t last_ns; /* something came, or was asked while nothing was out */
    /* the reply being read */
    outr_redis_reply *into;
    outr_arena *into_arena; /* NULL: nobody wants it */
    bool has_begun, is_over_cap;
    outr_arena *arena; /* of replies that are no call's */
    outr_redis_reply own;
};

/* Begins to connect; on_up or on_down follows, never from within. where is copied. */
outr__redis_conn *outr__redis_conn_new(outr__redis_site *site, const outr__redis_where *where,
                                       bool is_sentinels, bool wants_master,
                                       const outr__redis_owner *owner, void *ctx);
/* Takes the part; it is written at the end of this turn, or when the connection is up. */
void outr__redis_conn_give(outr__redis_conn *c, outr__redis_part *p);
/* Takes it out again; what was sent of it is answered to nobody. */
void outr__redis_conn_drop(outr__redis_part *p);
/* Commands not answered or not written yet. */
size_t outr__redis_conn_load(const outr__redis_conn *c);
/* Writes a command whose answers are pushes. */
void outr__redis_conn_push(outr__redis_conn *c, const outr_redis_command *command);
/* err: NULL when it is the owner who has enough. on_down is called only with err. The connection
 * frees itself; parts that are still in it are an error of the caller's. */
void outr__redis_conn_close(outr__redis_conn *c, const outr_err *err);

/* ---- replies, commands ----------------------------------------------------------------------- */

redisReader *outr__redis_reader_new(outr__redis_conn *c);
void outr__redis_write(outr_bufq *out, const outr_str *args, size_t count);

/* ---- sites: what one loop has ---------------------------------------------------------------- */

struct outr__redis_server {
    outr__redis_site *site;
    outr_link link;
    outr__redis_where where;
    outr_list waiting; /* parts without a connection */
    outr_list conns;
    size_t conn_count;
    outr__redis_conn *dialing;
    uint32_t failures; /* to connect, since it last worked */
    outr_timer retry;
    bool is_master_of_sentinel;
    char host[];
};

struct outr__redis_site {
    outr_redis *redis;
    outr_loop *loop;
    outr_list spares; /* lines that were given back */
    size_t spare_count;
    outr_list servers;
    size_t pending;   /* calls */
    outr_list paused; /* parts, each until its due_ns */
    outr_timer pauser;
    outr_list conns;   /* all there are, also those of lines and listeners, until they are freed */
    bool is_closing;
    outr_message message;
    size_t sentinel_at;
    /* of a cluster */
    outr__redis_server **slots; /* NULL: not known yet */
    outr_list unrouted;         /* parts that wait for them */
    struct outr__redis_map *map; /* being asked for */
    uint64_t map_ns;             /* when it was asked for last */
};

outr__redis_site *outr__redis_site_of(outr_redis *redis, outr_loop *loop);
void outr__redis_site_stop(outr__redis_site *site); /* closes all connections */
/* NULL: there are too many. */
outr__redis_server *outr__redis_server_of(outr__redis_site *site, const outr__redis_where *where);
/* Sends the part on its way (again). */
void outr__redis_route(outr__redis_part *p);
void outr__redis_give(outr__redis_server *server, outr__redis_part *p);
/* Waits so long, then routes it. */
void outr__redis_postpone(outr__redis_part *p, uint64_t pause_ns);
/* Between attempts: from redisMinRetryInterval, doubling up to redisMaxRetryInterval, jittered. */
uint64_t outr__redis_backoff(outr__redis_site *site, uint32_t failures);
/* False: it has failed already. */
bool outr__redis_call_begin(outr_redis_call *call, outr__redis_site *site, outr_redis_line *line,
                            outr_op *op);
/* All of it was answered, and it leaves its connection. */
void outr__redis_part_done(outr__redis_part *p);
/* err NULL: success. The other parts are dropped. */
void outr__redis_call_end(outr_redis_call *call, const outr_err *err);
void outr__redis_call_end_soon(outr_redis_call *call, const outr_err *err);
/* What the log and outrigger_redis_away_total tell of it. */
void outr__redis_set_up(outr__redis_site *site, bool is_up, const outr_err *err);
/* The site goes when its last connection has gone. */
void outr__redis_site_check(outr__redis_site *site);

/* ---- cluster --------------------------------------------------------------------------------- */

/* CRC16 of the key, or of what stands in its first {} (cluster-spec "hash tags"). */
uint16_t outr__redis_slot_of(outr_str key);
/* Asks for the map of slots, unless that is under way or was done just now. */
void outr__redis_map_refresh(outr__redis_site *site);
void outr__redis_map_stop(outr__redis_site *site);
/* "MOVED 3999 127.0.0.1:6381": the place after the slot. Empty host: where the answer came from. */
bool outr__redis_moved_to(outr_str text, const outr__redis_where *from, outr__redis_where *out);
bool outr__redis_where_parse(outr_str text, uint16_t port, outr__redis_where *out);

/* ---- sentinel -------------------------------------------------------------------------------- */

/* Asks the Sentinels one after the other who the master is; done on site's loop. */
typedef struct outr__redis_master {
    outr__redis_site *site;
    outr__redis_where where; /* out, on arena */
    outr_arena *arena;
    size_t asked;
    outr_redis_line *line;
    outr_redis_call call;
    outr_redis_command command;
    outr_str args[3];
    outr_op inner;
    outr_op *op;
    outr_err err;
} outr__redis_master;
outr__redis_master *outr__redis_master_start(outr__redis_site *site, outr_op *op);
void outr__redis_master_free(outr__redis_master *master); /* after op is done; NULL is fine */

/* A line to one of the Sentinels; where outlives it. */
outr_redis_line *outr__redis_line_to(outr__redis_site *site, const outr__redis_where *where);
/* A part of a call of the line, with its server (NULL: the line knows). */
void outr__redis_line_give(outr_redis_line *line, outr__redis_part *p,
                           const outr__redis_server *server);
void outr__redis_spares_close(outr__redis_site *site);
void outr__redis_line_cancel(outr_redis_line *line, outr_redis_call *call);

#endif
