#!/usr/bin/env bash
# What run.sh runs under compute-sanitizer, with a GPU's tools that only write down how they were called.
set -u
cd "$(dirname "$0")/../.."
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
mkdir -p "$tmp/bin" "$tmp/build/tests/metal" "$tmp/kernels"
touch "$tmp/build/libmetalcuda.so" "$tmp/kernels/x.so"
printf '#!/bin/sh\necho "Stub GPU"\n' >"$tmp/bin/nvidia-smi"
cat >"$tmp/bin/compute-sanitizer" <<'END'
#!/bin/sh
[ "$1" = --version ] && { echo stub; exit 0; }
for last; do :; done
echo "$last" >>"$CALLED"
[ "$last" != nothing_is_left ] || exit 255
echo "PASS $last"
END
chmod +x "$tmp/bin/"*
export PATH="$tmp/bin:$PATH" CALLED="$tmp/called" BUILD="$tmp/build" OUT="$tmp/logs" FAKEMETAL_PREBUILT="$tmp/kernels"
bad=0
check() { # NAME CONDITION...
    local name=$1
    shift
    if "$@"; then echo "PASS $name"; else echo "FAIL $name"; sed 's/^/    /' "$tmp/said"; bad=1; fi
}
# The tests of a program, as its source has them, but for the one that the tools cannot run; said, and no failure.
tests/metalcuda/run.sh each memcheck metal/test_ahead >"$tmp/said" 2>&1
check each_is_clean [ $? -eq 0 ]
wanted=$(sed -n 's/^ *TEST(\([a-z_0-9]*\));$/\1/p' tests/metal/test_ahead.c | grep -vx nothing_is_left | sort)
check each_test_once [ "$(sort "$tmp/called")" = "$wanted" ]
check says_what_is_left_out grep -q '^nothing_is_left: left out' "$tmp/said"
: >"$tmp/called"
tests/metalcuda/run.sh each racecheck metal/test_model nothing_is_left working_set >"$tmp/said" 2>&1
check named_tests [ "$?$(cat "$tmp/called")" = 0working_set ]
exit $bad
