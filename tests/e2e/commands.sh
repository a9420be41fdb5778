#!/bin/sh
# Every command once, as a user would call it.
# shellcheck source=tests/e2e/lib.sh
. "$ROOT/tests/e2e/lib.sh"

check_code 0 "$SPECBENCH" --version
check_out "specbench "
check_code 0 "$SPECBENCH" help
check_out "generate"
for command in run list report plot verify gate export import certify generate tokenize logits inspect bench train; do
    check_code 0 "$SPECBENCH" help "$command"
    check_out "  specbench $command"
    cp "$work/out" "$work/help"
    check_code 0 "$SPECBENCH" "$command" --help
    cmp -s "$work/out" "$work/help" || fail "help $command is not $command --help"
done

for list in drafters verifiers policies datasets models; do
    for format in table md csv json; do
        check_code 0 "$SPECBENCH" list "$list" --format "$format"
        [ -s "$work/out" ] || fail "list $list --format $format is empty"
    done
done
check_code 0 "$SPECBENCH" list drafters
for drafter in anpd jacobi llma lookahead mag ngram-cache nest none pld rsd-c rsd-s sad sam small-lm suffix-decoding \
    token-recycling trie-lookahead; do check_out "$drafter"; done

# Text to ids and back.
text='The quick brown fox, 12 naïve äpfel — “quoted”.'
printf '%s\n\nsecond line\n' "$text" >"$work/in"
"$SPECBENCH" tokenize --model tiny --no-bos <"$work/in" >"$work/ids" || fail "tokenize"
check_same "$(wc -l <"$work/ids")" 3 "lines of ids"
check_same "$(sed -n 2p "$work/ids")" "" "ids of an empty line"
"$SPECBENCH" tokenize --model tiny --decode <"$work/ids" >"$work/back" || fail "tokenize --decode"
cmp -s "$work/in" "$work/back" || fail "decoding gives another text: $(cat "$work/back")"
printf 'a\nb|c' >"$work/in"
"$SPECBENCH" tokenize --model tiny --no-bos --text-separator '|' <"$work/in" >"$work/ids"
check_same "$(wc -l <"$work/ids")" 2 "texts split on |"

# One forward, as a chain and as a tree of the same paths: the same figures.
check_code 0 "$SPECBENCH" logits --model tiny --tokens '5 6 7' --top 3
cp "$work/out" "$work/chain"
check_code 0 "$SPECBENCH" logits --model tiny --tokens '5 9 6 7' --parents '-1 0 0 2' --top 3
tree=$(sed -n 's/.*"token":7.*\("lse".*\]\]\).*/\1/p' "$work/out")
chain=$(sed -n 's/.*"token":7.*\("lse".*\]\]\).*/\1/p' "$work/chain")
check_same "$tree" "$chain" "logits of a tree path and of a chain"
check_code 0 "$SPECBENCH" logits --model tiny --tokens '5 6 7' --top 3 --weights f32
check_same "$(cat "$work/out")" "$(cat "$work/chain")" "logits of widened weights and of stored ones"
check_refused "expected stored or f32" "$SPECBENCH" logits --model tiny --tokens 5 --weights f16

# Every drafter gives plain decoding's tokens; threads and instruction sets change nothing.
generate() { "$SPECBENCH" generate --model tiny --prompt 'What is the capital of France?' \
    --max-new-tokens 48 --ignore-eos --format json "$@" | sed 's/.*"tokens":\(\[[^]]*\]\).*/\1/'; }
plain=$(generate)
case $plain in "["*"]") ;; *) fail "generate prints no tokens: $plain" ;; esac
check_same "$(generate --drafter pld)" "$plain" "pld against plain decoding"
check_same "$(generate --drafter small-lm:model=tiny-draft,k=3)" "$plain" "small-lm"
check_same "$(generate --drafter "small-lm:model=tiny-draft,tree='2x2x1'")" "$plain" "small-lm tree"
check_same "$(generate --drafter rsd-s:model=tiny-draft)" "$plain" "rsd-s"
check_same "$(generate --drafter lookahead)" "$plain" "lookahead"
check_same "$(generate --drafter small-lm:model=tiny-draft --policy "tree-cost:curve='4:1.4;8:2.2'")" \
    "$plain" "a policy with a cost curve"
check_same "$(generate --threads 1)" "$plain" "one thread"
check_same "$(SB_CPU=generic generate)" "$plain" "plain C"
sampled=$(generate --temperature 0.8 --seed 3)
check_same "$(generate --temperature 0.8 --seed 3 --threads 1)" "$sampled" "the same seed"
check_same "$(generate --temperature 0.8 --seed 3 --verifier naive-sample \
    --drafter small-lm:model=tiny-draft,tree=3x2,draw=wor)" "$sampled" "drafts without replacement"
[ "$(generate --temperature 0.8 --seed 4)" != "$sampled" ] || fail "another seed, the same text"

check_code 0 "$SPECBENCH" inspect tiny
check_out "llama"
check_code 0 "$SPECBENCH" inspect tiny --format json
check_code 0 "$SPECBENCH" inspect "$ROOT/tests/golden/torch/medusa.pt"
check_out '  name="0.0.linear.weight" type="f32" shape=[4,4] bytes=64'
check_code 0 "$SPECBENCH" inspect "$ROOT/tests/golden/models/llama-f32-hf/model.safetensors" --format json
check_out '"format":"safetensors"'
check_code 0 "$SPECBENCH" bench --model tiny-draft --batch 1,4 --repeats 3 --format json
check_out '"decode_tokens_per_s"'
check_code 0 "$SPECBENCH" bench --random 2x64x4x2x160x512 --type q8_0 --batch 1,3 --context 8 --repeats 3
check_out "A/A"
check_code 0 "$SPECBENCH" bench --model tiny-draft --batch 3 --tree --kv-type bf16 --context 40 --repeats 3 --format json
check_out '"arithmetic": "kv=bf16"'
check_code 0 "$SPECBENCH" run --target tiny --take 1 --tasks qa --max-new-tokens 8 --kv-type f16 --prefill openblas \
    --drafter pld --quiet --db "$work/arithmetic.db"
check_same "$(sqlite3 "$work/arithmetic.db" 'SELECT arithmetic FROM experiment')" "kv=f16 prefill=openblas" "the arithmetic of a run"
finish
