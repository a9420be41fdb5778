-- Per arm, and per task and overall (overall = 1, task 'all'): counts and acceptance over the generations
-- that ended well. Speedups are paired and need resampling, so `specbench report` adds them to these rows.
-- missing: generations that were planned and are not there, neither done nor failed.
--
-- A prompt is a question with all its turns. MAT (mean accepted tokens) is pooled: tokens kept over steps,
-- steps without a draft included; the prefill and its token are no step. mat_prompt_mean is the mean over
-- prompts of each prompt's own MAT; mat_drafted is MAT over the steps that had a draft; hit_rate (draft
-- coverage) is their share. tokens_per_forward counts the prefill as a forward and its token as a token.
--
-- conditional_acceptance is accepted over positions that got a trial, the alpha that belongs into the
-- formulas of the literature. draft_efficiency is accepted over drafted nodes, node_efficiency over all
-- nodes, auxiliary ones too, depth_efficiency over the drafts' depths (for chains: over what was proposed).
-- path_utilisation is the mean over steps of (accepted + 1) / (depth + 1). row_waste is the share of the
-- target's rows that gave no token. tokens_per_s leaves the prefill out on both sides.
CREATE VIEW leaderboard_base AS
WITH per_prompt AS MATERIALIZED (
  SELECT experiment_id, arm_id, task, question_id,
         sum(status = 'ok') AS generations,
         sum(status = 'error') AS errors,
         sum(steps) FILTER (WHERE status = 'ok') AS steps,
         sum(drafted_steps) FILTER (WHERE status = 'ok') AS drafted_steps,
         sum(tokens) FILTER (WHERE status = 'ok') AS tokens,
         sum(drafted_steps_tokens) FILTER (WHERE status = 'ok') AS drafted_steps_tokens,
         sum(drafted) FILTER (WHERE status = 'ok') AS drafted,
         sum(auxiliary) FILTER (WHERE status = 'ok') AS auxiliary,
         sum(depth) FILTER (WHERE status = 'ok') AS depth,
         sum(accepted) FILTER (WHERE status = 'ok') AS accepted,
         sum(decided) FILTER (WHERE status = 'ok') AS decided,
         sum("rows") FILTER (WHERE status = 'ok') AS "rows",
         sum(cut) FILTER (WHERE status = 'ok') AS cut,
         sum(path) FILTER (WHERE status = 'ok') AS path,
         sum(n_tokens) FILTER (WHERE status = 'ok') AS n_tokens,
         sum(decode_ns) FILTER (WHERE status = 'ok') AS decode_ns
  FROM v_generation
  GROUP BY arm_id, task, question_id
),
grouped AS (
  SELECT 0 AS overall, task AS in_task, p.* FROM per_prompt p
  UNION ALL
  SELECT 1, 'all', p.* FROM per_prompt p
),
asked AS (
  SELECT p.experiment_id, 0 AS overall, p.task, count(*) * e.repeats AS planned
  FROM prompt p JOIN experiment e ON e.id = p.experiment_id
  GROUP BY p.experiment_id, p.task
  UNION ALL
  SELECT p.experiment_id, 1, 'all', count(*) * e.repeats
  FROM prompt p JOIN experiment e ON e.id = p.experiment_id
  GROUP BY p.experiment_id
)
SELECT a.experiment_id, a.id AS arm_id, a.arm_no, a.label AS arm, a.is_baseline, q.overall, q.task,
       count(CASE WHEN p.generations > 0 THEN 1 END) AS prompts,
       coalesce(sum(p.generations), 0) AS generations,
       coalesce(sum(p.errors), 0) AS errors,
       max(q.planned - coalesce(sum(p.generations + p.errors), 0), 0) AS missing,
       sum(p.steps) AS steps,
       sum(p.tokens) AS tokens,
       sum(p.drafted) AS drafted,
       sum(p.accepted) AS accepted,
       sum(p.cut) AS cut,
       1.0 * sum(p.tokens) / nullif(sum(p.steps), 0) AS mat,
       avg(1.0 * p.tokens / nullif(p.steps, 0)) AS mat_prompt_mean,
       1.0 * sum(p.drafted_steps_tokens) / nullif(sum(p.drafted_steps), 0) AS mat_drafted,
       1.0 * sum(p.drafted_steps) / nullif(sum(p.steps), 0) AS hit_rate,
       1.0 * sum(p.accepted) / nullif(sum(p.drafted), 0) AS draft_efficiency,
       1.0 * sum(p.accepted) / nullif(sum(p.drafted + p.auxiliary), 0) AS node_efficiency,
       1.0 * sum(p.accepted) / nullif(sum(p.depth), 0) AS depth_efficiency,
       1.0 * sum(p.accepted) / nullif(sum(p.decided), 0) AS conditional_acceptance,
       sum(p.path) / nullif(sum(p.steps), 0) AS path_utilisation,
       1 - 1.0 * sum(p.tokens) / nullif(sum(p."rows"), 0) AS row_waste,
       1.0 * sum(p.n_tokens) / nullif(sum(p.steps + p.generations), 0) AS tokens_per_forward,
       1e9 * sum(p.tokens) / nullif(sum(p.decode_ns), 0) AS tokens_per_s,
       a.guarantee
FROM asked q
JOIN arm a ON a.experiment_id = q.experiment_id
LEFT JOIN grouped p ON p.arm_id = a.id AND p.overall = q.overall AND p.in_task = q.task
GROUP BY a.id, q.overall, q.task;
