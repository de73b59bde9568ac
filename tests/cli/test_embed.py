#!/usr/bin/env python3
"""Vectors as JSON Lines, CSV and .npy; texts with a context; corrected surprisals; texts longer than the context and their
count, over interruptions and shards."""
import ast, math, os, signal, struct, subprocess, time
from clitest import *

M = ["-m", STORIES]
TASK = os.path.join(FIXTURES, "task")
SMALL = ["-m", os.path.join(TASK, "gpt2")]


def npy(data):
    """The rule of numpy's format 1.0, read without numpy."""
    assert data[:8] == b"\x93NUMPY\x01\x00"
    n = struct.unpack("<H", data[8:10])[0]
    head = data[10:10 + n].decode("ascii")
    assert (10 + n) % 64 == 0 and head.endswith("\n")
    head = ast.literal_eval(head)
    assert list(head) == ["descr", "fortran_order", "shape"] and head["descr"] == "<f4" and head["fortran_order"] is False
    rows, width = head["shape"]
    assert len(data) == 10 + n + 4 * rows * width, (len(data), head)
    values = struct.unpack(f"<{rows * width}f", data[10 + n:])
    return [values[i * width:(i + 1) * width] for i in range(rows)]


def record(name):
    return json.loads(read(name + ".run.json"))


def f32(x):
    return struct.unpack("<f", struct.pack("<f", x))[0]


def texts(n, longest=40):
    words = "once upon a time there was little girl who had red ball and the big dog ran to sea".split()
    return [" ".join(words[(i * 7 + k * k) % len(words)] for k in range(1 + (i * 13) % longest)) for i in range(n)]


def table(name, n, longest=40):
    return write(name, "id,text\n" + "".join(f"{i},{t}\n" for i, t in enumerate(texts(n, longest))))


def formats_agree():  # first: it counts the files that are there
    f = table("a.csv", 9)
    objects = sill("embed", f, "--text", "text", *M, "--json").objects()
    assert list(objects[0]) == ["id", "text", "n_tokens", "embedding", "error"]
    sill("embed", f, "--text", "text", *M, "-o", path("a.npy"), "-q")
    rows = npy(read("a.npy"))
    assert len(rows) == 9 and len(rows[0]) == 64
    assert [list(map(f32, o["embedding"])) for o in objects] == [list(r) for r in rows]
    table_rows = sill("embed", f, "--text", "text", *M).rows()
    assert list(table_rows[0]) == ["id", "text", "n_tokens", *(f"embedding_{i}" for i in range(64)), "error"]
    assert [[f32(float(r[f"embedding_{i}"])) for i in range(64)] for r in table_rows] == [list(r) for r in rows]
    ones = sill("embed", f, "--text", "text", *M, "--json", "--normalize", "--pooling", "last").objects()
    assert all(abs(sum(x * x for x in o["embedding"]) - 1) < 1e-5 for o in ones)
    r = record("a.npy")
    assert r["rows"] == 9 and r["failed_rows"] == [] and r["output"]["bytes"] == len(read("a.npy"))
    import hashlib
    assert r["output"]["sha256"] == hashlib.sha256(read("a.npy")).hexdigest()
    assert "is finished" in sill("embed", f, "--text", "text", *M, "-o", path("a.npy")).err
    assert "9 of 9 rows" in sill("verify", path("a.npy"), "--rows", "9").text()
    assert sorted(os.listdir(os.path.dirname(path("a")))) == ["a.csv", "a.npy", "a.npy.run.json"]


