#!/usr/bin/env python3
"""Limits and interruptions: memory, what is refused before a model is loaded, input that never comes, and odd texts."""
import math, os, signal, struct, subprocess, time
from clitest import *

M = ["-m", STORIES]
GPT2 = os.path.join(FIXTURES, "task/gpt2")


def wrong_usage(*args, says):
    r = sill(*args, status=2)
    assert not r.out and says in r.err, f"{args}: {r.err!r} does not say {says!r}"


def plan_and_generate_agree():
    """A limit is for weights and session together: where the plan says no, generate says no."""
    whole = sill("plan", STORIES, "--json", "--max-sequences", "2", "--batch-tokens", "64").objects()[0]["total_bytes"] >> 20
    seen = set()
    for mib in (1, 2, 3, 4, 5, 6, 8, whole, whole + 1, whole + 2):
        for extra in ([], ["--max-sequences", "2", "--batch-tokens", "64"]):
            plan = sill("plan", STORIES, "--memory", mib, *extra, status=None)
            run = sill("generate", *M, "--memory", mib, *extra, "--max-new-tokens", "1", "-q", "Once", status=None)
            assert plan.status == run.status and plan.status in (0, 4), (mib, extra, plan.status, run.status, run.err)
            if run.status == 4:
                assert "allowed" in run.err and "free" not in run.err and not run.out, run.err
            seen.add(plan.status)
    assert seen == {0, 4}, seen


def refused_before_the_model():
    """The model is not there: a message of wrong usage says that nobody looked for it. The context's needs its headers."""
    f, none = write("a.csv", "id,t\n1,x y\n"), ["-m", path("none")]
    classify = ["classify", f, "--text", "t", "--labels", "a,b", *none]
    wrong_usage(*classify, "--prompt", "{text} {text}", says="{text} more than once")
    wrong_usage(*classify, "--prompt", "text", says="no {text}")
    for policy in ("window", "split-mean"):
        wrong_usage("generate", *none, "--long", policy, "x", says=f"--long {policy} is not for generate")
    for c in ("score", "embed", "classify"):
        wrong_usage(c, f, "--text", "t", "--long", "all", says="default, error, truncate, window, split-mean")
    wrong_usage("score", f, "--text", "t", *none, "--long", "split-mean", "--stride", "5", says="--stride is for --long window")
    wrong_usage("score", f, "--text", "t", *none, "--corrected", says="--corrected is for --per word")
    for c in ("score", "classify", "tokenize"):
        wrong_usage(c, f, "--text", "t", *none, "-o", path("x.npy"), says="a .npy file holds vectors")
    wrong_usage("embed", f, "--text", "t", *none, "--output-format", "npy", says="need a file: -o OUT.npy")
    wrong_usage("embed", f, "--text", "t", *none, "-o", path("x.txt"), says="--output-format")
    wrong_usage("perplexity", f, "--text", "t", *none, "--long", "split-mean", says="--long split-mean is not for perplexity")
    wrong_usage("generate", *none, "--logprobs", "129", "x", says="1 to 128")
    for option, value in (("--device", "cuda"), ("--device", "cuda:1")):
        for c in (["generate", "x"], ["score", f, "--text", "t"], ["perplexity", f, "--text", "t"], ["plan"]):
            wrong_usage(*c, *none, option, value, says=f"{option} {value} is not in this version")
    wrong_usage("generate", *none, "--device", "tpu", "x", says="auto, metal, cpu, ref")
    for c in (["score", f], ["perplexity", f]):
        wrong_usage(*c, "--text", "t", *M, "--ctx", "64", "--stride", "65", says="--stride 65 is more than the context of 64")
        wrong_usage(*c, "--text", "t", *M, "--stride", "513", says="context of 512")
        wrong_usage(*c, "--text", "t", *M, "--ctx", "1", says="at least 2 positions")
        wrong_usage(*c, "--text", "t", *M, "--ctx", "513", says="512")


def known_for_later():
    for c in ("generate", "score", "classify", "perplexity", "tokenize", "chat"):
        wrong_usage(c, "--fast", "x", says="--fast is not in this version")
    one = sill("generate", *M, "--num-beams", "1", "--max-new-tokens", "2", "Once")
    assert one.out == sill("generate", *M, "--max-new-tokens", "2", "Once").out and one.err == ""
    for text in (sill("help").text(), sill("help", "score").text()):
        assert ".journal" in text and "the same command goes on from there" in text


