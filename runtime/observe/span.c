#include "observe/span.h"

#define WAIT_NS   OUTR_SEC /* a span is on its way after so long, however few there are */
#define KEY_MAX   64
#define STATE_MAX 512
/* headers that a client may have shown in a span */
#define HEADERS_MAX 8

/* What one record may take: a batch has room for it whatever a client sends. */
#define RECORD_MAX                                                                                 \
    (sizeof(outr_span_item) + OUTR_SPAN_NAME_MAX + OUTR_SPAN_VALUE_MAX + STATE_MAX + 3 +         \
     OUTR_SPAN_ATTRIBUTES_MAX * (KEY_MAX + OUTR_SPAN_VALUE_MAX + 2) + 8)
_Static_assert(RECORD_MAX <= OUTR_SPAN_BATCH_BYTES, "a batch holds at least one span");

struct outr_tracer {
    outr_tracer_options o;
    outr_span_batch *open; /* NULL: nothing is recorded */
    int64_t epoch_ns; /* from the loop's clock to the time of day, since the batch was opened */
    outr_timer timer;
};

/* ---- texts ----------------------------------------------------------------------------------- */

/* Copies, eight bytes at a time; false at the first byte that is a NUL or not of ASCII. */
static bool copy_ascii(char *to, outr_str s)
{
    static const uint64_t ones = 0x0101010101010101, highs = 0x8080808080808080;
    size_t i = 0;
    for (uint64_t word; i + 8 <= s.n; i += 8) {
        memcpy(&word, s.p + i, 8);
        if ((word & highs) || ((word - ones) & ~word & highs))
            return false;
        memcpy(to + i, &word, 8);
    }
    for (; i < s.n; i++) {
        if (s.p[i] == 0 || (unsigned char)s.p[i] > 0x7f) /* char has no sign on arm64 */
            return false;
        to[i] = s.p[i];
    }
    return true;
}

/* s, cut to max bytes but not within a character, and a NUL; what is no text becomes question
 * marks. Returns what is behind it. */
static char *put_text(char *to, outr_str s, size_t max)
{
    if (s.n > max) {
        s.n = max;
        while (s.n > 0 && ((unsigned char)s.p[s.n] & 0xc0) == 0x80)
            s.n--;
    }
    if (!copy_ascii(to, s)) {
        bool is_text = !memchr(s.p, 0, s.n) && outr_str_is_utf8(s);
        for (size_t i = 0; i < s.n; i++)
            to[i] = is_text || (s.p[i] && (unsigned char)s.p[i] < 0x80) ? s.p[i] : '?';
    }
    to[s.n] = 0;
    return to + s.n + 1;
}

/* Names of headers come in any case. */
static void lower(char *text)
{
    for (; *text; text++) {
        if (*text >= 'A' && *text <= 'Z')
            *text = (char)(*text + 32);
    }
}

/* ---- recording ------------------------------------------------------------------------------- */

static void on_time(outr_timer *timer)
{
    outr_tracer_flush(OUTR_CONTAINER(timer, outr_tracer, timer));
}

static outr_span_batch *room(outr_tracer *t)
{
    if (t->open && (t->open->count == OUTR_SPAN_BATCH_SPANS ||
                    OUTR_SPAN_BATCH_BYTES - t->open->used < RECORD_MAX))
        outr_tracer_flush(t);
    if (!t->open) {
        t->open = outr_alloc(sizeof *t->open + OUTR_SPAN_BATCH_BYTES);
        uint64_t now = outr_loop_update(t->o.loop);
        t->epoch_ns = outr_loop_unix_ns(t->o.loop) - (int64_t)now;
        outr_timer_start(t->o.loop, &t->timer, now + WAIT_NS);
    }
    return t->open;
}

