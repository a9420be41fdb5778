#include "harness/model/torch_pickle.h"

#include <stdbool.h>
#include <string.h>

#include "harness/core/alloc.h"

/* ---- what the machine knows ------------------------------------------------------------------------ */

/* Opcodes as Python's pickletools names them: those that torch.save writes. */
enum opcode {
    OP_MARK = '(',
    OP_STOP = '.',
    OP_BINFLOAT = 'G',
    OP_BININT = 'J',
    OP_BININT1 = 'K',
    OP_BININT2 = 'M',
    OP_NONE = 'N',
    OP_BINPERSID = 'Q',
    OP_REDUCE = 'R',
    OP_BINUNICODE = 'X',
    OP_EMPTY_LIST = ']',
    OP_APPEND = 'a',
    OP_BUILD = 'b',
    OP_GLOBAL = 'c',
    OP_APPENDS = 'e',
    OP_BINGET = 'h',
    OP_LONG_BINGET = 'j',
    OP_BINPUT = 'q',
    OP_LONG_BINPUT = 'r',
    OP_SETITEM = 's',
    OP_TUPLE = 't',
    OP_EMPTY_TUPLE = ')',
    OP_SETITEMS = 'u',
    OP_EMPTY_DICT = '}',
    OP_PROTO = 0x80,
    OP_TUPLE1 = 0x85,
    OP_TUPLE2 = 0x86,
    OP_TUPLE3 = 0x87,
    OP_NEWTRUE = 0x88,
    OP_NEWFALSE = 0x89,
    OP_LONG1 = 0x8a,
    OP_SHORT_BINUNICODE = 0x8c,
    OP_STACK_GLOBAL = 0x93,
    OP_MEMOIZE = 0x94,
    OP_FRAME = 0x95,
};

enum {
    G_ORDERED_DICT = SB_ELEMENT_COUNT, /* below it: the storage classes, by element type */
    G_REBUILD_TENSOR,
    G_REBUILD_TENSOR_V2,
    G_REBUILD_PARAMETER,
};

enum { MAX_TORCH_DIMS = 64 }; /* torch's own limit */

static const struct {
    const char *module, *name;
    int global;
} known_globals[] = {
    { "collections", "OrderedDict", G_ORDERED_DICT },
    { "torch", "BFloat16Storage", SB_ELEMENT_BF16 },
    { "torch", "BoolStorage", SB_ELEMENT_BOOL },
    { "torch", "ByteStorage", SB_ELEMENT_U8 },
    { "torch", "CharStorage", SB_ELEMENT_I8 },
    { "torch", "DoubleStorage", SB_ELEMENT_F64 },
    { "torch", "FloatStorage", SB_ELEMENT_F32 },
    { "torch", "HalfStorage", SB_ELEMENT_F16 },
    { "torch", "IntStorage", SB_ELEMENT_I32 },
    { "torch", "LongStorage", SB_ELEMENT_I64 },
    { "torch", "ShortStorage", SB_ELEMENT_I16 },
    { "torch._utils", "_rebuild_parameter", G_REBUILD_PARAMETER },
    { "torch._utils", "_rebuild_tensor", G_REBUILD_TENSOR },
    { "torch._utils", "_rebuild_tensor_v2", G_REBUILD_TENSOR_V2 },
};

const char *sb_pickle_kind_name(enum sb_pickle_kind kind)
{
    static const char *const names[SB_PICKLE_KIND_COUNT] = {
        [SB_PICKLE_NONE] = "None",       [SB_PICKLE_BOOL] = "a truth value",
        [SB_PICKLE_INT] = "a number",    [SB_PICKLE_FLOAT] = "a number",
        [SB_PICKLE_TEXT] = "text",       [SB_PICKLE_TUPLE] = "a tuple",
        [SB_PICKLE_LIST] = "a list",     [SB_PICKLE_DICT] = "a dictionary",
        [SB_PICKLE_GLOBAL] = "a global", [SB_PICKLE_STORAGE] = "a storage",
        [SB_PICKLE_TENSOR] = "a tensor",
    };
    return names[kind];
}

/* ---- the machine ----------------------------------------------------------------------------------- */

static const sb_pickle_ref MARK = UINT32_MAX; /* on the stack, between values */

