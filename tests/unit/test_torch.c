/* PyTorch archives: what two sound ones hold, and for each that is wrong the one line that says so. Archives are
 * written here as torch's writer lays them out; those of golden/torch come from Python's own pickler (make.py). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/core/alloc.h"
#include "harness/model/model.h"
#include "harness/model/torch_file.h"
#include "harness/model/torch_zip.h"

/* ---- writing --------------------------------------------------------------------------------------- */

struct bytes {
    unsigned char *data; /* aligned to 64 */
    size_t n, cap;
};

static void add(struct bytes *b, const void *data, size_t n)
{
    if (b->n + n > b->cap) {
        size_t cap = (b->n + n + 4096) * 2 / 64 * 64;
        unsigned char *bigger = aligned_alloc(64, cap);
        assert_non_null(bigger);
        if (b->n)
            memcpy(bigger, b->data, b->n);
        free(b->data);
        b->data = bigger;
        b->cap = cap;
    }
    if (n)
        memcpy(b->data + b->n, data, n);
    b->n += n;
}

static void put(unsigned char *at, uint64_t value, size_t n)
{
    for (size_t i = 0; i < n; i++)
        at[i] = (unsigned char)(value >> (8 * i));
}

static void add_number(struct bytes *b, uint64_t value, size_t n)
{
    unsigned char text[8];
    put(text, value, n);
    add(b, text, n);
}

struct entry {
    const char *name;
    const void *data;
    size_t n;
};

/* Where the parts of an archive stand, to be patched. */
struct archive {
    struct bytes b;
    size_t local[8], data[8], central[8], directory, end64, locator, end;
};

enum { FLAGS = 0x0808 };

static void add_entry(struct archive *a, size_t i, const struct entry *e)
{
    struct bytes *b = &a->b;
    a->local[i] = b->n;
    add(b, "PK\3\4\0\0", 6);
    add_number(b, FLAGS, 2);
    add(b, (const char[18]){ 0 }, 18); /* stored; the sizes follow the bytes */
    add_number(b, strlen(e->name), 2);
    size_t pad = -(b->n + 2 + strlen(e->name) + 4) % 64;
    add_number(b, pad + 4, 2);
    add(b, e->name, strlen(e->name));
    add(b, "FB", 2);
    add_number(b, pad, 2);
    while (b->n % 64)
        add(b, "Z", 1);
    a->data[i] = b->n;
    add(b, e->data, e->n);
    add(b, "PK\7\10\0\0\0\0", 8);
    add_number(b, e->n, 4);
    add_number(b, e->n, 4);
}

/* With `wide`, sizes and places stand in zip64 fields, as they must from 4 GiB on. */
static void add_central(struct archive *a, size_t i, const struct entry *e, bool wide)
{
    struct bytes *b = &a->b;
    a->central[i] = b->n;
    add(b, "PK\1\2\0\0\0\0", 8);
    add_number(b, FLAGS, 2);
    add(b, (const char[10]){ 0 }, 10);
    add_number(b, wide ? UINT32_MAX : e->n, 4);
    add_number(b, wide ? UINT32_MAX : e->n, 4);
    add_number(b, strlen(e->name), 2);
    add_number(b, wide ? 32 : 0, 2);
    add(b, (const char[10]){ 0 }, 10);
    add_number(b, wide ? UINT32_MAX : a->local[i], 4);
    add(b, e->name, strlen(e->name));
    if (wide) {
        add(b, "FB\0\0\1\0\30\0", 8);
        add_number(b, e->n, 8);
        add_number(b, e->n, 8);
        add_number(b, a->local[i], 8);
    }
}

static struct archive write_archive(const struct entry *entry, size_t n, bool wide)
{
    struct archive a = { 0 };
    struct bytes *b = &a.b;
    for (size_t i = 0; i < n; i++)
        add_entry(&a, i, &entry[i]);
    a.directory = b->n;
    for (size_t i = 0; i < n; i++)
        add_central(&a, i, &entry[i], wide);
    a.end64 = b->n;
    add(b, "PK\6\6\x2c\0\0\0\0\0\0\0\x1e\3\x2d\0\0\0\0\0\0\0\0\0", 24);
    add_number(b, n, 8);
    add_number(b, n, 8);
    add_number(b, a.end64 - a.directory, 8);
    add_number(b, a.directory, 8);
    a.locator = b->n;
    add(b, "PK\6\7\0\0\0\0", 8);
    add_number(b, a.end64, 8);
    add_number(b, 1, 4);
    a.end = b->n;
    add(b, "PK\5\6\0\0\0\0", 8);
    add_number(b, n, 2);
    add_number(b, n, 2);
    add_number(b, a.end64 - a.directory, 4);
    add_number(b, a.directory, 4);
    add_number(b, 0, 2);
    return a;
}

/* A pickle as a string of C, whose bytes may be 0. */
#define PICKLE(text) (const unsigned char *)(text), sizeof(text) - 1
#define STORAGE_OF(type, key, count) \
    "(X\7\0\0\0storagectorch\n" type "Storage\nX\1\0\0\0" key "X\3\0\0\0cpuK" count "tQ"
#define TENSOR_OF(storage, offset, size, stride)                             \
    "ctorch._utils\n_rebuild_tensor_v2\n(" storage offset size stride "\x89" \
    "ccollections\nOrderedDict\n)RtR"
#define TENSOR(offset, size, stride) TENSOR_OF(STORAGE_OF("Float", "0", "\4"), offset, size, stride)
#define FOUR                         TENSOR("K\0", "K\4\x85", "K\1\x85")
#define NAMED(name, value)           "X\1\0\0\0" name value
/* {"a": value} */
#define IN_DICT(value) "\x80\2}" NAMED("a", value) "s."

static const float four_values[] = { 1, 2, 3, 4 };

static struct archive write_pickle(const unsigned char *pickle, size_t n)
{
    const struct entry entry[] = {
        { "m/data.pkl", pickle, n },
        { "m/byteorder", "little", 6 },
        { "m/data/0", four_values, sizeof four_values },
        { "m/version", "3\n", 2 },
    };
    return write_archive(entry, 4, false);
}

