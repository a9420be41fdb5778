/* sb.experiment{...}: build a plan, run it, read its figures. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/lua/internal.h"
#include "results/report_warnings.h"

static const char type_name[] = "specbench.experiment";

struct handle {
    struct sb_plan plan;
    bool open, ran;
    struct sb_run_result result;
};

static struct handle *check(lua_State *L)
{
    struct handle *h = luaL_checkudata(L, 1, type_name);
    luaL_argcheck(L, h->open, 1, "the experiment is closed");
    return h;
}

static int finish(lua_State *L)
{
    struct handle *h = luaL_checkudata(L, 1, type_name);
    if (h->open)
        sb_plan_finish(&h->plan);
    h->open = false;
    return 0;
}

static int to_string(lua_State *L)
{
    struct handle *h = luaL_checkudata(L, 1, type_name);
    const char *name = h->open ? sb_spec_get(&h->plan.assignments, "name") : NULL;
    lua_pushfstring(L, "experiment(%s, %d arms%s)", name ? name : "run", (int)h->plan.n_arms,
                    h->open ? "" : ", closed");
    return 1;
}

static bool is_setting(const char *key)
{
    for (const struct sb_param *p = sb_settings_table; p->name; p++)
        if (strcmp(p->name, key) == 0)
            return true;
    return false;
}

static int refuse_key(lua_State *L, const char *key)
{
    luaL_Buffer b;
    struct sb_error err;
    luaL_buffinit(L, &b);
    for (const struct sb_param *p = sb_settings_table; p->name; p++) {
        luaL_addstring(&b, p == sb_settings_table ? "" : ", ");
        luaL_addstring(&b, p->name);
    }
    luaL_pushresult(&b);
    sb_fail(&err, SB_EUSAGE, "an experiment has no '%s'; it has: %s", key, lua_tostring(L, -1));
    return sb_lua_raise(L, &err);
}

/* sb.experiment{ target = "tiny", ... } */
static int experiment(lua_State *L)
{
    struct sb_error err;
    luaL_checktype(L, 1, LUA_TTABLE);
    struct handle *h = lua_newuserdatauv(L, sizeof *h, 0);
    *h = (struct handle){ 0 };
    if (sb_plan_init(&h->plan, &err) != SB_OK)
        return sb_lua_raise(L, &err);
    h->open = true;
    luaL_setmetatable(L, type_name); /* from here on, __gc frees the plan */
    lua_pushnil(L);
    while (lua_next(L, 1)) {
        if (lua_type(L, -2) != LUA_TSTRING)
            return luaL_error(L, "an experiment's fields have names; found a value without one");
        const char *key = lua_tostring(L, -2);
        if (!is_setting(key))
            return refuse_key(L, key);
        luaL_tolstring(L, -1, NULL);
        if (sb_plan_set(&h->plan, key, lua_tostring(L, -1), &err) != SB_OK)
            return sb_lua_raise(L, &err);
        lua_pop(L, 2);
    }
    const char *seed = sb_spec_get(&h->plan.assignments, "seed");
    lua_getglobal(L, "math"); /* Lua 5.4 seeds itself from the clock; scripts must repeat */
    lua_getfield(L, -1, "randomseed");
    lua_pushinteger(L, seed ? atoll(seed) : 0);
    lua_call(L, 1, 0);
    lua_pop(L, 1);
    return 1;
}

/* Push the "name:k=v" text of t[field], given as such or as { name, k = v }; nil when absent. */
static void push_spec_text(lua_State *L, int t, const char *field)
{
    if (lua_getfield(L, t, field) != LUA_TTABLE) {
        if (!lua_isnil(L, -1) && lua_type(L, -1) != LUA_TSTRING)
            luaL_error(L, "%s: expected a name or a table { name, key = value }", field);
        return;
    }
    int spec = lua_gettop(L);
    luaL_Buffer b;
    if (lua_rawgeti(L, spec, 1) != LUA_TSTRING)
        luaL_error(L, "%s: the table's first value must be a name", field);
    lua_pushliteral(L, ":");
    lua_concat(L, 2); /* the text so far, at spec + 1 */
    const char *separator = "";
    lua_pushnil(L);
    while (lua_next(L, spec)) {
        if (lua_type(L, -2) == LUA_TSTRING) {
            const char *value = luaL_tolstring(L, -1, NULL);
            const char *quote = strchr(value, ',') ? "'" : "";
            luaL_buffinit(L, &b);
            luaL_addstring(&b, lua_tostring(L, spec + 1));
            luaL_addstring(&b, separator);
            luaL_addstring(&b, lua_tostring(L, spec + 2));
            luaL_addstring(&b, "=");
            luaL_addstring(&b, quote);
            luaL_addstring(&b, value);
            luaL_addstring(&b, quote);
            luaL_pushresult(&b);
            lua_replace(L, spec + 1);
            lua_pop(L, 1);
            separator = ",";
        }
        lua_pop(L, 1);
    }
    lua_replace(L, spec);
}

