#include "harness/experiment/experiment.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>
#include <xxhash.h>

#include "datasets/dataset.h"
#include "harness/core/alloc.h"
#include "harness/core/clock.h"
#include "harness/decode/session.h"
#include "harness/experiment/cost_curve.h"
#include "harness/experiment/host.h"
#include "harness/experiment/progress.h"
#include "harness/experiment/recorder.h"
#include "harness/model/chat.h"

/* Nothing a dataset holds, so that no drafter has seen a measured prompt. */
static const char warm_up_text[] = "Name three colours and say one sentence about each of them.";
enum { WARM_UP_TOKENS = 12 };

struct arm {
    const struct sb_arm_plan *plan;
    struct sb_session *session;
    int64_t id;
    char **answer; /* [most turns of a question] of the question at hand, owned; NULL: failed */
};

/* The documents of a question as tokens. */
struct documents {
    const struct sb_item *item;
    struct sb_tokens tokens; /* all of them */
    struct sb_document *at;
    size_t n, cap;
};

struct run {
    const struct sb_plan *plan;
    struct sb_models *models;
    struct sb_store *store;
    const struct sb_run_options *options;
    struct sb_run_result *result;
    struct sb_model *target;
    const struct sb_tokenizer *tokenizer;
    const char *chat;
    struct sb_arithmetic arithmetic;
    struct sb_dataset dataset;
    struct arm *arm;
    size_t n_arms, baseline, most_turns;
    size_t *order; /* [n_arms] */
    struct sb_turn *turns;
    struct documents documents; /* of the question at hand */
    struct sb_recorder recorder;
    struct sb_progress progress;
    int order_no;
    int64_t host_id, model_id;
};

/* ---- setting up ---------------------------------------------------------------------------- */

static enum sb_status open_inputs(struct run *r, struct sb_error *err)
{
    const struct sb_settings *s = &r->plan->settings;
    enum sb_status rc = sb_dataset_open(&r->dataset, s->dataset, err);
    if (rc == SB_OK)
        rc = sb_dataset_select(&r->dataset, s->tasks, (size_t)s->take, err);
    if (rc == SB_OK)
        rc = sb_arithmetic_parse(&r->arithmetic, &s->arithmetic, err);
    if (rc == SB_OK)
        rc = sb_models_set_arithmetic(r->models, &r->arithmetic, err);
    if (rc == SB_OK)
        rc = sb_models_get(r->models, s->target, &r->target, &r->tokenizer, err);
    if (rc == SB_OK && !r->tokenizer)
        rc = sb_fail(err, SB_EINPUT, "model '%s' has no tokenizer, so it cannot read prompts",
                     s->target);
    if (rc != SB_OK)
        return rc;
    bool known;
    r->chat = sb_chat_recognise(sb_model_weights(r->target)->chat_template, &known);
    if (!s->chat_template)
        return SB_OK;
    for (size_t i = 0; sb_chat_names[i]; i++) {
        if (strcmp(sb_chat_names[i], s->chat_template) == 0) {
            r->chat = sb_chat_names[i];
            return SB_OK;
        }
    }
    return sb_fail(err, SB_EUSAGE,
                   "template '%s' is not known; there are plain, vicuna, llama-2, "
                   "llama-3, chatml, specbench",
                   s->chat_template);
}

static enum sb_status open_arm(struct run *r, struct arm *arm, struct sb_error *err)
{
    const struct sb_arm_plan *plan = arm->plan;
    const struct sb_session_options options = {
        .target = r->target,
        .tokenizer = r->tokenizer,
        .drafter = &plan->drafter,
        .verifier = plan->verifier.name ? &plan->verifier : NULL,
        .policy = plan->policy.name ? &plan->policy : NULL,
        .sampling = sb_plan_sampling(r->plan),
        .max_context = (size_t)r->plan->settings.max_context,
        .ignore_eos = r->plan->settings.ignore_eos,
        .load_model = sb_models_load,
        .loader = r->models,
        .uses = sb_models_uses,
    };
    arm->answer = sb_alloc_zero(r->most_turns, sizeof *arm->answer);
    if (!arm->answer)
        return sb_fail(err, SB_ENOMEM, "out of memory for arm '%s'", plan->label);
    return sb_session_create(&arm->session, &options, err);
}

