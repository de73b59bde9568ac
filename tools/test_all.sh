#!/usr/bin/env bash
# All suites: `make test-all`. Prints the minutes by suite and closes with "N passed, N failed, N skipped".
#
#   tools/test_all.sh            make test, then the rest
#   tools/test_all.sh --rest     the rest only
#   tools/test_all.sh NAME...    suites by name: test clang sanitize tsan isa aarch64 metal macos wheels fuzz live, and peers, which
#                                is not in the rest: about 15 minutes, and environments of its own (tools/deps.sh --peers)
#
# Needs `tools/deps.sh --test`. Each suite builds into its own build/DIR, so nothing is rebuilt for nothing.
set -u
cd "$(dirname "$0")/.."
rest='clang sanitize tsan isa aarch64 metal macos wheels fuzz live'
case ${1:-} in
    '') suites="test $rest" ;;
    --rest) suites=$rest ;;
    *) suites=$* ;;
esac
unset MAKEFLAGS MAKELEVEL
jobs=$(getconf _NPROCESSORS_ONLN)
machine=$(uname -m)
strict=0
case ${SILL_CI:-${CI:-}} in 1 | true | yes) strict=1 ;; esac
allowed='^SKIP [^:]*: (this machine|this processor|not shipped|a sanitizer)' # as in tests/run.sh
passed=0 failed=0 skipped=0 summary='' log=$(mktemp)
trap 'rm -f "$log"' EXIT

# Adds the totals that the log of a suite closes with.
count() { # NAME STATUS
    local p f s
    read -r p f s <<<"$(tail -n 1 "$log" | sed -n 's/^\([0-9]*\) passed, \([0-9]*\) failed, \([0-9]*\) skipped$/\1 \2 \3/p')"
    if [ -z "${s:-}" ]; then p=0 f=1 s=0; echo "FAIL suite $1 did not come to its total (status $2)"; fi
    passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
}
# Adds the PASS, FAIL and SKIP lines of a program that prints those alone.
count_lines() { # STATUS NAME
    local p f s must=0
    p=$(grep -c '^PASS ' "$log") f=$(grep -c '^FAIL ' "$log") s=$(grep -c '^SKIP ' "$log")
    [ "$1" -eq 0 ] || [ "$f" -gt 0 ] || f=1
    [ $((p + f + s)) -gt 0 ] || f=1
    [ $strict -eq 0 ] || must=$(grep '^SKIP ' "$log" | grep -cvE "$allowed")
    f=$((f + must)) s=$((s - must))
    [ "$f" -eq 0 ] || tail -n 40 "$log" | sed 's/^/    /'
    printf '%-44s %4d passed %3d failed %3d skipped\n' "$2" "$p" "$f" "$s"
    passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
}
build() { # compiles quietly; what went wrong is shown
    make -j"$jobs" --no-print-directory "$@" >"$log" 2>&1 || { grep -vE '^  (CC|LD|AR) ' "$log" | tail -n 40; return 1; }
}
run_tests() { # BUILD CONFIG AREAS...: the environment comes from the caller
    local dir=$1 config=$2
    shift 2
    BUILD=$dir CONFIG=$config tests/run.sh "$@" 2>&1 | tee "$log"
    count "$suite" "${PIPESTATUS[0]}"
}
broken() { echo "FAIL suite $suite: $1"; failed=$((failed + 1)); }
absent() { # what cannot be had here: a failure where nothing may be skipped
    if [ $strict -eq 1 ]; then broken "$1"; else echo "SKIP suite $suite: $1"; skipped=$((skipped + 1)); fi
}
have_area() { ls tests/"$1"/test_* >/dev/null 2>&1; }
areas() { for a in "$@"; do have_area "$a" && printf '%s ' "$a"; done; }

