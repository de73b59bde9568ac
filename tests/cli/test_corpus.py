#!/usr/bin/env python3
"""Corpora through the commands, with the stories260K model: fields, order, failed rows, dirty files, interruption, golden files."""
import math, os, random, re, signal, time
from clitest import *

M = ["-m", STORIES]
GOLDEN = os.path.join(FIXTURES, "cli")
TEXTS = ["Once upon a time there was a cat", "Lily", "The dog ran to the big red ball and said hello to Tom.", "a", "It was fun!"]


def csv_of(rows, header=("id", "text")):
    s = io.StringIO(newline="")
    w = csv.writer(s, lineterminator="\n")
    w.writerow(header)
    w.writerows(rows)
    return s.getvalue()


def five():
    return write("five.csv", csv_of([(f"r{i}", t) for i, t in enumerate(TEXTS)]))


# ---- contract: what goes where

def stdout_is_data_only():
    f = five()
    for args in (["score", f, "--text", "text"], ["tokenize", f, "--text", "text"], ["classify", f, "--text", "text", "--labels", "a,b"],
                 ["generate", "-f", f, "--text", "text", "--max-new-tokens", "2"]):
        r = sill(*args, *M)
        assert len(r.rows()) == 5 and "rows" in r.err, r.err
        assert "\r" not in r.err and "\033" not in r.err
        q = sill(*args, *M, "--quiet")
        assert q.out == r.out and q.err == "", q.err
        o = path("q.csv")
        p = sill(*args, *M, "-o", o, "--overwrite")
        assert p.out == b"" and read("q.csv") == r.out
        j = sill(*args, *M, "--json")
        assert [x["text"] for x in j.objects()] == TEXTS


def fields_in_order():
    f = five()
    def names(*args):
        r = sill(*args, *M)
        return list(r.rows()[0]), list(sill(*args, *M, "--json").objects()[0])
    base = ["id", "text"]
    score = ["n_tokens", "sum_logprob", "mean_logprob", "perplexity"]
    for args, want in ((["tokenize"], ["ids"]), (["score"], score), (["score", "--per", "token"], score + ["ids", "tokens", "logprobs"]),
                       (["score", "--per", "word"], score + ["words", "surprisals"])):
        a, b = names(args[0], f, "--text", "text", *args[1:])
        assert a == b == base + want + ["error"], (a, b)
    first = base + ["label", "margin", "entropy", "n_tokens", "needs_human"]
    a, b = names("classify", f, "--text", "text", "--labels", "x, y", "--all-probs", "--logits")
    assert names("classify", f, "--text", "text", "--labels", " x , y ", "--all-probs", "--logits") == (a, b)
    kinds = ["prob_", "prob_raw_", "prob_norm_", "prob_calibrated_"]
    assert a == first + [k + x for k in kinds for x in "xy"] + ["logits", "error"], a
    assert b == first + ["probs", "probs_raw", "probs_norm", "probs_calibrated", "logits", "error"], b
    a, _ = names("classify", f, "--text", "text", "--labels", "x,raw_x", "--all-probs")
    assert len(set(a)) == len(a) and "sill_prob_raw_x" in a, a
    new = ["ids", "logprobs", "finish_reason", "seed"]
    a, b = names("generate", "-f", f, "--text", "text", "--max-new-tokens", "2")
    assert a == b == base + ["prompt", "sill_text"] + new + ["error"], (a, b)
    a, b = names("generate", "-f", write("p.txt", "x\n"), "--max-new-tokens", "2", "--logprobs", "2")
    assert a == b == ["prompt", "text"] + new + ["top_logprobs", "error"], (a, b)
    assert list(sill("generate", *M, "--json", "--do-sample", "--num-return-sequences", "2", "x").objects()[1]) == \
        ["prompt", "text"] + new + ["sequence", "error"]