def rows_that_fail_are_nan():
    f = write("bad.jsonl", '{"t":"a dog"}\n{"t":null}\n{"t":"%s"}\n{"u":1}\n{"t":"the sea"}\n' % ("dog " * 100))
    r = sill("embed", f, "--text", "t", *M, "--ctx", "32", "-o", path("bad.npy"), status=3)
    rows = npy(read("bad.npy"))
    assert [all(math.isnan(x) for x in row) for row in rows] == [False, True, True, True, False]
    assert not any(math.isnan(x) for row in (rows[0], rows[4]) for x in row)
    assert record("bad.npy")["failed_rows"] == [2, 3, 4] and record("bad.npy")["failed"] == 3
    assert "row 2 (line 2): the row has no text" in r.err and "row 3" in r.err and "split-mean" in r.err
    assert "5 of 5 rows" in sill("verify", path("bad.npy")).text()
    for i in (1, 2):
        sill("embed", f, "--text", "t", *M, "--ctx", "32", "-o", path(f"bad{i}.npy"), "--shard", f"{i}/2", status=3)
    sill("merge", path("bad1.npy"), path("bad2.npy"), "-o", path("joined.npy"), status=3)
    assert read("joined.npy") == read("bad.npy") and record("joined.npy")["failed_rows"] == [2, 3, 4]
    assert record("joined.npy")["output"] == record("bad.npy")["output"]
    r = sill("embed", write("empty.csv", "t\n"), "--text", "t", *M, "-o", path("empty.npy"))
    assert read("empty.npy")[10:70].startswith(b"{'descr': '<f4', 'fortran_order': False, 'shape': (0, 64), }")
    r = sill("embed", f, "--text", "t", *M, "--output-format", "npy", "-o", "/dev/null", status=2)
    assert "regular file" in r.err and not os.path.exists(path("x.npy"))


