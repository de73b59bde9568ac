"""Same work on sill, llama.cpp and transformers, turn and turn about on one machine: greedy decoding of a GPT-2-shaped
model with random weights. Prints the ratios, and what share of the measured memory bandwidth sill reaches.

    bench/decode.py [--shape small] [--kinds f32,bf16] [--batches 1,8] [--threads N] [--rounds 5] [--peers llama,hf]

Run it through bench/run.sh (make bench), which builds what it needs. Each engine is one process that loads once;
in every round each takes its turn, so that all see the same minutes of a shared machine. The minimum counts. A prompt of
32 ids, then NEW tokens: the rate is (NEW - 1) x BATCH over the time of the whole task less that of its first token.
"""
import argparse, json, os, platform, subprocess, sys

here = os.path.dirname(os.path.abspath(__file__))
root = os.path.dirname(here)
NEW = {1: 96, 8: 48, 32: 24}


class Peer:
    def __init__(self, name, command, threads):
        self.name = name
        env = dict(os.environ, OMP_NUM_THREADS=str(threads), PYTHONPATH=f"{here}/peers")
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
        self.ready = self.read()

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"{self.name} ended with status {self.process.wait()}")
        return json.loads(line)

    def run(self, batch, n_prompt, n_new):
        self.process.stdin.write(f"{batch} {n_prompt} {n_new}\n")
        self.process.stdin.flush()
        return self.read()

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def bandwidth(build, threads):
    out = json.loads(subprocess.run([f"{build}/bench/bandwidth", str(threads)], check=True, capture_output=True, text=True).stdout)
    return max(out["gb_per_s"], out["gb_per_s_huge"])


def agreeing(a, b):
    n = 0
    while n < len(a) and n < len(b) and a[n] == b[n]:
        n += 1
    return n


def compare(args, kind, batch, peers, out):
    n_new = NEW.get(batch, 32)
    whole, first, ids = {p.name: [] for p in peers}, {p.name: [] for p in peers}, {}
    for p in peers:
        p.run(batch, 32, 4)
    gb = bandwidth(args.build, args.threads)
    for _ in range(args.rounds):
        for p in peers:
            first[p.name].append(p.run(batch, 32, 1)["seconds"])
            answer = p.run(batch, 32, n_new)
            whole[p.name].append(answer["seconds"])
            ids[p.name] = answer["ids"]
    gb = max(gb, bandwidth(args.build, args.threads))
    rate = {n: (n_new - 1) * batch / (min(whole[n]) - min(first[n])) for n in whole}
    weight_bytes = peers[0].ready["weight_bytes"]
    share = rate["sill"] / batch * weight_bytes / (gb * 1e9)
    print(f"\n{args.shape} {kind} batch {batch}, {args.threads} threads, 32 + {n_new} tokens; memory {gb:.1f} GB/s")
    for p in peers:
        n = p.name
        spread = (max(whole[n]) - min(whole[n])) / min(whole[n])
        print(f"  {n:13} {rate[n]:8.1f} tokens/s decoding  {min(first[n]) * 1e3:7.1f} ms to the first  spread {spread:5.1%}"
              f"  sill is {rate['sill'] / rate[n]:5.2f}x  same tokens {agreeing(ids['sill'], ids[n])}/{n_new}")
    print(f"  sill reads its {weight_bytes / 1e6:.0f} MB of weights at {share:.0%} of the bandwidth")
    for p in peers:
        out.append(dict(test="decode", engine=p.name, version=p.ready["ready"], shape=args.shape, dtype=kind, batch=batch,
                        n_prompt=32, n_gen=n_new, threads=args.threads, tokens_per_s=round(rate[p.name], 2),
                        first_token_s=round(min(first[p.name]), 4), gb_per_s=gb,
                        **({"bandwidth_share": round(share, 3)} if p.name == "sill" else {})))


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--shape", default="small")
    a.add_argument("--kinds", default="f32,bf16")
    a.add_argument("--batches", default="1,8")
    a.add_argument("--peers", default="llama,hf")
    a.add_argument("--threads", type=int, default=os.cpu_count())
    a.add_argument("--rounds", type=int, default=5)
    a.add_argument("--build", default=f"{root}/build/release")
    a.add_argument("--models", default=f"{root}/build/bench-models")
    a.add_argument("--python", default=sys.executable)
    a.add_argument("-o", "--output", help="JSON lines are appended here")
    args = a.parse_args()
    commit = subprocess.run(["git", "-C", root, "describe", "--always", "--dirty"], capture_output=True, text=True).stdout.strip()
    print(f"commit {commit}, {platform.machine()}, {os.cpu_count()} cores")
    out = []
    for kind in args.kinds.split(","):
        stem, t = f"{args.models}/{args.shape}-{kind}", str(args.threads)
        peers = [Peer("sill", [f"{args.build}/bench/engine", stem, kind, t], args.threads)]
        if "llama" in args.peers:
            peers.append(Peer("llama.cpp", [args.python, f"{here}/peers/llama.py", f"{stem}.gguf", kind, t], args.threads))
        if "hf" in args.peers:
            peers.append(Peer("transformers", [args.python, f"{here}/peers/hf.py", stem, kind, t], args.threads))
        for p in peers:
            print(f"  {p.ready['ready']}")
        for batch in map(int, args.batches.split(",")):
            compare(args, kind, batch, peers, out)
        for p in peers:
            p.close()
    if args.output:
        with open(args.output, "a") as f:
            for row in out:
                f.write(json.dumps(dict(row, commit=commit)) + "\n")


if __name__ == "__main__":
    main()
