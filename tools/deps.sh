#!/usr/bin/env bash
# The one place that names and installs what sill needs from outside.
#
#   tools/deps.sh            to build and run: nothing is done and nothing said when all is there
#   tools/deps.sh --test     also what `make test-all` needs (cross compilers, sanitizers, Python packages)
#   tools/deps.sh --bench    also what `make bench` compares with
#   tools/deps.sh --peers    also lm-evaluation-harness and an older transformers, each in front of build/venv (tools/test_all.sh peers)
#   tools/deps.sh --cross [TARGET...]   what `make macos` and ZIG_TARGET=TARGET compile with: zig, in build/zig, and the sources
#                            of SQLite, zlib and zstd, below build/cross, which make compiles for the target (CROSS_SRC=)
#   tools/deps.sh --list     prints the table
#
# Debian and Ubuntu: apt-get, through sudo when not root. macOS: brew. Elsewhere: says what is missing.
# Python packages go into build/venv (and build/venv-convert), never into the system's Python.
set -u
cd "$(dirname "$0")/.."

# when | what | how we see that it is there | Debian packages | brew packages
TABLE='
run   | C compiler             | works_cc                              | gcc libc6-dev                 | -
run   | make                   | have make                             | make                          | make
run   | Python 3 with pip      | py_module pip                         | python3 python3-pip           | python3
run   | certificates           | certificates                          | ca-certificates               | -
run   | SQLite                 | header sqlite3.h                      | libsqlite3-dev                | -
run   | zlib                   | header zlib.h                         | zlib1g-dev                    | -
run   | zstd                   | brewed_header zstd.h                  | libzstd-dev                   | zstd
run   | libcurl (`sill pull` loads it) | runtime_curl                  | libcurl4                      | -
cross | Tcl (joins the files of SQLite) | linux_only have tclsh | tcl                          | -
test  | pkg-config             | have pkg-config                       | pkg-config                    | pkgconf
test  | C++ compiler           | have c++                              | g++                           | -
test  | clang with sanitizers  | clang_runtime                         | clang libclang-rt-dev         | llvm
test  | Python venv            | py_module ensurepip                   | python3-venv                  | python3
test  | aarch64 cross compiler | linux_only have aarch64-linux-gnu-gcc | gcc-aarch64-linux-gnu libc6-dev-arm64-cross | -
test  | qemu for aarch64       | linux_only have qemu-aarch64          | qemu-user                     | -
test  | clang 16 or later (kernels of the fake Metal) | linux_only fake_metal_clang | clang-19 | -
test  | R (its example)        | linux_only have Rscript               | r-base-core                   | -
test  | Slurm (one machine)    | linux_only have_slurm                 | slurmctld slurmd slurm-client munge | -
bench | cmake and C++          | have cmake                            | cmake g++                     | cmake
'
# Python packages, pinned where the version decides what is compared. torch: the CPU build is enough.
PYTHON_TEST='torch==2.13.0 transformers==5.23.0 tokenizers tiktoken sentencepiece protobuf safetensors gguf numpy
             krippendorff==0.9.0 accelerate mypy pandas polars pyarrow auditwheel==6.8.2 jsonschema==4.26.0'
# Built for few systems: what needs them is skipped, and says so, where there is none.
PYTHON_TEST_BUILT='bitsandbytes==0.50.2 xllamacpp==2026.10.11549'
PYTHON_BENCH='llama-cpp-python==0.3.36 ctranslate2==4.8.5 openvino==2026.4.1 openvino-genai==2026.4.1.0'
# The converters want an older transformers: an environment of their own, build/venv-convert.
PYTHON_CONVERT='torch==2.13.0 ctranslate2==4.8.5 openvino==2026.4.1 optimum-intel==2.2.0 nncf==3.4.0'
# Environments that stand in front of build/venv: what is not in them is taken from there.
PYTHON_LM_EVAL='lm_eval==0.4.13'
PYTHON_HF4='transformers==4.57.1'
VENV=build/venv
# The compiler of `make macos`: clang with the C libraries and headers of many systems, Apple's libSystem among them.
ZIG='ziglang==0.17.1'

