"""What the installed package answers, compared with transformers' answers (tests/fixtures/python) and with itself; run by test_binding.py in a
virtual environment that has numpy alone, and by live_torch.py where torch is."""
import base64
import contextlib
import copy
import io
import json
import math
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback

import numpy as np

import cases
import sill
from sill import errors

FIXTURES = os.path.abspath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../fixtures"))
GPT2, HEAD = os.path.join(FIXTURES, "task/gpt2"), os.path.join(FIXTURES, "python/head")
with open(os.path.join(FIXTURES, "python/answers.json")) as f:
    ANSWERS = json.load(f)
TESTS = []


class Skip(Exception):
    pass


def test(fn):
    TESTS.append(fn)
    return fn


def raises(kind, fn, *args, match="", **kwargs):
    try:
        fn(*args, **kwargs)
    except kind as e:
        assert match in str(e), f"{e} does not say {match}"
        return e
    raise AssertionError(f"{kind.__name__} was not raised")


def plain(x):
    """Tuples as lists, numpy as Python."""
    if isinstance(x, dict):
        return {k: plain(v) for k, v in x.items()}
    if isinstance(x, (list, tuple)):
        return [plain(v) for v in x]
    return x.tolist() if isinstance(x, np.ndarray) else x


def same(got, want, path=""):
    """Equal but for the rounding of floats."""
    if isinstance(want, float):
        assert isinstance(got, float) and math.isclose(got, want, rel_tol=2e-4, abs_tol=2e-5), f"{path}: {got}, expected {want}"
    elif isinstance(want, dict):
        assert list(got) == list(want), f"{path}: {list(got)}, expected {list(want)}"
        for k in want:
            same(got[k], want[k], f"{path}.{k}")
    elif isinstance(want, list):
        assert isinstance(got, list) and len(got) == len(want), f"{path}: {got!r}, expected {want!r}"
        for i, (g, w) in enumerate(zip(got, want)):
            same(g, w, f"{path}[{i}]")
    else:
        assert got == want, f"{path}: {got!r}, expected {want!r}"


def model(name="task/gpt2", kind=sill.AutoModelForCausalLM, cache={}, **options):
    key = (name, kind, *sorted(options.items()))
    if key not in cache:
        cache[key] = kind.from_pretrained(os.path.join(FIXTURES, name), device="cpu", **options)
    return cache[key]


def tokenizer(name="task/gpt2", **options):
    return sill.AutoTokenizer.from_pretrained(os.path.join(FIXTURES, name), **options)


# ---- tokenizers

@test
def tokens_are_those_of_transformers():
    texts = cases.texts(FIXTURES)
    for name in cases.TOKENIZERS:
        t = tokenizer(name)
        for text, want in zip(texts, ANSWERS["tokenizers"][name]):
            got = cases.digests(t, text)
            for part, g, w in zip(("ids", "offsets", "tokens", "text"), got, want):
                assert g == w, f"{name}: other {part} of {text[:80]!r}"
        assert len(ANSWERS["tokenizers"][name]) == len(texts) > 100


@test
def padding_and_truncation():
    for call, want in zip(cases.PADDING, ANSWERS["padding"]):
        call, t = dict(call), tokenizer()
        t.pad_token, t.padding_side, t.truncation_side = t.eos_token, call.pop("side", "right"), call.pop("cut", "right")
        got = plain(t(cases.SENTENCES, **call))
        assert {k: got[k] for k in sorted(got)} == {k: want[k] for k in sorted(want)}, f"{call}: {got}, expected {want}"


@test
def a_missing_padding_token():
    t, err = tokenizer(), io.StringIO()
    assert t.pad_token is None and t.pad_token_id is None
    sill._core._said.clear()
    with contextlib.redirect_stderr(err):
        e = t(cases.SENTENCES, padding=True, return_tensors="np")
        t(cases.SENTENCES, padding=True)
    assert err.getvalue().count("no padding token") == 1
    n = [len(t(s)["input_ids"]) for s in cases.SENTENCES]
    assert e.input_ids.shape == (3, max(n)) and e["attention_mask"].sum(1).tolist() == n
    assert (e.input_ids[e.attention_mask == 0] == t.eos_token_id).all() and e.attention_mask[:, -1].all() and not e.attention_mask[2, 0]
    t.padding_side = "right"
    assert t(cases.SENTENCES, padding=True, return_tensors="np").attention_mask[:, 0].all()


@test
def tokenizer_details():
    t = tokenizer()
    assert isinstance(t, sill.PreTrainedTokenizer) and len(t) == t.vocab_size == 340
    assert t.eos_token == "<|endoftext|>" == t.bos_token and t.eos_token_id == 0 and t.all_special_ids[0] == 0
    ids = t.encode("Hello<|endoftext|>")
    assert ids[-1] == 0 and t.decode(ids) == "Hello<|endoftext|>" and t.decode(ids, skip_special_tokens=True) == "Hello"
    assert 0 not in t("Hello<|endoftext|>", split_special_tokens=True)["input_ids"]
    assert t.convert_tokens_to_ids(t.convert_ids_to_tokens(ids)) == ids and t.tokenize("Hello") == t.convert_ids_to_tokens(t.encode("Hello"))
    assert t.batch_decode([ids, ids[:2]]) == [t.decode(ids), t.decode(ids[:2])] and t.decode(np.array([ids])) == [t.decode(ids)]
    assert t.encode("a b", return_tensors="np").shape[0] == 1 and t([])["input_ids"] == []
    t.pad_token = t.eos_token
    assert t.pad_token_id == 0 and t.special_tokens_map["pad_token"] == "<|endoftext|>"
    p = t.pad([t("a b c"), t("a")], return_tensors="np", padding_side="left")
    assert p.input_ids.shape == p.attention_mask.shape and p.attention_mask[1, 0] == 0
    assert t.decode([5, 339, 100000]) == t.decode([5, 339]) and "\ufffd" in t.decode(t.encode("\U0001f600")[:1])
    assert t.decode(t.encode("lone \ud83d surrogate"))
    raises(ValueError, t, 5)
    raises(ValueError, t, None)
    raises(ValueError, t, ["a", None])
    raises(ValueError, t, ["a", 5])
    raises(ValueError, setattr, t, "pad_token", "[PAD]", match="vocabulary")
    raises(ValueError, t, cases.SENTENCES, return_tensors="np", match="padding")
    raises(OSError, sill.AutoTokenizer.from_pretrained, "no/such-model", match="no/such-model")


