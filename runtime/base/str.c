#include "base/str.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <sys/random.h>

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
}

bool outr_str_ieq_bytes(const char *a, const char *b, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (a[i] != b[i] && lower(a[i]) != lower(b[i]))
            return false;
    }
    return true;
}

int outr_str_cmp(outr_str a, outr_str b)
{
    size_t n = OUTR_MIN(a.n, b.n);
    int c = n ? memcmp(a.p, b.p, n) : 0;
    return c ? c : (a.n > b.n) - (a.n < b.n);
}

bool outr_str_starts(outr_str s, outr_str prefix)
{
    return s.n >= prefix.n && outr_str_eq(outr_str_head(s, prefix.n), prefix);
}

bool outr_str_istarts(outr_str s, outr_str prefix)
{
    return s.n >= prefix.n && outr_str_ieq(outr_str_head(s, prefix.n), prefix);
}

bool outr_str_ends(outr_str s, outr_str suffix)
{
    return s.n >= suffix.n && outr_str_eq(outr_str_skip(s, s.n - suffix.n), suffix);
}

outr_str outr_str_skip(outr_str s, size_t n)
{
    n = OUTR_MIN(n, s.n);
    return (outr_str){s.p ? s.p + n : NULL, s.n - n};
}

outr_str outr_str_head(outr_str s, size_t n)
{
    return (outr_str){s.p, OUTR_MIN(n, s.n)};
}

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

outr_str outr_str_trim(outr_str s)
{
    while (s.n && is_space(s.p[0]))
        s = outr_str_skip(s, 1);
    while (s.n && is_space(s.p[s.n - 1]))
        s.n--;
    return s;
}

ptrdiff_t outr_str_find(outr_str s, char c)
{
    const char *at = s.n ? memchr(s.p, c, s.n) : NULL;
    return at ? at - s.p : -1;
}

ptrdiff_t outr_str_rfind(outr_str s, char c)
{
    const char *at = s.n ? memrchr(s.p, c, s.n) : NULL;
    return at ? at - s.p : -1;
}

ptrdiff_t outr_str_search(outr_str s, outr_str needle)
{
    if (needle.n == 0)
        return 0;
    const char *at = s.n ? memmem(s.p, s.n, needle.p, needle.n) : NULL;
    return at ? at - s.p : -1;
}

outr_str outr_str_cut(outr_str s, char c, outr_str *head)
{
    ptrdiff_t at = outr_str_find(s, c);
    if (at < 0) {
        *head = s;
        return OUTR_STR_NONE;
    }
    *head = outr_str_head(s, (size_t)at);
    return outr_str_skip(s, (size_t)at + 1);
}

bool outr_str_is_utf8(outr_str s)
{
    const unsigned char *p = (const unsigned char *)s.p, *end = p + s.n;
    while (p < end) {
        unsigned c = *p++, more, min;
        if (c < 0x80)
            continue;
        if (c >= 0xc2 && c < 0xe0)
            more = 1, min = 0x80, c &= 0x1f;
        else if (c >= 0xe0 && c < 0xf0)
            more = 2, min = 0x800, c &= 0x0f;
        else if (c >= 0xf0 && c < 0xf5)
            more = 3, min = 0x10000, c &= 0x07;
        else
            return false;
        for (; more > 0; more--) {
            if (p == end || (*p & 0xc0) != 0x80)
                return false;
            c = c << 6 | (*p++ & 0x3f);
        }
        if (c < min || c > 0x10ffff || (c >= 0xd800 && c < 0xe000))
            return false;
    }
    return true;
}

bool outr_str_to_u64(outr_str s, uint64_t max, uint64_t *out)
{
    uint64_t value = 0;
    if (s.n == 0)
        return false;
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] < '0' || s.p[i] > '9')
            return false;
        unsigned digit = (unsigned)(s.p[i] - '0');
        if (value > (UINT64_MAX - digit) / 10)
            return false;
        value = value * 10 + digit;
    }
    if (value > max)
        return false;
    *out = value;
    return true;
}

outr_str outr_str_decimal(char text[20], uint64_t value)
{
    size_t at = 20;
    do {
        text[--at] = (char)('0' + value % 10);
        value /= 10;
    } while (value > 0);
    return outr_str_of(text + at, 20 - at);
}

bool outr_str_to_i64(outr_str s, int64_t min, int64_t max, int64_t *out)
{
    uint64_t magnitude;
    bool is_negative = s.n && s.p[0] == '-';
    if (s.n && (s.p[0] == '-' || s.p[0] == '+'))
        s = outr_str_skip(s, 1);
    if (!outr_str_to_u64(s, (uint64_t)INT64_MAX + is_negative, &magnitude))
        return false;
    int64_t value = is_negative ? (int64_t)(0 - magnitude) : (int64_t)magnitude;
    if (value < min || value > max)
        return false;
    *out = value;
    return true;
}

bool outr_str_to_double(outr_str s, double *out)
{
    char text[64], *end;
    if (s.n == 0 || s.n >= sizeof text || is_space(s.p[0]))
        return false;
    memcpy(text, s.p, s.n);
    text[s.n] = 0;
    double value = strtod(text, &end);
    if (end != text + s.n)
        return false;
    *out = value;
    return true;
}

