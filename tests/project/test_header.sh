#!/usr/bin/env bash
# The public header compiles alone, without a warning, as C99, C11, C17 and C++17.
set -u
cd "$(dirname "$0")/../.."
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
status=0
printf '#include <sill.h>\n#include <sill.h>\nint use(void);\nint use(void) { return (int)sizeof(sill_model_options); }\n' >"$tmp/a.c"
cp "$tmp/a.c" "$tmp/a.cc"
try() { # COMPILER STANDARD FILE
    command -v "$1" >/dev/null || { echo "SKIP header as $2 with $1: this machine has no $1"; return; }
    if "$1" -std="$2" -Wall -Wextra -Wshadow -Wconversion -pedantic -Werror -Iinclude -fsyntax-only "$tmp/$3" 2>"$tmp/log"; then
        echo "PASS header as $2 with $1"
    else
        sed 's/^/  /' "$tmp/log" | head -n 10
        echo "FAIL header as $2 with $1"
        status=1
    fi
}
for std in c99 c11 c17; do try "${CC:-cc}" $std a.c; done
try c++ c++17 a.cc
try clang c99 a.c
try clang++ c++17 a.cc
exit $status
