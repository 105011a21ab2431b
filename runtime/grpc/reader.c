#include "grpc/reader.h"

#include <zlib.h>

#define GZIP_WINDOW (15 + 16) /* zlib: the largest window, gzip's own header */

static void end(outr_grpc_reader *r, const outr_headers *trailers, const outr_err *err)
{
    if (r->is_over)
        return;
    outr_grpc_reader_cancel(r);
    r->on_end(r, trailers, err);
}

static void fail(outr_grpc_reader *r, outr_code code, const char *text)
{
    outr_err err;
    outr_fail(&err, code, "%s", text);
    end(r, NULL, &err);
}

/* ---- one message ----------------------------------------------------------------------------- */

static void fail_too_large(outr_grpc_reader *r, size_t n)
{
    outr_err err;
    outr_fail(&err, OUTR_RESOURCE_EXHAUSTED, "grpc: received message larger than max (%zu vs. %zu)",
              n, r->max_bytes);
    end(r, NULL, &err);
}

static bool inflate_all(outr_grpc_reader *r, outr_str in, outr_buf *out)
{
    z_stream z = {.next_in = (unsigned char *)(uintptr_t)in.p, .avail_in = (unsigned)in.n};
    int rc = inflateInit2(&z, GZIP_WINDOW);
    while (rc == Z_OK) {
        char *room = outr_buf_reserve(
            out, OUTR_MIN(OUTR_MAX(4 * in.n, (size_t)OUTR_KIB), out->max - out->n));
        z.next_out = (unsigned char *)room;
        z.avail_out = room ? (unsigned)(out->cap - out->n) : 0;
        if (!room || z.avail_out == 0)
            break;
        unsigned before = z.avail_out;
        rc = inflate(&z, Z_NO_FLUSH);
        out->n += before - z.avail_out;
    }
    inflateEnd(&z);
    if (rc == Z_STREAM_END && out->n <= r->max_bytes)
        return true;
    if (rc == Z_OK || rc == Z_STREAM_END)
        fail_too_large(r, out->n);
    else
        fail(r, OUTR_INTERNAL, "grpc: failed to decompress the received message");
    return false;
}

/* False: over, or no more for now. */
static bool deliver(outr_grpc_reader *r, outr_str message)
{
    r->prefix_n = 0;
    if (r->prefix[0] == 0)
        return (r->is_paused = !r->on_message(r, message), !r->is_paused && !r->is_over);
    outr_buf plain = OUTR_BUF_MAX(r->max_bytes + 1);
    if (inflate_all(r, message, &plain))
        r->is_paused = !r->on_message(r, outr_buf_view(&plain));
    outr_buf_done(&plain);
    return !r->is_paused && !r->is_over;
}

static bool is_identity(outr_str encoding)
{
    return encoding.n == 0 || outr_str_is(encoding, "identity");
}

bool outr_grpc_reader_can(outr_str encoding)
{
    return is_identity(encoding) || outr_str_is(encoding, "gzip");
}

/* The prefix is whole: is what follows as was said? */
static bool check_prefix(outr_grpc_reader *r)
{
    const unsigned char *p = r->prefix;
    r->length = (size_t)p[1] << 24 | (size_t)p[2] << 16 | (size_t)p[3] << 8 | p[4];
    if (p[0] > 1) {
        outr_err err;
        outr_fail(&err, OUTR_INTERNAL, "grpc: received unexpected payload format %u", p[0]);
        end(r, NULL, &err);
    } else if (p[0] == 1 && is_identity(r->encoding)) {
        fail(r, OUTR_INTERNAL, "grpc: compressed flag set with identity or empty encoding");
    } else if (p[0] == 1 && !outr_grpc_reader_can(r->encoding)) {
        outr_err err;
        outr_fail(&err, OUTR_UNIMPLEMENTED,
                  "grpc: Decompressor is not installed for grpc-encoding \"" OUTR_FMT "\"",
                  OUTR_ARG(r->encoding));
        end(r, NULL, &err);
    } else if (r->length > r->max_bytes) {
        fail_too_large(r, r->length);
    }
    return !r->is_over;
}

