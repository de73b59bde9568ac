"""The packed copy from the command line: kept behind the first run, taken by the second, same output; --no-cache; a full
disk."""
import glob, os, shutil, subprocess
from clitest import *

ENV = {"SILL_PACKED_MIN_MIB": "0", "SILL_PACKED_MAX_MIB": "64"}


def run(*more, cache, **env):
    return sill("generate", "-m", STORIES, "-v", "--max-new-tokens", "20", *more, "Once upon a time", env={**ENV, "SILL_CACHE": cache, **env})


def copies(cache):
    return sorted(os.path.basename(f) for f in glob.glob(os.path.join(cache, "packed", "*")))


def test_second_run_takes_it():
    cache = path("one")
    plain = run("--no-cache", cache=cache)
    assert "packed" not in plain.err and not os.path.exists(cache), plain.err
    first, second = run(cache=cache), run(cache=cache)
    assert "weights kept" in first.err and "weights kept" not in second.err, first.err + second.err
    assert "from the copy" in second.err and "from the copy" not in first.err, first.err + second.err
    assert plain.out == first.out == second.out and len(plain.out) > 20
    assert len(copies(cache)) == 1 and copies(cache)[0].endswith(".packed")
    again = run("--no-cache", cache=cache)
    assert "packed" not in again.err and again.out == plain.out


def test_off_by_variable():
    cache = path("two")
    r = run(cache=cache, SILL_PACKED_MAX_MIB="0")
    assert not os.path.exists(cache) and "packed" not in r.err


def test_limit_is_for_the_file():
    """The copy of these few weights is a file of 4 MiB: under a smaller limit it is not taken either."""
    cache = path("limit")
    assert "weights kept" in run(cache=cache).err
    assert "from the copy" in run(cache=cache, SILL_PACKED_MAX_MIB="4").err
    for most in "1", "3":
        r = run(cache=cache, SILL_PACKED_MAX_MIB=most)
        assert "packed" not in r.err, r.err


def test_what_is_no_number_is_said():
    cache = path("words")
    for name, text, default in (("MAX", "abc", 4096), ("MAX", "-1", 4096), ("MAX", "8x", 4096), ("MIN", " 1", 16), ("MAX", "9" * 30, 4096)):
        r = run(cache=cache, **{f"SILL_PACKED_{name}_MIB": text})
        assert r.err.count(f"SILL_PACKED_{name}_MIB is '{text}', which is no number of MiB; taken as {default}") == 1, r.err
    assert "no number" not in run(cache=cache, SILL_PACKED_MAX_MIB="", SILL_PACKED_MIN_MIB="").err
    assert "SILL_PACKED" not in run("--no-cache", cache=cache, SILL_PACKED_MAX_MIB="abc").err


def test_no_home():
    r = run(cache="", XDG_CACHE_HOME="", HOME="")
    assert "packed" not in r.err
    r = run(cache="", XDG_CACHE_HOME=path("xdg"))
    assert len(copies(os.path.join(path("xdg"), "sill"))) == 1


def test_full_disk():
    """A file system with less room than the copy needs, in a mount namespace of its own."""
    where = path("disk")
    os.mkdir(where)
    script = f'mount -t tmpfs -o size=1m none "{where}" && "{SILL}" generate -m "{STORIES}" -v --max-new-tokens 20 "Once upon a time" && ls -A "{where}/packed"'
    p = subprocess.run(["unshare", "-rm", "sh", "-c", script], capture_output=True, env={**os.environ, **ENV, "SILL_CACHE": where}) \
        if shutil.which("unshare") else None
    if p is None or b"unshare" in p.stderr or b"mount" in p.stderr:
        raise Skip("this machine has no mount namespaces for users")
    assert p.returncode == 0 and b"kept" not in p.stderr, p.stderr
    assert p.stdout == run("--no-cache", cache=path("none")).out, p.stdout


for fn in (test_second_run_takes_it, test_off_by_variable, test_limit_is_for_the_file, test_what_is_no_number_is_said, test_no_home, test_full_disk):
    test(fn)
end()
