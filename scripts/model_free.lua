-- Drafters that copy, count or guess, and two that combine others: MAT, hit rate and draft time by task.
--   specbench run scripts/model_free.lua                       on the bundled questions
--   specbench run scripts/model_free.lua --set file=question.jsonl --db x.db     on Spec-Bench's
--   ... --set store=texts.sbidx      with `rest` on a datastore (specbench index)
-- Then: specbench report x.db --view drafting
local sb = require "specbench"

local exp <close> = sb.experiment {
  name = "model-free",
  target = sb.set.target or "tiny",
  dataset = sb.set.file and "spec-bench:" .. sb.set.file or "mini",
  take = sb.set.take or 0, -- 0: all
  max_new_tokens = sb.set.max_new_tokens or 128,
  repeats = sb.set.repeats or 1,
  seed = sb.set.seed or 0,
}
exp:add { drafter = "none" }
for _, name in ipairs {
  "pld", "pld-plus", "llma", "sad", "anpd", "ngram-cache", "mag", "sam", "suffix-decoding",
  "trie-lookahead", "token-recycling", "jacobi", "lookahead",
} do
  exp:add { drafter = name }
end
-- What learns over the run, reset at each prompt: the order of prompts then does not matter.
for _, name in ipairs { "suffix-decoding", "trie-lookahead", "token-recycling" } do
  exp:add { drafter = { name, scope = "prompt" } }
end
if sb.set.store then
  exp:add { drafter = { "rest", store = sb.set.store } }
end
exp:add { drafter = "delegate:a=sam,b='small-lm:model=tiny-draft-distilled'", label = "delegate sam, small-lm" }
exp:add { drafter = "merge:a=sam,b='small-lm:model=tiny-draft-distilled,k=4'", label = "merge sam, small-lm" }

for run in exp:runs() do
  sb.log("%-24s %5.2f tokens per step", run.label, run.mat)
end
exp:report "drafting"
