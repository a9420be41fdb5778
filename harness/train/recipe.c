/* Reading a recipe. Lua raises errors by long jumps, so everything that touches the state runs inside
 * one protected call and keeps what it allocates in the recipe, which the caller frees. */
#include "harness/train/recipe.h"

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#include "harness/core/alloc.h"
#include "harness/core/paths.h"
#include "harness/core/rng.h"

enum field_type { FIELD_TEXT, FIELD_COUNT, FIELD_NUMBER, FIELD_CHOICE };

/* A key of a table; the list ends at a NULL name. */
struct field {
    const char *name;
    enum field_type type;
    size_t offset;
    bool required;
    double min, max;     /* COUNT, NUMBER */
    double fallback;     /* COUNT, NUMBER */
    const char *choices; /* CHOICE: "a|b", the first is the fallback */
};

#define AT(member) offsetof(struct sb_recipe, member)

static const struct field root_fields[] = {
    { "kind", FIELD_CHOICE, AT(kind), true, .choices = "lm|head|tokenizer" },
    { "name", FIELD_TEXT, AT(name), true },
    { "out", FIELD_TEXT, AT(out), true },
    { "tokenizer", FIELD_TEXT, AT(tokenizer), false },
    { "target", FIELD_TEXT, AT(target), false },
    { "arch", FIELD_TEXT, AT(arch), false },
    { NULL },
};
static const struct field data_fields[] = {
    { "dir", FIELD_TEXT, AT(data.dir), false },
    { "held_out", FIELD_NUMBER, AT(data.held_out), false, 0, 0.5, 0.01 },
    { "loss_on", FIELD_CHOICE, AT(data.loss_on), false, .choices = "all|answers" },
    { NULL },
};
static const struct field model_fields[] = {
    { "layers", FIELD_COUNT, AT(model.layers), true, 1, 512 },
    { "width", FIELD_COUNT, AT(model.width), true, 2, 65536 },
    { "heads", FIELD_COUNT, AT(model.heads), true, 1, 1024 },
    { "kv_heads", FIELD_COUNT, AT(model.kv_heads), true, 1, 1024 },
    { "ff", FIELD_COUNT, AT(model.ff), true, 1, 262144 },
    { "vocab", FIELD_COUNT, AT(model.vocab), true, 260, 1048576 },
    { "context", FIELD_COUNT, AT(model.context), true, 2, 1048576 },
    { "rope_base", FIELD_NUMBER, AT(model.rope_base), false, 1, 1e9, 10000 },
    { "norm_eps", FIELD_NUMBER, AT(model.norm_eps), false, 0, 0.1, 1e-5 },
    { NULL },
};
static const struct field train_fields[] = {
    { "steps", FIELD_COUNT, AT(train.steps), true, 1, 1e9 },
    { "batch_tokens", FIELD_COUNT, AT(train.batch_tokens), true, 1, 1e8 },
    { "micro_tokens", FIELD_COUNT, AT(train.micro_tokens), false, 1, 1e6, 2048 },
    { "seq_len", FIELD_COUNT, AT(train.seq_len), true, 1, 1e6 },
    { "warmup", FIELD_COUNT, AT(train.warmup), false, 0, 1e9, 0 },
    { "seed", FIELD_COUNT, AT(train.seed), false, 0, 9e15, 0 },
    { "checkpoint_every", FIELD_COUNT, AT(train.checkpoint_every), false, 1, 1e9, 200 },
    { "lr", FIELD_NUMBER, AT(train.lr), true, 0, 1e30 },
    { "min_lr_ratio", FIELD_NUMBER, AT(train.min_lr_ratio), false, 0, 1, 0.1 },
    { "weight_decay", FIELD_NUMBER, AT(train.weight_decay), false, 0, 10, 0.1 },
    { "clip", FIELD_NUMBER, AT(train.clip), false, 0, 1e30, 1 },
    { "beta1", FIELD_NUMBER, AT(train.beta1), false, 0, 0.9999, 0.9 },
    { "beta2", FIELD_NUMBER, AT(train.beta2), false, 0, 0.999999, 0.95 },
    { NULL },
};
static const struct field distill_fields[] = {
    { "teacher", FIELD_TEXT, AT(distill.teacher), true },
    { "weight", FIELD_NUMBER, AT(distill.weight), false, 0, 1, 0.5 },
    { "loss", FIELD_CHOICE, AT(distill.loss), false, .choices = "kl|reverse-kl|jsd|tvd" },
    { "beta", FIELD_NUMBER, AT(distill.beta), false, 0, 1, 0.5 },
    { NULL },
};
static const struct field loss_fields[] = {
    { "by", FIELD_CHOICE, AT(loss.by), false,
      .choices = "soft-ce|labels|kl|reverse-kl|jsd|tvd|topk-ce|lk-alpha" },
    { "weight", FIELD_NUMBER, AT(loss.weight), false, 0, 1000, 1 },
    { "feature", FIELD_NUMBER, AT(loss.feature), false, 0, 1000, 0 },
    { "decay", FIELD_NUMBER, AT(loss.decay), false, 0, 1, 0.8 },
    { "beta", FIELD_NUMBER, AT(loss.beta), false, 0, 1, 0.5 },
    { "top_k", FIELD_COUNT, AT(loss.top_k), false, 1, SB_MAX_TOP_K, 10 },
    { NULL },
};
static const struct field generate_fields[] = {
    { "prompts", FIELD_COUNT, AT(data.generate.prompts), true, 1, 1e7 },
    { "max_new_tokens", FIELD_COUNT, AT(data.generate.max_new_tokens), true, 1, 1e6 },
    { "temperature", FIELD_NUMBER, AT(data.generate.temperature), false, 0, 10, 0 },
    { "top_p", FIELD_NUMBER, AT(data.generate.top_p), false, 0, 1, 0 },
    { "seed", FIELD_COUNT, AT(data.generate.seed), false, 0, 9e15, 0 },
    { NULL },
};

