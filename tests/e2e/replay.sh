#!/bin/sh
# A datastore from JSON lines and from text, drafters on it, and recorded outputs replayed.
# shellcheck source=tests/e2e/lib.sh
. "$ROOT/tests/e2e/lib.sh"
cd "$work" || exit 1
db=$work/r.db

# ---- datastores ----
"$SPECBENCH" generate --model tiny --prompt 'Name three colours.' --max-new-tokens 200 --ignore-eos >gen.txt 2>/dev/null ||
    fail "no text to index"
{
    echo '{"task": "x", "turns": [{"user": "How are you?", "assistant": "I am well, thank you."}]}'
    echo
    echo '{"text": "A text of its own."}'
    echo '"A bare text."'
    echo '{"messages": [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Good day to you."}]}'
} >chat.jsonl
gzip -k chat.jsonl
check_code 0 "$SPECBENCH" index chat.jsonl gen.txt --model tiny -o s.sbidx
check_out "7 documents"
check_code 0 "$SPECBENCH" index chat.jsonl.gz gen.txt --model tiny --output s2.sbidx
cmp -s s.sbidx s2.sbidx || fail "gzip changed the datastore"
check_code 0 "$SPECBENCH" inspect s.sbidx --format json
check_out '"documents":7'
check_out '"format":"sbidx"'
: >empty.txt
check_code 0 "$SPECBENCH" index empty.txt --model tiny -o empty.sbidx
check_out "0 documents, 0 tokens"

rest="rest:store=s.sbidx,span_min=1"
parts="delegate:a='sam:k=9',b=(merge:a='$rest',b='pld:k=3,ngram_max=2'),min_match=3"
check_code 0 "$SPECBENCH" run --target tiny --dataset mini --take 2 --max-new-tokens 40 --db "$db" --drafter none \
    --drafter "$rest" --drafter rest:store=empty.sbidx --drafter pld:k=7 --drafter sam --drafter "$parts" \
    --drafter ngram-cache:scope=run --drafter suffix-decoding:tree=1,scope=prompt
grep -q 'equal to plain decoding, token for token' "$work/err" || fail "no word on equality: $(cat "$work/err")"
check_same "$(sqlite3 "$db" "SELECT sum(drafted) FROM step s JOIN generation g ON g.id = generation_id
    JOIN arm a ON a.id = arm_id WHERE label = 'rest:store=empty.sbidx'")" 0 "drafts from an empty store"
[ "$(sqlite3 "$db" "SELECT sum(accepted) FROM step s JOIN generation g ON g.id = generation_id
    JOIN arm a ON a.id = arm_id WHERE drafter = 'rest'")" -gt 0 ] || fail "nothing of the store was accepted"
# Tokens accepted of each part: sources 1 and 2 of the delegate.
check_same "$(sqlite3 "$db" "SELECT group_concat(DISTINCT source) FROM (SELECT source FROM draft_node n
    JOIN generation g ON g.id = n.generation_id JOIN arm a ON a.id = arm_id WHERE drafter = 'delegate' ORDER BY 1)")" \
    1,2 "sources of the delegate"

# ---- replay equals the run ----
check_code 0 "$SPECBENCH" report "$db" --view positions --format csv
grep -v '^none,' "$work/out" >run.csv
check_code 0 "$SPECBENCH" replay "$db" --view positions --format csv --quiet --drafter "$rest" \
    --drafter rest:store=empty.sbidx --drafter pld:k=7 --drafter sam --drafter "$parts" \
    --drafter ngram-cache:scope=run --drafter suffix-decoding:tree=1,scope=prompt
