-- One row per experiment: what ran, where, and how far it came. A run enters its prompts before it starts, so
-- planned counts those that an interrupted one did not reach.
CREATE VIEW runs AS
WITH came AS (
  SELECT experiment_id, count(*) AS arms, sum(planned) AS planned, sum(done) AS done, sum(errors) AS errors
  FROM coverage
  GROUP BY experiment_id
)
SELECT e.id AS experiment_id, e.name, e.created_at, m.name AS target, e.dataset, e.temperature, e.seed,
       e.repeats,
       coalesce(came.arms, 0) AS arms,
       (SELECT count(*) FROM (SELECT DISTINCT task, question_id FROM prompt p
                              WHERE p.experiment_id = e.id)) AS prompts,
       coalesce(came.planned, 0) AS planned,
       coalesce(came.done, 0) AS done,
       coalesce(came.errors, 0) AS errors,
       h.hostname, h.cpu, h.threads, h.isa, h.specbench_version, h."commit"
FROM experiment e
JOIN model m ON m.id = e.target_model_id
JOIN host h ON h.id = e.host_id
LEFT JOIN came ON came.experiment_id = e.id;
