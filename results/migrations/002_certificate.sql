-- Schema 2: certificates. What `specbench certify` found, a row per run and a row per check.
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
