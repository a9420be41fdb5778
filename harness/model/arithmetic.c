#include "harness/model/arithmetic.h"

#include <string.h>

enum sb_status sb_arithmetic_parse(struct sb_arithmetic *out, const char *kv_type, const char *math,
                                   const char *prefill, struct sb_error *err)
{
    struct sb_arithmetic a = { .kv_type = SB_F32 };
    if (kv_type) {
        while (a.kv_type <= SB_BF16 && strcmp(kv_type, sb_dtype_name(a.kv_type)) != 0)
            a.kv_type++;
        if (a.kv_type > SB_BF16)
            return sb_fail(err, SB_EUSAGE, "kv-type '%s': expected f32, f16 or bf16", kv_type);
    }
    a.fast = math && strcmp(math, "fast") == 0;
    if (math && !a.fast && strcmp(math, "exact") != 0)
        return sb_fail(err, SB_EUSAGE, "math '%s': expected exact or fast", math);
    if (a.fast && !sb_fast_supported())
        return sb_fail(err, SB_EUNSUPPORTED,
                       "math fast: this processor has no avx512_bf16, or SB_CPU asks for another "
                       "variant");
    a.blas_prefill = prefill && strcmp(prefill, "openblas") == 0;
    if (prefill && !a.blas_prefill && strcmp(prefill, "exact") != 0)
        return sb_fail(err, SB_EUSAGE, "prefill '%s': expected exact or openblas", prefill);
    *out = a;
    return SB_OK;
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
    return texts[a->kv_type][a->fast][a->blas_prefill];
}
