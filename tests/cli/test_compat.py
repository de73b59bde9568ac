#!/usr/bin/env python3
"""--compat: the defaults of transformers' pipelines where nothing is given, and only there; exit codes."""
import shutil
from clitest import *

GPT2 = os.path.join(FIXTURES, "task/gpt2")
S = ["-m", STORIES, "--seed", "3"]


def model(name, generation=None, **config):
    """A copy of the small instruct GPT-2 with these files."""
    if os.path.exists(path(name)):
        shutil.rmtree(path(name))
    shutil.copytree(GPT2, path(name))
    with open(os.path.join(path(name), "config.json")) as f:
        config = {**json.load(f), **config}
    write(f"{name}/config.json", json.dumps(config))
    os.remove(path(f"{name}/generation_config.json"))
    if generation is not None:
        write(f"{name}/generation_config.json", json.dumps(generation))
    return ["-m", path(name), "--seed", "3"]


def generate(m, *args, status=0, prompt="Once"):
    r = sill("generate", *m, *args, "--json", prompt, status=status)
    return [(o["ids"], o["seed"]) for o in r.objects()] if status == 0 else r


def defaults_of_the_pipeline():
    ours = ["--max-new-tokens", "256", "--do-sample", "--temperature", "0.7"]
    for name in ("hf-4", "hf-5"):
        got = generate(S, "--compat", name)
        assert got == generate(S, *ours) and got[0][1] == 3 and 20 < len(got[0][0]) <= 256, got
        plain = sill("generate", *S, "--compat", name, "Once")
        assert plain.err == "" and plain.out == sill("generate", *S, *ours, "Once").out
    assert generate(S, "--compat", "none") == generate(S) and len(generate(S)[0][0]) == 20


def files_of_the_model():
    g = {"temperature": 0.3, "top_k": 4, "repetition_penalty": 1.5, "transformers_version": "4.26.0"}
    m = model("files", g, task_specific_params={"text-generation": {"do_sample": True, "max_length": 50, "top_k": 3}})
    common = ["--do-sample", "--repetition-penalty", "1.5", "--ignore-eos"]
    assert len(generate(m, "--compat", "hf-5", "--ignore-eos", "--max-new-tokens", "40")[0][0]) == 40
    for n in (["--max-new-tokens", "30"], ["--max-length", "30"]):
        five = generate(m, "--compat", "hf-5", "--ignore-eos", *n)
        four = generate(m, "--compat", "hf-4", "--ignore-eos", *n)
        assert five == generate(m, *common, "--temperature", "0.3", "--top-k", "4", *n)
        assert four == generate(m, *common, "--temperature", "0.7", "--top-k", "3", *n)
        assert four != five
    m = model("length", {"max_length": 24})
    assert generate(m, "--compat", "hf-5", "--ignore-eos") == generate(m, "--max-length", "24", "--do-sample", "--temperature", "0.7",
                                                                     "--ignore-eos")


def what_is_given_wins():
    m = model("given", {"temperature": 0.3, "top_k": 4, "top_p": 0.5, "min_p": 0.9, "typical_p": 0.25, "epsilon_cutoff": 0.9,
                        "eta_cutoff": 0.9, "repetition_penalty": 1.5, "no_repeat_ngram_size": 1, "min_new_tokens": 7, "max_length": 99,
                        "max_new_tokens": 12, "num_return_sequences": 2})
    given = ["--do-sample", "--temperature", "1.5", "--top-k", "0", "--top-p", "1", "--min-p", "0", "--typical-p", "1", "--epsilon-cutoff",
             "0", "--eta-cutoff", "0", "--repetition-penalty", "1", "--no-repeat-ngram-size", "0", "--min-new-tokens", "0",
             "--num-return-sequences", "1"]
    for n in (["--max-length", "32"], ["--max-new-tokens", "27"]):
        for name in ("hf-4", "hf-5"):
            assert generate(m, *given, *n) == generate(m, "--compat", name, *given, *n)
    assert len(generate(m, "--compat", "hf-5")) == 2
    assert generate(m, "--compat", "hf-5", "--greedy", "--num-return-sequences", "1", "--repetition-penalty", "1",
                    "--no-repeat-ngram-size", "0", "--min-new-tokens", "0", "--max-length", "30") == generate(m, "--max-length", "30")
    greedy = model("greedy", {"do_sample": False, "temperature": 0.0})
    assert generate(greedy, "--compat", "hf-5", "--max-new-tokens", "9") == generate(greedy, "--max-new-tokens", "9")
    assert generate(greedy, "--compat", "hf-5", "--max-new-tokens", "9", "--do-sample", "--temperature", "2") == \
        generate(greedy, "--max-new-tokens", "9", "--do-sample", "--temperature", "2")