def formats_agree():
    rows = [(f"r{i}", t) for i, t in enumerate(TEXTS)]
    f = five()
    tsv = write("five.tsv", csv_of(rows).replace(",", "\t"))
    semi = write("semi.csv", "id;text\n" + "".join(f"{a};{b}\n" for a, b in rows))
    jsonl = write("five.jsonl", "".join(json.dumps({"id": a, "text": b}) + "\n" for a, b in rows))
    txt = write("five.txt", "".join(t + "\n" for t in TEXTS))
    want = [r["sum_logprob"] for r in sill("score", f, "--text", "text", *M).rows()]
    for args in ([tsv, "--text", "text"], [semi, "--text", "text"], [jsonl, "--text", "text"], [txt], ["-"],
                 ["-", "--format", "csv", "--text", "text"]):
        stdin = b"" if args[0] != "-" else open(f if len(args) > 1 else txt, "rb").read()
        got = sill("score", *args, *M, "--json", stdin=stdin).objects()
        assert [("" if r["sum_logprob"] is None else repr(r["sum_logprob"])) for r in got] == \
            [repr(float(x)) if x else "" for x in want], args
        assert [r["text"] for r in got] == TEXTS
    out = sill("score", tsv, "--text", "text", *M).text().split("\n")
    assert out[0].split("\t")[:2] == ["id", "text"] and len(out[1].split("\t")) == 7
    r = sill("score", semi, "--text", "text", *M)
    assert r.text().startswith("id;text;n_tokens;") and "separated by ';'" in r.err
    assert sill("score", f, "--text", "text", *M, "--output-format", "tsv").text().startswith("id\ttext\t")
    line = sill("score", write("raw.jsonl", '{"n": 1.50, "text":"a \\ud800 b"}\n'), "--text", "text", *M)
    assert line.text().startswith('{"n": 1.50, "text":"a \\ud800 b","n_tokens":') and "lone surrogate" in line.err


# ---- numbers that follow from each other

def scores_add_up():
    f = five()
    token = sill("score", f, "--text", "text", *M, "--per", "token", "--json", "--bos").objects()
    word = sill("score", f, "--text", "text", *M, "--per", "word", "--json", "--bos").objects()
    plain = sill("score", f, "--text", "text", *M, "--per", "token", "--json").objects()
    for t, w, p, text in zip(token, word, plain, TEXTS):
        assert math.isclose(sum(t["logprobs"]), t["sum_logprob"], rel_tol=1e-6) and len(t["logprobs"]) == len(t["ids"]) == t["n_tokens"]
        assert math.isclose(-sum(w["surprisals"]), w["sum_logprob"], rel_tol=1e-6)
        assert w["words"] == text.split() and "".join(t["tokens"]) == text, (w["words"], t["tokens"])
        assert math.isclose(t["perplexity"], math.exp(-t["mean_logprob"]), rel_tol=1e-12)
        assert math.isclose(t["mean_logprob"], t["sum_logprob"] / t["n_tokens"], rel_tol=1e-12)
        assert p["logprobs"][0] is None and None not in p["logprobs"][1:]
        if p["n_tokens"] > 1:
            assert math.isclose(p["mean_logprob"], p["sum_logprob"] / (p["n_tokens"] - 1), rel_tol=1e-12)
        else:
            assert p["sum_logprob"] is None and p["perplexity"] is None


def words_and_white_space():
    texts = ["  two  spaces\n\nand lines ", "\t", "don't stop", "\u00e9t\u00e9 \u4f60\u597d x"]
    f = write("w.jsonl", "".join(json.dumps({"t": t}) + "\n" for t in texts))
    for r, t in zip(sill("score", f, "--text", "t", *M, "--per", "word", "--json", "--bos").objects(), texts):
        assert r["words"] == t.split(), r
        assert len(r["surprisals"]) == len(r["words"])
        if r["words"]:
            assert math.isclose(-sum(r["surprisals"]), r["sum_logprob"], rel_tol=1e-6), r