struct reading {
    struct sb_recipe *recipe;
    const char *path;
};

static bool is_choice(const char *choices, const char *text)
{
    size_t n = strlen(text);
    for (const char *at = choices; at; at = strchr(at, '|')) {
        at += *at == '|';
        if (strncmp(at, text, n) == 0 && (at[n] == '|' || at[n] == '\0') && n > 0)
            return true;
    }
    return false;
}

static char *keep_text(lua_State *L, const char *text)
{
    char *copy = sb_strdup(text);
    if (!copy)
        luaL_error(L, "out of memory");
    return copy;
}

/* "a, b, c" of the known keys, on the Lua stack. */
static const char *known_keys(lua_State *L, const struct field *fields, const char *const *tables)
{
    luaL_Buffer list;
    luaL_buffinit(L, &list);
    const char *comma = "";
    for (; fields->name; fields++, comma = ", ") {
        luaL_addstring(&list, comma);
        luaL_addstring(&list, fields->name);
    }
    for (; tables && *tables; tables++, comma = ", ") {
        luaL_addstring(&list, comma);
        luaL_addstring(&list, *tables);
    }
    luaL_pushresult(&list);
    return lua_tostring(L, -1);
}

/* Refuse keys of the table on top that neither list names. */
static void check_keys(lua_State *L, const char *where, const struct field *fields,
                       const char *const *tables)
{
    lua_pushnil(L);
    while (lua_next(L, -2)) {
        bool known = false;
        const char *key = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : NULL;
        for (const struct field *f = fields; key && f->name; f++)
            known = known || strcmp(f->name, key) == 0;
        for (const char *const *t = tables; key && t && *t; t++)
            known = known || strcmp(*t, key) == 0;
        if (!known)
            luaL_error(L, "%s has no key '%s'; it has: %s", where, key ? key : "(not a string)",
                       known_keys(L, fields, tables));
        lua_pop(L, 1);
    }
}

