-- The Spec-Bench questions, every arm on every task.
--   specbench run scripts/spec_bench.lua --set file=question.jsonl [--set take=4] [--set target=tiny]
-- The file is not bundled: hemingkx/Spec-Bench, data/spec_bench/question.jsonl (see datasets/SOURCES.md).
local sb = require "specbench"

if not sb.set.file then
  error("say where Spec-Bench's question.jsonl is: --set file=PATH", 0)
end
local draft = sb.set.draft or "tiny-draft-distilled"

local exp <close> = sb.experiment {
  name = "spec-bench",
  target = sb.set.target or "tiny",
  dataset = "spec-bench:" .. sb.set.file,
  take = sb.set.take or 0, -- 0: all 480
  max_new_tokens = sb.set.max_new_tokens or 256,
  repeats = sb.set.repeats or 1,
  temperature = sb.set.temperature or 0,
  seed = sb.set.seed or 0,
}
exp:add { drafter = "none" }
exp:add { drafter = { "pld", k = 10 } }
for k = 2, 6, 2 do
  exp:add { drafter = { "small-lm", model = draft, k = k }, label = "small-lm k=" .. k }
end

for run in exp:runs() do -- every finished prompt is already committed
  sb.log("%-14s %5.2f tokens per step", run.label, run.mat)
end
exp:report "tasks"