suite_test() {
    build all tests bench-programs WERROR=1 || { broken build; return; }
    run_tests build/release release
}
suite_clang() {
    command -v clang >/dev/null || { absent "no clang"; return; }
    build BUILD=build/clang CC=clang WERROR=1 all tests || { broken build; return; }
    CC=clang run_tests build/clang release base format kernels model/test_parity engine task/test_parity task/test_rows
}
suite_sanitize() {
    build config=sanitize all tests || { broken build; return; }
    ASAN_OPTIONS=detect_leaks=1:strict_string_checks=1:detect_stack_use_after_return=1 UBSAN_OPTIONS=print_stacktrace=1 \
        run_tests build/sanitize sanitize base format tokenizer corpus cli kernels engine task model/test_load \
        model/test_packed model/test_parity model/test_session model/test_stories api/test_edges api/test_nomem api/test_threads
}
suite_tsan() {
    build config=tsan all tests || { broken build; return; }
    TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1 run_tests build/tsan tsan base kernels/test_cpu_ops_device engine task/test_generate task/test_parity task/test_rows \
        api/test_threads model/test_parity model/test_session
}
# The tests of kernels, parity and same bits go through every instruction set by themselves; here the rest is run with
# each one as the program's own choice. The default model is for those that are quick enough.
suite_isa() {
    local isas=scalar isa model
    build all tests || { broken build; return; }
    case $machine in
        x86_64)
            grep -qw avx2 /proc/cpuinfo 2>/dev/null && isas="$isas avx2"
            grep -qw avx512bw /proc/cpuinfo 2>/dev/null && isas="$isas avx512"
            # the best set is what the tests run with elsewhere
            grep -qw avx512_bf16 /proc/cpuinfo 2>/dev/null && isas="$isas avx512vnni" ;;
        aarch64 | arm64) isas="$isas neon" ;;
    esac
    for isa in $isas; do
        echo "-- SILL_CPU_ISA=$isa"
        [ $isa = scalar ] && model= || model=model/test_smollm2
        SILL_CPU_ISA=$isa run_tests build/release release $model model/test_session model/test_stories engine \
            task/test_parity task/test_generate task/test_rows cli/test_corpus
    done
    if SILL_CACHE=build/release/check-cache build/release/sill check --full --device cpu; then echo "PASS sill check --full"; else echo "FAIL sill check --full"; fi >"$log" 2>&1
    count_lines 0 'all shapes in every instruction set'
}
# The NEON bodies, cross-compiled and emulated: with everything that the emulator offers, and as an old core. The
# default model would take an hour here.
suite_aarch64() {
    if ! command -v aarch64-linux-gnu-gcc >/dev/null || ! command -v qemu-aarch64 >/dev/null; then
        [ "$machine" = aarch64 ] || absent "no aarch64-linux-gnu-gcc and qemu-aarch64"
        return
    fi
    [ -s build/cross/sqlite/sqlite3.c ] && [ -s build/cross/zstd/zstd.h ] || { absent "no build/cross; run tools/deps.sh --cross"; return; }
    build BUILD=build/aarch64 CC=aarch64-linux-gnu-gcc CROSS_SRC=build/cross WERROR=1 all tests || { broken build; return; }
    local cpu tests='base kernels model/test_parity model/test_stories engine task/test_parity fakemetal metal/test_host'
    for cpu in max cortex-a72; do
        echo "-- qemu-aarch64 -cpu $cpu"
        RUNNER="qemu-aarch64 -L /usr/aarch64-linux-gnu -cpu $cpu" TEST_TIMEOUT=900 run_tests build/aarch64 release $tests
        tests='kernels/test_vec kernels/test_mat model/test_parity'
    done
    # The Metal kernels with Metal's own calling convention, without the fake's checks of each access (suite_metal has them).
    echo "-- the fake Metal"
    TEST_SMALL=1 FAKEMETAL_FAST=1 RUNNER="qemu-aarch64 -L /usr/aarch64-linux-gnu -cpu max" TEST_TIMEOUT=900 \
        run_tests build/aarch64 release metal/test_ahead metal/test_vec metal/test_mat metal/test_int8 metal/test_loss metal/test_refused metal/test_model
    # What the program picks on cores between the two: dot products without and with int8 matrix products.
    local isa
    for isa in neon_dotprod neon_i8mm; do
        echo "-- SILL_CPU_ISA=$isa"
        SILL_CPU_ISA=$isa RUNNER="qemu-aarch64 -L /usr/aarch64-linux-gnu -cpu max" TEST_TIMEOUT=900 \
            run_tests build/aarch64 release kernels/test_mat kernels/test_made model/test_parity model/test_stories
    done
    # Each set on a core that has nothing above it, as the program chooses it: an M1 has what neoverse-n1 has here (dot
    # products and f16, no i8mm, no bf16), an M2 i8mm and bf16 too. Whole models, the same bits in any company.
    local core sets set emulator='qemu-aarch64 -L /usr/aarch64-linux-gnu -cpu'
    for core in 'cortex-a72 neon, scalar' 'neoverse-n1 neon_dotprod, neon, scalar' 'max neon_i8mm, neon_dotprod, neon, scalar'; do
        sets=${core#* } core=${core%% *}
        set=${sets%%,*}
        if $emulator $core build/aarch64/sill doctor 2>&1 | grep -q "instruction sets  *$sets; the first"; then
            echo "PASS $core runs $sets"
        else
            echo "FAIL $core does not run $sets alone"
        fi >"$log"
        TEST_SMALL=1 timeout 900 $emulator $core build/aarch64/tests/task/test_bits cpu_"$set" >>"$log" 2>&1
        count_lines $? "the same bits of $set on $core"
    done
}
# The Metal backend on the fake Metal (make test runs it first to last): threads, groups and dispatches last to first, and
# each barrier of the kernels left out in turn. On AArch64, whose calls are Metal's own, in suite_aarch64.
suite_metal() {
    [ "$(uname -s)" = Linux ] || { absent "the fake Metal is for Linux"; return; }
    build all tests || { broken build; return; }
    # (metal/test_steps is left out: what a step touches is the same in any order)
    # shellcheck disable=SC2046
    FAKEMETAL_SCHEDULE=1 run_tests build/release release $(for t in tests/metal/test_*; do t=${t#tests/}; echo "${t%.*}"; done | grep -v test_steps)
    # all of `sill check` and of decoding ahead, which make test runs in part
    SILL_TEST_FULL=1 run_tests build/release release metal/test_check metal/test_ahead
    # the matrix products' barriers are taken out by metal/test_mat itself
    BUILD=build/release tools/metal_mutate.sh metal/test_vec >"$log" 2>&1 </dev/null
    count_lines $? 'barriers of the Metal kernels'
}
# The program for Macs, cross-compiled; it cannot be run here, so its form is checked, and the checker with it.
suite_macos() {
    python3 tests/macos/check.py >"$log" 2>&1 </dev/null
    count_lines $? macos
}
# The Python package for other systems; what can be run here is run from the wheel.
suite_wheels() {
    [ "$(uname -s)" = Linux ] || { absent "the wheels are checked with auditwheel, on Linux"; return; }
    build/venv/bin/python tests/python/wheels.py >"$log" 2>&1 </dev/null
    count_lines $? wheels
}
suite_fuzz() {
    command -v clang >/dev/null || { absent "no clang"; return; }
    tests/fuzz/run.sh "${FUZZ_SECONDS:-15}" >"$log" 2>&1
    local rc=$?
    grep -E '^(PASS|SKIP) ' "$log"
    count_lines $rc fuzz
}
# Against transformers, tokenizers and tiktoken as installed in build/venv: inputs made anew, not stored answers.
suite_live() {
    local python=build/venv/bin/python t rc
    [ -x $python ] || { absent "no build/venv; run tools/deps.sh --test"; return; }
    build all tests || { broken build; return; }
    for t in tests/*/live_*.py; do
        [ -e "$t" ] || continue
        BUILD=build/release timeout 1800 $python "$t" >"$log" 2>&1 </dev/null
        rc=$?
        count_lines $rc "$t"
    done
}

# The Python package beside others' programs: transformers 4.57 and 5.23, lm-evaluation-harness.
suite_peers() {
    build all tests || { broken build; return; }
    local of rc
    for of in peers_hf4:venv-hf4 peers_lm_eval:venv-lm-eval peers_texts:venv; do
        [ -x build/"${of#*:}"/bin/python ] || { absent "no build/${of#*:}; run tools/deps.sh --peers"; continue; }
        BUILD=build/release timeout 3000 build/"${of#*:}"/bin/python tests/python/"${of%:*}".py >"$log" 2>&1 </dev/null
        rc=$?
        grep '^PASS ' "$log"
        count_lines $rc tests/python/"${of%:*}".py
    done
}

for suite in $suites; do
    from=$SECONDS
    echo "== $suite"
    case $suite in
        test | clang | sanitize | tsan | isa | aarch64 | metal | macos | wheels | fuzz | live | peers) suite_"$suite" ;;
        *) broken "no such suite" ;;
    esac
    summary="$summary$(awk -v n="$suite" -v s=$((SECONDS - from)) 'BEGIN {printf "%-10s %5.1f minutes", n, s / 60}')
"
done
printf '\n%s' "$summary"
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed -eq 0 ] && [ $passed -gt 0 ]
