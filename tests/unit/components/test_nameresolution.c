#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <sched.h>
#include <sqlite3.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "components/common/dns.h"
#include "components/registry.h"
#include "lib/folder.h"
#include "lib/wire.h"

/* One sidecar's view: its resolver and one op at a time. */
typedef struct side {
    struct world *world;
    outr_resolver *resolver;
    outr_op op;
    bool is_done;
    outr_err err;
} side;

typedef struct world {
    wire w;
    folder dir;
    outr_arena *arena;
    unsigned lookups;
    char last_host[128];
    bool lookups_fail;
} world;

static world *the_world; /* for the environment's look-up, which has no context */

static void on_done(outr_op *op)
{
    side *s = OUTR_CONTAINER(op, side, op);
    s->is_done = true;
    s->err = op->err;
}

static outr_op *begin(side *s)
{
    s->is_done = false;
    outr_op_init(&s->op, s->world->w.loop, NULL, 0, on_done);
    return &s->op;
}

/* A worker's thread may have it. */
static outr_code wait_for(side *s)
{
    while (!s->is_done) {
        wire_run(&s->world->w);
        sched_yield();
    }
    return s->err.code;
}

/* Literal addresses are themselves; "many" has nine, "gone" none, of others the last byte counts. */
static void env_lookup(outr_env *env OUTR_UNUSED, outr_loop *loop OUTR_UNUSED, outr_lookup *req,
                       outr_op *op)
{
    world *wd = the_world;
    outr_err err;
    wd->lookups++;
    snprintf(wd->last_host, sizeof wd->last_host, OUTR_FMT, OUTR_ARG(req->host));
    outr_op_begin(op, NULL, NULL);
    if (wd->lookups_fail || outr_str_is(req->host, "gone")) {
        outr_fail(&err, OUTR_UNAVAILABLE, "no such host");
        outr_op_fail_soon(op, &err);
        return;
    }
    if (outr_addr_from_ip(&req->addrs[0], req->host, req->port, NULL) == OUTR_OK) {
        req->count = 1;
    } else {
        req->count = outr_str_is(req->host, "many") ? 8 : 1;
        for (size_t i = 0; i < req->count; i++)
            outr_addr_from_ip(&req->addrs[i], OUTR_STR("10.0.0.1"), (uint16_t)(req->port + i),
                              NULL);
        if (req->count == 8 && req->more_max > 0)
            outr_addr_from_ip(&req->more[req->more_count++], OUTR_STR("10.0.0.1"),
                              (uint16_t)(req->port + 8), NULL);
    }
    outr_op_finish_soon(op);
}

/* Of "_svc.x": two of the best priority, a worse one, one that says it is not served. */
static void put_service(outr_dns_writer *w, uint8_t priority, uint16_t port, const char *target)
{
    outr_dns_put_service(w, OUTR_STR("_svc.x"), 1, port, outr_str_from(target));
    w->bytes[w->n - strlen(target) - 2 - 5] = (char)priority;
}

static void env_query(outr_env *env OUTR_UNUSED, outr_loop *loop OUTR_UNUSED, outr_query *req,
                      outr_op *op)
{
    outr_dns_writer w;
    outr_err err;
    outr_op_begin(op, NULL, NULL);
    if (the_world->lookups_fail) {
        outr_fail(&err, OUTR_UNAVAILABLE, "no server");
        outr_op_fail_soon(op, &err);
        return;
    }
    assert_int_equal(req->type, OUTR_DNS_SRV);
    outr_dns_begin(&w, true);
    put_service(&w, 7, 1, "worse");
    put_service(&w, 3, 5000, "one");
    put_service(&w, 3, 5001, "gone");
    put_service(&w, 3, 5002, "other.x");
    put_service(&w, 3, 5003, "");
    put_service(&w, 9, 2, "worst");
    if (strcmp(req->name, "_svc.shop") == 0)
        req->answer = outr_arena_str(req->arena, outr_str_of(w.bytes, w.n));
    else if (strcmp(req->name, "_svc.broken") == 0)
        req->answer = outr_arena_str(req->arena, outr_str_of(w.bytes, w.n / 2));
    outr_op_finish_soon(op);
}

static world *open_world(void)
{
    world *wd = outr_alloc(sizeof *wd);
    wire_init(&wd->w, 1);
    wd->w.env.lookup = env_lookup;
    wd->w.env.query = env_query;
    folder_make(&wd->dir);
    wd->arena = outr_arena_new(16 * OUTR_MIB);
    the_world = wd;
    return wd;
}

static void close_world(world *wd)
{
    outr_arena_free(wd->arena);
    wire_done(&wd->w);
    folder_remove(&wd->dir);
    free(wd);
}