static enum sb_status open_arms(struct run *r, struct sb_error *err)
{
    for (size_t i = 0; i < r->dataset.n; i++)
        if (r->dataset.items[i].n_turns > r->most_turns)
            r->most_turns = r->dataset.items[i].n_turns;
    r->arm = sb_alloc_zero(r->plan->n_arms, sizeof *r->arm);
    r->order = sb_alloc_array(r->plan->n_arms, sizeof *r->order);
    r->turns = sb_alloc_zero(r->most_turns, sizeof *r->turns);
    if (!r->arm || !r->order || !r->turns)
        return sb_fail(err, SB_ENOMEM, "out of memory for %zu arms", r->plan->n_arms);
    r->n_arms = r->plan->n_arms;
    for (size_t i = r->n_arms; i-- > 0;) {
        r->arm[i].plan = &r->plan->arm[i];
        if (strcmp(r->plan->arm[i].drafter.name, "none") == 0)
            r->baseline = i; /* the first one: the loop goes down */
    }
    for (size_t i = 0; i < r->n_arms; i++) {
        enum sb_status rc = open_arm(r, &r->arm[i], err);
        if (rc != SB_OK)
            return sb_fail_context(err, rc, "arm '%s'", r->arm[i].plan->label);
    }
    return SB_OK;
}

static void close_run(struct run *r)
{
    for (size_t i = 0; i < r->n_arms; i++) {
        sb_session_destroy(r->arm[i].session);
        for (size_t t = 0; r->arm[i].answer && t < r->most_turns; t++)
            sb_free(r->arm[i].answer[t]);
        sb_free(r->arm[i].answer);
    }
    sb_free(r->arm);
    sb_free(r->order);
    sb_free(r->turns);
    sb_tokens_finish(&r->documents.tokens);
    sb_free(r->documents.at);
    sb_recorder_finish(&r->recorder);
    sb_dataset_finish(&r->dataset);
}

/* ---- what identifies the run ------------------------------------------------------------------ */

static const char *params_text(const struct sb_spec *spec, char **owned)
{
    *owned = spec->name && spec->n ? sb_spec_text(spec) : NULL;
    return *owned ? strchr(*owned, ':') + 1 : "";
}

static char *hex(uint64_t value, char text[17])
{
    snprintf(text, 17, "%016" PRIx64, value);
    return text;
}

static json_t *end_tokens(const struct run *r)
{
    const sb_token *eos;
    size_t n = sb_session_eos(r->arm[0].session, &eos);
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(list, json_integer(eos[i]));
    return list;
}

/* Everything that decides results, as JSON with sorted keys. New memory (sb_free), NULL on failure. */
static char *describe_run(const struct run *r, const struct sb_host *host)
{
    const struct sb_settings *s = &r->plan->settings;
    char target[17], tokenizer[17];
    json_t *arms = json_array();
    for (size_t i = 0; i < r->n_arms; i++) {
        const struct sb_arm_plan *p = r->arm[i].plan;
        char *own[3];
        const struct sb_spec *specs[] = { &p->drafter, &p->verifier, &p->policy };
        json_t *arm = json_object();
        static const char *const names[] = { "drafter", "verifier", "policy" };
        for (size_t k = 0; k < 3; k++) {
            own[k] = specs[k]->name ? sb_spec_text(specs[k]) : NULL;
            json_object_set_new(arm, names[k], own[k] ? json_string(own[k]) : json_null());
            sb_free(own[k]);
        }
        json_object_set_new(arm, "label", json_string(p->label));
        json_array_append_new(arms, arm);
    }
    json_t *root = json_pack(
        "{s:s, s:s, s:s, s:s, s:s?, s:I, s:I, s:I, s:I, s:I, s:f, s:I, s:f, s:b, s:s, s:s, s:s, s:o}",
        "name", s->name, "target_hash", hex(sb_model_weights(r->target)->content_hash, target),
        "tokenizer_hash", hex(sb_tokenizer_hash(r->tokenizer), tokenizer), "dataset_hash",
        r->dataset.hash, "tasks", s->tasks, "take", (json_int_t)s->take, "seed",
        (json_int_t)s->seed, "repeats", (json_int_t)s->repeats, "max_new_tokens",
        (json_int_t)s->max_new_tokens, "max_context", (json_int_t)s->max_context, "temperature",
        s->temperature, "top_k", (json_int_t)s->top_k, "top_p", s->top_p, "ignore_eos",
        s->ignore_eos, "template", r->chat, "answers", s->answers, "arithmetic",
        sb_arithmetic_text(&r->arithmetic), "arms", arms);
    if (root) {
        bool documents = false; /* they are in no table; a replay has to do without */
        for (size_t i = 0; i < r->dataset.n; i++)
            documents = documents || r->dataset.items[i].n_documents > 0;
        json_object_set_new(root, "documents", json_boolean(documents));
        json_object_set_new(root, "eos", end_tokens(r));
        json_object_set_new(root, "files", sb_models_hashes(r->models));
        const struct sb_host_row *h = &host->row;
        json_object_set_new(root, "host",
                            json_pack("{s:s, s:s, s:s, s:i, s:s, s:s}", "hostname", h->hostname,
                                      "cpu", h->cpu, "isa", h->isa, "threads", h->threads,
                                      "version", h->specbench_version, "commit", h->commit));
    }
    char *text = root ? json_dumps(root, JSON_SORT_KEYS | JSON_COMPACT) : NULL;
    char *copy = text ? sb_strdup(text) : NULL;
    free(text);
    json_decref(root);
    return copy;
}

