#!/usr/bin/env python3
"""`sill score` and `sill embed` against transformers on the same weights in f32, with the default model (SmolLM2-135M-Instruct,
whose GGUF transformers dequantizes): HellaSwag's endings given their contexts (12 tasks), last words given the text in front of
them as LAMBADA asks for them, and embeddings. Every log-probability within 1e-3.

    BUILD=build/release python3 tests/task/live_score.py   (needs torch, transformers, gguf; `make test-all` runs it)

LAMBADA itself is not in the repository (CC BY 4.0, passages of novels): LAMBADA=lambada_test.jsonl[.gz] names it; without it the last
words are those of speeches in the public domain (examples/speeches.csv). HELLASWAG=hellaswag_val_full.txt[.bz2] names the whole
validation set in the same form. ITEMS=N (12): so many passages and tasks, evenly from the whole.
"""
import bz2, csv, gzip, json, math, os, subprocess, sys, tempfile

try:
    import numpy as np
    import torch
    from tokenizers import pre_tokenizers
    from transformers import AutoModelForCausalLM, AutoTokenizer, logging
except ImportError as e:
    print(f"SKIP live_score: {e}")
    sys.exit(0)

logging.set_verbosity_error()
logging.disable_progress_bar()
torch.set_grad_enabled(False)
HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.join(HERE, "../..")
SILL = os.path.abspath(os.path.join(os.environ.get("BUILD", "build/release"), "sill"))
CACHE = os.environ.get("SILL_CACHE") or os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "sill")
MODEL = os.path.join(CACHE, "models/SmolLM2-135M-Instruct.Q4_1.gguf")
ITEMS = int(os.environ.get("ITEMS", 12))
work = tempfile.TemporaryDirectory(prefix="sill_live_score_")
failed = 0


def test(fn):
    global failed
    try:
        print(f"PASS {fn.__name__}: {fn()}", flush=True)
    except Exception as e:  # a test that dies is a failed test
        failed += 1
        print(f"  {type(e).__name__}: {str(e)[:1500]}\nFAIL {fn.__name__}", flush=True)


def sill(command, rows, *args):
    path = os.path.join(work.name, "rows.jsonl")
    with open(path, "w", encoding="utf-8") as f:
        f.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    p = subprocess.run([SILL, command, path, "--json", "-m", MODEL, "--dtype", "f32", *args], capture_output=True)
    assert p.returncode == 0, p.stderr.decode()[-1500:]
    out = [json.loads(line) for line in p.stdout.decode("utf-8").split("\n") if line]
    assert len(out) == len(rows)
    return out


def ids_of(text):
    return tokenizer(text, add_special_tokens=False).input_ids


def evenly(items):
    return items[::max(1, len(items) // ITEMS)][:ITEMS]


def compare(rows):
    """Token ids by lm-evaluation-harness's rule; log-probabilities by a pass of their own for each row. The largest difference."""
    worst, n = 0.0, 0
    out = sill("score", rows, "--context", "c", "--text", "t", "--per", "token")
    for row, o in zip(rows, out):
        context = row["c"].rstrip()
        whole, n_context = ids_of(row["c"] + row["t"]), len(ids_of(context))
        assert o["ids"] == whole[n_context:], (row, o["ids"], whole[n_context:])
        lp = torch.log_softmax(model(torch.tensor([whole]), logits_to_keep=len(whole) - n_context + 1).logits[0].double(), -1)
        want = [float(lp[i - n_context, whole[i]]) for i in range(n_context, len(whole))]
        worst = max([worst, *(abs(a - b) for a, b in zip(o["logprobs"], want, strict=True))])
        assert abs(o["sum_logprob"] - sum(want)) < 1e-3 * len(want)
        n += len(want)
    assert worst < 1e-3, worst
    return out, f"{len(rows)} rows, {n} tokens, log-probabilities within {worst:.1e}"


def hellaswag_as_transformers():
    path = os.environ.get("HELLASWAG") or os.path.join(ROOT, "tests/fixtures/hellaswag/val_12.txt")
    with (bz2.open if path.endswith(".bz2") else open)(path, "rt", encoding="utf-8", newline="\n") as f:
        lines = f.read().split("\n")
    tasks = evenly([lines[i:i + 6] for i in range(0, len(lines) - 5, 6)])
    assert len(tasks) >= 12
    out, told = compare([{"c": t[0], "t": " " + e} for t in tasks for e in t[2:]])
    sums = [o["sum_logprob"] / len(o["t"]) for o in out]
    right = sum(max(range(4), key=lambda k: sums[4 * i + k]) == int(t[1]) for i, t in enumerate(tasks))
    return f"{told}; {right} of {len(tasks)} right"


def last_words_as_transformers():
    path = os.environ.get("LAMBADA")
    if path:
        with (gzip.open if path.endswith(".gz") else open)(path, "rt", encoding="utf-8") as f:
            texts = evenly([json.loads(line)["text"] for line in f])
    else:
        with open(os.path.join(ROOT, "examples/speeches.csv"), encoding="utf-8", newline="") as f:
            texts = [r["text"] for r in csv.DictReader(f)]
        texts = [" ".join(t.split()[:90]) for t in texts if len(t.split()) > 20][:12]
    assert len(texts) >= 8
    rows = [dict(zip("ct", (t.rsplit(" ", 1)[0], " " + t.rsplit(" ", 1)[1]))) for t in texts]
    return ("LAMBADA: " if path else "speeches: ") + compare(rows)[1]


def embeddings_as_transformers():
    with open(os.path.join(ROOT, "examples/reviews.csv"), encoding="utf-8", newline="") as f:
        texts = [r["text"] for r in csv.DictReader(f)][:8]
    worst = 0.0
    for pooling in ("mean", "last"):
        out = sill("embed", [{"t": t} for t in texts], "--text", "t", "--pooling", pooling)
        for text, o in zip(texts, out):
            h = model.model(torch.tensor([ids_of(text)])).last_hidden_state[0].double().numpy()
            want = h.mean(0) if pooling == "mean" else h[-1]
            worst = max(worst, float(np.abs(np.array(o["embedding"]) - want).max() / np.abs(want).max()))
    assert worst < 1e-4, worst
    return f"{2 * len(texts)} vectors, within {worst:.1e} of the largest value"


if not os.path.exists(MODEL):
    print(f"SKIP live_score: no {MODEL}; run tools/fetch_model.sh")
    sys.exit(0)
folder, name = os.path.split(MODEL)
model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32).eval()
tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
# What transformers makes of a GGUF forgets SmolLM2's first step, which sets numbers apart one by one, "\u00bd" too (its own tokenizer.json has it).
tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                                                     pre_tokenizers.ByteLevel(add_prefix_space=False)])
for t in (hellaswag_as_transformers, last_words_as_transformers, embeddings_as_transformers):
    test(t)
sys.exit(failed > 0)
