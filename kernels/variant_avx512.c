/* AVX-512; compiled with that instruction set and entered only after dispatch.c has asked the CPU. */
#include <math.h>

#include "kernels/v16_avx512.h"

#include "kernels/product_v16.h"
#include "kernels/rows_v16.h"

#include "kernels/kv_v16.h"

#include "kernels/table_v16.h"
