#!/usr/bin/env python3
"""Constrained output: what comes out is what Python's re and jsonschema take, whatever the model would have said."""
import glob, random, re
from clitest import *

M = ["-m", STORIES]
GPT2 = ["-m", os.path.join(FIXTURES, "task/gpt2")]
SAMPLE = ["--do-sample", "--temperature", "2.5", "--top-k", "0"]


def outputs(model, *args, n=40, seed=1, **kw):
    """N drawn texts."""
    r = sill("generate", *model, *SAMPLE, "--json", "--seed", seed, "--num-return-sequences", n, *args, "Once upon a time", **kw)
    return r.objects()


def atom(r, depth):
    k = r.randrange(9 if depth else 7)
    if k < 3: return r.choice(["a", "b", "Z", "7", " ", "é", "日", "😀", "\\.", "\\\\", "\\n", "\\x41", "\\u00fc"])
    if k < 5: return r.choice(["[a-f]", "[^a-z]", "\\d", "\\w", "\\s", "[à-ü]", "[^\\W\\d]", ".", "[\\u4e00-\\u9fff]", "[😀-😎]", "\\D", "[-x]"])
    if k < 7: return r.choice(["the", "and ", "Tim", "was"])
    return ("(" if k == 7 else "(?:") + "|".join(pattern(r, depth - 1) for _ in range(r.randint(1, 3))) + ")"


def pattern(r, depth=2):
    return "".join(atom(r, depth) + r.choice(["", "", "", "*", "+", "?", "{2}", "{1,3}", "{0,2}", "{,2}"]) for _ in range(r.randint(1, 4)))


def patterns():
    r, n = random.Random(5), 0
    for i in range(40):
        p = pattern(r)
        # A repeated thing of more than one character is a group for Python.
        p = re.sub(r"(the|and |Tim|was)(?=[*+?{])", r"(?:\1)", p)
        for model in (M, GPT2):
            for o in outputs(model, "--regex", p, n=25, seed=i):
                assert o["error"] in (None, ""), o
                text = o["text"]
                assert "\ufffd" not in text
                assert re.fullmatch(p, text, re.ASCII), (p, text, o["finish_reason"])
                n += 1
    assert n == 2000, n


def short_limits():
    for p, least in (("[a-z]{9,}", 9), ("(yes|no), (because|since) .*\\.", 13), ("[日本語]{3,5}", 9), ('"[^"]{0,200}"', 2)):
        for n in (least, least + 1, least + 7):
            for o in outputs(M, "--regex", p, "--max-new-tokens", n, n=20, seed=n):
                assert re.fullmatch(p, o["text"], re.ASCII) and len(o["ids"]) <= n, (p, o)
    o = outputs(M, "--regex", "[a-z]{9,}", "--max-new-tokens", "2", "--suppress-tokens", "0", n=5)
    assert all(re.fullmatch("[a-z]+", x["text"]) for x in o)


SCHEMAS = [
    {"type": "object", "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer"}, "x": {"type": "number"},
                                      "ok": {"type": "boolean"}, "none": {"type": "null"}}, "required": ["name", "ok"], "additionalProperties": False},
    {"type": "array", "items": {"enum": ["a", "b\"c", 3, None, True, {"k": [1, 2]}]}, "minItems": 1, "maxItems": 4},
    {"type": "array", "items": {"type": "string", "minLength": 2, "maxLength": 4}, "maxItems": 2},
    {"type": "object", "properties": {"tags": {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 3},
                                      "in": {"type": "object", "properties": {"é\n\"": {"const": "x y"}, "v": {"type": ["number", "null"]}}}}},
    {"anyOf": [{"type": "integer"}, {"type": "string", "maxLength": 3}, {"type": "array", "items": {"type": "boolean"}, "maxItems": 3}]},
    {"title": "t", "type": "string", "enum": ["rød", "grønn", "[blå] (1|2)"]},
]


