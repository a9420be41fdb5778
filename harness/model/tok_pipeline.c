/* Normalizers and pre-tokenizers, as steps over text that is cut into pieces. */
#include <stdlib.h>
#include <string.h>

#include <utf8proc.h>

#include "harness/core/alloc.h"
#include "harness/model/tok_internal.h"

static const char metaspace[] = "\xE2\x96\x81"; /* U+2581, SentencePiece's space */

size_t sb_utf8_length(const char *text, size_t n)
{
    utf8proc_int32_t code;
    utf8proc_ssize_t length =
        utf8proc_iterate((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)n, &code);
    return length > 0 ? (size_t)length : 0;
}

unsigned sb_utf8_code(const char *text, size_t length)
{
    utf8proc_int32_t code;
    utf8proc_iterate((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)length, &code);
    return (unsigned)code;
}

bool sb_utf8_is_valid(const char *text, size_t n)
{
    size_t i = 0, length;
    while (i < n && (length = sb_utf8_length(text + i, n - i)) > 0)
        i += length;
    return i == n;
}

/* ---- pieces -------------------------------------------------------------------------------------- */

void sb_pieces_reset(struct sb_pieces *p)
{
    p->n_text = p->n = 0;
}

void sb_pieces_finish(struct sb_pieces *p)
{
    sb_free(p->text);
    sb_free(p->end);
    *p = (struct sb_pieces){ 0 };
}

void sb_pieces_put(struct sb_pieces *p, const char *text, size_t n)
{
    if (n > 0 && sb_grow((void **)&p->text, &p->cap_text, p->n_text + n, 1) != 0) {
        p->out_of_memory = true;
        return;
    }
    if (n > 0)
        memcpy(p->text + p->n_text, text, n);
    p->n_text += n;
}

void sb_pieces_cut(struct sb_pieces *p)
{
    size_t from = p->n ? p->end[p->n - 1] : 0;
    if (p->n_text == from)
        return;
    if (sb_grow((void **)&p->end, &p->cap, p->n + 1, sizeof *p->end) != 0) {
        p->out_of_memory = true;
        return;
    }
    p->end[p->n++] = p->n_text;
}

/* ---- normalizers ------------------------------------------------------------------------------------ */

static void normalize_unicode(struct sb_pieces *out, const char *text, size_t n,
                              utf8proc_option_t options)
{
    utf8proc_uint8_t *mapped = NULL;
    utf8proc_ssize_t length = utf8proc_map((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)n,
                                           &mapped, options | UTF8PROC_STABLE);
    if (length < 0)
        out->out_of_memory = out->out_of_memory || length == UTF8PROC_ERROR_NOMEM;
    else
        sb_pieces_put(out, (const char *)mapped, (size_t)length);
    free(mapped);
}

static void lowercase(struct sb_pieces *out, const char *text, size_t n)
{
    for (size_t i = 0, length; i < n; i += length) {
        utf8proc_uint8_t lower[4];
        length = sb_utf8_length(text + i, n - i);
        if (length == 0) {
            length = 1;
            sb_pieces_put(out, text + i, 1);
            continue;
        }
        utf8proc_int32_t code = utf8proc_tolower((utf8proc_int32_t)sb_utf8_code(text + i, length));
        if (length == 2 && memcmp(text + i, "\xC4\xB0", 2) == 0) { /* the one that becomes two */
            sb_pieces_put(out, "i\xCC\x87", 3);
            continue;
        }
        sb_pieces_put(out, (const char *)lower, (size_t)utf8proc_encode_char(code, lower));
    }
}

static bool find_text(const struct sb_step *step, const char *text, size_t n, size_t from,
                      size_t *start, size_t *end)
{
    size_t length = step->from ? strlen(step->from) : 0;
    if (step->regex)
        return sb_regex_next(step->regex, text, n, from, start, end);
    for (size_t i = from; length > 0 && i + length <= n; i++) {
        if (memcmp(text + i, step->from, length) == 0) {
            *start = i;
            *end = i + length;
            return true;
        }
    }
    return false;
}

static void replace(const struct sb_step *step, struct sb_pieces *out, const char *text, size_t n)
{
    size_t at = 0, start, end;
    while (at < n && find_text(step, text, n, at, &start, &end)) {
        sb_pieces_put(out, text + at, start - at);
        sb_pieces_put(out, step->text, strlen(step->text));
        at = end;
    }
    sb_pieces_put(out, text + at, n - at);
}

bool sb_is_space(unsigned code)
{
    return (code >= 9 && code <= 13) || code == 32 || code == 0x85 || code == 0xA0 ||
           code == 0x1680 || (code >= 0x2000 && code <= 0x200A) || code == 0x2028 ||
           code == 0x2029 || code == 0x202F || code == 0x205F || code == 0x3000;
}

static void strip(const struct sb_step *step, struct sb_pieces *out, const char *text, size_t n)
{
    size_t from = 0, last = 0; /* last: end of the last character that is no space */
    for (size_t i = 0, length; i < n; i += length) {
        length = sb_utf8_length(text + i, n - i);
        bool space = length > 0 && sb_is_space(sb_utf8_code(text + i, length));
        length = length ? length : 1;
        if (!space)
            last = i + length;
        else if (i == from)
            from = i + length;
    }
    from = step->left ? from : 0;
    last = step->right ? last : n;
    if (last > from)
        sb_pieces_put(out, text + from, last - from);
}

/* ---- splitting ------------------------------------------------------------------------------------------ */

struct segment {
    size_t from, to;
    bool match;
};

struct segments {
    struct segment *item;
    size_t n, cap;
};

static int add_segment(struct segments *s, size_t from, size_t to, bool match)
{
    if (from == to)
        return 0;
    if (sb_grow((void **)&s->item, &s->cap, s->n + 1, sizeof *s->item) != 0)
        return -1;
    s->item[s->n++] = (struct segment){ from, to, match };
    return 0;
}

