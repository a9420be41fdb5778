#!/bin/sh
# An experiment from options and from a script; what the database holds afterwards.
# shellcheck source=tests/e2e/lib.sh
. "$ROOT/tests/e2e/lib.sh"
cd "$work" || exit 1
db=$work/x.db
sql() { sqlite3 "$db" "$1"; }
arms="--drafter none --drafter pld:k=10 --drafter small-lm:model=tiny-draft,k=4"

# shellcheck disable=SC2086
check_code 0 "$SPECBENCH" run --target tiny --dataset mini --take 1 --max-new-tokens 24 $arms --db "$db"
check_out "pld:k=10"
check_out "speedup"
grep -q 'equal to plain decoding, token for token' "$work/err" || fail "no word on equality: $(cat "$work/err")"
check_same "$(sql 'PRAGMA integrity_check')" ok "integrity"
check_same "$(sql 'SELECT count(DISTINCT task) FROM prompt')" 6 "tasks"
check_same "$(sql 'SELECT count(*) FROM generation')" 21 "generations: 7 turns and 3 arms"
check_same "$(sql "SELECT count(*) FROM generation WHERE status <> 'ok'")" 0 "failed generations"
check_same "$(sql 'SELECT count(*) FROM step WHERE tokens > accepted + 1')" 0 "steps that keep too much"
check_same "$(sql 'SELECT count(*) FROM generation g WHERE n_tokens <> 1 +
    (SELECT coalesce(sum(tokens), 0) FROM step WHERE generation_id = g.id)')" 0 "tokens that no step made"
check_same "$(sql 'SELECT count(*) FROM step s WHERE drafted + auxiliary <> (SELECT count(*) FROM draft_node n
    WHERE n.generation_id = s.generation_id AND n.step_no = s.step_no)')" 0 "steps without their nodes"
# Every arm answers the second turn after the baseline's first answer.
check_same "$(sql 'SELECT max(n) FROM (SELECT count(DISTINCT prompt_tokens) n FROM generation GROUP BY prompt_id)')" \
    1 "prompts that differ between arms"

# The same command again is a run of its own; --resume finds everything done.
# shellcheck disable=SC2086
check_code 0 "$SPECBENCH" run --target tiny --dataset mini --take 1 --max-new-tokens 24 $arms --db "$db"
check_same "$(sql 'SELECT count(*) FROM experiment')" 2 "experiments after a second run"
# shellcheck disable=SC2086
check_code 0 "$SPECBENCH" run --target tiny --dataset mini --take 1 --max-new-tokens 24 $arms --db "$db" --resume
check_same "$(sql 'SELECT count(*) FROM generation')" 42 "generations after --resume of a finished run"
check_same "$(sql 'SELECT count(DISTINCT tokens) FROM generation g JOIN prompt p ON p.id = prompt_id
    WHERE question_id = 1 AND turn = 1')" 1 "outputs of two runs"

# The same command twice at once: two runs, none disturbed.
for _ in 1 2; do
    "$SPECBENCH" run --target tiny --tasks qa --take 2 --max-new-tokens 8 --drafter pld --db par.db --quiet >/dev/null 2>par.err || fail "parallel: $(cat par.err)" &
done
wait
check_same "$(sqlite3 par.db 'SELECT group_concat(n) FROM (SELECT count(*) n FROM generation g JOIN arm a ON a.id = arm_id
    GROUP BY experiment_id)')" "4,4" "generations of two runs at once"

for view in leaderboard tasks positions breakdown runs; do
    for format in table md csv json; do
        check_code 0 "$SPECBENCH" report "$db" --view "$view" --format "$format"
        [ "$(wc -c <"$work/out")" -gt 20 ] || fail "report --view $view --format $format is empty"
    done
done
check_code 0 "$SPECBENCH" inspect "$db"

# A dry run writes nothing.
check_code 0 "$SPECBENCH" run --target tiny --drafter pld --dry-run --db "$work/none.db"
check_out "generations planned"
[ ! -e "$work/none.db" ] || fail "a dry run made a database"