static struct archive sound(void)
{
    return write_pickle(PICKLE(IN_DICT(FOUR)));
}

/* ---- reading --------------------------------------------------------------------------------------- */

/* From bytes of exactly that size, so that a sanitizer sees a read past them. */
static enum sb_status parse(struct sb_torch_file *f, const struct bytes *b, unsigned char **exact,
                            struct sb_error *err)
{
    *exact = aligned_alloc(64, b->n + 63 - (b->n + 63) % 64);
    memcpy(*exact, b->data, b->n);
    return sb_torch_parse(f, *exact, b->n, "x.pt", err);
}

static void check_refused(const struct bytes *b, enum sb_status status, const char *message)
{
    struct sb_torch_file f = { .n = 77 };
    struct sb_error err = { 0 };
    unsigned char *exact;
    enum sb_status rc = parse(&f, b, &exact, &err);
    if (rc != status || strncmp(err.message, "x.pt: ", 6) != 0 ||
        strcmp(err.message + 6, message) != 0)
        fail_msg("status %d, not %d; '%s', not '%s'", (int)rc, (int)status,
                 rc ? err.message : "accepted", message);
    assert_int_equal(f.n, 77); /* untouched */
    free(exact);
}

static void refuse_archive(struct archive a, enum sb_status status, const char *message)
{
    check_refused(&a.b, status, message);
    free(a.b.data);
}

static void refuse_pickle(const unsigned char *pickle, size_t n, enum sb_status status,
                          const char *message)
{
    refuse_archive(write_pickle(pickle, n), status, message);
}

/* The sound archive with n bytes at `at` set to a number. */
static void refuse_patched(size_t at, uint64_t value, size_t n, enum sb_status status,
                           const char *message)
{
    struct archive a = sound();
    put(a.b.data + at, value, n);
    refuse_archive(a, status, message);
}

static char *golden(const char *name)
{
    return sb_strf("%s/golden/torch/%s", getenv("SB_TEST_DIR"), name);
}

static const struct sb_stored_tensor *get(const struct sb_torch_file *f, const char *name,
                                          enum sb_element type, size_t n_dims, size_t size_bytes)
{
    const struct sb_stored_tensor *t = sb_torch_find(f, name);
    if (!t)
        fail_msg("no tensor '%s'", name);
    assert_int_equal(t->type, type);
    assert_int_equal(t->n_dims, n_dims);
    assert_int_equal(t->size_bytes, size_bytes);
    return t;
}

/* ---- what sound files hold ------------------------------------------------------------------------- */

static void heads_are_read_as_saved(void **state)
{
    (void)state;
    struct sb_torch_file f;
    char *path = golden("medusa.pt");
    assert_int_equal(sb_torch_open(&f, path, NULL), SB_OK);
    assert_int_equal(f.n, 6);
    assert_int_equal(f.n_other, 0);
    assert_string_equal(f.tensor[0].name, "0.0.linear.bias"); /* sorted */
    const struct sb_stored_tensor *w = get(&f, "1.0.linear.weight", SB_ELEMENT_F32, 2, 64);
    assert_true(w->dim[0] == 4 && w->dim[1] == 4);
    for (int i = 0; i < 16; i++)
        assert_true(((const float *)w->data)[i] == 1 + (float)i / 16);
    const struct sb_stored_tensor *half = get(&f, "0.1.weight", SB_ELEMENT_F16, 2, 64);
    for (int i = 0; i < 32; i++)
        assert_true(sb_f16_to_f32(((const uint16_t *)half->data)[i]) == 0.5f * (float)i);
    assert_ptr_equal(get(&f, "1.1.weight", SB_ELEMENT_F16, 2, 64)->data, half->data); /* shared */
    assert_null(sb_torch_find(&f, "2.1.weight"));
    sb_torch_close(&f);
    sb_free(path);
}

static void a_checkpoint_is_named_by_its_keys(void **state)
{
    (void)state;
    struct sb_torch_file f;
    char *path = golden("checkpoint.pt");
    assert_int_equal(sb_torch_open(&f, path, NULL), SB_OK);
    assert_int_equal(f.n, 6);
    assert_int_equal(f.n_other, 7); /* epoch and the optimizer's six */
    const struct sb_stored_tensor *fc = get(&f, "state_dict.fc.weight", SB_ELEMENT_BF16, 2, 24);
    assert_int_equal(((const uint16_t *)fc->data)[0], 0x3F80 + 12);
    const struct sb_stored_tensor *row = get(&f, "state_dict.fc.row", SB_ELEMENT_BF16, 2, 8);
    assert_int_equal(((const uint16_t *)row->data)[3], 0x3F80 + 7);
    const struct sb_stored_tensor *d2t = get(&f, "state_dict.d2t", SB_ELEMENT_I64, 1, 32);
    assert_int_equal(((const int64_t *)d2t->data)[2], -3);
    assert_ptr_equal(get(&f, "7.by number", SB_ELEMENT_I64, 1, 16)->data,
                     (const int64_t *)d2t->data + 2);
    assert_int_equal(((const uint8_t *)get(&f, "state_dict.t2d", SB_ELEMENT_BOOL, 1, 3)->data)[1],
                     0);
    assert_true(*(const double *)get(&f, "state_dict.scale", SB_ELEMENT_F64, 0, 8)->data == 0.125);
    sb_torch_close(&f);
    sb_free(path);
}

static void accept(struct archive a)
{
    struct sb_torch_file f;
    struct sb_error err = { 0 };
    unsigned char *exact;
    if (parse(&f, &a.b, &exact, &err) != SB_OK)
        fail_msg("%s", err.message);
    assert_int_equal(f.n, 1);
    assert_memory_equal(get(&f, "a", SB_ELEMENT_F32, 1, 16)->data, four_values, 16);
    sb_torch_close(&f);
    free(exact);
    free(a.b.data);
}

