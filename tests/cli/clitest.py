"""What the tests of the command line share: running sill, counting, and a place for files."""
import csv, io, json, os, shutil, subprocess, sys, tempfile, traceback

BUILD = os.environ.get("BUILD", "build/release")
SILL = os.path.abspath(os.path.join(BUILD, "sill"))
FIXTURES = os.path.abspath(os.path.join(os.path.dirname(__file__), "../fixtures"))
STORIES = os.path.join(FIXTURES, "stories260K/stories260K.gguf")
work = tempfile.TemporaryDirectory(prefix="sill_cli_")
failed = 0
csv.field_size_limit(1 << 30)


class Skip(Exception):
    pass


class Result:
    def __init__(self, p):
        self.status, self.out, self.err = p.returncode, p.stdout, p.stderr.decode("utf-8", "replace")

    def text(self):
        return self.out.decode("utf-8")

    def rows(self):
        return list(csv.DictReader(io.StringIO(self.text(), newline="")))

    def objects(self):
        return [json.loads(line) for line in self.text().split("\n") if line]


def fake_metal(env):
    """The fake Metal keeps freed objects, to tell their use: what a sanitizer would call leaks. Its own tests count them."""
    return {"ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "") + ":detect_leaks=0"} if "SILL_METAL_LIBRARY" in env else {}


def sill(*args, status=0, stdin=b"", env=None, cwd=None):
    """Runs sill and checks its exit status (None: any)."""
    p = subprocess.run([SILL, *map(str, args)], input=stdin, capture_output=True, timeout=300, cwd=cwd,
                       env={**os.environ, **(env or {}), **fake_metal(env or {})})
    r = Result(p)
    if status is not None:
        assert r.status == status, f"sill {' '.join(map(str, args))[:300]}: status {r.status}, expected {status}\n{r.err[-1500:]}"
    return r


def path(name):
    return os.path.join(work.name, name)


def write(name, data):
    with open(path(name), "wb") as f:
        f.write(data if isinstance(data, bytes) else data.encode("utf-8"))
    return path(name)


def read(name):
    with open(path(name), "rb") as f:
        return f.read()


def faults():
    """The environment that puts faults.c under a program."""
    so = path("faults.so")
    if not os.path.exists(so):
        if sys.platform != "linux":
            raise Skip("this machine has no LD_PRELOAD")
        if os.environ.get("CONFIG", "release") in ("sanitize", "tsan"):
            raise Skip("a sanitizer wants to be loaded first")
        cc = shutil.which("gcc") or shutil.which("cc")
        source = os.path.join(os.path.dirname(os.path.abspath(__file__)), "faults.c")
        subprocess.run([cc, "-O1", "-shared", "-fPIC", "-w", "-o", so, source, "-ldl"], check=True)
    return {"LD_PRELOAD": so}


def test(fn):
    global failed
    try:
        fn()
        print("PASS", fn.__name__, flush=True)
    except Skip as e:
        print(f"SKIP {fn.__name__}: {e}", flush=True)
    except Exception as e:  # a test that dies is a failed test
        failed += 1
        where = traceback.extract_tb(e.__traceback__)
        lines = ", ".join(str(f.lineno) for f in where if not f.filename.endswith("clitest.py"))
        print(f"  line {lines}: {type(e).__name__}: {str(e)[:2000]}\nFAIL {fn.__name__}", flush=True)


def end():
    work.cleanup()
    sys.exit(failed > 0)
