#include "components/common/dns.h"

#define HEAD          12
#define CLASS_IN      1
#define CLASS_FLUSH   0x8000 /* RFC 6762 section 10.2: these records are all there are */
#define FLAG_RESPONSE 0x8000
#define FLAG_AA       0x0400
#define JUMPS_MAX     32
#define LABEL_MAX     63

/* ---- reading --------------------------------------------------------------------------------- */

static uint16_t u16(const char *p)
{
    return (uint16_t)((unsigned char)p[0] << 8 | (unsigned char)p[1]);
}

static uint32_t u32(const char *p)
{
    return (uint32_t)u16(p) << 16 | u16(p + 2);
}

/* The name at *at, which then is behind it. */
static bool read_name(outr_str m, size_t *at, outr_dns_name *out)
{
    size_t here = *at, limit = *at + 1;
    bool has_jumped = false;
    out->n = 0;
    for (int jumps = 0; here < m.n;) {
        unsigned char length = (unsigned char)m.p[here];
        if (length == 0) {
            if (!has_jumped)
                *at = here + 1;
            out->text[out->n] = 0;
            return true;
        }
        if ((length & 0xc0) == 0xc0) {
            if (here + 2 > m.n || ++jumps > JUMPS_MAX)
                return false;
            size_t to = u16(m.p + here) & 0x3fff;
            if (!has_jumped)
                *at = here + 2;
            has_jumped = true;
            if (to >= limit) /* forward, or to itself */
                return false;
            here = limit = to;
            limit++;
            continue;
        }
        if (length > LABEL_MAX || here + 1 + length > m.n ||
            out->n + length + 1 > OUTR_DNS_NAME_MAX)
            return false;
        if (out->n > 0)
            out->text[out->n++] = '.';
        for (size_t i = 0; i < length; i++) {
            char c = m.p[here + 1 + i];
            out->text[out->n++] = c == '.' || c == 0 ? '-' : c;
        }
        here += 1 + (size_t)length;
    }
    return false;
}

bool outr_dns_read(outr_dns_reader *r, outr_str message)
{
    if (message.n < HEAD || message.n > OUTR_DNS_MESSAGE_MAX)
        return false;
    uint16_t flags = u16(message.p + 2);
    uint32_t records = (uint32_t)u16(message.p + 6) + u16(message.p + 8) + u16(message.p + 10);
    *r = (outr_dns_reader){.message = message,
                           .at = HEAD,
                           .questions = u16(message.p + 4),
                           .records = (uint16_t)OUTR_MIN(records, UINT16_MAX),
                           .is_response = (flags & FLAG_RESPONSE) != 0};
    return (flags & 0x7800) == 0; /* a standard query */
}

static bool read_data(outr_str m, size_t at, size_t n, outr_dns_record *out)
{
    switch (out->type) {
    case OUTR_DNS_A:
        memcpy(out->ip, m.p + at, OUTR_MIN(n, 4));
        return n == 4;
    case OUTR_DNS_AAAA:
        memcpy(out->ip, m.p + at, OUTR_MIN(n, 16));
        return n == 16;
    case OUTR_DNS_PTR:
        return read_name(m, &at, &out->target);
    case OUTR_DNS_SRV:
        if (n < 7)
            return false;
        out->priority = u16(m.p + at);
        out->weight = u16(m.p + at + 2);
        out->port = u16(m.p + at + 4);
        at += 6;
        return read_name(m, &at, &out->target);
    case OUTR_DNS_TXT:
        out->texts = outr_str_of(m.p + at, n);
        return true;
    default:
        return true;
    }
}

bool outr_dns_next(outr_dns_reader *r, outr_dns_record *out)
{
    outr_str m = r->message;
    *out = (outr_dns_record){.is_question = r->questions > 0};
    if (r->questions == 0 && r->records == 0)
        return false;
    if (!read_name(m, &r->at, &out->name) || r->at + 4 > m.n)
        return false;
    out->type = u16(m.p + r->at);
    if (out->is_question) {
        r->questions--;
        r->at += 4;
        return true;
    }
    if (r->at + 10 > m.n)
        return false;
    out->ttl_s = u32(m.p + r->at + 4);
    size_t n = u16(m.p + r->at + 8);
    r->at += 10;
    if (r->at + n > m.n || !read_data(m, r->at, n, out))
        return false;
    r->at += n;
    r->records--;
    return true;
}

