#!/usr/bin/env python3
"""`sill chat`: turns that cannot be answered are refused alone, lengths are what the options say, the help says the same."""
import re
from clitest import *

M = ["-m", os.path.join(FIXTURES, "task/gpt2")]


def chat(text, *args, status=0):
    return sill("chat", *M, *args, stdin=text.encode(), status=status)


def a_turn_that_is_too_long():
    n_ctx = json.loads(sill("inspect", *M, "--json").text())["n_ctx"]
    args = ["--max-new-tokens", "6"]
    long = "word " * 2 * n_ctx
    alone = chat("Hello\nHello\n", *args)
    assert alone.out.count(b"\n") >= 2 and not alone.err, alone
    r = chat(f"Hello\n{long}\nHello\n", *args, status=3)
    assert r.out == alone.out, (r.out, alone.out)  # taken back, and no turn before it was dropped for it
    assert "oldest turn" not in r.err, r.err
    m = re.search(rf"this turn has about (\d+) tokens; it may have (\d+), .* is left of {n_ctx}", r.err)
    assert m and int(m[1]) > n_ctx > int(m[2]) > 0, r.err
    most = int(m[2])
    for words, fits in ((most - 2, True), (most + 2, False)):  # a token for each, in this vocabulary, or nearly
        text = "a" * words
        n = len(sill("tokenize", "-", *M, "--json", stdin=text.encode() + b"\n").objects()[0]["ids"])
        r = chat(text + "\n", *args, status=None)
        assert (r.status == 0) == (n <= most), (n, most, r.status, r.err)


def a_turn_with_nul():
    r = chat("Hello\nHel\0lo\n/exit\0 or not\nHello\n", "--max-new-tokens", "6", status=3)
    assert r.out == chat("Hello\nHello\n", "--max-new-tokens", "6").out and r.err.count("NUL") == 2, r.err


def max_length_counts_the_conversation():
    out = {n: chat("Hello\n", "--ignore-eos", *n.split()).out.rstrip(b"\n")[:-4] for n in  # the end may be half a character
           ("--max-new-tokens 60", "--max-length 130", "--max-length 110", "--max-length 110 --max-new-tokens 60")}
    free, short, less, both = out.values()
    assert free.startswith(short) and short.startswith(less) and 0 < len(less) < len(short) < len(free), out
    assert both == free  # as everywhere, --max-new-tokens wins
    r = chat("Hello\n" * 4, "--max-length", "150", "--ignore-eos")
    assert "longer than 150 tokens; its oldest turn is left out" in r.err and r.out.count(b"\n") >= 4, r.err


def the_help_agrees():
    text = sill("chat", "--help").text()
    assert "(default 256)" in text and "default 20" not in text and "--num-return-sequences" not in text, text
    assert "(default 20)" in sill("generate", "--help").text()
    assert "a turn has one answer" in chat("", "--num-return-sequences", "2", "--do-sample", status=2).err


for fn in (a_turn_that_is_too_long, a_turn_with_nul, max_length_counts_the_conversation, the_help_agrees):
    test(fn)
end()
