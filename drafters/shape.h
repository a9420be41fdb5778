/* Product shapes (methods A 5.5): children per node of each level, written "3x2x1". */
#ifndef SB_DRAFTERS_SHAPE_H
#define SB_DRAFTERS_SHAPE_H

#include <stdint.h>

#include "harness/core/error.h"

enum { SB_SHAPE_LEVELS = 16, SB_SHAPE_WIDTH = 64, SB_SHAPE_NODES = 1000 };

struct sb_shape {
    int32_t n_levels;
    int32_t width[SB_SHAPE_LEVELS]; /* 1..SB_SHAPE_WIDTH */
};

/* SB_EUSAGE names the drafter, the text and what is allowed; at most SB_SHAPE_NODES nodes. */
enum sb_status sb_shape_parse(struct sb_shape *out, const char *text, const char *drafter,
                              struct sb_error *err);
int32_t sb_shape_widest(const struct sb_shape *shape); /* most children of a node */
/* Most nodes of a draft that goes `depth` levels deep (at most n_levels), the root left out. */
int32_t sb_shape_nodes(const struct sb_shape *shape, int32_t depth);

#endif
