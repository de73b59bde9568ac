"""What the peers have in common: the prompts, and the loop that answers one JSON line for every "BATCH PROMPT NEW"."""
import json, os, sys, time

SHAPES = {  # n_embd, n_layer, n_head
    "tiny": (64, 2, 2),
    "small": (768, 12, 12),
    "medium": (1024, 24, 16),
}
VOCAB, CTX = 50257, 1024


def prompt(n, sequence):
    """Ids that look random and are the same in every peer (bench/engine.c has the same lines)."""
    x, out = 12345 + 7919 * sequence, []
    for _ in range(n):
        x = (1103515245 * x + 12345) % 2147483648
        out.append(x % (VOCAB - 1))
    return out


def serve(name, generate):
    """generate(prompts, n_new) returns the new ids of the first sequence."""
    print(json.dumps({"ready": name}), flush=True)
    for line in sys.stdin:
        batch, n_prompt, n_new = map(int, line.split())
        prompts = [prompt(n_prompt, s) for s in range(batch)]
        start = time.perf_counter()
        ids = generate(prompts, n_new)
        print(json.dumps({"seconds": time.perf_counter() - start, "ids": [int(i) for i in ids]}), flush=True)


def redirect():
    """Keeps stdout for answers: what libraries print goes to stderr."""
    out = os.dup(1)
    os.dup2(2, 1)
    sys.stdout = os.fdopen(out, "w")
