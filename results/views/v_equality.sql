-- Every generation beside the baseline's for the same prompt and repeat: are the token ids the same? The
-- baseline of an experiment is its first arm marked as one. Under greedy decoding all arms that are not
-- lossy must agree; with a temperature above 0 a difference means nothing. Keys stand for the lists, which are
-- long; where one has no key (rows of earlier versions, edited ones) the lists are compared.
CREATE VIEW v_equality AS
SELECT a.experiment_id, a.id AS arm_id, a.arm_no, a.label AS arm, p.id AS prompt_id, p.task, p.question_id,
       p.turn, g.repeat, g.id AS generation_id, b.id AS baseline_generation_id,
       coalesce(gk.tokens_key = bk.tokens_key,
                (SELECT tokens FROM generation WHERE id = g.id) = (SELECT tokens FROM generation WHERE id = b.id))
         AS equal
FROM arm a
JOIN arm base ON base.id = (SELECT id FROM arm WHERE experiment_id = a.experiment_id AND is_baseline = 1
                            ORDER BY arm_no LIMIT 1)
JOIN generation g INDEXED BY generation_figures ON g.arm_id = a.id AND g.status = 'ok'
JOIN generation b INDEXED BY generation_figures ON b.arm_id = base.id AND b.prompt_id = g.prompt_id AND b.repeat = g.repeat
                 AND b.status = 'ok'
JOIN prompt p ON p.id = g.prompt_id
LEFT JOIN generation_sums gk ON gk.generation_id = g.id AND gk.changed = 0
LEFT JOIN generation_sums bk ON bk.generation_id = b.id AND bk.changed = 0
WHERE a.id <> base.id
  AND base.experiment_id IN (SELECT id FROM experiment WHERE origin = 'run'); -- imports hold no ids
