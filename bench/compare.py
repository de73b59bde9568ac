"""The same work on sill, llama.cpp, transformers, CTranslate2 and OpenVINO GenAI, turn and turn about on one machine, of
GPT-2-shaped models with random weights (bench/peers/models.py makes them): the tables of docs/SPEED.md.

    bench/compare.py [--shape small] [--tests decode,prefill,classify,start] [--kinds f32,bf16,q8,int8,q4,q4_1] [--batches 1,8,32]
                     [--peers llama,hf,ct2,ov] [--rounds 3] [--threads N] [-o FILE.jsonl]

bench/run.sh runs it with everything that it needs. Each engine is one process that loads once; in every round each takes
its turn, so that all see the same minutes of a shared machine; the best round counts. Every round has prompts of its
own, the same for all. The machine's limits are measured before and behind each test.

decode    32 ids of prompt, then NEW tokens for each of a batch: (NEW - 1) x batch over the time of the whole less that of
          the first token
prefill   512 ids to the first token
classify  ragged texts (mean 30 tokens, up to 512) with a head of two labels; peers with their best batch size, sorted by
          length so that little is padded; sill as they come
start     a fresh process to the first token of a 32-token prompt, and its peak memory; for peers in Python also without
          the start of the interpreter and its imports
Quantized types are the same GGUF for sill and llama.cpp: q8 Q8_0, q4 Q4_0, q4_1 what `sill quantize --to q4` writes (Q4_1 with
a Q8_0 head). int8 is LLM.int8, which sill makes of the f32 checkpoint while it loads; its peers are those of q8.
--shape smollm2 takes the default model: as it is stored (kind stored), or its weights as GGUF of F32 and Q8_0 (bench/run.sh
makes both). Its peers are llama.cpp, not in bf16, and transformers, which reads the F32 file (q8: torch's dynamic int8).
"""
import argparse, json, os, platform, subprocess, sys, time

here = os.path.dirname(os.path.abspath(__file__))
root = os.path.dirname(here)
sys.path.insert(0, f"{here}/peers")
from common import SHAPES, VOCAB

NEW = {1: 64, 8: 32, 32: 16}
PEAKS = {"f32": "peak_f32", "bf16": "peak_bf16"}  # others: peak_int8
PEER_KINDS = {"int8": "q8", "q4_1": "q4"}  # what the peers run beside a type of sill's own
NAMES = {"llama": "llama.cpp", "hf": "transformers", "ct2": "CTranslate2", "ov": "OpenVINO"}


class Engine:
    """A process that answers lines of work (bench/peers/common.py)."""

    def __init__(self, name, command, threads):
        self.name, self.command, self.batch = name, command, 0
        env = dict(os.environ, OMP_NUM_THREADS=str(threads), PYTHONPATH=f"{here}/peers", TOKENIZERS_PARALLELISM="false")
        self.begun = time.perf_counter()
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE if not VERBOSE else None,
                                        text=True, env=env)
        self.ready = self.read()

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            said = (self.process.stderr.read() if self.process.stderr else "").strip().split("\n")[-1]
            raise RuntimeError(f"{self.name} ended with status {self.process.wait()}: {said[:300]}")
        return json.loads(line)

    def run(self, *work):
        time.sleep(0.3)  # the others' threads stop spinning
        self.process.stdin.write(" ".join(map(str, work)) + "\n")
        self.process.stdin.flush()
        return self.read()

    def close(self):
        """Ends it; the most memory that it had, in MiB."""
        try:
            self.process.stdin.close()
        except OSError:
            pass
        _, _, usage = os.wait4(self.process.pid, 0)
        self.process.returncode = 0
        return usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def commands(args, kind, head=False):
    """What runs each engine: sill first."""
    t, py = str(args.threads), args.python
    stem, mark = f"{args.models}/{args.shape}", ["--head"] if head else []
    if args.shape == "smollm2":
        model = args.default if kind == "stored" else f"{stem}-{kind}.gguf"
        f32 = f"{stem}-f32.gguf"
        out = {"sill": [f"{args.build}/bench/engine", *([f32, kind] if kind == "bf16" else [model, "auto"]), t],
               "llama": [py, f"{here}/peers/llama.py", model, kind, t], "hf": [py, f"{here}/peers/hf.py", f32, kind, t]}
        if kind == "stored":
            out.pop("hf")
        return {k: v for k, v in out.items() if k == "sill" or (k in args.peers and os.path.exists(v[2]))}
    own, plain = kind, kind in ("f32", "bf16")
    kind = PEER_KINDS.get(kind, kind)
    if head:
        out = {"sill": [f"{args.build}/bench/engine", f"{stem}-head-{kind if plain else 'f32'}", own, t],
               "hf": [py, f"{here}/peers/hf.py", f"{stem}-head-{kind if plain else 'f32'}", kind, t],
               "ov": [py, f"{here}/peers/ov.py", f"{stem}-ov-{'f32' if plain else kind}-head", kind, t]}
    else:
        ours = [f"{stem}-{kind}", kind] if plain else [f"{stem}-f32", own] if own == "int8" else [f"{stem}-{own}.gguf", "auto"]
        out = {"sill": [f"{args.build}/bench/engine", *ours, t],
               "llama": [py, f"{here}/peers/llama.py", f"{stem}-{kind if own == 'int8' else own}.gguf", kind, t],
               "hf": [py, f"{here}/peers/hf.py", f"{stem}-{kind if plain else 'f32'}", kind, t],
               "ct2": [py, f"{here}/peers/ct2.py", f"{stem}-ct2-{kind}", kind, t],
               "ov": [py, f"{here}/peers/ov.py", f"{stem}-ov-{'f32' if plain else kind}", kind, t]}
    if kind == "q4":
        out.pop("hf", None)
        out.pop("ct2", None)
    return {k: [*v, *mark] if k != "sill" else v for k, v in out.items() if k == "sill" or (k in args.peers and os.path.exists(v[2]))}


