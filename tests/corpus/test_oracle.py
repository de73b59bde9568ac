#!/usr/bin/env python3
"""The readers and writers against Python's csv and json modules, and memory over many rows."""
import csv, io, json, os, random, subprocess, sys, tempfile

BUILD = os.environ.get("BUILD", "build/release")
PROGRAM = os.path.join(BUILD, "tests/corpus/test_corpus")
failed = 0
csv.field_size_limit(1 << 30)
work = tempfile.mkdtemp(prefix="sill_oracle_")


class Skip(Exception):
    pass


def test(fn):
    global failed
    try:
        fn()
        print("PASS", fn.__name__)
    except Skip as e:
        print(f"SKIP {fn.__name__}: {e}")
    except Exception as e:  # noqa: a test that dies is a failed test
        failed += 1
        print(f"  {type(e).__name__}: {str(e)[:2000]}\nFAIL {fn.__name__}")


def convert(data, in_format, out_format):
    a, b = os.path.join(work, "in"), os.path.join(work, "out")
    with open(a, "wb") as f:
        f.write(data)
    p = subprocess.run([PROGRAM, "--convert", a, b, in_format, out_format], capture_output=True)
    if p.returncode:
        raise AssertionError(p.stderr.decode())
    with open(b, "rb") as f:
        return f.read()


def read_csv(data, delimiter=","):
    return list(csv.reader(io.StringIO(data.decode("latin-1"), newline=""), delimiter=delimiter))


def check_rows(rows, out, n_columns, where):
    """ROWS by Python (without blank ones) against OUT, whose last three columns are n, label, error."""
    assert len(out) == len(rows) + 1, f"{where}: {len(out) - 1} rows, Python reads {len(rows)}"
    for i, (row, got) in enumerate(zip(rows, out[1:]), 1):
        if len(row) == n_columns:
            assert got[:n_columns] == row, f"{where}: row {i}: {got!r}, Python reads {row!r}"
            assert got[-1] in ("", "fourth"), f"{where}: row {i}: {got!r}"
        else:
            want = (row + [""] * n_columns)[:n_columns]
            assert got[:n_columns] == want and "values, the header" in got[-1].replace("value,", "values,"), \
                f"{where}: row {i}: {got!r}, Python reads {row!r}"


def written_by_python():
    rng = random.Random(1)
    for case in range(120):
        n_columns, delimiter = rng.randint(1, 6), rng.choice(",;\t|") if case % 3 == 0 else ","
        out_format = rng.choice(["csv", "tsv"])
        if delimiter not in ",\t":
            delimiter = ","
        in_format = "tsv" if delimiter == "\t" else "csv"
        text = io.StringIO(newline="")
        quoting = rng.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
        w = csv.writer(text, delimiter=delimiter, quoting=quoting,
                       lineterminator=rng.choice(["\n", "\r\n"]))
        w.writerow([f"c{i}" for i in range(n_columns)])
        alphabet = 'ab ,"\n\r\t;\0\xff\xc3\xa9' + "x" * 10
        rows = [["".join(rng.choices(alphabet, k=rng.choice([0, 1, 5, 40]))) for _ in range(n_columns)]
                for _ in range(rng.randint(0, 40))]
        w.writerows(rows)
        data = text.getvalue().encode("latin-1")
        if quoting == csv.QUOTE_MINIMAL:  # Python before 3.13 leaves a CR unquoted
            rows = [r for r in read_csv(data, delimiter)[1:] if r]
        out = convert(data, in_format, out_format)
        check_rows(rows, read_csv(out, "\t" if out_format == "tsv" else ","), n_columns, f"case {case}")


def dirty_files_as_python_reads_them():
    rng = random.Random(2)
    compared = 0
    for case in range(400):
        body = "".join(rng.choices('ab,"\n\r' + ' x,\n', k=rng.randint(1, 120)))
        data = ("h1,h2\n" + body).encode("latin-1")
        out = read_csv(convert(data, "csv", "csv"))
        if any("a quote opened" in row[-1] for row in out[1:]):
            continue
        compared += 1
        rows = [r for r in read_csv(data)[1:] if r]
        check_rows(rows, out, 2, f"case {case} {body!r}")
    assert compared > 150, compared


def csv_to_jsonl():
    data = 'a,b\n1,"x\ny ""q"""\n\xe9,\t\n'.encode("utf-8")
    rows = [json.loads(line) for line in convert(data, "csv", "jsonl").splitlines()]
    assert [(r["a"], r["b"], r["error"]) for r in rows] == [("1", 'x\ny "q"', None), ("\xe9", "\t", None)], rows


def random_value(rng, depth=0):
    kind = rng.randint(0, 7 if depth < 3 else 4)
    if kind == 0: return None
    if kind == 1: return rng.choice([True, False])
    if kind == 2: return rng.choice([0, -1, 10 ** 30, 0.1, 1e-300, float("nan"), float("inf")])
    if kind <= 5: return "".join(rng.choices('ab"\\/\n\0\u00e9\u20ac\U0001f600{}[],:', k=rng.randint(0, 12)))
    if kind == 6: return [random_value(rng, depth + 1) for _ in range(rng.randint(0, 4))]
    return {random_value(rng, 3).__str__(): random_value(rng, depth + 1) for _ in range(rng.randint(0, 4))}


def jsonl_lines_are_kept():
    rng = random.Random(3)
    lines = []
    for _ in range(500):
        o = {"".join(rng.choices("abc\"\u00e9 ", k=rng.randint(0, 4))): random_value(rng) for _ in range(rng.randint(0, 5))}
        lines.append(json.dumps(o, ensure_ascii=rng.random() < 0.5,
                                separators=rng.choice([(",", ":"), (", ", ": "), (" , ", " : ")])))
    out = convert(("\n".join(lines) + "\n").encode("utf-8"), "jsonl", "jsonl").decode("utf-8").splitlines()
    # str.splitlines would cut at other characters too: none are used above
    assert len(out) == len(lines), (len(out), len(lines))
    for i, (a, b) in enumerate(zip(lines, out), 1):
        assert b.startswith(a[:-1].rstrip(" ")), f"row {i}: {b!r} does not begin with {a!r}"
        got, want = json.loads(b), json.loads(a)
        new = {k: v for k, v in list(got.items())[len(want):]}
        assert repr(dict(list(got.items())[:len(want)])) == repr(want), f"row {i}"
        assert len(new) == 3 and (new["n"] == i or i % 4 == 0), f"row {i}: {new}"


def memory_stays_flat():
    small, large, out = (os.path.join(work, x) for x in ("small.csv", "large.csv", "o.csv"))
    subprocess.run([PROGRAM, "--generate", "2000", small], check=True)
    subprocess.run([PROGRAM, "--generate", "200000", large], check=True)
    peak = [subprocess.run([PROGRAM, "--rss", p, out], check=True, capture_output=True).stdout.decode().strip() for p in (small, large)]
    if peak[0] == "sanitized":
        raise Skip("a sanitizer keeps what was freed")
    a, b = map(int, peak)
    assert b <= a + 4096, f"peak memory {a} KiB for 2,000 rows, {b} KiB for 200,000"
    with open(out, "rb") as f:
        assert sum(1 for _ in csv.reader(io.StringIO(f.read().decode(), newline=""))) == 200001


for t in (written_by_python, dirty_files_as_python_reads_them, csv_to_jsonl, jsonl_lines_are_kept, memory_stays_flat):
    test(t)
subprocess.run(["rm", "-rf", work])
sys.exit(failed > 0)
