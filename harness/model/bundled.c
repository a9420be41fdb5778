#include "harness/model/bundled.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness/core/alloc.h"
#include "harness/core/paths.h"

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static bool ends_in(const char *text, const char *suffix)
{
    size_t n = strlen(text), m = strlen(suffix);
    return n >= m && strcmp(text + n - m, suffix) == 0;
}

void sb_bundled_each(const char *suffix,
                     bool (*visit)(void *self, const char *name, const char *path), void *self)
{
    struct dirent **entry = NULL;
    char *folder = sb_data_path("models");
    int n = folder ? scandir(folder, &entry, NULL, by_name) : 0;
    bool more = true;
    for (int i = 0; i < n; i++) {
        char *path = sb_strf("%s/%s", folder, entry[i]->d_name);
        char *config = sb_strf("%s/%s/config.json", folder, entry[i]->d_name);
        if (more && path && config && ends_in(entry[i]->d_name, suffix) && sb_is_file(config))
            more = visit(self, entry[i]->d_name, path);
        sb_free(config);
        sb_free(path);
        free(entry[i]);
    }
    free(entry);
    sb_free(folder);
}

/* The bundled names, for a message: "tiny, tiny-draft". */
struct names {
    char text[256];
    size_t used;
};

static bool add_name(void *self, const char *name, const char *path)
{
    struct names *names = self;
    size_t room = sizeof names->text - names->used;
    int n = snprintf(names->text + names->used, room, "%s%s", names->used ? ", " : "", name);
    names->used += (size_t)n < room ? (size_t)n : room - 1;
    return true;
}

enum sb_status sb_bundled_resolve(char **path, const char *what, const char *name,
                                  struct sb_error *err)
{
    char *relative = sb_strf("models/%s", name);
    char *bundled = relative ? sb_data_path(relative) : NULL;
    sb_free(relative);
    if (!bundled)
        return sb_fail(err, SB_ENOMEM, "out of memory for %s '%s'", what, name);
    if (*name && !strchr(name, '/') && sb_is_dir(bundled)) {
        *path = bundled;
        return SB_OK;
    }
    sb_free(bundled);
    if (!sb_is_dir(name) && !sb_is_file(name)) {
        struct names names = { .used = 0 };
        if (access(name, F_OK) == 0)
            return sb_fail(err, SB_EINPUT, "%s '%s': is neither a file nor a directory", what,
                           name);
        sb_bundled_each("", add_name, &names);
        return sb_fail(err, SB_EINPUT, "%s '%s': no such file or directory, nor a bundled one (%s)",
                       what, name, names.text[0] ? names.text : "none is installed");
    }
    *path = sb_strdup(name);
    return *path ? SB_OK : sb_fail(err, SB_ENOMEM, "out of memory for %s '%s'", what, name);
}