/* What an arm learned from prompts that are done is gone, so it would go on as no whole run does. */
static enum sb_status check_resumable(const struct run *r, struct sb_error *err)
{
    for (size_t i = 0; i < r->n_arms; i++)
        if (sb_session_keeps_run(r->arm[i].session))
            return sb_fail(
                err, SB_EUSAGE,
                "arm '%s' learns over the run (scope=run), so a resumed run would differ "
                "from a whole one; run it again without --resume, or with another scope",
                r->arm[i].plan->label);
    return SB_OK;
}

/* A run's key is the hash of all that decides its results, and a part of its own, so that the same
 * command may run again, even twice at once. --resume takes the newest run with that hash. */
static enum sb_status choose_run(struct run *r, const char *spec, char key[SB_KEY_BYTES],
                                 struct sb_error *err)
{
    char hash[18];
    int64_t n_done = 0;
    snprintf(hash, sizeof hash, "%016" PRIx64 "-", XXH64(spec, strlen(spec), 0));
    key[0] = '\0';
    enum sb_status rc =
        r->options->resume ? sb_store_newest_run(r->store, hash, key, &n_done, err) : SB_OK;
    if (rc == SB_OK && !key[0]) {
        if (r->options->resume && !r->options->quiet)
            fputs(
                "specbench run: there is no earlier run of this experiment to resume; starting it\n",
                stderr);
        snprintf(key, SB_KEY_BYTES, "%s%016" PRIx64, hash,
                 sb_rng_mix(sb_now_ns(), (uint64_t)getpid()));
    }
    r->result->resumed = n_done;
    return rc == SB_OK && n_done > 0 && n_done < r->result->planned ? check_resumable(r, err) : rc;
}

static enum sb_status store_arm(struct run *r, size_t i, struct sb_error *err)
{
    const struct sb_arm_plan *p = r->arm[i].plan;
    char *drafter, *verifier, *policy;
    const struct sb_arm_row row = {
        .experiment_id = r->result->experiment_id,
        .arm_no = (int)i,
        .label = p->label,
        .drafter = p->drafter.name,
        .drafter_params = params_text(&p->drafter, &drafter),
        .verifier = sb_session_verifier(r->arm[i].session)->name,
        .verifier_params = params_text(&p->verifier, &verifier),
        .policy = sb_session_policy(r->arm[i].session)->name,
        .policy_params = params_text(&p->policy, &policy),
        .guarantee = sb_guarantee_name(sb_session_guarantee(r->arm[i].session)),
        .is_baseline = i == r->baseline && strcmp(p->drafter.name, "none") == 0,
    };
    enum sb_status rc = sb_store_arm(r->store, &row, &r->arm[i].id, err);
    sb_free(drafter);
    sb_free(verifier);
    sb_free(policy);
    return rc;
}

static enum sb_status store_setup(struct run *r, struct sb_error *err)
{
    const struct sb_settings *s = &r->plan->settings;
    struct sb_host host;
    struct sb_experiment_row row = {
        .name = s->name,
        .script = r->options->script,
        .dataset = r->dataset.name,
        .dataset_hash = r->dataset.hash,
        .chat_template = r->chat,
        .conversation = s->answers,
        .seed = s->seed,
        .repeats = s->repeats,
        .max_new_tokens = s->max_new_tokens,
        .temperature = s->temperature,
        .top_p = s->top_p,
        .top_k = s->top_k,
        .ignore_eos = s->ignore_eos,
        .arithmetic = sb_arithmetic_text(&r->arithmetic),
    };
    char key[SB_KEY_BYTES];
    sb_host_describe(&host);
    char *spec = describe_run(r, &host);
    enum sb_status rc = spec ? choose_run(r, spec, key, err)
                             : sb_fail(err, SB_ENOMEM, "out of memory for the experiment");
    row.spec_json = spec;
    row.content_key = key;
    if (rc == SB_OK)
        rc = sb_store_host(r->store, &host.row, &row.host_id, err);
    if (rc == SB_OK)
        rc = sb_models_store(r->store, s->target, r->target, r->tokenizer, &row.target_model_id,
                             err);
    if (rc == SB_OK)
        rc = sb_store_experiment(r->store, &row, &r->result->experiment_id, err);
    for (size_t i = 0; i < r->n_arms && rc == SB_OK; i++)
        rc = store_arm(r, i, err);
    sb_free(spec);
    r->host_id = row.host_id;
    r->model_id = row.target_model_id;
    return rc;
}

