-- One row per generation: its names, its times, and the sums over its steps that every metric is made of.
-- tokens are those of steps: the prefill's is not among them. rows are those of the target's forwards:
-- 1 + drafted + auxiliary per step. cut are tokens that were accepted or final and dropped by a stop.
-- What imported files do not say is NULL: drafts and times of steps.
CREATE VIEW v_generation AS
SELECT g.id AS generation_id, a.experiment_id, a.id AS arm_id, a.arm_no, a.label AS arm, a.is_baseline,
       p.id AS prompt_id, p.question_id, p.turn, p.task, g.repeat, g.status, g.finish,
       g.n_prompt_tokens, g.n_tokens, g.prefill_ns, g.decode_ns, g.wall_ns,
       s.steps, s.tokens, s.accepted,
       iif(e.origin = 'run', s.drafted_steps, NULL) AS drafted_steps,
       iif(e.origin = 'run', s.drafted_steps_tokens, NULL) AS drafted_steps_tokens,
       iif(e.origin = 'run', s.drafted, NULL) AS drafted,
       iif(e.origin = 'run', s.auxiliary, NULL) AS auxiliary,
       iif(e.origin = 'run', s.depth, NULL) AS depth,
       iif(e.origin = 'run', s.decided, NULL) AS decided,
       iif(e.origin = 'run', s.steps + s.drafted + s.auxiliary, NULL) AS "rows",
       iif(e.origin = 'run', s.steps + s.accepted - s.tokens, NULL) AS cut,
       iif(e.origin = 'run', s.path, NULL) AS path,
       iif(e.origin = 'run', s.draft_ns, NULL) AS draft_ns,
       iif(e.origin = 'run', s.verify_ns, NULL) AS verify_ns,
       iif(e.origin = 'run', s.accept_ns, NULL) AS accept_ns,
       iif(e.origin = 'run', s.commit_ns, NULL) AS commit_ns,
       iif(e.origin = 'run', s.observe_ns, NULL) AS observe_ns
FROM arm a
JOIN experiment e ON e.id = a.experiment_id
CROSS JOIN generation g ON g.arm_id = a.id -- in this order: an index has what is asked of generation
CROSS JOIN prompt p ON p.id = g.prompt_id
LEFT JOIN (SELECT * FROM generation_sums WHERE changed = 0 UNION ALL SELECT *, NULL, 0 FROM v_sums_due) s
  ON s.generation_id = g.id;
