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
#include "harness/train/lua_fields.h"

#define AT(member) offsetof(struct sb_recipe, member)

static const struct sb_lua_field root_fields[] = {
    { "kind", SB_FIELD_CHOICE, AT(kind), true, .choices = "lm|head|texts|tokenizer" },
    { "name", SB_FIELD_TEXT, AT(name), true },
    { "out", SB_FIELD_TEXT, AT(out), true },
    { "tokenizer", SB_FIELD_TEXT, AT(tokenizer), false },
    { "target", SB_FIELD_TEXT, AT(target), false },
    { "arch", SB_FIELD_TEXT, AT(arch), false },
    { "init", SB_FIELD_TEXT, AT(init), false },
    { "summary", SB_FIELD_TEXT, AT(summary), false },
    { "notes", SB_FIELD_TEXT, AT(notes), false },
    { NULL },
};
static const struct sb_lua_field data_fields[] = {
    { "dir", SB_FIELD_TEXT, AT(data.dir), false },
    { "held_out", SB_FIELD_NUMBER, AT(data.held_out), false, 0, 0.5, 0.01 },
    { "loss_on", SB_FIELD_CHOICE, AT(data.loss_on), false, .choices = "all|answers" },
    { NULL },
};
static const struct sb_lua_field model_fields[] = {
    { "layers", SB_FIELD_COUNT, AT(model.layers), true, 1, 512 },
    { "width", SB_FIELD_COUNT, AT(model.width), true, 2, 65536 },
    { "heads", SB_FIELD_COUNT, AT(model.heads), true, 1, 1024 },
    { "kv_heads", SB_FIELD_COUNT, AT(model.kv_heads), true, 1, 1024 },
    { "ff", SB_FIELD_COUNT, AT(model.ff), true, 1, 262144 },
    { "vocab", SB_FIELD_COUNT, AT(model.vocab), true, 260, 1048576 },
    { "context", SB_FIELD_COUNT, AT(model.context), true, 2, 1048576 },
    { "rope_base", SB_FIELD_NUMBER, AT(model.rope_base), false, 1, 1e9, 10000 },
    { "norm_eps", SB_FIELD_NUMBER, AT(model.norm_eps), false, 0, 0.1, 1e-5 },
    { NULL },
};
static const struct sb_lua_field train_fields[] = {
    { "steps", SB_FIELD_COUNT, AT(train.steps), true, 1, 1e9 },
    { "batch_tokens", SB_FIELD_COUNT, AT(train.batch_tokens), true, 1, 1e8 },
    { "micro_tokens", SB_FIELD_COUNT, AT(train.micro_tokens), false, 1, 1e6, 2048 },
    { "seq_len", SB_FIELD_COUNT, AT(train.seq_len), true, 1, 1e6 },
    { "warmup", SB_FIELD_COUNT, AT(train.warmup), false, 0, 1e9, 0 },
    { "seed", SB_FIELD_COUNT, AT(train.seed), false, 0, 9e15, 0 },
    { "checkpoint_every", SB_FIELD_COUNT, AT(train.checkpoint_every), false, 1, 1e9, 200 },
    { "lr", SB_FIELD_NUMBER, AT(train.lr), true, 0, 1e30 },
    { "min_lr_ratio", SB_FIELD_NUMBER, AT(train.min_lr_ratio), false, 0, 1, 0.1 },
    { "weight_decay", SB_FIELD_NUMBER, AT(train.weight_decay), false, 0, 10, 0.1 },
    { "clip", SB_FIELD_NUMBER, AT(train.clip), false, 0, 1e30, 1 },
    { "beta1", SB_FIELD_NUMBER, AT(train.beta1), false, 0, 0.9999, 0.9 },
    { "beta2", SB_FIELD_NUMBER, AT(train.beta2), false, 0, 0.999999, 0.95 },
    { NULL },
};
static const struct sb_lua_field texts_fields[] = {
    { "seq_len", SB_FIELD_COUNT, AT(train.seq_len), true, 1, 1e6 },
    { NULL },
};
static const struct sb_lua_field distill_fields[] = {
    { "teacher", SB_FIELD_TEXT, AT(distill.teacher), true },
    { "weight", SB_FIELD_NUMBER, AT(distill.weight), false, 0, 1, 0.5 },
    { "loss", SB_FIELD_CHOICE, AT(distill.loss), false, .choices = "kl|reverse-kl|jsd|tvd" },
    { "beta", SB_FIELD_NUMBER, AT(distill.beta), false, 0, 1, 0.5 },
    { NULL },
};
static const struct sb_lua_field loss_fields[] = {
    { "by", SB_FIELD_CHOICE, AT(loss.by), false,
      .choices = "soft-ce|labels|kl|reverse-kl|jsd|tvd|topk-ce|lk-alpha" },
    { "weight", SB_FIELD_NUMBER, AT(loss.weight), false, 0, 1000, 1 },
    { "feature", SB_FIELD_NUMBER, AT(loss.feature), false, 0, 1000, 0 },
    { "decay", SB_FIELD_NUMBER, AT(loss.decay), false, 0, 1, 0.8 },
    { "beta", SB_FIELD_NUMBER, AT(loss.beta), false, 0, 1, 0.5 },
    { "top_k", SB_FIELD_COUNT, AT(loss.top_k), false, 1, SB_MAX_TOP_K, 10 },
    { NULL },
};
static const struct sb_lua_field generate_fields[] = {
    { "prompts", SB_FIELD_COUNT, AT(data.generate.prompts), true, 1, 1e7 },
    { "max_new_tokens", SB_FIELD_COUNT, AT(data.generate.max_new_tokens), true, 1, 1e6 },
    { "top_p", SB_FIELD_NUMBER, AT(data.generate.top_p), false, 0, 1, 0 },
    { "seed", SB_FIELD_COUNT, AT(data.generate.seed), false, 0, 9e15, 0 },
    { NULL },
};

