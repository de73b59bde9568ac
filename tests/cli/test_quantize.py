#!/usr/bin/env python3
"""`sill quantize`: exit statuses, what is written and what is left alone."""
import fcntl
import hashlib
import shutil
import signal
import struct
import subprocess
import time
from clitest import *

TEXT = "Once upon a time there was a little girl named Lily. She loved to play outside in the park.\n" * 3


def q(*args, **more):
    return sill("quantize", STORIES, *args, **more)


def writes_a_model_and_its_certificate():
    out = path("a.gguf")
    r = q("--to", "q8", "-o", out, "--text", write("t.txt", TEXT))
    assert "loss of perplexity" in r.text() and "KL divergence" in r.text() and "same first choice" in r.text(), r.text()
    c = json.loads(read("a.gguf.certificate.json"))
    assert c["after"]["sha256"] == hashlib.sha256(read("a.gguf")).hexdigest()
    assert c["before"]["sha256"] == hashlib.sha256(open(STORIES, "rb").read()).hexdigest()
    assert c["text"]["sha256"] == hashlib.sha256(TEXT.encode()).hexdigest() and c["text"]["texts"] == 1
    assert c["passed"] and not c["forced"] and c["threshold_percent"] == 2 and c["commit"]
    assert c["after"]["bytes"] == os.path.getsize(out) < c["before"]["bytes"] / 2
    assert "little" in sill("generate", "-m", out, "-q", "Once upon a time there was a").text()
    first = read("a.gguf"), read("a.gguf.certificate.json")
    q("--to", "q8", "-o", out, "--text", path("t.txt"), "--overwrite", "--threads", "2")
    assert (read("a.gguf"), read("a.gguf.certificate.json")) == first, "not the same bytes twice"


def sample_text_is_in_the_program():
    r = q("--to", "q4", "-o", path("s.gguf"), "--json", "-q", "--tokens", "300", cwd=work.name)
    o = r.objects()[0]
    assert o["kept"] and o["passed"] and o["n_tokens"] == 300 and o["kl_mean"] > 0 and o["rows"] == 0 and o["alpha"] is None, o
    sample = open(os.path.join(FIXTURES, "../../examples/sample.txt"), "rb").read()
    assert json.loads(read("s.gguf.certificate.json"))["text"]["sha256"] == hashlib.sha256(sample).hexdigest()


def few_tokens_are_said():
    """A certificate of two tokens proves nothing, one of a hundred little; three hundred are enough for q8."""
    r = q("--to", "q8", "-o", path("few.gguf"), "--tokens", "2", status=1)
    assert "2 tokens are too few" in r.err and "not kept" in r.text() and not os.path.exists(path("few.gguf")), (r.err, r.text())
    r = q("--to", "q8", "-o", path("few.gguf"), "--tokens", "100")
    c = json.loads(read("few.gguf.certificate.json"))
    assert "warning: 100 tokens" in r.err and c["passed"] and c["perplexity"]["certainty"] == "low", (r.err, c)
    assert c["perplexity"]["loss_percent_low"] < c["perplexity"]["loss_percent"]["value"] < 2 < c["perplexity"]["loss_percent_high"], c
    r = q("--to", "q8", "-o", path("few.gguf"), "--tokens", "400", "--json", "--overwrite")
    assert "warning" not in r.err and r.objects()[0]["certainty"] == "high" and r.objects()[0]["loss_percent_high"] < 2, (r.err, r.text())


def labels_of_a_column():
    f = write("rows.csv", "id,t\n1,She had a red ball.\n2,The dog was very sad.\n3,\n4,A happy bird\n")
    r = q("--to", "q8", "-o", path("l.gguf"), "--text", f + ":t", "--labels", "happy, sad", "--json", "-q", "--max-loss", "100",
          "--max-changed", "100")
    o = r.objects()[0]
    assert o["rows"] == 4 and 0 <= o["changed"] <= 4 and o["alpha"] is not None and o["certainty"] == "low", o
    labels = json.loads(read("l.gguf.certificate.json"))["labels"]
    ours = []
    for m, more in ((STORIES, ["--dtype", "f32"]), (path("l.gguf"), [])):
        rows = sill("classify", f, "--text", "t", "--labels", "happy,sad", "-m", m, *more, "-q", "--json").objects()
        ours.append([x["label"] for x in rows])
    assert labels["changed"] == sum(a != b for a, b in zip(*ours)), (labels, ours)


