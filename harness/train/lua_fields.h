/* Reading the tables of a recipe into a struct, by declared fields. Lua raises errors by long jumps: all of
 * this runs inside a protected call, and what it allocates is kept in the struct, which the caller frees. */
#ifndef SB_TRAIN_LUA_FIELDS_H
#define SB_TRAIN_LUA_FIELDS_H

#include <lua.h>
#include <stdbool.h>
#include <stddef.h>

enum sb_lua_field_type { SB_FIELD_TEXT, SB_FIELD_COUNT, SB_FIELD_NUMBER, SB_FIELD_CHOICE };

/* A key of a table; the list ends at a NULL name. */
struct sb_lua_field {
    const char *name;
    enum sb_lua_field_type type;
    size_t offset;
    bool required;
    double min, max;     /* COUNT, NUMBER */
    double fallback;     /* COUNT, NUMBER */
    const char *choices; /* CHOICE: "a|b", the first is the fallback */
};

/* A copy of text (sb_free). */
char *sb_lua_keep_text(lua_State *L, const char *text);
/* Refuse keys of the table on top that neither the fields nor `tables` (ends at NULL; or NULL) name. */
void sb_lua_check_keys(lua_State *L, const char *where, const struct sb_lua_field *fields,
                       const char *const *tables);
/* Read the fields of the table on top into the struct `into`. */
void sb_lua_read_fields(lua_State *L, const char *where, const struct sb_lua_field *fields,
                        void *into);
/* Push the table under `name` in the one on top; false and nothing pushed when it is absent. */
bool sb_lua_push_table(lua_State *L, const char *where, const char *name, bool required);
/* Read parent[name], the parent being on top, by its fields; false: it is absent, and nothing was read. */
bool sb_lua_read_table(lua_State *L, const char *parent, const char *name,
                       const struct sb_lua_field *fields, bool required, void *into);

#endif
