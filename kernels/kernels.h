/* Kernels: numbers in, numbers out. No kernel knows a model.
 *
 * One rule holds for everything in this header: the bits of an output element depend on its inputs
 * alone - not on how many rows share the call (M), the number of threads, or the instruction set.
 * Each reduction has one order, stated at its function, that plain C, AVX2 and AVX-512 all follow:
 *
 *   chain      acc = fma(a[i], b[i], acc) for i ascending, acc starting at +0
 *   scaled     for weights in blocks of a scale d and integers q: acc = fma(d, s, acc) for blocks in
 *              ascending order, where s is the chain of the block over its q; acc starts at +0
 *              (inside, q is divided and d multiplied by one power of two, which rounds nothing)
 *   16 lanes   lane j chains over the elements j, j + 16, j + 32, ...; lanes then join pairwise:
 *              l[j] += l[j + 8] for j < 8, then + 4, then + 2, then + 1
 *   chunks     the reduction is cut every SB_CHUNK elements counted from the first, each piece is
 *              reduced from +0, and pieces are added in ascending order
 *
 * All matrices are row-major float32 unless a type is named; `ld` is the distance of rows in
 * elements. Nothing here allocates, except the *_create / *_init functions that say so. Functions that
 * take a team share their work out over it (team.h), and return when it is done. */
#ifndef SB_KERNELS_H
#define SB_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/team.h"

enum { SB_CHUNK = 256, SB_PANEL = 32, SB_QUANT_BLOCK = 32 };

/* ---- weight types ------------------------------------------------------------------------- */

enum sb_dtype { SB_F32, SB_F16, SB_BF16, SB_Q8_0, SB_Q4_0, SB_DTYPE_COUNT };

/* Q8_0: blocks of 32 values, f16 scale d and 32 int8: value = d * q. 34 bytes.
 * Q4_0: blocks of 32 values, f16 scale d and 16 bytes; byte j holds value j in its low and value
 * j + 16 in its high nibble: value = d * (nibble - 8). 18 bytes. Both products are exact in f32. */
const char *sb_dtype_name(enum sb_dtype type);           /* "f32", "bf16", "q8_0", ... */
size_t sb_dtype_row_bytes(enum sb_dtype type, size_t k); /* bytes of a row of k values; 0 when a
                                                                quantized k is no multiple of 32 */
/* dst[k] = the row as float32, exactly. */
void sb_dequantize_row(float *dst, enum sb_dtype type, const void *src, size_t k);

float sb_f16_to_f32(uint16_t x);
uint16_t sb_f32_to_f16(float x); /* nearest even */
float sb_bf16_to_f32(uint16_t x);
uint16_t sb_f32_to_bf16(float x); /* nearest even; NaN stays NaN */

/* ---- products ----------------------------------------------------------------------------- */

/* A weight matrix W[n, k] (n outputs), packed for streaming: panels of SB_PANEL output rows, the
 * rows of a panel interleaved along k; the last panel is padded with zeros. */
struct sb_packed {
    enum sb_dtype type;
    size_t n, k;
    size_t size_bytes;
    void *data; /* 64-byte aligned */
    bool owned;
    bool gated; /* a pair, gate and up, panels in turns: a product is silu(x gate^T) * (x up^T) */
    /* Panels of the matrix that is multiplied with next, not owned; none: data NULL. While a thread computes
     * its last panel it asks the memory for the first one it will have there: nobody else has. */
    struct sb_panels {
        const unsigned char *data;
        size_t n, bytes; /* of each */
    } next;
};

/* Pack rows 0..n-1 from src (row distance sb_dtype_row_bytes(type, k)) into `memory`, sb_packed_size bytes
 * aligned to 64 which the caller keeps, or for NULL into memory of its own. Returns 0, or -1 when memory
 * runs out. Uses all threads. */
int sb_packed_init(struct sb_packed *w, void *memory, enum sb_dtype type, size_t n, size_t k,
                   const void *src);
/* The same for a gated pair of n outputs each; takes sb_packed_size of both. */
int sb_packed_init_gated(struct sb_packed *w, void *memory, enum sb_dtype type, size_t n, size_t k,
                         const void *gate, const void *up);
void sb_packed_finish(struct sb_packed *w);
/* `next` usually follows w; results do not depend on it. */
void sb_packed_follow(struct sb_packed *w, const struct sb_packed *next);
/* Memory that n rows of k values take when packed. */
size_t sb_packed_size(enum sb_dtype type, size_t n, size_t k);

/* Floats from row to row of a product's input, n or a little more: an odd number of cache lines. Rows at a
 * distance of a power of two would share the few lines of one set of a first-level cache. */
size_t sb_row_stride(size_t n);

/* What an attention will read, of which the products before it may ask the memory for as much as it has time for while
 * they compute. Results do not depend on it. */
struct sb_soon {
    const struct sb_kv_layer *kv; /* NULL: nothing */
    size_t run;                   /* bytes of each of its heads */
    size_t bytes, asked;          /* of all heads: to be asked for, and so far */
    size_t later; /* time for so many is left unused first: later products have enough */
};

