/* classify - what an answer, or the lack of one, says of the instance: the one place that decides
 * it, for balancing, ejection and retries alike. mesh.md "Status-aware tolerance". */
#ifndef OUTR_MESH_CLASSIFY_H
#define OUTR_MESH_CLASSIFY_H

#include "base/err.h"

typedef enum outr_class {
    OUTR_CLASS_GOOD,
    OUTR_CLASS_LOAD,    /* it has too much to do: not broken, but not the best choice now */
    OUTR_CLASS_FAILURE,
} outr_class;

outr_class outr_classify_http(int status);
outr_class outr_classify_grpc(int code);
/* A try that ended without an answer. CANCELLED: its caller left, which says nothing. */
outr_class outr_classify_error(outr_code code);
/* An answer that another instance may well not give: an idempotent call is made again there. */
bool outr_classify_is_passing(int http_status);

#endif