struct machine {
    struct sb_pickle out;
    const uint8_t *bytes;
    size_t size, at, op_at; /* op_at: where the opcode in hand stands */
    const char *name;
    struct sb_error *err;
    sb_pickle_ref *stack, *memo;
    size_t n_stack, cap_stack, n_memo, cap_memo;
    bool done;
};

#define refuse(m, code, fmt, ...) \
    sb_fail((m)->err, code, "%s: byte %zu: " fmt, (m)->name, (m)->op_at, __VA_ARGS__)

static enum sb_status out_of_memory(const struct machine *m)
{
    return refuse(m, SB_ENOMEM, "out of memory for its %zu values", m->out.n_values);
}

/* The next n bytes of the pickle, or NULL with the message. */
static const uint8_t *take(struct machine *m, size_t n)
{
    if (n > m->size - m->at) {
        refuse(m, SB_EFORMAT, "the pickle breaks off; %zu bytes are left of %zu", m->size - m->at,
               n);
        return NULL;
    }
    m->at += n;
    return m->bytes + m->at - n;
}

static uint64_t little_endian(const uint8_t *p, size_t n)
{
    uint64_t value = 0;
    for (size_t i = 0; i < n; i++)
        value |= (uint64_t)p[i] << (8 * i);
    return value;
}

static enum sb_status take_number(struct machine *m, uint64_t *out, size_t n)
{
    const uint8_t *p = take(m, n);
    if (!p)
        return SB_EFORMAT;
    *out = little_endian(p, n);
    return SB_OK;
}

static enum sb_status push(struct machine *m, sb_pickle_ref ref)
{
    if (m->n_stack == SB_PICKLE_MAX_STACK)
        return refuse(m, SB_EFORMAT, "the stack is deeper than %d", SB_PICKLE_MAX_STACK);
    if (sb_grow((void **)&m->stack, &m->cap_stack, m->n_stack + 1, sizeof *m->stack))
        return out_of_memory(m);
    m->stack[m->n_stack++] = ref;
    return SB_OK;
}

static enum sb_status push_value(struct machine *m, const struct sb_pickle_value *value)
{
    struct sb_pickle *p = &m->out;
    if (p->n_values == SB_PICKLE_MAX_VALUES)
        return refuse(m, SB_EFORMAT, "the pickle has more than %d values", SB_PICKLE_MAX_VALUES);
    if (sb_grow((void **)&p->value, &p->cap_values, p->n_values + 1, sizeof *p->value))
        return out_of_memory(m);
    p->value[p->n_values] = *value;
    return push(m, (sb_pickle_ref)p->n_values++);
}

static enum sb_status push_kind(struct machine *m, enum sb_pickle_kind kind, int64_t whole)
{
    struct sb_pickle_value v = { .kind = (uint8_t)kind };
    if (kind == SB_PICKLE_INT || kind == SB_PICKLE_BOOL)
        v.whole = whole;
    return push_value(m, &v);
}

/* Values above the topmost mark, or above the bottom when there is none. */
static size_t n_free(const struct machine *m)
{
    size_t n = 0;
    while (n < m->n_stack && m->stack[m->n_stack - 1 - n] != MARK)
        n++;
    return n;
}

/* The topmost n values are values: no mark among them, and so many are there. */
static enum sb_status need(const struct machine *m, size_t n, const char *op)
{
    for (size_t i = 0; i < n; i++)
        if (i == m->n_stack || m->stack[m->n_stack - 1 - i] == MARK)
            return refuse(m, SB_EFORMAT, "%s needs %zu values on the stack, which has %zu", op, n,
                          i);
    return SB_OK;
}

static enum sb_status need_mark(const struct machine *m, size_t *n, const char *op)
{
    *n = n_free(m);
    if (*n == m->n_stack)
        return refuse(m, SB_EFORMAT, "%s without a mark on the stack", op);
    return SB_OK;
}

static struct sb_pickle_value *top(const struct machine *m, size_t below)
{
    return &m->out.value[m->stack[m->n_stack - 1 - below]];
}

