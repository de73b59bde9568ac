"""Columns of texts in, tables out: classify, score and embed for pandas, polars, pyarrow, numpy, lists, and files that they read."""
from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Sequence

import numpy as np

from . import _abi, _core, hub
from ._lib import utf8
from .errors import SillError
from .modeling import PreTrainedModel, device_name, dtype_name, open_model

_PROBS = {"norm": _abi.SILL_PROB_NORM, "raw": _abi.SILL_PROB_RAW, "calibrated": _abi.SILL_PROB_CALIBRATED}
DEFAULT_MODEL = "SmolLM2-135M-Instruct"


def _module(x: Any) -> str:
    return type(x).__module__.partition(".")[0]


def read_table(path: str) -> Any:
    """A Parquet, CSV or JSON Lines file as a pyarrow table. ImportError says what to install."""
    try:
        import pyarrow
    except ImportError:
        raise ImportError(f"{path}: files are read through pyarrow, which is not installed (pip install pyarrow); the program `sill` reads CSV and "
                          "JSON Lines without") from None
    del pyarrow
    lower = path.lower()
    if lower.endswith((".parquet", ".pq")):
        import pyarrow.parquet as pq
        return pq.read_table(path)
    if lower.endswith((".csv", ".tsv", ".csv.gz")):
        import pyarrow.csv as pc
        return pc.read_csv(path, parse_options=pc.ParseOptions(delimiter="\t" if lower.endswith(".tsv") else ",", newlines_in_values=True))
    if lower.endswith((".jsonl", ".ndjson")):
        import pyarrow.json as pj
        return pj.read_json(path)
    raise ValueError(f"{path}: .parquet, .csv, .tsv and .jsonl are read")


def column(data: Any, name: str | None) -> Any:
    """The column NAME of a table; a column as it is."""
    if type(data).__name__ == "LazyFrame":
        raise ValueError("a LazyFrame has no rows yet: give its .collect()")
    columns = getattr(data, "columns", None)
    if isinstance(data, Mapping):
        columns = list(data)
    elif _module(data) == "pyarrow" and hasattr(data, "column_names"):
        columns = data.column_names
    if columns is None:
        return data
    if name is None:
        raise ValueError(f"text= names the column of the texts; there are: {', '.join(map(str, columns))}")
    if name not in list(columns):
        raise ValueError(f"there is no column {name!r}; there are: {', '.join(map(str, columns))}")
    if list(columns).count(name) > 1:
        raise ValueError(f"there are {list(columns).count(name)} columns {name!r}; rename all but one")
    return data[name]


def texts_of(values: Any) -> list[str]:
    """A column as texts; a missing value is an empty text, other things are refused."""
    for method in ("to_pylist", "to_list", "tolist"):
        if hasattr(values, method):
            values = getattr(values, method)()
            break
    if isinstance(values, str):
        raise ValueError("texts are a list or a column, not one text")
    out = []
    for i, v in enumerate(values):
        if v is None or (isinstance(v, float) and v != v) or type(v).__name__ in ("NAType", "NaTType"):
            v = ""
        if not isinstance(v, str):
            raise ValueError(f"row {i + 1} is {type(v).__name__}, not text")
        out.append(v)
    return out


def add_columns(data: Any, new: dict[str, list[Any]]) -> Any:
    """The table with these columns behind its own, as the kind of table that it is; of a list or a column a dictionary of columns. A
    name that is taken gets the prefix sill_, as with the program."""
    kind = _module(data)
    taken = set(map(str, data.column_names if kind == "pyarrow" and hasattr(data, "column_names") else getattr(data, "columns", [])))
    if isinstance(data, Mapping):
        taken = set(map(str, data))
    named: dict[str, list[Any]] = {}
    for k, v in new.items():
        while k in taken:
            k = "sill_" + k
        taken.add(k)
        named[k] = v
    new = named
    if kind == "pandas":
        import pandas as pd
        if not isinstance(data, pd.DataFrame):  # a Series, an Index
            return pd.DataFrame(new, index=getattr(data, "index", None))
        return pd.concat([data, pd.DataFrame(new, index=data.index)], axis=1)
    if kind == "polars":
        import polars as pl
        return pl.DataFrame(new) if isinstance(data, pl.Series) else data.with_columns([pl.Series(k, v) for k, v in new.items()])
    if kind == "pyarrow":
        import pyarrow as pa
        if not isinstance(data, pa.Table):
            return pa.table(new)
        for k, v in new.items():
            data = data.append_column(k, pa.array(v))
        return data
    return {**data, **new} if isinstance(data, Mapping) else new


