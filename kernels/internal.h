/* Inside kernels/: the jobs that public functions hand to a variant, and the table of a variant.
 *
 * A variant is one instruction set. All of them are compiled from the same templates (*_v16.h) over
 * a type of 16 float lanes (v16_<isa>.h), so the order of every reduction exists once. */
#ifndef SB_KERNELS_INTERNAL_H
#define SB_KERNELS_INTERNAL_H

#include "kernels/kernels.h"

/* y[m, n] = x[m, k] W^T over panels of SB_PANEL columns; panel p begins at w + p * panel_stride. */
struct sb_product {
    int type; /* enum sb_dtype, or SB_BF16_DOT */
    const unsigned char *w;
    size_t panel_stride; /* bytes */
    size_t n, k, m;
    const float *x;
    size_t ldx;
    float *y;
    size_t ldy;
    const float *bias; /* [n] or NULL */
    bool add;
    /* What many rows ask the memory for during the last panel, instead of what lies behind it; or NULL. */
    const unsigned char *then;
};

/* Besides the types of weights, tiles read bfloat16 step by step: the form of cached values, of which
 * a run may begin at any slot. */
enum { SB_BF16_STEPS = SB_DTYPE_COUNT, SB_TILE_TYPES };
/* bfloat16 words of two steps against such words of x, which count as one step: k is in words. */
enum { SB_BF16_DOT = SB_TILE_TYPES };

/* y[m, panels * 32] = chains over k continued from y, whose panels are whole. */
struct sb_sums {
    int type; /* SB_F32, SB_F16 or SB_BF16_STEPS: one step a group */
    const unsigned char *w;
    size_t panel_stride, panels; /* bytes; count */
    size_t k, m;
    const float *x;
    size_t ldx;
    float *y;
    size_t ldy;
};

struct sb_kernel_table {
    void (*product)(const struct sb_product *job, size_t first_panel, size_t last_panel);
    void (*add_to_sums)(const struct sb_sums *job);
    void (*rmsnorm)(float *y, const float *x, const float *weight, size_t d, float eps);
    void (*swiglu)(float *gate, const float *up, size_t n);
    void (*add)(float *y, const float *x, size_t n);
    void (*divide)(float *x, size_t n, float by);
    void (*mix)(float *y, float a, const float *x, float b, size_t n); /* y = fma(y, a, x * b) */
    float (*max_scaled)(const float *x, size_t n, float scale);        /* of x * scale; scale > 0 */
    /* Sum over e = exp(x * scale - max), 16 lanes within chunks; e is stored when not NULL. No x * scale is
     * above max. */
    float (*sum_exp)(float *e, const float *x, size_t n, float scale, float max);
    /* Rows of n <= SB_CHUNK scores become exp(x * scale - max) in place: the two above, for m rows abreast. */
    void (*weigh)(float *x, size_t ldx, size_t m, size_t n, float scale, float *max, float *total);
    /* Softmax so far, of n vectors, and that of one more chunk get one maximum: both totals are added under
     * it, and sums of values are to be multiplied by `before` and `now`. */
    void (*rescale)(float *max, float *total, const float *chunk_max, const float *chunk_total,
                    float *before, float *now, size_t n);
    size_t (*argmax)(const float *x, size_t n);
    /* Rotate one head by n_pairs angles: second elements at x + half (half layout) or next door. */
    void (*rope)(float *x, const float *cos, const float *sin, size_t n_pairs,
                 enum sb_rope_layout layout);
    /* For measuring: n times 2 * SB_TILE_ROWS independent multiply-adds of 16 lanes; their count is
     * returned and *sink is written, so that nothing is optimised away. Reading n floats, summed. */
    size_t (*spin)(size_t n, float *sink);
    float (*stream)(const float *x, size_t n);
};

extern const struct sb_kernel_table sb_kernels_generic;
extern const struct sb_kernel_table sb_kernels_avx2, sb_kernels_avx512; /* x86-64 builds only */

/* A product by a variant's function, in parts of whole panels; `next` as in struct sb_packed. */
void sb_product_run(const struct sb_team *team, const struct sb_product *job,
                    const struct sb_panels *next,
                    void (*product)(const struct sb_product *job, size_t first_panel,
                                    size_t last_panel));
void sb_product_avx512_bf16(const struct sb_product *job, size_t first_panel, size_t last_panel);

/* The table of the active variant. */
const struct sb_kernel_table *sb_kernels(void);

/* Bytes of one packed panel. */
size_t sb_panel_bytes(enum sb_dtype type, size_t k);

#endif