def sampling_without_do_sample():
    r = sill("generate", *M, "--max-new-tokens", "2", "--top-p", "0.5", "--temperature", "0.7", "Once")
    assert r.err == "sill: warning: without --do-sample these have no effect: --temperature, --top-p\n", r.err
    assert sill("generate", *M, "--max-new-tokens", "2", "--top-p", "0.5", "--do-sample", "Once").err == ""
    assert sill("generate", *M, "--max-new-tokens", "2", "--seed", "5", "Once").err == ""


def seeds_are_whole():
    args = ["generate", *M, "--seed", 2**64 - 1, "--max-new-tokens", "1", "Once"]
    assert sill(*args, "--json").objects()[0]["seed"] == 2**64 - 1
    sill(*args, "-o", path("seed.csv"))
    assert b",18446744073709551615," in read("seed.csv")


def interrupted(args, first=b""):
    p = subprocess.Popen([SILL, *args], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if first: p.stdin.write(first), p.stdin.flush()
    time.sleep(1.5)
    assert p.poll() is None, p.stderr.read()
    p.send_signal(signal.SIGINT)
    try: p.wait(timeout=60)
    finally: p.kill()
    err = p.stderr.read().decode()
    assert p.returncode == 5 and "interrupted" in err, (args, p.returncode, err)


def interrupts_while_input_is_awaited():
    for args, first in ((["generate", *M], b"Once"), (["perplexity", "-", *M], b"Once upon"), (["score", "-", *M], b""),
                        (["score", "-", *M], b"a b\nc d\n"), (["score", "-", "--format", "csv", "--text", "t", *M], b"t,u\na"),
                        (["tokenize", "-", "--format", "jsonl", "--text", "t", *M], b'{"t":"a"}\n')):
        interrupted(args, first)


def json_texts():
    f = write("j.jsonl", '{"t":1.50}\n{"t":true}\n{"t":["a"]}\n{"t":{"a":1}}\n{"t":null}\n{"u":1}\n{"t":"1.50"}\n')
    r = sill("tokenize", f, "--text", "t", *M, status=3).objects()
    assert [bool(x["error"]) for x in r] == [False, False, True, True, True, True, False], r
    assert r[0]["ids"] == r[6]["ids"] and "array or object" in r[2]["error"] and "no text" in r[4]["error"]
    p = sill("perplexity", f, "--text", "t", *M, "--json", status=3)
    assert "row 3: the row's text is a JSON array" in p.err
    back = sill("detokenize", write("ids.jsonl", '{"ids":[403,407]}\n'), *M).objects()
    assert back[0]["text"] == "Once upon"


def names_are_the_same_in_all_rows():
    f = write("n.jsonl", '{"t":"a b","n_tokens":7}\n{"t":"a b"}\n{"t":"a b","perplexity":1}\n')
    r = sill("score", f, "--text", "t", *M, status=3)
    a, b, c = r.objects()
    assert list(a)[2:] == list(b)[1:] == ["sill_n_tokens", "sum_logprob", "mean_logprob", "perplexity", "error"], (a, b)
    assert a["n_tokens"] == 7 and a["sill_n_tokens"] == b["sill_n_tokens"] and c["perplexity"] == 1
    assert "'perplexity'" in c["error"] and c["sill_n_tokens"] is None


def nothing_to_score():
    for name, data in (("e.txt", ""), ("one.txt", "a"), ("e.csv", "t\n"), ("e.jsonl", "")):
        f = write(name, data)
        r = sill("perplexity", f, *([] if name.endswith("txt") else ["--text", "t"]), *M, status=1)
        assert "nothing to score" in r.err and "failed" not in r.err and not r.out, r.err
    for data, n in (('{"t":[1]}\n', 1), ('{"t":null}\n{"t":""}\n{"u":1}\n', 2)):
        r = sill("perplexity", write("bad.jsonl", data), "--text", "t", *M, status=1)
        assert f"nothing to score: {n} rows failed" in r.err and "there is no text" not in r.err, r.err


def compressed_names():
    r = sill("score", write("x.csv.bz2", b"BZh9"), "--text", "t", *M, status=1)
    assert "bzip2 -dc" in r.err and "--format csv" in r.err, r.err
    assert "xz -dc" in sill("perplexity", write("x.txt.xz", b""), *M, status=1).err


def help_on_blank_lines():
    for c in ("score", "classify", "generate"):
        assert "Blank lines of a plain-text file are skipped" in sill("help", c).text(), c


def bytes_without_a_token():
    """A vocabulary without tokens for some bytes: they are counted and said once."""
    model = path("lossy")
    os.makedirs(model)
    for name in os.listdir(GPT2):
        if not name.startswith("tokenizer"): os.symlink(os.path.join(GPT2, name), os.path.join(model, name))
    letters = [chr(33 + i) for i in range(60)] + ["\u0120"]
    write("lossy/tokenizer.json", json.dumps({
        "version": "1.0", "added_tokens": [], "normalizer": None, "post_processor": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "vocab": {c: i for i, c in enumerate(letters)}, "merges": []}}))
    f = write("lost.csv", b"t\nAB \xff\xfeC\nAB\nA\xc3\n")
    for c in (["tokenize", f, "--text", "t"], ["score", f, "--text", "t"], ["perplexity", f, "--text", "t"]):
        r = sill(*c, "--encoding", "bytes", "-m", model)
        assert r.err.count("warning: 3 bytes of the texts have no token") == 1, r.err
    assert "no token" not in sill("tokenize", write("whole.csv", "t\nAB\n"), "--text", "t", "-m", model).err
    assert "no token" not in sill("tokenize", f, "--text", "t", "--encoding", "bytes", *M).err  # has tokens for all bytes


