#!/usr/bin/env python3
"""`sill stability`: the sample, the runs against what `sill classify` says, alpha against Krippendorff's formula."""
import gzip, math
from clitest import *

M = ["-m", os.path.join(FIXTURES, "task/labels-gpt2")]
BOOK = {"instruction": "Say what it is: {labels}.", "labels": [{"label": "good", "description": "fine"}, "bad", "the end"],
        "examples": [{"text": "a fine film", "label": "good"}, {"text": "I slept", "label": "bad"}, {"text": "it is over", "label": "the end"}],
        "paraphrases": ["{text}\nSo it is", "Which of {labels} is it?"]}
WORDS = "the film was good and bad war of money it is not for me a text about the end".split()
os.environ["SILL_CACHE"] = path("cache")


def rows(name, n):
    out = io.StringIO(newline="")
    csv.writer(out, lineterminator="\n").writerows([("text",), *((" ".join(WORDS[(i * j * 7 + j) % len(WORDS)] for j in range(3 + i % 9)),) for i in range(n))])
    return write(name, out.getvalue())


def alpha(units):
    """Krippendorff's alpha, nominal, by coincidences ("Computing Krippendorff's Alpha-Reliability", 2011, C)."""
    o = {}
    for unit in units:
        values = [v for v in unit if v is not None]
        for i, a in enumerate(values):
            for j, b in enumerate(values):
                if i != j:
                    o[a, b] = o.get((a, b), 0) + 1 / (len(values) - 1)
    n_of = {}
    for (a, _), x in o.items():
        n_of[a] = n_of.get(a, 0) + x
    n = sum(n_of.values())
    expected = n * n - sum(x * x for x in n_of.values())
    return 1 - (n - 1) * sum(x for (a, b), x in o.items() if a != b) / expected if expected else None


def the_formula_is_the_published_one():
    """His example, and what the package krippendorff makes of the cases of tools/fixtures/make_agree.py."""
    coders = ["123321412***", "1233224125*3", "*3332342251*", "12332441251*"]
    assert round(alpha([[None if v == "*" else v for v in unit] for unit in zip(*coders)]), 3) == 0.743
    n = seen = 0
    with open(os.path.join(FIXTURES, "stats/agree.txt")) as f:
        for line in f:
            word, *rest = line.split()
            if word == "case":
                n = int(rest[2])
            elif word == "codes" and n:
                codes = [None if c == "-1" else int(c) for c in rest]
            elif word == "alpha_nominal":
                a = alpha(zip(*[codes[i:i + n] for i in range(0, len(codes), n)]))
                assert math.isclose(a, float(rest[0]), abs_tol=1e-12), (line, a)
                seen += 1
    assert seen >= 14, seen


def near(a, b):
    return a is b is None or math.isclose(a, b, abs_tol=1e-9)


def numbers_follow_from_the_labels():
    f, book = rows("rows.csv", 60), write("book.json", json.dumps(BOOK))
    multi = write("multi.json", json.dumps({**BOOK, "multi_label": True, "paraphrases": ["{text}\nIs it {description}?\nSay:"],
                                             "examples": [{"text": "a fine film", "labels": ["good"]}, {"text": "x", "labels": []}]}))
    changed = 0
    for name, more in ((book, []), (multi, ["--threshold", "0.45"]), (book, ["--no-chat", "--prob", "calibrated"])):
        j = json.loads(sill("stability", f, "--text", "text", *M, "--codebook", name, "--rows", "25", "--orders", "2", "--json", *more).out)
        kinds = [x["varied"] for x in j["runs"]]
        assert kinds == ["base"] + ["paraphrases"] * (1 if name == multi else 2) + ["label_orders"] * 2 + ["example_orders"] * (1 if name == multi else 2), kinds
        assert len(j["rows"]) == 25 and j["rows_read"] == 60 and [x["row"] for x in j["rows"]] == sorted(x["row"] for x in j["rows"])
        labels = ["good", "bad", "the end"]
        said = [x["labels"] for x in j["rows"]]  # (rows, runs)
        changed += j["changed"] > 0

        def units(runs, label=None):
            if name == multi:
                return [[int(k in unit[r]) for r in runs] for unit in said for k in ([label] if label else labels)]
            return [[unit[r] == label if label else unit[r] for r in runs] for unit in said]
        for kind, a in j["alpha"].items():
            assert near(a["value"], alpha(units([i for i, k in enumerate(kinds) if kind == "all" or k in ("base", kind)]))), kind
            assert a["value"] is None or a["low"] is None or a["low"] <= a["value"] <= a["high"]
        assert set(j["alpha"]) == {"all", *kinds} - {"base"}
        for x in j["labels"]:
            assert near(x["alpha"]["value"], alpha(units(range(len(kinds)), x["label"]))), x
        for i, run in enumerate(j["runs"]):
            assert near(run["same"], sum(u[0] == u[i] for u in said) / 25)
        assert j["changed"] == sum(any(x != u[0] for x in u) for u in said)
    assert changed >= 2


