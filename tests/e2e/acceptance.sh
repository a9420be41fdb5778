#!/bin/sh
# The project gates itself: the bundled models and drafters against the committed baseline.
# shellcheck source=tests/e2e/lib.sh
. "$ROOT/tests/e2e/lib.sh"
check_code 0 "$ROOT/scripts/ci/gate.sh" --out "$work/gate"
[ "$fails" = 0 ] || { cat "$work/out" && echo "drafts changed for the better, or for a reason? ./dev gate --remake"; }
xmllint --noout "$work/gate/gate.xml" || fail "gate.xml is no XML"
grep -q 'deterministic' "$work/gate/summary.md" || fail "no deterministic gate: $(cat "$work/err")"
# Another model under the same name is refused, and the way on is said.
sed 's/"target_hash": "[0-9a-f]*"/"target_hash": "0123456789abcdef"/' \
    "$ROOT/results/baselines/tiny-mini.json" >"$work/other.json"
check_refused "content of the target model" "$SPECBENCH" gate "$work/gate/gate.db" --baseline "$work/other.json"
grep -q -- '--write-baseline' "$work/err" || fail "no way on: $(cat "$work/err")"
finish
