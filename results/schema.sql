-- The results database as it is now (schema 6), for readers. specbench itself builds it from migrations/;
-- a test holds the two together. Formulas live in views/. Times are nanoseconds of CLOCK_MONOTONIC.

CREATE TABLE host (
  id                INTEGER PRIMARY KEY,
  content_key       TEXT NOT NULL UNIQUE,      -- XXH64 of every column below
  hostname          TEXT,
  cpu               TEXT,
  isa               TEXT,                      -- kernels in use: generic, avx2, avx512, ...
  os                TEXT,
  compiler          TEXT,
  build_flags       TEXT,
  specbench_version TEXT,
  "commit"          TEXT,
  blas              TEXT,
  threads           INTEGER NOT NULL CHECK (threads >= 0),
  physical_cores    INTEGER NOT NULL CHECK (physical_cores >= 0),
  memory_bytes      INTEGER NOT NULL CHECK (memory_bytes >= 0)
) STRICT;

CREATE TABLE model (
  id             INTEGER PRIMARY KEY,
  content_key    TEXT NOT NULL UNIQUE,         -- XXH64 of every column below
  name           TEXT NOT NULL,
  path           TEXT,
  arch           TEXT,                         -- llama, qwen2, ...
  format         TEXT,                         -- gguf, hf
  weight_type    TEXT,                         -- f32, bf16, q8_0, ...
  content_hash   TEXT,
  tokenizer_hash TEXT,
  config_json    TEXT,
  n_params       INTEGER NOT NULL CHECK (n_params >= 0),
  size_bytes     INTEGER NOT NULL CHECK (size_bytes >= 0)
) STRICT;

CREATE TABLE experiment (
  id              INTEGER PRIMARY KEY,
  content_key     TEXT NOT NULL UNIQUE,        -- of all that decides results; finds the run to resume
  name            TEXT NOT NULL,
  spec_json       TEXT,                        -- the whole plan
  script          TEXT,                        -- path of the Lua script
  dataset         TEXT,
  dataset_hash    TEXT,
  chat_template   TEXT,
  conversation    TEXT CHECK (conversation IN ('baseline', 'own')), -- whose answers turn 2 follows
  host_id         INTEGER NOT NULL REFERENCES host (id),
  target_model_id INTEGER NOT NULL REFERENCES model (id),
  seed            INTEGER NOT NULL,
  repeats         INTEGER NOT NULL CHECK (repeats >= 1),
  max_new_tokens  INTEGER NOT NULL CHECK (max_new_tokens >= 0),
  temperature     REAL NOT NULL CHECK (temperature >= 0), -- 0: greedy
  top_p           REAL NOT NULL,
  top_k           INTEGER NOT NULL,
  ignore_eos      INTEGER NOT NULL CHECK (ignore_eos IN (0, 1)),
  arithmetic      TEXT,                        -- exact: bit-identical for any batch, threads, CPU;
                                               -- or what differs: kv=f16 math=fast prefill=openblas
  created_at      TEXT NOT NULL,               -- UTC, 2026-11-21T04:05:06Z
  origin TEXT NOT NULL DEFAULT 'run' CHECK (origin IN ('run', 'import')) -- import: rows made from others'
                                               -- files, 0 where these say nothing
) STRICT;

CREATE TABLE arm (
  id              INTEGER PRIMARY KEY,
  experiment_id   INTEGER NOT NULL REFERENCES experiment (id) ON DELETE CASCADE,
  arm_no          INTEGER NOT NULL CHECK (arm_no >= 0), -- order in the experiment
  label           TEXT NOT NULL,
  drafter         TEXT NOT NULL,
  drafter_params  TEXT,
  verifier        TEXT,
  verifier_params TEXT,
  policy          TEXT,
  policy_params   TEXT,
  guarantee       TEXT CHECK (guarantee IN ('greedy-exact', 'distribution-exact', 'lossy')),
  is_baseline     INTEGER NOT NULL CHECK (is_baseline IN (0, 1)),
  UNIQUE (experiment_id, arm_no),
  UNIQUE (experiment_id, label)
) STRICT;