bool outr_dns_text(outr_str *texts, outr_str *out)
{
    if (texts->n == 0 || (size_t)(unsigned char)texts->p[0] + 1 > texts->n)
        return false;
    *out = outr_str_of(texts->p + 1, (unsigned char)texts->p[0]);
    *texts = outr_str_skip(*texts, out->n + 1);
    return true;
}

/* ---- writing --------------------------------------------------------------------------------- */

static void put(outr_dns_writer *w, const void *p, size_t n)
{
    if (w->is_full || w->n + n > sizeof w->bytes) {
        w->is_full = true;
        return;
    }
    memcpy(w->bytes + w->n, p, n);
    w->n += n;
}

static void put_u16(outr_dns_writer *w, uint32_t value)
{
    const char bytes[2] = {(char)(value >> 8), (char)value};
    put(w, bytes, 2);
}

static void put_name(outr_dns_writer *w, outr_str name)
{
    outr_str label;
    while (name.p && name.n > 0) {
        name = outr_str_cut(name, '.', &label);
        if (label.n == 0)
            continue;
        label = outr_str_head(label, LABEL_MAX);
        char n = (char)label.n;
        put(w, &n, 1);
        put(w, label.p, label.n);
    }
    put(w, "", 1);
}

void outr_dns_begin(outr_dns_writer *w, bool is_response)
{
    w->n = 0;
    w->is_full = false;
    put_u16(w, 0);
    put_u16(w, is_response ? FLAG_RESPONSE | FLAG_AA : 0);
    for (int i = 0; i < 4; i++)
        put_u16(w, 0);
}

/* One more question (at 4) or answer (at 6), when all of it went in. */
static void count(outr_dns_writer *w, size_t at, size_t before)
{
    if (w->is_full) {
        w->n = before;
        return;
    }
    uint16_t n = (uint16_t)(u16(w->bytes + at) + 1);
    w->bytes[at] = (char)(n >> 8);
    w->bytes[at + 1] = (char)n;
}

void outr_dns_ask(outr_dns_writer *w, outr_str name, uint16_t type)
{
    size_t before = w->n;
    put_name(w, name);
    put_u16(w, type);
    put_u16(w, CLASS_IN);
    count(w, 4, before);
}

static void put_record(outr_dns_writer *w, outr_str name, uint16_t type, uint32_t ttl_s,
                       bool is_own)
{
    put_name(w, name);
    put_u16(w, type);
    put_u16(w, CLASS_IN | (is_own ? CLASS_FLUSH : 0));
    put_u16(w, ttl_s >> 16);
    put_u16(w, ttl_s & 0xffff);
    put_u16(w, 0); /* length, below */
}

static void end_record(outr_dns_writer *w, size_t before, size_t data)
{
    if (!w->is_full) {
        size_t n = w->n - data;
        w->bytes[data - 2] = (char)(n >> 8);
        w->bytes[data - 1] = (char)n;
    }
    count(w, 6, before);
}

void outr_dns_put_pointer(outr_dns_writer *w, outr_str name, uint32_t ttl_s, outr_str to)
{
    size_t before = w->n;
    put_record(w, name, OUTR_DNS_PTR, ttl_s, false);
    size_t data = w->n;
    put_name(w, to);
    end_record(w, before, data);
}

void outr_dns_put_service(outr_dns_writer *w, outr_str name, uint32_t ttl_s, uint16_t port,
                          outr_str host)
{
    size_t before = w->n;
    put_record(w, name, OUTR_DNS_SRV, ttl_s, true);
    size_t data = w->n;
    put_u16(w, 0); /* priority, weight */
    put_u16(w, 0);
    put_u16(w, port);
    put_name(w, host);
    end_record(w, before, data);
}

void outr_dns_put_texts(outr_dns_writer *w, outr_str name, uint32_t ttl_s, const outr_str *texts,
                        size_t n_texts)
{
    size_t before = w->n;
    put_record(w, name, OUTR_DNS_TXT, ttl_s, true);
    size_t data = w->n;
    for (size_t i = 0; i < n_texts; i++) {
        outr_str text = outr_str_head(texts[i], 255);
        char n = (char)text.n;
        put(w, &n, 1);
        put(w, text.p, text.n);
    }
    end_record(w, before, data);
}

void outr_dns_put_address(outr_dns_writer *w, outr_str name, uint32_t ttl_s, const uint8_t *ip,
                          size_t n)
{
    size_t before = w->n;
    put_record(w, name, n == 4 ? OUTR_DNS_A : OUTR_DNS_AAAA, ttl_s, true);
    size_t data = w->n;
    put(w, ip, n);
    end_record(w, before, data);
}
