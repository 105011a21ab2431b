/* labels - what an instance says of itself: "version=2,zone=a". By these calls are routed.
 *
 * Names are of letters, digits, '-', '_' and '.', values of these and '/', '+', ':' and '@', so
 * that every registry can carry them; both have 63 bytes at most, and there are 16 labels at most.
 * Lists are sorted by name, so that equal sets have equal texts. */
#ifndef OUTR_BASE_LABELS_H
#define OUTR_BASE_LABELS_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/map.h"

#define OUTR_LABELS_MAX      16
#define OUTR_LABEL_BYTES_MAX 63
#define OUTR_LABELS_TEXT_MAX (OUTR_LABELS_MAX * (2 * OUTR_LABEL_BYTES_MAX + 2))

/* Whether it may be one; err names what is wrong. err may be NULL. */
outr_code outr_label_check(outr_str name, outr_str value, outr_err *err);
/* "a=1,b=2", blanks around names and values aside; empty text: none. On the arena, out untouched on
 * failure: no '=', a bad or doubled name, a bad value, too many. */
outr_code outr_labels_parse(outr_kvs *out, outr_arena *arena, outr_str text, outr_err *err);
void outr_labels_write(outr_buf *out, outr_kvs labels);
/* Sorts, and drops all that is no label: what a registry says of others. On the arena. */
outr_kvs outr_labels_of(outr_arena *arena, outr_kvs any);
/* Every one of wanted is there, with the same value. */
bool outr_labels_cover(outr_kvs labels, outr_kvs wanted);

#endif
