"""Makes GPT-2-shaped models with random weights, the same numbers for every engine and type, with numpy alone.

    build/venv/bin/python bench/peers/models.py DIR SHAPE [--kinds f32,bf16,q8,q4] [--head] [--convert PYTHON]

DIR/SHAPE-f32, DIR/SHAPE-bf16        safetensors as on the hub, with GPT-2's tokenizer (sill, transformers)
DIR/SHAPE-{f32,bf16,q8,q4}.gguf      the same in GGUF; q8 is Q8_0, q4 is Q4_0 throughout (sill, llama.cpp)
DIR/SHAPE-head-{f32,bf16}            --head: with a classification head of two labels
DIR/SHAPE-ct2-{f32,bf16,q8}, DIR/SHAPE-ov-{f32,q8,q4}[-head]   made from SHAPE-f32 by convert.py, run by PYTHON (an
                                     interpreter that has CTranslate2's and OpenVINO's converters); missing ones only

Speeds hold for the real GPT-2 of that shape; the texts mean nothing. The weights are GPT-2's initialization made three
times wider, so that the greedy path has margins and the engines can be seen to compute the same model.
"""
import argparse, json, os, struct, subprocess
import numpy as np, gguf
from common import CTX, HERE, SHAPES, VOCAB

NAMES = {"ln_1": "attn_norm", "attn.c_attn": "attn_qkv", "attn.c_proj": "attn_output", "ln_2": "ffn_norm",
         "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down"}
TOP = {"wte": "token_embd", "wpe": "position_embd", "ln_f": "output_norm"}
GGML = {"f32": "F32", "bf16": "BF16", "q8": "Q8_0", "q4": "Q4_0"}
FILE_TYPES = {"f32": "ALL_F32", "bf16": "MOSTLY_BF16", "q8": "MOSTLY_Q8_0", "q4": "MOSTLY_Q4_0"}
TOKENIZER = os.path.join(HERE, "../../tests/fixtures/tokenizer/gpt2")


def weights(shape):
    """(name, values) as in GPT-2's own checkpoint, in a fixed order; matrices (inputs, outputs)."""
    width, layers, _ = SHAPES[shape]
    r = np.random.default_rng(1)

    def normal(*dims, scale=0.06):
        return r.standard_normal(dims, dtype=np.float32) * np.float32(scale)
    yield "wte.weight", normal(VOCAB, width)
    yield "wpe.weight", normal(CTX, width)
    for i in range(layers):
        for name, dims in (("attn.c_attn", (width, 3 * width)), ("attn.c_proj", (width, width)),
                           ("mlp.c_fc", (width, 4 * width)), ("mlp.c_proj", (4 * width, width))):
            yield f"h.{i}.{name}.weight", normal(*dims, scale=0.06 / (2 * layers) ** 0.5 if name.endswith("proj") else 0.06)
            yield f"h.{i}.{name}.bias", normal(dims[1], scale=0.02)
        for name in ("ln_1", "ln_2"):
            yield f"h.{i}.{name}.weight", 1 + normal(width, scale=0.02)
            yield f"h.{i}.{name}.bias", normal(width, scale=0.02)
    yield "ln_f.weight", 1 + normal(width, scale=0.02)
    yield "ln_f.bias", normal(width, scale=0.02)


def bf16(a):
    u = a.view(np.uint32)
    return ((u + 0x7FFF + ((u >> 16) & 1)) >> 16).astype(np.uint16)


def write_safetensors(path, tensors, kind):
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, a in tensors:
        n = a.size * (4 if kind == "f32" else 2)
        header[name] = {"dtype": kind.upper(), "shape": list(a.shape), "data_offsets": [at, at + n]}
        at += n
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for _, a in tensors:
            f.write(np.ascontiguousarray(a if kind == "f32" else bf16(a)).tobytes())


