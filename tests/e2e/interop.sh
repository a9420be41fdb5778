#!/bin/sh
# specbench export and import: the forms of other tools, there and back.
# shellcheck source=tests/e2e/lib.sh
. "$ROOT/tests/e2e/lib.sh"
cd "$work" || exit 1
db=x.db
"$SPECBENCH" run --target tiny --dataset mini --take 2 --max-new-tokens 24 --repeats 2 --quiet --db "$db" \
    --drafter none --drafter pld --drafter small-lm:model=tiny-draft >/dev/null 2>err || fail "run: $(cat err)"

# What Spec-Bench's speed.py computes, written anew: of each file the mean over answers of tokens per second,
# their ratio; and the mean of all accepted lengths. $1 method, $2 baseline, $3 category or "overall" or mt_bench.
# shellcheck disable=SC2016
rate='def wanted($t): $t == "overall" or .category == $t or ($t == "mt_bench" and (.category |
    IN("writing", "roleplay", "reasoning", "math", "coding", "extraction", "stem", "humanities")));
  map(select(wanted($t)) | .choices[0] | (.new_tokens | add) / (.wall_time | add)) | add / length'
speed() {
    method=$(jq -s --arg t "$3" "$rate" "$1")
    base=$(jq -s --arg t "$3" "$rate" "$2")
    echo "$method $base" | awk '{ printf "%.12g", $1 / $2 }'
}
mat() { jq -s 'map(.choices[0].accept_lengths) | add | add / length' "$1"; }
# close_to A B WHAT: to nine digits
close_to() {
    checks=$((checks + 1))
    awk -v a="$1" -v b="$2" 'BEGIN { exit !(a > 0 && (a - b) ^ 2 <= (1e-9 * b) ^ 2) }' || fail "$3: '$1' is not '$2'"
}
column() { "$SPECBENCH" report "$1" --view "$2" --format json | jq -r ".[] | select(.arm == \"$3\" and .task == \"$4\").$5"; }

check_code 0 "$SPECBENCH" export "$db" --format spec-bench -o runs
check_same "$(find runs -name '*.jsonl' | sort | tr '\n' ' ')" "runs/run_1/none.jsonl runs/run_1/pld.jsonl \
runs/run_1/small-lm-model=tiny-draft.jsonl runs/run_2/none.jsonl runs/run_2/pld.jsonl \
runs/run_2/small-lm-model=tiny-draft.jsonl " "files of two repeats"
# Its figure for several runs is the mean of theirs.
for arm in pld small-lm:model=tiny-draft; do
    file=$(echo "$arm" | tr : -).jsonl
    for task in overall qa rag translation summarization math_reasoning; do
        ours=$(column "$db" tasks "$arm" "$([ $task = overall ] && echo all || echo $task)" specbench_speedup)
        theirs=$(for r in 1 2; do speed "runs/run_$r/$file" "runs/run_$r/none.jsonl" $task; echo; done |
            awk '{ s += $1 } END { printf "%.12g", s / NR }')
        close_to "$theirs" "$ours" "specbench_speedup of $arm, $task"
    done
    theirs=$(for r in 1 2; do speed "runs/run_$r/$file" "runs/run_$r/none.jsonl" mt_bench; echo; done |
        awk '{ s += $1 } END { printf "%.12g", s / NR }')
    close_to "$theirs" "$(column "$db" tasks "$arm" conversation specbench_speedup)" "mt_bench of $arm"
    close_to "$(cat runs/run_*/"$file" | mat /dev/stdin)" "$(column "$db" leaderboard "$arm" all mat)" "MAT of $arm"
done
check_same "$(jq -c 'keys_unsorted' runs/run_1/pld.jsonl | sort -u)" \
    '["question_id","category","answer_id","model_id","choices","tstamp"]' "fields of a line"
check_same "$(jq -c '.choices[0] | keys_unsorted' runs/run_1/pld.jsonl | sort -u)" \
    '["index","turns","decoding_steps","new_tokens","wall_time","accept_lengths"]' "fields of a choice"
check_same "$(jq -c 'select(.question_id == 1).choices[0] | [.turns, .decoding_steps, .new_tokens, .wall_time] |
    map(length)' runs/run_1/pld.jsonl)" '[2,2,2,2]' "two turns"
check_same "$(jq -s 'all(.[]; .choices[0] | (.decoding_steps | add) == (.accept_lengths | length)
    and ((.accept_lengths | add) + (.turns | length)) == (.new_tokens | add))' runs/run_1/pld.jsonl)" true "counts"
