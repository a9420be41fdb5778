/* tokenizer.json of Hugging Face's tokenizers library: model BPE, and the pipeline around it. */
#include <stdio.h>
#include <string.h>

#include "harness/core/alloc.h"
#include "harness/core/paths.h"
#include "harness/model/loaders.h"
#include "harness/model/tok_internal.h"

struct loader {
    struct sb_tokenizer *tok;
    const json_t *root;
    const char *path;
    struct sb_error *err;
};

static const char *text_of(const json_t *object, const char *key)
{
    return json_string_value(json_object_get(object, key));
}

static bool is_true(const json_t *object, const char *key)
{
    return json_is_true(json_object_get(object, key));
}

static enum sb_status out_of_memory(const struct loader *l)
{
    return sb_fail(l->err, SB_ENOMEM, "%s: out of memory", l->path);
}

/* ---- the vocabulary -------------------------------------------------------------------------------- */

static enum sb_status count_ids(const struct loader *l, const json_t *vocab, size_t *n)
{
    const char *key;
    json_t *value;
    const json_t *added = json_object_get(l->root, "added_tokens");
    json_int_t most = -1;
    json_object_foreach((json_t *)vocab, key, value)
    {
        if (!json_is_integer(value) || json_integer_value(value) < 0 ||
            json_integer_value(value) >= SB_MAX_VOCAB)
            return sb_fail(l->err, SB_EFORMAT, "%s: model.vocab: the id of '%.60s' is not 0 to %d",
                           l->path, key, SB_MAX_VOCAB - 1);
        most = json_integer_value(value) > most ? json_integer_value(value) : most;
    }
    for (size_t i = 0; i < json_array_size(added); i++) {
        const json_t *id = json_object_get(json_array_get(added, i), "id");
        if (!json_is_integer(id) || json_integer_value(id) < 0 ||
            json_integer_value(id) >= SB_MAX_VOCAB)
            return sb_fail(l->err, SB_EFORMAT, "%s: added_tokens[%zu]: the id is not 0 to %d",
                           l->path, i, SB_MAX_VOCAB - 1);
        most = json_integer_value(id) > most ? json_integer_value(id) : most;
    }
    /* Some vocabularies have holes; one id far away must not make a large table of a small file. */
    size_t n_entries = json_object_size(vocab) + json_array_size(added);
    if ((size_t)(most + 1) > 2 * n_entries)
        return sb_fail(l->err, SB_EFORMAT, "%s: model.vocab: ids up to %lld for %zu tokens",
                       l->path, (long long)most, n_entries);
    *n = (size_t)(most + 1);
    return SB_OK;
}

static enum sb_status read_vocab(const struct loader *l, const json_t *vocab)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)vocab, key, value)
    {
        size_t id = (size_t)json_integer_value(value);
        if (l->tok->piece[id])
            return sb_fail(l->err, SB_EFORMAT,
                           "%s: model.vocab: '%.60s' and '%.60s' share the id %zu", l->path,
                           l->tok->piece[id], key, id);
        enum sb_status rc = sb_tok_set_piece(l->tok, id, key, strlen(key), SB_PIECE_NORMAL, l->err);
        if (rc != SB_OK)
            return rc;
    }
    return SB_OK;
}