static enum sb_status add_link(struct machine *m, struct sb_pickle_items *items, sb_pickle_ref key,
                               sb_pickle_ref value)
{
    struct sb_pickle *p = &m->out;
    if (p->n_links == SB_PICKLE_MAX_VALUES)
        return refuse(m, SB_EFORMAT, "the pickle's containers have more than %d items",
                      SB_PICKLE_MAX_VALUES);
    if (sb_grow((void **)&p->link, &p->cap_links, p->n_links + 1, sizeof *p->link))
        return out_of_memory(m);
    sb_pickle_ref link = (sb_pickle_ref)p->n_links++;
    p->link[link] = (struct sb_pickle_link){ .key = key, .value = value };
    if (items->n++ == 0)
        items->first = link;
    else
        p->link[items->last].next = link;
    items->last = link;
    return SB_OK;
}

/* ---- opcodes --------------------------------------------------------------------------------------- */

static enum sb_status do_text(struct machine *m, size_t length_bytes)
{
    uint64_t n;
    if (take_number(m, &n, length_bytes) != SB_OK)
        return SB_EFORMAT;
    const uint8_t *p = take(m, (size_t)n);
    if (!p)
        return SB_EFORMAT;
    return push_value(m, &(struct sb_pickle_value){ .kind = SB_PICKLE_TEXT,
                                                    .text = { (const char *)p, (size_t)n } });
}

static enum sb_status do_int(struct machine *m, size_t n_bytes, bool is_signed)
{
    uint64_t value;
    if (take_number(m, &value, n_bytes) != SB_OK)
        return SB_EFORMAT;
    return push_kind(m, SB_PICKLE_INT, is_signed ? (int32_t)value : (int64_t)value);
}

static enum sb_status do_long(struct machine *m)
{
    uint64_t n, value = 0;
    if (take_number(m, &n, 1) != SB_OK)
        return SB_EFORMAT;
    if (n > 8)
        return refuse(m, SB_EFORMAT, "a number of %d bytes; expected at most 8", (int)n);
    const uint8_t *p = take(m, (size_t)n);
    if (!p)
        return SB_EFORMAT;
    value = little_endian(p, (size_t)n);
    if (n > 0 && n < 8 && p[n - 1] & 0x80)
        value |= UINT64_MAX << (8 * n);
    return push_kind(m, SB_PICKLE_INT, (int64_t)value);
}

static enum sb_status do_float(struct machine *m)
{
    const uint8_t *p = take(m, 8);
    if (!p)
        return SB_EFORMAT;
    struct sb_pickle_value v = { .kind = SB_PICKLE_FLOAT };
    uint64_t bits = 0;
    for (size_t i = 0; i < 8; i++)
        bits = bits << 8 | p[i];
    memcpy(&v.number, &bits, sizeof bits);
    return push_value(m, &v);
}

static bool same(struct sb_pickle_text text, const char *word)
{
    return text.n == strlen(word) && memcmp(text.data, word, text.n) == 0;
}

static int shown(size_t n)
{
    return n < 80 ? (int)n : 80;
}

static enum sb_status push_global(struct machine *m, struct sb_pickle_text module,
                                  struct sb_pickle_text name)
{
    for (size_t i = 0; i < sizeof known_globals / sizeof *known_globals; i++)
        if (same(module, known_globals[i].module) && same(name, known_globals[i].name))
            return push_value(m, &(struct sb_pickle_value){ .kind = SB_PICKLE_GLOBAL,
                                                            .global = known_globals[i].global });
    return refuse(m, SB_EUNSUPPORTED,
                  "the global '%.*s.%.*s' is refused; a file of tensors needs only "
                  "collections.OrderedDict, torch._utils._rebuild_tensor_v2 and "
                  "torch.FloatStorage or the like",
                  shown(module.n), module.data, shown(name.n), name.data);
}

/* Text up to the newline, which is taken too. */
static enum sb_status take_line(struct machine *m, struct sb_pickle_text *out)
{
    const uint8_t *p = m->bytes + m->at, *end = memchr(p, '\n', m->size - m->at);
    if (!end)
        return refuse(m, SB_EFORMAT, "%s", "the pickle breaks off in the name of a global");
    *out = (struct sb_pickle_text){ (const char *)p, (size_t)(end - p) };
    m->at += out->n + 1;
    return SB_OK;
}

