/* rotation - when a certificate is asked for again. Decisions only: times come in, times go out.
 *
 * A life is counted from the moment of issue, not from not-before, which an authority puts into the
 * past for the sake of wrong clocks: a certificate of 60 s with a skew of 15 minutes would else be
 * due at once, over and over (pitfall 42). Milliseconds of Unix time. */
#ifndef OUTR_SECURITY_ROTATION_H
#define OUTR_SECURITY_ROTATION_H

#include "base/base.h"

/* At 70 % of its life, give or take 5 %, so that a fleet started at once does not ask at once; at
 * least a second after issue, whatever the certificate says. unit: random, [0, 1). */
int64_t outr_rotation_due(int64_t issued_ms, int64_t expires_ms, double unit);
/* After so many failures in a row: the pause before the next try. Doubles from one second to a
 * minute, half of it random, but there are always several tries in the time that is left. */
int64_t outr_rotation_pause(unsigned failures, int64_t left_ms, double unit);
/* Half of the life has passed: who could not renew by now tells of it. */
bool outr_rotation_is_late(int64_t issued_ms, int64_t expires_ms, int64_t now_ms);

#endif
