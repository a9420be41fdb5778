#include "harness/certify/greedy.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "harness/certify/each.h"
#include "harness/core/alloc.h"
#include "harness/model/chat.h"
#include "kernels/kernels.h"

enum { LANES = 4, BATCH = 64 };

/* ---- plain decoding ---- */

static bool ends(const struct sb_arena *arena, sb_token token)
{
    for (size_t i = 0; i < arena->n_eos; i++)
        if (arena->eos[i] == token)
            return true;
    return false;
}

static enum sb_status decode_plainly(const struct sb_greedy_set *set, size_t i,
                                     struct sb_error *err)
{
    const struct sb_tokens *prompt = &set->prompt[i];
    struct sb_tokens *out = &set->plain[i];
    struct sb_seq *seq;
    size_t last, n_vocab = sb_model_config(set->arena->target)->n_vocab;
    enum sb_status rc =
        sb_seq_create(&seq, set->arena->target, prompt->n + set->length, BATCH, err);
    if (rc != SB_OK)
        return rc;
    rc = sb_seq_prefill(seq, prompt->id, prompt->n, NULL, 0, &last, err);
    while (rc == SB_OK && out->n < set->length) {
        sb_token token = (sb_token)sb_argmax(sb_seq_logits(seq, last), n_vocab);
        rc = sb_tokens_push(out, &token, 1, err);
        if (ends(set->arena, token))
            break;
        if (rc == SB_OK && out->n < set->length)
            rc = sb_seq_prefill(seq, &token, 1, NULL, 0, &last, err);
    }
    sb_seq_destroy(seq);
    return rc;
}

/* Rows of the first question, in one batch and each alone. */
static enum sb_status measure_epsilon(struct sb_greedy_set *set, struct sb_error *err)
{
    const struct sb_tokens *text = &set->prompt[0];
    size_t n = text->n < BATCH ? text->n : BATCH, last;
    size_t n_vocab = sb_model_config(set->arena->target)->n_vocab;
    struct sb_seq *batch = NULL, *single = NULL;
    struct sb_row row[BATCH];
    for (size_t i = 0; i < n; i++)
        row[i] =
            (struct sb_row){ .token = text->id[i], .parent = (int32_t)i - 1, .want_logits = true };
    enum sb_status rc = sb_seq_create(&batch, set->arena->target, n, BATCH, err);
    if (rc == SB_OK)
        rc = sb_seq_create(&single, set->arena->target, n, BATCH, err);
    if (rc == SB_OK)
        rc = sb_forward(batch, row, n, NULL, err);
    for (size_t i = 0; i < n && rc == SB_OK; i++) {
        rc = sb_seq_prefill(single, text->id + i, 1, NULL, 0, &last, err);
        const float *a = sb_seq_logits(batch, i), *b = sb_seq_logits(single, last);
        for (size_t t = 0; t < n_vocab && rc == SB_OK; t++)
            set->epsilon = fmax(set->epsilon, fabs((double)a[t] - (double)b[t]));
    }
    sb_seq_destroy(batch);
    sb_seq_destroy(single);
    return rc;
}

/* ---- questions ---- */

static enum sb_status add_question(struct sb_greedy_set *set, const struct sb_item *item,
                                   struct sb_error *err)
{
    const struct sb_arena *arena = set->arena;
    bool known;
    const struct sb_turn turn = { item->turns[0], NULL };
    const char *chat = sb_chat_recognise(sb_model_weights(arena->target)->chat_template, &known);
    struct sb_tokens *prompt = &set->prompt[set->n];
    enum sb_status rc = sb_chat_encode(chat, arena->tokenizer, &turn, 1, prompt, err);
    if (rc == SB_OK && prompt->n + set->length <= sb_model_config(arena->target)->max_context)
        set->n++;
    else
        sb_tokens_finish(prompt); /* longer than the model can read: left out */
    return rc;
}

static enum sb_status read_questions(struct sb_greedy_set *set, size_t per_task,
                                     struct sb_error *err)
{
    const struct sb_arena *arena = set->arena;
    enum sb_status rc = SB_OK;
    for (size_t i = 0; i < arena->dataset.n && rc == SB_OK; i++) {
        const struct sb_item *item = &arena->dataset.items[i];
        size_t earlier = 0;
        for (size_t k = 0; k < i; k++)
            earlier += strcmp(arena->dataset.items[k].task, item->task) == 0;
        if (per_task == 0 || earlier < per_task)
            rc = add_question(set, item, err);
    }
    for (size_t i = 0; i < arena->n_prompts && !arena->tokenizer && rc == SB_OK; i++) {
        rc = sb_tokens_push(&set->prompt[i], arena->prompt[i].id, arena->prompt[i].n, err);
        set->n++;
    }
    return rc;
}