static enum sb_status do_global(struct machine *m)
{
    struct sb_pickle_text module, name;
    enum sb_status rc = take_line(m, &module);
    if (rc == SB_OK)
        rc = take_line(m, &name);
    return rc == SB_OK ? push_global(m, module, name) : rc;
}

static enum sb_status do_stack_global(struct machine *m)
{
    enum sb_status rc = need(m, 2, "STACK_GLOBAL");
    if (rc != SB_OK)
        return rc;
    const struct sb_pickle_value *name = top(m, 0), *module = top(m, 1);
    if (name->kind != SB_PICKLE_TEXT || module->kind != SB_PICKLE_TEXT)
        return refuse(m, SB_EFORMAT, "a global's name is %s and %s; expected two texts",
                      sb_pickle_kind_name(module->kind), sb_pickle_kind_name(name->kind));
    m->n_stack -= 2;
    return push_global(m, module->text, name->text);
}

/* The topmost n values become one tuple. */
static enum sb_status do_tuple(struct machine *m, size_t n, const char *op)
{
    enum sb_status rc = need(m, n, op);
    struct sb_pickle_value v = { .kind = SB_PICKLE_TUPLE };
    for (size_t i = 0; i < n && rc == SB_OK; i++)
        rc = add_link(m, &v.items, 0, m->stack[m->n_stack - n + i]);
    if (rc != SB_OK)
        return rc;
    m->n_stack -= n;
    return push_value(m, &v);
}

static enum sb_status do_marked_tuple(struct machine *m)
{
    size_t n;
    enum sb_status rc = need_mark(m, &n, "TUPLE");
    struct sb_pickle_value v = { .kind = SB_PICKLE_TUPLE };
    for (size_t i = 0; i < n && rc == SB_OK; i++)
        rc = add_link(m, &v.items, 0, m->stack[m->n_stack - n + i]);
    if (rc != SB_OK)
        return rc;
    m->n_stack -= n + 1;
    return push_value(m, &v);
}

/* n values on top go into the container beneath them (and beneath the mark, when `marked`). */
static enum sb_status fill(struct machine *m, enum sb_pickle_kind kind, size_t n, bool marked,
                           const char *op)
{
    size_t below = n + (marked ? 1 : 0);
    if (below >= m->n_stack || m->stack[m->n_stack - 1 - below] == MARK)
        return refuse(m, SB_EFORMAT, "%s without a container on the stack", op);
    struct sb_pickle_value *into = top(m, below);
    if (into->kind != kind)
        return refuse(m, SB_EFORMAT, "%s into %s; expected %s", op, sb_pickle_kind_name(into->kind),
                      sb_pickle_kind_name(kind));
    size_t step = kind == SB_PICKLE_DICT ? 2 : 1;
    if (n % step)
        return refuse(m, SB_EFORMAT, "%s with a key that has no value", op);
    const sb_pickle_ref *item = m->stack + m->n_stack - n;
    for (size_t i = 0; i < n; i += step) {
        enum sb_status rc = add_link(m, &into->items, step == 2 ? item[i] : 0, item[i + step - 1]);
        if (rc != SB_OK)
            return rc;
    }
    m->n_stack -= below;
    return SB_OK;
}

static enum sb_status fill_one(struct machine *m, enum sb_pickle_kind kind, size_t n,
                               const char *op)
{
    enum sb_status rc = need(m, n, op);
    return rc == SB_OK ? fill(m, kind, n, false, op) : rc;
}

static enum sb_status fill_marked(struct machine *m, enum sb_pickle_kind kind, const char *op)
{
    size_t n;
    enum sb_status rc = need_mark(m, &n, op);
    return rc == SB_OK ? fill(m, kind, n, true, op) : rc;
}

/* Indices are handed out in order, so a larger one is a lie that would only cost memory. */
static enum sb_status memoize(struct machine *m, uint64_t index)
{
    enum sb_status rc = need(m, 1, "a memo entry");
    if (rc != SB_OK)
        return rc;
    if (index > m->n_memo || index >= SB_PICKLE_MAX_VALUES)
        return refuse(m, SB_EFORMAT, "memo entry %llu; expected at most %zu",
                      (unsigned long long)index, m->n_memo);
    if (sb_grow((void **)&m->memo, &m->cap_memo, m->n_memo + 1, sizeof *m->memo))
        return out_of_memory(m);
    m->memo[index] = m->stack[m->n_stack - 1];
    m->n_memo += index == m->n_memo ? 1 : 0;
    return SB_OK;
}

