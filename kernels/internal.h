/* Inside kernels/: the jobs that public functions hand to a variant, and the table of a variant.
 *
 * A variant is one instruction set. All of them are compiled from the same templates (*_v16.h) over
 * a type of 16 float lanes (v16_<isa>.h), so the order of every reduction exists once. */
#ifndef SB_KERNELS_INTERNAL_H
#define SB_KERNELS_INTERNAL_H

#include "kernels/kernels.h"

static inline size_t sb_round_up(size_t x, size_t to)
{
    return (x + to - 1) / to * to;
}

static inline size_t sb_least(size_t a, size_t b)
{
    return a < b ? a : b;
}

static inline bool sb_is_quantised(int type)
{
    return type == SB_Q8_0 || type == SB_Q4_0;
}

/* A panel's share of a quantised block: scales of its rows, then their bytes or nibbles (pack.c). */
enum { SB_Q8_PANEL_BLOCK = 64 + 32 * 32, SB_Q4_PANEL_BLOCK = 64 + 32 * 16 };

/* Bytes of one packed panel. */
static inline size_t sb_panel_bytes(enum sb_dtype type, size_t k)
{
    switch (type) {
    case SB_F32:
        return k * 128;
    case SB_F16:
        return k * 64;
    case SB_BF16:
        return (k / 2 + k % 2) * 128;
    case SB_Q8_0:
        return k / SB_QUANT_BLOCK * SB_Q8_PANEL_BLOCK;
    case SB_Q4_0:
        return k / SB_QUANT_BLOCK * SB_Q4_PANEL_BLOCK;
    default:
        return 0;
    }
}

/* Panels of weights for one of outputs: of gate and up, or of one matrix. */
static inline size_t sb_halves(bool gated)
{
    return gated ? 2 : 1;
}

/* Panels of n outputs. */
static inline size_t sb_panels_for(size_t n)
{
    return n / SB_PANEL + (n % SB_PANEL != 0);
}

/* Bytes from the weights of one panel of outputs to those of the next. */
static inline size_t sb_packed_stride(const struct sb_packed *w)
{
    return sb_panel_bytes(w->type, w->k) * sb_halves(w->gated);
}

/* Of quantised weights, with at least so many rows, each panel asks for `each` bytes more, from byte `from` on of a
 * stream of which a piece of `run` bytes begins at `at`, and one every `stride` bytes. */
enum { SB_BESIDE_ROWS = 4 };
struct sb_beside {
    const unsigned char *at;
    size_t run, stride, from, each;
};

/* Where panel p, counted from the first that this is for, begins to ask. */
static inline const unsigned char *sb_beside_at(const struct sb_beside *beside, size_t p)
{
    const size_t i = beside->from + p * beside->each;
    return beside->at + i / beside->run * beside->stride + i % beside->run;
}

/* What a run over memory asks for beyond itself; nothing set: what lies behind it. Results do not depend on it. */
struct sb_asks {
    const unsigned char *then; /* what is read next, asked for towards the end */
    /* Or so many bytes from here on, evenly from the run's begin to its end. */
    const unsigned char *meanwhile;
    size_t bytes;
    struct sb_beside beside;
};

/* y[m, n] = x[m, k] W^T over panels of SB_PANEL columns; those of panel p begin at w + p * panel_stride. Gated: first a
 * panel of gate, then one of up, of which y gets silu(gate) * up. */
struct sb_product {
    int type; /* enum sb_dtype, or SB_BF16_DOT */
    const unsigned char *w;
    size_t panel_stride; /* bytes */
    size_t n, k, m;
    const float *x;
    size_t ldx;
    const struct sb_norm *norm; /* of x, before it comes to a kernel; or NULL */
    float *y;
    size_t ldy;
    const float *bias; /* [n] or NULL */
    bool add, gated;   /* gated: without bias, and not added */
    struct sb_asks asks;
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
    struct sb_asks asks;
};

enum { SB_WEIGH_ROWS = 64 };

