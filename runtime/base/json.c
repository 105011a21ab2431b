#include "base/json.h"

#include <float.h>
#include <math.h>

/* ---- reading --------------------------------------------------------------------------------- */

typedef struct reader {
    outr_arena *arena;
    const char *start, *at, *end;
    int depth;
    outr_err *err;
} reader;

static outr_code malformed(reader *r, const char *what)
{
    return outr_fail(r->err, OUTR_INVALID_ARGUMENT, "invalid JSON at byte %zu: %s",
                     (size_t)(r->at - r->start), what);
}

static outr_code too_big(reader *r)
{
    return outr_fail(r->err, OUTR_RESOURCE_EXHAUSTED, "JSON document is too large");
}

static void skip_space(reader *r)
{
    while (r->at < r->end && (*r->at == ' ' || *r->at == '\t' || *r->at == '\n' || *r->at == '\r'))
        r->at++;
}

static int hex4(const char *p)
{
    int value = 0;
    for (int i = 0; i < 4; i++) {
        char c = p[i];
        int digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : -1;
        if (digit < 0)
            return -1;
        value = value << 4 | digit;
    }
    return value;
}

static char *put_utf8(char *out, unsigned c)
{
    if (c < 0x80) {
        *out++ = (char)c;
    } else if (c < 0x800) {
        *out++ = (char)(0xc0 | c >> 6);
        *out++ = (char)(0x80 | (c & 0x3f));
    } else if (c < 0x10000) {
        *out++ = (char)(0xe0 | c >> 12);
        *out++ = (char)(0x80 | (c >> 6 & 0x3f));
        *out++ = (char)(0x80 | (c & 0x3f));
    } else {
        *out++ = (char)(0xf0 | c >> 18);
        *out++ = (char)(0x80 | (c >> 12 & 0x3f));
        *out++ = (char)(0x80 | (c >> 6 & 0x3f));
        *out++ = (char)(0x80 | (c & 0x3f));
    }
    return out;
}

/* One escape at r->at (behind the backslash); lone surrogates become U+FFFD, as in Go. */
static char *unescape(reader *r, const char *stop, char *out)
{
    static const char plain[] = "\"\\/bfnrt", meant[] = "\"\\/\b\f\n\r\t";
    char c = *r->at++;
    const char *found = c ? strchr(plain, c) : NULL;
    if (found) {
        *out++ = meant[found - plain];
        return out;
    }
    int unit = c == 'u' && stop - r->at >= 4 ? hex4(r->at) : -1;
    if (unit < 0)
        return NULL;
    r->at += 4;
    unsigned code = (unsigned)unit;
    if (code >= 0xd800 && code < 0xe000) {
        int low = code < 0xdc00 && stop - r->at >= 6 && r->at[0] == '\\' && r->at[1] == 'u'
                      ? hex4(r->at + 2)
                      : -1;
        if (low >= 0xdc00 && low < 0xe000) {
            code = 0x10000 + ((code - 0xd800) << 10) + ((unsigned)low - 0xdc00);
            r->at += 6;
        } else {
            code = 0xfffd;
        }
    }
    return put_utf8(out, code);
}

/* At the opening quote. */
static outr_code read_string(reader *r, outr_str *out)
{
    const char *start = ++r->at, *p = start;
    bool has_escape = false;
    for (; p < r->end && *p != '"'; p++) {
        if ((unsigned char)*p < 0x20) {
            r->at = p;
            return malformed(r, "control character in string");
        }
        if (*p == '\\') {
            has_escape = true;
            if (++p == r->end)
                break;
        }
    }
    if (p >= r->end) {
        r->at = r->end;
        return malformed(r, "unexpected end of string");
    }
    if (!has_escape) {
        *out = outr_str_of(start, (size_t)(p - start));
        r->at = p + 1;
        return OUTR_OK;
    }
    char *text = outr_arena_try(r->arena, (size_t)(p - start) + 1), *to = text;
    if (!text)
        return too_big(r);
    while (r->at < p) {
        if (*r->at != '\\') {
            *to++ = *r->at++;
            continue;
        }
        r->at++;
        to = unescape(r, p, to);
        if (!to)
            return malformed(r, "invalid escape in string");
    }
    *out = outr_str_of(text, (size_t)(to - text));
    r->at = p + 1;
    return OUTR_OK;
}

static bool skip_digits(reader *r)
{
    const char *start = r->at;
    while (r->at < r->end && *r->at >= '0' && *r->at <= '9')
        r->at++;
    return r->at > start;
}

