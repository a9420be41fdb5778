-- Three Hydra++ heads over a decoder layer, with the bundled target's LM head. 5.3 million weights.
-- Sized for a target of width 384 and 10 layers, which is still in training: steps and rates are estimates,
-- and it was not run to its end yet. After scripts/train/tiny.lua.
--   specbench train scripts/train/tiny_hydra_pp.lua
return {
    kind = "head",
    name = "tiny-hydra-pp",
    out = "models/tiny-hydra-pp",
    target = "models/tiny",
    arch = "hydra-pp",
    head = { heads = 3, layers = 2, share_lm_head = true },
    loss = { by = "soft-ce", decay = 1 },
    train = {
        steps = 600,
        batch_tokens = 2048,
        micro_tokens = 2048,
        seq_len = 512,
        lr = 7e-4,
        warmup = 30,
        weight_decay = 0.1,
        clip = 1,
        seed = 20261123,
        checkpoint_every = 100,
    },
    data = { from = "scripts/train/tiny.lua", loss_on = "answers" },
}
