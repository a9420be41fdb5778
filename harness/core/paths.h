/* Where bundled files are: the models and prompt sets that come with specbench. */
#ifndef SB_CORE_PATHS_H
#define SB_CORE_PATHS_H

#include <stdbool.h>

/* Path of a bundled file in new memory (sb_free): $SPECBENCH_DATA/relative when that is set, else
 * relative to the source tree the binary was built from. NULL only when memory runs out. */
char *sb_data_path(const char *relative);
bool sb_is_dir(const char *path);
bool sb_is_file(const char *path);

#endif
