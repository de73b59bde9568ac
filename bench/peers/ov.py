"""OpenVINO GenAI, and OpenVINO itself for heads: ov.py MODEL_DIR f32|bf16|q8|q4 THREADS [--head]. bf16 is the f32 file computed
in bf16, q8 and q4 are 8- and 4-bit weights computed in bf16 where the processor has it.

GenAI's pipeline keeps the KV of prompts that it has seen: prefix caching is off here (and every task has prompts of its own),
or a repeated prefill would look faster than arithmetic allows."""
import sys
from common import VOCAB, by_length, redirect, serve

path, kind, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
redirect()
import numpy as np, openvino as ov

settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32" if kind == "f32" else "bf16"}
version = ov.__version__.split("-")[0]

if "--head" in sys.argv:
    model = ov.Core().compile_model(f"{path}/openvino_model.xml", "CPU", {**settings, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY"})
    inputs = {name for i in model.inputs for name in i.get_names()}

    def classify(rows, batch):
        labels = [0] * len(rows)
        for group in by_length(rows, batch):
            longest = len(rows[group[0]])
            x = np.array([rows[i] + [VOCAB - 1] * (longest - len(rows[i])) for i in group])
            given = {"input_ids": x, "attention_mask": (x != VOCAB - 1).astype(np.int64)}
            logits = model({k: v for k, v in given.items() if k in inputs})["logits"]
            for i, label in zip(group, logits.argmax(-1)):
                labels[i] = label
        return labels

    serve(f"OpenVINO {version}, {kind}", None, classify)
else:
    import openvino_genai as genai

    scheduler = genai.SchedulerConfig()
    scheduler.enable_prefix_caching = False
    pipe = genai.LLMPipeline(path, "CPU", scheduler_config=scheduler, **settings)

    def generate(prompts, n_new):
        config = genai.GenerationConfig(max_new_tokens=n_new, ignore_eos=True, do_sample=False)
        x = np.array(prompts, dtype=np.int64)
        out = pipe.generate(genai.TokenizedInputs(ov.Tensor(x), ov.Tensor(np.ones_like(x))), config)
        assert len(out.tokens) == len(prompts) and all(len(t) == n_new for t in out.tokens)
        return out.tokens[0]

    serve(f"OpenVINO GenAI {genai.__version__.split('-')[0]}, {kind}", generate)
