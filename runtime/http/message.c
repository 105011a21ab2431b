#include "http/message.h"

void outr_headers_init(outr_headers *h, outr_arena *arena)
{
    *h = (outr_headers){.arena = arena};
}

void outr_headers_add(outr_headers *h, outr_str name, outr_str value)
{
    if (h->count == h->cap) {
        size_t cap = h->cap ? h->cap * 2 : 16;
        outr_header *items = outr_arena_alloc(h->arena, cap * sizeof *items);
        if (h->count)
            memcpy(items, h->items, h->count * sizeof *items);
        h->items = items;
        h->cap = cap;
    }
    h->items[h->count++] = (outr_header){name, value, false};
}

/* Length and first letter tell most names apart before a comparison. */
static bool is_named(const outr_header *h, outr_str name)
{
    return h->name.n == name.n && ((h->name.p[0] ^ name.p[0]) & 0xdf) == 0 &&
           outr_str_ieq(h->name, name);
}

static void remove_named(outr_headers *h, outr_str name)
{
    size_t kept = 0;
    for (size_t i = 0; i < h->count; i++) {
        if (!is_named(&h->items[i], name))
            h->items[kept++] = h->items[i];
    }
    h->count = kept;
}

void outr_headers_remove(outr_headers *h, const char *name)
{
    remove_named(h, outr_str_from(name));
}

void outr_headers_set(outr_headers *h, outr_str name, outr_str value)
{
    remove_named(h, name);
    outr_headers_add(h, name, value);
}

outr_str outr_headers_get(const outr_headers *h, const char *name)
{
    outr_str wanted = outr_str_from(name);
    for (size_t i = 0; i < h->count; i++) {
        if (is_named(&h->items[i], wanted))
            return h->items[i].value;
    }
    return OUTR_STR_NONE;
}

bool outr_headers_has(const outr_headers *h, const char *name)
{
    outr_str wanted = outr_str_from(name);
    for (size_t i = 0; i < h->count; i++) {
        if (is_named(&h->items[i], wanted))
            return true;
    }
    return false;
}

static bool list_has(outr_str list, outr_str token)
{
    while (list.p) {
        outr_str item;
        list = outr_str_cut(list, ',', &item);
        if (outr_str_ieq(outr_str_trim(item), token))
            return true;
    }
    return false;
}

bool outr_headers_has_token(const outr_headers *h, const char *name, const char *token)
{
    outr_str wanted = outr_str_from(name);
    for (size_t i = 0; i < h->count; i++) {
        if (is_named(&h->items[i], wanted) && list_has(h->items[i].value, outr_str_from(token)))
            return true;
    }
    return false;
}

static bool is_always_hop_by_hop(outr_str name)
{
    switch (name.n) {
    case 2:
        return outr_str_iis(name, "TE");
    case 7:
        return outr_str_iis(name, "Upgrade") || outr_str_iis(name, "Trailer");
    case 10:
        return outr_str_iis(name, "Connection") || outr_str_iis(name, "Keep-Alive");
    case 14:
        return outr_str_iis(name, "HTTP2-Settings");
    case 16:
        return outr_str_iis(name, "Proxy-Connection");
    case 17:
        return outr_str_iis(name, "Transfer-Encoding");
    case 18:
        return outr_str_iis(name, "Proxy-Authenticate");
    case 19:
        return outr_str_iis(name, "Proxy-Authorization");
    default:
        return false;
    }
}

bool outr_header_is_hop_by_hop(const outr_headers *h, outr_str name)
{
    if (is_always_hop_by_hop(name))
        return true;
    for (size_t i = 0; i < h->count; i++) {
        if (is_named(&h->items[i], OUTR_STR("Connection")) && list_has(h->items[i].value, name))
            return true;
    }
    return false;
}

#define T (OUTR__CHAR_TOKEN | OUTR__CHAR_VALUE)
#define V OUTR__CHAR_VALUE
const unsigned char outr__header_chars[256] = {
    ['\t'] = V,        [' '] = V,         ['!'] = T,         ['"'] = V,         ['#' ... '\''] = T,
    ['(' ... ')'] = V, ['*' ... '+'] = T, [','] = V,         ['-' ... '.'] = T, ['/'] = V,
    ['0' ... '9'] = T, [':' ... '@'] = V, ['A' ... 'Z'] = T, ['[' ... ']'] = V, ['^' ... 'z'] = T,
    ['{'] = V,         ['|'] = T,         ['}'] = V,         ['~'] = T,         [0x80 ... 0xff] = V,
};
#undef T
#undef V

static bool has_only(outr_str s, unsigned char allowed)
{
    for (size_t i = 0; i < s.n; i++) {
        if (!(outr__header_chars[(unsigned char)s.p[i]] & allowed))
            return false;
    }
    return true;
}

