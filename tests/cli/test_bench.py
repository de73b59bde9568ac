#!/usr/bin/env python3
"""sill bench: its three forms can be read and say the same things, its options are checked. No speed is asserted."""
import hashlib, os, shutil
from clitest import *

QUICK = ["-m", STORIES, "-q", "--reps", "1", "--batches", "1,3", "--n-prompt", "8", "--n-gen", "12", "--n-prefill", "40", "--n-texts", "5"]
FIELDS = ["test", "model", "device", "dtype", "threads", "batch", "n_prompt", "n_gen", "value", "unit", "mean", "spread", "reps",
          "tokens_per_s", "bandwidth_share", "peak_share", "commit", "version", "machine", "model_sha256"]
TESTS = ["load", "first_token", "read_small_pages", "read_huge_pages", "barrier", "prefill", "decode", "classify_labels",
         "first_token_process", "first_token_memory", "memory_weights", "memory_kv", "memory_planned", "memory_peak"]


def jsonl_has_every_test_and_field():
    rows = sill("bench", *QUICK, "--threads", "2", "-o", "jsonl").objects()
    assert all(list(r) == FIELDS for r in rows), rows[0]
    names = [r["test"] for r in rows]
    assert [n for n in dict.fromkeys(names) if not n.startswith("peak_")] == TESTS, names
    assert [r["batch"] for r in rows if r["test"] == "decode"] == [1, 3]
    with open(STORIES, "rb") as f:
        sha = hashlib.sha256(f.read()).hexdigest()
    commit = sill("--version").text().split("(")[1].rstrip(")\n")
    for r in rows:
        assert r["model"] == "stories260K.gguf" and r["model_sha256"] == sha and r["commit"] == commit and r["threads"] == 2, r
        assert r["dtype"] == "f32" and "cores" in r["machine"] and r["device"].startswith("cpu"), r
        if r["test"] != "decode":  # a difference of two times, which on a busy machine may come out below zero
            assert r["value"] > 0 and r["unit"] in ("s", "GB/s", "Gop/s", "ns", "tokens/s", "texts/s", "MiB"), r
    prefill = next(r for r in rows if r["test"] == "prefill")
    assert (prefill["n_prompt"], prefill["n_gen"], prefill["tokens_per_s"]) == (40, 1, prefill["value"]), prefill
    memory = {r["test"]: r["value"] for r in rows}
    assert 1 < memory["memory_weights"] < memory["memory_planned"] < 200 and 1 < memory["memory_peak"] < 400, memory


def csv_and_markdown_and_files():
    only = [*QUICK, "--tests", "prefill,decode,classify", "--no-limits"]
    rows = sill("bench", *only, "--format", "csv").rows()
    assert [r["test"] for r in rows] == ["prefill", "decode", "decode", "classify_labels"] and list(rows[0]) == FIELDS
    assert all(r["bandwidth_share"] == r["peak_share"] == "" for r in rows), rows
    sill("bench", *only, "-o", path("b.csv"))
    assert read("b.csv").decode().split("\n")[0] == ",".join(FIELDS) and read("b.csv").count(b"\n") == 5
    r = sill("bench", *only, "-o", path("b.csv"), status=2)
    assert "exists; --overwrite replaces it" in r.err
    sill("bench", *only, "-o", path("b.csv"), "--overwrite")
    lines = sill("bench", *only).text().split("\n")
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 6 and all(line.count("|") == 10 for line in table), table
    assert lines[0].startswith("stories260K.gguf, f32 on cpu") and table[2].startswith("| prefill | 1 | 40 | 1 | ")


def asked_sizes_are_measured_or_refused():
    """A context of 512: what does not fit is refused with the numbers, not measured smaller."""
    only = ["-m", STORIES, "-q", "--no-limits", "--reps", "1", "--batches", "1", "-o", "jsonl"]
    r = sill("bench", *only, "--tests", "decode", "--n-prompt", "600", "--n-gen", "4", status=2)
    assert "600" in r.err and "604" in r.err and "512" in r.err and not r.text(), r.err
    assert "--n-prefill 512" in sill("bench", *only, "--tests", "prefill", "--n-prefill", "512", status=2).err
    assert "--n-prompt 512" in sill("bench", *only, "--tests", "start", "--n-prompt", "512", status=2).err
    rows = sill("bench", *only, "--tests", "prefill,decode", "--n-prompt", "500", "--n-gen", "12").objects()
    assert [(r["n_prompt"], r["n_gen"]) for r in rows] == [(511, 1), (500, 12)], rows
    assert all(r["reps"] == 1 and r["spread"] is None for r in rows if r["test"] != "decode"), rows
    rows = sill("bench", *only, "--tests", "memory").objects()
    assert [r["test"] for r in rows if r["test"].startswith("memory")] == TESTS[-4:], rows
    rows = sill("bench", *only, "--tests", "prefill", "--reps", "2").objects()
    assert rows[0]["spread"] >= 0, rows