def perplexity_of_texts_and_rows():
    text = open(os.path.join(FIXTURES, "stories260K/greedy_200.txt"), "rb").read().decode()
    t = write("story.txt", text)
    p = sill("perplexity", t, *M, "--json").objects()[0]
    assert list(p) == ["perplexity", "n_tokens", "nll", "word_perplexity", "n_words", "bits_per_byte", "n_bytes"]
    assert math.isclose(math.exp(p["nll"]), p["perplexity"], rel_tol=1e-12)
    assert float(sill("perplexity", t, *M).text()) == p["perplexity"]
    assert sill("perplexity", "-", *M, "--json", stdin=text.encode()).objects()[0] == p
    one = sill("score", write("story.jsonl", json.dumps({"t": text})), "--text", "t", *M, "--json").objects()[0]
    assert math.isclose(one["perplexity"], p["perplexity"], rel_tol=1e-12) and one["n_tokens"] == p["n_tokens"] + 1
    rows = sill("perplexity", five(), "--text", "text", *M, "--json").objects()[0]
    scores = sill("score", five(), "--text", "text", *M, "--json").objects()
    nll = -sum(s["sum_logprob"] or 0 for s in scores) / sum(s["n_tokens"] - 1 for s in scores)
    assert math.isclose(rows["nll"], nll, rel_tol=1e-9)
    bos = sill("perplexity", t, *M, "--json", "--bos")
    for x in (p, bos.objects()[0]):
        whole = x["nll"] * x["n_tokens"]
        assert x["n_words"] == len(text.split()) and x["n_bytes"] == len(text.encode()), x
        assert math.isclose(x["word_perplexity"], math.exp(whole / len(text.split())), rel_tol=1e-9), x
        assert math.isclose(x["bits_per_byte"], whole / len(text.encode()) / math.log(2), rel_tol=1e-9), x
    assert f"({len(text.split())} words)" in bos.err
    # transformers 5.23: model(**tokenizer(text), labels=input_ids).loss, whose tokenizer adds the beginning of text
    like = sill("perplexity", "-", "-m", os.path.join(FIXTURES, "task/llama"), "--dtype", "f32", "--json", "--bos",
                stdin=b"Once upon a time there was a ball.").objects()[0]
    assert math.isclose(like["nll"], 7.415306, rel_tol=1e-6), like
    assert rows["n_words"] == sum(len(x.split()) for x in TEXTS) and rows["n_bytes"] == sum(map(len, TEXTS)), rows
    long = write("long.txt", text * 6)
    cut = sill("perplexity", long, *M, "--json", "--long", "truncate").objects()[0]
    assert cut["word_perplexity"] is None and cut["bits_per_byte"] is None and cut["perplexity"] > 0, cut
    w = sill("perplexity", long, *M, "--json", "--ctx", "128", "--stride", "64")
    assert w.objects()[0]["perplexity"] > 0 and "windows" in w.err
    sill("perplexity", long, *M, "--long", "error", status=1)
    r = sill("perplexity", write("bad.csv", "t\nx y z\n1,2\n"), "--text", "t", *M, status=3)
    assert r.text() and "row 2" in r.err


def labels_and_probabilities():
    f = five()
    args = ["classify", f, "--text", "text", *M, "--labels", "good,bad,not so good", "--json", "--all-probs", "--logits"]
    for kind in ("norm", "raw", "calibrated"):
        for r in sill(*args, "--prob", kind).objects():
            p = sorted(r["probs"].values())
            assert r["probs"] == r["probs_" + kind] and abs(sum(p) - 1) < 1e-5 and list(r["probs"]) == ["good", "bad", "not so good"]
            assert r["label"] == max(r["probs"], key=r["probs"].get) and abs(r["margin"] - (p[-1] - p[-2])) < 1e-5
            assert abs(r["entropy"] + sum(x * math.log(x) for x in p if x > 0)) < 1e-4
            assert r["needs_human"] is (r["margin"] < 0.1), r
    one = sill("classify", f, "--text", "text", *M, "--labels", "good,bad", "--needs-human-below", "1").rows()
    none = sill("classify", f, "--text", "text", *M, "--labels", "good,bad", "--needs-human-below", "0").rows()
    assert all(r["needs_human"] == "1" for r in one) and all(r["needs_human"] == "0" for r in none)
    r = sill("classify", f, "--text", "text", *M, status=2)
    assert "no classification head" in r.err and not r.out
    a = sill("classify", f, "--text", "text", *M, "--labels", "good,bad", "--prompt", "Text: {text} It is").out
    assert a != sill("classify", f, "--text", "text", *M, "--labels", "good,bad").out


