-- Three Hydra heads on the bundled target, with its LM head. 2.7 million weights.
-- Sized for a target of width 384 and 10 layers, which is still in training: steps and rates are estimates,
-- and it was not run to its end yet. After scripts/train/tiny.lua.
--   specbench train scripts/train/tiny_hydra.lua
return {
    kind = "head",
    name = "tiny-hydra",
    out = "models/tiny-hydra",
    target = "models/tiny",
    arch = "hydra",
    head = { heads = 3, layers = 1, share_lm_head = true },
    loss = { by = "soft-ce", decay = 1 },
    train = {
        steps = 700,
        batch_tokens = 2048,
        micro_tokens = 2048,
        seq_len = 512,
        lr = 1e-3,
        warmup = 30,
        weight_decay = 0.1,
        clip = 1,
        seed = 20261123,
        checkpoint_every = 100,
    },
    data = { from = "scripts/train/tiny.lua", loss_on = "answers" },
}
