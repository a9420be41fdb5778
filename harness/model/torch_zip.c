#include "harness/model/torch_zip.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "harness/core/alloc.h"

/* APPNOTE.TXT 4.3: an entry is a local header, its name, an extra field, its bytes; the central
 * directory repeats the headers at the end; the end record says where that directory is. */
enum {
    LOCAL_SIZE = 30,
    CENTRAL_SIZE = 46,
    END_SIZE = 22,
    LOCATOR64_SIZE = 20,
    END64_SIZE = 56,
    LOCAL_MAGIC = 0x04034b50,
    CENTRAL_MAGIC = 0x02014b50,
    END_MAGIC = 0x06054b50,
    LOCATOR64_MAGIC = 0x07064b50,
    END64_MAGIC = 0x06064b50,
    EXTRA_ZIP64 = 1,
    FLAG_ENCRYPTED = 1 | 1 << 6 | 1 << 13,
    FLAG_SIZES_FOLLOW = 1 << 3, /* the local header has zeros; torch's writer sets it */
    MAX_NAME = 1024,
};

struct zip_reader {
    const uint8_t *bytes;
    size_t size;
    const char *path;
    struct sb_error *err;
};

struct directory {
    uint64_t at, size, n;
};

static uint16_t u16(const uint8_t *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

static uint32_t u32(const uint8_t *p)
{
    return (uint32_t)u16(p) | (uint32_t)u16(p + 2) << 16;
}

static uint64_t u64(const uint8_t *p)
{
    return (uint64_t)u32(p) | (uint64_t)u32(p + 4) << 32;
}

/* The end record is followed by nothing but its comment, so it is looked for from the back. */
static enum sb_status find_end(const struct zip_reader *r, size_t *end)
{
    for (size_t comment = 0; comment <= UINT16_MAX && comment + END_SIZE <= r->size; comment++) {
        size_t at = r->size - END_SIZE - comment;
        if (u32(r->bytes + at) == END_MAGIC && u16(r->bytes + at + 20) == comment) {
            *end = at;
            return SB_OK;
        }
    }
    return sb_fail(r->err, SB_EFORMAT,
                   "%s: ends in no zip directory; the file is cut or no archive", r->path);
}

/* The 64-bit end record; it stands before its locator, which stands before the end record. */
static enum sb_status read_end64(const struct zip_reader *r, size_t locator, struct directory *d,
                                 size_t *limit)
{
    uint64_t at = u64(r->bytes + locator + 8);
    if (locator < END64_SIZE || at > locator - END64_SIZE || u32(r->bytes + at) != END64_MAGIC)
        return sb_fail(r->err, SB_EFORMAT,
                       "%s: its zip64 locator points to byte %llu, where no zip64 directory ends",
                       r->path, (unsigned long long)at);
    const uint8_t *p = r->bytes + at;
    if (u32(p + 16) != 0 || u32(p + 20) != 0 || u64(p + 24) != u64(p + 32))
        return sb_fail(r->err, SB_EUNSUPPORTED, "%s: is one part of an archive of several files",
                       r->path);
    *d = (struct directory){ .at = u64(p + 48), .size = u64(p + 40), .n = u64(p + 32) };
    *limit = (size_t)at;
    return SB_OK;
}

static enum sb_status find_directory(const struct zip_reader *r, struct directory *d)
{
    size_t limit;
    enum sb_status rc = find_end(r, &limit);
    if (rc != SB_OK)
        return rc;
    const uint8_t *p = r->bytes + limit;
    *d = (struct directory){ .at = u32(p + 16), .size = u32(p + 12), .n = u16(p + 10) };
    if (limit >= LOCATOR64_SIZE && u32(p - LOCATOR64_SIZE) == LOCATOR64_MAGIC)
        rc = read_end64(r, limit - LOCATOR64_SIZE, d, &limit);
    else if (u16(p + 4) != 0 || u16(p + 6) != 0 || u16(p + 8) != u16(p + 10))
        rc = sb_fail(r->err, SB_EUNSUPPORTED, "%s: is one part of an archive of several files",
                     r->path);
    if (rc != SB_OK)
        return rc;
    if (d->at > limit || d->size > limit - d->at)
        return sb_fail(r->err, SB_EFORMAT,
                       "%s: its zip directory of %llu bytes at %llu does not lie before its end at "
                       "%zu",
                       r->path, (unsigned long long)d->size, (unsigned long long)d->at, limit);
    if (d->n > d->size / CENTRAL_SIZE)
        return sb_fail(r->err, SB_EFORMAT,
                       "%s: its zip directory of %llu bytes cannot hold %llu entries", r->path,
                       (unsigned long long)d->size, (unsigned long long)d->n);
    return SB_OK;
}

/* The 64-bit sizes and offset that stand in for fields of 0xffffffff. */
struct sizes {
    uint64_t unpacked, packed, at;
};

static bool read_extra64(struct sizes *s, const uint8_t *extra, size_t n)
{
    uint64_t *const field[] = { &s->unpacked, &s->packed, &s->at };
    size_t need = 0, used = 0;
    for (size_t i = 0; i < 3; i++)
        need += *field[i] == UINT32_MAX ? 8 : 0;
    while (need > 0 && n >= 4) {
        size_t length = u16(extra + 2);
        if (length > n - 4)
            return false;
        if (u16(extra) == EXTRA_ZIP64) {
            if (length < need)
                return false;
            for (size_t i = 0; i < 3; i++)
                if (*field[i] == UINT32_MAX) {
                    *field[i] = u64(extra + 4 + used);
                    used += 8;
                }
            return true;
        }
        extra += 4 + length;
        n -= 4 + length;
    }
    return need == 0;
}

static enum sb_status check_kind(const struct zip_reader *r, const struct sb_zip_entry *e,
                                 unsigned flags, unsigned method)
{
    if (flags & FLAG_ENCRYPTED)
        return sb_fail(r->err, SB_EUNSUPPORTED, "%s: entry '%.*s' is encrypted", r->path,
                       (int)e->name_n, e->name);
    if (method != 0)
        return sb_fail(
            r->err, SB_EUNSUPPORTED,
            "%s: entry '%.*s' is compressed (method %u); expected entries stored as they "
            "are, as torch.save writes them",
            r->path, (int)e->name_n, e->name, method);
    return SB_OK;
}

/* The entry's own header must say what the directory says. */
static enum sb_status place_entry(const struct zip_reader *r, struct sb_zip_entry *e,
                                  const struct sizes *s, uint64_t directory)
{
    if (directory < LOCAL_SIZE || s->at > directory - LOCAL_SIZE ||
        u32(r->bytes + s->at) != LOCAL_MAGIC)
        return sb_fail(r->err, SB_EFORMAT, "%s: entry '%.*s' does not begin at byte %llu", r->path,
                       (int)e->name_n, e->name, (unsigned long long)s->at);
    const uint8_t *p = r->bytes + s->at;
    size_t name_n = u16(p + 26), extra_n = u16(p + 28);
    uint64_t room = directory - s->at - LOCAL_SIZE;
    if (name_n != e->name_n || name_n + extra_n > room ||
        memcmp(p + LOCAL_SIZE, e->name, name_n) != 0)
        return sb_fail(r->err, SB_EFORMAT,
                       "%s: entry '%.*s' has another name in its own header at byte %llu", r->path,
                       (int)e->name_n, e->name, (unsigned long long)s->at);
    enum sb_status rc = check_kind(r, e, u16(p + 6), u16(p + 8));
    if (rc != SB_OK)
        return rc;
    struct sizes own = { u32(p + 22), u32(p + 18), 0 };
    bool later = u16(p + 6) & FLAG_SIZES_FOLLOW && own.unpacked == 0 && own.packed == 0;
    if (!later && (!read_extra64(&own, p + LOCAL_SIZE + name_n, extra_n) ||
                   own.unpacked != s->unpacked || own.packed != s->packed))
        return sb_fail(r->err, SB_EFORMAT,
                       "%s: entry '%.*s' has another size in its own header at byte %llu", r->path,
                       (int)e->name_n, e->name, (unsigned long long)s->at);
    if (s->unpacked > room - name_n - extra_n)
        return sb_fail(r->err, SB_EFORMAT,
                       "%s: entry '%.*s' of %llu bytes at %llu runs into the directory at %llu",
                       r->path, (int)e->name_n, e->name, (unsigned long long)s->unpacked,
                       (unsigned long long)s->at, (unsigned long long)directory);
    e->header = p;
    e->data = p + LOCAL_SIZE + name_n + extra_n;
    e->size = (size_t)s->unpacked;
    return SB_OK;
}

/* Entry at `p`, with `room` bytes of the directory left; *used is what it takes of them. */
static enum sb_status read_entry(const struct zip_reader *r, struct sb_zip_entry *e,
                                 const uint8_t *p, uint64_t room, uint64_t directory, size_t *used)
{
    if (room < CENTRAL_SIZE || u32(p) != CENTRAL_MAGIC)
        return sb_fail(r->err, SB_EFORMAT, "%s: its zip directory breaks off at byte %zu", r->path,
                       (size_t)(p - r->bytes));
    size_t name_n = u16(p + 28), extra_n = u16(p + 30), comment_n = u16(p + 32);
    if (name_n + extra_n + comment_n > room - CENTRAL_SIZE)
        return sb_fail(r->err, SB_EFORMAT, "%s: its zip directory breaks off at byte %zu", r->path,
                       (size_t)(p - r->bytes));
    if (name_n == 0 || name_n > MAX_NAME || memchr(p + CENTRAL_SIZE, '\0', name_n))
        return sb_fail(r->err, SB_EFORMAT,
                       "%s: the entry at byte %zu of its zip directory has a name of %zu bytes; "
                       "expected 1 to %d, none of them 0",
                       r->path, (size_t)(p - r->bytes), name_n, MAX_NAME);
    e->name = (const char *)p + CENTRAL_SIZE;
    e->name_n = name_n;
    enum sb_status rc = check_kind(r, e, u16(p + 8), u16(p + 10));
    if (rc != SB_OK)
        return rc;
    struct sizes s = { u32(p + 24), u32(p + 20), u32(p + 42) };
    if (!read_extra64(&s, p + CENTRAL_SIZE + name_n, extra_n))
        return sb_fail(r->err, SB_EFORMAT, "%s: entry '%.*s' lacks its zip64 sizes", r->path,
                       (int)name_n, e->name);
    if (s.unpacked != s.packed)
        return sb_fail(
            r->err, SB_EFORMAT, "%s: entry '%.*s' is stored, yet its %llu bytes take %llu", r->path,
            (int)name_n, e->name, (unsigned long long)s.unpacked, (unsigned long long)s.packed);
    *used = CENTRAL_SIZE + name_n + extra_n + comment_n;
    return place_entry(r, e, &s, directory);
}

static int by_place(const void *a, const void *b)
{
    const struct sb_zip_entry *x = a, *y = b;
    return (x->header > y->header) - (x->header < y->header);
}

static int by_name(const void *a, const void *b)
{
    const struct sb_zip_entry *x = a, *y = b;
    int order = memcmp(x->name, y->name, x->name_n < y->name_n ? x->name_n : y->name_n);
    return order ? order : (x->name_n > y->name_n) - (x->name_n < y->name_n);
}

/* An entry ends before the next one's header. */
static enum sb_status check_apart(const struct zip_reader *r, struct sb_zip *z)
{
    if (z->n == 0)
        return SB_OK;
    qsort(z->entry, z->n, sizeof *z->entry, by_place);
    for (size_t i = 1; i < z->n; i++) {
        const struct sb_zip_entry *a = &z->entry[i - 1], *b = &z->entry[i];
        if (b->header < a->data || (size_t)(b->header - a->data) < a->size)
            return sb_fail(r->err, SB_EFORMAT, "%s: entries '%.*s' and '%.*s' overlap", r->path,
                           (int)a->name_n, a->name, (int)b->name_n, b->name);
    }
    qsort(z->entry, z->n, sizeof *z->entry, by_name);
    for (size_t i = 1; i < z->n; i++)
        if (by_name(&z->entry[i - 1], &z->entry[i]) == 0)
            return sb_fail(r->err, SB_EFORMAT, "%s: entry '%.*s' stands twice in its zip directory",
                           r->path, (int)z->entry[i].name_n, z->entry[i].name);
    return SB_OK;
}

enum sb_status sb_zip_parse(struct sb_zip *out, const uint8_t *bytes, size_t size, const char *path,
                            struct sb_error *err)
{
    const struct zip_reader r = { bytes, size, path, err };
    struct sb_zip z = { 0 };
    struct directory d;
    enum sb_status rc = find_directory(&r, &d);
    if (rc != SB_OK)
        return rc;
    z.entry = sb_alloc_zero((size_t)d.n, sizeof *z.entry);
    if (!z.entry)
        return sb_fail(err, SB_ENOMEM, "%s: out of memory for its zip directory", path);
    const uint8_t *p = bytes + d.at;
    uint64_t room = d.size;
    for (; z.n < d.n && rc == SB_OK; z.n++) {
        size_t used = 0;
        rc = read_entry(&r, &z.entry[z.n], p, room, d.at, &used);
        p += used;
        room -= used;
    }
    if (rc == SB_OK && room != 0)
        rc = sb_fail(err, SB_EFORMAT, "%s: its zip directory has %llu bytes more than its entries",
                     path, (unsigned long long)room);
    if (rc == SB_OK)
        rc = check_apart(&r, &z);
    if (rc == SB_OK)
        *out = z;
    else
        sb_zip_close(&z);
    return rc;
}

void sb_zip_close(struct sb_zip *zip)
{
    if (!zip)
        return;
    sb_free(zip->entry);
    *zip = (struct sb_zip){ 0 };
}

const struct sb_zip_entry *sb_zip_find(const struct sb_zip *zip, const char *name, size_t name_n)
{
    const struct sb_zip_entry probe = { .name = name, .name_n = name_n };
    return zip->n ? bsearch(&probe, zip->entry, zip->n, sizeof probe, by_name) : NULL;
}
