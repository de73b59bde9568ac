#!/usr/bin/env python3
"""`sill agree` as it is used: what the table, the JSON and the page hold, every reader, and what is refused. The numbers themselves
are compared with other programs in tests/stats; here some by hand and by definition."""
import math, random, re
import xml.etree.ElementTree as ET
from clitest import *

CODED = os.path.abspath(os.path.join(FIXTURES, "../../examples/coded.csv"))


def agree(*args, **more):
    return json.loads(sill("agree", *args, "--json", **more).text())


def table(name, rows, head):
    return write(name, "\n".join(",".join(map(str, r)) for r in [head, *rows]) + "\n")


def cohen(a, b):
    n = len(a)
    po = sum(x == y for x, y in zip(a, b)) / n
    pe = sum(a.count(k) * b.count(k) for k in set(a) | set(b)) / n / n
    return (po - pe) / (1 - pe)


def the_numbers_of_the_example():
    rows = list(csv.DictReader(open(CODED, newline="")))
    r = agree(CODED, "--coders", "label,ann,ben", "--gold", "gold", "--by", "year")
    assert r["rows"] == 300 and r["labels"] == ["climate", "economy", "migration", "security"] and r["level"] == "nominal"
    for p in r["pairs"]:
        a, b = p["coders"]
        both = [(x[a], x[b]) for x in rows if x[a] and x[b]]
        assert p["rows"] == len(both) and abs(p["kappa"]["value"] - cohen(*map(list, zip(*both)))) < 1e-12
        assert abs(p["percent"]["value"] - sum(x == y for x, y in both) / len(both)) < 1e-12
        assert p["kappa"]["low"] < p["kappa"]["value"] < p["kappa"]["high"]
    g = r["gold"][0]
    sample = [x for x in rows if x["gold"]]
    assert g["coder"] == "label" and g["rows"] == len(sample) == 120 and g["labelled_rows"] == 300
    for i, gold in enumerate(r["labels"]):
        assert g["confusion"][i] == [sum(x["gold"] == gold and x["label"] == k for x in sample) for k in r["labels"]]
        given = sum(x["label"] == gold for x in rows) / 300
        d = [(x["gold"] == gold) - (x["label"] == gold) for x in sample]
        mean = sum(d) / 120
        se = math.sqrt((1 - 120 / 300) * sum((v - mean) ** 2 for v in d) / 119 / 120)
        p = g["prevalence"][i]
        assert p["label"] == gold and abs(p["given"] - given) < 1e-12 and abs(p["corrected"] - given - mean) < 1e-12 and abs(p["se"] - se) < 1e-12
    ece, bins = 0, {}
    for x in sample:
        probs = {k[5:]: float(v) for k, v in x.items() if k.startswith("prob_")}
        first = max(probs, key=probs.get)
        bins.setdefault(math.ceil(probs[first] * 10), []).append((probs[first], first == x["gold"]))
    ece = sum(abs(sum(c for c, _ in b) - sum(h for _, h in b)) for b in bins.values()) / 120
    brier = sum((float(x["prob_" + k]) - (x["gold"] == k)) ** 2 for x in sample for k in r["labels"]) / 120
    c = r["calibration"]
    assert c["rows"] == 120 and abs(c["ece"]["value"] - ece) < 1e-12 and abs(c["brier"]["value"] - brier) < 1e-12
    assert sum(b["rows"] for b in c["bins"]) == 120 and len(c["bins"]) == 10
    assert [v["value"] for v in r["by"]["values"]] == [str(y) for y in range(2015, 2025)]
    for v in r["by"]["values"]:
        assert v["counts"] == [sum(x["year"] == v["value"] and x["label"] == k for x in rows) for k in r["labels"]]
    t = sill("agree", CODED, "--coders", "label,ann,ben", "--gold", "gold", "--by", "year").text()
    for s in ("Krippendorff's alpha, nominal", "Fleiss' kappa", "label against gold", "expected calibration error", "corrected by 120 with gold", "seed 0"):
        assert s in t, s
    assert f'{r["agreement"]["krippendorff_alpha"]["value"]:.3f}' in t and all(line == line.rstrip() for line in t.split("\n"))


