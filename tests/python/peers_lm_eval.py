#!/usr/bin/env python3
"""sill.lm_eval beside the `hf` model of EleutherAI's lm-evaluation-harness, on the same weights in f32 (SmolLM2-135M-Instruct's GGUF, which
transformers dequantizes), over local task files: HellaSwag (36 tasks), last words as LAMBADA asks for them, whole texts, and texts that are
generated. Accuracies must be equal, log-probabilities of every request within 1e-3, generated texts the same.

    BUILD=build/release build/venv-lm-eval/bin/python tests/python/peers_lm_eval.py    (tools/test_all.sh peers; tools/deps.sh --peers)

The last words are of presidents' speeches (tests/fixtures/lm_eval, public domain); LAMBADA=lambada_test.jsonl[.gz] names LAMBADA itself, which is
not in the repository. ITEMS=N: so many of each.
"""
import gzip
import os
import subprocess
import sys

import peers

os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TOKENIZERS_PARALLELISM="false", HF_HOME=os.path.join(peers.work.name, "hf"))
try:
    import lm_eval
    import torch
    import transformers
    from lm_eval.tasks import TaskManager
except ImportError as e:
    peers.skip("peers_lm_eval", f"{e}; run it with build/venv-lm-eval/bin/python, which tools/deps.sh --peers makes")
if not os.path.exists(peers.SMOLLM2):
    peers.skip("peers_lm_eval", f"no {peers.SMOLLM2}; run tools/fetch_model.sh")
sill = peers.load_sill()
import sill.lm_eval  # noqa: E402, F401

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
ITEMS = int(os.environ.get("ITEMS", 36))
TASKS = {
    "sill_hellaswag": ("hellaswag/val_36.jsonl", """output_type: multiple_choice
doc_to_text: "{{query}}"
doc_to_target: "{{label}}"
doc_to_choice: choices
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
  - {metric: acc_norm, aggregation: mean, higher_is_better: true}
"""),
    "sill_last_words": ("lm_eval/last_words.jsonl", """output_type: loglikelihood
doc_to_text: "{{text.split(' ')[:-1]|join(' ')}}"
doc_to_target: "{{' '+text.split(' ')[-1]}}"
metric_list:
  - {metric: perplexity, aggregation: perplexity, higher_is_better: false}
  - {metric: acc, aggregation: mean, higher_is_better: true}
"""),
    "sill_rolling": ("lm_eval/last_words.jsonl", """output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{text}}"
metric_list:
  - {metric: word_perplexity}
  - {metric: byte_perplexity}
  - {metric: bits_per_byte}
"""),
    "sill_generated": ("lm_eval/last_words.jsonl", """output_type: generate_until
doc_to_text: "{{text.split(' ')[:-1]|join(' ')}}"
doc_to_target: "{{text.split(' ')[-1]}}"
generation_kwargs: {until: [".", "\\n", " and"], max_gen_toks: 12, do_sample: false}
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true}
"""),
}


def data_file(name):
    path = os.environ.get("LAMBADA")
    if "last_words" not in name or not path:
        return os.path.join(peers.FIXTURES, name)
    copy = os.path.join(peers.work.name, "lambada.jsonl")
    with (gzip.open if path.endswith(".gz") else open)(path, "rt", encoding="utf-8") as f:
        rows = [line for line in f if line.strip()]
    with open(copy, "w", encoding="utf-8") as f:
        f.writelines(peers.evenly(rows, ITEMS))
    return copy


def write_tasks():
    folder = os.path.join(peers.work.name, "tasks")
    os.makedirs(folder, exist_ok=True)
    for name, (data, text) in TASKS.items():
        with open(os.path.join(folder, name + ".yaml"), "w") as f:
            f.write(f"task: {name}\ndataset_path: json\ndataset_kwargs:\n  data_files: {{test: {data_file(data)}}}\ntest_split: test\n{text}metadata: {{version: 1.0}}\n")
    return TaskManager(include_path=folder, include_defaults=False)