def nothing_is_lost():
    """A file that is replaced stays whole until all is measured; a failure leaves nothing; the model is never replaced."""
    where = path("lost")
    os.mkdir(where)
    out, link, model = (os.path.join(where, n) for n in ("old.csv", "link.csv", "me.gguf"))
    shutil.copy(STORIES, model)
    with open(out, "w") as f:
        f.write("precious")
    os.chmod(out, 0o640)
    os.symlink("old.csv", link)
    only = ["-q", "--no-limits", "--reps", "1", "--batches", "1", "--tests", "decode"]
    fits, names = ["--n-prompt", "4", "--n-gen", "4"], sorted(os.listdir(where))
    for args, status in ((["-m", path("none.gguf"), *fits], 1), (["-m", STORIES, "--n-prompt", "600"], 2)):
        sill("bench", *args, *only, "-o", out, "--overwrite", status=status)
        sill("bench", *args, *only, "-o", os.path.join(where, "new.csv"), status=status)
        assert sorted(os.listdir(where)) == names and open(out).read() == "precious", (args, os.listdir(where))
    r = sill("bench", "-m", model, *fits, *only, "-o", model, "--overwrite", status=2)
    assert "is the model itself" in r.err and open(model, "rb").read() == open(STORIES, "rb").read(), r.err
    words = os.path.join(where, "gpt2")
    shutil.copytree(os.path.join(FIXTURES, "model/gpt2-one"), words)
    before = open(os.path.join(words, "config.json"), "rb").read()
    r = sill("bench", "-m", words, *fits, *only, "-o", os.path.join(words, "config.json"), "--overwrite", status=2)
    assert "is a file that is read with the model" in r.err, r.err
    assert open(os.path.join(words, "config.json"), "rb").read() == before
    assert "is a directory" in sill("bench", "-m", model, *only, "-o", words, "--overwrite", status=2).err
    shutil.rmtree(words)
    sill("bench", "-m", model, *fits, *only, "-o", link, "--overwrite")
    assert sorted(os.listdir(where)) == names and os.path.islink(link), os.listdir(where)
    assert open(out).readline() == ",".join(FIELDS) + "\n" and os.stat(out).st_mode & 0o777 == 0o640
    sill("bench", "-m", model, *fits, *only, "-o", "/dev/null", "--overwrite")
    assert os.path.exists("/dev/null") and not os.path.isfile("/dev/null")


def words_that_are_no_form():
    """A bare word is a form; one that is none is no file by accident."""
    where = path("words")
    os.mkdir(where)
    only = ["-m", STORIES, "-q", "--no-limits", "--reps", "1", "--batches", "1", "--n-prompt", "4", "--n-gen", "4", "--tests", "decode"]
    for word in ("xml", "CSV", "results"):
        r = sill("bench", *only, "-o", word, status=2, cwd=where)
        assert f"-o {word} is none of md, csv, jsonl" in r.err and not os.listdir(where), r.err
    sill("bench", *only, "-o", "xml", "--format", "csv", cwd=where)
    sill("bench", *only, "-o", "./table", cwd=where)
    with open(os.path.join(where, "xml")) as x, open(os.path.join(where, "table")) as t:
        assert x.readline() == ",".join(FIELDS) + "\n" and t.readline().startswith("stories260K.gguf, f32")


def head_and_no_tokenizer():
    """A classification head is measured as such, and what needs words is left out, or refused when asked for."""
    m = ["-m", os.path.join(FIXTURES, "model/gpt2-class"), "-q", "--reps", "1", "--no-limits", "--n-texts", "3"]
    names = [r["test"] for r in sill("bench", *m, "-o", "jsonl").objects()]
    assert names == ["load", "classify_head"], names
    r = sill("bench", *m, "--tests", "decode", status=2)
    assert "it has a classification head" in r.err
    m[1] = os.path.join(FIXTURES, "model/gpt2-one")
    names = [r["test"] for r in sill("bench", *m, "--batches", "2", "--n-prompt", "4", "--n-gen", "4", "-o", "jsonl").objects()]
    assert names == ["load", "first_token", "prefill", "decode"] + TESTS[-4:], names
    assert "it has no tokenizer" in sill("bench", *m, "--tests", "process", status=2).err