@test
def conversations():
    for name, want in ANSWERS["chat"].items():
        t = tokenizer(name)
        got = [[list(t.apply_chat_template(m, add_generation_prompt=g, return_dict=False)), t.apply_chat_template(m, add_generation_prompt=g, tokenize=False)]
               for m in cases.CHATS for g in (False, True)]
        assert got == want, name
        assert set(t.apply_chat_template(cases.CHATS[0])) == {"input_ids", "attention_mask"}
    sill.set_compat("hf-4")
    assert isinstance(t.apply_chat_template(cases.CHATS[0]), list)
    sill.set_compat("hf-5")
    raises(ValueError, sill.set_compat, "hf-6", match="hf-5")
    raises(errors.UnsupportedError, tokenizer("tokenizer/smollm.json").apply_chat_template, cases.CHATS[0])


# ---- models

@test
def greedy_texts_are_those_of_transformers():
    for name in cases.MODELS:
        m, t = model(name), tokenizer(name)
        for side in ("left", "right"):
            t.pad_token, t.padding_side = t.eos_token, side
            e = t(cases.PROMPTS, return_tensors="np", padding=True)
            for call, (ids, texts) in zip(cases.GENERATE, ANSWERS["generate"][name]):
                got = m.generate(**e, pad_token_id=t.eos_token_id, **call)
                if side == "left":
                    assert got.tolist() == ids, f"{name} {call}: {got.tolist()}, expected {ids}"
                assert t.batch_decode(got, skip_special_tokens=True) == texts, f"{name} {call} {side}"


@test
def logits_and_losses_are_those_of_transformers():
    for name, want in ANSWERS["forward"].items():
        m, t = model(name), tokenizer(name)
        t.pad_token = t.eos_token
        e = t(cases.SENTENCES, return_tensors="np", padding=True, padding_side="right")
        mask = e.attention_mask.astype(bool)
        labels = np.where(mask, e.input_ids, -100)
        r = m(**e, labels=labels)
        assert list(r.logits.shape) == want["shape"] and abs(float(r.loss) - want["loss"]) < 1e-5 and r[0] is r.loss and r[1] is r.logits
        logits = np.frombuffer(base64.b64decode(want["logits"]), np.float32).reshape(*r.logits.shape[:2], -1)
        assert np.abs(r.logits[..., ::7] - logits)[mask].max() < 2e-5 * np.abs(logits).max()
        hidden = sill.AutoModel.from_pretrained(os.path.join(FIXTURES, name), device="cpu")(**e).last_hidden_state
        expected = np.frombuffer(base64.b64decode(want["hidden"]), np.float32).reshape(hidden.shape)
        assert np.abs(hidden - expected)[mask].max() < 2e-5 * np.abs(expected).max()
        left = t(cases.SENTENCES, return_tensors="np", padding=True, padding_side="left")
        turned = m(**left).logits
        for k, n in enumerate(mask.sum(1)):  # the same bits as alone, on either side
            alone = m(np.array(t(cases.SENTENCES[k])["input_ids"])).logits[0]
            assert np.array_equal(alone, r.logits[k, :n]) and np.array_equal(alone, turned[k, -n:]) and not turned[k, :-n].any()


@test
def heads_are_those_of_transformers():
    want, t = ANSWERS["classified"], tokenizer()
    t.pad_token = t.eos_token
    m = model("python/head", sill.AutoModelForSequenceClassification)
    assert m.config.id2label == {0: "contradiction", 1: "neutral", 2: "entailment"} and m.config.num_labels == 3
    e = t(cases.SENTENCES, return_tensors="np", padding=True, padding_side="right")
    r = m(**e, labels=np.array([0, 2, 1]))
    same(r.logits.astype(float).tolist(), want["logits"])
    same(float(r.loss), want["loss"])
    p = sill.pipeline("text-classification", model=m, tokenizer=t)
    got = [p(cases.SENTENCES[0]), p(cases.SENTENCES), p(cases.SENTENCES[0], top_k=None), p(cases.SENTENCES, top_k=2),
           p(cases.SENTENCES, function_to_apply="sigmoid"), p({"text": "a b", "text_pair": "c d"}, function_to_apply="none")]
    for i, (g, w) in enumerate(zip(got, want["pipeline"])):
        same(g, w, f"call {i}")
    assert type(sill.pipeline("sentiment-analysis", model=HEAD, tokenizer=GPT2)) is sill.TextClassificationPipeline
    z = sill.pipeline("zero-shot-classification", model=HEAD, tokenizer=t, device="cpu")
    got = [z(cases.SENTENCES[0], ["good", "bad", "it is so"]), z(cases.SENTENCES, "good, bad", multi_label=True),
           z(cases.SENTENCES[1], ["good"], hypothesis_template="It was {}.")]
    same(got, want["zero_shot"])
    raises(ValueError, sill.AutoModelForSequenceClassification.from_pretrained, GPT2, match="no classification head")
    raises(ValueError, sill.AutoModelForCausalLM.from_pretrained, HEAD, match="generate")


@test
def pipelines_answer_as_transformers():
    p = sill.pipeline("text-generation", model=GPT2, device="cpu")
    greedy = {"do_sample": False, "max_new_tokens": 9}
    got = [p(cases.PROMPTS[0], **greedy), p(cases.PROMPTS, **greedy), p(cases.PROMPTS[0], return_full_text=False, **greedy), p(cases.CHATS[0], **greedy),
           p([cases.CHATS[0], cases.CHATS[1]], **greedy), p(cases.PROMPTS[0], do_sample=False, max_length=50), p(cases.PROMPTS[0], return_tensors=True, **greedy)]
    for i, (g, w) in enumerate(zip(got, ANSWERS["text_generation"])):
        same(g, w, f"call {i}")
    f = sill.pipeline("feature-extraction", model=GPT2, device="cpu")
    same(f(["a b", cases.SENTENCES[1]]), ANSWERS["features"])
    raises(KeyError, sill.pipeline, "translation", match="text-generation")


