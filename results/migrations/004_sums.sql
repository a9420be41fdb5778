-- Schema 4: sums over the steps of each generation, so that tables over millions of steps take no scan of them.
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

-- What tables over generations read, without the long texts.
CREATE INDEX generation_figures ON generation
  (arm_id, prompt_id, repeat, status, finish, n_prompt_tokens, n_tokens, prefill_ns, decode_ns, wall_ns,
   load_average);
