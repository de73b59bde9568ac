"""A model of transformers' as the peers compute with it: in f32, bf16 or q8, which is torch's dynamic int8 quantization of all
matrices (GPT-2's Conv1D made Linear first, or only the head would be quantized)."""
import os
import torch, transformers


def to_linear(m):
    for name, child in m.named_children():
        if type(child).__name__ == "Conv1D":
            linear = torch.nn.Linear(*child.weight.shape)
            linear.weight, linear.bias = torch.nn.Parameter(child.weight.t().contiguous()), child.bias
            setattr(m, name, linear)
        else:
            to_linear(child)


def load(path, kind, head):
    """path: a directory, or a file .gguf."""
    transformers.logging.set_verbosity_error()
    cls = transformers.AutoModelForSequenceClassification if head else transformers.AutoModelForCausalLM
    where = (os.path.dirname(path), {"gguf_file": os.path.basename(path)}) if path.endswith(".gguf") else (path, {})
    model = cls.from_pretrained(where[0], dtype=torch.bfloat16 if kind == "bf16" else torch.float32, **where[1]).eval()
    if kind == "q8":
        to_linear(model)
        model = torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8)
    return model