check_same "$(jq -s 'map(.choices[0].accept_lengths) | add | unique | join(" ")' runs/run_1/none.jsonl)" '"1"' "plain steps"

# One file, standard output, one repeat into a folder.
check_code 0 "$SPECBENCH" export "$db" --format spec-bench --arm pld --repeat 2 -o one.jsonl
cmp -s one.jsonl runs/run_2/pld.jsonl || fail "one file differs from that of the folder"
check_code 0 "$SPECBENCH" export "$db" --format spec-bench --arm pld --repeat 2
cmp -s out one.jsonl || fail "standard output differs from the file"
check_code 0 "$SPECBENCH" export "$db" --format spec-bench
cat runs/run_1/none.jsonl runs/run_1/pld.jsonl runs/run_1/small* runs/run_2/none.jsonl runs/run_2/pld.jsonl runs/run_2/small* >all
cmp -s out all || fail "standard output does not hold all arms and repeats"
check_code 0 "$SPECBENCH" export "$db" --format spec-bench --repeat 1 --output flat
cmp -s flat/none.jsonl runs/run_1/none.jsonl || fail "one repeat in a folder"

# Answers of the prefill's token alone count too, as they do in the script.
cp "$db" short.db
sqlite3 short.db "PRAGMA foreign_keys = ON; CREATE TEMP TABLE s AS SELECT g.id FROM generation g JOIN prompt p ON p.id = prompt_id
    WHERE question_id IN (1, 37); DELETE FROM step WHERE generation_id IN (SELECT id FROM s);
    UPDATE generation SET n_tokens = 1, tokens = '[5]', decode_ns = 0 WHERE id IN (SELECT id FROM s);
    DELETE FROM generation WHERE repeat = 1; UPDATE experiment SET repeats = 1"
check_code 0 "$SPECBENCH" export short.db --format spec-bench -o short
close_to "$(speed short/pld.jsonl short/none.jsonl overall)" "$(column short.db leaderboard pld all specbench_speedup)" \
    "specbench_speedup with answers of one token"

# A question that one arm did not finish is in no file.
cp "$db" part.db
sqlite3 part.db "UPDATE generation SET status = 'error', error = 'x' WHERE repeat = 0 AND
    arm_id = (SELECT id FROM arm WHERE label = 'pld') AND prompt_id = (SELECT id FROM prompt WHERE question_id = 1 AND turn = 2)"
check_code 0 "$SPECBENCH" export part.db --format spec-bench --repeat 1 -o part
grep -q '1 answers left out' err || fail "no word on what was left out: $(cat err)"
check_same "$(cat part/*.jsonl | jq -s 'map(.question_id) | [length, index(1)] | join(" ")')" '"33 "' "answers of a partial run"

# Counters as serving engines name them.
check_code 0 "$SPECBENCH" export "$db" --format acceptance-json -o a.json
sql() { sqlite3 "$db" "$1"; }
arm() { jq -r ".arms[] | select(.arm == \"$1\") | $2" a.json; }
from="FROM step s JOIN generation g ON g.id = generation_id JOIN arm a ON a.id = arm_id WHERE label = 'pld'"
check_same "$(arm pld '[.num_drafts, .num_draft_tokens, .num_accepted_tokens] | join(" ")')" \
    "$(sql "SELECT sum(drafted > 0) || ' ' || sum(drafted) || ' ' || sum(accepted) $from")" "vLLM's counters"
check_same "$(arm pld '.num_accepted_tokens_per_pos | [length, .[0], .[1]] | join(" ")')" \
    "$(sql "SELECT max(accepted) || ' ' || sum(accepted >= 1) || ' ' || sum(accepted >= 2) $from")" "per position"
check_same "$(arm pld '(.num_accepted_tokens_per_pos | add) == .num_accepted_tokens')" true "their sum"
check_same "$(arm pld '(.accepted_histogram | add) == .steps')" true "the histogram"
close_to "$(arm pld '.conditional_acceptance_per_pos[1]')" \
    "$(sql "SELECT printf('%.12g', conditional) FROM positions WHERE arm = 'pld' AND position = 2")" "conditional rate"
