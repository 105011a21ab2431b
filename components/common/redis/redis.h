/* redis - the client that all Redis components are built on.
 *
 * One outr_redis for a component. Calls come from any loop; each loop has connections of its own,
 * made by its first call, on which the commands of all its requests travel as one pipeline: what
 * one turn of the loop asks for goes out in one write, so a command costs a share of a system call,
 * and no thread waits for another. Commands are written by us, replies are read by hiredis' reader
 * into a tree on the caller's arena. TCP, TLS and Unix sockets, ACL users, databases, Sentinel and
 * Cluster (MOVED, ASK) are the client's matter; a caller sees none of them.
 *
 * Failure. A call fails when no connection could be made, broke, or stayed silent for readTimeout
 * while something was asked: UNAVAILABLE, naming the server. What was not sent yet, and what
 * `is_repeatable`, is tried redisMaxRetries times more, with growing pauses and jitter; the rest
 * fails with a text that says that it may have happened. A connection is made when it is asked for
 * and never given up for ever. UNAUTHENTICATED: the server refused user or password.
 * RESOURCE_EXHAUSTED: too many calls wait, or a reply is over the limit. An error that the server
 * answers is not a failure of the call but a reply (outr_redis_check makes one of it).
 *
 * Every module that uses this has its own copy of the code; nothing is shared between components.
 * Source: contract/components.csv, redis.io/docs/reference/protocol-spec (RESP2), cluster-spec,
 * sentinel-clients. */
#ifndef OUTR_COMPONENTS_COMMON_REDIS_REDIS_H
#define OUTR_COMPONENTS_COMMON_REDIS_REDIS_H

#include "components/component.h"

typedef struct outr_redis outr_redis;

/* ---- settings -------------------------------------------------------------------------------- */

/* The metadata that all Redis components have, as a part of a component's own configuration:
 *
 *     typedef struct config { outr_redis_settings redis; int64_t ttl; } config;
 *     static const outr_bind_row rows[] = {
 *         OUTR_REDIS_ROWS(config, redis, "2s"),
 *         {"ttlInSeconds", ...},
 *     };
 *
 * Strings are borrowed from the metadata, which lives as long as the component. Durations that are
 * plain numbers count milliseconds, as in daprd. poolTimeout, maxConnAge, minIdleConns and
 * idleCheckFrequency are read and have no effect: there is no pool to wait for. */
typedef struct outr_redis_settings {
    outr_str host; /* host:port, also a list; unix:/path or /path: a Unix socket */
    int64_t port;  /* of those of host that name none */
    outr_str username, password, sentinel_username, sentinel_password;
    int64_t db;
    int type; /* 0: node, 1: cluster, 2: sentinel (lock.redis has it; the same as failover) */
    bool failover;
    outr_str sentinel_master;
    bool enable_tls, skip_verify;
    outr_str client_cert, client_key; /* PEM text or path */
    int64_t max_retries;              /* -1: none */
    int64_t min_retry_ns, max_retry_ns;
    int64_t dial_timeout_ns, read_timeout_ns, write_timeout_ns; /* 0, negative: the default */
    int64_t pool_size;       /* connections a loop and a server may have at once, at most 4 */
    int64_t idle_timeout_ns; /* an unused connection is closed after it; negative: never */
    int64_t pool_timeout_ns, max_conn_age_ns, min_idle, idle_check_ns;
    bool entra; /* useEntraID: refused */
} outr_redis_settings;

extern const char *const outr_redis_types[]; /* node, cluster, sentinel */

#define OUTR_REDIS_ROW(type, field, name, alias, kind, flags, member, min, max, otherwise,         \
                       choices, unit, text)                                                        \
    {name,                                                                                         \
     alias,                                                                                        \
     kind,                                                                                         \
     flags,                                                                                        \
     offsetof(type, field) + offsetof(outr_redis_settings, member),                                \
     min,                                                                                          \
     max,                                                                                          \
     otherwise,                                                                                    \
     choices,                                                                                      \
     unit,                                                                                         \
     text}
