/* The public services' files as protoc describes them, for reflection. Read-only: what nobody asks
 * for is not even read from disk. */
    .section .rodata
    .global outr__public_descriptors
    .global outr__public_descriptors_end
    .hidden outr__public_descriptors
    .hidden outr__public_descriptors_end
    .balign 16
outr__public_descriptors:
    .incbin "outrigger-public.binpb"
outr__public_descriptors_end:
    .byte 0
    .section .note.GNU-stack, "", %progbits
