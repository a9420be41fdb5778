/* The probability kernels in AVX2; entered only after dispatch.c has asked the CPU. */
#include <math.h>

#include "kernels/d16_avx2.h"

#define SB_PROB_TABLE sb_prob_avx2

#include "kernels/prob_d16.h"