bool outr_header_name_is_valid(outr_str name)
{
    return name.n > 0 && has_only(name, OUTR__CHAR_TOKEN);
}

/* Eight bytes at a time: none below a space, none DEL (a tab makes it look again, byte by byte). */
static bool is_value(outr_str s)
{
    const uint64_t ones = UINT64_C(0x0101010101010101), tops = ones << 7;
    size_t i = 0;
    for (; i + 8 <= s.n; i += 8) {
        uint64_t x, del;
        memcpy(&x, s.p + i, 8);
        del = x ^ (ones * 0x7f);
        if ((((x - ones * ' ') & ~x) | ((del - ones) & ~del)) & tops)
            break;
    }
    return has_only(outr_str_skip(s, i), OUTR__CHAR_VALUE);
}

bool outr_header_value_is_valid(outr_str value)
{
    return is_value(value) && outr_str_trim(value).n == value.n;
}

bool outr__header_is_own(outr_str name)
{
    switch (name.n) {
    case 4:
        return outr_str_iis(name, "Host");
    case 7:
        return outr_str_iis(name, "Upgrade");
    case 10:
        return outr_str_iis(name, "Connection") || outr_str_iis(name, "Keep-Alive");
    case 14:
        return outr_str_iis(name, "Content-Length") || outr_str_iis(name, "HTTP2-Settings");
    case 16:
        return outr_str_iis(name, "Proxy-Connection");
    case 17:
        return outr_str_iis(name, "Transfer-Encoding");
    default:
        return false;
    }
}

outr_str outr__header_value_clean(outr_arena *arena, outr_str value)
{
    if (is_value(value))
        return value;
    char *copy = outr_arena_strz(arena, value);
    for (size_t i = 0; i < value.n; i++) {
        if (!(outr__header_chars[(unsigned char)copy[i]] & OUTR__CHAR_VALUE))
            copy[i] = ' ';
    }
    return outr_str_of(copy, value.n);
}

bool outr_http_has_body(outr_str method, int status)
{
    return !outr_str_is(method, "HEAD") && status >= 200 && status != 204 && status != 304;
}

const char *outr_http_status_text(int status)
{
    static const struct {
        int status;
        const char *text;
    } texts[] = {
        {100, "Continue"},
        {101, "Switching Protocols"},
        {102, "Processing"},
        {103, "Early Hints"},
        {200, "OK"},
        {201, "Created"},
        {202, "Accepted"},
        {203, "Non-Authoritative Information"},
        {204, "No Content"},
        {205, "Reset Content"},
        {206, "Partial Content"},
        {207, "Multi-Status"},
        {208, "Already Reported"},
        {226, "IM Used"},
        {300, "Multiple Choices"},
        {301, "Moved Permanently"},
        {302, "Found"},
        {303, "See Other"},
        {304, "Not Modified"},
        {305, "Use Proxy"},
        {307, "Temporary Redirect"},
        {308, "Permanent Redirect"},
        {400, "Bad Request"},
        {401, "Unauthorized"},
        {402, "Payment Required"},
        {403, "Forbidden"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {406, "Not Acceptable"},
        {407, "Proxy Authentication Required"},
        {408, "Request Timeout"},
        {409, "Conflict"},
        {410, "Gone"},
        {411, "Length Required"},
        {412, "Precondition Failed"},
        {413, "Request Entity Too Large"},
        {414, "Request URI Too Long"},
        {415, "Unsupported Media Type"},
        {416, "Requested Range Not Satisfiable"},
        {417, "Expectation Failed"},
        {418, "I'm a teapot"},
        {421, "Misdirected Request"},
        {422, "Unprocessable Entity"},
        {423, "Locked"},
        {424, "Failed Dependency"},
        {425, "Too Early"},
        {426, "Upgrade Required"},
        {428, "Precondition Required"},
        {429, "Too Many Requests"},
        {431, "Request Header Fields Too Large"},
        {451, "Unavailable For Legal Reasons"},
        {500, "Internal Server Error"},
        {501, "Not Implemented"},
        {502, "Bad Gateway"},
        {503, "Service Unavailable"},
        {504, "Gateway Timeout"},
        {505, "HTTP Version Not Supported"},
        {506, "Variant Also Negotiates"},
        {507, "Insufficient Storage"},
        {508, "Loop Detected"},
        {510, "Not Extended"},
        {511, "Network Authentication Required"},
    };
    for (size_t i = 0; i < OUTR_LEN(texts); i++) {
        if (texts[i].status == status)
            return texts[i].text;
    }
    return "Unknown";
}