#define OUTR_REDIS_TEXT_(type, field, name, flags, member, text)                                   \
    OUTR_REDIS_ROW(type, field, name, NULL, OUTR_BIND_STR, flags, member, 0, 0, NULL, NULL, 0, text)
#define OUTR_REDIS_BOOL_(type, field, name, member, text)                                          \
    OUTR_REDIS_ROW(type, field, name, NULL, OUTR_BIND_BOOL, 0, member, 0, 0, NULL, NULL, 0, text)
#define OUTR_REDIS_INT_(type, field, name, alias, member, min, max, otherwise, text)               \
    OUTR_REDIS_ROW(type, field, name, alias, OUTR_BIND_I64, 0, member, min, max, otherwise, NULL,  \
                   0, text)
#define OUTR_REDIS_TIME_(type, field, name, alias, member, otherwise, text)                        \
    OUTR_REDIS_ROW(type, field, name, alias, OUTR_BIND_DURATION, 0, member, 0, 0, otherwise, NULL, \
                   1000000, text)
#define OUTR_REDIS_ROWS(t, f, longest_pause)                                                       \
    OUTR_REDIS_TEXT_(t, f, "redisHost", OUTR_BIND_REQUIRED, host, "host:port, or several"),        \
        OUTR_REDIS_INT_(t, f, "redisPort", NULL, port, 1, 65535, "6379",                           \
                        "port when redisHost has none"),                                           \
        OUTR_REDIS_TEXT_(t, f, "redisUsername", 0, username, "ACL user name"),                     \
        OUTR_REDIS_TEXT_(t, f, "redisPassword", OUTR_BIND_SECRET, password, "password"),           \
        OUTR_REDIS_TEXT_(t, f, "sentinelUsername", 0, sentinel_username, "Sentinel user"),         \
        OUTR_REDIS_TEXT_(t, f, "sentinelPassword", OUTR_BIND_SECRET, sentinel_password,            \
                         "Sentinel password"),                                                     \
        OUTR_REDIS_INT_(t, f, "redisDB", NULL, db, 0, INT32_MAX, "0", "database index"),           \
        OUTR_REDIS_ROW(t, f, "redisType", NULL, OUTR_BIND_ENUM, 0, type, 0, 0, "node",             \
                       outr_redis_types, 0, "node or cluster"),                                    \
        OUTR_REDIS_BOOL_(t, f, "failover", failover, "use Redis Sentinel failover"),               \
        OUTR_REDIS_TEXT_(t, f, "sentinelMasterName", 0, sentinel_master,                           \
                         "name of the Sentinel master"),                                           \
        OUTR_REDIS_BOOL_(t, f, "enableTLS", enable_tls, "use TLS"),                                \
        OUTR_REDIS_BOOL_(t, f, "insecureSkipTLSVerify", skip_verify,                               \
                         "do not verify the server certificate"),                                  \
        OUTR_REDIS_TEXT_(t, f, "clientCert", 0, client_cert,                                       \
                         "client certificate: PEM text or path"),                                  \
        OUTR_REDIS_TEXT_(t, f, "clientKey", OUTR_BIND_SECRET, client_key,                          \
                         "client private key: PEM text or path"),                                  \
        OUTR_REDIS_INT_(t, f, "redisMaxRetries", "maxRetries", max_retries, -1, 1000, "3",         \
                        "attempts after the first; -1: none"),                                     \
        OUTR_REDIS_TIME_(t, f, "redisMinRetryInterval", NULL, min_retry_ns, "8ms",                 \
                         "shortest delay between retries"),                                        \
        OUTR_REDIS_TIME_(t, f, "redisMaxRetryInterval", "maxRetryBackoff", max_retry_ns,           \
                         longest_pause, "longest delay between retries"),                          \
        OUTR_REDIS_TIME_(t, f, "dialTimeout", NULL, dial_timeout_ns, "5s",                         \
                         "time limit for connecting"),                                             \
        OUTR_REDIS_TIME_(t, f, "readTimeout", NULL, read_timeout_ns, "3s",                         \
                         "how long a server may be silent, and take nothing, when asked"),         \
        OUTR_REDIS_TIME_(t, f, "writeTimeout", NULL, write_timeout_ns, NULL,                       \
                         "time limit for writes; default: readTimeout"),                           \
        OUTR_REDIS_INT_(t, f, "poolSize", NULL, pool_size, 0, 100000, "0",                         \
                        "connections of a loop; it needs one, or a few"),                          \
        OUTR_REDIS_TIME_(t, f, "poolTimeout", NULL, pool_timeout_ns, NULL, "no effect"),           \
        OUTR_REDIS_TIME_(t, f, "maxConnAge", NULL, max_conn_age_ns, NULL, "no effect"),            \
        OUTR_REDIS_INT_(t, f, "minIdleConns", NULL, min_idle, 0, 0, NULL, "no effect"),            \
        OUTR_REDIS_TIME_(t, f, "idleCheckFrequency", NULL, idle_check_ns, NULL, "no effect"),      \
        OUTR_REDIS_TIME_(t, f, "idleTimeout", NULL, idle_timeout_ns, "5m",                         \
                         "when an unused connection is closed; -1: never"),                        \
        OUTR_REDIS_BOOL_(t, f, "useEntraID", entra, "cloud login: refused")

