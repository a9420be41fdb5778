/* drafters/llma: inference with reference (methods C 1.3). When the last tokens that were generated
 * are an n-gram of a reference document, copy what follows there; the longest n-gram first, the first
 * document and position that has it. What was generated itself is never copied from: that is pld.
 *
 * The documents are those in the prompt, on its very tokens: its paragraphs, told by blank lines (which
 * takes a tokenizer), or its stretches between tokens `separator`. Without either, the prompt is one
 * document. A paragraph includes the line breaks behind it, a stretch not its separator.
 *
 * Differs from the source: a data set's own list of documents does not reach drafters, so the prompt
 * is cut up; an n-gram at the end of a document, with nothing behind it to copy, is no match; k counts
 * draft tokens (the source counts rows, the root included: its 20 are k=19).
 *
 * Nothing is learnt, so there is no scope. Memory: about 350 KiB at 4,096 positions and ngram_max=5,
 * and a byte per vocabulary entry. */
#include <inttypes.h>
#include <string.h>

#include "drafters/gram_index.h"
#include "harness/core/alloc.h"
#include "harness/decode/drafter.h"

struct llma_params {
    int64_t k, ngram_min, ngram_max, doc_max, separator;
};

static const struct sb_param llma_params[] = {
    { .name = "doc_max",
      .type = SB_PARAM_INT,
      .offset = offsetof(struct llma_params, doc_max),
      .fallback = "768",
      .min = 2,
      .max = 1 << 20,
      .meaning = "tokens of a document that count; the rest is left out" },
    { .name = "k",
      .type = SB_PARAM_INT,
      .offset = offsetof(struct llma_params, k),
      .fallback = "19",
      .min = 1,
      .max = 1000,
      .meaning = "draft length" },
    { .name = "ngram_max",
      .type = SB_PARAM_INT,
      .offset = offsetof(struct llma_params, ngram_max),
      .fallback = "5",
      .min = 1,
      .max = 16,
      .meaning = "longest n-gram to look up, tried first" },
    { .name = "ngram_min",
      .type = SB_PARAM_INT,
      .offset = offsetof(struct llma_params, ngram_min),
      .fallback = "1",
      .min = 1,
      .max = 16,
      .meaning = "shortest n-gram to look up" },
    { .name = "separator",
      .type = SB_PARAM_INT,
      .offset = offsetof(struct llma_params, separator),
      .fallback = "-1",
      .min = -1,
      .max = INT32_MAX,
      .meaning = "token id between documents of the prompt; -1: blank lines" },
    { 0 },
};

/* What a token's text does to lines. */
enum { BLANK_LINE = 1, BEGINS_WITH_BREAK = 2, ENDS_WITH_BREAK = 4, ALL_SPACE = 8 };

struct llma {
    struct llma_params params;
    size_t max_context;
    struct sb_gram_index index; /* its text is the prompt */
    int32_t *doc_end;           /* [max_context] by position: where its document ends */
    uint8_t *lines;             /* [n_vocab]; NULL without a tokenizer */
    size_t n_vocab;
};

static uint8_t lines_of(const char *text, size_t n)
{
    bool at_break = false, words = false; /* since the last break: nothing but space; any word */
    uint8_t lines = 0;
    for (size_t i = 0; i < n; i++) {
        if (text[i] == '\n') {
            lines |= at_break ? BLANK_LINE : 0;
            lines |= words ? 0 : BEGINS_WITH_BREAK;
            at_break = true;
        } else if (text[i] != ' ' && text[i] != '\t' && text[i] != '\r') {
            at_break = false;
            words = true;
        }
    }
    return (uint8_t)(lines | (at_break ? ENDS_WITH_BREAK : 0) | (words ? 0 : ALL_SPACE));
}

static enum sb_status read_lines(struct llma *l, const struct sb_tokenizer *tokenizer,
                                 struct sb_error *err)
{
    size_t n = sb_tokenizer_size(tokenizer);
    l->lines = sb_alloc_zero(l->n_vocab, 1);
    if (!l->lines)
        return sb_fail(err, SB_ENOMEM, "no memory for %zu vocabulary entries", l->n_vocab);
    for (size_t id = 0; id < n && id < l->n_vocab; id++) {
        sb_token token = (sb_token)id;
        char *text;
        size_t length;
        enum sb_status rc = sb_tokenizer_decode(tokenizer, &text, &length, &token, 1, true, err);
        if (rc != SB_OK)
            return rc;
        l->lines[id] = lines_of(text, length);
        sb_free(text);
    }
    return SB_OK;
}