static enum sb_status read_added(const struct loader *l)
{
    const json_t *list = json_object_get(l->root, "added_tokens"), *entry;
    const json_t *model = json_object_get(l->root, "model");
    size_t i;
    if (list && !json_is_array(list) && !json_is_null(list))
        return sb_fail(l->err, SB_EFORMAT, "%s: added_tokens is no list", l->path);
    json_array_foreach(list, i, entry)
    {
        const char *text = text_of(entry, "content");
        size_t id = (size_t)json_integer_value(json_object_get(entry, "id"));
        bool special = is_true(entry, "special");
        if (!text || !*text)
            return sb_fail(l->err, SB_EFORMAT, "%s: added_tokens[%zu] has no content", l->path, i);
        const json_t *other = json_object_get(json_object_get(model, "vocab"), text);
        if (other && (size_t)json_integer_value(other) != id)
            return sb_fail(l->err, SB_EFORMAT,
                           "%s: added_tokens[%zu] gives '%.60s' the id %zu, model.vocab %lld",
                           l->path, i, text, id, (long long)json_integer_value(other));
        if (l->tok->piece[id] && strcmp(l->tok->piece[id], text) != 0)
            return sb_fail(l->err, SB_EFORMAT,
                           "%s: added_tokens[%zu] gives '%.60s' the id %zu of '%.60s'", l->path, i,
                           text, id, l->tok->piece[id]);
        enum sb_piece_kind kind = special ? SB_PIECE_CONTROL : SB_PIECE_USER;
        enum sb_status rc = SB_OK;
        if (l->tok->piece[id]) /* stays where it is: an entry of this list may point to it */
            l->tok->kind[id] = (uint8_t)kind;
        else
            rc = sb_tok_set_piece(l->tok, id, text, strlen(text), kind, l->err);
        if (rc == SB_OK)
            rc = sb_tok_add_added(l->tok,
                                  (struct sb_added){ .id = (sb_token)id,
                                                     .text = l->tok->piece[id],
                                                     .n = strlen(text),
                                                     .special = special,
                                                     .lstrip = is_true(entry, "lstrip"),
                                                     .rstrip = is_true(entry, "rstrip"),
                                                     .single_word = is_true(entry, "single_word"),
                                                     .normalized = is_true(entry, "normalized") },
                                  l->err);
        if (rc != SB_OK)
            return rc;
    }
    return SB_OK;
}

/* "a b", or ["a", "b"] in newer files. */
static enum sb_status read_merges(const struct loader *l, const json_t *merges)
{
    const json_t *entry;
    size_t i;
    enum sb_status rc = json_is_array(merges)
                            ? sb_tok_set_merges(l->tok, json_array_size(merges), l->err)
                            : sb_fail(l->err, SB_EFORMAT, "%s: model.merges is no list", l->path);
    if (rc != SB_OK)
        return rc;
    json_array_foreach(merges, i, entry)
    {
        const char *left = json_string_value(entry), *right = NULL;
        size_t n_left = 0;
        if (left) {
            const char *space = *left ? strchr(left + 1, ' ') : NULL;
            right = space ? space + 1 : NULL;
            n_left = space ? (size_t)(space - left) : 0;
        } else if (json_array_size(entry) == 2) {
            left = json_string_value(json_array_get(entry, 0));
            right = json_string_value(json_array_get(entry, 1));
            n_left = left ? strlen(left) : 0;
        }
        if (!left || !right)
            return sb_fail(l->err, SB_EFORMAT, "%s: model.merges[%zu] is no pair of pieces",
                           l->path, i);
        rc = sb_tok_add_merge(l->tok, i, left, n_left, right, strlen(right), l->path, l->err);
        if (rc != SB_OK)
            return rc;
    }
    return SB_OK;
}

