#!/bin/sh
# Every header compiles by itself, and a second time after itself: it includes what it uses and has
# its guard. Left out: a file whose first words are "Template:", which is pasted into several sources
# rather than included for its declarations, and a variant for another machine.
# usage: check_headers.sh ROOT CPU_FAMILY CC [FLAG...]
root=$1 family=$2
shift 2
cd "$root" || exit 1
seen=0 wrong=0
for header in $(find harness kernels datasets results drafters verifiers -name '*.h' | sort); do
    case $(head -n 1 "$header") in "/* Template:"*) continue ;; esac
    case $family:$header in
    x86_64:*) ;;
    *_avx*.h) continue ;;
    esac
    seen=$((seen + 1))
    # -Wno-psabi: a variant's header is meant for sources built with that variant's flags.
    if ! messages=$("$@" -std=gnu11 -Wall -Wextra -Wno-unused-parameter -Wno-psabi -Werror \
        -fsyntax-only -I . -include "$header" -include "$header" -x c /dev/null 2>&1); then
        echo "$messages" | head -n 8 >&2
        echo "$header does not compile alone" >&2
        wrong=$((wrong + 1))
    fi
done
echo "$seen headers, $wrong wrong"
[ "$seen" -gt 0 ] && [ "$wrong" -eq 0 ]