def classification_head_as_transformers():
    """The head's logits on texts whose ids are those of the records that transformers made."""
    model = path("head")
    os.makedirs(model)
    source = os.path.join(FIXTURES, "task/head-gpt2")
    for name in os.listdir(source):
        os.symlink(os.path.join(source, name), os.path.join(model, name))
    letters = [chr(33 + i) for i in range(61)]  # one character a token, no merges
    write("head/tokenizer.json", json.dumps({
        "version": "1.0", "added_tokens": [], "normalizer": None, "post_processor": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "vocab": {c: i for i, c in enumerate(letters)}, "merges": []}}))
    records, head = [], {}
    with open(os.path.join(FIXTURES, "task/records.txt"), encoding="utf-8") as f:
        for line in f:
            word, _, rest = line.strip().partition(" ")
            if word == "record": head = {"record": rest}
            else: head[word] = rest
            if word == "probs" and head["record"] == "head" and head["model"] == "head-gpt2" and "0" not in head["ids"].split():
                records.append([[float(x) for x in head[k].split()] for k in ("ids", "logits", "probs")])
    assert len(records) >= 2, records
    f = write("head.csv", csv_of([("".join(letters[int(i)] for i in ids),) for ids, _, _ in records], ("t",)))
    got = sill("classify", f, "--text", "t", "-m", model, "--dtype", "f32", "--logits", "--json").objects()
    for r, (ids, logits, probs) in zip(got, records):
        assert r["n_tokens"] == len(ids), r
        assert all(math.isclose(a, b, rel_tol=2e-4, abs_tol=1e-5) for a, b in zip(r["logits"].values(), logits)), (r, logits)
        assert all(math.isclose(a, b, rel_tol=2e-4, abs_tol=1e-5) for a, b in zip(r["probs"].values(), probs)), (r, probs)
        assert r["label"] == list(r["probs"])[probs.index(max(probs))]
    r = sill("classify", f, "--text", "t", "-m", model, "--logits").rows()[0]
    assert json.loads(r["logits"]) == got[0]["logits"] and list(r)[:6] == ["t", "label", "margin", "entropy", "n_tokens", "needs_human"]
    assert "no tokenizer" in sill("classify", f, "--text", "t", "-m", source, status=1).err


def chat_in_a_pipe():
    m = os.path.join(FIXTURES, "task/gpt2")
    r = sill("chat", "-m", m, stdin=b"Hello\n\nAgain\n/reset\nHello\n/exit\nnot read\n", status=None)
    assert r.status == 0 and r.out, r.err
    one = sill("chat", "-m", m, "--max-new-tokens", "6", stdin=b"Hello\n").out
    again = sill("chat", "-m", m, "--max-new-tokens", "6", stdin=b"Hello\n/reset\nHello\n").out
    assert again == one + one, (one, again)
    assert sill("chat", "-m", m, "--max-new-tokens", "6", "--system", "Be brief", stdin=b"Hello\n").out != one
    long = sill("chat", "-m", m, "--max-new-tokens", "60", stdin=b"Hello again and again\n" * 6)
    assert "oldest turn is left out" in long.err, long.err


def tokens_and_back():
    rng = random.Random(5)
    texts = ["", " ", "plain", "a\nb\r\nc", 'say "hi", ok', "\u00e9\u20ac\U0001f600", "<s> </s> <unk>", "  lead", "trail  ", "\t"] + \
        ["".join(rng.choices("ab \n\u00e9\U0001f600<>/s|", k=30)) for _ in range(50)]
    f = write("tok.csv", csv_of([(t, "") for t in texts], ("t", "x")))
    assert sill("tokenize", f, "--text", "t", *M, "-o", path("ids.csv"), "--overwrite").status == 0
    back = sill("detokenize", path("ids.csv"), *M).rows()
    assert [r["text"] for r in back] == texts, [(r["text"], t) for r, t in zip(back, texts) if r["text"] != t][:3]
    assert all(r["error"] == "" and r["sill_error"] == "" for r in back)
    raw = write("raw.csv", b"t\n\xff\xfe\x80 x\n\"\0\"\n")
    out = sill("tokenize", raw, "--text", "t", *M, "--encoding", "bytes").out
    assert out.startswith(b"t,ids,error\n\xff\xfe\x80 x,")
    assert sill("detokenize", write("i.csv", out), *M, "--encoding", "bytes").out.split(b"\n")[1].endswith(b",,\xff\xfe\x80 x,")
    r = sill("detokenize", "-", *M, "--json", stdin=b"403 407\n[403,407]\n403,407\n", ).objects()
    assert [x["text"] for x in r] == ["Once upon"] * 3, r
    r = sill("detokenize", "-", *M, "--json", stdin=b"403 x\n99999\n-1\n403\n", status=3).objects()
    assert [bool(x["error"]) for x in r] == [True, True, True, False] and "outside the vocabulary of 512" in r[1]["error"], r
    r = sill("detokenize", "-", *M, "--json", stdin=b"[403,407\n403,407]\n[\n]\n[]\n [403]\t\n[[403]]\n403[]\n", status=3).objects()
    assert [x["text"] for x in r] == [None, None, None, None, "", "Once", None, None], r
    assert "bracket at one end only" in r[0]["error"], r
    special = sill("tokenize", "-", *M, "--json", "--special", stdin=b"<s>a\n").objects()[0]["ids"]
    plain = sill("tokenize", "-", *M, "--json", stdin=b"<s>a\n").objects()[0]["ids"]
    assert special[0] == 1 and 1 not in plain and len(plain) > len(special), (special, plain)
    assert sill("tokenize", "-", *M, "--json", "--bos", stdin=b"a\n").objects()[0]["ids"][0] == 1


