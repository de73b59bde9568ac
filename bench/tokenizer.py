#!/usr/bin/env python3
"""Tokenizer speed beside tiktoken and tokenizers, in one run on one thread: MB/s of text, and ratios.

    BUILD=build/release build/venv/bin/python bench/tokenizer.py DATA_DIR [SECONDS]

DATA_DIR as for tools/fixtures/make_tokenizer.py. GPT-2's vocabulary; the texts are the books (English) and the 37
languages. The ways take turns for three rounds; the best pass of each counts. All times are CPU time of the process, but for those of several threads at the text's lines.
"""
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ["RAYON_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.chdir(Path(__file__).resolve().parents[1])
spec = importlib.util.spec_from_file_location("make_tokenizer", "tools/fixtures/make_tokenizer.py")
make = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make)


def best(run, text, seconds):
    result, start = 1e9, time.process_time()
    while time.process_time() - start < seconds:
        t = time.process_time()
        run(text)
        result = min(result, time.process_time() - t)
    return len(text.encode()) / result / 1e6


def main():
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 3.0
    build = os.environ.get("BUILD", "build/release")
    docs = list(make.documents(sys.argv[1]))
    texts = {"English": "".join(t for n, t in docs if n.startswith("book")),
             "37 languages": "".join(t for n, t in docs if n.startswith("udhr"))}
    t, tik = make.gpt2()
    print("| text | sill MB/s | tiktoken | tokenizers | sill / tiktoken |\n|---|---|---|---|---|")
    scaling = {}
    for name, text in texts.items():
        with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8", newline="") as f:
            f.write(text)
            f.flush()
            ours, theirs, rust = 0.0, 0.0, 0.0
            for _ in range(3):
                theirs = max(theirs, best(tik.encode_ordinary, text, seconds / 3))
                rust = max(rust, best(lambda s: t.encode(s, add_special_tokens=False), text, seconds / 3))
                out = subprocess.run([f"{build}/bench/tokenizer", "tests/fixtures/tokenizer/gpt2/vocab.bpe", f.name,
                                      str(seconds / 3)], capture_output=True, text=True, check=True).stdout
                all_rows = list(map(json.loads, out.splitlines()))
                rows = {r["test"]: r for r in all_rows}
                ours = max(ours, rows["text"]["mb_per_s"])
                for r in all_rows:
                    if r["test"] == "lines":
                        scaling[name, r["threads"]] = max(scaling.get((name, r["threads"]), 0), r["mb_per_s"])
        print(f"| {name} | {ours:.1f} | {theirs:.1f} | {rust:.1f} | {ours / theirs:.1f} |", flush=True)
    print("\n| lines of | threads | MB/s by the clock | of one thread |\n|---|---|---|---|")
    for (name, k), rate in scaling.items():
        print(f"| {name} | {k} | {rate:.1f} | {rate / scaling[name, 1]:.2f} |")
    slow = max((r for r in rows.values() if r.get("bytes") == 1 << 20), key=lambda r: r["seconds"])
    print(f"\nloading: {rows['load']['seconds'] * 1e3:.1f} ms; slowest megabyte: {slow['test']}, {slow['seconds'] * 1e3:.0f} ms")


main()
