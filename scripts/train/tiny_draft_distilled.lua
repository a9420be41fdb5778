-- The same drafter taught further: the target's distributions along the answers that it wrote itself (forward KL).
-- After scripts/train/tiny_draft.lua and tiny_texts.lua.
--   specbench train scripts/train/tiny_draft_distilled.lua
return {
    kind = "lm",
    name = "tiny-draft-distilled",
    out = "models/tiny-draft-distilled",
    summary = "`tiny-draft` taught further to imitate `tiny`, along texts that `tiny` wrote.",
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
    init = "models/tiny-draft",
    model = {
        layers = 2,
        width = 160,
        heads = 5,
        kv_heads = 1,
        ff = 448,
        vocab = 4096,
        context = 2048,
    },
    distill = { teacher = "models/tiny", weight = 1 },
    train = {
        steps = 1000,
        batch_tokens = 4096,
        micro_tokens = 2048,
        seq_len = 512,
        lr = 3e-3,
        warmup = 30,
        weight_decay = 0.05,
        clip = 1,
        seed = 20261122,
        checkpoint_every = 100,
    },
    data = { dir = "texts/tiny", files = { "generated.jsonl" }, held_out = 0.02, loss_on = "answers" },
}
