/* Lines: traceparent, tracestate, baggage, as a peer may send them. A trace that was read is written
 * as it was; its children keep its id; nothing over the limits of W3C gets through. */
#include "observe/baggage.h"
#include "observe/trace.h"
#include "tests/fuzz/property.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool is_same(const outr_trace *a, const outr_trace *b)
{
    return memcmp(a->trace_id, b->trace_id, 16) == 0 && memcmp(a->span_id, b->span_id, 8) == 0 &&
           a->flags == b->flags;
}

static void check_parent(outr_str text)
{
    char printed[OUTR_TRACEPARENT_LEN + 1];
    outr_trace trace, again;
    bool is_valid = outr_trace_parse(&trace, text);
    PROPERTY(trace.is_valid == is_valid && trace.state.n == 0);
    outr_trace_write(&trace, printed);
    PROPERTY(strlen(printed) == OUTR_TRACEPARENT_LEN);
    PROPERTY(outr_trace_parse(&again, outr_str_from(printed)) == is_valid);
    PROPERTY(is_same(&trace, &again));
    text = outr_str_trim(text);
    if (is_valid) /* all but the version, which is ours */
        PROPERTY(text.n >= OUTR_TRACEPARENT_LEN &&
                 memcmp(text.p + 2, printed + 2, OUTR_TRACEPARENT_LEN - 2) == 0);
}

static void check_child(const outr_trace *parent)
{
    const outr_trace_config on = {true, 1, NULL}, off = {false, 0, NULL};
    outr_trace child;
    outr_rand rand;
    outr_rand_seed(&rand, 1);
    outr_trace_start(&child, parent, &off, &rand);
    PROPERTY(child.is_valid == parent->is_valid && is_same(&child, parent));
    outr_trace_start(&child, parent, &on, &rand);
    PROPERTY(child.is_valid && memcmp(child.span_id, parent->span_id, 8) != 0);
    if (parent->is_valid)
        PROPERTY(memcmp(child.trace_id, parent->trace_id, 16) == 0 && child.flags == parent->flags);
    else
        PROPERTY(child.flags == 1);
}

static void check_headers(outr_str parent, outr_str state)
{
    outr_arena *arena = outr_arena_new(OUTR_MIB);
    outr_headers headers;
    outr_trace trace;
    outr_headers_init(&headers, arena);
    outr_headers_add(&headers, OUTR_STR("traceparent"), parent);
    outr_headers_add(&headers, OUTR_STR("tracestate"), state);
    if (!outr_header_value_is_valid(state))
        outr_headers_remove(&headers, "tracestate");
    outr_trace_read(&trace, &headers);
    PROPERTY(trace.is_valid || trace.state.n == 0);
    PROPERTY(trace.state.n <= 512);
    PROPERTY(trace.state.n == 0 || outr_str_eq(trace.state, state));
    for (size_t i = 0; i < trace.state.n; i++)
        PROPERTY(trace.state.p[i] == '\t' || (trace.state.p[i] >= ' ' && trace.state.p[i] < 0x7f));
    check_child(&trace);
    outr_arena_free(arena);
}

/* Of whatever a peer sent, one member is set: it is found, and what was well-formed stays so. */
static void check_member(outr_str text)
{
    const outr_str name = OUTR_STR("environment"), value = OUTR_STR("te st");
    outr_arena *arena = outr_arena_new(OUTR_MIB);
    outr_headers headers;
    unsigned lines;
    outr_headers_init(&headers, arena);
    outr_headers_add(&headers, OUTR_STR("baggage"), text);
    outr_str before = outr_baggage_get(&headers, name, arena, &lines);
    PROPERTY(lines == 1 && before.n <= text.n);
    const outr_kv *member = outr_kvs_find_exact(outr_baggage_members(&headers, arena), name);
    PROPERTY(member ? outr_str_eq(member->value, before) : !before.p);
    outr_str line = outr_baggage_with(&headers, name, value, arena);
    PROPERTY(line.n <= OUTR_BAGGAGE_MAX);
    PROPERTY(outr_str_eq(outr_baggage_find(line, name, arena), value));
    PROPERTY(!outr_baggage_is_valid(text) || outr_baggage_is_valid(line));
    outr_arena_free(arena);
}

static void check_baggage(outr_str text)
{
    if (outr_header_value_is_valid(text))
        check_member(text);
    if (!outr_header_value_is_valid(text) || !outr_baggage_is_valid(text))
        return;
    size_t members = 0;
    PROPERTY(text.n <= 8192);
    for (size_t i = 0; i < text.n; i++) {
        members += text.p[i] == ',';
        PROPERTY((unsigned char)text.p[i] < 0x7f && text.p[i] != 0);
        PROPERTY(text.p[i] >= ' ' || text.p[i] == '\t');
    }
    PROPERTY(members < 64);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    outr_str parent, state, baggage;
    outr_str rest = outr_str_cut(outr_str_of(data, size), '\n', &parent);
    baggage = outr_str_cut(rest, '\n', &state);
    check_parent(parent);
    check_headers(parent, state);
    check_baggage(baggage);
    return 0;
}