static void read_number(lua_State *L, const char *where, const struct field *f, void *slot)
{
    if (lua_type(L, -1) != LUA_TNUMBER)
        luaL_error(L, "%s.%s must be a number, found a %s", where, f->name, luaL_typename(L, -1));
    double value = lua_tonumber(L, -1);
    bool whole = f->type == FIELD_NUMBER || value == floor(value);
    if (!(value >= f->min && value <= f->max) || !whole)
        luaL_error(L, "%s.%s is %f; it must be %s from %f to %f", where, f->name, value,
                   f->type == FIELD_COUNT ? "a whole number" : "a number", f->min, f->max);
    if (f->type == FIELD_COUNT)
        *(size_t *)slot = (size_t)value;
    else
        *(double *)slot = value;
}

static void read_text(lua_State *L, const char *where, const struct field *f, char **slot)
{
    if (lua_type(L, -1) != LUA_TSTRING)
        luaL_error(L, "%s.%s must be a string, found a %s", where, f->name, luaL_typename(L, -1));
    const char *text = lua_tostring(L, -1);
    if (f->type == FIELD_CHOICE && !is_choice(f->choices, text))
        luaL_error(L, "%s.%s is '%s'; it must be one of %s", where, f->name, text, f->choices);
    *slot = keep_text(L, text);
}

/* What a missing key means. */
static void default_field(lua_State *L, const char *where, const struct field *f, void *slot)
{
    if (f->required)
        luaL_error(L, "%s.%s is missing", where, f->name);
    if (f->type == FIELD_COUNT)
        *(size_t *)slot = (size_t)f->fallback;
    else if (f->type == FIELD_NUMBER)
        *(double *)slot = f->fallback;
    else if (f->type == FIELD_CHOICE) {
        lua_pushlstring(L, f->choices, strcspn(f->choices, "|"));
        *(char **)slot = keep_text(L, lua_tostring(L, -1));
        lua_pop(L, 1);
    }
}

/* Read the fields of the table on top into the recipe. */
static void read_fields(lua_State *L, const char *where, const struct field *fields,
                        struct sb_recipe *recipe)
{
    for (const struct field *f = fields; f->name; f++) {
        void *slot = (char *)recipe + f->offset;
        lua_pushstring(L, f->name);
        lua_rawget(L, -2);
        if (lua_isnil(L, -1))
            default_field(L, where, f, slot);
        else if (f->type == FIELD_TEXT || f->type == FIELD_CHOICE)
            read_text(L, where, f, slot);
        else
            read_number(L, where, f, slot);
        lua_pop(L, 1);
    }
}

/* Push root[name], a table; false and nothing pushed when it is absent. */
static bool push_table(lua_State *L, const char *where, const char *name, bool required)
{
    lua_pushstring(L, name);
    lua_rawget(L, -2);
    if (lua_isnil(L, -1) && !required) {
        lua_pop(L, 1);
        return false;
    }
    if (!lua_istable(L, -1))
        luaL_error(L, "%s.%s must be a table, found %s", where, name, luaL_typename(L, -1));
    return true;
}

