"""The package beside torch and tables: tensors come out where tensors come in, and the three programs as their users write them."""
import os

import numpy as np
import torch

import cases
import checks
from checks import ANSWERS, model, same, tokenizer

import sill

TESTS = [checks.pandas_polars_and_pyarrow]


def test(fn):
    TESTS.append(fn)
    return fn


@test
def tensors_in_tensors_out():
    t, m = tokenizer(), model()
    e = t(cases.PROMPTS, return_tensors="pt", padding=True)
    assert isinstance(e.input_ids, torch.Tensor) and e.input_ids.dtype == torch.int64 and e.to("cpu") is e
    with torch.no_grad():
        out = m.generate(**e)
    assert isinstance(out, torch.Tensor) and out.tolist() == ANSWERS["generate"]["task/gpt2"][0][0]
    assert t.batch_decode(out, skip_special_tokens=True) == ANSWERS["generate"]["task/gpt2"][0][1]
    a = m(e.input_ids, attention_mask=e.attention_mask, labels=e.input_ids)
    b = m(e.input_ids.numpy(), attention_mask=e.attention_mask.numpy(), labels=e.input_ids.numpy())
    assert isinstance(a.logits, torch.Tensor) and a.logits.dtype == torch.float32 and np.array_equal(a.logits.numpy(), b.logits)
    assert isinstance(a.loss, torch.Tensor) and a.loss.item() == float(b.loss) and m.device == torch.device("cpu")
    assert m.to(torch.device("cpu")) is m and sill.AutoModelForCausalLM.from_pretrained(checks.GPT2, torch_dtype=torch.bfloat16, device="cpu").dtype == "bf16"
    f = sill.pipeline("feature-extraction", model=checks.GPT2, device="cpu")(cases.SENTENCES[1], return_tensors=True)
    assert isinstance(f, torch.Tensor)
    head = model("python/head", sill.AutoModelForSequenceClassification)
    t.pad_token = t.eos_token
    e = t(cases.SENTENCES, return_tensors="pt", padding=True)
    r = head(**e, labels=torch.tensor([0, 2, 1]))
    assert isinstance(r.logits, torch.Tensor)
    same(r.logits.tolist(), ANSWERS["classified"]["logits"])


@test
def the_three_programs_with_torch():
    import tempfile
    with tempfile.TemporaryDirectory() as d:
        checks.hub(d)
        assert checks.program_1()[0]["generated_text"].startswith("This is a test sentence.")
        assert checks.program_2()[1](cases.PROMPTS[0], do_sample=False)[0]["generated_text"]
        assert checks.program_3("pt", torch.no_grad) == ANSWERS["generate"]["task/gpt2"][0][1]


@test
def transformers_itself_agrees_on_new_texts():
    """Not stored answers: other prompts, transformers beside the package."""
    import transformers
    transformers.logging.set_verbosity_error()
    ours, theirs = model(), transformers.AutoModelForCausalLM.from_pretrained(checks.GPT2).eval()
    t, u = tokenizer(), transformers.AutoTokenizer.from_pretrained(checks.GPT2)
    u.pad_token, u.padding_side = u.eos_token, "left"
    texts = [x[:30] for x in cases.texts(checks.FIXTURES)[:40] if x.isascii() or len(x) > 60]
    a, b = t(texts, return_tensors="pt", padding=True), u(texts, return_tensors="pt", padding=True, return_token_type_ids=False)
    assert torch.equal(a.input_ids, b["input_ids"]) and torch.equal(a.attention_mask, b["attention_mask"])
    assert len(texts) > 10 and a.input_ids.shape[1] < 160, a.input_ids.shape
    x, y = ours.generate(**a, max_new_tokens=25), theirs.generate(**b, max_new_tokens=25, pad_token_id=0)
    assert torch.equal(x, y), (x != y).any(1).nonzero()


@test
def transformers_itself_agrees_on_calls_of_every_day():
    """What users write, on both: what is equal there is equal here."""
    import transformers
    prompt, greedy = cases.PROMPTS[0], {"do_sample": False, "max_new_tokens": 9}
    chat = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "The"}]

    def padded(m, pad, ids):
        return m.generate(torch.tensor([[pad] * 3 + ids]), max_new_tokens=6, pad_token_id=pad).tolist()

    for name in cases.MODELS:
        t, u = tokenizer(name), transformers.AutoTokenizer.from_pretrained(os.path.join(checks.FIXTURES, name))
        m, n = model(name), transformers.AutoModelForCausalLM.from_pretrained(os.path.join(checks.FIXTURES, name)).eval()
        p, q = sill.pipeline("text-generation", model=m, tokenizer=t), transformers.pipeline("text-generation", model=n, tokenizer=u)
        ids = torch.tensor([u(prompt)["input_ids"]])
        texts = [prompt, prompt + " f", "Once", "This is "]
        calls = {"texts": lambda p, m, t: p(texts[:2], **greedy), "new text": lambda p, m, t: [p(x, return_full_text=False, **greedy) for x in texts],
                 "prefix": lambda p, m, t: p(prompt, prefix="a b ", **greedy), "greedy at 0": lambda p, m, t: p(prompt, temperature=0.0, **greedy),
                 "begun answer": lambda p, m, t: p(chat, **greedy), "answer to an answer": lambda p, m, t: p(chat, continue_final_message=False, **greedy),
                 "new answer": lambda p, m, t: p(chat, return_full_text=False, **greedy),
                 "left open": lambda p, m, t: t.apply_chat_template(chat, continue_final_message=True)["input_ids"],
                 "no mask, pad 1": lambda p, m, t: padded(m, 3, ids[0].tolist()), "no mask, an end": lambda p, m, t: padded(m, 2, ids[0].tolist()),
                 "beams": lambda p, m, t: m.generate(ids, max_new_tokens=9, num_beams=3, num_return_sequences=2, length_penalty=0.0, early_stopping=True).tolist(),
                 "options of transformers": lambda p, m, t: m.generate(ids, generation_config=transformers.GenerationConfig(**greedy)).tolist(),
                 "shapes": lambda p, m, t: [x.shape for x in m(ids, labels=ids, return_dict=False)[:2]] + [m(ids, logits_to_keep=2).logits.shape],
                 "decode": lambda p, m, t: [t.decode([torch.tensor(5), torch.tensor(9)]), t.batch_decode(ids[0]), t.batch_decode([ids[0], ids[0][:4]])]}
        for what, call in calls.items():
            got, want = call(p, m, t), call(q, n, u)
            assert got == want, f"{name}, {what}: {got}, expected {want}"


@test
def every_public_name_of_transformers_is_there_or_refused():
    import transformers
    u, n = transformers.AutoTokenizer.from_pretrained(checks.GPT2), transformers.AutoModelForCausalLM.from_pretrained(checks.GPT2)
    t, m = tokenizer(), model()
    pairs = [(m, n), (t, u), (t("a"), u("a")), (model("python/head", sill.AutoModelForSequenceClassification), n),
             (sill.pipeline("text-generation", model=m, tokenizer=t), transformers.pipeline("text-generation", model=n, tokenizer=u))]
    unknown, refused = [], 0
    for ours, theirs in pairs:
        for name in dir(theirs):
            if name.startswith("_"):
                continue
            try:
                getattr(ours, name)
            except sill.UnsupportedError:
                refused += 1
            except AttributeError:
                unknown.append(f"{type(ours).__name__}.{name}")
    assert not unknown and refused > 100, f"{refused} refused, unknown: {' '.join(unknown)}"


if __name__ == "__main__":
    checks.main(TESTS)
