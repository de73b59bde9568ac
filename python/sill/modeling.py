"""AutoModelForCausalLM and its kin: transformers' calls over libsill's models."""
from __future__ import annotations

import json
import os
import sys
from typing import Any, Iterable

import numpy as np

from . import _abi, _core, hub, refused
from .compat import get_compat, next_seed
from .errors import RangeError, UnsupportedError
from .tensors import Output, is_torch, like, to_numpy

_DTYPES = {"auto": "auto", "float32": "f32", "float": "f32", "f32": "f32", "float16": "f16", "half": "f16", "f16": "f16", "bfloat16": "bf16",
           "bf16": "bf16", "int8": "int8", "q8": "q8", "q4": "q4"}
# Arguments of from_pretrained that say how transformers works, not what comes out.
_IGNORED = {"low_cpu_mem_usage", "trust_remote_code", "use_safetensors", "attn_implementation", "token", "use_auth_token", "local_files_only",
            "force_download", "resume_download", "proxies", "offload_folder", "max_memory", "use_cache", "weights_only", "code_revision",
            "tp_plan", "use_fast", "ignore_mismatched_sizes", "key_mapping", "variant"}


class PretrainedConfig(refused.Refuses):
    """What config.json says, by attribute; of a GGUF what its metadata say, in GPT-2's and Llama's own words."""

    _refused = refused.CONFIG

    def __init__(self, **values: Any):
        self.__dict__.update({"pad_token_id": None, "bos_token_id": None, "eos_token_id": None, "problem_type": None, **values})
        labels = self.__dict__.get("id2label")
        if labels:
            self.id2label: dict[int, str] = {int(k): v for k, v in labels.items()}
            self.label2id: dict[str, int] = self.__dict__.get("label2id") or {v: k for k, v in self.id2label.items()}
            self.num_labels = len(self.id2label)

    @classmethod
    def from_pretrained(cls, name: str | os.PathLike[str], *, revision: str | None = None, cache_dir: str | None = None, **given: Any) -> "PretrainedConfig":
        """Reads the config of a model; OSError when it is not there."""
        path = hub.resolve(name, revision, cache_dir)
        file = os.path.join(path if os.path.isdir(path) else os.path.dirname(path), "config.json")
        if path.endswith(".gguf") or not os.path.exists(file):
            return cls(**{**_described(path), **given})
        try:
            with open(file, encoding="utf-8") as f:
                return cls(**{**json.load(f), **given})
        except ValueError as e:
            raise OSError(f"{file} is no valid JSON: {e}") from e

    def to_dict(self) -> dict[str, Any]:
        """All values."""
        return dict(self.__dict__)

    def __repr__(self) -> str:
        return f"{type(self).__name__} {json.dumps(self.to_dict(), indent=2, default=str)}"


def _described(path: str) -> dict[str, Any]:
    """What libsill finds in a file that has no config.json beside it, in transformers' words."""
    d = json.loads(_core.inspect(path))
    names = {"vocab_size": "n_vocab", "n_layer": "n_layers", "n_head": "n_heads", "n_positions": "n_ctx", "n_inner": "n_ff", "num_hidden_layers": "n_layers",
             "num_attention_heads": "n_heads", "num_key_value_heads": "n_kv_heads", "hidden_size": "n_embd", "intermediate_size": "n_ff",
             "max_position_embeddings": "n_ctx", "head_dim": "head_dim", "n_embd": "n_embd"}
    if d.get("family") == "llama":
        names = {k: v for k, v in names.items() if not k.startswith("n_")}
    out = {k: d[v] for k, v in names.items() if v in d}
    ends = d.get("eos_ids") or [-1]
    ids = {"bos_token_id": d.get("bos_id", -1), "eos_token_id": ends[0], "pad_token_id": d.get("pad_id", -1)}
    return {"model_type": d.get("family"), **out, **{k: v for k, v in ids.items() if v >= 0}}