/* ---- running -------------------------------------------------------------------------------- */

/* Earlier answers in a prompt are stripped of surrounding white space, as Spec-Bench does. */
static void strip(char *text)
{
    size_t from = strspn(text, " \t\r\n"), n = strlen(text);
    while (n > from && strchr(" \t\r\n", text[n - 1]))
        n--;
    memmove(text, text + from, n - from);
    text[n - from] = '\0';
}

static enum sb_status keep_answer(struct run *r, struct arm *arm, size_t turn,
                                  const sb_token *tokens, size_t n, char **raw,
                                  struct sb_error *err)
{
    char *text;
    size_t length;
    enum sb_status rc = sb_tokenizer_decode(r->tokenizer, &text, &length, tokens, n, false, err);
    if (rc != SB_OK)
        return rc;
    if (raw)
        *raw = sb_strdup(text);
    strip(text);
    sb_free(arm->answer[turn]);
    arm->answer[turn] = text;
    return SB_OK;
}

/* Whose earlier answers this arm's later turns follow. */
static struct arm *answering_arm(struct run *r, struct arm *arm)
{
    return strcmp(r->plan->settings.answers, "own") == 0 ? arm : &r->arm[r->baseline];
}

static enum sb_status encode_prompt(struct run *r, struct arm *arm, const struct sb_item *item,
                                    size_t turn, struct sb_tokens *prompt, struct sb_error *err)
{
    struct arm *from = answering_arm(r, arm);
    for (size_t t = 0; t <= turn; t++) {
        r->turns[t] = (struct sb_turn){ item->turns[t], t < turn ? from->answer[t] : NULL };
        if (t < turn && !from->answer[t])
            return sb_fail(err, SB_EINPUT, "turn %zu has no answer of arm '%s' to follow", t + 1,
                           from->plan->label);
    }
    return sb_chat_encode(r->chat, r->tokenizer, r->turns, turn + 1, prompt, err);
}

static enum sb_status encode_documents(struct run *r, const struct sb_item *item,
                                       struct sb_error *err)
{
    struct documents *d = &r->documents;
    if (d->item == item)
        return SB_OK;
    d->item = NULL;
    d->tokens.n = d->n = 0;
    if (sb_grow((void **)&d->at, &d->cap, item->n_documents + 1, sizeof *d->at) != 0)
        return sb_fail(err, SB_ENOMEM, "out of memory for %zu documents", item->n_documents);
    for (size_t i = 0; i < item->n_documents; i++) {
        size_t before = d->tokens.n;
        enum sb_status rc = sb_tokenizer_encode(r->tokenizer, &d->tokens, item->documents[i],
                                                strlen(item->documents[i]), SB_ENCODE_PLAIN, err);
        if (rc != SB_OK)
            return rc;
        d->at[d->n++].n = d->tokens.n - before;
    }
    for (size_t i = 0, from = 0; i < d->n; from += d->at[i++].n)
        d->at[i].tokens = d->tokens.id + from;
    d->item = item;
    return SB_OK;
}

