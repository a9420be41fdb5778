-- One row per generation: its names, its times, and the sums over its steps that every metric is made of.
-- What imported files do not say is NULL: drafts and times of steps.
CREATE VIEW v_generation AS
SELECT g.id AS generation_id, a.experiment_id, a.id AS arm_id, a.arm_no, a.label AS arm, a.is_baseline,
       p.id AS prompt_id, p.question_id, p.turn, p.task, g.repeat, g.status, g.finish,
       g.n_prompt_tokens, g.n_tokens, g.prefill_ns, g.decode_ns, g.wall_ns,
       count(s.step_no) AS steps,
       iif(e.origin = 'run', count(CASE WHEN s.drafted > 0 THEN 1 END), NULL) AS drafted_steps,
       coalesce(sum(s.tokens), 0) AS tokens, -- by steps; the prefill's token is not among them
       iif(e.origin = 'run', coalesce(sum(CASE WHEN s.drafted > 0 THEN s.tokens END), 0), NULL)
         AS drafted_steps_tokens,
       iif(e.origin = 'run', coalesce(sum(s.drafted), 0), NULL) AS drafted,
       iif(e.origin = 'run', coalesce(sum(s.auxiliary), 0), NULL) AS auxiliary,
       iif(e.origin = 'run', coalesce(sum(s.depth), 0), NULL) AS depth,
       coalesce(sum(s.accepted), 0) AS accepted,
       iif(e.origin = 'run', coalesce(sum(s.decided), 0), NULL) AS decided,
       iif(e.origin = 'run', coalesce(sum(s.draft_ns), 0), NULL) AS draft_ns,
       iif(e.origin = 'run', coalesce(sum(s.verify_ns), 0), NULL) AS verify_ns,
       iif(e.origin = 'run', coalesce(sum(s.accept_ns), 0), NULL) AS accept_ns,
       iif(e.origin = 'run', coalesce(sum(s.commit_ns), 0), NULL) AS commit_ns,
       iif(e.origin = 'run', coalesce(sum(s.observe_ns), 0), NULL) AS observe_ns
FROM generation g
JOIN arm a ON a.id = g.arm_id
JOIN experiment e ON e.id = a.experiment_id
JOIN prompt p ON p.id = g.prompt_id
LEFT JOIN step s ON s.generation_id = g.id
GROUP BY g.id;
