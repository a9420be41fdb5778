#include "drafters/shape.h"

#include <stdbool.h>

static bool parse(struct sb_shape *shape, const char *text)
{
    int64_t level = 1, n_nodes = 0;
    *shape = (struct sb_shape){ 0 };
    for (const char *p = text;; p++) {
        int32_t width = 0;
        for (; *p >= '0' && *p <= '9' && width <= SB_SHAPE_WIDTH; p++)
            width = width * 10 + (*p - '0');
        if (width < 1 || width > SB_SHAPE_WIDTH || shape->n_levels == SB_SHAPE_LEVELS)
            return false;
        shape->width[shape->n_levels++] = width;
        level *= width;
        n_nodes += level;
        if (n_nodes > SB_SHAPE_NODES)
            return false;
        if (*p == '\0')
            return true;
        if (*p != 'x')
            return false;
    }
}

enum sb_status sb_shape_parse(struct sb_shape *out, const char *text, const char *drafter,
                              struct sb_error *err)
{
    struct sb_shape shape;
    if (!parse(&shape, text))
        return sb_fail(err, SB_EUSAGE,
                       "drafter %s: tree=%s: expected children per level such as 3x2x1, at most %d "
                       "levels of 1 to %d and %d nodes",
                       drafter, text, SB_SHAPE_LEVELS, SB_SHAPE_WIDTH, SB_SHAPE_NODES);
    *out = shape;
    return SB_OK;
}

int32_t sb_shape_widest(const struct sb_shape *shape)
{
    int32_t widest = 0;
    for (int32_t i = 0; i < shape->n_levels; i++)
        widest = shape->width[i] > widest ? shape->width[i] : widest;
    return widest;
}

int32_t sb_shape_nodes(const struct sb_shape *shape, int32_t depth)
{
    int32_t level = 1, n = 0;
    for (int32_t i = 0; i < depth; i++) {
        level *= shape->width[i];
        n += level;
    }
    return n;
}
