#!/usr/bin/env bash
# Runs the tests of all areas (or of those named) and closes with "N passed, N failed, N skipped".
# A test program prints lines PASS name, FAIL name, SKIP name: reason. One that dies counts as failed.
set -u
cd "$(dirname "$0")/.."
: "${BUILD:=build/release}"
export BUILD
areas=("$@")
[ ${#areas[@]} -gt 0 ] || areas=($(cd tests && for d in */; do [ "$d" = fixtures/ ] || echo "${d%/}"; done))
passed=0 failed=0 skipped=0 log=$(mktemp)
trap 'rm -f "$log"' EXIT
for area in "${areas[@]}"; do
    for t in tests/"$area"/test_*.c tests/"$area"/test_*.sh tests/"$area"/test_*.py; do
        [ -e "$t" ] || continue
        case $t in
            *.c) cmd=("$BUILD/${t%.c}") ;;
            *.sh) cmd=(bash "$t") ;;
            *.py) cmd=(python3 "$t") ;;
        esac
        start=$SECONDS
        timeout "${TEST_TIMEOUT:-600}" "${cmd[@]}" >"$log" 2>&1 </dev/null
        rc=$?
        p=$(grep -c '^PASS ' "$log") f=$(grep -c '^FAIL ' "$log") s=$(grep -c '^SKIP ' "$log")
        if [ $rc -ne 0 ] && [ "$f" -eq 0 ]; then echo "FAIL $t ended with status $rc" >>"$log"; f=1; fi
        if [ $((p + f + s)) -eq 0 ]; then echo "FAIL $t ran no test" >>"$log"; f=1; fi
        passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
        printf '%-44s %4d passed %3d failed %3d skipped  %3ds\n' "$t" "$p" "$f" "$s" $((SECONDS - start))
        if [ "$f" -gt 0 ]; then grep -v '^PASS ' "$log" | tail -n 40 | sed 's/^/    /'; fi
        grep '^SKIP ' "$log" | sed 's/^/    /'
    done
done
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