static enum sb_status parse_optional(struct sb_spec *out, const char *text, struct sb_error *err)
{
    *out = (struct sb_spec){ 0 };
    return text ? sb_spec_parse(out, text, err) : SB_OK;
}

/* exp:add{ drafter = ..., verifier = ..., policy = ..., label = ... } */
static int add(lua_State *L)
{
    struct handle *h = check(L);
    struct sb_error err;
    struct sb_spec drafter = { 0 }, verifier = { 0 }, policy = { 0 };
    static const char *const known[] = { "drafter", "verifier", "policy", "label", NULL };
    luaL_checktype(L, 2, LUA_TTABLE);
    luaL_argcheck(L, !h->ran, 1, "arms are added before the experiment runs");
    lua_pushnil(L);
    while (lua_next(L, 2)) {
        lua_pop(L, 1);
        bool found = false;
        for (size_t i = 0; known[i] && lua_type(L, -1) == LUA_TSTRING; i++)
            found = found || strcmp(known[i], lua_tostring(L, -1)) == 0;
        if (!found) {
            sb_fail(&err, SB_EUSAGE, "an arm has no '%s'; it has: drafter, verifier, policy, label",
                    luaL_tolstring(L, -1, NULL));
            return sb_lua_raise(L, &err);
        }
    }
    for (size_t i = 0; i < 3; i++)
        push_spec_text(L, 2, known[i]); /* at 3, 4, 5 */
    lua_getfield(L, 2, "label");
    if (lua_isnil(L, 3))
        return luaL_error(L, "an arm needs a drafter");
    enum sb_status rc = parse_optional(&drafter, lua_tostring(L, 3), &err);
    if (rc == SB_OK)
        rc = parse_optional(&verifier, lua_tostring(L, 4), &err);
    if (rc == SB_OK)
        rc = parse_optional(&policy, lua_tostring(L, 5), &err);
    if (rc == SB_OK)
        rc = sb_plan_add(&h->plan, drafter, verifier, policy, lua_tostring(L, 6), &err);
    else {
        sb_spec_finish(&drafter);
        sb_spec_finish(&verifier);
        sb_spec_finish(&policy);
    }
    return rc == SB_OK ? 0 : sb_lua_raise(L, &err);
}

static enum sb_status run_plan(lua_State *L, struct handle *h, struct sb_error *err)
{
    struct sb_lua_host *host = sb_lua_host(L);
    struct sb_run_options options = { .script = host->script, .dry_run = true };
    bool added;
    enum sb_status rc = sb_plan_complete(&h->plan, &added, err);
    if (rc == SB_OK)
        rc = sb_experiment_run(&h->plan, host->models, NULL, &options, &h->result, err);
    if (rc != SB_OK || host->options->dry_run)
        return rc;
    options.dry_run = false;
    options.resume = host->options->resume;
    options.quiet = host->options->quiet;
    options.stop = host->options->stop;
    if (!host->store)
        rc = sb_store_open(&host->store, host->options->db, NULL, err);
    if (rc == SB_OK)
        rc = sb_experiment_run(&h->plan, host->models, host->store, &options, &h->result, err);
    if (rc == SB_OK && !options.quiet)
        rc = sb_warnings_print(stderr, "run", host->store, h->result.experiment_id, err);
    if (rc == SB_EINTERRUPTED)
        sb_fail(err, rc,
                "interrupted; %lld of %lld generations are in %s; add --resume to the same command "
                "to go on",
                (long long)(h->result.resumed + h->result.done), (long long)h->result.planned,
                host->options->db);
    return rc;
}

static void ensure_ran(lua_State *L, struct handle *h)
{
    struct sb_error err;
    if (h->ran)
        return;
    if (run_plan(L, h, &err) != SB_OK)
        sb_lua_raise(L, &err);
    h->ran = true;
}

/* exp:run(): run now; the other methods do it when needed. */
static int run(lua_State *L)
{
    ensure_ran(L, check(L));
    lua_settop(L, 1);
    return 1;
}

