-- How far each arm came: generations (prompt x repeat) planned, done, failed, missing; common are those that
-- every arm of the experiment has done. Where done exceeds common, arms finished different prompts.
CREATE VIEW coverage AS
WITH planned AS (
  SELECT e.id AS experiment_id, e.repeats * count(p.id) AS planned
  FROM experiment e
  LEFT JOIN prompt p ON p.experiment_id = e.id
  GROUP BY e.id
),
shared AS (
  SELECT experiment_id, count(*) AS common
  FROM (SELECT a.experiment_id FROM arm a JOIN generation g ON g.arm_id = a.id
        WHERE g.status = 'ok'
        GROUP BY a.experiment_id, g.prompt_id, g.repeat
        HAVING count(*) = (SELECT count(*) FROM arm b WHERE b.experiment_id = a.experiment_id))
  GROUP BY experiment_id
),
ran AS (
  SELECT arm_id, sum(status = 'ok') AS done, sum(status = 'error') AS errors
  FROM generation
  GROUP BY arm_id
)
SELECT a.experiment_id, a.id AS arm_id, a.arm_no, a.label AS arm, planned.planned,
       coalesce(ran.done, 0) AS done,
       coalesce(ran.errors, 0) AS errors,
       max(planned.planned - coalesce(ran.done, 0) - coalesce(ran.errors, 0), 0) AS missing,
       coalesce(shared.common, 0) AS common
FROM arm a
JOIN planned ON planned.experiment_id = a.experiment_id
LEFT JOIN ran ON ran.arm_id = a.id
LEFT JOIN shared ON shared.experiment_id = a.experiment_id;
