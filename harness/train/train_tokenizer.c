/* kind = "tokenizer": a vocabulary from the recipe's texts. */
#include <string.h>

#include "harness/core/alloc.h"
#include "harness/model/bpe_train.h"
#include "harness/train/model_out.h"
#include "harness/train/trainer.h"

/* The marks of the chat format; they get the first ids. */
static const char *const special[] = { "<|bos|>", "<|user|>", "<|assistant|>", "<|end|>" };

struct job {
    const struct sb_recipe *recipe;
    const struct sb_train_options *options;
    struct sb_bpe_trainer *trainer;
};

static enum sb_status add_text(void *user, const char *text, size_t length, struct sb_error *err)
{
    struct job *job = user;
    if (job->options->stop && *job->options->stop)
        return sb_fail(err, SB_EINTERRUPTED, "%s: stopped while reading the texts",
                       job->recipe->name);
    return sb_bpe_trainer_add(job->trainer, text, length, 1, err);
}

static enum sb_status write_out(const struct job *job, struct sb_error *err)
{
    const char *out = job->options->out ? job->options->out : job->recipe->out;
    enum sb_status status = sb_make_dirs(out, err);
    if (status != SB_OK)
        return status;
    char *path = sb_strf("%s/tokenizer.json", out);
    if (!path)
        return sb_fail(err, SB_ENOMEM, "%s: out of memory", out);
    size_t n_vocab = 0;
    status = sb_bpe_trainer_write(job->trainer, path, &n_vocab, err);
    if (status == SB_OK && n_vocab < job->recipe->model.vocab)
        status = sb_fail(err, SB_EUSAGE,
                         "%s: the texts give only %zu tokens of the %zu in model.vocab; use more "
                         "text or a smaller vocabulary",
                         job->recipe->name, n_vocab, job->recipe->model.vocab);
    if (status == SB_OK)
        sb_train_note(job->recipe, job->options, "%s with %zu tokens written", path, n_vocab);
    sb_free(path);
    return status;
}

enum sb_status sb_train_tokenizer(const struct sb_recipe *recipe,
                                  const struct sb_train_options *options, struct sb_error *err)
{
    struct job job = { recipe, options, NULL };
    struct sb_corpus corpus;
    enum sb_status status = sb_recipe_corpus(&corpus, recipe, options, err);
    if (status != SB_OK)
        return status;
    struct sb_bpe_options bpe = {
        .n_vocab = recipe->model.vocab,
        .special = special,
        .n_special = sizeof special / sizeof *special,
    };
    status = sb_bpe_trainer_create(&job.trainer, &bpe, err);
    if (status == SB_OK)
        status = sb_corpus_each_text(&corpus, add_text, &job, err);
    if (status == SB_OK)
        status = write_out(&job, err);
    sb_bpe_trainer_destroy(job.trainer);
    sb_corpus_finish(&corpus);
    return status;
}
