-- Acceptance by position in the draft, per arm.
--
-- exposure: steps in which position k existed on the accepted path and 1..k-1 were accepted (in a tree:
-- some child was there to try). conditional = accepted / exposure. survival = product of the conditional
-- rates up to k (Kaplan-Meier: drafts that end early are censored, not rejected). marginal = accepted /
-- all steps, so the mean of accepted + 1 over steps is 1 + the sum of marginals; MAT is that figure less
-- the tokens that a stop or the length limit cut off.
CREATE VIEW positions AS
WITH RECURSIVE hist AS MATERIALIZED (
  SELECT g.arm_id, s.decided, s.accepted, count(*) AS n
  FROM generation g
  JOIN step s ON s.generation_id = g.id
  JOIN arm a ON a.id = g.arm_id
  JOIN experiment e ON e.id = a.experiment_id
  WHERE g.status = 'ok' AND e.origin = 'run' -- imported steps do not say how long the draft was
  GROUP BY g.arm_id, s.decided, s.accepted
),
total AS (SELECT arm_id, sum(n) AS steps, max(decided) AS last FROM hist GROUP BY arm_id),
k AS (
  SELECT arm_id, steps, last, 1 AS position FROM total WHERE last >= 1
  UNION ALL
  SELECT arm_id, steps, last, position + 1 FROM k WHERE position < last
),
counted AS MATERIALIZED (
  SELECT k.arm_id, k.position, k.steps, sum(h.n) AS exposure,
         sum(CASE WHEN h.accepted >= k.position THEN h.n ELSE 0 END) AS accepted
  FROM k
  JOIN hist h ON h.arm_id = k.arm_id AND h.decided >= k.position
  GROUP BY k.arm_id, k.position
),
chain AS (
  SELECT arm_id, position, 1.0 * accepted / exposure AS survival FROM counted WHERE position = 1
  UNION ALL
  SELECT c.arm_id, c.position, chain.survival * c.accepted / c.exposure
  FROM chain
  JOIN counted c ON c.arm_id = chain.arm_id AND c.position = chain.position + 1
)
SELECT a.experiment_id, a.id AS arm_id, a.arm_no, a.label AS arm, c.position, c.exposure, c.accepted,
       1.0 * c.accepted / c.exposure AS conditional,
       chain.survival,
       1.0 * c.accepted / c.steps AS marginal
FROM counted c
JOIN chain ON chain.arm_id = c.arm_id AND chain.position = c.position
JOIN arm a ON a.id = c.arm_id;