@test
def language_models_label():
    z = sill.pipeline("zero-shot-classification", model=GPT2, device="cpu")
    r = z(cases.SENTENCES, candidate_labels=["good", "bad", "long"])
    for x, s in zip(r, cases.SENTENCES):
        assert x["sequence"] == s and sorted(x["labels"]) == ["bad", "good", "long"] and abs(sum(x["scores"]) - 1) < 1e-6
        assert x["scores"] == sorted(x["scores"], reverse=True)
    table = sill.classify(cases.SENTENCES, labels=["good", "bad", "long"], model=model())
    assert [x["labels"][0] for x in r] == table["label"] and [x["scores"][0] for x in r] == [max(p) for p in zip(*(table["prob_" + k] for k in ("good", "bad", "long")))]
    assert z(cases.SENTENCES[0], ["good", "bad"], hypothesis_template="This film is {}.")["labels"]
    m = z(cases.SENTENCES[0], ["good", "bad"], multi_label=True)
    assert all(0 <= s <= 1 for s in m["scores"])
    raises(ValueError, z, cases.SENTENCES[0], [])
    raises(ValueError, z, cases.SENTENCES[0], ["a"], hypothesis_template="no place")


@test
def sampling_and_presets():
    p = sill.pipeline("text-generation", model=GPT2, device="cpu")
    sill.set_seed(7)
    first = [p("a")[0]["generated_text"], p("a")[0]["generated_text"]]
    sill.set_seed(7)
    assert first == [p("a")[0]["generated_text"], p("a")[0]["generated_text"]] and first[0] != first[1]
    assert len(p("a", max_new_tokens=7, num_return_sequences=3)) == 3
    m = model()
    assert m.generate(np.array([[5, 6]]), do_sample=True, num_return_sequences=3, max_new_tokens=4, seed=1).shape == (3, 6)
    assert np.array_equal(m.generate(np.array([[5, 6]]), do_sample=True, seed=3), m.generate(np.array([[5, 6]]), do_sample=True, seed=3))
    long = p("a " * 85, do_sample=False)[0]["generated_text"]  # by default what fits
    assert long.startswith("a " * 85)
    sill.set_compat("hf-4")
    assert sill.get_compat() == "hf-4" and p("a", do_sample=False, max_new_tokens=3)
    sill.set_compat("hf-5")


@test
def models_of_gguf():
    """The same model in both files: the same ids and texts."""
    where = os.path.join(FIXTURES, "stories260K")
    t, m = (k.from_pretrained(FIXTURES, subfolder="stories260K", gguf_file="stories260K.gguf") for k in (sill.AutoTokenizer, sill.AutoModelForCausalLM))
    p = sill.pipeline("text-generation", model=os.path.join(where, "stories260K.gguf"), device="cpu")
    ids = t("Once upon a time", return_tensors="np").input_ids
    text = t.decode(m.generate(ids, max_new_tokens=8)[0], skip_special_tokens=True)
    assert text == "Once upon a time, there was a little girl" == p("Once upon a time", max_new_tokens=8, do_sample=False)[0]["generated_text"]
    assert m.config.model_type == "llama" and m.config.vocab_size == len(t) == 512 and m.config.eos_token_id == t.eos_token_id == 2


@test
def what_generate_refuses():
    m, ids = model(), np.array([[5, 6, 7]])
    raises(ValueError, m.generate, ids, max_length=3, match="max_length")
    raises(ValueError, m.generate, ids, temperature=0.0, do_sample=True)
    raises(ValueError, m.generate, ids, num_return_sequences=2, match="num_return_sequences")
    raises(ValueError, m.generate, ids, max_new_token=3, match="max_new_token")
    for inner in ("constraint", "n_stop", "bad_word_ends", "size"):
        raises(ValueError, m.generate, ids, match=inner, **{inner: 4096})
    raises(ValueError, m.generate, ids, max_new_tokens=500, match="192")
    raises(ValueError, m.generate, np.array([[5, 4000]]), match="4000")
    raises(ValueError, m.generate, np.array([[1.5]]))
    raises(ValueError, m.generate)
    raises(errors.UnsupportedError, m.generate, np.array([[5, 6, 7]]), attention_mask=np.array([[1, 0, 1]]))
    raises(errors.UnsupportedError, m.generate, ids, penalty_alpha=0.6, match="penalty_alpha")
    raises(errors.UnsupportedError, m.generate, ids, output_scores=True, match="output_scores")
    if not hasattr(sill._abi.sill_generate_options, "num_beams"):
        raises(errors.UnsupportedError, m.generate, ids, num_beams=4, match="num_beams")
    else:
        beams = {"num_beams": 4, "num_return_sequences": 3, "max_new_tokens": 6}
        found = [m.generate(ids, **beams, **more) for more in ({}, {"early_stopping": "never", "length_penalty": 0.0}, {"early_stopping": True})]
        assert all(len(x) == 3 * len(ids) and x.shape[1] <= len(ids[0]) + 6 for x in found)
        raises(ValueError, m.generate, ids, num_beams=2, num_return_sequences=3)


