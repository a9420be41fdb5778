#include "harness/certify/arena.h"

#include <string.h>

#include "harness/core/alloc.h"
#include "harness/core/rng.h"

static const char draft_name[] = "tiny-draft", questions[] = "mini";

enum { TOY_VOCAB = 24, TOY_CONTEXT = 160, TOY_SEED = 1, TOY_EOS = 3 };
enum { PROMPT_TOKENS = 8, REPEATED_TOKENS = 4 };
enum { MIN_EXPECTED = 10, MOST_CELLS = 48 }; /* of a block's law */

/* ---- models ---- */

static enum sb_status load_toy(void *loader, const char *name, struct sb_model **model,
                               const struct sb_tokenizer **tokenizer, struct sb_error *err)
{
    const struct sb_arena *arena = loader;
    *model = arena->toy[1].model;
    *tokenizer = NULL;
    return SB_OK;
}

struct sb_session_options sb_arena_session(struct sb_arena *arena)
{
    bool toy = arena->models == NULL;
    return (struct sb_session_options){
        .target = arena->target,
        .tokenizer = arena->tokenizer,
        .load_model = toy ? load_toy : sb_models_load,
        .loader = toy ? (void *)arena : (void *)arena->models,
    };
}

/* The end tokens, as sessions see them. */
static enum sb_status find_eos(struct sb_arena *arena, struct sb_error *err)
{
    struct sb_session *session;
    struct sb_session_options options = sb_arena_session(arena);
    const sb_token *eos;
    options.max_context = 1;
    enum sb_status rc = sb_session_create(&session, &options, err);
    if (rc != SB_OK)
        return rc;
    arena->n_eos = sb_session_eos(session, &eos);
    arena->eos = sb_alloc_array(arena->n_eos, sizeof *eos);
    if (arena->eos)
        memcpy(arena->eos, eos, arena->n_eos * sizeof *eos);
    sb_session_destroy(session);
    return arena->eos ? SB_OK : sb_fail(err, SB_ENOMEM, "out of memory for the end tokens");
}

/* ---- prompts ---- */

/* The first tokens of `text`, then the first of them again. */
static enum sb_status add_prompt(struct sb_arena *arena, const sb_token *text, size_t n,
                                 struct sb_error *err)
{
    struct sb_tokens *prompt = &arena->prompt[arena->n_prompts];
    size_t length = n < PROMPT_TOKENS ? n : PROMPT_TOKENS;
    size_t again = length < REPEATED_TOKENS ? length : REPEATED_TOKENS;
    enum sb_status rc = sb_tokens_push(prompt, text, length, err);
    arena->n_prompts++;
    return rc == SB_OK ? sb_tokens_push(prompt, text, again, err) : rc;
}

static enum sb_status random_prompts(struct sb_arena *arena, struct sb_error *err)
{
    size_t n_vocab = sb_model_config(arena->target)->n_vocab;
    struct sb_rng rng = sb_rng_make(TOY_SEED, SB_STREAM_DATA);
    enum sb_status rc = SB_OK;
    for (size_t i = 0; i < SB_ARENA_PROMPTS && rc == SB_OK; i++) {
        sb_token text[PROMPT_TOKENS];
        for (size_t k = 0; k < PROMPT_TOKENS; k++)
            text[k] = (sb_token)sb_rng_below(&rng, n_vocab);
        rc = add_prompt(arena, text, PROMPT_TOKENS, err);
    }
    return rc;
}

static enum sb_status question_prompts(struct sb_arena *arena, struct sb_error *err)
{
    enum sb_status rc = SB_OK;
    for (size_t i = 0; i < arena->dataset.n && arena->n_prompts < SB_ARENA_PROMPTS; i++) {
        const struct sb_item *item = &arena->dataset.items[i];
        bool same_task = i > 0 && strcmp(item->task, arena->dataset.items[i - 1].task) == 0;
        struct sb_tokens text = { 0 };
        if (same_task) /* a prompt of every task */
            continue;
        rc = sb_tokenizer_encode(arena->tokenizer, &text, item->turns[0], strlen(item->turns[0]),
                                 SB_ENCODE_PLAIN, err);
        if (rc == SB_OK && text.n > 0)
            rc = add_prompt(arena, text.id, text.n, err);
        sb_tokens_finish(&text);
        if (rc != SB_OK)
            return rc;
    }
    return rc;
}

/* ---- arenas ---- */

