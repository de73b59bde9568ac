#!/usr/bin/env python3
"""Whole models at full size on the Metal back end over CUDA: with random weights (made here) a GPT-2 small and a Llama of
SmolLM2-135M's shape with GPT-2's vocabulary; and SmolLM2 itself.

    BUILD=dir SILL_METAL_LIBRARY=dir/libmetalcuda.so python3 tests/metalcuda/whole_models.py WORK [SMOLLM2.gguf] [--shape tiny]
        [--only gpt2|llama|smollm2]

Logits against the scalar reference (--device ref) and, for the whole context, against the CPU back end; log-probabilities of
ragged texts bit by bit alone, together, in another order, in small chunks; greedy texts beside those of the CPU. Needs numpy.
"""
import concurrent.futures
import ctypes as C
import json
import os
import subprocess
import sys
import time
import types

import numpy as np

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../..")
sys.path.insert(0, os.path.join(ROOT, "bench/peers"))
sys.modules.setdefault("gguf", types.ModuleType("gguf"))  # models.py wants it for GGUF files alone
import models  # noqa: E402
from common import prompt, texts  # noqa: E402

BUILD = os.environ.get("BUILD", "build/release")
sill = C.CDLL(os.path.abspath(f"{BUILD}/libsill.so"))
DTYPES = {"auto": 0, "f32": 1, "f16": 2, "bf16": 3, "q8": 4, "q4": 5, "int8": 6}
SAMPLE = open(os.path.join(ROOT, "examples/sample.txt"), encoding="utf-8").read()


class Error(C.Structure):
    _fields_ = [("code", C.c_int), ("msg", C.c_char * 508)]


class ModelOptions(C.Structure):
    _fields_ = [("size", C.c_size_t), ("device", C.c_char_p), ("dtype", C.c_int), ("n_threads", C.c_int32),
                ("memory_limit_bytes", C.c_uint64), ("no_cache", C.c_int32)]


class SessionOptions(C.Structure):
    _fields_ = [("size", C.c_size_t), ("n_ctx", C.c_int32), ("batch_tokens", C.c_int32), ("max_sequences", C.c_int32),
                ("kv_dtype", C.c_int), ("memory_limit_bytes", C.c_uint64), ("interactive", C.c_int32)]


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
sill.sill_session_create.argtypes = [C.c_void_p, C.POINTER(SessionOptions), C.POINTER(C.c_void_p), C.POINTER(Error)]
sill.sill_logits.argtypes = [C.c_void_p, C.POINTER(C.c_int32), C.c_size_t, C.POINTER(C.c_float), C.POINTER(Error)]
sill.sill_score.argtypes = [C.c_void_p, C.c_void_p, NEXT, DONE, C.c_void_p, C.POINTER(Error)]


class Model:
    def __init__(self, path, device, dtype="auto", threads=0):
        self.model, self.err = C.c_void_p(), Error()
        o = ModelOptions(C.sizeof(ModelOptions), device.encode(), DTYPES[dtype], threads, 0, 1)
        self.check(sill.sill_model_load(path.encode(), C.byref(o), C.byref(self.model), C.byref(self.err)))

    def check(self, status):
        if status:
            raise RuntimeError(self.err.msg.decode())

    def session(self, **options):
        s, o = C.c_void_p(), SessionOptions(C.sizeof(SessionOptions), **options)
        self.check(sill.sill_session_create(self.model, C.byref(o), C.byref(s), C.byref(self.err)))
        return s

    def logits(self, ids, n_vocab, **options):
        s, out, row = self.session(**options), np.empty((len(ids), n_vocab), np.float32), (C.c_int32 * len(ids))(*ids)
        self.check(sill.sill_logits(s, row, len(ids), out.ctypes.data_as(C.POINTER(C.c_float)), C.byref(self.err)))
        sill.sill_session_free(s)
        return out

    def score(self, rows, order=None, **options):
        """Bits of each row's log-probabilities."""
        s = self.session(**options)
        keep, todo, found = [(C.c_int32 * len(r))(*r) for r in rows], list(order or range(len(rows))), {}

        def take(_, row):
            if not todo:
                return 0
            i = todo.pop(0)
            row[0] = Row(i, i, None, 0, C.cast(keep[i], C.POINTER(C.c_int32)), len(rows[i]))
            return 1

        def done(_, r):
            if r[0].status:
                raise RuntimeError(r[0].error.decode())
            found[r[0].index] = np.array(r[0].logprobs[1:r[0].n_ids], np.float32)
            return 0
        self.check(sill.sill_score(s, None, NEXT(take), DONE(done), None, C.byref(self.err)))
        sill.sill_session_free(s)
        return [found[i] for i in range(len(rows))]

    def close(self):
        sill.sill_model_free(self.model)


failed = 0
start = time.time()


