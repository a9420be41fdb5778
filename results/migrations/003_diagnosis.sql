-- Schema 3: what any verifier could have accepted of a draft, on request (run --diagnose).
ALTER TABLE step ADD COLUMN judged INTEGER CHECK (judged >= 1);
ALTER TABLE step ADD COLUMN overlap REAL;
ALTER TABLE step ADD COLUMN ot_bound REAL;
