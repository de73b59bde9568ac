"""llama.cpp through the low-level calls of llama-cpp-python, llama.py MODEL.gguf KIND THREADS

Greedy by an argmax over the logits, for every sequence of a batch in one llama_decode. Flash attention "auto", separate
KV streams, as large a physical batch as the prompts need: the settings that were fastest.
"""
import ctypes, sys
from common import redirect, serve

path, kind, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
redirect()
import numpy as np, llama_cpp as L

silent = L.llama_log_callback(lambda level, text, user: None)
L.llama_log_set(silent, ctypes.c_void_p(0))
L.llama_backend_init()
model = L.llama_model_load_from_file(path.encode(), L.llama_model_default_params())
assert model, path
n_vocab = L.llama_vocab_n_tokens(L.llama_model_get_vocab(model))
context, shape, batch = None, None, L.llama_batch_init(4096, 0, 1)


def context_for(n_seq, n_tokens):
    """A context is kept for as long as the task stays the same."""
    global context, shape
    if shape == (n_seq, n_tokens):
        L.llama_memory_clear(L.llama_get_memory(context), True)
        return
    if context:
        L.llama_free(context)
    p = L.llama_context_default_params()
    p.n_ctx, p.n_seq_max, p.n_batch, p.n_ubatch = -(-n_tokens // 256) * 256 * n_seq, n_seq, 2048, 512
    p.n_threads = p.n_threads_batch = threads
    p.no_perf = True
    context, shape = L.llama_init_from_model(model, p), (n_seq, n_tokens)
    assert context


def step(rows):  # (token, position, sequence, logits wanted)
    batch.n_tokens = len(rows)
    for i, (token, position, sequence, wanted) in enumerate(rows):
        batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = token, position, 1, wanted
        batch.seq_id[i][0] = sequence
    assert L.llama_decode(context, batch) == 0
    return [int(np.ctypeslib.as_array(L.llama_get_logits_ith(context, i), shape=(n_vocab,)).argmax())
            for i, row in enumerate(rows) if row[3]]


def generate(prompts, n_new):
    context_for(len(prompts), len(prompts[0]) + n_new)
    best = step([(t, j, s, j == len(p) - 1) for s, p in enumerate(prompts) for j, t in enumerate(p)])
    first = [best[0]]
    for k in range(1, n_new):
        best = step([(t, len(prompts[0]) + k - 1, s, True) for s, t in enumerate(best)])
        first.append(best[0])
    return first


serve(f"llama-cpp-python {L.__version__}, {kind}", generate, n_vocab=n_vocab)
