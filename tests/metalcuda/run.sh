#!/usr/bin/env bash
# The Metal kernels and the Metal back end on an NVIDIA GPU (docs/GPU-TESTS.md). `make metal-cuda` builds and runs all of it.
#
#   BUILD=dir tests/metalcuda/run.sh compile | kernels | models [--only FAMILY] | sanitize | each TOOL TEST [NAME...] | all
#
#   compile    only makes the GPU's program of the kernels, in $FAKEMETAL_PREBUILT: what a machine without clang needs
#   kernels    tests/metal and tests/check on the GPU
#   models     whole models at full size: random ones in the shapes of GPT-2 small and SmolLM2, and SmolLM2 itself if it is in
#              the cache (SMOLLM2=FILE)
#   sanitize   compute-sanitizer: memcheck, racecheck, synccheck, initcheck over the same tests
#   each       compute-sanitizer with one TOOL over metal/test_ahead or another that is long: each of its tests by itself, or those
#              named. TEST_SMALL=1 shortens test_ahead
#
# A machine without compilers gets what it needs from tests/metalcuda/pack.sh.
# Compiling needs clang++ 16 or later and a CUDA toolkit (ptxas, libdevice); running needs the driver alone, sanitize
# compute-sanitizer. What is missing is said, and nothing is run (status 2). OUT=dir: logs. JOBS: tests at once.
set -u
cd "$(dirname "$0")/../.."
: "${BUILD:=build/release}" "${OUT:=$BUILD/metalcuda-logs}" "${JOBS:=4}" "${LIMIT:=600}"
[ ! -d "$BUILD/lib" ] || export LD_LIBRARY_PATH="$PWD/$BUILD:$PWD/$BUILD/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" # packed
export BUILD SILL_METAL_LIBRARY="$BUILD/libmetalcuda.so" SILL_PACKED_MAX_MIB=0 SILL_METAL_CACHE=0
export SILL_FIRST_USE_CHECK=0 # as in tests/run.sh: on a machine without records each process would begin with it, under each tool
case $BUILD in /*) kernels=$BUILD ;; *) kernels=$PWD/$BUILD ;; esac # the compilers run in directories of their own
: "${FAKEMETAL_PREBUILT:=$kernels/metalcuda-kernels}"
export FAKEMETAL_PREBUILT
mkdir -p "$OUT" "$FAKEMETAL_PREBUILT"
missing() { echo "this machine cannot run the Metal kernels on CUDA: $1" >&2; exit 2; }
[ -e "$SILL_METAL_LIBRARY" ] || missing "no $SILL_METAL_LIBRARY (make metal-cuda)"
what=${1:-all}
if [ "$what" = compile ]; then
    # an empty cache, or the host's part would be taken from there and not be put beside the GPU's
    FAKEMETAL_CACHE=$(mktemp -d)
    export FAKEMETAL_CACHE
    trap 'rm -rf "$FAKEMETAL_CACHE"' EXIT
    METALCUDA_STUB=1 "$BUILD/tests/metal/test_host" order_is_kept >"$OUT/compile.log" 2>&1 || { tail -n 20 "$OUT/compile.log"; exit 1; }
    ls -l "$FAKEMETAL_PREBUILT"
    exit 0
fi
command -v nvidia-smi >/dev/null && nvidia-smi -L >/dev/null 2>&1 || missing "no NVIDIA GPU with a driver (nvidia-smi)"
compgen -G "$FAKEMETAL_PREBUILT/*.so" >/dev/null || command -v clang++-19 >/dev/null || command -v clang++ >/dev/null ||
    missing "neither compiled kernels in $FAKEMETAL_PREBUILT nor a clang++ to compile them"
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
failed=0

# one NAME COMMAND...: a line with what it printed last; PASS, FAIL and SKIP lines are counted
one() {
    local name=$1 start=$SECONDS rc
    shift
    timeout "$LIMIT" "$@" >"$OUT/$name.log" 2>&1 </dev/null
    rc=$?
    local p f s
    p=$(grep -c '^PASS ' "$OUT/$name.log") f=$(grep -c '^FAIL ' "$OUT/$name.log") s=$(grep -c '^SKIP ' "$OUT/$name.log")
    printf '%-52s status %3d: %3d passed %3d failed %3d skipped %4d s  %s\n' "$name" $rc "$p" "$f" "$s" $((SECONDS - start)) \
        "$(grep -hE 'ERROR SUMMARY|RACECHECK SUMMARY' "$OUT/$name.log" | tail -n 1 | sed 's/=* *//')"
    if [ $rc -ne 0 ] || [ "$f" -gt 0 ]; then grep -vE '^PASS ' "$OUT/$name.log" | head -n "${SHOW:-12}" | cut -c1-300 | sed 's/^/    /'; return 1; fi
}
together() { # runs lines of a list, JOBS at once; fails if one fails
    rm -f "$OUT/.failed"
    while IFS= read -r line; do
        [ -n "$line" ] || continue
        while [ "$(jobs -rp | wc -l)" -ge "$JOBS" ]; do sleep 0.2; done
        { eval "one $line" || : >"$OUT/.failed"; } &
    done
    wait
    [ ! -e "$OUT/.failed" ] || failed=1
    rm -f "$OUT/.failed"
    return $failed
}