have() { command -v "$1" >/dev/null 2>&1; }
linux_only() { [ "$(uname -s)" != Linux ] || "$@"; }
# A Mac's command line tools bring SQLite and zlib along.
header() { printf '#include <%s>\n' "$1" | "${CC:-cc}" -E -x c - >/dev/null 2>&1; }
brewed_header() { header "$1" || { have brew && [ -e "$(brew --prefix)/include/$1" ]; }; }
# On a Mac /usr/bin/cc is there before the command line tools are, and asks for them.
runtime_curl() { [ "$(uname -s)" = Darwin ] || PATH=$PATH:/sbin:/usr/sbin ldconfig -p 2>/dev/null | grep -qE 'libcurl(-gnutls)?\.so\.4'; }
works_cc() { have "${CC:-cc}" && if [ "$(uname -s)" = Darwin ]; then "${CC:-cc}" --version >/dev/null 2>&1; else [ -e /usr/include/stdio.h ]; fi; }
py_module() { have python3 && python3 -S -c "import sys, importlib.util as u, site; site.main(); sys.exit(not u.find_spec('$1'))"; }
certificates() { [ "$(uname -s)" = Darwin ] || [ -n "${SSL_CERT_FILE:-}" ] || [ -e /etc/ssl/certs/ca-certificates.crt ] || [ -e /etc/pki/tls/certs ]; }
clang_runtime() { have clang && [ -e "$(clang -print-file-name=libclang_rt.fuzzer-"$(uname -m)".a 2>/dev/null)" ] || { [ "$(uname -s)" = Darwin ] && have clang; }; }
fake_metal_clang() { local v; for v in 21 20 19 18 17 16; do have clang++-$v && return 0; done; have clang++ && [ "$(clang++ -dumpversion | cut -d. -f1)" -ge 16 ]; }
have_slurm() { local x; for x in munged slurmctld slurmd sbatch; do PATH=$PATH:/usr/sbin have $x || return 1; done; }
trim() { local s=$1; s=${s#"${s%%[![:space:]]*}"}; printf '%s' "${s%"${s##*[![:space:]]}"}"; }

wanted=run zig=false
case ${1:-} in
    '') ;;
    --test) wanted='run test cross' zig=true ;;
    --cross) wanted='run cross' zig=true; shift ;;
    --bench) wanted='run test bench' ;;
    --peers) wanted='run test peers' ;;
    --list) printf '%s\n' "$TABLE" "Python for tests: $PYTHON_TEST $PYTHON_TEST_BUILT" "Python for bench: $PYTHON_BENCH" \
        "Python for the suite peers: $PYTHON_LM_EVAL, $PYTHON_HF4" \
        "Python for its conversions: $PYTHON_CONVERT" "Python for make macos: $ZIG"; exit 0 ;;
    *) echo "usage: tools/deps.sh [--test | --bench | --peers | --cross [TARGET...] | --list]" >&2; exit 2 ;;
esac

missing='' debian='' brew=''
while IFS='|' read -r when what check deb brewed; do
    when=$(trim "$when") what=$(trim "$what") deb=$(trim "$deb") brewed=$(trim "$brewed")
    case " $wanted " in *" $when "*) ;; *) continue ;; esac
    [ -n "$when" ] || continue
    $check && continue
    missing="$missing${missing:+, }$what"
    debian="$debian $deb"
    [ "$brewed" = - ] || brew="$brew $brewed"
done <<<"$TABLE"