static enum sb_status read_model(struct loader *l)
{
    const json_t *model = json_object_get(l->root, "model"),
                 *vocab = json_object_get(model, "vocab");
    const char *type = text_of(model, "type"), *unknown = text_of(model, "unk_token");
    const char *prefix = text_of(model, "continuing_subword_prefix");
    const char *suffix = text_of(model, "end_of_word_suffix");
    size_t n = 0;
    if (!json_is_object(model))
        return sb_fail(l->err, SB_EFORMAT, "%s: 'model' is missing", l->path);
    if (type ? strcmp(type, "BPE") != 0 : !json_object_get(model, "merges"))
        return sb_fail(l->err, SB_EUNSUPPORTED, "%s: model.type is %s; specbench reads BPE",
                       l->path, type ? type : "missing");
    if ((prefix && *prefix) || (suffix && *suffix) ||
        json_number_value(json_object_get(model, "dropout")) > 0)
        return sb_fail(l->err, SB_EUNSUPPORTED, "%s: model has a %s, which specbench does not have",
                       l->path,
                       prefix && *prefix   ? "continuing_subword_prefix"
                       : suffix && *suffix ? "end_of_word_suffix"
                                           : "dropout");
    if (!json_is_object(vocab))
        return sb_fail(l->err, SB_EFORMAT, "%s: model.vocab is no object", l->path);
    enum sb_status rc = count_ids(l, vocab, &n);
    if (rc == SB_OK)
        rc = sb_tok_create(&l->tok, n, l->path, l->err);
    if (rc == SB_OK)
        rc = read_vocab(l, vocab);
    if (rc == SB_OK)
        rc = read_added(l);
    if (rc == SB_OK)
        rc = sb_tok_index(l->tok, l->err);
    if (rc == SB_OK)
        rc = read_merges(l, json_object_get(model, "merges"));
    if (rc != SB_OK)
        return rc;
    l->tok->byte_fallback = is_true(model, "byte_fallback");
    l->tok->fuse_unknown = is_true(model, "fuse_unk");
    l->tok->ignore_merges = is_true(model, "ignore_merges");
    if (unknown)
        l->tok->unknown = sb_tok_lookup(l->tok, unknown, strlen(unknown));
    return SB_OK;
}

/* ---- the pipeline -------------------------------------------------------------------------------------- */

static enum sb_status no_room(const struct loader *l, const char *what)
{
    return sb_fail(l->err, SB_EUNSUPPORTED, "%s: %s has more than %d steps", l->path, what,
                   SB_MAX_STEPS);
}

/* {"Regex": ...} or {"String": ...} into the step. */
static enum sb_status read_pattern(const struct loader *l, struct sb_step *step,
                                   const json_t *pattern, const char *where)
{
    const char *regex = text_of(pattern, "Regex"), *text = text_of(pattern, "String");
    if (!text)
        text = json_string_value(pattern);
    if (regex)
        return sb_regex_create(&step->regex, regex, strlen(regex), l->path, l->err);
    if (!text || !*text)
        return sb_fail(l->err, SB_EFORMAT, "%s: %s has no pattern", l->path, where);
    step->from = sb_strdup(text);
    return step->from ? SB_OK : out_of_memory(l);
}

static enum sb_status
add_sequence(const struct loader *l, const json_t *list, const char *where, int depth,
             enum sb_status (*add)(const struct loader *, const json_t *, int))
{
    const json_t *entry;
    size_t i;
    enum sb_status rc = json_is_array(list) && depth < 4
                            ? SB_OK
                            : sb_fail(l->err, SB_EFORMAT,
                                      "%s: a Sequence in %s is no list of steps", l->path, where);
    json_array_foreach(list, i, entry)
    {
        if (rc == SB_OK)
            rc = add(l, entry, depth + 1);
    }
    return rc;
}