def report(name, ok, note):
    global failed
    failed += not ok
    print(f"{'PASS' if ok else 'FAIL'} {name}: {note} [{time.time() - start:.0f} s]", flush=True)


def distance(got, want):
    """The greatest difference of a row over its greatest value; not a number: infinite."""
    d = np.abs(got.astype(np.float64) - want).max(-1) / np.abs(want).max(-1)
    return float(d.max()) if np.isfinite(d).all() else float("inf")


def generate(path, device, dtype, prompts, n, work):
    file = f"{work}/prompts.csv"
    with open(file, "w", encoding="utf-8") as f:
        f.write("text\n" + "".join('"' + p.replace('"', '""') + '"\n' for p in prompts))
    r = subprocess.run([f"{BUILD}/sill", "generate", "-q", "-m", path, "--device", device, "--dtype", dtype, "-f", file,
                        "--text", "text", "--json", "--max-new-tokens", str(n), "--ignore-eos", "--no-cache"],
                       capture_output=True, text=True, errors="replace")
    if r.returncode:
        raise RuntimeError(r.stderr[-600:])
    return [json.loads(line) for line in r.stdout.splitlines()]


def ids_of(records):
    return [r["ids"] for r in records]


def check(name, path, n_vocab, kinds, pool, work, n_long):
    """kinds: (dtype on metal, dtype on the reference, bound). Without a bound, for types that round activations to codes: a number at the
    border of two may take either, and the layers behind enlarge that. So what 8 bits cost the reference itself, against its own f32, is allowed."""
    short, long_row = prompt(48, 1, n_vocab=n_vocab), prompt(n_long, 2, n_vocab=n_vocab)

    def reference(dtype):
        m = Model(path, "ref", dtype, 1)
        out = m.logits(short, n_vocab)
        m.close()
        return out
    wanted = {on_ref: pool.submit(reference, on_ref) for _, on_ref, _ in kinds}
    if any(bound is None for _, _, bound in kinds):
        wanted.update({t: pool.submit(reference, t) for t in ("f32", "q8") if t not in wanted})
    rows = [r[:1 + len(r) * 3 // 4] for r in texts(60)]
    rows = [[i % n_vocab for i in r] for r in rows if len(r) > 2]
    for dtype, on_ref, bound in kinds:
        m = Model(path, "metal", dtype)
        got, soon = m.logits(short, n_vocab), m.logits(short, n_vocab, interactive=1)
        again = m.logits(short, n_vocab, batch_tokens=16)
        want = wanted[on_ref].result()
        if bound is None:
            bound = distance(wanted["q8"].result(), wanted["f32"].result())
        d, d2 = distance(got, want), distance(soon, want)
        report(f"{name} {dtype} logits of {len(short)} tokens, reference in {on_ref}", d <= bound and d2 <= bound,
               f"{d:.2g}, interactive {d2:.2g}, allowed {bound:.2g}; likeliest token the same at {(got.argmax(-1) == want.argmax(-1)).mean():.1%}")
        report(f"{name} {dtype} the same bits in chunks of 16", np.array_equal(got.view(np.uint32), again.view(np.uint32)), f"{got.size} logits")
        together = m.score(rows)
        for way, other in (("alone", dict(max_sequences=1)), ("in chunks", dict(batch_tokens=32, max_sequences=8))):
            same = all(np.array_equal(a.view(np.uint32), b.view(np.uint32)) for a, b in zip(together, m.score(rows, **other)))
            report(f"{name} {dtype} the same bits {way}", same, f"{len(rows)} texts, {sum(map(len, rows))} tokens")
        back = m.score(rows, order=list(range(len(rows)))[::-1])
        report(f"{name} {dtype} the same bits in reverse order", all(np.array_equal(a.view(np.uint32), b.view(np.uint32)) for a, b in zip(together, back)), "as above")
        if dtype == kinds[0][0]:
            whole = m.logits(long_row, n_vocab)
            cpu = Model(path, "cpu", on_ref)
            d = distance(whole, cpu.logits(long_row, n_vocab))
            cpu_rows = cpu.score(rows)
            worst = max(float(np.abs(a - b).max()) for a, b in zip(together, cpu_rows))
            cpu.close()
            report(f"{name} {dtype} logits of {n_long} tokens, CPU in {on_ref}", d <= bound, f"{d:.2g}, allowed {bound:g}")
            report(f"{name} {dtype} log-probabilities of texts, CPU in {on_ref}", worst <= 2e-3, f"{worst:.2g} at most, allowed 0.002")
        m.close()
    sentences = [s.strip() for s in SAMPLE.replace("\n", " ").split(". ") if 30 < len(s) < 300][:24]
    dtype, on_ref, _ = kinds[0]
    a, b = generate(path, "metal", dtype, sentences, 48, work), generate(path, "cpu", on_ref, sentences, 48, work)
    ta, tb = ids_of(a), ids_of(b)
    same = sum(x == y for x, y in zip(ta, tb))
    report(f"{name} greedy texts of {len(ta)} prompts, 48 tokens, CPU in {on_ref}", len(ta) == len(sentences) and same >= 0.9 * len(ta), f"{same} of {len(ta)} the same")
    made = generate(path, "metal", dtype, sentences[:1], 200, work)
    one = ids_of(made)
    print("  " + made[0]["prompt"] + " ->" + made[0]["sill_text"][:240].replace("\n", " "))
    report(f"{name} a greedy text of 200 tokens", one == ids_of(generate(path, "cpu", on_ref, sentences[:1], 200, work)), f"{len(one[0])} ids")


def llama_weights(width, layers, heads, kv_heads, ff):
    """As models.weights: f32, in a fixed order, matrices (outputs, inputs) as Llama stores them; its head is its table."""
    r, side = np.random.default_rng(3), width // heads * kv_heads

    def normal(*dims, scale=0.06):
        return r.standard_normal(dims, dtype=np.float32) * np.float32(scale)
    yield "model.embed_tokens.weight", normal(models.VOCAB, width)
    for i in range(layers):
        for name, dims in (("self_attn.q_proj", (width, width)), ("self_attn.k_proj", (side, width)), ("self_attn.v_proj", (side, width)),
                           ("self_attn.o_proj", (width, width)), ("mlp.gate_proj", (ff, width)), ("mlp.up_proj", (ff, width)),
                           ("mlp.down_proj", (width, ff))):
            yield f"model.layers.{i}.{name}.weight", normal(*dims, scale=0.06 / (2 * layers) ** 0.5 if name[-6:] in ("o_proj", "n_proj") else 0.06)
        for name in ("input_layernorm", "post_attention_layernorm"):
            yield f"model.layers.{i}.{name}.weight", 1 + normal(width, scale=0.02)
    yield "model.norm.weight", 1 + normal(width, scale=0.02)


def make_llama(path, width, layers, heads, kv_heads, ff):
    """With the tokenizer of GPT-2, whose files write_directory leaves there."""
    models.write_directory(path, "tiny", [], "f32", False)
    models.write_safetensors(f"{path}/model.safetensors", list(llama_weights(width, layers, heads, kv_heads, ff)), "f32")
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": width, "num_hidden_layers": layers,
              "num_attention_heads": heads, "num_key_value_heads": kv_heads, "head_dim": width // heads, "intermediate_size": ff,
              "vocab_size": models.VOCAB, "max_position_embeddings": 2048, "hidden_act": "silu", "rms_norm_eps": 1e-5,
              "rope_theta": 100000.0, "tie_word_embeddings": True, "bos_token_id": models.VOCAB - 1, "eos_token_id": models.VOCAB - 1}
    with open(f"{path}/config.json", "w") as f:
        json.dump(config, f)


def option(words, name, otherwise):
    if name not in sys.argv:
        return otherwise
    value = sys.argv[sys.argv.index(name) + 1]
    words.remove(value)
    return value


def main():
    words = [w for w in sys.argv[1:] if not w.startswith("--")]
    shape, only = option(words, "--shape", "small"), option(words, "--only", None)
    work, big = words[0], shape != "tiny"
    made = {"gpt2": lambda path: models.write_directory(path, shape, list(models.weights(shape)), "f32", False),
            "llama": lambda path: make_llama(path, *((576, 30, 9, 3, 1536) if big else (96, 2, 6, 2, 256)))}
    kinds = {"gpt2": [("f32", "f32", 1e-4), ("f16", "f16", 2e-3), ("bf16", "bf16", 2e-3), ("q8", "q8", None), ("int8", "int8", None)],
             "llama": [("f32", "f32", 1e-4), ("f16", "f16", 2e-3), ("q8", "q8", None), ("q4", "q4", None)]}
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for family in ("gpt2", "llama"):
            if only not in (None, family):
                continue
            path = f"{work}/{family}-{shape}"
            if not os.path.exists(f"{path}/model.safetensors") or not os.path.getsize(f"{path}/model.safetensors"):
                made[family](path)
                print(f"made {path} [{time.time() - start:.0f} s]", flush=True)
            check(f"{family}-{shape}", path, models.VOCAB, kinds[family] if big else kinds[family][:1], pool, work, 1024 if big else 64)
        if only not in (None, "smollm2"):
            return failed != 0
        if len(words) > 1 and os.path.exists(words[1]):
            check("SmolLM2", words[1], 49152, [("f32", "f32", 1e-4), ("auto", "f32", 2e-2)], pool, work, 1024)
        else:
            print("SKIP SmolLM2: no file")
    return failed != 0


sys.exit(main())
