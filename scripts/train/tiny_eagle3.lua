-- EAGLE-3's head for the bundled target. 4.0 million weights.
-- Sized for a target of width 384 and 10 layers, which is still in training: steps and rates are estimates,
-- and it was not run to its end yet. After scripts/train/tiny.lua.
--   specbench train scripts/train/tiny_eagle3.lua
return {
    kind = "head",
    name = "tiny-eagle3",
    out = "models/tiny-eagle3",
    target = "models/tiny",
    arch = "eagle3",
    head = { steps = 4 },
    loss = { by = "soft-ce", decay = 0.8 },
    train = {
        steps = 500,
        batch_tokens = 2048,
        micro_tokens = 2048,
        seq_len = 512,
        lr = 7e-4,
        warmup = 30,
        weight_decay = 0.01,
        clip = 1,
        seed = 20261123,
        checkpoint_every = 100,
    },
    data = { from = "scripts/train/tiny.lua", loss_on = "answers" },
}
