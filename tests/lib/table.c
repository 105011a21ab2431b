#include "table.h"

#define FILE_MAX_BYTES (4 * OUTR_MIB)

bool table_open(table *t, const char *path)
{
    FILE *file = fopen(path, "r");
    if (!file) {
        fprintf(stderr, "skipped: %s is not here\n", path);
        return false;
    }
    t->text = outr_alloc(FILE_MAX_BYTES + 1);
    t->at = t->text;
    size_t n = fread(t->text, 1, FILE_MAX_BYTES, file);
    t->text[n] = 0;
    fclose(file);
    return true;
}

void table_close(table *t)
{
    free(t->text);
}

/* Unquotes in place; leaves *at behind the cell's separator. True: another cell follows. */
static bool read_cell(char **at, char **cell)
{
    char *from = *at, *to = *at;
    bool is_quoted = *from == '"';
    from += is_quoted;
    *cell = to;
    while (*from) {
        if (is_quoted && *from == '"' && from[1] != '"')
            is_quoted = false;
        else if (!is_quoted && (*from == ',' || *from == '\n'))
            break;
        else if (is_quoted && *from == '"')
            *to++ = *++from;
        else if (is_quoted || *from != '\r')
            *to++ = *from;
        from++;
    }
    char separator = *from;
    *at = separator ? from + 1 : from;
    *to = 0;
    return separator == ',';
}

size_t table_next(table *t, char *cells[], size_t max)
{
    size_t n = 0;
    char *cell;
    if (!*t->at)
        return 0;
    for (bool has_more = true; has_more;) {
        has_more = read_cell(&t->at, &cell);
        if (n < max)
            cells[n++] = cell;
    }
    return n;
}