def labels_have_a_limit():
    """Four rows prove nothing of 5 %, whatever became of them; a hundred do, and past the limit nothing is kept."""
    f = write("rows4.csv", "t\nShe had a red ball.\nThe dog was very sad.\nA cat.\nA happy bird\n")
    more = ["--max-loss", "1000", "--max-kl", "100", "--min-agreement", "1"]
    r = q("--to", "q8", "-o", path("m.gguf"), "--text", f + ":t", *more, "--labels", "happy,sad", status=1)
    assert "4 texts are to be labelled" in r.err and "73 rows" in r.err and "writing" not in r.err and not r.text(), (r.err, r.text())
    r = q("--to", "q4", "-o", path("m.gguf"), *more, "--labels", "happy,sad", status=1)  # the sample is one text
    assert "1 text is to be labelled" in r.err and "22 rows" in r.err and not os.path.exists(path("m.gguf")), r.err
    r = q("--to", "q8", "-o", path("m.gguf"), "--text", f + ":t", *more, "--labels", "happy,sad", "--force")
    assert "too few rows" in r.text() and read("m.gguf"), r.text()
    os.remove(path("m.gguf")), os.remove(path("m.gguf.certificate.json"))
    more += ["--labels", "big,little,small,nice", "--prompt", "{text}"]
    rows = [f"{a} {b} {c}" for a in ("She", "The dog", "A bird", "Tom", "My friend") for b in ("had", "saw", "lost", "liked")
            for c in ("a red ball.", "the big tree.", "a new toy.", "a sad cat.", "the sun.")]
    f = write("rows100.csv", "t\n" + "\n".join(rows) + "\n")
    o = q("--to", "q4", "-o", path("m.gguf"), "--text", f + ":t", *more, "--max-changed", "100", "--json").objects()[0]
    c = json.loads(read("m.gguf.certificate.json"))
    assert o["certainty"] == c["certainty"] == c["labels"]["certainty"] == "high" and c["threshold_changed_percent"] == 100, (o, c)
    assert c["labels"]["changed_percent_low"] < o["changed_percent"] == o["changed"] == c["labels"]["changed_percent"] < o["changed_percent_high"], (o, c)
    r = q("--to", "q4", "-o", path("m2.gguf"), "--text", f + ":t", *more, "--max-changed", str(o["changed"] - 0.5), status=1)
    assert "--max-changed" in r.err and f"{o['changed']} of 100 labels change" in r.err and not os.path.exists(path("m2.gguf")), r.err
    r = q("--to", "q4", "-o", path("m2.gguf"), "--text", f + ":t", *more, "--max-changed", str(o["changed"] + 0.5))
    assert "warning: 100 texts were labelled" in r.err and "too few rows to tell" in r.text(), (r.err, r.text())


def refuses_past_the_threshold():
    t = write("t.txt", TEXT)
    r = q("--to", "q4", "-o", path("r.gguf"), "--text", t, "--max-loss", "0.0000001", status=None)
    if r.status == 0:  # four bits happened to be better on this text
        os.remove(path("r.gguf")), os.remove(path("r.gguf.certificate.json"))
        t = write("t.txt", "The ball was red and the dog was happy. They played all day long." * 4)
        r = q("--to", "q4", "-o", path("r.gguf"), "--text", t, "--max-loss", "0.0000001", status=None)
    assert r.status == 1 and "--force" in r.err and "not kept" in r.text(), (r.status, r.err, r.text())
    assert not [f for f in os.listdir(work.name) if f.startswith("r.gguf")]
    r = q("--to", "q4", "-o", path("r.gguf"), "--text", t, "--max-loss", "0.0000001", "--force")
    c = json.loads(read("r.gguf.certificate.json"))
    assert c["forced"] and not c["passed"] and "--force" in r.text()


def does_not_overwrite():
    t, out = write("t.txt", TEXT), write("o.gguf", "mine")
    r = q("--to", "q8", "-o", out, "--text", t, status=2)
    assert "--overwrite" in r.err and read("o.gguf") == b"mine"
    q("--to", "q8", "-o", out, "--text", t, "--overwrite")
    assert read("o.gguf")[:4] == b"GGUF"
    shutil_copy = read("o.gguf")
    write("self.gguf", open(STORIES, "rb").read())
    sill("quantize", path("self.gguf"), "--to", "q8", "-o", path("self.gguf"), "--text", t, "--overwrite", status=2)
    assert read("self.gguf") == open(STORIES, "rb").read() and shutil_copy


