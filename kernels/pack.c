/* Packed weights: SB_PANEL output rows interleaved along k, so that one vector holds the weights of
 * neighbouring outputs at one k. A panel is, by type:
 *
 *   f32    [k][32] float
 *   f16    [k][32] half
 *   bf16   [k][16] words: row j in the low half, row j + 16 in the high half of word j, so that a
 *          shift and a mask of one load give both
 *   q8_0   per 32 values of k: 32 half scales (one per row), then [32][32] int8
 *   q4_0   per 32 values of k: 32 half scales, then [32][16] bytes, row j in the low and row j + 16
 *          in the high nibble of byte j */
#include <string.h>

#include "harness/core/alloc.h"
#include "kernels/internal.h"

/* A multiple of SB_QUANT_BLOCK. */
enum { PACK_STEPS = 64 };

enum { Q8_BLOCK = 64 + 32 * 32, Q4_BLOCK = 64 + 32 * 16 };

size_t sb_panel_bytes(enum sb_dtype type, size_t k)
{
    switch (type) {
    case SB_F32:
        return k * 128;
    case SB_F16:
    case SB_BF16:
        return k * 64;
    case SB_Q8_0:
        return k / SB_QUANT_BLOCK * Q8_BLOCK;
    case SB_Q4_0:
        return k / SB_QUANT_BLOCK * Q4_BLOCK;
    default:
        return 0;
    }
}

/* Offset of the 16-bit element of row `lane` at k. */
static size_t half_offset(enum sb_dtype type, size_t k, size_t lane)
{
    return type == SB_F16 ? k * 64 + lane * 2 : k * 64 + lane % 16 * 4 + lane / 16 * 2;
}

static void pack_q8_0(unsigned char *panel, size_t lane, const unsigned char *src, size_t k)
{
    for (size_t b = 0; b < k / SB_QUANT_BLOCK; b++, src += 34, panel += Q8_BLOCK) {
        memcpy(panel + lane * 2, src, 2);
        for (size_t i = 0; i < SB_QUANT_BLOCK; i++)
            panel[64 + i * 32 + lane] = src[2 + i];
    }
}

static void pack_q4_0(unsigned char *panel, size_t lane, const unsigned char *src, size_t k)
{
    unsigned shift = lane < 16 ? 0 : 4;
    for (size_t b = 0; b < k / SB_QUANT_BLOCK; b++, src += 18, panel += Q4_BLOCK) {
        memcpy(panel + lane * 2, src, 2);
        for (size_t i = 0; i < SB_QUANT_BLOCK; i++) {
            unsigned nibble = i < 16 ? src[2 + i] & 15u : src[2 + i - 16] >> 4;
            panel[64 + i * 16 + lane % 16] |= (unsigned char)(nibble << shift);
        }
    }
}

/* Write one row into its lane of a zeroed panel. */
static void pack_row(unsigned char *panel, enum sb_dtype type, size_t lane,
                     const unsigned char *src, size_t k)
{
    switch (type) {
    case SB_F32:
        for (size_t i = 0; i < k; i++)
            memcpy(panel + i * 128 + lane * 4, src + i * 4, 4);
        break;
    case SB_F16:
    case SB_BF16:
        for (size_t i = 0; i < k; i++)
            memcpy(panel + half_offset(type, i, lane), src + i * 2, 2);
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
    if (type == SB_Q4_0 || lanes < SB_PANEL) /* Q4_0 rows are or-ed in, two to a byte */
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
    return (n / SB_PANEL + (n % SB_PANEL != 0)) * sb_panel_bytes(type, k);
}

int sb_packed_init(struct sb_packed *w, enum sb_dtype type, size_t n, size_t k, const void *src)
{
    size_t panels = n / SB_PANEL + (n % SB_PANEL != 0), bytes = sb_panel_bytes(type, k);
    size_t row_bytes = sb_dtype_row_bytes(type, k);
    *w = (struct sb_packed){ .type = type, .n = n, .k = k };
    if ((row_bytes == 0 && k != 0) || k > SIZE_MAX / 128)
        return -1;
    w->data = sb_alloc_aligned(panels, bytes ? bytes : 1);
    if (w->data == NULL)
        return -1;
    w->size_bytes = panels * bytes;
#pragma omp parallel for schedule(static) if (sb_worth_threads(n * k))
    for (size_t p = 0; p < panels; p++) {
        size_t first = p * SB_PANEL, lanes = n - first < SB_PANEL ? n - first : SB_PANEL;
        pack_panel((unsigned char *)w->data + p * bytes, type, lanes,
                   (const unsigned char *)src + first * row_bytes, row_bytes, k);
    }
    return 0;
}

void sb_packed_finish(struct sb_packed *w)
{
    if (w == NULL)
        return;
    sb_free(w->data);
    *w = (struct sb_packed){ 0 };
}