static enum sb_status do_put(struct machine *m, size_t n_bytes)
{
    uint64_t index;
    return take_number(m, &index, n_bytes) == SB_OK ? memoize(m, index) : SB_EFORMAT;
}

static enum sb_status do_get(struct machine *m, size_t n_bytes)
{
    uint64_t index;
    if (take_number(m, &index, n_bytes) != SB_OK)
        return SB_EFORMAT;
    if (index >= m->n_memo)
        return refuse(m, SB_EFORMAT, "memo entry %llu is asked for; there are %zu",
                      (unsigned long long)index, m->n_memo);
    return push(m, m->memo[index]);
}

/* The items of a tuple, at most `max`; a longer one has none of the forms known. */
static size_t unpack(const struct machine *m, const struct sb_pickle_value *tuple,
                     sb_pickle_ref *out, size_t max)
{
    size_t n = 0;
    if (tuple->kind != SB_PICKLE_TUPLE || tuple->items.n > max)
        return 0;
    for (sb_pickle_ref l = tuple->items.first; l; l = m->out.link[l].next)
        out[n++] = m->out.link[l].value;
    return n;
}

/* ('storage', torch.FloatStorage, '0', 'cpu', 12) */
static enum sb_status do_persistent(struct machine *m)
{
    sb_pickle_ref item[5];
    enum sb_status rc = need(m, 1, "BINPERSID");
    if (rc != SB_OK)
        return rc;
    const struct sb_pickle_value *v = m->out.value;
    if (unpack(m, top(m, 0), item, 5) != 5 || v[item[0]].kind != SB_PICKLE_TEXT ||
        !same(v[item[0]].text, "storage") || v[item[1]].kind != SB_PICKLE_GLOBAL ||
        v[item[1]].global >= SB_ELEMENT_COUNT || v[item[2]].kind != SB_PICKLE_TEXT ||
        v[item[3]].kind != SB_PICKLE_TEXT || v[item[4]].kind != SB_PICKLE_INT ||
        v[item[4]].whole < 0)
        return refuse(m, SB_EFORMAT, "%s",
                      "a persistent id is not ('storage', type, key, device, count)");
    m->n_stack--;
    return push_value(
        m, &(struct sb_pickle_value){ .kind = SB_PICKLE_STORAGE,
                                      .storage = { .key = item[2],
                                                   .type = (enum sb_element)v[item[1]].global,
                                                   .n = v[item[4]].whole } });
}

/* A tuple of numbers; a long one, walked again for each of many tensors, would only cost time. */
static bool is_shape(const struct machine *m, sb_pickle_ref ref)
{
    const struct sb_pickle_value *tuple = &m->out.value[ref];
    if (tuple->kind != SB_PICKLE_TUPLE || tuple->items.n > MAX_TORCH_DIMS)
        return false;
    for (sb_pickle_ref l = tuple->items.first; l; l = m->out.link[l].next)
        if (m->out.value[m->out.link[l].value].kind != SB_PICKLE_INT)
            return false;
    return true;
}

/* _rebuild_tensor(storage, offset, size, stride); _v2 adds requires_grad, backward_hooks and perhaps
 * metadata, which do not change what the tensor holds. */
static enum sb_status rebuild_tensor(struct machine *m, const sb_pickle_ref *arg, size_t n, bool v2)
{
    const struct sb_pickle_value *v = m->out.value;
    if ((v2 ? n != 6 && n != 7 : n != 4) || v[arg[0]].kind != SB_PICKLE_STORAGE ||
        v[arg[1]].kind != SB_PICKLE_INT || !is_shape(m, arg[2]) || !is_shape(m, arg[3]))
        return refuse(m, SB_EFORMAT, "a tensor is not made from (storage, offset, size, stride%s)",
                      v2 ? ", requires_grad, hooks" : "");
    return push_value(m, &(struct sb_pickle_value){ .kind = SB_PICKLE_TENSOR,
                                                    .tensor = { .storage = arg[0],
                                                                .size = arg[2],
                                                                .stride = arg[3],
                                                                .offset = v[arg[1]].whole } });
}

