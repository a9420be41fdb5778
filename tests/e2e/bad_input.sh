#!/bin/sh
# Wrong usage and bad files: one clear line, exit 2, nothing written.
# shellcheck source=tests/e2e/lib.sh
. "$ROOT/tests/e2e/lib.sh"
cd "$work" || exit 1
models=$ROOT/tests/golden/models
sb=$SPECBENCH

check_refused "there is no command 'rnu'" "$sb" rnu
check_refused "did you mean --drafter?" "$sb" run --draftr pld
check_refused "--model is missing" "$sb" generate --prompt x
check_refused "give either --prompt or --tokens" "$sb" generate --model tiny
check_refused "neither" "$sb" generate --model neither --prompt x
check_refused "--temperature -1" "$sb" generate --model tiny --prompt x --temperature -1
check_refused "no drafter is named 'pdl'" "$sb" generate --model tiny --prompt x --drafter pdl
check_refused "it has: " "$sb" generate --model tiny --prompt x --drafter pld:depth=3
check_refused "k=0: expected a whole number from 1" "$sb" generate --model tiny --prompt x --drafter pld:k=0
check_refused "small-lm needs model=" "$sb" generate --model tiny --prompt x --drafter small-lm
check_refused "expected a tree such as 2x2" "$sb" generate --model tiny --prompt x \
    --drafter small-lm:model=tiny-draft,draw=hub
check_refused "greedy" "$sb" generate --model tiny --prompt x --drafter pld --temperature 1 --verifier greedy
check_refused "is no whole number" "$sb" logits --model tiny --tokens '1 x'
check_refused "vocabulary" "$sb" logits --model tiny --tokens '1 99999999'
check_refused "names 1 rows for 2 tokens" "$sb" logits --model tiny --tokens '1 2' --parents '-1'
check_refused "row" "$sb" logits --model tiny --tokens '1 2' --parents '1 -1'
check_refused "no tokenizer" "$sb" generate --model "$models/llama-f32.gguf" --prompt x
check_refused "template" "$sb" run --target tiny --drafter pld --template none --db x.db
check_refused "no-such-file" "$sb" run --target tiny --dataset spec-bench:no-such-file --drafter pld --db x.db
check_refused "poetry" "$sb" run --target tiny --tasks poetry --drafter pld --db x.db
check_refused "repeats=0" "$sb" run --target tiny --repeats 0 --drafter pld --db x.db
check_refused "two arms are called" "$sb" run --target tiny --drafter pld --drafter pld --db x.db
[ ! -e x.db ] || fail "a refused run made a database"

check_refused "expected 15m, 110m, 1b or" "$sb" bench --random 7x
check_refused "no multiple of 5 heads" "$sb" bench --random 1x64x5x1x64x64
check_refused "--type q5_0: expected" "$sb" bench --random 15m --type q5_0
check_refused "goes with --random" "$sb" bench --type f32
check_refused "expected f32, f16 or bf16" "$sb" bench --kv-type q8_0
check_refused "expected exact or fast" "$sb" generate --model tiny --prompt x --math quick
check_refused "SB_CPU asks for another" env SB_CPU=generic "$sb" logits --model tiny --tokens 1 --math fast

# Model files: cut short, garbage, a directory.
f=$models/llama-f32.gguf
for bytes in 0 3 8 100 20000 600000; do
    head -c "$bytes" "$f" >cut.gguf
    check_refused "cut.gguf" "$sb" logits --model cut.gguf --tokens 1
    check_refused "cut.gguf" "$sb" inspect cut.gguf
