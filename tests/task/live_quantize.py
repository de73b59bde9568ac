#!/usr/bin/env python3
"""`sill quantize` against those who read its files: tiny models made by transformers are written as GGUF and read back by
gguf-py (every tensor equal to its own quantizer's, rotation permuted independently) and run by llama.cpp (tokens and
greedy text; the package xllamacpp has it built); LLM.int8 directories are read by safetensors and loaded by
transformers with bitsandbytes. Certificates are compared with numpy, alpha with the package krippendorff.

    BUILD=build/release python3 tests/task/live_quantize.py   (needs torch, transformers, gguf; `make test-all` runs it)
"""
import copy
import ctypes as C
import json
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.request

try:
    import gguf
    import numpy as np
    import torch
    from gguf import GGMLQuantizationType as T
    from safetensors.numpy import load_file
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, logging
except ImportError as e:
    print(f"SKIP live_quantize: {e}")
    sys.exit(0)
try:
    import xllamacpp
except ImportError:
    xllamacpp = None

logging.set_verbosity_error()
logging.disable_progress_bar()
HERE = os.path.dirname(os.path.abspath(__file__))
FIX = os.path.join(HERE, "..", "fixtures")
SILL = os.path.abspath(os.path.join(os.environ.get("BUILD", "build/release"), "sill"))
TEXT = "The law of 1815 was read twice.  It said: \"no war\", caf\u00e9s & na\u00efve \u4e2d\u6587 \U0001f642\n\n" * 8
work = tempfile.mkdtemp(prefix="sill_quantize_")
failed = 0


def run(*args, status=0):
    p = subprocess.run([SILL, *args], capture_output=True, text=True)
    assert status is None or p.returncode == status, f"{args}: {p.returncode}\n{p.stderr}"
    return p


def check(name, fn):
    global failed
    try:
        why = fn()
        print(f"SKIP {name}: {why}" if why else f"PASS {name}", flush=True)
    except Exception as e:  # noqa: BLE001
        failed += 1
        print(f"FAIL {name}: {type(e).__name__}: {e}", flush=True)


def tokenizer_size(path):
    t = json.load(open(path))
    return 1 + max(list(t["model"]["vocab"].values()) + [a["id"] for a in t["added_tokens"]])


def make(name, family, tokenizer, **more):
    folder = os.path.join(work, name)
    torch.manual_seed(len(name))
    n = tokenizer_size(os.path.join(FIX, tokenizer)) + more.pop("pad", 0)
    if family == "gpt2":
        config = GPT2Config(vocab_size=n, n_embd=64, n_layer=2, n_head=4, n_positions=128, bos_token_id=0, eos_token_id=0, **more)
        model = GPT2LMHeadModel(config)
    else:
        config = LlamaConfig(vocab_size=n, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
                             num_key_value_heads=2, max_position_embeddings=128, bos_token_id=1, eos_token_id=2, **more)
        model = LlamaForCausalLM(config)
    for p in model.parameters():  # so that logits spread, and biases matter
        p.data += 0.15 * torch.randn_like(p)
    model.eval()
    model.save_pretrained(folder)
    shutil.copy(os.path.join(FIX, tokenizer), os.path.join(folder, "tokenizer.json"))
    return folder, model


