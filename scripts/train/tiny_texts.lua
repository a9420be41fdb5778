-- What the bundled target answers to the prompts of its own corpora: the texts that its drafters and heads learn
-- from. Half of them greedily, half sampled. After scripts/train/tiny.lua, before the rest.
--   specbench train scripts/train/tiny_texts.lua
return {
    kind = "texts",
    name = "tiny-texts",
    out = "texts/tiny",
    target = "models/tiny",
    train = { seq_len = 512 },
    data = {
        from = "scripts/train/tiny.lua",
        generate = { prompts = 2000, max_new_tokens = 128, temperature = { 0, 0.7 }, seed = 20261121 },
    },
}
