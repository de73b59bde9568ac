"""transformers on torch's CPU build: hf.py MODEL_DIR|MODEL.gguf f32|bf16|q8 THREADS [--head]. q8 is torch's dynamic int8 quantization of
all matrices (GPT-2's Conv1D made Linear first, or only the head would be quantized)."""
import os, sys
from common import VOCAB, by_length, redirect, serve

path, kind, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
os.environ["OMP_NUM_THREADS"] = str(threads)
redirect()
import torch, transformers

torch.set_num_threads(threads)
transformers.logging.set_verbosity_error()
cls = transformers.AutoModelForSequenceClassification if "--head" in sys.argv else transformers.AutoModelForCausalLM
where = (os.path.dirname(path), {"gguf_file": os.path.basename(path)}) if path.endswith(".gguf") else (path, {})
model = cls.from_pretrained(where[0], dtype=torch.bfloat16 if kind == "bf16" else torch.float32, **where[1]).eval()


def to_linear(m):
    for name, child in m.named_children():
        if type(child).__name__ == "Conv1D":
            linear = torch.nn.Linear(*child.weight.shape)
            linear.weight, linear.bias = torch.nn.Parameter(child.weight.t().contiguous()), child.bias
            setattr(m, name, linear)
        else:
            to_linear(child)


if kind == "q8":
    to_linear(model)
    model = torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8)
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
