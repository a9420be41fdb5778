-- Two drafters against plain decoding on the bundled models and prompts: what `./dev demo` runs.
--   specbench run scripts/quickstart.lua [--set take=2] [--db FILE]
local sb = require "specbench"

local exp <close> = sb.experiment {
  name = "quickstart",
  target = "tiny",
  dataset = "mini",
  take = sb.set.take or 0, -- questions of each task; 0: all twelve
  max_new_tokens = sb.set.max_new_tokens or 96,
  repeats = sb.set.repeats or 3,
  seed = 7,
  weights = "f32", -- BF16 widened in memory: no bit changes, and a forward costs what its bytes cost, as in large models
}
exp:add { drafter = "none" } -- plain decoding, the baseline
exp:add { drafter = { "pld", k = 5 }, label = "pld" } -- copies what followed the last n-gram where it occurred before
exp:add { drafter = { "small-lm", model = "tiny-draft-distilled", k = 4 }, label = "small-lm" }

exp:report "tasks"
local equal, compared, first = exp:equality()
if equal == compared then
  sb.log("Outputs of all arms are equal to plain decoding, token for token (%d generations compared).", compared)
else
  sb.log("Outputs DIFFER in %d of %d generations, first: %s", compared - equal, compared, first)
end
