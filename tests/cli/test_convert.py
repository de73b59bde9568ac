#!/usr/bin/env python3
"""`sill convert`, and models in the files of other programs (tests/fixtures/model/gpt2-*, from tools/fixtures/make_foreign.py): what is
written, what is refused, where the tokenizer comes from. transformers and llama.cpp load what is written in live_convert.py."""
import hashlib
import shutil
import struct
from clitest import *

MODELS = os.path.join(FIXTURES, "model")
MERGES = os.path.join(FIXTURES, "tokenizer", "gpt2", "vocab.bpe")


def model(name):
    return os.path.join(MODELS, name)


def tensors(file):
    """{name: (dtype, shape, bytes)} of a safetensors file."""
    data = open(file, "rb").read()
    n = struct.unpack("<Q", data[:8])[0]
    head = json.loads(data[8:8 + n])
    head.pop("__metadata__", None)
    return {k: (v["dtype"], v["shape"], data[8 + n + v["data_offsets"][0]:8 + n + v["data_offsets"][1]]) for k, v in head.items()}


def the_same_weights_become_the_same_file():
    want = tensors(os.path.join(model("gpt2-base"), "model.safetensors"))
    for name in ("gpt2-base", "gpt2-torch", "gpt2-torch-old", "gpt2-torch-views", "gpt2-torch-shards", "gpt2-llmc", "gpt2-tensorflow"):
        out = path(name)
        sill("convert", model(name), "-o", out)
        assert tensors(os.path.join(out, "model.safetensors")) == want, name
        config = json.load(open(os.path.join(out, "config.json")))
        assert (config["model_type"], config["n_embd"], config["n_layer"], config["vocab_size"]) == ("gpt2", 12, 2, 61), config
        assert sill("inspect", out, "--json").objects
        sill("convert", out, "-o", path(name + ".safetensors"))
        assert tensors(path(name + ".safetensors")) == want, name


def files_are_known_by_what_they_hold():
    """A name tells nothing; inspect tells the kind."""
    for source, kind in (("gpt2-torch/pytorch_model.bin", "pytorch"), ("gpt2-nanogpt/ckpt.pt", "nanogpt"), ("gpt2-llmc/model.bin", "llm.c")):
        os.makedirs(path("renamed"), exist_ok=True)
        shutil.copy(model("gpt2-torch/config.json"), path("renamed/config.json"))
        shutil.copy(model(source), path("renamed/x.safetensors"))
        assert json.loads(sill("inspect", path("renamed/x.safetensors"), "--json").text())["format"] == kind
    got = json.loads(sill("inspect", model("gpt2-tensorflow/model.ckpt.index"), "--json").text())
    assert got["format"] == "tensorflow" and '"n_vocab": 61' in json.dumps(got), got


def gguf(data):
    """Everything in a GGUF by its name: metadata as they stand, tensors with their bytes."""
    at = 24
    out = {}
    n_tensors, n_meta = struct.unpack("<QQ", data[8:24])

    def string():
        nonlocal at
        n = struct.unpack_from("<Q", data, at)[0]
        at += 8 + n
        return data[at - n:at].decode()

    def skip(kind):
        nonlocal at
        if kind == 8:
            string()
        elif kind == 9:
            inner, n = struct.unpack_from("<IQ", data, at)
            at += 12
            for _ in range(n):
                skip(inner)
        else:
            at += {0: 1, 1: 1, 7: 1, 2: 2, 3: 2, 10: 8, 11: 8, 12: 8}.get(kind, 4)
    for _ in range(n_meta):
        name, kind = string(), struct.unpack_from("<I", data, at)[0]
        at += 4
        begin = at
        skip(kind)
        out[name] = (kind, data[begin:at])
    rows = []
    for _ in range(n_tensors):
        name, n = string(), struct.unpack_from("<I", data, at)[0]
        dims = struct.unpack_from(f"<{n}Q", data, at + 4)
        kind, offset = struct.unpack_from("<IQ", data, at + 4 + 8 * n)
        at += 16 + 8 * n
        rows.append((name, dims, kind, offset))
    base = (at + 31) // 32 * 32
    for name, dims, kind, offset in rows:
        size = 4
        for d in dims:
            size *= d
        assert kind == 0 and name not in out
        out[name] = (dims, data[base + offset:base + offset + size])
    return out


def gguf_of_any_file():
    made = []
    for k, name in enumerate(("gpt2-base", "gpt2-llmc", "gpt2-tensorflow")):
        shutil.copytree(model(name), path(f"g{k}/m"))
        sill("convert", path(f"g{k}/m"), "-o", path(f"g{k}/out.gguf"))
        made.append(read(f"g{k}/out.gguf"))
    held = [gguf(m) for m in made]
    assert len(held[0]) > 30 and held[0] == held[1] == held[2], "the same weights, another GGUF"
    info = json.loads(sill("inspect", path("g0/out.gguf"), "--json").text())
    assert info["format"] == "gguf" and all(t["type"] == "F32" for t in info["tensors"]), info["tensors"]
    sill("convert", path("g0/out.gguf"), "-o", path("again.gguf"))
    kept = json.loads(sill("inspect", path("again.gguf"), "--json").text())
    assert kept["tensors"] == info["tensors"]