static outr_code create(world *wd, side *s, const char *type, const outr_kv *metadata, size_t count)
{
    const outr_resolver_backend *backend =
        outr_registry_resolver(outr_str_from(type), OUTR_STR("v1"));
    const outr_component_init init = {.name = OUTR_STR("names"),
                                      .type = outr_str_from(type),
                                      .version = OUTR_STR("v1"),
                                      .app_id = OUTR_STR("app"),
                                      .namespace_ = OUTR_STR("default"),
                                      .run_dir = outr_str_from(wd->dir.path),
                                      .metadata = {metadata, count},
                                      .loop = wd->w.loop};
    assert_non_null(backend);
    *s = (side){.world = wd};
    return backend->create(&s->resolver, &init, &s->err);
}

static side open_with(world *wd, const char *type, const char *key, const char *value)
{
    const outr_kv metadata[] = {{outr_str_from(key), outr_str_from(value)}};
    side s;
    assert_int_equal(create(wd, &s, type, metadata, key ? 1 : 0), OUTR_OK);
    return s;
}

static outr_code open_side(side *s)
{
    s->resolver->backend->open(s->resolver, begin(s));
    return wait_for(s);
}

static void close_side(side *s)
{
    s->resolver->backend->close(s->resolver, begin(s));
    assert_int_equal(wait_for(s), OUTR_OK);
}

static outr_kvs labels_from(const world *wd, const char *text)
{
    outr_kvs labels;
    assert_int_equal(outr_labels_parse(&labels, wd->arena, outr_str_from(text), NULL), OUTR_OK);
    return labels;
}

static outr_code join_as(side *s, const char *app_id, const char *namespace_, const char *host,
                         uint16_t port, const char *labels)
{
    const outr_self self = {.app_id = outr_str_from(app_id),
                            .namespace_ = outr_str_from(namespace_),
                            .host = outr_str_from(host),
                            .internal_port = port,
                            .labels = labels_from(s->world, labels)};
    s->resolver->backend->join(s->resolver, &self, begin(s));
    return wait_for(s);
}

static outr_code join(side *s, const char *app_id, const char *namespace_, const char *host,
                      uint16_t port)
{
    return join_as(s, app_id, namespace_, host, port, "");
}

static outr_code resolve(side *s, outr_resolve *req, const char *app_id, const char *namespace_)
{
    *req = (outr_resolve){.arena = s->world->arena,
                          .app_id = outr_str_from(app_id),
                          .namespace_ = outr_str_from(namespace_),
                          .port = 3000};
    s->resolver->backend->resolve(s->resolver, req, begin(s));
    assert_false(s->is_done); /* never inside the start */
    return wait_for(s);
}

/* "127.0.0.1:1 127.0.0.1:2;zone=a ", in the order of their ports. */
static const char *found(side *s, const char *app_id, const char *namespace_)
{
    static char text[1024];
    outr_resolve req;
    size_t n = 0;
    text[0] = 0;
    assert_int_equal(resolve(s, &req, app_id, namespace_), OUTR_OK);
    for (uint32_t port = 0; port < 65536; port++) {
        for (size_t i = 0; i < req.count; i++) {
            char one[OUTR_ADDR_TEXT_MAX];
            if (req.instances[i].addr.port != port)
                continue;
            outr_addr_text(&req.instances[i].addr, one);
            n += (size_t)snprintf(text + n, sizeof text - n, "%s", one);
            for (size_t j = 0; j < req.instances[i].labels.count; j++) {
                const outr_kv *kv = &req.instances[i].labels.items[j];
                n += (size_t)snprintf(text + n, sizeof text - n, ";" OUTR_FMT "=" OUTR_FMT,
                                      OUTR_ARG(kv->key), OUTR_ARG(kv->value));
            }
            n += (size_t)snprintf(text + n, sizeof text - n, " ");
        }
    }
    return text;
}

/* ---- sqlite: the registry in a file -------------------------------------------------------------- */

static side open_registry(world *wd)
{
    side s = open_with(wd, "nameresolution.sqlite", NULL, NULL);
    assert_int_equal(open_side(&s), OUTR_OK);
    return s;
}

static void execute(const world *wd, const char *sql)
{
    sqlite3 *db;
    char *message = NULL;
    assert_int_equal(sqlite3_open(folder_path(&wd->dir, "nameresolution.db"), &db), SQLITE_OK);
    sqlite3_busy_timeout(db, 5000);
    if (sqlite3_exec(db, sql, NULL, NULL, &message) != SQLITE_OK)
        fail_msg("%s: %s", sql, message);
    sqlite3_close(db);
}

/* The columns that daprd's component knows; no other is named by it. */
#define INSERT "INSERT INTO hosts (registration_id, address, app_id, namespace, last_update) VALUES"

