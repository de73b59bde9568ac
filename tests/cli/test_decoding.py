#!/usr/bin/env python3
"""How the next token is chosen, from the command line: processors that work on single tokens, beams."""
import re

from clitest import *

M = ["-m", STORIES]


def ids(*args, prompt="Once upon a time", n=8):
    o, = sill("generate", *M, "--json", "--max-new-tokens", n, *args, prompt).objects()
    assert o["error"] in (None, ""), o
    return o["ids"]


def processors_of_tokens():
    plain = ids()
    first, second = plain[:2]
    never = ids("--suppress-tokens", f"{first},{second}", "--suppress-tokens", "0")
    assert first not in never and second not in never
    begin = ids("--begin-suppress-tokens", first)
    assert begin[0] != first
    assert begin == ids("--begin-suppress-tokens", f"{first},{first}")
    assert ids("--logit-bias", f"{first}=-inf")[0] == begin[0]
    # A bias of what follows the first token leaves that one alone; behind another it does nothing.
    last = ids("--logit-bias", f"{first}:{second}=-inf")
    assert last[0] == first and last[1] != second
    assert ids("--logit-bias", f"{first}:{first}:{second}=-inf", "--logit-bias", f"{first}=0") == plain
    forced = ids("--logit-bias", f"{first}:77=1000", "--logit-bias", f"{first}:77:78=1000")
    assert forced[:3] == [first, 77, 78], forced


def an_end_is_kept_away():
    prompt_ids = len(sill("tokenize", *M, "--json", write("a.txt", "Once upon a time\n")).objects()[0]["ids"]) + 1 # BOS
    short = ids("--logit-bias", "2=1000")
    assert short == [2]
    assert ids("--logit-bias", "2=1000", "--min-length", prompt_ids + 4)[4:] == [2]
    assert ids("--logit-bias", "2=1000", "--min-length", prompt_ids) == short
    assert ids("--logit-bias", "2=1000", "--min-length", "100", "--min-new-tokens", "3")[3:] == [2]


def beams():
    beam = ["--num-beams", "4", "--max-new-tokens", "12"]
    r = sill("generate", *M, *beam, "--num-return-sequences", "3", "--json", "Once upon a time").objects()
    assert [o["sequence"] for o in r] == [0, 1, 2] and r[0]["score"] >= r[1]["score"] >= r[2]["score"], r
    assert len({tuple(o["ids"]) for o in r}) == 3
    for o in r:  # the mean log-probability: nothing is processed here
        assert abs(o["score"] - sum(o["logprobs"]) / len(o["ids"])) < 1e-5, o
    assert sill("generate", *M, *beam, "Once upon a time").text() == r[0]["text"] + "\n"
    summed = sill("generate", *M, *beam, "--length-penalty", "0", "--json", "Once upon a time").objects()[0]
    assert abs(summed["score"] - sum(summed["logprobs"])) < 1e-5
    for args in (["--early-stopping", "true"], ["--early-stopping", "never", "--length-penalty", "2"], ["--do-sample"], ["--stop", "."],
                 ["--no-repeat-ngram-size", "2", "--repetition-penalty", "1.3", "--logprobs", "2"]):
        rows = write("rows.csv", "text\n" + "".join(f"{'Once upon a time ' * (i % 3)}{i}\n" for i in range(9)))
        common = ["generate", *M, *beam, *args, "-f", rows, "--text", "text"]
        a = sill(*common)
        assert len(a.rows()) == 9 and all(not o["error"] and o["score"] for o in a.rows()), a.rows()
        assert a.out == sill(*common, "--max-sequences", "4", "--batch-tokens", "7", "--threads", "1").out, args
        assert all("." not in o["text"] for o in a.rows()) or "--stop" not in args
    r = sill("generate", *M, *beam, "--max-sequences", "3", "x", status=1)
    assert "num_beams is 4" in r.err and "room for 3" in r.err, r.err


