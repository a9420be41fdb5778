---@meta specbench
-- Annotations for editors; nothing here runs.

---@class sb.ExperimentSpec
---@field target string                 bundled name, GGUF file or HF directory
---@field dataset? string               "mini" (default), "spec-bench:FILE", "jsonl:FILE"
---@field name? string                  name in the database
---@field tasks? string                 only these tasks, separated by commas
---@field take? integer                 first N questions of each task; 0: all
---@field seed? integer
---@field repeats? integer              times every prompt is run with every arm
---@field max_new_tokens? integer
---@field max_context? integer
---@field temperature? number           0: greedy
---@field top_k? integer
---@field top_p? number
---@field ignore_eos? boolean
---@field template? string              chat template by name
---@field answers? "baseline"|"own"     whose earlier answers a later turn follows
---@field baseline? boolean             add plain decoding when it is missing
---@field aa? boolean                   run the baseline once more: its noise floor
---@field cost_curve? boolean           measure c(M) of the target first (default)

---@class sb.Arm
---@field drafter string|table          "pld", "pld:k=10" or { "pld", k = 10 }
---@field verifier? string|table
---@field policy? string|table
---@field label? string

---@class sb.Experiment
local Experiment = {}
---@param arm sb.Arm
function Experiment:add(arm) end
---Run now; the methods below do it when needed.
---@return sb.Experiment
function Experiment:run() end
---One table per arm, its figures over all tasks: label, mat, speedup, ...
---@return fun(): table
function Experiment:runs() end
---The rows of a view.
---@param view? "leaderboard"|"tasks"|"acceptance"|"positions"|"drafting"|"ranks"|"sources"|"histogram"|"breakdown"|"latency"|"diagnosis"|"speed"|"compare"|"cost"|"warnings"|"runs"|"coverage"
---@return table[]
function Experiment:rows(view) end
---Print a view on standard output, in the format of the command line.
---@param view? string
function Experiment:report(view) end
---Outputs against plain decoding.
---@return integer equal, integer compared, string first_difference
function Experiment:equality() end

---@class specbench
---@field set table<string, string>     values given with --set k=v
---@field version string
local specbench = {}
---@param spec sb.ExperimentSpec
---@return sb.Experiment
function specbench.experiment(spec) end
---A line on standard error.
---@param format string
function specbench.log(format, ...) end
return specbench