/* First column of the first row, -1 when there is none. */
static int64_t query(const world *wd, const char *sql)
{
    sqlite3 *db;
    sqlite3_stmt *stmt;
    assert_int_equal(sqlite3_open(folder_path(&wd->dir, "nameresolution.db"), &db), SQLITE_OK);
    sqlite3_busy_timeout(db, 5000);
    assert_int_equal(sqlite3_prepare_v2(db, sql, -1, &stmt, NULL), SQLITE_OK);
    int64_t value = sqlite3_step(stmt) == SQLITE_ROW ? sqlite3_column_int64(stmt, 0) : -1;
    sqlite3_finalize(stmt);
    sqlite3_close(db);
    return value;
}

static void who_joins_is_found_by_id_and_namespace_until_it_leaves(void **state)
{
    world *wd = open_world();
    side a = open_registry(wd), b = open_registry(wd);
    (void)state;
    assert_string_equal(found(&b, "app", "default"), "");
    assert_int_equal(join(&a, "app", "default", "127.0.0.1", 1001), OUTR_OK);
    assert_string_equal(found(&b, "app", "default"), "127.0.0.1:1001 ");
    assert_string_equal(found(&a, "app", "default"), "127.0.0.1:1001 ");
    assert_string_equal(found(&b, "app", "other"), "");
    assert_string_equal(found(&b, "APP", "default"), "");
    assert_int_equal(join(&b, "app", "default", "::1", 1002), OUTR_OK);
    assert_string_equal(found(&a, "app", "default"), "127.0.0.1:1001 [::1]:1002 ");
    close_side(&a);
    assert_string_equal(found(&b, "app", "default"), "[::1]:1002 ");
    close_side(&b);
    assert_int_equal(query(wd, "SELECT count(*) FROM hosts"), 0);
    close_world(wd);
}

static void labels_are_found_with_their_instance(void **state)
{
    world *wd = open_world();
    side a = open_registry(wd), b = open_registry(wd);
    (void)state;
    assert_int_equal(join_as(&a, "app", "default", "127.0.0.1", 1, "zone=a,version=2"), OUTR_OK);
    assert_int_equal(join(&b, "app", "default", "127.0.0.1", 2), OUTR_OK);
    execute(wd, INSERT " ('daprd', '127.0.0.1:3', 'app', 'default', "
                       "unixepoch(CURRENT_TIMESTAMP))");
    assert_string_equal(found(&b, "app", "default"),
                        "127.0.0.1:1;version=2;zone=a 127.0.0.1:2 127.0.0.1:3 ");
    execute(wd, "UPDATE hosts SET labels = 'no label' WHERE address = '127.0.0.1:1'");
    assert_string_equal(found(&b, "app", "default"), "127.0.0.1:1 127.0.0.1:2 127.0.0.1:3 ");
    wire_sleep(&wd->w, 5 * OUTR_SEC); /* renewed with what it had */
    assert_string_equal(found(&a, "app", "default"),
                        "127.0.0.1:1;version=2;zone=a 127.0.0.1:2 127.0.0.1:3 ");
    close_side(&a);
    close_side(&b);
    close_world(wd);
}

/* daprd's component registers with no namespace at all, and finds by app id alone. */
static void what_has_no_namespace_is_taken_for_one_of_our_own(void **state)
{
    world *wd = open_world();
    side a = open_registry(wd);
    (void)state;
    execute(wd, INSERT " ('daprd', '127.0.0.1:3', 'app', '', unixepoch(CURRENT_TIMESTAMP)), ('x', "
                       "'127.0.0.1:4', 'app', 'other', unixepoch(CURRENT_TIMESTAMP))");
    assert_string_equal(found(&a, "app", "default"), "127.0.0.1:3 ");
    assert_string_equal(found(&a, "app", "other"), "127.0.0.1:4 ");
    assert_string_equal(found(&a, "app", "third"), "");
    close_side(&a);
    close_world(wd);
}

/* As daprd's component makes it, and ours did. */
static void a_file_without_labels_gets_them(void **state)
{
    world *wd = open_world();
    (void)state;
    execute(wd,
            "CREATE TABLE metadata (key text NOT NULL PRIMARY KEY, value text NOT NULL);"
            "CREATE TABLE hosts (registration_id TEXT NOT NULL PRIMARY KEY, address TEXT NOT "
            "NULL, app_id TEXT NOT NULL, namespace TEXT NOT NULL, last_update INTEGER NOT NULL);"
            "INSERT INTO metadata VALUES ('nr-migrations', '1')");
    execute(wd, INSERT " ('1', '127.0.0.1:1', 'app', 'default', unixepoch(CURRENT_TIMESTAMP))");
    side a = open_registry(wd), b = open_registry(wd);
    assert_string_equal(found(&a, "app", "default"), "127.0.0.1:1 ");
    assert_int_equal(join_as(&b, "app", "default", "127.0.0.1", 2, "zone=a"), OUTR_OK);
    execute(wd, INSERT " ('3', '127.0.0.1:3', 'app', 'default', unixepoch(CURRENT_TIMESTAMP))");
    assert_string_equal(found(&a, "app", "default"), "127.0.0.1:1 127.0.0.1:2;zone=a 127.0.0.1:3 ");
    close_side(&a);
    close_side(&b);
    close_world(wd);
}

