/* instance - what runs on this machine under `outrigger run`: one JSON file each in the per-user
 * runtime directory, locked (flock) as long as its `outrigger run` lives.
 *
 * The lock is the truth: a file nobody holds is left over from a killed process and removed by
 * whoever sees it, so process ids that were given to somebody else fool nobody. */
#ifndef OUTR_CLI_INSTANCE_H
#define OUTR_CLI_INSTANCE_H

#include <sys/types.h>

#include "base/arena.h"
#include "base/err.h"

typedef struct outr_instance {
    outr_str app_id;
    outr_str host;    /* where its API listens */
    outr_str socket;  /* path of the API's Unix socket, or NONE */
    outr_str command; /* of the app; empty: sidecar only */
    uint16_t http_port, grpc_port, internal_port, metrics_port, app_port; /* 0: none */
    pid_t cli_pid, sidecar_pid, app_pid;                                  /* 0: none */
    int64_t created_s;                                                    /* Unix time */
} outr_instance;

typedef struct outr_instances {
    outr_instance *items;
    size_t count;
} outr_instances;

typedef struct outr_record outr_record; /* our own file */

/* Writes the file and holds it. write again replaces its content (the same lock). */
outr_code outr_record_open(outr_record **out, outr_err *err);
outr_code outr_record_write(outr_record *record, const outr_instance *instance, outr_err *err);
void outr_record_close(outr_record *record); /* NULL is fine; removes the file */

/* Everything alive, ordered by app id and age; on the arena. */
outr_code outr_instances_load(outr_instances *out, outr_arena *arena, outr_err *err);
/* The first with this id; NOT_FOUND says which ones there are. */
outr_code outr_instances_find(const outr_instance **out, outr_arena *arena, const char *app_id,
                              outr_err *err);

#endif
