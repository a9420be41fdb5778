-- What each verifier left on the table, per arm of runs with --diagnose: over the nodes of accepted paths
-- that had children (`judged`).
--
-- alpha_tv: mean of sum_v min(p(v), q(v)) = 1 - TV(p, q), the acceptance of one draw; for a token that was
-- chosen, p(token). ot_bound: mean of the best acceptance of any exact rule that judges node by node, given
-- the same draws (methods A 3.9); NULL where a kind of draw has no known bound. acceptance: what was
-- accepted there. left_on_table = ot_bound - acceptance; rules that judge whole paths may come out below 0.
CREATE VIEW diagnosis AS
SELECT a.experiment_id, a.id AS arm_id, a.arm_no, a.label AS arm, a.verifier,
       count(s.judged) AS steps, sum(s.judged) AS judged,
       sum(s.overlap) / sum(CASE WHEN s.overlap IS NOT NULL THEN s.judged END) AS alpha_tv,
       1.0 * sum(s.accepted) / sum(s.judged) AS acceptance,
       sum(s.ot_bound) / sum(CASE WHEN s.ot_bound IS NOT NULL THEN s.judged END) AS ot_bound,
       (sum(s.ot_bound) - sum(CASE WHEN s.ot_bound IS NOT NULL THEN s.accepted END))
         / sum(CASE WHEN s.ot_bound IS NOT NULL THEN s.judged END) AS left_on_table
FROM arm a
JOIN generation g ON g.arm_id = a.id AND g.status = 'ok'
JOIN step s ON s.generation_id = g.id AND s.judged IS NOT NULL
GROUP BY a.id;
