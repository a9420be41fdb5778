#!/bin/sh
# Shared by the end-to-end tests: sourced with SPECBENCH (the binary) and ROOT (the source tree) set.
# A test calls check_* and ends with finish.
set -u
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fails=0
checks=0

fail() {
    fails=$((fails + 1))
    echo "FAIL: $*"
}

# run COMMAND...: stdout to $work/out, stderr to $work/err, exit code to $code
run() {
    code=0
    "$@" >"$work/out" 2>"$work/err" </dev/null || code=$?
}

# check_code WANTED COMMAND...
check_code() {
    wanted=$1
    shift
    run "$@"
    checks=$((checks + 1))
    [ "$code" = "$wanted" ] || fail "exit $code, not $wanted: $* ($(head -c 300 "$work/err"))"
}

# check_refused TEXT COMMAND...: exit 2, nothing on stdout, one line on stderr that holds TEXT
check_refused() {
    text=$1
    shift
    check_code 2 "$@"
    [ ! -s "$work/out" ] || fail "wrote to stdout: $*"
    [ "$(wc -l <"$work/err")" = 1 ] || fail "not one line on stderr: $* ($(head -c 300 "$work/err"))"
    grep -qF -- "$text" "$work/err" || fail "no '$text' in: $(head -c 300 "$work/err")"
}

# check_out TEXT: the last stdout holds it
check_out() {
    checks=$((checks + 1))
    grep -qF -- "$1" "$work/out" || fail "no '$1' on stdout: $(head -c 300 "$work/out")"
}

# check_same A B WHAT
check_same() {
    checks=$((checks + 1))
    [ "$1" = "$2" ] || fail "$3: '$1' is not '$2'"
}

finish() {
    echo "$checks checks, $fails failed"
    [ "$fails" = 0 ] && [ "$checks" -gt 0 ]
}