CREATE TABLE prompt (
  id            INTEGER PRIMARY KEY,
  experiment_id INTEGER NOT NULL REFERENCES experiment (id) ON DELETE CASCADE,
  question_id   INTEGER NOT NULL,              -- as in the prompt set
  task          TEXT NOT NULL,
  category      TEXT,
  turn          INTEGER NOT NULL CHECK (turn >= 1),
  n_turns       INTEGER NOT NULL CHECK (n_turns >= turn),
  text          TEXT,                          -- what the user says in this turn
  content_key   TEXT NOT NULL,                 -- XXH64 of task, category and text
  UNIQUE (experiment_id, question_id, turn, content_key)
) STRICT;

CREATE TABLE generation (
  id              INTEGER PRIMARY KEY,
  arm_id          INTEGER NOT NULL REFERENCES arm (id) ON DELETE CASCADE,
  prompt_id       INTEGER NOT NULL REFERENCES prompt (id) ON DELETE CASCADE,
  repeat          INTEGER NOT NULL CHECK (repeat >= 0),
  status          TEXT NOT NULL CHECK (status IN ('ok', 'error')),
  error           TEXT,                        -- why, when status is error
  finish          TEXT,                        -- eos, length, context
  n_prompt_tokens INTEGER NOT NULL CHECK (n_prompt_tokens >= 0),
  n_tokens        INTEGER NOT NULL CHECK (n_tokens >= 0), -- new ones, that of the prefill included
  prompt_tokens   TEXT NOT NULL CHECK (prompt_tokens LIKE '[%]'), -- JSON array of ids
  tokens          TEXT NOT NULL CHECK (tokens LIKE '[%]'),        -- JSON array of ids
  text            TEXT,
  prefill_ns      INTEGER NOT NULL CHECK (prefill_ns >= 0), -- prompt forward and its one token
  decode_ns       INTEGER NOT NULL CHECK (decode_ns >= 0),  -- all steps, first start to last end
  wall_ns         INTEGER NOT NULL CHECK (wall_ns >= 0),
  order_no        INTEGER NOT NULL,            -- position in the interleaving
  load_average    REAL,
  started_at      TEXT,
  UNIQUE (arm_id, prompt_id, repeat),
  CHECK ((status = 'error') = (error IS NOT NULL))
) STRICT;

CREATE INDEX generation_prompt ON generation (prompt_id);

-- What tables over generations read, without the long texts.
CREATE INDEX generation_figures ON generation
  (arm_id, prompt_id, repeat, status, finish, n_prompt_tokens, n_tokens, prefill_ns, decode_ns, wall_ns,
   load_average);

-- One target forward over a draft; the prefill is never a step.
CREATE TABLE step (
  generation_id INTEGER NOT NULL REFERENCES generation (id) ON DELETE CASCADE,
  step_no       INTEGER NOT NULL CHECK (step_no >= 0),
  context       INTEGER NOT NULL CHECK (context >= 0),   -- committed tokens before it
  drafted       INTEGER NOT NULL CHECK (drafted >= 0),   -- draft tokens verified
  auxiliary     INTEGER NOT NULL CHECK (auxiliary >= 0), -- rows computed, never verified
  depth         INTEGER NOT NULL CHECK (depth BETWEEN 0 AND drafted), -- of the deepest draft token
  accepted      INTEGER NOT NULL CHECK (accepted BETWEEN 0 AND depth), -- before any stop or length cut
  decided       INTEGER NOT NULL CHECK (decided IN (accepted, accepted + 1) AND decided <= depth),
                -- positions that got a trial: accepted, and one more when the accepted path had
                -- another draft token below it, which was rejected
  tokens        INTEGER NOT NULL CHECK (tokens BETWEEN 0 AND accepted + 1), -- kept; fewer when cut
  bonus         INTEGER NOT NULL CHECK (bonus IN (0, 1)), -- the last token is a bonus, no correction
  draft_ns      INTEGER NOT NULL CHECK (draft_ns >= 0),
  verify_ns     INTEGER NOT NULL CHECK (verify_ns >= 0),  -- the target forward
  accept_ns     INTEGER NOT NULL CHECK (accept_ns >= 0),
  commit_ns     INTEGER NOT NULL CHECK (commit_ns >= 0),
  observe_ns    INTEGER NOT NULL CHECK (observe_ns >= 0),
  judged        INTEGER CHECK (judged >= 1),   -- nodes of the accepted path that had children; NULL: no
                                               -- such node, or not diagnosed (run --diagnose)
  overlap       REAL,                          -- sum over them of sum_v min(p(v), q(v))
  ot_bound      REAL,                          -- sum over them of the best acceptance of any exact rule
  PRIMARY KEY (generation_id, step_no)
) STRICT, WITHOUT ROWID;

