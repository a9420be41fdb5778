-- Three Hydra++ heads over a decoder layer, with the bundled target's LM head. 5.3 million weights.
-- After scripts/train/tiny_texts.lua.
--   specbench train scripts/train/tiny_hydra_pp.lua
return {
    kind = "head",
    name = "tiny-hydra-pp",
    out = "models/tiny-hydra-pp",
    summary = "Hydra++ heads for `tiny`: a prefix layer before them (Ankner et al. 2024).",
    notes = [[
Data: [`models/DATA.md`](../DATA.md) lists every source. Some are under CC BY-SA: **the weights are offered under CC BY-SA 4.0**,
not under the MIT licence of the code.]],
    target = "models/tiny",
    arch = "hydra-pp",
    head = { heads = 3, layers = 2, share_lm_head = true },
    loss = { by = "soft-ce", decay = 1 },
    train = {
        steps = 500,
        batch_tokens = 2048,
        micro_tokens = 2048,
        seq_len = 512,
        lr = 4e-3,
        warmup = 30,
        weight_decay = 0.1,
        clip = 1,
        seed = 20261123,
        checkpoint_every = 100,
    },
    data = { dir = "texts/tiny", files = { "generated.jsonl" }, held_out = 0.02 },
}
