#!/usr/bin/env python3
"""Real texts continued greedily by 20 tokens, by the package and by transformers 5.23, token for token: SmolLM2-135M-Instruct's weights in f32
(the GGUF, which transformers dequantizes). Where two differ, transformers' own best two logits there must lie within MARGIN.

    BUILD=build/release SILL_DATA=DATA build/venv/bin/python tests/python/peers_texts.py       (tools/test_all.sh peers)

TEXTS=N (1000): half of them sentences of film reviews, half beginnings of paragraphs of speeches (20 words). PART=i/n: every n-th, from the i-th.
"""
import os

import peers

TEXTS, NEW, MARGIN, BATCH = int(os.environ.get("TEXTS", 1000)), 20, 1e-3, 40

try:
    import numpy as np
    import torch
    import transformers
except ImportError as e:
    peers.skip("peers_texts", f"{e}; tools/deps.sh --test installs it")
if not os.path.exists(peers.SMOLLM2):
    peers.skip("peers_texts", f"no {peers.SMOLLM2}; run tools/fetch_model.sh")
sill = peers.load_sill()
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
torch.set_grad_enabled(False)


def texts():
    all_of_them = peers.reviews(TEXTS - TEXTS // 2) + [" ".join(x.split()[:20]) for x in peers.speeches(TEXTS // 2)]
    i, n = map(int, os.environ.get("PART", "1/1").split("/"))
    return all_of_them[i - 1::n]


def margin(model, ids):
    """Between the best two logits behind these ids, computed by themselves."""
    best = torch.topk(model(torch.tensor([ids])).logits[0, -1].double(), 2).values
    return float(best[0] - best[1])


def texts_are_continued_as_by_transformers():
    folder, name = os.path.split(peers.SMOLLM2)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, gguf_file=name)
    tokenizer.padding_side, tokenizer.pad_token = "left", tokenizer.pad_token or tokenizer.eos_token
    ours, t = (k.from_pretrained(peers.SMOLLM2, **o) for k, o in ((sill.AutoModelForCausalLM, {"dtype": "float32", "device": "cpu"}), (sill.AutoTokenizer, {})))
    rows = texts()
    assert len(rows) >= 50
    rows.sort(key=lambda x: len(tokenizer(x)["input_ids"]))
    same, other, tokens = 0, [], 0
    for at in range(0, len(rows), BATCH):
        some = rows[at:at + BATCH]
        e = tokenizer(some, return_tensors="pt", padding=True, return_token_type_ids=False)
        width = e["input_ids"].shape[1]
        want = theirs.generate(**e, max_new_tokens=NEW, do_sample=False, repetition_penalty=1.0)[:, width:].tolist()
        ids = [t(x)["input_ids"] for x in some]
        for x, a, b, m in zip(some, ids, e["input_ids"].tolist(), e["attention_mask"].tolist()):
            assert a == [i for i, k in zip(b, m) if k], f"{x}: other tokens"
        mine = t.pad({"input_ids": ids}, return_tensors="np", padding_side="left")
        got = ours.generate(mine.input_ids, attention_mask=mine.attention_mask, max_new_tokens=NEW)[:, mine.input_ids.shape[1]:].tolist()
        for x, i, a, b in zip(some, ids, got, want):
            a, b = (r + [t.eos_token_id] * (NEW - len(r)) for r in (a, b))
            n = next((k for k in range(NEW) if a[k] != b[k]), None)
            tokens += NEW if n is None else n
            same += n is None
            if n is not None:
                other.append((margin(theirs, i + a[:n]), n, x))
    worst = max(other, default=(0.0, 0, ""))
    assert worst[0] < MARGIN, f"{len(other)} of {len(rows)} texts differ; the best two logits of {worst[2]!r}, token {worst[1] + 1}, are {worst[0]:.2g} apart"
    assert len(other) <= len(rows) // 50
    return f"{same} of {len(rows)} texts the same, {tokens} tokens; largest margin where one differs {worst[0]:.2g}, of {MARGIN} allowed"


peers.main([texts_are_continued_as_by_transformers])