@test
def constraints():
    m, t = model(), tokenizer()
    p = sill.pipeline("text-generation", model=m, tokenizer=t)
    new = {"return_full_text": False}
    choices = ["positive", "negative", "it depends", "na\u00efve"]
    for prompt in cases.PROMPTS:
        assert p(prompt, choices=choices, do_sample=False, **new)[0]["generated_text"] in choices
    sill.set_seed(3)
    drawn = {p("a", choices=choices, temperature=9.0, top_k=0, **new)[0]["generated_text"] for _ in range(40)}
    assert drawn <= set(choices) and len(drawn) > 2, drawn
    pattern = r"(19|20)\d\d-(0[1-9]|1[0-2])"
    for given in (pattern, re.compile(pattern)):
        r = p(["a", "b c"], regex=given, num_return_sequences=3, **new)
        assert all(re.fullmatch(pattern, g["generated_text"]) for row in r for g in row) and len(r) == 2 and len(r[0]) == 3
    schema = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 8}, "old": {"type": "boolean"}, "kind": {"enum": ["x", 2]}},
              "required": ["name", "old", "kind"]}
    for given in (schema, json.dumps(schema)):
        value = json.loads(p("a", json_schema=given, do_sample=False, **new)[0]["generated_text"])
        assert list(value) == ["name", "old", "kind"] and len(value["name"]) <= 8 and value["kind"] in ("x", 2), value
    ids = t("A sentence.", return_tensors="np").input_ids
    out = m.generate(ids, choices=["yes", "no"])
    assert t.decode(out[0, ids.shape[1]:], skip_special_tokens=True) in ("yes", "no")
    beams = m.generate(ids, choices=choices, num_beams=4, num_return_sequences=2)
    assert {t.decode(r[ids.shape[1]:], skip_special_tokens=True) for r in beams} <= set(choices)
    e = t(cases.PROMPTS, return_tensors="np", padding=True)
    texts = [t.decode(r[e.input_ids.shape[1]:], skip_special_tokens=True) for r in m.generate(**e, regex="[0-9]{30}")]  # more than 20 tokens, unasked
    assert all(re.fullmatch("[0-9]{30}", x) for x in texts), texts
    alone = [t.decode(m.generate(np.array([t(x)["input_ids"]]), regex="[0-9]{30}")[0], skip_special_tokens=True) for x in cases.PROMPTS]
    assert [x[-30:] for x in alone] == texts
    for k in range(3 * sill._core.KEPT_CONSTRAINTS):  # more than are kept
        assert p("a", choices=[f"n{k}"], do_sample=False, **new)[0]["generated_text"] == f"n{k}"
    assert len(m._core._handles["constraints"]) == sill._core.KEPT_CONSTRAINTS
    kept = list(m._core._handles["constraints"])
    assert p("a", choices=["n23"], do_sample=False, **new) and list(m._core._handles["constraints"]) == kept
    raises(ValueError, m.generate, ids, choices=["a"], regex="b", match="choices and regex")
    raises(ValueError, m.generate, ids, choices=[], match="choices")
    raises(ValueError, m.generate, ids, choices="a", match="list")
    raises(ValueError, m.generate, ids, choices=["a", 5], match="text")
    raises(ValueError, m.generate, ids, choices=["a\0b"], match="NUL")
    raises(ValueError, m.generate, ids, regex=5, match="regex")
    raises(ValueError, m.generate, ids, regex=re.compile("a", re.I), match="flags")
    raises(ValueError, m.generate, ids, regex="(a", match="byte")
    raises(errors.UnsupportedError, m.generate, ids, regex="a(?=b)")
    raises(errors.UnsupportedError, m.generate, ids, json_schema={"$ref": "#/x"}, match="ref")
    raises(ValueError, m.generate, ids, json_schema="{", match="byte")
    raises(ValueError, m.generate, ids, json_schema=["a"], match="json_schema")
    other = sill.AutoModelForCausalLM.from_pretrained(GPT2, device="cpu")
    assert other.generate(ids, choices=["yes"]).shape and not other.close()
    raises(ValueError, other.generate, ids, choices=["yes"], match="closed")


@test
def lists_of_the_models_files():
    """Bad words and the like in generation_config.json count as if they were given."""
    lists = {"bad_words_ids": [[5], [17, 9]], "suppress_tokens": [70, 71], "begin_suppress_tokens": [258], "sequence_bias": [[[7], 5.0], [[8, 9], -3.0]]}
    ids = np.array([[51, 258, 70, 9]])
    with tempfile.TemporaryDirectory() as d:
        for name in os.listdir(GPT2):
            shutil.copy(os.path.join(GPT2, name), d)
        for key, value in lists.items():
            with open(os.path.join(d, "generation_config.json"), "w") as f:
                json.dump({key: value, "eos_token_id": [0, 2]}, f)
            m = sill.AutoModelForCausalLM.from_pretrained(d, device="cpu")
            given = model().generate(ids, max_new_tokens=30, **{key: value})
            assert np.array_equal(m.generate(ids, max_new_tokens=30), given), key
            assert m.generate(ids, max_new_tokens=30, **{key: [[[1], 1.0]] if key == "sequence_bias" else [[1]] if key == "bad_words_ids" else [1]}).shape
            p = sill.pipeline("text-generation", model=m, tokenizer=tokenizer())
            for name in ("hf-4", "hf-5"):
                sill.set_compat(name)
                try:
                    got = p("Once upon", do_sample=False, max_new_tokens=30, return_tensors=True)
                finally:
                    sill.set_compat("hf-5")
                q = sill.pipeline("text-generation", model=model(), tokenizer=tokenizer())
                assert got == q("Once upon", do_sample=False, max_new_tokens=30, return_tensors=True, **{key: value}), (key, name)
            config = sill.GenerationConfig.from_pretrained(d)
            assert getattr(config, key) == value
            assert np.array_equal(model().generate(ids, config, max_new_tokens=30), given)
            m.close()
        raises(OSError, sill.GenerationConfig.from_pretrained, HEAD)


def calls_of_transformers():
    """(object, names) of what scripts call and sill has not; every one is refused by name."""
    m, t = model(), tokenizer()
    encoded = t(cases.SENTENCES[0])
    out = m(np.array([[5, 6, 7]]))
    return [(m, "save_pretrained push_to_hub resize_token_embeddings get_input_embeddings lm_head transformer state_dict parameters named_parameters "
                "modules register_forward_hook gradient_checkpointing_enable add_adapter load_adapter compute_transition_scores compile double "
                "zero_grad prepare_inputs_for_generation beam_search"),
            (t, "save_pretrained save_vocabulary push_to_hub train_new_from_iterator backend_tokenizer get_added_vocab added_tokens_decoder "
                "num_special_tokens_to_add additional_special_tokens build_inputs_with_special_tokens clean_up_tokenization"),
            (encoded, "word_ids words sequence_ids char_to_token token_to_chars word_to_tokens encodings convert_to_tensors"),
            (sill.pipeline("text-generation", model=m, tokenizer=t), "save_pretrained preprocess postprocess transform predict"),
            (out, "past_key_values"), (m.config, "save_pretrained push_to_hub"), (sill.GenerationConfig(), "save_pretrained")]


