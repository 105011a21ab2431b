/* output - puts a name before each line that a child prints.
 *
 * Whole lines only, so that what two children print never mixes within a line; one write(2) for all
 * lines of a piece. A line longer than OUTR_OUTPUT_LINE_MAX goes out in parts. */
#ifndef OUTR_CLI_OUTPUT_H
#define OUTR_CLI_OUTPUT_H

#include "base/buf.h"

#define OUTR_OUTPUT_LINE_MAX (64 * OUTR_KIB)

typedef struct outr_output {
    int fd;           /* where the lines go; borrowed */
    char prefix[160]; /* with its colours */
    outr_buf line;    /* begun, not ended */
} outr_output;

/* colour: SGR parameters ("36"), or NULL. */
void outr_output_init(outr_output *out, int fd, const char *name, int width, const char *colour);
void outr_output_feed(outr_output *out, const char *p, size_t n);
void outr_output_done(outr_output *out); /* an unfinished last line is ended */
/* Colours are wanted: a terminal, and NO_COLOR is not set (no-color.org). */
bool outr_output_is_colourful(int fd);

#endif
