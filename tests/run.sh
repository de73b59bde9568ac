#!/usr/bin/env bash
# Runs the tests of all areas (or of those named: kernels, or one file, model/test_parity) and closes with
# "N passed, N failed, N skipped".
# A test program prints lines PASS name, FAIL name, SKIP name: reason. One that dies counts as failed.
#
#   BUILD=dir        where the programs are (build/release)
#   RUNNER="cmd"     put in front of compiled tests: an emulator, say; other tests are then left out
#   TEST_TIMEOUT=s   for each file (600)
#   SILL_CI=1 or CI=true   skipped tests count as failed, unless the reason begins with "this machine" or
#                    "this processor" (hardware that cannot be had by installing anything) or "not shipped" (data
#                    whose licence keeps it out of the repository)
set -u
cd "$(dirname "$0")/.."
: "${BUILD:=build/release}" "${RUNNER:=}"
export BUILD
export SILL_FIRST_USE_CHECK=0 # devices are used unchecked: what is tested is the device; tests of the check set it themselves
export SILL_PACKED_MAX_MIB=0 # no packed copies in the user's cache; the tests of those set it themselves
strict=0
case ${SILL_CI:-${CI:-}} in 1 | true | yes) strict=1 ;; esac
found() { [ -e "$1" ]; } # a pattern that the shell has widened
# SECONDS COMMAND...: macOS has no timeout(1). An alarm that is not waited for ends the process, and stays set over exec.
limited() {
    if command -v timeout >/dev/null; then timeout "$@"; else
        python3 -c 'import os, signal, sys; signal.alarm(int(sys.argv[1])); os.execvp(sys.argv[2], sys.argv[2:])' "$@"
    fi
}
areas=("$@")
[ ${#areas[@]} -gt 0 ] || areas=($(cd tests && for d in */; do found "$d"test_* && echo "${d%/}"; done))
passed=0 failed=0 skipped=0 log=$(mktemp)
trap 'rm -f "$log"' EXIT
for area in "${areas[@]}"; do
    case $area in */*) files=tests/$area ;; *) files=tests/$area/test_* ;; esac
    found ${files%.*}.* || { echo "FAIL no tests $area"; failed=$((failed + 1)); continue; }
    for t in ${files%.*}.c ${files%.*}.sh ${files%.*}.py; do
        [ -e "$t" ] || continue
        case $t in
            *.c) cmd=($RUNNER "$BUILD/${t%.c}") ;;
            *.sh) cmd=(bash "$t") ;;
            *.py) cmd=(python3 "$t") ;;
        esac
        [ -z "$RUNNER" ] || [ "${t%.c}" != "$t" ] || continue
        start=$SECONDS
        limited "${TEST_TIMEOUT:-600}" "${cmd[@]}" >"$log" 2>&1 </dev/null
        rc=$?
        p=$(grep -c '^PASS ' "$log") f=$(grep -c '^FAIL ' "$log") s=$(grep -c '^SKIP ' "$log")
        if [ $rc -ne 0 ] && [ "$f" -eq 0 ]; then echo "FAIL $t ended with status $rc" >>"$log"; f=1; fi
        if [ $((p + f + s)) -eq 0 ]; then echo "FAIL $t ran no test" >>"$log"; f=1; fi
        if [ $strict -eq 1 ]; then
            must=$(grep '^SKIP ' "$log" | grep -cvE '^SKIP [^:]*: (this machine|this processor|not shipped|a sanitizer)')
            [ "$must" -eq 0 ] || echo "FAIL $must skipped where nothing may be (SILL_CI)" >>"$log"
            f=$((f + must)) s=$((s - must))
        fi
        passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
        printf '%-44s %4d passed %3d failed %3d skipped  %3ds\n' "$t" "$p" "$f" "$s" $((SECONDS - start))
        if [ "$f" -gt 0 ]; then grep -v '^PASS ' "$log" | tail -n 40 | sed 's/^/    /'; else grep '^SKIP ' "$log" | head -n 6 | sed 's/^/    /'; fi
        [ "$s" -le 6 ] || echo "    ... $((s - 6)) more like these"
    done
done
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
