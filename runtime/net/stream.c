#include "net/stream.h"

void outr_stream_close(outr_stream *s)
{
    if (s->is_closing)
        return;
    s->is_closing = true;
    s->ops->close(s, false);
}

void outr_stream_reset(outr_stream *s)
{
    if (s->is_closing)
        return;
    s->is_closing = true;
    s->ops->close(s, true);
}