# ---- generation

def greedy_text_is_the_reference():
    want = open(os.path.join(FIXTURES, "stories260K/greedy_200.txt"), "rb").read().decode().strip()
    r = sill("generate", *M, "--dtype", "f32", "--max-new-tokens", "199", "Once upon a time", "-q")
    assert ("Once upon a time" + r.text().rstrip("\n"))[:len(want)] == want[:len("Once upon a time" + r.text().rstrip("\n"))], r.text()
    assert len(r.text()) > 400
    assert sill("generate", *M, "--dtype", "f32", "--max-new-tokens", "199", "-q", stdin=b"Once upon a time\n").out == r.out


def prompts_as_text():
    r = sill("generate", *M, "--max-new-tokens", "5", *TEXTS)
    j = sill("generate", *M, "--max-new-tokens", "5", "--json", *TEXTS).objects()
    assert r.text() == "".join(x["text"] + "\n" for x in j) and [x["prompt"] for x in j] == TEXTS
    assert all(len(x["ids"]) == len(x["logprobs"]) <= 5 and max(x["logprobs"]) <= 0 for x in j)
    assert r.err == ""
    c = sill("generate", *M, "--max-new-tokens", "5", *TEXTS, "-o", path("g.csv"), "--overwrite")
    assert c.out == b"" and [x["text"] for x in csv.DictReader(io.StringIO(read("g.csv").decode(), newline=""))] == [x["text"] for x in j]


def options_have_an_effect():
    def text(*a): return sill("generate", *M, "Once upon a time", "-q", *a).text()
    plain = text("--max-new-tokens", "12")
    assert "girl" in plain, plain
    assert "girl" not in text("--max-new-tokens", "12", "--bad-words", "girl,dog")
    stopped = sill("generate", *M, "Once upon a time", "--json", "--stop", "zzz", "--stop", "girl", "--max-new-tokens", "30").objects()[0]
    assert "girl" not in stopped["text"] and stopped["finish_reason"] == "stop" and plain.startswith(stopped["text"]), stopped
    first = sill("generate", *M, "Once upon a time", "--json", "--max-new-tokens", "1").objects()[0]["ids"][0]
    assert sill("generate", *M, "Once upon a time", "--json", "--max-new-tokens", "1", "--logit-bias", f"{first}=-1000").objects()[0]["ids"][0] != first
    sill("generate", *M, "x", "--logit-bias", "512=1", status=2)
    tops = sill("generate", *M, "Once upon a time", "--json", "--max-new-tokens", "3", "--logprobs", "4").objects()[0]
    assert [[x["id"] for x in step][0] for step in tops["top_logprobs"]] == tops["ids"] and all(len(s) == 4 for s in tops["top_logprobs"])
    assert [s[0]["logprob"] for s in tops["top_logprobs"]] == tops["logprobs"]
    sample = ["--do-sample", "--max-new-tokens", "12"]
    assert text(*sample, "--seed", "5") == text(*sample, "--seed", "5")
    assert len({text(*sample, "--seed", s) for s in range(5)}) > 2
    many = sill("generate", *M, "Once", "Lily", "--json", *sample, "--num-return-sequences", "3", "--seed", "9").objects()
    assert [(x["prompt"], x["sequence"]) for x in many] == [(p, s) for p in ("Once", "Lily") for s in range(3)]
    assert len({x["text"] for x in many}) > 3 and {x["seed"] for x in many} == {9}


