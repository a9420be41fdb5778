#!/bin/sh
# A real run passes `specbench verify`; each row that is edited afterwards is seen; partial runs say that they are.
# shellcheck source=tests/e2e/lib.sh
. "$ROOT/tests/e2e/lib.sh"
cd "$work" || exit 1
sb=$SPECBENCH
some="run --target tiny --tasks qa,translation --max-new-tokens 32 --drafter none --drafter pld
    --drafter small-lm:model=tiny-draft,tree=3x2x1 --drafter lookahead --quiet"
# shellcheck disable=SC2086
"$sb" $some --db x.db --take 2 --repeats 2 >out 2>err || { fail "run: $(cat err)"; finish; exit 1; }

for format in table md csv json; do
    check_code 0 "$sb" verify x.db --format $format
    check_out "accepted_tokens"
done
check_code 0 "$sb" verify x.db --format csv
check_same "$(awk -F, 'NR > 1 && ($2 == 0 || $3 != 0)' "$work/out")" "" "checks of nothing, or that fail"
[ ! -s "$work/err" ] || fail "verify of a whole run says: $(cat "$work/err")"

for view in leaderboard tasks acceptance positions ranks sources histogram breakdown latency runs coverage; do
    for format in table md csv json; do
        check_code 0 "$sb" report x.db --view $view --format $format
        [ -s "$work/out" ] || fail "report --view $view --format $format is empty"
        ! grep -Ev "^specbench report: warning: " "$work/err" || fail "report of a whole run says: $(cat "$work/err")"
    done
done

# One edit at a time. node: a rejected node of the first tree; last: the last step of some generation.
cat >edits <<'END'
accepted|UPDATE step SET accepted = accepted - 1, decided = decided - 1, tokens = tokens - 1 WHERE (generation_id, step_no) IN (SELECT generation_id, step_no FROM step WHERE accepted > 0 AND tokens = accepted + 1 LIMIT 1)
tokens|UPDATE step SET tokens = tokens - 1 WHERE (generation_id, step_no) IN (SELECT generation_id, step_no FROM step WHERE tokens > 1 LIMIT 1)
drafted|UPDATE step SET drafted = drafted + 1 WHERE (generation_id, step_no) IN (SELECT generation_id, step_no FROM step WHERE drafted > 0 LIMIT 1)
depth|UPDATE step SET depth = depth + 1 WHERE (generation_id, step_no) IN (SELECT generation_id, step_no FROM step WHERE drafted > depth LIMIT 1)
auxiliary|UPDATE step SET auxiliary = auxiliary + 1 WHERE (generation_id, step_no) IN (SELECT generation_id, step_no FROM step LIMIT 1)
context|UPDATE step SET context = context + 1 WHERE (generation_id, step_no) IN (SELECT generation_id, step_no FROM step LIMIT 1)
bonus|UPDATE step SET bonus = 1 - bonus WHERE (generation_id, step_no) IN (SELECT generation_id, step_no FROM step WHERE tokens = accepted + 1 LIMIT 1)
time|UPDATE step SET verify_ns = verify_ns - 1 WHERE (generation_id, step_no) IN (SELECT generation_id, step_no FROM step LIMIT 1)
a step|DELETE FROM step WHERE (generation_id, step_no) IN (SELECT generation_id, step_no FROM step ORDER BY step_no DESC LIMIT 1)
a node|DELETE FROM draft_node WHERE (generation_id, step_no, node_no) IN (SELECT generation_id, step_no, node_no FROM draft_node ORDER BY node_no DESC LIMIT 1)
decision|UPDATE draft_node SET decision = 1 WHERE (generation_id, step_no, node_no) IN (SELECT generation_id, step_no, node_no FROM draft_node WHERE decision = 2 LIMIT 1)
reached|UPDATE draft_node SET decision = 1 WHERE (generation_id, step_no, node_no) IN (SELECT generation_id, step_no, node_no FROM draft_node WHERE decision = 0 AND parent > 0 AND auxiliary = 0 LIMIT 1)
parent|UPDATE draft_node SET parent = 0 WHERE (generation_id, step_no, node_no) IN (SELECT generation_id, step_no, node_no FROM draft_node WHERE parent > 0 LIMIT 1)
rank|UPDATE draft_node SET rank = rank + 1 WHERE (generation_id, step_no, node_no) IN (SELECT generation_id, step_no, node_no FROM draft_node LIMIT 1)
node token|UPDATE draft_node SET token = token + 1 WHERE (generation_id, step_no, node_no) IN (SELECT generation_id, step_no, node_no FROM draft_node WHERE decision = 2 LIMIT 1)
kind|UPDATE draft_node SET auxiliary = 1 - auxiliary WHERE (generation_id, step_no, node_no) IN (SELECT generation_id, step_no, node_no FROM draft_node LIMIT 1)
n_tokens|UPDATE generation SET n_tokens = n_tokens + 1 WHERE id = 3
answer|UPDATE generation SET tokens = '[5' || substr(tokens, instr(tokens, ',')) WHERE id = 2
prompt|UPDATE generation SET prompt_tokens = '[5' || substr(prompt_tokens, instr(prompt_tokens, ',')) WHERE id = 2
decode|UPDATE generation SET decode_ns = decode_ns / 2 WHERE id = 4
wall|UPDATE generation SET wall_ns = decode_ns WHERE id = 4
status|UPDATE generation SET status = 'error', error = 'x' WHERE id = 4
sums|UPDATE generation_sums SET drafted = drafted + 1 WHERE generation_id = 4
key|UPDATE generation_sums SET tokens_key = tokens_key + 1 WHERE generation_id = 4
orphan|DELETE FROM prompt WHERE id = 1
owner|UPDATE generation SET prompt_id = 999 WHERE id = 1
END
[ "$(wc -l <edits)" = 26 ] || fail "edits"
while IFS='|' read -r what sql; do
    rm -f y.db-wal y.db-shm
    cp x.db y.db
    changed=$(sqlite3 y.db "PRAGMA synchronous = 0; $sql; SELECT changes()" 2>&1)
    check_same "$changed" 1 "rows changed by '$what'"
    check_code 3 "$sb" verify y.db
    [ "$(grep -c '^specbench verify' "$work/err")" = 1 ] || fail "$what: not one line: $(cat "$work/err")"
    grep -q "checks fail, first" "$work/err" || fail "$what: $(cat "$work/err")"
    check_code 3 "$sb" verify y.db --format json
