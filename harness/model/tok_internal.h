/* What the tokenizer's files share: the vocabulary, the pipeline before it, and the two loaders.
 *
 *   text -> added tokens cut out -> normalizer -> pre-tokenizer -> pieces -> merges -> ids */
#ifndef SB_MODEL_TOK_INTERNAL_H
#define SB_MODEL_TOK_INTERNAL_H

#include "harness/model/pretokenize.h"
#include "harness/model/tokenizer.h"

enum sb_piece_kind {
    SB_PIECE_NORMAL,
    SB_PIECE_UNKNOWN,
    SB_PIECE_CONTROL, /* special: never part of ordinary text */
    SB_PIECE_USER,    /* added, cut out of any text */
    SB_PIECE_UNUSED,
    SB_PIECE_BYTE, /* "<0x0A>" */
};

/* A token that is looked for in the text before anything else. */
struct sb_added {
    sb_token id;
    const char *text; /* of the vocabulary, or `normal` */
    size_t n;
    char *normal; /* the text after the normalizer, owned; NULL: text is of the vocabulary */
    bool special, lstrip, rstrip, single_word, normalized;
};

enum sb_split_behavior {
    SB_SPLIT_ISOLATED,
    SB_SPLIT_REMOVED,
    SB_SPLIT_WITH_PREVIOUS,
    SB_SPLIT_WITH_NEXT,
    SB_SPLIT_CONTIGUOUS,
};

enum sb_step_kind {
    /* normalizers: text to text */
    SB_STEP_NFC,
    SB_STEP_NFD,
    SB_STEP_NFKC,
    SB_STEP_NFKD,
    SB_STEP_LOWERCASE,
    SB_STEP_PREPEND, /* text: in front, unless empty */
    SB_STEP_REPLACE, /* regex or from -> text */
    SB_STEP_STRIP,   /* left, right */
    /* pre-tokenizers: pieces to pieces */
    SB_STEP_SPLIT,     /* regex, behavior, invert */
    SB_STEP_BYTES,     /* bytes to stand-in characters; prefix: a space in front */
    SB_STEP_METASPACE, /* spaces to `text`; prefix, first_only, split */
};

struct sb_step {
    enum sb_step_kind kind;
    enum sb_split_behavior behavior;
    struct sb_regex *regex; /* owned */
    char *from, *text;      /* owned */
    bool invert, left, right, prefix, first_only, split;
};

enum { SB_MAX_STEPS = 16 };

struct sb_tokenizer {
    /* vocabulary */
    size_t n;
    char **piece;   /* [n] as stored, owned */
    uint8_t *kind;  /* [n] enum sb_piece_kind */
    float *score;   /* [n] SentencePiece; NULL for ranked merges */
    uint32_t *slot; /* hash table of pieces: id + 1 */
    size_t n_slots;
    /* ranked merges: pair of ids -> rank and joined id */
    struct sb_merge {
        uint64_t key; /* left << 32 | right; UINT64_MAX: empty slot */
        uint32_t rank;
        sb_token joined;
    } * merge;
    size_t n_merge_slots, n_merges;
    /* pipeline */
    struct sb_step normalize[SB_MAX_STEPS], cut[SB_MAX_STEPS];
    size_t n_normalize, n_cut;
    struct sb_added *added; /* longest first */
    size_t n_added, cap_added;
    uint8_t added_first[256]; /* bytes an added token begins with */
    /* behaviour */
    bool byte_fallback, fuse_unknown, ignore_merges;
    bool space_prefix; /* SentencePiece: a space in front of text, dropped again when decoding */
    bool byte_level;   /* pieces are spelled in stand-in characters */
    bool adds_bos;
    sb_token byte_id[256]; /* of "<0x..>", -1: none */
    sb_token unknown, bos, eos;
    sb_token end[SB_MAX_EOS]; /* what ends a generation */
    size_t n_end;
    uint64_t hash;
};