-- The sums over the steps of a generation, written with it: view v_sums_due says what they are. Where steps or
-- tokens were edited later, views add up again, and `specbench verify` tells.
CREATE TABLE generation_sums (
  generation_id        INTEGER PRIMARY KEY REFERENCES generation (id) ON DELETE CASCADE,
  steps                INTEGER NOT NULL,
  drafted_steps        INTEGER NOT NULL,       -- with a draft
  tokens               INTEGER NOT NULL,       -- of steps; the prefill's is not among them
  drafted_steps_tokens INTEGER NOT NULL,
  drafted              INTEGER NOT NULL,
  auxiliary            INTEGER NOT NULL,
  depth                INTEGER NOT NULL,
  accepted             INTEGER NOT NULL,
  decided              INTEGER NOT NULL,
  path                 REAL NOT NULL,          -- of (accepted + 1) / (depth + 1)
  draft_ns             INTEGER NOT NULL,
  verify_ns            INTEGER NOT NULL,
  accept_ns            INTEGER NOT NULL,
  commit_ns            INTEGER NOT NULL,
  observe_ns           INTEGER NOT NULL,
  tokens_key           INTEGER,                -- XXH64 of the text of generation.tokens, to compare answers by
  changed              INTEGER NOT NULL DEFAULT 0 -- 1: what it sums up was edited since; views do not use it
) STRICT;

CREATE TRIGGER step_added AFTER INSERT ON step BEGIN
  UPDATE generation_sums SET changed = 1 WHERE generation_id = new.generation_id;
END;
CREATE TRIGGER step_edited AFTER UPDATE ON step BEGIN
  UPDATE generation_sums SET changed = 1 WHERE generation_id IN (old.generation_id, new.generation_id);
END;
CREATE TRIGGER step_removed AFTER DELETE ON step BEGIN
  UPDATE generation_sums SET changed = 1 WHERE generation_id = old.generation_id;
END;
CREATE TRIGGER tokens_edited AFTER UPDATE OF tokens ON generation BEGIN
  UPDATE generation_sums SET changed = 1 WHERE generation_id = new.id;
END;

