#!/bin/sh
# The certificate: what it says, stores and refuses. Sizes are small; the model has random weights.
# shellcheck source=tests/e2e/lib.sh
. "$ROOT/tests/e2e/lib.sh"
model=$ROOT/tests/golden/models/llama-f32.gguf
db=$work/c.db
sql() { sqlite3 "$db" "$1"; }

# Everything holds, every planted rule is caught.
some="--model $model --verifier greedy --verifier naive-sample --verifier rejection --drafter none --drafter pld
    --tables 20 --draws 120"
# shellcheck disable=SC2086
check_code 0 "$SPECBENCH" certify --quick $some --db "$db" --format json
cp "$work/out" "$work/first"
for key in verifier verifier_params guarantee kinds tables max_error variation toy_accepted generations p_holm \
    variation_upper drift_upper detectable equal verdict; do
    check_out "\"$key\": "
done
grep -q 'Every declared guarantee holds' "$work/err" || fail "no verdict on stderr: $(cat "$work/err")"
check_same "$(sql 'SELECT verdict FROM certificate')" holds "the certificate's verdict"
check_same "$(sql 'SELECT count(*) FROM certificate_check WHERE verdict IS NULL')" 0 "checks without verdict"
check_same "$(sql "SELECT count(*) FROM certificate_check WHERE planted AND verifier <> 'control' AND verdict <> 'caught'")" \
    0 "planted rules not caught"
check_same "$(sql "SELECT count(DISTINCT verifier) FROM certificate_check WHERE planted")" 5 "planted rules"
check_same "$(sql "SELECT count(*) FROM certificate_check WHERE part = 'exact' AND NOT planted
    AND guarantee <> 'lossy' AND NOT max_error < 1e-12")" 0 "errors above 1e-12"
check_same "$(sql "SELECT count(*) FROM certificate_check WHERE part = 'greedy' AND equal <> n")" 0 "unequal answers"
check_same "$(sql "SELECT group_concat(DISTINCT part) FROM certificate_check")" "exact,sample,greedy" "parts"

# The same seed gives the same figures, with any number of threads; another one does not.
# shellcheck disable=SC2086
check_code 0 "$SPECBENCH" certify $some --threads 1 --format json --quiet
cmp -s "$work/out" "$work/first" || fail "one thread, other figures"
[ ! -s "$work/err" ] || fail "--quiet writes: $(cat "$work/err")"

# What is stored is what reports and lists say.
for format in table md csv json; do
    check_code 0 "$SPECBENCH" report "$db" --view certificate --format "$format"
    check_out "accept-more"
    check_code 0 "$SPECBENCH" report "$db" --view checks --format "$format"
    check_out "probe:kind=wor"
done
check_code 0 "$SPECBENCH" report "$db" --view certificate --format json
cmp -s "$work/out" "$work/first" || fail "report prints another certificate"
check_code 0 "$SPECBENCH" list verifiers --db "$db" --format csv
grep -q '^naive-sample,.*,certified,' "$work/out" || fail "no certified verifier in the list: $(cat "$work/out")"
check_code 0 "$SPECBENCH" run --target tiny --tasks qa --take 1 --max-new-tokens 8 --drafter pld --db "$db" --format json
check_out '"lossless": "certified"'

# A lossy rule is measured, and refutes nothing.
check_code 0 "$SPECBENCH" certify --model "$model" --verifier rejection:lenience=0.5 --drafter pld --tables 20 --draws 120 --format csv
grep -q '^rejection,lenience=0.5,lossy,.*,lossy$' "$work/out" || fail "no lossy row: $(cat "$work/out")"

# Without power there is no certificate, for all of the registry here.
check_code 3 "$SPECBENCH" certify --model "$model" --tables 4 --draws 3
for verifier in $("$SPECBENCH" list verifiers --format csv | sed '1d;s/,.*//'); do check_out "$verifier"; done
grep -q 'the certificate is refused' "$work/err" || fail "no word on power: $(cat "$work/err")"

# Ctrl-C: exit 130, finished checks are kept.
"$SPECBENCH" certify --all --model "$model" --db "$work/i.db" >"$work/out" 2>"$work/err" &
pid=$!
tries=0
until [ "$(sqlite3 "$work/i.db" 'SELECT count(*) > 3 FROM certificate_check' 2>/dev/null)" = 1 ] || [ "$tries" -gt 300 ]; do
    tries=$((tries + 1))
    sleep 0.1
done
kill -INT "$pid"
code=0
wait "$pid" || code=$?
check_same "$code" 130 "exit code after SIGINT"
grep -q 'interrupted after' "$work/err" || fail "nothing on what is kept: $(cat "$work/err")"
check_same "$(sqlite3 "$work/i.db" 'SELECT count(*) FROM certificate WHERE verdict IS NULL')" 1 "an open certificate"
[ "$(sqlite3 "$work/i.db" 'SELECT count(*) FROM certificate_check')" -gt 3 ] || fail "nothing kept after SIGINT"

check_refused "no verifier is named 'nave-sample'" "$SPECBENCH" certify --verifier nave-sample
check_refused "no drafter is named 'plod'" "$SPECBENCH" certify --drafter plod
check_refused "lenience=2" "$SPECBENCH" certify --verifier rejection:lenience=2
check_refused "takes chains only" "$SPECBENCH" certify --verifier rejection --drafter "small-lm:model=tiny-draft,tree='2x2'"
check_refused "either --quick or --all" "$SPECBENCH" certify --quick --all
check_refused "model 'nothing'" "$SPECBENCH" certify --model nothing
check_refused "--tables 0" "$SPECBENCH" certify --tables 0
check_refused "--draws many" "$SPECBENCH" certify --draws many
check_refused "did you mean --verifier?" "$SPECBENCH" certify --verifer greedy
check_refused "'now' is not expected" "$SPECBENCH" certify now
check_refused "not a results database" "$SPECBENCH" certify --db "$model" --model "$model" --tables 1 --draws 1
"$SPECBENCH" run --target tiny --tasks qa --take 1 --max-new-tokens 4 --drafter pld --db "$work/r.db" >/dev/null 2>&1 ||
    fail "run"
check_refused "holds no certificate" "$SPECBENCH" report "$work/r.db" --view certificate
finish
