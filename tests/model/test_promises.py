#!/usr/bin/env python3
"""What is promised of the default model, through the program: peak memory, the perplexity of the reference, and what the
types made at load cost (docs/QUALITY.md).

The model is $SILL_MODEL or what `make run` fetched. WikiText-2 may not be shipped: the perplexity test reads
wikitext2/wiki.test.raw.gz from $SILL_DATA and is skipped without it.
"""
import gzip, json, os, subprocess, sys, tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SILL = os.path.join(ROOT, os.environ.get("BUILD", "build/release"), "sill")
NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
STORIES = os.path.join(ROOT, "tests/fixtures/stories260K/stories260K.gguf")


class Skip(Exception):
    pass


def model():
    cache = os.environ.get("SILL_CACHE")
    if not cache and sys.platform == "darwin":
        cache = os.path.expanduser("~/Library/Caches/sill")
    if not cache:
        cache = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "sill")
    path = os.environ.get("SILL_MODEL") or os.path.join(cache, "models", NAME)
    if not os.path.exists(path):
        raise Skip(f"needs {NAME} ($SILL_MODEL or tools/fetch_model.sh)")
    return path


def run(*args, stdin=None):
    done = subprocess.run([SILL, *args], input=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert done.returncode == 0, (args, done.returncode, done.stderr.decode(errors="replace")[-500:])
    return done.stdout


def peak_bytes(args):
    """Peak resident bytes of one run: a process of its own, whose only child is sill."""
    code = ("import resource,subprocess,sys\n"
            "r=subprocess.run(sys.argv[1:],stdout=subprocess.DEVNULL,stderr=subprocess.PIPE)\n"
            "assert r.returncode==0,r.stderr\n"
            "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)")
    out = subprocess.run([sys.executable, "-c", code, SILL, *args], stdout=subprocess.PIPE, check=True).stdout
    return int(out) * (1 if sys.platform == "darwin" else 1024)


def peak_memory():
    """Computed weights + KV + 5 % + 40 MiB, as `sill plan` states them before anything is loaded."""
    if os.environ.get("CONFIG", "release") != "release":
        raise Skip("a sanitizer takes memory of its own")
    for m, dtype in ((model(), "auto"), (model(), "f32"), (STORIES, "f32")):
        for size in (["--ctx", "512", "--max-sequences", "1"], ["--ctx", "512", "--max-sequences", "16"]):
            plan = json.loads(run("plan", "-m", m, "--dtype", dtype, *size, "--json"))
            limit = 1.05 * (plan["weight_bytes"] + plan["kv_bytes"]) + 40 * 2**20
            peak = peak_bytes(["generate", "-m", m, "--dtype", dtype, *size, "--max-new-tokens", "200", "--ignore-eos",
                               "Once upon a time there was"])
            print(f"  {os.path.basename(m)} {dtype} {size[3]}: peak {peak / 2**20:.1f} MiB of {limit / 2**20:.1f}")
            assert peak <= limit, (m, dtype, size, peak, limit)


def peak_memory_of_all_words():
    """The same for texts that hold nearly every token of the vocabulary: the embedding table's pages do not pile up."""
    if os.environ.get("CONFIG", "release") != "release":
        raise Skip("a sanitizer takes memory of its own")
    m = model()
    with tempfile.TemporaryDirectory() as d:
        rows, texts = os.path.join(d, "ids.jsonl"), os.path.join(d, "texts.jsonl")
        with open(rows, "w", encoding="utf-8") as f:
            for i in range(0, 49152, 128):
                json.dump({"ids": list(range(i, i + 128))}, f)
                f.write("\n")
        with open(texts, "wb") as f:
            f.write(run("detokenize", rows, "-m", m, "--json"))
        size = ["--ctx", "160", "--max-sequences", "1"]
        plan = json.loads(run("plan", "-m", m, *size, "--json"))
        limit = 1.05 * (plan["weight_bytes"] + plan["kv_bytes"]) + 40 * 2**20
        peak = peak_bytes(["score", texts, "--text", "text", "-m", m, *size, "-o", os.path.join(d, "out.jsonl")])
        print(f"  peak {peak / 2**20:.1f} MiB of {limit / 2**20:.1f}")
        assert peak <= limit, (peak, limit)


def perplexities(m, dtypes):
    """Of the first four windows of 512 tokens of WikiText-2's raw test text, which M's tokenizer cuts; one for each type."""
    data = os.environ.get("SILL_DATA")
    path = os.path.join(data or "", "wikitext2/wiki.test.raw.gz")
    if not data or not os.path.exists(path):
        raise Skip("not shipped: WikiText-2 (SILL_DATA)")
    with gzip.open(path, "rb") as f:
        text = f.read(20000)
    with tempfile.TemporaryDirectory() as d:
        rows = os.path.join(d, "rows.jsonl")
        with open(rows, "w", encoding="utf-8") as f:
            json.dump({"text": text.decode("utf-8", "ignore")}, f)
        ids = json.loads(run("tokenize", rows, "--text", "text", "-m", m, "--json"))["ids"][:2048]
        with open(rows, "w", encoding="utf-8") as f:
            json.dump({"ids": ids}, f)
        cut = run("detokenize", rows, "-m", m, "--json")
        back = json.loads(cut)["text"]
        with open(rows, "w", encoding="utf-8") as f:
            json.dump({"text": back}, f)
        got = [json.loads(run("perplexity", rows, "--text", "text", "-m", m, "--dtype", dtype, "--ctx", "512", "--stride", "512",
                              "--no-cache", "--json")) for dtype in dtypes]
    assert all(g["n_tokens"] == 4 * 511 for g in got), got
    return [g["perplexity"] for g in got]


def perplexity_of_the_reference():
    """transformers in f32 on the dequantized weights: 29.982 on the first four windows of 512 tokens."""
    [got] = perplexities(model(), ["f32"])
    print(f"  perplexity {got:.5f}, transformers 29.982")
    assert abs(got - 29.982) < 2e-3, got


def types_made_at_load():
    """Of the dequantized weights (gguf-py's), q8 costs at most 1 % of perplexity and int8 at most 2 %."""
    m, python = model(), os.path.join(ROOT, "build/venv/bin/python")
    if not os.environ.get("SILL_DATA"):
        raise Skip("not shipped: WikiText-2 (SILL_DATA)")
    if not os.path.exists(python):
        raise Skip("needs gguf in build/venv (tools/deps.sh --test)")
    with tempfile.TemporaryDirectory() as d:
        floats = os.path.join(d, "f32.gguf")
        subprocess.run([python, os.path.join(ROOT, "bench/quality/float_gguf.py"), m, floats], check=True, stdout=subprocess.DEVNULL)
        base, *others = perplexities(floats, ["f32", "q8", "int8"])
    for name, got, most in zip(("q8", "int8"), others, (1, 2)):
        loss = 100 * (got / base - 1)
        print(f"  {name}: perplexity {got:.4f} against {base:.4f}, {loss:+.2f} % of {most} % allowed")
        assert -1 < loss <= most, (name, got, base)


bad = 0
for test in (peak_memory, peak_memory_of_all_words, perplexity_of_the_reference, types_made_at_load):
    if len(sys.argv) > 1 and sys.argv[1] != test.__name__:
        continue
    try:
        test()
        print("PASS", test.__name__)
    except Skip as e:
        print(f"SKIP {test.__name__}: {e}")
    except Exception as e:
        bad = 1
        print(f"FAIL {test.__name__}: {type(e).__name__}: {e}")
sys.exit(bad)
