"""What a model is worth, measured by sill itself on published data: the numbers of docs/QUALITY.md.

    bench/quality/quality.py wikitext|lambada|lastwords|hellaswag|polarity|codebook DATA [--sill build/release/sill] [--limit N] [--work DIR]
                             [-- SILL OPTIONS]

DATA holds wikitext2/wiki.test.raw.gz, lambada/lambada_test.jsonl.gz (as OpenAI prepared it), hellaswag/hellaswag_val_full.txt.bz2
(klosax/hellaswag_text_data), sentiment/rt-polarity.{pos,neg}.gz. Options after -- go to sill (-m MODEL, --dtype, --threads).
With --work DIR rows and results are kept there, and the same command goes on where it was ended.

wikitext: perplexity per token of the raw test split as one text; windows of 1024 tokens (--ctx) that move on by 512.
lambada:  share of passages whose last word is what greedy decoding says, all of its tokens, as in
          lm-evaluation-harness's lambada_openai.
lastwords: perplexity of LAMBADA's last words given the passages, by `sill score --context`.
hellaswag: share of tasks of HellaSwag's validation set whose right ending is the likeliest of four given the context, by
          `sill score --context`: acc by the sum of log-probabilities, acc_norm by the sum for a character, as
          lm-evaluation-harness counts. --every N: only each N-th task, from the first.
polarity: share of film-review sentences that zero-shot classification labels as their reviewers did.
codebook: the same for codebooks, with and without an instruction and examples (the last sentences of the data), in the chat
          template and plain, and Krippendorff's alpha between their labels. Sentences 301 to 800 (--limit: as many behind the
          first 300, on which the default prompt was chosen).
"""
import argparse, bz2, gzip, json, math, os, subprocess, sys, tempfile, time

root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def read(path):
    with gzip.open(path, "rt", encoding="utf-8", newline="\n") as f:
        return f.read()


def write_rows(path, rows):
    with open(path, "w", encoding="utf-8") as f:
        for row in rows:
            f.write(json.dumps(row, ensure_ascii=False) + "\n")


def rows_of(path):
    with open(path, encoding="utf-8") as f:
        return [json.loads(line) for line in f]


def sill(args, *words):
    options = args.options
    if words[0] == "tokenize":  # which has a model, and nothing that computes
        options = [o for i, o in enumerate(options) if o in ("-m", "--model") or options[i - 1:i] in (["-m"], ["--model"])]
    command = [args.sill, *words, *options]
    print("$", " ".join(os.path.basename(w) if "/" in w else w for w in command), flush=True)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"sill ended with status {done.returncode}")
    return done.stdout


def wikitext(args, work):
    text = read(f"{args.data}/wikitext2/wiki.test.raw.gz")
    if args.limit:
        text = "".join(text.splitlines(keepends=True)[:args.limit])
    with open(f"{work}/wiki.test.raw.txt", "w", encoding="utf-8", newline="") as f:
        f.write(text)
    windows = [] if "--ctx" in args.options else ["--ctx", "1024", "--stride", "512"]
    out = json.loads(sill(args, "perplexity", f"{work}/wiki.test.raw.txt", "--json", *windows))
    print(f"WikiText-2 raw test: perplexity {out['perplexity']:.3f} over {out['n_tokens']} tokens")


def lambada(args, work):
    rows = []
    for line in read(f"{args.data}/lambada/lambada_test.jsonl.gz").splitlines():
        prompt, word = json.loads(line)["text"].rsplit(" ", 1)
        rows.append({"prompt": prompt, "target": " " + word})
    rows = rows[:args.limit or None]
    write_rows(f"{work}/lambada.jsonl", rows)
    sill(args, "tokenize", f"{work}/lambada.jsonl", "--text", "target", "-o", f"{work}/targets.jsonl")
    targets = [row["ids"] for row in rows_of(f"{work}/targets.jsonl")]
    longest = max(map(len, targets))
    sill(args, "generate", "-f", f"{work}/lambada.jsonl", "--text", "prompt", "--max-new-tokens", str(longest), "--ctx", "512",
         "-o", f"{work}/said.jsonl")
    said = [row["ids"] for row in rows_of(f"{work}/said.jsonl")]
    assert len(said) == len(targets) == len(rows)
    right = sum(s[:len(t)] == t for s, t in zip(said, targets))
    print(f"LAMBADA: {right} of {len(rows)} last words, accuracy {right / len(rows):.4f}")


def lastwords(args, work):
    rows = []
    for line in read(f"{args.data}/lambada/lambada_test.jsonl.gz").splitlines():
        passage, word = json.loads(line)["text"].rsplit(" ", 1)
        rows.append({"passage": passage, "word": " " + word})
    rows = rows[:args.limit or None]
    write_rows(f"{work}/lambada.jsonl", rows)
    sill(args, "score", f"{work}/lambada.jsonl", "--context", "passage", "--text", "word", "-o", f"{work}/scores.jsonl")
    sums = [row["sum_logprob"] for row in rows_of(f"{work}/scores.jsonl")]
    assert len(sums) == len(rows)
    print(f"LAMBADA: perplexity of {len(rows)} last words {math.exp(-sum(sums) / len(sums)):.3f}")