def limits(args):
    """The machine's limits now: {test: value}."""
    out = subprocess.run([f"{args.build}/sill", "bench", "-q", "-m", f"{root}/tests/fixtures/stories260K/stories260K.gguf", "--threads",
                          str(args.threads), "--tests", "limits", "-o", "jsonl"], check=True, capture_output=True, text=True).stdout
    return {r["test"]: r["value"] for r in map(json.loads, out.splitlines())}


def better(a, b):
    return {k: (min if k == "barrier" else max)(a.get(k, b.get(k)), b.get(k, a.get(k))) for k in {**a, **b}}


def agreeing(a, b):
    n = 0
    while n < len(a) and n < len(b) and a[n] == b[n]:
        n += 1
    return n


def start_engines(args, kind, head=False):
    out = []
    for name, command in commands(args, kind, head).items():
        try:
            out.append(Engine(NAMES.get(name, name), command, args.threads))
            print(f"  {out[-1].ready['ready']}", flush=True)
        except RuntimeError as e:
            print(f"  left out: {e}", flush=True)
            if name == "sill":  # nothing to compare with
                return []
    return out


def layer_params(shape):
    width, layers, _ = SHAPES[shape]
    return 12 * layers * width * width


class Table:
    def __init__(self, args, out):
        self.args, self.out = args, out

    def show(self, test, kind, batch, what, rows, unit, lim, bytes_read=0, ops=0):
        """rows: {engine: (value, spread, note)}; sill's is first."""
        peers = {n: v[0] for n, v in rows.items() if n != "sill"}
        ours, best = rows["sill"][0], max(peers, key=peers.get) if peers else None
        gb = max(lim["read_small_pages"], lim["read_huge_pages"])
        peak = lim.get(PEAKS.get(kind, "peak_int8")) or lim.get("peak_f32", 0)
        shares = []
        if bytes_read:
            shares.append(f"{ours * bytes_read / 1e9 / gb:.0%} of {gb:.1f} GB/s")
        if ops and peak:
            shares.append(f"{ours * ops / 1e9 / peak:.0%} of {peak:.0f} Gop/s")
        print(f"\n{self.args.shape} {kind}, {test}{f' batch {batch}' if batch else ''}: {what}")
        for n, (value, spread, note) in rows.items():
            ratio = f"sill is {ours / value:5.2f}x" if n != "sill" else f"{', '.join(shares):15}"
            print(f"  {n:13} {value:9.1f} {unit}  spread {spread:4.0%}  {ratio}  {note}")
        if best:
            print(f"  => {ours / peers[best]:.2f}x the best peer, {best}", flush=True)
        for n, (value, spread, _) in rows.items():
            self.out.append({"test": test, "shape": self.args.shape, "dtype": kind, "batch": batch, "engine": n, "value": round(value, 2), "unit": unit,
                             "spread": round(spread, 3), "ratio": round(ours / value, 3), "threads": self.args.threads, "read_gb_per_s": gb,
                             "peak_gop_per_s": peak})


def spread(times):
    return max(times) / min(times) - 1


