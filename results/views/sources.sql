-- Acceptance by source, the drafter's own tag (which n-gram order, which sub-drafter), per arm. drafted: its
-- nodes; tried: those of them whose parent was accepted; acceptance = accepted / tried, efficiency =
-- accepted / drafted. share: of all tokens the arm had accepted.
CREATE VIEW sources AS
WITH drafted AS (
  SELECT g.arm_id, n.source, count(*) AS drafted
  FROM draft_node n
  JOIN generation g ON g.id = n.generation_id
  WHERE g.status = 'ok' AND n.auxiliary = 0
  GROUP BY g.arm_id, n.source
),
tried AS (
  SELECT g.arm_id, n.source, count(*) AS tried, sum(n.accepted) AS accepted
  FROM v_tried_node n
  JOIN generation g ON g.id = n.generation_id
  WHERE g.status = 'ok'
  GROUP BY g.arm_id, n.source
)
SELECT a.experiment_id, a.id AS arm_id, a.arm_no, a.label AS arm, d.source, d.drafted,
       coalesce(t.tried, 0) AS tried,
       coalesce(t.accepted, 0) AS accepted,
       1.0 * t.accepted / t.tried AS acceptance,
       1.0 * coalesce(t.accepted, 0) / d.drafted AS efficiency,
       1.0 * coalesce(t.accepted, 0) / nullif(sum(t.accepted) OVER (PARTITION BY a.experiment_id, a.id), 0)
         AS share
FROM drafted d
JOIN arm a ON a.id = d.arm_id
LEFT JOIN tried t ON t.arm_id = d.arm_id AND t.source = d.source;