static outr_code read_number(reader *r, outr_json *value)
{
    const char *start = r->at;
    if (*r->at == '-')
        r->at++;
    if (r->at < r->end && *r->at == '0')
        r->at++;
    else if (!skip_digits(r))
        return malformed(r, "a value is expected");
    if (r->at < r->end && *r->at == '.') {
        r->at++;
        if (!skip_digits(r))
            return malformed(r, "digits are expected after the point");
    }
    if (r->at < r->end && (*r->at == 'e' || *r->at == 'E')) {
        r->at++;
        if (r->at < r->end && (*r->at == '+' || *r->at == '-'))
            r->at++;
        if (!skip_digits(r))
            return malformed(r, "digits are expected in the exponent");
    }
    value->kind = OUTR_JSON_NUMBER;
    value->text = outr_str_of(start, (size_t)(r->at - start));
    return OUTR_OK;
}

static bool read_word(reader *r, const char *word)
{
    size_t n = strlen(word);
    if ((size_t)(r->end - r->at) < n || memcmp(r->at, word, n) != 0)
        return false;
    r->at += n;
    return true;
}

static outr_code read_value(reader *r, outr_json *value);

/* Items of an array or members of an object, the opening bracket being behind r->at. */
static outr_code read_items(reader *r, outr_json *value, char close)
{
    outr_json **tail = &value->child;
    if (++r->depth > OUTR_JSON_DEPTH_MAX)
        return malformed(r, "nested too deeply");
    skip_space(r);
    while (r->at < r->end && *r->at != close) {
        outr_json *item = outr_arena_try(r->arena, sizeof *item);
        if (!item)
            return too_big(r);
        if (close == '}') {
            if (*r->at != '"')
                return malformed(r, "a member name is expected");
            outr_code rc = read_string(r, &item->key);
            if (rc)
                return rc;
            skip_space(r);
            if (r->at == r->end || *r->at++ != ':')
                return malformed(r, "':' is expected");
            skip_space(r);
        }
        outr_code rc = read_value(r, item);
        if (rc)
            return rc;
        *tail = item;
        tail = &item->next;
        value->count++;
        skip_space(r);
        if (r->at < r->end && *r->at == ',') {
            r->at++;
            skip_space(r);
            if (r->at < r->end && *r->at == close)
                return malformed(r, "a value is expected after ','");
        } else if (r->at < r->end && *r->at != close) {
            return malformed(r, "',' is expected");
        }
    }
    if (r->at == r->end)
        return malformed(r, "unexpected end");
    r->at++;
    r->depth--;
    return OUTR_OK;
}

static outr_code read_value(reader *r, outr_json *value)
{
    outr_code rc = OUTR_OK;
    const char *start = r->at;
    if (r->at == r->end)
        return malformed(r, "unexpected end");
    switch (*r->at) {
    case '{':
    case '[':
        value->kind = *r->at == '{' ? OUTR_JSON_OBJECT : OUTR_JSON_ARRAY;
        r->at++;
        rc = read_items(r, value, value->kind == OUTR_JSON_OBJECT ? '}' : ']');
        break;
    case '"':
        value->kind = OUTR_JSON_STRING;
        rc = read_string(r, &value->text);
        break;
    case 't':
    case 'f':
        value->kind = OUTR_JSON_BOOL;
        value->boolean = *r->at == 't';
        if (!read_word(r, value->boolean ? "true" : "false"))
            return malformed(r, "a value is expected");
        break;
    case 'n':
        value->kind = OUTR_JSON_NULL;
        if (!read_word(r, "null"))
            return malformed(r, "a value is expected");
        break;
    default:
        rc = read_number(r, value);
    }
    if (!rc)
        value->raw = outr_str_of(start, (size_t)(r->at - start));
    return rc;
}

outr_code outr_json_parse(outr_json **out, outr_arena *arena, outr_str text, outr_err *err)
{
    const char *start = text.p ? text.p : "";
    reader r = {arena, start, start, start + text.n, 0, err};
    outr_json *root = outr_arena_try(arena, sizeof *root);
    if (!root)
        return too_big(&r);
    skip_space(&r);
    outr_code rc = read_value(&r, root);
    if (rc)
        return rc;
    skip_space(&r);
    if (r.at != r.end)
        return malformed(&r, "text after the value");
    *out = root;
    return OUTR_OK;
}

/* ---- looking --------------------------------------------------------------------------------- */

outr_json *outr_json_find(const outr_json *object, const char *key)
{
    outr_json *found = NULL;
    if (!object || object->kind != OUTR_JSON_OBJECT)
        return NULL;
    for (outr_json *m = object->child; m; m = m->next) {
        if (outr_str_is(m->key, key))
            found = m;
    }
    return found;
}

outr_json *outr_json_ifind(const outr_json *object, const char *key)
{
    outr_json *found = outr_json_find(object, key);
    if (found || !object || object->kind != OUTR_JSON_OBJECT)
        return found;
    for (outr_json *m = object->child; m; m = m->next) {
        if (outr_str_iis(m->key, key))
            found = m;
    }
    return found;
}

