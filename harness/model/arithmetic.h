/* How a model computes, where that can differ from the default by choice.
 *
 * The default, "exact", has the same bits for any number of rows, threads and instruction set. The
 * other settings are arithmetics of their own: recorded with a run, never mixed with it in silence.
 * A narrow KV cache and fast products keep their bits for any number of rows and threads; OpenBLAS
 * promises nothing, and computes prompts only. Widened weights change no bit, but the time. */
#ifndef SB_MODEL_ARITHMETIC_H
#define SB_MODEL_ARITHMETIC_H

#include <stdbool.h>

#include "harness/core/error.h"
#include "kernels/kernels.h"

struct sb_arithmetic {
    enum sb_dtype kv_type; /* SB_F32, SB_F16 or SB_BF16 */
    bool fast;             /* BF16 weights: activations rounded too, the processor's dot products */
    bool blas_prefill;     /* a prompt's products through OpenBLAS's sgemm */
    bool f32_weights; /* F16 and BF16 weights widened when packed: the same bits, twice the bytes */
};

/* As options and scripts say it; NULL: the default. */
struct sb_arithmetic_texts {
    const char *kv_type; /* f32, f16, bf16 */
    const char *math;    /* exact, fast */
    const char *prefill; /* exact, openblas */
    const char *weights; /* stored, f32 */
};

/* SB_EUSAGE for another text, SB_EUNSUPPORTED for fast where the processor has no such instruction, and
 * together with widened weights, which it does not take. */
enum sb_status sb_arithmetic_parse(struct sb_arithmetic *out,
                                   const struct sb_arithmetic_texts *texts, struct sb_error *err);

/* "exact", or what differs: "kv=f16 math=fast prefill=openblas". Behind it "weights=f32", which has the
 * bits of the same without it. Static text. */
const char *sb_arithmetic_text(const struct sb_arithmetic *a);

#endif