@test
def what_there_is_not_is_refused_by_name():
    for x, names in calls_of_transformers():
        for name in names.split():
            e = raises(errors.UnsupportedError, getattr, x, name, match=name)
            assert isinstance(e, (NotImplementedError, AttributeError)) and not hasattr(x, name) and len(str(e)) > len(name) + 40, str(e)
        e = raises(AttributeError, getattr, x, "save_pretrainde") if not isinstance(x, sill.GenerationConfig) else None
        assert not isinstance(e, errors.SillError)
    names = ("Trainer TrainingArguments DataCollatorWithPadding TextStreamer LogitsProcessorList StoppingCriteria DynamicCache logging BertModel "
             "AutoModelForSeq2SeqLM AutoModelForMaskedLM AutoProcessor GPT2Config GPT2DoubleHeadsModel T5Tokenizer GPTQConfig")
    for name in names.split():
        for how in (f"from sill import {name}", f"import sill; sill.{name}"):
            e = raises(errors.UnsupportedError, exec, how, {}, match=name)
            assert isinstance(e, ImportError) and len(str(e)) > len(name) + 30, str(e)
    raises(ImportError, exec, "from sill import pipelin", {})
    raises(AttributeError, getattr, sill, "pipelin")
    m, t, ids = model(), tokenizer(), np.array([[5, 6, 7]])
    assert t.add_tokens(["<|endoftext|>"]) == 0 == t.add_tokens("a")
    assert t.mask_token is None and t.cls_token_id is None
    raises(errors.UnsupportedError, t.add_tokens, ["[NEW]"], match="[NEW]")
    raises(errors.UnsupportedError, m.train, match="train")
    raises(errors.UnsupportedError, sill.AutoModelForCausalLM.from_config, m.config, match="from_pretrained")
    for name in ("output_attentions", "output_hidden_states", "past_key_values", "inputs_embeds", "position_ids"):
        raises(errors.UnsupportedError, m, ids, match=name, **{name: True})
        assert m(ids, **{name: None}).logits.shape
    for name in ("output_scores", "return_dict_in_generate", "logits_processor", "stopping_criteria", "prefix_allowed_tokens_fn", "past_key_values",
                 "penalty_alpha", "num_beam_groups", "max_time", "force_words_ids", "guidance_scale"):
        e = raises(errors.UnsupportedError, m.generate, ids, match=name, **{name: 3})
        assert len(str(e)) > len(name) + 60, str(e)
    assert copy.deepcopy(m.config).vocab_size == pickle.loads(pickle.dumps(m.config)).vocab_size == 340


@test
def guessed_tokens():
    m = model()
    ids = np.array([[5, 6, 7, 8, 9, 5, 6, 7, 8], [9, 9, 9, 4, 9, 9, 9, 4, 9]])
    other = sill.AutoModelForCausalLM.from_pretrained(GPT2, device_map="cpu")
    ways = ({"prompt_lookup_num_tokens": 6}, {"prompt_lookup_num_tokens": 3, "max_matching_ngram_size": 4}, {"assistant_model": other},
            {"assistant_model": other, "num_assistant_tokens": 2, "num_assistant_tokens_schedule": "constant"})
    for options in ({}, {"do_sample": True, "temperature": 0.6, "seed": 5}, {"repetition_penalty": 1.3}, {"do_sample": True, "num_return_sequences": 2, "seed": 6}):
        plain = m.generate(ids, max_new_tokens=30, **options)
        for way in ways:
            assert np.array_equal(plain, m.generate(ids, max_new_tokens=30, **options, **way)), (options, way)
    text = sill.pipeline("text-generation", model=GPT2)
    assert text("a b a b a b a", max_new_tokens=9, do_sample=False) == text("a b a b a b a", max_new_tokens=9, do_sample=False, prompt_lookup_num_tokens=4)
    # Each may assist the other, at the same time.
    found = []
    threads = [threading.Thread(target=lambda a=a, b=b: found.append(a.generate(ids, max_new_tokens=30, assistant_model=b)))
               for a, b in [(m, other), (other, m)] * 4]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(found) == 8 and all(np.array_equal(f, m.generate(ids, max_new_tokens=30)) for f in found)
    raises(ValueError, m.generate, ids, assistant_model=m, match="another model")
    raises(ValueError, m.generate, ids, assistant_model="gpt2", match="another model")
    raises(ValueError, m.generate, ids, prompt_lookup_num_tokens=0, match="strictly positive")
    raises(ValueError, m.generate, ids, prompt_lookup_num_tokens=4, num_beams=2, match="num_beams")
    raises(ValueError, m.generate, ids, prompt_lookup_num_tokens=4, assistant_model=other, match="not by both")
    other.close()
    raises(ValueError, m.generate, ids, assistant_model=other, match="closed")


@test
def types_and_devices():
    m = model()
    wide = float(m(np.array([[5, 6, 7]]), labels=np.array([[5, 6, 7]])).loss)
    for options in ({"load_in_8bit": True}, {"load_in_4bit": True}, {"dtype": "bfloat16"}, {"torch_dtype": "float16"},
                    {"quantization_config": sill.BitsAndBytesConfig(load_in_8bit=True)}):
        q = sill.AutoModelForCausalLM.from_pretrained(GPT2, device_map="cpu", **options)
        assert q.dtype != "f32" and 0 < abs(float(q(np.array([[5, 6, 7]]), labels=np.array([[5, 6, 7]])).loss) - wide) < 0.2, options
        q.close()
        raises(ValueError, q.generate, np.array([[5]]), match="closed")
    out = m(np.array([[5, 6, 7]]))
    assert out.loss is None and out.hidden_states is None and not hasattr(out, "log1ts")
    assert str(m.device) == "cpu" and m.to("cpu") is m and m.eval() is m and m.num_parameters() > 1000
    assert m.config.n_positions == 192 and m.config.model_type == "gpt2" and sill.AutoConfig.from_pretrained(GPT2).vocab_size == 340
    sill._core._said.clear()
    err = io.StringIO()
    with contextlib.redirect_stderr(err):
        sill.pipeline("text-generation", model=GPT2, device=0)
        sill.pipeline("text-generation", model=GPT2, device=0)
    assert err.getvalue().count("no GPU") == (str(model().device) == "cpu" and "SILL_METAL_LIBRARY" not in os.environ), err.getvalue()
    raises(TypeError, sill.AutoModelForCausalLM.from_pretrained, GPT2, load_in_9bit=True, match="load_in_9bit")
    raises(ValueError, sill.AutoModelForCausalLM.from_pretrained, GPT2, load_in_8bit=True, load_in_4bit=True)
    raises(ValueError, sill.AutoModelForCausalLM.from_pretrained, GPT2, dtype="float8")
    raises(errors.UnsupportedError, sill.AutoModelForCausalLM.from_pretrained, GPT2, device="cuda", match="cuda")
    raises(ValueError, sill.GPT2LMHeadModel.from_pretrained, os.path.join(FIXTURES, "task/llama"), match="llama")
    raises(errors.UnsupportedError, m.train)