class AutoConfig(PretrainedConfig):
    """The same: there is one kind of config."""


class BitsAndBytesConfig:
    """What quantization_config takes: load_in_8bit (LLM.int8, threshold 6) or load_in_4bit (Q4_1)."""

    def __init__(self, load_in_8bit: bool = False, load_in_4bit: bool = False, llm_int8_threshold: float = 6.0, **_: Any):
        self.load_in_8bit, self.load_in_4bit, self.llm_int8_threshold = load_in_8bit, load_in_4bit, llm_int8_threshold


class GenerationConfig:
    """Options of generate, by attribute: those set here are taken where a call says nothing else."""

    def __init__(self, **options: Any):
        self.__dict__.update(options)

    def __getattr__(self, name: str) -> Any:
        if name in refused.CONFIG:
            raise refused.MissingError(f"GenerationConfig.{name} is not in sill: write to_dict() to generation_config.json")
        if name.startswith("__"):
            raise AttributeError(name)
        return None

    @classmethod
    def from_pretrained(cls, name: str | os.PathLike[str], *, revision: str | None = None, cache_dir: str | None = None, **given: Any) -> "GenerationConfig":
        """What a model's generation_config.json sets; OSError where there is none."""
        path = os.path.join(hub.resolve(name, revision, cache_dir), "generation_config.json")
        with open(path, encoding="utf-8") as f:
            try:
                return cls(**{**json.load(f), **given})
            except ValueError as e:
                raise OSError(f"{path} is no valid JSON: {e}") from e

    def to_dict(self) -> dict[str, Any]:
        """The options that are set."""
        return dict(self.__dict__)


def device_name(device: Any) -> str:
    """transformers' and torch's names of devices to libsill's. 0 is the GPU that there is."""
    if device is None:
        return "auto"
    if isinstance(device, bool) or isinstance(device, int):
        return "cpu" if device < 0 else "gpu"
    name = str(device)
    if is_torch(device):
        raise ValueError("device is a tensor")
    base, _, index = name.partition(":")
    if index not in ("", "0"):
        raise ValueError(f"device {name!r}: sill uses one device, number 0")
    return {"mps": "metal", "balanced": "auto", "sequential": "auto"}.get(base, base)


def dtype_name(dtype: Any) -> str:
    """torch's and transformers' names of types to libsill's."""
    if dtype is None:
        return "f32" if get_compat() == "hf-4" else "auto"
    name = getattr(dtype, "__name__", str(dtype)).removeprefix("torch.")
    if name not in _DTYPES:
        raise ValueError(f"dtype {dtype!r}: 'auto', float32, float16, bfloat16, and sill's 'q8', 'q4', 'int8' are there")
    return _DTYPES[name]


def _quantization(load_in_8bit: bool, load_in_4bit: bool, config: Any) -> str | None:
    def get(name: str) -> Any:
        return config.get(name) if isinstance(config, dict) else getattr(config, name, None)

    if config is not None:
        load_in_8bit, load_in_4bit = load_in_8bit or bool(get("load_in_8bit")), load_in_4bit or bool(get("load_in_4bit"))
        if not (load_in_8bit or load_in_4bit):
            raise UnsupportedError("quantization_config: load_in_8bit (LLM.int8) and load_in_4bit are there")
        if load_in_8bit and get("llm_int8_threshold") not in (None, 6, 6.0):
            raise UnsupportedError(f"llm_int8_threshold {get('llm_int8_threshold')}: sill's is 6.0")
    if load_in_8bit and load_in_4bit:
        raise ValueError("load_in_4bit and load_in_8bit are both True, but only one can be used at the same time")
    return "int8" if load_in_8bit else "q4" if load_in_4bit else None


