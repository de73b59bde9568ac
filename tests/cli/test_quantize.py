#!/usr/bin/env python3
"""`sill quantize`: exit statuses, what is written and what is left alone."""
import hashlib
import signal
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


def labels_of_a_column():
    f = write("rows.csv", "id,t\n1,She had a red ball.\n2,The dog was very sad.\n3,\n4,A happy bird\n")
    r = q("--to", "q8", "-o", path("l.gguf"), "--text", f + ":t", "--labels", "happy, sad", "--json", "-q", "--max-loss", "100")
    o = r.objects()[0]
    assert o["rows"] == 4 and 0 <= o["changed"] <= 4 and o["alpha"] is not None, o
    labels = json.loads(read("l.gguf.certificate.json"))["labels"]
    ours = []
    for m, more in ((STORIES, ["--dtype", "f32"]), (path("l.gguf"), [])):
        rows = sill("classify", f, "--text", "t", "--labels", "happy,sad", "-m", m, *more, "-q", "--json").objects()
        ours.append([x["label"] for x in rows])
    assert labels["changed"] == sum(a != b for a, b in zip(*ours)), (labels, ours)


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
                       (["--to", "q8", "-o", path("w"), "--max-loss", "-1"], "--max-loss")):
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


for t in (writes_a_model_and_its_certificate, sample_text_is_in_the_program, labels_of_a_column, refuses_past_the_threshold,
          does_not_overwrite, wrong_usage, a_full_disk_is_an_error, an_interruption_leaves_nothing):
    test(t)
end()
