#include "base/base.h"

static void out_of_memory(size_t n)
{
    fprintf(stderr, "outrigger: out of memory (%zu bytes)\n", n);
    abort();
}

void *outr_alloc(size_t n)
{
    void *p = calloc(1, n ? n : 1);
    if (!p)
        out_of_memory(n);
    return p;
}

void *outr_realloc(void *p, size_t n)
{
    void *grown = realloc(p, n ? n : 1);
    if (!grown)
        out_of_memory(n);
    return grown;
}

char *outr_strdup(const char *s)
{
    if (!s)
        return NULL;
    size_t n = strlen(s) + 1;
    return memcpy(outr_alloc(n), s, n);
}
