"""transformers on torch's CPU build, as bench/decode.py drives it: hf.py MODEL_DIR f32|bf16 THREADS"""
import os, sys
from common import redirect, serve

path, kind, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
os.environ["OMP_NUM_THREADS"] = str(threads)
redirect()
import torch, transformers

torch.set_num_threads(threads)
transformers.logging.set_verbosity_error()
model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.bfloat16 if kind == "bf16" else torch.float32).eval()
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


serve(f"transformers {transformers.__version__}, torch {torch.__version__}, {kind}", generate)
