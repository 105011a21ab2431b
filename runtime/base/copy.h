/* copy - copies on an arena of what stands in several pieces, or is to be changed. */
#ifndef OUTR_BASE_COPY_H
#define OUTR_BASE_COPY_H

#include "base/arena.h"
#include "base/map.h"

/* Names and values. */
outr_kvs outr_kvs_copy(outr_arena *arena, outr_kvs kvs) OUTR_MUST_USE;
/* The same on the heap, in one block, which free of its items gives back. */
outr_kvs outr_kvs_dup(outr_kvs kvs) OUTR_MUST_USE;
/* A to Z in lower case; a NUL follows. */
outr_str outr_str_lower(outr_arena *arena, outr_str s) OUTR_MUST_USE;

#endif