static void the_file_is_for_its_owner_only(void **state)
{
    world *wd = open_world();
    side a = open_registry(wd);
    struct stat st;
    (void)state;
    assert_int_equal(stat(folder_path(&wd->dir, "nameresolution.db"), &st), 0);
    assert_int_equal(st.st_mode & 0077, 0);
    close_side(&a);
    close_world(wd);
}

/* A registration older than the heartbeat allows: its process was killed. */
static void a_dead_instance_drops_out(void **state)
{
    world *wd = open_world();
    side a = open_registry(wd);
    (void)state;
    execute(wd,
            INSERT " ('dead', '127.0.0.1:7', 'app', 'default', "
                   "unixepoch(CURRENT_TIMESTAMP) - 60), ('late', '127.0.0.1:8', 'app', 'default', "
                   "unixepoch(CURRENT_TIMESTAMP) - 2)");
    assert_string_equal(found(&a, "app", "default"), "127.0.0.1:8 ");
    close_side(&a);
    close_world(wd);
}

/* Its port belongs to somebody else now: one address, one registration. */
static void a_new_owner_of_an_address_replaces_the_dead_one(void **state)
{
    world *wd = open_world();
    side a = open_registry(wd);
    (void)state;
    execute(wd, INSERT " ('dead', '127.0.0.1:7', 'old', 'default', "
                       "unixepoch(CURRENT_TIMESTAMP))");
    assert_int_equal(join(&a, "new", "default", "127.0.0.1", 7), OUTR_OK);
    assert_string_equal(found(&a, "old", "default"), "");
    assert_string_equal(found(&a, "new", "default"), "127.0.0.1:7 ");
    close_side(&a);
    close_world(wd);
}

static void a_registration_is_renewed(void **state)
{
    world *wd = open_world();
    side a = open_registry(wd);
    (void)state;
    assert_int_equal(join(&a, "app", "default", "127.0.0.1", 1), OUTR_OK);
    execute(wd, "UPDATE hosts SET last_update = 1");
    assert_string_equal(found(&a, "app", "default"), "");
    wire_sleep(&wd->w, 5 * OUTR_SEC);
    assert_string_equal(found(&a, "app", "default"), "127.0.0.1:1 "); /* one worker, in order */
    execute(wd, "DELETE FROM hosts"); /* who lost its row comes back as well */
    wire_sleep(&wd->w, 5 * OUTR_SEC);
    assert_string_equal(found(&a, "app", "default"), "127.0.0.1:1 ");
    assert_int_equal(query(wd, "SELECT count(*) FROM hosts"), 1);
    close_side(&a);
    close_world(wd);
}

static void count_change(void *ctx, outr_str app_id OUTR_UNUSED, outr_str namespace_ OUTR_UNUSED)
{
    ++*(unsigned *)ctx;
}

static void who_comes_or_leaves_is_told_to_the_others(void **state)
{
    world *wd = open_world();
    side a = open_registry(wd), b = open_registry(wd);
    unsigned told = 0;
    (void)state;
    wire_run(&wd->w);
    outr_watch *watch = outr_watch_start(a.resolver->watchers, wd->w.loop, count_change, &told);
    assert_int_equal(join(&b, "app", "default", "127.0.0.1", 1), OUTR_OK);
    wire_run(&wd->w);
    assert_int_equal(told, 1);
    wire_sleep(&wd->w, 5 * OUTR_SEC); /* heartbeats are no news */
    assert_string_equal(found(&a, "app", "default"), "127.0.0.1:1 ");
    wire_run(&wd->w);
    assert_int_equal(told, 1);
    unlink(folder_path(&wd->dir, "nameresolution.db-wake")); /* the next beat makes it again */
    wire_run(&wd->w);
    assert_int_equal(told, 2);
    assert_int_equal(join(&a, "a", "default", "127.0.0.1", 2), OUTR_OK);
    wire_run(&wd->w);
    told = 0;
    close_side(&b);
    wire_run(&wd->w);
    assert_int_equal(told, 1);
    outr_watch_end(watch);
    close_side(&a);
    close_world(wd);
}

static void a_row_that_is_no_address_is_left_out(void **state)
{
    world *wd = open_world();
    side a = open_registry(wd);
    (void)state;
    execute(wd, INSERT " ('1', 'somewhere:80', 'app', 'default', "
                       "unixepoch(CURRENT_TIMESTAMP)), ('2', '', 'app', 'default', "
                       "unixepoch(CURRENT_TIMESTAMP)), ('3', '127.0.0.1:9', 'app', 'default', "
                       "unixepoch(CURRENT_TIMESTAMP))");
    assert_string_equal(found(&a, "app", "default"), "127.0.0.1:9 ");
    close_side(&a);
    close_world(wd);
}