/* A callable and its arguments: one of the four that are known, each with the arguments it takes. */
static enum sb_status do_reduce(struct machine *m)
{
    sb_pickle_ref arg[7];
    enum sb_status rc = need(m, 2, "REDUCE");
    if (rc != SB_OK)
        return rc;
    const struct sb_pickle_value *called = top(m, 1), *tuple = top(m, 0);
    if (called->kind != SB_PICKLE_GLOBAL || tuple->kind != SB_PICKLE_TUPLE)
        return refuse(m, SB_EFORMAT, "REDUCE calls %s with %s; expected a global and a tuple",
                      sb_pickle_kind_name(called->kind), sb_pickle_kind_name(tuple->kind));
    int global = called->global;
    size_t n_items = tuple->items.n, n = unpack(m, tuple, arg, 7);
    m->n_stack -= 2;
    if (global == G_ORDERED_DICT && n_items == 0)
        return push_kind(m, SB_PICKLE_DICT, 0);
    if (global == G_REBUILD_TENSOR || global == G_REBUILD_TENSOR_V2)
        return rebuild_tensor(m, arg, n, global == G_REBUILD_TENSOR_V2);
    if (global == G_REBUILD_PARAMETER && n == 3 && m->out.value[arg[0]].kind == SB_PICKLE_TENSOR)
        return push(m, arg[0]);
    if (global == G_REBUILD_PARAMETER)
        return refuse(m, SB_EFORMAT, "%s",
                      "a parameter is not made from (tensor, requires_grad, hooks)");
    if (global == G_ORDERED_DICT)
        return refuse(m, SB_EFORMAT, "OrderedDict is called with %zu values; expected none",
                      n_items);
    return refuse(m, SB_EFORMAT, "%s", "a storage class is called; expected it in a persistent id");
}

/* State of an OrderedDict (a module's _metadata) says nothing about tensors: it is dropped. */
static enum sb_status do_build(struct machine *m)
{
    enum sb_status rc = need(m, 2, "BUILD");
    if (rc != SB_OK)
        return rc;
    if (top(m, 1)->kind != SB_PICKLE_DICT || top(m, 0)->kind != SB_PICKLE_DICT)
        return refuse(m, SB_EFORMAT, "BUILD gives %s to %s; expected dictionaries",
                      sb_pickle_kind_name(top(m, 0)->kind), sb_pickle_kind_name(top(m, 1)->kind));
    m->n_stack--;
    return SB_OK;
}

static enum sb_status do_proto(struct machine *m)
{
    uint64_t version;
    if (take_number(m, &version, 1) != SB_OK)
        return SB_EFORMAT;
    if (m->op_at != 0 || version < 2 || version > 5)
        return refuse(m, SB_EUNSUPPORTED,
                      "pickle protocol %d; expected 2 to 5, said once at byte 0", (int)version);
    return SB_OK;
}

static enum sb_status do_frame(struct machine *m)
{
    uint64_t n;
    if (take_number(m, &n, 8) != SB_OK)
        return SB_EFORMAT;
    if (n > m->size - m->at)
        return refuse(m, SB_EFORMAT, "a frame of %llu bytes; %zu are left", (unsigned long long)n,
                      m->size - m->at);
    return SB_OK;
}

static enum sb_status do_stop(struct machine *m)
{
    if (m->n_stack != 1 || m->stack[0] == MARK)
        return refuse(m, SB_EFORMAT, "the pickle ends with %zu values; expected 1", m->n_stack);
    if (m->at != m->size)
        return refuse(m, SB_EFORMAT, "%zu bytes follow the end of the pickle", m->size - m->at);
    m->out.result = m->stack[0];
    m->done = true;
    return SB_OK;
}

