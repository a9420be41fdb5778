-- Four Medusa heads on the bundled target, with its LM head. 0.6 million weights.
-- After scripts/train/tiny_texts.lua.
--   specbench train scripts/train/tiny_medusa.lua
return {
    kind = "head",
    name = "tiny-medusa",
    out = "models/tiny-medusa",
    summary = "Medusa's heads for `tiny` (Cai et al. 2024).",
    notes = [[
Data: [`models/DATA.md`](../DATA.md) lists every source. Some are under CC BY-SA: **the weights are offered under CC BY-SA 4.0**,
not under the MIT licence of the code.]],
    target = "models/tiny",
    arch = "medusa",
    head = { heads = 4, layers = 1, share_lm_head = true },
    loss = { by = "soft-ce", decay = 0.8 },
    train = {
        steps = 500,
        batch_tokens = 2048,
        micro_tokens = 2048,
        seq_len = 512,
        lr = 3e-3,
        warmup = 30,
        weight_decay = 0,
        clip = 1,
        seed = 20261123,
        checkpoint_every = 100,
    },
    data = { dir = "texts/tiny", files = { "generated.jsonl" }, held_out = 0.02 },
}
