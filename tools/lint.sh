#!/usr/bin/env bash
# The project's own source checks; `make lint`, and a part of `make test`. Prints FILE:LINE: what is wrong and
# ends with status 1 if anything is. Long functions are warned of only. `tools/lint.sh DIR` checks another tree.
set -u
cd "${1:-$(dirname "$0")/..}" || exit 2
all=$(git ls-files 2>/dev/null) && [ -n "$all" ] || all=$(find . -type f -not -path './build/*' | sed 's|^\./||')
pick() { printf '%s\n' "$all" | grep -E "$1" | grep -vE "${2:-^$}"; }
c_code=$(pick '^(src|cli|include|bench)/.*\.(c|h|inc)$')
library=$(pick '^src/.*\.(c|h|inc)$')
text=$(pick . '^tests/fixtures/|^LICENSE$|^examples/.*\.(csv|txt)$')

# Code without comments and string literals, line numbers kept, as FILE:LINE:CODE.
code() {
    [ $# -gt 0 ] || return 0
    awk 'FNR == 1 {inside = 0}
    {   line = $0; out = ""
        while (line != "") {
            if (inside) {
                i = index(line, "*/")
                if (!i) {line = ""; break}
                line = substr(line, i + 2); inside = 0; continue
            }
            if (match(line, /"([^"\\]|\\.)*"|\047([^\047\\]|\\.)*\047|\/\*|\/\//)) {
                token = substr(line, RSTART, RLENGTH)
                out = out substr(line, 1, RSTART - 1)
                line = substr(line, RSTART + RLENGTH)
                if (token == "/*") inside = 1
                else if (token == "//") line = ""
                else out = out "\"\""
            } else {out = out line; line = ""}
        }
        print FILENAME ":" FNR ":" out
    }' "$@"
}
complain() { # WHAT; lines on stdin
    local lines
    lines=$(cat)
    [ -n "$lines" ] || return 0
    printf '%s\n' "$lines" | sed "s|^\([^:]*:[0-9]*\):.*|\1: $1|"
}
call() { grep -E "(^|[^A-Za-z0-9_>.])($1)[[:space:]]*\("; }

# shellcheck disable=SC2086
findings=$(
code $c_code | call 'sprintf|vsprintf|strcpy|strcat|strncpy|strtok|gets|atoi|atol|atof|alloca|tmpnam' |
    complain 'banned function (bounded or checked forms only)'
code $(printf '%s\n' $library | grep -v '^src/base/mem\.c$') |
    call 'malloc|calloc|realloc|free|strdup|strndup|aligned_alloc|posix_memalign' |
    complain 'memory is taken through src/base/mem.c only'
code $(printf '%s\n' $library | grep -v '^src/base/error\.c$') | call 'abort|assert' |
    complain 'abort and assert live in src/base/error.c only'
code $(printf '%s\n' $library | grep -v '^src/base/error\.c$') | call 'exit|_exit|printf|puts|putchar|fprintf|perror|vprintf' |
    complain 'the library never exits or prints'
code $c_code | grep -E '#[[:space:]]*pragma[[:space:]]+omp|ffast-math' | complain 'no OpenMP, no -ffast-math'
for f in $(pick '\.(c|h|inc|py|sh|cu|metal)$' '^tests/fixtures/'); do
    n=$(wc -l <"$f")
    [ "$n" -le 1500 ] || echo "$f:$n: over 1500 lines" | complain "has $n lines, more than 1500: split it by what changes together"
done
grep -nIE '[[:space:]]+$' $text /dev/null | complain 'white space at the end of the line'
grep -nIP '\t' $(printf '%s\n' $text | grep -vE '(^|/)Makefile$|\.(json|jsonl|tsv)$') /dev/null | complain 'tab'
grep -nIE '\b(TODO|FIXME|XXX|HACK)\b' $(printf '%s\n' $text | grep -vE '^tools/lint\.sh$|^tests/project/') /dev/null | complain 'unfinished'
grep -nIwiE 'f(ü|ue)r|nicht|und|wird|keine?|muss|werden|oder|Fehler|Datei' \
    $(printf '%s\n' $text | grep -vE '^tools/lint\.sh$|^tests/|tokenizer|unicode') /dev/null | complain 'not English'
# Functions: from a line that opens one at column 0 to the brace that closes it at column 0.
awk 'FNR == 1 {open = 0}
    /^[A-Za-z].*\{[[:space:]]*$/ && !/^(typedef|struct|enum|union|extern|static const .*=|const .*=)/ {open = FNR}
    /^\}/ {if (open && FNR - open > 80) print FILENAME ":" open ": warning: function of " FNR - open " lines"; open = 0}' $c_code /dev/null
)
[ -z "$findings" ] || printf '%s\n' "$findings"
! printf '%s\n' "$findings" | grep -v ': warning: ' | grep -q .