done <edits

# The views of the file are those of the program, also where someone put others in their place.
rm -f y.db-wal y.db-shm
cp x.db y.db
sqlite3 y.db "DROP VIEW positions; CREATE VIEW positions AS SELECT 1 AS arm_id"
check_code 0 "$sb" verify y.db
# A page of the file overwritten: seen, or refused; never a crash.
size=$(sqlite3 x.db 'PRAGMA page_count')
for page in 3 9 $((size / 2)) $((size - 1)); do
    rm -f y.db-wal y.db-shm
    cp x.db y.db
    head -c 4096 /dev/zero | tr '\0' '\377' | dd of=y.db bs=4096 seek="$page" conv=notrunc 2>/dev/null
    run "$sb" verify y.db
    checks=$((checks + 1))
    case $code in 2 | 3) ;; *) fail "page $page overwritten: exit $code" ;; esac
done

# Not a results database of ours.
: >empty.db
check_refused "empty.db" "$sb" verify empty.db
check_refused "missing.db" "$sb" verify missing.db
echo text >text.db
check_refused "text.db: not a results database" "$sb" verify text.db
sqlite3 other.db 'CREATE TABLE t (x); INSERT INTO t VALUES (1)'
check_refused "other.db: a database of another application" "$sb" verify other.db
cp x.db newer.db
sqlite3 newer.db 'PRAGMA user_version = 99'
check_refused "newer.db: was written by a newer specbench" "$sb" verify newer.db
check_refused "expected one database file" "$sb" verify

# A run that was interrupted is partial, and says so with every view; so do arms with unequal prompts.
# shellcheck disable=SC2086
"$sb" $some --db part.db --repeats 9 >out 2>err &
pid=$!
while [ "$(sqlite3 part.db 'SELECT count(*) FROM generation' 2>/dev/null || echo 0)" -lt 6 ]; do
    kill -0 $pid 2>/dev/null || break
    sleep 0.1
done
kill -TERM $pid
wait $pid
check_same $? 130 "exit of an interrupted run"
for view in leaderboard positions breakdown; do
    check_code 0 "$sb" report part.db --view $view
    checks=$((checks + 1))
    grep -q "part.db: experiment 1 is partial: [0-9]* of [0-9]* generations are done" "$work/err" ||
        fail "a partial run's $view says: $(cat "$work/err")"
done
check_code 0 "$sb" report part.db --view coverage --format csv
check_same "$(awk -F, 'NR > 1 && $(NF - 4) != $(NF - 3) + $(NF - 2) + $(NF - 1)' "$work/out")" "" "planned = done + errors + missing"
check_code 0 "$sb" verify part.db
grep -q "is partial" "$work/err" || fail "verify of a partial run says: $(cat "$work/err")"
rm -f y.db-wal y.db-shm
cp x.db y.db
sqlite3 y.db "PRAGMA foreign_keys = 1; DELETE FROM generation WHERE arm_id = 2 AND prompt_id = 1"
check_code 0 "$sb" report y.db
grep -q "its arms have unequal prompts: '[^']*' has" "$work/err" || fail "unequal prompts: $(cat "$work/err")"
[ "$(grep -c unequal "$work/err")" = 1 ] || fail "not one line on unequal prompts"
check_code 0 "$sb" verify y.db

# A database of the first schema is read as it is, and brought up to date when a run writes to it.
sqlite3 old.db <"$ROOT/results/migrations/001_initial.sql"
for table in host model experiment arm prompt generation step draft_node; do
    columns=$(sqlite3 old.db "SELECT group_concat('\"' || name || '\"') FROM pragma_table_info('$table')")
    sqlite3 old.db "ATTACH 'x.db' AS new; INSERT INTO main.$table ($columns) SELECT $columns FROM new.$table"
done
sqlite3 old.db 'PRAGMA application_id = 1399865957; PRAGMA user_version = 1;' >/dev/null
sum=$(cksum <old.db)
check_code 0 "$sb" verify old.db
check_code 0 "$sb" report old.db --view acceptance --format csv
cp "$work/out" old.csv
"$sb" report x.db --view acceptance --format csv >new.csv
cmp -s old.csv new.csv || fail "an old database reports other figures: $(diff old.csv new.csv | head -c 300)"
check_same "$(cksum <old.db)" "$sum" "an old database that was only read"
"$sb" run --target tiny --tasks qa --take 1 --max-new-tokens 4 --drafter pld --db old.db --quiet >out 2>err ||
    fail "run into an old database: $(cat err)"
check_same "$(sqlite3 old.db 'SELECT (SELECT count(*) FROM generation) - (SELECT count(*) FROM generation_sums)')" \
    0 "generations without sums after an upgrade"
check_code 0 "$sb" verify old.db
finish