static void read_files(lua_State *L, struct sb_recipe *recipe)
{
    push_table(L, "data", "files", true);
    size_t n = lua_rawlen(L, -1);
    if (n == 0)
        luaL_error(L, "data.files must list at least one file");
    recipe->data.files = sb_alloc_zero(n, sizeof *recipe->data.files);
    if (!recipe->data.files)
        luaL_error(L, "out of memory");
    for (size_t i = 0; i < n; i++) {
        lua_rawgeti(L, -1, (lua_Integer)i + 1);
        if (lua_type(L, -1) != LUA_TSTRING)
            luaL_error(L, "data.files[%d] must be a string, found a %s", (int)i + 1,
                       luaL_typename(L, -1));
        recipe->data.files[i] = keep_text(L, lua_tostring(L, -1));
        recipe->data.n_files = i + 1;
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
}

static void read_weights(lua_State *L, struct sb_recipe *recipe)
{
    if (!push_table(L, "data", "weights", false))
        return;
    recipe->data.weights = sb_alloc_zero(SB_MAX_TASKS, sizeof *recipe->data.weights);
    if (!recipe->data.weights)
        luaL_error(L, "out of memory");
    lua_pushnil(L);
    while (lua_next(L, -2)) {
        if (lua_type(L, -2) != LUA_TSTRING || lua_type(L, -1) != LUA_TNUMBER ||
            !(lua_tonumber(L, -1) >= 0 && lua_tonumber(L, -1) <= 100))
            luaL_error(L, "data.weights must give task names numbers from 0 to 100");
        if (recipe->data.n_weights == SB_MAX_TASKS)
            luaL_error(L, "data.weights names more than %d tasks", SB_MAX_TASKS);
        struct sb_recipe_weight *weight = &recipe->data.weights[recipe->data.n_weights];
        weight->task = keep_text(L, lua_tostring(L, -2));
        weight->weight = lua_tonumber(L, -1);
        recipe->data.n_weights++;
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
}

/* Read parent[name] by its fields; false: it is absent, and the defaults are set. */
static bool read_table(lua_State *L, const char *parent, const char *name,
                       const struct field *fields, bool required, struct sb_recipe *recipe)
{
    bool there = push_table(L, parent, name, required);
    if (!there)
        return false;
    check_keys(L, name, fields, NULL);
    read_fields(L, name, fields, recipe);
    lua_pop(L, 1);
    return true;
}

/* data.from names another recipe: what the table on top lacks is taken from that one's data. */
static void fill_data_from(lua_State *L)
{
    lua_pushstring(L, "from");
    lua_rawget(L, -2);
    if (lua_isnil(L, -1)) {
        lua_pop(L, 1);
        return;
    }
    if (lua_type(L, -1) != LUA_TSTRING)
        luaL_error(L, "data.from must be a string, found a %s", luaL_typename(L, -1));
    if (luaL_loadfilex(L, lua_tostring(L, -1), "t") != LUA_OK)
        lua_error(L);
    lua_call(L, 0, 1);
    if (!lua_istable(L, -1))
        luaL_error(L, "data.from: %s must return a table", lua_tostring(L, -2));
    push_table(L, "data.from", "data", true); /* data, path, other recipe, its data */
    lua_pushnil(L);
    while (lua_next(L, -2)) {
        lua_pushvalue(L, -2);
        lua_rawget(L, -7);
        bool missing = lua_isnil(L, -1);
        lua_pop(L, 1);
        lua_pushvalue(L, -2);
        lua_insert(L, -2); /* key, key, value */
        if (missing)
            lua_rawset(L, -7);
        else
            lua_pop(L, 2);
    }
    lua_pop(L, 3);
    lua_pushstring(L, "from");
    lua_pushnil(L);
    lua_rawset(L, -3);
}

static void read_data(lua_State *L, struct sb_recipe *recipe)
{
    static const char *const tables[] = { "files", "weights", "generate", "from", NULL };
    push_table(L, "recipe", "data", true);
    fill_data_from(L);
    check_keys(L, "data", data_fields, tables);
    read_fields(L, "data", data_fields, recipe);
    read_files(L, recipe);
    read_weights(L, recipe);
    recipe->data.generate.wanted =
        read_table(L, "data", "generate", generate_fields, false, recipe);
    lua_pop(L, 1);
}

/* kind "tokenizer" has the size of its vocabulary in `model` too, and nothing else there. */
static void read_vocabulary(lua_State *L, struct sb_recipe *recipe)
{
    static const struct field fields[] = {
        { "vocab", FIELD_COUNT, AT(model.vocab), true, 260, 1048576 },
        { NULL },
    };
    read_table(L, "recipe", "model", fields, true, recipe);
}

static void read_lm(lua_State *L, struct sb_recipe *recipe)
{
    if (!recipe->tokenizer)
        luaL_error(L, "recipe.tokenizer is missing");
    read_table(L, "recipe", "model", model_fields, true, recipe);
    read_table(L, "recipe", "train", train_fields, true, recipe);
    read_table(L, "recipe", "distill", distill_fields, false, recipe);
    if (recipe->train.seq_len > recipe->model.context)
        luaL_error(L, "train.seq_len is greater than model.context");
}

/* recipe.head: whatever the architecture's own table knows, as text; sb_head_create checks it. */
static void read_head_parameters(lua_State *L, struct sb_recipe *recipe)
{
    struct sb_error err;
    if (sb_spec_init(&recipe->head, recipe->arch, &err) != SB_OK)
        luaL_error(L, "%s", err.message);
    if (!push_table(L, "recipe", "head", false))
        return;
    lua_pushnil(L);
    while (lua_next(L, -2)) {
        int type = lua_type(L, -1);
        if (lua_type(L, -2) != LUA_TSTRING || lua_istable(L, -1) || type == LUA_TFUNCTION)
            luaL_error(L, "head must give names numbers, strings or booleans");
        const char *value = luaL_tolstring(L, -1, NULL);
        if (sb_spec_set(&recipe->head, lua_tostring(L, -3), value, &err) != SB_OK)
            luaL_error(L, "%s", err.message);
        lua_pop(L, 2);
    }
    lua_pop(L, 1);
}

static void read_head(lua_State *L, struct sb_recipe *recipe)
{
    if (!recipe->target)
        luaL_error(L, "recipe.target is missing: the model that the head is for");
    if (!recipe->arch)
        luaL_error(L, "recipe.arch is missing");
    read_head_parameters(L, recipe);
    read_table(L, "recipe", "train", train_fields, true, recipe);
    if (!read_table(L, "recipe", "loss", loss_fields, false, recipe)) {
        lua_newtable(L);
        read_fields(L, "loss", loss_fields, recipe);
        lua_pop(L, 1);
    }
}

/* The tables of a kind; others are refused. */
static const char *const *tables_of(const char *kind)
{
    static const char *const lm[] = { "data", "model", "train", "distill", NULL };
    static const char *const head[] = { "data", "head", "train", "loss", NULL };
    return strcmp(kind, "head") == 0 ? head : lm;
}

static int read_recipe(lua_State *L)
{
    struct reading *reading = lua_touserdata(L, 1);
    struct sb_recipe *recipe = reading->recipe;
    if (luaL_loadfilex(L, reading->path, "t") != LUA_OK)
        return lua_error(L);
    lua_call(L, 0, 1);
    if (!lua_istable(L, -1))
        return luaL_error(L, "must return a table, found a %s", luaL_typename(L, -1));
    lua_pushstring(L, "kind");
    lua_rawget(L, -2);
    const char *const *tables = tables_of(lua_isstring(L, -1) ? lua_tostring(L, -1) : "");
    lua_pop(L, 1);
    check_keys(L, "recipe", root_fields, tables);
    read_fields(L, "recipe", root_fields, recipe);
    read_data(L, recipe);
    if (strcmp(recipe->kind, "tokenizer") == 0) {
        read_vocabulary(L, recipe);
        return 0;
    }
    if (strcmp(recipe->kind, "head") == 0)
        read_head(L, recipe);
    else
        read_lm(L, recipe);
    if (recipe->train.batch_tokens % recipe->train.micro_tokens != 0)
        return luaL_error(L, "train.batch_tokens must be a multiple of micro_tokens (%d)",
                          (int)recipe->train.micro_tokens);
    return 0;
}

uint64_t sb_recipe_generate_hash(const struct sb_recipe *recipe)
{
    const double numbers[] = {
        (double)recipe->data.generate.prompts, (double)recipe->data.generate.max_new_tokens,
        (double)recipe->data.generate.seed,    recipe->data.generate.temperature,
        recipe->data.generate.top_p,
    };
    return XXH64(numbers, sizeof numbers, 0);
}

/* What distinguishes a head's recipe from others, and a distillation by another loss than KL; 0 for
 * the rest, whose checkpoints from before these fields stay valid. */
static uint64_t later_fields_hash(const struct sb_recipe *recipe)
{
    uint64_t hash = 0;
    if (recipe->distill.loss && strcmp(recipe->distill.loss, "kl") != 0)
        hash = XXH64(&recipe->distill.beta, sizeof recipe->distill.beta,
                     XXH64(recipe->distill.loss, strlen(recipe->distill.loss), 1));
    if (recipe->data.generate.wanted)
        hash = sb_rng_mix(hash, sb_recipe_generate_hash(recipe));
    if (!recipe->arch)
        return hash;
    char *head = sb_spec_text(&recipe->head);
    if (head)
        hash = XXH64(head, strlen(head), hash);
    sb_free(head);
    const double weights[] = { recipe->loss.weight, recipe->loss.feature, recipe->loss.decay,
                               recipe->loss.beta, (double)recipe->loss.top_k };
    hash = XXH64(weights, sizeof weights, hash);
    return XXH64(recipe->loss.by, strlen(recipe->loss.by), hash);
}

/* Names and the model's and the schedule's numbers; not where things lie. */
static uint64_t recipe_hash(const struct sb_recipe *recipe)
{
    uint64_t hash = XXH64(&recipe->model, sizeof recipe->model, 1);
    hash = XXH64(&recipe->train, sizeof recipe->train, hash);
    hash = XXH64(&recipe->data.held_out, sizeof recipe->data.held_out, hash);
    hash = XXH64(&recipe->distill.weight, sizeof recipe->distill.weight, hash);
    if (recipe->data.loss_on)
        hash = XXH64(recipe->data.loss_on, strlen(recipe->data.loss_on), hash);
    uint64_t weights = 0; /* in any order: Lua's tables have none */
    for (size_t i = 0; i < recipe->data.n_weights; i++) {
        const struct sb_recipe_weight *w = &recipe->data.weights[i];
        weights += XXH64(w->task, strlen(w->task), XXH64(&w->weight, sizeof w->weight, 0));
    }
    hash = XXH64(&weights, sizeof weights, hash);
    uint64_t later = later_fields_hash(recipe);
    return later ? sb_rng_mix(hash, later) : hash;
}

static void open_bare(lua_State *L)
{
    luaL_requiref(L, LUA_GNAME, luaopen_base, 1);
    luaL_requiref(L, LUA_STRLIBNAME, luaopen_string, 1);
    luaL_requiref(L, LUA_TABLIBNAME, luaopen_table, 1);
    luaL_requiref(L, LUA_MATHLIBNAME, luaopen_math, 1);
    static const char *const removed[] = { "dofile", "loadfile", "load", "print", NULL };
    for (size_t i = 0; removed[i]; i++) {
        lua_pushnil(L);
        lua_setglobal(L, removed[i]);
    }
}

static int prepare(lua_State *L)
{
    open_bare(L);
    lua_settop(L, 1);
    return read_recipe(L);
}

enum sb_status sb_recipe_read(struct sb_recipe *recipe, const char *path, struct sb_error *err)
{
    *recipe = (struct sb_recipe){ 0 };
    if (!sb_is_file(path))
        return sb_fail(err, SB_EINPUT, "recipe %s: no such file", path);
    lua_State *L = luaL_newstate();
    if (!L)
        return sb_fail(err, SB_ENOMEM, "recipe %s: out of memory", path);
    struct reading reading = { recipe, path };
    enum sb_status status = SB_OK;
    lua_pushcfunction(L, prepare);
    lua_pushlightuserdata(L, &reading);
    if (lua_pcall(L, 1, 0, 0) != LUA_OK) {
        const char *why = lua_tostring(L, -1);
        status =
            sb_fail(err, SB_EUSAGE, "recipe %s: %s", path, why ? why : "error without a message");
        sb_recipe_finish(recipe);
    } else {
        recipe->hash = recipe_hash(recipe);
    }
    lua_close(L);
    return status;
}

void sb_recipe_finish(struct sb_recipe *recipe)
{
    sb_free(recipe->kind);
    sb_free(recipe->name);
    sb_free(recipe->out);
    sb_free(recipe->tokenizer);
    sb_free(recipe->data.dir);
    sb_free(recipe->data.loss_on);
    for (size_t i = 0; i < recipe->data.n_files; i++)
        sb_free(recipe->data.files[i]);
    sb_free(recipe->data.files);
    for (size_t i = 0; i < recipe->data.n_weights; i++)
        sb_free(recipe->data.weights[i].task);
    sb_free(recipe->data.weights);
    sb_free(recipe->distill.teacher);
    sb_free(recipe->distill.loss);
    sb_free(recipe->target);
    sb_free(recipe->arch);
    sb_free(recipe->loss.by);
    sb_spec_finish(&recipe->head);
    *recipe = (struct sb_recipe){ 0 };
}
