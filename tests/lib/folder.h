/* folder - a directory of its own for one test, removed with all that is in it. */
#ifndef OUTR_TESTS_FOLDER_H
#define OUTR_TESTS_FOLDER_H

#include "base/base.h"

typedef struct folder {
    char path[64];
} folder;

void folder_make(folder *f);
void folder_remove(folder *f);
/* The path of name in it; valid until the fourth next call. */
const char *folder_path(const folder *f, const char *name);
/* Writes the file as editors do: beside it, then renamed over. */
void folder_write(const folder *f, const char *name, const char *text);

#endif
