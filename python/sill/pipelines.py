"""pipeline(): text generation, classification, zero-shot classification and features, with transformers' arguments and results."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Iterable, Iterator

import numpy as np

from . import _core, corpus, refused
from .compat import get_compat
from .errors import RangeError, UnsupportedError
from .modeling import (AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedCausalLM, PreTrainedModel, dtype_name,
                       log_softmax)
from .tensors import to_numpy
from .tokenization import AutoTokenizer, PreTrainedTokenizer

_PREPARED = {"truncation", "padding", "max_length", "add_special_tokens"}


class Pipeline(refused.Refuses):
    """A model and its tokenizer, called with texts."""

    _refused = refused.PIPELINE
    task = ""
    auto: Any = AutoModelForCausalLM

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizer, **defaults: Any):
        self.model, self.tokenizer, self.defaults = model, tokenizer, defaults

    @property
    def device(self) -> Any:
        """Where the model is."""
        return self.model.device

    @property
    def dtype(self) -> Any:
        """The type computed with."""
        return self.model.dtype

    def __call__(self, inputs: Any, **kwargs: Any) -> Any:
        """Results for a text, or a list of them for a list. batch_size and num_workers change nothing: rows are batched by sill."""
        kwargs = {**self.defaults, **kwargs}
        for name in ("batch_size", "num_workers"):
            kwargs.pop(name, None)
        if isinstance(inputs, Iterator):
            return (self.one(x, **kwargs) for x in inputs)
        if hasattr(inputs, "tolist") or (not isinstance(inputs, (str, list, tuple, Mapping)) and hasattr(inputs, "__len__")):
            inputs = [inputs[i] for i in range(len(inputs))] if not hasattr(inputs, "tolist") else inputs.tolist()
        if self.single(inputs):
            return self.one(inputs, **kwargs)
        return self.many(list(inputs), **kwargs)

    def single(self, inputs: Any) -> bool:
        """Whether this is one input."""
        return not isinstance(inputs, (list, tuple))

    def one(self, x: Any, **kwargs: Any) -> Any:
        """The result for one input."""
        return self.many([x], **kwargs)[0]

    def many(self, inputs: list[Any], **kwargs: Any) -> list[Any]:
        """The results for several."""
        raise NotImplementedError


def _is_chat(x: Any) -> bool:
    return isinstance(x, (list, tuple)) and len(x) > 0 and all(isinstance(m, Mapping) and "role" in m and "content" in m for m in x)


def _goes_on(chat: Any, given: bool | None) -> bool:
    """Whether the last message is a beginning of the answer: where it is the assistant's, unless the call says otherwise."""
    return bool(chat[-1]["role"] == "assistant") if given is None else given


