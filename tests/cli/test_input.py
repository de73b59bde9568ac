#!/usr/bin/env python3
"""What comes in and goes out: compressed files, directories, encodings, the rules for dirty files, a million rows. The formats' rules
are in docs/FORMATS.md; those of single bytes are tested in tests/corpus."""
import ctypes, ctypes.util, gzip, random, re, resource, shutil, signal, threading, time, zlib
from clitest import *

M = ["-m", STORIES]
PACKED = os.path.join(FIXTURES, "corpus")
SANITIZED = os.environ.get("CONFIG", "release") in ("sanitize", "tsan")
rng = random.Random(20261129)
WORDS = "the cat ran to a big red ball and Lily said hello Once upon a time there was".split()


def csv_of(rows, header=("id", "text"), delimiter=","):
    s = io.StringIO(newline="")
    csv.writer(s, lineterminator="\n", delimiter=delimiter).writerows([header, *rows])
    return s.getvalue()


def some_rows(n):
    return [(i, " ".join(rng.choices(WORDS, k=rng.randint(1, 12))) + rng.choice(["", '\n"quoted"', " caf\u00e9"])) for i in range(n)]


def ids(*args, **more):
    """The rows of sill tokenize as objects, without ids where only the reading matters."""
    return sill("tokenize", *args, *M, "--json", **more).objects()


def unzstd(data):
    """Through libzstd itself, which the program is linked with, but by Python."""
    name = ctypes.util.find_library("zstd") or "libzstd.so.1"
    try:
        z = ctypes.CDLL(name)
    except OSError:
        raise Skip("this machine has no libzstd for Python to load")
    z.ZSTD_decompress.restype = z.ZSTD_isError.restype = ctypes.c_size_t
    out = ctypes.create_string_buffer(1 << 24)
    z.ZSTD_decompress.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t]
    n = z.ZSTD_decompress(out, len(out), data, len(data))
    assert n <= len(out), "libzstd does not read it"
    return out.raw[:n]


# ---- compressed input

def compressed_input_is_read():
    rows = read(os.path.join(PACKED, "rows.csv"))
    plain = sill("tokenize", os.path.join(PACKED, "rows.csv"), "--text", "text", *M).out
    assert plain.count(b"\n") == 121
    for name in ("plain.zst", "nosum.zst", "pieces.zst", "pieces.gz"):
        f = os.path.join(PACKED, name)
        assert sill("tokenize", f, "--format", "csv", "--text", "text", *M).out == plain, name
        data = read(f)
        assert sill("tokenize", "-", "--format", "csv", "--text", "text", *M, stdin=data).out == plain, name
        for other in ("x.csv", "x.csv.gz", "x.CSV.zst"):  # its bytes tell, not its name
            assert sill("tokenize", write(other, data), "--text", "text", *M).out == plain, (name, other)
    assert sill("tokenize", write("not_packed.csv.gz", rows), "--text", "text", *M).out == plain
    r = sill("tokenize", os.path.join(PACKED, "wide.zst"), "--format", "csv", "--text", "text", *M, status=1)
    assert "window is above 128 MiB" in r.err and "--long=31" in r.err, r.err


def every_format_and_command_unpacks():
    rows = [(str(i), t) for i, t in some_rows(30)]
    for extension, data in (("csv", csv_of(rows)), ("tsv", csv_of(rows, delimiter="\t")), ("txt", "".join(t.replace("\n", " ") + "\n" for _, t in rows)),
                            ("jsonl", "".join(json.dumps({"id": i, "text": t}) + "\n" for i, t in rows))):
        f = write("f." + extension, data)
        g = write(f"f.{extension}.gz", gzip.compress(data.encode()))
        text = [] if extension == "txt" else ["--text", "text"]
        for args in (["tokenize"], ["score"], ["classify", "--labels", "a,b"], ["generate", "--max-new-tokens", "2", "-f"], ["perplexity"]):
            if args[0] == "perplexity" and extension != "csv" and extension != "txt":
                continue
            assert sill(*args, f, *text, *M).out == sill(*args, g, *text, *M).out, (args, extension)
    back = sill("detokenize", write("ids.csv.gz", gzip.compress(sill("tokenize", path("f.csv"), "--text", "text", *M).out)), *M).rows()
    assert [r["sill_text"] for r in back] == [t for _, t in rows]
    coded = gzip.compress(b"a;b\nx;x\ny;y\nx;y\ny;y\n")
    r = sill("agree", write("c.csv.gz", coded), "--coders", "a,b", "--json", "-q")
    assert r.out and r.text().replace("c.csv.gz", "c.csv") == sill("agree", write("c.csv", gzip.decompress(coded)), "--coders", "a,b", "--json", "-q").text()


