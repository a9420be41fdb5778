/* The list of policies: one line each, sorted by name; meson.build reads the file names from here. */
#include "harness/decode/policy.h"

#include <stddef.h>
#include <string.h>

#define POLICIES(X) \
    X(constant)     \
    X(fallback)     \
    /* end */

#define X(id) extern const struct sb_policy_ops sb_policy_##id;
POLICIES(X)
#undef X

#define X(id) &sb_policy_##id,
const struct sb_policy_ops *const sb_policies[] = { POLICIES(X) NULL };
#undef X

const struct sb_policy_ops *sb_policy_find(const char *name)
{
    for (size_t i = 0; sb_policies[i]; i++)
        if (strcmp(sb_policies[i]->name, name) == 0)
            return sb_policies[i];
    return NULL;
}
