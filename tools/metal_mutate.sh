#!/usr/bin/env bash
# Takes the barriers out of the Metal kernels, one at a time, and asks whether the tests notice. Runs on the fake Metal
# (docs/INTERNALS.md); nothing is compiled again for it.
#
#   BUILD=dir tools/metal_mutate.sh [TEST...]     tests as metal/test_vec; without any, those of the kernels
#
# One line a barrier: which test fails without it, or FAIL; also the barriers of the kernels that no test ran. Exit status 1
# when a barrier could be left out unnoticed.
set -u
tab=$'\t'
cd "$(dirname "$0")/.."
: "${BUILD:=build/release}"
export BUILD FAKEMETAL_QUIET=1
tests=("$@")
[ ${#tests[@]} -gt 0 ] || tests=(metal/test_vec metal/test_mat)
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
for t in "${tests[@]}"; do
    [ -x "$BUILD/tests/$t" ] || { echo "metal_mutate: $BUILD/tests/$t is not there: make tests" >&2; exit 2; }
    FAKEMETAL_BARRIERS=$tmp/$(basename "$t").lines "$BUILD/tests/$t" >"$tmp/log" 2>&1 ||
        { tail -n 5 "$tmp/log"; echo "metal_mutate: $t fails with all barriers in place" >&2; exit 2; }
    touch "$tmp/$(basename "$t").lines"
done
lost=0 n=0
while IFS=$'\t' read -r line text; do
    n=$((n + 1)) noticed=
    for t in "${tests[@]}"; do
        grep -q "^$line$tab" "$tmp/$(basename "$t").lines" || continue
        FAKEMETAL_SKIP_BARRIER=$line timeout 900 "$BUILD/tests/$t" >"$tmp/log" 2>&1 && continue
        noticed=$t
        break
    done
    if [ -n "$noticed" ]; then echo "PASS barrier of line $line: $noticed fails without it"
    else echo "FAIL barrier of line $line is not missed: $text"; lost=$((lost + 1)); fi
done < <(cat "$tmp"/*.lines | sort -n -u)
# The text that is compiled, as make put it together.
if [ -f "$BUILD/metal_source.h" ]; then
    sed -n 's/^"\(.*\)\\n"$/\1/p' "$BUILD/metal_source.h" | grep -nE '(threadgroup|simdgroup)_barrier *\(' | cut -d: -f1 |
        while read -r line; do
            cat "$tmp"/*.lines | grep -q "^$line$tab" || echo "line $line: no test runs this barrier"
        done
fi
echo "$n barriers of kernels, $lost could be left out unnoticed"
if [ $lost -eq 0 ] && [ $n -gt 0 ]; then echo "PASS every barrier of the Metal kernels is missed"; exit 0; fi
echo "FAIL every barrier of the Metal kernels is missed"
exit 1
