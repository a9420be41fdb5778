-- What is known of a verifier with these parameters under one build: its newest finished certificate.
-- One that was refused does not count: it let a planted rule through, so it says nothing.
CREATE VIEW v_lossless AS
WITH judged AS (
  SELECT h."commit", v.*,
         CASE v.verdict WHEN 'pass' THEN 'certified' WHEN 'fail' THEN 'refuted' ELSE v.verdict END AS lossless
  FROM certified v
  JOIN certificate c ON c.id = v.certificate_id AND c.verdict IN ('holds', 'refuted')
  JOIN host h ON h.id = c.host_id
  WHERE v.planted = 0
)
SELECT *
FROM judged j
WHERE certificate_id = (SELECT max(i.certificate_id) FROM judged i
                        WHERE i."commit" IS j."commit" AND i.verifier = j.verifier
                          AND i.verifier_params = j.verifier_params);
