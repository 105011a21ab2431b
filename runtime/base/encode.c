#include "base/encode.h"

static const char base64_digits[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
static const char hex_digits[] = "0123456789abcdef";
static const char upper_hex[] = "0123456789ABCDEF";

outr_str outr_base64_encode(outr_arena *arena, outr_str bytes)
{
    char *out = outr_arena_alloc(arena, (bytes.n + 2) / 3 * 4 + 1), *at = out;
    const unsigned char *p = (const unsigned char *)bytes.p;
    for (size_t i = 0; i < bytes.n; i += 3) {
        size_t left = bytes.n - i;
        uint32_t v = (uint32_t)p[i] << 16 | (left > 1 ? (uint32_t)p[i + 1] << 8 : 0) |
                     (left > 2 ? p[i + 2] : 0);
        *at++ = base64_digits[v >> 18];
        *at++ = base64_digits[v >> 12 & 63];
        *at++ = left > 1 ? base64_digits[v >> 6 & 63] : '=';
        *at++ = left > 2 ? base64_digits[v & 63] : '=';
    }
    return outr_str_of(out, (size_t)(at - out));
}

static int base64_value(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    if (c == '+' || c == '-')
        return 62;
    return c == '/' || c == '_' ? 63 : -1;
}

bool outr_base64_decode(outr_arena *arena, outr_str text, outr_str *out)
{
    size_t padding = 0;
    while (text.n && padding < 2 && text.p[text.n - 1] == '=') {
        text.n--;
        padding++;
    }
    if (text.n % 4 == 1 || (padding && (text.n + padding) % 4))
        return false;
    char *bytes = outr_arena_try(arena, text.n / 4 * 3 + 3);
    size_t n = 0;
    uint32_t v = 0;
    if (!bytes)
        return false;
    for (size_t i = 0; i < text.n; i++) {
        int digit = base64_value(text.p[i]);
        if (digit < 0)
            return false;
        v = v << 6 | (uint32_t)digit;
        if (i % 4 == 3) {
            bytes[n++] = (char)(v >> 16);
            bytes[n++] = (char)(v >> 8);
            bytes[n++] = (char)v;
        }
    }
    if (text.n % 4 == 2)
        bytes[n++] = (char)(v >> 4);
    if (text.n % 4 == 3) {
        bytes[n++] = (char)(v >> 10);
        bytes[n++] = (char)(v >> 2);
    }
    *out = outr_str_of(bytes, n);
    return true;
}

void outr_hex_encode(const void *bytes, size_t n, char *out)
{
    const unsigned char *p = bytes;
    for (size_t i = 0; i < n; i++) {
        out[2 * i] = hex_digits[p[i] >> 4];
        out[2 * i + 1] = hex_digits[p[i] & 15];
    }
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

bool outr_hex_decode(outr_str text, void *out, size_t n)
{
    unsigned char *p = out;
    if (text.n != 2 * n)
        return false;
    for (size_t i = 0; i < n; i++) {
        int high = hex_value(text.p[2 * i]), low = hex_value(text.p[2 * i + 1]);
        if (high < 0 || low < 0)
            return false;
        p[i] = (unsigned char)(high << 4 | low);
    }
    return true;
}

bool outr_percent_decode(outr_arena *arena, outr_str text, bool plus_is_space, outr_str *out)
{
    bool has_any =
        outr_str_find(text, '%') >= 0 || (plus_is_space && outr_str_find(text, '+') >= 0);
    if (!has_any) {
        *out = text;
        return true;
    }
    char *bytes = outr_arena_try(arena, text.n + 1);
    size_t n = 0;
    if (!bytes)
        return false;
    for (size_t i = 0; i < text.n; i++) {
        char c = text.p[i];
        if (c == '%') {
            if (text.n - i < 3)
                return false;
            int high = hex_value(text.p[i + 1]), low = hex_value(text.p[i + 2]);
            if (high < 0 || low < 0)
                return false;
            c = (char)(high << 4 | low);
            i += 2;
        } else if (c == '+' && plus_is_space) {
            c = ' ';
        }
        bytes[n++] = c;
    }
    *out = outr_str_of(bytes, n);
    return true;
}

static bool is_unreserved(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '.' || c == '_' || c == '~';
}

outr_str outr_percent_encode(outr_arena *arena, outr_str text, const char *keep)
{
    char *out = outr_arena_alloc(arena, text.n * 3 + 1), *at = out;
    for (size_t i = 0; i < text.n; i++) {
        char c = text.p[i];
        if (is_unreserved(c) || (c && strchr(keep, c))) {
            *at++ = c;
        } else {
            *at++ = '%';
            *at++ = upper_hex[(unsigned char)c >> 4];
            *at++ = upper_hex[(unsigned char)c & 15];
        }
    }
    return outr_str_of(out, (size_t)(at - out));
}
