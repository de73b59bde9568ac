#!/usr/bin/env python3
"""The command line's contract without a model's numbers: help, usage errors, files that are missing or odd, exit statuses."""
import os
from clitest import *

COMMANDS = ["agree", "stability", "generate", "chat", "classify", "score", "embed", "perplexity", "tokenize", "detokenize", "inspect", "plan", "bench"]


def help_and_version():
    r = sill("help")
    assert all(f"\n  {c} " in r.text() for c in COMMANDS) and not r.err, r.text()
    assert sill("--help").out == r.out and sill("-h").out == r.out
    r = sill(status=2)
    assert not r.out and "usage: sill COMMAND" in r.err
    r = sill("--version")
    assert r.text().startswith("sill 0.") and r.text().count("\n") == 1


def help_of_every_command():
    for c in COMMANDS:
        r = sill("help", c)
        assert r.text().startswith(f"usage: sill {c} ") and "exit status: 0 done; 1 failed; 2 wrong usage" in r.text()
        assert not r.err and sill(c, "--help").out == r.out and sill(c, "-h").out == r.out
        assert all(len(line) <= 120 and line == line.rstrip() for line in r.text().split("\n")), c


def tables_are_read_alike():
    """What reads a table takes all that says how."""
    for c in COMMANDS + ["detokenize"]:
        text = sill("help", c).text()
        if "\ninput:\n" not in text:
            assert c in ("chat", "inspect", "plan", "bench"), c
            continue
        for option in ("--format FORMAT", "--encoding NAME", "--delimiter CHAR", "--max-row MIB"):
            assert text.count(f"  {option} ") == 1, (c, option, text)


def wrong_usage(*args, says):
    r = sill(*args, status=2)
    assert not r.out, f"{args}: {r.out!r} on standard output"
    assert says in r.err, f"{args}: {r.err!r} does not say {says!r}"


def unknown_names_get_a_suggestion():
    wrong_usage("clasify", says="did you mean classify?")
    wrong_usage("frobnicate", says="unknown command 'frobnicate'")
    wrong_usage("help", "scor", says="did you mean score?")
    wrong_usage("score", "--strid", "4", "x.csv", says="unknown option '--strid'; did you mean --stride?")
    wrong_usage("generate", "--max-new-token", "4", says="did you mean --max-new-tokens?")
    wrong_usage("generate", "--wibble", says="unknown option '--wibble'")
    wrong_usage("generate", "-z", says="unknown option '-z'")