# Ctrl-C: exit 130, finished prompts kept, the way on is said.
"$SPECBENCH" run --target tiny --drafter pld --max-new-tokens 100 --ignore-eos --repeats 50 --db "$work/i.db" \
    2>"$work/err" >"$work/out" &
pid=$!
tries=0
until [ "$(sqlite3 "$work/i.db" 'SELECT count(*) > 2 FROM generation' 2>/dev/null)" = 1 ] || [ "$tries" -gt 300 ]; do
    tries=$((tries + 1))
    sleep 0.1
done
kill -INT "$pid"
code=0
wait "$pid" || code=$?
check_same "$code" 130 "exit code after SIGINT"
grep -q -- '--resume' "$work/err" || fail "nothing on how to resume: $(cat "$work/err")"
check_same "$(sqlite3 "$work/i.db" 'PRAGMA integrity_check')" ok "integrity after SIGINT"
[ "$(sqlite3 "$work/i.db" 'SELECT count(*) FROM generation')" -gt 0 ] || fail "nothing kept after SIGINT"

# A script.
cat >"$work/s.lua" <<'LUA'
local sb = require "specbench"
local exp <close> = sb.experiment { target = "tiny", dataset = "mini", tasks = "qa", take = 2, max_new_tokens = 16 }
exp:add { drafter = { "pld", k = tonumber(sb.set.k) }, label = "mine" }
for run in exp:runs() do sb.log("%s %.3f", run.label, run.mat) end
print(#exp:rows("leaderboard") == 2)
LUA
check_code 0 "$SPECBENCH" run "$work/s.lua" --set k=3 --db "$work/s.db"
check_out "true"
grep -q '^mine [0-9]' "$work/err" || fail "no figures from exp:runs(): $(cat "$work/err")"
check_same "$(sqlite3 "$work/s.db" "SELECT drafter_params FROM arm WHERE label = 'mine'")" "k=3" "a script's parameter"
check_code 0 "$SPECBENCH" run "$ROOT/scripts/quickstart.lua" --set take=1 --set repeats=1 --set max_new_tokens=16 \
    --db "$work/q.db"
check_out "small-lm"

# ---- a drafter that changes the target's law ----
cat >docs.jsonl <<'END'
{"prompt": "The capital of France is", "documents": ["Paris is the capital of France. The capital of France is Paris, a city on the river Seine with many bridges.", "London lies on the Thames."]}
END
echo '{"prompt": "Once upon a time"}' >no_docs.jsonl
nest="--max-new-tokens 40 --drafter none --drafter nest:alpha=1 --drafter pld"
# shellcheck disable=SC2086
check_code 0 "$SPECBENCH" run --target tiny --dataset jsonl:docs.jsonl $nest --db nest.db --format csv
check_same "$(sqlite3 nest.db "SELECT group_concat(drafter || ' ' || guarantee, ', ') FROM arm ORDER BY arm_no")" \
    "none greedy-exact, nest lossy, pld greedy-exact" "guarantees"
grep -q '^nest:alpha=1,.*,lossy,' "$work/out" || fail "the leaderboard does not call nest lossy: $(cat "$work/out")"
grep -q 'all arms but lossy ones are equal to plain' "$work/err" || fail "equality beside nest: $(cat "$work/err")"
check_same "$(sqlite3 nest.db "SELECT count(*) FROM generation g JOIN arm a ON a.id = arm_id
    WHERE drafter = 'nest' AND text LIKE '%Paris, a city on the river Seine%'")" 1 "copies of the document"
check_same "$(sqlite3 nest.db "SELECT count(DISTINCT tokens) FROM generation")" 2 "texts"
# shellcheck disable=SC2086
check_code 0 "$SPECBENCH" run --target tiny --dataset jsonl:no_docs.jsonl $nest --db no.db
check_same "$(sqlite3 no.db "SELECT count(DISTINCT tokens) FROM generation")" 1 "texts without documents"
check_code 0 "$SPECBENCH" run --target tiny --dataset jsonl:docs.jsonl --max-new-tokens 40 --drafter none \
    --drafter nest --verifier nest-relaxed --temperature 0.7 --db nest.db
check_refused "changes the target's law by design" "$SPECBENCH" certify --drafter nest
finish