struct sb_kernel_table {
    void (*product)(const struct sb_product *job, size_t first_panel, size_t last_panel);
    void (*add_to_sums)(const struct sb_sums *job);
    /* The same for one row (m = 1) over some steps: x[i] goes with step list[i] - list[0]. */
    void (*add_listed)(const struct sb_sums *job, const int32_t *list);
    void (*rmsnorm)(float *y, const float *x, const float *weight, size_t d, float eps);
    void (*swiglu)(float *gate, const float *up, size_t n);
    void (*add)(float *y, const float *x, size_t n);
    void (*divide)(float *y, const float *x, size_t n, float by);
    void (*multiply)(float *x, size_t n, float by);
    /* To nearest, ties to even; NaN stays NaN. */
    void (*round_bf16)(uint16_t *y, const float *x, size_t n);
    float (*largest)(const float *x, size_t n);
    /* Sum over e = exp((x - max) * scale), 16 lanes within chunks; e is stored when not NULL. scale > 0, and no
     * x is above max. */
    float (*sum_exp)(float *e, const float *x, size_t n, float scale, float max);
    /* Softmax goes on, for m <= SB_WEIGH_ROWS rows abreast: max[r] becomes the larger of itself and the row's n <=
     * SB_CHUNK scores, keep[r] what the old one is worth under the new one, exp((old - new) * scale); scores
     * become weights under the new one in place, and total[r] = fma(total[r], keep[r], their sum). */
    void (*weigh)(float *x, size_t ldx, size_t m, size_t n, float scale, float *max, float *total,
                  float *keep, struct sb_asks asks);
    size_t (*argmax)(const float *x, size_t n);
    /* Rotate one head by n_pairs angles: second elements at x + half (half layout) or next door. */
    void (*rope)(float *x, const float *cos, const float *sin, size_t n_pairs,
                 enum sb_rope_layout layout);
    /* Into a KV cache, rounded to nearest even, from m rows that lie ldx apart: keys of d elements into neighbouring
     * slots of one panel, from the first one's element 0 on; n <= SB_PANEL elements of values into their slots. */
    void (*store_keys)(enum sb_dtype type, unsigned char *to, const float *x, size_t ldx, size_t m,
                       size_t d);
    void (*store_values)(enum sb_dtype type, unsigned char *to, const float *x, size_t ldx,
                         size_t m, size_t n);
    /* For measuring: n times 2 * SB_BLOCK_ROWS independent multiply-adds of 16 lanes; their count is
     * returned and *sink is written, so that nothing is optimised away. Reading n floats, summed. */
    size_t (*spin)(size_t n, float *sink);
    float (*stream)(const float *x, size_t n);
};

extern const struct sb_kernel_table sb_kernels_generic;
extern const struct sb_kernel_table sb_kernels_avx2, sb_kernels_avx512; /* x86-64 builds only */

/* Bytes of `soon` for a product that has time for so many; once it has asked for them they are added to soon->asked. */
size_t sb_soon_take(struct sb_soon *soon, size_t spare_bytes);
/* What a product's panels from `first` on ask for, `each` bytes a panel: as products follow each other, each member's
 * panels go on in the stream of its own heads. */
struct sb_beside sb_soon_part(const struct sb_soon *soon, size_t panels, size_t members,
                              size_t each, size_t first);

/* A product by a variant's function, in parts of whole panels; `next` as in struct sb_packed. It has time for
 * spare_bytes of soon, which may be NULL. */
void sb_product_run(const struct sb_team *team, const struct sb_product *job,
                    const struct sb_panels *next, struct sb_soon *soon, size_t spare_bytes,
                    void (*product)(const struct sb_product *job, size_t first_panel,
                                    size_t last_panel));
void sb_product_avx512_bf16(const struct sb_product *job, size_t first_panel, size_t last_panel);

/* The table of the active variant. */
const struct sb_kernel_table *sb_kernels(void);

#endif
