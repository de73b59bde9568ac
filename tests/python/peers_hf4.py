#!/usr/bin/env python3
"""sill.set_compat("hf-4") against transformers 4.57 itself, in an environment of its own: pipelines, generate, what the model's files set.

    BUILD=build/release build/venv-hf4/bin/python tests/python/peers_hf4.py       (tools/test_all.sh peers; tools/deps.sh --peers)
"""
import json
import os
import shutil

import peers

try:
    import numpy as np
    import torch
    import transformers
except ImportError as e:
    peers.skip("peers_hf4", f"{e}; tools/deps.sh --peers installs it")
if not transformers.__version__.startswith("4.57."):
    peers.skip("peers_hf4", f"transformers is {transformers.__version__}, not 4.57; run it with build/venv-hf4/bin/python, which tools/deps.sh --peers makes")
sill = peers.load_sill()
import cases  # noqa: E402

transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
torch.set_grad_enabled(False)
sill.set_compat("hf-4")
TEXTS = cases.PROMPTS + peers.reviews(12) + ["", "na\u00efve caf\u00e9 \u65e5\u672c"]
SHORT = [x[:40] for x in TEXTS]
CHAT = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "The"}]


def copied(name, to):
    """A model of the fixtures, its tokenizer's class named as 4.57 knows it. A path."""
    path = os.path.join(peers.work.name, to)
    if not os.path.exists(path):
        shutil.copytree(os.path.join(peers.FIXTURES, name), path)
        with open(os.path.join(path, "tokenizer_config.json")) as f:
            config = json.load(f)
        with open(os.path.join(path, "tokenizer_config.json"), "w") as f:
            json.dump({**config, "tokenizer_class": "PreTrainedTokenizerFast"}, f)
    return path


def both(name):
    """(pipeline, model, tokenizer) of each."""
    path = name if os.path.isabs(name) else copied(name, name.replace("/", "-"))
    t, m = sill.AutoTokenizer.from_pretrained(path), sill.AutoModelForCausalLM.from_pretrained(path, device="cpu")
    u, n = transformers.AutoTokenizer.from_pretrained(path), transformers.AutoModelForCausalLM.from_pretrained(path).eval()
    u.pad_token, u.padding_side = u.pad_token or u.eos_token, "left"
    return (sill.pipeline("text-generation", model=m, tokenizer=t), m, t), (transformers.pipeline("text-generation", model=n, tokenizer=u, device="cpu"), n, u)


def compared(call, ours, theirs, what):
    got, want = call(*ours), call(*theirs)
    assert got == want, f"{what}: {str(got)[:700]}, expected {str(want)[:700]}"


def pipelines():
    greedy, n = {"do_sample": False, "max_new_tokens": 9}, 0
    for name in cases.MODELS:
        ours, theirs = both(name)
        calls = [lambda p, m, t, x=x: p(x, **greedy) for x in SHORT if x]
        calls += [lambda p, m, t: p(SHORT[:4], **greedy), lambda p, m, t: p(SHORT[0], return_full_text=False, **greedy), lambda p, m, t: p(CHAT, **greedy),
                  lambda p, m, t: p([CHAT[:1], CHAT[:1]], **greedy), lambda p, m, t: p(SHORT[1], do_sample=False, max_new_tokens=30, repetition_penalty=1.3),
                  lambda p, m, t: p(SHORT[1], num_beams=3, num_return_sequences=2, **greedy), lambda p, m, t: p(SHORT[1], prefix="a b ", **greedy)]
        for k, call in enumerate(calls):
            compared(call, ours, theirs, f"{name}, call {k}")
        n += len(calls)
    return f"{n} calls"


def options_of_generate():
    n = 0
    for name in cases.MODELS:
        (_, m, t), (_, theirs, u) = both(name)
        e = u(SHORT[:8], return_tensors="pt", padding=True, return_token_type_ids=False)
        for call in cases.GENERATE + [{"num_beams": 4, "max_new_tokens": 12, "num_return_sequences": 2}, {"num_beams": 2, "early_stopping": True, "length_penalty": 2.0},
                                      {"begin_suppress_tokens": [5, 70], "max_new_tokens": 5}]:
            more = {"tokenizer": u} if "stop_strings" in call else {}
            want = theirs.generate(**e, pad_token_id=u.eos_token_id, **call, **more)
            got = m.generate(**e, pad_token_id=u.eos_token_id, **call)
            assert torch.equal(got, want), f"{name}, {call}: {got.tolist()}, expected {want.tolist()}"
            n += 1
    return f"{n} calls, 8 rows each"