static enum sb_status view_text(struct sb_lua_host *host, struct handle *h, const char *view,
                                enum sb_format format, char **text, size_t *length,
                                struct sb_error *err)
{
    const struct sb_report_options options = { .view = view,
                                               .experiment_id = h->result.experiment_id };
    struct sb_table *table = NULL;
    FILE *f = open_memstream(text, length);
    enum sb_status rc = f ? sb_report_table(&table, host->store, &options, err)
                          : sb_fail(err, SB_ENOMEM, "out of memory");
    if (rc == SB_OK)
        rc = sb_table_print(table, f, format, err);
    sb_table_destroy(table);
    if (f)
        fclose(f);
    return rc;
}

/* exp:rows("leaderboard") -> { {arm=..., task=..., mat=...}, ... } */
static int rows(lua_State *L)
{
    struct handle *h = check(L);
    struct sb_lua_host *host = sb_lua_host(L);
    const char *view = luaL_optstring(L, 2, "leaderboard");
    struct sb_error err;
    char *text = NULL;
    size_t length = 0;
    ensure_ran(L, h);
    if (!host->store) { /* a dry run has no rows */
        lua_newtable(L);
        return 1;
    }
    enum sb_status rc = view_text(host, h, view, SB_FORMAT_JSON, &text, &length, &err);
    int pushed = rc == SB_OK ? sb_lua_push_json(L, text, length, &err) : 0;
    free(text);
    return pushed ? 1 : sb_lua_raise(L, &err);
}

/* exp:report("tasks"): print a view on standard output, in the format of the command line. */
static int report(lua_State *L)
{
    struct handle *h = check(L);
    struct sb_lua_host *host = sb_lua_host(L);
    const char *view = luaL_optstring(L, 2, "leaderboard");
    struct sb_error err;
    char *text = NULL;
    size_t length = 0;
    ensure_ran(L, h);
    if (!host->store)
        return 0;
    enum sb_status rc = view_text(host, h, view, host->options->format, &text, &length, &err);
    if (rc == SB_OK)
        fwrite(text, 1, length, stdout);
    free(text);
    return rc == SB_OK ? 0 : sb_lua_raise(L, &err);
}

/* exp:equality() -> equal, compared, first_difference: outputs against plain decoding. */
static int equality(lua_State *L)
{
    struct handle *h = check(L);
    struct sb_lua_host *host = sb_lua_host(L);
    struct sb_equality e = { 0 };
    struct sb_error err;
    ensure_ran(L, h);
    if (host->store && sb_report_equality(&e, host->store, h->result.experiment_id, &err) != SB_OK)
        return sb_lua_raise(L, &err);
    lua_pushinteger(L, e.equal);
    lua_pushinteger(L, e.compared);
    lua_pushstring(L, e.first_difference);
    return 3;
}

/* The iterator of exp:runs(): upvalues are the rows and the index. */
static int next_run(lua_State *L)
{
    lua_Integer i = lua_tointeger(L, lua_upvalueindex(2)) + 1;
    for (;; i++) {
        if (lua_geti(L, lua_upvalueindex(1), i) == LUA_TNIL)
            return 1;
        lua_getfield(L, -1, "task");
        bool overall = strcmp(luaL_optstring(L, -1, ""), "all") == 0;
        lua_pop(L, 1);
        if (overall)
            break;
        lua_pop(L, 1);
    }
    lua_pushinteger(L, i);
    lua_replace(L, lua_upvalueindex(2));
    lua_getfield(L, -1, "arm");
    lua_setfield(L, -2, "label");
    return 1;
}

/* for run in exp:runs() do ... end: one table per arm, its figures over all tasks. */
static int runs(lua_State *L)
{
    check(L);
    lua_settop(L, 1);
    rows(L);
    lua_pushinteger(L, 0);
    lua_pushcclosure(L, next_run, 2);
    return 1;
}

static const luaL_Reg methods[] = {
    { "add", add },       { "run", run },           { "runs", runs }, { "rows", rows },
    { "report", report }, { "equality", equality }, { NULL, NULL },
};

void sb_lua_open_experiment(lua_State *L)
{
    static const luaL_Reg meta[] = {
        { "__gc", finish }, { "__close", finish }, { "__tostring", to_string }, { NULL, NULL }
    };
    luaL_newmetatable(L, type_name);
    luaL_setfuncs(L, meta, 0);
    luaL_newlib(L, methods);
    lua_setfield(L, -2, "__index");
    lua_pop(L, 1);
    lua_pushcfunction(L, experiment);
    lua_setfield(L, -2, "experiment");
}
