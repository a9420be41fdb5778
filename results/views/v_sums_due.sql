-- The sums over the steps of every generation that has none stored (or was edited since): the one place where
-- they are defined.
-- The store copies its row into generation_sums when a generation is finished; generations that came by
-- another way are summed here at every question.
CREATE VIEW v_sums_due AS
SELECT g.id AS generation_id,
       count(s.step_no) AS steps,
       count(CASE WHEN s.drafted > 0 THEN 1 END) AS drafted_steps,
       coalesce(sum(s.tokens), 0) AS tokens,
       coalesce(sum(CASE WHEN s.drafted > 0 THEN s.tokens END), 0) AS drafted_steps_tokens,
       coalesce(sum(s.drafted), 0) AS drafted,
       coalesce(sum(s.auxiliary), 0) AS auxiliary,
       coalesce(sum(s.depth), 0) AS depth,
       coalesce(sum(s.accepted), 0) AS accepted,
       coalesce(sum(s.decided), 0) AS decided,
       total((s.accepted + 1.0) / (s.depth + 1)) AS path,
       coalesce(sum(s.draft_ns), 0) AS draft_ns,
       coalesce(sum(s.verify_ns), 0) AS verify_ns,
       coalesce(sum(s.accept_ns), 0) AS accept_ns,
       coalesce(sum(s.commit_ns), 0) AS commit_ns,
       coalesce(sum(s.observe_ns), 0) AS observe_ns
FROM generation g INDEXED BY generation_prompt
LEFT JOIN step s ON s.generation_id = g.id
WHERE NOT EXISTS (SELECT 1 FROM generation_sums k WHERE k.generation_id = g.id AND k.changed = 0)
GROUP BY g.id;