def values_are_checked():
    for args, says in (
        (["generate", "--max-new-tokens"], "--max-new-tokens needs a value"),
        (["generate", "--max-new-tokens", "0", "x"], "a whole number from 1"),
        (["generate", "--max-new-tokens=ten", "x"], "--max-new-tokens is 'ten'"),
        (["generate", "--max-new-tokens=99999999999", "x"], "a whole number from 1"),
        (["generate", "--top-p", "1.5", "x"], "a number above 0 to 1"),
        (["generate", "--temperature", "0", "x"], "a number above 0"),
        (["generate", "--temperature", "nan", "x"], "a number above 0"),
        (["generate", "--temperature", "1e-50", "x"], "too small"),
        (["generate", "--min-p", "1e-400", "x"], "too small"),
        (["generate", "--seed", "-1", "x"], "a whole number from 0"),
        (["generate", "--greedy=yes", "x"], "--greedy takes no value"),
        (["generate", "--do-sample", "--greedy", "x"], "exclude each other"),
        (["generate", "--num-return-sequences", "2", "x"], "needs --do-sample or as many --num-beams"),
        (["generate", "--num-beams", "2", "--num-return-sequences", "3", "x"], "more than --num-beams 2"),
        (["generate", "--num-beams", "0", "x"], "from 1 to 1024"),
        (["generate", "--early-stopping", "yes", "x"], "one of: false, true, never"),
        (["chat", "--num-beams", "2"], "beams are whole at the end"),
        (["generate", "--logit-bias", "5", "x"], "ID=VALUE"),
        (["generate", "--logit-bias", "5=x", "x"], "ID=VALUE"),
        (["generate", "--stop", "", "x"], "--stop is empty"),
        (["generate", "--dtype", "f64", "x"], "one of: auto, f32, f16, bf16"),
        (["generate", "-f", "a.csv", "x"], "not both"),
        (["generate", "--text", "t", "x"], "need -f FILE"),
        (["score", "a.csv", "b.csv"], "one argument too many"),
        (["score"], "an argument is missing"),
        (["score", "--per", "letter", "a.csv"], "one of: text, token, word"),
        (["classify", "a.csv", "--labels", "one"], "at least two labels"),
        (["classify", "a.csv", "--labels", "a,,b"], "an empty label"),
        (["classify", "a.csv", "--labels", "a,b,a"], "'a' twice"),
        (["classify", "a.csv", "--labels", '"a,b"'], "at least two labels"),
        (["classify", "a.csv", "--labels", '"a","b'], "a quote that does not close"),
        (["classify", "a.csv", "--labels", '"a"x,b'], "between it and the comma"),
        (["classify", "a.csv", "--labels", 'a,"a"'], "'a' twice"),
        (["classify", "a.csv", "--labels", 'a,""'], "an empty label"),
        (["classify", "a.csv", "--labels", "a,b", "--prompt", "no place"], "no {text}"),
        (["chat", "hello"], "one argument too many"),
        (["plan", "a", "-m", "b"], "both name a model"),
        (["generate", "--num-return-sequences", "5000", "--do-sample", "x"], "a whole number from 1 to 4096"),
        (["generate", "--logit-bias", "5=inf", "x"], "ID=VALUE"),
        (["generate", "--logit-bias", "5=1e39", "x"], "ID=VALUE"),
        (["generate", "--logit-bias", "5=nan", "x"], "ID=VALUE"),
        (["generate", "--max-length", "1", "x"], "a whole number from 2"),
        (["generate", "--typical-p", "0", "x"], "a number above 0 to 1"),
        (["generate", "--min-new-tokens", "50", "x"], "more than the 20 new tokens"),
        (["generate", "--min-new-tokens", "5", "--max-length", "5", "x"], "do not fit --max-length 5"),
        (["chat", "--min-new-tokens", "257"], "more than the 256 new tokens"),
        (["score", "--ctx", "99999999999", "a.csv"], "a whole number from 1 to 16777216"),
        (["score", "-qz", "a.csv"], "unknown option '-z'"),
        (["score", "-q-v", "a.csv"], "--quiet takes no value"),
    ):
        wrong_usage(*args, says=says)
    out = sill("generate", "-m", STORIES, "--max-new-tokens", "4", "--min-new-tokens", "4", "--logit-bias", "5=-inf", "Once").out
    for args in (["-qv"], ["-vq"], ["-qvm", STORIES], [f"-qm{STORIES}"]):
        r = sill("generate", *args, *([] if "m" in args[0] else ["-m", STORIES]), "--max-new-tokens", "4", "Once")
        assert r.out == out and not r.err, (args, r.err)


def policies_in_the_help():
    for c, policies in (("generate", "error, truncate\n"), ("perplexity", "error, truncate, window (the default here)\n"),
                        ("score", "error, truncate, window (the default here), split-mean\n"),
                        ("classify", "error (the default here), truncate, window, split-mean\n"),
                        ("embed", "error (the default here), truncate, window, split-mean\n")):
        assert "".join(policies.split()) in "".join(sill(c, "--help").text().split()), c
    long = "word " * 600
    for args in (["classify", "--labels", "a,b"], ["generate", "-f"]):
        r = sill(*args, write("long.csv", f"text\n{long}\n"), "--text", "text", "-m", STORIES, status=3)
        assert "--long truncate" in r.err, r.err


def later_options_say_so():
    for shard in ("0/2", "3/2", "1", "1/", "/2", "1/2x", "x", "-1/2", "1/0", "1 /2"):
        wrong_usage("score", f"--shard={shard}", write("shard.csv", "text\na\n"), "--text", "text", says="it takes I/N")


