#!/usr/bin/env bash
# The project's own source checks; `make lint`, and a part of `make test`. Prints FILE:LINE: what is wrong and
# ends with status 1 if anything is. Long functions are warned of only. `tools/lint.sh DIR` checks another tree.
set -u
cd "${1:-$(dirname "$0")/..}" || exit 2
all=$(git ls-files 2>/dev/null) && [ -n "$all" ] || all=$(find . -type f -not -path './build/*' | sed 's|^\./||')
pick() { printf '%s\n' "$all" | grep -E "$1" | grep -vE "${2:-^$}"; }
c_code=$(pick '^(src|cli|include|bench)/.*\.(c|h|inc)$')
library=$(pick '^src/.*\.(c|h|inc)$')
# What runs on a Mac as it comes: bash 3.2, make 3.81, BSD tools. Of the tools only what `make run` and `make test` call.
scripts=$(pick '(^|/)[^/]*\.sh$|^\.ci/run$' '^tools/lint\.sh$|^tests/project/test_lint\.sh$')
mac_scripts=$(pick '^(tools/(deps|fetch_model)|examples/[^/]*|tests/run|tests/[^/]*/test_[^/]*)\.sh$' '^tests/project/test_lint\.sh$')
makefile=$(pick '^Makefile$')
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
script() { # REGULAR-EXPRESSION FILES...: lines of scripts and makefiles that have it outside of comments
    local what=$1
    shift
    [ $# -gt 0 ] || return 0
    grep -nHE -e "$what" "$@" | grep -vE '^[^:]*:[0-9]+:[[:space:]]*#'
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
grep -nI "$(printf '\t')" $(printf '%s\n' $text | grep -vE '(^|/)Makefile$|\.(json|jsonl|tsv)$') /dev/null | complain 'tab'
grep -nIwE 'TODO|FIXME|XXX|HACK' $(printf '%s\n' $text | grep -vE '^tools/lint\.sh$|^tests/project/') /dev/null | complain 'unfinished'
grep -nIwiE 'f(ü|ue)r|nicht|und|wird|keine?|muss|werden|oder|Fehler|Datei' \
    $(printf '%s\n' $text | grep -vE '^tools/lint\.sh$|^tests/|tokenizer|unicode') /dev/null | complain 'not English'
name='[A-Za-z_][A-Za-z0-9_]*'
script "(declare|local|typeset|readonly)[[:space:]]+-[A-Za-z]*[Aglnu]|(^|[;&|({]|then|do|else)[[:space:]]*(mapfile|readarray|coproc)[[:space:]]" $scripts |
    complain 'bash 3.2 has no such declaration or builtin'
script "[$][{]$name(\\[[^]]*\\])?(\\^|,|@[A-Za-z][}])|[$][{][^}]*:[^}]*:-[0-9]|$name\\[-[0-9]" $scripts |
    complain 'bash 3.2 has no such expansion'
script '&>>|[|]&|;;?&([[:space:]]|$)|exec [{]|[{]0[0-9]+\.\.|[{][0-9]+\.\.[0-9]+\.\.' $scripts | complain 'bash 3.2 has no such operator'
script '\[\[ +(! +)?-v |(test|\[) -v |wait -n|shopt -s (globstar|lastpipe|inherit_errexit)|%\([^)]*\)T|[$][{]?(EPOCH|BASHPID|SRANDOM)|read [^;|]*-(N|t *0?\.)' $scripts |
    complain 'bash 3.2 does not know it'
script '(^|[^A-Za-z0-9_-])(sed (-[a-z]* )*(-i|-[a-z]*r)|grep (-[a-zA-Z]* )*-[a-zA-Z]*P|date [^|;]*(-d|%N)|head -n -|xargs -[dr]|find [^|;]*-printf|cp -[a-z]*[td]|sort -[a-zA-Z]*V|mktemp --|ln -[a-z]*r|cut --|tac|nproc|setsid|shuf|numfmt|ldd)([^A-Za-z0-9_]|$)' \
    $mac_scripts $makefile | complain 'macOS has no such tool or option'
script '(^|[^A-Za-z0-9_-])(timeout [0-9"$]|sha256sum|md5sum|stat -c|/proc/)' $mac_scripts $makefile | grep -vE 'command -v|[|][|]' |
    complain 'macOS does not have it: ask for it, or do without'
script '^define .*=|^[A-Za-z_0-9]+[[:space:]]*!=|^[A-Za-z_0-9]+[[:space:]]*:::?=|[$][(](file|guile|let|intcmp) |^\.(ONESHELL|SHELLFLAGS|EXTRA_PREREQS|NOTINTERMEDIATE)|^(undefine|private) ' $makefile |
    complain 'make 3.81 does not know it'
# make 3.81 takes the first pattern that fits and whose source is there; later ones the closest.
[ -z "$makefile" ] || awk '/^[^#\t:=]*%[^:=]*:/ {
        target = $0; sub(/:.*/, "", target)
        i = index(target, "%"); before = substr(target, 1, i - 1); behind = substr(target, i + 1)
        for (k = 1; k <= n; k++)
            if (target != was[k] && index(before, head[k]) == 1 && substr(behind, length(behind) - length(tail[k]) + 1) == tail[k])
                print FILENAME ":" FNR ": a rule for " target
        n++; was[n] = target; head[n] = before; tail[n] = behind
    }' $makefile /dev/null | complain 'particular patterns stand before the general ones that they are part of'
# Functions: from a line that opens one at column 0 to the brace that closes it at column 0.
awk 'FNR == 1 {open = 0}
    /^[A-Za-z].*\{[[:space:]]*$/ && !/^(typedef|struct|enum|union|extern|static const .*=|const .*=)/ {open = FNR}
    /^\}/ {if (open && FNR - open > 80) print FILENAME ":" open ": warning: function of " FNR - open " lines"; open = 0}' $c_code /dev/null
)
[ -z "$findings" ] || printf '%s\n' "$findings"
! printf '%s\n' "$findings" | grep -v ': warning: ' | grep -q .