def schemas():
    # behind this Python's own packages those of the tests' environment, which is of the same Python
    sys.path += glob.glob("build/venv/lib/python3.%d/site-packages" % sys.version_info[1])
    try:
        import jsonschema
    except ImportError:
        raise Skip("no jsonschema; tools/deps.sh --test")
    n = 0
    for i, schema in enumerate(SCHEMAS):
        for model in (M, GPT2):
            given = json.dumps(schema, ensure_ascii=i % 2 == 0) if model is M else write("schema.json", json.dumps(schema, indent=2) + "\n")
            for o in outputs(model, "--json-schema", given, "--max-new-tokens", "120" if model is M else "150", n=60, seed=i):
                assert o["error"] in (None, ""), o
                v = json.loads(o["text"])
                jsonschema.validate(v, schema)
                assert set(v) == set(schema["properties"]) if isinstance(v, dict) and "properties" in schema else True
                n += 1
    assert n == 720, n


def choices():
    names = ["positive", "negative", "neither, nor", "日本", "a"]
    listed = write("choices.txt", "\n".join(names) + "\n")
    seen = {o["text"] for o in outputs(M, "--choices", listed, n=200)}
    assert seen <= set(names) and len(seen) >= 3, seen
    seen = {o["text"] for o in outputs(GPT2, "--choices", " yes, no", "--choices", "maybe", n=100)}
    assert seen <= {" yes", " no", "maybe"} and len(seen) == 3, seen
    # The choice that the model finds likeliest, token by token; beams find the likeliest whole.
    one, = sill("generate", *M, "--json", "--choices", " there was, the", "Once upon a time,").objects()
    assert one["text"] == " there was" and one["finish_reason"] == "stop"
    best = sill("generate", *M, "--json", "--num-beams", "4", "--num-return-sequences", "2", "--choices", " there was, the", "Once upon a time,").objects()
    assert {o["text"] for o in best} <= {" there was", " the"} and best[0]["text"] == " there was", best
    rows = write("rows.csv", "text\n" + "".join(f"Once {i}\n" for i in range(50)))
    a = sill("generate", *M, *SAMPLE, "-f", rows, "--text", "text", "--choices", listed).out
    assert a == sill("generate", *M, *SAMPLE, "-f", rows, "--text", "text", "--choices", listed, "--max-sequences", "2").out


def another_file_is_another_run():
    rows = write("rows.csv", "text\n" + "".join(f"Once {i}\n" for i in range(5)))
    listed = write("changed.txt", "one\ntwo\n")
    args = ["generate", *M, "-f", rows, "--text", "text", "--choices", listed, "-o", path("changed.csv")]
    sill(*args)
    assert "is finished" in sill(*args).err
    assert "constraint sha256" in read("changed.csv.run.json").decode()
    sill("verify", path("changed.csv"))
    write("changed.txt", "one\nthree\n")
    assert "constraint sha256" in sill(*args, status=None).err


def refusals():
    for args, says, status in ((["--regex", "a", "--choices", "b"], "exclude each other", 2), (["--regex", "(a"], "not closed", 1),
                               (["--regex", "(?=a)"], "is supported", 1), (["--json-schema", "{}"], '"type" is missing', 1),
                               (["--json-schema", "nothing.json"], "JSON schema", 1), (["--choices", ","], "", 1)):
        r = sill("generate", *M, *args, "x", status=status)
        assert says in r.err and not r.out, (args, r.err)


def on_a_gpu():
    """Beams and constraints are worked out on the host, from logits and best tokens that the device computes: the same texts."""
    library = os.path.abspath(os.path.join(BUILD, "libfakemetal.so"))
    if not os.path.exists(library):
        raise Skip("this machine has no fake Metal; it is for Linux")
    env = {"SILL_METAL_LIBRARY": library, "SILL_FIRST_USE_CHECK": "0", "SILL_METAL_CACHE": "0", "FAKEMETAL_FAST": "1"}
    for args in (["--num-beams", "3", "--length-penalty", "0.5", "--no-repeat-ngram-size", "2"], ["--num-beams", "2", "--do-sample", "--seed", "4"],
                 ["--regex", r"[a-z, ]{4,30}\.", *SAMPLE]):
        texts = [sill("generate", *M, "--device", device, "--dtype", "f32", "--kv-dtype", "f32", "--max-new-tokens", "8", *args, "Once upon a time", "He was",
                      env=env).text() for device in ("metal", "cpu")]
        assert texts[0] == texts[1] and texts[0].strip(), (args, texts)


for t in (on_a_gpu, patterns, short_limits, schemas, choices, another_file_is_another_run, refusals):
    test(t)
end()