class TextGenerationPipeline(Pipeline):
    """Continues texts and conversations: [{"generated_text": ...}] for each.

    Options are those of generate; what is not given is as in transformers' pipeline (see set_compat): 256 new tokens, sampled, and
    what the model's files set; fewer where the context has no room for them. An option that is given counts, also where
    transformers 4 would prefer its own (max_length)."""

    task = "text-generation"

    def single(self, inputs: Any) -> bool:
        return isinstance(inputs, (str, Mapping)) or _is_chat(inputs)

    def many(self, inputs: list[Any], return_full_text: bool | None = None, return_text: bool | None = None, return_tensors: Any = None,
             clean_up_tokenization_spaces: Any = None, prefix: str | None = None, handle_long_generation: str | None = None,
             truncation: Any = None, padding: Any = None, add_special_tokens: bool | None = None, generate_kwargs: Any = None,
             stop_sequence: str | None = None, skip_special_tokens: bool | None = None, continue_final_message: bool | None = None,
             seed: int | None = None, **options: Any) -> list[Any]:
        """return_full_text=False leaves the prompt out; return_tensors gives generated_token_ids instead of text. A conversation whose
        last message is the assistant's is gone on with there."""
        model = self.model
        assert isinstance(model, PreTrainedCausalLM)
        options = {**(generate_kwargs or {}), **options}
        if stop_sequence is not None:
            options.setdefault("stop_strings", [stop_sequence])
        if return_tensors and (return_full_text is not None or return_text is not None):
            raise ValueError("`return_tensors` is mutually exclusive with `return_full_text` and `return_text`")
        rows = []
        for x in inputs:
            if isinstance(x, Mapping):
                x = x["text"]
            if _is_chat(x):
                goes_on = _goes_on(x, continue_final_message)
                ids = self.tokenizer.apply_chat_template(list(x), add_generation_prompt=not goes_on, continue_final_message=goes_on, return_dict=False)
            elif isinstance(x, str):
                limit = options.get("max_length") if truncation else None
                ids = self.tokenizer((prefix or "") + x, truncation=truncation or False, max_length=limit,
                                     add_special_tokens=add_special_tokens is not False)["input_ids"]
            else:
                raise ValueError(f"a prompt is a text or a conversation, not {type(x).__name__}")
            rows.append(self._cut(_core.int_array(ids), handle_long_generation, options))
        skip = skip_special_tokens is not False
        results = model._generate_rows(rows, {**_user_config(model), **options}, seed, preset=get_compat())
        return [[self._record(x, row, g, return_full_text, continue_final_message, return_tensors, skip) for g in sequences]
                for x, row, sequences in zip(inputs, rows, results)]

    def _cut(self, ids: np.ndarray[Any, Any], how: str | None, options: dict[str, Any]) -> np.ndarray[Any, Any]:
        if how is None:
            return ids
        if how != "hole":
            raise ValueError("Invalid value for `handle_long_generation` parameter: only None and 'hole' are there")
        new = options.get("max_new_tokens") or max(0, (options.get("max_length") or 0) - len(ids)) or 20
        keep = self.model._core.n_ctx - int(new)
        if keep <= 0:
            raise RangeError("We cannot use `hole` to handle this generation the number of desired tokens exceeds the models max length")
        return ids[-keep:] if len(ids) > keep else ids

    def _record(self, x: Any, row: np.ndarray[Any, Any], g: _core.Generated, full: bool | None, goes_on: bool | None, tensors: Any,
                skip: bool) -> dict[str, Any]:
        if tensors:
            return {"generated_token_ids": [*row.tolist(), *g.ids.tolist()]}
        text: Any
        if get_compat() == "hf-4":  # the whole is decoded, less as many characters as the prompt alone has
            text = self.tokenizer._text([*row.tolist(), *g.ids.tolist()], skip)[len(self.tokenizer._text(row.tolist(), skip)):]
        else:  # what is new is decoded by itself: SentencePiece then drops a space at its beginning
            text = self.tokenizer._text(g.ids.tolist(), skip)
        if full is not False:
            if _is_chat(x) and _goes_on(x, goes_on):
                text = [*map(dict, x[:-1]), {**x[-1], "content": x[-1]["content"] + text}]
            elif _is_chat(x):
                text = [*map(dict, x), {"role": "assistant", "content": text}]
            else:
                text = (x["text"] if isinstance(x, Mapping) else x) + text
        return {"generated_text": text}


def _user_config(model: PreTrainedModel) -> dict[str, Any]:
    return {k: v for k, v in model.generation_config.to_dict().items() if v is not None}


def _function(x: np.ndarray[Any, Any], name: str) -> np.ndarray[Any, Any]:
    if name == "softmax":
        return np.exp(log_softmax(x))
    if name == "sigmoid":
        return np.asarray(1.0 / (1.0 + np.exp(-x)))
    if name == "none":
        return x
    raise ValueError(f"function_to_apply {name!r}: 'softmax', 'sigmoid' and 'none' are there")


class TextClassificationPipeline(Pipeline):
    """The labels of a model's own head: {"label": ..., "score": ...} for each text."""

    task = "text-classification"
    auto = AutoModelForSequenceClassification

    def __call__(self, inputs: Any, **kwargs: Any) -> Any:
        """A dictionary for each text; with top_k a list of them, best first (None: all labels). A single text gives a list, too."""
        kwargs = {**self.defaults, **kwargs}
        if isinstance(inputs, str) and not isinstance(kwargs.get("top_k", ""), int) and kwargs.get("top_k", "") is not None:
            return [self.one(inputs, **{k: v for k, v in kwargs.items() if k not in ("batch_size", "num_workers")})]
        return super().__call__(inputs, **kwargs)

    def many(self, inputs: list[Any], top_k: Any = "", function_to_apply: Any = None, **tokenizer_kwargs: Any) -> list[Any]:
        """See __call__."""
        model = self.model
        config = model.config
        rows = []
        for x in inputs:
            if isinstance(x, list) and len(x) == 1 and isinstance(x[0], list) and len(x[0]) == 2:
                x = {"text": x[0][0], "text_pair": x[0][1]}
            elif isinstance(x, (list, tuple)):
                raise ValueError('The pipeline received invalid inputs, if you are trying to send text pairs, you can try to send a dictionary '
                                 '`{"text": "My text", "text_pair": "My pair"}` in order to send a text pair.')
            call = x if isinstance(x, Mapping) else {"text": x}
            rows.append(_core.int_array(self.tokenizer(**call, **tokenizer_kwargs)["input_ids"]))
        name = str(getattr(function_to_apply, "name", function_to_apply) or "").lower()
        if not name:
            name = ("none" if config.problem_type == "regression" else
                    "sigmoid" if config.problem_type == "multi_label_classification" or config.num_labels == 1 else "softmax")
        out: list[Any] = []
        for logits in _head_logits(model, rows):
            scores = _function(logits, name)
            if not isinstance(top_k, int) and top_k is not None:
                best = int(scores.argmax())
                out.append({"label": config.id2label[best], "score": float(scores[best])})
                continue
            records: list[dict[str, Any]] = [{"label": config.id2label[i], "score": float(s)} for i, s in enumerate(scores)]
            records.sort(key=lambda r: r["score"], reverse=True)
            out.append(records if top_k is None else records[:top_k])
        return out