kernels() {
    echo "== kernels and back end"
    together <<LIST
host "$BUILD/tests/metal/test_host"
mat "$BUILD/tests/metal/test_mat"
vec "$BUILD/tests/metal/test_vec"
model "$BUILD/tests/metal/test_model"
int8 "$BUILD/tests/metal/test_int8"
ahead "$BUILD/tests/metal/test_ahead"
ops "$BUILD/tests/metalcuda/test_ops"
LIST
}
models() {
    echo "== whole models"
    local file=${SMOLLM2:-$HOME/.cache/sill/models/SmolLM2-135M-Instruct.Q4_1.gguf}
    SHOW=60 one whole env FAKEMETAL_WORKING_SET=2500000000 python3 tests/metalcuda/whole_models.py "$OUT" "$file" "$@" || failed=1
    grep -vE '^(PASS|FAIL) ' "$OUT/whole.log" | tail -n 60
}
find_sanitizer() {
    cs=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2>/dev/null) || missing "no compute-sanitizer"
    echo "== compute-sanitizer $("$cs" --version | tail -n 1)"
    quick="--print-limit 5 --error-exitcode 9"
}
each() { # TOOL TEST [NAME...]
    local tool=$1 program=$2 before= report= name
    case $tool in
        memcheck | synccheck) ;;
        racecheck) report="--racecheck-report all" ;;
        initcheck) before="env METALCUDA_POISON=0" ;;
        *) missing "each takes memcheck, racecheck, synccheck or initcheck, not '$tool'" ;;
    esac
    shift 2
    find_sanitizer
    # shellcheck disable=SC2046
    [ $# -gt 0 ] || set -- $(sed -n 's/^ *TEST(\([a-z_0-9]*\));$/\1/p' "tests/$program.c")
    for name in "$@"; do
        [ "$name" != nothing_is_left ] || echo "nothing_is_left: left out, since it makes no call of CUDA, which compute-sanitizer ends with status 255"
    done
    together <<<"$(for name in "$@"; do
        [ "$name" != nothing_is_left ] || continue
        printf '%s-%s-%s %s "%s" --tool %s %s %s "%s/tests/%s" %s\n' "$tool" "${program#*/test_}" "$name" "$before" "$cs" "$tool" "$report" \
            "$quick" "$BUILD" "$program" "$name"
    done)"
}
sanitize() {
    find_sanitizer
    together <<LIST
memcheck-vec "$cs" --tool memcheck $quick "$BUILD/tests/metal/test_vec"
memcheck-mat "$cs" --tool memcheck $quick "$BUILD/tests/metal/test_mat"
memcheck-model "$cs" --tool memcheck $quick "$BUILD/tests/metal/test_model"
racecheck-vec "$cs" --tool racecheck --racecheck-report all $quick "$BUILD/tests/metal/test_vec"
racecheck-mat "$cs" --tool racecheck --racecheck-report all $quick "$BUILD/tests/metal/test_mat"
racecheck-model "$cs" --tool racecheck --racecheck-report all $quick "$BUILD/tests/metal/test_model"
synccheck-vec "$cs" --tool synccheck $quick "$BUILD/tests/metal/test_vec"
synccheck-mat "$cs" --tool synccheck $quick "$BUILD/tests/metal/test_mat"
synccheck-model "$cs" --tool synccheck $quick "$BUILD/tests/metal/test_model"
memcheck-int8 "$cs" --tool memcheck $quick "$BUILD/tests/metal/test_int8"
racecheck-int8 "$cs" --tool racecheck --racecheck-report all $quick "$BUILD/tests/metal/test_int8"
synccheck-int8 "$cs" --tool synccheck $quick "$BUILD/tests/metal/test_int8"
initcheck-vec env METALCUDA_POISON=0 "$cs" --tool initcheck $quick "$BUILD/tests/metal/test_vec"
initcheck-mat env METALCUDA_POISON=0 "$cs" --tool initcheck $quick "$BUILD/tests/metal/test_mat"
initcheck-model env METALCUDA_POISON=0 "$cs" --tool initcheck $quick "$BUILD/tests/metal/test_model"
initcheck-int8 env METALCUDA_POISON=0 "$cs" --tool initcheck $quick "$BUILD/tests/metal/test_int8"
LIST
}
case $what in
    kernels) kernels ;;
    models) shift; models "$@" ;;
    sanitize) sanitize ;;
    each) shift; each "${1:-none}" "${2:-metal/test_ahead}" "${@:3}" ;;
    all) kernels; models; sanitize ;;
    *) sed -n 2,21p "$0"; exit 2 ;;
esac
if [ $failed -eq 0 ]; then echo "all clean"; else echo "there were failures; logs in $OUT"; fi
exit $failed
