-- EAGLE's head for the bundled target, also for eagle2. 2.0 million weights. Three passes in place of
-- the published one, so that it learns from its own guesses too; what that brings is not measured.
-- After scripts/train/tiny_texts.lua.
--   specbench train scripts/train/tiny_eagle.lua
return {
    kind = "head",
    name = "tiny-eagle",
    out = "models/tiny-eagle",
    summary = "EAGLE's head for `tiny`, for the drafters `eagle` and `eagle2` (Li et al. 2024).",
    notes = [[
Data: [`models/DATA.md`](../DATA.md) lists every source. Some are under CC BY-SA: **the weights are offered under CC BY-SA 4.0**,
not under the MIT licence of the code.]],
    target = "models/tiny",
    arch = "eagle",
    head = { steps = 3 },
    loss = { by = "soft-ce", weight = 1, feature = 1, decay = 0.8 },
    train = {
        steps = 600,
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