static void every_form_of_a_sound_file_is_read(void **state)
{
    (void)state;
    static const char pickle[] = IN_DICT(FOUR);
    const struct entry entry[] = { { "m/data.pkl", pickle, sizeof pickle - 1 },
                                   { "m/data/0", four_values, 16 } };
    accept(sound());
    accept(write_archive(entry, 2, true)); /* zip64 */
    struct archive a = sound();            /* no zip64 record, a comment */
    memmove(a.b.data + a.end64, a.b.data + a.end, 22);
    a.b.n = a.end64 + 22;
    put(a.b.data + a.end64 + 20, 5, 2);
    add(&a.b, "hello", 5);
    accept(a);
    a = sound(); /* sizes in the entry's own header too */
    put(a.b.data + a.local[2] + 18, 16, 4);
    put(a.b.data + a.local[2] + 22, 16, 4);
    accept(a);
    accept(write_pickle(PICKLE(IN_DICT("ctorch._utils\n_rebuild_tensor\n(" STORAGE_OF(
        "Float", "0", "\4") "K\0K\4\x85K\1\x85tR"))));
    accept(write_pickle(PICKLE(IN_DICT("ctorch._utils\n_rebuild_parameter\n(" FOUR "\x88NtR"))));
}

static void types_of_the_kernels_are_told(void **state)
{
    (void)state;
    enum sb_dtype type = SB_Q4_0;
    assert_true(sb_element_dtype(&type, SB_ELEMENT_BF16) && type == SB_BF16);
    assert_true(sb_element_dtype(&type, SB_ELEMENT_F16) && type == SB_F16);
    assert_true(sb_element_dtype(&type, SB_ELEMENT_F32) && type == SB_F32);
    assert_false(sb_element_dtype(&type, SB_ELEMENT_I64));
    assert_string_equal(sb_element_name(SB_ELEMENT_BOOL), "bool");
    assert_int_equal(sb_element_bytes(SB_ELEMENT_F64), 8);
}

/* ---- archives that are wrong ----------------------------------------------------------------------- */

static void a_cut_file_is_refused(void **state)
{
    (void)state;
    struct archive a = sound();
    size_t n = a.b.n;
    for (a.b.n = 4; a.b.n < n; a.b.n++)
        check_refused(&a.b, SB_EFORMAT, "ends in no zip directory; the file is cut or no archive");
    a.b.n = 3;
    check_refused(&a.b, SB_EFORMAT, "does not begin as a zip archive of torch.save");
    free(a.b.data);
}

static void other_kinds_of_file_are_named(void **state)
{
    (void)state;
    struct bytes b = { 0 };
    add(&b, "\x80\2\x8a\nl\xfc\x9c\x46\xf9 j\xa8P\x19.", 16);
    check_refused(
        &b, SB_EUNSUPPORTED,
        "is a bare pickle, as torch before 1.6 wrote; load and save it with a newer torch, or convert it "
        "to safetensors");
    free(b.data);
    const struct entry script[] = { { "m/data.pkl", ".", 1 }, { "m/constants.pkl", ".", 1 } };
    refuse_archive(write_archive(script, 2, false), SB_EUNSUPPORTED,
                   "is a TorchScript program; expected a state_dict saved by torch.save");
    const struct entry big[] = { { "m/data.pkl", ".", 1 }, { "m/byteorder", "big", 3 } };
    refuse_archive(write_archive(big, 2, false), SB_EUNSUPPORTED,
                   "its byteorder is 'big'; expected 'little'");
    const struct entry none[] = { { "m/n/data.pkl", ".", 1 }, { "data.pkl", ".", 1 } };
    refuse_archive(write_archive(none, 2, false), SB_EFORMAT,
                   "holds no FOLDER/data.pkl; is it from torch.save?");
    const struct entry two[] = { { "m/data.pkl", ".", 1 }, { "l/data.pkl", ".", 1 } };
    refuse_archive(write_archive(two, 2, false), SB_EFORMAT,
                   "holds both 'l/data.pkl' and 'm/data.pkl'; expected one");
}

static void ends_of_archives_are_checked(void **state)
{
    (void)state;
    struct archive a = sound();
    char message[256];
    size_t size = a.end64 - a.directory;
    free(a.b.data);
    refuse_patched(
        a.locator + 8, UINT64_MAX, 8, SB_EFORMAT,
        "its zip64 locator points to byte 18446744073709551615, where no zip64 directory ends");
    refuse_patched(a.locator + 8, 0, 8, SB_EFORMAT,
                   "its zip64 locator points to byte 0, where no zip64 directory ends");
    refuse_patched(a.end64 + 16, 1, 4, SB_EUNSUPPORTED,
                   "is one part of an archive of several files");
    refuse_patched(a.end64 + 24, 3, 8, SB_EUNSUPPORTED,
                   "is one part of an archive of several files");
    snprintf(
        message, sizeof message,
        "its zip directory of %zu bytes at 18446744073709551615 does not lie before its end at %zu",
        size, a.end64);
    refuse_patched(a.end64 + 48, UINT64_MAX, 8, SB_EFORMAT, message);
    snprintf(
        message, sizeof message,
        "its zip directory of 18446744073709551615 bytes at %zu does not lie before its end at %zu",
        a.directory, a.end64);
    refuse_patched(a.end64 + 40, UINT64_MAX, 8, SB_EFORMAT, message);
    snprintf(message, sizeof message,
             "its zip directory of %zu bytes cannot hold 1099511627776 entries", size);
    struct archive many = sound();
    put(many.b.data + a.end64 + 24, (uint64_t)1 << 40, 8);
    put(many.b.data + a.end64 + 32, (uint64_t)1 << 40, 8);
    refuse_archive(many, SB_EFORMAT, message);
    struct archive fewer = sound();
    put(fewer.b.data + a.end64 + 24, 3, 8);
    put(fewer.b.data + a.end64 + 32, 3, 8);
    refuse_archive(fewer, SB_EFORMAT, "its zip directory has 55 bytes more than its entries");
    struct archive parts = sound();
    memmove(parts.b.data + a.end64, parts.b.data + a.end, 22);
    parts.b.n = a.end64 + 22;
    put(parts.b.data + a.end64 + 4, 1, 2);
    refuse_archive(parts, SB_EUNSUPPORTED, "is one part of an archive of several files");
}

