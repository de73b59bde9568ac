"""Seconds from the start of a fresh process to its first token, and peak memory: the default model in the cache.

    bench/start.py [--sill build/release/sill] [--model FILE.gguf] [--runs 7] [--peer]

The file is in the page cache (the first run warms it and is dropped). --peer does the same with llama.cpp through
Python; its interpreter's own start and imports are measured too and can be subtracted.
"""
import argparse, os, subprocess, sys, time

here = os.path.dirname(os.path.abspath(__file__))
root = os.path.dirname(here)
PROMPT = "The most important thing about a good film is"
CHILD = """
import ctypes, sys, time
import llama_cpp as L
quiet = L.llama_log_callback(lambda level, text, user: None)
L.llama_log_set(quiet, ctypes.c_void_p(0))
start = time.perf_counter()
m = L.Llama(sys.argv[1], n_ctx=512, n_threads=int(sys.argv[2]), verbose=False)
m.create_completion(sys.argv[3], max_tokens=1, temperature=0)
print(time.perf_counter() - start, flush=True)
"""


def once(command):
    start = time.perf_counter()
    p = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    out = p.stdout.read()
    seconds = time.perf_counter() - start
    _, status, usage = os.wait4(p.pid, 0)
    if status:
        sys.exit(f"{command[0]} failed")
    scale = 1 if sys.platform == "darwin" else 1024
    return seconds, usage.ru_maxrss * scale / 2**20, out


def report(name, command, runs):
    once(command)
    seen = [once(command) for _ in range(runs)]
    line = f"{name:10} first token after {min(s for s, _, _ in seen):6.3f} s, peak memory {max(r for _, r, _ in seen):6.1f} MiB"
    inside = [float(o) for _, _, o in seen] if name == "llama.cpp" else []
    print(line + (f" (after its imports {min(inside):.3f} s)" if inside else ""))


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--sill", default=f"{root}/build/release/sill")
    a.add_argument("--model", default=subprocess.run([f"{root}/tools/fetch_model.sh", "--path"], capture_output=True, text=True).stdout.strip())
    a.add_argument("--threads", default=str(os.cpu_count()))
    a.add_argument("--runs", type=int, default=7)
    a.add_argument("--peer", action="store_true")
    args = a.parse_args()
    print(f"{os.path.basename(args.model)}, {os.path.getsize(args.model) / 2**20:.1f} MiB, {args.threads} threads")
    report("sill", [args.sill, "generate", "-m", args.model, "--threads", args.threads, "--max-new-tokens", "1", PROMPT], args.runs)
    if args.peer:
        report("llama.cpp", [sys.executable, "-c", CHILD, args.model, args.threads, PROMPT], args.runs)


if __name__ == "__main__":
    main()
