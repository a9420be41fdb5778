-- How many steps accepted so many draft tokens, and how many kept so many tokens, per arm: a row for every
-- length from 0 to the longest. Shares are of the arm's steps and add up to 1; drafted_steps are those of
-- steps that had a draft.
CREATE VIEW histogram AS
WITH RECURSIVE counted AS MATERIALIZED (
  SELECT g.arm_id, s.accepted, s.tokens, s.drafted > 0 AS drafted, count(*) AS n
  FROM generation g
  JOIN step s ON s.generation_id = g.id
  WHERE g.status = 'ok'
  GROUP BY g.arm_id, s.accepted, s.tokens, s.drafted > 0
),
total AS (
  SELECT arm_id, sum(n) AS steps, max(max(accepted), max(tokens)) AS last FROM counted GROUP BY arm_id
),
line AS (
  SELECT arm_id, steps, last, 0 AS length FROM total
  UNION ALL
  SELECT arm_id, steps, last, length + 1 FROM line WHERE length < last
)
SELECT a.experiment_id, a.id AS arm_id, a.arm_no, a.label AS arm, l.length,
       sum(CASE WHEN c.accepted = l.length THEN c.n ELSE 0 END) AS accepted_steps,
       iif(e.origin = 'run', sum(CASE WHEN c.accepted = l.length AND c.drafted THEN c.n ELSE 0 END), NULL)
         AS drafted_steps, -- imports do not say
       total(CASE WHEN c.accepted = l.length THEN c.n END) / l.steps AS accepted_share,
       sum(CASE WHEN c.tokens = l.length THEN c.n ELSE 0 END) AS token_steps,
       total(CASE WHEN c.tokens = l.length THEN c.n END) / l.steps AS token_share
FROM line l
JOIN counted c ON c.arm_id = l.arm_id
JOIN arm a ON a.id = l.arm_id
JOIN experiment e ON e.id = a.experiment_id
GROUP BY l.arm_id, l.length;
