/* Declared fields of Lua tables. */
#include "harness/train/lua_fields.h"

#include <lauxlib.h>
#include <math.h>
#include <string.h>

#include "harness/core/alloc.h"

static bool is_choice(const char *choices, const char *text)
{
    size_t n = strcspn(text, "|");
    if (text[n] != '\0')
        return false;
    for (const char *at = choices; at; at = strchr(at, '|')) {
        at += *at == '|';
        if (strncmp(at, text, n) == 0 && (at[n] == '|' || at[n] == '\0') && n > 0)
            return true;
    }
    return false;
}

char *sb_lua_keep_text(lua_State *L, const char *text)
{
    char *copy = sb_strdup(text);
    if (!copy)
        luaL_error(L, "out of memory");
    return copy;
}

/* "a, b, c" of the known keys, on the Lua stack. */
static const char *known_keys(lua_State *L, const struct sb_lua_field *fields,
                              const char *const *tables)
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

void sb_lua_check_keys(lua_State *L, const char *where, const struct sb_lua_field *fields,
                       const char *const *tables)
{
    lua_pushnil(L);
    while (lua_next(L, -2)) {
        bool known = false;
        const char *key = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : NULL;
        for (const struct sb_lua_field *f = fields; key && f->name; f++)
            known = known || strcmp(f->name, key) == 0;
        for (const char *const *t = tables; key && t && *t; t++)
            known = known || strcmp(*t, key) == 0;
        if (!known)
            luaL_error(L, "%s has no key '%s'; it has: %s", where, key ? key : "(not a string)",
                       known_keys(L, fields, tables));
        lua_pop(L, 1);
    }
}

static void read_number(lua_State *L, const char *where, const struct sb_lua_field *f, void *slot)
{
    if (lua_type(L, -1) != LUA_TNUMBER)
        luaL_error(L, "%s.%s must be a number, found a %s", where, f->name, luaL_typename(L, -1));
    double value = lua_tonumber(L, -1);
    bool whole = f->type == SB_FIELD_NUMBER || value == floor(value);
    if (!(value >= f->min && value <= f->max) || !whole)
        luaL_error(L, "%s.%s is %f; it must be %s from %f to %f", where, f->name, value,
                   f->type == SB_FIELD_COUNT ? "a whole number" : "a number", f->min, f->max);
    if (f->type == SB_FIELD_COUNT)
        *(size_t *)slot = (size_t)value;
    else
        *(double *)slot = value;
}

static void read_text(lua_State *L, const char *where, const struct sb_lua_field *f, char **slot)
{
    if (lua_type(L, -1) != LUA_TSTRING)
        luaL_error(L, "%s.%s must be a string, found a %s", where, f->name, luaL_typename(L, -1));
    const char *text = lua_tostring(L, -1);
    if (f->type == SB_FIELD_CHOICE && !is_choice(f->choices, text))
        luaL_error(L, "%s.%s is '%s'; it must be one of %s", where, f->name, text, f->choices);
    *slot = sb_lua_keep_text(L, text);
}

/* What a missing key means. */
static void default_field(lua_State *L, const char *where, const struct sb_lua_field *f, void *slot)
{
    if (f->required)
        luaL_error(L, "%s.%s is missing", where, f->name);
    if (f->type == SB_FIELD_COUNT)
        *(size_t *)slot = (size_t)f->fallback;
    else if (f->type == SB_FIELD_NUMBER)
        *(double *)slot = f->fallback;
    else if (f->type == SB_FIELD_CHOICE) {
        lua_pushlstring(L, f->choices, strcspn(f->choices, "|"));
        *(char **)slot = sb_lua_keep_text(L, lua_tostring(L, -1));
        lua_pop(L, 1);
    }
}

void sb_lua_read_fields(lua_State *L, const char *where, const struct sb_lua_field *fields,
                        void *into)
{
    for (const struct sb_lua_field *f = fields; f->name; f++) {
        void *slot = (char *)into + f->offset;
        lua_pushstring(L, f->name);
        lua_rawget(L, -2);
        if (lua_isnil(L, -1))
            default_field(L, where, f, slot);
        else if (f->type == SB_FIELD_TEXT || f->type == SB_FIELD_CHOICE)
            read_text(L, where, f, slot);
        else
            read_number(L, where, f, slot);
        lua_pop(L, 1);
    }
}

bool sb_lua_push_table(lua_State *L, const char *where, const char *name, bool required)
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

bool sb_lua_read_table(lua_State *L, const char *parent, const char *name,
                       const struct sb_lua_field *fields, bool required, void *into)
{
    bool there = sb_lua_push_table(L, parent, name, required);
    if (!there)
        return false;
    sb_lua_check_keys(L, name, fields, NULL);
    sb_lua_read_fields(L, name, fields, into);
    lua_pop(L, 1);
    return true;
}
