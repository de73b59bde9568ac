#!/usr/bin/env python3
"""Codebooks on the command line: the prompt that results, columns, several labels a row, mistakes, a codebook that changes between
runs, heads and what is applied to their outputs."""
import hashlib, math, shutil, signal, time
from clitest import *

MODEL = os.path.join(FIXTURES, "task/labels-gpt2")
PLAIN = ["-m", STORIES]
M = ["-m", MODEL]
os.environ["SILL_CACHE"] = path("cache")
BOOK = """# what a reviewer thinks
instruction: Say what it is: {labels}.
prompt: Review: {text}
  It is
label positive: he likes it
label negative
word positive: good
word negative: bad
example positive: a fine film
example negative: I slept,
  then I left
"""
TOPICS = {"multi_label": True, "labels": [{"label": "war", "word": "about war"}, "money; gold"],
          "examples": [{"text": "the war of gold", "labels": ["war", "money; gold"]}, {"text": "a cat", "labels": []}]}


def rows(name="rows.csv", n=5):
    out = io.StringIO(newline="")
    csv.writer(out, lineterminator="\n").writerows([("text",), *((f"the film {i} was good, and the war was bad" * (1 + i % 3),) for i in range(n))])
    return write(name, out.getvalue())


def wrong(*args, says=()):
    r = sill(*args, status=2)
    for s in [says] if isinstance(says, str) else says:
        assert s in r.err, f"'{s}' not in: {r.err}"
    assert not r.out
    return r


def words_of_other_lengths_are_told():
    args = ["classify", rows(), "--text", "text", *PLAIN, "--labels"]
    count = {w: len(sill("tokenize", write("w.jsonl", json.dumps({"text": w}) + "\n"), "--text", "text", *PLAIN, "--json").objects()[0]["ids"]) for w in ("day", "big", "dog")}
    assert count["day"] == count["big"] < count["dog"], count
    assert "tokens, and --prob norm" not in sill(*args, "day,big").err
    assert "tokens, and --prob norm favours" in sill(*args, "day,dog").err
    for more in (["--prob", "calibrated"], ["--prob", "raw"], ["--multi-label"], ["--quiet"]):
        assert "tokens, and --prob norm" not in sill(*args, "day,dog", *more).err, more


def the_prompt_is_shown():
    f, book = write("one.csv", "text\nthe {text} <|im_end|>\n"), write("film.txt", BOOK)
    front = "Say what it is: good, bad.\ngood: he likes it\n\n"
    turns = [("Review: a fine film", "It is good"), ("Review: I slept,\nthen I left", "It is bad"), ("Review: the {text} <|im_end|>", "It is")]
    args = ["classify", f, "--text", "text", *M, "--codebook", book, "--show-prompt"]
    r = sill(*args, "--no-chat")
    assert r.text() == front + "\n\n".join(f"{a}\n{b}" for a, b in turns) + "\n", r.text()
    assert "' good'" in r.err and "' bad'" in r.err
    r = sill(*args)
    start = "<|im_start|>"
    want = f"{start}system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
    for i, (a, b) in enumerate(turns):
        want += f"{start}user\n{'' if i else front}{a}<|im_end|>\n{start}assistant\n{b}" + ("<|im_end|>\n" if i < 2 else "\n")
    assert r.text() == want, (r.text(), want)
    assert sill(*args, "--chat").text() == want
    by_label = sill(*args, "--json").objects()
    assert [(x["label"], x["continuation"]) for x in by_label] == [("positive", " good"), ("negative", " bad")]
    assert by_label[0]["prompt"] == want[:-1]
    for x in sill(*args[:-1], "--no-chat", "--json").objects():
        assert x["label"] in ("positive", "negative") and list(x["probs"]) == ["positive", "negative"]
    topics = write("topics.json", json.dumps(TOPICS))
    shown = sill("classify", f, "--text", "text", *PLAIN, "--codebook", topics, "--show-prompt", "--json").objects()
    ask = "\nQuestion: Is this text {}?\nAnswer:"
    both = ask.format("about war"), ask.format("money; gold")
    start = f"Text: the war of gold{both[0]} yes{both[1]} yes\n\nText: a cat{both[0]} no{both[1]} no\n\nText: the {{text}} <|im_end|>"
    assert [x["prompt"].removeprefix("<s>").lstrip() for x in shown] == [start + both[0], start + both[1]], shown
    assert [x["label"] for x in shown] == ["war", "money; gold"]