def killed_and_gone_on_with():
    f = table("k.csv", 600, 60)
    args = ["embed", f, "--text", "text", *M, "--ctx", "32", "--long", "split-mean", "--journal-rows", "10", "--threads", "1", "--batch-tokens", "16"]
    sill(*args, "-o", path("whole.npy"))
    before = read("whole.npy")
    long_rows = record("whole.npy")["long_rows"]
    assert 100 < long_rows < 600 and len(npy(before)) == 600
    killed = 0
    for delay in (0.05, 0.1, 0.1, 0.2, 0.2):
        p = subprocess.Popen([SILL, *map(str, args), "-o", path("k.npy")], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        time.sleep(delay)
        p.send_signal(signal.SIGKILL if delay < 0.2 else signal.SIGINT)
        p.communicate()
        killed += p.returncode in (-9, 5)
        assert not (os.path.exists(path("k.npy")) and p.returncode == -9 and not os.path.exists(path("k.npy.run.json")) and
                    not os.path.exists(path("k.npy.journal")))
    assert killed >= 1
    r = sill(*args, "-o", path("k.npy"))
    assert read("k.npy") == before
    assert record("k.npy")["long_rows"] == long_rows, (record("k.npy")["long_rows"], long_rows)
    for i in (1, 2, 3):
        r = sill(*args, "-o", path(f"k{i}.npy"), "--shard", f"{i}/3")
        assert "rows longer than the context of 32 tokens: " in r.err
    sill("merge", *(path(f"k{i}.npy") for i in (3, 1, 2)), "-o", path("km.npy"))
    assert read("km.npy") == before and record("km.npy")["long_rows"] == long_rows
    assert "differs" not in sill("verify", path("km.npy")).text()


def fixture(kind):
    """Records of tests/fixtures/task/windows.txt."""
    for block in open(os.path.join(TASK, "windows.txt"), encoding="utf-8").read().split("\n\n"):
        lines = block.split("\n")
        if lines[0] == f"record {kind}":
            pairs = (line.split(" ", 1) for line in lines[1:])
            yield {k: v.replace("\\n", "\n").replace("\\\\", "\\") for k, v in pairs}


def numbers(text):
    return [float(x) for x in text.split()]


def contexts_as_transformers():
    cases = [r for r in fixture("context") if r["model"] == "gpt2"]
    for bos in ("0", "1"):
        some = [r for r in cases if r["bos"] == bos]
        f = write("c.jsonl", "".join(json.dumps({"c": r["context"], "t": r["text"]}) + "\n" for r in some))
        out = sill("score", f, "--text", "t", "--context", "c", "--per", "token", *SMALL, *(["--bos"] if bos == "1" else [])).objects()
        for r, o in zip(some, out, strict=True):
            assert o["ids"] == [int(x) for x in r["ids"].split()] and o["n_context"] == int(r["n_context"]), (r, o)
            want = [None if math.isnan(x) else x for x in numbers(r["logprobs"])]
            assert all((a is None) == (b is None) and (a is None or abs(a - b) < 1e-4) for a, b in zip(o["logprobs"], want, strict=True)), (r, o)
            total = sum(x for x in want if x is not None)
            assert o["sum_logprob"] is None if all(x is None for x in want) else abs(o["sum_logprob"] - total) < 1e-3
    f = write("e.jsonl", "".join(json.dumps({"c": c, "t": t}) + "\n" for c in ("I saw a film and it was", "A day", "A day") for t in (" good", " so bad", "", "s")))
    args = ["score", f, "--text", "t", "--context", "c", "--per", "token", *M]
    whole = sill(*args).out
    assert whole == sill(*args, "--no-shared-prefix").out == sill(*args, "--max-sequences", "1", "--batch-tokens", "3").out
    r = sill("score", write("m.jsonl", '{"t":"a","c":"b"}\n{"t":"a"}\n{"t":"a","c":[1]}\n'), "--text", "t", "--context", "c", *M, status=3)
    assert "row 2 (line 2): the row has no context" in r.err and "row 3 (line 3): the row's context is a JSON array" in r.err
    r = sill("score", write("m.csv", "t\na\n"), "--text", "t", "--context", "c", *M, status=2)
    assert "no column 'c'" in r.err


def words_corrected_as_published():
    for r in fixture("words"):
        model = ["-m", os.path.join(TASK, r["model"])]
        o, = sill("score", write("w.jsonl", json.dumps({"t": r["text"]}) + "\n"), "--text", "t", "--per", "word", "--corrected", "--bos", *model).objects()
        assert o["words"] == r["words"].split("|"), (o, r)
        for key, want in (("surprisals", "surprisals"), ("corrected_surprisals", "corrected")):
            assert all(abs(a - b) < 3e-4 for a, b in zip(o[key], numbers(r[want]), strict=True)), (key, o[key], r[want])
    # white space at both ends and tokens of white space alone: the words' sum is the text's, and what follows it
    for text in ("a dog \n ran  to\n\nthe sea", " a dog", "a dog \n"):
        for model in (SMALL, M):
            o, = sill("score", write("w.jsonl", json.dumps({"t": text}) + "\n"), "--text", "t", "--per", "word", "--corrected", "--bos", *model).objects()
            assert len(o["words"]) == len(o["corrected_surprisals"]) == len(o["surprisals"]) == len(text.split())
            more = sum(o["corrected_surprisals"]) - sum(o["surprisals"])
            assert more >= -1e-6 and (abs(more) < 1e-6 if text[-1] == "\n" else more > 1e-4), (text, more)
            assert all(x > -1e-6 for x in o["corrected_surprisals"])
    o = sill("score", write("w.jsonl", '{"t":"a dog"}\n'), "--text", "t", "--per", "word", "--corrected", *SMALL).objects()[0]
    assert o["corrected_surprisals"][0] is None and o["corrected_surprisals"][1] > 0


def long_texts_are_counted():
    f = write("long.csv", "t\n" + "once upon a time there was a cat and a dog\n" * 2 + "a cat\n")
    for policy, says in (("window", "read in windows that overlap"), ("split-mean", "split into pieces"), ("truncate", "left out")):
        for c in ("score", "embed"):
            r = sill(c, f, "--text", "t", *M, "--ctx", "8", "--long", policy, "-o", path(f"{c}-{policy}.jsonl"))
            assert f"rows longer than the context of 8 tokens: 2, " in r.err and says in r.err, r.err
            assert record(f"{c}-{policy}.jsonl")["long_rows"] == 2
    given = write("given.csv", "c,t\nonce upon a time there was a cat and a,dog\na,cat\n")
    for policy in ("window", "truncate"):  # one window, which holds the end of the context
        r = sill("score", given, "--text", "t", "--context", "c", *M, "--ctx", "8", "--long", policy, "-o", path(f"given-{policy}.jsonl"))
        assert "rows longer than the context of 8 tokens: 1, " in r.err and record(f"given-{policy}.jsonl")["long_rows"] == 1, r.err
    whole = sill("score", f, "--text", "t", *M, "--ctx", "8", "--long", "split-mean", "--per", "token").rows()
    apart = sill("score", f, "--text", "t", *M, "--ctx", "8", "--stride", "8", "--per", "token").rows()
    assert [r["logprobs"] for r in whole] == [r["logprobs"] for r in apart]
    each = sill("score", f, "--text", "t", *M, "--ctx", "8", "--long", "split-mean", "--per", "token", "--bos").rows()
    assert all("null" not in r["logprobs"] and r["n_tokens"] == w["n_tokens"] for r, w in zip(each, whole, strict=True))


for t in (formats_agree, rows_that_fail_are_nan, killed_and_gone_on_with, contexts_as_transformers, words_corrected_as_published,
          long_texts_are_counted):
    test(t)
end()