def every_reader_gives_the_same():
    rows = list(csv.DictReader(open(CODED, newline="")))
    want = agree(CODED, "--coders", "ann,ben,label", "--gold", "gold", "--boot", "50")
    tsv = write("c.tsv", "\n".join("\t".join(r) for r in [list(rows[0]), *[list(x.values()) for x in rows]]))
    lines = []
    for x in rows:
        o = {k: x[k] or None for k in ("ann", "ben", "gold", "label")}
        o["probs"] = {k[5:]: float(v) for k, v in x.items() if k.startswith("prob_")}
        lines.append(json.dumps(o))
    jsonl = write("c.jsonl", "\n".join(lines))
    semicolons = write("c2.csv", "﻿" + "\r\n".join(";".join(r) for r in [list(rows[0]), *[list(x.values()) for x in rows]]))
    for f in (tsv, jsonl, semicolons):
        got = agree(f, "--coders", "ann,ben", "--coders", "label", "--gold", "gold", "--boot", "50")
        assert {**got, "file": 0} == {**want, "file": 0}, f
    with open(CODED, "rb") as f:
        got = agree("-", "--format", "csv", "--coders", "ann,ben,label", "--gold", "gold", "--boot", "50", stdin=f.read())
    assert {**got, "file": 0} == {**want, "file": 0}


def columns_of_classify():
    """What `sill classify` writes is read as it stands, with the other kinds of --all-probs left alone."""
    f = write("r.csv", "gold,text\n" + "".join(f"{g},{t}\n" for g, t in
              [("happy", "The girl smiled"), ("sad", "The dog was lost"), ("happy", "They played all day"), ("sad", "He cried")] * 3))
    for out in ("o.csv", "o.jsonl"):
        sill("classify", f, "--text", "text", "--labels", "happy,sad", "--all-probs", "-m", STORIES, "-o", path(out))
        r = agree(path(out), "--coders", "label", "--gold", "gold")
        assert r["calibration"]["rows"] == 12 and r["labels"] == ["happy", "sad"], r
        raw = agree(path(out), "--coders", "label", "--gold", "gold", "--prob", "prob_raw_" if out == "o.csv" else "probs_raw")
        assert raw["calibration"]["rows"] == 12 and raw["calibration"]["brier"] != r["calibration"]["brier"]
    a, b = (agree(path(o), "--coders", "label", "--gold", "gold") for o in ("o.csv", "o.jsonl"))
    assert {**a, "file": 0} == {**b, "file": 0}


def levels():
    rows = [("low", "low"), ("mid", "high"), ("high", "high"), ("low", "mid"), ("mid", "mid"), ("high", "mid")]
    f = table("o.csv", rows, ("a", "b"))
    r = agree(f, "--coders", "a,b", "--level", "ordinal", "--order", "low, mid,high", "--boot", "0")
    assert r["labels"] == ["low", "mid", "high"] and r["agreement"]["krippendorff_alpha"]["low"] is None
    number = {"low": 1, "mid": 2, "high": 3}
    g = table("n.csv", [(number[x], f"{number[y]}.0") for x, y in rows], ("a", "b"))
    same = agree(g, "--coders", "a,b", "--level", "ordinal", "--boot", "0")
    assert same["labels"] == ["1", "2", "3"] and same["agreement"] == r["agreement"] and same["pairs"] == r["pairs"]
    assert {"kappa_linear", "kappa_quadratic"} <= set(r["pairs"][0])
    interval = agree(g, "--coders", "a,b", "--level", "interval")
    a, b = zip(*[(number[x], number[y]) for x, y in rows])
    v = a + b
    observed = sum((x - y) ** 2 for x, y in zip(a, b)) * 2 / 12
    expected = sum((x - y) ** 2 for x in v for y in v) / 12 / 11
    assert abs(interval["agreement"]["krippendorff_alpha"]["value"] - (1 - observed / expected)) < 1e-12
    nominal = sill("agree", g, "--coders", "a,b", "--json")  # "1" and "1.0" are two texts
    assert len(json.loads(nominal.text())["labels"]) == 6 and "labels '1' and '1.0' count as two" in nominal.err
    r = sill("agree", f, "--coders", "a,b", "--level", "ordinal", status=1)
    assert "'low' is no number" in r.err and "--order" in r.err and "row 1 (line 2)" in r.err
    r = sill("agree", f, "--coders", "a,b", "--level", "ordinal", "--order", "low,high", status=1)
    assert "'mid' is not in --order low,high" in r.err
    h = table("neg.csv", [(-1, 1), (2, 2)], ("a", "b"))
    assert "below 0" in sill("agree", h, "--coders", "a,b", "--level", "ratio", status=1).err
    assert agree(h, "--coders", "a,b", "--level", "interval")["labels"] == ["-1", "1", "2"]