static enum sb_status step(struct machine *m, uint8_t op)
{
    switch (op) {
    case OP_MARK:
        return push(m, MARK);
    case OP_STOP:
        return do_stop(m);
    case OP_BINFLOAT:
        return do_float(m);
    case OP_BININT:
        return do_int(m, 4, true);
    case OP_BININT1:
        return do_int(m, 1, false);
    case OP_BININT2:
        return do_int(m, 2, false);
    case OP_LONG1:
        return do_long(m);
    case OP_NONE:
        return push_kind(m, SB_PICKLE_NONE, 0);
    case OP_NEWTRUE:
    case OP_NEWFALSE:
        return push_kind(m, SB_PICKLE_BOOL, op == OP_NEWTRUE);
    case OP_BINUNICODE:
        return do_text(m, 4);
    case OP_SHORT_BINUNICODE:
        return do_text(m, 1);
    case OP_EMPTY_LIST:
        return push_kind(m, SB_PICKLE_LIST, 0);
    case OP_EMPTY_DICT:
        return push_kind(m, SB_PICKLE_DICT, 0);
    case OP_EMPTY_TUPLE:
        return do_tuple(m, 0, "EMPTY_TUPLE");
    case OP_TUPLE1:
    case OP_TUPLE2:
    case OP_TUPLE3:
        return do_tuple(m, (size_t)(op - OP_TUPLE1) + 1, "TUPLE1 to 3");
    case OP_TUPLE:
        return do_marked_tuple(m);
    case OP_APPEND:
        return fill_one(m, SB_PICKLE_LIST, 1, "APPEND");
    case OP_APPENDS:
        return fill_marked(m, SB_PICKLE_LIST, "APPENDS");
    case OP_SETITEM:
        return fill_one(m, SB_PICKLE_DICT, 2, "SETITEM");
    case OP_SETITEMS:
        return fill_marked(m, SB_PICKLE_DICT, "SETITEMS");
    case OP_BINPUT:
        return do_put(m, 1);
    case OP_LONG_BINPUT:
        return do_put(m, 4);
    case OP_MEMOIZE:
        return memoize(m, m->n_memo);
    case OP_BINGET:
        return do_get(m, 1);
    case OP_LONG_BINGET:
        return do_get(m, 4);
    case OP_GLOBAL:
        return do_global(m);
    case OP_STACK_GLOBAL:
        return do_stack_global(m);
    case OP_BINPERSID:
        return do_persistent(m);
    case OP_REDUCE:
        return do_reduce(m);
    case OP_BUILD:
        return do_build(m);
    case OP_PROTO:
        return do_proto(m);
    case OP_FRAME:
        return do_frame(m);
    default:
        return refuse(m, SB_EUNSUPPORTED,
                      "opcode 0x%02x is refused; expected those that torch.save writes for tensors",
                      op);
    }
}

static enum sb_status run(struct machine *m)
{
    enum sb_status rc = SB_OK;
    if (m->size > SB_PICKLE_MAX_BYTES)
        return sb_fail(m->err, SB_EFORMAT, "%s: %zu bytes of pickle; expected at most %d", m->name,
                       m->size, SB_PICKLE_MAX_BYTES);
    if (m->size < 2 || m->bytes[0] != OP_PROTO)
        return sb_fail(m->err, SB_EFORMAT, "%s: does not begin as a pickle of protocol 2 to 5",
                       m->name);
    /* Reference 0 means none. */
    m->out.n_values = m->out.n_links = 1;
    if (sb_grow((void **)&m->out.value, &m->out.cap_values, 1, sizeof *m->out.value) ||
        sb_grow((void **)&m->out.link, &m->out.cap_links, 1, sizeof *m->out.link))
        return out_of_memory(m);
    memset(m->out.value, 0, sizeof *m->out.value);
    memset(m->out.link, 0, sizeof *m->out.link);
    while (rc == SB_OK && !m->done) {
        m->op_at = m->at;
        const uint8_t *op = take(m, 1);
        rc = op ? step(m, *op) : SB_EFORMAT;
    }
    return rc;
}

enum sb_status sb_pickle_parse(struct sb_pickle *out, const uint8_t *bytes, size_t size,
                               const char *name, struct sb_error *err)
{
    struct machine m = { .bytes = bytes, .size = size, .name = name, .err = err };
    enum sb_status rc = run(&m);
    sb_free(m.stack);
    sb_free(m.memo);
    if (rc == SB_OK)
        *out = m.out;
    else
        sb_pickle_close(&m.out);
    return rc;
}

void sb_pickle_close(struct sb_pickle *pickle)
{
    if (!pickle)
        return;
    sb_free(pickle->value);
    sb_free(pickle->link);
    *pickle = (struct sb_pickle){ 0 };
}