def the_manual_is_true():
    """The codebooks of docs/CODEBOOK.md, and the prompt that it says comes of them."""
    blocks, now = [], []
    for line in open(os.path.join(FIXTURES, "../../docs/CODEBOOK.md"), encoding="utf-8").read().split("\n") + ["end"]:
        if line.startswith("    ") or (not line and now):
            now.append(line[4:])
        elif now:
            blocks.append("\n".join(now).rstrip() + "\n")
            now = []
    lines, in_json, prompt = [next(b for b in blocks if b.startswith(x)) for x in ("# a comment", '{"instruction"', "Each text is")]
    for name, book in (("doc.txt", lines), ("doc.json", in_json)):
        r = sill("classify", write("dull.csv", "text\ndull\n"), "--text", "text", *M, "--no-chat", "--codebook", write(name, book), "--show-prompt")
        assert r.text() == prompt, (r.text(), prompt)


def several_labels():
    f, topics = rows(), write("topics.json", json.dumps(TOPICS))
    args = ["classify", f, "--text", "text", *M, "--codebook", topics]
    r = sill(*args).rows()
    names = ["labels", "margin", "entropy", "n_tokens", "needs_human", "prob_war", "prob_money; gold", "error"]
    assert list(r[0]) == ["text", *names], list(r[0])
    j = sill(*args, "--json", "--logits", "--all-probs", "--threshold", "0.4", "--min-confidence", "0.6", "--needs-human-below", "0").objects()
    assert list(j[0])[1:6] == names[:5]
    for a, b in zip(r, j):
        p = b["probs"]
        assert [float(a["prob_war"]), float(a["prob_money; gold"])] == list(p.values())
        assert json.loads(a["labels"]) == [k for k, v in p.items() if v >= 0.5]
        assert b["labels"] == [k for k, v in p.items() if v >= 0.4]
        assert math.isclose(b["margin"], min(2 * abs(v - 0.4) for v in p.values()), rel_tol=1e-4, abs_tol=1e-6)
        assert math.isclose(b["entropy"], -sum(v * math.log(v) + (1 - v) * math.log(1 - v) for v in p.values()), rel_tol=1e-4)
        assert b["needs_human"] == any(max(v, 1 - v) < 0.6 for v in p.values())
        for k, v in b["logits"].items():
            assert math.isclose(b["probs_raw"][k], 1 / (1 + math.exp(-v)), rel_tol=1e-4)
    same = sill("classify", f, "--text", "text", *M, "--labels", "about war", "--multi-label", "--prob", "raw", "--no-chat").rows()
    assert len(same) == 5 and set(x["labels"] for x in same) <= {"[]", '["about war"]'}
    assert sill(*args, "--no-shared-prefix").out == sill(*args).out
    film = ["classify", f, "--text", "text", *M, "--codebook", write("film.txt", BOOK), "--all-probs"]
    assert sill(*film, "--no-shared-prefix").out == sill(*film).out == sill(*film, "--max-sequences", "2", "--batch-tokens", "7").out


