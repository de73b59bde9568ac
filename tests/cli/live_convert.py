#!/usr/bin/env python3
"""`sill convert` against those who read its files: every kind of checkpoint that is read becomes a directory that transformers loads
(the same logits as its own model, to the bit) and a GGUF that llama.cpp runs (greedy ids; the package xllamacpp has it built).

    BUILD=build/release python3 tests/cli/live_convert.py   (needs torch, transformers; `make test-all` runs it)
"""
import json
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.request

try:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, logging
except ImportError as e:
    print(f"SKIP live_convert: {e}")
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
work = tempfile.mkdtemp(prefix="sill_convert_")
failed = 0


def run(*args):
    p = subprocess.run([SILL, *args], capture_output=True, text=True)
    assert p.returncode == 0, f"{args}: {p.returncode}\n{p.stderr}"
    return p.stdout


def check(name, fn, *args):
    global failed
    try:
        why = fn(*args)
        print(f"SKIP {name}: {why}" if why else f"PASS {name}", flush=True)
    except Exception as e:  # noqa: BLE001
        failed += 1
        print(f"FAIL {name}: {type(e).__name__}: {e}", flush=True)


@torch.no_grad()
def logits(model):
    ids = torch.tensor([[i * 17 % model.config.vocab_size for i in range(40)]])
    return model.float().eval()(input_ids=ids).logits


def fixtures_load(name, of):
    out = os.path.join(work, name)
    run("convert", os.path.join(FIX, "model", name), "-o", out)
    got = AutoModelForCausalLM.from_pretrained(out, attn_implementation="eager")
    want = GPT2LMHeadModel.from_pretrained(os.path.join(FIX, "model", of), attn_implementation="eager")
    if "bf16" in name:
        assert got.dtype == torch.bfloat16 or got.dtype == torch.float32, got.dtype
        want = want.bfloat16()
    assert torch.equal(logits(got), logits(want))


def nanogpt_loads(name):
    """Its own code's forward pass, written here from the weights as nanoGPT stores them."""
    path = os.path.join(FIX, "model", name, "ckpt.pt")
    saved = torch.load(path, weights_only=True)
    args, w = saved["model_args"], {k.removeprefix("_orig_mod."): v.float() for k, v in saved["model"].items()}
    out = os.path.join(work, name)
    run("convert", path, "-o", out)
    model = AutoModelForCausalLM.from_pretrained(out, attn_implementation="eager").eval()
    f = torch.nn.functional
    ids = torch.tensor([[i * 17 % args["vocab_size"] for i in range(40)]])

    def norm(x, k):
        return f.layer_norm(x, (args["n_embd"],), w[k + ".weight"], w.get(k + ".bias"), 1e-5)

    def linear(x, k):
        return f.linear(x, w[k + ".weight"], w.get(k + ".bias"))
    x = w["transformer.wte.weight"][ids] + w["transformer.wpe.weight"][:40]
    for i in range(args["n_layer"]):
        p = f"transformer.h.{i}."
        q, k, v = (t.view(1, 40, args["n_head"], -1).transpose(1, 2) for t in linear(norm(x, p + "ln_1"), p + "attn.c_attn").split(args["n_embd"], 2))
        y = f.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(1, 40, -1)
        x = x + linear(y, p + "attn.c_proj")
        x = x + linear(torch.nn.GELU()(linear(norm(x, p + "ln_2"), p + "mlp.c_fc")), p + "mlp.c_proj")
    want = norm(x, "transformer.ln_f") @ w["lm_head.weight"].T
    with torch.no_grad():
        got = model(input_ids=ids).logits
    assert (got - want).abs().max() < 1e-4 * want.abs().max(), float((got - want).abs().max())