struct plain_job {
    struct sb_greedy_set *set;
    enum sb_status *status;
    struct sb_error *err;
};

static void decode_one(void *self, size_t i)
{
    struct plain_job *job = self;
    job->status[i] = decode_plainly(job->set, i, &job->err[i]);
}

static enum sb_status decode_all(struct sb_greedy_set *set, struct sb_error *err)
{
    struct plain_job job = { .set = set,
                             .status = sb_alloc_zero(set->n, sizeof *job.status),
                             .err = sb_alloc_zero(set->n, sizeof *job.err) };
    enum sb_status rc = SB_OK;
    if (!job.status || !job.err)
        rc = sb_fail(err, SB_ENOMEM, "out of memory for %zu questions", set->n);
    else
        sb_each(decode_one, &job, set->n);
    for (size_t i = 0; i < set->n && rc == SB_OK; i++) {
        rc = job.status[i];
        if (rc != SB_OK && err)
            *err = job.err[i];
    }
    sb_free(job.status);
    sb_free(job.err);
    return rc;
}

enum sb_status sb_greedy_set_make(struct sb_greedy_set *out, struct sb_arena *arena,
                                  size_t per_task, size_t length, struct sb_error *err)
{
    struct sb_greedy_set set = { .arena = arena, .length = length };
    size_t most = arena->tokenizer ? arena->dataset.n : arena->n_prompts;
    set.prompt = sb_alloc_zero(most, sizeof *set.prompt);
    set.plain = sb_alloc_zero(most, sizeof *set.plain);
    enum sb_status rc = set.prompt && set.plain
                            ? read_questions(&set, per_task, err)
                            : sb_fail(err, SB_ENOMEM, "out of memory for %zu questions", most);
    if (rc == SB_OK && set.n == 0)
        rc = sb_fail(err, SB_EINPUT, "model '%s': no question fits its context", arena->name);
    if (rc == SB_OK)
        rc = measure_epsilon(&set, err);
    if (rc == SB_OK)
        rc = decode_all(&set, err);
    if (rc == SB_OK)
        *out = set;
    else
        sb_greedy_set_finish(&set);
    return rc;
}

void sb_greedy_set_finish(struct sb_greedy_set *set)
{
    if (!set)
        return;
    for (size_t i = 0; i < set->n; i++) {
        sb_tokens_finish(&set->prompt[i]);
        sb_tokens_finish(&set->plain[i]);
    }
    sb_free(set->prompt);
    sb_free(set->plain);
    *set = (struct sb_greedy_set){ 0 };
}

/* ---- comparing ---- */

struct lane {
    const struct sb_greedy_set *set;
    struct sb_session *session;
    const volatile int *stop;
    struct sb_greedy sum;
    size_t first_different; /* question */
    enum sb_status status;
    struct sb_error err;
};

/* How far apart the two largest plain logits are after the prompt and plain[0..at). */
static enum sb_status top_gap(const struct sb_greedy_set *set, size_t i, size_t at, double *gap,
                              struct sb_error *err)
{
    const struct sb_tokens *prompt = &set->prompt[i], *plain = &set->plain[i];
    struct sb_seq *seq;
    size_t last, n_vocab = sb_model_config(set->arena->target)->n_vocab;
    enum sb_status rc = sb_seq_create(&seq, set->arena->target, prompt->n + at, BATCH, err);
    if (rc != SB_OK)
        return rc;
    rc = sb_seq_prefill(seq, prompt->id, prompt->n, NULL, 0, &last, err);
    if (rc == SB_OK && at > 0)
        rc = sb_seq_prefill(seq, plain->id, at, NULL, 0, &last, err);
    if (rc == SB_OK) {
        const float *logits = sb_seq_logits(seq, last);
        size_t best = sb_argmax(logits, n_vocab);
        *gap = INFINITY;
        for (size_t t = 0; t < n_vocab; t++)
            if (t != best)
                *gap = fmin(*gap, (double)logits[best] - (double)logits[t]);
    }
    sb_seq_destroy(seq);
    return rc;
}