class PreTrainedModel(refused.Refuses):
    """A model with transformers' calls. Made by from_pretrained; threads may share it.

    Tensors or arrays come in from anywhere and go out as the kind that came in. Loaded where it runs best unless device_map or .to()
    says otherwise."""

    _refused = refused.MODEL
    _families: tuple[str, ...] = ()
    _head = "lm"

    def __init__(self, core: _core.Model, config: PretrainedConfig, name: str):
        self._core, self.config, self.name_or_path = core, config, name
        self.generation_config = GenerationConfig()
        self.training = False
        self._ids: tuple[int, list[int]] | None = None  # of padding and of ends of text, as the model's files say
        self._check()

    def _check(self) -> None:
        family = self._core.info.family.decode()
        if self._families and family not in self._families:
            raise ValueError(f"{self.name_or_path} is a {family} model; {type(self).__name__} is for {' and '.join(self._families)}")

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike[str], *, config: Any = None, torch_dtype: Any = None,
                        dtype: Any = None, device_map: Any = None, device: Any = None, load_in_8bit: bool = False,
                        load_in_4bit: bool = False, quantization_config: Any = None, revision: str | None = None, cache_dir: str | None = None,
                        subfolder: str = "", gguf_file: str | None = None,
                        n_threads: int = 0, n_ctx: int = 0, batch_tokens: int = 0, max_sequences: int = 0, memory_limit_bytes: int = 0,
                        **others: Any) -> Any:
        """Loads a model: a directory as on the hub, a file, or a name in the hub's cache (OSError when it is nowhere).

        dtype (or torch_dtype): "auto" (as stored), float32, float16, bfloat16. load_in_8bit: LLM.int8; load_in_4bit: blocks of 32 with
        4 bits. device_map or device: "cpu", "mps", "cuda", 0, or "auto" (the default): the best that computes right here.
        n_threads, n_ctx, batch_tokens, max_sequences, memory_limit_bytes: sill's own, see sill.h."""
        unknown = sorted(set(others) - _IGNORED)
        if unknown:
            raise TypeError(f"{cls.__name__}.from_pretrained() got an unexpected keyword argument {unknown[0]!r}")
        path = hub.resolve(pretrained_model_name_or_path, revision, cache_dir, subfolder, gguf_file)
        quantized = _quantization(load_in_8bit, load_in_4bit, quantization_config)
        where = device if device is not None else device_map
        if isinstance(where, dict):
            if len(set(map(str, where.values()))) != 1:
                raise UnsupportedError("device_map: sill puts a model on one device")
            where = next(iter(where.values()))
        core = open_model(path, device_name(where), quantized or dtype_name(dtype if dtype is not None else torch_dtype), n_threads=n_threads,
                          memory_limit_bytes=memory_limit_bytes, n_ctx=n_ctx, batch_tokens=batch_tokens, max_sequences=max_sequences)
        if config is None:
            config = PretrainedConfig.from_pretrained(path)
        return cls(core, config, os.fspath(pretrained_model_name_or_path))

    @classmethod
    def from_config(cls, config: Any, **_: Any) -> Any:
        """Refused: a model without weights is for training."""
        raise UnsupportedError(f"{cls.__name__}.from_config: sill does not train models; from_pretrained loads one")

    # ---- where and how

    @property
    def device(self) -> Any:
        """"cpu", "mps" or "cuda"; a torch.device where torch is in use."""
        name = self._core.info.device.decode().split(" ")[0]
        name = {"metal": "mps", "ref": "cpu"}.get(name, name)
        torch = sys.modules.get("torch")
        return torch.device(name) if torch is not None and name in ("cpu", "mps", "cuda") else name

    @property
    def dtype(self) -> str:
        """The type computed with, in sill's words ("f32", "bf16", "int8", ...)."""
        return self._core.info.dtype.decode()

    def to(self, device: Any = None, dtype: Any = None, **_: Any) -> "PreTrainedModel":
        """Moves the model to a device ("cpu", "mps", "cuda", 0) or to another type: it is loaded anew where that is another."""
        if device is not None and (str(device).removeprefix("torch.") in _DTYPES):
            device, dtype = None, device
        name = device_name(device) if device is not None else self._core.device
        kind = dtype_name(dtype) if dtype is not None else self._core.dtype
        current = self._core.info.device.decode().split(" ")[0]
        if kind == self._core.dtype and name in (self._core.device, current):
            return self
        self._core = open_model(self._core.path, name, kind, **self._core.load_options)
        return self

    def cpu(self) -> "PreTrainedModel":
        """.to("cpu")"""
        return self.to("cpu")

    def cuda(self, index: int = 0) -> "PreTrainedModel":
        """.to("cuda")"""
        return self.to(f"cuda:{index}")

    def float(self) -> "PreTrainedModel":
        """.to(dtype="float32")"""
        return self.to(dtype="float32")

    def half(self) -> "PreTrainedModel":
        """.to(dtype="float16")"""
        return self.to(dtype="float16")

    def bfloat16(self) -> "PreTrainedModel":
        """.to(dtype="bfloat16")"""
        return self.to(dtype="bfloat16")

    def eval(self) -> "PreTrainedModel":
        """Nothing changes: a model here is always that of inference."""
        return self

    def train(self, mode: bool = True) -> "PreTrainedModel":
        """train(False) is eval(); training is not in this version."""
        if mode:
            raise UnsupportedError("train(): this version of sill does not train models; train with transformers and load what save_pretrained writes. "
                                   "eval() and train(False) are there")
        return self

    def requires_grad_(self, requires_grad: bool = True) -> "PreTrainedModel":
        """Nothing changes: there are no gradients."""
        return self

    def num_parameters(self, **_: Any) -> int:
        """Number of parameters."""
        return int(self._core.info.n_params)

    def get_memory_footprint(self, **_: Any) -> int:
        """Bytes of the weights as they are computed with."""
        return int(self._core.info.weight_bytes)

    def close(self) -> None:
        """Gives the memory back at once."""
        self._core.close()

    # ---- rows

    def _rows(self, input_ids: Any, attention_mask: Any) -> tuple[np.ndarray[Any, Any], list[np.ndarray[Any, Any]], list[int]]:
        """The batch as a matrix, each row's own ids, and where they begin."""
        if input_ids is None:
            raise ValueError("You have to specify input_ids")
        matrix = to_numpy(input_ids)
        if matrix.ndim == 1:
            matrix = matrix[None]
        if matrix.ndim != 2 or matrix.dtype.kind not in "iu":
            raise ValueError(f"input_ids must be whole numbers of shape (batch, tokens), not {matrix.dtype} of shape {matrix.shape}")
        if attention_mask is None:
            return matrix, [_core.int_array(r) for r in matrix], [0] * len(matrix)
        mask = to_numpy(attention_mask).astype(bool)
        mask = mask[None] if mask.ndim == 1 else mask
        if mask.shape != matrix.shape:
            raise ValueError(f"attention_mask has shape {mask.shape}, input_ids {matrix.shape}")
        rows, starts = [], []
        for r, m in zip(matrix, mask):
            where = np.flatnonzero(m)
            if len(where) and where[-1] - where[0] + 1 != len(where):
                raise UnsupportedError("attention_mask: a row's masked tokens must lie at its beginning or its end, not between others (generate "
                                       "masks pad_token_id where no attention_mask is given)")
            start = int(where[0]) if len(where) else 0
            starts.append(start)
            rows.append(_core.int_array(r[start:start + len(where)]))
        return matrix, rows, starts

    def __call__(self, *args: Any, return_dict: bool | None = None, **kwargs: Any) -> Any:
        """forward(); return_dict=False gives a tuple."""
        out = self.forward(*args, **kwargs)
        return out.to_tuple() if return_dict is False else out

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The model's outputs for a batch."""
        raise NotImplementedError


