#!/usr/bin/env python3
"""The tokenizer against tokenizers, tiktoken and sentencepiece as installed, on inputs made anew.

    BUILD=build/release build/venv/bin/python tests/tokenizer/live_tokenizer.py [DATA_DIR]

Needs the shared library in $BUILD and tokenizers, tiktoken, sentencepiece, protobuf, gguf. SmolLM2's own vocabulary
is compared when tools/fetch_model.sh has fetched the model. With DATA_DIR or $SILL_DATA (as for tools/fixtures/make_tokenizer.py)
whole documents are compared too, with the libraries and with the stored digests of whole.tsv.
"""
import ctypes as C
import glob
import importlib.util
import os
import random
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
os.chdir(ROOT)
BUILD = os.environ.get("BUILD", "build/release")
spec = importlib.util.spec_from_file_location("make_tokenizer", "tools/fixtures/make_tokenizer.py")
try:
    make = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make)
except ImportError as e:
    print(f"SKIP live_tokenizer: {e}")
    sys.exit(0)

SPECIAL, NO_PREFIX = 1, 4
# Digits that Rust's standard library knows (Unicode 17) and the pattern's engine does not (Unicode 16): tokenizers
# splits them one by one in SmolLM's first step only.
NEWER_DIGITS = set(range(0x11DE0, 0x11DEA)) | {0x16FF4, 0x16FF5, 0x16FF6}


class Error(C.Structure):
    _fields_ = [("code", C.c_int), ("msg", C.c_char * 508)]


lib = C.CDLL(sorted(glob.glob(f"{BUILD}/libsill.so*"))[0])
lib.sill_tokenize_bound.restype = lib.sill_detokenize_bound.restype = C.c_size_t
lib.sill_tokenize_bound.argtypes = [C.c_void_p, C.c_size_t]
lib.sill_tokenize.argtypes = [C.c_void_p, C.c_char_p, C.c_size_t, C.c_uint32, C.c_void_p, C.c_size_t, C.c_void_p, C.c_void_p]
lib.sill_detokenize_bound.argtypes = [C.c_void_p, C.c_void_p, C.c_size_t]
lib.sill_detokenize.argtypes = [C.c_void_p, C.c_void_p, C.c_size_t, C.c_uint32, C.c_void_p, C.c_size_t, C.c_void_p, C.c_void_p]
lib.sill_tokenizer_load.argtypes = [C.c_char_p, C.c_void_p, C.c_void_p]


class Sill:
    def __init__(self, path):
        self.p, err = C.c_void_p(), Error()
        if lib.sill_tokenizer_load(str(path).encode(), C.byref(self.p), C.byref(err)):
            raise RuntimeError(err.msg.decode())

    def encode(self, text, flags=0):
        data, n, err = text.encode() if isinstance(text, str) else text, C.c_size_t(), Error()
        cap = lib.sill_tokenize_bound(self.p, len(data))
        ids = (C.c_int32 * cap)()
        if lib.sill_tokenize(self.p, data, len(data), flags, ids, cap, C.byref(n), C.byref(err)):
            raise RuntimeError(err.msg.decode())
        return ids[:n.value]

    def decode(self, ids, flags=0):
        a, n, err = (C.c_int32 * len(ids))(*ids), C.c_size_t(), Error()
        cap = lib.sill_detokenize_bound(self.p, a, len(ids))
        out = C.create_string_buffer(cap + 1)
        if lib.sill_detokenize(self.p, a, len(ids), flags, out, cap, C.byref(n), C.byref(err)):
            raise RuntimeError(err.msg.decode())
        return out.raw[:n.value]


def compare(sill, reference, strings, flags=0):
    for s in strings:
        got, want = sill.encode(s, flags), reference(s)
        if got != want:
            i = next((i for i, (a, b) in enumerate(zip(got, want)) if a != b), min(len(got), len(want)))
            raise AssertionError(f"{s[:60]!r}: at {i} {got[i:i + 6]}, expected {want[i:i + 6]}")


def huggingface(t, special=False):
    return lambda s: make.encode(t, s, special)


def strings(n):
    rng = random.Random()
    seed = rng.randrange(1 << 32)
    print(f"  seed {seed}")
    rng.seed(seed)
    pool = ([chr(c) for c in range(0x20, 0x7F)] * 4 + list("\t\n\r   ''\u0085\u00a0\u3000\u2028\u017f\u212a\ufeff\u200b")* 8
            + [chr(rng.choice([rng.randrange(0x80, 0x800), rng.randrange(0x800, 0xD800), rng.randrange(0x10000, 0x20000)]))
               for _ in range(600)])
    parts = ["'s", "'S", "'\u017f", "'LL", "'re", " ", "  ", "\n", "\r\n", "12", "345", "word", " the", "?!", "\u00e9", "\u65e5\u672c",
             "\u0663", "\u00bd", "'", "--", "_", "\U0001f600", "e\u0301", "<|endoftext|>", "<s>", "<0x0A>"]
    for _ in range(n):
        if rng.random() < 0.5:
            yield "".join(rng.choice(pool) for _ in range(rng.randint(1, 60)))
        else:
            yield "".join(rng.choice(parts) for _ in range(rng.randint(1, 14)))
    for alphabet in ("a", "ab", "etaoin", " .", "\u65e5\u672c\u8a9e", " "):
        for k in (49, 1023, 1024, 1025, 6000):
            yield "".join(rng.choice(alphabet) for _ in range(k))