if [ -n "$missing" ]; then
    echo "deps: missing: $missing" >&2
    if have apt-get; then
        sudo=''
        if [ "$(id -u)" -ne 0 ]; then
            have sudo || { echo "deps: run as root: apt-get install -y$debian" >&2; exit 1; }
            sudo=sudo
        fi
        echo "deps: $sudo apt-get install -y$debian" >&2
        export DEBIAN_FRONTEND=noninteractive
        log=$(mktemp)
        # shellcheck disable=SC2086
        { $sudo apt-get update -qq && $sudo apt-get install -y -qq --no-install-recommends $debian; } >"$log" 2>&1 || {
            tail -n 20 "$log" >&2; rm -f "$log"; echo "deps: apt-get failed; is there a network?" >&2; exit 1; }
        rm -f "$log"
    elif [ "$(uname -s)" = Darwin ]; then
        have cc && cc --version >/dev/null 2>&1 || { echo "deps: run: xcode-select --install" >&2; exit 1; }
        if [ -n "$brew" ]; then
            have brew || { echo "deps: Homebrew is not installed; install it, or by hand:$brew" >&2; exit 1; }
            echo "deps: brew install$brew" >&2
            # shellcheck disable=SC2086
            brew install -q $brew >&2 || exit 1
        fi
    else
        echo "deps: neither apt-get nor brew here; install by hand (Debian's names):$debian" >&2
        exit 1
    fi
fi

# Python packages: remembered by a stamp that holds the very list.
python_packages() { # STAMP PACKAGES...
    local stamp=$VENV/$1
    shift
    [ -x $VENV/bin/python ] || python3 -m venv $VENV || { echo "deps: python3 -m venv failed" >&2; return 1; }
    [ "$(cat "$stamp" 2>/dev/null)" = "$*" ] && return 0
    echo "deps: $VENV/bin/pip install $*" >&2
    $VENV/bin/python -m pip install -qq --disable-pip-version-check "$@" >&2 || {
        echo "deps: pip failed; is there a network?" >&2; return 1; }
    printf '%s\n' "$*" >"$stamp"
}
in_front() { # NAME PACKAGES...: build/NAME, whose Python finds build/venv's packages behind its own
    local VENV=build/$1 base=build/venv
    shift
    [ -x $VENV/bin/python ] || python3 -m venv $VENV || { echo "deps: python3 -m venv failed" >&2; return 1; }
    (cd $base/lib/python3*/site-packages && pwd) >"$(echo $VENV/lib/python3*/site-packages)/base.pth" || return 1
    python_packages .stamp "$@"
}
# shellcheck disable=SC2086
case $wanted in
    *peers*) python_packages .test $PYTHON_TEST && in_front venv-lm-eval $PYTHON_LM_EVAL && in_front venv-hf4 $PYTHON_HF4 ;;
    *bench*)
        python_packages .test $PYTHON_TEST && CMAKE_ARGS="-DGGML_NATIVE=ON ${CMAKE_ARGS:-}" python_packages .bench $PYTHON_BENCH &&
            VENV=build/venv-convert && python_packages .convert $PYTHON_CONVERT &&
            # comes along for pictures, which none of these models has; built for another torch it breaks transformers
            { ! $VENV/bin/python -m pip show -qq torchvision 2>/dev/null || $VENV/bin/python -m pip uninstall -qq -y torchvision >&2; } ;;
    *test*) python_packages .test $PYTHON_TEST && { python_packages .built $PYTHON_TEST_BUILT || echo "deps: going on without $PYTHON_TEST_BUILT" >&2; } ;;
esac || exit 1

