-- Acceptance by depth and rank among the siblings, per arm. nodes: those whose parent was accepted;
-- acceptance = accepted / nodes, which is P(accepted | parent accepted). share: of the tokens accepted at this
-- depth, how many were the child of this rank. coverage, of the whole depth: in how many of the steps that
-- had a node to try there was one accepted; it equals the conditional acceptance of `positions`.
CREATE VIEW ranks AS
WITH counted AS MATERIALIZED (
  SELECT g.arm_id, n.depth, n.rank, count(*) AS nodes, sum(n.accepted) AS accepted
  FROM v_tried_node n
  JOIN generation g ON g.id = n.generation_id
  WHERE g.status = 'ok'
  GROUP BY g.arm_id, n.depth, n.rank
),
level AS (
  SELECT g.arm_id, n.depth, count(*) AS steps, sum(n.accepted) AS accepted
  FROM (SELECT generation_id, step_no, depth, max(accepted) AS accepted
        FROM v_tried_node
        GROUP BY generation_id, step_no, depth) n
  JOIN generation g ON g.id = n.generation_id
  WHERE g.status = 'ok'
  GROUP BY g.arm_id, n.depth
)
SELECT a.experiment_id, a.id AS arm_id, a.arm_no, a.label AS arm, c.depth, c.rank, c.nodes, c.accepted,
       1.0 * c.accepted / c.nodes AS acceptance,
       1.0 * c.accepted / nullif(level.accepted, 0) AS share,
       1.0 * level.accepted / level.steps AS coverage
FROM counted c
JOIN level ON level.arm_id = c.arm_id AND level.depth = c.depth
JOIN arm a ON a.id = c.arm_id;
