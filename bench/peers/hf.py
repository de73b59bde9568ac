"""transformers on torch's CPU build: hf.py MODEL_DIR|MODEL.gguf f32|bf16|q8 THREADS [--head]; hf_model.py has
the types."""
import os, sys
from common import VOCAB, by_length, redirect, serve

path, kind, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
os.environ["OMP_NUM_THREADS"] = str(threads)
redirect()
import torch, transformers
from hf_model import load

torch.set_num_threads(threads)
model = load(path, kind, "--head" in sys.argv)
if "--head" not in sys.argv:
    g = model.generation_config
    g.eos_token_id = g.bos_token_id = None
    g.pad_token_id, g.do_sample = 0, False


@torch.inference_mode()
def generate(prompts, n_new):
    x = torch.tensor(prompts)
    if n_new == 1:  # one pass, logits of the last position alone
        return [model(x, logits_to_keep=1).logits[0, -1].argmax()]
    out = model.generate(x, attention_mask=torch.ones_like(x), max_new_tokens=n_new)
    assert out.shape[1] == x.shape[1] + n_new
    return out[0, x.shape[1]:].tolist()


@torch.inference_mode()
def classify(rows, batch):
    """Texts of about the same length together, padded on the right with the id that the head looks for."""
    labels = [0] * len(rows)
    for group in by_length(rows, batch):
        longest = len(rows[group[0]])
        x = torch.tensor([rows[i] + [VOCAB - 1] * (longest - len(rows[i])) for i in group])
        for i, label in zip(group, model(x, attention_mask=(x != VOCAB - 1).long()).logits.argmax(-1).tolist()):
            labels[i] = label
    return labels


serve(f"transformers {transformers.__version__}, torch {torch.__version__}, {'dynamic int8' if kind == 'q8' else kind}", generate, classify,
      model.config.vocab_size)