def missing_values():
    f = table("m.csv", [("x", "x"), ("NA", "y"), ("y", "y"), ("", "x"), ("99", "x"), ("x", "y")], ("a", "b"))
    r = agree(f, "--coders", "a,b", "--missing", "NA", "--missing", "99")
    assert r["agreement"]["rows"] == 3 and r["labels"] == ["x", "y"]
    assert agree(f, "--coders", "a,b")["labels"] == ["99", "NA", "x", "y"]
    lone = table("lone.csv", [("x", "x", ""), ("y", "x", ""), ("y", "y", "")], ("a", "b", "c"))  # c coded nothing
    r = sill("agree", lone, "--coders", "a,b,c", "--json")
    got, two = json.loads(r.text()), agree(lone, "--coders", "a,b")
    assert "c has no label in any row" in r.err and got["agreement"]["krippendorff_alpha"] == two["agreement"]["krippendorff_alpha"]
    assert got["agreement"]["fleiss_kappa"] == {"value": None, "why": "no unit is coded by all coders"}
    assert got["pairs"][1]["kappa"] == {"value": None, "why": "no unit is coded by both"}
    assert "undefined: no unit is coded by all coders" in sill("agree", lone, "--coders", "a,b,c").text()


def undefined_is_said():
    f = table("same.csv", [("x", "x")] * 3, ("a", "b"))
    r = agree(f, "--coders", "a,b")
    for s in (r["agreement"]["krippendorff_alpha"], r["agreement"]["fleiss_kappa"], r["pairs"][0]["kappa"]):
        assert s["value"] is None and "only one label" in s["why"], s
    assert r["agreement"]["percent"]["value"] == 1
    t = sill("agree", f, "--coders", "a,b", "--html", path("same.html")).text()
    assert t.count("undefined: only one label was given") == 3 and "nan" not in t.lower()
    assert b"nan" not in read("same.html").lower().replace(b"nance", b"")
    g = agree(table("g1.csv", [("x", "y"), ("y", "y"), ("x", "z")], ("p", "gold")), "--coders", "p", "--gold", "gold")["gold"][0]
    by = {x["label"]: x for x in g["labels"]}
    assert by["z"]["precision"]["value"] is None and by["x"]["recall"]["value"] is None and by["z"]["f1"]["value"] == 0
    one = agree(table("one.csv", [("x", "y")], ("a", "b")), "--coders", "a,b")
    assert one["agreement"]["krippendorff_alpha"]["value"] == 0 and one["agreement"]["rows"] == 1
    assert "-1.000 to -1.000" in sill("agree", path("one.csv"), "--coders", "a,b").text()


def weights():
    rng = random.Random(5)
    rows = []
    for i in range(400):
        t = rng.random() < 0.4
        m = t if rng.random() < 0.8 else not t
        p = 0.5 if m else 0.1
        drawn = rng.random() < p
        rows.append(("yes" if m else "no", ("yes" if t else "no") if drawn else "", 1 / p if drawn else ""))
    f = table("w.csv", rows, ("machine", "gold", "weight"))
    got = agree(f, "--coders", "machine", "--gold", "gold", "--weight", "weight")["gold"][0]["prevalence"][1]
    s = [(w, (g == "yes") - (m == "yes")) for m, g, w in rows if g]
    n, sw = len(s), sum(w for w, _ in s)
    mean = sum(w * d for w, d in s) / sw
    se = math.sqrt(n / (n - 1) * sum((1 - 1 / w) * w * w * (d - mean) ** 2 for w, d in s)) / sw
    assert abs(got["corrected"] - sum(m == "yes" for m, _, _ in rows) / 400 - mean) < 1e-12 and abs(got["se"] - se) < 1e-12
    r = sill("agree", table("w2.csv", [("x", "y", "0.5"), ("y", "y", 2)], ("p", "g", "w")), "--coders", "p", "--gold", "g", "--weight", "w", status=1)
    assert "'0.5' is no weight" in r.err and "row 1" in r.err