close_to "$(arm pld .mean_acceptance_length)" "$(sql "SELECT printf('%.12g', 1 + 1.0 * sum(accepted) / sum(drafted > 0)) $from")" "mean length"
close_to "$(arm pld .mat)" "$(column "$db" leaderboard pld all mat)" "MAT"
check_same "$(arm none '[.num_drafts, .draft_acceptance_rate, (.num_accepted_tokens_per_pos | length)] | map(tostring) | join(" ")')" \
    "0 null 0" "plain decoding"

# Every step.
check_code 0 "$SPECBENCH" export "$db" --format steps-csv -o steps.csv
check_same "$(($(wc -l <steps.csv) - 1))" "$(sql 'SELECT count(*) FROM step')" "rows of csv"
sqlite3 :memory: '.import --csv steps.csv s' 'SELECT arm, sum(accepted), sum(tokens) FROM s GROUP BY 1 ORDER BY 1' >c
sql "SELECT label, sum(accepted), sum(step.tokens) FROM step JOIN generation g ON g.id = generation_id JOIN arm a ON a.id = arm_id GROUP BY 1 ORDER BY 1" >d
cmp -s c d || fail "csv and database differ: $(cat c d)"
check_code 0 "$SPECBENCH" export "$db" --format steps-jsonl --arm pld
check_same "$(jq -s 'map(.accepted) | add' out)" "$(sql "SELECT sum(accepted) $from")" "accepted in jsonl"

# And back: the same MAT and specbench_speedup, and nothing that the files do not say.
check_code 0 "$SPECBENCH" import flat/pld.jsonl flat/small-lm*.jsonl --baseline flat/none.jsonl --db i.db --name theirs
check_code 0 "$SPECBENCH" verify i.db
"$SPECBENCH" export "$db" --format spec-bench --repeat 1 -o f 2>/dev/null
for arm in pld small-lm:model=tiny-draft; do
    close_to "$(column i.db leaderboard "$arm" all specbench_speedup)" \
        "$(speed "flat/$(echo "$arm" | tr : -).jsonl" flat/none.jsonl overall)" "imported specbench_speedup of $arm"
    close_to "$(column i.db leaderboard "$arm" all mat)" "$(mat "flat/$(echo "$arm" | tr : -).jsonl")" "imported MAT of $arm"
    close_to "$(column i.db tasks "$arm" qa specbench_speedup)" \
        "$(speed "flat/$(echo "$arm" | tr : -).jsonl" flat/none.jsonl qa)" "imported specbench_speedup of $arm, qa"
done
for unknown in draft_efficiency hit_rate tokens_per_s speedup speedup_gm equal guarantee; do
    check_same "$(column i.db leaderboard pld all $unknown)" null "$unknown of an import"
done
check_same "$(sqlite3 i.db 'SELECT origin, name FROM experiment')" "import|theirs" "its origin"
check_same "$(sqlite3 i.db "SELECT count(DISTINCT task) FROM prompt")" 6 "tasks from categories"
check_same "$(sqlite3 i.db "SELECT count(*) FROM positions")" 0 "positions of an import"
for view in leaderboard tasks positions breakdown runs; do check_code 0 "$SPECBENCH" report i.db --view $view; done
check_code 0 "$SPECBENCH" export i.db --format spec-bench -o again
for file in none pld; do
    check_same "$(jq -c '[.question_id, .category, .model_id, .choices]' again/$file.jsonl | cksum)" \
        "$(jq -c '[.question_id, .category, .model_id, .choices]' flat/$file.jsonl | cksum)" "exported again: $file"
done
# The same files add nothing; others are an experiment of their own.
check_code 0 "$SPECBENCH" import flat/pld.jsonl flat/small-lm*.jsonl --baseline flat/none.jsonl --db i.db --name theirs
check_same "$(sqlite3 i.db 'SELECT count(*) FROM generation')" 42 "generations after importing twice"
check_code 0 "$SPECBENCH" import flat/pld.jsonl --db i.db
check_same "$(column i.db leaderboard pld all specbench_speedup)" null "no baseline, no speedup"

# As their tool writes it: two choices, steps that miscount, an answer of no steps.
cat >odd.jsonl <<'JSON'
{"question_id": 81, "category": "writing", "answer_id": "a", "model_id": "m", "choices": [{"index": 0, "turns": ["a", "b"], "decoding_steps": [2, 1], "new_tokens": [5, 4], "wall_time": [0.5, 0.25], "accept_lengths": [3, 2, 1, 3]}, {"index": 1, "turns": ["a", "b"], "decoding_steps": [9, 9], "new_tokens": [5, 4], "wall_time": [0.5, 0.25], "accept_lengths": [3]}], "tstamp": 1700000000.5}

