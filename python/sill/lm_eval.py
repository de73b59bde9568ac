"""sill as a model of EleutherAI's lm-evaluation-harness (pip install lm_eval):

    python -m sill.lm_eval --model sill --model_args pretrained=./gpt2 --tasks hellaswag

All options are the harness's own. In a program of yours `import sill.lm_eval` registers the model for lm_eval.simple_evaluate(model="sill", ...), or
pass SillLM("./gpt2") to it. The numbers are those of the harness's `hf` model on the same weights (tests/python/peers_lm_eval.py).

model_args: pretrained (a directory as on the hub, a .gguf file, a name in the hub's cache); tokenizer, where it is elsewhere; dtype ("auto" is as
stored; float32 is the exact meaning of any file); load_in_8bit, load_in_4bit; device; n_threads; max_length (the context that is used);
max_gen_toks (256); add_bos_token; prefix_token_id. batch_size changes nothing: sill fills its batches by itself.
"""
from __future__ import annotations

from typing import Any

import numpy as np
from lm_eval import models, utils  # models: the harness looks for its own only while no model is registered
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model

from . import _core
from .errors import RangeError
from .modeling import AutoModelForCausalLM
from .tokenization import AutoTokenizer


__all__ = ["SillLM", "models"]


@register_model("sill")  # type: ignore[untyped-decorator]
class SillLM(TemplateLM):  # type: ignore[misc]
    """Texts are tokenized as the harness has it; log-probabilities and texts come from libsill."""

    def __init__(self, pretrained: Any, tokenizer: Any = None, dtype: Any = "auto", device: Any = None, load_in_8bit: Any = False,
                 load_in_4bit: Any = False, n_threads: int = 0, max_length: int | None = None, max_gen_toks: int = 256, add_bos_token: Any = None,
                 prefix_token_id: int | None = None, batch_size: Any = None, max_batch_size: Any = None, trust_remote_code: Any = None):
        super().__init__()
        self.pretrained = str(pretrained)
        if str(device).partition(":")[0] == "cuda":  # which is what the harness says where nothing was said: the GPU that there is
            device = 0
        self.model = AutoModelForCausalLM.from_pretrained(
            pretrained, dtype=dtype, device=device, load_in_8bit=bool(load_in_8bit), load_in_4bit=bool(load_in_4bit), n_threads=int(n_threads),
            n_ctx=int(max_length or 0))
        self.tokenizer = AutoTokenizer.from_pretrained(tokenizer or pretrained)
        self.max_length, self.max_gen_toks = self.model._core.n_ctx, int(max_gen_toks)
        self.add_bos_token = add_bos_token
        self.custom_prefix = prefix_token_id

    # ---- tokens

    @property
    def eot_token_id(self) -> Any:
        return self.tokenizer.eos_token_id

    @property
    def prefix_token_id(self) -> int:
        """What stands before a text that nothing stands before."""
        for i in (self.custom_prefix, self.tokenizer.bos_token_id):
            if i is not None:
                return int(i)
        return int(self.tokenizer.eos_token_id or 0)

    def tok_encode(self, string: str, add_special_tokens: Any = None, left_truncate_len: int | None = None, **_: Any) -> list[int]:
        """Ids, with what the tokenizer puts in front unless add_bos_token says otherwise, or the text has it already."""
        special = next((bool(x) for x in (add_special_tokens, self.add_bos_token) if x is not None), True)
        if add_special_tokens is None and string.startswith(self.tokenizer.decode([self.prefix_token_id])):
            special = False
        ids = self.tokenizer.encode(string, add_special_tokens=special)
        return list(ids[-left_truncate_len:] if left_truncate_len else ids)

    @property
    def tokenizer_name(self) -> str:
        """For the harness's cache."""
        return self.pretrained.replace("/", "__")

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> Any:
        """The conversation as text."""
        return self.tokenizer.apply_chat_template(chat_history, tokenize=False, add_generation_prompt=add_generation_prompt,
                                                  continue_final_message=not add_generation_prompt)

    # ---- probabilities

    def _loglikelihood_tokens(self, requests: Any, disable_tqdm: bool = False, override_bs: Any = None, **_: Any) -> list[tuple[float, bool]]:
        """(sum of log-probabilities, whether greedy decoding would write the same) for each ((context, continuation), context ids, ids)."""
        pairs = []
        for _, context, continuation in requests:
            assert len(context) and 0 < len(continuation) <= self.max_length
            ids = (list(context) + list(continuation))[-(self.max_length + 1):]  # the last token is asked for, not read
            pairs.append((ids[:len(ids) - len(continuation)], ids[len(ids) - len(continuation):]))
        sums: list[Any] = [None] * len(pairs)
        fit = [i for i, (c, t) in enumerate(pairs) if len(c) + len(t) <= self.max_length]
        scored = self.model._core.score([_core.Row(ids=_core.int_array(pairs[i][1]), context_ids=_core.int_array(pairs[i][0])) for i in fit], _fail)
        for k, i in enumerate(fit):
            sums[i] = float(scored[k]["sum_logprob"])
        first = self._first_tokens([c for c, _ in pairs])
        out = []
        for i, (c, t) in enumerate(pairs):
            greedy = first[tuple(c)] == t[0]
            if sums[i] is None or (greedy and len(t) > 1):
                total, greedy = self._by_logits(c, t)
                sums[i] = total if sums[i] is None else sums[i]
            out.append((sums[i], bool(greedy)))
        if requests and requests[0][0] is not None:
            for request, answer in zip(requests, out):
                self.cache_hook.add_partial("loglikelihood", request[0], answer)
        return out

    def _first_tokens(self, contexts: list[list[int]]) -> dict[tuple[int, ...], int]:
        """The likeliest next token of each context."""
        distinct = list(dict.fromkeys(map(tuple, contexts)))
        o = self.model._core.preset("hf-5-generate")
        o.max_new_tokens = o.num_return_sequences = o.ignore_eos = o.no_bos = 1
        o.max_length = o.min_new_tokens = o.min_length = o.num_beams = o.do_sample = o.no_repeat_ngram_size = 0
        o.repetition_penalty = 1.0
        o.n_bad_words = o.n_suppress = o.n_begin_suppress = o.n_bias_words = 0  # what the model's files may forbid is not asked here
        fit = [c for c in distinct if len(c) < self.max_length]
        found = {c: int(g[0].ids[0]) for c, g in zip(fit, self.model._core.generate(o, [_core.Row(ids=_core.int_array(c)) for c in fit]))}
        for c in distinct:
            if c not in found:
                found[c] = int(np.argmax(self._logits(c)[-1]))
        return found

    def _logits(self, ids: Any) -> np.ndarray[Any, np.dtype[np.float32]]:
        out = np.empty((len(ids), int(self.model._core.info.n_vocab)), np.float32)
        self.model._core.logits(_core.int_array(ids), out)
        return out

    def _by_logits(self, context: list[int], continuation: list[int]) -> tuple[float, bool]:
        rows = self._logits(context + continuation[:-1])[len(context) - 1:].astype(np.float64)
        picked = rows[np.arange(len(continuation)), continuation]
        top = rows.max(axis=1)
        total = float((picked - top - np.log(np.exp(rows - top[:, None]).sum(axis=1))).sum())
        return total, bool((rows.argmax(axis=1) == continuation).all())

    def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> list[float]:
        """Log-probabilities of whole texts, read in windows as the harness makes them."""
        out: list[float] = []
        for (text,) in [r.args for r in requests]:
            windows = list(map(utils.make_disjoint_window, utils.get_rolling_token_windows(
                token_list=self.tok_encode(text), prefix_token=self.prefix_token_id, max_seq_len=self.max_length, context_len=1)))
            parts = self._loglikelihood_tokens([(None, list(c), list(t)) for c, t in windows])
            out.append(sum(p[0] for p in parts))
            self.cache_hook.add_partial("loglikelihood_rolling", (text,), out[-1])
        return out

    # ---- texts

    def generate_until(self, requests: Any, disable_tqdm: bool = False) -> list[str]:
        """Greedy unless a task says otherwise; a text ends before the first of its `until`s."""
        out: list[Any] = [None] * len(requests)
        groups: dict[str, list[int]] = {}
        for i, r in enumerate(requests):
            groups.setdefault(repr(r.args[1]), []).append(i)
        for members in groups.values():
            given = dict(requests[members[0]].args[1])
            until = given.pop("until", None) or []
            until = [until] if isinstance(until, str) else [u for u in until if u]
            most = int(given.pop("max_gen_toks", given.pop("max_new_tokens", given.pop("max_tokens", self.max_gen_toks))))
            given.setdefault("do_sample", False)
            if not given["do_sample"]:
                given.pop("temperature", None)
            end = self.tokenizer.decode([self.eot_token_id])
            rows = [_core.int_array(self.tok_encode(requests[i].args[0], left_truncate_len=self.max_length - most)) for i in members]
            found = self.model._generate_rows(rows, {**given, "max_new_tokens": most, "stop_strings": [*until, end]}, None)
            for i, g in zip(members, found):
                text = self.tokenizer.decode(g[0].ids.tolist(), skip_special_tokens=True)
                for u in until:
                    text = text.split(u)[0]
                out[i] = text
                self.cache_hook.add_partial("generate_until", requests[i].args, text)
        return out


def _fail(index: int, message: str) -> None:
    raise RangeError(f"request {index + 1}: {message}")


if __name__ == "__main__":
    from lm_eval.__main__ import cli_evaluate
    cli_evaluate()
