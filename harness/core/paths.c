#include "harness/core/paths.h"

#include <stdlib.h>
#include <sys/stat.h>

#include "harness/core/alloc.h"

char *sb_data_path(const char *relative)
{
    const char *root = getenv("SPECBENCH_DATA");
    return sb_strf("%s/%s", root && *root ? root : SB_SOURCE_DIR, relative);
}

bool sb_is_dir(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

bool sb_is_file(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}
