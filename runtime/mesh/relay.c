#include "grpc/status.h"
#include "mesh/internal.h"

/* ---- content type of an answer that names none
 * ----------------------------------------------------
 * The signatures of the WHATWG MIME sniffing standard that Go's net/http knows, the common ones. */

typedef struct signature {
    const char *bytes;
    size_t n;
    const char *type;
} signature;

static const signature binary[] = {
    {"%PDF-", 5, "application/pdf"},
    {"%!PS-Adobe-", 11, "application/postscript"},
    {"\x89PNG\r\n\x1a\n", 8, "image/png"},
    {"GIF87a", 6, "image/gif"},
    {"GIF89a", 6, "image/gif"},
    {"\xff\xd8\xff", 3, "image/jpeg"},
    {"BM", 2, "image/bmp"},
    {"PK\x03\x04", 4, "application/zip"},
    {"\x1f\x8b\x08", 3, "application/x-gzip"},
    {"OggS\0", 5, "application/ogg"},
    {"ID3", 3, "audio/mpeg"},
    {"\0asm", 4, "application/wasm"},
    {"\xef\xbb\xbf", 3, "text/plain; charset=utf-8"},
    {"\xfe\xff", 2, "text/plain; charset=utf-16be"},
    {"\xff\xfe", 2, "text/plain; charset=utf-16le"},
};

static const char *const html_tags[] = {"<!DOCTYPE HTML",
                                        "<HTML",
                                        "<HEAD",
                                        "<SCRIPT",
                                        "<IFRAME",
                                        "<H1",
                                        "<DIV",
                                        "<FONT",
                                        "<TABLE",
                                        "<A",
                                        "<STYLE",
                                        "<TITLE",
                                        "<B",
                                        "<BODY",
                                        "<BR",
                                        "<P",
                                        "<!--"};

static bool is_html(outr_str text)
{
    for (size_t i = 0; i < OUTR_LEN(html_tags); i++) {
        outr_str tag = outr_str_from(html_tags[i]);
        if (text.n > tag.n && outr_str_istarts(text, tag) &&
            (text.p[tag.n] == ' ' || text.p[tag.n] == '>' || i + 1 == OUTR_LEN(html_tags)))
            return true;
    }
    return false;
}

static const char *guess(outr_str bytes)
{
    outr_str head = outr_str_head(bytes, 512), text = outr_str_trim(head);
    if (is_html(text))
        return "text/html; charset=utf-8";
    if (outr_str_starts(text, OUTR_STR("<?xml")))
        return "text/xml; charset=utf-8";
    for (size_t i = 0; i < OUTR_LEN(binary); i++) {
        if (outr_str_starts(head, outr_str_of(binary[i].bytes, binary[i].n)))
            return binary[i].type;
    }
    for (size_t i = 0; i < head.n; i++) {
        unsigned char c = (unsigned char)head.p[i];
        if (c <= 0x08 || c == 0x0b || (c >= 0x0e && c <= 0x1a) || (c >= 0x1c && c <= 0x1f))
            return "application/octet-stream";
    }
    return "text/plain; charset=utf-8";
}

/* ---- relaying -------------------------------------------------------------------------------- */

static void send_head(outr__relay *r)
{
    if (r->on_head)
        r->on_head(r, &r->head);
    r->has_head = true;
    r->to = outr_http_respond(r->x, &r->head);
}

static outr__relay *of_guesser(outr_sink *sink)
{
    return OUTR_CONTAINER(sink, outr__relay, guesser);
}

/* The exchange's sink asks the guesser, and the guesser the call: whoever ends first, the other is
 * not left with a pointer to what has gone. */
static void between_start(outr_source *source OUTR_UNUSED) {}

static void between_resume(outr_source *source)
{
    outr_source_resume(OUTR_CONTAINER(source, outr__relay, source)->guesser.source);
}

static void between_cancel(outr_source *source, const outr_err *err)
{
    outr__relay *r = OUTR_CONTAINER(source, outr__relay, source);
    outr_source *from = r->guesser.source;
    r->guesser.source = NULL;
    outr_source_cancel(from, err);
}

static const outr_source_ops between_ops = {
    .start = between_start, .resume = between_resume, .cancel = between_cancel};