def files_of_the_model():
    """What generation_config.json and the task's parameters set, greedily."""
    files = [({}, {"do_sample": False}), ({}, {"repetition_penalty": 1.4}), ({}, {"bad_words_ids": [[5], [17, 9], [70]]}), ({}, {"suppress_tokens": [5, 9, 70, 258]}),
             ({}, {"begin_suppress_tokens": [258, 70, 5]}), ({}, {"sequence_bias": [[[7], 5.0], [[8, 9], 3.0]]}), ({}, {"no_repeat_ngram_size": 2}),
             ({"repetition_penalty": 1.5}, {}), ({"bad_words_ids": [[7], [258]]}, {"bad_words_ids": [[5]]}), ({"num_beams": 3}, {"length_penalty": 0.5})]
    for k, (task, generation) in enumerate(files):
        path = copied("task/gpt2", f"model{k}")
        with open(os.path.join(path, "config.json")) as f:
            config = json.load(f)
        if task:
            config["task_specific_params"] = {"text-generation": task}
        with open(os.path.join(path, "config.json"), "w") as f:
            json.dump(config, f)
        with open(os.path.join(path, "generation_config.json"), "w") as f:
            json.dump({"eos_token_id": [0, 2], "transformers_version": "4.57.1", **generation}, f)
        ours, theirs = both(path)
        compared(lambda p, m, t: p(SHORT[:6], do_sample=False, max_new_tokens=25), ours, theirs, f"{task} {generation}")
        ids = torch.tensor([theirs[2](SHORT[1])["input_ids"]])
        compared(lambda p, m, t: m.generate(ids, max_new_tokens=25, do_sample=False, pad_token_id=0).tolist(), ours, theirs, f"generate, {task} {generation}")
    return f"{len(files)} sets of files"


def defaults_draw_alike():
    """What nothing is said about: the distribution of the next token, drawn 6,000 times, against that of transformers' own processors."""
    for name in cases.MODELS:
        (p, m, t), (q, n, u) = both(name)
        ids = torch.tensor([u(SHORT[1])["input_ids"]])
        r = n.generate(ids, generation_config=q.generation_config, max_new_tokens=1, output_scores=True, return_dict_in_generate=True, pad_token_id=0)
        assert q.generation_config.do_sample, "the pipeline samples"
        want = torch.softmax(r.scores[0][0].double(), -1).numpy()
        drawn = [x["generated_token_ids"][-1] for x in p(SHORT[1], max_new_tokens=1, num_return_sequences=1000, return_tensors=True, seed=1)]
        for seed in range(2, 7):
            drawn += [x["generated_token_ids"][-1] for x in p(SHORT[1], max_new_tokens=1, num_return_sequences=1000, return_tensors=True, seed=seed)]
        counts = np.bincount(drawn, minlength=len(want))
        assert counts[want == 0].sum() == 0 and (want > 0).sum() <= 50, f"{name}: tokens beyond the 50 best"
        cells = want * len(drawn) >= 5
        chi = float((((counts - want * len(drawn)) ** 2)[cells] / (want * len(drawn))[cells]).sum())
        assert cells.sum() >= 5 and chi < cells.sum() + 5 * np.sqrt(2 * cells.sum()), f"{name}: chi-square {chi:.1f} of {cells.sum()} tokens"
        got = p(SHORT[2], seed=3)[0]["generated_text"]
        assert len(u(got)["input_ids"]) > 20 or got.startswith(SHORT[2])
    return "temperature 0.7, top_k 50"


def types_and_templates():
    """A model stored in 16 bits is loaded in f32; a conversation is ids; batch_decode takes ids one by one."""
    path = copied("task/gpt2", "half")
    transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.bfloat16).save_pretrained(path)
    (p, m, t), (q, n, u) = both(path)
    assert m.dtype == "f32" and n.dtype == torch.float32
    ids = torch.tensor([[5, 6, 7, 258, 9]])
    a, b = m(ids).logits, n(ids).logits
    assert (a - b).abs().max() < 2e-5 * b.abs().max()
    for call in (lambda t: t.apply_chat_template(CHAT[:1]), lambda t: t.apply_chat_template(CHAT[:1], add_generation_prompt=True, tokenize=False),
                 lambda t: t.batch_decode([5, 6, 258]), lambda t: t.batch_decode([[5, 6], [258]]), lambda t: t.decode([5, 6, 258])):
        assert call(t) == call(u), (call(t), call(u))


peers.main([pipelines, options_of_generate, files_of_the_model, defaults_draw_alike, types_and_templates])
