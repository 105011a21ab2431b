/* workload - the sidecar's own identity: its key, its certificate, whom it trusts; kept fresh.
 *
 * Lives on the main loop. Owns the two contexts by which all loops shake hands on the internal port
 * and with peers; they are renewed under live connections when a certificate or the bundle changes.
 * A certificate that cannot be renewed stays in use to its end: an authority that is away hurts
 * nobody before. When no authority is named and the machine is a member of a fleet
 * (security/machine.h), certificates are signed here, by the machine's issuer. The private key is
 * in this process's memory only, unless a file is named for it (security/store.h). */
#ifndef OUTR_SECURITY_WORKLOAD_H
#define OUTR_SECURITY_WORKLOAD_H

#include "config/settings.h"
#include "loop/op.h"
#include "security/store.h"
#include "tls/tls.h"

typedef struct outr_workload outr_workload;

typedef struct outr_workload_options {
    /* From one life of the runtime to the next in the same process, which must not need the
     * authority. Borrowed; used at the start, filled by outr_workload_free. */
    outr_kept_identity *kept;
    outr_loop *loop;
    const outr_settings *settings;
    const outr_log *log;
    int64_t ttl_s, skew_s; /* of what is signed here; 0: 24 h, 15 min */
    /* The bundle is another one: connections may not be covered any more. On loop. */
    void (*trust_changed)(void *ctx);
    void *ctx;
} outr_workload_options;

/* Reads trust anchors. INVALID_ARGUMENT and the like: what is missing in flags or environment. */
outr_code outr_workload_new(outr_workload **out, const outr_workload_options *options,
                            outr_err *err);
/* The first certificate, for which everything waits. Fails when the authority refuses. */
void outr_workload_open_start(outr_workload *workload, outr_op *op);
/* Borrowed; the contexts stay while somebody references them. */
outr_tls *outr_workload_server(const outr_workload *workload);
outr_tls *outr_workload_client(const outr_workload *workload);
/* No timer and no callback any more; on loop. Then it may be freed, with work under way too. */
void outr_workload_stop(outr_workload *workload);
void outr_workload_free(outr_workload *workload); /* NULL is fine */

#endif
