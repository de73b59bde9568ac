#!/usr/bin/env bash
# The source checks pass on the tree as it is, and each of them fails on a tree that breaks it.
set -u
cd "$(dirname "$0")/../.."
status=0
report() { if [ "$1" -eq 0 ]; then echo "PASS $2"; else echo "FAIL $2"; status=1; fi; }

out=$(tools/lint.sh 2>&1); rc=$?
[ $rc -eq 0 ] || printf '%s\n' "$out" | grep -v ': warning: ' | sed 's/^/  /'
report $rc "lint finds nothing in the tree"

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
mkdir -p "$tmp/src/x" "$tmp/docs" "$tmp/examples"
caught() { # NAME FILE CONTENT EXPECTED-WORDS
    printf '%s\n' "$3" >"$tmp/$2"
    tools/lint.sh "$tmp" 2>/dev/null | grep -q "^$2:[0-9]*: .*$4"
    report $? "lint catches $1"
    rm -f "$tmp/$2"
}
caught 'a banned function' src/x/a.c 'void f(char *a) { strcpy(a, "x"); }' 'banned function'
caught 'memory taken past mem.c' src/x/a.c 'void *f(void) { return malloc(3); }' 'mem.c'
caught 'an assert' src/x/a.c 'void f(int a) { assert(a); }' 'abort and assert'
caught 'printing in the library' src/x/a.c 'void f(void) { printf("x"); }' 'never exits or prints'
caught 'a long file' src/x/a.c "$(seq 1501 | sed 's|.*|int x&;|')" 'more than 1500'
caught 'white space at the end' docs/a.md 'words ' 'white space'
caught 'a tab' src/x/a.c "$(printf 'int\tx;')" 'tab'
caught 'unfinished work' src/x/a.c '/* TODO later */' 'unfinished'
caught 'another language' docs/a.md 'das ist nicht gut' 'not English'
caught 'a declaration of newer shells' a.sh 'declare -A map' 'bash 3.2'
caught 'a builtin of newer shells' a.sh 'x=1; mapfile -t lines' 'bash 3.2'
caught 'an expansion of newer shells' a.sh 'echo "${name,,}"' 'bash 3.2'
caught 'a negative index' a.sh 'echo "${list[-1]}"' 'bash 3.2'
caught 'an operator of newer shells' a.sh 'make &>>log' 'bash 3.2'
caught 'a test of newer shells' a.sh '[[ -v name ]] || exit' 'bash 3.2'
caught 'an option of GNU sed' examples/a.sh 'sed -i s/a/b/ file' 'no such tool or option'
caught 'an option of GNU grep' examples/a.sh 'grep -nP x file' 'no such tool or option'
caught 'a tool that macOS lacks' examples/a.sh 'timeout 20 sleep 30' 'ask for it'
caught 'an assignment of newer makes' Makefile 'A != ls' 'make 3.81'
caught 'a function of newer makes' Makefile 'A = $(file <x)' 'make 3.81'
caught 'a general rule before a particular one' Makefile "$(printf 'out/%%.o: %%.c\nout/tests/%%.o: tests/%%.c')" 'particular patterns'
printf '%s\n' 'set -eu' '# mapfile x' 'a=(1 2); echo "${a[1]}" "${a[@]:1:1}" "${a:-x,y}" "${a%,*}" "${a#^}"' 'cat <<<"$a"' >"$tmp/a.sh"
printf '%s\n' 'out/tests/%.o: tests/%.c' 'out/%.o: %.c' 'A ?= 1' 'B := 2' 'out/x: y' >"$tmp/Makefile"
tools/lint.sh "$tmp" >/dev/null 2>&1
report $? "lint leaves scripts and makefiles of a Mac alone"
rm -f "$tmp/a.sh" "$tmp/Makefile"
printf '%s\n' '/* free(x) and printf("x") in words */' 'const char *s = "malloc(3)";' \
    'void f(t *x) { x->free(1); sill__free(x); snprintf(a, 1, "x"); }' >"$tmp/src/x/a.c"
tools/lint.sh "$tmp" >/dev/null 2>&1
report $? "lint leaves comments, strings and members alone"
exit $status
