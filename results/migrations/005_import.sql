-- Schema 5: where an experiment's rows come from. What an imported run's files do not say is 0 in its rows;
-- views give NULL for it (v_generation, positions).

ALTER TABLE experiment ADD COLUMN origin TEXT NOT NULL DEFAULT 'run' CHECK (origin IN ('run', 'import'));
