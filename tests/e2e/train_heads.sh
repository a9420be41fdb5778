#!/bin/sh
# Train a small target and every head for it, then decode with them: the same text as plain decoding, in
# fewer steps. The text counts round and round, so a head that stands at the right place knows what comes;
# one that is a place off is wrong every time.
# shellcheck source=tests/e2e/lib.sh
. "$ROOT/tests/e2e/lib.sh"

words="one two three four five six seven eight nine ten"
text="$words $words $words $words"
: >"$work/count.jsonl"
i=0
while [ $i -lt 240 ]; do
    start=$((i % 10 + 1))
    answer=$(echo "$text" | cut -d' ' -f"$start"-$((start + 19 + i / 10 % 5)))
    echo "{\"task\": \"qa\", \"turns\": [{\"user\": \"Count $i\", \"assistant\": \"$answer\"}]}" >>"$work/count.jsonl"
    i=$((i + 1))
done

data="data = { dir = '$work', held_out = 0.1, files = { 'count.jsonl' }"
train="train = { batch_tokens = 512, micro_tokens = 512, seq_len = 64, seed = 5, warmup = 5, weight_decay = 0"
cat >"$work/tok.lua" <<END
return { kind = 'tokenizer', name = 'toy', out = '$work/tok', model = { vocab = 320 }, $data } }
END
cat >"$work/lm.lua" <<END
return { kind = 'lm', name = 'toy', out = '$work/target', tokenizer = '$work/tok', $data },
  model = { layers = 4, width = 32, heads = 2, kv_heads = 1, ff = 48, vocab = 320, context = 256 },
  $train, steps = 150, lr = 0.01 } }
END
check_code 0 "$SPECBENCH" train "$work/tok.lua" --quiet
check_code 0 "$SPECBENCH" train "$work/lm.lua" --quiet

ask() {
    "$SPECBENCH" generate --model "$work/target" --prompt 'Count 7' --max-new-tokens 40 "$@" 2>"$work/stats"
}
plain=$(ask --drafter none)

# try_head ARCH PARAMETERS DRAFTER
try_head() {
    out="$work/$1"
    cat >"$work/head.lua" <<END
return { kind = 'head', name = 'toy-$1', arch = '$1', out = '$out', target = '$work/target',
  head = { $2 }, $data, loss_on = 'answers' }, $train, steps = 120, lr = 0.005 } }
END
    check_code 0 "$SPECBENCH" train "$work/head.lua" --quiet
    check_same "$(ask --drafter "$3")" "$plain" "the text with $3"
    mat=$(sed -n 's/.*MAT \([0-9.]*\).*/\1/p' "$work/stats")
    checks=$((checks + 1))
    [ "$(echo "$mat" | cut -d. -f1)" -ge 2 ] || fail "$3: $(cat "$work/stats")"
}
try_head medusa "heads = 3, share_lm_head = true" "medusa:head=$work/medusa,tree=1x1x1"
try_head hydra "heads = 3, layers = 2" "hydra:head=$work/hydra,tree=1x1x1"
try_head hydra-pp "heads = 3, layers = 2" "hydra-pp:head=$work/hydra-pp,tree=1x1x1"
try_head eagle "steps = 2" "eagle:head=$work/eagle,tree=1x1x1"
try_head eagle3 "steps = 3" "eagle3:head=$work/eagle3,depth=2,topk=1,total=4"
try_head mlp-speculator "n_predict = 3" "mlp-speculator:head=$work/mlp-speculator"
try_head redrafter "length = 3" "redrafter:head=$work/redrafter,k=3,beams=1"
check_same "$(ask --drafter "medusa:head=$work/medusa,tree=@$work/medusa/tree.json")" "$plain" "the text with a measured tree"

# A head of another target is refused.
check_refused "was made for the target with hash" \
    "$SPECBENCH" generate --model tiny --prompt x --drafter "medusa:head=$work/medusa"
finish