def wrong_usage():
    t = write("t.txt", TEXT)
    for args, says in ((["-o", path("w")], "--to"), (["--to", "q8"], "-o OUT"), (["--to", "q5", "-o", path("w")], "q8, q4, int8"),
                       (["--to", "q8", "-o", "-"], "standard output"),
                       (["--to", "q8", "-o", path("w"), "--labels", "a"], "at least two"),
                       (["--to", "q8", "-o", path("w"), "--labels", "a,a"], "twice"),
                       (["--to", "q8", "-o", path("w"), "--text", t, "--prompt", "{text}"], "--labels"),
                       (["--to", "q8", "-o", path("w"), "--text", write("c.csv", "a,b\n1,2\n")], "FILE:COLUMN"),
                       (["--to", "q8", "-o", path("w"), "--max-loss", "-1"], "--max-loss"),
                       (["--to", "q8", "-o", path("w"), "--max-changed", "101"], "--max-changed")):
        r = q(*args, status=2)
        assert says in r.err and not os.path.exists(path("w")), (args, r.err)
    assert "none.txt" in q("--to", "q8", "-o", path("w"), "--text", path("none.txt"), status=1).err
    assert "nope" in q("--to", "q8", "-o", path("w"), "--text", path("c.csv") + ":nope", status=None).err
    assert "no model" in sill("quantize", path("gone"), "--to", "q8", "-o", path("w"), status=1).err
    assert "too short" in q("--to", "q8", "-o", path("w"), "--text", write("e.txt", "a"), status=None).err
    assert not [f for f in os.listdir(work.name) if f.startswith("w")]


def a_full_disk_is_an_error():
    if not os.path.exists("/dev/full"):
        raise Skip("this machine has no /dev/full")
    # a file size limit stands for the full disk: the write fails half way
    out = path("full.gguf")
    p = subprocess.run(["bash", "-c", f"trap '' XFSZ; ulimit -f 64; exec '{SILL}' quantize '{STORIES}' --to q8 -o '{out}' -q"],
                       capture_output=True, text=True)
    assert p.returncode == 1 and "cannot write" in p.stderr, (p.returncode, p.stderr)
    assert not [f for f in os.listdir(work.name) if f.startswith("full.gguf")]


def a_disk_too_small_for_the_logits_is_told_first():
    """100 tokens x 512 of the vocabulary x 4 bytes = 50 blocks of 4096 bytes."""
    env, t = faults(), write("t.txt", TEXT * 4)
    command = ["--to", "q8", "-o", path("disk.gguf"), "--text", t, "--tokens", "100"]
    r = q(*command, status=1, env={**env, "FAULTS_FREE": str(49 * 4096)})
    assert "100 tokens" in r.err and "0.2 MiB" in r.err and "--tokens" in r.err and "measuring" not in r.err, r.err
    assert not [f for f in os.listdir(work.name) if f.startswith("disk.gguf")]
    q(*command, env={**env, "FAULTS_FREE": str(50 * 4096)})