def in_portions(data, *args):
    """Through a pipe, a few bytes at a time."""
    p = subprocess.Popen([SILL, *args], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    def feed():
        for i in range(0, len(data), 7):
            p.stdin.write(data[i:i + 7])
            p.stdin.flush()
        p.stdin.close()
    t = threading.Thread(target=feed)
    t.start()
    out = p.stdout.read()
    t.join()
    assert p.wait(timeout=60) == 0
    return out


def compressed_input_in_portions():
    plain = sill("tokenize", os.path.join(PACKED, "rows.csv"), "--text", "text", *M).out
    for name in ("pieces.zst", "pieces.gz"):
        assert in_portions(read(os.path.join(PACKED, name)), "tokenize", "-", "--format", "csv", "--text", "text", *M) == plain


def damaged_streams_tell_the_byte():
    rows = some_rows(4000)
    data = csv_of(rows).encode()
    whole = sill("tokenize", write("whole.csv", data), "--text", "text", *M).text().splitlines(True)
    packed = {"gz": gzip.compress(data, 6), "zst": None}
    sill("tokenize", path("whole.csv"), "--text", "text", *M, "-o", path("zst.csv.zst"))
    packed["zst"] = read("zst.csv.zst")
    for kind, good in packed.items():
        cases = [(good[:n], "cut off") for n in (*rng.sample(range(20, len(good)), 12), len(good) - 1)]
        for at in rng.sample(range(12, len(good)), 12):
            bad = bytearray(good)
            bad[at] ^= 1 << rng.randrange(8)
            cases.append((bytes(bad), ""))
        cases.append((good + b"more", ""))
        said = 0
        for bad, why in cases:
            f = write(f"bad.csv.{kind}", bad)
            r = sill("tokenize", f, "--text", "text", *M, status=None)
            if r.status == 0:  # a bit that nobody reads, such as the time in a header
                assert kind == "gz"
                continue
            said += 1
            assert r.status == 1 and why in r.err, (r.status, r.err)
            at = int(re.search(rf"bad\.csv\.{kind}: byte (\d+): ", r.err).group(1))
            assert 0 < at <= len(bad) + 1 and "-t tests it" in r.err, r.err
            if kind == "gz":
                lines = r.text().splitlines(True)
                if why:  # only cut: what was read before is right, and as much of it as Python's zlib gets
                    d = zlib.decompressobj(31)
                    before = d.decompress(bad)
                    assert lines == whole[:len(lines)] and len(lines) >= before.count(b"\n") - 2 - 2 * before.count(b'"\n'), (len(lines), before.count(b"\n"))
        assert said > 18, said
    assert "is empty, which no gzip file is" in sill("tokenize", write("empty.csv.gz", b""), "--text", "text", *M, status=1).err


def rows_before_the_damage_are_kept():
    rows = some_rows(3000)
    good = gzip.compress(csv_of(rows).encode())
    f, out, want = write("kept.csv.gz", good[:len(good) * 2 // 3]), path("kept.out.csv"), path("kept.want.csv")
    r = sill("score", f, "--text", "text", *M, "-o", out, status=1)
    kept = int(re.search(r"(\d+) finished rows are kept in .*when that is put right", r.err).group(1))
    got = list(csv.DictReader(io.StringIO(read(out + ".partial").decode(), newline="")))
    assert 1500 < kept < 3000 and len(got) == kept and got[-1]["sum_logprob"] is not None, (kept, len(got))
    write("kept.csv.gz", good)
    r = sill("score", f, "--text", "text", *M, "-o", out)
    assert f"goes on: {kept} finished rows" in r.err, r.err
    sill("score", f, "--text", "text", *M, "-o", want)
    assert read(out) == read(want)


def peak(*args, status=0, stdin=None):
    """KiB at most in memory."""
    with open(path("peak.err"), "wb") as err:
        p = subprocess.Popen([SILL, *map(str, args)], stdout=subprocess.DEVNULL, stderr=err, stdin=stdin)
        _, how, usage = os.wait4(p.pid, 0)
        p.returncode = os.waitstatus_to_exitcode(how)
    assert p.returncode == status, (p.returncode, read("peak.err")[-500:])
    return usage.ru_maxrss // (1024 if sys.platform == "darwin" else 1)


def bombs_take_no_memory():
    if SANITIZED:
        raise Skip("a sanitizer keeps what was freed")
    small = peak("tokenize", write("small.csv.gz", gzip.compress(b"id,text\n1,a\n")), "--text", "text", *M)
    for name, piece in (("blank", b"\n" * (1 << 20)), ("one", b"a" * (1 << 20))):
        z = zlib.compressobj(9, zlib.DEFLATED, 31)
        data = z.compress(b"id,text\n1,a\n") + b"".join(z.compress(piece) for _ in range(300)) + z.compress(b"\n2,b\n") + z.flush()
        f = write(name + ".csv.gz", data)
        assert len(data) < 400000
        most = peak("tokenize", f, "--text", "text", *M, status=3 if name == "one" else 0)
        assert most < small + (110 << 10), (name, small, most)  # a row may have 16 MiB: its window, and twice the row


# ---- compressed output

def compressed_output_is_the_same_file():
    f = write("out_in.csv", csv_of(some_rows(9000)))
    args = ["tokenize", f, "--text", "text", *M]
    plain = sill(*args).out
    for kind, unpack in (("gz", gzip.decompress), ("zst", unzstd)):
        made = []
        for i, more in enumerate(([], ["--journal-rows", "700"], ["--output-format", "csv"])):
            out = path(f"same{i}.csv.{kind}")
            sill(*args, "-o", out, *more)
            made.append(read(out))
            assert os.path.exists(out + ".run.json") and not os.path.exists(out + ".partial")
        assert unpack(made[0]) == plain and made.count(made[0]) == 3 and len(made[0]) < len(plain) / 2
        record = json.loads(read(f"same0.csv.{kind}.run.json"))
        assert record["output"]["bytes"] == len(made[0]) and record["device"]["packed"].startswith("gzip 1" if kind == "gz" else "zstd 1")
        assert "is finished" in sill(*args, "-o", path(f"same0.csv.{kind}")).err
        assert "20 of 20" in sill("verify", path(f"same0.csv.{kind}")).text()
        for n in (2, 3):
            outs = [path(f"p{i}_{n}.csv.{kind}") for i in range(1, n + 1)]
            for i, o in enumerate(outs):
                sill(*args, "--shard", f"{i + 1}/{n}", "-o", o)
            merged = path(f"merged{n}.csv.{kind}")
            sill("merge", *outs, "-o", merged)
            assert read(merged) == made[0], (kind, n)
            sill("merge", *outs, "-o", path(f"merged{n}{kind}.csv"))
            assert read(f"merged{n}{kind}.csv") == plain
        bad = bytearray(read(outs[0]))
        bad[len(bad) // 2] ^= 4
        write(os.path.basename(outs[0]), bytes(bad))
        r = sill("merge", *outs, "-o", path(f"never.csv.{kind}"), status=None)
        assert r.status in (1, 2) and "was" in r.err and "changed" in r.err and not os.path.exists(path(f"never.csv.{kind}")), r.err
    head = read("same0.csv.gz")[:10]
    assert head[3] == 0 and head[4:8] == b"\0\0\0\0", head  # neither a name nor a time
    json_out = path("j.jsonl.gz")
    sill(*args, "-o", json_out)
    assert gzip.decompress(read(json_out)) == sill(*args, "--json").out
    os.mkfifo(path("fifo.csv.gz"))
    r = sill(*args, "-o", path("fifo.csv.gz"), status=2)
    assert "is a pipe or a device" in r.err, r.err
    assert "name it .csv, .tsv or .jsonl" in sill(*args, "-o", path("x.gz"), status=2).err


def parts_of_the_slurm_script():
    f, script = write("slurm.csv", csv_of(some_rows(50))), os.path.join(os.path.dirname(FIXTURES), "../examples/slurm.sh")
    for out in ("s.csv", "s.csv.gz", "s.jsonl.zst"):
        env = {**os.environ, "IN": f, "OUT": path(out), "SHARDS": "2", "SILL": SILL, "MODEL": STORIES, "COMMAND": f"tokenize {f} --text text"}
        for i in ("1", "2"):
            subprocess.run(["bash", script, "shard"], env={**env, "SLURM_ARRAY_TASK_ID": i}, check=True, stderr=subprocess.DEVNULL)
        subprocess.run(["bash", script, "merge"], env=env, check=True, stderr=subprocess.DEVNULL)
        sill("tokenize", f, "--text", "text", *M, "-o", path("one." + out))
        name = out.split(".", 1)
        assert read(out) == read("one." + out) and os.path.exists(path(f"{name[0]}.part00002.{name[1]}")), out


def compressed_output_goes_on():
    f = write("go_in.csv", csv_of(some_rows(2500)))
    args = ["score", f, "--text", "text", *M, "--threads", "1", "--journal-rows", "20"]
    for kind in ("gz", "zst"):
        whole, out = path("go_whole.csv." + kind), path("go.csv." + kind)
        sill(*args, "-o", whole)
        kills = 0
        for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL, None):
            p = subprocess.Popen([SILL, *args, "-o", out], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            if number:
                deadline = time.time() + 60
                while not os.path.exists(out + ".journal") and p.poll() is None and time.time() < deadline:
                    time.sleep(0.005)
                time.sleep(rng.uniform(0.05, 0.3))
                p.send_signal(number)
            err = p.communicate(timeout=120)[1].decode()
            kills += p.returncode not in (0, None)
            if number == signal.SIGTERM and p.returncode == 5:
                assert "the same command goes on" in err and not os.path.exists(out + ".partial"), err
            if p.returncode == 0:
                break
        assert read(out) == read(whole) and kills, (kind, kills)


# ---- directories, and a file a row

def directory():
    d = path("dir")
    texts = {}
    def put(name, data, text=None):
        full = os.path.join(d, name)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full, "wb") as f:
            f.write(data)
        if text is not None:
            texts[name] = text
    put("b.txt", b"bee\n", "bee\n")
    put("a-b.txt", b"dash", "dash")
    put("a/z.txt", b"one\r\ntwo", "one\r\ntwo")
    put("a/y/x.TXT", b"\xef\xbb\xbfmark", "mark")
    put("a.txt", b"", "")
    put("sub/p.txt.gz", gzip.compress(b"packed"), "packed")
    put("caf\u00e9.text", "caf\u00e9".encode(), "caf\u00e9")
    put("Z.txt", b"nul\0byte", "nul\0byte")
    put("notes.csv", b"x")
    put("noext", b"x")
    put(".hidden.txt", b"x")
    put("._b.txt", b"x")
    put(".git/c.txt", b"x")
    want = [(n.decode(), texts[n.decode()]) for n in sorted(x.encode() for x in texts)]
    r = sill("tokenize", d, *M, "--json")
    assert [(x["file"], x["text"]) for x in r.objects()] == want, r.text()
    assert list(r.objects()[0]) == ["file", "text", "ids", "error"] and "5 other files are passed over" in r.err, r.err
    assert sill("tokenize", d + "/", *M, "--json", "--format", "file").out == r.out
    assert sill("tokenize", d, *M).text().startswith("file,text,ids,error\n")
    assert "is a directory, of which each .txt file is a row" in sill("tokenize", d, *M, "--format", "csv", status=2).err
    for args in (["score"], ["classify", "--labels", "a,b"], ["perplexity"], ["generate", "--max-new-tokens", "2", "-f"]):
        sill(*args, d, *M, status=None if args[0] == "score" else 0)
    # links: to files they are read, to directories not
    os.symlink("..", os.path.join(d, "a/up"))
    os.symlink(d, os.path.join(d, "self"))
    os.symlink("b.txt", os.path.join(d, "link.txt"))
    os.symlink("nowhere", os.path.join(d, "gone.txt"))
    os.mkfifo(os.path.join(d, "pipe.txt"))
    put("latin.txt", b"caf\xe9 au lait")
    put("wide.txt", b"\xff\xfea\0")
    put("cut.txt.gz", gzip.compress(b"packed" * 50)[:-9])
    r = sill("tokenize", d, *M, "--json", status=3)
    by = {x["file"]: x for x in r.objects()}
    assert len(by) == len(want) + 6 and "2 links to directories" in r.err, r.err
    assert by["link.txt"]["text"] == "bee\n" and [x["file"] for x in r.objects()] == sorted(by, key=str.encode)
    for name, why in (("gone.txt", "gone.txt: No such file"), ("pipe.txt", "is no regular file"), ("latin.txt", "byte 4 of the row (0xe9)"),
                      ("wide.txt", "is UTF-16"), ("cut.txt.gz", "cut off")):
        assert why in by[name]["error"] and by[name]["ids"] is None, by[name]
    assert all(x["error"] is None for n, x in by.items() if n in texts)
    if os.geteuid():
        os.chmod(os.path.join(d, "b.txt"), 0)
        assert "Permission denied" in {x["file"]: x for x in ids(d, status=3)}["b.txt"]["error"]
        os.chmod(os.path.join(d, "b.txt"), 0o644)
    latin = {x["file"]: x for x in sill("tokenize", d, *M, "--json", "--encoding", "latin-1", status=3).objects()}
    assert latin["latin.txt"]["text"] == "caf\u00e9 au lait"


def directory_runs_go_on():
    d = path("many")
    os.makedirs(d)
    for i in range(400):
        with open(os.path.join(d, f"{i:03}.txt"), "w") as f:
            f.write(" ".join(rng.choices(WORDS, k=rng.randint(1, 40))) + "\n")
    args = ["score", d, *M, "--threads", "1"]
    whole, out = path("many_whole.csv"), path("many.csv")
    sill(*args, "-o", whole)
    p = subprocess.Popen([SILL, *args, "-o", out, "--journal-rows", "5"], stderr=subprocess.DEVNULL)
    while not os.path.exists(out + ".journal") and p.poll() is None:
        time.sleep(0.005)
    time.sleep(0.05)
    p.kill()
    p.wait()
    sill(*args, "-o", out)
    assert read(out) == read(whole) and "20 of 20" in sill("verify", out).text()
    for i in (1, 2):
        sill(*args, "--shard", f"{i}/2", "-o", path(f"many{i}.csv"))
    sill("merge", path("many1.csv"), path("many2.csv"), "-o", path("many_m.csv"))
    assert read("many_m.csv") == read(whole)
    os.remove(os.path.join(d, "017.txt"))
    assert "another input" in sill(*args, "-o", out, status=2).err
    os.makedirs(path("none/below"))
    write("none/x.csv", "a")
    r = sill("tokenize", path("none"), *M, status=1)
    assert "has no .txt file in it (1 others" in r.err, r.err
    r = sill("tokenize", d, *M, "-o", os.path.join(d, "001.txt"), "--output-format", "csv", "--overwrite", status=2)
    assert "is the input" in r.err, r.err


def a_file_a_row():
    f = write("whole.txt", b"one\n\ntwo\r\n")
    assert [(x["file"], x["text"]) for x in ids(f, "--format", "file")] == [("whole.txt", "one\n\ntwo\r\n")]
    assert [x["text"] for x in ids(f)] == ["one", "two"]
    assert [(x["file"], x["text"]) for x in ids("-", "--format", "file", stdin=b"a\nb")] == [("-", "a\nb")]
    assert [(x["file"], x["text"]) for x in ids("-", "--format", "file", stdin=gzip.compress(b"a\nb"))] == [("-", "a\nb")]
    assert ids("-", "--format", "file")[0]["text"] == ""
    big = write("big.txt", b"a " * (9 << 19))  # 9 MiB
    assert len(ids(big, "--format", "file")[0]["text"]) == 9 << 20
    r = sill("tokenize", big, "--format", "file", "--max-row", "8", *M, "--json", status=3)
    assert "longer than 8388608 bytes; --max-row allows more" in r.objects()[0]["error"], r.err
    assert len(ids(write("wide.csv", b"t\n" + b"a" * (17 << 20) + b"\n"), "--text", "t", "--max-row", "20")[0]["t"]) == 17 << 20


# ---- encodings

def encodings_as_python_reads_them():
    for name, python in (("latin-1", "latin-1"), ("windows-1252", "cp1252")):
        letters = "".join(bytes([b]).decode(python, "ignore") for b in range(32, 256))
        rows = [(letters[i:i + 13].replace('"', ""), "".join(rng.choices(letters, k=20))) for i in range(0, len(letters), 13)]
        header = ("caf\u00e9 \u00df", "text")
        for extension, data, header_of in (("csv", csv_of(rows, header), header), ("tsv", csv_of(rows, header, "\t"), header),
                                           ("jsonl", "".join(json.dumps(dict(zip(header, r)), ensure_ascii=False) + "\n" for r in rows), header)):
            f = write("enc." + extension, data.encode(python))
            r = ids(f, "--text", "text", "--encoding", name)
            assert [(x[header_of[0]], x["text"]) for x in r] == rows, (name, extension)
            u = sill("tokenize", write("utf8." + extension, data), "--text", "text", *M)
            assert sill("tokenize", f, "--text", "text", *M, "--encoding", name).out == u.out
            assert sill("tokenize", write("utf8." + extension, b"\xef\xbb\xbf" + data.encode()), "--text", "text", *M).out == u.out
            r = sill("tokenize", f, "--text", "text", *M, status=None)
            assert r.status and "(--encoding latin-1 or windows-1252)" in r.err and r.out.decode("utf-8") is not None, r.err
    txt = write("enc.txt", "na\u00efve \u20ac\n".encode("cp1252"))
    assert ids(txt, "--encoding", "windows-1252")[0]["text"] == "na\u00efve \u20ac"
    p = sill("perplexity", txt, *M, "--encoding", "windows-1252").out
    assert p == sill("perplexity", write("utf8.txt", "na\u00efve \u20ac\n"), *M).out
    assert "byte 3 of the row (0xef)" in sill("perplexity", txt, *M, status=1).err
    r = sill("tokenize", write("bad.csv", b"id,text\n1,a\n2,\xe9\n3,c\n"), "--text", "text", *M, status=3)
    assert "row 2 (line 3): byte 3 of the row (0xe9) is no character of utf-8" in r.err, r.err
    assert [x["error"] == "" for x in r.rows()] == [True, False, True] and r.rows()[1]["text"] == "\ufffd"
    for mark, name in ((b"\xff\xfe", "UTF-16"), (b"\xfe\xff", "UTF-16"), (b"\xff\xfe\0\0", "UTF-32")):
        r = sill("tokenize", write("mark.csv", mark + b"a\0"), "--text", "text", *M, status=1)
        assert f"is {name}; convert it first: iconv -f {name}" in r.err, r.err
    out = path("enc.out.csv")
    sill("tokenize", path("enc.csv"), "--text", "text", *M, "--encoding", "latin-1", "-o", out)
    assert json.loads(read(out + ".run.json"))["settings"]["--encoding"] == "latin-1"
    r = sill("tokenize", path("enc.csv"), "--text", "text", *M, "--encoding", "windows-1252", "-o", out, status=2)
    assert "--encoding was 'latin-1', is 'windows-1252'" in r.err, r.err
    assert re.search(r": (\d+) of \1 rows", sill("verify", out).text())
    coded = "a;b\n\u00e9;\u00e9\n\u00fc;\u00fc\n\u00e9;\u00fc\n"
    r = sill("agree", write("agree.csv", coded.encode("latin-1")), "--coders", "a,b", "--encoding", "latin-1", "--json")
    assert r.text() == sill("agree", write("agree.csv", coded), "--coders", "a,b", "--json").text() and "\u00fc" in r.text()


# ---- docs/FORMATS.md, rule by rule

def rules_for_dirty_files():
    def of(name, data, *more, status=0):
        return [(x.get("text"), x["error"]) for x in ids(write(name, data), "--text", "text", *more, status=status)]
    fine = lambda *texts: [(t, None) for t in texts]
    # blank lines; a quoted empty value is a row
    assert of("r.csv", b'\n\ntext\n\na\r\n\r\n""\n\n') == fine("a", "")
    # mixed line ends; a CR alone ends a line of CSV
    assert of("r.csv", b"id,text\n1,a\r\n2,b\r3,c\n4,d") == fine("a", "b", "c", "d")
    assert of("r.jsonl", b'{"text":"a"}\r\n \t\n{"text":"b"}') == fine("a", "b")
    # too few and too many values
    r = of("r.csv", b"id,text\n1\n2,b,c\n3,d\n", status=3)
    assert [x[1] for x in r] == ["the row has 1 value, the header names 2 columns", "the row has 3 values, the header names 2 columns", None]
    # NUL bytes are kept, also in the output
    assert of("r.csv", b"text\na\0b\n\"\0\"\n") == fine("a\0b", "\0") and b"a\0b" in sill("tokenize", path("r.csv"), "--text", "text", *M).out
    assert [x["text"] for x in ids(write("r.txt", b"a\0b\n\0\n"))] == ["a\0b", "\0"]
    assert of("r.jsonl", b'{"text":"a\\u0000b"}\n{"text":"a\0b"}\n', status=3)[0] == ("a\0b", None)
    # lone quotes
    assert of("r.csv", b'text\n5" disk\n"a"b\n"say ""hi"""\n') == fine('5" disk', "ab", 'say "hi"')
    r = of("r.csv", b'id,text\n1,"open\n2,b\n3,c\n', status=3)
    assert [x[0] for x in r] == ["open", "b", "c"] and "a quote opened on line 2 is not closed" in r[0][1] and r[1][1] is None
    # delimiters: taken from the header where it has no comma, or declared
    assert of("r.csv", b"id;text\n1;a,b\n") == fine("a,b") and of("r.csv", b"id\ttext\n1\ta,b\n") == fine("a,b")
    assert of("r.csv", b"id|text\n1|a,b\n", "--delimiter", "|") == fine("a,b") and of("r.csv", b"a,b;text\n1;x\n", "--delimiter", ";") == fine("x")
    assert "one character of ASCII" in sill("tokenize", path("r.csv"), "--text", "text", *M, "--delimiter", "\u00a7", status=2).err
    # rows above the limit
    r = of("r.csv", b"id,text\n1,a\n2," + b"x" * (2 << 20) + b"\n3,c\n", "--max-row", "1", status=3)
    assert [bool(x[1]) for x in r] == [False, True, False] and "longer than 1048576 bytes; --max-row" in r[1][1]
    # a name twice in the header
    assert "names column 'text' twice" in sill("tokenize", write("r.csv", b"text,text\n1,2\n"), "--text", "text", *M, status=1).err
    f = write("r.csv", b"x,x,text\n1,2,a\n")
    assert sill("tokenize", f, "--text", "text", *M).text().startswith("x,x,text,ids,error\n1,2,a,")
    r = sill("tokenize", f, "--text", "text", *M, "--json")
    assert list(r.objects()[0]) == ["x", "x_2", "text", "ids", "error"] and r.objects()[0]["x_2"] == "2" and "the new one is 'x_2'" in r.err
    # JSON Lines: numbers as written, the last of two values, lone surrogates
    assert of("r.jsonl", b'{"text":1.50}\n{"text":"a","text":"b"}\n{"text":"\\ud800"}\n') == fine(1.5, "b", "\ud800")


# ---- a million rows

def a_million_rows_in_constant_memory():
    if SANITIZED:
        raise Skip("a sanitizer keeps what was freed")
    few, many = 10000, 1000000
    for n in (few, many):
        z = zlib.compressobj(1, zlib.DEFLATED, 31)
        with open(path(f"{n}.csv"), "wb") as f, open(path(f"{n}.csv.gz"), "wb") as g:
            f.write(b"id,text\n")
            g.write(z.compress(b"id,text\n"))
            for i in range(0, n, 10000):
                block = b"".join(b"%d,row %d %s\n" % (k, k * k % 1009, b"and on" if k % 7 else b'"a ""b"""') for k in range(i, i + 10000))
                f.write(block)
                g.write(z.compress(block))
            g.write(z.flush())
    for name, more in ((".csv", []), (".csv.gz", ["-o"])):
        most = []
        for n in (few, many):
            out = path(f"million{n}.csv.gz")
            most.append(peak("tokenize", path(f"{n}{name}"), "--text", "text", *M, *more, *([out] if more else [])))
        assert most[1] < most[0] + 6144, f"{name}: {most[0]} KiB at most for {few} rows, {most[1]} for {many}"
    with gzip.open(path(f"million{many}.csv.gz")) as f:
        n = 0
        for n, line in enumerate(f):
            pass
    assert n == many and line.startswith(b"999999,"), (n, line)


for fn in (compressed_input_is_read, every_format_and_command_unpacks, compressed_input_in_portions, damaged_streams_tell_the_byte,
           rows_before_the_damage_are_kept, bombs_take_no_memory, compressed_output_is_the_same_file, parts_of_the_slurm_script, compressed_output_goes_on, directory,
           directory_runs_go_on, a_file_a_row, encodings_as_python_reads_them, rules_for_dirty_files, a_million_rows_in_constant_memory):
    began = time.time()
    test(fn)
    if os.environ.get("TIMES"):
        print(f"  {time.time() - began:.1f} s")
end()