{"question_id": 82, "category": "qa", "answer_id": "b", "model_id": "m", "choices": [{"index": 0, "turns": [""], "decoding_steps": [0], "new_tokens": [0], "wall_time": [1], "accept_lengths": []}], "tstamp": 0}
JSON
check_code 0 "$SPECBENCH" import odd.jsonl --db odd.db
check_same "$(sqlite3 odd.db 'SELECT group_concat(tokens, " ") FROM (SELECT sum(s.tokens) AS tokens FROM generation g
    LEFT JOIN step s ON s.generation_id = g.id GROUP BY g.id ORDER BY g.id)')" "5 4 3" "shared lengths"
close_to "$(column odd.db leaderboard m all mat)" 2.4 "pooled MAT"

# What is refused: one line, and nothing is written.
import_refused() {
    printf '%s\n' "$2" >bad.jsonl
    rm -f none.db
    check_refused "$1" "$SPECBENCH" import bad.jsonl --db none.db
    [ ! -e none.db ] || fail "a refused import made a database: $1"
}
good=$(head -1 flat/pld.jsonl)
change() { printf '%s\n' "$good" | jq -c "$1"; }
import_refused "line 1: no JSON" '{"question_id": 1'
import_refused "line 2: no JSON" "$good
x"
import_refused "expected an object" '[1]'
import_refused "question_id: expected a whole number" "$(change '.question_id = "1"')"
import_refused "category: expected a text" "$(change 'del(.category)')"
import_refused "choices: expected an array" "$(change '.choices = []')"
import_refused "choices[0].turns: expected" "$(change '.choices[0].turns = "x"')"
import_refused "choices[0].new_tokens: expected" "$(change '.choices[0].new_tokens[0] = -1')"
import_refused "choices[0].wall_time: expected" "$(change '.choices[0].wall_time[0] = 0')"
import_refused "decoding_steps has 1 elements, turns 2" "$(change '.choices[0].decoding_steps = [1]')"
import_refused "accept_lengths: expected" "$(change '.choices[0].accept_lengths = [1.5]')"
import_refused "accept_lengths: expected" "$(change '.choices[0].accept_lengths = [99999999999]')"
import_refused "question 1 is answered twice" "$good
$good"
import_refused "holds no answers" ""
change '.category = "qa"' >other.jsonl
check_refused "is another one in flat/pld.jsonl" "$SPECBENCH" import flat/pld.jsonl other.jsonl --db none.db
check_refused "No such file" "$SPECBENCH" import none.jsonl --db none.db
check_refused "--db is missing" "$SPECBENCH" import flat/pld.jsonl
check_refused "expected answer files" "$SPECBENCH" import --db none.db
check_refused "not a results database" "$SPECBENCH" import flat/pld.jsonl --db flat/pld.jsonl
check_refused "--format is missing" "$SPECBENCH" export "$db"
check_refused "format 'xml'" "$SPECBENCH" export "$db" --format xml
check_refused "has no arm 'nobody'" "$SPECBENCH" export "$db" --format steps-csv --arm nobody
check_refused "name a folder with -o" "$SPECBENCH" export "$db" --format spec-bench -o none.jsonl
check_refused "name a folder with -o" "$SPECBENCH" export "$db" --format spec-bench --arm pld -o none.jsonl
check_refused "--repeat 3" "$SPECBENCH" export "$db" --format spec-bench --repeat 3 -o z
check_refused "No such file" "$SPECBENCH" export none.db --format steps-csv
check_refused "no experiment 9" "$SPECBENCH" export "$db" --format steps-csv --experiment 9
sqlite3 foreign.db 'CREATE TABLE t (x)'
check_refused "another application" "$SPECBENCH" export foreign.db --format steps-csv
check_refused "another application" "$SPECBENCH" import flat/pld.jsonl --db foreign.db
cp "$db" newer.db
sqlite3 newer.db 'PRAGMA user_version = 99' >/dev/null
check_refused "newer specbench" "$SPECBENCH" export newer.db --format steps-csv
if [ -e none.db ] || [ -e z ] || [ -e none.jsonl ]; then fail "something was written by a refused command"; fi
check_code 1 "$SPECBENCH" export "$db" --format steps-csv -o "$work/none/steps.csv"
finish
