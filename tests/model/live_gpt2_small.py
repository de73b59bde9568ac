#!/usr/bin/env python3
"""Whole models made here and now, in transformers and in libsill: a GPT-2-small shape, a Llama of SmolLM2's shape cut
to six layers, and two dozen tiny models of random shapes. Logits within 1e-4 of the largest, loss within 1e-5 in f32.

    BUILD=build/release python3 tests/model/live_gpt2_small.py      (needs torch, transformers; `make test-all` runs it)
"""
import ctypes as C
import os
import random
import shutil
import sys
import tempfile

try:
    import numpy as np
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, logging
except ImportError as e:
    print(f"SKIP live_gpt2_small: {e}")
    sys.exit(0)

BUILD = os.environ.get("BUILD", "build/release")
SUFFIX = "dylib" if sys.platform == "darwin" else "so"
sill = C.CDLL(os.path.abspath(f"{BUILD}/libsill.{SUFFIX}"))
logging.set_verbosity_error()
logging.disable_progress_bar()
DTYPES = {"auto": 0, "f32": 1, "f16": 2, "bf16": 3}


class Error(C.Structure):
    _fields_ = [("code", C.c_int), ("msg", C.c_char * 508)]


class ModelOptions(C.Structure):
    _fields_ = [("size", C.c_size_t), ("device", C.c_char_p), ("dtype", C.c_int), ("n_threads", C.c_int32),
                ("memory_limit_bytes", C.c_uint64)]


class Row(C.Structure):
    _fields_ = [("index", C.c_uint64), ("key", C.c_uint64), ("text", C.c_char_p), ("n_bytes", C.c_size_t),
                ("ids", C.POINTER(C.c_int32)), ("n_ids", C.c_size_t)]


class Scored(C.Structure):
    _fields_ = [("index", C.c_uint64), ("status", C.c_int), ("error", C.c_char_p), ("ids", C.POINTER(C.c_int32)),
                ("logprobs", C.POINTER(C.c_float)), ("n_ids", C.c_size_t), ("n_scored", C.c_size_t),
                ("sum_logprob", C.c_double), ("n_windows", C.c_int32), ("truncated", C.c_int32)]


NEXT = C.CFUNCTYPE(C.c_int, C.c_void_p, C.POINTER(Row))
DONE = C.CFUNCTYPE(C.c_int, C.c_void_p, C.POINTER(Scored))
for name in ("sill_model_free", "sill_session_free"):
    getattr(sill, name).argtypes = [C.c_void_p]
    getattr(sill, name).restype = None
sill.sill_model_load.argtypes = [C.c_char_p, C.POINTER(ModelOptions), C.POINTER(C.c_void_p), C.POINTER(Error)]
sill.sill_session_create.argtypes = [C.c_void_p, C.c_void_p, C.POINTER(C.c_void_p), C.POINTER(Error)]
sill.sill_logits.argtypes = [C.c_void_p, C.POINTER(C.c_int32), C.c_size_t, C.POINTER(C.c_float), C.POINTER(Error)]
sill.sill_score.argtypes = [C.c_void_p, C.c_void_p, NEXT, DONE, C.c_void_p, C.POINTER(Error)]


class Session:
    """A model and a session of libsill."""

    def __init__(self, path, dtype="auto", device=b"cpu"):
        self.model, self.session, self.err = C.c_void_p(), C.c_void_p(), Error()
        o = ModelOptions(C.sizeof(ModelOptions), device, DTYPES[dtype], 0, 0)
        self.check(sill.sill_model_load(path.encode(), C.byref(o), C.byref(self.model), C.byref(self.err)))
        self.check(sill.sill_session_create(self.model, None, C.byref(self.session), C.byref(self.err)))

    def check(self, status):
        if status:
            raise RuntimeError(self.err.msg.decode())

    def logits(self, ids, n_vocab):
        out = np.empty((len(ids), n_vocab), np.float32)
        row = (C.c_int32 * len(ids))(*ids)
        self.check(sill.sill_logits(self.session, row, len(ids), out.ctypes.data_as(C.POINTER(C.c_float)), C.byref(self.err)))
        return out

    def losses(self, rows):
        keep, todo, found = [(C.c_int32 * len(r))(*r) for r in rows], list(range(len(rows))), {}

        def take(_, row):
            if not todo:
                return 0
            i = todo.pop(0)
            row[0] = Row(i, i, None, 0, C.cast(keep[i], C.POINTER(C.c_int32)), len(rows[i]))
            return 1

        def done(_, r):
            if r[0].status:
                raise RuntimeError(r[0].error.decode())
            found[r[0].index] = -r[0].sum_logprob / r[0].n_scored
            return 0
        self.check(sill.sill_score(self.session, None, NEXT(take), DONE(done), None, C.byref(self.err)))
        return [found[i] for i in range(len(rows))]

    def close(self):
        sill.sill_session_free(self.session)
        sill.sill_model_free(self.model)


failed = 0


def report(name, problems, note=""):
    global failed
    failed += bool(problems)
    for p in problems[:5]:
        print(f"  {p}")
    print(f"{'FAIL' if problems else 'PASS'} {name}{' ' + note if note else ''}")


