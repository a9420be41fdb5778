-- An MLP speculator for the bundled target. 2.3 million weights.
-- Sized for a target of width 384 and 10 layers, which is still in training: steps and rates are estimates,
-- and it was not run to its end yet. After scripts/train/tiny.lua.
--   specbench train scripts/train/tiny_mlp_speculator.lua
return {
    kind = "head",
    name = "tiny-mlp-speculator",
    out = "models/tiny-mlp-speculator",
    target = "models/tiny",
    arch = "mlp-speculator",
    head = { n_predict = 4, inner_dim = 256, tie_weights = true, scale_input = true },
    loss = { by = "soft-ce", decay = 1 },
    train = {
        steps = 800,
        batch_tokens = 2048,
        micro_tokens = 2048,
        seq_len = 512,
        lr = 2e-3,
        warmup = 30,
        weight_decay = 0,
        clip = 1,
        seed = 20261123,
        checkpoint_every = 100,
    },
    data = { from = "scripts/train/tiny.lua", loss_on = "answers" },
}
