/* Any bytes as URL, host and port, path, query and escaped text: parts lie in the whole, what is put
 * together again comes apart the same way, a cleaned path is clean, decoding undoes encoding. */
#include "base/encode.h"
#include "base/url.h"
#include "loop/env.h"
#include "tests/fuzz/property.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool lies_in(outr_str part, outr_str whole)
{
    return !part.p || (part.p >= whole.p && part.p + part.n <= whole.p + whole.n);
}

static outr_str compose(outr_arena *arena, const outr_url *u)
{
    bool is_v6 = outr_str_find(u->host, ':') >= 0;
    outr_str port = u->port ? outr_arena_printf(arena, ":%u", u->port) : OUTR_STR_NONE;
    outr_str s = outr_arena_join(arena, u->scheme, OUTR_STR("://"), u->userinfo);
    s = outr_arena_join(arena, s, u->userinfo.p ? OUTR_STR("@") : OUTR_STR_NONE,
                        is_v6 ? OUTR_STR("[") : OUTR_STR_NONE);
    s = outr_arena_join(arena, s, u->host, is_v6 ? OUTR_STR("]") : OUTR_STR_NONE);
    s = outr_arena_join(arena, s, port, u->path);
    return outr_arena_join(arena, s, u->query.p ? OUTR_STR("?") : OUTR_STR_NONE, u->query);
}

static void check_url(outr_arena *arena, outr_str text)
{
    outr_url u, again;
    outr_err err = {0};
    if (outr_url_parse(&u, text, &err)) {
        PROPERTY(err.code == OUTR_INVALID_ARGUMENT);
        return;
    }
    PROPERTY(lies_in(u.scheme, text) && lies_in(u.userinfo, text) && lies_in(u.host, text));
    PROPERTY(lies_in(u.path, text) && lies_in(u.query, text));
    PROPERTY(u.scheme.n > 0 && u.host.n > 0);
    PROPERTY(u.path.n == 0 || u.path.p[0] == '/');
    for (size_t i = 0; i < u.scheme.n; i++)
        PROPERTY((u.scheme.p[i] | 0x20) >= 'a' ||
                 (i > 0 && memchr("+-.0123456789", u.scheme.p[i], 13)));
    for (size_t i = 0; i < u.host.n; i++)
        PROPERTY((unsigned char)u.host.p[i] > ' ' && u.host.p[i] != 0x7f);
    outr_str whole = compose(arena, &u);
    PROPERTY(outr_url_parse(&again, whole, &err) == OUTR_OK);
    PROPERTY(outr_str_eq(u.scheme, again.scheme) && outr_str_eq(u.userinfo, again.userinfo));
    PROPERTY(outr_str_eq(u.host, again.host) && u.port == again.port);
    PROPERTY(outr_str_eq(u.path, again.path) && outr_str_eq(u.query, again.query));
}

static void check_address(outr_str text)
{
    char printed[OUTR_ADDR_TEXT_MAX];
    outr_addr addr, again;
    if (outr_addr_parse(&addr, text, NULL))
        return;
    size_t n = outr_addr_text(&addr, printed);
    PROPERTY(n > 0 && n < sizeof printed && strlen(printed) == n);
    PROPERTY(outr_addr_parse(&again, outr_str_of(printed, n), NULL) == OUTR_OK);
    PROPERTY(again.kind == addr.kind && again.port == addr.port);
    PROPERTY(memcmp(again.ip, addr.ip, sizeof addr.ip) == 0 && strcmp(again.path, addr.path) == 0);
}

static void check_path(outr_arena *arena, outr_str path)
{
    outr_str clean = outr_path_clean(arena, path), rest = clean, segment;
    PROPERTY(clean.n > 0 && clean.p[0] == '/' && clean.n <= path.n + 1);
    PROPERTY(outr_str_eq(outr_path_clean(arena, clean), clean));
    for (rest = outr_str_skip(rest, 1); rest.p;) {
        rest = outr_str_cut(rest, '/', &segment);
        PROPERTY(!outr_str_is(segment, ".") && !outr_str_is(segment, ".."));
        PROPERTY(segment.n > 0 || !rest.p);
    }
}

static void check_query(outr_arena *arena, outr_str query)
{
    outr_str key, value, rest = query, joined = OUTR_STR("");
    size_t count = 0, again = 0;
    while (count < 200 && outr_query_next(&rest, &key, &value)) {
        PROPERTY(lies_in(key, query) && lies_in(value, query));
        PROPERTY(outr_str_find(key, '=') < 0 && outr_str_find(key, '&') < 0);
        PROPERTY(outr_str_find(value, '&') < 0);
        joined = outr_arena_join(arena, joined, OUTR_STR("&"), key);
        joined = outr_arena_join(arena, joined, value.p ? OUTR_STR("=") : OUTR_STR_NONE, value);
        count += key.n || value.p;
    }
    while (outr_query_next(&joined, &key, &value))
        again++;
    PROPERTY(count == again);
}

static void check_encodings(outr_arena *arena, outr_str bytes)
{
    outr_str decoded, encoded = outr_base64_encode(arena, bytes);
    PROPERTY(encoded.n == (bytes.n + 2) / 3 * 4);
    PROPERTY(outr_base64_decode(arena, encoded, &decoded) && outr_str_eq(decoded, bytes));
    encoded = outr_percent_encode(arena, bytes, "/");
    PROPERTY(encoded.n <= 3 * bytes.n);
    PROPERTY(outr_percent_decode(arena, encoded, false, &decoded) && outr_str_eq(decoded, bytes));
    if (outr_percent_decode(arena, bytes, true, &decoded))
        PROPERTY(decoded.n <= bytes.n);
    if (outr_base64_decode(arena, bytes, &decoded))
        PROPERTY(decoded.n <= bytes.n / 4 * 3 + 2);
    char *hex = outr_arena_alloc(arena, 2 * bytes.n + 1);
    uint8_t *back = outr_arena_alloc(arena, bytes.n + 1);
    outr_hex_encode(bytes.p, bytes.n, hex);
    PROPERTY(outr_hex_decode(outr_str_of(hex, 2 * bytes.n), back, bytes.n));
    PROPERTY(bytes.n == 0 || memcmp(back, bytes.p, bytes.n) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    outr_str text = outr_str_of(data, OUTR_MIN(size, (size_t)4096));
    outr_arena *arena = outr_arena_new(16 * OUTR_MIB);
    check_url(arena, text);
    check_address(text);
    check_path(arena, text);
    check_query(arena, text);
    check_encodings(arena, text);
    outr_arena_free(arena);
    return 0;
}
