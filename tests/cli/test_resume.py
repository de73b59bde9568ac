#!/usr/bin/env python3
"""Runs that are ended at any moment and go on: the same bytes in the end. What is refused; locks; shards and their merging; the
record of a run and its replay; progress."""
import hashlib, random, re, shutil, signal, socket, sqlite3, time
from clitest import *

M = ["-m", STORIES]
QUICK = os.environ.get("CONFIG", "release") == "release"  # builds with sanitizers take their time, so they get fewer rows
rng = random.Random(20261128)
os.environ["SILL_CACHE"] = path("cache")
WORDS = "the cat ran to a big red ball and Lily said hello Once upon a time there was".split()


def texts(name, n, ids=False, long=False):
    """Rows of all lengths; every fifth is the one before it again; with LONG a few cannot be used."""
    lines, last = [], ""
    for i in range(n):
        t = last if i % 5 == 4 else " ".join(rng.choices(WORDS, k=rng.choice((1, 3, 8, 20, 60))))
        if i % 7 == 3:
            t += '\nwith "quotes", and a line end'
        if long and i % 97 == 50:
            t = " ".join(WORDS * 60)  # longer than the context
        last = t
        lines.append((f"id{i}" if ids else i, t))
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([("n", "text"), *lines])
    return write(name, out.getvalue())


def clean(out):
    for x in os.listdir(os.path.dirname(out)):
        if x == os.path.basename(out) or x.startswith(os.path.basename(out) + "."):
            os.remove(os.path.join(os.path.dirname(out), x))


def left(out):
    return sorted(x[len(os.path.basename(out)):] for x in os.listdir(os.path.dirname(out)) if x.startswith(os.path.basename(out)))


def command(f, out, *more):
    return ["score", f, "--text", "text", *M, "--long", "error", "-o", out, *more]


JOBS = {
    "score": lambda f: ["score", f, "--text", "text", *M, "--long", "error"],
    "classify": lambda f: ["classify", f, "--text", "text", *M, "--labels", "cat,ball,time"],
    "generate": lambda f: ["generate", "-f", f, "--text", "text", *M, "--do-sample", "--num-return-sequences", "2", "--max-new-tokens", "6"],
    "tokenize": lambda f: ["tokenize", f, "--text", "text", *M],
}