static void a_name_is_data_not_sql(void **state)
{
    world *wd = open_world();
    side a = open_registry(wd);
    (void)state;
    assert_int_equal(join(&a, "x'; DROP TABLE hosts; --", "default", "127.0.0.1", 1), OUTR_OK);
    assert_string_equal(found(&a, "x'; DROP TABLE hosts; --", "default"), "127.0.0.1:1 ");
    assert_string_equal(found(&a, "' OR '1'='1", "default"), "");
    close_side(&a);
    close_world(wd);
}

static void a_corrupt_file_is_told_and_serves_again_once_replaced(void **state)
{
    world *wd = open_world();
    side a = open_with(wd, "nameresolution.sqlite", NULL, NULL);
    outr_resolve req;
    (void)state;
    folder_write(&wd->dir, "nameresolution.db", "this is no database, not even a small one");
    assert_int_equal(open_side(&a), OUTR_DATA_LOSS);
    assert_non_null(strstr(a.err.text, "nameresolution.db"));
    assert_int_equal(resolve(&a, &req, "app", "default"), OUTR_DATA_LOSS);
    assert_int_equal(req.count, 0);
    unlink(folder_path(&wd->dir, "nameresolution.db"));
    assert_int_equal(join(&a, "app", "default", "127.0.0.1", 1), OUTR_OK);
    assert_string_equal(found(&a, "app", "default"), "127.0.0.1:1 ");
    close_side(&a);
    close_world(wd);
}

static void a_file_taken_away_is_made_again_and_the_registration_with_it(void **state)
{
    world *wd = open_world();
    side a = open_registry(wd), b = open_registry(wd);
    (void)state;
    assert_int_equal(join(&a, "app", "default", "127.0.0.1", 1), OUTR_OK);
    unlink(folder_path(&wd->dir, "nameresolution.db"));
    unlink(folder_path(&wd->dir, "nameresolution.db-wal"));
    unlink(folder_path(&wd->dir, "nameresolution.db-shm"));
    assert_string_equal(found(&b, "app", "default"), "");
    wire_sleep(&wd->w, 5 * OUTR_SEC);
    found(&a, "app", "default"); /* behind the heartbeat */
    assert_string_equal(found(&b, "app", "default"), "127.0.0.1:1 ");
    close_side(&a);
    close_side(&b);
    close_world(wd);
}

static void a_folder_that_is_not_there_fails_and_closes_cleanly(void **state)
{
    world *wd = open_world();
    side a = open_with(wd, "nameresolution.sqlite", "connectionString",
                       folder_path(&wd->dir, "no/such/folder.db"));
    (void)state;
    assert_int_not_equal(open_side(&a), OUTR_OK);
    assert_int_not_equal(join(&a, "app", "default", "127.0.0.1", 1), OUTR_OK);
    close_side(&a);
    close_world(wd);
}

static void settings_are_checked(void **state)
{
    static const outr_kv bad[] = {{OUTR_STR("tableName"), OUTR_STR("hosts; DROP TABLE x")},
                                  {OUTR_STR("metadataTableName"), OUTR_STR("")},
                                  {OUTR_STR("tableName"), OUTR_STR("1hosts")},
                                  {OUTR_STR("updateInterval"), OUTR_STR("soon")}};
    world *wd = open_world();
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(bad); i++) {
        side s;
        if (create(wd, &s, "nameresolution.sqlite", &bad[i], 1) == OUTR_OK) {
            if (bad[i].value.n > 0)
                fail_msg("accepted: " OUTR_FMT, OUTR_ARG(bad[i].value));
            close_side(&s); /* an empty setting may stand for its default */
        }
    }
    close_world(wd);
}

#define PROCESSES 6
#define ROUNDS    8

/* A sidecar of its own: joins, sees itself, and leaves, over and over. */
static int live(const world *parents, unsigned index)
{
    world *wd = open_world();
    folder own = wd->dir;
    wd->dir = parents->dir;
    outr_rand_seed(outr_loop_rand(wd->w.loop), 1000 + index); /* registrations have random ids */
    for (unsigned round = 0; round < ROUNDS; round++) {
        char host[32];
        outr_resolve req;
        bool is_there = false;
        side s = open_with(wd, "nameresolution.sqlite", "busyTimeout", "20s");
        snprintf(host, sizeof host, "127.0.0.%u", 10 + index);
        if (open_side(&s) || join(&s, "app", "default", host, (uint16_t)(100 + round)) ||
            resolve(&s, &req, "app", "default")) {
            fprintf(stderr, "process %u, round %u: %s\n", index, round, s.err.text);
            return 1;
        }
        for (size_t i = 0; i < req.count; i++)
            is_there |= req.instances[i].addr.ip[3] == 10 + index &&
                        req.instances[i].addr.port == 100 + round;
        if (!is_there)
            return 2;
        if (round + 1 < ROUNDS) { /* the last one dies with its registration */
            s.resolver->backend->close(s.resolver, begin(&s));
            if (wait_for(&s))
                return 3;
        }
    }
    folder_remove(&own);
    return 0;
}