/* Rows of x that are read as sb_rmsnorm makes them. */
struct sb_norm {
    const float *weight; /* [k] */
    float eps;
    /* For n_room >= m rows, sb_row_stride(k) apart. Of few rows, each thread makes norms of its own there. */
    float *room;
    size_t n_room;
};

/* What a product may do beside; nothing set: nothing. Gated weights go without bias and add, norm without add. */
struct sb_matmul_options {
    const struct sb_norm *norm;
    const float *bias;    /* [n], added last */
    bool add;             /* y += product and bias: those first, then one addition */
    struct sb_soon *soon; /* is asked for, and brought up to date */
};

/* y[m, n] = x[m, k] W^T, or what gated weights and the options, which may be NULL, make of it. Each element of the
 * product is one chain over k; scaled, for quantised types. */
void sb_matmul(const struct sb_team *team, float *y, size_t ldy, const struct sb_packed *w,
               const float *x, size_t ldx, size_t m, const struct sb_matmul_options *options);
/* Bytes that memory has time for, beside the weights, while that computes; 0 for types and m that do not ask. */
size_t sb_matmul_spare(const struct sb_team *team, const struct sb_packed *w, size_t m);

/* Like sb_matmul for the listed output rows only: y[m, n_rows], same bits as those columns. */
void sb_matmul_rows(const struct sb_team *team, float *y, size_t ldy, const struct sb_packed *w,
                    const int32_t *rows, size_t n_rows, const float *x, size_t ldx, size_t m);

/* The fast arithmetic: BF16 weights against x rounded to bfloat16, by the processor's dot products
 * (avx512_bf16): acc += x[2i+1] w[2i+1], then x[2i] w[2i], for i ascending, as that instruction rounds.
 * As independent of m and of the team as the exact one, but other bits. */
bool sb_fast_supported(void); /* by this processor, with the active variant */
/* pairs[m, ldp] = x[m, k] as words of two bfloat16, the earlier one low; ldp >= (k + 1) / 2. */
void sb_round_pairs(const struct sb_team *team, uint32_t *pairs, size_t ldp, const float *x,
                    size_t ldx, size_t k, size_t m);
void sb_matmul_fast(const struct sb_team *team, float *y, size_t ldy, const struct sb_packed *w,
                    const uint32_t *pairs, size_t ldp, size_t m, const float *bias, bool add);

/* ---- row operations ------------------------------------------------------------------------ */

/* y = x / sqrt(mean(x^2) + eps) * weight, per row of d. Sum of squares: 16 lanes. y may be x. */
void sb_rmsnorm(const struct sb_team *team, float *y, size_t ldy, const float *x, size_t ldx,
                const float *weight, size_t d, size_t m, float eps);

/* gate = silu(gate) * up, elementwise over m rows of n. */
void sb_swiglu(const struct sb_team *team, float *gate, size_t ldg, const float *up, size_t ldu,
               size_t n, size_t m);

/* y += x over n elements. */
void sb_add(float *y, const float *x, size_t n);

/* Softmax of x[n] * scale into prob (may be x), scale > 0. Maximum first, sum of exponentials by 16 lanes in
 * float32 within chunks; those below 2^-126 are 0. Returns the log-sum-exp of x * scale. n >= 1; an all -inf row
 * is a bug. */
float sb_softmax(float *prob, const float *x, size_t n, float scale);
float sb_logsumexp(const float *x, size_t n);
/* Index of the largest of x[n]; the smallest index wins ties; NaN never wins. */
size_t sb_argmax(const float *x, size_t n);

/* Our own elementary functions: same bits on every machine, at most 2 ulp off for float. */
float sb_expf(float x);
float sb_erff(float x); /* at most 3e-7 off, in absolute terms */
double sb_exp(double x);
double sb_log(double x);
void sb_sincos(double x, double *sin_x, double *cos_x); /* |x| < 2^30 */

/* ---- rotary position embedding --------------------------------------------------------------- */

enum sb_rope_layout {
    SB_ROPE_INTERLEAVED, /* pairs (0,1), (2,3), ...: GGUF's llama */
    SB_ROPE_HALF,        /* pairs (i, i + rot/2): HF layout, qwen2 */
};

struct sb_rope {
    size_t n_positions, n_dims; /* n_dims rotated dimensions, even; the rest of a head is copied */
    enum sb_rope_layout layout;
    float *cos, *sin; /* [n_positions, n_dims / 2], owned */
};

/* Angle of pair i at position p: p * scale_linear * base^(-2i / n_dims) / factors[i]; factors may
 * be NULL (all one). Computed in double and rounded once. Returns 0, or -1 out of memory. */
int sb_rope_init(struct sb_rope *rope, size_t n_positions, size_t n_dims,
                 enum sb_rope_layout layout, double base, double scale_linear,
                 const float *factors);
void sb_rope_finish(struct sb_rope *rope);
/* Rotate n_heads heads of head_dim, in place, for m rows at positions pos[m]. */
void sb_rope_apply(const struct sb_team *team, const struct sb_rope *rope, float *x, size_t ldx,
                   size_t n_heads, size_t head_dim, const int32_t *pos, size_t m);