def long_texts_in_pieces():
    """A piece is labelled as the text alone, and counts with its tokens; the summary and the record count such rows."""
    book = write("pieces.json", json.dumps({"labels": ["good", "bad"], "prompt": "{text}\nIt is"}))
    args = ["classify", "--text", "text", *M, "--codebook", book, "--no-chat", "--all-probs"]
    texts = ["yes no yes no good bad " * 6, "short", "x" * 75, "x" * 5 + " " * 75]  # the last: one piece, and white space left out
    f = write("pieces.csv", "text\n" + "".join(t + "\n" for t in texts))
    n = {len(r["ids"]) for r in sill("tokenize", write("x.jsonl", '{"text":"x"}\n{"text":"xx"}\n{"text":"xxx"}\n'), "--text", "text", *M).objects()}
    assert n == {1, 2, 3}  # "x" is a token of its own: the pieces of the third text are known
    for policy, says in (("split-mean", "split into pieces"), ("window", "read in windows that overlap"), ("truncate", "left out")):
        r = sill(*args, f, "--ctx", "40", "--long", policy, "--min-confidence", "0.6", "-o", path(f"{policy}.jsonl"))
        assert f"rows longer than the context of 40 tokens: 3, " in r.err and says in r.err, r.err
        record = json.loads(read(f"{policy}.jsonl.run.json"))
        assert record["long_rows"] == 3 and record["options"]["chat"] is False and record["settings"]["--min-confidence"] == "0.6"
    frame = json.loads(sill(*args, write("e.jsonl", '{"text":""}\n'), "--show-prompt", "--json").text().split("\n")[0])["n_tokens"]
    word = max(len(r["ids"]) for r in sill("tokenize", write("w.jsonl", '{"text":" good"}\n{"text":" bad"}\n'), "--text", "text", *M).objects())
    body = 40 - frame - (word - 1)
    for policy, step in (("split-mean", body), ("window", body // 2)):
        starts, done, pieces = 0, 0, []
        while done < 75:
            end = min(starts + body, 75)
            pieces.append((end - starts, end - done))
            done, starts = end, starts + step
        alone = sill(*args, write("p.jsonl", "".join(json.dumps({"text": "x" * k}) + "\n" for k, _ in pieces))).objects()
        whole = [json.loads(line) for line in read(f"{policy}.jsonl").decode().split("\n") if line][2]
        assert len(pieces) > 2 and sum(w for _, w in pieces) == 75
        for key in ("probs", "probs_raw", "probs_norm", "probs_calibrated"):
            for label in ("good", "bad"):
                want = sum(w * a[key][label] for (_, w), a in zip(pieces, alone)) / 75
                assert math.isclose(whole[key][label], want, rel_tol=1e-5), (policy, key, label)


def confidence():
    f = rows()
    args = ["classify", f, "--text", "text", *M, "--labels", "good,bad,the end", "--json", "--needs-human-below", "0"]
    for least in (0, 0.4, 0.6, 0.9):
        for r in sill(*args, "--min-confidence", least).objects():
            assert r["needs_human"] == (max(r["probs"].values()) < least)


def mistakes():
    f = rows()
    c = ["classify", f, "--text", "text", *M, "--codebook"]
    wrong(*c, path("none.json"), says="none.json")
    for text, says in (("label a\nlabel b\nlabl c\n", (":3: ", "labl")), ('{"labels": ["a", "a"]}', (":1: ", "there already")),
                       ("label a\nlabel b\nexample c: x\n", (":3: ", "not among the labels")), ("", ("empty",)), ("label a\n", (":1: ", "no choice")),
                       ("label a\nlabel b\nprompt: x\n", (":3: ", "{text}"))):
        wrong(*c, write("bad.txt", text), says=("bad.txt" + says[0] if says[0][0] == ":" else says[0], *says[1:]))
    good = write("film.txt", BOOK)
    wrong(*c, good, "--labels", "a,b", says="its own labels")
    wrong(*c, good, "--chat", "--no-chat", says="exclude")
    wrong(*c, good, "--function-to-apply", "sigmoid", says="classification head")
    wrong(*c, good, "--multi-label", "--prompt", "{text}", says="no {label}")
    wrong(*c, good, "--show-prompt", "-o", path("x.csv"), says="leave -o out")
    wrong(*c, good, "--threshold", "0", says="--threshold")
    wrong("classify", f, "--text", "text", *PLAIN, "--codebook", good, "--chat", says="no chat template")
    long = write("long.txt", BOOK + "".join(f"example positive: {'word ' * 40}{i}\n" for i in range(20)))
    r = sill(*c, long, status=1)
    assert "before the row's text" in r.err and "examples" in r.err, r.err


def sha(name):
    return hashlib.sha256(open(name, "rb").read()).hexdigest()


def a_changed_codebook_does_not_go_on():
    book, out = write("resumed.txt", BOOK), path("resumed.csv")
    for n in (600, 2400, 9600):
        f = rows("many.csv", n)
        args = ["classify", f, "--text", "text", *M, "--codebook", book, "-o", out, "--journal-rows", "1", "--no-shared-prefix", "--threads", "1"]
        for x in os.listdir(work.name):
            if x.startswith("resumed.csv"):
                os.remove(path(x))
        p = subprocess.Popen([SILL, *args], stderr=subprocess.PIPE)
        began = time.time()
        while p.poll() is None and time.time() < began + 60:
            if os.path.exists(out + ".journal") and os.path.getsize(out + ".journal") > 30000:
                p.send_signal(signal.SIGTERM)
                break
            time.sleep(0.005)
        err = p.communicate()[1].decode()
        if p.returncode == 5:
            break
        assert p.returncode == 0, err
    assert p.returncode == 5 and "finished rows are kept" in err, err
    write("resumed.txt", BOOK.replace("he likes it", "she likes it"))
    r = sill(*args, status=2)
    assert "codebook sha256" in r.err, r.err
    write("resumed.txt", BOOK)
    shutil.move(book, path("moved.txt"))
    args[args.index(book)] = path("moved.txt")
    r = sill(*args)
    assert "goes on" in r.err, r.err
    assert read("resumed.csv") == sill(*[x for x in args if x not in ("-o", out)]).out
    record = json.loads(read("resumed.csv.run.json"))
    assert record["settings"]["codebook sha256"] == sha(path("moved.txt")) and record["options"]["codebook"] == path("moved.txt")
    assert record["options"]["chat"] is True  # not given: the model has a template
    r = sill("verify", out, "--rows", "3", cwd=FIXTURES)
    assert "3 of 3 rows" in r.text()
    assert "is finished" in sill(*args).err
    write("moved.txt", BOOK + "# a comment\n")
    assert "codebook sha256" in sill(*args, status=2).err
    r = sill("verify", out, "--rows", "3", status=1)
    assert "the codebook is not the one of the run" in r.text(), r.text()


def with_letters(name):
    """A head of the fixtures with a tokenizer of one letter a token."""
    model, source = path(name), os.path.join(FIXTURES, "task", name)
    os.makedirs(model)
    for x in os.listdir(source):
        os.symlink(os.path.join(source, x), os.path.join(model, x))
    letters = [chr(33 + i) for i in range(61)]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    write(f"{name}/tokenizer.json", json.dumps({"version": "1.0", "added_tokens": [], "normalizer": None, "post_processor": None, "pre_tokenizer": level,
                                                "decoder": level, "model": {"type": "BPE", "vocab": {c: i for i, c in enumerate(letters)}, "merges": []}}))
    return model, letters


def heads_as_the_pipeline():
    """Texts whose ids are those of the records that transformers' pipeline made."""
    for name in ("head-llama-multi", "head-llama-regression", "head-gpt2"):
        model, letters = with_letters(name)
        records, now = [], {}
        for line in open(os.path.join(FIXTURES, "task/labels.txt"), encoding="utf-8"):
            word, _, rest = line.strip().partition(" ")
            now = {"record": rest} if word == "record" else {**now, word: rest}
            if word == "scores" and now["model"] == name:
                records.append(now)
        assert len(records) == 12
        for r in records:
            f = write("head.jsonl", json.dumps({"t": "".join(letters[int(i)] for i in r["ids"].split())}) + "\n")
            args = ["classify", f, "--text", "t", "-m", model, "--dtype", "f32", "--function-to-apply", r["function"], "--json"]
            if "regression" in name and r["function"] in ("sigmoid", "softmax"):
                wrong(*args, says="regression")
                continue
            got, labels = sill(*args).objects()[0], r["labels"].split("|")
            want = [float(x) for x in r["scores"].split()]
            assert list(got["probs"]) == labels
            assert all(math.isclose(a, b, rel_tol=2e-4, abs_tol=1e-5) for a, b in zip(got["probs"].values(), want)), (got, r)
            multi = r["function"] == "sigmoid" or (r["function"] == "auto" and "multi" in name)
            if multi:
                assert got["labels"] == [x for x, p in zip(labels, want) if p >= 0.5] and "label" not in got
            elif "regression" in name:
                assert got["label"] is None
            else:
                assert got["label"] == r["best"]
            assert (got["margin"] is None) == (r["function"] == "none" or "regression" in name)
    wrong("classify", f, "--text", "t", "-m", path("head-gpt2"), "--show-prompt", says="no prompt")
    wrong("classify", f, "--text", "t", "-m", path("head-llama-regression"), "--multi-label", says="regression")
    assert "labels" in sill("classify", f, "--text", "t", "-m", path("head-gpt2"), "--multi-label").objects()[0]


for t in (the_prompt_is_shown, words_of_other_lengths_are_told, the_manual_is_true, several_labels, long_texts_in_pieces, confidence, mistakes, a_changed_codebook_does_not_go_on, heads_as_the_pipeline):
    test(t)
end()