static void processes_that_start_at_once_share_the_file(void **state)
{
    world *wd = open_world();
    pid_t pids[PROCESSES];
    (void)state;
    for (unsigned i = 0; i < PROCESSES; i++) {
        pids[i] = fork();
        assert_true(pids[i] >= 0);
        if (pids[i] == 0)
            _exit(live(wd, i));
    }
    for (unsigned i = 0; i < PROCESSES; i++) {
        int status = -1;
        assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 0);
    }
    assert_int_equal(query(wd, "SELECT count(*) FROM hosts"), PROCESSES);
    side a = open_registry(wd);
    outr_resolve req;
    assert_int_equal(resolve(&a, &req, "app", "default"), OUTR_OK);
    assert_int_equal(req.count, PROCESSES);
    close_side(&a);
    close_world(wd);
}

/* ---- what needs no registry ---------------------------------------------------------------------- */

static void a_pattern_becomes_an_address(void **state)
{
    static const char *const types[] = {"nameresolution.nameformat",
                                        "nameresolution.structuredformat", "nameresolution.dns"};
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(types); i++) {
        world *wd = open_world();
        side s = open_with(wd, types[i], "format", "{appid}.svc.{appid}:4000");
        assert_int_equal(open_side(&s), OUTR_OK);
        assert_int_equal(join(&s, "me", "default", "127.0.0.1", 1), OUTR_OK);
        assert_string_equal(found(&s, "shop", "default"), "10.0.0.1:4000 ");
        assert_string_equal(wd->last_host, "shop.svc.shop");
        wd->lookups_fail = true;
        outr_resolve req;
        assert_int_equal(resolve(&s, &req, "shop", "default"), OUTR_UNAVAILABLE);
        close_side(&s);
        close_world(wd);
    }
}

static void a_pattern_of_a_service_asks_for_its_hosts_and_ports(void **state)
{
    static const char *const formats[] = {"_svc.{appid}", "_svc.{appid}:80"};
    outr_resolve req;
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(formats); i++) {
        world *wd = open_world();
        side s = open_with(wd, "nameresolution.dns", "format", formats[i]);
        assert_string_equal(found(&s, "shop", "default"), "10.0.0.1:5000 10.0.0.1:5002 ");
        assert_string_equal(wd->last_host, "other.x");
        assert_string_equal(found(&s, "nobody", "default"), "");
        assert_int_equal(resolve(&s, &req, "broken", "default"), OUTR_OK); /* what could be read */
        wd->lookups_fail = true;
        assert_int_equal(resolve(&s, &req, "shop", "default"), OUTR_UNAVAILABLE);
        s.resolver->backend->resolve(s.resolver, &req, begin(&s));
        outr_op_cancel(&s.op, OUTR_CANCELLED);
        assert_int_equal(wait_for(&s), OUTR_CANCELLED);
        close_side(&s);
        close_world(wd);
    }
}

static void what_would_be_too_long_is_an_error(void **state)
{
    char text[2000] = "", id[1500] = "";
    const outr_kv template = {OUTR_STR("template"), outr_str_of(text, sizeof text - 1)};
    const outr_kv domain = {OUTR_STR("clusterDomain"), outr_str_of(text, sizeof text - 1)};
    const outr_kv ids = {OUTR_STR("template"), OUTR_STR("{{.ID}}.x")};
    outr_resolve req;
    world *wd = open_world();
    side s;
    (void)state;
    memset(text, 'a', sizeof text);
    memset(id, 'b', sizeof id);
    text[sizeof text - 1] = id[sizeof id - 1] = 0;
    assert_int_equal(create(wd, &s, "nameresolution.kubernetes", &template, 1),
                     OUTR_INVALID_ARGUMENT);
    assert_non_null(strstr(s.err.text, "template: more than 1024 bytes"));
    assert_int_equal(create(wd, &s, "nameresolution.kubernetes", &domain, 1),
                     OUTR_INVALID_ARGUMENT);
    assert_int_equal(create(wd, &s, "nameresolution.kubernetes", &ids, 1), OUTR_OK);
    assert_int_equal(resolve(&s, &req, id, "default"), OUTR_INVALID_ARGUMENT);
    close_side(&s);
    s = open_with(wd, "nameresolution.dns", "format", "{appid}{appid}");
    assert_int_equal(resolve(&s, &req, id, "default"), OUTR_INVALID_ARGUMENT);
    close_side(&s);
    close_world(wd);
}