static void entries_of_archives_are_checked(void **state)
{
    (void)state;
    struct archive a = sound();
    char message[256];
    size_t c = a.central[2], l = a.local[2];
    free(a.b.data);
    refuse_patched(c + 8, 1, 2, SB_EUNSUPPORTED, "entry 'm/data/0' is encrypted");
    refuse_patched(l + 6, 1, 2, SB_EUNSUPPORTED, "entry 'm/data/0' is encrypted");
    for (int i = 0; i < 2; i++)
        refuse_patched(
            i ? l + 8 : c + 10, 8, 2, SB_EUNSUPPORTED,
            "entry 'm/data/0' is compressed (method 8); expected entries stored as they are, as "
            "torch.save writes them");
    refuse_patched(c + 42, a.directory, 4, SB_EFORMAT,
                   (snprintf(message, sizeof message, "entry 'm/data/0' does not begin at byte %zu",
                             a.directory),
                    message));
    refuse_patched(c + 42, 1, 4, SB_EFORMAT, "entry 'm/data/0' does not begin at byte 1");
    refuse_patched(c + 42, 0, 4, SB_EFORMAT,
                   "entry 'm/data/0' has another name in its own header at byte 0");
    snprintf(message, sizeof message,
             "entry 'm/data/0' has another name in its own header at byte %zu", l);
    refuse_patched(l + 28, 0xffff, 2, SB_EFORMAT, message);
    refuse_patched(l + 30, 'x', 1, SB_EFORMAT, message);
    snprintf(message, sizeof message,
             "entry 'm/data/0' has another size in its own header at byte %zu", l);
    refuse_patched(l + 18, 15, 4, SB_EFORMAT, message);
    refuse_patched(l + 22, UINT32_MAX, 4, SB_EFORMAT, message);
    refuse_patched(c + 20, 17, 4, SB_EFORMAT,
                   "entry 'm/data/0' is stored, yet its 16 bytes take 17");
    refuse_patched(c + 20, UINT64_MAX, 8, SB_EFORMAT, "entry 'm/data/0' lacks its zip64 sizes");
    snprintf(message, sizeof message,
             "entry 'm/data/0' of 1048576 bytes at %zu runs into the directory at %zu", l,
             a.directory);
    refuse_patched(c + 20, (uint64_t)1 << 20 | (uint64_t)1 << 52, 8, SB_EFORMAT, message);
    snprintf(message, sizeof message, "its zip directory breaks off at byte %zu", c);
    refuse_patched(c, 0, 4, SB_EFORMAT, message);
    refuse_patched(c + 32, 0xffff, 2, SB_EFORMAT, message);
    snprintf(
        message, sizeof message,
        "the entry at byte %zu of its zip directory has a name of 8 bytes; expected 1 to 1024, none of them 0",
        c);
    refuse_patched(c + 46 + 3, 0, 1, SB_EFORMAT, message);
    const struct entry twice[] = { { "m/data.pkl", ".", 1 }, { "m/data.pkl", ".", 1 } };
    refuse_archive(write_archive(twice, 2, false), SB_EFORMAT,
                   "entry 'm/data.pkl' stands twice in its zip directory");
}

static void entries_that_overlap_are_refused(void **state)
{
    (void)state;
    struct bytes inner = { 0 };
    add(&inner, "PK\3\4\0\0", 6);
    add_number(&inner, FLAGS, 2);
    add(&inner, (const char[18]){ 0 }, 18);
    add_number(&inner, 8, 2);
    add_number(&inner, 0, 2);
    add(&inner, "m/data/1content", 15);
    const struct entry entry[] = { { "m/data.pkl", ".", 1 },
                                   { "m/data/0", inner.data, inner.n },
                                   { "m/data/1", "content", 7 } };
    struct archive a = write_archive(entry, 3, false);
    put(a.b.data + a.central[2] + 42, a.data[1], 4);
    refuse_archive(a, SB_EFORMAT, "entries 'm/data/0' and 'm/data/1' overlap");
    free(inner.data);
}

/* Whatever stands between headers and bytes: entries that reach into the next one's header, zip64 fields
 * that are too short, and an end record of 64 bits in a file too small for one. */
static void edges_of_archives_are_checked(void **state)
{
    (void)state;
    struct archive a = sound();
    put(a.b.data + a.central[2] + 20, 40, 4);
    put(a.b.data + a.central[2] + 24, 40, 4);
    refuse_archive(a, SB_EFORMAT, "entries 'm/data/0' and 'm/version' overlap");
    const struct entry entry[] = { { "m/data.pkl", ".", 1 } };
    a = write_archive(entry, 1, true);
    put(a.b.data + a.central[0] + 46 + 10 + 6, 16, 2);
    refuse_archive(a, SB_EFORMAT, "entry 'm/data.pkl' lacks its zip64 sizes");
    a = write_archive(entry, 1, true);
    put(a.b.data + a.central[0] + 46 + 10 + 2, 0xffff, 2);
    refuse_archive(a, SB_EFORMAT, "entry 'm/data.pkl' lacks its zip64 sizes");
    struct bytes b = { 0 };
    add(&b, "PK\3\4PK\6\6PK\6\7\0\0\0\0\4", 17);
    add(&b, (const char[11]){ 0 }, 11);
    add(&b, "PK\5\6", 4);
    add(&b, (const char[18]){ 0 }, 18);
    check_refused(&b, SB_EFORMAT,
                  "its zip64 locator points to byte 4, where no zip64 directory ends");
    free(b.data);
    static const char pickle[] = IN_DICT(FOUR);
    const struct entry odd[] = { { "m/data.pkl", pickle, sizeof pickle - 1 },
                                 { "m/data/0", "0123456789abcdefgh", 18 } };
    refuse_archive(write_archive(odd, 2, false), SB_EFORMAT,
                   "tensor 'a': its entry data/0 has 18 bytes; expected 4 values of 4");
}