static outr_str text_of(const outr_json *m)
{
    return m && m->kind == OUTR_JSON_STRING ? m->text : OUTR_STR_NONE;
}

outr_str outr_json_text(const outr_json *object, const char *key)
{
    return text_of(outr_json_find(object, key));
}

outr_str outr_json_itext(const outr_json *object, const char *key)
{
    return text_of(outr_json_ifind(object, key));
}

bool outr_json_ibool(const outr_json *object, const char *key, bool otherwise)
{
    const outr_json *m = outr_json_ifind(object, key);
    return m && m->kind == OUTR_JSON_BOOL ? m->boolean : otherwise;
}

bool outr_json_i64(const outr_json *value, int64_t *out)
{
    return value && value->kind == OUTR_JSON_NUMBER &&
           outr_str_to_i64(value->text, INT64_MIN, INT64_MAX, out);
}

/* ---- writing --------------------------------------------------------------------------------- */

/* Length of the valid UTF-8 sequence at p, 0 when there is none. */
static size_t sequence(const char *p, const char *end)
{
    unsigned char c = (unsigned char)*p;
    size_t n = c < 0x80 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
    return (size_t)(end - p) >= n && outr_str_is_utf8(outr_str_of(p, n)) ? n : 0;
}

/* The escape of one character as Go's encoding/json writes it; NULL: as it is. *n is what it takes.
 */
static const char *escape(const char *p, const char *end, size_t *n, char scratch[8])
{
    unsigned char c = (unsigned char)*p;
    *n = 1;
    if (c >= 0x20 && c < 0x80 && c != '"' && c != '\\' && c != '<' && c != '>' && c != '&')
        return NULL;
    switch (c) {
    case '"':
        return "\\\"";
    case '\\':
        return "\\\\";
    case '\n':
        return "\\n";
    case '\r':
        return "\\r";
    case '\t':
        return "\\t";
    case '\b':
        return "\\b";
    case '\f':
        return "\\f";
    default:
        break;
    }
    if (c < 0x80) {
        snprintf(scratch, 8, "\\u%04x", c);
        return scratch;
    }
    size_t length = sequence(p, end);
    if (length == 0)
        return "\\ufffd";
    *n = length;
    if (length == 3 && memcmp(p, "\xe2\x80\xa8", 3) == 0)
        return "\\u2028";
    return length == 3 && memcmp(p, "\xe2\x80\xa9", 3) == 0 ? "\\u2029" : NULL;
}

void outr_json_quote(outr_buf *out, outr_str text)
{
    const char *p = text.p, *end = p + text.n, *kept = p;
    char scratch[8];
    size_t n;
    outr_buf_char(out, '"');
    while (p < end) {
        const char *e = escape(p, end, &n, scratch);
        if (e) {
            outr_buf_append(out, kept, (size_t)(p - kept));
            outr_buf_z(out, e);
            kept = p + n;
        }
        p += n;
    }
    outr_buf_append(out, kept, (size_t)(p - kept));
    outr_buf_char(out, '"');
}

void outr_json_quote_kvs(outr_buf *out, outr_kvs kvs)
{
    outr_buf_char(out, '{');
    for (size_t i = 0; i < kvs.count; i++) {
        if (i)
            outr_buf_char(out, ',');
        outr_json_quote(out, kvs.items[i].key);
        outr_buf_char(out, ':');
        outr_json_quote(out, kvs.items[i].value);
    }
    outr_buf_char(out, '}');
}

/* As Go prints a float64: shortest text that reads back the same, exponents without leading zero.
 */
static void write_double(outr_buf *out, double value)
{
    char text[40];
    double magnitude = fabs(value);
    bool has_exponent = magnitude != 0 && (magnitude < 1e-6 || magnitude >= 1e21);
    int precision = 0;
    for (; precision <= 17; precision++) {
        snprintf(text, sizeof text, "%.*e", precision, value);
        if (strtod(text, NULL) == value)
            break;
    }
    if (!has_exponent) {
        /* The same digits in plain notation: as many after the point as the exponent leaves. */
        const char *e = strchr(text, 'e');
        int64_t exponent = 0;
        outr_str_to_i64(outr_str_from(e + 1), -400, 400, &exponent);
        int decimals = precision - (int)exponent;
        if (decimals >= 0) {
            outr_buf_printf(out, "%.*f", decimals, value);
            return;
        }
        /* A whole number: zeros follow the shortest digits, not the digits of its value. */
        for (const char *p = text; p < e; p++) {
            if (*p != '.')
                outr_buf_char(out, *p);
        }
        for (; decimals < 0; decimals++)
            outr_buf_char(out, '0');
        return;
    }
    char *e = strchr(text, 'e');
    if (e[2] == '0') /* e-09 -> e-9 */
        memmove(e + 2, e + 3, strlen(e + 3) + 1);
    outr_buf_z(out, text);
}

