-- Every verifier on drafts of one model: tokens per step at temperature 1, by kind of draw.
--   specbench run scripts/verifiers.lua [--set temperature=1] [--set take=4] [--db FILE]
-- Arms of one kind draft from the same rows q; what differs is how many of the drafts they keep.
local sb = require "specbench"

local exp <close> = sb.experiment {
  name = "verifiers",
  target = "tiny",
  dataset = "mini",
  take = sb.set.take or 0,
  temperature = sb.set.temperature or 1,
  max_new_tokens = sb.set.max_new_tokens or 64,
  seed = 11,
}
exp:add { drafter = "none", verifier = "naive-sample" }

local function arms(kind, draft, verifiers)
  draft[1], draft.model = draft[1] or "small-lm", "tiny-draft-distilled"
  for _, verifier in ipairs(verifiers) do
    exp:add { drafter = draft, verifier = verifier, label = kind .. " " .. verifier }
  end
end

arms("chain", { k = 4 }, { "naive-sample", "rejection", "block", "hsd-experimental" })
arms("coupled", { k = 4, draw = "coupled" }, { "gumbel-coupled" })
arms("iid 2x2x1", { tree = "2x2x1" },
  { "naive-sample", "rrs", "mss", "k-seq", "ot-flow", "traversal" })
arms("wor 2x2x1", { tree = "2x2x1", draw = "wor" }, { "naive-sample", "rrs", "ot-flow", "traversal" })
arms("hub 2x2x2", { tree = "2x2x2", draw = "hub" }, { "naive-sample", "spechub" })
arms("topk1 2x2x1", { tree = "2x2x1", draw = "topk1" }, { "naive-sample", "topk-plus-one" })
arms("paths 3", { k = 3, paths = 3, draw = "paths" }, { "naive-sample", "rrs", "gbv", "traversal" })
arms("lossy", { k = 4 }, {
  "typical", "scd", "speccascade-chow", "speccascade-diff", "speccascade-opt", "speccascade-token1",
  "speccascade-token2", "speccascade-token3",
})

exp:report "leaderboard"