def a_stride_of_the_context():
    """The example of the help: windows without overlap; the first token of each has none before it."""
    text = "Once upon a time there was a little girl. " * 120
    f = write("stride.txt", text)
    r = sill("perplexity", f, *M, "--json", "--ctx", "512", "--stride", "512").objects()[0]
    half = sill("perplexity", f, *M, "--json", "--ctx", "512").objects()[0]
    assert r["n_tokens"] == half["n_tokens"] - half["n_tokens"] // 512 and r["perplexity"] > 1 and r["nll"] != half["nll"], (r, half)
    sill("score", f, *M, "--ctx", "64", "--stride", "64")


def regression_has_no_label():
    model = path("regression")
    os.makedirs(model)
    source = os.path.join(FIXTURES, "task/head-gpt2-regression")
    for name in os.listdir(source): os.symlink(os.path.join(source, name), os.path.join(model, name))
    write("regression/tokenizer.json", json.dumps({
        "version": "1.0", "added_tokens": [], "normalizer": None, "post_processor": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "vocab": {chr(33 + i): i for i in range(61)}, "merges": []}}))
    f = write("regression.csv", "t\nABC\n")
    r = sill("classify", f, "--text", "t", "-m", model, "--logits", "--json").objects()[0]
    assert r["label"] is r["margin"] is r["entropy"] is r["error"] is None and len(r["logits"]) == 1, r
    r = sill("classify", f, "--text", "t", "-m", model).rows()[0]
    assert r["label"] == r["margin"] == r["entropy"] == r["error"] == "" and r["n_tokens"] == "3", r


