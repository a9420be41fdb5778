-- Cost curves of each arithmetic apart; a key cannot be widened in place. Those there are came from exact.
CREATE TEMP TABLE cost_curve_kept AS SELECT * FROM cost_curve;
DROP TABLE main.cost_curve;

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

INSERT INTO cost_curve
  SELECT host_id, model_id, 'exact', context, "rows", median_ns, c, c_lo, c_hi FROM cost_curve_kept;
DROP TABLE temp.cost_curve_kept;