/* Does segment i begin a piece, given its neighbours? */
static bool begins_piece(const struct segments *s, size_t i, enum sb_split_behavior behavior)
{
    bool match = s->item[i].match, before = i > 0 && s->item[i - 1].match;
    if (i == 0)
        return true;
    switch (behavior) {
    case SB_SPLIT_WITH_PREVIOUS:
        return !match || before;
    case SB_SPLIT_WITH_NEXT:
        return match || !before;
    case SB_SPLIT_CONTIGUOUS:
        return match != before;
    case SB_SPLIT_ISOLATED:
    case SB_SPLIT_REMOVED:
        break;
    }
    return true;
}

static void split(const struct sb_step *step, struct sb_pieces *out, const char *text, size_t n)
{
    struct segments s = { 0 };
    size_t at = 0, start, end;
    int failed = 0;
    while (!failed && at < n && find_text(step, text, n, at, &start, &end)) {
        failed =
            add_segment(&s, at, start, step->invert) | add_segment(&s, start, end, !step->invert);
        at = end;
    }
    failed = failed || add_segment(&s, at, n, step->invert);
    for (size_t i = 0; i < s.n && !failed; i++) {
        if (begins_piece(&s, i, step->behavior))
            sb_pieces_cut(out);
        if (step->behavior != SB_SPLIT_REMOVED || !s.item[i].match)
            sb_pieces_put(out, text + s.item[i].from, s.item[i].to - s.item[i].from);
    }
    sb_pieces_cut(out);
    out->out_of_memory = out->out_of_memory || failed;
    sb_free(s.item);
}

/* GPT-2's spelling: every byte as a printable character. */
static void spell_bytes(const struct sb_step *step, struct sb_pieces *out, const char *text,
                        size_t n)
{
    char code[2];
    if (step->prefix && text[0] != ' ')
        sb_pieces_put(out, code, sb_put_code(code, sb_byte_code(' ')));
    for (size_t i = 0; i < n; i++)
        sb_pieces_put(out, code, sb_put_code(code, sb_byte_code((unsigned char)text[i])));
    sb_pieces_cut(out);
}

static void mark_spaces(const struct sb_step *step, struct sb_pieces *out, const char *text,
                        size_t n, bool first)
{
    const char *mark = step->text ? step->text : metaspace;
    size_t length = strlen(mark);
    bool marked = n >= length && memcmp(text, mark, length) == 0;
    if (step->prefix && (first || !step->first_only) && text[0] != ' ' && !marked)
        sb_pieces_put(out, mark, length);
    for (size_t i = 0; i < n; i++) {
        bool starts = text[i] == ' ' || (n - i >= length && memcmp(text + i, mark, length) == 0);
        if (step->split && starts)
            sb_pieces_cut(out);
        if (text[i] == ' ')
            sb_pieces_put(out, mark, length);
        else
            sb_pieces_put(out, text + i, 1);
    }
    sb_pieces_cut(out);
}

/* ---- one step --------------------------------------------------------------------------------------------- */

static void run_piece(const struct sb_step *step, struct sb_pieces *out, const char *text, size_t n,
                      bool first)
{
    static const utf8proc_option_t forms[] = {
        [SB_STEP_NFC] = UTF8PROC_COMPOSE,
        [SB_STEP_NFD] = UTF8PROC_DECOMPOSE,
        [SB_STEP_NFKC] = UTF8PROC_COMPOSE | UTF8PROC_COMPAT,
        [SB_STEP_NFKD] = UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT,
    };
    switch (step->kind) {
    case SB_STEP_NFC:
    case SB_STEP_NFD:
    case SB_STEP_NFKC:
    case SB_STEP_NFKD:
        normalize_unicode(out, text, n, forms[step->kind]);
        break;
    case SB_STEP_LOWERCASE:
        lowercase(out, text, n);
        break;
    case SB_STEP_PREPEND:
        sb_pieces_put(out, step->text, strlen(step->text));
        sb_pieces_put(out, text, n);
        break;
    case SB_STEP_REPLACE:
        replace(step, out, text, n);
        break;
    case SB_STEP_STRIP:
        strip(step, out, text, n);
        break;
    case SB_STEP_SPLIT:
        split(step, out, text, n);
        return;
    case SB_STEP_BYTES:
        spell_bytes(step, out, text, n);
        return;
    case SB_STEP_METASPACE:
        mark_spaces(step, out, text, n, first);
        return;
    }
    sb_pieces_cut(out);
}

void sb_step_run(const struct sb_step *step, const struct sb_pieces *in, struct sb_pieces *out,
                 bool first)
{
    sb_pieces_reset(out);
    for (size_t i = 0; i < in->n; i++) {
        size_t from = i ? in->end[i - 1] : 0;
        run_piece(step, out, in->text + from, in->end[i] - from, first && i == 0);
    }
    out->out_of_memory = out->out_of_memory || in->out_of_memory;
}

struct sb_pieces *sb_steps_run(const struct sb_step *step, size_t n, struct sb_pieces *a,
                               struct sb_pieces *b, const char *text, size_t length, bool first)
{
    struct sb_pieces *in = a, *out = b, *other;
    sb_pieces_reset(in);
    sb_pieces_put(in, text, length);
    sb_pieces_cut(in);
    for (size_t i = 0; i < n; i++) {
        sb_step_run(&step[i], in, out, first);
        other = in, in = out, out = other;
    }
    return in;
}

void sb_step_finish(struct sb_step *step)
{
    sb_regex_destroy(step->regex);
    sb_free(step->from);
    sb_free(step->text);
    *step = (struct sb_step){ 0 };
}