def a_forced_device_is_said():
    r = sill("bench", *QUICK, "--tests", "prefill", "-o", "jsonl", "--no-limits", env={"SILL_CPU_ISA": "scalar"}).objects()
    assert [x["device"] for x in r] == ["cpu scalar"], r
    r = sill("bench", *QUICK, "--tests", "limits,prefill", "-o", "jsonl", env={"SILL_CPU_ISA": "scalar"}).objects()
    assert not [x for x in r if x["test"].startswith("peak_")] and [x["peak_share"] for x in r if x["test"] == "prefill"] == [None], r
    r = sill("bench", *QUICK, "--tests", "prefill", "-o", "jsonl", "--device", "ref", "--no-limits").objects()
    assert [(x["device"], x["peak_share"]) for x in r] == [("ref", None)], r


def beside_a_gpu():
    """A GPU's rows stand beside what all cores read, not beside the one thread that feeds it, nor the plainest code; and
    one text that somebody waits for is measured with the kernels that it takes."""
    if os.environ.get("CONFIG", "release") in ("sanitize", "tsan"):
        raise Skip("a sanitizer moves the stacks that the fake Metal tells threads' memory by")
    library = os.path.abspath(os.path.join(BUILD, "libfakemetal.so"))
    if not os.path.exists(library):
        raise Skip("no fake Metal in this build (make tests)")
    env = {"SILL_METAL_LIBRARY": library, "SILL_FIRST_USE_CHECK": "0", "SILL_METAL_CACHE": "0"}
    only = ["-m", STORIES, "-q", "--reps", "1", "--tests", "limits", "--ctx", "64"]
    limits = lambda *device: [r["test"] for r in sill("bench", *only, "-o", "jsonl", *device, env=env).objects()]
    on_cpu, on_gpu = limits("--device", "cpu"), limits("--device", "metal")
    assert on_gpu == on_cpu and on_cpu[:2] == TESTS[2:4], (on_gpu, on_cpu)
    only = ["-m", STORIES, "-q", "--reps", "1", "--no-limits", "--tests", "decode", "--batches", "1,2", "--n-prompt", "4", "--n-gen", "4"]
    decoded = lambda device: [(r["test"], r["batch"]) for r in sill("bench", *only, "-o", "jsonl", "--device", device, env=env).objects()]
    assert decoded("cpu") == [("decode", 1), ("decode", 2)], decoded("cpu")
    assert decoded("metal") == [("decode", 1), ("decode", 2), ("decode_interactive", 1)], decoded("metal")


def bad_options():
    for args, says in (
        (["--tests", "decode,speed"], "--tests has 'speed'; there are: limits"),
        (["--tests", ""], "--tests has ''"),
        (["--batches", "1,x"], "--batches is '1,x'"),
        (["--batches", "0"], "from 1 to 1024"),
        (["--batches", ",".join("1" * 17)], "more than 16 numbers"),
        (["--reps", "0"], "--reps is '0'"),
        (["--n-gen", "1"], "--n-gen is '1'"),
        (["--format", "xml"], "one of: auto, md, csv, jsonl"),
        (["-o", "csv", "--format", "md"], "exclude each other"),
        (["model.gguf"], "one argument too many"),
        (["--dtype", "f64"], "one of: auto"),
    ):
        r = sill("bench", *args, status=2)
        assert not r.out and says in r.err, f"{args}: {r.err!r}"
    r = sill("bench", "-m", path("none.gguf"), status=1)
    assert not r.out and "no model" in r.err
    r = sill("bench", *QUICK, "-o", path("no/such/place.csv"), status=1)
    assert "cannot write" in r.err


for fn in (jsonl_has_every_test_and_field, csv_and_markdown_and_files, asked_sizes_are_measured_or_refused, nothing_is_lost,
           words_that_are_no_form, head_and_no_tokenizer, a_forced_device_is_said, beside_a_gpu, bad_options):
    test(fn)
end()
