-- EAGLE's head for the bundled target, also for eagle2. 2.0 million weights. Three passes in place of
-- the published one, so that it learns from its own guesses too; what that brings is not measured.
-- Sized for a target of width 384 and 10 layers, which is still in training: steps and rates are estimates,
-- and it was not run to its end yet. After scripts/train/tiny.lua.
--   specbench train scripts/train/tiny_eagle.lua
return {
    kind = "head",
    name = "tiny-eagle",
    out = "models/tiny-eagle",
    target = "models/tiny",
    arch = "eagle",
    head = { steps = 3 },
    loss = { by = "soft-ce", weight = 1, feature = 1, decay = 0.8 },
    train = {
        steps = 600,
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