done
head -c 4096 /dev/urandom >noise.gguf
check_refused "noise.gguf" "$sb" inspect noise.gguf
cp noise.gguf noise.bin
check_refused "noise.bin: does not begin as a zip archive" "$sb" inspect noise.bin
check_refused "the global 'os.system' is refused" "$sb" inspect "$ROOT/tests/fuzz/corpus/torch/os_system.pt"
[ ! -e pwned ] || fail "a pickle was run"
check_refused "is a PyTorch file of tensors" "$sb" generate --model "$ROOT/tests/golden/torch/medusa.pt" --prompt x
mkdir empty
check_refused "empty" "$sb" logits --model empty --tokens 1
check_refused "empty" "$sb" tokenize --model empty
cp -r "$models/llama-f32-hf" hf
chmod -R u+w hf
head -c 5000 "$models/llama-f32-hf/model.safetensors" >hf/model.safetensors
check_refused "model.safetensors" "$sb" logits --model hf --tokens 1
echo '{"model_type":' >hf/config.json
check_refused "config.json" "$sb" logits --model hf --tokens 1
printf '{"model":{"type":"Unigram"}}' >tokenizer.json
check_refused "Unigram" "$sb" tokenize --model tokenizer.json

# Prompt sets.
echo 'no json' >bad.jsonl
check_refused "bad.jsonl" "$sb" run --target tiny --dataset spec-bench:bad.jsonl --drafter pld --db x.db
printf '{"question_id":1,"category":"qa","turns":["a"]}\n{"question_id":1,"category":"qa","turns":["b"]}\n' >bad.jsonl
check_refused "bad.jsonl: line 2" "$sb" run --target tiny --dataset spec-bench:bad.jsonl --drafter pld --db x.db
printf '{"prompt":"\377"}\n' >bad.jsonl
check_refused "bad.jsonl: line 1" "$sb" run --target tiny --dataset jsonl:bad.jsonl --drafter pld --db x.db
check_refused "empty" "$sb" run --target tiny --dataset jsonl:empty --drafter pld --db x.db

# Databases.
echo text >not.db
check_refused "not.db" "$sb" report not.db
check_refused "missing.db" "$sb" report missing.db
check_refused "empty" "$sb" report empty
sqlite3 other.db 'CREATE TABLE t (x); INSERT INTO t VALUES (1)'
check_refused "other.db" "$sb" report other.db
"$sb" run --target tiny --tasks qa --take 1 --max-new-tokens 4 --drafter pld --db new.db >/dev/null 2>&1 || fail "run"
check_refused "nonsense" "$sb" report new.db --view nonsense
check_refused "999" "$sb" report new.db --experiment 999
sqlite3 new.db 'PRAGMA user_version = 99'
check_refused "99" "$sb" report new.db
check_refused "99" "$sb" run --target tiny --tasks qa --take 1 --max-new-tokens 4 --drafter pld --db new.db --quiet

check_refused "nowhere/x.db" "$sb" run --target tiny --tasks qa --take 1 --drafter pld --db nowhere/x.db
check_refused "not.db" "$sb" run --target tiny --tasks qa --take 1 --drafter pld --db not.db

# Devices and pipes in place of files: refused at once.
mkfifo pipe
check_refused "neither a file nor a directory" "$sb" generate --model pipe --prompt x
check_refused "neither a file nor a directory" "$sb" logits --model /dev/zero --tokens 1
check_refused "expected a file" "$sb" run --target tiny --dataset jsonl:pipe --drafter pld --db z.db
check_refused "not a regular file" "$sb" report pipe
check_refused "no such script" "$sb" run pipe

# Scripts.
echo 'local x = ' >bad.lua
check_refused "bad.lua:" "$sb" run bad.lua --db y.db
echo 'local sb = require "specbench"; sb.experiment { target = "tiny", datset = "mini" }' >bad.lua
check_refused "datset" "$sb" run bad.lua --db y.db
echo 'local sb = require "specbench"; sb.experiment { target = "tiny" }:add { drafter = "pld", draft = 1 }' >bad.lua
check_refused "an arm has no 'draft'" "$sb" run bad.lua --db y.db
check_refused "missing.lua" "$sb" run missing.lua
check_refused "is a directory" "$sb" run empty
check_refused "missing.lua" "$sb" train missing.lua
[ ! -e y.db ] || fail "a refused script made a database"
SB_CPU=z80 check_refused "z80" "$sb" generate --model tiny --prompt x
finish
