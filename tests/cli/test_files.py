#!/usr/bin/env python3
"""Files as the commands meet them: a disk that fills up, outputs that are links or the input itself, pipes nobody opens,
interruption while waiting, columns that the first row lacks."""
import resource, signal, time
from clitest import *

M = ["-m", STORIES]


def many(name, n):
    return write(name, "n,text\n" + "".join(f'{i},"row {i}, once upon a time\nthere was a ball"\n' for i in range(n)))


def limited(*args, n_bytes):
    """Runs sill where no file may grow past N_BYTES: as a full disk, but without a disk."""
    return subprocess.run([SILL, *args], capture_output=True, timeout=300,
                          preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, n_bytes)))


def a_full_disk_keeps_whole_rows():
    f = many("many.csv", 3000)
    whole = sill("tokenize", f, "--text", "text", *M, "-o", path("whole.csv")) and read("whole.csv")
    for n_bytes in (40000, 65536, 100001):
        out = path(f"full{n_bytes}.csv")
        r = limited("tokenize", f, "--text", "text", *M, "-o", out, n_bytes=n_bytes)
        err = r.stderr.decode()
        assert r.returncode == 1 and "File too large" in err, (r.returncode, err)
        kept = open(out + ".partial", "rb").read()
        n = len(list(csv.DictReader(io.StringIO(kept.decode(), newline=""))))
        assert whole.startswith(kept) and 0 < len(kept) <= n_bytes and kept.endswith(b",\n"), kept[-80:]
        assert not os.path.exists(out) and os.path.exists(out + ".journal") and not os.path.exists(out + ".lock"), os.listdir(work.name)
        with_one_more = len(list(csv.DictReader(io.StringIO(whole.decode()[:n_bytes], newline=""))))
        assert with_one_more - n in (0, 1), "more was cut than the torn row"
        sill("tokenize", f, "--text", "text", *M, "-o", out)  # there is room again: the same command goes on
        assert open(out, "rb").read() == whole and not os.path.exists(out + ".partial") and not os.path.exists(out + ".journal")
    out = path("none.csv")
    r = limited("tokenize", f, "--text", "text", *M, "-o", out, n_bytes=5)  # not even the header
    assert r.returncode == 1 and b"finished rows" not in r.stderr and not [x for x in os.listdir(work.name) if x.startswith("none.csv")]


def sequences_of_a_row_stay_together():
    f = write("seq.txt", "".join(f"Once {i}\n" for i in range(200)))
    args = ["generate", "-f", f, *M, "--do-sample", "--num-return-sequences", "3", "--max-new-tokens", "3"]
    r = limited(*args, "-o", path("seq.jsonl"), n_bytes=20000)
    err = r.stderr.decode()
    rows = [json.loads(line) for line in read("seq.jsonl.partial").decode().splitlines()]
    assert r.returncode == 1 and len(rows) % 3 == 0 and len(rows) > 0, (len(rows), err)
    assert [x["sequence"] for x in rows] == [0, 1, 2] * (len(rows) // 3)


def the_input_is_never_the_output():
    for given in ("in.csv", "./in.csv", "link.csv", "hard.csv"):
        data = open(many("in.csv", 3), "rb").read()
        for name, make in (("link.csv", os.symlink), ("hard.csv", os.link)):
            if os.path.lexists(path(name)):
                os.unlink(path(name))
            make(path("in.csv"), path(name))
        r = sill("tokenize", "in.csv", "--text", "text", *M, "-o", given, "--overwrite", status=2, cwd=work.name)
        assert "is the input" in r.err and read("in.csv") == data, (given, r.err)
    os.rename(path("in.csv"), path("left.csv.partial"))  # an unfinished file read as the input
    r = sill("tokenize", "left.csv.partial", "--format", "csv", "--text", "text", *M, "-o", "left.csv", "--overwrite",
             status=2, cwd=work.name)
    assert "is the input" in r.err and read("left.csv.partial") == data, r.err
    with open(path("left.csv.partial"), "rb") as stdin:
        p = subprocess.run([SILL, "tokenize", "-", "--format", "csv", "--text", "text", *M, "-o", path("left.csv.partial"),
                            "--output-format", "csv", "--overwrite"], stdin=stdin, capture_output=True)
    assert p.returncode == 2 and read("left.csv.partial") == data, p.stderr


def links_are_followed():
    f = many("l.csv", 3)
    os.makedirs(path("there"), exist_ok=True)
    want = sill("tokenize", f, "--text", "text", *M).out
    os.symlink("there/real.csv", path("to.csv"))
    os.symlink("to.csv", path("to2.csv"))
    run = lambda *args, status=0: sill("tokenize", f, "--text", "text", *M, "-o", path("to2.csv"), *args, status=status)
    run()  # dangling: a new file where the links lead
    assert os.path.islink(path("to.csv")) and os.path.islink(path("to2.csv")) and read("there/real.csv") == want
    assert "is finished" in run().err
    write("there/real.csv", "old")
    assert "was changed since its run" in run(status=2).err
    run("--overwrite")
    assert os.path.islink(path("to.csv")) and read("there/real.csv") == want and sorted(os.listdir(path("there"))) == ["real.csv", "real.csv.run.json"]
    os.symlink("circle.csv", path("circle.csv"))
    r = sill("tokenize", f, "--text", "text", *M, "-o", path("circle.csv"), status=1)
    assert "links" in r.err, r.err


def interrupted_while_opening_a_pipe():
    f = many("p.csv", 3)
    for name in ("in.fifo", "out.fifo"):
        os.mkfifo(path(name))
    for args in ([path("in.fifo"), "--format", "csv", "--text", "text"], [path("in.fifo"), "--format", "txt"],
                 [f, "--text", "text", "-o", path("out.fifo"), "--output-format", "csv"]):
        p = subprocess.Popen([SILL, "tokenize", *args, *M], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            time.sleep(1)  # long enough to be waiting in open
            assert p.poll() is None, p.stderr.read()
            p.send_signal(signal.SIGINT)
            err = p.communicate(timeout=60)[1].decode()
        finally:
            p.kill()
        assert p.returncode == 5 and "nterrupted" in err and "Interrupted system call" not in err, (args, p.returncode, err)


def interrupted_in_a_line_without_end():
    p = subprocess.Popen([SILL, "tokenize", "/dev/zero", "--format", "txt", *M], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    time.sleep(2)
    p.send_signal(signal.SIGINT)
    err = p.communicate(timeout=120)[1].decode()
    assert p.returncode == 5 and "LeakSanitizer" not in err, (p.returncode, err[-2000:])


def named_columns_are_columns():
    f = write("l.jsonl", '{"x":1}\n{"b":"y","x":2,"id":7}\n')
    r = sill("tokenize", f, "--text", "b", "--output-format", "csv", *M, status=3)
    rows = r.rows()
    assert list(rows[0]) == ["x", "b", "ids", "error"] and [x["b"] for x in rows] == ["", "y"], r.text()
    assert rows[0]["error"] == "the row has no text" and rows[1]["error"] == "" and "row 2 has fields" in r.err, (rows, r.err)
    r = sill("tokenize", f, "--text", "b", "--id", "id", "--output-format", "csv", *M, status=3)
    assert list(r.rows()[0]) == ["x", "b", "id", "ids", "error"] and r.rows()[1]["id"] == "7" and "has fields" not in r.err


for fn in (a_full_disk_keeps_whole_rows, sequences_of_a_row_stay_together, the_input_is_never_the_output, links_are_followed,
           interrupted_while_opening_a_pipe, interrupted_in_a_line_without_end, named_columns_are_columns):
    test(fn)
end()
