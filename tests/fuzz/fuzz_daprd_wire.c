/* A message of CallLocalStream as a peer may send it. What is read lies inside the message; what is
 * written of it reads as the same. */
#include "mesh/daprd_wire.h"
#include "tests/fuzz/property.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_inside(outr_str part, outr_str whole)
{
    PROPERTY(part.n == 0 || (part.p >= whole.p && part.p + part.n <= whole.p + whole.n));
}

static void check_again(const outr__daprd_piece *piece)
{
    uint64_t seq = piece->seq;
    const outr_str *head = piece->has_head ? &piece->head : NULL;
    outr__daprd_piece again;
    outr_slice frame =
        outr__daprd_frames(head, outr_str_head(piece->data, OUTR__PIECE_MAX), &seq, false);
    PROPERTY(outr__daprd_piece_read(&again, outr_str_of(frame.p + 5, frame.n - 5)));
    PROPERTY(again.has_head == piece->has_head && outr_str_eq(again.head, piece->head));
    PROPERTY(outr_str_eq(again.data, outr_str_head(piece->data, OUTR__PIECE_MAX)));
    PROPERTY(again.data.n == 0 || again.seq == piece->seq);
    outr_slice_done(&frame);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    outr_str message = outr_str_of(data, size);
    outr__daprd_piece piece;
    outr_arena *arena = outr_arena_new(OUTR_MIB);
    outr_trace trace;
    if (outr__daprd_piece_read(&piece, message)) {
        check_inside(piece.head, message);
        check_inside(piece.data, message);
        check_again(&piece);
    }
    outr__daprd_canonical(arena, message);
    outr_trace_parse_bin(&trace, message);
    outr__daprd_pad(arena, outr__daprd_trace_bin(arena, &trace));
    outr_arena_free(arena);
    return 0;
}
