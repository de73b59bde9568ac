#!/usr/bin/env bash
# Where the kernels do not compile, the tests of the Metal backend fail with the compiler's message; none of them dies.
set -u
cd "$(dirname "$0")/../.."
: "${BUILD:=build/release}"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
[ -e "$BUILD/libfakemetal.so" ] || { echo "SKIP broken_kernels: this machine has no fake Metal (it is for Linux)"; exit 0; }
bad=0
for t in test_mat test_vec test_model test_check test_loss; do
    FAKEMETAL_FAULT=library:1:1000000 "$BUILD/tests/metal/$t" >"$log" 2>&1
    rc=$?
    if grep -q '^SKIP .*no clang' "$log"; then echo "SKIP $t: no clang++ for the kernels of the fake Metal (tools/deps.sh --test)"; continue; fi
    if [ $rc -eq 1 ] && grep -q '^FAIL ' "$log" && grep -q 'the Metal compiler refused the kernels: .*an injected fault' "$log"; then
        echo "PASS $t"
    else
        tail -n 5 "$log"
        echo "FAIL $t ended with status $rc"
        bad=1
    fi
done
exit $bad