static enum sb_status add_normalizer(const struct loader *l, const json_t *n, int depth)
{
    static const struct {
        const char *type;
        enum sb_step_kind kind;
    } known[] = { { "NFC", SB_STEP_NFC },
                  { "NFD", SB_STEP_NFD },
                  { "NFKC", SB_STEP_NFKC },
                  { "NFKD", SB_STEP_NFKD },
                  { "Lowercase", SB_STEP_LOWERCASE },
                  { "Prepend", SB_STEP_PREPEND },
                  { "Replace", SB_STEP_REPLACE },
                  { "Strip", SB_STEP_STRIP } };
    const char *type = text_of(n, "type");
    if (!n || json_is_null(n))
        return SB_OK;
    if (type && strcmp(type, "Sequence") == 0)
        return add_sequence(l, json_object_get(n, "normalizers"), "normalizer", depth,
                            add_normalizer);
    size_t i = 0, count = sizeof known / sizeof *known;
    while (i < count && (!type || strcmp(type, known[i].type) != 0))
        i++;
    if (i == count)
        return sb_fail(l->err, SB_EUNSUPPORTED, "%s: normalizer '%.40s' is not one specbench has",
                       l->path, type ? type : "(no type)");
    struct sb_step *step = sb_tok_add_normalize(l->tok);
    if (!step)
        return no_room(l, "normalizer");
    step->kind = known[i].kind;
    step->left = is_true(n, "strip_left");
    step->right = is_true(n, "strip_right");
    const char *text =
        step->kind == SB_STEP_PREPEND ? text_of(n, "prepend") : text_of(n, "content");
    if (step->kind != SB_STEP_PREPEND && step->kind != SB_STEP_REPLACE)
        return SB_OK;
    step->text = sb_strdup(text ? text : "");
    if (!step->text)
        return out_of_memory(l);
    return step->kind == SB_STEP_REPLACE
               ? read_pattern(l, step, json_object_get(n, "pattern"), "Replace")
               : SB_OK;
}

static enum sb_status read_behavior(const struct loader *l, struct sb_step *step, const char *name)
{
    static const char *const names[] = { "Isolated", "Removed", "MergedWithPrevious",
                                         "MergedWithNext", "Contiguous" };
    for (size_t i = 0; name && i < 5; i++) {
        if (strcmp(name, names[i]) == 0) {
            step->behavior = (enum sb_split_behavior)i;
            return SB_OK;
        }
    }
    return sb_fail(l->err, SB_EFORMAT, "%s: split behavior '%.40s'", l->path,
                   name ? name : "(none)");
}

/* A split by one of our own patterns. */
static enum sb_status add_split(const struct loader *l, const char *pattern,
                                enum sb_split_behavior behavior, bool invert)
{
    struct sb_step *step = sb_tok_add_cut(l->tok);
    if (!step)
        return no_room(l, "pre_tokenizer");
    step->kind = SB_STEP_SPLIT;
    step->behavior = behavior;
    step->invert = invert;
    return sb_regex_create(&step->regex, pattern, strlen(pattern), l->path, l->err);
}

static enum sb_status add_byte_level(const struct loader *l, const json_t *p)
{
    const json_t *use_regex = json_object_get(p, "use_regex");
    bool prefix = is_true(p, "add_prefix_space");
    enum sb_status rc = SB_OK;
    if (prefix && !json_is_false(use_regex)) {
        /* The space goes in front before the text is cut. */
        struct sb_step *step = sb_tok_add_cut(l->tok);
        if (!step)
            return no_room(l, "pre_tokenizer");
        step->kind = SB_STEP_METASPACE;
        step->prefix = true;
        step->text = sb_strdup(" ");
        if (!step->text)
            return out_of_memory(l);
        prefix = false;
    }
    if (!json_is_false(use_regex))
        rc = add_split(l, sb_pattern_gpt2, SB_SPLIT_ISOLATED, false);
    struct sb_step *step = rc == SB_OK ? sb_tok_add_cut(l->tok) : NULL;
    if (rc == SB_OK && !step)
        return no_room(l, "pre_tokenizer");
    if (step) {
        step->kind = SB_STEP_BYTES;
        step->prefix = prefix;
        l->tok->byte_level = true;
    }
    return rc;
}

static enum sb_status add_metaspace(const struct loader *l, const json_t *p)
{
    struct sb_step *step = sb_tok_add_cut(l->tok);
    const char *scheme = text_of(p, "prepend_scheme"), *mark = text_of(p, "replacement");
    const json_t *split = json_object_get(p, "split"),
                 *legacy = json_object_get(p, "add_prefix_space");
    if (!step)
        return no_room(l, "pre_tokenizer");
    step->kind = SB_STEP_METASPACE;
    step->split = !json_is_false(split);
    step->prefix = scheme ? strcmp(scheme, "never") != 0 : !json_is_false(legacy);
    step->first_only = scheme && strcmp(scheme, "first") == 0;
    step->text = sb_strdup(mark ? mark : "\xE2\x96\x81");
    l->tok->space_prefix = step->prefix;
    return step->text ? SB_OK : out_of_memory(l);
}