def killed_at_random_moments():
    f = texts("kill.csv", 400 if QUICK else 120, long=True)
    kills = 0
    for name, extension in (("score", "csv"), ("classify", "jsonl"), ("generate", "tsv")):
        whole = path(f"whole_{name}.{extension}")
        began = time.time()
        sill(*JOBS[name](f), "-o", whole, status=3)
        takes, goal, out = time.time() - began, kills + (17 if QUICK else 2), path(f"killed_{name}.{extension}")
        while kills < goal:
            clean(out)
            rows, size = rng.choice((1, 7, 64)), rng.choice((1, 7, 64))
            args = [*JOBS[name](f), "-o", out, "--journal-rows", str(rows), "--max-sequences", str(size), "--threads", "1"]
            for attempt in range(40):
                p = subprocess.Popen([SILL, *args], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
                try:
                    p.wait(timeout=rng.uniform(0, 1.2 * takes) if attempt < 30 and kills < goal else 300)
                except subprocess.TimeoutExpired:
                    p.kill()
                    p.wait()
                    kills += 1
                err = p.stderr.read().decode()
                p.stderr.close()
                if p.returncode == 3:
                    break
                assert p.returncode == -signal.SIGKILL, (p.returncode, err)
            assert read(out) == read(whole), f"{name}: other bytes after kills (journal {rows}, batch {size})"
            assert left(out) in (["", ".run.json"], ["", ".lock", ".run.json"]), left(out)
    assert kills >= (51 if QUICK else 6)


def killed_before_every_kind_of_write():
    env = faults()
    f = texts("calls.csv", 60)
    whole, out, n = path("calls_whole.csv"), path("calls.out.csv"), path("n_calls")
    sill(*command(f, whole), status=0)
    more = ["--journal-rows", "9", "--max-sequences", "3", "--threads", "1"]
    sill(*command(f, out, *more), env={**env, "FAULTS_COUNT": n})
    calls = int(open(n).read())
    assert calls > 60, calls
    points = sorted(set(range(1, 8)) | set(range(calls - 14, calls + 1)) | set(rng.sample(range(8, calls - 14), 26)))
    killed = 0
    for at in points:
        clean(out)
        r = sill(*command(f, out, *more), status=None, env={**env, "FAULTS_KILL": str(at)})
        assert r.status in (0, -signal.SIGKILL), (at, r.status, r.err)
        killed += r.status != 0
        r = sill(*command(f, out, *more))
        assert read(out) == read(whole), f"killed before call {at} of {calls}"
        assert left(out) == ["", ".run.json"], (at, left(out))
    assert killed > len(points) - 5, (killed, calls)  # what is flushed now and then makes a few calls more or fewer: the last may not come
    clean(out)  # and again and again in the same run
    for i in range(100):
        r = sill(*command(f, out, *more), status=None, env={**env, "FAULTS_KILL": str(30 + 3 * i)})
        if r.status == 0:
            break
    assert r.status == 0 and i > 4 and read(out) == read(whole), (i, r.err)


def a_kill_costs_one_batch():
    env = faults()
    f, out = texts("cost.csv", 80), path("cost.out.csv")
    for at in range(60, 140, 16):
        clean(out)
        sill(*command(f, out, "--journal-rows", "1", "--max-sequences", "1", "--threads", "1"), status=-signal.SIGKILL,
             env={**env, "FAULTS_KILL": str(at)})
        have = len(list(csv.DictReader(io.StringIO(read(out + ".partial").decode(), newline="")))) if os.path.exists(out + ".partial") else 0
        r = sill(*command(f, out, "--journal-rows", "1"))
        kept = int(re.search(r"goes on: (\d+) finished rows", r.err).group(1))
        assert kept > 0 and kept >= have, (at, kept, have)
        assert json.loads(read(out + ".run.json"))["sessions"] == 2


def without_locks():
    env = {**faults(), "FAULTS_LOCKS": "1"}
    f, whole, out = texts("locks.csv", 40), path("locks_whole.csv"), path("locks.out.csv")
    sill(*command(f, whole))
    n = path("locks_n")
    sill(*command(f, path("locks2.csv"), "--journal-rows", "3"), env={**env, "FAULTS_COUNT": n})
    assert read("locks2.csv") == read(whole)
    sill(*command(f, out, "--journal-rows", "3"), status=-signal.SIGKILL, env={**env, "FAULTS_KILL": str(int(open(n).read()) // 2)})
    assert "goes on" in sill(*command(f, out, "--journal-rows", "3"), env=env).err and read(out) == read(whole)


def interrupted():
    f = texts("signal.csv", 1500 if QUICK else 300, long=True)
    whole, out = path("signal_whole.csv"), path("signal.out.csv")
    sill(*command(f, whole), status=3)
    for number in (signal.SIGINT, signal.SIGTERM):
        clean(out)
        p = subprocess.Popen([SILL, *command(f, out, "--journal-rows", "5", "--threads", "1")], stderr=subprocess.PIPE)
        while p.poll() is None and not (os.path.exists(out + ".partial") and os.path.getsize(out + ".partial") > 3000):
            time.sleep(0.002)
        p.send_signal(number)
        err = p.communicate(timeout=60)[1].decode()
        assert p.returncode == 5 and "the same command goes on from there" in err, (p.returncode, err)
        assert left(out) == [".journal", ".partial"], left(out)
        r = sill(*command(f, out), status=3)
        assert "goes on: " in r.err and "were there already" in r.err and read(out) == read(whole), r.err
        assert json.loads(read(out + ".run.json"))["sessions"] == 2 and left(out) == ["", ".run.json"]


def begun(args, out, enough=3000):
    p = subprocess.Popen([SILL, *args, "--journal-rows", "5", "--threads", "1", "--max-sequences", "2"], stderr=subprocess.PIPE)
    while p.poll() is None and not (os.path.exists(out + ".partial") and os.path.getsize(out + ".partial") > enough):
        time.sleep(0.001)
    return p


def an_input_that_is_cut_while_it_is_read():
    f, out, whole = texts("cut.csv", 6000 if QUICK else 2500), path("cut.out.csv"), path("cut_whole.csv")
    sill(*command(f, whole), status=None)
    data = read(f)
    p = begun(command(f, out), out)
    os.truncate(f, len(data) * 2 // 3 + 7)  # within a row
    err = p.communicate(timeout=120)[1].decode()
    assert p.returncode == 1 and re.search(r"ended after \d+ of its \d+ bytes: was it cut", err), (p.returncode, err)
    assert left(out) == [".journal", ".partial"], left(out)
    write("cut.csv", data)
    r = sill(*command(f, out), status=None)
    assert "goes on: " in r.err and read(out) == read(whole), r.err
    # standard input that begins in the middle of a file is whole all the same
    with open(f, "rb") as h:
        h.seek(data.index(b"\n", 2000) + 1)
        rest = data[h.tell():]
        os.lseek(h.fileno(), h.tell(), os.SEEK_SET)
        got = subprocess.run([SILL, "tokenize", "-", "--format", "txt", *M], stdin=h, stdout=subprocess.PIPE, check=True).stdout
    assert got == sill("tokenize", write("rest.txt", rest), *M).out


def a_directory_that_goes():
    n = 1500 if QUICK else 500
    where, gone, out, whole = path("many"), path("many.gone"), path("many.jsonl"), path("many_whole.jsonl")
    os.makedirs(where)
    for i in range(n):
        write(f"many/{i:04d}.txt", " ".join(rng.choice(WORDS) for _ in range(20)))
    args = ["score", where, *M]
    sill(*args, "-o", whole, status=None)
    p = begun([*args, "-o", out], out)
    os.rename(where, gone)
    err = p.communicate(timeout=120)[1].decode()
    assert p.returncode == 1 and "is gone, with" in err, (p.returncode, err)
    os.rename(gone, where)
    r = sill(*args, "-o", out, status=None)
    assert "goes on: " in r.err and read(out) == read(whole), r.err


def duplicates_stay_apart():
    f = write("dup.csv", "text\n" + "Once upon a time\n" * 40)
    args = ["generate", "-f", f, "--text", "text", *M, "--do-sample", "--temperature", "2", "--max-new-tokens", "12"]
    whole, out = path("dup_whole.jsonl"), path("dup.jsonl")
    sill(*args, "-o", whole)
    assert len({x["sill_text"] for x in map(json.loads, read(whole).decode().splitlines())}) > 20, "equal rows draw their own numbers"
    stop_midway([*args, "-o", out], out)
    sill(*args, "-o", out)
    assert read(out) == read(whole)


def stop_midway(args, out):
    """Has the run end by SIGINT with something in its journal and something left to do."""
    for attempt in range(50):
        clean(out)
        p = subprocess.Popen([SILL, *args, "--journal-rows", "1", "--threads", "1", "--max-sequences", "2"], stderr=subprocess.PIPE)
        while p.poll() is None and not (os.path.exists(out + ".partial") and os.path.getsize(out + ".partial") > 200):
            time.sleep(0.001)
        p.send_signal(signal.SIGINT)
        p.communicate(timeout=60)
        if p.returncode == 5 and os.path.exists(out + ".journal"):
            return
    raise AssertionError("could not be stopped midway")


def order_does_not_matter_with_ids():
    f = texts("order.csv", 60, ids=True, long=True)
    rows = list(csv.DictReader(open(f, newline="")))
    rng.shuffle(rows)
    s = io.StringIO()
    w = csv.DictWriter(s, ["n", "text"], lineterminator="\n")
    w.writeheader()
    w.writerows(rows)
    g = write("shuffled.csv", s.getvalue())
    args = lambda f: ["generate", "-f", f, "--text", "text", "--id", "n", *M, "--do-sample", "--seed", "3", "--max-new-tokens", "5"]
    a = {x["n"]: x for x in sill(*args(f), "--output-format", "jsonl", status=None).objects()}
    out = path("shuffled.jsonl")
    stop_midway([*args(g), "-o", out], out)
    sill(*args(g), "-o", out, "--max-sequences", "7", status=None)
    b = [json.loads(x) for x in read(out).decode().splitlines()]
    assert [x["n"] for x in b] == [x["n"] for x in rows] and {x["n"]: x for x in b} == a


def finished_or_another():
    f, out = texts("done.csv", 40), path("done.out.csv")
    sill(*command(f, out))
    before, record = read(out), read(out + ".run.json")
    r = sill(*command(f, out))
    assert "is finished: 40 rows" in r.err and "--overwrite" in r.err and read(out) == before and read(out + ".run.json") == record
    for more, says in ((["--bos"], "--bos was not given, is 'yes'"), (["--dtype", "bf16"], "dtype was 'f32', is 'bf16'"),
                       (["--per", "word"], "--per was not given, is 'word'"), (["--ctx", "200"], "ctx was '512', is '200'"),
                       (["--shard", "1/2"], "shard was not given, is '1/2'")):
        r = sill(*command(f, out, *more), status=2)
        assert says in r.err and "exists" in r.err and read(out) == before, r.err
    r = sill(*command(f, out), status=2, env={"SILL_CPU_ISA": "scalar"})
    assert "device was " in r.err and "scalar" in r.err, r.err
    write("done.csv", read("done.csv").replace(b"Lily", b"Lilo", 1))
    r = sill(*command(f, out), status=2)
    assert "another input" in r.err and "contents differ" in r.err, r.err
    write("done.csv", read("done.csv") + b"40,one more\n")
    assert "40 rows then, 41 now" in sill(*command(f, out), status=2).err
    r = sill(*command(f, out, "--overwrite"))
    assert len(read(out)) > len(before) and "goes on" not in r.err
    os.remove(out + ".run.json")
    assert "exists; --overwrite" in sill(*command(f, out), status=2).err  # whose it is nobody knows
    model = path("moved.gguf")
    shutil.copy(STORIES, model)
    args = lambda m: ["score", f, "--text", "text", "-m", m, "-o", path("model.csv")]
    sill(*args(STORIES))
    assert "is finished" in sill(*args(model)).err  # the same contents elsewhere
    data = bytearray(open(model, "rb").read())
    data[-5] ^= 1
    open(model, "wb").write(data)
    assert "another model" in sill(*args(model), status=2).err


def another_while_unfinished():
    f, out = texts("mid.csv", 300), path("mid.out.csv")
    for change, says in (
            (lambda a: [*a, "--bos"], "--bos was not given, is 'yes'"),
            (lambda a: [x.replace("error", "truncate") for x in a], "--long was 'error', is 'truncate'"),
            (lambda a: a[:-2] + ["--output-format", "tsv"] + a[-2:], "output format was 'csv', is 'tsv'")):
        stop_midway(command(f, out), out)
        r = sill(*change(command(f, out)), status=2)
        assert says in r.err and "mid.out.csv.journal" in r.err and "--overwrite" in r.err and ".journal" in left(out), r.err
    r = sill(*command(f, out), status=2, env={"SILL_CPU_ISA": "scalar"})
    assert "SILL_CPU_ISA" in r.err and "device was" in r.err, r.err
    whole = read("mid.csv")
    write("mid.csv", whole.replace(b"\n0,", b"\n0,x", 1) if b"\n0,x" not in whole else whole)
    r = sill(*command(f, out), status=2)
    assert "row 1 (line 2) of the input is not what it was" in r.err, r.err
    write("mid.csv", whole.splitlines(True)[0])
    r = sill(*command(f, out), status=2)
    assert "the input is shorter than it was" in r.err, r.err
    os.remove(path("mid.csv"))
    r = sill(*command(f, out), status=1)
    assert "No such file" in r.err and "finished rows are kept" in r.err, r.err
    write("mid.csv", whole)
    sill(*command(f, out), status=None)
    same = read(out)
    clean(out)
    sill(*command(f, out), status=None)
    assert read(out) == same
    stop_midway(command(f, out), out)
    write("mid.csv", whole.replace(b"\n0,", b"\n0,x", 1))  # with --overwrite: changed rows anew, the others as they are
    r = sill(*command(f, out, "--overwrite"), status=None)
    again = sill("score", f, "--text", "text", *M, "--long", "error", status=None)
    assert "goes on" in r.err and read(out) == again.out
    stop_midway(command(f, out), out)
    r = sill(*command(f, out, "--overwrite", "--bos"), status=None)
    assert "goes on" not in r.err and read(out) == sill("score", f, "--text", "text", *M, "--long", "error", "--bos", status=None).out


def a_journal_that_is_damaged():
    f, out = texts("bad.csv", 300), path("bad.out.csv")
    write("bad.out.csv.journal", "this is a file of somebody else, which has nothing to do with it. " * 40)
    r = sill(*command(f, out), status=1)
    assert "damaged, or no journal of sill" in r.err and b"somebody else" in read("bad.out.csv.journal"), r.err
    clean(out)
    write("bad.out.csv.journal", b"")  # killed before anything was in it
    sill(*command(f, out), status=None)
    assert left(out) == ["", ".run.json"]
    clean(out)
    write("bad.out.csv.partial", "rows of another program")
    r = sill(*command(f, out), status=2)
    assert "left from an unfinished run" in r.err and left(out) == [".partial"], (r.err, left(out))
    for lines in (-1, 2**31):
        stop_midway(command(f, out), out)
        db = sqlite3.connect(out + ".journal")
        with db:
            db.execute("UPDATE rows SET records = ? WHERE number = (SELECT min(number) FROM rows)", (lines,))
        db.close()
        r = sill(*command(f, out), status=1)
        assert f"has {lines} lines of results" in r.err and ".journal" in left(out), (r.err, left(out))


def locks():
    f, out = texts("lock.csv", 30), path("lock.out.csv")
    host = socket.gethostname()
    holder = subprocess.Popen(["sleep", "100"])
    try:
        start = "0"
        if os.path.exists("/proc/self/stat"):
            start = open(f"/proc/{holder.pid}/stat").read().rsplit(")", 1)[1].split()[19]
        write("lock.out.csv.lock", f"{host} {holder.pid} {start}\n")
        r = sill(*command(f, out), status=2)
        assert f"process {holder.pid}, is writing" in r.err and left(out) == [".lock"], r.err
        if start != "0":  # the number was given to another process since
            write("lock.out.csv.lock", f"{host} {holder.pid} {int(start) - 1}\n")
            sill(*command(f, out))
            assert left(out) == ["", ".run.json"]
            clean(out)
    finally:
        holder.kill()
        holder.wait()
    write("lock.out.csv.lock", f"{host} {holder.pid} {start}\n")  # its process is gone
    sill(*command(f, out))
    assert left(out) == ["", ".run.json"]
    clean(out)
    write("lock.out.csv.lock", "another-host.example 77 5\n")
    r = sill(*command(f, out), status=2)
    assert "host another-host.example" in r.err and "remove that file" in r.err and left(out) == [".lock"], r.err
    write("lock.out.csv.lock", "??")
    assert "no lock of sill" in sill(*command(f, out), status=2).err
    clean(out)
    slow = write("slow.txt", "the cat\n" * 40000)
    p = subprocess.Popen([SILL, "score", slow, *M, "--threads", "1", "-o", out], stderr=subprocess.PIPE)
    while not os.path.exists(out + ".journal") and p.poll() is None:
        time.sleep(0.005)
    r = sill("score", slow, *M, "-o", out, status=2)
    p.send_signal(signal.SIGINT)
    p.communicate(timeout=60)
    assert p.returncode == 5 and f"process {p.pid}, is writing" in r.err, r.err


def a_full_file_system():
    where = path("small")
    os.makedirs(where)
    if sys.platform != "linux" or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=160k", "sill", where], capture_output=True).returncode:
        raise Skip("this machine does not let a small file system be mounted")
    try:
        f, out, whole = texts("full.csv", 1500, long=True), os.path.join(where, "o.csv"), path("full_whole.csv")
        sill(*command(f, whole), status=3)
        r = sill(*command(f, out, "--journal-rows", "50"), status=1)
        assert ("No space left" in r.err or "disk is full" in r.err) and "the same command goes on" in r.err, r.err
        assert left(out) == [".journal", ".partial"], left(out)
        again = sill(*command(f, out, "--journal-rows", "50"), status=1)
        assert "goes on: " in again.err, again.err
        subprocess.run(["mount", "-o", "remount,size=64m", where], check=True)
        r = sill(*command(f, out), status=3)
        assert "goes on: " in r.err and open(out, "rb").read() == read(whole), r.err
    finally:
        subprocess.run(["umount", where], check=True)


def shards():
    f = texts("shard.csv", 101, long=True)
    jsonl = write("shard.jsonl", "".join(json.dumps({"k": i, "text": r["text"], **({"extra": [1.0, i]} if i % 3 else {})}) + "\n"
                                         for i, r in enumerate(csv.DictReader(open(f, newline="")))))
    for name, source, extension in (("score", f, "csv"), ("classify", jsonl, "jsonl"), ("generate", f, "csv"), ("generate", jsonl, "tsv")):
        whole = path(f"sw_{name}.{extension}")
        clean(whole)
        sill(*JOBS[name](source), "-o", whole, status=3)
        for n in (1, 2, 8) if QUICK else (1, 3):
            outs = [path(f"shard_{name}_{i}_{n}.{extension}") for i in range(1, n + 1)]
            for i, out in enumerate(outs):
                clean(out)
                sill(*JOBS[name](source), "--shard", f"{i + 1}/{n}", "-o", out, status=None)
            merged = path(f"merged_{name}_{n}.{extension}")
            clean(merged)
            if n == 1:
                assert "no shard" in sill("merge", *outs, "-o", merged, status=2).err  # 1/1 is the whole run
                assert read(outs[0]) == read(whole)
                continue
            r = sill("merge", *rng.sample(outs, n), "-o", merged, status=3)
            assert read(merged) == read(whole), (name, extension, n)
            a, b = json.loads(read(merged + ".run.json")), json.loads(read(whole + ".run.json"))
            for key in ("rows", "failed", "tokens", "settings", "settings_sha256", "input", "output", "model", "arguments", "seed"):
                assert a[key] == b[key], (key, a[key], b[key])
            assert a["shard"] is None and len(a["merged"]) == n


def a_shard_that_dies():
    f = texts("dies.csv", 3000 if QUICK else 600, long=True)
    whole = path("dies_whole.csv")
    sill(*command(f, whole), status=3)
    outs = [path(f"dies_{i}.csv") for i in (1, 2, 3)]
    for i in (1, 3):
        sill(*command(f, outs[i - 1], "--shard", f"{i}/3"), status=None)
    stop_midway(command(f, outs[1], "--shard", "2/3"), outs[1])
    merged = path("dies.csv.merged.csv")
    r = sill("merge", *outs, "-o", merged, status=2)
    assert "dies_2.csv is not finished" in r.err and not os.path.exists(merged), r.err
    r = sill("merge", *outs, path("gone.csv"), path("lost.csv"), "-o", merged, status=2)  # all that is wrong at once
    assert all(s in r.err for s in ("dies_2.csv is not finished", "gone.csv is not there", "lost.csv is not there")), r.err
    r = sill("merge", outs[0], outs[2], "-o", merged, status=2)
    assert "1 of 3 shards are missing: 2/3" in r.err, r.err
    sill(*command(f, outs[1], "--shard", "2/3"), status=None)
    sill("merge", *outs, "-o", merged, status=3)
    assert read(merged) == read(whole)
    assert "exists" in sill("merge", *outs, "-o", merged, status=2).err
    sill("merge", *outs, "-o", merged, "--overwrite", status=3)
    assert "is not there" in sill("merge", outs[0], path("nowhere.csv"), "-o", path("x.csv"), status=2).err
    assert "both shard 1/3" in sill("merge", outs[0], outs[0], outs[2], "-o", path("x.csv"), status=2).err
    assert "is one of the shards" in sill("merge", *outs, "-o", outs[0], "--overwrite", status=2).err
    assert "no shard" in sill("merge", whole, "-o", path("x.csv"), status=2).err
    clean(outs[2])
    sill(*command(f, outs[2], "--shard", "3/3", "--bos"), status=None)
    assert "different configurations: --bos" in sill("merge", *outs, "-o", path("x.csv"), status=2).err
    data = bytearray(read(outs[0]))
    data[-3] ^= 1
    write("dies_1.csv", bytes(data))
    clean(outs[2])
    sill(*command(f, outs[2], "--shard", "3/3"), status=None)
    assert "was changed since its run" in sill("merge", *outs, "-o", path("x.csv"), status=2).err and not os.path.exists(path("x.csv"))


def the_record():
    f, out = texts("record.csv", 60, long=True), path("record.out.csv")
    sill(*command(f, out, "--bos", "--threads", "2"), "--delimiter", ",", status=3)
    r = json.loads(read(out + ".run.json"))
    assert r["command"] == "score" and r["rows"] == 60 and r["failed"] == 1 and r["sessions"] == 1 and r["seed"] is None
    assert r["tokens"] == sum(int(x["n_tokens"] or 0) for x in csv.DictReader(io.StringIO(read(out).decode(), newline="")))
    assert r["output"]["sha256"] == hashlib.sha256(read(out)).hexdigest() and r["output"]["bytes"] == len(read(out))
    assert r["model"]["sha256"] == hashlib.sha256(open(STORIES, "rb").read()).hexdigest() == r["model"]["tokenizer_sha256"]
    version = re.match(r"sill (\S+) \((\S+)\)", sill("--version").text())
    assert (r["version"], r["commit"]) == version.groups()
    o = r["options"]
    assert o["bos"] is True and o["long"] == "error" and o["per"] == "text" and o["stride"] == "256" and o["threads"] == "2" and o["ctx"] == "512"
    assert o["id"] is None and o["max-row"] == "16" and o["model"] == STORIES and o["dtype"] == "f32" and o["batch-tokens"] and o["max-sequences"]
    d = r["device"]
    assert d["device"].startswith("cpu ") and d["check"] and d["dtype"] == "f32" and d["kv_dtype"] == "f32" and d["threads"] == 2
    t = [time.strptime(r[k], "%Y-%m-%dT%H:%M:%SZ") for k in ("started", "finished")]
    assert t[0] <= t[1] and r["seconds"] > 0
    directory = path("gpt2")
    shutil.copytree(os.path.join(FIXTURES, "model/gpt2-one"), directory)
    shutil.copy(os.path.join(FIXTURES, "tokenizer/smollm.json"), os.path.join(directory, "tokenizer.json"))
    sill("tokenize", f, "--text", "text", "-m", directory, "-o", path("dir.csv"))
    m = json.loads(read("dir.csv.run.json"))["model"]
    assert [x["name"] for x in m["files"]] == ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json"]
    assert m["tokenizer_sha256"] == m["files"][3]["sha256"]
    for x in m["files"]:
        assert x["sha256"] == hashlib.sha256(open(os.path.join(directory, x["name"]), "rb").read()).hexdigest(), x
    listing = "".join(f"{x['sha256']}  {x['name']}\n" for x in m["files"])
    assert m["sha256"] == hashlib.sha256(listing.encode()).hexdigest()
    remembered = os.listdir(path("cache/hashes"))
    assert all(re.fullmatch(r"[0-9a-f]{64}\.sha256", x) for x in remembered), remembered


def verified():
    f = texts("verify.csv", 120, long=True)
    for name, extension in (("score", "csv"), ("classify", "jsonl"), ("generate", "tsv"), ("tokenize", "jsonl")):
        out = path(f"verify_{name}.{extension}")
        sill(*JOBS[name](f), "-o", out, status=None)
        r = sill("verify", out + ".run.json", "--rows", "120")
        assert "120 of 120 rows (of 120) come out the same" in r.text(), (name, r.text())
    out = path("verify_score.csv")
    assert sill("verify", out).text() == sill("verify", out + ".run.json", "--seed", "0").text()
    away = path("elsewhere")
    os.makedirs(away)
    assert "20 of 20" in sill("verify", os.path.relpath(out, away), cwd=away).text()
    r = sill("verify", out, status=1, env={"SILL_CPU_ISA": "scalar"})
    assert "differs" in r.text() and "that may be why" in r.text() and "cpu scalar" in r.text(), r.text()
    write("other.csv", read("verify.csv").replace(b"ball", b"bell"))
    r = sill("verify", out, "--input", path("other.csv"), status=1)
    assert "the input is not the one of the run" in r.text(), r.text()
    shutil.copy(f, path("copied.csv"))
    assert "20 of 20" in sill("verify", out, "--input", path("copied.csv")).text()
    data = read(out)
    lines = data.split(b"\n")
    at = next(i for i, line in enumerate(lines) if re.search(rb",-\d+\.\d+,", line))
    lines[at] = re.sub(rb",-(\d)", rb",-9\1", lines[at], count=1)
    write("verify_score.csv", b"\n".join(lines))
    r = sill("verify", out, "--rows", "120", status=1)
    assert "119 of 120" in r.text() and "was changed since the run" in r.text() and r.text().count("differs") == 1, r.text()
    record = json.loads(read(out + ".run.json"))
    record["settings"]["dtype"] = "bf16"
    write("verify_score.csv.run.json", json.dumps(record))
    assert "was changed" in sill("verify", out, status=1).err
    write("verify_score.csv.run.json", "{}")
    assert "no record of a run" in sill("verify", out, status=1).err
    assert "has no record" in sill("verify", f, status=1).err
    p = sill("score", "-", "--format", "csv", "--text", "text", *M, "-o", path("piped.csv"), stdin=read("verify.csv"), status=None)
    assert "--input FILE" in sill("verify", path("piped.csv"), status=2).err
    assert "20 of 20" in sill("verify", path("piped.csv"), "--input", f).text()
    sill("generate", *M, "--max-new-tokens", "4", "Once upon", "There was", "-o", path("args.jsonl"))
    assert "2 of 2" in sill("verify", path("args.jsonl")).text()
    for i in (1, 2):
        sill(*JOBS["generate"](f), "--shard", f"{i}/2", "-o", path(f"v{i}.csv"), status=None)
    assert "60 of 60" in sill("verify", path("v2.csv"), "--rows", "500").text()


def made(record, change):
    """The record changed by CHANGE, with the sum over its settings that belongs to it."""
    r = json.loads(read(record))
    change(r)
    joined = b"".join(f"{k}\0{v}\0".encode() for k, v in r["settings"].items())
    return json.dumps({**r, "settings_sha256": hashlib.sha256(joined).hexdigest()})


def a_record_of_somebody_else():
    """A record is a file like any: it has nothing run that no run writes down, and nothing overflows."""
    f, out, victim = texts("foreign.csv", 40), path("foreign.out.csv"), write("victim.csv", "precious")
    sill("score", f, "--text", "text", *M, "-o", out)
    record = out + ".run.json"
    good = read(record)

    def tried(text, status=1):
        write("foreign.out.csv.run.json", text)
        r = sill("verify", out, status=None)
        assert read("victim.csv") == b"precious", r.err
        assert r.status == status, (r.status, r.err, r.text())
        write("foreign.out.csv.run.json", good)
        return r.err + r.text()

    at = lambda a: lambda r: r["arguments"].insert(1, a)
    for a in ("--output=" + victim, "--overwrite", "-o" + victim, "--shard=1/2", victim):
        assert "no run writes there" in tried(made(record, at(a))), a
    assert "keeps records" in tried(made(record, lambda r: r.update(command="quantize", arguments=["quantize", "--to=q8", "--", f])))
    assert "was it changed" in tried(made(record, lambda r: r["input"].update(rows=7)))
    twice = made(record, lambda r: r["output"].update(other=[[50, 1]]))
    tried(twice.replace('"other": [[50, 1]]', '"other": [[50, 1]], "other": [' + ", ".join(["[60, 1]"] * 100000) + "]"), status=0)
    shown = tried(made(record, lambda r: (r["settings"].update(device="\x1b[31mred\n"), r["model"].update(sha256="\x1b]0;x" * 3))))
    assert "\x1b" not in shown and "red" in shown, shown
    assert sill("verify", out).status == 0


def links_where_files_are_to_be():
    """A link at the place of what is beside an output is not written through."""
    f, victim = texts("links.csv", 20), write("linked.txt", "precious")
    command = ["score", f, "--text", "text", *M, "-o", path("links.out.csv")]
    for tail, status in ((".partial", 2), (".journal", 2), (".run.json.partial", 0)):
        os.symlink(victim, path("links.out.csv" + tail))
        r = sill(*command, "--overwrite", status=status)
        assert read("linked.txt") == b"precious", tail
        assert status == 0 or ("symbolic link" in r.err and "remove it" in r.err), r.err
        if status:
            os.remove(path("links.out.csv" + tail))
    assert left(path("links.out.csv")) == ["", ".run.json"] and "20 of 20" in sill("verify", path("links.out.csv")).text()


def progress():
    f = texts("progress.csv", 400, long=True)
    r = sill(*command(f, path("progress.out.csv"), "--progress", "0.02", "--threads", "1"), status=None)
    lines = [x for x in r.err.splitlines() if "left" in x]
    assert lines and all(re.fullmatch(r"sill: score: \d+ rows(, \d+ failed)?, [\d.]+ rows/s, \d+ tokens/s, \d+ %, .* left", x) for x in lines), r.err
    assert "\r" not in r.err and "tokens/s ->" in r.err
    for rows, share in (map(int, re.search(r"(\d+) rows.* (\d+) %", x).groups()) for x in lines):  # by what is finished, not by what is read ahead
        assert share < 100 and abs(share - rows / 4) < 15, (rows, share)
    r = sill(*command(f, path("quiet.out.csv"), "--progress", "0.02", "--quiet"), status=None)
    assert r.err == "", r.err


def what_is_not_a_file_has_no_journal():
    f = texts("pipe.csv", 20)
    r = sill("score", f, "--text", "text", *M, "-o", "/dev/null", "--output-format", "csv", "--overwrite")
    assert not [x for x in os.listdir("/dev") if x.startswith("null.")]
    before = sorted(os.listdir(work.name))
    sill("score", f, "--text", "text", *M)
    assert sorted(os.listdir(work.name)) == before


for fn in (killed_at_random_moments, killed_before_every_kind_of_write, a_kill_costs_one_batch, without_locks, interrupted, duplicates_stay_apart,
           an_input_that_is_cut_while_it_is_read, a_directory_that_goes, order_does_not_matter_with_ids, finished_or_another, another_while_unfinished, a_journal_that_is_damaged, locks, a_full_file_system,
           shards, a_shard_that_dies, the_record, verified, a_record_of_somebody_else, links_where_files_are_to_be, progress, what_is_not_a_file_has_no_journal):
    test(fn)
end()
