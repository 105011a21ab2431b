#include "security/rotation.h"

#define MIN_PAUSE_MS 1000
#define MAX_PAUSE_MS 60000
#define LAST_MS      250 /* between tries when there is no time left */

int64_t outr_rotation_due(int64_t issued_ms, int64_t expires_ms, double unit)
{
    int64_t life = OUTR_MAX(expires_ms - issued_ms, 0);
    int64_t share = (int64_t)((double)life * (0.65 + 0.1 * unit));
    return issued_ms + OUTR_MAX(share, MIN_PAUSE_MS);
}

int64_t outr_rotation_pause(unsigned failures, int64_t left_ms, double unit)
{
    unsigned doublings = failures ? OUTR_MIN(failures - 1, 6u) : 0;
    int64_t full = OUTR_MIN((int64_t)MIN_PAUSE_MS << doublings, (int64_t)MAX_PAUSE_MS);
    int64_t pause = (int64_t)((double)full * (0.5 + 0.5 * unit));
    if (left_ms <= 0) /* over: nothing is gained by haste, nor lost by another second */
        return OUTR_MAX(pause, MIN_PAUSE_MS);
    return OUTR_MIN(pause, OUTR_MAX(left_ms / 8, LAST_MS));
}

bool outr_rotation_is_late(int64_t issued_ms, int64_t expires_ms, int64_t now_ms)
{
    return now_ms - issued_ms >= (expires_ms - issued_ms) / 2;
}