enum sb_status sb_arena_toy(struct sb_arena *out, struct sb_error *err)
{
    struct sb_arena arena = { .name = "toy", .heat = 1, .draft_model = sb_strdup("toy-draft") };
    enum sb_status rc =
        arena.draft_model
            ? sb_toy_create(&arena.toy[0], TOY_SEED, 0, TOY_VOCAB, TOY_CONTEXT, TOY_EOS, err)
            : sb_fail(err, SB_ENOMEM, "out of memory for the toy models");
    if (rc == SB_OK)
        rc = sb_toy_create(&arena.toy[1], TOY_SEED, .12, TOY_VOCAB, TOY_CONTEXT, TOY_EOS, err);
    arena.target = arena.toy[0].model;
    if (rc == SB_OK)
        rc = find_eos(&arena, err);
    if (rc == SB_OK)
        rc = random_prompts(&arena, err);
    if (rc == SB_OK)
        *out = arena;
    else
        sb_arena_finish(&arena);
    return rc;
}

/* The bundled draft model, or the target itself with flatter rows. */
static enum sb_status choose_draft_model(struct sb_arena *arena, struct sb_error *err)
{
    struct sb_model *draft = NULL;
    bool fits = sb_models_get(arena->models, draft_name, &draft, NULL, NULL) == SB_OK &&
                draft != arena->target &&
                sb_model_config(draft)->n_vocab == sb_model_config(arena->target)->n_vocab;
    arena->heat = fits ? 1 : 1.6;
    arena->draft_model = sb_strdup(fits ? draft_name : arena->name);
    return arena->draft_model
               ? SB_OK
               : sb_fail(err, SB_ENOMEM, "out of memory for model '%s'", arena->name);
}

enum sb_status sb_arena_open(struct sb_arena *out, const char *model, struct sb_models *models,
                             struct sb_error *err)
{
    struct sb_arena arena = { .name = model, .models = models };
    enum sb_status rc = sb_models_get(models, model, &arena.target, &arena.tokenizer, err);
    if (rc == SB_OK)
        rc = choose_draft_model(&arena, err);
    if (rc == SB_OK)
        rc = find_eos(&arena, err);
    if (rc == SB_OK && arena.tokenizer)
        rc = sb_dataset_open(&arena.dataset, questions, err);
    if (rc == SB_OK)
        rc = arena.tokenizer ? question_prompts(&arena, err) : random_prompts(&arena, err);
    if (rc == SB_OK)
        *out = arena;
    else
        sb_arena_finish(&arena);
    return rc;
}

void sb_arena_finish(struct sb_arena *arena)
{
    if (!arena)
        return;
    for (size_t i = 0; i < SB_ARENA_PROMPTS; i++)
        sb_tokens_finish(&arena->prompt[i]);
    sb_dataset_finish(&arena->dataset);
    sb_toy_destroy(&arena->toy[0]);
    sb_toy_destroy(&arena->toy[1]);
    sb_free(arena->draft_model);
    sb_free(arena->eos);
    *arena = (struct sb_arena){ 0 };
}

/* ---- blocks ---- */

void sb_arena_blocks_free(struct sb_sample_block *blocks, size_t n)
{
    for (size_t i = 0; blocks && i < n; i++)
        sb_law_finish(&blocks[i].law);
    sb_free(blocks);
}

enum sb_status sb_arena_blocks(struct sb_sample_block **out, const struct sb_arena *arena,
                               const struct sb_sampling *sampling, size_t n_sampling,
                               size_t n_blocks, int64_t draws, struct sb_error *err)
{
    struct sb_sample_block *blocks = sb_alloc_zero(n_blocks, sizeof *blocks);
    enum sb_status rc = blocks ? SB_OK : sb_fail(err, SB_ENOMEM, "out of memory for prompts");
    for (size_t i = 0; i < n_blocks && rc == SB_OK; i++) {
        const struct sb_tokens *prompt = &arena->prompt[i % arena->n_prompts];
        double least = (double)draws / MOST_CELLS;
        const struct sb_law_request request = {
            .target = arena->target,
            .prompt = prompt->id,
            .n_prompt = prompt->n,
            .sampling = sampling[i % n_sampling],
            .eos = arena->eos,
            .n_eos = arena->n_eos,
            .draws = (double)draws,
            .expected = least > MIN_EXPECTED ? least : MIN_EXPECTED,
        };
        blocks[i].prompt = prompt->id;
        blocks[i].n_prompt = prompt->n;
        blocks[i].sampling = sampling[i % n_sampling];
        rc = sb_law_make(&blocks[i].law, &request, err);
    }
    if (rc == SB_OK)
        *out = blocks;
    else
        sb_arena_blocks_free(blocks, n_blocks);
    return rc;
}