static enum sb_status generate(struct run *r, struct arm *arm, const struct sb_item *item,
                               size_t turn, int repeat, struct sb_generation_row *row,
                               struct sb_tokens *prompt, struct sb_generation *out,
                               struct sb_error *err)
{
    uint64_t key =
        sb_rng_mix(sb_rng_mix((uint64_t)r->plan->settings.seed, (uint64_t)item->question_id),
                   (uint64_t)repeat << 16 | turn);
    enum sb_status rc = encode_prompt(r, arm, item, turn, prompt, err);
    if (rc == SB_OK)
        rc = encode_documents(r, item, err);
    if (rc != SB_OK)
        return rc;
    const struct sb_request request = {
        .prompt = prompt->id,
        .n_prompt = prompt->n,
        .max_new_tokens = (size_t)r->plan->settings.max_new_tokens,
        .rng_key = key,
        .documents = r->documents.at,
        .n_documents = r->documents.n,
        .conversation = sb_conversation_of(item->question_id, repeat),
        .on_step = sb_recorder_on_step,
        .self = &r->recorder,
        .stop = r->options->stop,
    };
    sb_recorder_reset(&r->recorder);
    r->recorder.diagnose = r->plan->settings.diagnose;
    uint64_t start = sb_now_ns();
    rc = sb_session_generate(arm->session, &request, out, err);
    row->wall_ns = (int64_t)(sb_now_ns() - start);
    return rc == SB_OK ? sb_recorder_give(&r->recorder, row, err) : rc;
}

static double load_average(void)
{
    double load = 0;
    return getloadavg(&load, 1) == 1 ? load : -1;
}

/* One generation: run it and store its row, a failure as a row with its status. */
static enum sb_status run_one(struct run *r, struct arm *arm, const struct sb_item *item,
                              size_t turn, int repeat, int64_t prompt_id, struct sb_error *err)
{
    char started[21];
    struct sb_tokens prompt = { 0 };
    struct sb_generation out = { 0 };
    struct sb_error why = { 0 };
    char *text = NULL;
    sb_utc_text(started);
    struct sb_generation_row row = {
        .arm_id = arm->id,
        .prompt_id = prompt_id,
        .repeat = repeat,
        .status = "ok",
        .order_no = r->order_no++,
        .load_average = load_average(),
        .started_at = started,
    };
    enum sb_status rc = generate(r, arm, item, turn, repeat, &row, &prompt, &out, &why);
    if (rc == SB_OK && out.finish == SB_FINISH_STOPPED) {
        rc = sb_fail(err, SB_EINTERRUPTED, "interrupted");
        goto done; /* a prompt that was not finished leaves no row */
    }
    if (rc == SB_OK)
        rc = keep_answer(r, arm, turn, out.tokens.id, out.tokens.n, &text, &why);
    if (rc != SB_OK) {
        row.status = "error";
        row.error = why.message;
        row.n_steps = 0;
        r->result->errors++;
        sb_free(arm->answer[turn]);
        arm->answer[turn] = NULL;
    } else {
        row.finish = sb_finish_name(out.finish);
        row.tokens = out.tokens.id;
        row.n_tokens = out.tokens.n;
        row.text = text;
        row.prefill_ns = (int64_t)out.prefill_ns;
        row.decode_ns = (int64_t)out.decode_ns;
    }
    row.prompt_tokens = prompt.id;
    row.n_prompt_tokens = prompt.n;
    rc = sb_store_generation(r->store, &row, err);
    r->result->done += rc == SB_OK;
done:
    sb_free(text);
    sb_tokens_finish(&prompt);
    sb_generation_finish(&out);
    return rc;
}

static enum sb_status run_or_resume(struct run *r, struct arm *arm, const struct sb_item *item,
                                    size_t turn, int repeat, int64_t prompt_id,
                                    struct sb_error *err)
{
    bool found = false;
    int32_t *tokens = NULL;
    size_t n = 0;
    if (r->options->stop && *r->options->stop)
        return sb_fail(err, SB_EINTERRUPTED, "interrupted");
    enum sb_status rc = r->options->resume
                            ? sb_store_find_generation(r->store, arm->id, prompt_id, repeat, &found,
                                                       &tokens, &n, err)
                            : SB_OK;
    if (rc == SB_OK && found)
        rc = keep_answer(r, arm, turn, tokens, n, NULL, err);
    else if (rc == SB_OK)
        rc = run_one(r, arm, item, turn, repeat, prompt_id, err);
    sb_free(tokens);
    if (rc == SB_OK && !found) {
        char note[160];
        snprintf(note, sizeof note, "%s %" PRId64 " %s", item->task, item->question_id,
                 arm->plan->label);
        sb_progress_advance(&r->progress, note);
    }
    return rc;
}

static enum sb_status store_prompt(struct run *r, const struct sb_item *item, size_t turn,
                                   int64_t *id, struct sb_error *err)
{
    const struct sb_prompt_row row = {
        .experiment_id = r->result->experiment_id,
        .question_id = item->question_id,
        .task = item->task,
        .category = item->category,
        .turn = (int)turn + 1,
        .text = item->turns[turn],
        .n_turns = (int64_t)item->n_turns,
    };
    return sb_store_prompt(r->store, &row, id, err);
}

