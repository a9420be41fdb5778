-- EAGLE-3's head for the bundled target, saying its 2,048 commonest tokens. 3.2 million weights.
-- After scripts/train/tiny_texts.lua.
--   specbench train scripts/train/tiny_eagle3.lua
return {
    kind = "head",
    name = "tiny-eagle3",
    out = "models/tiny-eagle3",
    summary = "EAGLE-3's head for `tiny` (Li et al. 2025), with a draft vocabulary of its own.",
    notes = [[
Data: [`models/DATA.md`](../DATA.md) lists every source. Some are under CC BY-SA: **the weights are offered under CC BY-SA 4.0**,
not under the MIT licence of the code.]],
    target = "models/tiny",
    arch = "eagle3",
    head = { steps = 4, draft_vocab = 2048 },
    loss = { by = "soft-ce", decay = 0.8 },
    train = {
        steps = 500,
        batch_tokens = 2048,
        micro_tokens = 2048,
        seq_len = 512,
        lr = 5e-3,
        warmup = 30,
        weight_decay = 0.01,
        clip = 1,
        seed = 20261123,
        checkpoint_every = 100,
    },
    data = { dir = "texts/tiny", files = { "generated.jsonl" }, held_out = 0.02 },
}