/* ---- life ------------------------------------------------------------------------------------ */

/* Checks settings; no I/O but the files of clientCert and clientKey. init is borrowed for the call,
 * what it points to lives as long as the component. */
outr_code outr_redis_new(outr_redis **out, const outr_redis_settings *settings,
                         const outr_component_init *init, outr_err *err);
/* Main loop. Connects and asks PING; tries again until it succeeds or op ends (initTimeout). A
 * refused login or a wrong database fails at once. */
void outr_redis_open(outr_redis *redis, outr_op *op);
/* Main loop; after the last call, line and listener is done. Also for one that was never opened.
 * Frees redis. */
void outr_redis_close(outr_redis *redis, outr_op *op);
bool outr_redis_is_cluster(const outr_redis *redis);

/* ---- calls ----------------------------------------------------------------------------------- */

/* A reply, as it lies on the caller's arena. */
typedef struct outr_redis_reply {
    enum {
        OUTR_REDIS_NIL, /* also of an array */
        OUTR_REDIS_STATUS,
        OUTR_REDIS_ERROR,
        OUTR_REDIS_INTEGER,
        OUTR_REDIS_STRING,
        OUTR_REDIS_ARRAY,
    } kind;
    outr_str text; /* STATUS, ERROR, STRING; a NUL follows it */
    int64_t integer;
    struct outr_redis_reply *items; /* ARRAY */
    size_t count;
} outr_redis_reply;

typedef struct outr_redis_command {
    const outr_str *args; /* args[0] is the command's name */
    size_t count;
    outr_str key; /* decides the server of a cluster; NONE: any of them */
} outr_redis_command;

/* Machinery: commands of a call that go to one server in one piece. */
typedef struct outr__redis_part {
    outr_link link;    /* of who has it: a connection, or those that wait for one */
    outr_link of_call; /* as long as it is not answered */
    struct outr_redis_call *call;
    struct outr__redis_conn *conn; /* NULL: it waits for one */
    const uint32_t *indexes;       /* which commands; NULL: the first `count` */
    uint32_t count, written, answered;
    uint32_t attempts; /* failed so far */
    uint64_t first_slot, slot_count;
    uint64_t due_ns; /* it pauses until then */
    bool is_asking;  /* behind ASKING */
} outr__redis_part;

