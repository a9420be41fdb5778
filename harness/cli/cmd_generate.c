/* specbench generate: text on stdout, statistics on stderr. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>

#include "harness/cli/cli.h"
#include "harness/core/alloc.h"
#include "harness/decode/session.h"
#include "harness/experiment/models.h"
#include "harness/model/chat.h"

static const struct sb_usage usage = {
    .name = "generate",
    .examples =
        "  specbench generate --model tiny --prompt 'What is a token?' --drafter pld\n"
        "  specbench generate --model tiny --prompt 'Once' --template plain --temperature 0.8 --seed 7\n"
        "  specbench generate --model m.gguf --tokens '1 72 299' --max-new-tokens 24 --ignore-eos --format json\n",
    .synopsis = "specbench generate --model M (--prompt TEXT | --tokens IDS) [options]",
    .about =
        "Text goes to stdout as it comes, statistics to stderr. --format json prints one object with\n"
        "tokens, text, steps, accepted, mat, times. --prompt is put into the model's chat template;\n"
        "--template plain leaves it as it is.",
};

struct options {
    const char *model, *prompt, *tokens, *drafter, *verifier, *policy, *chat, *format;
    int64_t max_new_tokens, max_context, seed, top_k, threads;
    double temperature, top_p;
    bool ignore_eos;
    struct sb_arithmetic_texts arithmetic;
};

struct stream {
    const struct sb_tokenizer *tok;
    struct sb_tokens so_far;
    size_t written; /* bytes of their text already on stdout */
    bool on;
};

/* Print what the new tokens add; a character cut in two waits for its rest. */
static void on_tokens(void *self, const sb_token *tokens, size_t n)
{
    struct stream *s = self;
    char *text;
    size_t length;
    if (!s->on || sb_tokens_push(&s->so_far, tokens, n, NULL) != SB_OK ||
        sb_tokenizer_decode(s->tok, &text, &length, s->so_far.id, s->so_far.n, false, NULL) !=
            SB_OK)
        return;
    size_t whole = length;
    while (whole > 0 && length - whole < 3 && ((unsigned char)text[whole - 1] & 0xC0) == 0x80)
        whole--;
    if (whole > 0 && ((unsigned char)text[whole - 1] & 0xC0) == 0xC0)
        whole--; /* a lead byte: complete characters are printed with the next token */
    if (whole > s->written) {
        fwrite(text + s->written, 1, whole - s->written, stdout);
        fflush(stdout);
        s->written = whole;
    }
    sb_free(text);
}

static enum sb_status encode(struct sb_tokens *out, const struct options *o, struct sb_model *model,
                             const struct sb_tokenizer *tok, struct sb_error *err)
{
    if (o->tokens) {
        enum sb_status rc = sb_cli_parse_ids(&out->id, &out->n, o->tokens, "--tokens", err);
        return rc == SB_OK && out->n == 0 ? sb_fail(err, SB_EUSAGE, "--tokens names no token") : rc;
    }
    if (!tok)
        return sb_fail(err, SB_EINPUT, "model '%s' has no tokenizer; give --tokens", o->model);
    bool known;
    const struct sb_turn turn = { o->prompt, NULL };
    const char *chat =
        o->chat ? o->chat : sb_chat_recognise(sb_model_weights(model)->chat_template, &known);
    return sb_chat_encode(chat, tok, &turn, 1, out, err);
}

static enum sb_status print_json(const struct options *o, const struct sb_generation *g,
                                 const struct sb_session *session, const struct sb_tokens *prompt,
                                 const char *text, struct sb_error *err)
{
    json_t *tokens = json_array();
    for (size_t i = 0; i < g->tokens.n; i++)
        json_array_append_new(tokens, json_integer(g->tokens.id[i]));
    json_t *root = json_pack(
        "{s:o, s:s%, s:s, s:i, s:i, s:i, s:i, s:f, s:s, s:s, s:I, s:I, s:I}", "tokens", tokens,
        "text", text ? text : "", text ? strlen(text) : 0, "finish", sb_finish_name(g->finish),
        "prompt_tokens", (int)prompt->n, "steps", g->steps, "drafted", g->drafted, "accepted",
        g->accepted, "mat", g->steps ? (double)g->step_tokens / g->steps : 0.0, "drafter",
        sb_session_drafter(session)->name, "verifier", sb_session_verifier(session)->name,
        "prefill_ns", (json_int_t)g->prefill_ns, "decode_ns", (json_int_t)g->decode_ns, "seed",
        (json_int_t)o->seed);
    if (!root) { /* bytes that are no UTF-8: the ids say what they are */
        return sb_fail(err, SB_EINTERNAL, "the generated text cannot be written as JSON");
    }
    int failed = json_dumpf(root, stdout, JSON_COMPACT);
    putchar('\n');
    json_decref(root);
    return failed ? sb_fail(err, SB_EIO, "standard output: cannot be written") : SB_OK;
}