/* ---- attention ------------------------------------------------------------------------------- */

/* Keys and values of one layer, as float32, float16 or bfloat16 (nearest even). Both are packed as
 * weights are, so that scores and weighted sums are products:
 *   per head and SB_CHUNK slots, first
 *   K: a panel for each 32 slots, steps over head_dim (the form of struct sb_packed), then
 *   V: a panel for each 32 dimensions (the last padded), steps over the slots; a step of a narrow type is 64 bytes
 * So what attention reads of a head is one stream. */
struct sb_kv_layer {
    enum sb_dtype type;
    void *memory;   /* 64-byte aligned; zeroed when allocated */
    size_t n_slots; /* capacity */
    size_t n_kv_heads, head_dim;
};

/* Bytes of its memory; 0 for another type, or when a size does not fit. */
size_t sb_kv_bytes(enum sb_dtype type, size_t n_slots, size_t n_kv_heads, size_t head_dim);
/* Rows 0..m-1 of k and v (ld apart; [n_kv_heads * head_dim] each) into slots slot, slot + 1, ... */
void sb_kv_write(const struct sb_team *team, const struct sb_kv_layer *kv, size_t slot,
                 const float *k, const float *v, size_t ld, size_t m);
/* Copy slot src to slot dst (dst <= src is how commit compacts). */
void sb_kv_move(const struct sb_kv_layer *kv, size_t dst, size_t src);
/* Copy slots 0..n-1 (and perhaps some after them) between caches of one shape. */
void sb_kv_copy(const struct sb_kv_layer *dst, const struct sb_kv_layer *src, size_t n);

/* What row r of a batch sees, in this order: slots 0..n_prefix-1, then n_batch[r] slots
 * n_prefix + list[r][0], n_prefix + list[r][1], ... (its ancestors by depth, then itself). The
 * order of this sequence is the order of the reductions, so a tree path has the bits of a chain. */
struct sb_visible {
    size_t n_prefix;
    const int32_t *const *list; /* [m] pointers to ascending batch indices */
    const int32_t *n_list;      /* [m] */
};

/* Bytes of scratch that sb_attention needs for m rows, or fewer; rows of the batch that are seen and not computed count. */
size_t sb_attention_scratch_bytes(size_t m, size_t n_heads, size_t n_kv_heads, size_t head_dim);

/* out[m, n_heads * head_dim] = softmax(q k^T * scale) v, grouped-query: head h reads KV head
 * h / (n_heads / n_kv_heads). Scores: chains over head_dim. The visible sequence is cut into chunks of
 * SB_CHUNK, in ascending order: M becomes the largest score so far, what is summed up so far is multiplied by
 * exp((old M - M) * scale), weights are exp((score - M) * scale), their sum is taken by 16 lanes and joins the
 * total by one fma, and weighted values go on in their chains. Division by the sum of weights last.
 * scratch: 64-byte aligned, sb_attention_scratch_bytes. */
void sb_attention(const struct sb_team *team, float *out, size_t ldo, const float *q, size_t ldq,
                  size_t n_heads, float scale, const struct sb_kv_layer *kv,
                  const struct sb_visible *visible, size_t m, void *scratch);

/* What an attention of m rows over `slots` committed slots will read, for the products before it, which have time for
 * spare_bytes (sb_matmul_spare of all of them). Nothing, where attention itself is bound by operations. */
struct sb_soon sb_attention_soon(const struct sb_team *team, const struct sb_kv_layer *kv,
                                 size_t slots, size_t n_heads, size_t m, size_t spare_bytes);

/* ---- what this machine can do -------------------------------------------------------------- */

/* Owned by the caller; NULL when memory (256 MiB, to be read) runs out. */
struct sb_meter;
struct sb_meter *sb_meter_create(void);
void sb_meter_destroy(struct sb_meter *meter); /* accepts NULL */

/* Bytes per second at which all threads read those 256 MiB once: some milliseconds. Memory that is shared
 * with others changes its rate all the time, so what is held against it is measured in turn with it. */
double sb_meter_read_rate(const struct sb_meter *meter);
/* Floating-point operations per second, two for a multiply-add, of all threads in registers, with the
 * active variant. */
double sb_meter_fma_rate(void);

/* ---- dispatch -------------------------------------------------------------------------------- */

enum sb_cpu { SB_CPU_GENERIC, SB_CPU_AVX2, SB_CPU_AVX512, SB_CPU_COUNT };

/* The best variant of this machine, or the one that SB_CPU=generic|avx2|avx512 asks for. Chosen
 * once, before the first kernel runs. A variant the machine lacks, or an unknown name, is reported
 * by sb_cpu_select (0, or -1 with *why set to a static line) and leaves the best one in place. */
enum sb_cpu sb_cpu_active(void);
const char *sb_cpu_name(enum sb_cpu cpu);
bool sb_cpu_supported(enum sb_cpu cpu);
int sb_cpu_select(const char *name,
                  const char **why); /* NULL or "": the best; tests switch freely */

#endif