/* Plain notation of at most 15 digits reads back as no other such text does (DBL_DIG), so without a
 * zero at its end it is the shortest already. Nearly every number is like that. */
static bool is_shortest(outr_str text)
{
    outr_str digits = text.p[0] == '-' ? outr_str_skip(text, 1) : text;
    bool has_point = memchr(digits.p, '.', digits.n) != NULL;
    if (digits.n > (size_t)DBL_DIG + has_point || outr_str_starts(digits, OUTR_STR("0.00000")))
        return false;
    for (size_t i = 0; i < digits.n; i++)
        if (digits.p[i] != '.' && (digits.p[i] < '0' || digits.p[i] > '9'))
            return false;
    return !has_point || digits.p[digits.n - 1] != '0';
}

static void write_number(outr_buf *out, const outr_json *value, unsigned style)
{
    double number;
    if ((style & OUTR_JSON_FLOAT64) && !is_shortest(value->text) &&
        outr_str_to_double(value->text, &number) && isfinite(number))
        write_double(out, number);
    else
        outr_buf_str(out, value->text);
}

static int by_key(const void *a, const void *b)
{
    const outr_json *const *x = a, *const *y = b;
    int c = outr_str_cmp((*x)->key, (*y)->key);
    return c ? c : ((*x)->raw.p > (*y)->raw.p) - ((*x)->raw.p < (*y)->raw.p);
}

static void write_member(outr_buf *out, const outr_json *m, unsigned style, bool is_first)
{
    if (!is_first)
        outr_buf_char(out, ',');
    outr_json_quote(out, m->key);
    outr_buf_char(out, ':');
    outr_json_write(out, m, style);
}

static void write_sorted(outr_buf *out, const outr_json *object, unsigned style)
{
    const outr_json *few[16], **members = object->count <= OUTR_LEN(few)
                                              ? few
                                              : outr_alloc(object->count * sizeof *members);
    size_t n = 0;
    bool is_first = true;
    for (const outr_json *m = object->child; m; m = m->next)
        members[n++] = m;
    qsort(members, n, sizeof *members, by_key);
    for (size_t i = 0; i < n; i++) {
        if (i + 1 < n && outr_str_eq(members[i]->key, members[i + 1]->key))
            continue; /* the last of several wins */
        write_member(out, members[i], style, is_first);
        is_first = false;
    }
    if (members != few)
        free(members);
}

void outr_json_write(outr_buf *out, const outr_json *value, unsigned style)
{
    switch (value->kind) {
    case OUTR_JSON_NULL:
        outr_buf_z(out, "null");
        break;
    case OUTR_JSON_BOOL:
        outr_buf_z(out, value->boolean ? "true" : "false");
        break;
    case OUTR_JSON_NUMBER:
        write_number(out, value, style);
        break;
    case OUTR_JSON_STRING:
        outr_json_quote(out, value->text);
        break;
    case OUTR_JSON_ARRAY:
        outr_buf_char(out, '[');
        for (const outr_json *item = value->child; item; item = item->next) {
            outr_json_write(out, item, style);
            if (item->next)
                outr_buf_char(out, ',');
        }
        outr_buf_char(out, ']');
        break;
    case OUTR_JSON_OBJECT:
        outr_buf_char(out, '{');
        if (style & OUTR_JSON_SORTED) {
            write_sorted(out, value, style);
        } else {
            for (const outr_json *m = value->child; m; m = m->next)
                write_member(out, m, style, m == value->child);
        }
        outr_buf_char(out, '}');
        break;
    }
}

/* ---- building -------------------------------------------------------------------------------- */

outr_json *outr_json_new(outr_arena *arena, outr_json_kind kind)
{
    outr_json *value = outr_arena_alloc(arena, sizeof *value);
    value->kind = kind;
    return value;
}

outr_json *outr_json_string(outr_arena *arena, outr_str text)
{
    outr_json *value = outr_json_new(arena, OUTR_JSON_STRING);
    value->text = text;
    return value;
}

outr_json *outr_json_number(outr_arena *arena, int64_t number)
{
    outr_json *value = outr_json_new(arena, OUTR_JSON_NUMBER);
    value->text = outr_arena_printf(arena, "%lld", (long long)number);
    return value;
}

void outr_json_put(outr_json *object, outr_str key, outr_json *value)
{
    outr_json **at = &object->child;
    value->key = key;
    for (; *at; at = &(*at)->next) {
        if (outr_str_eq((*at)->key, key)) {
            value->next = (*at)->next;
            *at = value;
            return;
        }
    }
    value->next = NULL;
    *at = value;
    object->count++;
}

void outr_json_push(outr_json *array, outr_json *value)
{
    outr_json **at = &array->child;
    while (*at)
        at = &(*at)->next;
    value->next = NULL;
    *at = value;
    array->count++;
}