def what_is_refused():
    base = model("gpt2-base")
    sill("convert", base, "-o", path("there"))
    assert "--overwrite" in sill("convert", base, "-o", path("there"), status=2).err
    sill("convert", base, "-o", path("there"), "--overwrite")
    write("there/mine.txt", "mine")
    assert "which sill convert does not write" in sill("convert", base, "-o", path("there"), "--overwrite", status=2).err
    assert "take the checkpoint" in sill("convert", STORIES, "-o", path("s"), status=1).err
    assert not os.path.exists(path("s")) and not os.path.exists(path("s.partial"))
    assert "gelu_new" in sill("convert", model("gpt2-nanogpt"), "-o", path("n.gguf"), status=1).err
    assert "the model itself" in sill("convert", base, "-o", base, "--overwrite", status=2).err
    shutil.copytree(model("gpt2-llmc"), path("mine"))
    assert "the model itself" in sill("convert", path("mine"), "-o", path("mine/model.bin"), "--overwrite", status=2).err
    sill("convert", base, status=2)
    sill("convert", base, "-o", "-", status=2)
    assert sill("convert", base, "-o", path("no/where"), status=1).err


def a_checkpoint_with_code_is_refused_by_its_name():
    import pickle
    import zipfile

    class Evil:
        def __reduce__(self):
            return os.mkdir, (path("owned"),)
    where = path("evil")
    os.makedirs(where)
    shutil.copy(model("gpt2-torch/config.json"), where)
    with zipfile.ZipFile(os.path.join(where, "pytorch_model.bin"), "w") as z:
        z.writestr("archive/data.pkl", pickle.dumps({"wte.weight": Evil()}, protocol=2))
    for args in (("inspect", where), ("plan", "-m", where), ("convert", where, "-o", path("evil_out")), ("generate", "-m", where, "a")):
        r = sill(*args, status=1)
        assert "mkdir" in r.err and "nothing in it is run" in r.err, r.err
    assert not os.path.exists(path("owned"))


def letters():
    """GPT-2's bytes in the order of their ids, and its letters for them."""
    order = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in order]
    return order + rest, {**{b: chr(b) for b in order}, **{b: chr(256 + i) for i, b in enumerate(rest)}}


def llmc_tokenizer(n_merges):
    """gpt2_tokenizer.bin of the first merges of GPT-2's, as llm.c's train_gpt2.py writes it."""
    order, letter = letters()
    byte = {c: b for b, c in letter.items()}
    lines = open(MERGES, encoding="utf-8").read().split("\n")[1:1 + n_merges]
    tokens = [bytes([b]) for b in order] + [bytes(byte[c] for c in line.replace(" ", "")) for line in lines if line]
    tokens.append(b"<|endoftext|>")
    head = struct.pack("<4I", 20240328, 2, len(tokens), len(tokens) - 1)
    return head + bytes(1024 - len(head)) + b"".join(bytes([len(t)]) + t for t in tokens)


TEXT = "It's 12 o'clock;  the caf\u00e9 opens.\nHello world, internationalization <|endoftext|> \u65e5\u672c\u8a9e \U0001f642 tokenization!!"


def merges_follow_from_llmc_tokens():
    """llm.c's file has no merges; what they are follows from the order, for all 50,000 of GPT-2's."""
    write("t.jsonl", json.dumps({"text": TEXT}) + "\n")
    rows = [json.loads(line) for line in open(os.path.join(FIXTURES, "tokenizer", "texts.jsonl"), encoding="utf-8")]
    texts = write("texts.jsonl", "".join(json.dumps({"text": t}) + "\n" for row in rows for t in row["t"]))
    full = write("gpt2_tokenizer.bin", llmc_tokenizer(50000))
    for file in (path("t.jsonl"), texts):
        got, want = (sill("tokenize", file, "--text", "text", "-m", t, "--json", "-q", status=None) for t in (full, MERGES))
        assert got.status == want.status and got.out == want.out and len(got.out) > 100, got.err
    for cut in (0, 4, 1000, 1024, 3000, len(read("gpt2_tokenizer.bin")) - 1):
        bad = write("cut.bin", read("gpt2_tokenizer.bin")[:cut])
        sill("tokenize", path("t.jsonl"), "--text", "text", "-m", bad, status=1)
    swapped = bytearray(llmc_tokenizer(300))
    swapped[1024 + 2 * 256 + 1] ^= 1  # another token than two before it make
    sill("tokenize", path("t.jsonl"), "--text", "text", "-m", write("bad.bin", bytes(swapped)), status=1)


