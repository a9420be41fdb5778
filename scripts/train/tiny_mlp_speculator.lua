-- An MLP speculator for the bundled target. 2.3 million weights.
-- After scripts/train/tiny_texts.lua.
--   specbench train scripts/train/tiny_mlp_speculator.lua
return {
    kind = "head",
    name = "tiny-mlp-speculator",
    out = "models/tiny-mlp-speculator",
    summary = "An MLP speculator for `tiny` (Wertheimer et al. 2024).",
    notes = [[
Data: [`models/DATA.md`](../DATA.md) lists every source. Some are under CC BY-SA: **the weights are offered under CC BY-SA 4.0**,
not under the MIT licence of the code.]],
    target = "models/tiny",
    arch = "mlp-speculator",
    head = { n_predict = 4, inner_dim = 256, tie_weights = true, scale_input = true },
    loss = { by = "soft-ce", decay = 1 },
    train = {
        steps = 600,
        batch_tokens = 2048,
        micro_tokens = 2048,
        seq_len = 512,
        lr = 5e-3,
        warmup = 30,
        weight_decay = 0,
        clip = 1,
        seed = 20261123,
        checkpoint_every = 100,
    },
    data = { dir = "texts/tiny", files = { "generated.jsonl" }, held_out = 0.02 },
}