void outr_span_record(outr_tracer *t, const outr_span *span)
{
    outr_span_batch *batch = room(t);
    outr_span_item *r = (void *)(batch->records + batch->used);
    const outr_trace *trace = span->trace;
    uint64_t now = outr_loop_update(t->o.loop);
    char *to = r->texts;
    *r = (outr_span_item){.kind = (uint8_t)span->kind,
                            .flags = trace->flags,
                            .is_error = span->is_error,
                            .has_parent = trace->has_parent,
                            .began_unix_ns =
                                t->epoch_ns + (int64_t)OUTR_MIN(span->began_ns, now),
                            .ended_unix_ns = t->epoch_ns + (int64_t)now};
    memcpy(r->trace_id, trace->trace_id, sizeof r->trace_id);
    memcpy(r->span_id, trace->span_id, sizeof r->span_id);
    memcpy(r->parent_id, trace->parent_id, sizeof r->parent_id);
    to = put_text(to, span->name, OUTR_SPAN_NAME_MAX);
    to = put_text(to, span->is_error ? span->failure : OUTR_STR_NONE, OUTR_SPAN_VALUE_MAX);
    to = put_text(to, trace->state, STATE_MAX);
    for (size_t i = 0; i < span->attribute_count; i++) {
        char *key = to;
        to = put_text(to, span->attributes[i].key, KEY_MAX);
        if (i >= span->attribute_count - span->header_count)
            lower(key);
        to = put_text(to, span->attributes[i].value, OUTR_SPAN_VALUE_MAX);
    }
    r->attribute_count = (uint32_t)span->attribute_count;
    r->size = (uint32_t)(((size_t)(to - (char *)r) + 7) / 8 * 8);
    batch->used += r->size;
    batch->count++;
}

void outr_span_add_topic(outr_span *span, outr_str topic)
{
    outr_span_add(span, "messaging.system", OUTR_STR("pubsub"));
    outr_span_add(span, "messaging.destination", topic);
    outr_span_add(span, "messaging.destination_kind", OUTR_STR("topic"));
}

static bool has(const outr_span *span, outr_str name)
{
    for (size_t i = 0; i < span->attribute_count; i++) {
        if (outr_str_ieq(span->attributes[i].key, name))
            return true;
    }
    return false;
}

void outr_span_add_headers(outr_span *span, const outr_headers *headers)
{
    for (size_t i = 0; i < headers->count && span->header_count < HEADERS_MAX; i++) {
        outr_str name = headers->items[i].name;
        if (!outr_str_istarts(name, OUTR_STR("dapr-")) || outr_str_ends(name, OUTR_STR("-bin")) ||
            outr_str_iis(name, "dapr-api-token") || headers->items[i].value.n == 0 ||
            span->attribute_count == OUTR_SPAN_ATTRIBUTES_MAX || has(span, name))
            continue;
        span->attributes[span->attribute_count++] = (outr_kv){name, headers->items[i].value};
        span->header_count++;
    }
}

void outr_span_attempt(outr_tracer *t, const outr_attempt_span *a)
{
    char number[20], status[20];
    outr_span span;
    outr_span_init(&span, a->trace, OUTR_SPAN_CLIENT, OUTR_STR("attempt"), a->began_ns);
    if (a->code != OUTR_OK || a->status >= 500)
        outr_span_fail(&span, a->text.n ? a->text : outr_str_from(outr_code_name(a->code)));
    outr_span_add(&span, "outrigger.attempt", outr_str_decimal(number, a->number));
    outr_span_add(&span, "net.peer.name", a->app_id);
    outr_span_add(&span, "outrigger.peer.address", a->address);
    if (a->status > 0)
        outr_span_add(&span, "dapr.status_code", outr_str_decimal(status, (uint64_t)a->status));
    outr_span_add(&span, "outrigger.reason", a->reason);
    outr_span_record(t, &span);
}

/* ---- life ------------------------------------------------------------------------------------ */

outr_tracer *outr_tracer_new(const outr_tracer_options *options)
{
    outr_tracer *t = outr_alloc(sizeof *t);
    t->o = *options;
    t->timer.fire = on_time;
    return t;
}

void outr_tracer_flush(outr_tracer *t)
{
    outr_span_batch *batch = t->open;
    t->open = NULL;
    outr_timer_stop(t->o.loop, &t->timer);
    if (batch)
        t->o.take(t->o.ctx, outr_realloc(batch, outr_span_batch_bytes(batch)));
}

void outr_tracer_free(outr_tracer *t)
{
    if (!t)
        return;
    outr_tracer_flush(t);
    free(t);
}

/* ---- batches --------------------------------------------------------------------------------- */

static const char *next_text(const char **at)
{
    const char *text = *at;
    *at = text + strlen(text) + 1;
    return text;
}

bool outr_span_batch_next(const outr_span_batch *batch, size_t *at, outr_span_view *out)
{
    if (*at >= batch->used)
        return false;
    const outr_span_item *r = (const void *)(batch->records + *at);
    const char *text = r->texts;
    out->item = r;
    out->name = next_text(&text);
    out->failure = next_text(&text);
    out->state = next_text(&text);
    for (uint32_t i = 0; i < r->attribute_count; i++) {
        out->keys[i] = next_text(&text);
        out->values[i] = next_text(&text);
    }
    *at += r->size;
    return true;
}

void outr_span_batch_free(outr_span_batch *batch)
{
    free(batch);
}