/* Punctuation: ASCII signs and Unicode's P categories. */
static const char punctuation[] = "[!-/:-@\\[-`{-~\\p{P}]";

static enum sb_status add_pretokenizer(const struct loader *l, const json_t *p, int depth)
{
    const char *type = text_of(p, "type");
    if (!p || json_is_null(p))
        return SB_OK;
    if (!type)
        return sb_fail(l->err, SB_EFORMAT, "%s: a pre_tokenizer has no type", l->path);
    if (strcmp(type, "Sequence") == 0)
        return add_sequence(l, json_object_get(p, "pretokenizers"), "pre_tokenizer", depth,
                            add_pretokenizer);
    if (strcmp(type, "ByteLevel") == 0)
        return add_byte_level(l, p);
    if (strcmp(type, "Metaspace") == 0)
        return add_metaspace(l, p);
    if (strcmp(type, "Digits") == 0)
        return add_split(l, "\\p{N}",
                         is_true(p, "individual_digits") ? SB_SPLIT_ISOLATED : SB_SPLIT_CONTIGUOUS,
                         false);
    if (strcmp(type, "Whitespace") == 0)
        return add_split(l, "[\\w\\x{200C}\\x{200D}]+|[^\\w\\s\\x{200C}\\x{200D}]+",
                         SB_SPLIT_REMOVED, true);
    if (strcmp(type, "WhitespaceSplit") == 0)
        return add_split(l, "\\s", SB_SPLIT_REMOVED, false);
    bool is_punctuation = strcmp(type, "Punctuation") == 0;
    if (!is_punctuation && strcmp(type, "Split") != 0)
        return sb_fail(l->err, SB_EUNSUPPORTED,
                       "%s: pre_tokenizer '%.40s' is not one specbench has", l->path, type);
    struct sb_step *step = sb_tok_add_cut(l->tok);
    if (!step)
        return no_room(l, "pre_tokenizer");
    step->kind = SB_STEP_SPLIT;
    step->invert = is_true(p, "invert");
    const char *behavior = text_of(p, "behavior");
    enum sb_status rc = read_behavior(l, step, is_punctuation && !behavior ? "Isolated" : behavior);
    if (rc != SB_OK)
        return rc;
    return is_punctuation
               ? sb_regex_create(&step->regex, punctuation, strlen(punctuation), l->path, l->err)
               : read_pattern(l, step, json_object_get(p, "pattern"), "Split");
}

/* ---- what surrounds a text -------------------------------------------------------------------------------- */

/* Does decoding drop the space that encoding put in front? */
static bool strips_front(const json_t *decoder, int depth)
{
    const char *type = text_of(decoder, "type");
    const json_t *list = json_object_get(decoder, "decoders"), *entry;
    size_t i;
    if (type && strcmp(type, "Strip") == 0)
        return json_integer_value(json_object_get(decoder, "start")) > 0;
    if (type && strcmp(type, "Metaspace") == 0) {
        const char *scheme = text_of(decoder, "prepend_scheme");
        return scheme ? strcmp(scheme, "never") != 0
                      : !json_is_false(json_object_get(decoder, "add_prefix_space"));
    }
    json_array_foreach(list, i, entry)
    {
        if (depth < 4 && strips_front(entry, depth + 1))
            return true;
    }
    return false;
}

