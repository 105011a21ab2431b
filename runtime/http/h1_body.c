#include "http/h1_body.h"

#define SIZE_DIGITS_MAX 15   /* 2^60 bytes are enough */
#define SIZE_LINE_MAX   1024 /* with extensions, which nobody reads */
/* extensions beyond one byte per byte of payload (CVE-2023-39326) */
#define EXTRA_MAX (64 * 1024)

enum { AT_SIZE, IN_SIZE, IN_EXTENSION, SIZE_LF, IN_DATA, DATA_CR, DATA_LF, IN_TRAILERS, OVER };

void outr__h1_body_init(outr__h1_body *b, outr__h1_body_kind kind, uint64_t length,
                        size_t max_trailer_bytes)
{
    *b = (outr__h1_body){.kind = kind, .left = length, .trailers = OUTR_BUF_MAX(max_trailer_bytes)};
    if (kind == OUTR__BODY_CHUNKED)
        b->left = 0;
}

void outr__h1_body_done(outr__h1_body *b)
{
    outr_buf_done(&b->trailers);
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* One byte of "1a;name=value" CR LF. False: not a chunk's size. */
static bool take_size_byte(outr__h1_body *b, char c)
{
    int digit = hex_digit(c);
    if (++b->line_n > SIZE_LINE_MAX)
        return false;
    switch (b->state) {
    case AT_SIZE:
        if (digit < 0)
            return false;
        b->left = (uint64_t)digit;
        b->state = IN_SIZE;
        return true;
    case IN_SIZE:
        if (digit >= 0) {
            b->left = b->left << 4 | (uint64_t)digit;
            return b->line_n <= SIZE_DIGITS_MAX;
        }
        b->state = c == '\r' ? SIZE_LF : IN_EXTENSION;
        return c == '\r' || c == ';' || c == ' ' || c == '\t';
    case IN_EXTENSION:
        if (c == '\r')
            b->state = SIZE_LF;
        b->extra++;
        return (c >= 0x20 || c == '\t' || c == '\r') && b->extra <= b->payload + EXTRA_MAX;
    default: /* SIZE_LF */
        b->state = b->left > 0 ? IN_DATA : IN_TRAILERS;
        b->line_n = 0;
        return c == '\n';
    }
}

/* Up to and including the empty line. Lines are looked at when the whole block is here. */
static outr__h1_body_result take_trailers(outr__h1_body *b, const char **p, const char *end)
{
    while (*p < end) {
        const char *lf = memchr(*p, '\n', (size_t)(end - *p));
        const char *stop = lf ? lf + 1 : end;
        if (!outr_buf_append(&b->trailers, *p, (size_t)(stop - *p)))
            return OUTR__BODY_TOO_LARGE;
        *p = stop;
        if (!lf)
            break;
        outr_str block = outr_buf_view(&b->trailers);
        if (outr_str_is(block, "\r\n") || outr_str_ends(block, OUTR_STR("\r\n\r\n"))) {
            b->state = OVER;
            return OUTR__BODY_END;
        }
        if (outr_str_is(block, "\n") || outr_str_ends(block, OUTR_STR("\n\n")))
            return OUTR__BODY_BAD;
    }
    return OUTR__BODY_MORE;
}

static outr_str take_payload(outr__h1_body *b, const char **p, const char *end)
{
    size_t n = (size_t)OUTR_MIN((uint64_t)(end - *p), b->left);
    outr_str piece = outr_str_of(*p, n);
    *p += n;
    b->left -= n;
    b->payload += n;
    return piece;
}

static outr__h1_body_result take_chunked(outr__h1_body *b, const char **p, const char *end,
                                         outr_str *piece)
{
    while (*p < end || b->state == OVER) {
        switch (b->state) {
        case IN_DATA:
            *piece = take_payload(b, p, end);
            if (b->left == 0)
                b->state = DATA_CR;
            return OUTR__BODY_DATA;
        case DATA_CR:
        case DATA_LF:
            if (*(*p)++ != (b->state == DATA_CR ? '\r' : '\n'))
                return OUTR__BODY_BAD;
            b->state = b->state == DATA_CR ? DATA_LF : AT_SIZE;
            break;
        case IN_TRAILERS:
            return take_trailers(b, p, end);
        case OVER:
            return OUTR__BODY_END;
        default:
            if (!take_size_byte(b, *(*p)++))
                return OUTR__BODY_BAD;
        }
    }
    return OUTR__BODY_MORE;
}

outr__h1_body_result outr__h1_body_take(outr__h1_body *b, const char **p, const char *end,
                                        outr_str *piece)
{
    switch (b->kind) {
    case OUTR__BODY_CHUNKED:
        return take_chunked(b, p, end, piece);
    case OUTR__BODY_TO_CLOSE:
        b->left = UINT64_MAX;
        break;
    case OUTR__BODY_LENGTH:
        if (b->left == 0)
            return OUTR__BODY_END;
        break;
    }
    if (*p == end)
        return OUTR__BODY_MORE;
    *piece = take_payload(b, p, end);
    return OUTR__BODY_DATA;
}