static void couple(outr__relay *r)
{
    r->source = (outr_source){.ops = &between_ops, .length = r->head.content_length};
    outr_source_attach(&r->source, r->to);
}

/* The sink that ends now: nobody feeds it any more. */
static outr_sink *uncouple(outr__relay *r)
{
    outr_sink *to = r->source.sink ? r->source.sink : r->to;
    r->source.sink = NULL;
    to->source = NULL;
    return to;
}

static bool guess_data(outr_sink *sink, outr_slice own_slice)
{
    outr__relay *r = of_guesser(sink);
    if (!r->has_head) {
        if (!r->is_proxied)
            outr_headers_add(&r->head.headers, OUTR_STR("Content-Type"),
                             outr_str_from(guess(outr_str_of(own_slice.p, own_slice.n))));
        send_head(r);
        couple(r);
    }
    return r->to->ops->data(r->to, own_slice);
}

static void guess_end(outr_sink *sink, const struct outr_headers *trailers)
{
    outr__relay *r = of_guesser(sink);
    sink->source = NULL;
    if (r->on_end && r->on_end(r, trailers))
        return;
    if (!r->has_head)
        send_head(r);
    outr_sink *to = uncouple(r);
    to->ops->end(to, trailers);
}

static void guess_abort(outr_sink *sink, const outr_err *err)
{
    outr__relay *r = of_guesser(sink);
    if (!r->has_head)
        send_head(r);
    sink->source = NULL;
    outr_sink *to = uncouple(r);
    to->ops->abort(to, err);
}

static const outr_sink_ops guesser_ops = {
    .data = guess_data, .end = guess_end, .abort = guess_abort};

/* ---- of a gRPC call -------------------------------------------------------------------------- */

outr_code outr__grpc_failure(const outr_http_call *call, const outr_err *err)
{
    enum { REFUSED_STREAM = 7, CANCEL = 8, ENHANCE_YOUR_CALM = 11, INADEQUATE_SECURITY = 12 };
    switch (call->reset_code) {
    case 0:
    case REFUSED_STREAM:
        return err->code;
    case CANCEL:
        return OUTR_CANCELLED;
    case ENHANCE_YOUR_CALM:
        return OUTR_RESOURCE_EXHAUSTED;
    case INADEQUATE_SECURITY:
        return OUTR_PERMISSION_DENIED;
    default:
        return OUTR_INTERNAL;
    }
}

static void note_status(outr__relay *r, const outr_headers *headers)
{
    uint64_t code;
    if (outr_str_to_u64(outr_headers_get(headers, "grpc-status"), OUTR_UNAUTHENTICATED, &code))
        r->grpc_code = (outr_code)code;
}

static void proxied_end(outr_sink *sink, const struct outr_headers *trailers)
{
    if (trailers)
        note_status(of_guesser(sink), trailers);
    guess_end(sink, trailers);
}

/* A stream that breaks off ends with a status: its caller learns why. */
static void proxied_abort(outr_sink *sink, const outr_err *err)
{
    outr__relay *r = of_guesser(sink);
    outr_err copy = *err;
    outr_why why = outr__why_of_peer(r->call, &copy);
    outr_grpc_status status = {.code = outr__grpc_failure(r->call, err),
                               .message = outr_str_from(err->text),
                               .reason = outr_str_from(outr_why_word(why))};
    if (r->op && r->op->err.code == OUTR_DEADLINE_EXCEEDED)
        status = (outr_grpc_status){.code = OUTR_DEADLINE_EXCEEDED,
                                    .message = OUTR_STR("context deadline exceeded"),
                                    .reason = OUTR_STR("deadline")};
    sink->source = NULL;
    r->grpc_code = status.code;
    if (!r->has_head) /* the call's end tells it */
        return;
    outr_headers_init(&r->trailers, r->x->arena);
    outr_grpc_status_write(&r->trailers, &status);
    outr_sink *to = uncouple(r);
    to->ops->end(to, &r->trailers);
}

static const outr_sink_ops proxied_ops = {
    .data = guess_data, .end = proxied_end, .abort = proxied_abort};

static void relay_proxied(outr__relay *r, outr_source *from)
{
    r->guesser.ops = &proxied_ops;
    if (r->has_head)
        couple(r);
    outr_source_attach(from, &r->guesser);
}