static enum sb_status triage(struct lane *lane, size_t i, size_t at)
{
    double gap;
    enum sb_status rc = top_gap(lane->set, i, at, &gap, &lane->err);
    if (rc != SB_OK)
        return rc;
    const char *what = gap == 0                       ? "a tie"
                       : gap < 2 * lane->set->epsilon ? "a numerical tie"
                                                      : "real";
    lane->sum.ties += gap == 0;
    lane->sum.numerical += gap > 0 && gap < 2 * lane->set->epsilon;
    lane->sum.real += gap > 0 && !(gap < 2 * lane->set->epsilon);
    if (!lane->sum.note[0]) {
        lane->first_different = i;
        snprintf(lane->sum.note, sizeof lane->sum.note,
                 "question %zu differs from new token %zu on, where the top two logits are %g "
                 "apart: %s",
                 i + 1, at, gap, what);
    }
    return SB_OK;
}

static enum sb_status answer(struct lane *lane, size_t i)
{
    const struct sb_tokens *prompt = &lane->set->prompt[i], *plain = &lane->set->plain[i];
    struct sb_generation out;
    const struct sb_request request = { .prompt = prompt->id,
                                        .n_prompt = prompt->n,
                                        .max_new_tokens = lane->set->length,
                                        .stop = lane->stop };
    enum sb_status rc = sb_session_generate(lane->session, &request, &out, &lane->err);
    if (rc != SB_OK)
        return rc;
    if (out.finish == SB_FINISH_STOPPED) {
        sb_generation_finish(&out);
        return sb_fail(&lane->err, SB_EINTERRUPTED, "interrupted");
    }
    size_t at = 0, n = out.tokens.n < plain->n ? out.tokens.n : plain->n;
    while (at < n && out.tokens.id[at] == plain->id[at])
        at++;
    bool equal = at == out.tokens.n && at == plain->n;
    lane->sum.generations++;
    lane->sum.tokens += (int64_t)out.tokens.n;
    lane->sum.steps += out.steps;
    lane->sum.drafted += out.drafted;
    lane->sum.accepted += out.accepted;
    lane->sum.equal += equal;
    sb_generation_finish(&out);
    return equal ? SB_OK : triage(lane, i, at);
}

static void run_lane(void *self, size_t k)
{
    struct lane *lane = (struct lane *)self + k;
    for (size_t i = k; i < lane->set->n && lane->status == SB_OK; i += LANES)
        lane->status = answer(lane, i);
}

static void add(struct sb_greedy *to, const struct lane *lane, size_t *first_different)
{
    const struct sb_greedy *from = &lane->sum;
    to->generations += from->generations;
    to->tokens += from->tokens;
    to->equal += from->equal;
    to->ties += from->ties;
    to->numerical += from->numerical;
    to->real += from->real;
    to->steps += from->steps;
    to->drafted += from->drafted;
    to->accepted += from->accepted;
    if (from->note[0] && lane->first_different < *first_different) {
        *first_different = lane->first_different;
        memcpy(to->note, from->note, sizeof to->note);
    }
}

static size_t longest_prompt(const struct sb_greedy_set *set)
{
    size_t longest = 0;
    for (size_t i = 0; i < set->n; i++)
        longest = set->prompt[i].n > longest ? set->prompt[i].n : longest;
    return longest;
}

enum sb_status sb_greedy_run(struct sb_greedy *out, const struct sb_greedy_set *set,
                             const struct sb_session_options *options, const volatile int *stop,
                             struct sb_error *err)
{
    struct sb_session_options own = *options;
    struct lane lane[LANES] = { 0 };
    struct sb_greedy sum = { 0 };
    size_t first_different = SIZE_MAX;
    enum sb_status rc = SB_OK;
    own.sampling = (struct sb_sampling){ 0 };
    own.max_context = longest_prompt(set) + set->length;
    for (size_t k = 0; k < LANES && rc == SB_OK; k++) {
        lane[k] = (struct lane){ .set = set, .stop = stop };
        rc = sb_session_create(&lane[k].session, &own, err);
    }
    if (rc == SB_OK)
        sb_each(run_lane, lane, LANES);
    for (size_t k = 0; k < LANES; k++) {
        if (rc == SB_OK && lane[k].status != SB_OK) {
            rc = lane[k].status;
            if (err)
                *err = lane[k].err;
        }
        add(&sum, &lane[k], &first_different);
        sb_session_destroy(lane[k].session);
    }
    if (rc == SB_OK)
        *out = sum;
    return rc;
}