def rows_do_not_depend_on_each_other():
    rng = random.Random(4)
    rows = [(f"k{i}", " ".join(rng.choices("the cat ran to a big red ball and Lily said hello".split(), k=rng.randint(1, 60)))) for i in range(60)]
    args = ["--text", "text", "--id", "id", *M, "--do-sample", "--max-new-tokens", "8", "--json"]
    a = sill("generate", "-f", write("s1.csv", csv_of(rows)), *args).objects()
    assert [r["id"] for r in a] == [r[0] for r in rows]
    rng.shuffle(rows)
    b = sill("generate", "-f", write("s2.csv", csv_of(rows)), *args, "--threads", "1", "--max-sequences", "3", "--batch-tokens", "64").objects()
    assert [r["id"] for r in b] == [r[0] for r in rows]
    def key(r): return r["id"]
    assert sorted(a, key=key) == sorted(b, key=key)
    score = {r["id"]: r for r in sill("score", path("s1.csv"), "--text", "text", *M, "--json", "--per", "token").objects()}
    for k, t in rows[:5]:
        alone = sill("score", write("one.csv", csv_of([(k, t)])), "--text", "text", *M, "--json", "--per", "token").objects()[0]
        assert alone == score[k]


def chat_needs_an_instruct_model():
    r = sill("chat", *M, status=2, stdin=b"hello\n")
    assert "not an instruct model" in r.err and not r.out


# ---- dirty input

def dirty_rows_fail_alone():
    data = b'id,text\n1,one\n2\n3,three,3\n\n4,"four\nlines"\n5,"five ""q"""\n6,"never closed\n7,seven\n'
    r = sill("score", write("dirty.csv", data), "--text", "text", *M, status=3)
    rows = r.rows()
    assert [x["id"] for x in rows] == ["1", "2", "3", "4", "5", "6", "7"], rows
    assert [x["text"] for x in rows] == ["one", "", "three", "four\nlines", 'five "q"', "never closed", "seven"]
    assert [bool(x["error"]) for x in rows] == [False, True, True, False, False, True, False]
    assert all((x["n_tokens"] == "") == bool(x["error"]) for x in rows)
    assert "row 2 (line 3): the row has 1 value" in r.err and "row 6 (line 9): a quote opened on line 9" in r.err, r.err
    assert "3 failed" in r.err and "1 blank lines skipped" in r.err
    assert sill("score", path("dirty.csv"), "--text", "text", *M, "-q", status=3).err == ""
    lines = b'{"t":"a b"}\nnot json\n{"t":null}\n{"u":1}\n["t"]\n{"t":"c d"}\n'
    out = sill("score", write("dirty.jsonl", lines), "--text", "t", *M, status=3).objects()
    assert [bool(x["error"]) for x in out] == [False, True, True, True, True, False] and all("n_tokens" in x for x in out)


def nothing_to_do():
    assert sill("score", write("h.csv", "id,text\n"), "--text", "text", *M).text() == \
        "id,text,n_tokens,sum_logprob,mean_logprob,perplexity,error\n"
    assert sill("score", write("e.jsonl", ""), "--text", "t", *M).out == b""
    assert sill("score", write("e.txt", "\n\n"), *M).text().startswith("text,n_tokens,")
    assert sill("score", "-", *M, "--json").out == b""
    sill("score", write("h.csv", "id,text\n"), "--text", "text", *M, "-o", path("h_out.csv"))
    assert read("h_out.csv").count(b"\n") == 1