/* Takes from piece what it can; false: over or paused. */
static bool take(outr_grpc_reader *r, outr_str *piece)
{
    while (piece->n > 0 || (r->prefix_n == sizeof r->prefix && r->length == 0)) {
        if (r->prefix_n < sizeof r->prefix) {
            size_t n = OUTR_MIN(sizeof r->prefix - r->prefix_n, piece->n);
            memcpy(r->prefix + r->prefix_n, piece->p, n);
            r->prefix_n += n;
            *piece = outr_str_skip(*piece, n);
            if (r->prefix_n == sizeof r->prefix && !check_prefix(r))
                return false;
            continue;
        }
        size_t n = OUTR_MIN(r->length - r->message.n, piece->n);
        outr_str part = outr_str_head(*piece, n);
        *piece = outr_str_skip(*piece, n);
        if (r->message.n == 0 && n == r->length) {
            if (!deliver(r, part))
                return false;
            continue;
        }
        r->message.max = r->max_bytes;
        outr_buf_append(&r->message, part.p, n);
        if (r->message.n < r->length)
            continue;
        outr_buf whole = r->message;
        r->message = (outr_buf){0};
        bool goes_on = deliver(r, outr_buf_view(&whole));
        outr_buf_done(&whole);
        if (!goes_on)
            return false;
    }
    return true;
}

/* ---- the body -------------------------------------------------------------------------------- */

static outr_grpc_reader *of(outr_sink *sink)
{
    return OUTR_CONTAINER(sink, outr_grpc_reader, sink);
}

/* What was held while paused. False: paused again, or over. */
static bool take_held(outr_grpc_reader *r)
{
    bool goes_on = true;
    while (goes_on && r->held.count > 0) {
        outr_slice slice = outr_bufq_pop(&r->held);
        outr_str piece = outr_str_of(slice.p, slice.n);
        goes_on = take(r, &piece);
        if (!goes_on && !r->is_over && piece.n > 0) { /* back to the front */
            outr_bufq rest = {0};
            outr_bufq_push(&rest, outr_slice_of(slice.chunk, piece.p, piece.n));
            outr_bufq_move(&rest, &r->held);
            outr_bufq_done(&r->held);
            r->held = rest;
        }
        outr_slice_done(&slice);
    }
    return goes_on;
}

static bool sink_data(outr_sink *sink, outr_slice own_slice)
{
    outr_grpc_reader *r = of(sink);
    outr_str piece = outr_str_of(own_slice.p, own_slice.n);
    bool goes_on = !r->is_paused && take(r, &piece);
    if (!r->is_over && piece.n > 0)
        outr_bufq_push(&r->held, own_slice.chunk ? outr_slice_of(own_slice.chunk, piece.p, piece.n)
                                                 : outr_slice_copy(piece));
    outr_slice_done(&own_slice);
    return goes_on || r->is_over;
}

static void sink_end(outr_sink *sink, const outr_headers *trailers)
{
    outr_grpc_reader *r = of(sink);
    r->sink.source = NULL;
    if (r->prefix_n > 0)
        fail(r, OUTR_INTERNAL, "grpc: the body ends inside a message");
    else
        end(r, trailers, NULL);
}

static void sink_abort(outr_sink *sink, const outr_err *err)
{
    outr_grpc_reader *r = of(sink);
    r->sink.source = NULL;
    end(r, NULL, err);
}

static const outr_sink_ops sink_ops = {.data = sink_data, .end = sink_end, .abort = sink_abort};

void outr_grpc_reader_start(outr_grpc_reader *r, outr_source *source)
{
    r->sink.ops = &sink_ops;
    if (source)
        outr_source_attach(source, &r->sink);
    else
        end(r, NULL, NULL);
}

void outr_grpc_reader_resume(outr_grpc_reader *r)
{
    if (!r->is_paused || r->is_over)
        return;
    r->is_paused = false;
    if (take_held(r))
        outr_source_resume(r->sink.source);
}

void outr_grpc_reader_cancel(outr_grpc_reader *r)
{
    r->is_over = true;
    if (r->sink.source)
        outr_source_cancel(r->sink.source, NULL);
    r->sink.source = NULL;
    outr_bufq_done(&r->held);
    outr_buf_done(&r->message);
}
