/* Which family a checkpoint belongs to, by the names of its tensors (methods B 10). */
#include <ctype.h>
#include <string.h>

#include "drafters/head_file.h"
#include "harness/core/alloc.h"

enum { MOST_PARTS = 3 };

/* A family is the first whose parts all stand in some name, at its beginning or behind a dot; '#' is a
 * number, and a part behind '!' must stand in none. */
static const struct {
    const char *family, *part[MOST_PARTS];
} rules[] = {
    { "hydra-pp", { "hydra_mlp.", "prefix_embeding_layer." } },
    { "hydra", { "hydra_mlp." } },
    { "redrafter", { "rnn_u." } },
    { "lstm-speculator", { "forget_emb.", "forget_proj." } },
    { "mlp-speculator", { "emb.0.", "proj.0.", "head.0." } },
    { "dflash2", { "candidate_selector" } },
    { "domino", { "prefix_gru" } },
    { "dspark", { "markov_head" } },
    { "p-eagle", { "fc.weight", "mask_hidden" } },
    { "eagle31", { "fc.weight", "fc_norm" } },
    { "eagle3", { "fc.weight", "midlayer." } },
    { "eagle3", { "fc.weight", "d2t" } },
    { "eagle3", { "fc.weight", "layers.0.hidden_norm." } },
    { "mtp", { "enorm.", "eh_proj." } },
    { "mtp", { "mtp.fc" } },
    { "mtp", { "mtp_layers." } },
    { "dflash", { "hidden_norm.weight", "self_attn.q_norm." } },
    { "eagle", { "fc.weight", "layers.0." } },
    { "bita", { "mask_tokens" } },
    { "medusa", { "medusa_head." } },
    { "medusa", { "#.#.linear.weight" } },
    { "medusa", { "blocks.#.layers.#.weight" } },
    { "kangaroo", { "layers.0.self_attn.", "norm.weight", "!mlp." } },
};

static bool matches(const char *name, const char *part)
{
    for (; *part; part++) {
        if (*part != '#') {
            if (*name++ != *part)
                return false;
            continue;
        }
        if (!isdigit((unsigned char)*name))
            return false;
        while (isdigit((unsigned char)*name))
            name++;
    }
    return true;
}

static bool stands_in(const char *name, const char *part)
{
    for (; name; name = strchr(name, '.')) {
        name += *name == '.';
        if (matches(name, part))
            return true;
    }
    return false;
}

static bool any_has(const struct sb_stored_tensor *tensor, size_t n, const char *part)
{
    for (size_t i = 0; i < n; i++)
        if (stands_in(tensor[i].name, part))
            return true;
    return false;
}

static bool holds(const struct sb_head_file *head, const char *part)
{
    bool wanted = *part != '!', found = false;
    part += !wanted;
    for (size_t i = 0; i < head->n_st && !found; i++)
        found = any_has(head->st[i].tensor, head->st[i].n, part);
    for (size_t i = 0; i < head->n_torch && !found; i++)
        found = any_has(head->torch[i].tensor, head->torch[i].n, part);
    return found == wanted;
}

const char *sb_head_family(const struct sb_head_file *head)
{
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) {
        bool all = true;
        for (size_t k = 0; k < MOST_PARTS && rules[i].part[k] && all; k++)
            all = holds(head, rules[i].part[k]);
        if (all)
            return rules[i].family;
    }
    return NULL;
}