def hellaswag(args, work):
    with bz2.open(f"{args.data}/hellaswag/hellaswag_val_full.txt.bz2", "rt", encoding="utf-8", newline="\n") as f:
        lines = f.read().split("\n")
    tasks = [lines[i:i + 6] for i in range(0, len(lines) - 5, 6)][::args.every][:args.limit or None]
    write_rows(f"{work}/hellaswag.jsonl", [{"context": t[0], "ending": " " + e} for t in tasks for e in t[2:]])
    sill(args, "score", f"{work}/hellaswag.jsonl", "--context", "context", "--text", "ending", "-o", f"{work}/scores.jsonl")
    sums = [row["sum_logprob"] for row in rows_of(f"{work}/scores.jsonl")]
    assert len(sums) == 4 * len(tasks)
    right = {"acc": 0, "acc_norm": 0}
    for i, t in enumerate(tasks):
        plain = sums[4 * i:4 * i + 4]
        norm = [s / len(e) for s, e in zip(plain, t[2:])]
        right["acc"] += plain.index(max(plain)) == int(t[1])
        right["acc_norm"] += norm.index(max(norm)) == int(t[1])
    for name, n in right.items():
        print(f"HellaSwag: {n} of {len(tasks)} tasks, {name} {n / len(tasks):.4f}")


def sentences(args):
    rows = []
    pos, neg = (read(f"{args.data}/sentiment/rt-polarity.{side}.gz").splitlines() for side in ("pos", "neg"))
    for i, (p, n) in enumerate(zip(pos, neg)):
        rows += [{"id": 2 * i, "gold": "positive", "text": p.strip()}, {"id": 2 * i + 1, "gold": "negative", "text": n.strip()}]
    return rows


def polarity(args, work):
    rows = sentences(args)[:args.limit or None]
    write_rows(f"{work}/polarity.jsonl", rows)
    sill(args, "classify", f"{work}/polarity.jsonl", "--text", "text", "--labels", "negative,positive", "--all-probs",
         "-o", f"{work}/labels.jsonl")
    out = rows_of(f"{work}/labels.jsonl")
    assert len(out) == len(rows)
    for kind in ("norm", "raw", "calibrated"):
        labels = [max(o[f"probs_{kind}"], key=o[f"probs_{kind}"].get) for o in out]
        right = sum(label == o["gold"] for label, o in zip(labels, out))
        print(f"rt-polarity, --prob {kind}: {right} of {len(out)} sentences, accuracy {right / len(out):.4f} "
              f"({labels.count('positive')} called positive)")


def codebook(args, work):
    every = sentences(args)
    rows = every[300:300 + (args.limit or 500)]
    instruction = "Each text is a sentence from a film review. Say whether its author likes the film: negative or positive."
    coded = [dict(row) for row in rows]
    write_rows(f"{work}/rows.jsonl", rows)
    for name, told, n in (("zero", None, 0), ("zero_told", instruction, 0), ("five", None, 5), ("five_told", instruction, 5)):
        book = {"labels": ["negative", "positive"]}
        if told:
            book["instruction"] = told
        if n:
            book["examples"] = [{"text": row["text"], "label": row["gold"]} for row in every[-n:]]
        with open(f"{work}/{name}.json", "w", encoding="utf-8") as f:
            json.dump(book, f, ensure_ascii=False, indent=1)
        for form in ("chat", "no-chat"):
            sill(args, "classify", f"{work}/rows.jsonl", "--text", "text", "--codebook", f"{work}/{name}.json", f"--{form}", "--all-probs", "-q",
                 "-o", f"{work}/{name}.{form}.jsonl")
            out = rows_of(f"{work}/{name}.{form}.jsonl")
            said = []
            for kind in ("norm", "calibrated"):
                labels = [max(o[f"probs_{kind}"], key=o[f"probs_{kind}"].get) for o in out]
                for row, label in zip(coded, labels):
                    row[f"{name} {form} {kind}"] = label
                said.append(f"--prob {kind} {sum(a == row['gold'] for a, row in zip(labels, rows)) / len(rows):.4f} ({labels.count('positive')} positive)")
            print(f"{name}, --{form}: {', '.join(said)}")
    write_rows(f"{work}/coded.jsonl", coded)
    for a, b in (("zero chat norm", "five chat norm"), ("zero chat norm", "five_told chat norm"), ("zero chat norm", "five_told no-chat calibrated"),
                 ("zero chat norm", "zero no-chat calibrated")):
        done = subprocess.run([args.sill, "agree", f"{work}/coded.jsonl", "--coders", f"{a},{b}", "--json"], stdout=subprocess.PIPE, check=True)
        alpha = json.loads(done.stdout)["agreement"]["krippendorff_alpha"]
        print(f"alpha of {a} and {b}: {alpha}")


def main():
    words, options = sys.argv[1:], []
    if "--" in words:
        words, options = words[:words.index("--")], words[words.index("--") + 1:]
    a = argparse.ArgumentParser(usage=__doc__)
    a.add_argument("what", choices=("wikitext", "lambada", "lastwords", "hellaswag", "polarity", "codebook"))
    a.add_argument("data")
    a.add_argument("--sill", default=f"{root}/build/release/sill")
    a.add_argument("--limit", type=int, default=0, help="only the first N lines or rows")
    a.add_argument("--every", type=int, default=1, help="hellaswag: only each N-th task")
    a.add_argument("--work", help="where rows and results are kept (default: nowhere)")
    args = a.parse_args(words)
    args.options = options
    start = time.time()
    measure = {"wikitext": wikitext, "lambada": lambada, "lastwords": lastwords, "hellaswag": hellaswag, "polarity": polarity, "codebook": codebook}[args.what]
    if args.work:
        os.makedirs(args.work, exist_ok=True)
        measure(args, args.work)
    else:
        with tempfile.TemporaryDirectory() as work:
            measure(args, work)
    print(f"{time.time() - start:.0f} s")


if __name__ == "__main__":
    main()