/* ---- pickles that are wrong ------------------------------------------------------------------------ */

#define HOSTILE(global)                                                                          \
    "the global '" global "' is refused; a file of tensors needs only collections.OrderedDict, " \
    "torch._utils._rebuild_tensor_v2 and torch.FloatStorage or the like"

static void nothing_but_tensors_is_made(void **state)
{
    (void)state;
    refuse_pickle(PICKLE("\x80\2cos\nsystem\nX\2\0\0\0id\x85R."), SB_EUNSUPPORTED,
                  "data.pkl: byte 2: " HOSTILE("os.system"));
    refuse_pickle(PICKLE("\x80\4\x8c\x8"
                         "builtins\x94\x8c\4eval\x94\x93\x94\x8c\0011\x85R."),
                  SB_EUNSUPPORTED, "data.pkl: byte 20: " HOSTILE("builtins.eval"));
    refuse_pickle(PICKLE("\x80\2ctorch._utils\n_rebuild_tensor_v2.__globals__\n."), SB_EUNSUPPORTED,
                  "data.pkl: byte 2: " HOSTILE("torch._utils._rebuild_tensor_v2.__globals__"));
    refuse_pickle(PICKLE("\x80\2ctorch\nQInt8Storage\n."), SB_EUNSUPPORTED,
                  "data.pkl: byte 2: " HOSTILE("torch.QInt8Storage"));
    refuse_pickle(PICKLE("\x80\2cos\n\033[2J\n."), SB_EUNSUPPORTED,
                  "data.pkl: byte 2: " HOSTILE("os.?[2J")); /* nothing reaches the terminal */
    static const char *const other[] = { "i", "o", "\x81", "\x92", "P", "S", "I", "\x97", "0" };
    for (size_t i = 0; i < sizeof other / sizeof *other; i++) {
        unsigned char pickle[] = "\x80\2}?";
        char message[128];
        pickle[3] = (unsigned char)*other[i];
        snprintf(
            message, sizeof message,
            "data.pkl: byte 3: opcode 0x%02x is refused; expected those that torch.save writes for tensors",
            pickle[3]);
        refuse_pickle(pickle, 4, SB_EUNSUPPORTED, message);
    }
}

static void calls_take_what_they_take(void **state)
{
    (void)state;
    static const char made[] =
        "data.pkl: byte 123: a tensor is not made from (storage, offset, size, stride, requires_grad, hooks)";
    refuse_pickle(
        PICKLE("\x80\2X\1\0\0\0a)R."), SB_EFORMAT,
        "data.pkl: byte 9: REDUCE calls text with a tuple; expected a global and a tuple");
    refuse_pickle(PICKLE("\x80\2ctorch\nFloatStorage\nK\1\x85R."), SB_EFORMAT,
                  "data.pkl: byte 25: a storage class is called; expected it in a persistent id");
    refuse_pickle(PICKLE("\x80\2ccollections\nOrderedDict\nK\1\x85R."), SB_EFORMAT,
                  "data.pkl: byte 30: OrderedDict is called with 1 values; expected none");
    refuse_pickle(PICKLE("\x80\2ctorch._utils\n_rebuild_parameter\nN\x85R."), SB_EFORMAT,
                  "data.pkl: byte 37: a parameter is not made from (tensor, requires_grad, hooks)");
    refuse_pickle(PICKLE("\x80\2ctorch._utils\n_rebuild_tensor\nNNN\x87R."), SB_EFORMAT,
                  "data.pkl: byte 36: a tensor is not made from (storage, offset, size, stride)");
    refuse_pickle(PICKLE("\x80\2" TENSOR("N", "K\4\x85", "K\1\x85") "."), SB_EFORMAT, made);
    refuse_pickle(PICKLE("\x80\2" TENSOR("K\0", "N\x85", "K\1\x85") "."), SB_EFORMAT, made);
    refuse_pickle(
        PICKLE("\x80\2X\7\0\0\0storageQ."), SB_EFORMAT,
        "data.pkl: byte 14: a persistent id is not ('storage', type, key, device, count)");
    refuse_pickle(
        PICKLE("\x80\2(X\6\0\0\0modulectorch\nFloatStorage\nX\1\0\0\0"
               "0X\3\0\0\0cpuK\4tQ."),
        SB_EFORMAT,
        "data.pkl: byte 51: a persistent id is not ('storage', type, key, device, count)");
    refuse_pickle(PICKLE(IN_DICT(FOUR "Nb")), SB_EFORMAT,
                  "data.pkl: byte 133: BUILD gives None to a tensor; expected dictionaries");
}

#define ID(text, message_at)                                                \
    refuse_pickle(PICKLE("\x80\2(X\7\0\0\0storage" text "tQ."), SB_EFORMAT, \
                  "data.pkl: byte " message_at                              \
                  ": a persistent id is not ('storage', type, key, device, count)")

static void ids_and_numbers_are_checked(void **state)
{
    (void)state;
    ID("ctorch\nFloatStorage\nX\1\0\0\0"
       "0X\3\0\0\0cpuJ\377\377\377\377",
       "55");
    ID("ccollections\nOrderedDict\nX\1\0\0\0"
       "0X\3\0\0\0cpuK\4",
       "57");
    refuse_pickle(PICKLE(IN_DICT(TENSOR("\x8a\1\xfe", "K\4\x85", "K\1\x85"))), SB_EFORMAT,
                  "tensor 'a': 16 bytes from value -2 pass the end of its storage of 4 values");
    refuse_pickle(PICKLE("\x80\2}r\5\0\0\0."), SB_EFORMAT,
                  "data.pkl: byte 3: memo entry 5; expected at most 0");
    struct bytes b = { 0 };
    static const char begin[] =
        "\x80\2ctorch._utils\n_rebuild_tensor\n(" STORAGE_OF("Float", "0", "\4") "K\0(";
    add(&b, begin, sizeof begin - 1);
    for (int i = 0; i < 65; i++)
        add(&b, "K\1", 2);
    add(&b, "t)tR.", 5);
    refuse_pickle(b.data, b.n, SB_EFORMAT,
                  "data.pkl: byte 220: a tensor is not made from (storage, offset, size, stride)");
    free(b.data);
}