/* Borrowed until done, with everything it points to. */
typedef struct outr_redis_call {
    outr_arena *arena; /* of the caller's loop; replies are made here, by _try: within its cap */
    const outr_redis_command *commands; /* sent in this order, without waiting in between */
    size_t count;                       /* 1 to 1,000,000 */
    bool is_atomic;     /* MULTI ... EXEC around them; all go where the first one's key is */
    bool is_repeatable; /* done twice is done once: sent again when a connection breaks */
    uint64_t wait_ns; /* of a command that blocks: so long the server may think before readTimeout
                         begins. Only on a line. */
    /* out, when the op succeeded: one for each command. An atomic call whose EXEC was refused has
     * that error in each. */
    outr_redis_reply *replies;
    /* machinery */
    struct outr__redis_site *site;
    struct outr_redis_line *line;
    outr_link of_line;
    outr_op *op;
    outr_list parts; /* those that are not answered */
    outr__redis_part first;
    outr_redis_reply exec; /* of an atomic call */
} outr_redis_call;

/* Any loop: op's. */
void outr_redis_call_start(outr_redis *redis, outr_redis_call *call, outr_op *op);
/* A command made of count texts, on arena (the texts stay where they are). */
outr_redis_command outr_redis_command_of(outr_arena *arena, outr_str key, size_t count,
                                         const outr_str *args);
/* A call of one such command, is_repeatable. */
void outr_redis_call_of(outr_redis_call *call, outr_arena *arena, outr_str key, size_t count,
                        const outr_str *args);
/* An ERROR reply as an error, with its text; OK for any other. The code is made of the first word:
 * NOAUTH and WRONGPASS UNAUTHENTICATED, NOPERM PERMISSION_DENIED, OOM RESOURCE_EXHAUSTED, LOADING,
 * READONLY, MASTERDOWN, CLUSTERDOWN and of a server that has too many clients UNAVAILABLE, else
 * INTERNAL. */
outr_code outr_redis_check(const outr_redis_reply *reply, outr_err *err);
/* The first one of a call. */
outr_code outr_redis_check_all(const outr_redis_call *call, outr_err *err);

/* ---- lines ----------------------------------------------------------------------------------- */

/* A connection of its own, for commands that block or that change what a connection is. Lives on
 * one loop. It is made by the first call and again by the first one after it broke; a call fails at
 * once when that fails: whoever blocks in a circle pauses by himself (outr_redis_pause). A call
 * that is cancelled takes the connection with it, so that the server stops waiting. */
typedef struct outr_redis_line outr_redis_line;

/* key: of which server in a cluster; copied. */
outr_redis_line *outr_redis_line_open(outr_redis *redis, outr_loop *loop, outr_str key);
/* The same, but one that was given back, with its connection, when there is one. */
outr_redis_line *outr_redis_line_borrow(outr_redis *redis, outr_loop *loop, outr_str key);
/* After the last call; nothing on it is as its next user would not expect. NULL is fine. */
void outr_redis_line_give_back(outr_redis_line *line);
void outr_redis_line_start(outr_redis_line *line, outr_redis_call *call, outr_op *op);
/* Calls under way end CANCELLED, in a later turn. NULL is fine. */
void outr_redis_line_close(outr_redis_line *line);
/* Nanoseconds until attempt number `failures` + 1: doubles from 50 ms to 5 s, with jitter. */
uint64_t outr_redis_pause(outr_loop *loop, uint32_t failures);

/* ---- channels -------------------------------------------------------------------------------- */

/* SUBSCRIBE or PSUBSCRIBE on a connection of its own, made again for ever when it breaks. */
typedef struct outr_redis_listener outr_redis_listener;

typedef struct outr_redis_listen {
    outr_loop *loop;          /* where the functions are called */
    const outr_str *channels; /* copied */
    size_t channel_count;
    bool is_pattern;
    outr_str key; /* of which server in a cluster: keyspace events come from the key's own */
    /* Both texts are borrowed for the call. */
    void (*on_message)(void *ctx, outr_str channel, outr_str payload);
    /* NULL: subscribed, now or again; whatever was said before went by unheard. Else why it broke,
     * or why the server refuses. */
    void (*on_change)(void *ctx, const outr_err *err);
    void *ctx;
} outr_redis_listen;

outr_redis_listener *outr_redis_listen_start(outr_redis *redis, const outr_redis_listen *listen);
/* On its loop, also within its functions; none of them is called afterwards. NULL is fine. */
void outr_redis_listen_stop(outr_redis_listener *listener);

#endif
