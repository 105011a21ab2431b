#include "mesh/daprd_body.h"

/* ---- bytes into messages --------------------------------------------------------------------- */

static outr__daprd_writer *writer_of_sink(outr_sink *sink)
{
    return OUTR_CONTAINER(sink, outr__daprd_writer, sink);
}

static outr__daprd_writer *writer_of_source(outr_source *source)
{
    return OUTR_CONTAINER(source, outr__daprd_writer, source);
}

static const outr_str *head_of(outr__daprd_writer *w)
{
    if (w->has_sent_head)
        return NULL;
    w->has_sent_head = true;
    outr_loop_undefer(&w->header);
    return &w->head;
}

static bool send_head(outr__daprd_writer *w)
{
    outr_sink *to = w->source.sink;
    const outr_str *head = head_of(w);
    if (!head)
        return true;
    return to->ops->data(to, w->is_framed
                                 ? outr_slice_copy(*head)
                                 : outr__daprd_frames(head, OUTR_STR_NONE, &w->seq, false));
}

static bool writer_data(outr_sink *sink, outr_slice own_slice)
{
    outr__daprd_writer *w = writer_of_sink(sink);
    if (w->is_framed) {
        send_head(w);
        outr_sink *to = w->source.sink;
        if (to)
            return to->ops->data(to, own_slice);
        outr_slice_done(&own_slice);
        return false;
    }
    outr_sink *to = w->source.sink;
    outr_slice frames =
        outr__daprd_frames(head_of(w), outr_str_of(own_slice.p, own_slice.n), &w->seq, w->marks);
    outr_slice_done(&own_slice);
    return to->ops->data(to, frames);
}

static void give_end(outr__daprd_writer *w, const outr_headers *trailers)
{
    outr_sink *to = w->source.sink;
    w->source.sink = NULL;
    to->source = NULL;
    to->ops->end(to, trailers);
}

static void writer_end(outr_sink *sink, const outr_headers *trailers OUTR_UNUSED)
{
    outr__daprd_writer *w = writer_of_sink(sink);
    sink->source = NULL;
    send_head(w);
    if (w->source.sink)
        give_end(w, w->trailers);
}

static void writer_abort(outr_sink *sink, const outr_err *err)
{
    outr__daprd_writer *w = writer_of_sink(sink);
    outr_loop_undefer(&w->header);
    sink->source = NULL;
    if (w->on_broken) {
        give_end(w, w->on_broken(w, err));
        return;
    }
    outr_sink *to = w->source.sink;
    w->source.sink = NULL;
    to->source = NULL;
    to->ops->abort(to, err);
}

static const outr_sink_ops writer_sink_ops = {
    .data = writer_data, .end = writer_end, .abort = writer_abort};

/* Nothing of the body came in this turn: the head does not wait for it. */
static void on_header(outr_deferred *deferred)
{
    outr__daprd_writer *w = OUTR_CONTAINER(deferred, outr__daprd_writer, header);
    send_head(w);
    if (!w->from && w->source.sink)
        give_end(w, w->trailers);
}

static void writer_start(outr_source *source)
{
    outr__daprd_writer *w = writer_of_source(source);
    if (w->from)
        outr_source_attach(w->from, &w->sink);
    outr_loop_defer(w->loop, &w->header);
}

static void writer_resume(outr_source *source)
{
    outr_source_resume(writer_of_source(source)->sink.source);
}

static void writer_cancel(outr_source *source, const outr_err *err)
{
    outr__daprd_writer *w = writer_of_source(source);
    outr_source *from = w->sink.source;
    outr_loop_undefer(&w->header);
    w->sink.source = NULL;
    outr_source_cancel(from, err);
}

static const outr_source_ops writer_source_ops = {
    .start = writer_start, .resume = writer_resume, .cancel = writer_cancel};

outr_source *outr__daprd_writer_init(outr__daprd_writer *w)
{
    w->source = (outr_source){.ops = &writer_source_ops, .length = -1};
    w->sink = (outr_sink){.ops = &writer_sink_ops};
    w->header = (outr_deferred){.run = on_header};
    w->seq = 0;
    w->has_sent_head = false;
    return &w->source;
}

/* ---- messages into bytes --------------------------------------------------------------------- */

static void tell_end(outr__daprd_reader *r)
{
    outr_sink *to = r->source.sink;
    r->source.sink = NULL;
    to->source = NULL;
    if (r->end.code)
        to->ops->abort(to, &r->end);
    else
        to->ops->end(to, r->trailers);
}

/* The messages are over; whoever listens hears of it after what is held. */
static void be_over(outr__daprd_reader *r, const outr_headers *trailers, const outr_err *err)
{
    outr_err said;
    outr_err_clear(&said);
    if (r->is_over || r->is_cancelled)
        return;
    r->is_over = true;
    outr_code rc = r->on_over(r, trailers, err, &said);
    if (r->is_cancelled)
        return;
    r->end = said;
    r->end.code = rc;
    if (r->source.sink && (rc || r->held.n == 0)) {
        outr_loop_undefer(&r->pusher);
        tell_end(r);
    }
}