def intervals_are_reproducible():
    args = (CODED, "--coders", "ann,ben", "--boot", "200")
    a = sill("agree", *args, "--seed", "7", "--threads", "1").out
    assert a == sill("agree", *args, "--seed", "7", "--threads", "3").out != sill("agree", *args, "--seed", "8").out
    wide, narrow = (agree(*args, "--confidence", c)["agreement"]["krippendorff_alpha"] for c in ("0.99", "0.5"))
    assert wide["low"] < narrow["low"] < narrow["high"] < wide["high"]
    rows = list(csv.reader(open(CODED, newline="")))
    random.Random(1).shuffle(body := rows[1:])
    value = lambda f: agree(f, "--coders", "ann,ben", "--boot", "0")["agreement"]["krippendorff_alpha"]["value"]
    assert abs(value(CODED) - value(table("shuffled.csv", body, rows[0]))) < 1e-14


NASTY = ["<script>alert(1)</script>", 'a "b" & \'c\'', "Économie", "日本語", "\u202eturned", "line\nbreak", "x" * 300, "a,b", "עברית"]


def the_page_is_whole_and_safe():
    rows = io.StringIO()
    w = csv.writer(rows)
    w.writerow(["<i>coder</i>", "b&b", "gold", "by<b>"] + ["prob_" + x for x in NASTY])
    rng = random.Random(2)
    for i in range(200):
        t = rng.choice(NASTY)
        p = [0.05] * len(NASTY)
        p[NASTY.index(t)] = 0.6
        w.writerow([t, rng.choice(NASTY), t if i % 2 else "", rng.choice(NASTY + [""])] + p)
    f = write("nasty.csv", rows.getvalue().encode() + b'"bad \xff\xfe",x,,,' + b",".join([b""] * len(NASTY)) + b"\n")
    r = sill("agree", f, "--coders", "<i>coder</i>", "--coders", "b&b", "--gold", "gold", "--by", "by<b>", "--html", path("n.html"), "--encoding", "bytes")
    assert "\x1b" not in r.text()
    page = read("n.html").decode("utf-8")  # all of it is UTF-8
    assert "<script" not in page and "<i>" not in page and "by<b>" not in page and "&lt;script&gt;" in page and "日本語" in page and "\u202e" not in page
    assert not re.search(r"\b(src|href)\s*=|url\(|@import", page) and "default-src 'none'" in page and "http://" not in page and "https://" not in page
    plots = re.findall(r"<svg.*?</svg>", page, re.S)
    big = [p for p in plots if "role=" in p]
    assert len(big) == 7, len(big)  # agreement, groups, reliability; of each coder a matrix and the corrected shares
    for p in plots:
        root = ET.fromstring(p)  # well-formed
        width, height = float(root.get("width")), float(root.get("height"))
        for e in root.iter():
            for x, size, limit in (("x", "width", width), ("y", "height", height)):
                if e.tag == "rect" and e.get(x):
                    assert -0.01 <= float(e.get(x)) and float(e.get(x)) + float(e.get(size)) <= limit + 0.01, ET.tostring(e)
                elif e.tag == "text" and e.get(x):
                    assert 0 <= float(e.get(x)) <= limit, ET.tostring(e)
            for c, limit in (("cx", width), ("cy", height), ("x1", width), ("x2", width), ("y1", height), ("y2", height)):
                assert e.get(c) is None or -0.01 <= float(e.get(c)) <= limit, ET.tostring(e)
    assert "nan" not in re.sub(r"<style>.*?</style>", "", page, flags=re.S).lower()
    assert "exists; --overwrite replaces it" in sill("agree", f, "--coders", "b&b,gold", "--html", path("n.html"), status=2).err
    sill("agree", f, "--coders", "b&b,gold", "--html", path("n.html"), "--overwrite", "--encoding", "bytes")
    assert read("n.html").decode() != page and not os.path.exists(path("n.html.partial"))
    assert sill("agree", f, "--coders", "b&b,gold", "--html", "-", "--encoding", "bytes").out.startswith(b"<!doctype html>")