def take_turns(engines, rounds, turn):
    """{engine: [one answer a round]}; an engine that fails is left out from there on."""
    seen = {e.name: [] for e in engines}
    for i in range(rounds):
        for e in list(engines):
            try:
                seen[e.name].append(turn(e, i))
            except RuntimeError as failure:
                print(f"  left out: {failure}", flush=True)
                engines.remove(e)
                del seen[e.name]
    return seen


def decode(args, kind, batch, engines, table, lim):
    n_new = args.new or NEW.get(batch, 32)
    take_turns(engines, 1, lambda e, i: e.run("generate", batch, 32, 3, 99))
    seen = take_turns(engines, args.rounds, lambda e, i: (e.run("generate", batch, 32, 1, i), e.run("generate", batch, 32, n_new, i)))
    lim = better(lim, limits(args))
    rows = {}
    for n, answers in seen.items():
        first, whole = [a["seconds"] for a, _ in answers], [b["seconds"] for _, b in answers]
        same = min(agreeing(b["ids"], s["ids"]) for (_, b), (_, s) in zip(answers, seen["sill"]))
        took = min(whole) - min(first)
        if took <= 0:
            print(f"  {n}: the first token took longer than all of them; the machine is too busy to measure")
            if n == "sill":
                return lim
            continue
        rows[n] = ((n_new - 1) * batch / took, spread(whole), f"{min(first) * 1e3:.0f} ms to the first; same ids {same}/{n_new}")
    ops = 2 * (layer_params(args.shape) + VOCAB * SHAPES[args.shape][0]) if args.shape in SHAPES else 0
    table.show("decode", kind, batch, f"32 + {n_new} tokens", rows, "tokens/s", lim, engines[0].ready["weight_bytes"] / batch, ops)
    return lim


def prefill(args, kind, engines, table, lim):
    n = args.prefill
    take_turns(engines, 1, lambda e, i: e.run("generate", 1, n, 1, 99))
    seen = take_turns(engines, args.rounds, lambda e, i: e.run("generate", 1, n, 1, 100 + i))
    lim = better(lim, limits(args))
    rows = {}
    for name, answers in seen.items():
        same = sum(a["ids"] == s["ids"] for a, s in zip(answers, seen["sill"]))
        times = [a["seconds"] for a in answers]
        rows[name] = (n / min(times), spread(times), f"same first token {same}/{args.rounds}")
    ops = 2 * (layer_params(args.shape) + VOCAB * SHAPES[args.shape][0] / n) if args.shape in SHAPES else 0
    peak = lim.get(PEAKS.get(kind, "peak_int8"), 0)
    for name in [r for r in rows if ops and peak and r != "sill" and rows[r][0] * ops / 1e9 > 1.05 * peak]:
        print(f"  {name}: {rows.pop(name)[0]:.0f} tokens/s is over the arithmetic peak, so work was skipped; left out")
    table.show("prefill", kind, 0, f"{n} tokens", rows, "tokens/s", lim, 0, ops)
    return lim


def classify(args, kind, table, lim):
    engines = start_engines(args, kind, head=True)
    if not engines:
        return lim
    for e in engines:  # each peer's best batch size, on a part of the texts
        tries = [1] if e.name == "sill" else [1, 2, 4, 8, 16, 32]
        few = min(args.texts, 100)
        e.run("classify", min(few, 8), tries[0])
        took = {b: min(e.run("classify", few, b)["seconds"] for _ in range(2)) for b in tries}
        e.batch = min(took, key=took.get)
    seen = take_turns(engines, args.rounds, lambda e, i: e.run("classify", args.texts, e.batch))
    lim = better(lim, limits(args))
    rows = {}
    for e in engines:
        answers = seen[e.name]
        times = [a["seconds"] for a in answers]
        same = sum(a == b for a, b in zip(answers[0]["ids"], seen["sill"][0]["ids"]))
        rows[e.name] = (args.texts / min(times), spread(times), f"{'' if e.name == 'sill' else f'batches of {e.batch}; '}same labels {same}/{args.texts}")
    tokens = seen["sill"][0]["tokens"]
    table.show("classify", kind, 0, f"{args.texts} texts, {tokens} tokens", rows, "texts/s", lim, 0, 2 * layer_params(args.shape) * tokens / args.texts)
    for e in engines:
        e.close()
    return lim


def first_token(args, command, threads):
    """Seconds from the start of the process to its answer, less those of its imports, and its peak memory."""
    e = Engine("peer", command, threads)
    e.process.stdin.write("generate 1 32 1 0\n")
    e.process.stdin.flush()
    e.read()
    seconds = time.perf_counter() - e.begun
    return seconds, seconds - e.ready["start_seconds"], e.close()