def write_directory(path, shape, tensors, kind, head):
    width, layers, heads = SHAPES[shape]
    config = {"model_type": "gpt2", "architectures": ["GPT2ForSequenceClassification" if head else "GPT2LMHeadModel"],
              "n_embd": width, "n_layer": layers, "n_head": heads, "n_positions": CTX, "n_ctx": CTX, "vocab_size": VOCAB,
              "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5, "tie_word_embeddings": True,
              "bos_token_id": VOCAB - 1, "eos_token_id": VOCAB - 1, "dtype": "float32" if kind == "f32" else "bfloat16"}
    if head:
        config.update(pad_token_id=VOCAB - 1, id2label={"0": "no", "1": "yes"}, label2id={"no": 0, "yes": 1}, num_labels=2)
        extra = np.random.default_rng(2).standard_normal((2, width), dtype=np.float32)
        tensors = [("transformer." + n, a) for n, a in tensors] + [("score.weight", extra)]
    os.makedirs(path, exist_ok=True)
    with open(f"{path}/config.json", "w") as f:
        json.dump(config, f)
    with open(f"{path}/tokenizer_config.json", "w") as f:
        json.dump({"tokenizer_class": "GPT2Tokenizer", "model_max_length": CTX, "bos_token": "<|endoftext|>",
                   "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}, f)
    vocab, merges = vocabulary()
    with open(f"{path}/vocab.json", "w") as f:
        json.dump({t: i for i, t in enumerate(vocab)}, f)
    with open(f"{path}/merges.txt", "w", encoding="utf-8") as f:
        f.write("#version: 0.2\n" + "\n".join(merges) + "\n")
    write_safetensors(f"{path}/model.safetensors.new", tensors, kind)
    os.replace(f"{path}/model.safetensors.new", f"{path}/model.safetensors")


def vocabulary():
    """GPT-2's tokens in order of their ids, and its merges: the file of merges tells both."""
    with open(f"{TOKENIZER}/vocab.bpe", encoding="utf-8") as f:
        merges = [line for line in f.read().split("\n")[1:] if line]
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    tokens = [chr(b) for b in plain] + [chr(256 + i) for i in range(256 - len(plain))]
    tokens += [m.replace(" ", "") for m in merges] + ["<|endoftext|>"]
    assert len(tokens) == VOCAB
    return tokens, merges


def gguf_name(key):
    part = key.split(".")
    if part[0] != "h":
        return f"{TOP[part[0]]}.{part[1]}"
    return f"blk.{part[1]}.{NAMES['.'.join(part[2:-1])]}.{part[-1]}"


def write_gguf(path, shape, tensors, kind):
    width, layers, heads = SHAPES[shape]
    w = gguf.GGUFWriter(path + ".new", "gpt2")
    w.add_context_length(CTX)
    w.add_embedding_length(width)
    w.add_feed_forward_length(4 * width)
    w.add_block_count(layers)
    w.add_head_count(heads)
    w.add_layer_norm_eps(1e-5)
    w.add_file_type(getattr(gguf.LlamaFileType, FILE_TYPES[kind]))
    vocab, merges = vocabulary()
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("gpt-2")
    w.add_token_list(vocab)
    w.add_token_types([1] * (VOCAB - 1) + [3])
    w.add_token_merges(merges)
    w.add_bos_token_id(VOCAB - 1)
    w.add_eos_token_id(VOCAB - 1)
    kept = getattr(gguf.GGMLQuantizationType, GGML[kind])
    for key, a in tensors:
        name = gguf_name(key)
        if a.ndim == 2 and name.startswith("blk."):
            a = np.ascontiguousarray(a.T)  # GPT-2's Conv1D keeps (inputs, outputs)
        if kind == "f32" or a.ndim == 1 or name.startswith("position"):
            w.add_tensor(name, a)
        else:
            w.add_tensor(name, gguf.quants.quantize(a, kept), raw_dtype=kept)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    os.replace(path + ".new", path)


def main():
    a = argparse.ArgumentParser()
    a.add_argument("dir")
    a.add_argument("shape", choices=SHAPES)
    a.add_argument("--kinds", default="f32,bf16,q8,q4")
    a.add_argument("--head", action="store_true")
    a.add_argument("--convert", metavar="PYTHON")
    args = a.parse_args()
    os.makedirs(args.dir, exist_ok=True)
    kinds, todo = args.kinds.split(","), []
    for kind in kinds:
        path = f"{args.dir}/{args.shape}-{kind}"
        todo += [(write_gguf, f"{path}.gguf", (kind,), f"{path}.gguf")]
        if kind in ("f32", "bf16"):
            todo += [(write_directory, path, (kind, False), f"{path}/model.safetensors")]
        if kind in ("f32", "bf16") and args.head:
            path = f"{args.dir}/{args.shape}-head-{kind}"
            todo += [(write_directory, path, (kind, True), f"{path}/model.safetensors")]
    if args.convert and "f32" not in kinds:  # the converters start from it
        path = f"{args.dir}/{args.shape}-f32"
        todo += [(write_directory, path, ("f32", False), f"{path}/model.safetensors")]
    todo = [t for t in todo if not os.path.exists(t[3])]
    tensors = list(weights(args.shape)) if todo else []
    for write, path, more, _ in todo:
        write(path, args.shape, tensors, *more)
        print(path, flush=True)
    del tensors
    if args.convert:
        command = [args.convert, f"{HERE}/convert.py", args.dir, args.shape, ",".join(kinds)]
        subprocess.run(command + (["--head"] if args.head else []), check=True)


if __name__ == "__main__":
    main()
