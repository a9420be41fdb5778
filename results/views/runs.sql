-- One row per experiment: what ran, where, and how far it came. planned counts arm x turn x repeat over
-- the prompts that are in the database.
CREATE VIEW runs AS
SELECT e.id AS experiment_id, e.name, e.created_at, m.name AS target, e.dataset, e.temperature, e.seed,
       e.repeats,
       (SELECT count(*) FROM arm a WHERE a.experiment_id = e.id) AS arms,
       (SELECT count(*) FROM (SELECT DISTINCT task, question_id FROM prompt p
                              WHERE p.experiment_id = e.id)) AS prompts,
       (SELECT count(*) FROM arm a WHERE a.experiment_id = e.id)
         * (SELECT count(*) FROM prompt p WHERE p.experiment_id = e.id) * e.repeats AS planned,
       (SELECT count(*) FROM arm a JOIN generation g ON g.arm_id = a.id
        WHERE a.experiment_id = e.id AND g.status = 'ok') AS done,
       (SELECT count(*) FROM arm a JOIN generation g ON g.arm_id = a.id
        WHERE a.experiment_id = e.id AND g.status = 'error') AS errors,
       h.hostname, h.cpu, h.threads, h.isa, h.specbench_version, h."commit"
FROM experiment e
JOIN model m ON m.id = e.target_model_id
JOIN host h ON h.id = e.host_id;