@test
def failures_are_exceptions_of_their_kind():
    assert set(errors.BY_CODE) == {code for _, code in sill._abi.STATUSES if code} and len(set(errors.BY_CODE.values())) == len(errors.BY_CODE)
    raises(OSError, sill.AutoModelForCausalLM.from_pretrained, "no-such-model", match="no-such-model")
    with tempfile.TemporaryDirectory() as d:
        raises(OSError, sill.AutoModelForCausalLM.from_pretrained, d)
        for name in os.listdir(GPT2):
            shutil.copy(os.path.join(GPT2, name), d)
        with open(os.path.join(d, "model.safetensors"), "r+b") as f:
            f.truncate(5000)
        e = raises(OSError, sill.AutoModelForCausalLM.from_pretrained, d)
        assert isinstance(e, errors.FormatError) and isinstance(e, ValueError)
        shutil.copy(os.path.join(GPT2, "model.safetensors"), d)
        with open(os.path.join(d, "config.json"), "w") as f:
            json.dump({"model_type": "bert"}, f)
        raises(errors.UnsupportedError, sill.AutoModelForCausalLM.from_pretrained, d, match="bert")
    for kind in (sill.AutoTokenizer, sill.AutoModelForCausalLM):
        raises(OSError, kind.from_pretrained, FIXTURES, subfolder="task/gpt3", match="gpt3")
    raises(MemoryError, sill.AutoModelForCausalLM.from_pretrained, GPT2, memory_limit_bytes=1000)


# ---- long calls

signal.signal(signal.SIGINT, signal.default_int_handler)  # also where these tests run in the background, and it is ignored


@test
def keyboard_interrupt_ends_a_call():
    m = model()
    rows = np.random.default_rng(0).integers(3, 300, (400, 30))
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    start = time.monotonic()
    try:
        for _ in range(200):
            m.generate(rows, max_new_tokens=150, suppress_tokens=[0, 2])
        raise AssertionError("was not interrupted")
    except KeyboardInterrupt:
        pass
    assert time.monotonic() - start < 20
    assert m.generate(rows[:1], max_new_tokens=3).shape == (1, 33)  # and the session works


@test
def keyboard_interrupt_ends_one_row_of_beams():
    """Between two steps of the row, not when it has ended."""
    calls, original = [], sill._core._Run.done

    def done(self, user, result):
        calls.append(bool(result.contents.final))
        if len(calls) == 3:
            signal.raise_signal(signal.SIGINT)
        return original(self, user, result)

    ids = np.array([[5, 6, 7]])
    want = model().generate(ids, num_beams=4, max_new_tokens=60, suppress_tokens=[0, 2])
    sill._core._Run.done = done
    try:
        raises(KeyboardInterrupt, model().generate, ids, num_beams=4, max_new_tokens=60, suppress_tokens=[0, 2])
    finally:
        sill._core._Run.done = original
    assert calls == [False] * 3, calls
    assert np.array_equal(want, model().generate(ids, num_beams=4, max_new_tokens=60, suppress_tokens=[0, 2]))


@test
def other_threads_run_meanwhile():
    m, count, stop = model(), [0], threading.Event()

    def counting():
        while not stop.is_set():
            count[0] += 1
            time.sleep(0.0005)

    rows = np.random.default_rng(1).integers(3, 300, (64, 30))
    results = []
    threads = [threading.Thread(target=counting)] + [
        threading.Thread(target=lambda: results.append(m.generate(rows, max_new_tokens=60, suppress_tokens=[0, 2]))) for _ in range(2)]
    for t in threads:
        t.start()
    for t in threads[1:]:
        t.join()
    stop.set()
    threads[0].join()
    assert count[0] > 3 and len(results) == 2 and np.array_equal(results[0], results[1])
    assert np.array_equal(results[0], m.generate(rows, max_new_tokens=60, suppress_tokens=[0, 2]))


@test
def an_exception_in_a_callback_comes_out():
    class Broken:
        def put(self, ids):
            raise ZeroDivisionError("of the streamer")

        def end(self):
            pass

    class Collect:
        def __init__(self):
            self.ids = []

        def put(self, ids):
            self.ids += ids.tolist()

        def end(self):
            self.ended = True

    ids, collect = np.array([[5, 6, 7]]), Collect()
    raises(ZeroDivisionError, model().generate, ids, streamer=Broken())
    raises(ValueError, model().generate, ids, streamer=collect, num_beams=2, match="beam")
    assert model().generate(ids, streamer=collect, max_new_tokens=25)[0].tolist() == collect.ids and collect.ended


@test
def a_callback_cannot_call_its_model():
    m, others = model(), []

    class Calls:
        def __init__(self, fn):
            self.fn, self.ended = fn, False

        def put(self, ids):
            if np.asarray(ids).shape[0] < 3:  # not the prompt, which comes before the call begins
                self.fn()

        def end(self):
            self.ended = True

    ids = np.array([[5, 6, 7]])
    for fn in (lambda: m.generate(ids), lambda: m(ids), m.close):
        raises(RuntimeError, m.generate, ids, streamer=Calls(fn), max_new_tokens=25, match="callback")
    other = sill.AutoModelForCausalLM.from_pretrained(GPT2, device="cpu")
    want = m.generate(ids, max_new_tokens=25)
    assert np.array_equal(want, m.generate(ids, max_new_tokens=25, streamer=Calls(lambda: others.append(other.generate(ids, max_new_tokens=25)))))
    assert others and all(np.array_equal(want, x) for x in others)


