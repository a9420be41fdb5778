#include "harness/lua/lua_specbench.h"

#include <stdio.h>
#include <string.h>

#include <jansson.h>
#include <lualib.h>

#include "harness/core/alloc.h"
#include "harness/core/paths.h"
#include "harness/lua/internal.h"

static const char host_key;
static const char error_type[] = "specbench.error";

struct sb_lua_host *sb_lua_host(lua_State *L)
{
    lua_rawgetp(L, LUA_REGISTRYINDEX, &host_key);
    struct sb_lua_host *host = lua_touserdata(L, -1);
    lua_pop(L, 1);
    return host;
}

/* ---- errors --------------------------------------------------------------------------------- */

static const char *code_name(enum sb_status code)
{
    static const char *const names[] = {
        [SB_OK] = "ok",
        [SB_EUSAGE] = "usage",
        [SB_EINPUT] = "input",
        [SB_EFORMAT] = "format",
        [SB_EUNSUPPORTED] = "unsupported",
        [SB_EIO] = "io",
        [SB_ENOMEM] = "memory",
        [SB_EGATE] = "gate",
        [SB_EINTERRUPTED] = "interrupted",
        [SB_EINTERNAL] = "internal",
    };
    return names[code];
}

int sb_lua_raise(lua_State *L, const struct sb_error *err)
{
    lua_newtable(L);
    lua_pushstring(L, code_name(err->code));
    lua_setfield(L, -2, "code");
    lua_pushinteger(L, err->code);
    lua_setfield(L, -2, "status");
    luaL_where(L, 1);
    lua_pushstring(L, err->message);
    lua_concat(L, 2);
    lua_setfield(L, -2, "message");
    luaL_setmetatable(L, error_type);
    return lua_error(L);
}

static int error_to_string(lua_State *L)
{
    lua_getfield(L, 1, "message");
    return 1;
}

/* ---- JSON values ------------------------------------------------------------------------------- */

static void push_value(lua_State *L, json_t *value)
{
    const char *key;
    json_t *member;
    size_t i;
    luaL_checkstack(L, 8, "nested too deep");
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        lua_newtable(L);
        json_object_foreach(value, key, member)
        {
            push_value(L, member);
            lua_setfield(L, -2, key);
        }
        break;
    case JSON_ARRAY:
        lua_newtable(L);
        json_array_foreach(value, i, member)
        {
            push_value(L, member);
            lua_seti(L, -2, (lua_Integer)i + 1);
        }
        break;
    case JSON_STRING:
        lua_pushlstring(L, json_string_value(value), json_string_length(value));
        break;
    case JSON_INTEGER:
        lua_pushinteger(L, json_integer_value(value));
        break;
    case JSON_REAL:
        lua_pushnumber(L, json_real_value(value));
        break;
    case JSON_TRUE:
    case JSON_FALSE:
        lua_pushboolean(L, json_is_true(value));
        break;
    case JSON_NULL:
        lua_pushnil(L);
        break;
    }
}

static int push_protected(lua_State *L)
{
    push_value(L, lua_touserdata(L, 1));
    return 1;
}

int sb_lua_push_json(lua_State *L, const char *text, size_t length, struct sb_error *err)
{
    json_error_t why;
    json_t *root = json_loadb(text, length, 0, &why);
    if (!root) {
        sb_fail(err, SB_EINTERNAL, "a view is no JSON: %s", why.text);
        return 0;
    }
    lua_pushcfunction(L, push_protected);
    lua_pushlightuserdata(L, root);
    int failed = lua_pcall(L, 1, 1, 0);
    json_decref(root);
    if (failed)
        sb_fail(err, SB_ENOMEM, "%s", lua_tostring(L, -1));
    return !failed;
}

/* ---- the module --------------------------------------------------------------------------------- */

/* sb.log(format, ...): a line on standard error. */
static int log_line(lua_State *L)
{
    int n = lua_gettop(L);
    lua_getglobal(L, "string");
    lua_getfield(L, -1, "format");
    lua_replace(L, -2);
    lua_insert(L, 1);
    lua_call(L, n, 1);
    fprintf(stderr, "%s\n", luaL_checkstring(L, -1));
    return 0;
}