# A directory of its own, so that neither a virtual environment nor the caller's Python changes.
install_zig() {
    [ "$(cat build/zig/.stamp 2>/dev/null)" = "$ZIG" ] && return 0
    echo "deps: pip install --target build/zig $ZIG" >&2
    rm -rf build/zig && mkdir -p build/zig || return 1
    python3 -m pip install -qq --disable-pip-version-check --no-deps --target build/zig "$ZIG" >&2 || {
        echo "deps: pip failed; is there a network?" >&2; return 1; }
    printf '%s\n' "$ZIG" >build/zig/.stamp
}
# The libraries for targets that have no packages of them: Debian's sources, checked by apt's signatures. The user's own apt is
# left alone: the list of sources, its indexes and the archives are in build/cross.
cross_sources() {
    local dir=build/cross work=build/cross/work apt uri suite from log name wanted=''
    [ -s $dir/sqlite/sqlite3.c ] && [ -s $dir/sqlite/sqlite3.h ] || wanted="$wanted sqlite3"
    [ -s $dir/zlib/inflate.c ] && [ -s $dir/zlib/zlib.h ] || wanted="$wanted zlib"
    [ -s $dir/zstd/zstd.h ] && [ -s $dir/zstd/decompress/zstd_decompress.c ] || wanted="$wanted libzstd"
    [ -n "$wanted" ] || return 0
    have apt-get || {
        echo "deps: the sources of$wanted are fetched with apt-get, which is not here; put them into $dir/sqlite, $dir/zlib, $dir/zstd" >&2; return 1; }
    echo "deps: apt-get source$wanted, for $dir" >&2
    rm -rf $work && mkdir -p $work/lists/partial $work/archives/partial || return 1
    # where the machine's own packages come from, as deb-src
    apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' | sort -u | while read -r uri suite from; do
        [ "$from" = main ] && printf 'deb-src %s%s %s main\n' "$(apt_key)" "$uri" "$suite"
    done >$work/sources.list
    apt="-o Dir::Etc::sourcelist=$PWD/$work/sources.list -o Dir::Etc::sourceparts=- -o Dir::State::lists=$PWD/$work/lists"
    apt="$apt -o Dir::Cache=$PWD/$work/archives -o APT::Sandbox::User=root"
    log=$PWD/$work/log
    # Once more without the security archive, of which not every mirror has all.
    # shellcheck disable=SC2086
    (cd $work && { apt-get $apt update && apt-get $apt source --download-only $wanted || {
        grep -v -e -security sources.list >rest && mv rest sources.list && apt-get $apt update && apt-get $apt source --download-only $wanted; }; }) >"$log" 2>&1 || {
        tail -n 20 "$log" >&2; echo "deps: the sources of$wanted could not be had; is there a network?" >&2; return 1; }
    for name in $wanted; do
        (cd $work && python3 -m tarfile -e "$(ls ${name}_*.orig.tar.* | grep -v '\.asc$')" unpacked && mv unpacked/* $name && keep_$name $name ..) >"$log" 2>&1 || {
            tail -n 20 "$log" >&2; echo "deps: the source of $name is not what it was" >&2; return 1; }
    done
    rm -rf $work
}
# What the Makefile compiles of each, FROM its source INTO build/cross: SQLite joined into one file; zlib without its own files
# (gz*.c); zstd's two halves.
keep_sqlite3() { (cd $1 && ./configure --disable-tcl && make sqlite3.c) && mkdir -p $2/sqlite && cp $1/sqlite3.h $1/sqlite3.c $2/sqlite; }
keep_zlib() { mkdir -p $2/zlib && (cd $1 && rm -f gz*.c) && cp $1/*.h $1/*.c $2/zlib; }
keep_libzstd() { mkdir -p $2/zstd && cp $1/lib/zstd.h $1/lib/zstd_errors.h $2/zstd && cp -r $1/lib/common $1/lib/compress $1/lib/decompress $2/zstd; }
apt_key() { local k; for k in debian ubuntu; do k=/usr/share/keyrings/$k-archive-keyring.gpg; [ ! -e $k ] || { printf '[signed-by=%s] ' $k; return; }; done; }
if $zig; then
    install_zig || exit 1
    [ "$(uname -s)" != Linux ] && [ "${1:-}" = --test ] || cross_sources || exit 1
    [ "${1:-}" != --test ] || shift
    for target in "$@"; do
        echo 'int main(void) { return 0; }' |
            ZIG_GLOBAL_CACHE_DIR=${ZIG_GLOBAL_CACHE_DIR:-build/zig/cache} build/zig/ziglang/zig cc -target "$target" -x c -c -o build/zig/probe.o - || {
            echo "deps: zig has no target $target" >&2; exit 1; }
    done
fi
