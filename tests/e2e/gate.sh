#!/bin/sh
# specbench gate: verdicts, exit codes, files for CI, and everything it refuses.
# shellcheck source=tests/e2e/lib.sh
. "$ROOT/tests/e2e/lib.sh"
cd "$work" || exit 1
# small_run DB OPTION...
small_run() {
    into=$1
    shift
    "$SPECBENCH" run --target tiny --dataset mini --max-new-tokens 24 --quiet --db "$into" "$@" >run.out 2>run.err ||
        fail "run $into: $(cat run.err)"
}
relabel() { sqlite3 "$1" "UPDATE arm SET label = '$3' WHERE label = '$2'"; }
gate() { check_code "$1" "$SPECBENCH" gate "$2" --baseline "$3" --format json; }
field() { jq -r "$1" "$work/out"; }

small_run a.db --take 2 --drafter none --drafter pld --drafter pld:k=2 --drafter sam
small_run b.db --take 2 --drafter none --drafter pld --drafter pld:k=2 --drafter sam

# The same run again: every number equal, from the database and from the file.
check_code 0 "$SPECBENCH" gate a.db --write-baseline a.json
cp a.json first.json
check_code 0 "$SPECBENCH" gate b.db --write-baseline a.json
cmp -s a.json first.json || fail "two runs make different baselines"
[ "$(wc -c <a.json)" -lt 8000 ] || fail "a baseline of $(wc -c <a.json) bytes"
for base in a.db a.json; do
    gate 0 b.db "$base"
    check_same "$(field '[.mode, .outcome, .moved] | join(" ")')" "deterministic holds 0" "gate against $base"
    check_same "$(field '[.arms[].verdict] | unique | join(" ")')" same "verdicts against $base"
done
check_same "$(sqlite3 a.db "SELECT printf('%.6f', mat) FROM leaderboard_base WHERE overall AND arm = 'pld'")" \
    "$(jq -r '.arms[] | select(.arm == "pld").mat' out | xargs printf '%.6f')" "MAT of gate and leaderboard"

# Shorter drafts under the old name: worse; the other way round: better.
cp a.db worse.db
relabel worse.db pld old
relabel worse.db pld:k=2 pld
relabel worse.db old pld:k=2
gate 3 worse.db a.json
grep -q "gate does not hold" err || fail "no word on what fails: $(cat err)"
grep -q "was 'pld; greedy; constant' in the baseline" err || fail "no note on a method that changed: $(cat err)"
check_same "$(field '.arms[] | select(.arm == "pld") | .verdict + " " + .outcome')" "worse fails" "shorter drafts"
check_same "$(field '.arms[] | select(.arm == "pld:k=2") | .verdict + " " + .outcome')" "better holds" "longer drafts"
check_same "$(field '.arms[] | select(.arm == "sam") | .verdict')" same "an arm that nobody touched"
check_same "$(field '.moved_most | length <= 5 and length > 0')" true "prompts that moved most"
check_same "$(field '[.moved_most[] | (.mat / .mat_base | log | fabs)] | . == (sort | reverse)')" true "their order"
check_code 3 "$SPECBENCH" gate worse.db --baseline a.json --arm pld
check_code 0 "$SPECBENCH" gate worse.db --baseline a.json --arm pld:k=2 --arm sam
check_code 0 "$SPECBENCH" gate worse.db --baseline a.json --max-drop 0.9 --max-task-drop 0.9
check_code 3 "$SPECBENCH" gate worse.db --baseline a.json --max-drop 0.9
check_out "in task"
# Longer drafts accept more but compute more rows per token: only --speed minds.
check_code 0 "$SPECBENCH" gate worse.db --baseline a.json --arm pld:k=2
check_code 3 "$SPECBENCH" gate worse.db --baseline a.json --arm pld:k=2 --speed
check_out "rows computed per token"
check_code 3 "$SPECBENCH" gate b.db --baseline a.json --arm pld --min-speedup 1000
check_out "is below 1000"
# One step that accepted a token less, MAT equal or not: seen.
cp a.db step.db
sqlite3 step.db "UPDATE step SET drafted = drafted + 1 WHERE (generation_id, step_no) =
    (SELECT generation_id, step_no FROM step WHERE drafted > 0 LIMIT 1)"
gate 0 step.db a.json
check_same "$(field '[.arms[].verdict] | sort | join(" ")')" "changed same same same" "one draft token more"

# Every format; JUnit that a parser takes; a summary that is appended.
for format in table md csv json; do
    check_code 3 "$SPECBENCH" gate worse.db --baseline a.json --format "$format" --junit j.xml --summary s.md
done
xmllint --noout j.xml || fail "JUnit is not XML"
xpath() { xmllint --xpath "$1" j.xml; }
check_same "$(xpath 'count(//testcase)') $(xpath 'string(/testsuites/@failures)')" "4 1" "test cases and failures"
check_same "$(xpath 'string(//testcase[failure]/@name)')" pld "the failed case"
check_same "$(grep -c '^### ' s.md)" 4 "summaries appended"
relabel worse.db sam '<sam & "co">'
relabel a.db sam '<sam & "co">'
check_code 3 "$SPECBENCH" gate worse.db --baseline a.db --junit j.xml
check_same "$(xpath 'string(//testcase[4]/@name)')" '<sam & "co">' "a label that XML must escape"
relabel a.db '<sam & "co">' sam