static void break_off(outr__daprd_reader *r, const outr_err *err)
{
    outr_grpc_reader_cancel(&r->messages);
    be_over(r, NULL, err);
}

/* False: no more for now. */
static bool pass_on(outr__daprd_reader *r, outr_str data)
{
    outr_sink *to = r->source.sink;
    if (data.n == 0 || r->drops_payloads)
        return true;
    outr_slice slice = outr_slice_copy(data);
    if (to && !r->is_full && r->held.n == 0) {
        r->is_full = true; /* stands unless the sink says otherwise, now or by resume */
        if (to->ops->data(to, slice))
            r->is_full = false;
        return !r->is_full;
    }
    r->held = slice;
    if (!to && r->on_payload)
        r->on_payload(r);
    return false;
}

static bool check_seq(outr__daprd_reader *r, const outr__daprd_piece *piece)
{
    outr_err err;
    if (piece->seq == r->seq++)
        return true;
    outr_fail(&err, OUTR_INTERNAL, "invalid sequence number received: %llu (expected: %llu)",
              (unsigned long long)piece->seq, (unsigned long long)r->seq - 1);
    break_off(r, &err);
    return false;
}

static bool on_message(outr_grpc_reader *messages, outr_str message)
{
    outr__daprd_reader *r = messages->user;
    outr__daprd_piece piece = {.has_head = true, .head = message};
    outr_err err;
    if (!r->is_unary && !outr__daprd_piece_read(&piece, message)) {
        outr_fail(&err, OUTR_INTERNAL,
                  "grpc: failed to unmarshal the received message: proto: cannot parse invalid "
                  "wire-format data");
        break_off(r, &err);
        return false;
    }
    if (!r->has_head) {
        r->has_head = true;
        if (!r->on_head(r, &piece) || r->is_cancelled) /* thrown away: what is held is nobody's */
            return false;
        if (r->drops_payloads && r->bytes.n > 0) {
            r->held = outr_slice_static(r->bytes);
            return false;
        }
    } else if (piece.has_head && (piece.head.n > 0 || r->is_unary)) {
        outr_fail(&err, OUTR_INTERNAL, "%s metadata found in non-leading chunk",
                  r->is_request ? "request" : "response");
        break_off(r, &err);
        return false;
    }
    if (!piece.has_payload)
        return true;
    bool goes_on = pass_on(r, piece.data); /* first, then it is looked at: so the reference */
    return !r->is_over && !r->is_cancelled && check_seq(r, &piece) && goes_on;
}

static void on_end(outr_grpc_reader *messages, const outr_headers *trailers, const outr_err *err)
{
    be_over(messages->user, trailers, err);
}

static void on_push(outr_deferred *deferred)
{
    outr__daprd_reader *r = OUTR_CONTAINER(deferred, outr__daprd_reader, pusher);
    outr_sink *to = r->source.sink;
    if (!to)
        return;
    if (r->held.n > 0) {
        outr_slice slice = r->held;
        r->held = (outr_slice){0};
        r->is_full = true;
        if (to->ops->data(to, slice))
            r->is_full = false;
        if (r->is_full || !r->source.sink)
            return;
    }
    outr_loop_undefer(&r->pusher); /* a resume from within data */
    if (r->is_over)
        tell_end(r);
    else
        outr_grpc_reader_resume(&r->messages);
}

static void reader_go_on(outr_source *source)
{
    outr__daprd_reader *r = OUTR_CONTAINER(source, outr__daprd_reader, source);
    r->is_full = false;
    outr_loop_defer(r->loop, &r->pusher);
}

void outr__daprd_reader_cancel(outr__daprd_reader *r)
{
    r->is_cancelled = true;
    outr_loop_undefer(&r->pusher);
    outr_slice_done(&r->held);
    r->held = (outr_slice){0};
    outr_grpc_reader_cancel(&r->messages);
}

static void reader_cancel(outr_source *source, const outr_err *err OUTR_UNUSED)
{
    outr__daprd_reader_cancel(OUTR_CONTAINER(source, outr__daprd_reader, source));
}

static const outr_source_ops reader_ops = {
    .start = reader_go_on, .resume = reader_go_on, .cancel = reader_cancel};

void outr__daprd_reader_start(outr__daprd_reader *r, outr_source *from)
{
    r->source = (outr_source){.ops = &reader_ops, .length = -1};
    r->pusher.run = on_push;
    r->messages = (outr_grpc_reader){
        .max_bytes = r->max_bytes,
        .encoding = r->encoding,
        .on_message = on_message,
        .on_end = on_end,
        .user = r,
    };
    outr_grpc_reader_start(&r->messages, from);
}
