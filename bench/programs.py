#!/usr/bin/env python3
"""The three programs of the README's "Coming from transformers", each as a process of its own: seconds and memory.

    bench/programs.py [--models build/bench-models] [--build build/release] [--rounds 3] [--programs 1,2,3] [--peer]

1  pipeline("text-generation", model="gpt2", device=0), one sentence, max_length=50                  GPT-2 small's shape
2  AutoModelForCausalLM.from_pretrained("gpt2-medium", load_in_8bit=True), the same pipeline         GPT-2 medium's shape
3  GPT2LMHeadModel.from_pretrained("gpt2-large"), three sentences padded, generate, batch_decode     GPT-2 large's shape

and all three with SmolLM2-135M-Instruct (Q4_1; for 2 MODELS/smollm2-f32.gguf, of bench/run.sh smollm2, since 4 bits are not made 8). The shapes have random weights in f32 (bench/peers/models.py MODELS SHAPE), and stand in a hub's
cache under GPT-2's names. --peer: transformers, too, where it runs the program: 1 as it is, 3 with a padding token set by hand, on the left.
Columns: seconds of the whole process, of its import, of loading, of the call; new tokens; the largest resident memory, mapped files counted.
Texts are greedy here (do_sample=False), so that every round does the same. The least of the rounds.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "../tests/python"))
SENTENCES = ["This is a test sentence.", "A much longer one, of which nobody knows where it will lead in the end, is the second.", "Short"]
SHAPES = {"gpt2": "small", "gpt2-medium": "medium", "gpt2-large": "large"}


def child(package, program, name, path):
    """One program, said in stages. NAME: what it asks for; PATH: SmolLM2's file, where that stands for it."""
    t = [time.perf_counter()]

    def stage():
        t.append(time.perf_counter())

    if package == "sill":
        import peers
        peers.load_sill()
        from sill import AutoModelForCausalLM, AutoTokenizer, GPT2LMHeadModel, GPT2Tokenizer, pipeline
    else:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2LMHeadModel, GPT2Tokenizer, pipeline
        torch.set_grad_enabled(False)
    stage()
    model = path or name
    if program == 1:
        p = pipeline("text-generation", model=model, device=0 if package == "sill" else "cpu")
        stage()
        p(SENTENCES[0], max_length=50, num_return_sequences=1, do_sample=False)
        n = 50 - len(p.tokenizer(SENTENCES[0])["input_ids"])
    elif program == 2:
        m, tokenizer = AutoModelForCausalLM.from_pretrained(model, load_in_8bit=True), AutoTokenizer.from_pretrained(model)
        p = pipeline("text-generation", model=m, tokenizer=tokenizer)
        stage()
        p(SENTENCES[0], max_length=50, do_sample=False)
        n = 50 - len(tokenizer(SENTENCES[0])["input_ids"])
    else:
        model_kind, tokenizer_kind = (AutoModelForCausalLM, AutoTokenizer) if path else (GPT2LMHeadModel, GPT2Tokenizer)
        tokenizer = tokenizer_kind.from_pretrained(model)
        m = model_kind.from_pretrained(model)
        if package != "sill":
            tokenizer.pad_token, tokenizer.padding_side = tokenizer.eos_token, "left"
        stage()
        e = tokenizer(SENTENCES, return_tensors="np" if package == "sill" else "pt", padding=True)
        texts = tokenizer.batch_decode(m.generate(**e), skip_special_tokens=True)
        assert len(texts) == 3 and all(x.startswith(s[:4]) for x, s in zip(texts, SENTENCES))
        n = 60
    stage()
    print(json.dumps({"stages": [b - a for a, b in zip(t, t[1:])], "new": n}))


def run(package, program, name, path, args, hub):
    """The least of the rounds: seconds whole, stages, new tokens, MiB."""
    best = None
    for _ in range(args.rounds):
        env = {**os.environ, "HF_HUB_CACHE": hub, "BUILD": os.path.abspath(args.build), "TRANSFORMERS_VERBOSITY": "error", "HF_HUB_OFFLINE": "1"}
        begun = time.perf_counter()
        p = subprocess.Popen([args.python, os.path.abspath(__file__), "--child", package, str(program), name, path], stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, env=env, text=True)
        out, err = p.stdout.read(), p.stderr.read()
        _, status, usage = os.wait4(p.pid, 0)
        whole = time.perf_counter() - begun
        if status:
            raise SystemExit(f"{package}, program {program}: {err[-1500:]}")
        r = json.loads(out.splitlines()[-1])
        mib = usage.ru_maxrss / (1024 if sys.platform != "darwin" else 1 << 20)
        if best is None or whole < best[0]:
            best = (whole, *r["stages"], r["new"], mib)
    return best


def make_hub(models, directory):
    for name, shape in SHAPES.items():
        base = os.path.join(directory, "models--" + name)
        os.makedirs(os.path.join(base, "refs"))
        os.makedirs(os.path.join(base, "snapshots"))
        with open(os.path.join(base, "refs/main"), "w") as f:
            f.write("0123abc")
        os.symlink(os.path.abspath(os.path.join(models, shape + "-f32")), os.path.join(base, "snapshots/0123abc"))


def main():
    if sys.argv[1:2] == ["--child"]:
        return child(sys.argv[2], int(sys.argv[3]), sys.argv[4], sys.argv[5])
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--models", default="build/bench-models")
    a.add_argument("--build", default="build/release")
    a.add_argument("--python", default=sys.executable)
    a.add_argument("--rounds", type=int, default=3)
    a.add_argument("--programs", default="1,2,3")
    a.add_argument("--peer", action="store_true")
    args = a.parse_args()
    import peers
    programs = [int(x) for x in args.programs.split(",")]
    print("| program | model | with | process s | import | load | call | new tokens | MiB |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory(prefix="sill_programs_") as hub:
        make_hub(args.models, hub)
        for program in programs:
            name = list(SHAPES)[program - 1]
            rows = [("sill", name, "")]
            if args.peer and program != 2:
                rows.append(("transformers", name, ""))
            smollm2 = os.path.join(args.models, "smollm2-f32.gguf") if program == 2 else peers.SMOLLM2
            if os.path.exists(smollm2):
                rows.append(("sill", name, smollm2))
            for package, name, path in rows:
                whole, *stages, new, mib = run(package, program, name, path, args, hub)
                model = f"SmolLM2-135M ({'f32' if program == 2 else 'Q4_1'} GGUF)" if path else f"{name} shape"
                print(f"| {program} | {model} | {package} | {whole:.2f} | " + " | ".join(f"{s:.2f}" for s in stages) + f" | {new} | {mib:.0f} |", flush=True)


if __name__ == "__main__":
    main()
