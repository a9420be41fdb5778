-- What a streaming user waits for, in milliseconds, per arm. The tokens of a step arrive together: its first
-- token waits for the whole step, the others for nothing. itl_*: percentiles of that wait over the tokens of
-- steps; chunk_*: over the steps that gave tokens. A percentile is the smallest value that as many do not
-- exceed (nearest rank). amortised_ms is decode time over tokens. ttft_*: the prefill, per generation.
CREATE VIEW latency AS
WITH waited AS NOT MATERIALIZED (
  SELECT g.arm_id, s.draft_ns + s.verify_ns + s.accept_ns + s.commit_ns + s.observe_ns AS ns
  FROM generation g
  JOIN step s ON s.generation_id = g.id
  WHERE g.status = 'ok' AND s.tokens > 0
),
ordered AS (SELECT arm_id, ns, row_number() OVER (PARTITION BY arm_id ORDER BY ns) AS place FROM waited),
prefill AS (
  SELECT arm_id, prefill_ns AS ns, row_number() OVER (PARTITION BY arm_id ORDER BY prefill_ns) AS place,
         count(*) OVER (PARTITION BY arm_id) AS n
  FROM generation
  WHERE status = 'ok'
),
first_token AS (
  SELECT arm_id,
         max(CASE WHEN place <= (n * 50 + 99) / 100 THEN ns END) / 1e6 AS ttft_p50,
         max(CASE WHEN place <= (n * 95 + 99) / 100 THEN ns END) / 1e6 AS ttft_p95
  FROM prefill
  GROUP BY arm_id
),
total AS (
  SELECT arm_id, sum(tokens) AS tokens, sum(decode_ns) AS decode_ns
  FROM v_generation
  WHERE status = 'ok'
  GROUP BY arm_id
),
chunk AS MATERIALIZED (SELECT arm_id, count(*) AS chunks FROM waited GROUP BY arm_id),
-- place of each percentile among the chunks: of tokens - chunks tokens the wait is 0, and these come first
wanted AS MATERIALIZED (
  SELECT c.arm_id, c.chunks, t.tokens, t.decode_ns,
         (t.tokens * 50 + 99) / 100 - (t.tokens - c.chunks) AS itl_p50,
         (t.tokens * 95 + 99) / 100 - (t.tokens - c.chunks) AS itl_p95,
         (t.tokens * 99 + 99) / 100 - (t.tokens - c.chunks) AS itl_p99,
         (c.chunks * 50 + 99) / 100 AS chunk_p50,
         (c.chunks * 95 + 99) / 100 AS chunk_p95,
         (c.chunks * 99 + 99) / 100 AS chunk_p99
  FROM chunk c
  JOIN total t ON t.arm_id = c.arm_id
)
SELECT a.experiment_id, a.id AS arm_id, a.arm_no, a.label AS arm, w.tokens, w.chunks,
       max(CASE WHEN o.place = w.itl_p50 THEN o.ns ELSE 0 END) / 1e6 AS itl_p50_ms,
       max(CASE WHEN o.place = w.itl_p95 THEN o.ns ELSE 0 END) / 1e6 AS itl_p95_ms,
       max(CASE WHEN o.place = w.itl_p99 THEN o.ns ELSE 0 END) / 1e6 AS itl_p99_ms,
       max(CASE WHEN o.place = w.chunk_p50 THEN o.ns END) / 1e6 AS chunk_p50_ms,
       max(CASE WHEN o.place = w.chunk_p95 THEN o.ns END) / 1e6 AS chunk_p95_ms,
       max(CASE WHEN o.place = w.chunk_p99 THEN o.ns END) / 1e6 AS chunk_p99_ms,
       max(o.ns) / 1e6 AS chunk_max_ms,
       1.0 * w.decode_ns / nullif(w.tokens, 0) / 1e6 AS amortised_ms,
       f.ttft_p50 AS ttft_p50_ms,
       f.ttft_p95 AS ttft_p95_ms
FROM ordered o -- the long list is read once, in order
CROSS JOIN wanted w ON w.arm_id = o.arm_id
JOIN first_token f ON f.arm_id = w.arm_id
JOIN arm a ON a.id = w.arm_id
JOIN experiment e ON e.id = a.experiment_id AND e.origin = 'run' -- imports know no steps' times
WHERE o.place IN (w.itl_p50, w.itl_p95, w.itl_p99, w.chunk_p50, w.chunk_p95, w.chunk_p99, w.chunks)
GROUP BY a.id;