def long_texts_and_policies():
    long = "Once upon a time there was a dog. " * 200
    f = write("long.csv", csv_of([("1", "short"), ("2", long), ("3", "short")]))
    r = sill("classify", f, "--text", "text", *M, "--labels", "a,b", status=3).rows()
    assert [bool(x["error"]) for x in r] == [False, True, False] and "512" in r[1]["error"], r[1]["error"]
    r = sill("classify", f, "--text", "text", *M, "--labels", "a,b", "--long", "truncate").rows()
    assert all(x["label"] in "ab" for x in r)
    r = sill("score", f, "--text", "text", *M).rows()
    assert int(r[1]["n_tokens"]) > 1500 and float(r[1]["perplexity"]) > 1 and r[0] == {**r[2], "id": "1"}
    assert sill("score", f, "--text", "text", *M, "--long", "error", status=3).rows()[1]["error"]
    assert sill("score", f, "--text", "text", *M, "--long", "truncate").rows()[1]["error"] == ""
    assert sill("generate", *M, long, "--max-new-tokens", "3", status=1).err
    huge = write("huge.csv", csv_of([("1", "x"), ("2", "y" * (17 << 20)), ("3", "z")]))
    r = sill("tokenize", huge, "--text", "text", *M, status=3).rows()
    assert [x["id"] for x in r] == ["1", "", "3"] and "longer than 16777216 bytes" in r[1]["error"], r[1]["error"]


def names_that_are_taken():
    f = write("taken.csv", "text,n_tokens,error\na b,9,no\n")
    r = sill("score", f, "--text", "text", *M)
    assert list(r.rows()[0]) == ["text", "n_tokens", "error", "sill_n_tokens", "sum_logprob", "mean_logprob", "perplexity", "sill_error"]
    assert r.rows()[0]["n_tokens"] == "9" and r.err.count("'sill_n_tokens'") == 1
    again = sill("score", write("again.csv", r.out), "--text", "text", *M)
    assert "sill_sill_error" in again.rows()[0]


# ---- files that stay whole

def interruption_keeps_finished_rows():
    rng = random.Random(9)
    rows = [(i, " ".join(rng.choices("the cat ran to a big red ball and Lily said hello".split(), k=20))) for i in range(20000)]
    f, o = write("many.csv", csv_of(rows)), path("many_out.csv")
    for number in (signal.SIGINT, signal.SIGTERM):
        if os.path.exists(o + ".partial"): os.remove(o + ".partial")
        p = subprocess.Popen([SILL, "score", f, "--text", "text", *M, "-o", o, "--overwrite", "--threads", "1"], stderr=subprocess.PIPE)
        deadline = time.time() + 60
        while not (os.path.exists(o + ".partial") and os.path.getsize(o + ".partial") > 2000) and time.time() < deadline and p.poll() is None:
            time.sleep(0.01)
        p.send_signal(number)
        err = p.communicate(timeout=60)[1].decode()
        assert p.returncode == 5, (p.returncode, err)
        assert not os.path.exists(o) and "the same command goes on" in err, err
        data = read("many_out.csv.partial").decode()
        got = list(csv.DictReader(io.StringIO(data, newline="")))
        assert data.endswith("\n") and [r["id"] for r in got] == [str(i) for i in range(len(got))] and 0 < len(got) < 20000
        kept = int(re.search(r"(\d+) finished rows are kept in \S*many_out.csv.journal", err).group(1))
        assert kept >= len(got), (kept, len(got), err)
        assert all(r["sum_logprob"] for r in got)
    r = sill("score", five(), "--text", "text", *M, "-o", o, status=2)
    assert "is not what it was" in r.err and os.path.exists(o + ".journal"), r.err
    sill("score", five(), "--text", "text", *M, "-o", o, "--overwrite")
    assert os.path.exists(o) and not os.path.exists(o + ".partial")


