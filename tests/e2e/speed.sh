#!/bin/sh
# Speed figures, noise, comparison and costs of a real run; another machine's curve.
# shellcheck source=tests/e2e/lib.sh
. "$ROOT/tests/e2e/lib.sh"
cd "$work" || exit 1
sb=$SPECBENCH
sql() { sqlite3 x.db "$1"; }
column() { # column VIEW NAME ARM: that cell of the arm's last row
    "$sb" report x.db --view "$1" --format json 2>/dev/null >cells.json
    sqlite3 :memory: "SELECT json_extract(value, '\$.$2') FROM json_each(CAST(readfile('cells.json') AS TEXT))
        WHERE json_extract(value, '\$.arm') = '$3' ORDER BY key DESC LIMIT 1"
}

check_code 0 "$sb" run --target tiny --take 2 --tasks qa,translation --max-new-tokens 24 --repeats 2 --aa \
    --drafter none --drafter pld:k=4,ngram_max=2 --drafter small-lm:model=tiny-draft,k=4 --db x.db
check_out "none (A/A)"
check_same "$(sql "SELECT group_concat(label, ' | ') FROM (SELECT label FROM arm ORDER BY arm_no)")" \
    "none | pld:k=4,ngram_max=2 | small-lm:k=4,model=tiny-draft | none (A/A)" "arms"
check_same "$(sql 'SELECT sum(is_baseline) FROM arm')" 1 "baselines"
check_same "$(column leaderboard note 'none (A/A)')" "A/A" "note of the A/A arm"
check_same "$(column speed prompts 'pld:k=4,ngram_max=2')" 4 "prompts"

# The cost curve: measured once per host, model and arithmetic.
check_same "$(sql 'SELECT count(*) >= 8 AND min(c) > 0 AND min("rows") = 1 FROM cost_curve')" 1 "cost curve"
check_same "$(sql 'SELECT count(DISTINCT context) FROM cost_curve')" 2 "contexts"
curve=$(sql 'SELECT group_concat(median_ns) FROM cost_curve')
check_code 0 "$sb" run --target tiny --take 1 --tasks qa --max-new-tokens 8 --drafter pld --db x.db
check_same "$(sql 'SELECT group_concat(median_ns) FROM cost_curve')" "$curve" "cost curve after a second run"
check_code 0 "$sb" run --target tiny --take 1 --tasks qa --max-new-tokens 8 --drafter pld --db n.db --no-cost-curve
check_same "$(sqlite3 n.db 'SELECT count(*) FROM cost_curve')" 0 "cost curve when none is wanted"
check_refused "holds no cost curve of 'tiny'" "$sb" report n.db --view cost
check_code 0 "$sb" bench --model tiny --batch 1,2,4 --repeats 3 --db n.db
check_code 0 "$sb" report n.db --view cost

# Views in every format, warnings also as lines on stderr.
for view in speed compare cost warnings; do
    for format in table md csv json; do
        check_code 0 "$sb" report x.db --experiment 1 --view "$view" --format "$format"
        [ "$(wc -c <out)" -gt 20 ] || fail "report --view $view --format $format is empty"
    done
done
sql 'UPDATE generation SET load_average = 99'
check_code 0 "$sb" report x.db --experiment 1
grep -q '^specbench report: warning: the machine had a load of' err || fail "no warning of load: $(cat err)"
check_code 0 "$sb" report n.db
grep -q 'noise floor is not known' err || fail "no warning of an unknown noise floor: $(cat err)"

# Two runs of the report give the same figures.
"$sb" report x.db --experiment 1 --view speed --format csv 2>/dev/null >a.csv
"$sb" report x.db --experiment 1 --view speed --format csv 2>/dev/null >b.csv
cmp -s a.csv b.csv || fail "the same report differs"

check_code 0 "$sb" report x.db --experiment 1 --view compare --arms 'pld:k=4,ngram_max=2,none'
check_out "prompt"
check_refused "no arm 'medusa'" "$sb" report x.db --experiment 1 --view compare --arms none,medusa
check_refused "--arms goes with --view compare" "$sb" report x.db --arms a,b
check_refused "--on goes with --view cost" "$sb" report x.db --on h.json

# Another machine.
check_code 0 "$sb" bench --model tiny --batch 1,2,4,8 --repeats 3 --format json
cp out h.json
check_code 0 "$sb" report x.db --experiment 1 --view cost --on h.json
check_out "predicted_"
check_code 0 "$sb" bench --model tiny-draft --batch 1,2 --repeats 3 --format json
cp out other.json
check_refused "other.json: the curve is of a model with" "$sb" report x.db --view cost --on other.json
check_code 0 "$sb" bench --model tiny --kv-type f16 --batch 1,2 --repeats 3 --format json
cp out f16.json
check_refused "f16.json: field 'arithmetic'" "$sb" report x.db --view cost --on f16.json
check_refused "nowhere.json" "$sb" report x.db --view cost --on nowhere.json
echo '{"curve": [' >cut.json
check_refused "cut.json" "$sb" report x.db --view cost --on cut.json
echo '{"model": "tiny"}' >bare.json
check_refused "has no field 'curve'" "$sb" report x.db --view cost --on bare.json
check_refused "no arm is a baseline" "$sb" run --target tiny --drafter pld --no-baseline --aa --db y.db

cat >s.lua <<'LUA'
local sb = require "specbench"
local exp <close> = sb.experiment { target = "tiny", tasks = "qa", take = 1, max_new_tokens = 8, aa = true,
                                    cost_curve = false }
exp:add { drafter = "pld" }
exp:run()
print(#exp:rows("leaderboard"), #exp:rows("speed"))
LUA
check_code 0 "$sb" run s.lua --db s.db
check_out "3	6"
check_same "$(sqlite3 s.db 'SELECT count(*) FROM cost_curve')" 0 "cost curve of a script that wants none"
cat >w.lua <<'LUA'
local sb = require "specbench"
local exp <close> = sb.experiment { target = "tiny", tasks = "qa", take = 1, max_new_tokens = 8 }
exp:add { drafter = "pld" }
exp:run()
LUA
check_code 0 "$sb" run w.lua --db w.db
grep -q '^specbench run: warning: the noise floor is not known' err || fail "no warning for a script: $(cat err)"

# An experiment of which nothing is finished has empty figures, and says so.
cp s.db empty.db
sqlite3 empty.db 'DELETE FROM generation'
for view in leaderboard speed compare warnings; do
    check_code 0 "$sb" report empty.db --view "$view"
done
grep -q 'generations are missing' out || fail "no word on what is missing: $(cat out)"
finish
