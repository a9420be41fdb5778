/* Plain C: the probability kernels that every machine has. */
#include <math.h>

#include "kernels/d16_generic.h"

#define SB_PROB_TABLE sb_prob_generic

#include "kernels/prob_d16.h"