bool outr_str_to_bool(outr_str s, bool *out)
{
    static const char *const yes[] = {"1", "t", "true", "y", "yes", "on"};
    static const char *const no[] = {"0", "f", "false", "n", "no", "off"};
    for (size_t i = 0; i < OUTR_LEN(yes); i++) {
        if (outr_str_iis(s, yes[i]) || outr_str_iis(s, no[i])) {
            *out = outr_str_iis(s, yes[i]);
            return true;
        }
    }
    return false;
}

/* Digits with an optional fraction off the front of *s; false without a digit. */
static bool take_decimal(outr_str *s, double *out)
{
    double value = 0, scale = 1;
    bool has_digit = false, in_fraction = false;
    size_t i = 0;
    for (; i < s->n; i++) {
        char c = s->p[i];
        if (c == '.' && !in_fraction) {
            in_fraction = true;
            continue;
        }
        if (c < '0' || c > '9')
            break;
        has_digit = true;
        if (in_fraction)
            value += (c - '0') * (scale /= 10);
        else
            value = value * 10 + (c - '0');
    }
    *s = outr_str_skip(*s, i);
    *out = value;
    return has_digit;
}

typedef struct unit {
    const char *name;
    double factor;
} unit;

static const unit *take_unit(outr_str *s, const unit *units, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (outr_str_starts(*s, outr_str_from(units[i].name))) {
            *s = outr_str_skip(*s, strlen(units[i].name));
            return &units[i];
        }
    }
    return NULL;
}

static bool fit(double value, int64_t *out)
{
    if (!(value > -9.2e18 && value < 9.2e18))
        return false;
    *out = (int64_t)(value < 0 ? value - 0.5 : value + 0.5);
    return true;
}

bool outr_str_to_duration(outr_str s, int64_t *out_ns)
{
    static const unit units[] = {
        /* longer names before their prefixes */
        {"ns", 1},   {"us", 1e3}, {"\xc2\xb5s", 1e3}, {"\xce\xbcs", 1e3},
        {"ms", 1e6}, {"s", 1e9},  {"m", 60e9},        {"h", 3600e9},
    };
    double total = 0, part;
    bool is_negative = s.n && s.p[0] == '-';
    if (s.n && (s.p[0] == '-' || s.p[0] == '+'))
        s = outr_str_skip(s, 1);
    if (outr_str_is(s, "0"))
        return *out_ns = 0, true;
    if (s.n == 0)
        return false;
    while (s.n) {
        if (!take_decimal(&s, &part))
            return false;
        const unit *u = take_unit(&s, units, OUTR_LEN(units));
        if (!u)
            return false;
        total += part * u->factor;
    }
    return fit(is_negative ? -total : total, out_ns);
}

bool outr_str_to_quantity(outr_str s, int64_t *out)
{
    static const unit units[] = {
        {"Ki", 0x1p10}, {"Mi", 0x1p20}, {"Gi", 0x1p30}, {"Ti", 0x1p40}, {"Pi", 0x1p50},
        {"Ei", 0x1p60}, {"m", 1e-3},    {"k", 1e3},     {"M", 1e6},     {"G", 1e9},
        {"T", 1e12},    {"P", 1e15},    {"E", 1e18},
    };
    double value;
    bool is_negative = s.n && s.p[0] == '-';
    if (s.n && (s.p[0] == '-' || s.p[0] == '+'))
        s = outr_str_skip(s, 1);
    if (!take_decimal(&s, &value))
        return false;
    int64_t exponent;
    if (s.n > 1 && (s.p[0] | 0x20) == 'e' &&
        outr_str_to_i64(outr_str_skip(s, 1), -18, 18, &exponent)) {
        value *= pow(10, (double)exponent);
        s = OUTR_STR_NONE;
    }
    const unit *u = take_unit(&s, units, OUTR_LEN(units));
    if (u)
        value *= u->factor;
    return s.n == 0 && fit(is_negative ? -value : value, out);
}

char *outr_str_dup(outr_str s)
{
    char *copy = outr_alloc(s.n + 1);
    if (s.n)
        memcpy(copy, s.p, s.n);
    return copy;
}

/* ---- hash ------------------------------------------------------------------------------------ */

/* One random key for the process, so that nobody outside can choose colliding keys. Written once.
 */
static uint64_t hash_key[2];
static pthread_once_t hash_once = PTHREAD_ONCE_INIT;

static void make_hash_key(void)
{
    if (getrandom(hash_key, sizeof hash_key, GRND_NONBLOCK) != (ssize_t)sizeof hash_key) {
        hash_key[0] = (uint64_t)(uintptr_t)&hash_key ^ UINT64_C(0x9e3779b97f4a7c15);
        hash_key[1] = UINT64_C(0xd1b54a32d192ed03);
    }
}

/* A folded 64x64 multiply, the step of wyhash (public domain description, Wang Yi). */
static uint64_t mix(uint64_t a, uint64_t b)
{
    __uint128_t product = (__uint128_t)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

uint64_t outr_str_hash(outr_str s, uint64_t seed)
{
    pthread_once(&hash_once, make_hash_key);
    uint64_t h = seed ^ hash_key[0], word;
    size_t n = s.n;
    const char *p = s.p;
    for (; n >= 8; n -= 8, p += 8) {
        memcpy(&word, p, 8);
        h = mix(h ^ word, hash_key[1] | 1) + UINT64_C(0x9e3779b97f4a7c15);
    }
    word = 0;
    if (n)
        memcpy(&word, p, n);
    return mix(h ^ word ^ s.n << 56, UINT64_C(0xe7037ed1a0b428db) ^ hash_key[0]);
}
