-- Speedup as Spec-Bench's evaluation/speed.py computes it, for comparison with its tables only: the mean over
-- questions of new tokens per second (prefill and its token included) of the arm, divided by that of the
-- baseline, on the questions that both finished; the mean over repeats, as its runs are averaged. Per task,
-- and over all (overall = 1, task 'all').
-- Of imported answers only the time of a turn is known, which is what the script reads too.
CREATE VIEW specbench AS
WITH answer AS MATERIALIZED (
  SELECT a.experiment_id, a.id AS arm_id, p.task, p.question_id, g.repeat,
         sum(g.n_tokens) * 1e9
           / nullif(sum(CASE e.origin WHEN 'run' THEN g.prefill_ns + g.decode_ns ELSE g.wall_ns END), 0)
           AS tokens_per_s
  FROM experiment e
  JOIN arm a ON a.experiment_id = e.id
  CROSS JOIN generation g ON g.arm_id = a.id AND g.status = 'ok' -- in this order: an index has all of it
  CROSS JOIN prompt p ON p.id = g.prompt_id
  GROUP BY a.id, p.question_id, g.repeat, p.task
  HAVING count(*) = max(p.n_turns)
),
baseline AS MATERIALIZED (
  SELECT * FROM answer
  WHERE arm_id IN (SELECT id FROM (SELECT id, min(arm_no) FROM arm WHERE is_baseline = 1 GROUP BY experiment_id))
),
task_run AS MATERIALIZED (
  SELECT m.experiment_id, m.arm_id, m.task, m.repeat, count(*) AS questions,
         sum(m.tokens_per_s) AS tokens_per_s, sum(b.tokens_per_s) AS base_tokens_per_s
  FROM answer m
  JOIN baseline b ON b.experiment_id = m.experiment_id AND b.question_id = m.question_id
                 AND b.repeat = m.repeat AND b.task = m.task
  GROUP BY m.arm_id, m.task, m.repeat
),
run AS (
  SELECT 0 AS overall, task AS in_task, t.* FROM task_run t
  UNION ALL
  SELECT 1, 'all', experiment_id, arm_id, 'all', repeat, sum(questions), sum(tokens_per_s), sum(base_tokens_per_s)
  FROM task_run
  GROUP BY arm_id, repeat
)
SELECT experiment_id, arm_id, overall, in_task AS task, count(*) AS runs, max(questions) AS questions,
       avg(tokens_per_s / base_tokens_per_s) AS specbench_speedup
FROM run
GROUP BY arm_id, overall, in_task;