/* All prompts before the first is answered, so that an interrupted run shows what it did not reach. */
static enum sb_status store_prompts(struct run *r, struct sb_error *err)
{
    enum sb_status rc = SB_OK;
    int64_t id;
    for (size_t i = 0; i < r->dataset.n && rc == SB_OK; i++)
        for (size_t t = 0; t < r->dataset.items[i].n_turns && rc == SB_OK; t++)
            rc = store_prompt(r, &r->dataset.items[i], t, &id, err);
    return rc;
}

static enum sb_status run_turn(struct run *r, const struct sb_item *item, size_t turn, int repeat,
                               struct sb_error *err)
{
    int64_t prompt_id;
    enum sb_status rc = store_prompt(r, item, turn, &prompt_id, err);
    struct sb_rng rng = sb_rng_make((uint64_t)r->plan->settings.seed, SB_STREAM_ORDER);
    sb_rng_seek(&rng, sb_rng_mix((uint64_t)item->question_id, (uint64_t)repeat << 16 | turn));
    for (size_t i = 0; i < r->n_arms; i++)
        r->order[i] = i;
    sb_rng_shuffle(&rng, r->order, r->n_arms);
    for (size_t i = 0; i < r->n_arms && rc == SB_OK; i++)
        rc = run_or_resume(r, &r->arm[r->order[i]], item, turn, repeat, prompt_id, err);
    return rc;
}

/* Arms that learn over the run take plain steps: they meet the first prompt as others do. */
static void warm_up(struct run *r)
{
    const struct sb_turn turn = { warm_up_text, NULL };
    struct sb_tokens prompt = { 0 };
    if (sb_chat_encode(r->chat, r->tokenizer, &turn, 1, &prompt, NULL) != SB_OK)
        return;
    for (size_t i = 0; i < r->n_arms; i++) {
        struct sb_generation out = { 0 };
        const struct sb_request request = { .prompt = prompt.id,
                                            .n_prompt = prompt.n,
                                            .max_new_tokens = WARM_UP_TOKENS,
                                            .plain = sb_session_keeps_run(r->arm[i].session),
                                            .stop = r->options->stop };
        /* A failure here shows again, and is recorded, at the first prompt. */
        if (sb_session_generate(r->arm[i].session, &request, &out, NULL) == SB_OK)
            sb_generation_finish(&out);
    }
    sb_tokens_finish(&prompt);
}

static enum sb_status run_all(struct run *r, struct sb_error *err)
{
    enum sb_status rc = SB_OK;
    sb_progress_start(&r->progress, r->options->quiet, r->result->planned, r->result->resumed);
    warm_up(r);
    for (int repeat = 0; repeat < (int)r->plan->settings.repeats && rc == SB_OK; repeat++)
        for (size_t i = 0; i < r->dataset.n && rc == SB_OK; i++)
            for (size_t t = 0; t < r->dataset.items[i].n_turns && rc == SB_OK; t++)
                rc = run_turn(r, &r->dataset.items[i], t, repeat, err);
    sb_progress_end(&r->progress);
    return rc;
}

enum sb_status sb_experiment_run(const struct sb_plan *plan, struct sb_models *models,
                                 struct sb_store *store, const struct sb_run_options *options,
                                 struct sb_run_result *result, struct sb_error *err)
{
    struct run r = {
        .plan = plan, .models = models, .store = store, .options = options, .result = result
    };
    *result = (struct sb_run_result){ 0 };
    enum sb_status rc = open_inputs(&r, err);
    if (rc == SB_OK)
        rc = open_arms(&r, err);
    for (size_t i = 0; i < r.dataset.n; i++)
        result->planned +=
            (int64_t)(r.dataset.items[i].n_turns * plan->n_arms) * plan->settings.repeats;
    if (rc == SB_OK && !options->dry_run)
        rc = store_setup(&r, err);
    if (rc == SB_OK && !options->dry_run && plan->settings.cost_curve)
        rc = sb_curve_store(
            store, r.target, r.host_id, r.model_id, sb_arithmetic_text(&r.arithmetic),
            (double)result->planned * (double)plan->settings.max_new_tokens, options->stop, err);
    if (rc == SB_OK && !options->dry_run)
        rc = store_prompts(&r, err);
    if (rc == SB_OK && !options->dry_run)
        rc = run_all(&r, err);
    close_run(&r);
    return rc;
}