static void without_a_port_our_own_is_taken(void **state)
{
    world *wd = open_world();
    side s = open_with(wd, "nameresolution.nameformat", "format", "{appid}");
    (void)state;
    assert_string_equal(found(&s, "shop", "default"), "10.0.0.1:3000 ");
    assert_string_equal(found(&s, "many", "default"),
                        "10.0.0.1:3000 10.0.0.1:3001 10.0.0.1:3002 10.0.0.1:3003 10.0.0.1:3004 "
                        "10.0.0.1:3005 10.0.0.1:3006 10.0.0.1:3007 "
                        "10.0.0.1:3008 ");
    close_side(&s);
    close_world(wd);
}

static void a_pattern_needs_the_app_id(void **state)
{
    static const outr_kv none = {OUTR_STR("format"), OUTR_STR("host:80")};
    world *wd = open_world();
    side s;
    (void)state;
    assert_int_equal(create(wd, &s, "nameresolution.nameformat", &none, 1), OUTR_INVALID_ARGUMENT);
    assert_int_equal(create(wd, &s, "nameresolution.dns", NULL, 0), OUTR_INVALID_ARGUMENT);
    assert_non_null(strstr(s.err.text, "{appid}"));
    close_world(wd);
}

static void a_cluster_has_its_form_of_names(void **state)
{
    static const struct {
        const char *key, *value, *host, *port;
    } rows[] = {
        {"other", "x", "shop-dapr.ns.svc.cluster.local", "3000"},
        {"clusterDomain", "here", "shop-dapr.ns.svc.here", "3000"},
        {"template", "{{ .Namespace }}-{{.ID}}:81", "ns-shop", "81"},
        {"template", "{{.ID}}.x:{{.Port}}", "shop.x", "3000"},
    };
    static const outr_kv bad[] = {{{"template", 8}, {"{{.Data}}", 9}},
                                  {{"template", 8}, {"{{.ID", 5}}};
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(rows); i++) {
        world *wd = open_world();
        char wanted[64];
        side s = open_with(wd, "nameresolution.kubernetes", rows[i].key, rows[i].value);
        snprintf(wanted, sizeof wanted, "10.0.0.1:%s ", rows[i].port);
        assert_string_equal(found(&s, "shop", "ns"), wanted);
        assert_string_equal(wd->last_host, rows[i].host);
        close_side(&s);
        close_world(wd);
    }
    for (size_t i = 0; i < OUTR_LEN(bad); i++) {
        world *wd = open_world();
        side s;
        assert_int_equal(create(wd, &s, "nameresolution.kubernetes", &bad[i], 1),
                         OUTR_INVALID_ARGUMENT);
        close_world(wd);
    }
}

static void a_list_names_each_app(void **state)
{
    world *wd = open_world();
    side s =
        open_with(wd, "nameresolution.static", "shop", "127.0.0.1:81, gone:82 ,[::1]:83,127.0.0.2");
    outr_resolve req;
    (void)state;
    /* One that cannot be looked up does not take the others away. */
    assert_string_equal(found(&s, "shop", "default"), "127.0.0.1:81 [::1]:83 127.0.0.2:3000 ");
    assert_string_equal(found(&s, "Shop", "default"), "");
    assert_string_equal(found(&s, "unknown", "default"), "");
    assert_int_equal(wd->lookups, 4);
    wd->lookups_fail = true;
    assert_int_equal(resolve(&s, &req, "shop", "default"), OUTR_UNAVAILABLE);
    close_side(&s);
    close_world(wd);
}

static void labels_stand_behind_an_address(void **state)
{
    static const char *const bad[] = {"127.0.0.1:81;zone", "127.0.0.1:81;zone=a;zone=b",
                                      "127.0.0.1:81;zone=a b", "127.0.0.1:x"};
    world *wd = open_world();
    side s = open_with(wd, "nameresolution.static", "shop",
                       "127.0.0.1:81;zone=a;version=2,[::1]:83 , 127.0.0.1:84; zone = b");
    (void)state;
    assert_string_equal(found(&s, "shop", "default"),
                        "127.0.0.1:81;version=2;zone=a [::1]:83 127.0.0.1:84;zone=b ");
    close_side(&s);
    for (size_t i = 0; i < OUTR_LEN(bad); i++) {
        const outr_kv entry = {OUTR_STR("shop"), outr_str_from(bad[i])};
        assert_int_equal(create(wd, &s, "nameresolution.static", &entry, 1), OUTR_INVALID_ARGUMENT);
        assert_non_null(strstr(s.err.text, "shop: "));
    }
    close_world(wd);
}

