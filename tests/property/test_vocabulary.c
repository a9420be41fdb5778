/* small-lm takes a draft model of the target's vocabulary, and says where another one differs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness/core/alloc.h"
#include "harness/decode/session.h"
#include "tests/property/toy_model.h"

enum { V = 24 };

static struct toy_model toy;
static const struct sb_tokenizer *drafts_tokenizer;

static void write_file(const char *folder, const char *name, const char *text)
{
    char *path = sb_strf("%s/%s", folder, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
    sb_free(path);
}

static void remove_file(const char *folder, const char *name)
{
    char *path = sb_strf("%s/%s", folder, name);
    unlink(path);
    sb_free(path);
}

/* Pieces "a".."x"; the one at `odd` is "Z" instead; eos as given. */
static struct sb_tokenizer *make_tokenizer(int odd, int eos)
{
    char folder[] = "/tmp/sb-vocabulary-XXXXXX", vocab[400] = "", text[900], config[80];
    assert_non_null(mkdtemp(folder));
    for (int i = 0; i < V; i++)
        snprintf(vocab + strlen(vocab), sizeof vocab - strlen(vocab), "%s\"%c\":%d", i ? "," : "",
                 i == odd ? 'Z' : 'a' + i, i);
    snprintf(text, sizeof text,
             "{\"version\":\"1.0\",\"added_tokens\":[],\"normalizer\":null,\"pre_tokenizer\":"
             "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":true},\"decoder\":"
             "{\"type\":\"ByteLevel\"},\"model\":{\"type\":\"BPE\",\"vocab\":{%s},\"merges\":[]}}",
             vocab);
    snprintf(config, sizeof config, "{\"bos_token_id\":0,\"eos_token_id\":%d}", eos);
    write_file(folder, "tokenizer.json", text);
    write_file(folder, "config.json", config);
    struct sb_tokenizer *tok;
    struct sb_error err = { .message = "" };
    if (sb_tokenizer_open(&tok, folder, &err) != SB_OK)
        fail_msg("%s", err.message);
    remove_file(folder, "tokenizer.json");
    remove_file(folder, "config.json");
    rmdir(folder);
    return tok;
}

static enum sb_status load(void *loader, const char *name, struct sb_model **model,
                           const struct sb_tokenizer **tokenizer, struct sb_error *err)
{
    *model = toy.model;
    *tokenizer = drafts_tokenizer;
    return SB_OK;
}

static enum sb_status open_with(const struct sb_tokenizer *target, struct sb_tokenizer *draft,
                                struct sb_error *err)
{
    struct sb_spec spec;
    struct sb_session *s = NULL;
    drafts_tokenizer = draft;
    assert_int_equal(sb_spec_parse(&spec, "small-lm:model=it", NULL), SB_OK);
    enum sb_status rc = sb_session_create(
        &s,
        &(struct sb_session_options){
            .target = toy.model, .tokenizer = target, .drafter = &spec, .load_model = load },
        err);
    sb_session_destroy(s);
    sb_spec_finish(&spec);
    sb_tokenizer_close(draft);
    return rc;
}

static void a_draft_model_must_share_pieces_and_end_tokens(void **state)
{
    (void)state;
    struct sb_error err;
    struct sb_tokenizer *target = make_tokenizer(-1, 2);
    toy = toy_model_create(1, 0, V, 64, -1);
    assert_int_equal(open_with(target, make_tokenizer(-1, 2), &err), SB_OK);
    assert_int_equal(open_with(target, NULL, &err), SB_OK);
    assert_int_equal(open_with(target, make_tokenizer(4, 2), &err),
                     SB_OK); /* ids below 5 may differ */
    assert_int_equal(open_with(target, make_tokenizer(5, 2), &err), SB_EUSAGE);
    assert_string_equal(
        err.message, "drafter small-lm: model it has another vocabulary than the target: token 5 "
                     "is 'Z', there 'f'");
    assert_int_equal(open_with(target, make_tokenizer(-1, 3), &err), SB_EUSAGE);
    assert_string_equal(err.message,
                        "drafter small-lm: model it has BOS 0 and EOS 3, the target 0 and 2");
    toy_model_destroy(&toy);
    sb_tokenizer_close(target);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_draft_model_must_share_pieces_and_end_tokens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