# Sampling: statistical. Few prompts cannot see a small drop, and say so; a large one they can exclude.
small_run s1.db --drafter none --drafter pld --temperature 0.7 --seed 1
small_run s2.db --drafter none --drafter pld --temperature 0.7 --seed 2
check_code 2 "$SPECBENCH" gate s2.db --baseline s1.db --max-drop 0.001 --format json
check_same "$(field '[.mode, .outcome] | join(" ")')" "statistical cannot-tell" "too few prompts"
grep -q "cannot show a drop of 0.10 %" err || fail "no word on what it cannot see: $(cat err)"
check_code 0 "$SPECBENCH" gate s2.db --baseline s1.db --max-drop 0.5 --format json
check_same "$(field '[.arms[].verdict] | join(" ")')" "pass pass" "a wide margin"
check_same "$(field '.arms[1] | .low < .mean_change and .mean_change < .high and .detectable > 0')" true "bounds"
check_code 0 "$SPECBENCH" gate s2.db --baseline s2.db
check_code 3 "$SPECBENCH" gate worse.db --baseline a.json --mode statistical --arm pld --max-drop 0.01 --format json
check_same "$(field '.arms[0].verdict')" regressed "shorter drafts, tested"

# What it refuses, one line each.
refused() { check_refused "$1" "$SPECBENCH" gate "$2" --baseline "$3"; }
check_refused "no greedy runs" "$SPECBENCH" gate s2.db --baseline s2.db --mode deterministic
check_refused "seed" "$SPECBENCH" gate s2.db --baseline s1.db --mode deterministic
refused "temperature" s1.db a.json
sed 's/"target_hash": "[0-9a-f]*"/"target_hash": "0123456789abcdef"/' a.json >t.json
refused "content of the target model (target_hash:" b.db t.json
sed 's/"dataset_hash": "[0-9a-f]*"/"dataset_hash": "0123456789abcdef"/' a.json >t.json
refused "content of the prompt set" b.db t.json
sed 's/"chat_template": "[^"]*"/"chat_template": "vicuna"/' a.json >t.json
refused "chat template" b.db t.json
sed 's/"max_new_tokens": 24/"max_new_tokens": 25/' a.json >t.json
refused "limit of new tokens (max_new_tokens: 24, baseline 25)" b.db t.json
small_run one.db --take 1 --drafter none --drafter pld --drafter pld:k=2 --drafter sam
refused "same prompts" one.db a.json
refused "same prompts" b.db one.db
small_run arms.db --take 2 --drafter none --drafter sam
refused "arms.db has no arm 'pld', which is in a.json; it has: none, sam" arms.db a.json
check_refused "has no arm 'nobody'" "$SPECBENCH" gate b.db --baseline a.json --arm nobody
check_code 0 "$SPECBENCH" gate b.db --baseline arms.db
grep -q "note: arm 'pld' is not in the baseline" err || fail "no note on a new arm: $(cat err)"
sed 's/"specbench_baseline": 1/"specbench_baseline": 7/' a.json >t.json
refused "version 7, from a newer specbench" b.db t.json
echo '{"a": 1}' >t.json
refused "no specbench baseline" b.db t.json
echo 'hello' >t.json
refused "neither a results database nor a baseline" b.db t.json
head -c 700 a.json >t.json
refused "neither a results database nor a baseline" b.db t.json
sed 's/\["qa", 37, \[[0-9]*, /["qa", 37, [1, /' a.json >t.json
refused "total is not the sum of its prompts" b.db t.json
refused "No such file" b.db none.json
refused "directory" b.db "$work"
sqlite3 foreign.db 'CREATE TABLE t (x)'
refused "database of another application" b.db foreign.db
refused "database of another application" foreign.db a.json
cp a.db newer.db
sqlite3 newer.db 'PRAGMA user_version = 99' >/dev/null
refused "newer specbench" newer.db a.json
refused "newer specbench" b.db newer.db
refused "not a results database" a.json a.json
cp a.db cut.db
sqlite3 cut.db "PRAGMA foreign_keys = ON; DELETE FROM generation WHERE id = (SELECT max(id) FROM generation)"
refused "is not finished (question" cut.db a.json
check_refused "makes no baseline" "$SPECBENCH" gate cut.db --write-baseline cut.json
if [ -e cut.json ] || [ -e cut.json.new ]; then fail "a refused baseline was written"; fi
sqlite3 cut.db "UPDATE generation SET status = 'error', error = 'out of luck' WHERE id = 1"
check_refused "out of luck" "$SPECBENCH" gate cut.db --baseline a.json --arm none
check_refused "nothing to compare with" "$SPECBENCH" gate b.db
check_refused "expected one database" "$SPECBENCH" gate
check_refused "mode 'best'" "$SPECBENCH" gate b.db --baseline a.db --mode best
check_refused "--max-drop" "$SPECBENCH" gate b.db --baseline a.db --max-drop 1.5
check_refused "no experiment 9" "$SPECBENCH" gate b.db --baseline a.db --experiment 9
finish