class _Failures:
    """Rows that failed: counted, in the column error, or, where raise is asked for, an exception."""

    def __init__(self, errors: str):
        if errors not in ("column", "raise"):
            raise ValueError(f"errors={errors!r}: 'column' and 'raise' are there")
        self.errors = errors
        self.messages: dict[int, str] = {}

    def __call__(self, index: int, message: str) -> None:
        if self.errors == "raise":
            raise SillError(f"row {index + 1}: {message}")
        self.messages[index] = message


def _open(model: Any, device: Any, dtype: Any, load_in_8bit: bool, load_in_4bit: bool) -> tuple[_core.Model, bool]:
    """The model, and whether it is ours to close."""
    if isinstance(model, PreTrainedModel):
        return model._core, False
    kind = "int8" if load_in_8bit else "q4" if load_in_4bit else dtype_name(dtype)
    return open_model(hub.resolve(model or DEFAULT_MODEL), device_name(device), kind), True


def classify_texts(core: _core.Model, texts: Sequence[str], labels: Sequence[str] | None, **options: Any) -> list[np.ndarray[Any, Any]]:
    """The probabilities of each text's labels; a text that cannot be labelled is an exception."""
    failed = _Failures("raise")
    out = core.classify([_core.Row(text=utf8(t)) for t in texts], failed, labels, options.pop("prompt", None),
                        multi_label=int(options.pop("multi_label", False)), **options)
    return [out[i]["probs"] for i in range(len(texts))]


def _table(data: Any, text: str | None) -> tuple[Any, list[str]]:
    if isinstance(data, (str, os.PathLike)):
        data = read_table(os.fspath(data))
    return data, texts_of(column(data, text))


def _error_column(failed: _Failures, n: int) -> dict[str, list[Any]]:
    return {"error": [failed.messages.get(i) for i in range(n)]} if failed.messages else {}


def classify(data: Any, text: str | None = None, labels: Sequence[str] | None = None, *, model: Any = None, codebook: str | None = None,
             prompt: str | None = None, content_free: str | None = None, prob: str = "norm", multi_label: bool = False, threshold: float = 0.0,
             needs_human_below: float = 0.0, min_confidence: float = 0.0, chat: bool | None = None, long: str = "default",
             special: bool = False, errors: str = "column", device: Any = None, dtype: Any = None, load_in_8bit: bool = False,
             load_in_4bit: bool = False) -> Any:
    """Labels every text: of LABELS or a codebook (a file, docs/CODEBOOK.md), else of the model's own head.

    data: a pandas or polars DataFrame or Series, a pyarrow Table or array, a dictionary of columns, a list, or a file (.parquet, .csv,
    .jsonl, through pyarrow); text: the name of the column. Returns the same kind of table with columns behind its own: label (labels with
    multi_label), margin, entropy, n_tokens, needs_human, and prob_LABEL for each; of a list or column these alone. A row that fails has
    empty ones and a message in the column error, or (errors="raise") ends the call. Options are those of `sill classify`. model: a name, a
    path, or a model of from_pretrained (its default is the program's)."""
    table, texts = _table(data, text)
    if prob not in _PROBS:
        raise ValueError(f"prob={prob!r}: 'norm', 'raw' and 'calibrated' are there")
    if labels is not None and codebook is not None:
        raise ValueError("labels and codebook exclude each other")
    if isinstance(labels, str):
        labels = [x.strip() for x in labels.split(",")]
    book = _core.Codebook(codebook) if codebook else None
    failed = _Failures(errors)
    core, ours = _open(model, device, dtype, load_in_8bit, load_in_4bit)
    try:
        names = list(labels) if labels is not None else book.labels if book else core.labels()
        multi = multi_label or bool(book and book.multi_label)
        out = core.classify([_core.Row(text=utf8(t)) for t in texts], failed, labels, prompt, book, content_free, prob=_PROBS[prob],
                            multi_label=int(multi), threshold=threshold, needs_human_below=needs_human_below,
                            min_confidence=min_confidence, chat=int(chat is True), no_chat=int(chat is False),
                            long_policy=_long(long), tokenize_flags=_core.SPECIAL if special else 0)
    finally:
        if ours:
            core.close()
    rows = [out.get(i) for i in range(len(texts))]
    new: dict[str, list[Any]] = {}
    if multi or any(r is not None and len(r["chosen"]) for r in rows):
        new["labels"] = [None if r is None else [names[k] for k in np.flatnonzero(r["chosen"])] for r in rows]
    else:
        new["label"] = [None if r is None or r["label"] < 0 else names[r["label"]] for r in rows]
    for key in ("margin", "entropy", "n_tokens", "needs_human"):
        new[key] = [None if r is None else r[key] for r in rows]
    for k, name in enumerate(names):
        new["prob_" + name] = [None if r is None else float(r["probs"][k]) for r in rows]
    return add_columns(table, {**new, **_error_column(failed, len(texts))})


