#!/usr/bin/env bash
# The library as a stranger meets it: installed into an empty place, found through pkg-config, the usage example
# at the top of sill.h compiled against it, shared and static, and run on a small model. The exported symbols are
# exactly those of tests/api/symbols.txt.
set -u
cd "$(dirname "$0")/../.."
: "${BUILD:=build/release}" "${CC:=cc}" "${CONFIG:=release}"
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
status=0
check() { if [ "$1" -eq 0 ]; then echo "PASS $2"; else sed 's/^/  /' "$tmp/log" | tail -n 15; echo "FAIL $2"; status=1; fi; }
model=tests/fixtures/stories260K/stories260K.gguf

make -s BUILD="$BUILD" CC="$CC" config="$CONFIG" PREFIX=/opt/sill DESTDIR="$tmp/dest" install >"$tmp/log" 2>&1
check $? 'make install'
if [ "$(uname -s)" = Linux ]; then # what is installed in its place is put on the dynamic linker's list
    for goal in install uninstall; do
        make -n BUILD="$BUILD" CC="$CC" config="$CONFIG" PREFIX=/opt/sill DESTDIR= "$goal" >"$tmp/log" 2>&1 && grep -q '^PATH=.*|| ldconfig ' "$tmp/log"
        check $? "make $goal calls ldconfig"
    done
    make -n BUILD="$BUILD" CC="$CC" config="$CONFIG" PREFIX=/opt/sill DESTDIR="$tmp/dest" install >"$tmp/log" 2>&1 && ! grep -q ldconfig "$tmp/log"
    check $? 'make install for a package does not'
fi
prefix=$tmp/dest/opt/sill
for f in bin/sill include/sill.h lib/libsill.a lib/pkgconfig/sill.pc; do [ -s "$prefix/$f" ] || { echo "no $f" >"$tmp/log"; check 1 "installed $f"; }; done

# A debugging or sanitizer build needs its own flags to link; only what users get is tried from here on.
if [ "$CONFIG" != release ]; then echo "PASS installation of config=$CONFIG"; exit $status; fi

sed -n '/---- usage example ----/,/---- end of usage example ----/p' include/sill.h | sed '1d;$d; s/^ \* \{0,1\}//' >"$tmp/use.c"
export PKG_CONFIG_PATH=$prefix/lib/pkgconfig PKG_CONFIG_SYSROOT_DIR=$tmp/dest
$CC -std=c99 -Wall -Wextra -Werror $(pkg-config --cflags sill) "$tmp/use.c" -o "$tmp/use" $(pkg-config --libs sill) >"$tmp/log" 2>&1
check $? 'usage example compiles against the installed shared library'
$CC -std=c99 -Wall -Wextra -Werror $(pkg-config --cflags sill) "$tmp/use.c" -o "$tmp/use_static" "$prefix/lib/libsill.a" \
    $(pkg-config --libs-only-l --static sill | sed 's/-lsill//') >"$tmp/log" 2>&1
check $? 'usage example compiles against the installed static library'
export LD_LIBRARY_PATH=$prefix/lib DYLD_LIBRARY_PATH=$prefix/lib
"$tmp/use" "$model" 'Once upon a time' >"$tmp/shared.txt" 2>"$tmp/log" && grep -q '[a-z]' "$tmp/shared.txt"
check $? 'usage example runs with the shared library'
"$tmp/use_static" "$model" 'Once upon a time' >"$tmp/static.txt" 2>"$tmp/log" && cmp -s "$tmp/shared.txt" "$tmp/static.txt"
check $? 'usage example says the same with the static library'
"$tmp/use" "$tmp/no-such-model" x >/dev/null 2>"$tmp/log"
[ $? -eq 1 ] && grep -q 'no-such-model' "$tmp/log"
check $? 'usage example reports a missing model by name'
[ "$(pkg-config --modversion sill)" = "$(sed -n 's/^.define SILL_VERSION_STRING "\(.*\)"/\1/p' include/sill.h)" ]
check $? 'sill.pc carries the version of the header'

if [ "$(uname -s)" = Darwin ]; then
    nm -gU "$prefix"/lib/libsill.dylib | awk '{print $3}' | sed 's/^_//' | sort >"$tmp/symbols"
else
    nm -D --defined-only "$prefix"/lib/libsill.so | awk '{print $3}' | sort >"$tmp/symbols"
fi
LC_ALL=C sort tests/api/symbols.txt | diff - <(LC_ALL=C sort "$tmp/symbols") >"$tmp/log"
check $? 'exported symbols are those of tests/api/symbols.txt'
sed -n 's/.*SILL_API.*[ *]\(sill_[a-z0-9_]*\)(.*/\1/p' include/sill.h | LC_ALL=C sort | diff - <(LC_ALL=C sort tests/api/symbols.txt) >"$tmp/log"
check $? 'sill.h declares exactly the exported symbols'

make -s BUILD="$BUILD" CC="$CC" config="$CONFIG" PREFIX=/opt/sill DESTDIR="$tmp/dest" uninstall >"$tmp/log" 2>&1
find "$prefix" -type f -o -type l >>"$tmp/log"
[ ! -s "$tmp/log" ] || ! find "$prefix" \( -type f -o -type l \) | grep -q .
check $? 'make uninstall leaves no file'
exit $status