def what_the_gpu_does_not_take():
    """Named before anything is loaded, by what it is: too wide a head, too large a vocabulary."""
    library = os.path.abspath(os.path.join(BUILD, "libfakemetal.so"))
    if not os.path.exists(library):
        raise Skip("no fake Metal in this build (make tests)")
    env = {"SILL_METAL_LIBRARY": library, "SILL_FIRST_USE_CHECK": "0", "SILL_METAL_CACHE": "0"}
    for n, vocab, says in ((1024, 50, "heads of 512 values"), (16, 524289, "a vocabulary of 524289")):
        shapes = {"wte.weight": [vocab, n], "wpe.weight": [8, n], "ln_f.weight": [n], "ln_f.bias": [n]}
        for norm in ("ln_1", "ln_2"):
            shapes |= {f"h.0.{norm}.weight": [n], f"h.0.{norm}.bias": [n]}
        for name, rows, cols in (("attn.c_attn", n, 3 * n), ("attn.c_proj", n, n), ("mlp.c_fc", n, 8), ("mlp.c_proj", 8, n)):
            shapes |= {f"h.0.{name}.weight": [rows, cols], f"h.0.{name}.bias": [cols]}
        header, at = {}, 0
        for name, shape in shapes.items():
            size = 2 * math.prod(shape)
            header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [at, at + size]}
            at += size
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        model = path(f"gpu{vocab}")
        os.makedirs(model)
        with open(os.path.join(model, "model.safetensors"), "wb") as f:  # no weights: a hole
            f.write(struct.pack("<Q", len(text)) + text)
            f.truncate(8 + len(text) + at)
        with open(os.path.join(model, "config.json"), "w") as f:
            json.dump({"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "n_embd": n, "n_layer": 1, "n_head": 2, "n_inner": 8,
                       "vocab_size": vocab, "n_positions": 8}, f)
        r = sill("plan", model, "--device", "metal", status=1, env=env)
        assert says in r.err and "metal device takes" in r.err, r.err
        assert "fits" in sill("plan", model, "--device", "cpu", env=env).text()
        auto = sill("plan", model, "--json", env=env).objects()[0]  # the CPU's, and why
        assert auto["device"] == "cpu" and auto["fits"] and says in auto["passed_over"], auto


def the_working_set_of_the_gpu():
    """On the fake Metal: what the GPU recommends bounds a plan, whatever memory the machine has."""
    library = os.path.abspath(os.path.join(BUILD, "libfakemetal.so"))
    if not os.path.exists(library):
        raise Skip("no fake Metal in this build (make tests)")

    def plan(working_set, *extra, status):
        env = {"SILL_METAL_LIBRARY": library, "FAKEMETAL_WORKING_SET": str(working_set), "SILL_FIRST_USE_CHECK": "0", "SILL_METAL_CACHE": "0"}
        return sill("plan", STORIES, "--device", "metal", "--json", *extra, status=status, env=env).objects()[0]

    named = ["--ctx", "128", "--max-sequences", "4", "--batch-tokens", "64"]
    whole = plan(8 << 30, *named, status=0)
    assert whole["available_bytes"] <= 8 << 30, whole
    bound = plan(whole["total_bytes"] + 256, *named, status=0)  # 256: what an open device takes
    assert bound["available_bytes"] == bound["total_bytes"] == whole["total_bytes"], bound
    less = plan(whole["total_bytes"] + 255, *named, status=4)
    assert not less["fits"] and less["available_bytes"] == whole["total_bytes"] - 1 and "would fit" in less["advice"], less
    smaller = plan(whole["total_bytes"] + 256, "--ctx", "128", status=0)  # what is not named gives way
    assert smaller["fits"] and smaller["total_bytes"] <= whole["total_bytes"], smaller
    assert "smaller" in plan(whole["weight_bytes"], *named, status=4)["advice"]
    # Device auto: the CPU, with the reason, which a program that runs says as well; a named device refuses.
    env = {"SILL_METAL_LIBRARY": library, "FAKEMETAL_WORKING_SET": str(whole["total_bytes"]), "SILL_FIRST_USE_CHECK": "0", "SILL_METAL_CACHE": "0"}
    auto = sill("plan", STORIES, *named, "--json", env=env).objects()[0]
    assert auto["device"] == "cpu" and "device metal: " in auto["passed_over"] and "would fit" in auto["passed_over"], auto
    args = ["generate", *M, *named, "--max-new-tokens", "2", "Once"]
    on_cpu = sill(*args, "--device", "cpu", env=env)
    r = sill(*args, env=env)
    assert r.out == on_cpu.out and r.err.startswith("sill: warning: device cpu is used, since device metal: ") and "would fit" in r.err, r.err
    sill(*args, "--device", "metal", status=4, env=env)


for t in (plan_and_generate_agree, refused_before_the_model, known_for_later, sampling_without_do_sample, seeds_are_whole,
          interrupts_while_input_is_awaited, json_texts, names_are_the_same_in_all_rows, nothing_to_score, compressed_names,
          help_on_blank_lines, bytes_without_a_token, a_stride_of_the_context,
          regression_has_no_label, what_the_gpu_does_not_take, the_working_set_of_the_gpu):
    test(t)
end()