# ---- elsewhere: pickles, other processes

def alone(script, **options):
    p = subprocess.run([sys.executable, "-c", "import checks, cases, sill, sys, os, threading, time, pickle; import numpy as np; from checks import model\n" + script],
                       capture_output=True, timeout=60, **options)
    assert p.returncode == 0, f"status {p.returncode}: {p.stderr.decode()[-400:]}"
    return p.stdout


@test
def pickles_and_copies():
    t, m = tokenizer(), sill.AutoModelForCausalLM.from_pretrained(GPT2, device="cpu", dtype="bfloat16", n_ctx=64)
    t.pad_token, t.padding_side = t.eos_token, "left"
    e = t(cases.PROMPTS, padding=True, return_tensors="np")
    want = t.batch_decode(m.generate(**e, max_new_tokens=5))
    for a, b in ((copy.copy(t), copy.copy(m)), (copy.deepcopy(t), copy.deepcopy(m)), pickle.loads(pickle.dumps((t, m)))):
        assert a.padding_side == "left" and b.dtype == "bf16" and b._core.n_ctx == 64
        assert a.batch_decode(b.generate(**a(cases.PROMPTS, padding=True, return_tensors="np"), max_new_tokens=5)) == want
    assert pickle.loads(pickle.dumps(t("a b")))["input_ids"] == t("a b")["input_ids"]
    p = sill.pipeline("text-generation", model=m, tokenizer=t)
    assert p("a", do_sample=False, max_new_tokens=5) == pickle.loads(pickle.dumps(p))("a", do_sample=False, max_new_tokens=5)
    copied, ids = copy.deepcopy(t), t("Hello there")["input_ids"]
    del t
    for _ in range(3):
        tokenizer("task/llama")
    assert copied("Hello there")["input_ids"] == ids
    out = alone("t, m, e = pickle.load(sys.stdin.buffer); print(t.batch_decode(m.generate(**e, max_new_tokens=5)))", input=pickle.dumps((copied, m, e)))
    assert out.decode().strip() == str(want)


@test
def a_forked_process_computes():
    alone("""
m, ids = sill.AutoModelForCausalLM.from_pretrained(checks.GPT2, device="cpu", n_threads=2), np.array([[5, 6, 7]] * 8)
want, loaded = m.generate(ids), m._core._handles
child = os.fork()
if not child:
    import signal
    signal.alarm(20)
    good = np.array_equal(m.generate(ids), want) and m._core._handles is not loaded
    m.close()
    os._exit(0 if good else 1)
assert os.waitpid(child, 0)[1] == 0
assert np.array_equal(m.generate(ids), want) and m._core._handles is loaded
""")


@test
def an_end_while_a_thread_computes():
    alone("""
m, began = model(), threading.Event()
def run():
    began.set()
    while True:
        m.generate(np.array([[5, 6, 7]] * 64), max_new_tokens=150, suppress_tokens=[0, 2])
threading.Thread(target=run, daemon=True).start()
began.wait()
time.sleep(0.2)
""")


# ---- tables

@test
def tables_of_any_kind():
    texts, labels = ["a good film", None, "bad"], ["good", "bad"]
    want = sill.classify(texts, labels=labels, model=model())
    assert list(want) == ["label", "margin", "entropy", "n_tokens", "needs_human", "prob_good", "prob_bad"] and want["label"][0] in labels
    data = sill.classify({"text": texts, "label": [1, 2, 3]}, text="text", labels="good,bad", model=model())
    assert data["sill_label"] == want["label"] and data["label"] == [1, 2, 3]
    s = sill.score(["a good film", "x"], model=model(), per="token")
    assert abs(math.exp(-s["sum_logprob"][0] / (s["n_tokens"][0] - 1)) - s["perplexity"][0]) < 1e-9 and s["logprobs"][0][0] is None
    ids = np.array(tokenizer()("a good film")["input_ids"])
    assert abs(float(model()(ids, labels=ids).loss) + s["mean_logprob"][0]) < 1e-6
    v = sill.embed(["a good film", "x"], model=model(), normalize=True)
    assert v.shape == (2, 28) and np.allclose((v ** 2).sum(1), 1, atol=1e-5)
    failed = sill.classify(["x", "a " * 300], labels=labels, model=model())
    assert failed["error"][0] is None and "192" in failed["error"][1] and failed["label"][1] is None
    raises(errors.SillError, sill.classify, ["a " * 300], labels=labels, model=model(), errors="raise")
    raises(ValueError, sill.classify, {"a": ["x"]}, labels=labels, model=model(), match="there are: a")
    raises(ValueError, sill.classify, [5], labels=labels, model=model(), match="row 1")
    raises(ValueError, sill.classify, ["x"], labels=[1, 2], model=model(), match="not text")
    raises(ValueError, sill.pipeline("zero-shot-classification", model=model()), ["x", math.nan], labels, match="row 2")
    taken = sill.classify({"t": ["x"], "label": [1], "sill_label": [2]}, text="t", labels=labels, model=model())
    assert taken["sill_label"] == [2] and taken["sill_sill_label"][0] in labels
    assert list(sill.classify([], labels=labels, model=model())) == list(want)
    assert list(sill.classify([], labels=labels, multi_label=True, model=model()))[0] == "labels"
    assert sill.score([], model=model())["perplexity"] == [] and sill.embed([], model=model()).shape == (0, 28)