cmp -s "$work/out" run.csv || fail "positions differ: $(diff "$work/out" run.csv | head -5)"
figures() { python3 -c 'import csv,sys
for r in csv.DictReader(sys.stdin):
    if not r["arm"].startswith("none"): print(r["arm"].split("+")[0], *(r[k] for k in ("task","prompts","steps","mat","mat_drafted","hit_rate","draft_efficiency")))'; }
check_code 0 "$SPECBENCH" report "$db" --view drafting --format csv
figures <"$work/out" >run.txt
check_code 0 "$SPECBENCH" replay "$db" --format csv --drafter "$rest" \
    --drafter rest:store=empty.sbidx --drafter pld:k=7 --drafter sam --drafter "$parts" \
    --drafter ngram-cache:scope=run --drafter suffix-decoding:tree=1,scope=prompt
figures <"$work/out" >replay.txt
[ "$(wc -l <run.txt)" -gt 40 ] || fail "few figures"
cmp -s run.txt replay.txt || fail "figures differ: $(diff run.txt replay.txt | head -5)"
grep -q 'per second' "$work/err" || fail "no speed: $(cat "$work/err")"
check_code 0 "$SPECBENCH" replay "$db" --arm sam --drafter pld:k=7 --verifier naive-sample
check_same "$("$SPECBENCH" replay "$db" --drafter none --format csv --quiet | tail -1 | cut -d, -f5)" 1.0 "MAT of no draft"

# Sampled text: replay draws as the run did.
check_code 0 "$SPECBENCH" run --target tiny --tasks qa --take 2 --max-new-tokens 60 --ignore-eos --temperature 0.7 --seed 3 --db "$db" \
    --drafter none --drafter pld --drafter anpd:q=true --verifier naive-sample
check_code 0 "$SPECBENCH" report "$db" --view drafting --format csv
figures <"$work/out" >run.txt
check_code 0 "$SPECBENCH" replay "$db" --drafter pld --drafter anpd:q=true --format csv
figures <"$work/out" >replay.txt
cmp -s run.txt replay.txt || fail "sampled figures differ: $(diff run.txt replay.txt | head -5)"
check_refused "verifier greedy at temperature 0.7" "$SPECBENCH" replay "$db" --drafter pld --verifier greedy

# ---- documents of the data set, and what is not resumed ----
echo '{"prompt": "Go on."}' >plain.jsonl
check_code 0 "$SPECBENCH" run --target tiny --dataset jsonl:plain.jsonl --max-new-tokens 40 --db p.db --drafter sad
sqlite3 p.db "SELECT json_object('prompt', 'Go on.', 'documents', json_array(text)) FROM generation LIMIT 1" >docs.jsonl
check_code 0 "$SPECBENCH" run --target tiny --dataset jsonl:docs.jsonl --max-new-tokens 40 --db d.db --drafter sad
steps="SELECT count(*) FROM step s JOIN generation g ON g.id = generation_id JOIN arm a ON a.id = arm_id WHERE drafter = 'sad'"
[ "$(sqlite3 d.db "$steps")" -lt "$(($(sqlite3 p.db "$steps") / 2))" ] ||
    fail "steps with the answer as document: $(sqlite3 d.db "$steps"), without: $(sqlite3 p.db "$steps")"
check_code 0 "$SPECBENCH" replay d.db --drafter sad
grep -q 'documents of the data set are not recorded' "$work/err" || fail "no word on documents: $(cat "$work/err")"
run_scope="run --target tiny --tasks qa --take 2 --max-new-tokens 16 --db s.db --drafter none
    --drafter delegate:b=suffix-decoding"
# shellcheck disable=SC2086
check_code 0 "$SPECBENCH" $run_scope
# shellcheck disable=SC2086
check_code 0 "$SPECBENCH" $run_scope --resume
sqlite3 s.db "DELETE FROM generation WHERE id = (SELECT max(id) FROM generation)"
# shellcheck disable=SC2086
check_refused "learns over the run" "$SPECBENCH" $run_scope --resume

# ---- refusals ----
check_refused "reads the target's rows" "$SPECBENCH" replay "$db" --drafter token-recycling
check_refused "reads the target's rows" "$SPECBENCH" replay "$db" --drafter lookahead
check_refused "reads the target's rows" "$SPECBENCH" replay "$db" --drafter jacobi
check_refused "reads the target's rows" "$SPECBENCH" replay "$db" --drafter merge:a=pld,b=token-recycling
check_refused "no draft model" "$SPECBENCH" replay "$db" --drafter small-lm:model=tiny-draft
check_refused "no arm 'nobody'" "$SPECBENCH" replay "$db" --drafter pld --arm nobody
check_refused "no drafter is named 'nothing'" "$SPECBENCH" replay "$db" --drafter nothing
check_refused "No such file" "$SPECBENCH" replay none.db --drafter pld
check_refused "expected one database" "$SPECBENCH" replay "$db"

head -c 100 s.sbidx >cut.sbidx
check_refused "cut short" "$SPECBENCH" generate --model tiny --prompt x --drafter rest:store=cut.sbidx
check_refused "cut short" "$SPECBENCH" inspect cut.sbidx
{ head -c 70 s.sbidx; printf x; tail -c +72 s.sbidx; } >bad.sbidx
check_refused "checksum" "$SPECBENCH" generate --model tiny --prompt x --drafter rest:store=bad.sbidx
printf 'no datastore, but long enough to hold the header of one, which has 64 bytes' >magic.sbidx
check_refused "is no datastore" "$SPECBENCH" generate --model tiny --prompt x --drafter rest:store=magic.sbidx
check_refused "No such file" "$SPECBENCH" generate --model tiny --prompt x --drafter rest:store=none.sbidx
check_refused "rest needs store" "$SPECBENCH" generate --model tiny --prompt x --drafter rest
printf '\002\000\000\000\377\377\004\000\000\000\000\000\000\000' >far.idx
check_refused "holds token 65535, the vocabulary has" "$SPECBENCH" generate --model tiny --prompt x --drafter rest:store=far.idx
gguf=$ROOT/tests/golden/tokenizers
other=$(find "$gguf" -name '*.gguf' | head -1)
if [ -n "$other" ]; then
    check_code 0 "$SPECBENCH" index chat.jsonl --model "$other" -o other.sbidx
    check_refused "was made with tokenizer" "$SPECBENCH" generate --model tiny --prompt x --drafter rest:store=other.sbidx
fi
check_refused "line 1: no field 'answer'" "$SPECBENCH" index chat.jsonl --model tiny --field answer -o x.sbidx
echo '{"text":' >broken.jsonl
check_refused "broken.jsonl: line 1: no JSON" "$SPECBENCH" index broken.jsonl --model tiny -o x.sbidx
check_refused "none.jsonl: No such file" "$SPECBENCH" index none.jsonl --model tiny -o x.sbidx
check_refused "expected files, --model and -o" "$SPECBENCH" index chat.jsonl --model tiny
check_same "$(find . -name 'x.sbidx*' | wc -l)" 0 "files left by refused indexes"
finish
