#include "harness/model/mapping.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum sb_status sb_mapping_open(struct sb_mapping *out, const char *path, struct sb_error *err)
{
    struct stat st;
    enum sb_status rc = SB_OK;
    void *bytes = MAP_FAILED;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return sb_fail(err, SB_EINPUT, "%s: %s", path, strerror(errno));
    if (fstat(fd, &st) != 0)
        rc = sb_fail(err, SB_EINPUT, "%s: %s", path, strerror(errno));
    else if (!S_ISREG(st.st_mode))
        rc = sb_fail(err, SB_EINPUT, "%s: is %s; expected a file", path,
                     S_ISDIR(st.st_mode) ? "a directory" : "no regular file");
    else if (st.st_size == 0)
        rc = sb_fail(err, SB_EFORMAT, "%s: is empty", path);
    else if ((bytes = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0)) == MAP_FAILED)
        rc = sb_fail(err, SB_EIO, "%s: cannot be mapped: %s", path, strerror(errno));
    else
        *out = (struct sb_mapping){ bytes, (size_t)st.st_size };
    close(fd);
    return rc;
}

void sb_mapping_close(struct sb_mapping *mapping)
{
    if (mapping && mapping->bytes)
        munmap((void *)mapping->bytes, mapping->size);
    if (mapping)
        *mapping = (struct sb_mapping){ 0 };
}