/* Text cut into pieces: piece i is text[end[i - 1] .. end[i]). Zeroed is empty. */
struct sb_pieces {
    char *text;
    size_t n_text, cap_text;
    size_t *end;
    size_t n, cap;
    bool out_of_memory;
};
void sb_pieces_reset(struct sb_pieces *p);
void sb_pieces_finish(struct sb_pieces *p);
void sb_pieces_put(struct sb_pieces *p, const char *text,
                   size_t n);            /* at the end of the open piece */
void sb_pieces_cut(struct sb_pieces *p); /* close the open piece, unless it is empty */

/* Run a step over all pieces of `in`; `first`: the text begins the input. */
void sb_step_run(const struct sb_step *step, const struct sb_pieces *in, struct sb_pieces *out,
                 bool first);
void sb_step_finish(struct sb_step *step);
/* Run all `n` steps over a text. The result is a (whose other half is b) or b: what is returned. */
struct sb_pieces *sb_steps_run(const struct sb_step *step, size_t n, struct sb_pieces *a,
                               struct sb_pieces *b, const char *text, size_t length, bool first);

/* Append the ids of one piece. */
enum sb_status sb_merge_ranked(const struct sb_tokenizer *tok, struct sb_tokens *out,
                               const char *text, size_t n, struct sb_error *err);
enum sb_status sb_merge_scored(const struct sb_tokenizer *tok, struct sb_tokens *out,
                               const char *text, size_t n, struct sb_error *err);

/* Building. Texts are copied. */
enum sb_status sb_tok_create(struct sb_tokenizer **out, size_t n, const char *path,
                             struct sb_error *err);
enum sb_status sb_tok_set_piece(struct sb_tokenizer *tok, size_t id, const char *text, size_t n,
                                enum sb_piece_kind kind, struct sb_error *err);
/* After all pieces: the hash table, byte tokens. A later piece with the text of an earlier one stays
 * reachable by id only. */
enum sb_status sb_tok_index(struct sb_tokenizer *tok, struct sb_error *err);
enum sb_status sb_tok_set_merges(struct sb_tokenizer *tok, size_t n, struct sb_error *err);
/* Merge number `rank` joins two pieces; SB_EFORMAT when one of them or the result is unknown. */
enum sb_status sb_tok_add_merge(struct sb_tokenizer *tok, size_t rank, const char *left,
                                size_t n_left, const char *right, size_t n_right, const char *path,
                                struct sb_error *err);
enum sb_status sb_tok_add_added(struct sb_tokenizer *tok, struct sb_added added,
                                struct sb_error *err);
/* After the normalizers: the spelling that added tokens with `normalized` are found by. */
enum sb_status sb_tok_normalize_added(struct sb_tokenizer *tok, struct sb_error *err);
/* Last: order of added tokens, tokens that end a generation, hash. */
void sb_tok_complete(struct sb_tokenizer *tok);
void sb_tok_add_end(struct sb_tokenizer *tok, sb_token id);
sb_token sb_tok_lookup(const struct sb_tokenizer *tok, const char *text, size_t n); /* -1: none */
struct sb_step *sb_tok_add_cut(struct sb_tokenizer *tok);       /* zeroed; NULL when full */
struct sb_step *sb_tok_add_normalize(struct sb_tokenizer *tok); /* zeroed; NULL when full */

enum sb_status sb_tok_from_gguf(struct sb_tokenizer **out, const char *path, struct sb_error *err);
/* `text` is a tokenizer.json; `dir` (may be NULL) holds tokenizer_config.json and config.json. */
enum sb_status sb_tok_from_hf(struct sb_tokenizer **out, const char *path, const char *dir,
                              struct sb_error *err);

/* Length of the UTF-8 character at text[0..n), 1..4; 0 when it is malformed. */
size_t sb_utf8_length(const char *text, size_t n);
unsigned sb_utf8_code(const char *text, size_t length);
bool sb_utf8_is_valid(const char *text, size_t n);
bool sb_is_space(unsigned code); /* Unicode's White_Space */

#endif