def an_interruption_leaves_nothing():
    p = subprocess.Popen([SILL, "quantize", STORIES, "--to", "q8", "-o", path("i.gguf"), "--text", write("long.txt", TEXT * 400),
                          "--tokens", "2000000"], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    for line in p.stderr:
        if "measuring" in line:
            break
    time.sleep(0.05)
    p.send_signal(signal.SIGINT)
    p.communicate(timeout=60)
    assert p.returncode == 5, p.returncode
    assert not [f for f in os.listdir(work.name) if f.startswith("i.gguf")]


GPT2 = os.path.join(FIXTURES, "task/quantize/gpt2")
LLAMA = os.path.join(FIXTURES, "task/quantize/llama")


def model_copy(name, source=GPT2):
    """The directory SOURCE as NAME, with files that can be written."""
    os.mkdir(path(name))
    for f in os.listdir(source):
        shutil.copyfile(os.path.join(source, f), path(f"{name}/{f}"))
    return path(name)


def tensors_of(file):
    data = open(file, "rb").read()
    n = struct.unpack("<Q", data[:8])[0]
    head = json.loads(data[8 : 8 + n])
    return {k: (v["dtype"], v["shape"], data[8 + n + v["data_offsets"][0] : 8 + n + v["data_offsets"][1]])
            for k, v in head.items() if k != "__metadata__"}


def put_tensors(file, tensors):
    head, at = {"__metadata__": {"format": "pt"}}, 0
    for k, (dtype, shape, data) in tensors.items():
        head[k] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(head).encode()
    text += b" " * (-len(text) % 8)
    with open(file, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + b"".join(data for _, _, data in tensors.values()))


def int8(*args, model=GPT2, **more):
    return sill("quantize", model, "--to", "int8", "--text", write("t.txt", TEXT), "-q", *args, **more)


def a_directory_of_the_user_is_not_replaced():
    """Only a directory that holds nothing but what is written here may be replaced, and never the working directory."""
    os.makedirs(path("mine/sub"))
    write("mine/notes.txt", "mine"), write("mine/sub/x", "mine"), write("mine/config.json", "{}")
    r = int8("-o", path("mine"), "--overwrite", status=2)
    assert read("mine/notes.txt") == read("mine/sub/x") == b"mine" and read("mine/config.json") == b"{}", r.err
    shutil.rmtree(path("mine/sub"))
    r = int8("-o", path("mine") + "/", "--overwrite", status=2)
    assert "notes.txt" in r.err and read("mine/config.json") == b"{}", r.err
    os.remove(path("mine/notes.txt")), os.mkdir(path("mine/model.safetensors"))
    int8("-o", path("mine"), "--overwrite", status=2)
    os.rmdir(path("mine/model.safetensors"))
    for out in (".", "..", "/", path("mine"), "../mine", "./.", "../mine/.."):
        r = int8("-o", out, "--overwrite", status=2, cwd=path("mine"))
        assert read("mine/config.json") == b"{}" and "name a new output" in r.err, (out, r.err)
    os.mkdir(path("mine.partial")), write("mine.partial/keep", "mine")
    int8("-o", path("mine"), "--overwrite", status=2)
    assert read("mine.partial/keep") == b"mine"
    os.remove(path("mine.partial/keep")), write("mine.partial/config.json", "left behind")
    int8("-o", path("mine"), "--overwrite")
    assert sorted(os.listdir(path("mine"))) == ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json"]
    assert not os.path.exists(path("mine.old")) and not os.path.exists(path("mine.partial"))
    os.mkdir(path("mine.old"))
    assert "mine.old" in int8("-o", path("mine"), "--overwrite", status=2).err


def the_record_is_checked_before_work():
    os.mkdir(path("d.gguf.certificate.json"))
    r = q("--to", "q8", "-o", path("d.gguf"), "--text", write("t.txt", TEXT), "--overwrite", status=2)
    assert "certificate.json is a directory" in r.err and "measuring" not in r.err and not os.path.exists(path("d.gguf")), r.err


def what_is_read_is_never_the_output():
    m, t = model_copy("src"), write("src.txt", TEXT)
    before = {f: read(f"src/{f}") for f in os.listdir(m)}
    out = [path(f"src/{f}") for f in before]
    os.link(path("src/model.safetensors"), path("alias.gguf"))
    for o in out + [path("alias.gguf"), t]:
        r = sill("quantize", m, "--to", "q8", "-o", o, "--text", t, "--overwrite", status=2)
        assert "name another output" in r.err, (o, r.err)
    os.rename(t, path("log.certificate.json"))
    r = sill("quantize", m, "--to", "q8", "-o", path("log"), "--text", path("log.certificate.json"), "--overwrite", status=2)
    assert "is the text" in r.err and read("log.certificate.json") == TEXT.encode(), r.err
    c = write("log2.certificate.json", "id,t\n1," + TEXT.replace("\n", " ") + "\n")
    os.rename(c, path("col.csv"))
    r = sill("quantize", m, "--to", "q8", "-o", path("col.csv"), "--text", path("col.csv") + ":t", "--overwrite", status=2)
    assert "is the text" in r.err, r.err
    for model in (m, path("src/model.safetensors"), m + "/"):
        assert "name another output" in int8("-o", m, "--overwrite", model=model, status=2).err
    model_copy("links")  # a directory of links to the only original
    os.remove(path("links/model.safetensors")), os.symlink("../src/model.safetensors", path("links/model.safetensors"))
    assert "name another output" in int8("-o", m, "--overwrite", model=path("links"), status=2).err
    assert {f: read(f"src/{f}") for f in os.listdir(m)} == before


def two_runs_do_not_meet():
    out, t = path("two.gguf"), write("t.txt", TEXT)
    with open(out + ".partial", "wb") as f:
        f.write(b"alive")
        f.flush()
        fcntl.flock(f, fcntl.LOCK_EX)
        r = q("--to", "q8", "-o", out, "--text", t, "--overwrite", status=2)
        assert "another run writes it" in r.err and read("two.gguf.partial") == b"alive" and not os.path.exists(out), r.err
    assert "--overwrite" in q("--to", "q8", "-o", out, "--text", t, status=2).err and read("two.gguf.partial") == b"alive"
    q("--to", "q8", "-o", out, "--text", t, "--overwrite")  # left by a run that is gone
    assert read("two.gguf")[:4] == b"GGUF" and not os.path.exists(out + ".partial")
    # A run that is stopped in the middle keeps its output on its way from others.
    p = subprocess.Popen([SILL, "quantize", STORIES, "--to", "q8", "-o", path("three.gguf"), "--text", write("long.txt", TEXT * 400),
                          "--tokens", "2000000"], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    for line in p.stderr:
        if "measuring" in line:
            break
    n = os.path.getsize(path("three.gguf.partial"))
    r = q("--to", "q8", "-o", path("three.gguf"), "--text", t, "--overwrite", status=2)
    assert "another run" in r.err and os.path.getsize(path("three.gguf.partial")) == n > 100000, r.err
    p.send_signal(signal.SIGINT)
    p.communicate(timeout=120)
    assert p.returncode == 5 and not [f for f in os.listdir(work.name) if f.startswith("three.gguf")]


def an_interruption_says_what_is_so():
    """Whenever it comes: interrupted and nothing there, or done and the output there."""
    t, late, seen = write("t.txt", TEXT), 0, set()
    for i in range(40):
        out = path("late.gguf")
        p = subprocess.Popen([SILL, "quantize", STORIES, "--to", "q8", "-o", out, "--text", t], stderr=subprocess.PIPE,
                             stdout=subprocess.PIPE, text=True)
        for line in p.stderr:
            if "measuring the new" in line:
                break
        time.sleep(0.0005 * i)
        p.send_signal(signal.SIGINT)
        said = p.communicate(timeout=120)[1]
        kept = os.path.exists(out)
        seen.add(kept)
        assert p.returncode == (0 if kept else 5) and ("nothing is kept" in said) == (not kept), (i, p.returncode, kept, said)
        for f in os.listdir(work.name):
            if f.startswith("late.gguf"):
                assert kept, f
                os.remove(path(f))
        late = late + 1 if kept else 0
        if late == 4 and len(seen) == 2:
            break


def a_kill_at_the_end_leaves_no_wrong_certificate():
    """Before any of the last changes to files: what has a name belongs together, and the same command goes through."""
    env, n = faults(), path("n_calls")
    for to, source in (("q8", STORIES), ("int8", GPT2)):
        out, old, t = path("kill." + to), path("kill_old." + to), write("t.txt", TEXT)
        copy = shutil.copytree if to == "int8" else shutil.copyfile
        rm = lambda p: shutil.rmtree(p) if os.path.isdir(p) else os.path.exists(p) and os.remove(p)
        command = ["quantize", source, "--to", to, "-o", out, "--text", t, "--overwrite", "-q"]
        model = out if to == "q8" else os.path.join(out, "model.safetensors")
        sill("quantize", source, "--to", to, "-o", out, "--text", t, "-q")
        last = read("kill." + to + ".certificate.json")
        with open(model, "ab") as f:  # an output of another version: other bytes under the old certificate's hash
            f.write(b"\0")
        last = last.replace(json.loads(last)["after"]["sha256"].encode(), hashlib.sha256(open(model, "rb").read()).hexdigest().encode())
        copy(out, old)
        sill(*command, env={**env, "FAULTS_COUNT": n})
        calls, published = int(open(n).read()), set()
        for at in range(calls - 11, calls + 1):
            for f in os.listdir(work.name):
                if f.startswith("kill." + to):
                    rm(path(f))
            copy(old, out)
            write("kill." + to + ".certificate.json", last)
            sill(*command, status=-signal.SIGKILL, env={**env, "FAULTS_KILL": str(at)})
            there = os.path.exists(model), os.path.exists(out + ".certificate.json")
            published.add((os.path.exists(out + ".partial"), *there))
            if all(there):
                have = hashlib.sha256(open(model, "rb").read()).hexdigest()
                assert json.loads(read("kill." + to + ".certificate.json"))["after"]["sha256"] == have, (to, at, calls)
            if os.path.exists(out + ".old") and os.path.exists(model):  # what was replaced; said by name
                shutil.rmtree(out + ".old")
            sill(*command)
            ours = sorted(f for f in os.listdir(work.name) if f.startswith("kill." + to) and not f.endswith(".old"))
            assert ours == ["kill." + to, "kill." + to + ".certificate.json"], (to, at, ours)
            assert json.loads(read(ours[1]))["after"]["sha256"] == hashlib.sha256(open(model, "rb").read()).hexdigest()
        assert (False, True, False) in published, published  # renamed, its certificate not yet
    # A run between its last two steps has the lock on the output.
    write("l8.gguf", "new"), write("l8.gguf.certificate.partial", "its certificate")
    with open(path("l8.gguf"), "rb") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        r = q("--to", "q8", "-o", path("l8.gguf"), "--text", t, "--overwrite", status=2)
        assert "another run" in r.err and read("l8.gguf.certificate.partial") == b"its certificate", r.err
        assert not os.path.exists(path("l8.gguf.partial"))
    write("l8.gguf.logits.partial", "left")
    q("--to", "q8", "-o", path("l8.gguf"), "--text", t, "--overwrite")
    assert sorted(f for f in os.listdir(work.name) if f.startswith("l8")) == ["l8.gguf", "l8.gguf.certificate.json"]


def int8_is_no_source():
    int8("-o", path("i8"))
    for to in ("q8", "q4", "int8"):
        r = sill("quantize", path("i8"), "--to", to, "-o", path("i8.again"), "--text", write("t.txt", TEXT), "--force", status=1)
        assert "quantize the original" in r.err and not os.path.exists(path("i8.again")), r.err


def int8_leaves_one_quantization_config():
    """Of equal keys Python's json takes the last, sill the first: there is one, whatever the source says of none."""
    none = '"quantization_config": null'
    whole = open(os.path.join(GPT2, "config.json")).read()
    rest = whole[whole.index("{") + 1 :]
    end_of = whole.rindex("}")
    for i, text in enumerate((whole, "{" + none + "," + rest, whole[:end_of].rstrip() + ",\n  " + none + "\n}\n",
                              whole[:end_of].rstrip() + ', "quantization\\u005fconfig"\n: null , "n": [1, {"quantization_config": null}]}')):
        m = model_copy(f"config{i}")
        write(f"config{i}/config.json", text)
        int8("-o", path(f"config{i}.8"), model=m)
        pairs = json.loads(read(f"config{i}.8/config.json"), object_pairs_hook=lambda p: p)
        assert [k for k, _ in pairs].count("quantization_config") == 1, (i, pairs)
        ours, theirs = json.loads(read(f"config{i}.8/config.json")), json.loads(text)
        assert ours.pop("quantization_config")["load_in_8bit"] is True, ours
        theirs.pop("quantization_config", None)
        assert ours == theirs, (i, ours, theirs)


def int8_keeps_a_tokenizer_of_openais_names():
    m = model_copy("openai")
    model = json.loads(read("openai/tokenizer.json"))["model"]
    os.remove(m + "/tokenizer.json")
    vocab, merges = json.dumps(model["vocab"]), [x if isinstance(x, str) else " ".join(x) for x in model["merges"]]
    write("openai/encoder.json", vocab), write("openai/vocab.bpe", "#version: 0.2\n" + "\n".join(merges) + "\n")
    int8("-o", path("openai8"), model=m)
    assert read("openai8/vocab.json") == read("openai/encoder.json") and read("openai8/merges.txt") == read("openai/vocab.bpe")
    t = write("t.txt", TEXT)
    ids = [sill("tokenize", t, "-m", x, "-q").text() for x in (GPT2, m, path("openai8"))]
    assert ids[0] == ids[1] == ids[2] and len(ids[0]) > 100, ids
    write("openai/vocab.json", vocab), write("openai/merges.txt", "#version: 0.2\n")  # which are read first
    int8("-o", path("openai8"), "--overwrite", model=m)
    assert read("openai8/merges.txt") == read("openai/merges.txt")


def an_embedding_of_int8_is_refused():
    for source, name in ((GPT2, "transformer.wte.weight"), (LLAMA, "model.embed_tokens.weight")):
        m = model_copy("embed-" + os.path.basename(source), source)
        w = tensors_of(m + "/model.safetensors")
        rows, cols = w[name][1]
        w[name] = ("I8", [rows, cols], bytes(range(7)) * (rows * cols // 7) + b"\1" * (rows * cols % 7))
        w[name[:-6] + "SCB"] = ("F32", [rows], struct.pack("<f", 1.0) * rows)
        put_tensors(m + "/model.safetensors", w)
        r = sill("generate", "-m", m, "-q", "--max-new-tokens", "4", "a", status=1)
        assert name in r.err and "int8" in r.err, r.err


def three_limits():
    """A model of other words is refused by what else is measured, though its perplexity is allowed."""
    t = write("t.txt", TEXT)
    for more, says in ((["--max-kl", "0.000001"], "--max-kl"), (["--max-loss", "1000", "--min-agreement", "100"], "--min-agreement")):
        r = q("--to", "q4", "-o", path("k.gguf"), "--text", t, "--max-loss", "1000", *more, "--json", status=1)
        assert says in r.err and not r.objects()[0]["passed"] and not os.path.exists(path("k.gguf")), r.err
    q("--to", "q4", "-o", path("k.gguf"), "--text", t, "--max-kl", "0.000001", "--force", "--max-loss", "1000")
    c = json.loads(read("k.gguf.certificate.json"))
    assert c["forced"] and not c["passed"] and 0 < c["threshold_kl_mean"] < 0.00001 and c["threshold_top1_agreement"] == 0.6, c
    rows = write("kr.csv", "t\n" + "\n".join(TEXT.split("\n")) + "\n")
    r = q("--to", "q4", "-o", path("k2.gguf"), "--text", rows + ":t", "--labels", "happy,sad", "--max-loss", "1000",
          "--max-kl", "0.000001", "--max-changed", "100", status=1)
    assert "of 3 labels change" in r.err, r.err


def nothing_to_do_is_no_usage_error():
    t = write("t.txt", TEXT)
    q("--to", "q8", "-o", path("small.gguf"), "--text", t, "--overwrite")
    r = sill("quantize", path("small.gguf"), "--to", "q8", "-o", path("smaller.gguf"), "--text", t, status=1)
    assert "nothing in it becomes smaller" in r.err, r.err
    m = model_copy("mute")
    os.remove(m + "/tokenizer.json")
    for to in ("q8", "int8"):
        r = sill("quantize", m, "--to", to, "-o", path("mute.out"), "--text", t, status=1)
        assert "has no tokenizer" in r.err and "tokenizer.json" in r.err and "writing" not in r.err, r.err
    assert not [f for f in os.listdir(work.name) if f.startswith(("mute.out", "smaller"))]


def classifier(name, scale=1.0):
    """The fixture with a head, of as many tokens as the tokenizer has; the last norm of its layer times SCALE."""
    m = model_copy(name, os.path.join(FIXTURES, "task/head-gpt2"))
    shutil.copyfile(os.path.join(FIXTURES, "task/gpt2/tokenizer.json"), m + "/tokenizer.json")
    w, n_tokens = tensors_of(m + "/model.safetensors"), 340
    cols = w["transformer.wte.weight"][1][1]
    values = [(i * 7919 % 2003) / 1001 - 1 for i in range(n_tokens * cols)]
    w["transformer.wte.weight"] = ("F32", [n_tokens, cols], struct.pack(f"<{len(values)}f", *values))
    norm = [scale * x for x in struct.unpack(f"<{cols}f", w["transformer.h.0.ln_2.weight"][2])]
    w["transformer.h.0.ln_2.weight"] = ("F32", [cols], struct.pack(f"<{cols}f", *norm))
    put_tensors(m + "/model.safetensors", w)
    config = json.loads(read(f"{name}/config.json"))
    config["vocab_size"] = n_tokens
    write(f"{name}/config.json", json.dumps(config))
    return m


def a_classification_head():
    rows = write("rows3.csv", "t\nThe girl was happy.\nA dog ran home.\nThey played all day.\n")
    m = classifier("head")
    r = int8("-o", path("head8"), "--text", rows + ":t", "--json", model=m, status=1)  # three rows are no proof of 5 %
    assert "3 texts are to be labelled" in r.err and "73 rows" in r.err and not r.text(), r.err
    many = write("rows80.csv", "t\n" + "".join(f"The girl had {i} balls.\n" for i in range(80)))
    o = int8("-o", path("head8"), "--text", many + ":t", "--json", model=m).objects()[0]
    assert o["kept"] and o["passed"] and o["rows"] == 80 and o["changed"] == 0 and o["n_tokens"] == 0 and o["certainty"] == "high", o
    c = json.loads(read("head8.certificate.json"))
    assert c["labels"]["rows"] == 80 and c["text"]["texts"] == 80 and "perplexity" not in c, c
    r = int8("-o", path("head8b"), "--text", many + ":t", "--labels", "a,b", model=m, status=None)
    assert r.status and "its own labels" in r.err and not os.path.exists(path("head8b")), r.err


def rows_that_the_smaller_model_cannot_label():
    """The activations are too large for the half precision of int8's outliers, not for f32."""
    rows = write("rows3.csv", "t\nThe girl was happy.\nA dog ran home.\nThey played all day.\n")
    m = classifier("huge", 1e6)
    assert len(sill("classify", rows, "--text", "t", "-m", m, "--dtype", "f32", "-q", "--json").objects()) == 3
    for limit in (["--max-changed", "60"], ["--max-changed", "100"]):
        r = int8("-o", path("huge8"), "--text", rows + ":t", "--json", *limit, model=m, status=1)
        o = r.objects()[0]
        assert not o["kept"] and not o["passed"] and o["rows"] == o["changed"] == o["rows_lost"] == 3, o
        assert "cannot label 3 of 3 rows" in r.err and not [f for f in os.listdir(work.name) if f.startswith("huge8")], r.err
    r = int8("-o", path("huge8"), "--text", rows + ":t", "--json", "--force", model=m)
    c = json.loads(read("huge8.certificate.json"))
    assert r.objects()[0]["forced"] and not c["passed"] and c["forced"] and c["labels"]["lost"] == 3, c
    m = classifier("broken", float("nan"))  # neither labels anything
    r = int8("-o", path("broken8"), "--text", rows + ":t", "--json", "--max-changed", "100", model=m, status=1)
    o = r.objects()[0]
    assert not o["passed"] and o["rows"] == 0 and o["rows_failed"] == 3, o
    assert "nothing was compared" in r.err and not os.path.exists(path("broken8")), r.err


def a_column_without_texts():
    for name, text in (("h.csv", "text\n"), ("h.jsonl", '{"text":null}\n')):
        r = q("--to", "q8", "-o", path("h.gguf"), "--text", write(name, text) + ":text", status=2)
        assert "no text" in r.err and "writing" not in r.err and not [f for f in os.listdir(work.name) if f.startswith("h.gguf")], r.err


def names_of_outputs():
    t = write("t.txt", TEXT)
    r = sill("quantize", GPT2, "--to", "int8", "--text", t, "-o", path("slash//"))
    assert f"the certificate is {path('slash')}.certificate.json" in r.err and os.path.exists(path("slash.certificate.json")), r.err
    assert r.text().startswith(path("slash") + ": "), r.text()
    assert "-o OUT is needed" in q("--to", "q8", "-o", "", "--text", t, status=2).err


def json_has_what_the_text_has():
    o = q("--to", "q8", "-o", path("j.gguf"), "--text", write("t.txt", TEXT), "--json").objects()[0]
    c = json.loads(read("j.gguf.certificate.json"))
    for k, v in (("perplexity_before_se", c["perplexity"]["before"]["standard_error"]),
                 ("perplexity_after_se", c["perplexity"]["after"]["standard_error"]),
                 ("kl_mean_se", c["kl_divergence"]["standard_error"])):
        assert abs(o[k] - v) < 1e-9 * abs(v) + 1e-15 and v > 0, (k, o, c)
    assert o["forced"] is False and o["rows_failed"] == o["rows_lost"] == 0, o


for t in (writes_a_model_and_its_certificate, sample_text_is_in_the_program, few_tokens_are_said, labels_of_a_column, labels_have_a_limit, refuses_past_the_threshold,
          does_not_overwrite, wrong_usage, a_full_disk_is_an_error, a_disk_too_small_for_the_logits_is_told_first, an_interruption_leaves_nothing,
          a_directory_of_the_user_is_not_replaced, the_record_is_checked_before_work, what_is_read_is_never_the_output,
          two_runs_do_not_meet, a_kill_at_the_end_leaves_no_wrong_certificate, an_interruption_says_what_is_so, int8_is_no_source, int8_leaves_one_quantization_config,
          int8_keeps_a_tokenizer_of_openais_names, an_embedding_of_int8_is_refused,
          three_limits, nothing_to_do_is_no_usage_error, a_classification_head, rows_that_the_smaller_model_cannot_label,
          a_column_without_texts, names_of_outputs, json_has_what_the_text_has):
    test(t)
end()