/* Replace every byte that is not part of valid UTF-8 by U+FFFD, as JSON can hold no other. */
static char *valid_utf8(const char *text, size_t n)
{
    char *out = sb_alloc_array(n + 1, 3), *to = out;
    for (size_t i = 0; out && i < n;) {
        unsigned char c = (unsigned char)text[i];
        size_t size = c < 0x80         ? 1
                      : (c >> 5) == 6  ? 2
                      : (c >> 4) == 14 ? 3
                      : (c >> 3) == 30 ? 4
                                       : 0;
        json_t *probe = size && i + size <= n ? json_stringn(text + i, size) : NULL;
        if (probe && c) {
            memcpy(to, text + i, size);
            to += size;
            i += size;
        } else {
            memcpy(to, "\xEF\xBF\xBD", 3);
            to += 3;
            i++;
        }
        json_decref(probe);
    }
    if (out)
        *to = '\0';
    return out;
}

static void print_statistics(const struct sb_generation *g, const struct sb_session *session)
{
    double decode_s = (double)g->decode_ns * 1e-9;
    fprintf(
        stderr,
        "%zu tokens (%s), prefill %.1f ms, decode %.1f tokens/s, %d steps, MAT %.2f, accepted %d of "
        "%d drafted; drafter %s, verifier %s (%s)\n",
        g->tokens.n, sb_finish_name(g->finish), (double)g->prefill_ns * 1e-6,
        decode_s > 0 ? g->step_tokens / decode_s : 0.0, g->steps,
        g->steps ? (double)g->step_tokens / g->steps : 0.0, g->accepted, g->drafted,
        sb_session_drafter(session)->name, sb_session_verifier(session)->name,
        sb_guarantee_name(sb_session_guarantee(session)));
}

static enum sb_status print_result(const struct options *o, const struct sb_generation *g,
                                   const struct sb_session *session, const struct stream *stream,
                                   const struct sb_tokens *prompt, struct sb_error *err)
{
    char *text = NULL;
    size_t length = 0;
    enum sb_status rc = SB_OK;
    if (stream->tok)
        rc =
            sb_tokenizer_decode(stream->tok, &text, &length, g->tokens.id, g->tokens.n, false, err);
    if (rc == SB_OK && strcmp(o->format, "json") == 0) {
        char *utf8 = text ? valid_utf8(text, length) : NULL;
        rc = print_json(o, g, session, prompt, utf8, err);
        sb_free(utf8);
    } else if (rc == SB_OK) {
        if (text)
            fwrite(text + stream->written, 1, length - stream->written, stdout);
        for (size_t i = 0; !text && i < g->tokens.n; i++)
            printf("%s%d", i ? " " : "", g->tokens.id[i]);
        putchar('\n');
        print_statistics(g, session);
    }
    sb_free(text);
    return rc == SB_OK ? sb_cli_flush(err) : rc;
}

static enum sb_status parse_spec(struct sb_spec *out, const char *text, struct sb_error *err)
{
    *out = (struct sb_spec){ 0 };
    return text ? sb_spec_parse(out, text, err) : SB_OK;
}

static enum sb_status generate(const struct options *o, struct sb_error *err)
{
    struct sb_spec drafter = { 0 }, verifier = { 0 }, policy = { 0 };
    struct sb_session *session = NULL;
    struct sb_model *model;
    struct sb_generation out = { 0 };
    struct sb_tokens prompt = { 0 };
    struct stream stream = { 0 };
    struct sb_models *models = sb_models_create();
    enum sb_status rc = models ? sb_cli_set_arithmetic(models, &o->arithmetic, err)
                               : sb_fail(err, SB_ENOMEM, "out of memory");
    if (rc == SB_OK)
        rc = sb_models_get(models, o->model, &model, &stream.tok, err);
    if (rc == SB_OK)
        rc = parse_spec(&drafter, o->drafter, err);
    if (rc == SB_OK)
        rc = parse_spec(&verifier, o->verifier, err);
    if (rc == SB_OK)
        rc = parse_spec(&policy, o->policy, err);
    if (rc == SB_OK)
        rc = encode(&prompt, o, model, stream.tok, err);
    if (rc == SB_OK) {
        const struct sb_session_options options = {
            .target = model,
            .tokenizer = stream.tok,
            .drafter = drafter.name ? &drafter : NULL,
            .verifier = verifier.name ? &verifier : NULL,
            .policy = policy.name ? &policy : NULL,
            .sampling = { o->temperature, (size_t)o->top_k, o->top_p },
            .max_context = (size_t)o->max_context,
            .ignore_eos = o->ignore_eos,
            .load_model = sb_models_load,
            .loader = models,
        };
        rc = sb_session_create(&session, &options, err);
    }
    if (rc == SB_OK) {
        stream.on = stream.tok && strcmp(o->format, "json") != 0 && isatty(STDOUT_FILENO);
        const struct sb_request request = {
            .prompt = prompt.id,
            .n_prompt = prompt.n,
            .max_new_tokens = (size_t)o->max_new_tokens,
            .rng_key = sb_rng_mix((uint64_t)o->seed, 0),
            .on_tokens = on_tokens,
            .self = &stream,
            .stop = sb_cli_stop_flag(),
        };
        rc = sb_session_generate(session, &request, &out, err);
    }
    if (rc == SB_OK)
        rc = print_result(o, &out, session, &stream, &prompt, err);
    if (rc == SB_OK && out.finish == SB_FINISH_STOPPED)
        rc = sb_fail(err, SB_EINTERRUPTED, "interrupted after %zu tokens", out.tokens.n);
    sb_tokens_finish(&stream.so_far);
    sb_tokens_finish(&prompt);
    sb_generation_finish(&out);
    sb_session_destroy(session);
    sb_spec_finish(&drafter);
    sb_spec_finish(&verifier);
    sb_spec_finish(&policy);
    sb_models_destroy(models);
    return rc;
}