static void a_thousand_instances_are_found(void **state)
{
    OUTR_AUTO(outr_buf) list = OUTR_BUF_MAX(OUTR_MIB);
    OUTR_AUTO(outr_buf) sql = OUTR_BUF_MAX(OUTR_MIB);
    world *wd = open_world();
    side a = open_registry(wd);
    outr_resolve req;
    (void)state;
    outr_buf_z(&sql, INSERT);
    for (unsigned i = 1; i <= 1100; i++) {
        outr_buf_printf(&list, "%s127.0.0.1:%u", i > 1 ? "," : "", i);
        outr_buf_printf(&sql,
                        "%s('%u', '127.0.0.1:%u', 'app', 'default', "
                        "unixepoch(CURRENT_TIMESTAMP))",
                        i > 1 ? "," : " ", i, i);
    }
    outr_buf_char(&list, 0);
    outr_buf_char(&sql, 0);
    execute(wd, sql.p);
    assert_int_equal(resolve(&a, &req, "app", "default"), OUTR_OK);
    assert_int_equal(req.count, OUTR_RESOLVE_MAX);
    close_side(&a);
    side b = open_with(wd, "nameresolution.static", "shop", list.p);
    assert_int_equal(resolve(&b, &req, "shop", "default"), OUTR_OK);
    assert_int_equal(req.count, OUTR_RESOLVE_MAX);
    close_side(&b);
    close_world(wd);
}

static void a_question_can_be_given_up(void **state)
{
    world *wd = open_world();
    side s = open_with(wd, "nameresolution.static", "shop", "127.0.0.1:81,127.0.0.1:82");
    outr_resolve req = {.arena = wd->arena, .app_id = OUTR_STR("shop"), .port = 1};
    (void)state;
    s.resolver->backend->resolve(s.resolver, &req, begin(&s));
    outr_op_cancel(&s.op, OUTR_CANCELLED);
    assert_int_equal(wait_for(&s), OUTR_CANCELLED);
    assert_int_equal(wd->lookups, 1);
    close_side(&s);
    close_world(wd);
}

typedef struct closing {
    outr_deferred deferred;
    side *side;
} closing;

static void close_now(outr_deferred *deferred)
{
    side *s = OUTR_CONTAINER(deferred, closing, deferred)->side;
    s->resolver->backend->close(s->resolver, begin(s));
}

static void etcd_can_be_closed_at_any_time(void **state)
{
    enum { JUST_BEFORE_A_STEP_IS_DONE, WHILE_IT_WAITS, UNOPENED, TIMES };
    world *wd = open_world();
    (void)state;
    for (int when = 0; when < TIMES; when++) {
        side s = open_with(wd, "nameresolution.etcd", "endpoints", "127.0.0.1:1"), end = s;
        closing c = {.deferred = {.run = close_now}, .side = &end};
        if (when == JUST_BEFORE_A_STEP_IS_DONE)
            outr_loop_defer(wd->w.loop, &c.deferred);
        if (when != UNOPENED)
            s.resolver->backend->open(s.resolver, begin(&s));
        if (when == WHILE_IT_WAITS)
            wire_run(&wd->w);
        if (when != JUST_BEFORE_A_STEP_IS_DONE)
            close_now(&c.deferred);
        assert_int_equal(wait_for(&end), OUTR_OK);
        assert_true(when == UNOPENED || s.is_done);
        wire_run(&wd->w);
    }
    close_world(wd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_joins_is_found_by_id_and_namespace_until_it_leaves),
        cmocka_unit_test(labels_are_found_with_their_instance),
        cmocka_unit_test(what_has_no_namespace_is_taken_for_one_of_our_own),
        cmocka_unit_test(a_file_without_labels_gets_them),
        cmocka_unit_test(the_file_is_for_its_owner_only),
        cmocka_unit_test(a_dead_instance_drops_out),
        cmocka_unit_test(a_new_owner_of_an_address_replaces_the_dead_one),
        cmocka_unit_test(a_registration_is_renewed),
        cmocka_unit_test(who_comes_or_leaves_is_told_to_the_others),
        cmocka_unit_test(a_row_that_is_no_address_is_left_out),
        cmocka_unit_test(a_name_is_data_not_sql),
        cmocka_unit_test(a_corrupt_file_is_told_and_serves_again_once_replaced),
        cmocka_unit_test(a_file_taken_away_is_made_again_and_the_registration_with_it),
        cmocka_unit_test(a_folder_that_is_not_there_fails_and_closes_cleanly),
        cmocka_unit_test(settings_are_checked),
        cmocka_unit_test(processes_that_start_at_once_share_the_file),
        cmocka_unit_test(a_pattern_becomes_an_address),
        cmocka_unit_test(a_pattern_of_a_service_asks_for_its_hosts_and_ports),
        cmocka_unit_test(what_would_be_too_long_is_an_error),
        cmocka_unit_test(without_a_port_our_own_is_taken),
        cmocka_unit_test(a_pattern_needs_the_app_id),
        cmocka_unit_test(a_cluster_has_its_form_of_names),
        cmocka_unit_test(a_list_names_each_app),
        cmocka_unit_test(labels_stand_behind_an_address),
        cmocka_unit_test(a_thousand_instances_are_found),
        cmocka_unit_test(a_question_can_be_given_up),
        cmocka_unit_test(etcd_can_be_closed_at_any_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
