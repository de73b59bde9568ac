"""The job of a social scientist, from file to file: a table of sentences labelled by a model with a classification head, by sill and
by transformers, taking turns (docs/SPEED.md, The sentiment job).

    bench/sentiment.py TABLE.csv [--rows 600] [--rounds 2] [--tests jobs,ladder,parts,ragged] [--kinds f32,bf16,q8]

TABLE.csv has a column text (bench/quality/corpora.py makes reviews.csv of the sentence polarity dataset); the first --rows are
taken. The model is GPT-2 small's shape with random weights and a head (bench/peers/models.py DIR small --head), the same for all.

jobs    rows/s of the whole job: sill from the start of its process to the last byte of the output, journal and record among it;
        transformers without imports and loading: one text at a time in f32 (as one writes it first), and padded in the best of
        1 to 64 texts of about the same length, each type
ladder  what each step brings sill: one text after the other on one thread, many at once (ragged, nothing padded), all threads, 8 bits
parts   where a job's time goes: of transformers by clocks around its steps, of sill by samples (perf) of the function at work
ragged  tokens/s of texts of all lengths as they come, and of texts cut to one length, the same number of tokens in all
"""
import argparse, csv, json, os, re, subprocess, sys, tempfile, time

here = os.path.dirname(os.path.abspath(__file__))
root = os.path.dirname(here)
sys.path.insert(0, f"{here}/peers")
import compare


def first_rows(path, n):
    with open(path, encoding="utf-8", newline="") as f:
        return [row for _, row in zip(range(n), csv.DictReader(f))]


def write_table(path, rows):
    with open(path, "w", encoding="utf-8", newline="") as f:
        w = csv.DictWriter(f, rows[0])
        w.writeheader()
        w.writerows(rows)


class Job:
    def __init__(self, args, work):
        self.args, self.work = args, work
        self.table, self.out = f"{work}/table.csv", f"{work}/out.csv"

    def model(self, kind):
        return f"{self.args.models}/small-head-{kind if kind == 'bf16' else 'f32'}"

    def command(self, kind, *more, table=None):
        return [f"{self.args.build}/sill", "classify", table or self.table, "--text", "text", "-m", self.model(kind), "--dtype", kind, "-o", self.out,
                "--overwrite", "-q", "--threads", str(self.args.threads), *more]

    def sill(self, kind, *more, table=None):
        begun = time.perf_counter()
        subprocess.run(self.command(kind, *more, table=table), check=True)
        return time.perf_counter() - begun

    def results(self, path):
        """[(label, probability of the head's second label)]"""
        with open(path, encoding="utf-8", newline="") as f:
            return [(row["label"], float(row["prob_yes"])) for row in csv.DictReader(f)]


def peer(job, kind):
    e = compare.Engine(f"transformers {kind}", [job.args.python, f"{here}/peers/table.py", job.model(kind), kind, str(job.args.threads), job.table],
                       job.args.threads)
    print(f"  {e.ready['ready']}", flush=True)
    return e


def best_batch(job, kind, e):
    known = dict(b.split("=") for b in job.args.batch.split(",") if b)
    if kind in known:
        return int(known[kind])
    few = min(job.args.rows, 96)
    e.run(8, few, job.out + ".peer")
    took = {b: e.run(b, few, job.out + ".peer")["seconds"] for b in (1, 2, 4, 8, 16, 32, 64)}
    print(f"  {e.name}: rows/s of batches " + ", ".join(f"{b} {few / t:.1f}" for b, t in took.items()), flush=True)
    return min(took, key=took.get)


def jobs(job, kinds):
    n, seen, steps, results = job.args.rows, {}, {}, {}
    peers = {kind: peer(job, kind) for kind in kinds}
    runs = []
    for kind in kinds:
        job.sill(kind)  # its packed weights are kept from now on
        runs.append((f"sill {kind}", lambda kind=kind: {"seconds": job.sill(kind)}, job.out))
    for kind, e in peers.items():
        batch = best_batch(job, kind, e)
        runs.append((f"transformers {kind}, batches of {batch}", lambda e=e, b=batch: e.run(b, n, job.out + ".peer"), job.out + ".peer"))
    if "f32" in peers:
        runs.append(("transformers f32, one at a time", lambda: peers["f32"].run(0, n, job.out + ".peer"), job.out + ".peer"))
    for _ in range(job.args.rounds):
        for name, run, out in runs:
            answer = run()
            print(f"    {name}: {answer['seconds']:.2f} s", flush=True)
            seen.setdefault(name, []).append(answer["seconds"])
            if min(seen[name]) == answer["seconds"]:
                steps[name] = answer.get("steps")
            results[name] = job.results(out)
    for e in peers.values():
        e.close()
    first = results[runs[0][0]]
    print(f"{n} rows ({sum(label == 'yes' for label, _ in first)} of them labelled yes); rows/s, best of {job.args.rounds}; beside {runs[0][0]}")
    for name, times in seen.items():
        same = sum(a[0] == b[0] for a, b in zip(results[name], first))
        off = max(abs(a[1] - b[1]) for a, b in zip(results[name], first))
        print(f"  {name:36} {n / min(times):8.1f}  spread {max(times) / min(times) - 1:4.0%}  same labels {same}, probabilities within {off:.1e}"
              + (f"  ({', '.join(f'{k} {v / min(times):.1%}' for k, v in steps[name].items())})" if steps[name] else ""))
    for name, times in seen.items():
        if name.startswith("sill"):
            print(f"  {name}: " + ", ".join(f"{min(t) / min(times):.2f} x {other}" for other, t in seen.items() if not other.startswith("sill")))


