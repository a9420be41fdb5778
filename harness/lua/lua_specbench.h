/* Experiment scripts: the Lua module `specbench` and the state that runs a script. */
#ifndef SB_LUA_LUA_SPECBENCH_H
#define SB_LUA_LUA_SPECBENCH_H

#include <stdbool.h>
#include <stddef.h>

#include "harness/core/error.h"
#include "results/report.h"

struct sb_lua_options {
    const char *db;         /* where experiments are stored */
    const char *const *set; /* [n_set] "k=v" texts, in the script as sb.set.k */
    size_t n_set;
    bool resume, dry_run, quiet;
    enum sb_format format; /* of what exp:report() prints */
    const volatile int *stop;
};

/* Run a script file. Its error becomes err, with file and line; a failure of ours keeps its code. */
enum sb_status sb_lua_run(const char *path, const struct sb_lua_options *options,
                          struct sb_error *err);

#endif
