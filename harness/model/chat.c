#include "harness/model/chat.h"

#include <string.h>

#include "harness/core/alloc.h"

const char *const sb_chat_names[] = { "plain",   "specbench", "vicuna", "llama-2",
                                      "llama-3", "chatml",    NULL };

/* FastChat's vicuna_v1.1, which Spec-Bench uses for every model. */
static const char vicuna_system[] =
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the user's questions. ";

/* What goes around the turns. Special tokens in these texts become ids; users' text never does. */
struct format {
    const char *name;
    const char *marks[3];     /* texts that together tell a template of this format */
    const char *system;       /* once, in front */
    const char *before_user;  /* before each user's text */
    const char *before_reply; /* behind it: asks for the answer */
    const char *reply_gap;    /* between that and an answer that was given */
    const char *after_reply;  /* behind such an answer; "</s>" stands for the end token */
    bool bos_each_turn;
    bool has_bos; /* the format itself begins with BOS, whether or not the tokenizer adds one */
};

static const struct format formats[] = {
    { "specbench",
      { "'<|user|>\\n' + message['content'] + '\\n'", "<|assistant|>", "<|end|>" },
      "",
      "<|user|>\n",
      "\n<|assistant|>\n",
      "",
      "<|end|>\n",
      false,
      true },
    { "llama-3",
      { "<|start_header_id|>", "<|eot_id|>", "" },
      "",
      "<|start_header_id|>user<|end_header_id|>\n\n",
      "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
      "",
      "<|eot_id|>",
      false,
      true },
    { "chatml",
      { "<|im_start|>", "<|im_end|>", "" },
      "",
      "<|im_start|>user\n",
      "<|im_end|>\n<|im_start|>assistant\n",
      "",
      "<|im_end|>\n",
      false,
      false },
    { "llama-2", { "[INST]", "[/INST]", "" }, "", "[INST] ", " [/INST]", " ", " </s>", true, true },
    { "vicuna",
      { "USER:", "ASSISTANT:", "" },
      vicuna_system,
      "USER: ",
      " ASSISTANT:",
      " ",
      "</s>",
      false,
      false },
    { "plain", { NULL, NULL, NULL }, "", "", "", "\n", "\n", false, false },
};

static const char *const specials[] = {
    "<|user|>",
    "<|assistant|>",
    "<|end|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<|im_start|>",
    "<|im_end|>",
    "</s>",
};

static const struct format *find_format(const char *name)
{
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        if (strcmp(formats[i].name, name) == 0)
            return &formats[i];
    return NULL;
}

const char *sb_chat_recognise(const char *template_text, bool *known)
{
    for (size_t i = 0; template_text && formats[i].marks[0]; i++) {
        const char *const *m = formats[i].marks;
        if (strstr(template_text, m[0]) && strstr(template_text, m[1]) &&
            strstr(template_text, m[2])) {
            *known = true;
            return formats[i].name;
        }
    }
    *known = template_text == NULL;
    return "plain";
}

struct writer {
    const struct sb_tokenizer *tok;
    struct sb_tokens *out;
    struct sb_error *err;
    enum sb_status rc;
    char *text; /* waits to be encoded as one piece, as the reference does it */
    size_t n, cap;
};

static void put_text(struct writer *w, const char *text, size_t n)
{
    if (w->rc == SB_OK && sb_grow((void **)&w->text, &w->cap, w->n + n + 1, 1) != 0)
        w->rc = sb_fail(w->err, SB_ENOMEM, "out of memory for a prompt");
    if (w->rc != SB_OK)
        return;
    memcpy(w->text + w->n, text, n);
    w->n += n;
}

static void flush_text(struct writer *w)
{
    if (w->rc == SB_OK && w->n > 0)
        w->rc = sb_tokenizer_encode(w->tok, w->out, w->text, w->n, SB_ENCODE_PLAIN, w->err);
    w->n = 0;
}

static void put_id(struct writer *w, sb_token id)
{
    flush_text(w);
    if (w->rc == SB_OK && id >= 0)
        w->rc = sb_tokens_push(w->out, &id, 1, w->err);
}

/* The special token that `text` begins with, and its id; NULL: none that this tokenizer has. */
static const char *special_at(const struct writer *w, const char *text, sb_token *id)
{
    for (size_t i = 0; i < sizeof specials / sizeof *specials; i++) {
        if (strncmp(text, specials[i], strlen(specials[i])) != 0)
            continue;
        bool end = strcmp(specials[i], "</s>") == 0;
        *id = end ? sb_tokenizer_eos(w->tok) : sb_tokenizer_find(w->tok, specials[i]);
        return *id >= 0 || end ? specials[i] : NULL;
    }
    return NULL;
}

static void put_mark(struct writer *w, const char *mark)
{
    while (*mark) {
        sb_token id;
        const char *special = special_at(w, mark, &id);
        if (special)
            put_id(w, id);
        else
            put_text(w, mark, 1);
        mark += special ? strlen(special) : 1;
    }
}

enum sb_status sb_chat_encode(const char *name, const struct sb_tokenizer *tok,
                              const struct sb_turn *turns, size_t n, struct sb_tokens *out,
                              struct sb_error *err)
{
    const struct format *f = find_format(name);
    struct writer w = { .tok = tok, .out = out, .err = err };
    if (!f)
        return sb_fail(err, SB_EUSAGE,
                       "chat template '%s' is not known; there are plain, specbench, vicuna, "
                       "llama-2, llama-3, chatml",
                       name);
    sb_token bos = f->has_bos || sb_tokenizer_adds_bos(tok) ? sb_tokenizer_bos(tok) : -1;
    if (bos < 0 && f->has_bos) /* our own models; a file that does not say which token it is */
        bos = sb_tokenizer_find(tok, "<|bos|>");
    size_t before = out->n;
    for (size_t i = 0; i < n; i++) {
        if (i == 0 || f->bos_each_turn)
            put_id(&w, bos);
        if (i == 0)
            put_mark(&w, f->system);
        put_mark(&w, f->before_user);
        put_text(&w, turns[i].user, strlen(turns[i].user));
        put_mark(&w, f->before_reply);
        if (i + 1 == n || !turns[i].assistant)
            break;
        put_mark(&w, f->reply_gap);
        put_text(&w, turns[i].assistant, strlen(turns[i].assistant));
        put_mark(&w, f->after_reply);
    }
    flush_text(&w);
    sb_free(w.text);
    if (w.rc != SB_OK)
        out->n = before;
    return w.rc;
}
