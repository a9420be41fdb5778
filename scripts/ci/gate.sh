#!/bin/sh
# Did drafts get worse? Runs scripts/ci/acceptance.lua and gates it against the committed baseline.
#   scripts/ci/gate.sh [--remake] [--out FOLDER] [-- OPTION_OF_GATE...]
# --remake writes results/baselines/tiny-mini.json anew (a new bundled model, a drafter that got better).
# --out keeps the database, gate.xml (JUnit) and summary.md; $GITHUB_STEP_SUMMARY gets the summary too.
# SPECBENCH names the binary; by default that of ./dev build.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
specbench=${SPECBENCH:-$root/build/harness/cli/specbench}
baseline=$root/results/baselines/tiny-mini.json
remake=no out=""
while [ $# -gt 0 ]; do
    case $1 in
    --remake) remake=yes ;;
    --out)
        out=${2:?--out needs a folder}
        shift
        ;;
    --) shift && break ;;
    *) echo "gate.sh: unknown option $1" >&2 && exit 2 ;;
    esac
    shift
done

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
[ -n "$out" ] || out=$scratch
mkdir -p "$out"
rm -f "$out/gate.db" "$out/gate.db-wal" "$out/gate.db-shm" "$out/summary.md"
"$specbench" run "$root/scripts/ci/acceptance.lua" --db "$out/gate.db" --quiet >&2
if [ "$remake" = yes ]; then
    "$specbench" gate "$out/gate.db" --write-baseline "$baseline"
    exit
fi
code=0
"$specbench" gate "$out/gate.db" --baseline "$baseline" --junit "$out/gate.xml" --summary "$out/summary.md" "$@" || code=$?
if [ -n "${GITHUB_STEP_SUMMARY:-}" ] && [ -f "$out/summary.md" ]; then
    cat "$out/summary.md" >>"$GITHUB_STEP_SUMMARY"
fi
[ "$code" != 2 ] || echo "gate.sh: for a new bundled model or set, make the baseline anew: ./dev gate --remake" >&2
exit "$code"
