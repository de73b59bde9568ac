#!/usr/bin/env bash
# Takes the barriers out of the Metal kernels, one at a time, and asks whether the tests notice; and those that the host puts between
# the kernels of a small model's steps. Runs on the fake Metal (docs/INTERNALS.md); nothing is compiled again for it.
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
if [ $lost -eq 0 ] && [ $n -gt 0 ]; then echo "PASS every barrier of the Metal kernels is missed"
else echo "FAIL every barrier of the Metal kernels is missed"; fi
# Between kernels: by number, until so many in a row are not missed that they must be those behind the last.
steps="$BUILD/tests/metal/test_model" between=0 last=0
export SILL_METAL_LIBRARY=${SILL_METAL_LIBRARY:-$BUILD/libfakemetal.so} SILL_FIRST_USE_CHECK=0 SILL_METAL_CACHE=0
if [ -x "$steps" ] && "$steps" made_as_stored >"$tmp/log" 2>&1; then
    for ((i = 1; i <= last + 20; i++)); do
        FAKEMETAL_SKIP_MEMORY_BARRIER=$i timeout 300 "$steps" made_as_stored >"$tmp/log" 2>&1 && continue
        between=$((between + 1)) last=$i
    done
fi
echo "$last barriers between kernels, $((last - between)) could be left out unnoticed"
if [ $last -ge 40 ] && [ $between -eq $last ]; then echo "PASS every barrier between kernels is missed"
else echo "FAIL every barrier between kernels is missed"; lost=$((lost + 1)); fi
[ $lost -eq 0 ] && [ $n -gt 0 ]
