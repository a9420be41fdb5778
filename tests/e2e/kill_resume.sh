#!/bin/sh
# kill -9 at 20 random moments of a run: the database opens, is sound, and --resume ends where an undisturbed
# run ends.
# shellcheck source=tests/e2e/lib.sh
. "$ROOT/tests/e2e/lib.sh"
cd "$work" || exit 1

run="run --target tiny --take 3 --max-new-tokens 64 --ignore-eos --repeats 3 --drafter pld
    --drafter small-lm:model=tiny-draft --quiet"
outcome() {
    sqlite3 "$1" "SELECT label, question_id, turn, repeat, status, tokens, (SELECT group_concat(
        step_no || ':' || drafted || ':' || accepted || ':' || s.tokens) FROM step s WHERE generation_id = g.id)
        FROM generation g JOIN arm a ON a.id = arm_id JOIN prompt p ON p.id = prompt_id
        ORDER BY 1, 2, 3, 4"
}

milliseconds() { echo $(($(date +%s%N) / 1000000)); }
began=$(milliseconds)
# shellcheck disable=SC2086
"$SPECBENCH" $run --dry-run >out 2>"$work/err" || fail "dry run: $(cat "$work/err")"
ready=$(milliseconds)
# shellcheck disable=SC2086
"$SPECBENCH" $run --db whole.db >out 2>"$work/err" || fail "undisturbed run: $(cat "$work/err")"
ended=$(milliseconds)
outcome whole.db >whole
seed=${KILL_SEED:-$$}
echo "delays from seed $seed"
kills=0
resumed=0
while [ "$kills" -lt 20 ]; do
    kills=$((kills + 1))
    # shellcheck disable=SC2086
    "$SPECBENCH" $run --db killed.db --resume >out 2>err &
    pid=$!
    # Some moments of opening, most within the run, which goes on where the last one was killed.
    sleep "$(awk -v s="$seed" -v k="$kills" -v open="$((ready - began))" -v whole="$((ended - ready))" \
        'BEGIN { srand(s + k); printf "%.3f", (open * 2.2 * rand() + whole / 11 * rand()) / 1000 }')"
    kill -9 "$pid" 2>/dev/null
    wait "$pid" 2>/dev/null
    [ -e killed.db ] || continue
    check_same "$(sqlite3 killed.db 'PRAGMA integrity_check')" ok "integrity after kill $kills"
    check_same "$(sqlite3 killed.db 'PRAGMA foreign_key_check')" "" "foreign keys after kill $kills"
    n=$(sqlite3 killed.db "SELECT count(*) FROM sqlite_master WHERE name = 'generation'")
    [ "$n" = 1 ] || continue
    n=$(sqlite3 killed.db 'SELECT count(*) FROM generation')
    [ "$n" -ge "$resumed" ] || fail "kill $kills lost generations: $n after $resumed"
    resumed=$n
done
[ "$resumed" -gt 10 ] || fail "only $resumed generations were finished between 20 kills"
echo "$resumed of $(wc -l <whole) generations were there after the last kill"
# shellcheck disable=SC2086
"$SPECBENCH" $run --db killed.db --resume >out 2>"$work/err" || fail "the last resume: $(cat "$work/err")"
outcome killed.db >killed
cmp -s whole killed || fail "the resumed run differs: $(diff whole killed | head -c 300)"
check_same "$(sqlite3 killed.db 'SELECT count(*) FROM experiment')" 1 "experiments"
finish