def the_record_names_the_files_that_were_read():
    """The checkpoint that is named, not another beside it; the tokenizer beside it, or that of --tokenizer."""
    def record(*args):
        sill("score", path("few.jsonl"), "--text", "text", "-o", path("few.csv"), "--overwrite", *args)
        return json.loads(read("few.csv.run.json"))["model"]

    def hashed(file):
        return hashlib.sha256(open(file, "rb").read()).hexdigest()
    write("few.jsonl", json.dumps({"text": '"!#'}) + "\n")
    os.makedirs(path("tok"))
    tok = write("tok/gpt2_tokenizer.bin", llmc_tokenizer(0))
    for name, file in (("gpt2-llmc", "model.bin"), ("gpt2-nanogpt", "ckpt.pt")):
        r = record("-m", model(name), "--tokenizer", path("tok"))
        assert [f["name"] for f in r["files"]] == [file, "gpt2_tokenizer.bin"] and r["tokenizer_sha256"] == hashed(tok), r
        assert record("-m", model(name + "/" + file), "--tokenizer", tok) == {**r, "file": os.path.realpath(model(name + "/" + file))}
    shutil.copytree(model("gpt2-torch"), path("both"))
    shutil.copy(model("gpt2-base/model.safetensors"), path("both"))
    shutil.copy(tok, path("both"))
    r = record("-m", path("both"))  # safetensors go before
    assert [f["name"] for f in r["files"]] == ["config.json", "gpt2_tokenizer.bin", "model.safetensors"], r
    r = record("-m", path("both/pytorch_model.bin"))
    assert [f["name"] for f in r["files"]] == ["config.json", "gpt2_tokenizer.bin", "pytorch_model.bin"], r
    assert r["tokenizer_sha256"] == hashed(tok)
    shutil.copytree(model("gpt2-tensorflow"), path("tf_named"))
    write("tf_named/other.bin", b"not of it")
    r = record("-m", path("tf_named/model.ckpt.index"), "--tokenizer", tok)
    assert [f["name"] for f in r["files"]] == ["hparams.json", "model.ckpt.data-00000-of-00001", "model.ckpt.index", "gpt2_tokenizer.bin"], r


def where_the_tokenizer_comes_from():
    """llm.c's beside the weights; nothing beside them; --tokenizer."""
    shutil.copytree(model("gpt2-llmc"), path("llmc"))
    e = sill("generate", "-m", path("llmc"), "ab", status=1).err
    assert "--tokenizer" in e and "GPT-2" in e, e
    small = [c for c in llmc_tokenizer(0)[1024:]]  # 256 bytes and the end: more than the model's 61, so only a warning
    assert len(small) == 512 + 14
    write("llmc/gpt2_tokenizer.bin", llmc_tokenizer(0))
    a = sill("generate", "-m", path("llmc"), "--greedy", "--max-new-tokens", "6", "-q", '"!#')
    b = sill("generate", "-m", model("gpt2-llmc"), "--tokenizer", path("llmc/gpt2_tokenizer.bin"), "--greedy", "--max-new-tokens", "6", "-q", '"!#')
    assert a.out == b.out and len(a.out) > 3, (a.out, b.out)
    sill("generate", "-m", model("gpt2-llmc"), "--tokenizer", path("nowhere"), "ab", status=1)
    # Written in transformers' words where no file says it so.
    sill("convert", path("llmc"), "-o", path("written"))
    vocab = json.load(open(path("written/vocab.json"), encoding="utf-8"))
    assert len(vocab) == 257 and vocab["!"] == 0 and vocab["<|endoftext|>"] == 256 and vocab["\u0120"] == 220
    assert open(path("written/merges.txt")).read() == "#version: 0.2\n"
    sill("convert", model("gpt2-tensorflow"), "-o", path("tf"), "--tokenizer", MERGES)
    lines = open(path("tf/merges.txt"), encoding="utf-8").read().split("\n")
    assert lines[1:] == [x for x in open(MERGES, encoding="utf-8").read().split("\n")[1:] if x] + [""]
    write("t2.jsonl", json.dumps({"text": TEXT}) + "\n")
    assert sill("tokenize", path("t2.jsonl"), "--text", "text", "-m", path("tf"), "-q").out == sill("tokenize", path("t2.jsonl"), "--text", "text", "-m", MERGES, "-q").out


for t in (the_same_weights_become_the_same_file, files_are_known_by_what_they_hold, gguf_of_any_file, what_is_refused,
          a_checkpoint_with_code_is_refused_by_its_name, merges_follow_from_llmc_tokens, the_record_names_the_files_that_were_read,
          where_the_tokenizer_comes_from):
    test(t)
end()