void outr__relay_answer(outr__relay *r, outr_http_call *call)
{
    outr_exchange *x = r->x;
    r->call = call;
    r->head = (outr_http_response){.status = call->head.status,
                                   .content_length = call->head.content_length};
    if (r->is_proxied) {
        r->head.headers = call->head.headers;
        note_status(r, &call->head.headers); /* an answer that is its trailers only */
    } else {
        outr_headers_init(&r->head.headers, x->arena);
        outr__headers_of_answer(&r->head.headers, &call->head.headers, r->keeps_grpc);
    }
    bool has_type = outr_headers_has(&r->head.headers, "content-type");
    bool may_guess = r->guesses_type && !has_type && call->head.status != 101 &&
                     outr_http_has_body(OUTR_STR("GET"), call->head.status);
    if (may_guess && (call->head.status < 200 || call->head.status >= 400)) {
        outr_headers_add(&r->head.headers, OUTR_STR("Content-Type"), OUTR_STR("application/json"));
        may_guess = false;
    }
    if (may_guess && call->response) {
        r->guesser.ops = &guesser_ops;
        outr_source_attach(call->response, &r->guesser);
        return;
    }
    if (!call->response && r->head.content_length < 0 &&
        outr_http_has_body(x->req.method, r->head.status))
        r->head.content_length = 0;
    if (call->response && r->holds_head) {
        relay_proxied(r, call->response);
        return;
    }
    send_head(r);
    if (call->response && r->is_proxied)
        relay_proxied(r, call->response);
    else if (call->response)
        outr_source_attach(call->response, r->to);
    else
        r->to->ops->end(r->to, NULL);
}

/* ---- limiter --------------------------------------------------------------------------------- */

static bool limit_data(outr_sink *sink, outr_slice own_slice)
{
    outr__limiter *l = OUTR_CONTAINER(sink, outr__limiter, sink);
    outr_sink *to = l->source.sink;
    if (own_slice.n <= l->left) {
        l->left -= own_slice.n;
        return to->ops->data(to, own_slice);
    }
    outr_slice_done(&own_slice);
    l->is_over = true;
    outr_err err;
    outr_fail(&err, OUTR_RESOURCE_EXHAUSTED, "stream too large");
    outr_source *from = sink->source;
    sink->source = NULL;
    l->source.sink = NULL;
    outr_source_cancel(from, &err);
    to->source = NULL;
    to->ops->abort(to, &err);
    return false;
}

static void limit_end(outr_sink *sink, const struct outr_headers *trailers)
{
    outr__limiter *l = OUTR_CONTAINER(sink, outr__limiter, sink);
    outr_sink *to = l->source.sink;
    l->source.sink = NULL;
    to->source = NULL;
    to->ops->end(to, trailers);
}

static void limit_abort(outr_sink *sink, const outr_err *err)
{
    outr__limiter *l = OUTR_CONTAINER(sink, outr__limiter, sink);
    outr_sink *to = l->source.sink;
    l->source.sink = NULL;
    to->source = NULL;
    to->ops->abort(to, err);
}

static const outr_sink_ops limiter_sink_ops = {
    .data = limit_data, .end = limit_end, .abort = limit_abort};

static void limit_start(outr_source *source)
{
    outr__limiter *l = OUTR_CONTAINER(source, outr__limiter, source);
    outr_source_attach(l->sink.source, &l->sink);
}

static void limit_resume(outr_source *source)
{
    outr_source_resume(OUTR_CONTAINER(source, outr__limiter, source)->sink.source);
}

static void limit_cancel(outr_source *source, const outr_err *err)
{
    outr__limiter *l = OUTR_CONTAINER(source, outr__limiter, source);
    outr_source *from = l->sink.source;
    l->sink.source = NULL;
    outr_source_cancel(from, err);
}

static const outr_source_ops limiter_source_ops = {
    .start = limit_start, .resume = limit_resume, .cancel = limit_cancel};

outr_source *outr__limiter_init(outr__limiter *l, outr_source *from, uint64_t max)
{
    *l = (outr__limiter){
        .source = {.ops = &limiter_source_ops, .length = from->length},
        .sink = {.ops = &limiter_sink_ops, .source = from},
        .left = max,
    };
    return &l->source;
}
