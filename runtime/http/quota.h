/* quota - how many connections several pools may have together, on whichever loops they are.
 * Refcounted; any thread. */
#ifndef OUTR_HTTP_QUOTA_H
#define OUTR_HTTP_QUOTA_H

#include "base/base.h"

typedef struct outr_http_quota outr_http_quota;

outr_http_quota *outr_http_quota_new(uint32_t max);
outr_http_quota *outr_http_quota_ref(outr_http_quota *quota);
void outr_http_quota_unref(outr_http_quota *quota);             /* NULL is fine */
void outr_http_quota_set(outr_http_quota *quota, uint32_t max); /* those that are open stay */
uint32_t outr_http_quota_used(const outr_http_quota *quota);
/* False: there are max already. NULL: always true. */
bool outr_http_quota_take(outr_http_quota *quota);
void outr_http_quota_give_back(outr_http_quota *quota);

#endif