class Llama:
    def __init__(self, path):
        p = xllamacpp.CommonParams()
        p.model.path = path
        p.n_ctx, p.n_parallel, p.n_gpu_layers, p.cpuparams.n_threads, p.verbosity = 128, 1, 0, 2, -1
        p.hostnames, p.port = ["127.0.0.1"], 0
        p.warmup = p.cache_prompt = p.use_jinja = p.enable_chat_template = False
        self.server = xllamacpp.Server(p)

    def greedy(self, ids, n):
        body = json.dumps(dict(prompt=ids, n_predict=n, temperature=0, return_tokens=True, ignore_eos=True)).encode()
        r = urllib.request.Request(self.server.listening_address + "/completion", body, {"Content-Type": "application/json"})
        return json.load(urllib.request.urlopen(r, timeout=60))["tokens"]


def make(family):
    """A model with a tokenizer, saved as pytorch_model.bin."""
    folder = os.path.join(work, family)
    tokenizer = os.path.join(FIX, {"gpt2": "task/gpt2/tokenizer.json", "llama": "tokenizer/smollm.json"}[family])
    t = json.load(open(tokenizer))
    n = 1 + max(list(t["model"]["vocab"].values()) + [a["id"] for a in t["added_tokens"]])
    torch.manual_seed(5)
    if family == "gpt2":
        model = GPT2LMHeadModel(GPT2Config(vocab_size=n, n_embd=64, n_layer=2, n_head=4, n_positions=128, bos_token_id=0, eos_token_id=0))
    else:
        model = LlamaForCausalLM(LlamaConfig(vocab_size=n, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
                                             num_key_value_heads=2, max_position_embeddings=128, bos_token_id=1, eos_token_id=2))
    for p in model.parameters():
        p.data += 0.15 * torch.randn_like(p)
    model.eval()
    model.config.save_pretrained(folder)
    torch.save(model.state_dict(), os.path.join(folder, "pytorch_model.bin"))
    shutil.copy(tokenizer, folder)
    if os.path.basename(tokenizer) != "tokenizer.json":
        os.rename(os.path.join(folder, os.path.basename(tokenizer)), os.path.join(folder, "tokenizer.json"))
    return folder, model


def both(family):
    folder, model = make(family)
    run("convert", folder, "-o", folder + "-hub")
    got = AutoModelForCausalLM.from_pretrained(folder + "-hub", attn_implementation="eager")
    model.config._attn_implementation = "eager"
    assert torch.equal(logits(got), logits(model)), "transformers' logits differ"
    text = "The law said: it's 12."
    ids = AutoTokenizer.from_pretrained(folder + "-hub")(text)["input_ids"]
    open(os.path.join(work, "t.jsonl"), "w").write(json.dumps({"t": text}) + "\n")
    ours = json.loads(run("tokenize", os.path.join(work, "t.jsonl"), "--text", "t", "-m", folder, "--json", "-q"))["ids"]
    assert ids == ours, (ids, ours)
    if not xllamacpp:
        return "this machine has no xllamacpp"
    run("convert", folder, "-o", folder + ".gguf")
    theirs = Llama(folder + ".gguf").greedy(ids, 12)
    mine = list(ids)
    for step in range(12):
        with torch.no_grad():
            last = model(torch.tensor([mine])).logits[0, -1]
        best = int(last.argmax())
        if best != theirs[step]:
            assert float(last[best] - last[theirs[step]]) < 0.05, (step, best, theirs)
            break
        mine.append(best)


for name in ("gpt2-base", "gpt2-torch", "gpt2-torch-old", "gpt2-torch-views", "gpt2-torch-shards", "gpt2-llmc", "gpt2-llmc-bf16", "gpt2-tensorflow"):
    check(f"transformers loads {name}", fixtures_load, name, "gpt2-base")
for name in ("gpt2-nanogpt", "gpt2-nanogpt-bias"):
    check(f"transformers loads {name}", nanogpt_loads, name)
for family in ("gpt2", "llama"):
    check(f"transformers and llama.cpp load {family}", both, family)
shutil.rmtree(work)
sys.stdout.flush()
os._exit(1 if failed else 0)  # llama.cpp's threads
