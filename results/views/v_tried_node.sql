-- Draft nodes whose parent was accepted (or is the root): those that could be accepted. The others say nothing
-- of the drafter's choice at their place.
CREATE VIEW v_tried_node AS
SELECT n.generation_id, n.step_no, n.depth, n.rank, n.source, n.decision = 2 AS accepted
FROM draft_node n
LEFT JOIN draft_node p ON p.generation_id = n.generation_id AND p.step_no = n.step_no AND p.node_no = n.parent
WHERE n.auxiliary = 0 AND (n.parent = 0 OR p.decision = 2);