def dashes():
    r = sill("generate", "-m", "nope", "--", "--not-an-option", status=1)
    assert "no model 'nope'" in r.err
    assert "no model 'nope'" in sill("generate", "-mnope", "x", status=1).err
    assert "no model 'nope'" in sill("generate", "--model=nope", "x", status=1).err


def models_that_are_not_there():
    env = {"SILL_CACHE": path("cache")}
    r = sill("generate", "x", status=1, env=env)
    assert not r.out and "make model" in r.err and "tools/fetch_model.sh" in r.err and path("cache/models") in r.err, r.err
    for c in (["tokenize", write("t.txt", "x\n")], ["score", path("t.txt")], ["perplexity", path("t.txt")], ["inspect"], ["plan"],
              ["chat"]):
        r = sill(*c, status=1, env=env)
        assert "make model" in r.err and not r.out, r.err
    r = sill("inspect", "-m", "gpt9", status=1, env=env)
    assert "no model 'gpt9'" in r.err and path("cache/models") in r.err


def model_names_in_the_cache():
    os.makedirs(path("cache2/models"), exist_ok=True)
    os.symlink(STORIES, path("cache2/models/stories.Q9.gguf"))
    for variables in ({"SILL_CACHE": path("cache2")},):
        for name in ("stories", "stories.Q9.gguf"):
            assert json.loads(sill("inspect", "--json", "-m", name, env=variables).text())["family"] == "llama"
    os.makedirs(path("xdg/sill"), exist_ok=True)
    os.symlink(path("cache2/models"), path("xdg/sill/models"))
    assert sill("inspect", "stories", env={"SILL_CACHE": "", "XDG_CACHE_HOME": path("xdg")}).status == 0


def files_that_are_not_models():
    for name, data in (("empty.gguf", b""), ("text.gguf", b"hello, this is not a model"), ("cut.gguf", open(STORIES, "rb").read()[:5000])):
        r = sill("generate", "-m", write(name, data), "x", status=1)
        assert name in r.err and not r.out, r.err
        sill("inspect", path(name), status=1)
        sill("plan", path(name), status=1)
    os.makedirs(path("dir"), exist_ok=True)
    assert "dir" in sill("generate", "-m", path("dir"), "x", status=1).err


def inputs_that_cannot_be_read():
    r = sill("score", path("none.csv"), "--text", "t", status=1)
    assert "none.csv" in r.err and "No such file" in r.err and not r.out
    assert "is a directory" in sill("score", path("."), "--format", "csv", "--text", "t", status=2).err
    wrong_usage("score", write("a.dat", "x"), says="cannot tell the format of")
    assert "is a spreadsheet; save it as CSV" in sill("score", write("a.XLSX", "PK"), "--text", "t", status=1).err
    wrong_usage("score", write("a.csv", "id,text\n1,x\n"), says="needs --text COLUMN")
    wrong_usage("score", path("a.csv"), "--text", "body", says="has no column 'body'; it has: id, text")
    wrong_usage("generate", "-f", path("a.csv"), "--text", "text", "--id", "key", says="has no column 'key'")
    wrong_usage("score", "-", "--text", "t", says="--format")
    wrong_usage("score", path("a.csv"), "--text", "text", "--delimiter", "ab", says="one character")
    assert "is empty" in sill("score", write("e.csv", ""), "--text", "t", status=1).err
    assert "UTF-16" in sill("score", write("u.csv", b"\xff\xfet\0\n\0"), "--text", "t", status=1).err
    assert "twice" in sill("score", write("d.csv", "t,t\n1,2\n"), "--text", "t", status=1).err


