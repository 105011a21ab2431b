#include "observe/trace.h"

#include "base/encode.h"
#include "observe/baggage.h"

#define TRACESTATE_MAX         512  /* longer is dropped (contract/headers.csv) */
#define TRACESTATE_MEMBERS_MAX 32   /* W3C Trace Context section 3.3.1.1 */

static bool is_zero(const uint8_t *p, size_t n)
{
    uint8_t any = 0;
    for (size_t i = 0; i < n; i++)
        any |= p[i];
    return any == 0;
}

/* Lower case only: W3C Trace Context section 3.2.2. */
static bool read_hex(outr_str s, void *out, size_t n)
{
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] >= 'A' && s.p[i] <= 'F')
            return false;
    }
    return outr_hex_decode(s, out, n);
}

bool outr_trace_parse(outr_trace *out, outr_str s)
{
    uint8_t version;
    *out = (outr_trace){0};
    s = outr_str_trim(s);
    if (s.n < OUTR_TRACEPARENT_LEN || s.p[2] != '-' || s.p[35] != '-' || s.p[52] != '-')
        return false;
    if (!read_hex(outr_str_of(s.p, 2), &version, 1) || version == 0xff)
        return false;
    /* Version 00 has exactly this length; later ones may go on after another dash. */
    if (s.n > OUTR_TRACEPARENT_LEN && (version == 0 || s.p[OUTR_TRACEPARENT_LEN] != '-'))
        return false;
    outr_trace trace = {0};
    if (!read_hex(outr_str_of(s.p + 3, 32), trace.trace_id, 16) ||
        !read_hex(outr_str_of(s.p + 36, 16), trace.span_id, 8) ||
        !read_hex(outr_str_of(s.p + 53, 2), &trace.flags, 1))
        return false;
    if (is_zero(trace.trace_id, 16) || is_zero(trace.span_id, 8))
        return false;
    trace.is_valid = true;
    *out = trace;
    return true;
}

static bool is_state_key(outr_str key)
{
    if (key.n == 0 || key.n > 256)
        return false;
    for (size_t i = 0; i < key.n; i++) {
        char c = key.p[i];
        bool is_alnum = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
        if (!is_alnum && (i == 0 || !memchr("_-*/@", c, 5)))
            return false;
    }
    return true;
}

/* W3C Trace Context section 3.3.1: list members key=value, printable, no comma or equals sign, a
 * value never empty. */
static bool is_state(outr_str state)
{
    size_t members = 0;
    if (state.n == 0 || state.n > TRACESTATE_MAX)
        return false;
    while (state.p) {
        outr_str member, key;
        state = outr_str_cut(state, ',', &member);
        member = outr_str_trim(member);
        if (member.n == 0)
            continue;
        outr_str value = outr_str_cut(member, '=', &key);
        if (value.n == 0 || value.n > 256 || !is_state_key(key) ||
            ++members > TRACESTATE_MEMBERS_MAX)
            return false;
        for (size_t i = 0; i < value.n; i++) {
            if (value.p[i] < 0x20 || value.p[i] > 0x7e || value.p[i] == '=')
                return false;
        }
    }
    return members > 0;
}

/* The lines of a list are one list: RFC 9110 section 5.3, W3C Trace Context section 3.3.1.1. */
static outr_str read_state(const outr_headers *headers)
{
    outr_str all = OUTR_STR_NONE;
    for (size_t i = 0; i < headers->count; i++) {
        const outr_header *h = &headers->items[i];
        if (!outr_str_iis(h->name, "tracestate"))
            continue;
        if (all.n > TRACESTATE_MAX)
            break;
        all = all.p ? outr_arena_join(headers->arena, all, OUTR_STR(","), h->value) : h->value;
    }
    return is_state(all) ? all : OUTR_STR_NONE;
}

void outr_trace_read(outr_trace *out, const outr_headers *headers)
{
    if (outr_trace_parse(out, outr_headers_get(headers, "traceparent")))
        out->state = read_state(headers);
}

bool outr_trace_parse_bin(outr_trace *out, outr_str bytes)
{
    outr_trace trace = {.is_valid = true};
    *out = (outr_trace){0};
    if (bytes.n != OUTR_TRACE_BIN_LEN || bytes.p[0] != 0 || bytes.p[1] != 0 || bytes.p[18] != 1 ||
        bytes.p[27] != 2)
        return false;
    memcpy(trace.trace_id, bytes.p + 2, 16);
    memcpy(trace.span_id, bytes.p + 19, 8);
    trace.flags = (uint8_t)bytes.p[28];
    if (is_zero(trace.trace_id, 16) || is_zero(trace.span_id, 8))
        return false;
    *out = trace;
    return true;
}