/* A TemplateProcessing whose single form begins with a special token puts that one in front. */
static sb_token template_bos(const struct loader *l, const json_t *p, int depth)
{
    const json_t *list = json_object_get(p, "processors"), *entry;
    const json_t *first = json_array_get(json_object_get(p, "single"), 0);
    const char *name = text_of(json_object_get(first, "SpecialToken"), "id");
    size_t i;
    sb_token id = name ? sb_tok_lookup(l->tok, name, strlen(name)) : -1;
    json_array_foreach(list, i, entry)
    {
        if (id < 0 && depth < 4)
            id = template_bos(l, entry, depth + 1);
    }
    return id;
}

/* "bos_token" is text, or an object with its content. */
static sb_token named_token(const struct loader *l, const json_t *config, const char *key)
{
    const json_t *value = json_object_get(config, key);
    const char *text =
        json_string_value(value) ? json_string_value(value) : text_of(value, "content");
    return text ? sb_tok_lookup(l->tok, text, strlen(text)) : -1;
}

static sb_token numbered_token(const struct loader *l, const json_t *value)
{
    json_int_t id = json_is_integer(value) ? json_integer_value(value) : -1;
    return id >= 0 && (uint64_t)id < l->tok->n ? (sb_token)id : -1;
}

static enum sb_status open_optional(const struct loader *l, const char *dir, const char *name,
                                    json_t **out)
{
    char *path = dir ? sb_strf("%s/%s", dir, name) : NULL;
    enum sb_status rc = dir && !path ? out_of_memory(l) : SB_OK;
    *out = NULL;
    if (path && sb_is_file(path))
        rc = sb_json_open(out, path, l->err);
    sb_free(path);
    return rc;
}

static enum sb_status read_surroundings(const struct loader *l, const char *dir)
{
    json_t *config = NULL, *model = NULL;
    struct sb_tokenizer *tok = l->tok;
    enum sb_status rc = open_optional(l, dir, "tokenizer_config.json", &config);
    if (rc == SB_OK)
        rc = open_optional(l, dir, "config.json", &model);
    if (rc == SB_OK) {
        const json_t *eos = json_object_get(model, "eos_token_id");
        sb_token front = template_bos(l, json_object_get(l->root, "post_processor"), 0);
        tok->bos = front >= 0 ? front : named_token(l, config, "bos_token");
        if (tok->bos < 0)
            tok->bos = numbered_token(l, json_object_get(model, "bos_token_id"));
        tok->adds_bos = front >= 0 || is_true(config, "add_bos_token");
        tok->eos = named_token(l, config, "eos_token");
        if (tok->eos < 0)
            tok->eos = numbered_token(l, json_is_array(eos) ? json_array_get(eos, 0) : eos);
        sb_tok_add_end(tok, numbered_token(l, eos));
        for (size_t i = 0; i < json_array_size(eos); i++)
            sb_tok_add_end(tok, numbered_token(l, json_array_get(eos, i)));
    }
    json_decref(config);
    json_decref(model);
    return rc;
}

enum sb_status sb_tok_from_hf(struct sb_tokenizer **out, const char *path, const char *dir,
                              struct sb_error *err)
{
    json_t *root = NULL;
    enum sb_status rc = sb_json_open(&root, path, err);
    if (rc != SB_OK)
        return rc;
    struct loader l = { .root = root, .path = path, .err = err };
    rc = json_is_object(root) ? read_model(&l)
                              : sb_fail(err, SB_EFORMAT, "%s: is no JSON object", path);
    if (rc == SB_OK)
        rc = add_normalizer(&l, json_object_get(root, "normalizer"), 0);
    if (rc == SB_OK)
        rc = sb_tok_normalize_added(l.tok, err);
    if (rc == SB_OK)
        rc = add_pretokenizer(&l, json_object_get(root, "pre_tokenizer"), 0);
    if (rc == SB_OK)
        rc = read_surroundings(&l, dir);
    if (rc == SB_OK) {
        l.tok->space_prefix = strips_front(json_object_get(root, "decoder"), 0);
        sb_tok_complete(l.tok);
        *out = l.tok;
    } else {
        sb_tokenizer_close(l.tok);
    }
    json_decref(root);
    return rc;
}