static void the_stack_is_checked(void **state)
{
    (void)state;
    refuse_pickle(PICKLE("\x80\2R."), SB_EFORMAT,
                  "data.pkl: byte 2: REDUCE needs 2 values on the stack, which has 0");
    refuse_pickle(PICKLE("\x80\2N(N\x86."), SB_EFORMAT,
                  "data.pkl: byte 5: TUPLE1 to 3 needs 2 values on the stack, which has 1");
    refuse_pickle(PICKLE("\x80\2(q\0."), SB_EFORMAT,
                  "data.pkl: byte 3: a memo entry needs 1 values on the stack, which has 0");
    refuse_pickle(PICKLE("\x80\2NQ."), SB_EFORMAT,
                  "data.pkl: byte 3: a persistent id is not ('storage', type, key, device, count)");
    refuse_pickle(PICKLE("\x80\2NNt."), SB_EFORMAT,
                  "data.pkl: byte 4: TUPLE without a mark on the stack");
    refuse_pickle(PICKLE("\x80\2(u."), SB_EFORMAT,
                  "data.pkl: byte 3: SETITEMS without a container on the stack");
    refuse_pickle(PICKLE("\x80\2]NNs."), SB_EFORMAT,
                  "data.pkl: byte 5: SETITEM into a list; expected a dictionary");
    refuse_pickle(PICKLE("\x80\2})a."), SB_EFORMAT,
                  "data.pkl: byte 4: APPEND into a dictionary; expected a list");
    refuse_pickle(PICKLE("\x80\2}(Nu."), SB_EFORMAT,
                  "data.pkl: byte 5: SETITEMS with a key that has no value");
    refuse_pickle(PICKLE("\x80\4NN\x93."), SB_EFORMAT,
                  "data.pkl: byte 4: a global's name is None and None; expected two texts");
    refuse_pickle(PICKLE("\x80\2NN."), SB_EFORMAT,
                  "data.pkl: byte 4: the pickle ends with 2 values; expected 1");
    refuse_pickle(PICKLE("\x80\2}.}."), SB_EFORMAT,
                  "data.pkl: byte 3: 2 bytes follow the end of the pickle");
}

static void counts_are_checked_before_use(void **state)
{
    (void)state;
    refuse_pickle(PICKLE(""), SB_EFORMAT,
                  "data.pkl: does not begin as a pickle of protocol 2 to 5");
    refuse_pickle(PICKLE("(dp0\n."), SB_EFORMAT,
                  "data.pkl: does not begin as a pickle of protocol 2 to 5");
    refuse_pickle(PICKLE("\x80\1}."), SB_EUNSUPPORTED,
                  "data.pkl: byte 0: pickle protocol 1; expected 2 to 5, said once at byte 0");
    refuse_pickle(PICKLE("\x80\2\x80\2}."), SB_EUNSUPPORTED,
                  "data.pkl: byte 2: pickle protocol 2; expected 2 to 5, said once at byte 0");
    refuse_pickle(PICKLE("\x80\2}"), SB_EFORMAT,
                  "data.pkl: byte 3: the pickle breaks off; 0 bytes are left of 1");
    refuse_pickle(PICKLE("\x80\2X\xff\xff\xff\xff"
                         "abc."),
                  SB_EFORMAT,
                  "data.pkl: byte 2: the pickle breaks off; 4 bytes are left of 4294967295");
    refuse_pickle(PICKLE("\x80\2cos"), SB_EFORMAT,
                  "data.pkl: byte 2: the pickle breaks off in the name of a global");
    refuse_pickle(PICKLE("\x80\4\x95\xff\xff\xff\xff\xff\xff\xff\xff}."), SB_EFORMAT,
                  "data.pkl: byte 2: a frame of 18446744073709551615 bytes; 2 are left");
    refuse_pickle(PICKLE("\x80\2\x8a\xff"
                         "123456789."),
                  SB_EFORMAT, "data.pkl: byte 2: a number of 255 bytes; expected at most 8");
    refuse_pickle(PICKLE("\x80\2}r\xff\xff\xff\x7f."), SB_EFORMAT,
                  "data.pkl: byte 3: memo entry 2147483647; expected at most 0");
    refuse_pickle(PICKLE("\x80\2j\xff\xff\xff\xff."), SB_EFORMAT,
                  "data.pkl: byte 2: memo entry 4294967295 is asked for; there are 0");
}

/* "\x80\2", `n` times `unit`. */
static void refuse_repeated(const char *unit, size_t unit_n, size_t n, const char *message)
{
    struct bytes b = { 0 };
    add(&b, "\x80\2", 2);
    for (size_t i = 0; i < n; i++)
        add(&b, unit, unit_n);
    refuse_pickle(b.data, b.n, SB_EFORMAT, message);
    free(b.data);
}

static void floods_are_refused(void **state)
{
    (void)state;
    refuse_repeated("(", 1, 70000, "data.pkl: byte 65538: the stack is deeper than 65536");
    struct bytes b = { 0 }; /* one list that takes 1,000 values after another */
    add(&b, "\x80\2]", 3);
    for (size_t i = 0; i < 4195; i++) {
        add(&b, "(", 1);
        for (size_t k = 0; k < 1000; k++)
            add(&b, "N", 1);
        add(&b, "e", 1);
    }
    refuse_pickle(b.data, b.n, SB_EFORMAT,
                  "data.pkl: byte 4202694: the pickle has more than 4194304 values");
    free(b.data);
    b = (struct bytes){ 0 };
    add(&b, "\x80\2]Nq\0a", 7);
    for (size_t i = 0; i < 4200; i++) {
        add(&b, "(", 1);
        for (size_t k = 0; k < 1000; k++)
            add(&b, "h\0", 2);
        add(&b, "e", 1);
    }
    refuse_pickle(b.data, b.n, SB_EFORMAT,
                  "data.pkl: byte 8398396: the pickle's containers have more than 4194304 items");
    free(b.data);
}

