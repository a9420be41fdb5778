-- One row per generation: its names, its times, and the sums over its steps that every metric is made of.
-- tokens are those of steps: the prefill's is not among them. rows are those of the target's forwards:
-- 1 + drafted + auxiliary per step. cut are tokens that were accepted or final and dropped by a stop.
CREATE VIEW v_generation AS
SELECT g.id AS generation_id, a.experiment_id, a.id AS arm_id, a.arm_no, a.label AS arm, a.is_baseline,
       p.id AS prompt_id, p.question_id, p.turn, p.task, g.repeat, g.status, g.finish,
       g.n_prompt_tokens, g.n_tokens, g.prefill_ns, g.decode_ns, g.wall_ns,
       s.steps, s.drafted_steps, s.tokens, s.drafted_steps_tokens, s.drafted, s.auxiliary, s.depth,
       s.accepted, s.decided,
       s.steps + s.drafted + s.auxiliary AS "rows",
       s.steps + s.accepted - s.tokens AS cut,
       s.path, s.draft_ns, s.verify_ns, s.accept_ns, s.commit_ns, s.observe_ns
FROM arm a
CROSS JOIN generation g ON g.arm_id = a.id -- in this order: an index has what is asked of generation
CROSS JOIN prompt p ON p.id = g.prompt_id
LEFT JOIN (SELECT * FROM generation_sums WHERE changed = 0 UNION ALL SELECT *, NULL, 0 FROM v_sums_due) s
  ON s.generation_id = g.id;
