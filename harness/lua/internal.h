/* What the Lua modules share: the run they belong to, and how failures become Lua errors. */
#ifndef SB_LUA_INTERNAL_H
#define SB_LUA_INTERNAL_H

#include <lauxlib.h>
#include <lua.h>

#include "harness/experiment/experiment.h"
#include "harness/lua/lua_specbench.h"

/* One script run; lives in sb_lua_run's frame, found through the registry. */
struct sb_lua_host {
    const struct sb_lua_options *options;
    const char *script;
    struct sb_models *models;
    struct sb_store *store; /* opened by the first experiment that runs */
};
struct sb_lua_host *sb_lua_host(lua_State *L);

/* Raise { code = "...", message = "..." } with a position; never returns. */
int sb_lua_raise(lua_State *L, const struct sb_error *err);

/* Push a JSON text as Lua values; objects and arrays become tables. The text is borrowed. */
int sb_lua_push_json(lua_State *L, const char *text, size_t length, struct sb_error *err);

/* Module parts: each pushes nothing and registers its functions into the table on top. */
void sb_lua_open_experiment(lua_State *L);

#endif