static int open_module(lua_State *L)
{
    const struct sb_lua_host *host = sb_lua_host(L);
    luaL_newmetatable(L, error_type);
    lua_pushcfunction(L, error_to_string);
    lua_setfield(L, -2, "__tostring");
    lua_pop(L, 1);
    lua_newtable(L);
    sb_lua_open_experiment(L);
    lua_pushcfunction(L, log_line);
    lua_setfield(L, -2, "log");
    lua_pushliteral(L, SB_VERSION);
    lua_setfield(L, -2, "version");
    lua_newtable(L);
    for (size_t i = 0; i < host->options->n_set; i++) {
        const char *text = host->options->set[i], *equals = strchr(text, '=');
        lua_pushlstring(L, text, (size_t)(equals - text));
        lua_pushstring(L, equals + 1);
        lua_settable(L, -3);
    }
    lua_setfield(L, -2, "set");
    return 1;
}

/* require finds modules beside the script, in its lib/, and in the bundled scripts/lib/. */
static void set_package_path(lua_State *L, const char *script)
{
    const char *slash = strrchr(script, '/');
    int n = slash ? (int)(slash - script) : 1;
    const char *folder = slash ? script : ".";
    char *bundled = sb_data_path("scripts/lib/?.lua");
    lua_getglobal(L, "package");
    lua_pushlstring(L, folder, (size_t)n);
    const char *dir = lua_tostring(L, -1);
    lua_pushfstring(L, "%s/?.lua;%s/lib/?.lua;%s", dir, dir, bundled ? bundled : "");
    lua_setfield(L, -3, "path");
    lua_pop(L, 2);
    sb_free(bundled);
}

static int run_script(lua_State *L)
{
    const struct sb_lua_host *host = sb_lua_host(L);
    luaL_openlibs(L);
    luaL_requiref(L, "specbench", open_module, 0);
    set_package_path(L, host->script);
    lua_settop(L, 0);
    if (luaL_loadfilex(L, host->script, "t") != LUA_OK)
        return lua_error(L);
    lua_call(L, 0, 0);
    return 0;
}

/* What lua_pcall left on the stack, as an error of ours. */
static enum sb_status take_error(lua_State *L, struct sb_error *err)
{
    enum sb_status code = SB_EUSAGE; /* a script's own error: its input is wrong */
    if (luaL_testudata(L, -1, error_type) == NULL && lua_istable(L, -1)) {
        lua_getfield(L, -1, "status");
        code = lua_isinteger(L, -1) ? (enum sb_status)lua_tointeger(L, -1) : SB_EUSAGE;
        lua_pop(L, 1);
    }
    return sb_fail(err, code, "%s", luaL_tolstring(L, -1, NULL));
}

static enum sb_status check_set(const struct sb_lua_options *options, struct sb_error *err)
{
    for (size_t i = 0; i < options->n_set; i++) {
        const char *equals = strchr(options->set[i], '=');
        if (!equals || equals == options->set[i])
            return sb_fail(err, SB_EUSAGE, "--set %s: expected key=value", options->set[i]);
    }
    return SB_OK;
}

enum sb_status sb_lua_run(const char *path, const struct sb_lua_options *options,
                          struct sb_error *err)
{
    struct sb_lua_host host = { .options = options, .script = path };
    enum sb_status rc = check_set(options, err);
    if (rc != SB_OK)
        return rc;
    if (!sb_is_file(path))
        return sb_fail(err, SB_EINPUT, "%s: %s", path,
                       sb_is_dir(path) ? "is a directory; expected a Lua script"
                                       : "no such script");
    host.models = sb_models_create();
    lua_State *L = host.models ? luaL_newstate() : NULL;
    if (!L) {
        sb_models_destroy(host.models);
        return sb_fail(err, SB_ENOMEM, "out of memory for a Lua state");
    }
    lua_pushlightuserdata(L, &host);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &host_key);
    lua_pushcfunction(L, run_script);
    if (lua_pcall(L, 0, 0, 0) != LUA_OK)
        rc = take_error(L, err);
    lua_close(L);
    sb_store_close(host.store);
    sb_models_destroy(host.models);
    return rc;
}