def outputs_that_cannot_be_written():
    a = write("a.csv", "id,text\n1,x\n")
    wrong_usage("tokenize", a, "--text", "text", "-o", write("there.csv", "mine"), says="--overwrite")
    assert read("there.csv") == b"mine"
    wrong_usage("tokenize", a, "--text", "text", "-o", path("o.xyz"), says=".csv, .tsv or .jsonl")
    r = sill("tokenize", a, "--text", "text", "-m", STORIES, "-o", path("no/such/dir.csv"), status=1)
    assert "no directory" in r.err and "make it" in r.err and path("no/such") in r.err and ".lock" not in r.err, r.err
    if os.path.exists("/dev/full"):
        with open("/dev/full", "wb") as full:
            p = subprocess.run([SILL, "tokenize", a, "--text", "text", "-m", STORIES], stdout=full, stderr=subprocess.PIPE)
            assert p.returncode == 1 and b"No space left" in p.stderr, (p.returncode, p.stderr)
            p = subprocess.run([SILL, "help"], stdout=full, stderr=subprocess.PIPE)
            assert p.returncode == 1, p.returncode
            p = subprocess.run([SILL, "generate", "--help"], stdout=full, stderr=subprocess.PIPE)
            assert p.returncode == 1 and b"standard output" in p.stderr, p.returncode


def what_would_not_fit():
    r = sill("generate", "-m", STORIES, "--memory", "1", "x", status=4)
    assert "MiB" in r.err and not r.out
    t = write("t.txt", "x\n")
    assert "n_ctx" in sill("score", t, "-m", STORIES, "--memory", "2", status=4).err
    r = sill("plan", STORIES, "--memory", "2", "--json", status=4)
    p = r.objects()[0]
    assert p["fits"] is False and p["advice"] and p["total_bytes"] > 2 << 20 and p["available_bytes"] == 2 << 20, p
    wrong_usage("plan", STORIES, "--ctx", "100000", says="512")


def plan_and_inspect():
    p = sill("plan", STORIES, "--json").objects()[0]
    assert list(p) == ["model", "weight_bytes", "kv_bytes", "scratch_bytes", "total_bytes", "available_bytes", "n_ctx", "batch_tokens",
                       "max_sequences", "fits", "advice", "device", "passed_over"], list(p)
    assert p["fits"] is True and p["total_bytes"] >= p["weight_bytes"] + p["kv_bytes"] and p["n_ctx"] == 512
    size = ["--ctx", "512", "--max-sequences", "1"]
    kv = {d: sill("plan", STORIES, *size, "--kv-dtype", d, "--json").objects()[0]["kv_bytes"] for d in ("f32", "f16", "int8")}
    blocks = 512 // 32 + 2  # and those of a fork
    # 5 layers, 4 kv heads of 8; values are kept in rows of 16; int8 adds 8 bytes to a key, 4 to a value
    want = {d: 5 * 4 * blocks * 32 * (n * (8 + 16) + more) for d, n, more in (("f32", 4, 0), ("f16", 2, 0), ("int8", 1, 12))}
    assert kv == want, (kv, want)
    texts = [sill("generate", "-m", STORIES, "--kv-dtype", d, "--max-new-tokens", "40", "Once upon a time").out for d in ("auto", "f16", "int8")]
    assert texts[1][:60] == texts[0][:60] and texts[2][:60] == texts[0][:60], texts
    wrong_usage("generate", "-m", STORIES, "--kv-dtype", "int4", "x", says="auto, f32, f16, int8")
    t = sill("plan", "-m", STORIES).text()
    assert "weights" in t and "fits" in t and t.count("\n") >= 6
    i = json.loads(sill("inspect", STORIES, "--json").text())
    assert i["family"] == "llama" and i["n_layers"] == 5 and i["n_vocab"] == 512, i
    assert "family                   llama\n" in sill("inspect", "-m", STORIES).text()


for t in (help_and_version, help_of_every_command, tables_are_read_alike, unknown_names_get_a_suggestion, values_are_checked, policies_in_the_help, later_options_say_so, dashes,
          models_that_are_not_there, model_names_in_the_cache, files_that_are_not_models, inputs_that_cannot_be_read,
          outputs_that_cannot_be_written, what_would_not_fit, plan_and_inspect):
    test(t)
end()