def score(data: Any, text: str | None = None, *, model: Any = None, per: str = "text", bos: bool = False, long: str = "default", stride: int = 0,
          special: bool = False, errors: str = "column", device: Any = None, dtype: Any = None, load_in_8bit: bool = False,
          load_in_4bit: bool = False) -> Any:
    """How probable each text is: columns n_tokens, sum_logprob, mean_logprob, perplexity; with per="token" also ids, tokens and logprobs
    (natural logarithms; the first is None unless bos). data, text and results as with classify; options those of `sill score`."""
    if per not in ("text", "token"):
        raise ValueError(f"per={per!r}: 'text' and 'token' are there")
    table, texts = _table(data, text)
    failed = _Failures(errors)
    core, ours = _open(model, device, dtype, load_in_8bit, load_in_4bit)
    try:
        out = core.score([_core.Row(text=utf8(t)) for t in texts], failed, bos=int(bos), long_policy=_long(long), stride=stride,
                         tokenize_flags=_core.SPECIAL if special else 0)
        tokenizer = core.tokenizer
        rows = [out.get(i) for i in range(len(texts))]
        new: dict[str, list[Any]] = {"n_tokens": [None if r is None else r["n_tokens"] for r in rows],
                                     "sum_logprob": [None if r is None else r["sum_logprob"] for r in rows]}
        means = [r["sum_logprob"] / r["n_scored"] if r is not None and r["n_scored"] else None for r in rows]
        new["mean_logprob"], new["perplexity"] = list(means), [None if m is None else float(np.exp(-m)) for m in means]
        if per == "token":
            assert tokenizer is not None
            new["ids"] = [None if r is None else r["ids"].tolist() for r in rows]
            new["tokens"] = [None if r is None else [tokenizer.decode([i], continuation=True).decode("utf-8", "replace") for i in r["ids"].tolist()]
                             for r in rows]
            new["logprobs"] = [None if r is None else [None if x != x else x for x in r["logprobs"].tolist()] for r in rows]
    finally:
        if ours:
            core.close()
    return add_columns(table, {**new, **_error_column(failed, len(texts))})


def embed(data: Any, text: str | None = None, *, model: Any = None, pooling: str = "mean", normalize: bool = False, long: str = "default",
          special: bool = False, errors: str = "raise", device: Any = None, dtype: Any = None, load_in_8bit: bool = False,
          load_in_4bit: bool = False) -> np.ndarray[Any, np.dtype[np.float32]]:
    """A vector for every text: an array (texts, width) of hidden states behind the final norm, pooled ("mean" or "last"). errors="column"
    leaves the rows of texts that fail NaN. data and text as with classify; options those of `sill embed`."""
    if pooling not in ("mean", "last"):
        raise ValueError(f"pooling={pooling!r}: 'mean' and 'last' are there")
    _, texts = _table(data, text)
    failed = _Failures(errors)
    core, ours = _open(model, device, dtype, load_in_8bit, load_in_4bit)
    try:
        out = core.embed([_core.Row(text=utf8(t)) for t in texts], failed,
                         pooling=_abi.SILL_POOLING_MEAN if pooling == "mean" else _abi.SILL_POOLING_LAST, normalize=int(normalize),
                         long_policy=_long(long), tokenize_flags=_core.SPECIAL if special else 0)
        vectors = np.full((len(texts), int(core.info.n_embd)), np.nan, np.float32)
    finally:
        if ours:
            core.close()
    for i, v in out.items():
        vectors[i] = v
    return vectors


def _long(name: str) -> int:
    if name not in _core.LONG:
        raise ValueError(f"long={name!r}: {', '.join(map(repr, _core.LONG))} are there")
    return _core.LONG[name]