def what_is_refused():
    f = table("r.csv", [("x", "y", "", "1"), ("", "", "x", "2"), ("", "", "y", "3")], ("a", "b", "c", "id"))
    for args, says in (
        ([], "--coders A,B,... is missing"), (["--coders", "a"], "agreement takes two and more"), (["--coders", "a,a"], "holds 'a' twice"),
        (["--coders", "a,,b"], "empty name"), (["--coders", "a,z"], "a, b, c, id"), (["--coders", "a", "--gold", "z"], "a, b, c, id"),
        (["--coders", "a,b", "--by", "z"], "a, b, c, id"), (["--coders", "b,c"], "no row has labels from two of b, c"),
        (["--coders", "a", "--gold", "c"], "no row has labels from two of a and gold c"), (["--coders", "a,b", "--order", "x,y"], "--level ordinal"),
        (["--coders", "a,b", "--level", "ordinal", "--order", "x,x"], "'x' twice"), (["--coders", "a,b", "--weight", "id"], "needs --gold"),
        (["--coders", "a,b", "--prob", "p_"], "needs --gold"), (["--coders", "a", "--gold", "b", "--prob", "p_"], "no column begins with 'p_'"),
        (["--coders", "a,b", "--confidence", "1"], "below 1"), (["--coders", "a,b", "--boot", "-1"], "whole number"),
        (["--coders", "a,b", "--level", "odd"], "nominal, ordinal, interval, ratio"), (["--coders", "a,b", "--delimiter", "xx"], "one character"),
        (["--coders", "a,b", "--html", f, "--overwrite"], "is the input"), (["--coders", "a,b", "--html", "-", "--json"], "standard output"),
    ):
        r = sill("agree", f, *args, status=2)
        assert says in r.err and not r.out, (args, r.err)
    assert "plain text" in sill("agree", write("t.txt", "x\n"), "--coders", "a,b", status=2).err
    assert "needs --format" in sill("agree", "-", "--coders", "a,b", status=2).err
    assert "no row" in sill("agree", write("e.csv", "a,b\n"), "--coders", "a,b", status=2).err
    assert sill("agree", path("nowhere.csv"), "--coders", "a,b", status=1).err
    j = write("f.jsonl", '{"a":"x","b":"y"}\n')
    assert "there are: a, b" in sill("agree", j, "--coders", "a,z", status=2).err
    many = table("many.csv", [(i, i) for i in range(2000)], ("a", "b"))
    assert "more than 1024 different labels" in sill("agree", many, "--coders", "a,b", status=1).err
    assert len(agree(many, "--coders", "a,b", "--level", "interval", "--boot", "5")["labels"]) == 2000
    assert "more than 1000 different values" in sill("agree", table("many2.csv", [("x", "y", i) for i in range(2000)], ("a", "b", "c")), "--coders", "a,b", "--by", "c", status=1).err
    bad = table("p.csv", [("x", "x", "0.9", "oops"), ("y", "x", "0.5", "0.5")], ("p", "gold", "prob_x", "prob_y"))
    assert "row 1 (line 2): its probabilities" in sill("agree", bad, "--coders", "p", "--gold", "gold", status=1).err
    assert "cannot write" in sill("agree", CODED, "--coders", "ann,ben", "--html", path("no/such/page.html"), status=1).err


def bad_rows_are_listed():
    f = write("ragged.csv", "a,b\nx,x\ny\nx,y\ny,y\n")
    r = sill("agree", f, "--coders", "a,b", "--json", status=3)
    got = json.loads(r.text())
    assert got["rows"] == 3 and got["failed_rows"] == 1 and "row 2 (line 3)" in r.err


def a_million_rows():
    """Counted, not timed: memory stays within a small multiple of the codes."""
    import resource, subprocess
    rng = random.Random(3)
    lines = [f"{rng.choice('abc')},{rng.choice('abc')},{rng.choice(['', 'a', 'b'])}\n" for _ in range(1000)]
    f = write("big.csv", "one,two,three\n" + "".join(lines) * 1000)
    p = subprocess.Popen([SILL, "agree", f, "--coders", "one,two,three", "--boot", "20", "--json"], stdout=subprocess.PIPE)
    out = p.stdout.read()
    p.stdout.close()
    _, status, usage = os.wait4(p.pid, 0)
    p.returncode = 0
    r, small = json.loads(out), agree(write("small.csv", "one,two,three\n" + "".join(lines)), "--coders", "one,two,three", "--boot", "0")
    assert status == 0 and r["rows"] == 1000000 and abs(r["agreement"]["fleiss_kappa"]["value"] - small["agreement"]["fleiss_kappa"]["value"]) < 1e-12
    rss = usage.ru_maxrss / (1 if sys.platform != "darwin" else 1024)
    if "sanitize" not in BUILD and "tsan" not in BUILD:
        assert rss < 120 * 1024, f"{rss / 1024:.0f} MiB"


for t in (the_numbers_of_the_example, every_reader_gives_the_same, columns_of_classify, levels, missing_values, undefined_is_said, weights,
          intervals_are_reproducible, the_page_is_whole_and_safe, what_is_refused, bad_rows_are_listed, a_million_rows):
    test(t)
end()
