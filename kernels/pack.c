/* Packed weights: SB_PANEL output rows interleaved along k, so that one vector holds the weights of
 * neighbouring outputs at one k. Types narrower than a float pack some steps of k of one row into a
 * 32-bit word, so that one load and a shift each give vectors of floats. A panel is, by type:
 *
 *   f32    [k][32] float
 *   f16    [k][32] half
 *   bf16   [k / 2, rounded up][32] words of two steps, the earlier one in the low half
 *   q8_0   per 32 steps: 32 half scales (one per row), then [8][32] words of four steps, each byte
 *          q + 128, the earliest step in the low byte
 *   q4_0   per 32 steps: 32 half scales, then [4][32] words of eight steps, each nibble as in the
 *          file (q + 8): the even steps in the low half from the low end up, the odd ones in the high half */
#include <string.h>

#include "harness/core/alloc.h"
#include "kernels/field.h"
#include "kernels/internal.h"

/* A multiple of SB_QUANT_BLOCK. */
enum { PACK_STEPS = 64 };

static void pack_q8_0(unsigned char *panel, size_t lane, const unsigned char *src, size_t k)
{
    for (size_t b = 0; b < k / SB_QUANT_BLOCK; b++, src += 34, panel += SB_Q8_PANEL_BLOCK) {
        memcpy(panel + lane * 2, src, 2);
        for (size_t i = 0; i < SB_QUANT_BLOCK; i++)
            panel[64 + i / 4 * 128 + lane * 4 + i % 4] = src[2 + i] ^ 0x80;
    }
}

static void pack_q4_0(unsigned char *panel, size_t lane, const unsigned char *src, size_t k)
{
    for (size_t block = 0; block < k / SB_QUANT_BLOCK;
         block++, src += 18, panel += SB_Q4_PANEL_BLOCK) {
        memcpy(panel + lane * 2, src, 2);
        for (int i = 0; i < SB_QUANT_BLOCK; i += 8) {
            const int in_byte = i < 16 ? 0 : 4; /* values 0 to 15 are the low nibbles of 16 bytes */
            uint32_t word = 0;
            for (int step = 0; step < 8; step++)
                word |= (uint32_t)(src[2 + i % 16 + step] >> in_byte & 15) << sb_nibble_bit(step);
            memcpy(panel + 64 + i / 8 * 128 + lane * 4, &word, 4);
        }
    }
}

/* Write one row into its lane of a panel. */
static void pack_row(unsigned char *panel, enum sb_dtype type, size_t lane,
                     const unsigned char *src, size_t k)
{
    switch (type) {
    case SB_F32:
        for (size_t i = 0; i < k; i++)
            memcpy(panel + i * 128 + lane * 4, src + i * 4, 4);
        break;
    case SB_F16:
        for (size_t i = 0; i < k; i++)
            memcpy(panel + i * 64 + lane * 2, src + i * 2, 2);
        break;
    case SB_BF16:
        for (size_t i = 0; i < k; i++)
            memcpy(panel + i / 2 * 128 + lane * 4 + i % 2 * 2, src + i * 2, 2);
        break;
    case SB_Q8_0:
        pack_q8_0(panel, lane, src, k);
        break;
    default:
        pack_q4_0(panel, lane, src, k);
        break;
    }
}

/* Some steps of all lanes at a time: what is written then stays in the first-level cache. */
static void pack_panel(unsigned char *panel, enum sb_dtype type, size_t lanes,
                       const unsigned char *src, size_t row_bytes, size_t k)
{
    if (lanes < SB_PANEL || k % 2 != 0) /* there is padding */
        memset(panel, 0, sb_panel_bytes(type, k));
    for (size_t k0 = 0; k0 < k; k0 += PACK_STEPS) {
        size_t steps = k - k0 < PACK_STEPS ? k - k0 : PACK_STEPS;
        for (size_t lane = 0; lane < lanes; lane++)
            pack_row(panel + sb_panel_bytes(type, k0), type, lane,
                     src + lane * row_bytes + sb_dtype_row_bytes(type, k0), steps);
    }
}

size_t sb_packed_size(enum sb_dtype type, size_t n, size_t k)
{
    return sb_panels_for(n) * sb_panel_bytes(type, k);
}

/* Everything but the weights. */
static int init(struct sb_packed *w, void *memory, enum sb_dtype type, size_t n, size_t k,
                bool gated)
{
    *w = (struct sb_packed){ .type = type, .n = n, .k = k, .gated = gated, .owned = !memory };
    if ((sb_dtype_row_bytes(type, k) == 0 && k != 0) || k > SIZE_MAX / 128)
        return -1;
    const size_t stride = sb_packed_stride(w), panels = sb_panels_for(w->n);
    w->data = memory ? memory : sb_alloc_aligned(panels, stride ? stride : 1);
    w->size_bytes = panels * stride;
    return w->data ? 0 : -1;
}

/* The rows of src, whose panels begin at byte `from` of those of w. */
static void pack_rows(struct sb_packed *w, size_t from, const unsigned char *src)
{
    const size_t row_bytes = sb_dtype_row_bytes(w->type, w->k);
    unsigned char *to = (unsigned char *)w->data + from;
#pragma omp parallel for schedule(static) if (sb_team_size(w->n * w->k) > 1)
    for (size_t p = 0; p < sb_panels_for(w->n); p++) {
        size_t first = p * SB_PANEL, lanes = w->n - first < SB_PANEL ? w->n - first : SB_PANEL;
        pack_panel(to + p * sb_packed_stride(w), w->type, lanes, src + first * row_bytes, row_bytes,
                   w->k);
    }
}

int sb_packed_init(struct sb_packed *w, void *memory, enum sb_dtype type, size_t n, size_t k,
                   const void *src)
{
    if (init(w, memory, type, n, k, false) != 0)
        return -1;
    pack_rows(w, 0, src);
    return 0;
}

int sb_packed_init_gated(struct sb_packed *w, void *memory, enum sb_dtype type, size_t n, size_t k,
                         const void *gate, const void *up)
{
    if (init(w, memory, type, n, k, true) != 0)
        return -1;
    pack_rows(w, 0, gate);
    pack_rows(w, sb_panel_bytes(type, k), up);
    return 0;
}

void sb_packed_follow(struct sb_packed *w, const struct sb_packed *next)
{
    w->next = (struct sb_panels){ next->data, sb_panels_for(next->n), sb_packed_stride(next) };
}

void sb_packed_finish(struct sb_packed *w)
{
    if (w == NULL)
        return;
    if (w->owned)
        sb_free(w->data);
    *w = (struct sb_packed){ 0 };
}
