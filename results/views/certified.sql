-- A certificate per verifier (with its parameters), and per planted rule: the checks of each in a row.
--
-- exact: kinds of draws, tables enumerated, the largest error of a sequence's probability, the total
-- variation (mean over tables, of the worst kind; tables differ, so this is a size, no constant), draft
-- tokens expected on the toy of the methods card. sample: generations, the smallest adjusted p-value, 95 %
-- upper bound of the drift per token; from the toy models, where generations are many, that of the first
-- tokens' variation, and the variation that would have been shown. greedy: generations equal to plain
-- decoding.
CREATE VIEW certified AS
SELECT k.certificate_id, k.planted, k.verifier, k.verifier_params,
       max(k.guarantee) AS guarantee,
       (SELECT group_concat(kind, ', ') FROM (
          SELECT kind FROM certificate_check x
          WHERE x.certificate_id = k.certificate_id AND x.planted = k.planted AND x.part = 'exact'
            AND x.verifier = k.verifier AND x.verifier_params = k.verifier_params
          ORDER BY x.check_no)) AS kinds,
       sum(CASE k.part WHEN 'exact' THEN k.n END) AS tables,
       max(k.max_error) AS max_error,
       max(CASE k.part WHEN 'exact' THEN k.variation END) AS variation,
       max(CASE k.part WHEN 'exact' THEN k.accepted END) AS toy_accepted,
       sum(CASE k.part WHEN 'sample' THEN k.n END) AS generations,
       min(k.p_holm) AS p_holm,
       max(CASE k.target WHEN 'toy' THEN k.variation_upper END) AS variation_upper,
       max(k.drift_upper) AS drift_upper,
       max(CASE k.target WHEN 'toy' THEN k.detectable END) AS detectable,
       sum(k.equal) || '/' || sum(CASE k.part WHEN 'greedy' THEN k.n END) AS equal,
       CASE WHEN sum(k.verdict = 'fail') > 0 THEN 'fail'
            WHEN sum(k.verdict = 'missed') > 0 THEN 'missed'
            WHEN sum(k.verdict = 'inconclusive') > 0 THEN 'inconclusive'
            WHEN sum(k.verdict = 'lossy') > 0 THEN 'lossy'
            WHEN sum(k.verdict = 'caught') > 0 THEN 'caught'
            WHEN count(k.verdict) = count(*) THEN 'pass' END AS verdict,
       min(k.check_no) AS first_check
FROM certificate_check k
GROUP BY k.certificate_id, k.planted, k.verifier, k.verifier_params;
