#include "harness/model/arithmetic.h"

#include <string.h>

/* One of two texts; *second says whether it is the other one. */
static enum sb_status either(bool *second, const char *name, const char *text,
                             const char *const choices[2], struct sb_error *err)
{
    *second = text && strcmp(text, choices[1]) == 0;
    if (text && !*second && strcmp(text, choices[0]) != 0)
        return sb_fail(err, SB_EUSAGE, "%s '%s': expected %s or %s", name, text, choices[0],
                       choices[1]);
    return SB_OK;
}

enum sb_status sb_arithmetic_parse(struct sb_arithmetic *out,
                                   const struct sb_arithmetic_texts *texts, struct sb_error *err)
{
    static const char *const math[] = { "exact", "fast" },
                             *const prefill[] = { "exact", "openblas" },
                             *const weights[] = { "stored", "f32" };
    struct sb_arithmetic a = { .kv_type = SB_F32 };
    if (texts->kv_type) {
        while (a.kv_type <= SB_BF16 && strcmp(texts->kv_type, sb_dtype_name(a.kv_type)) != 0)
            a.kv_type++;
        if (a.kv_type > SB_BF16)
            return sb_fail(err, SB_EUSAGE, "kv-type '%s': expected f32, f16 or bf16",
                           texts->kv_type);
    }
    enum sb_status rc = either(&a.fast, "math", texts->math, math, err);
    if (rc == SB_OK)
        rc = either(&a.blas_prefill, "prefill", texts->prefill, prefill, err);
    if (rc == SB_OK)
        rc = either(&a.f32_weights, "weights", texts->weights, weights, err);
    if (rc == SB_OK && a.fast && a.f32_weights)
        return sb_fail(err, SB_EUSAGE, "math fast multiplies BF16 weights: not with weights f32");
    if (rc == SB_OK && a.fast && !sb_fast_supported())
        return sb_fail(err, SB_EUNSUPPORTED,
                       "math fast: this processor has no avx512_bf16, or SB_CPU asks for another "
                       "variant");
    if (rc == SB_OK)
        *out = a;
    return rc;
}

const char *sb_arithmetic_text(const struct sb_arithmetic *a)
{
    static const char *const texts[3][2][2] = {
        { { "exact", "prefill=openblas" }, { "math=fast", "math=fast prefill=openblas" } },
        { { "kv=f16", "kv=f16 prefill=openblas" },
          { "kv=f16 math=fast", "kv=f16 math=fast prefill=openblas" } },
        { { "kv=bf16", "kv=bf16 prefill=openblas" },
          { "kv=bf16 math=fast", "kv=bf16 math=fast prefill=openblas" } },
    };
    static const char *const wide[3][2] = {
        { "exact weights=f32", "prefill=openblas weights=f32" },
        { "kv=f16 weights=f32", "kv=f16 prefill=openblas weights=f32" },
        { "kv=bf16 weights=f32", "kv=bf16 prefill=openblas weights=f32" },
    };
    return a->f32_weights ? wide[a->kv_type][a->blas_prefill]
                          : texts[a->kv_type][a->fast][a->blas_prefill];
}