def open_model(path: str, device: str, dtype: str, **o: Any) -> _core.Model:
    """Loads a model. "gpu" is the GPU that libsill finds, else, said once, the CPU."""
    core = _core.Model(path, "auto" if device == "gpu" else device, dtype, n_threads=o.get("n_threads", 0),
                       memory_limit_bytes=o.get("memory_limit_bytes", 0), n_ctx=o.get("n_ctx", 0), batch_tokens=o.get("batch_tokens", 0),
                       max_sequences=o.get("max_sequences", 0))
    core.device = device
    core.load_options = o
    if device == "gpu" and core.info.device.decode().split(" ")[0] in ("cpu", "ref"):
        _core.say_once("device 0: there is no GPU that sill can use here; the CPU is used")
    return core


def _refuse(kwargs: dict[str, Any], what: str) -> None:
    known = {"output_attentions", "output_hidden_states", "past_key_values", "inputs_embeds", "position_ids", "cache_position", "head_mask"}
    for name, value in kwargs.items():
        if name in known and value is not None and value is not False:
            raise refused.argument(what, name, value)
        if name not in known and name not in ("use_cache", "token_type_ids"):
            raise TypeError(f"{what}() got an unexpected keyword argument {name!r}")


def log_softmax(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Of the last axis."""
    shifted = x - x.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))


class PreTrainedCausalLM(PreTrainedModel):
    """A model that continues text."""

    def __init__(self, core: _core.Model, config: PretrainedConfig, name: str):
        super().__init__(core, config, name)
        if core.info.n_labels:
            raise UnsupportedError(f"{name} has a classification head and no language-model head: it can classify, but not generate")

    def forward(self, input_ids: Any = None, attention_mask: Any = None, labels: Any = None, logits_to_keep: int = 0,
                **kwargs: Any) -> Output:
        """Logits of every position, or of the last logits_to_keep (batch, tokens, vocabulary), and with labels the loss of
        transformers: the mean over the shifted positions, those labelled -100 left out.

        A padded row is computed as it is alone. transformers gives a right-padded row the same numbers; a left-padded one the same if it
        is given position_ids, which its generate makes and a plain call does not (GPT-2's logits are then off). Logits of masked
        positions are 0, and they count in no loss."""
        _refuse(kwargs, "forward")
        matrix, rows, starts = self._rows(input_ids, attention_mask)
        out = np.zeros((*matrix.shape, int(self._core.info.n_vocab)), np.float32)
        for k, (ids, start) in enumerate(zip(rows, starts)):
            if len(ids):
                self._core.logits(ids, out[k, start:start + len(ids)])
        loss = None
        if labels is not None:
            loss = np.asarray(self._loss(out, to_numpy(labels), rows, starts), np.float32)
        return Output(loss=None if loss is None else like(loss, input_ids), logits=like(out[:, -int(logits_to_keep):], input_ids))

    def can_generate(self) -> bool:
        """It can."""
        return True

    @staticmethod
    def _loss(logits: np.ndarray[Any, Any], labels: np.ndarray[Any, Any], rows: list[Any], starts: list[int]) -> np.floating[Any]:
        labels = labels[None] if labels.ndim == 1 else labels
        if labels.shape != logits.shape[:2]:
            raise ValueError(f"labels have shape {labels.shape}, input_ids {logits.shape[:2]}")
        total, n = 0.0, 0
        for k, (ids, start) in enumerate(zip(rows, starts)):
            targets = labels[k, start + 1:start + len(ids)]
            good = np.flatnonzero(targets != -100)
            if len(good):
                lp = log_softmax(logits[k, start + good].astype(np.float64))
                total -= float(lp[np.arange(len(good)), targets[good]].sum())
                n += len(good)
        return np.float64(total / n if n else np.nan)

    def generate(self, inputs: Any = None, generation_config: Any = None, attention_mask: Any = None, input_ids: Any = None,
                 streamer: Any = None, seed: int | None = None, **kwargs: Any) -> Any:
        """Continues every row of a batch; returns rows with the new ids behind them, filled up with the padding token, as transformers.

        Options by transformers' names; what is not given is as generate takes it by default (20 new tokens, greedy, and what the
        model's generation_config.json sets). A padded row, left or right, is continued as it is alone, whatever is beside it. Without
        attention_mask padding is told by its token, unless that also ends texts: then everything counts, as in transformers.
        choices (a list of texts), regex (a pattern of re) or json_schema (a dictionary or JSON): what is generated matches that
        whole; 256 new tokens where nothing is said (docs/CONSTRAINTS.md has the dialects).
        seed: of the random numbers (else sill.set_seed counts). prompt_lookup_num_tokens (with max_matching_ngram_size), or
        assistant_model, another model of sill's with the same vocabulary (with num_assistant_tokens): the same tokens, sooner."""
        inputs = input_ids if inputs is None else inputs
        pad = kwargs.get("pad_token_id")
        for extra in ("token_type_ids", "position_ids"):
            kwargs.pop(extra, None)
        given = {**_config_dict(self.generation_config), **_config_dict(generation_config), **kwargs}
        matrix, rows, _ = self._rows(inputs, attention_mask if attention_mask is not None or inputs is None else self._padding(inputs, given))
        sequences = self._generate_rows(rows, given, seed, streamer, width=matrix.shape[1])
        if pad is None:
            pad = given.get("pad_token_id")
        if pad is None:
            pad = self._pad_id()
        n_return = max((len(s) for s in sequences), default=1)
        new = max((len(g.ids) for s in sequences for g in s), default=0)
        out = np.full((len(matrix) * n_return, matrix.shape[1] + new), pad, np.int64)
        for i, s in enumerate(sequences):
            for k, g in enumerate(s):
                out[i * n_return + k, :matrix.shape[1]] = matrix[i]
                out[i * n_return + k, matrix.shape[1]:matrix.shape[1] + len(g.ids)] = g.ids
        return like(out, inputs)

    def _padding(self, inputs: Any, given: dict[str, Any]) -> Any:
        """The mask that transformers makes where none is given, or None."""
        if self._ids is None:
            described = json.loads(_core.inspect(self._core.path))
            self._ids = described.get("pad_id", -1), described.get("eos_ids", [])
        pad = next((x for x in (given.get("pad_token_id"), self.config.pad_token_id) if x is not None), self._ids[0])
        given_end = given.get("eos_token_id")
        ends = self._ids[1] if given_end is None else given_end if isinstance(given_end, (list, tuple)) else [given_end]
        matrix = to_numpy(inputs)
        return None if pad < 0 or pad in ends or not (matrix == pad).any() else matrix != pad

    def _pad_id(self) -> int:
        for value in (self.config.pad_token_id, int(self._core.info.pad_id), int(self._core.info.eos_id)):
            if isinstance(value, int) and value >= 0:
                return value
        return 0

    def _generate_rows(self, rows: list[np.ndarray[Any, Any]], given: dict[str, Any], seed: int | None, streamer: Any = None,
                       width: int | None = None, preset: str = "hf-5-generate") -> list[list[_core.Generated]]:
        """Runs sill_generate. WIDTH: lengths count from there, as those of a padded batch do in transformers."""
        o = self._core.preset(preset)
        keep: list[Any] = []
        given = {k: v for k, v in given.items() if v is not None}
        constraint = _core.take_constraint(given)
        if "max_new_tokens" in given and "max_length" in given:
            _core.say_once("both `max_new_tokens` and `max_length` are set; `max_new_tokens` counts")
            given.pop("max_length")
        assistant = given.pop("assistant_model", None)
        if assistant is not None and (not isinstance(assistant, PreTrainedModel) or assistant._core is self._core):
            raise ValueError(f"`assistant_model` has to be another model of sill's, but is {assistant!r}")
        helper: _core.Model | None = None if assistant is None else assistant._core
        eos = given.pop("eos_token_id", None)
        if eos is not None and int(self._core.info.eos_id) not in (eos if isinstance(eos, (list, tuple)) else [eos]):
            raise UnsupportedError(f"eos_token_id {eos}: the model's own, {self._core.info.eos_id}, ends a text")
        stop_with = given.pop("tokenizer", None)
        del stop_with  # transformers wants it for stop_strings; the model's own is used
        max_length, min_length = given.pop("max_length", None), given.pop("min_length", None)
        if given.get("temperature") == 0 and not given.get("do_sample", o.do_sample):
            given.pop("temperature")  # nothing is sampled
        for name, value in given.items():
            _core.set_generate(o, keep, name, value)
        if o.num_return_sequences > 1 and not o.do_sample and getattr(o, "num_beams", 1) <= 1:
            raise ValueError(f"Greedy methods without beam search do not support `num_return_sequences` different than 1 (got {o.num_return_sequences}).")
        o.seed = next_seed() if o.do_sample and seed is None else seed or 0
        if "max_new_tokens" in given:
            max_length = None
        elif max_length is not None:
            o.max_new_tokens, o.max_length = 0, int(max_length)
        o.no_bos = 1  # ids hold one where it is wanted
        longest = max((len(r) for r in rows), default=0)
        n_ctx = self._core.n_ctx
        default_length = max_length is None and "max_new_tokens" not in given
        if o.max_length and not o.max_new_tokens:
            count = longest if width is None else width
            if count >= o.max_length:
                raise RangeError(f"Input length of input_ids is {count}, but `max_length` is set to {o.max_length}. This can lead to unexpected "
                                 "behavior. You should consider increasing `max_length` or, better yet, setting `max_new_tokens`.")
            if width is not None:
                o.max_new_tokens, o.max_length = o.max_length - count, 0
        elif not o.max_new_tokens:
            o.max_new_tokens = 20 if constraint is None else 256
        if min_length and width is None:
            o.min_length = int(min_length)
        elif min_length and width is not None and not given.get("min_new_tokens"):
            o.min_new_tokens = max(0, int(min_length) - width)
        if not default_length or not o.max_new_tokens or longest + o.max_new_tokens <= n_ctx:
            return self._run(o, rows, streamer, constraint, helper)
        # By default no more than fits: rows that leave less room are runs of their own, so that none shortens another.
        most, out = int(o.max_new_tokens), list[list[_core.Generated]]([] for _ in rows)
        room = [min(most, max(1, n_ctx - len(r))) for r in rows]
        for n in sorted(set(room)):
            o.max_new_tokens = n
            o.min_new_tokens = min(o.min_new_tokens, n)
            some = [i for i, m in enumerate(room) if m == n]
            for i, result in zip(some, self._run(o, [rows[i] for i in some], streamer, constraint, helper, [i + 1 for i in some])):
                out[i] = result
        return out

    def _run(self, o: Any, rows: list[np.ndarray[Any, Any]], streamer: Any, constraint: Any,
             assistant: _core.Model | None = None, keys: Iterable[int] | None = None) -> list[list[_core.Generated]]:
        numbered = list(keys) if keys is not None else list(range(1, len(rows) + 1))
        piece = None
        if streamer is not None:
            if len(rows) > 1:
                raise ValueError("`streamer` needs a batch of one row")
            if o.num_beams > 1:
                raise ValueError("`streamer` cannot be used with beam search: which beam is the best shows at the end")
            streamer.put(rows[0].astype(np.int64))
            sent = [0]

            def piece(r: Any) -> None:
                if r.n_ids:
                    sent[0] += r.n_ids
                    streamer.put(_core.copy_array(r.ids, r.n_ids, np.int32).astype(np.int64))
        out = self._core.generate(o, [_core.Row(ids=r, key=k) for r, k in zip(rows, numbered)], piece, constraint, assistant)
        if streamer is not None:
            rest = out[0][0].ids[sent[0]:]  # an end of text, say, which is no piece of text
            if len(rest):
                streamer.put(rest.astype(np.int64))
            streamer.end()
        return out


def _config_dict(config: Any) -> dict[str, Any]:
    if config is None:
        return {}
    return dict(config) if isinstance(config, dict) else {k: v for k, v in config.to_dict().items() if v is not None}


class AutoModelForCausalLM(PreTrainedCausalLM):
    """Any model that continues text."""


class GPT2LMHeadModel(PreTrainedCausalLM):
    """GPT-2 with its language-model head."""

    _families = ("gpt2",)


class LlamaForCausalLM(PreTrainedCausalLM):
    """A Llama-type model with its language-model head."""

    _families = ("llama",)


class AutoModel(PreTrainedModel):
    """Any model, for its hidden states."""

    def forward(self, input_ids: Any = None, attention_mask: Any = None, **kwargs: Any) -> Output:
        """last_hidden_state (batch, tokens, width), behind the final norm. Padding as in PreTrainedCausalLM.forward."""
        _refuse(kwargs, "forward")
        matrix, rows, starts = self._rows(input_ids, attention_mask)
        out = np.zeros((*matrix.shape, int(self._core.info.n_embd)), np.float32)
        for k, (ids, start) in enumerate(zip(rows, starts)):
            if len(ids):
                self._core.hidden_states(ids, out[k, start:start + len(ids)])
        return Output(last_hidden_state=like(out, input_ids))


class GPT2Model(AutoModel):
    """GPT-2, for its hidden states."""

    _families = ("gpt2",)


class AutoModelForSequenceClassification(PreTrainedModel):
    """A model with a classification head."""

    def __init__(self, core: _core.Model, config: PretrainedConfig, name: str):
        super().__init__(core, config, name)
        if not core.info.n_labels:
            raise ValueError(f"{name} has no classification head; label with its language-model head instead: sill.classify(texts, labels=[...]) "
                             "or pipeline('zero-shot-classification')")
        names = core.labels()
        config.id2label = dict(enumerate(names))
        config.label2id = {v: k for k, v in config.id2label.items()}
        config.num_labels = len(names)

    def forward(self, input_ids: Any = None, attention_mask: Any = None, labels: Any = None, **kwargs: Any) -> Output:
        """Logits (batch, labels) of the last token that is no padding, and with labels the loss of the model's problem_type."""
        _refuse(kwargs, "forward")
        _, rows, _ = self._rows(input_ids, attention_mask)
        pad = self.config.pad_token_id
        if pad is not None:  # transformers takes the last token that is not this one, whatever the mask says
            rows = [r[:int(np.flatnonzero(r != pad)[-1]) + 1] if (r != pad).any() else r[:1] for r in rows]

        def failed(index: int, message: str) -> None:
            raise RangeError(f"row {index + 1}: {message}")

        results = self._core.classify([_core.Row(ids=r) for r in rows], failed, head_function=_abi.SILL_HEAD_NONE)
        out = np.stack([results[i]["logits"] for i in range(len(rows))]) if rows else np.zeros((0, self.config.num_labels), np.float32)
        loss = None if labels is None else like(np.asarray(self._loss(out, to_numpy(labels)), np.float32), input_ids)
        return Output(loss=loss, logits=like(out, input_ids))

    def _loss(self, logits: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> Any:
        kind = self.config.problem_type or ("regression" if logits.shape[1] == 1 else
                                            "single_label_classification" if labels.dtype.kind in "iu" else "multi_label_classification")
        x = logits.astype(np.float64)
        if kind == "regression":
            return np.mean((x.squeeze() - labels.squeeze()) ** 2)
        if kind == "multi_label_classification":
            return np.mean(np.maximum(x, 0) - x * labels + np.log1p(np.exp(-np.abs(x))))
        flat = labels.reshape(-1)
        return -np.mean(log_softmax(x)[np.arange(len(flat)), flat])


class GPT2ForSequenceClassification(AutoModelForSequenceClassification):
    """GPT-2 with a classification head."""

    _families = ("gpt2",)


class LlamaForSequenceClassification(AutoModelForSequenceClassification):
    """A Llama-type model with a classification head."""

    _families = ("llama",)