def a_reader_that_leaves():
    rows = write("pipe.csv", csv_of([(i, "the cat ran") for i in range(3000)]))
    p = subprocess.Popen([SILL, "tokenize", rows, "--text", "text", *M], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    p.stdout.readline()
    p.stdout.close()
    assert p.wait(timeout=60) != 0


def same_as(got, want, where):
    if isinstance(want, float) and isinstance(got, (int, float)):
        assert math.isclose(got, want, rel_tol=2e-4, abs_tol=2e-5), f"{where}: {got}, golden {want}"
    elif isinstance(want, dict):
        assert list(got) == list(want), f"{where}: {list(got)}, golden {list(want)}"
        for k in want: same_as(got[k], want[k], f"{where}.{k}")
    elif isinstance(want, list):
        assert len(got) == len(want), where
        for i, (a, b) in enumerate(zip(got, want)): same_as(a, b, f"{where}[{i}]")
    else:
        assert got == want, f"{where}: {got!r}, golden {want!r}"


def golden_files():
    """tests/fixtures/cli/golden.jsonl: arguments and the objects they gave; numbers within 2e-4. Rewrite: SILL_GOLDEN=write."""
    f = os.path.join(GOLDEN, "texts.csv")
    commands = [["score", f, "--text", "text"], ["score", f, "--text", "text", "--per", "token", "--bos"],
                ["score", f, "--text", "text", "--per", "word"], ["tokenize", f, "--text", "text"],
                ["classify", f, "--text", "text", "--labels", "happy,sad", "--all-probs", "--logits"],
                ["generate", "-f", f, "--text", "text", "--max-new-tokens", "10"],
                ["perplexity", f, "--text", "text"]]
    results = []
    for c in commands:
        r = sill(*c, *M, *([] if c[0] == "tokenize" else ["--dtype", "f32"]), "--json", status=3)
        assert len(r.objects()) == (1 if c[0] == "perplexity" else 6)
        shown = [os.path.basename(x) if x == f else x for x in c]
        results.append({"command": shown, "status": r.status, "objects": r.objects()})
    golden = os.path.join(GOLDEN, "golden.jsonl")
    if os.environ.get("SILL_GOLDEN") == "write":
        with open(golden, "w", encoding="utf-8") as out:
            for r in results: out.write(json.dumps(r, ensure_ascii=False) + "\n")
    with open(golden, encoding="utf-8") as lines:
        want = [json.loads(line) for line in lines]
    assert len(want) == len(results)
    for got, w in zip(results, want): same_as(got, w, " ".join(w["command"]))


def tasks_on_a_gpu():
    """Every task on the Metal back end, over the fake Metal: what the CPU gives, to the bounds of f32."""
    library = os.path.abspath(os.path.join(BUILD, "libfakemetal.so"))
    if not os.path.exists(library):
        raise Skip("this machine has no fake Metal; it is for Linux")
    env = {"SILL_METAL_LIBRARY": library, "SILL_FIRST_USE_CHECK": "0", "SILL_METAL_CACHE": "0", "FAKEMETAL_FAST": "1"}
    f = write("gpu.csv", "text\n" + "".join(f"{t}\n" for t in ("Lily had a red ball", "the cat ran to the big tree and sat", "One day", "He was sad")))
    book = write("gpu.json", json.dumps({"labels": [{"label": "cat", "description": "about a cat"}, {"label": "ball", "description": "about a ball"}],
                                         "instruction": "What is it about?", "examples": [{"text": "a cat sat", "label": "cat"}]}))
    jobs = [["classify", f, "--text", "text", *M, "--labels", "cat,ball,a big tree", "--all-probs"],
            ["classify", f, "--text", "text", *M, "--codebook", book, "--all-probs"],
            ["classify", f, "--text", "text", *M, "--codebook", book, "--multi-label"],
            ["score", f, "--text", "text", *M, "--per", "word"], ["score", f, "--text", "text", *M, "--long", "window", "--ctx", "8", "--stride", "4"],
            ["embed", f, "--text", "text", *M, "--normalize"], ["perplexity", f, "--text", "text", *M]]

    def near(x, y):
        if isinstance(x, float) or isinstance(y, float):
            return abs(x - y) <= 1e-4 * max(1.0, abs(x))
        if isinstance(x, list):
            return len(x) == len(y) and all(map(near, x, y))
        if isinstance(x, dict):
            return x.keys() == y.keys() and all(near(x[k], y[k]) for k in x)
        return x == y
    for job in jobs:
        got, want = (sill(*job, "--json", "--device", device, "--dtype", "f32", "--kv-dtype", "f32", env=env).objects() for device in ("metal", "cpu"))
        assert want and near(want, got), (job, want, got)


for t in (tasks_on_a_gpu, stdout_is_data_only, fields_in_order, formats_agree, scores_add_up, words_and_white_space, perplexity_of_texts_and_rows,
          labels_and_probabilities, classification_head_as_transformers,
          tokens_and_back, greedy_text_is_the_reference, prompts_as_text, options_have_an_effect,
          rows_do_not_depend_on_each_other, chat_needs_an_instruct_model, chat_in_a_pipe, dirty_rows_fail_alone, nothing_to_do, long_texts_and_policies,
          names_that_are_taken, interruption_keeps_finished_rows, a_reader_that_leaves, golden_files):
    test(t)
end()