def ladder(job, kinds):
    one = ("--threads", "1")
    steps = [("f32, one text at a time, 1 thread", "f32", (*one, "--max-sequences", "1")), ("f32, ragged batches, 1 thread", "f32", one),
             ("f32, ragged batches", "f32", ())] + [(f"{k}, ragged batches", k, ()) for k in kinds if k != "f32"]
    best, n = {}, job.args.rows
    for _ in range(job.args.rounds):
        for name, kind, more in steps:
            took = job.sill(kind, *more)
            best[name] = min(took, best.get(name, took))
    print(f"{n} rows; rows/s, best of {job.args.rounds}, {job.args.threads} threads unless said")
    for name, took in best.items():
        print(f"  {name:36} {n / took:8.1f}")


# ---- where sill's time goes

PARTS = (("products, attention", r"src/backend/"), ("other work of the model", r"src/(engine|model|task)/"), ("tokenizing", r"src/tokenizer/"),
         ("reading and writing tables", r"src/corpus/"), ("journal, digests, record", r"(cli/|src/base/hash|sqlite)"))


def owners(build):
    """{function: its object file}; a name that stands in several is left to the first."""
    out = {}
    for folder, _, files in os.walk(build):
        if not folder.startswith((f"{build}/src", f"{build}/cli")):
            continue
        for f in sorted(files):
            if f.endswith(".o"):
                path = os.path.join(folder, f)
                for line in subprocess.run(["nm", path], capture_output=True, text=True).stdout.splitlines():
                    m = re.fullmatch(r"[0-9a-f]+ [tTwW] (\S+)", line)
                    if m:
                        out.setdefault(m[1], os.path.relpath(path, build))
    return out


def parts(job, kinds):
    owner = owners(job.args.build)
    for kind in kinds:
        data = f"{job.work}/perf.data"
        done = subprocess.run(["perf", "record", "-q", "-e", "cpu-clock", "-o", data, "--", *job.command(kind)], capture_output=True, text=True)
        if done.returncode:
            print(f"  parts of sill left out: perf: {done.stderr.strip()[:200]}")
            return
        lines = subprocess.run(["perf", "script", "-i", data, "-F", "ip,sym,dso"], capture_output=True, text=True).stdout.splitlines()
        counts, total = {}, 0
        for line in lines:
            m = re.fullmatch(r"\s*[0-9a-f]+ (.*) \((.*)\)\s*", line)
            if not m:
                continue
            place = owner.get(m[1].split("+")[0], m[2])
            part = next((name for name, pattern in PARTS if re.search(pattern, place)), None)
            if not part:
                part = "the kernel" if "kernel" in m[2] else "libraries and the rest"
            counts[part] = counts.get(part, 0) + 1
            total += 1
        print(f"  sill {kind}, {total} samples: " + ", ".join(f"{k} {v / total:.1%}" for k, v in sorted(counts.items(), key=lambda x: -x[1])))


# ---- ragged and equal lengths

def ragged(job, kinds):
    """Words of the table as one stream, cut into texts as long as the table's (in words), and all into the same length."""
    rows = first_rows(job.args.table, job.args.rows)
    lengths = [max(1, len(row["text"].split())) for row in rows]
    words = [w for row in rows for w in row["text"].split()]
    mean = max(1, round(sum(lengths) / len(lengths)))
    tables = {"as they come": lengths, "one length": [mean] * (sum(lengths) // mean)}
    best, tokens = {}, {}
    for name, cuts in tables.items():
        at, made = 0, []
        for n in cuts:
            made.append({"text": " ".join(words[at:at + n])})
            at += n
        write_table(f"{job.work}/{name}.csv", made)
    for _ in range(job.args.rounds):
        for kind in kinds:
            for name in tables:
                took = job.sill(kind, table=f"{job.work}/{name}.csv")
                with open(job.out + ".run.json", encoding="utf-8") as f:
                    tokens[name] = json.load(f)["tokens"]
                best[kind, name] = min(took, best.get((kind, name), took))
    for kind in kinds:
        a, b = (tokens[name] / best[kind, name] for name in tables)
        print(f"  {kind}: as they come {a:.0f} tokens/s ({tokens['as they come']} tokens, {min(lengths)} to {max(lengths)} words), "
              f"one length {b:.0f} ({tokens['one length']}, {mean} words): {a / b:.1%}")


def main():
    a = argparse.ArgumentParser(usage=__doc__)
    a.add_argument("table")
    a.add_argument("--rows", type=int, default=600)
    a.add_argument("--rounds", type=int, default=2)
    a.add_argument("--tests", default="jobs,ladder,parts,ragged")
    a.add_argument("--kinds", default="f32,bf16,q8")
    a.add_argument("--batch", default="", metavar="f32=16,bf16=32", help="transformers' padded batches (default: the best of 1 to 64 on 96 rows)")
    a.add_argument("--threads", type=int, default=os.cpu_count())
    a.add_argument("--build", default=f"{root}/build/release")
    a.add_argument("--models", default=f"{root}/build/bench-models")
    a.add_argument("--python", default=sys.executable)
    args = a.parse_args()
    with tempfile.TemporaryDirectory() as work:
        job = Job(args, work)
        write_table(job.table, first_rows(args.table, args.rows))
        commit = subprocess.run(["git", "-C", root, "describe", "--always", "--dirty", "--abbrev=12"], capture_output=True, text=True).stdout.strip()
        lim = compare.limits(args)
        print(f"commit {commit}, {args.threads} threads; " + ", ".join(f"{k} {v:.4g}" for k, v in lim.items()), flush=True)
        for test in args.tests.split(","):
            print(f"== {test}", flush=True)
            {"jobs": jobs, "ladder": ladder, "parts": parts, "ragged": ragged}[test](job, args.kinds.split(","))


if __name__ == "__main__":
    main()
