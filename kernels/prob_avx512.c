/* The probability kernels in AVX-512; entered only after dispatch.c has asked the CPU. */
#include <math.h>

#include "kernels/d16_avx512.h"

#define SB_PROB_TABLE sb_prob_avx512

#include "kernels/prob_d16.h"
