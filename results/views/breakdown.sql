-- Where decoding time goes, per arm: shares of the decode time, which add up to 1. `other` is what lies
-- between the measured parts. draft_overhead is drafting over the five measured parts.
CREATE VIEW breakdown AS
WITH t AS (
  SELECT arm_id, sum(steps) AS steps, 1.0 * sum(decode_ns) AS decode_ns, sum(prefill_ns) AS prefill_ns,
         sum(draft_ns) AS draft_ns, sum(verify_ns) AS verify_ns, sum(accept_ns) AS accept_ns,
         sum(commit_ns) AS commit_ns, sum(observe_ns) AS observe_ns,
         sum(draft_ns + verify_ns + accept_ns + commit_ns + observe_ns) AS measured_ns
  FROM v_generation
  WHERE status = 'ok'
  GROUP BY arm_id
)
SELECT a.experiment_id, a.id AS arm_id, a.arm_no, a.label AS arm, t.steps,
       t.prefill_ns / 1e9 AS prefill_s,
       t.decode_ns / 1e9 AS decode_s,
       t.decode_ns / nullif(t.steps, 0) / 1e6 AS ms_per_step,
       t.draft_ns / nullif(t.decode_ns, 0) AS draft,
       t.verify_ns / nullif(t.decode_ns, 0) AS verify,
       t.accept_ns / nullif(t.decode_ns, 0) AS accept,
       t.commit_ns / nullif(t.decode_ns, 0) AS "commit",
       t.observe_ns / nullif(t.decode_ns, 0) AS observe,
       (t.decode_ns - t.measured_ns) / nullif(t.decode_ns, 0) AS other,
       1.0 * t.draft_ns / nullif(t.measured_ns, 0) AS draft_overhead
FROM t
JOIN arm a ON a.id = t.arm_id;