def _head_logits(model: PreTrainedModel, rows: list[np.ndarray[Any, Any]]) -> list[np.ndarray[Any, Any]]:
    """Of rows of any lengths, together."""
    width = max((len(r) for r in rows), default=0)
    ids, mask = np.zeros((len(rows), width), np.int64), np.zeros((len(rows), width), np.int64)
    for k, r in enumerate(rows):
        ids[k, :len(r)], mask[k, :len(r)] = r, 1
    return list(to_numpy(model(ids, attention_mask=mask).logits)) if rows else []


class ZeroShotClassificationPipeline(Pipeline):
    """Labels of the user's, from a language model: {"sequence", "labels", "scores"}, best first.

    A model with an entailment head is asked as transformers asks it. A language model, which transformers refuses, says how likely
    each label is as the end of a sentence about the text (sill.classify): hypothesis_template then says how that sentence begins."""

    task = "zero-shot-classification"

    def __call__(self, inputs: Any, candidate_labels: Any = None, **kwargs: Any) -> Any:
        """candidate_labels: a list, or one string with commas. multi_label: each label yes or no on its own."""
        return super().__call__(inputs, candidate_labels=candidate_labels, **kwargs)

    def many(self, inputs: list[Any], candidate_labels: Any = None, hypothesis_template: str | None = None, multi_label: bool = False,
             **kwargs: Any) -> list[Any]:
        """See __call__."""
        if isinstance(candidate_labels, str):
            candidate_labels = [x.strip() for x in candidate_labels.split(",") if x.strip()]
        if not candidate_labels or not inputs:
            raise ValueError("You must include at least one label and at least one sequence.")
        for i, x in enumerate(inputs):
            if not isinstance(x, str):
                raise ValueError(f"row {i + 1} is {type(x).__name__}, not text")
        labels = list(candidate_labels)
        if hypothesis_template is not None and hypothesis_template.format(labels[0]) == hypothesis_template:
            raise ValueError(f'The provided hypothesis_template "{hypothesis_template}" was not able to be formatted with the target labels. '
                             "Make sure the passed template includes formatting syntax such as {} where the label should go.")
        if isinstance(self.model, AutoModelForSequenceClassification):
            return [self._entailment(x, labels, hypothesis_template or "This example is {}.", multi_label) for x in inputs]
        prompt = None
        if hypothesis_template is not None:
            before, _, behind = hypothesis_template.partition("{}")
            if not before.strip() or behind.strip(" .!?"):
                raise ValueError(f"hypothesis_template {hypothesis_template!r}: with a language model the label must stand at its end, behind other words")
            if multi_label:
                raise UnsupportedError("hypothesis_template with multi_label: the question is sill's own (sill.classify takes a prompt)")
            prompt = "Text: {text}\n" + before.rstrip()
        scores = corpus.classify_texts(self.model._core, inputs, labels, prompt=prompt, multi_label=multi_label)
        out: list[Any] = []
        for x, s in zip(inputs, scores):
            order = np.argsort(-s, kind="stable")
            out.append({"sequence": x, "labels": [labels[i] for i in order], "scores": [float(s[i]) for i in order]})
        return out

    def _entailment(self, text: str, labels: list[str], template: str, multi_label: bool) -> dict[str, Any]:
        names = {str(v).lower(): k for k, v in self.model.config.id2label.items()}
        found = [k for v, k in names.items() if v.startswith("entail")]
        if not found:
            raise ValueError("the model's head has no label 'entailment': it is none for zero-shot classification; use a language model")
        rows = [_core.int_array(self.tokenizer(text, template.format(x), truncation="only_first" if
                                               self.tokenizer.model_max_length < 1 << 24 else False)["input_ids"]) for x in labels]
        logits = np.stack(_head_logits(self.model, rows)).astype(np.float64)
        if multi_label or len(labels) == 1:
            contradiction = -1 if found[0] == 0 else 0
            scores = np.exp(log_softmax(logits[:, [contradiction, found[0]]]))[:, 1]
        else:
            scores = np.exp(log_softmax(logits[:, found[0]]))
        order = list(reversed(scores.argsort()))
        return {"sequence": text, "labels": [labels[i] for i in order], "scores": scores[order].tolist()}