def all_characters(but=()):
    for start in range(0, 0x110000, 0x400):
        chars = [chr(c) for c in range(start, start + 0x400) if not 0xD800 <= c < 0xE000 and c not in but]
        yield "".join(f"a{c}b {c}{c} 1{c}\n {c}" for c in chars)


def gpt2():
    t, tik = make.gpt2()
    sill, some = Sill("tests/fixtures/tokenizer/gpt2/vocab.bpe"), list(strings(8000))
    compare(sill, huggingface(t), some)
    compare(sill, tik.encode_ordinary, some)
    compare(sill, huggingface(t, True), some, SPECIAL)
    compare(sill, huggingface(t), all_characters())
    for s in some[:3000]:
        ids = sill.encode(s)
        assert sill.decode(ids) == s.encode() and t.decode(ids, skip_special_tokens=False) == s


def smollm(path):
    t = make.smollm(path)[0]
    sill, some = Sill(path), list(strings(8000))
    compare(sill, huggingface(t), some)
    compare(sill, huggingface(t, True), some, SPECIAL)
    compare(sill, huggingface(t), all_characters(NEWER_DIGITS))


def smollm_small():
    smollm("tests/fixtures/tokenizer/smollm.gguf")


def smollm_model():
    path = subprocess.run(["tools/fetch_model.sh", "--path"], capture_output=True, text=True).stdout.strip()
    if not os.path.isfile(path):
        return "the model has not been fetched (tools/fetch_model.sh)"
    return smollm(path)


def llama3():
    some = list(strings(8000))
    t = make.llama3(some[:8000])
    with tempfile.TemporaryDirectory() as d:
        for ignore in (True, False):
            t.model.ignore_merges = ignore
            t.save(d + "/tokenizer.json")
            sill = Sill(d)
            compare(sill, huggingface(t), some)
            compare(sill, huggingface(t, True), some[:3000], SPECIAL)
            compare(sill, huggingface(t), all_characters())


def sentencepiece():
    some = [s for s in strings(8000) if make.MARK not in s and "\0" not in s]
    sp, pieces = make.spm_model(some[:4000], 3000)
    forms = [make.spm_json(pieces), make.spm_json(pieces, "first"), make.spm_json(pieces, "always"), make.spm_json(pieces, fallback=False)]
    with tempfile.TemporaryDirectory() as d:
        make.write_gguf(d + "/x.gguf", "llama", [("add_token_list", [p.piece for p in pieces]),
                                                 ("add_token_scores", [p.score for p in pieces]),
                                                 ("add_token_types", [p.type for p in pieces])], (1, 2))
        sill = Sill(d + "/x.gguf")
        compare(sill, sp.encode, some)
        for s in some[:3000]:
            assert sill.decode(sill.encode(s)) == s.encode()
        for t in forms:
            t.save(d + "/tokenizer.json")
            sill = Sill(d)
            compare(sill, huggingface(t), some)
            compare(sill, huggingface(t, True), some[:5000], SPECIAL)
            for s in some[:2000]:
                ids = sill.encode(s)
                assert sill.decode(ids, 1).decode() == t.decode(ids), s


def whole_documents():
    data = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("SILL_DATA", "")
    if not os.path.isdir(data):
        return "not shipped: whole documents (give DATA_DIR or SILL_DATA)"
    docs = list(make.documents(data))
    stored = {tuple(x.split("\t")[:2]): x.rstrip("\n").split("\t")[3:] for x in open("tests/fixtures/tokenizer/whole.tsv", encoding="utf-8")}
    t, tik = make.gpt2()
    sets = [("gpt2", Sill("tests/fixtures/tokenizer/gpt2/vocab.bpe"), huggingface(t))]
    path = subprocess.run(["tools/fetch_model.sh", "--path"], capture_output=True, text=True).stdout.strip()
    if os.path.isfile(path):
        sets.append(("smollm2", Sill(path), huggingface(make.smollm(path)[0])))
    for name, sill, reference in sets:
        compare(sill, reference, [text for _, text in docs])
        for doc, text in docs:
            n, digest = make.digest([sill.encode(text)])
            assert stored[name, doc] == [str(n), digest], (name, doc)
    compare(Sill("tests/fixtures/tokenizer/gpt2/vocab.bpe"), tik.encode_ordinary, [text for _, text in docs])
    print(f"  {len(docs)} documents, {sum(len(t.encode()) for _, t in docs)} bytes, {len(sets)} vocabularies")


def main():
    bad = 0
    for test in (gpt2, smollm_small, smollm_model, llama3, sentencepiece, whole_documents):
        try:
            reason = test()
            print(f"SKIP live_{test.__name__}: {reason}" if reason else f"PASS live_{test.__name__}", flush=True)
        except Exception:
            traceback.print_exc(limit=3, file=sys.stdout)
            print(f"FAIL live_{test.__name__}", flush=True)
            bad = 1
    return bad


sys.exit(main())