def evaluated(model, arguments, tasks, names, **more):
    r = lm_eval.simple_evaluate(model=model, model_args=arguments, tasks=list(names), task_manager=tasks, limit=ITEMS, batch_size=8, log_samples=True,
                                bootstrap_iters=0, device="cpu", **more)
    return r["results"], r["samples"]


def numbers(results, name):
    return {k.split(",")[0]: v for k, v in results[name].items() if isinstance(v, float) and "stderr" not in k}


def answers(samples, name):
    """All responses of a task, in the order of the documents."""
    return [[x[0] if isinstance(x, (list, tuple)) and len(x) == 1 else x for x in s["resps"]] for s in sorted(samples[name], key=lambda s: s["doc_id"])]


def flat(x):
    return [y for e in x for y in flat(e)] if isinstance(x, (list, tuple)) else [x]


def compare(ours, theirs, name):
    """The largest difference between log-probabilities; accuracies, greediness and texts must be the same."""
    a, b = flat(answers(ours[1], name)), flat(answers(theirs[1], name))
    assert len(a) == len(b) >= min(ITEMS, 12), f"{name}: {len(a)} answers, expected {len(b)}"
    worst = 0.0
    for x, y in zip(a, b):
        if isinstance(y, float) and not isinstance(y, bool):
            worst = max(worst, abs(x - y) / max(1.0, abs(y) / 100))
        else:
            assert str(x) == str(y), f"{name}: {x!r}, expected {y!r}"
    assert worst < 1e-3, f"{name}: log-probabilities differ by {worst}"
    m, n = numbers(ours[0], name), numbers(theirs[0], name)
    assert set(m) == set(n) and m, (m, n)
    for k in n:
        assert (m[k] == n[k]) if k.startswith("acc") or k == "exact_match" else abs(m[k] - n[k]) < 1e-4 * abs(n[k]), f"{name} {k}: {m[k]}, expected {n[k]}"
    return f"{name[5:]} " + ", ".join(f"{k} {v:.5g}" for k, v in m.items()) + f" ({len(a)} answers, within {worst:.1e})"


def the_numbers_of_hf():
    tasks = write_tasks()
    folder, file = os.path.split(peers.SMOLLM2)
    theirs = evaluated("hf", {"pretrained": folder, "gguf_file": file, "dtype": "float32"}, tasks, TASKS)
    ours = evaluated("sill", {"pretrained": peers.SMOLLM2, "dtype": "float32"}, tasks, TASKS)
    return "; ".join(compare(ours, theirs, name) for name in TASKS)


def texts_longer_than_the_context():
    """Windows of rolling texts and cut contexts, with a context of 128 and a small GPT-2, where most texts are longer."""
    tasks = write_tasks()
    path = os.path.join(peers.FIXTURES, "task/gpt2")
    names = [n for n in TASKS if n != "sill_generated"]
    theirs = evaluated("hf", {"pretrained": path, "dtype": "float32", "max_length": 128}, tasks, names)
    ours = evaluated("sill", {"pretrained": path, "dtype": "float32", "max_length": 128}, tasks, names)
    return "; ".join(compare(ours, theirs, name) for name in names)


def the_command():
    """As its users call it: without a device, for which the harness then says cuda."""
    write_tasks()
    env = {**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(sill.__file__))}
    p = subprocess.run([sys.executable, "-m", "sill.lm_eval", "--model", "sill", "--model_args", f"pretrained={os.path.join(peers.FIXTURES, 'task/gpt2')}",
                        "--tasks", "sill_last_words", "--include_path", os.path.join(peers.work.name, "tasks"), "--limit", "4"], capture_output=True,
                       text=True, env=env, timeout=300)
    assert p.returncode == 0 and "|sill_last_words|" in p.stdout and "perplexity" in p.stdout, (p.stdout + p.stderr)[-1500:]


peers.main([the_command, the_numbers_of_hf, texts_longer_than_the_context])