class FeatureExtractionPipeline(Pipeline):
    """The hidden states of every token: a nested list (1, tokens, width) for each text."""

    task = "feature-extraction"
    auto = AutoModel

    def many(self, inputs: list[Any], return_tensors: Any = None, tokenize_kwargs: Any = None, **kwargs: Any) -> list[Any]:
        """return_tensors: an array (or with "pt" a tensor) instead of lists."""
        out: list[Any] = []
        for x in inputs:
            encoded = self.tokenizer(x, return_tensors="np", **(tokenize_kwargs or {}), **kwargs)
            ids = encoded["input_ids"][0]
            states = np.empty((1, len(ids), int(self.model._core.info.n_embd)), np.float32)
            self.model._core.hidden_states(ids, states[0])
            if return_tensors in ("pt", True):
                import torch
                out.append(torch.from_numpy(states))
            else:
                out.append(states if return_tensors else states.tolist())
        return out


TASKS: dict[str, type[Pipeline]] = {c.task: c for c in (TextGenerationPipeline, TextClassificationPipeline, ZeroShotClassificationPipeline,
                                                         FeatureExtractionPipeline)}
TASKS["sentiment-analysis"] = TextClassificationPipeline
DEFAULT_MODEL = "SmolLM2-135M-Instruct"


def pipeline(task: str | None = None, model: Any = None, tokenizer: Any = None, *, device: Any = None, device_map: Any = None,
             torch_dtype: Any = None, dtype: Any = None, revision: str | None = None, model_kwargs: Mapping[str, Any] | None = None,
             config: Any = None, framework: Any = None, use_fast: bool = True, token: Any = None, trust_remote_code: Any = None,
             **defaults: Any) -> Any:
    """A pipeline for a task: "text-generation", "text-classification" ("sentiment-analysis"), "zero-shot-classification",
    "feature-extraction".

    model: a name, a path, or a model of from_pretrained. device: 0 (the GPU that there is; without one the CPU, said once), "mps",
    "cuda", "cpu", or -1 (the CPU); by default the best that computes right here. What else is given is taken for every call."""
    if task not in TASKS:
        raise KeyError(f"Unknown task {task}, available tasks are {sorted(TASKS)}")
    kind = TASKS[task]
    name = model
    if model is None:
        if task not in ("text-generation", "zero-shot-classification"):
            raise ValueError(f"pipeline({task!r}) needs a model")
        name = model = DEFAULT_MODEL
    if not isinstance(model, PreTrainedModel):
        options = {**(model_kwargs or {}), "revision": revision, "device": device if device is not None else (model_kwargs or {}).get("device"),
                   "device_map": device_map, "dtype": dtype if dtype is not None else torch_dtype}
        if task == "zero-shot-classification":
            model = _either(model, options)
        else:
            model = kind.auto.from_pretrained(model, **options)
    elif device is not None or dtype is not None or torch_dtype is not None:
        given = dtype if dtype is not None else torch_dtype
        if given is not None:
            dtype_name(given)
        model.to(device, given)
    if tokenizer is None or isinstance(tokenizer, str):
        tokenizer = AutoTokenizer.from_pretrained(tokenizer or (name if isinstance(name, str) or hasattr(name, "__fspath__") else model.name_or_path),
                                                  revision=revision)
    for extra in ("image_processor", "feature_extractor", "processor"):
        defaults.pop(extra, None)
    return kind(model, tokenizer, **defaults)


def _either(name: Any, options: dict[str, Any]) -> PreTrainedModel:
    """A model with a head, or one without."""
    try:
        return AutoModelForSequenceClassification.from_pretrained(name, **options)  # type: ignore[no-any-return]
    except ValueError as e:
        if isinstance(e, OSError) or "no classification head" not in str(e):
            raise
    return AutoModelForCausalLM.from_pretrained(name, **options)  # type: ignore[no-any-return]


