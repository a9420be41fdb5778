-- The set that the acceptance gate runs: cheap drafters on the bundled models and prompts, greedy, so that the
-- same whole numbers come out on every machine.  scripts/ci/gate.sh runs it and compares.
local sb = require "specbench"

local exp <close> = sb.experiment {
  name = "acceptance",
  target = "tiny",
  dataset = "mini",
  take = 3, -- questions of each task
  max_new_tokens = 48,
  seed = 1,
}
exp:add { drafter = "none" }
exp:add { drafter = "pld" }
exp:add { drafter = { "small-lm", model = "tiny-draft" }, label = "small-lm" }
exp:add { drafter = { "small-lm", model = "tiny-draft-distilled" }, label = "small-lm-distilled" }
exp:add { drafter = { "small-lm", model = "tiny-draft-distilled", tree = "3x2x1" }, label = "small-lm-tree" }
for _, name in ipairs { "anpd", "ngram-cache", "sam", "suffix-decoding" } do
  exp:add { drafter = name }
end
exp:add { drafter = { "token-recycling", nodes = 16 }, label = "token-recycling" }
exp:add { drafter = { "medusa", tree = "2x2x1" }, label = "medusa" }
exp:add { drafter = { "eagle", tree = "2x1x1" }, label = "eagle" }
exp:add { drafter = { "mlp-speculator", candidates = 2 }, label = "mlp-speculator" }
for _ in exp:runs() do end