void outr_trace_write_bin(const outr_trace *trace, char out[OUTR_TRACE_BIN_LEN])
{
    memset(out, 0, OUTR_TRACE_BIN_LEN);
    memcpy(out + 2, trace->trace_id, 16);
    out[18] = 1;
    memcpy(out + 19, trace->span_id, 8);
    out[27] = 2;
    out[28] = (char)trace->flags;
}

void outr_trace_read_grpc(outr_trace *out, const outr_headers *headers)
{
    outr_str text = outr_headers_get(headers, "grpc-trace-bin"), bytes;
    if (text.p && outr_base64_decode(headers->arena, text, &bytes) &&
        outr_trace_parse_bin(out, bytes))
        out->state = read_state(headers);
    else
        outr_trace_read(out, headers);
}

static void random_id(uint8_t *id, size_t n, outr_rand *rand)
{
    do {
        for (size_t i = 0; i < n; i += 8) {
            uint64_t word = outr_rand_next(rand);
            memcpy(id + i, &word, 8);
        }
    } while (is_zero(id, n));
}

/* OpenTelemetry's TraceIdRatioBased: whoever decides about a trace by its id decides the same. */
static bool is_sampled(const uint8_t trace_id[16], double rate)
{
    uint64_t x = 0;
    for (size_t i = 8; i < 16; i++)
        x = x << 8 | trace_id[i];
    return rate >= 1 || x >> 1 < (uint64_t)(rate * 0x1p63);
}

void outr_trace_child(outr_trace *out, const outr_trace *parent, outr_rand *rand)
{
    outr_trace trace = *parent;
    if (trace.is_valid) {
        trace.has_parent = true;
        memcpy(trace.parent_id, parent->span_id, sizeof trace.parent_id);
        random_id(trace.span_id, sizeof trace.span_id, rand);
    }
    *out = trace;
}

void outr_trace_start(outr_trace *out, const outr_trace *parent, const outr_trace_config *config,
                      outr_rand *rand)
{
    if (!config->is_on) {
        *out = *parent;
        return;
    }
    if (parent->is_valid) {
        outr_trace_child(out, parent, rand);
        return;
    }
    outr_trace root = {.is_valid = true};
    random_id(root.trace_id, sizeof root.trace_id, rand);
    random_id(root.span_id, sizeof root.span_id, rand);
    root.flags = is_sampled(root.trace_id, config->sampling_rate) ? OUTR_TRACE_SAMPLED : 0;
    *out = root;
}

void outr_trace_write(const outr_trace *trace, char out[OUTR_TRACEPARENT_LEN + 1])
{
    out[0] = '0';
    out[1] = '0';
    out[2] = '-';
    outr_hex_encode(trace->trace_id, 16, out + 3);
    out[35] = '-';
    outr_hex_encode(trace->span_id, 8, out + 36);
    out[52] = '-';
    outr_hex_encode(&trace->flags, 1, out + 53);
    out[OUTR_TRACEPARENT_LEN] = 0;
}

static bool is_token_char(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
           (c && strchr("!#$%&'*+-.^_`|~", c));
}

static bool is_baggage_value(outr_str value)
{
    for (size_t i = 0; i < value.n; i++) {
        char c = value.p[i];
        if (c <= 0x20 || c > 0x7e || c == '"' || c == ',' || c == ';' || c == '\\')
            return false;
    }
    return true;
}

/* W3C Baggage section 3.3.1: key = value *( ; property ), property = key [ = value ]. */
bool outr_baggage_is_valid(outr_str text)
{
    size_t members = 0;
    if (text.n > OUTR_BAGGAGE_MAX)
        return false;
    while (text.p) {
        outr_str member, part, key;
        bool is_first = true;
        text = outr_str_cut(text, ',', &member);
        while (member.p) {
            member = outr_str_cut(member, ';', &part);
            outr_str value = outr_str_cut(outr_str_trim(part), '=', &key);
            key = outr_str_trim(key);
            if (key.n == 0 || (is_first && !value.p) || !is_baggage_value(outr_str_trim(value)))
                return false;
            for (size_t i = 0; i < key.n; i++) {
                if (!is_token_char(key.p[i]))
                    return false;
            }
            is_first = false;
        }
        if (++members > OUTR_BAGGAGE_MEMBERS_MAX)
            return false;
    }
    return true;
}
