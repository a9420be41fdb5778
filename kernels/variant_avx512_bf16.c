/* The products of AVX-512 with bfloat16 dot products instead of fmas; entered through fast.c only. */
#define SB_DOT_PRODUCTS
#include <math.h>

#include "kernels/v16_avx512.h"

#include "kernels/product_v16.h"

void sb_product_avx512_bf16(const struct sb_product *job, size_t first_panel, size_t last_panel)
{
    product(job, first_panel, last_panel);
}
