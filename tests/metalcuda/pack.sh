#!/usr/bin/env bash
# What tests/metalcuda/run.sh needs on a machine that has an NVIDIA GPU and its driver but neither compilers nor libraries,
# beside this tree: in build/gpu (PACK=dir), stripped. There: BUILD=build/gpu tests/metalcuda/run.sh kernels (docs/GPU-TESTS.md).
#
#   [BUILD=dir] tests/metalcuda/pack.sh    builds it here: clang++ 16 or later and a CUDA toolkit (ptxas, libdevice)
set -eu
cd "$(dirname "$0")/../.."
: "${BUILD:=build/release}" "${PACK:=build/gpu}" "${MAX_MIB:=60}"
tests="metal/test_host metal/test_mat metal/test_vec metal/test_model metal/test_int8 metal/test_ahead metalcuda/test_ops"
targets=
for t in $tests; do targets="$targets $BUILD/tests/$t"; done
# shellcheck disable=SC2086
make -j"$(getconf _NPROCESSORS_ONLN)" --no-print-directory BUILD="$BUILD" cli shared "$BUILD/libmetalcuda.so" "$BUILD/libfakemetal.so" $targets
rm -rf "$PACK"
mkdir -p "$PACK/tests/metal" "$PACK/tests/metalcuda" "$PACK/lib" "$PACK/metalcuda-kernels"
case $PACK in /*) kernels=$PACK ;; *) kernels=$PWD/$PACK ;; esac
BUILD="$BUILD" OUT="$PACK/logs" FAKEMETAL_PREBUILT="$kernels/metalcuda-kernels" tests/metalcuda/run.sh compile
for f in sill libmetalcuda.so; do strip -o "$PACK/$f" "$BUILD/$f"; done
strip -o "$PACK/libsill.so" "$(readlink -f "$BUILD/libsill.so")"
soname=$(objdump -p "$PACK/libsill.so" | awk '$1 == "SONAME" {print $2}')
[ -z "$soname" ] || [ "$soname" = libsill.so ] || cp "$PACK/libsill.so" "$PACK/$soname"
for t in $tests; do strip -o "$PACK/tests/$t" "$BUILD/tests/$t"; done
sqlite=$(ldd "$BUILD/sill" | awk '$1 == "libsqlite3.so.0" {print $3}')
[ -z "$sqlite" ] || cp -L "$sqlite" "$PACK/lib/libsqlite3.so.0"
rm -rf "$PACK/logs"
mib=$(du -sm "$PACK" | cut -f1)
du -a "$PACK" | sort -n | tail -n 15
echo "$mib MiB in $PACK"
[ "$mib" -le "$MAX_MIB" ] || { echo "more than $MAX_MIB MiB" >&2; exit 1; }
