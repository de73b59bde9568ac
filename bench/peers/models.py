"""Makes GPT-2-shaped models with random weights, the same numbers for every peer: DIR/SHAPE-f32, DIR/SHAPE-bf16
(safetensors, as on the hub) and DIR/SHAPE-f32.gguf, DIR/SHAPE-bf16.gguf for llama.cpp.

    build/venv/bin/python bench/peers/models.py DIR SHAPE...

Speeds hold for the real GPT-2 of that shape; the texts mean nothing. The weights are GPT-2's initialization made three
times wider, so that the greedy path has margins and the peers can be seen to compute the same model.
"""
import json, os, sys
import numpy as np, torch, gguf
from transformers import GPT2Config, GPT2LMHeadModel
from common import CTX, SHAPES, VOCAB

NAMES = {"ln_1": "attn_norm", "attn.c_attn": "attn_qkv", "attn.c_proj": "attn_output", "ln_2": "ffn_norm",
         "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down"}
TOP = {"wte": "token_embd", "wpe": "position_embd", "ln_f": "output_norm"}


def gguf_name(key):
    part = key.removeprefix("transformer.").split(".")
    if part[0] != "h":
        return f"{TOP[part[0]]}.{part[1]}"
    return f"blk.{part[1]}.{NAMES['.'.join(part[2:-1])]}.{part[-1]}"


def write_gguf(path, model, config, kind):
    w = gguf.GGUFWriter(path, "gpt2")
    w.add_context_length(CTX)
    w.add_embedding_length(config.n_embd)
    w.add_feed_forward_length(4 * config.n_embd)
    w.add_block_count(config.n_layer)
    w.add_head_count(config.n_head)
    w.add_layer_norm_eps(config.layer_norm_epsilon)
    w.add_file_type(gguf.LlamaFileType.ALL_F32 if kind == "f32" else gguf.LlamaFileType.MOSTLY_BF16)
    # A vocabulary of the right size; nothing is ever tokenized here.
    tokens = [gguf_byte(i) for i in range(256)] + [f"t{i}" for i in range(256, VOCAB - 1)] + ["<|endoftext|>"]
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("gpt-2")
    w.add_token_list(tokens)
    w.add_token_types([1] * (VOCAB - 1) + [3])
    w.add_token_merges(["t 2"])
    w.add_bos_token_id(VOCAB - 1)
    w.add_eos_token_id(VOCAB - 1)
    for key, value in model.state_dict().items():
        if key == "lm_head.weight" or key.endswith(".attn.bias") or key.endswith(".attn.masked_bias"):
            continue
        name, a = gguf_name(key), value.float().numpy()
        if a.ndim == 2 and name.startswith("blk."):
            a = np.ascontiguousarray(a.T)  # GPT-2's Conv1D keeps (inputs, outputs)
        if kind == "bf16" and a.ndim == 2 and not name.startswith("position"):
            w.add_tensor(name, gguf.quants.quantize(a, gguf.GGMLQuantizationType.BF16), raw_dtype=gguf.GGMLQuantizationType.BF16)
        else:
            w.add_tensor(name, a)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def gguf_byte(i):
    """GPT-2's printable stand-in for a byte."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return chr(i) if i in plain else chr(256 + [b for b in range(256) if b not in plain].index(i))


def main(out, shapes):
    os.makedirs(out, exist_ok=True)
    for shape in shapes:
        n_embd, n_layer, n_head = SHAPES[shape]
        config = GPT2Config(n_embd=n_embd, n_layer=n_layer, n_head=n_head, initializer_range=0.06)
        torch.manual_seed(1)
        model = GPT2LMHeadModel(config).eval()
        for kind in ("f32", "bf16"):
            directory = f"{out}/{shape}-{kind}"
            if os.path.exists(f"{directory}.gguf"):
                continue
            m = model if kind == "f32" else GPT2LMHeadModel(config).eval()
            if kind == "bf16":
                m.load_state_dict(model.state_dict())
                m = m.to(torch.bfloat16)
            m.save_pretrained(directory)
            write_gguf(f"{directory}.gguf.new", m, config, kind)
            os.replace(f"{directory}.gguf.new", f"{directory}.gguf")
            print(directory, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