static enum sb_status llma_open(void *st, const struct sb_drafter_env *env, struct sb_error *err)
{
    struct llma *l = st;
    l->params = *(const struct llma_params *)env->params;
    l->max_context = env->max_context;
    l->n_vocab = env->n_vocab;
    if (l->params.ngram_min > l->params.ngram_max)
        return sb_fail(err, SB_EUSAGE,
                       "drafter llma: ngram_min=%" PRId64 ": expected at most ngram_max=%" PRId64,
                       l->params.ngram_min, l->params.ngram_max);
    enum sb_status rc =
        sb_gram_index_init(&l->index, env->max_context, (size_t)l->params.ngram_max, err);
    l->doc_end = sb_alloc_array(env->max_context, sizeof *l->doc_end);
    if (rc == SB_OK && !l->doc_end)
        rc = sb_fail(err, SB_ENOMEM, "no memory for documents of %zu tokens", env->max_context);
    if (rc == SB_OK && l->params.separator < 0 && env->tokenizer)
        rc = read_lines(l, env->tokenizer, err);
    return rc == SB_OK ? rc : sb_fail_context(err, rc, "drafter llma");
}

static void llma_close(void *st)
{
    struct llma *l = st;
    sb_gram_index_finish(&l->index);
    sb_free(l->doc_end);
    sb_free(l->lines);
    l->doc_end = NULL;
    l->lines = NULL;
}

/* Where the document that begins at `from` ends, and in *next where the one behind it begins. */
static size_t document_end(const struct llma *l, const sb_token *x, size_t from, size_t n,
                           size_t *next)
{
    bool at_break = false;
    for (size_t i = from; i < n; i++) {
        uint8_t lines = l->lines ? l->lines[x[i]] : 0;
        *next = i + 1;
        if (x[i] == l->params.separator)
            return i;
        if (lines & BLANK_LINE || (at_break && lines & BEGINS_WITH_BREAK))
            return i + 1;
        at_break = lines & ENDS_WITH_BREAK || (at_break && lines & ALL_SPACE);
    }
    *next = n;
    return n;
}

/* Index a document that stands in the index's text at from..end-1. */
static void add_document(struct llma *l, size_t from, size_t end)
{
    if (end - from > (size_t)l->params.doc_max)
        end = from + (size_t)l->params.doc_max;
    for (size_t at = from; at + 1 < end; at++) { /* the last token has nothing behind it */
        l->doc_end[at] = (int32_t)end;
        for (size_t g = (size_t)l->params.ngram_min;
             g <= (size_t)l->params.ngram_max && g <= at + 1 - from; g++)
            sb_gram_index_add(&l->index, at, g);
    }
}

/* The prompt's own documents, as far as there is room. */
static void take_documents(struct llma *l, const struct sb_context *ctx)
{
    for (size_t i = 0, from = 0; i < ctx->n_documents; i++) {
        size_t room = l->max_context - from, n = ctx->documents[i].n;
        n = n < room ? n : room;
        memcpy(l->index.text + from, ctx->documents[i].tokens, n * sizeof *l->index.text);
        add_document(l, from, from + n);
        from += n;
    }
}

static enum sb_status llma_begin(void *st, const struct sb_context *ctx, struct sb_error *err)
{
    struct llma *l = st;
    size_t n = ctx->n_prompt < l->max_context ? ctx->n_prompt : l->max_context, next;
    sb_gram_index_clear(&l->index);
    if (ctx->n_documents > 0) {
        take_documents(l, ctx);
        return SB_OK;
    }
    memcpy(l->index.text, ctx->tokens, n * sizeof *ctx->tokens);
    for (size_t from = 0; from < n; from = next)
        add_document(l, from, document_end(l, ctx->tokens, from, n, &next));
    return SB_OK;
}

static enum sb_status llma_propose(void *st, const struct sb_context *ctx, struct sb_tree *tree,
                                   struct sb_error *err)
{
    const struct llma *l = st;
    size_t generated = ctx->n - ctx->n_prompt, highest = (size_t)l->params.ngram_max;
    int32_t k = sb_policy_plan(ctx->policy, (int32_t)l->params.k), node = 0;
    for (size_t g = highest < generated ? highest : generated; g >= (size_t)l->params.ngram_min;
         g--) {
        const struct sb_gram_place *place =
            sb_gram_index_find(&l->index, ctx->tokens + ctx->n - g, g);
        if (!place)
            continue;
        const sb_token *from = l->index.text + place->first + 1;
        int32_t there = l->doc_end[place->first] - place->first - 1;
        for (int32_t i = 0; i < k && i < there && node >= 0; i++)
            node = sb_tree_add(tree, node, from[i], (int32_t)g);
        break;
    }
    return SB_OK;
}

static int32_t llma_max_nodes(const void *params, const struct sb_policy *policy)
{
    return sb_policy_longest(policy, (int32_t)((const struct llma_params *)params)->k);
}

const struct sb_drafter_ops sb_drafter_llma = {
    .name = "llma",
    .summary = "copy from the documents in the prompt what followed the last generated tokens",
    .paper = "Yang et al. 2023, arXiv 2304.04487",
    .params = llma_params,
    .params_size = sizeof(struct llma_params),
    .state_size = sizeof(struct llma),
    .kinds_greedy = SB_KIND_BIT(SB_DRAW_ONEHOT),
    .source_is_match = true,
    .open = llma_open,
    .begin = llma_begin,
    .propose = llma_propose,
    .close = llma_close,
    .max_nodes = llma_max_nodes,
};