def sill_generate(args, model, dtype, more):
    begun = time.perf_counter()
    p = subprocess.Popen([f"{args.build}/sill", "generate", "-q", "-m", model, "--dtype", dtype, "--threads", str(args.threads), "--ctx", "512",
                          "--max-new-tokens", "1", "--ignore-eos", *more, " the" * 32], stdout=subprocess.PIPE)
    p.stdout.read()
    seconds = time.perf_counter() - begun
    _, status, usage = os.wait4(p.pid, 0)
    p.returncode = 0
    if status:
        raise RuntimeError(f"sill generate ended with status {status}")
    return seconds, seconds, usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def start(args, kind, out):
    todo = commands(args, kind)
    _, model, dtype, _ = todo.pop("sill")
    runs = {"sill": lambda: sill_generate(args, model, dtype, []), "sill --no-cache": lambda: sill_generate(args, model, dtype, ["--no-cache"])}
    for name, command in todo.items():
        runs[NAMES[name]] = lambda command=command: first_token(args, command, args.threads)
    seen = {n: [] for n in runs}
    for i in range(args.rounds + 1):  # the first round warms the page cache
        for n in list(runs):
            try:
                got = runs[n]()
                if i:
                    seen[n].append(got)
            except RuntimeError as e:
                print(f"  left out: {e}")
                del runs[n], seen[n]
    print(f"\n{args.shape} {kind}, fresh process to the first token of 32")
    for n, all_ in seen.items():
        s, inside, memory = min(a[0] for a in all_), min(a[1] for a in all_), max(a[2] for a in all_)
        print(f"  {n:16} {s:7.3f} s, without its imports {inside:7.3f} s, peak {memory:7.1f} MiB")
        out.append({"test": "start", "shape": args.shape, "dtype": kind, "engine": n, "seconds": round(s, 4), "seconds_inside": round(inside, 4),
                    "peak_mib": round(memory, 1), "threads": args.threads})


def read_arguments():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--shape", default="small", choices=[*SHAPES, "smollm2"])
    a.add_argument("--tests", default="decode,prefill,classify,start")
    a.add_argument("--kinds", help="default: all of the shape")
    a.add_argument("--batches", default="1,8,32")
    a.add_argument("--peers", default="llama,hf,ct2,ov")
    a.add_argument("--rounds", type=int, default=3)
    a.add_argument("--threads", type=int, default=os.cpu_count())
    a.add_argument("--new", type=int, help="tokens decoded (default: 64 at batch 1, 32 at 8, 16 at 32)")
    a.add_argument("--prefill", type=int, default=512)
    a.add_argument("--texts", type=int, default=1000)
    a.add_argument("--build", default=f"{root}/build/release")
    a.add_argument("--models", default=f"{root}/build/bench-models")
    a.add_argument("--python", default=sys.executable)
    a.add_argument("--verbose", action="store_true", help="what the peers say on standard error")
    a.add_argument("-o", "--output", help="JSON lines are appended here")
    args = a.parse_args()
    args.peers = args.peers.split(",")
    args.kinds = args.kinds or ("stored,f32,bf16,q8" if args.shape == "smollm2" else "f32,bf16,q8,int8,q4,q4_1")
    if args.shape == "smollm2":
        args.default = subprocess.run([f"{root}/tools/fetch_model.sh", "--path"], capture_output=True, text=True).stdout.strip()
    return args


def main():
    global VERBOSE
    args = read_arguments()
    VERBOSE = args.verbose
    tests, out = args.tests.split(","), []
    commit = subprocess.run(["git", "-C", root, "describe", "--always", "--dirty", "--abbrev=12"], capture_output=True, text=True).stdout.strip()
    lim = limits(args)
    print(f"commit {commit}, {platform.machine()}, {args.threads} threads; " + ", ".join(f"{k} {v:.4g}" for k, v in lim.items()), flush=True)
    table = Table(args, out)
    for kind in args.kinds.split(","):
        if "decode" in tests or "prefill" in tests:
            engines = start_engines(args, kind)
            for batch in map(int, args.batches.split(",")) if engines and "decode" in tests else ():
                lim = decode(args, kind, batch, engines, table, limits(args))
            if engines and "prefill" in tests:
                prefill(args, kind, engines, table, limits(args))
            for e in engines:
                e.close()
        if "classify" in tests and kind in ("f32", "bf16", "q8", "int8") and args.shape != "smollm2":
            classify(args, kind, table, limits(args))
        if "start" in tests:
            start(args, kind, out)
    if args.output:
        with open(args.output, "a") as f:
            for row in out:
                f.write(json.dumps(dict(row, commit=commit)) + "\n")


VERBOSE = False
if __name__ == "__main__":
    main()