CASES = {
    "gpt2": ("gpt2", "task/gpt2/tokenizer.json", {}),
    "gpt2-untied": ("gpt2", "task/gpt2/tokenizer.json", {"tie_word_embeddings": False, "pad": 5}),
    "smollm": ("llama", "tokenizer/smollm.json", {"tie_word_embeddings": True}),
    "llama3": ("llama", "tokenizer/llama3.json",
               {"rope_parameters": {"rope_type": "llama3", "rope_theta": 50000.0, "factor": 8.0, "low_freq_factor": 1.0,
                                    "high_freq_factor": 4.0, "original_max_position_embeddings": 64}}),
    "spm": ("llama", "tokenizer/spm.json", {"attention_bias": True}),
    "linear": ("llama", "tokenizer/spm.json", {"rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}}),
}
made = {}


def text_file():
    p = os.path.join(work, "text.txt")
    open(p, "w", encoding="utf-8").write(TEXT)
    return p


def quantized(name, to):
    key = (name, to)
    if key not in made:
        family, tokenizer, more = CASES[name]
        folder, model = made.get(name) or make(name, family, tokenizer, **dict(more))
        made[name] = (folder, model)
        out = os.path.join(work, f"{name}-{to}" + ("" if to == "int8" else ".gguf"))
        run("quantize", folder, "--to", to, "-o", out, "--text", text_file(), "--force")
        made[key] = out
    return made[key]


def permuted(w, heads):
    """convert_hf_to_gguf's rule, in numpy."""
    return w.reshape(heads, 2, w.shape[0] // heads // 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def expected_tensors(name, to):
    family = CASES[name][0]
    config = made[name][1].config
    state = {k: v.detach().numpy() for k, v in made[name][1].state_dict().items()}
    body = T.Q8_0 if to == "q8" else T.Q4_1
    gpt2 = [("ln_1", "attn_norm"), ("attn.c_attn", "attn_qkv"), ("attn.c_proj", "attn_output"), ("ln_2", "ffn_norm"), ("mlp.c_fc", "ffn_up"), ("mlp.c_proj", "ffn_down")]
    llama = [("input_layernorm", "attn_norm"), ("self_attn.q_proj", "attn_q"), ("self_attn.k_proj", "attn_k"), ("self_attn.v_proj", "attn_v"),
             ("self_attn.o_proj", "attn_output"), ("post_attention_layernorm", "ffn_norm"), ("mlp.gate_proj", "ffn_gate"), ("mlp.up_proj", "ffn_up"), ("mlp.down_proj", "ffn_down")]
    out = {}
    for i in range(2):
        for a, b in gpt2 if family == "gpt2" else llama:
            for end in ("weight", "bias"):
                w = state.get(f"{'transformer.h' if family == 'gpt2' else 'model.layers'}.{i}.{a}.{end}")
                if w is None:
                    continue
                if family == "gpt2" and w.ndim == 2:
                    w = np.ascontiguousarray(w.T)
                if b in ("attn_q", "attn_k"):
                    w = permuted(w, config.num_attention_heads if b == "attn_q" else config.num_key_value_heads)
                out[f"blk.{i}.{b}.{end}"] = (body if w.ndim == 2 else T.F32, w)
    if family == "gpt2":
        out["position_embd.weight"] = (T.F32, state["transformer.wpe.weight"])
        out["token_embd.weight"] = (T.Q8_0, state["transformer.wte.weight"])
        for end in ("weight", "bias"):
            out[f"output_norm.{end}"] = (T.F32, state[f"transformer.ln_f.{end}"])
    else:
        out["token_embd.weight"] = (T.Q8_0, state["model.embed_tokens.weight"])
        out["output_norm.weight"] = (T.F32, state["model.norm.weight"])
    if not config.tie_word_embeddings:
        out["output.weight"] = (T.Q8_0, state["lm_head.weight"])
    return out


def tensors_equal(name, to):
    path = quantized(name, to)
    reader = gguf.GGUFReader(path)
    got = {t.name: t for t in reader.tensors}
    want = expected_tensors(name, to)
    if name == "llama3":
        factors = got.pop("rope_freqs.weight")
        freq = 1.0 / (50000.0 ** (np.arange(0, 16, 2) / 16))
        wave = 2 * np.pi / freq
        smooth = (64 / wave - 1) / 3
        f = np.where(wave < 16, 1, np.where(wave > 64, 8, 1 / ((1 - smooth) / 8 + smooth)))
        assert np.allclose(factors.data, f, rtol=1e-6), (factors.data, f)
    assert set(got) == set(want), set(got) ^ set(want)
    for k, (kind, w) in want.items():
        t = got[k]
        assert t.tensor_type == kind, (k, t.tensor_type)
        assert np.array_equal(np.asarray(t.data).view(np.uint8).ravel(), np.ascontiguousarray(gguf.quants.quantize(w, kind)).view(np.uint8).ravel()), k
        assert list(t.shape)[::-1] == list(w.shape), k


class Llama:
    """llama.cpp's server with one model."""

    def __init__(self, path):
        p = xllamacpp.CommonParams()
        p.model.path = path
        p.n_ctx, p.n_parallel, p.n_gpu_layers, p.cpuparams.n_threads, p.verbosity = 128, 1, 0, 2, -1
        p.hostnames, p.port = ["127.0.0.1"], 0
        p.warmup = p.cache_prompt = p.use_jinja = p.enable_chat_template = False
        self.server = xllamacpp.Server(p)

    def post(self, where, **body):
        r = urllib.request.Request(self.server.listening_address + where, json.dumps(body).encode(), {"Content-Type": "application/json"})
        return json.load(urllib.request.urlopen(r, timeout=60))

    def tokenize(self, text, special=False):
        # stored text is never a control token in `sill tokenize`: the same for llama.cpp
        return self.post("/tokenize", content=text, add_special=special, parse_special=False)["tokens"]

    def greedy(self, ids, n):
        return self.post("/completion", prompt=ids, n_predict=n, temperature=0, return_tokens=True, ignore_eos=True)["tokens"]


def dequantized(name, to):
    """transformers' model with the values of the file's weights (tensors_equal checks the file)."""
    model = copy.deepcopy(made[name][1])
    gpt2 = CASES[name][0] == "gpt2"
    for k, p in model.named_parameters():
        if p.ndim != 2 or "wpe" in k:
            continue
        body = k.split(".")[1] in ("h", "layers")
        kind = T.Q8_0 if to == "q8" or not body else T.Q4_1
        w = p.data.numpy().T if gpt2 and body else p.data.numpy()
        w = gguf.quants.dequantize(gguf.quants.quantize(np.ascontiguousarray(w), kind), kind)
        p.data = torch.from_numpy(np.ascontiguousarray(w.T if gpt2 and body else w))
    return model


def llama_agrees(name, to):
    """llama.cpp's tokens are sill's, and its greedy text up to where two tokens are about as likely."""
    if not xllamacpp:
        return "this machine has no xllamacpp"
    path = quantized(name, to)
    llama = Llama(path)
    for text in (TEXT[:70], "Hello  world", " leading", "a\nb", "\u4e2d"):
        theirs = llama.tokenize(text, special=True)
        f = os.path.join(work, "t.jsonl")
        open(f, "w").write(json.dumps({"t": text}) + "\n")
        ours = json.loads(run("tokenize", f, "--text", "t", "-m", path, "--json", "-q").stdout)["ids"]
        if len(theirs) == len(ours) + 1:  # llama.cpp puts a first token before every text where the model has one
            theirs = theirs[1:]
        assert ours == theirs, (text, ours, theirs)
    prompt = "The law said"
    ids = llama.tokenize(prompt, special=CASES[name][1].endswith("spm.json") or name == "llama3")
    ours = json.loads(run("generate", "-m", path, "--json", "-q", "--greedy", "--max-new-tokens", "12", "--ignore-eos", prompt).stdout)["ids"]
    theirs = llama.greedy(ids, 12)
    assert len(theirs) == len(ours) == 12, (theirs, ours)
    for step in range(12):
        if ours[step] != theirs[step]:
            with torch.no_grad():
                logits = dequantized(name, to)(torch.tensor([ids + ours[:step]])).logits[0, -1]
            margin = float(logits[ours[step]] - logits[theirs[step]])
            assert abs(margin) < 0.3, (step, ours, theirs, margin)
            break


def int8_layout(name):
    out = quantized(name, "int8")
    family = CASES[name][0]
    got = load_file(os.path.join(out, "model.safetensors"))
    state = {k: v.detach().numpy() for k, v in made[name][1].state_dict().items()}
    n = 0
    for k, w in got.items():
        if not k.endswith(".SCB"):
            continue
        n += 1
        stem = k[:-4]
        full = state[stem + ".weight"]
        full = full.T if family == "gpt2" else full
        scale = np.abs(full).max(axis=1)
        assert np.array_equal(w, scale), k
        q = np.rint(full * (np.float32(127) / scale)[:, None]).astype(np.int8)
        assert np.array_equal(got[stem + ".weight"], q), stem
        assert got[stem + ".weight_format"] == 0 and got[stem + ".weight_format"].shape == ()
    assert n == (8 if family == "gpt2" else 14), n
    for k in got:
        if k in state and k.rsplit(".", 1)[0] + ".SCB" not in got:
            assert np.array_equal(got[k], state[k]), k
    config = json.load(open(os.path.join(out, "config.json")))
    assert config["quantization_config"]["load_in_8bit"] and config["quantization_config"]["quant_method"] == "bitsandbytes"


def bitsandbytes_loads(name):
    try:
        import bitsandbytes as bnb
        from transformers import AutoModelForCausalLM, BitsAndBytesConfig
    except ImportError as e:
        return f"this machine has no bitsandbytes ({e})"
    out = quantized(name, "int8")
    model = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32, device_map="cpu")
    layers = [m for m in model.modules() if isinstance(m, bnb.nn.Linear8bitLt)]
    assert len(layers) == (8 if CASES[name][0] == "gpt2" else 14), len(layers)
    folder, original = made[name]
    theirs = AutoModelForCausalLM.from_pretrained(folder, quantization_config=BitsAndBytesConfig(load_in_8bit=True), device_map="cpu", dtype=torch.float32)
    theirs.save_pretrained(os.path.join(work, name + "-bnb"))
    ours, saved = load_file(os.path.join(out, "model.safetensors")), load_file(os.path.join(work, name + "-bnb", "model.safetensors"))
    assert set(saved) <= set(ours), set(saved) - set(ours)
    for k, v in saved.items():
        assert v.dtype == ours[k].dtype and v.shape == ours[k].shape, k
        if v.dtype == np.int8:  # theirs are rounded to half precision first
            assert np.abs(v.astype(int) - ours[k]).max() <= 1, k
    row = [5, 9, 33, 70, 12, 6, 44]
    ids = torch.tensor([row])
    with torch.no_grad():
        a, b, c = model(ids).logits.float(), theirs(ids).logits.float(), original(ids).logits
    error = float((a - b).abs().max() / b.abs().max())
    assert error < 0.05, error
    shutil.copy(os.path.join(folder, "tokenizer.json"), os.path.join(work, name + "-bnb"))
    for path in (out, os.path.join(work, name + "-bnb")):  # sill reads both
        mine = torch.tensor(dumped_logits(path, 0, [row], c.shape[-1])[0])
        error = float((mine - c[0]).abs().max() / c.abs().max())
        assert error < 0.05, (path, error)


def dumped_logits(path, dtype, windows, n_vocab):
    """Logits of libsill, one sequence after the other: the certificate's own do not depend on its batches."""
    class Error(C.Structure):
        _fields_ = [("code", C.c_int), ("msg", C.c_char * 508)]

    class Options(C.Structure):
        _fields_ = [("size", C.c_size_t), ("device", C.c_char_p), ("dtype", C.c_int), ("n_threads", C.c_int32), ("limit", C.c_uint64)]

    lib = C.CDLL(os.path.join(os.path.dirname(SILL), "libsill." + ("dylib" if sys.platform == "darwin" else "so")))
    err, model, session, out = Error(), C.c_void_p(), C.c_void_p(), []
    o = Options(C.sizeof(Options), None, dtype, 1, 0)
    assert lib.sill_model_load(path.encode(), C.byref(o), C.byref(model), C.byref(err)) == 0, err.msg
    assert lib.sill_session_create(model, None, C.byref(session), C.byref(err)) == 0, err.msg
    for w in windows:
        logits = np.empty((len(w), n_vocab), np.float32)
        ids = (C.c_int32 * len(w))(*w)
        assert lib.sill_logits(session, ids, C.c_size_t(len(w)), logits.ctypes.data_as(C.c_void_p), C.byref(err)) == 0, err.msg
        out.append(logits)
    lib.sill_session_free(session)
    lib.sill_model_free(model)
    return out


def certificate_is_numpys():
    """Every number of a certificate from logits dumped by libsill, in numpy."""
    quantized("smollm", "q8")
    folder, model = made["smollm"]
    out = os.path.join(work, "cert.gguf")
    run("quantize", folder, "--to", "q8", "-o", out, "--text", text_file(), "--force", "--window", "64", "--tokens", "150")
    c = json.load(open(out + ".certificate.json"))
    lines = os.path.join(work, "t.jsonl")
    open(lines, "w").write(json.dumps({"t": TEXT}) + "\n")
    ids = json.loads(run("tokenize", lines, "--text", "t", "-m", out, "--json", "-q").stdout)["ids"]
    windows = [ids[:64], ids[64:128], ids[128:128 + 150 - 126 + 1]]
    n_vocab = model.config.vocab_size
    lp = []
    for path, dtype in ((folder, 1), (out, 0)):
        x = [d[:-1].astype(np.float64) for d in dumped_logits(path, dtype, windows, n_vocab)]
        x = np.concatenate(x)
        m = x.max(1, keepdims=True)
        lp.append(x - m - np.log(np.exp(x - m).sum(1, keepdims=True)))
    target = np.concatenate([w[1:] for w in windows])
    nll = [-v[np.arange(len(target)), target] for v in lp]
    kl = (np.exp(lp[0]) * (lp[0] - lp[1])).sum(1)
    d = nll[1] - nll[0]
    n = len(target)
    p = c["perplexity"]
    want = {
        (p["before"]["value"], np.exp(nll[0].mean())), (p["before"]["standard_error"], np.exp(nll[0].mean()) * nll[0].std(ddof=1) / np.sqrt(n)),
        (p["after"]["value"], np.exp(nll[1].mean())), (p["after"]["standard_error"], np.exp(nll[1].mean()) * nll[1].std(ddof=1) / np.sqrt(n)),
        (p["loss_percent"]["value"], 100 * (np.exp(d.mean()) - 1)),
        (p["loss_percent"]["standard_error"], 100 * np.exp(d.mean()) * d.std(ddof=1) / np.sqrt(n)),
        (c["kl_divergence"]["mean"], kl.mean()), (c["kl_divergence"]["standard_error"], kl.std(ddof=1) / np.sqrt(n)),
        (c["kl_divergence"]["p99"], np.percentile(kl, 99)), (c["kl_divergence"]["max"], kl.max()),
        (c["top1_agreement"], (lp[0].argmax(1) == lp[1].argmax(1)).mean()),
    }
    assert c["text"]["tokens_scored"] == n == 150
    assert kl.mean() > 1e-5
    for got, expected in want:
        assert abs(got - expected) <= 1e-9 + 1e-7 * abs(expected), (got, expected)


def alpha_is_krippendorffs():
    try:
        import krippendorff
    except ImportError:
        return "this machine has no package krippendorff"
    seen = 0
    for line in open(os.path.join(FIX, "stats", "agree.txt")):
        kind, *rest = line.split() or [""]
        if kind == "case":
            coders = int(rest[1])
        elif kind == "codes":
            v = np.array([float(x) if x != "-1" else np.nan for x in rest]).reshape(coders, -1)
        elif kind == "alpha_nominal" and rest[0] != "nan":
            seen += 1
            assert abs(krippendorff.alpha(reliability_data=v, level_of_measurement="nominal") - float(rest[0])) < 1e-12, line
    assert seen >= 4, seen



for name in CASES:
    for to in ("q8", "q4"):
        check(f"tensors_{name}_{to}", lambda: tensors_equal(name, to))
        check(f"llama_cpp_{name}_{to}", lambda: llama_agrees(name, to))
for name in ("gpt2", "spm"):
    check(f"int8_layout_{name}", lambda: int8_layout(name))
    check(f"bitsandbytes_{name}", lambda: bitsandbytes_loads(name))
check("certificate_is_numpys", certificate_is_numpys)
check("alpha_is_krippendorffs", alpha_is_krippendorffs)
shutil.rmtree(work)
sys.exit(failed > 0)
