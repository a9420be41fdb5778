-- Times of drafting per arm, per task and overall (overall = 1, task 'all'), in microseconds per step. draft_share is drafting over
-- the five measured parts of a step, NULL where there was no forward (a replay).
CREATE VIEW v_drafting AS
WITH g AS MATERIALIZED (SELECT * FROM v_generation WHERE status = 'ok'),
grouped AS (
  SELECT 0 AS overall, task AS in_task, g.* FROM g
  UNION ALL
  SELECT 1, 'all', g.* FROM g
)
SELECT arm_id, overall, in_task AS task,
       sum(draft_ns) / 1e3 / nullif(sum(steps), 0) AS draft_us,
       sum(observe_ns) / 1e3 / nullif(sum(steps), 0) AS observe_us,
       CASE WHEN sum(verify_ns) > 0
            THEN 1.0 * sum(draft_ns) / sum(draft_ns + verify_ns + accept_ns + commit_ns + observe_ns)
       END AS draft_share
FROM grouped
GROUP BY arm_id, overall, in_task;
