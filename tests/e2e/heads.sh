#!/bin/sh
# Draft heads: found, run, inspected; wrong ones refused with one line.
# shellcheck source=tests/e2e/lib.sh
. "$ROOT/tests/e2e/lib.sh"
cd "$work" || exit 1
sb=$SPECBENCH

# member NAME: a number or text of `specbench inspect tiny`
"$sb" inspect tiny --format json >tiny.json
member() { tr ',{' '[\n*]' <tiny.json | sed -n "s/^\"$1\":\"*\([^\"}]*\).*/\1/p" | head -1; }
d=$(member width)
hash=$(member content_hash)

# le64 N: eight bytes, least first
le64() {
    n=$1
    for _ in 1 2 3 4 5 6 7 8; do
        # shellcheck disable=SC2059
        printf "\\$(printf %o $((n % 256)))"
        n=$((n / 256))
    done
}

# make_head WIDTH HASH LEFT_OUT: two Medusa heads that change nothing, so that each says what the target's
# output layer, which they share, makes of its last state. BF16 zeros.
make_head() {
    text="{\"__metadata__\":{\"specbench.target_hash\":\"$2\"}"
    at=0
    for i in 0 1; do
        for part in "weight [$1,$1] $((2 * $1 * $1))" "bias [$1] $((2 * $1))"; do
            # shellcheck disable=SC2086
            set -- "$1" "$2" "${3-}" $part
            [ "$i.0.linear.$4" = "${3-}" ] && continue
            text="$text,\"$i.0.linear.$4\":{\"dtype\":\"BF16\",\"shape\":$5,\"data_offsets\":[$at,$((at + $6))]}"
            at=$((at + $6))
        done
    done
    text="$text}"
    while [ $((${#text} % 8)) != 0 ]; do text="$text "; done
    le64 ${#text}
    printf %s "$text"
    head -c "$at" /dev/zero
}

make_head "$d" "$hash" >sound.safetensors
generate() { "$sb" generate --model tiny --prompt "The ship sailed" --max-new-tokens 40 "$@" 2>/dev/null; }
plain=$(generate)
check_same "$(generate --drafter medusa:head=sound.safetensors)" "$plain" "medusa"
check_same "$(generate --drafter medusa:head=sound.safetensors,tree=2x2 --threads 1)" "$plain" "a small tree"
sampled=$(generate --temperature 0.8 --seed 3)
check_same "$(generate --temperature 0.8 --seed 3 --drafter medusa:head=sound.safetensors \
    --verifier naive-sample)" "$sampled" "medusa above temperature 0"

# A whole run: every output equal to plain decoding, and drafts by depth in the database.
check_code 0 "$sb" run --target tiny --dataset mini --tasks qa --take 1 --max-new-tokens 24 --db "$work/h.db" \
    --drafter none --drafter "medusa:head=sound.safetensors"
grep -q 'equal to plain decoding, token for token' "$work/err" || fail "no word on equality: $(cat "$work/err")"
check_same "$(sqlite3 h.db 'SELECT group_concat(depth) FROM (SELECT DISTINCT depth FROM draft_node WHERE depth > 0
    ORDER BY depth)')" "1,2" "depths drafted by two heads"

# The tree that fits what was accepted, by the query of docs/sql.md.
sed -n '/^SELECT json_object/,/^```/p' "$ROOT/docs/sql.md" | sed '$d' >tree.sql
sqlite3 h.db <tree.sql | tail -1 >measured.json
check_same "$(cut -c 1-12 measured.json)" '{"nodes":24,' "the file of a measured tree"
check_same "$(generate --drafter medusa:head=sound.safetensors,tree=@measured.json)" "$plain" "a measured tree"

check_same "$(generate --drafter medusa:head=sound.safetensors,tree=auto,nodes=6)" "$plain" "a learned tree"

# Without a name: the bundled head that was made for this target.
check_refused "needs head=...: no bundled head models/*-medusa was made for this target" \
    env SPECBENCH_DATA="$work/data" "$sb" generate --model "$ROOT/models/tiny" --prompt x --drafter medusa
mkdir -p data/models/other-medusa data/models/tiny-medusa
make_head "$d" 00000000000000aa >data/models/other-medusa/model.safetensors
cp sound.safetensors data/models/tiny-medusa/model.safetensors
echo '{}' >data/models/other-medusa/config.json
echo '{"medusa_num_heads": 2}' >data/models/tiny-medusa/config.json
bundled() { SPECBENCH_DATA=$work/data "$sb" generate --model "$ROOT/models/tiny" --prompt "The ship sailed" \
    --max-new-tokens 40 "$@" 2>/dev/null; }
check_same "$(bundled --drafter medusa)" "$plain" "the bundled head"
check_same "$(bundled --drafter medusa:head=tiny-medusa)" "$plain" "the bundled head by name"

# The heads that come with the target: fewer steps, the same text, greedily and at a seed.
unset SPECBENCH_DATA
for drafter in medusa hydra hydra-pp eagle:tree=2x1x1 eagle2:depth=3,topk=2,total=6 eagle3:depth=3,topk=2,total=6 \
    mlp-speculator redrafter:k=3,beams=2 small-lm:model=tiny-draft,k=3 small-lm:model=tiny-draft-distilled,k=3; do
    check_same "$(generate --drafter "$drafter")" "$plain" "$drafter"
    "$sb" generate --model tiny --prompt "The ship sailed" --max-new-tokens 40 --ignore-eos --drafter "$drafter" \
        >"$work/out" 2>"$work/stats"
    mat=$(sed -n 's/.*MAT \([0-9.]*\).*/\1/p' "$work/stats")
    awk -v mat="$mat" 'BEGIN { exit !(mat > 1.1) }' || fail "$drafter: MAT $mat: $(cat "$work/stats")"
done

# A run is the run of these weights: the same command with another file is another run.
cp sound.safetensors moving.safetensors
run_moving() {
    "$sb" run --target tiny --tasks qa --take 1 --max-new-tokens 8 --db m.db --resume \
        --drafter medusa:head=moving.safetensors >"$work/out" 2>"$work/err" || fail "run: $(cat "$work/err")"
}
run_moving
run_moving
check_same "$(sqlite3 m.db 'SELECT count(*) FROM experiment')" 1 "runs of the same head"
printf '\001' | dd of=moving.safetensors bs=1 seek=$(($(wc -c <moving.safetensors) - 1)) conv=notrunc 2>"$work/dd"
run_moving
check_same "$(sqlite3 m.db 'SELECT count(*) FROM experiment')" 2 "runs after the head changed"

check_code 0 "$sb" inspect sound.safetensors
check_out "head.family: medusa"
check_out "head.target_hash: $hash"
check_code 0 "$sb" inspect data/models/tiny-medusa
check_out "head.config.medusa_num_heads: 2"
check_out 'name="1.0.linear.bias" type="bf16"'

# Refused, with what was found and expected.
refused() {
    text=$1
    shift
    check_refused "$text" "$sb" generate --model tiny --prompt x --drafter "medusa:head=$1"
}
size=$(wc -c <sound.safetensors)
for bytes in 0 7 8 60 $((size / 2)) $((size - 1)); do
    head -c "$bytes" sound.safetensors >cut.safetensors
    refused "cut.safetensors" cut.safetensors
done
make_head "$d" "$hash" 1.0.linear.bias >bad.safetensors
refused "bad.safetensors: tensor '1.0.linear.bias' is missing; expected [$d]" bad.safetensors
make_head "$d" "$hash" 0.0.linear.weight >bad.safetensors
refused "bad.safetensors: tensor '0.0.linear.weight' is missing; expected [$d, $d]" bad.safetensors
make_head 40 "$hash" >bad.safetensors
refused "bad.safetensors: tensor '0.0.linear.weight': found [40, 40], expected [$d, $d]" bad.safetensors
make_head "$d" 00000000000000aa >bad.safetensors
refused "was made for the target with hash 00000000000000aa; this target's is $hash" bad.safetensors
refused "model.safetensors: is no head for medusa: looked for" "$ROOT/models/tiny-draft/model.safetensors"
refused "tensor '0.0.linear.weight': found [4, 4], expected [$d, $d]" "$ROOT/tests/golden/torch/medusa.pt"
refused "the global 'os.system' is refused" "$ROOT/tests/fuzz/corpus/torch/os_system.pt"
refused "draft head 'no-such-head': no such file or directory, nor a bundled one" no-such-head
mkdir empty
refused "empty: holds no tensors; expected *.safetensors, *.bin or *.pt" empty
check_refused "is no head for hydra" "$sb" generate --model tiny --prompt x --drafter hydra:head=sound.safetensors
echo '[[0],[1,0]]' >tree.json
refused "tree.json: the path [1, 0] is there without its beginning" "sound.safetensors,tree=@tree.json"
refused "tree=oak: expected mc_sim_7b_63" "sound.safetensors,tree=oak"
check_refused "no head" "$sb" run --target tiny --drafter hydra:head=sound.safetensors --db "$work/none.db"
[ ! -e none.db ] || fail "a refused run made a database"
finish