def guessed_tokens():
    texts = ["The cat saw a dog. The dog saw a cat. The cat saw a dog. The", "Once upon a time", "They played and played and played and"]
    file = write("guess.csv", "id,text\n" + "".join(f"{i},{t}\n" for i, t in enumerate(texts * 3)))
    ways = (["--prompt-lookup-num-tokens", "10"], ["--prompt-lookup-num-tokens", "4", "--max-matching-ngram-size", "3"],
            ["--draft-model", STORIES], ["--draft-model", STORIES, "--num-assistant-tokens", "2", "--max-sequences", "16", "--batch-tokens", "40"])
    for args in (["--max-new-tokens", "40"], ["--max-new-tokens", "30", "--do-sample", "--temperature", "0.7", "--seed", "3", "--stop", "was"],
                 ["--do-sample", "--num-return-sequences", "2", "--logprobs", "2"], ["--regex", "( [a-z]+){3}\\.", "--max-new-tokens", "30"]):
        plain = sill("generate", *M, *args, "-f", file, "--text", "text", "--id", "id")
        one = sill("generate", *M, *args, texts[0])
        for way in ways:
            r = sill("generate", *M, *args, *way, "-f", file, "--text", "text", "--id", "id")
            assert r.out == plain.out, (args, way)
            right, tried = map(int, re.search(r"(\d+) of (\d+) tokens that were tried were right", r.err).groups())
            assert 0 < right <= tried and (right == tried or "--stop" in args or "--draft-model" not in way), (args, way, r.err)
            assert sill("generate", *M, *args, *way, texts[0]).out == one.out
    # A run goes on, and its record is verified, with guesses or without: no result depends on them.
    out = path("guess_out.csv")
    sill("generate", *M, "-f", file, "--text", "text", "--draft-model", STORIES, "-o", out)
    assert "is finished" in sill("generate", *M, "-f", file, "--text", "text", "-o", out).err
    sill("verify", out)
    for args, says, status in ((["--draft-model", STORIES, "--prompt-lookup-num-tokens", "2"], "exclude each other", 2),
                               (["--max-matching-ngram-size", "2"], "is for --prompt-lookup-num-tokens", 2), (["--num-assistant-tokens", "2"], "is for --draft-model", 2),
                               (["--prompt-lookup-num-tokens", "2", "--num-beams", "2"], "not for beams", 2),
                               (["--prompt-lookup-num-tokens", "0"], "from 1 to 1024", 2), (["--draft-model", "no/such"], "no/such", 1),
                               (["--draft-model", os.path.join(FIXTURES, "task/gpt2")], "another vocabulary", 1),
                               (["--draft-model", STORIES, "--memory", "12"], "allowed", 4),
                               (["--prompt-lookup-num-tokens", "2", "--max-sequences", "1"], "has no room for guessed tokens", 1)):
        r = sill("generate", *M, *args, "x", status=None)
        assert r.status == status and says in r.err, (args, r.status, r.err)


def refusals():
    for args, says in ((["--suppress-tokens", "a"], "token ids"), (["--suppress-tokens", ""], "token ids"),
                       (["--suppress-tokens", "1,"], "token ids"), (["--suppress-tokens", "-1"], "token ids"),
                       (["--begin-suppress-tokens", "1 2"], "token ids"), (["--suppress-tokens", "99999"], "are 0 to 511"),
                       (["--begin-suppress-tokens", "512"], "are 0 to 511"), (["--logit-bias", "5:=1"], "ID=VALUE"),
                       (["--logit-bias", ":5=1"], "ID=VALUE"), (["--logit-bias", "5:6"], "ID=VALUE"),
                       (["--logit-bias", "5:512=1"], "are 0 to 511"), (["--logit-bias", "5:6=nan"], "ID=VALUE")):
        r = sill("generate", *M, *args, "x", status=2)
        assert says in r.err and not r.out, (args, r.err)


for t in (processors_of_tokens, an_end_is_kept_away, beams, guessed_tokens, refusals):
    test(t)
end()
