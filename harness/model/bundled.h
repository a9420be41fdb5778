/* Names of bundled models and draft heads: "tiny" means models/tiny beside the program. */
#ifndef SB_MODEL_BUNDLED_H
#define SB_MODEL_BUNDLED_H

#include <stdbool.h>

#include "harness/core/error.h"

/* Where a model or a head is: a name without a slash that models/ has is that folder; anything else is a
 * path of a file or directory. `what` ("model", "draft head") begins messages. New memory (sb_free);
 * SB_EINPUT lists the bundled names when there is no such thing. */
enum sb_status sb_bundled_resolve(char **path, const char *what, const char *name,
                                  struct sb_error *err);

/* Folders of models/ that hold a config.json and whose names end in `suffix`, sorted, for as long as
 * `visit` returns true. */
void sb_bundled_each(const char *suffix,
                     bool (*visit)(void *self, const char *name, const char *path), void *self);

#endif