@test
def pandas_polars_and_pyarrow():
    try:
        import pandas as pd
        import polars as pl
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as e:
        raises(ImportError, sill.classify, "x.parquet", text="text", labels=["a", "b"], match="pyarrow")
        raise Skip(f"checked elsewhere: {e}") from None
    texts, options = ["a good film", None, "bad"], {"text": "t", "labels": ["good", "bad"], "model": model()}
    want = sill.classify({"t": texts}, **options)["label"]
    frame = sill.classify(pd.DataFrame({"t": texts}, index=[7, 3, 5]), **options)
    assert isinstance(frame, pd.DataFrame) and list(frame["label"]) == want and list(frame.index) == [7, 3, 5] and list(frame.columns)[0] == "t"
    frame = sill.classify(pd.DataFrame({"t": texts}, index=[1, 1, 1]), **options)
    assert list(frame["label"]) == want and list(frame.index) == [1, 1, 1]
    frame = sill.classify(pd.DataFrame({"t": ["a good film", pd.NaT, "bad"]}, dtype=object), **options)
    assert list(frame["label"]) == want and list(sill.classify(pd.Index(texts), labels=["good", "bad"], model=model())["label"]) == want
    assert len(sill.classify(pd.DataFrame({"t": []}), **options)) == 0
    raises(ValueError, sill.classify, pd.DataFrame([["a", "b"], ["c", "d"]], columns=["t", "t"]), match="2 columns 't'", **options)
    raises(ValueError, sill.classify, pl.LazyFrame({"t": texts}), match="collect", **options)
    frame = sill.classify(pl.DataFrame({"t": texts}), **options)
    assert isinstance(frame, pl.DataFrame) and frame["label"].to_list() == want
    table = sill.classify(pa.table({"t": texts}), **options)
    assert isinstance(table, pa.Table) and table["label"].to_pylist() == want
    with tempfile.TemporaryDirectory() as d:
        pq.write_table(pa.table({"t": texts}), d + "/x.parquet")
        assert sill.classify(d + "/x.parquet", **options)["label"].to_pylist() == want
        assert sill.score(d + "/x.parquet", text="t", model=model())["n_tokens"].to_pylist()[1] == 0
        assert sill.embed(pd.Series(["a", "b"]), model=model()).shape == (2, 28)


# ---- the three programs

def hub(directory):
    """A hub's cache in which GPT-2's names are the small model of the tests."""
    for name in ("gpt2", "gpt2-medium", "gpt2-large"):
        base = os.path.join(directory, "models--" + name)
        os.makedirs(os.path.join(base, "refs"))
        os.makedirs(os.path.join(base, "snapshots"))
        with open(os.path.join(base, "refs/main"), "w") as f:
            f.write("0123abc")
        os.symlink(GPT2, os.path.join(base, "snapshots/0123abc"))
    os.environ["HF_HUB_CACHE"] = directory


def program_1():
    from sill import pipeline
    generator = pipeline("text-generation", model="gpt2", device=0)
    return generator("This is a test sentence.", max_length=50, num_return_sequences=1)


def program_2():
    from sill import AutoModelForCausalLM, AutoTokenizer, GPT2LMHeadModel, GPT2Tokenizer, pipeline
    quantized_model = AutoModelForCausalLM.from_pretrained("gpt2-medium", load_in_8bit=True)
    tokenizer = AutoTokenizer.from_pretrained("gpt2-medium")
    assert GPT2LMHeadModel and GPT2Tokenizer
    return quantized_model, pipeline("text-generation", model=quantized_model, tokenizer=tokenizer)


def program_3(kind, nothing=contextlib.nullcontext):
    from sill import GPT2LMHeadModel, GPT2Tokenizer
    tokenizer = GPT2Tokenizer.from_pretrained("gpt2-large")
    model = GPT2LMHeadModel.from_pretrained("gpt2-large")
    encoded_inputs = tokenizer(cases.PROMPTS, return_tensors=kind, padding=True)
    with nothing():
        outputs = model.generate(**encoded_inputs)
    return tokenizer.batch_decode(outputs, skip_special_tokens=True)


@test
def the_three_programs():
    with tempfile.TemporaryDirectory() as d:
        hub(d)
        sill.set_seed(9)
        r = program_1()
        assert len(r) == 1 and list(r[0]) == ["generated_text"] and r[0]["generated_text"].startswith("This is a test sentence.")
        sill.set_seed(9)  # a text tokenized again may have more tokens
        ids = sill.pipeline("text-generation", model="gpt2")("This is a test sentence.", max_length=50, return_tensors=True)[0]["generated_token_ids"]
        assert len(ids) <= 50 and tokenizer().decode(ids, skip_special_tokens=True) == r[0]["generated_text"]
        same(sill.pipeline("text-generation", model="gpt2", device=0)("This is a test sentence.", max_length=50, num_return_sequences=1, do_sample=False),
             ANSWERS["text_generation"][5])
        m, p = program_2()
        assert m.dtype == "int8"
        greedy = p(cases.PROMPTS[0], do_sample=False, max_new_tokens=9)[0]["generated_text"]
        ids = m.generate(np.array([tokenizer()(cases.PROMPTS[0])["input_ids"]]), max_new_tokens=9)
        assert tokenizer().decode(ids[0], skip_special_tokens=True) == greedy
        texts = program_3("np")
        assert texts == ANSWERS["generate"]["task/gpt2"][0][1]  # each as alone: transformers' with position_ids, token for token
        assert texts == [tokenizer().decode(model().generate(np.array([tokenizer()(s)["input_ids"]]))[0], skip_special_tokens=True) for s in cases.PROMPTS]
        raises(OSError, sill.AutoTokenizer.from_pretrained, "gpt2-xl", match="gpt2-xl")


def main(tests):
    bad = 0
    for fn in tests:
        if len(sys.argv) > 1 and fn.__name__ not in sys.argv[1:]:
            continue
        try:
            start = time.monotonic()
            fn()
            print("PASS", fn.__name__, f"({time.monotonic() - start:.1f} s)", flush=True)
        except Skip as e:
            print(f"SKIP {fn.__name__}: {e}", flush=True)
        except Exception as e:
            bad += 1
            lines = ", ".join(str(f.lineno) for f in traceback.extract_tb(e.__traceback__))
            print(f"  line {lines}: {type(e).__name__}: {str(e)[:2000]}\nFAIL {fn.__name__}", flush=True)
    sys.exit(bad > 0)


if __name__ == "__main__":
    main(TESTS)
