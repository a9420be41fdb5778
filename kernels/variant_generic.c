/* Plain C: the variant that every machine has. */
#include <math.h>

#include "kernels/v16_generic.h"

#include "kernels/product_v16.h"
#include "kernels/rows_v16.h"

#include "kernels/kv_v16.h"

#include "kernels/table_v16.h"