struct reading {
    struct sb_recipe *recipe;
    const char *path;
};

/* The list of strings on top, which it pops; *n counts what is kept, errors or not. */
static void read_texts_of(lua_State *L, const char *name, char ***texts, size_t *n)
{
    size_t length = lua_rawlen(L, -1);
    if (length == 0)
        luaL_error(L, "%s must list at least one string", name);
    *texts = sb_alloc_zero(length, sizeof **texts);
    if (!*texts)
        luaL_error(L, "out of memory");
    for (size_t i = 0; i < length; i++) {
        lua_rawgeti(L, -1, (lua_Integer)i + 1);
        if (lua_type(L, -1) != LUA_TSTRING)
            luaL_error(L, "%s[%d] must be a string, found a %s", name, (int)i + 1,
                       luaL_typename(L, -1));
        (*texts)[i] = sb_lua_keep_text(L, lua_tostring(L, -1));
        *n = i + 1;
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
}

static void read_files(lua_State *L, struct sb_recipe *recipe)
{
    sb_lua_push_table(L, "data", "files", true);
    read_texts_of(L, "data.files", &recipe->data.files, &recipe->data.n_files);
}

static void read_weights(lua_State *L, struct sb_recipe *recipe)
{
    if (!sb_lua_push_table(L, "data", "weights", false))
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
        weight->task = sb_lua_keep_text(L, lua_tostring(L, -2));
        weight->weight = lua_tonumber(L, -1);
        recipe->data.n_weights++;
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
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
    sb_lua_push_table(L, "data.from", "data", true); /* data, path, other recipe, its data */
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

/* generate.temperature: one, or a list to take in turn. */
static void read_temperatures(lua_State *L, struct sb_recipe *recipe)
{
    double *to = recipe->data.generate.temperature;
    lua_pushstring(L, "temperature");
    lua_rawget(L, -2);
    bool list = lua_istable(L, -1);
    size_t n = list ? lua_rawlen(L, -1) : 1;
    if (n == 0 || n > SB_MAX_TEMPERATURES)
        luaL_error(L, "generate.temperature lists %d numbers; it must be 1 to %d", (int)n,
                   SB_MAX_TEMPERATURES);
    for (size_t i = 0; i < n; i++) {
        if (list)
            lua_rawgeti(L, -1, (lua_Integer)i + 1);
        else
            lua_pushvalue(L, -1);
        to[i] = lua_isnil(L, -1) && !list ? 0 : lua_tonumber(L, -1);
        if (!(lua_isnumber(L, -1) || (lua_isnil(L, -1) && !list)) || !(to[i] >= 0 && to[i] <= 10))
            luaL_error(L, "generate.temperature must be a number from 0 to 10, or a list of them");
        lua_pop(L, 1);
    }
    recipe->data.generate.n_temperatures = n;
    lua_pop(L, 1);
}

static void read_generate(lua_State *L, struct sb_recipe *recipe)
{
    static const char *const tables[] = { "temperature", NULL };
    recipe->data.generate.wanted = sb_lua_push_table(L, "data", "generate", false);
    if (!recipe->data.generate.wanted)
        return;
    sb_lua_check_keys(L, "generate", generate_fields, tables);
    sb_lua_read_fields(L, "generate", generate_fields, recipe);
    read_temperatures(L, recipe);
    lua_pop(L, 1);
}

static void read_data(lua_State *L, struct sb_recipe *recipe)
{
    static const char *const tables[] = { "files", "weights", "generate", "from", NULL };
    sb_lua_push_table(L, "recipe", "data", true);
    fill_data_from(L);
    sb_lua_check_keys(L, "data", data_fields, tables);
    sb_lua_read_fields(L, "data", data_fields, recipe);
    read_files(L, recipe);
    read_weights(L, recipe);
    read_generate(L, recipe);
    lua_pop(L, 1);
}

/* kind "tokenizer" has the size of its vocabulary in `model` too, and nothing else there. */
static void read_vocabulary(lua_State *L, struct sb_recipe *recipe)
{
    static const struct sb_lua_field fields[] = {
        { "vocab", SB_FIELD_COUNT, AT(model.vocab), true, 260, 1048576 },
        { NULL },
    };
    sb_lua_read_table(L, "recipe", "model", fields, true, recipe);
}

static void read_lm(lua_State *L, struct sb_recipe *recipe)
{
    if (!recipe->tokenizer)
        luaL_error(L, "recipe.tokenizer is missing");
    sb_lua_read_table(L, "recipe", "model", model_fields, true, recipe);
    sb_lua_read_table(L, "recipe", "train", train_fields, true, recipe);
    sb_lua_read_table(L, "recipe", "distill", distill_fields, false, recipe);
    if (sb_lua_push_table(L, "recipe", "samples", false))
        read_texts_of(L, "samples", &recipe->samples, &recipe->n_samples);
    if (recipe->train.seq_len > recipe->model.context)
        luaL_error(L, "train.seq_len is greater than model.context");
}

/* recipe.head: whatever the architecture's own table knows, as text; sb_head_create checks it. */
static void read_head_parameters(lua_State *L, struct sb_recipe *recipe)
{
    struct sb_error err;
    if (sb_spec_init(&recipe->head, recipe->arch, &err) != SB_OK)
        luaL_error(L, "%s", err.message);
    if (!sb_lua_push_table(L, "recipe", "head", false))
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
    if (recipe->init)
        luaL_error(L, "recipe.init is for kind 'lm'");
    if (!recipe->target)
        luaL_error(L, "recipe.target is missing: the model that the head is for");
    if (!recipe->arch)
        luaL_error(L, "recipe.arch is missing");
    read_head_parameters(L, recipe);
    sb_lua_read_table(L, "recipe", "train", train_fields, true, recipe);
    if (!sb_lua_read_table(L, "recipe", "loss", loss_fields, false, recipe)) {
        lua_newtable(L);
        sb_lua_read_fields(L, "loss", loss_fields, recipe);
        lua_pop(L, 1);
    }
}

static void read_texts(lua_State *L, struct sb_recipe *recipe)
{
    if (!recipe->target)
        luaL_error(L, "recipe.target is missing: the model that writes");
    if (!recipe->data.generate.wanted)
        luaL_error(L, "data.generate is missing: what it writes");
    sb_lua_read_table(L, "recipe", "train", texts_fields, true, recipe);
}

/* The tables of a kind; others are refused. */
static const char *const *tables_of(const char *kind)
{
    static const char *const lm[] = { "data", "model", "train", "distill", "samples", NULL };
    static const char *const head[] = { "data", "head", "train", "loss", NULL };
    static const char *const texts[] = { "data", "train", NULL };
    if (strcmp(kind, "texts") == 0)
        return texts;
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
    sb_lua_check_keys(L, "recipe", root_fields, tables);
    sb_lua_read_fields(L, "recipe", root_fields, recipe);
    read_data(L, recipe);
    if (strcmp(recipe->kind, "tokenizer") == 0) {
        read_vocabulary(L, recipe);
        return 0;
    }
    if (strcmp(recipe->kind, "texts") == 0) {
        read_texts(L, recipe);
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
        (double)recipe->data.generate.prompts,
        (double)recipe->data.generate.max_new_tokens,
        (double)recipe->data.generate.seed,
        recipe->data.generate.top_p,
    };
    size_t n = recipe->data.generate.n_temperatures;
    return XXH64(recipe->data.generate.temperature, n * sizeof *recipe->data.generate.temperature,
                 XXH64(numbers, sizeof numbers, 0));
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
    sb_free(recipe->init);
    sb_free(recipe->summary);
    sb_free(recipe->notes);
    for (size_t i = 0; i < recipe->n_samples; i++)
        sb_free(recipe->samples[i]);
    sb_free(recipe->samples);
    sb_free(recipe->loss.by);
    sb_spec_finish(&recipe->head);
    *recipe = (struct sb_recipe){ 0 };
}
