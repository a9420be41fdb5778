-- Drafters that copy, count or guess, and two that combine others: MAT, hit rate and draft time by task.
--   specbench run scripts/model_free.lua                       on the bundled questions
--   specbench run scripts/model_free.lua --set file=question.jsonl --db x.db     on Spec-Bench's
--   ... --set store=texts.sbidx      with `rest` on a datastore (specbench index)
--   ... --set small=1                drafts of at most 7 tokens, whose rows cost little on a CPU, for speedups
-- Then: specbench report x.db --view drafting, or --view tasks for speedups
local sb = require "specbench"

local exp <close> = sb.experiment {
  name = "model-free",
  target = sb.set.target or "tiny",
  dataset = sb.set.file and "spec-bench:" .. sb.set.file or "mini",
  take = sb.set.take or 0, -- 0: all
  max_new_tokens = sb.set.max_new_tokens or 128,
  repeats = sb.set.repeats or 1,
  seed = sb.set.seed or 0,
  weights = sb.set.weights or "f32", -- which the target's cost structure is made for (models/tiny)
  aa = sb.set.small ~= nil,
}
-- Parameters of a drafter: its own defaults, or a small draft; and those of `more`.
local small = {
  ["token-recycling"] = { nodes = 7 },
  anpd = {}, -- 6 by itself
  jacobi = { m = 7 },
  lookahead = { window = 2, ngram = 3, guesses = 2 },
  rest = { choices = 7 },
}
local function drafter(name, more)
  local params = { name }
  for key, value in pairs(sb.set.small and (small[name] or { k = 7 }) or {}) do params[key] = value end
  for key, value in pairs(more or {}) do params[key] = value end
  return params
end
exp:add { drafter = "none" }
for _, name in ipairs {
  "pld", "pld-plus", "llma", "sad", "anpd", "ngram-cache", "mag", "sam", "suffix-decoding",
  "trie-lookahead", "token-recycling", "jacobi", "lookahead",
} do
  exp:add { drafter = drafter(name) }
end
-- What learns over the run, reset at each prompt: the order of prompts then does not matter.
for _, name in ipairs { "suffix-decoding", "trie-lookahead", "token-recycling" } do
  exp:add { drafter = drafter(name, { scope = "prompt" }) }
end
if sb.set.store then
  exp:add { drafter = drafter("rest", { store = sb.set.store }) }
end
local copies, guesses = "sam", "'small-lm:model=tiny-draft-distilled'"
if sb.set.small then copies, guesses = "'sam:k=7'", "'small-lm:model=tiny-draft-distilled,k=3'" end
exp:add { drafter = ("delegate:a=%s,b=%s"):format(copies, guesses), label = "delegate sam, small-lm" }
exp:add { drafter = ("merge:a=%s,b=%s%s"):format(copies, guesses, sb.set.small and ",nodes=7" or ""), label = "merge sam, small-lm" }

for run in exp:runs() do
  sb.log("%-24s %5.2f tokens per step", run.label, run.mat)
end
exp:report "drafting"
