"""CTranslate2: ct2.py MODEL_DIR f32|bf16|q8 THREADS. Where the processor lacks a type, CTranslate2 takes another one; the name
that it gives itself says which."""
import json, sys
from common import redirect, serve

path, kind, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
redirect()
import ctranslate2

model = ctranslate2.Generator(path, device="cpu", compute_type={"f32": "float32", "bf16": "bfloat16", "q8": "int8"}[kind],
                              inter_threads=1, intra_threads=threads)
with open(f"{path}/vocabulary.json", encoding="utf-8") as f:
    tokens = json.load(f)


def generate(prompts, n_new):
    out = model.generate_batch([[tokens[i] for i in p] for p in prompts], max_length=n_new, min_length=n_new, beam_size=1,
                               sampling_topk=1, include_prompt_in_result=False, max_batch_size=0)
    assert all(len(r.sequences_ids[0]) == n_new for r in out)
    return out[0].sequences_ids[0]


serve(f"CTranslate2 {ctranslate2.__version__}, {model.compute_type}", generate)
