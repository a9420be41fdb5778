-- One row per generation: its names, its times, and the sums over its steps that every metric is made of.
CREATE VIEW v_generation AS
SELECT g.id AS generation_id, a.experiment_id, a.id AS arm_id, a.arm_no, a.label AS arm, a.is_baseline,
       p.id AS prompt_id, p.question_id, p.turn, p.task, g.repeat, g.status, g.finish,
       g.n_prompt_tokens, g.n_tokens, g.prefill_ns, g.decode_ns, g.wall_ns,
       count(s.step_no) AS steps,
       count(CASE WHEN s.drafted > 0 THEN 1 END) AS drafted_steps,
       coalesce(sum(s.tokens), 0) AS tokens, -- by steps; the prefill's token is not among them
       coalesce(sum(CASE WHEN s.drafted > 0 THEN s.tokens END), 0) AS drafted_steps_tokens,
       coalesce(sum(s.drafted), 0) AS drafted,
       coalesce(sum(s.auxiliary), 0) AS auxiliary,
       coalesce(sum(s.depth), 0) AS depth,
       coalesce(sum(s.accepted), 0) AS accepted,
       coalesce(sum(s.decided), 0) AS decided,
       coalesce(sum(s.draft_ns), 0) AS draft_ns,
       coalesce(sum(s.verify_ns), 0) AS verify_ns,
       coalesce(sum(s.accept_ns), 0) AS accept_ns,
       coalesce(sum(s.commit_ns), 0) AS commit_ns,
       coalesce(sum(s.observe_ns), 0) AS observe_ns
FROM generation g
JOIN arm a ON a.id = g.arm_id
JOIN prompt p ON p.id = g.prompt_id
LEFT JOIN step s ON s.generation_id = g.id
GROUP BY g.id;
