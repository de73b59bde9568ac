"""The calls that are made of transformers (tools/fixtures/make_python.py) and of the package (checks.py)."""
import hashlib
import json
import os

TOKENIZERS = ["task/gpt2/tokenizer.json", "tokenizer/smollm.json", "tokenizer/llama3.json", "tokenizer/spm.json", "tokenizer/spm_meta.json"]
MODELS = ["task/gpt2", "task/llama"]
SENTENCES = ["This is a test sentence.", "A much longer one, with na\u00efve caf\u00e9s in it.", "Short"]
PROMPTS = ["This is a test sentence.", "Once upon a time there was", "a"]
PADDING = [
    {"padding": True}, {"padding": True, "side": "left"}, {"padding": "max_length", "max_length": 40}, {"padding": True, "pad_to_multiple_of": 16},
    {"truncation": True, "max_length": 5}, {"truncation": True, "max_length": 5, "cut": "left"}, {"padding": True, "truncation": True, "max_length": 7},
    {"padding": "max_length", "truncation": True, "max_length": 8, "side": "left"}, {"return_offsets_mapping": True},
    {"padding": True, "return_offsets_mapping": True, "return_special_tokens_mask": True},
    {"text_pair": ["one", "two words", "three whole words"], "truncation": True, "max_length": 12}, {"text_pair": ["one", "two", "three"], "truncation": "only_first", "max_length": 6},
    {"padding": True, "return_attention_mask": False},
]
CHATS = [[{"role": "user", "content": "Hello there"}],
         [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "What is it?"}, {"role": "assistant", "content": "A test."},
          {"role": "user", "content": "And na\u00efve?"}]]
GENERATE = [
    {}, {"max_new_tokens": 12}, {"max_length": 45}, {"max_new_tokens": 15, "repetition_penalty": 1.3}, {"max_new_tokens": 15, "no_repeat_ngram_size": 2},
    {"max_new_tokens": 10, "min_new_tokens": 8}, {"max_new_tokens": 10, "bad_words_ids": [[5], [17, 9]]}, {"max_new_tokens": 8, "do_sample": False, "num_beams": 1},
    {"max_new_tokens": 8, "suppress_tokens": [5, 9, 200]}, {"max_new_tokens": 8, "sequence_bias": {(7,): 5.0, (8, 9): 3.0}}, {"max_new_tokens": 10, "min_length": 30},
    {"max_new_tokens": 30, "stop_strings": ["e"]},
]


def texts(fixtures):
    """Texts of every group: documents in many languages are cut, of the nasty strings there are the first ones."""
    out = []
    with open(os.path.join(fixtures, "tokenizer/texts.jsonl"), encoding="utf-8") as f:
        for line in f:
            out += [t[:400] for t in json.loads(line)["t"][:4]]
    return out


def digests(t, text):
    """Of ids, offsets, tokens and both ways back."""
    e = t(text, return_offsets_mapping=True)
    ids = list(e["input_ids"])
    parts = [ids, [list(x) for x in e["offset_mapping"]], t.convert_ids_to_tokens(ids), [t.decode(ids), t.decode(ids, skip_special_tokens=True)]]
    return [hashlib.sha256(json.dumps(p).encode()).hexdigest()[:10] for p in parts]