static enum sb_status check(const struct options *o, struct sb_error *err)
{
    if (!o->model)
        return sb_fail(err, SB_EUSAGE, "--model is missing; usage: %s", usage.synopsis);
    if (!o->prompt == !o->tokens)
        return sb_fail(err, SB_EUSAGE, "give either --prompt or --tokens; usage: %s",
                       usage.synopsis);
    if (strcmp(o->format, "text") != 0 && strcmp(o->format, "json") != 0)
        return sb_fail(err, SB_EUSAGE, "--format %s: expected text or json", o->format);
    return SB_OK;
}

int sb_cmd_generate(int argc, char **argv)
{
    struct options o = { .format = "text", .max_new_tokens = 128, .top_p = 1 };
    const struct sb_option options[] = {
        { "model", SB_OPT_TEXT, &o.model, "M", "a bundled name, a GGUF file or an HF directory", 0,
          0 },
        { "prompt", SB_OPT_TEXT, &o.prompt, "TEXT", "what to answer or go on from", 0, 0 },
        { "tokens", SB_OPT_TEXT, &o.tokens, "IDS", "the prompt as token ids, used as they are", 0,
          0 },
        { "template", SB_OPT_TEXT, &o.chat, "NAME", "chat template; default: the model's own", 0,
          0 },
        { "drafter", SB_OPT_TEXT, &o.drafter, "NAME[:k=v,...]", "default: none, plain decoding", 0,
          0 },
        { "verifier", SB_OPT_TEXT, &o.verifier, "NAME[:k=v,...]",
          "default: the strongest exact one", 0, 0 },
        { "policy", SB_OPT_TEXT, &o.policy, "NAME[:k=v,...]", "default: the drafter's", 0, 0 },
        { "max-new-tokens", SB_OPT_INT, &o.max_new_tokens, "N", "default 128", 1, 1048576 },
        { "max-context", SB_OPT_INT, &o.max_context, "N",
          "positions of the KV cache; 0: the model's own", 0, 1048576 },
        { "temperature", SB_OPT_NUMBER, &o.temperature, "X", "default 0: greedy", 0, 100 },
        { "top-k", SB_OPT_INT, &o.top_k, "N", "sample among the N most likely; 0: all", 0,
          1048576 },
        { "top-p", SB_OPT_NUMBER, &o.top_p, "X",
          "sample among the most likely of this mass; 1: all", 0, 1 },
        { "seed", SB_OPT_INT, &o.seed, "N", "default 0", 0, 9e15 },
        { "ignore-eos", SB_OPT_FLAG, &o.ignore_eos, NULL, "go on after an end token", 0, 0 },
        SB_ARITHMETIC_OPTIONS(o.arithmetic),
        { "threads", SB_OPT_INT, &o.threads, "N", "default: the physical cores", 1, 1024 },
        { "format", SB_OPT_TEXT, &o.format, "text|json", "default text", 0, 0 },
        { 0 },
    };
    struct sb_error err;
    bool helped;
    enum sb_status rc = sb_options_parse(argc, argv, &usage, options, NULL, &helped, &err);
    if (rc == SB_OK && helped)
        return 0;
    if (rc == SB_OK)
        rc = check(&o, &err);
    if (rc == SB_OK)
        rc = sb_cli_set_threads(o.threads, &err);
    if (rc == SB_OK)
        rc = generate(&o, &err);
    return rc == SB_OK ? 0 : sb_cli_fail("generate", &err);
}
