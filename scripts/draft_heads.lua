-- The bundled drafters and draft heads against plain decoding: MAT, and speedup with its interval, by task.
--   specbench run scripts/draft_heads.lua --db heads.db
--   specbench run scripts/draft_heads.lua --db heads.db --set file=question.jsonl --set take=10    Spec-Bench's questions
-- Weights are widened to float32, which the target's cost structure is made for (models/tiny); --set weights=stored
-- takes them as they are. Trees are small: on a CPU a row is not free. Then: specbench report heads.db --view tasks
local sb = require "specbench"

local exp <close> = sb.experiment {
  name = "draft-heads",
  target = "tiny",
  dataset = sb.set.file and "spec-bench:" .. sb.set.file or "mini",
  take = sb.set.take or 0, -- 0: all
  max_new_tokens = sb.set.max_new_tokens or 128,
  repeats = sb.set.repeats or 1,
  seed = 7,
  weights = sb.set.weights or "f32",
  aa = true,
}
exp:add { drafter = "none" }
exp:add { drafter = { "pld", k = 5 }, label = "pld" }
exp:add { drafter = { "small-lm", model = "tiny-draft", k = 4 }, label = "small-lm" }
exp:add { drafter = { "small-lm", model = "tiny-draft-distilled", k = 4 }, label = "small-lm distilled" }
exp:add { drafter = { "medusa", tree = "auto", nodes = 7 }, label = "medusa" }
exp:add { drafter = { "hydra", tree = "auto", nodes = 7 }, label = "hydra" }
exp:add { drafter = { "hydra-pp", tree = "auto", nodes = 7 }, label = "hydra-pp" }
exp:add { drafter = { "eagle", tree = "2x1x1" }, label = "eagle" }
exp:add { drafter = { "eagle2", depth = 3, topk = 3, total = 7 }, label = "eagle2" }
exp:add { drafter = { "eagle3", depth = 3, topk = 3, total = 7 }, label = "eagle3" }
exp:add { drafter = { "mlp-speculator", candidates = 2 }, label = "mlp-speculator" }
exp:add { drafter = { "redrafter", k = 4, beams = 2 }, label = "redrafter" }
-- Two that cost little, together: copies where there are some, guesses beside them.
exp:add {
  drafter = "merge:a='pld:k=5',b='small-lm:model=tiny-draft-distilled,k=3'",
  label = "merge pld, small-lm distilled",
}

for run in exp:runs() do
  sb.log("%-20s %5.2f tokens per step", run.label, run.mat)
end
exp:report "tasks"
local equal, compared, first = exp:equality()
if equal == compared then
  sb.log("Outputs of all arms are equal to plain decoding, token for token (%d generations compared).", compared)
else
  sb.log("Outputs DIFFER in %d of %d generations, first: %s", compared - equal, compared, first)
end
