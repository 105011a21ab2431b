/* table - a CSV file read row by row (RFC 4180): the tables of the contract, where they are at hand. */
#ifndef OUTR_TESTS_TABLE_H
#define OUTR_TESTS_TABLE_H

#include "base/base.h"

typedef struct table {
    char *text, *at;
} table;

/* False, with a message, when the file is not there: the caller skips its test. */
bool table_open(table *t, const char *path);
void table_close(table *t);
/* Cells of the next row, at most max of them; they live until table_close. 0: no more rows. The
 * header is a row. */
size_t table_next(table *t, char *cells[], size_t max);

/* A table of the wire contract, beside the source tree. Unit tests only. */
#define TABLE_CONTRACT(name) OUTR_SOURCE_DIR "/../shared/contract/" name

#endif
