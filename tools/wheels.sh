#!/usr/bin/env bash
# `make wheels`: the Python package for systems that need no compiler then, into build/wheels. zig compiles libsill for each: on Linux
# for glibc 2.28 and later, on macOS for 13 and later. Nothing but the C library is linked. No wheel for macOS has run on one yet.
#
#   tools/wheels.sh [x86_64-linux|aarch64-linux|arm64-macos|x86_64-macos]...   (the first three)
set -eu
cd "$(dirname "$0")/.."
out=build/wheels
mkdir -p $out
[ $# -gt 0 ] || set -- x86_64-linux aarch64-linux arm64-macos
for name in "$@"; do
    case $name in
        x86_64-linux | aarch64-linux) target=${name%-*}-linux-gnu.2.28 build=$out/$name file=libsill.so tag=manylinux_2_28_${name%-*} ;;
        # where `make macos` compiles too
        arm64-macos) target=aarch64-macos.13.0 build=build/macos/arm64 file=libsill.dylib tag=macosx_13_0_arm64 ;;
        x86_64-macos) target=x86_64-macos.13.0 build=build/macos/x86_64 file=libsill.dylib tag=macosx_13_0_x86_64 ;;
        *) echo "wheels: no target $name" >&2; exit 2 ;;
    esac
    tools/deps.sh --cross "$target"
    strip= && [ $file = libsill.dylib ] || strip=LDFLAGS=-s
    make $strip -j"$(getconf _NPROCESSORS_ONLN)" --no-print-directory ZIG_TARGET=$target BUILD=$build WERROR=1 shared
    SILL_LIBRARY_FILE=$build/$file SILL_WHEEL_PLATFORM=$tag PYTHONPATH=python/backend \
        python3 -c "import sill_build; print('$out/' + sill_build.build_wheel('$out'))"
done
