-- Between drafter and target, for cascades: 3.7 million weights.
--   specbench train scripts/train/tiny_mid.lua
return {
    kind = "lm",
    name = "tiny-mid",
    out = "models/tiny-mid",
    summary = "Between `tiny-draft` and `tiny`, for cascades.",
    notes = [[
Data: [`models/DATA.md`](../DATA.md) lists every source. Some are under CC BY-SA: **the weights are offered under CC BY-SA 4.0**,
not under the MIT licence of the code.]],
    samples = {
        "Can you recommend a good restaurant in San Francisco?",
        "Tom has 3 boxes with 4 pencils each. How many pencils does Tom have?",
        "Translate German to English: Im Anfang schuf Gott den Himmel und die Erde.",
        "Write a Python function that returns the sum of two numbers.",
    },
    tokenizer = "models/tiny",
    model = {
        layers = 4,
        width = 256,
        heads = 8,
        kv_heads = 2,
        ff = 640,
        vocab = 4096,
        context = 2048,
    },
    train = {
        steps = 1200,
        batch_tokens = 8192,
        micro_tokens = 2048,
        seq_len = 1024,
        lr = 3e-3,
        warmup = 60,
        weight_decay = 0.1,
        clip = 1,
        seed = 20261124,
        checkpoint_every = 40,
    },
    data = { from = "scripts/train/tiny.lua" },
}