@torch.no_grad()
def compare(model, path, rows, dtypes, device=b"cpu"):
    """Largest relative difference of logits for each (dtype, bound); problems in words."""
    n_vocab = model.config.vocab_size
    wants = [model(torch.tensor([r])).logits[0].numpy() for r in rows]
    losses = [float(model(torch.tensor([r]), labels=torch.tensor([r])).loss) for r in rows if len(r) > 1]
    problems, notes = [], []
    for dtype, bound in dtypes:
        s = Session(path, dtype, device)
        worst = 0.0
        for r, want in zip(rows, wants):
            got = s.logits(r, n_vocab)
            worst = max(worst, float((np.abs(got - want).max(-1) / np.abs(want).max(-1)).max()))
        if not worst <= bound:
            problems.append(f"{dtype}: logits differ by {worst:.3g}, allowed {bound:g}")
        for got, want in zip(s.losses([r for r in rows if len(r) > 1]), losses):
            limit = max(1e-5, bound / 10) * want
            if not abs(got - want) <= limit:
                problems.append(f"{dtype}: loss {got:.8f}, transformers {want:.8f}")
        notes.append(f"{dtype} {worst:.1g}")
        s.close()
    return problems, "(" + ", ".join(notes) + ")"


def randomize(model, seed):
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            x = torch.randn(p.shape, generator=g)
            if p.dim() == 2:
                fan = p.shape[0] if "c_" in name else p.shape[1]
                p.copy_(x * (0.5 if "wte" in name or "wpe" in name or "embed" in name else 1.0 / fan**0.5))
            else:
                p.copy_(0.1 * x if name.endswith("bias") else 1 + 0.1 * x)
    return model.eval()


def run(name, model, rows, dtypes, save_as=torch.float32, devices=(b"cpu",)):
    path = tempfile.mkdtemp(prefix="sill-live-")
    try:
        model.to(save_as).save_pretrained(path)
        again = type(model).from_pretrained(path, dtype=torch.float32).eval()
        for device in devices:
            problems, note = compare(again, path, rows, dtypes, device)
            report(f"{name} {device.decode()}", problems, note)
    finally:
        shutil.rmtree(path, ignore_errors=True)


def rows_of(rng, n_vocab, lengths):
    return [[rng.randrange(n_vocab) for _ in range(n)] for n in lengths]


def random_model(i):
    rng = random.Random(i)
    layers, heads, size = rng.randint(1, 3), rng.randint(1, 7), 2 * rng.randint(1, 20)
    vocab, ctx = rng.randint(50, 400), rng.randint(70, 130)
    if i % 2:
        kv = rng.choice([k for k in range(1, heads + 1) if heads % k == 0])
        config = LlamaConfig(hidden_size=heads * rng.randint(2, 30), num_attention_heads=heads, num_key_value_heads=kv,
                             head_dim=size, intermediate_size=rng.randint(5, 150), num_hidden_layers=layers,
                             vocab_size=vocab, max_position_embeddings=ctx, tie_word_embeddings=rng.random() < 0.5,
                             attention_bias=rng.random() < 0.3, mlp_bias=rng.random() < 0.3, bos_token_id=0, eos_token_id=1,
                             rms_norm_eps=rng.choice([1e-5, 1e-6]),
                             rope_parameters={"rope_type": "default", "rope_theta": rng.choice([1e4, 1e5, 5e5])})
        model = LlamaForCausalLM(config)
    else:
        config = GPT2Config(n_embd=heads * rng.randint(1, 30), n_head=heads, n_layer=layers, n_positions=ctx, vocab_size=vocab,
                            n_inner=rng.choice([None, rng.randint(5, 150)]), bos_token_id=0, eos_token_id=0,
                            activation_function=rng.choice(["gelu_new", "gelu", "relu", "silu", "gelu_pytorch_tanh"]),
                            scale_attn_by_inverse_layer_idx=rng.random() < 0.3, tie_word_embeddings=rng.random() < 0.7)
        model = GPT2LMHeadModel(config)
    save_as = rng.choice([torch.float32, torch.float16, torch.bfloat16])
    run(f"random_{i}_{config.model_type}", randomize(model, i), rows_of(rng, vocab, (1, 2, 33, 65)),
        [("f32", 1e-4), ("f16", 5e-3), ("bf16", 6e-2)], save_as, (b"cpu", b"ref"))


def main():
    rng = random.Random(1)
    for i in range(24):
        random_model(i)
    llama = LlamaConfig(hidden_size=576, num_attention_heads=9, num_key_value_heads=3, intermediate_size=1536,
                        num_hidden_layers=6, vocab_size=49152, max_position_embeddings=2048, rms_norm_eps=1e-5,
                        tie_word_embeddings=True, rope_parameters={"rope_type": "default", "rope_theta": 1e5})
    run("smollm2_shape", randomize(LlamaForCausalLM(llama), 3), rows_of(rng, 49152, (1, 40, 260)),
        [("f32", 1e-4), ("f16", 5e-3), ("bf16", 6e-2)], torch.bfloat16)
    run("gpt2_small_shape", randomize(GPT2LMHeadModel(GPT2Config()), 2), rows_of(rng, 50257, (1, 40, 260)),
        [("f32", 1e-4), ("f16", 5e-3), ("bf16", 6e-2)])
    sys.exit(1 if failed else 0)


main()
