"""What the peers have in common: the prompts and texts, and the loop that answers one JSON line for every line of work:

    generate BATCH PROMPT NEW SALT    BATCH prompts of PROMPT ids, NEW greedy tokens each; SALT makes other prompts
    classify TEXTS BATCH              TEXTS ragged texts, with a classification head; BATCH at a time where it matters
"""
import json, os, sys, time

HERE = os.path.dirname(os.path.abspath(__file__))
START = time.perf_counter()
SHAPES = {  # n_embd, n_layer, n_head
    "tiny": (64, 2, 2),
    "small": (768, 12, 12),
    "medium": (1024, 24, 16),
    "large": (1280, 36, 20),
    "xl": (1600, 48, 25),
}
VOCAB, CTX = 50257, 1024
MULTIPLIER, ADDEND, MODULUS = 1103515245, 12345, 2147483648


def prompt(n, sequence, salt=0, n_vocab=VOCAB):
    """Ids that look random and are the same in every engine (bench/engine.c has the same lines)."""
    x, out = 12345 + 7919 * (sequence + 100 * salt), []
    for _ in range(n):
        x = (MULTIPLIER * x + ADDEND) % MODULUS
        out.append(x % (n_vocab - 1))
    return out


def texts(n):
    """Ragged texts: lengths of a Lomax distribution with shape 3, mean 30, cut at 512 (bench/engine.c has the same)."""
    x, out = 1, []
    for i in range(n):
        x = (MULTIPLIER * x + ADDEND) % MODULUS
        length = 1 + int(58.0 * ((1.0 - x / MODULUS) ** (-1.0 / 3.0) - 1.0))
        out.append(prompt(min(length, 512), i, 7))
    return out


def by_length(rows, batch):
    """Batches of texts of about the same length, longest first: what one does to waste the least on padding."""
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i]))
    return [order[i:i + batch] for i in range(0, len(order), batch)]


def serve(name, generate=None, classify=None, n_vocab=VOCAB):
    """generate(prompts, n_new) returns the new ids of the first sequence, classify(texts, batch) a label a text."""
    print(json.dumps({"ready": name, "start_seconds": time.perf_counter() - START}), flush=True)
    for line in sys.stdin:
        what, *numbers = line.split()
        numbers = list(map(int, numbers))
        if what == "generate":
            batch, n_prompt, n_new, salt = numbers
            prompts = [prompt(n_prompt, s, salt, n_vocab) for s in range(batch)]
            start = time.perf_counter()
            ids = generate(prompts, n_new)
            answer = {"seconds": time.perf_counter() - start, "ids": [int(i) for i in ids]}
        else:
            rows = texts(numbers[0])
            start = time.perf_counter()
            labels = classify(rows, numbers[1])
            answer = {"seconds": time.perf_counter() - start, "ids": [int(i) for i in labels], "tokens": sum(map(len, rows))}
        print(json.dumps(answer), flush=True)


def redirect():
    """Keeps stdout for answers: what libraries print goes to stderr."""
    out = os.dup(1)
    os.dup2(2, 1)
    sys.stdout = os.fdopen(out, "w")