/* Four bytes of pickle put one tensor more under a long name. */
static void a_flood_of_names_is_refused(void **state)
{
    (void)state;
    struct bytes b = { 0 };
    char name[1024] = { 0 }, message[128];
    size_t each = sizeof(struct sb_stored_tensor) + sizeof name, limit = (size_t)1 << 27;
    memset(name, 'n', sizeof name - 1);
    add(&b, "\x80\2}(X\377\3\0\0", 9);
    add(&b, name, sizeof name - 1);
    add(&b, "q\0" FOUR "q\1", sizeof("q\0" FOUR "q\1") - 1);
    for (size_t i = 1; i < 1000; i++)
        add(&b, "h\0h\1", 4);
    add(&b, "u", 1);
    for (size_t i = 1; i <= limit / each / 1000; i++) {
        add(&b, "(", 1);
        for (size_t k = 0; k < 1000; k++)
            add(&b, "h\0h\1", 4);
        add(&b, "u", 1);
    }
    add(&b, ".", 1);
    snprintf(message, sizeof message, "its %zu tensors and their names take more than %zu bytes",
             limit / each + 1, limit);
    refuse_pickle(b.data, b.n, SB_EFORMAT, message);
    free(b.data);
}

/* ---- tensors and dictionaries that are wrong ------------------------------------------------------- */

static void tensors_lie_in_their_storage(void **state)
{
    (void)state;
    refuse_pickle(PICKLE(IN_DICT(TENSOR("K\1", "K\4\x85", "K\1\x85"))), SB_EFORMAT,
                  "tensor 'a': 16 bytes from value 1 pass the end of its storage of 4 values");
    refuse_pickle(PICKLE(IN_DICT(TENSOR("J\377\377\377\377", "K\4\x85", "K\1\x85"))), SB_EFORMAT,
                  "tensor 'a': 16 bytes from value -1 pass the end of its storage of 4 values");
    refuse_pickle(
        PICKLE(IN_DICT(TENSOR("\x8a\x8\1\0\0\0\0\0\0\x40", "K\3\x85", "K\1\x85"))), SB_EFORMAT,
        "tensor 'a': 12 bytes from value 4611686018427387905 pass the end of its storage of 4 values");
    refuse_pickle(PICKLE(IN_DICT(TENSOR("K\0", "K\5\x85", "K\1\x85"))), SB_EFORMAT,
                  "tensor 'a': 20 bytes from value 0 pass the end of its storage of 4 values");
    refuse_pickle(
        PICKLE(IN_DICT(TENSOR_OF(STORAGE_OF("Float", "0", "\5"), "K\0", "K\4\x85", "K\1\x85"))),
        SB_EFORMAT, "tensor 'a': its entry data/0 has 16 bytes; expected 5 values of 4");
    refuse_pickle(
        PICKLE(IN_DICT(TENSOR_OF(STORAGE_OF("Float", "7", "\4"), "K\0", "K\4\x85", "K\1\x85"))),
        SB_EFORMAT, "tensor 'a': its entry data/7 is missing");
    refuse_pickle(
        PICKLE(IN_DICT(TENSOR_OF(STORAGE_OF("Float", "\0", "\4"), "K\0", "K\4\x85", "K\1\x85"))),
        SB_EFORMAT, "tensor 'a': a storage's key is 1 bytes");
    struct archive a = sound();
    struct bytes off = { 0 };
    struct sb_torch_file f;
    struct sb_error err;
    add(&off, "x", 1);
    add(&off, a.b.data, a.b.n);
    assert_int_equal(sb_torch_parse(&f, off.data + 1, a.b.n, "x.pt", &err), SB_EFORMAT);
    assert_string_equal(err.message, "x.pt: tensor 'a' is not aligned");
    free(off.data);
    free(a.b.data);
}

static void shapes_are_checked(void **state)
{
    (void)state;
    refuse_pickle(PICKLE(IN_DICT(TENSOR("K\0", "K\0\x85", "K\1\x85"))), SB_EFORMAT,
                  "tensor 'a': size 0 of its shape is 0; expected 1 to 2^31");
    refuse_pickle(PICKLE(IN_DICT(TENSOR("K\0", "K\1J\377\377\377\377\x86", "K\1K\1\x86"))),
                  SB_EFORMAT, "tensor 'a': size 1 of its shape is -1; expected 1 to 2^31");
    refuse_pickle(PICKLE(IN_DICT(TENSOR("K\0", "\x8a\x5\0\0\0\0\1\x85", "K\1\x85"))), SB_EFORMAT,
                  "tensor 'a': size 0 of its shape is 4294967296; expected 1 to 2^31");
    refuse_pickle(
        PICKLE(IN_DICT(TENSOR("K\0", "K\2K\2\x86", "K\1K\2\x86"))), SB_EUNSUPPORTED,
        "tensor 'a': stride 1 is 2; expected 1, for tensors are read that are contiguous (save "
        "t.contiguous())");
    refuse_pickle(
        PICKLE(IN_DICT(TENSOR("K\0", "K\4\x85", "K\0\x85"))), SB_EUNSUPPORTED,
        "tensor 'a': stride 0 is 0; expected 1, for tensors are read that are contiguous (save "
        "t.contiguous())");
    refuse_pickle(PICKLE(IN_DICT(TENSOR("K\0", "K\4\x85", "K\1K\1\x86"))), SB_EFORMAT,
                  "tensor 'a' has 1 sizes and 2 strides; expected as many of both, at most 4");
    refuse_pickle(PICKLE(IN_DICT(TENSOR("K\0", "(K\1K\1K\1K\1K\1t", "(K\1K\1K\1K\1K\1t"))),
                  SB_EFORMAT,
                  "tensor 'a' has 5 sizes and 5 strides; expected as many of both, at most 4");
    /* 2^30 * 2^30 * 2^30: the third product passes 64 bits. Strides 2^60, 2^30, 1. */
    refuse_pickle(PICKLE(IN_DICT(TENSOR("K\0", "J\0\0\0\x40J\0\0\0\x40J\0\0\0\x40\x87",
                                        "\x8a\x8\0\0\0\0\0\0\0\x10J\0\0\0\x40K\1\x87"))),
                  SB_EFORMAT, "tensor 'a' is larger than any file");
    /* 2^30 * 2^30 * 4 values of 4 bytes */
    refuse_pickle(PICKLE(IN_DICT(TENSOR("K\0", "K\4J\0\0\0\x40J\0\0\0\x40\x87",
                                        "\x8a\x8\0\0\0\0\0\0\0\x10J\0\0\0\x40K\1\x87"))),
                  SB_EFORMAT, "tensor 'a' is larger than any file");
}