def runs_are_those_of_classify():
    f, book = rows("rows.csv", 30), write("book.json", json.dumps(BOOK))
    j = json.loads(sill("stability", f, "--text", "text", *M, "--codebook", book, "--json", "--orders", "1").out)
    said = list(zip(*(x["labels"] for x in j["rows"])))

    def classified(**change):
        name = write("changed.json", json.dumps({**BOOK, **change}))
        return [x["label"] for x in sill("classify", f, "--text", "text", *M, "--codebook", name, "--json").objects()]
    seen = 0
    for run, labels in zip(j["runs"], said):
        change = {"base": {}, "label_orders": {"labels": sorted(BOOK["labels"], key=lambda x: run["order"].index(x["label"] if isinstance(x, dict) else x))}}
        if run["varied"] == "paraphrases":
            change["paraphrases"] = {"prompt" if "{text}" in run["paraphrase"] else "instruction": run["paraphrase"]}
        if run["varied"] in change:
            assert classified(**change[run["varied"]]) == list(labels), run
            seen += 1
        else:  # one of the five other orders
            e = BOOK["examples"]
            assert list(labels) in [classified(examples=[e[i] for i in o]) for o in ((0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))]
    assert seen == 4 and len(said) == 5


def the_sample_is_by_the_seed():
    f = rows("many.csv", 300)
    args = ["stability", f, "--text", "text", *M, "--labels", "good,bad", "--paraphrase", "{text} It is", "--rows", "20", "--json", "--boot", "0"]
    def numbers(*more):
        return [x["row"] for x in json.loads(sill(*args, *more).out)["rows"]]
    a = numbers()
    assert a == numbers("--threads", "1") and a != numbers("--seed", "1") and len(set(a)) == 20 and max(a) > 150 and min(a) < 150
    assert numbers("--rows", "400") == list(range(1, 301))
    seen = set()
    for seed in range(40):
        seen |= set(numbers("--seed", seed, "--labels", "a,b"))
    assert 250 < len(seen) <= 300, len(seen)  # of 300 rows 40 samples of 20 leave out 300 (280/300)^40 = 19 in the mean
    table = sill(*[x for x in args if x != "--json"], "--show", "2").text()
    assert "alpha of all 2 runs" in table and "paraphrases 1: " in table and "rows that change" in table


def any_input():
    """Rows of a table, of a text file and of a directory, in other encodings, packed: the same texts, the same report."""
    texts = ["the film was good", "caf\u00e9 and bad", "na\u00efve, the end", "war", "money"]
    with open(write("t.csv", ""), "w", encoding="utf-8", newline="") as out:
        csv.writer(out).writerows([["text"], *([t] for t in texts)])
    os.makedirs(path("texts"), exist_ok=True)
    for i, t in enumerate(texts):
        write(f"texts/{i}.txt", t)
    more = [*M, "--labels", "good,bad", "--paraphrase", "{text} It is", "--json"]

    def report(*args):
        return {**json.loads(sill("stability", *args, *more).out), "file": None}
    want = report(path("t.csv"), "--text", "text")
    assert want["rows_read"] == 5 and want["failed"] == 0
    lines = "\n".join(texts) + "\n"
    for args in ([write("lines.txt", lines)], [write("latin.txt", lines.encode("latin-1")), "--encoding", "latin-1"], [path("texts")],
                 [write("packed.csv.gz", gzip.compress(read("t.csv"))), "--text", "text"], [write("lines.dat", lines), "--format", "txt"], [write("t.ssv", "a;text\n" + "".join(f'1;"{t}"\n' for t in texts)),
                 "--format", "csv", "--delimiter", ";", "--text", "text"]):
        assert report(*args) == want, args
    one = json.loads(sill("stability", write("one.txt", "the whole\nis one"), "--format", "file", *more).out)
    assert one["rows_read"] == 1
    long = write("wide.csv", "text\n" + "x" * (2 << 20) + "\ngood\n")
    assert json.loads(sill("stability", long, "--text", "text", "--max-row", "1", *more).out)["rows_read"] == 1
    assert report(path("latin.txt"))["rows_read"] == 3  # what is not UTF-8 is in no sample


def what_is_refused():
    f, long = rows("rows.csv", 3), write("long.csv", "text\nshort\n" + "word " * 1000 + "\n")
    def wrong(*args, says):
        r = sill("stability", *args, status=2)
        assert says in r.err and not r.out, r.err
    one = [f, "--text", "text", *M]
    wrong(*one, "--labels", "a,b", says="nothing to vary")
    wrong(*one, says="one of them")
    wrong(*one, "--labels", "a,b", "--codebook", "x", says="one of them")
    wrong(*one, "--codebook", write("book.json", json.dumps(BOOK)), "--paraphrase", "x", says="its own paraphrases")
    wrong(*one, "--codebook", write("bad.json", "{"), says="bad.json:1: ")
    wrong(*one, "--labels", "a,b", "--paraphrase", "{text} {text}", says="more than once")
    wrong(f, "--text", "text", "-m", STORIES, "--labels", "a,b", "--paraphrase", "{text} x", "--chat", says="no chat template")
    r = sill("stability", long, "--text", "text", *M, "--labels", "good,bad", "--paraphrase", "{text} It is", "--json", status=3)
    j = json.loads(r.out)
    assert j["failed"] == 1 and j["rows"][1]["labels"] == [None, None] and "row 2: " in r.err
    sill("stability", write("none.csv", "text\n"), "--text", "text", *M, "--labels", "a,b", "--paraphrase", "{text} x", status=1)


for t in (the_formula_is_the_published_one, numbers_follow_from_the_labels, runs_are_those_of_classify, the_sample_is_by_the_seed, any_input, what_is_refused):
    test(t)
end()
