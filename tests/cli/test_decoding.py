#!/usr/bin/env python3
"""How the next token is chosen, from the command line: processors that work on single tokens."""
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


def refusals():
    for args, says in ((["--suppress-tokens", "a"], "token ids"), (["--suppress-tokens", ""], "token ids"),
                       (["--suppress-tokens", "1,"], "token ids"), (["--suppress-tokens", "-1"], "token ids"),
                       (["--begin-suppress-tokens", "1 2"], "token ids"), (["--suppress-tokens", "99999"], "are 0 to 511"),
                       (["--begin-suppress-tokens", "512"], "are 0 to 511"), (["--logit-bias", "5:=1"], "ID=VALUE"),
                       (["--logit-bias", ":5=1"], "ID=VALUE"), (["--logit-bias", "5:6"], "ID=VALUE"),
                       (["--logit-bias", "5:512=1"], "are 0 to 511"), (["--logit-bias", "5:6=nan"], "ID=VALUE")):
        r = sill("generate", *M, *args, "x", status=2)
        assert says in r.err and not r.out, (args, r.err)


for t in (processors_of_tokens, an_end_is_kept_away, refusals):
    test(t)
end()
