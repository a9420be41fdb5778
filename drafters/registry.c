/* The list of drafters: one line each, sorted by name; meson.build reads the file names from here. */
#include "harness/decode/drafter.h"

#include <stddef.h>
#include <string.h>

#define DRAFTERS(X)    \
    X(anpd)            \
    X(delegate)        \
    X(eagle)           \
    X(eagle2)          \
    X(eagle3)          \
    X(hydra)           \
    X(hydra_pp)        \
    X(jacobi)          \
    X(llma)            \
    X(lookahead)       \
    X(mag)             \
    X(medusa)          \
    X(merge)           \
    X(mlp_speculator)  \
    X(nest)            \
    X(ngram_cache)     \
    X(none)            \
    X(pld)             \
    X(pld_plus)        \
    X(redrafter)       \
    X(rest)            \
    X(rsd_c)           \
    X(rsd_s)           \
    X(sad)             \
    X(sam)             \
    X(small_lm)        \
    X(suffix_decoding) \
    X(token_recycling) \
    X(trie_lookahead)  \
    /* end */

#define X(id) extern const struct sb_drafter_ops sb_drafter_##id;
DRAFTERS(X)
#undef X

#define X(id) &sb_drafter_##id,
const struct sb_drafter_ops *const sb_drafters[] = { DRAFTERS(X) NULL };
#undef X

const struct sb_drafter_ops *sb_drafter_find(const char *name)
{
    for (size_t i = 0; sb_drafters[i]; i++)
        if (strcmp(sb_drafters[i]->name, name) == 0)
            return sb_drafters[i];
    return NULL;
}
