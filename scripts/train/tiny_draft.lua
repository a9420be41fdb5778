-- The bundled drafter: 1.2 million weights, trained on the target's corpora as the target was.
--   specbench train scripts/train/tiny_draft.lua
return {
    kind = "lm",
    name = "tiny-draft",
    out = "models/tiny-draft",
    summary = "The bundled drafter: a fifteenth of `tiny`, with the same vocabulary, trained on the same texts.",
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
        layers = 2,
        width = 160,
        heads = 5,
        kv_heads = 1,
        ff = 448,
        vocab = 4096,
        context = 2048,
    },
    train = {
        steps = 1600,
        batch_tokens = 4096,
        micro_tokens = 2048,
        seq_len = 1024,
        lr = 4e-3,
        warmup = 60,
        weight_decay = 0.05,
        clip = 1,
        seed = 20261122,
        checkpoint_every = 100,
    },
    data = { from = "scripts/train/tiny.lua" },
}
