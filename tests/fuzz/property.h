/* property - what must hold for every input of a fuzz target, in every build. */
#ifndef OUTR_TESTS_PROPERTY_H
#define OUTR_TESTS_PROPERTY_H

#include "base/base.h"

#define PROPERTY(holds)                                                                            \
    do {                                                                                           \
        if (!(holds)) {                                                                            \
            fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #holds);             \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

#endif