static void dictionaries_are_checked(void **state)
{
    (void)state;
    refuse_pickle(PICKLE("\x80\2]q\0h\0a."), SB_EFORMAT,
                  "holds a list; expected a dictionary of tensors");
    refuse_pickle(PICKLE("\x80\2}" NAMED("a", "N") "s."), SB_EINPUT,
                  "holds no tensors; 1 other values");
    refuse_pickle(PICKLE("\x80\2}q\0" NAMED("a", "h\0") "s."), SB_EFORMAT,
                  "the dictionary at 'a' stands in two places");
    refuse_pickle(PICKLE("\x80\2}(" NAMED("a", FOUR) NAMED("a", FOUR) "u."), SB_EFORMAT,
                  "tensor 'a' stands twice");
    refuse_pickle(PICKLE("\x80\2}(" NAMED("a", "}" NAMED("b", FOUR) "s") "X\3\0\0\0a.b" FOUR "u."),
                  SB_EFORMAT, "tensor 'a.b' stands twice");
    refuse_pickle(PICKLE(IN_DICT("}N" FOUR "s")), SB_EFORMAT,
                  "a key in 'a' is None; expected text or a number");
    refuse_pickle(PICKLE("\x80\2}" NAMED("\xff", FOUR) "s."), SB_EFORMAT,
                  "a key in '' is no UTF-8");
    refuse_pickle(PICKLE("\x80\2}" NAMED("\0", FOUR) "s."), SB_EFORMAT, "a key in '' is no UTF-8");
    struct bytes b = { 0 };
    add(&b, "\x80\2", 2);
    for (int i = 0; i < 17; i++)
        add(&b, "}X\1\0\0\0a", 7);
    add(&b, "N", 1);
    for (int i = 0; i < 17; i++)
        add(&b, "s", 1);
    add(&b, ".", 1);
    refuse_pickle(b.data, b.n, SB_EFORMAT,
                  "dictionaries are nested deeper than 16 at 'a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a'");
    b.n = 0;
    add(&b, "\x80\2}X\1\4\0\0", 8);
    for (int i = 0; i < 1025; i++)
        add(&b, "n", 1);
    add(&b, FOUR "s.", sizeof(FOUR "s.") - 1);
    refuse_pickle(b.data, b.n, SB_EFORMAT,
                  "a tensor's name is 1025 bytes after ''; expected at most 1024 in all");
    free(b.data);
}

/* ---- around the reader ----------------------------------------------------------------------------- */

static void a_file_of_tensors_is_no_model(void **state)
{
    (void)state;
    struct sb_weights *w;
    struct sb_error err = { 0 };
    char *path = golden("medusa.pt"), *json = NULL;
    assert_int_equal(sb_weights_open(&w, path, &err), SB_EINPUT);
    assert_non_null(strstr(err.message, "is a PyTorch file of tensors; a model is a GGUF file or"));
    assert_int_equal(sb_model_file_describe(&json, path, &err), SB_OK);
    assert_non_null(strstr(json, "\"format\":\"torch\""));
    assert_non_null(
        strstr(json, "{\"name\":\"1.1.weight\",\"type\":\"f16\",\"shape\":[8,4],\"bytes\":64}"));
    sb_free(json);
    sb_free(path);
}

static void running_out_of_memory_is_an_error(void **state)
{
    (void)state;
    char *path = golden("checkpoint.pt");
    enum sb_status rc = SB_ENOMEM;
    for (size_t n = 0; rc != SB_OK; n++) {
        struct sb_torch_file f;
        sb_alloc_fail_after(n);
        rc = sb_torch_open(&f, path, NULL);
        sb_alloc_fail_after(SIZE_MAX);
        assert_true(rc == SB_OK || rc == SB_ENOMEM);
        if (rc == SB_OK)
            sb_torch_close(&f);
    }
    sb_free(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(heads_are_read_as_saved),
        cmocka_unit_test(a_checkpoint_is_named_by_its_keys),
        cmocka_unit_test(every_form_of_a_sound_file_is_read),
        cmocka_unit_test(types_of_the_kernels_are_told),
        cmocka_unit_test(a_cut_file_is_refused),
        cmocka_unit_test(other_kinds_of_file_are_named),
        cmocka_unit_test(ends_of_archives_are_checked),
        cmocka_unit_test(entries_of_archives_are_checked),
        cmocka_unit_test(entries_that_overlap_are_refused),
        cmocka_unit_test(edges_of_archives_are_checked),
        cmocka_unit_test(nothing_but_tensors_is_made),
        cmocka_unit_test(calls_take_what_they_take),
        cmocka_unit_test(ids_and_numbers_are_checked),
        cmocka_unit_test(the_stack_is_checked),
        cmocka_unit_test(counts_are_checked_before_use),
        cmocka_unit_test(floods_are_refused),
        cmocka_unit_test(a_flood_of_names_is_refused),
        cmocka_unit_test(tensors_lie_in_their_storage),
        cmocka_unit_test(shapes_are_checked),
        cmocka_unit_test(dictionaries_are_checked),
        cmocka_unit_test(a_file_of_tensors_is_no_model),
        cmocka_unit_test(running_out_of_memory_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