def beams_of_the_model():
    m = model("beams", {"num_beams": 4, "length_penalty": 0.0, "early_stopping": "never", "do_sample": False, "num_return_sequences": 2, "max_new_tokens": 12})
    given = ["--num-beams", "4", "--num-return-sequences", "2", "--max-new-tokens", "12"]
    ours = generate(m, *given, "--length-penalty", "0", "--early-stopping", "never")
    assert len(ours) == 2 and generate(m, "--compat", "hf-5") == ours
    assert generate(m, "--compat", "hf-5", "--length-penalty", "2", "--early-stopping", "false") == generate(m, *given, "--length-penalty", "2")
    assert generate(m, "--compat", "hf-5", "--num-beams", "1", "--num-return-sequences", "1") == generate(m, "--max-new-tokens", "12")
    sampled = model("sampled", {"num_beams": 3, "max_new_tokens": 12})
    assert generate(sampled, "--compat", "hf-4", "--max-new-tokens", "12") == \
        generate(sampled, "--num-beams", "3", "--do-sample", "--temperature", "0.7", "--max-new-tokens", "12")


def lists_of_the_model():
    """Bad words, suppressed tokens and biases of the files, as if they were given; what is given wins."""
    more = ["--greedy", "--max-new-tokens", "12"]
    for name in ("hf-4", "hf-5"):
        plain = generate(model("plain", {}), "--compat", name, *more)
        ids = plain[0][0]
        never = [ids[0], ids[-1]]
        m = model("never", {"suppress_tokens": never[:1], "begin_suppress_tokens": ids[1:2], "bad_words_ids": [never[1:], ids[2:4]],
                            "sequence_bias": [[[ids[5]], -3.5], [ids[6:8], 2.0]]})
        got = generate(m, "--compat", name, *more)
        given = ["--suppress-tokens", str(never[0]), "--begin-suppress-tokens", str(ids[1]), "--logit-bias", f"{ids[5]}=-3.5",
                 "--logit-bias", f"{ids[6]}:{ids[7]}=2"]
        assert not set(never) & set(got[0][0]) and got[0][0][0] != ids[1] and got != plain
        m = model("words", {"bad_words_ids": [never[1:], ids[2:4]]})
        assert generate(m, "--compat", name, *more, *given) == got
        assert generate(model("never", {"suppress_tokens": never}), "--compat", name, *more, "--suppress-tokens", "339") == \
            generate(model("plain", {}), "--compat", name, *more, "--suppress-tokens", "339")
    r = generate(model("never", {"bad_words_ids": [[4], [4000]]}), "--compat", "hf-5", status=1)
    assert "bad_words_ids holds id 4000" in r.err, r.err


def refusals():
    for name in ("hf-6", "hf", ""):
        r = generate(S, "--compat", name, status=2)
        assert "none, hf-4, hf-5" in r.err and not r.out, r.err
    for c in ("score", "classify", "perplexity", "tokenize"):
        assert "unknown option" in sill(c, "--compat", "hf-5", "x", status=2).err
    r = generate(model("wrong", {"temperature": "hot"}), "--compat", "hf-5", status=1)
    assert "generation_config.json: temperature is not a finite number" in r.err and not r.out, r.err
    assert generate(model("wrong", {"temperature": "hot"}))
    r = generate(model("never", {"stop_strings": ["x"]}), "--compat", "hf-4", status=1)
    assert "stop_strings" in r.err, r.err
    r = generate(S, "--compat", "hf-5", "--min-new-tokens", "257", status=2)
    assert "257" in r.err and "256" in r.err, r.err
    r = generate(model("many", {"num_return_sequences": 2}), "--compat", "hf-5", "--greedy", status=2)
    assert "needs --do-sample" in r.err, r.err
    r = sill("generate", *S, "--compat", "hf-5", "--greedy", "--top-p", "0.5", "--max-new-tokens", "2", "Once")
    assert "no effect: --top-p" in r.err, r.err


def conversations():
    m = model("chat", {"temperature": 0.3, "max_new_tokens": 8})
    args = ["--do-sample", "--temperature", "0.3", "--max-new-tokens", "8"]
    assert sill("chat", *m, "--compat", "hf-5", stdin=b"Hello\nHello\n").out == sill("chat", *m, *args, stdin=b"Hello\nHello\n").out
    r = sill("chat", *model("chat", {"num_return_sequences": 2}), "--compat", "hf-5", stdin=b"Hello\n", status=2)
    assert "one answer" in r.err, r.err
    for c in ("generate", "chat"):
        assert "--compat NAME" in sill(c, "--help").text()


for t in (defaults_of_the_pipeline, files_of_the_model, what_is_given_wins, beams_of_the_model, lists_of_the_model, refusals, conversations):
    test(t)
end()
