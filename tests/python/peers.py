"""What the peers_*.py share: the package from this clone with the library of $BUILD, the default model, texts."""
import csv
import glob
import gzip
import json
import os
import shutil
import sys
import tempfile
import time
import traceback

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
FIXTURES = os.path.join(ROOT, "tests/fixtures")
BUILD = os.environ.get("BUILD", "build/release")
CACHE = os.environ.get("SILL_CACHE") or os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "sill")
SMOLLM2 = os.path.join(CACHE, "models/SmolLM2-135M-Instruct.Q4_1.gguf")
# public corpora (sentiment/, speeches/, lambada/, ...); without it the excerpts in examples/ do
DATA = os.environ.get("SILL_DATA") or ""
work = tempfile.TemporaryDirectory(prefix="sill_peers_")


def load_sill():
    """The package of the clone, without installing it."""
    sys.path.insert(0, os.path.join(ROOT, "python/backend"))
    import abi
    place = os.path.join(work.name, "package")
    shutil.copytree(os.path.join(ROOT, "python/sill"), os.path.join(place, "sill"), ignore=shutil.ignore_patterns("*.so", "*.dylib", "__pycache__"))
    with open(os.path.join(ROOT, "include/sill.h"), encoding="utf-8") as f, open(os.path.join(place, "sill/_abi.py"), "w", encoding="utf-8") as out:
        out.write(abi.generate(f.read()))
    os.environ["SILL_LIBRARY"] = os.path.abspath(os.path.join(ROOT, BUILD, "libsill.dylib" if sys.platform == "darwin" else "libsill.so"))
    os.environ.setdefault("SILL_FIRST_USE_CHECK", "0")
    sys.path.insert(0, place)
    import sill
    return sill


def _column(path, name):
    with open(os.path.join(ROOT, path), encoding="utf-8", newline="") as f:
        return [r[name] for r in csv.DictReader(f)]


def evenly(items, n):
    """N of them, from the whole."""
    return [items[i * len(items) // n] for i in range(min(n, len(items)))]


def reviews(n):
    """Sentences of film reviews: rt-polarity (DATA/sentiment), else examples/reviews.csv."""
    files = sorted(glob.glob(os.path.join(DATA, "sentiment/rt-polarity.*.gz"))) if DATA else []
    texts = []
    for path in files:
        with gzip.open(path, "rt", encoding="utf-8") as f:
            texts += [line.strip() for line in f]
    return evenly([x for x in texts or _column("examples/reviews.csv", "text") if len(x.split()) > 3], n)


def speeches(n):
    """Paragraphs of presidents' speeches (DATA/speeches), else examples/speeches.csv."""
    path = os.path.join(DATA, "speeches/us_presidential.jsonl.gz")
    texts = []
    if DATA and os.path.exists(path):
        with gzip.open(path, "rt", encoding="utf-8") as f:
            texts = [p.strip() for line in f for p in json.loads(line)["text"].split("\n\n")]
    return evenly([" ".join(x.split()) for x in texts or _column("examples/speeches.csv", "text") if len(x.split()) > 20], n)


def main(tests):
    bad = 0
    for fn in tests:
        start = time.monotonic()
        try:
            said = fn()
            print(f"PASS {fn.__name__}{': ' + said if said else ''} ({time.monotonic() - start:.0f} s)", flush=True)
        except Exception as e:
            bad += 1
            lines = ", ".join(str(f.lineno) for f in traceback.extract_tb(e.__traceback__))
            print(f"  line {lines}: {type(e).__name__}: {str(e)[:2000]}\nFAIL {fn.__name__}", flush=True)
    work.cleanup()
    sys.exit(bad > 0)


def skip(name, reason):
    print(f"SKIP {name}: {reason}")
    sys.exit(0)
