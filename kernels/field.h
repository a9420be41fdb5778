/* Numbers inside a word of packed weights, moved into a float's mantissa where they stand. */
#ifndef SB_FIELD_H
#define SB_FIELD_H

/* Bits from..from+bits-1 of a word w, u as a number: with v = w >> down, the float whose bits are
 * v & mask | those of top is top + u / 2^bits, exactly. */
struct sb_field {
    int down, mask;
    float top;
};

static inline __attribute__((always_inline)) struct sb_field sb_field(int from, int bits)
{
    enum { MANTISSA = 23 };
    /* One shift serves all fields of the upper half, and then they are where those of the lower are. */
    const int down = from / 16 * 16, at = from - down;
    return (struct sb_field){ down, ((1 << bits) - 1) << at, (float)(1 << (MANTISSA - bits - at)) };
}

/* The lowest bit of a step's nibble in a word of eight: like bfloat16, the earlier of two steps in the low half. */
static inline __attribute__((always_inline)) int sb_nibble_bit(int step)
{
    return step / 2 * 4 + step % 2 * 16;
}

#endif