-- The draft tree of a step, its root left out (node 0, the last committed token).
CREATE TABLE draft_node (
  generation_id INTEGER NOT NULL,
  step_no       INTEGER NOT NULL,
  node_no       INTEGER NOT NULL CHECK (node_no >= 1),
  parent        INTEGER NOT NULL CHECK (parent >= 0 AND parent < node_no), -- node_no; 0: the root
  depth         INTEGER NOT NULL CHECK (depth >= 1),
  rank          INTEGER NOT NULL CHECK (rank >= 0),      -- among its siblings, in draw order
  token         INTEGER NOT NULL,
  source        INTEGER NOT NULL,              -- the drafter's own tag
  log_q         REAL,                          -- the drafter's log probability; 0 for a sure choice
  decision      INTEGER NOT NULL CHECK (decision IN (0, 1, 2)), -- not reached, rejected, accepted
  auxiliary     INTEGER NOT NULL CHECK (auxiliary IN (0, 1)),
  PRIMARY KEY (generation_id, step_no, node_no),
  FOREIGN KEY (generation_id, step_no) REFERENCES step (generation_id, step_no) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

-- The measured cost curve c(M): time of a target forward over M rows, divided by that over one.
CREATE TABLE cost_curve (
  host_id    INTEGER NOT NULL REFERENCES host (id) ON DELETE CASCADE,
  model_id   INTEGER NOT NULL REFERENCES model (id) ON DELETE CASCADE,
  arithmetic TEXT NOT NULL,                    -- as in experiment
  context    INTEGER NOT NULL CHECK (context >= 0),
  "rows"     INTEGER NOT NULL CHECK ("rows" >= 1), -- M
  median_ns  INTEGER NOT NULL CHECK (median_ns >= 0),
  c          REAL NOT NULL,
  c_lo       REAL,                             -- quartiles
  c_hi       REAL,
  PRIMARY KEY (host_id, model_id, arithmetic, context, "rows")
) STRICT, WITHOUT ROWID;

-- What `specbench certify` found: a row per run and a row per check.
CREATE TABLE certificate (
  id         INTEGER PRIMARY KEY,
  host_id    INTEGER NOT NULL REFERENCES host (id) ON DELETE CASCADE, -- and the build: its "commit"
  model_id   INTEGER REFERENCES model (id),
  created_at TEXT NOT NULL,                   -- UTC
  size       TEXT NOT NULL CHECK (size IN ('quick', 'all')),
  seed       INTEGER NOT NULL,
  level      REAL NOT NULL CHECK (level > 0 AND level < 1), -- of all its tests together
  wall_ns    INTEGER CHECK (wall_ns >= 0),
  verdict    TEXT CHECK (verdict IN ('holds', 'refuted', 'refused'))
             -- refused: a planted rule was not caught; NULL: it did not finish
) STRICT;

CREATE TABLE certificate_check (
  certificate_id  INTEGER NOT NULL REFERENCES certificate (id) ON DELETE CASCADE,
  check_no        INTEGER NOT NULL CHECK (check_no >= 0),
  part            TEXT NOT NULL CHECK (part IN ('exact', 'sample', 'greedy')),
  planted         INTEGER NOT NULL CHECK (planted IN (0, 1)), -- wrong on purpose, to be caught
  verifier        TEXT NOT NULL,
  verifier_params TEXT NOT NULL,
  guarantee       TEXT NOT NULL CHECK (guarantee IN ('greedy-exact', 'distribution-exact', 'lossy')),
  kind            TEXT,                       -- of draws; exact
  drafter         TEXT,                       -- with parameters; sample, greedy
  policy          TEXT,
  target          TEXT NOT NULL,              -- 'tables', 'toy' or the model's name
  setting         TEXT,                       -- temperatures, top-k, top-p; sample
  n               INTEGER NOT NULL CHECK (n >= 0), -- tables, or generations
  outcomes        INTEGER NOT NULL CHECK (outcomes >= 0), -- enumerated, or tokens looked at
  max_error       REAL,                       -- exact: of any sequence's probability
  variation       REAL,                       -- total variation: exact, mean over tables; sample, of
                                              -- the first tokens, less its bias
  variation_upper REAL,                       -- exact, largest; sample, 95 % upper bound
  accepted        REAL,                       -- draft tokens: exact, expected on the toy of two children
                                              -- or one; else per step
  g               REAL,                       -- G statistic of the first tokens, its degrees of
  df              REAL,                       -- freedom and p-value
  g_p             REAL,
  drift           REAL,                       -- excess of tokens that the draft likes more than the
  drift_upper     REAL,                       -- target does, per drafted token; 95 % upper bound
  drift_p         REAL,
  p_holm          REAL,                       -- the smaller p-value, adjusted for all tests
  detectable      REAL,                       -- variation that G would have shown, power .99
  equal           INTEGER,                    -- greedy: generations equal to plain decoding,
  ties            INTEGER,                    -- first different at equal top logits,
  numerical       INTEGER,                    -- at logits as close as rounding,
  real            INTEGER,                    -- anywhere else
  wall_ns         INTEGER NOT NULL CHECK (wall_ns >= 0),
  verdict         TEXT CHECK (verdict IN ('pass', 'fail', 'inconclusive', 'lossy', 'caught', 'missed')),
                  -- NULL: its certificate did not finish
  note            TEXT,
  PRIMARY KEY (certificate_id, check_no)
) STRICT, WITHOUT ROWID;
