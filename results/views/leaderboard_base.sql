-- Per arm, and per task and overall (overall = 1, task 'all'): counts and acceptance over the generations
-- that ended well. Speedups are paired and need resampling, so `specbench report` adds them to these rows.
--
-- A prompt is a question with all its turns. MAT (mean accepted tokens) is pooled: tokens kept over steps,
-- steps without a draft included; the prefill and its token are no step. mat_prompt_mean is the mean over
-- prompts of each prompt's own MAT; mat_drafted is MAT over the steps that had a draft; hit_rate is their
-- share. draft_efficiency is accepted over drafted; conditional_acceptance is accepted over positions that
-- got a trial, the alpha that belongs into the formulas of the literature. tokens_per_s leaves the
-- prefill out on both sides.
CREATE VIEW leaderboard_base AS
WITH g AS MATERIALIZED (SELECT * FROM v_generation),
grouped AS (
  SELECT 0 AS overall, task AS in_task, g.* FROM g
  UNION ALL
  SELECT 1, 'all', g.* FROM g
),
per_prompt AS (
  SELECT experiment_id, arm_id, overall, in_task, task, question_id,
         count(*) AS generations,
         sum(steps) AS steps, sum(drafted_steps) AS drafted_steps,
         sum(tokens) AS tokens, sum(drafted_steps_tokens) AS drafted_steps_tokens,
         sum(drafted) AS drafted, sum(accepted) AS accepted, sum(decided) AS decided,
         sum(decode_ns) AS decode_ns, sum(prefill_ns) AS prefill_ns
  FROM grouped
  WHERE status = 'ok'
  GROUP BY arm_id, overall, in_task, task, question_id
),
failed AS (
  SELECT arm_id, overall, in_task, count(*) AS errors
  FROM grouped
  WHERE status = 'error'
  GROUP BY arm_id, overall, in_task
),
seen AS (SELECT DISTINCT experiment_id, arm_id, overall, in_task FROM grouped)
SELECT s.experiment_id, a.id AS arm_id, a.arm_no, a.label AS arm, a.is_baseline, s.overall,
       s.in_task AS task,
       count(p.question_id) AS prompts,
       coalesce(sum(p.generations), 0) AS generations,
       coalesce(max(f.errors), 0) AS errors,
       sum(p.steps) AS steps,
       sum(p.tokens) AS tokens,
       sum(p.drafted) AS drafted,
       sum(p.accepted) AS accepted,
       1.0 * sum(p.tokens) / nullif(sum(p.steps), 0) AS mat,
       avg(1.0 * p.tokens / nullif(p.steps, 0)) AS mat_prompt_mean,
       1.0 * sum(p.drafted_steps_tokens) / nullif(sum(p.drafted_steps), 0) AS mat_drafted,
       1.0 * sum(p.drafted_steps) / nullif(sum(p.steps), 0) AS hit_rate,
       1.0 * sum(p.accepted) / nullif(sum(p.drafted), 0) AS draft_efficiency,
       1.0 * sum(p.accepted) / nullif(sum(p.decided), 0) AS conditional_acceptance,
       1e9 * sum(p.tokens) / nullif(sum(p.decode_ns), 0) AS tokens_per_s,
       a.guarantee
FROM seen s
JOIN arm a ON a.id = s.arm_id
LEFT JOIN per_prompt p ON p.arm_id = s.arm_id AND p.overall = s.overall AND p.in_task = s.in_task
LEFT JOIN failed f ON f.arm_id = s.arm_id AND f.overall = s.overall AND f.in_task = s.in_task
GROUP BY s.arm_id, s.overall, s.in_task;
