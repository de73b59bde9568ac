"""transformers labels a table, CSV to CSV: table.py MODEL_DIR f32|bf16|q8 THREADS IN.csv, then a line `BATCH ROWS OUT.csv` on
stdin for each run (BATCH 0: one text at a time, in the table's order, as one writes it first; else texts of about the same length
together, padded). Answers with a line of JSON: seconds in all and in each step."""
import csv, json, os, sys, time
from common import START, redirect

path, kind, threads, table = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
os.environ["OMP_NUM_THREADS"] = str(threads)
redirect()
import torch, transformers
from hf_model import load

torch.set_num_threads(threads)
model = load(path, kind, head=True)
tokenizer = transformers.AutoTokenizer.from_pretrained(path)
tokenizer.pad_token, tokenizer.padding_side = tokenizer.eos_token, "right"


class Clock:
    """Seconds of each step, by name."""

    def __init__(self):
        self.steps, self.at = {}, time.perf_counter()

    def lap(self, step):
        now = time.perf_counter()
        self.steps[step] = self.steps.get(step, 0.0) + now - self.at
        self.at = now


def read(n_rows):
    with open(table, encoding="utf-8", newline="") as f:
        return [row for _, row in zip(range(n_rows), csv.DictReader(f))]


@torch.inference_mode()
def one_by_one(rows, clock):
    for row in rows:
        x = tokenizer(row["text"], return_tensors="pt")
        clock.lap("tokenize")
        yield model(**x).logits[0].softmax(-1).tolist()
        clock.lap("model")


@torch.inference_mode()
def padded(rows, batch, clock):
    ids = tokenizer([row["text"] for row in rows]).input_ids
    order = sorted(range(len(rows)), key=lambda i: -len(ids[i]))
    probs = [None] * len(rows)
    clock.lap("tokenize")
    for i in range(0, len(order), batch):
        group = order[i:i + batch]
        x = tokenizer.pad({"input_ids": [ids[g] for g in group]}, return_tensors="pt")
        clock.lap("tokenize")
        for g, p in zip(group, model(**x).logits.softmax(-1).tolist()):
            probs[g] = p
        clock.lap("model")
    return probs


def run(batch, n_rows, out):
    clock = Clock()
    begun = clock.at
    rows = read(n_rows)
    names = [model.config.id2label[i] for i in range(model.config.num_labels)]
    clock.lap("read")
    probs = padded(rows, batch, clock) if batch else list(one_by_one(rows, clock))
    with open(out, "w", encoding="utf-8", newline="") as f:
        w = csv.writer(f)
        w.writerow([*rows[0], "label", *(f"prob_{n}" for n in names)])
        for row, p in zip(rows, probs):
            w.writerow([*row.values(), names[p.index(max(p))], *p])
    clock.lap("write")
    return {"seconds": time.perf_counter() - begun, "steps": clock.steps}


print(json.dumps({"ready": f"transformers {transformers.__version__}, torch {torch.__version__}, {kind}", "start_seconds": time.perf_counter() - START}), flush=True)
for line in sys.stdin:
    batch, n_rows, out = line.rstrip("\n").split(" ", 2)
    print(json.dumps(run(int(batch), int(n_rows), out)), flush=True)
