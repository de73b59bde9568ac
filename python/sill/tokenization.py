"""AutoTokenizer and its kin: transformers' calls over libsill's tokenizers."""
from __future__ import annotations

import itertools
import json
import os
import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from . import _core, hub, refused
from .compat import get_compat
from .errors import RangeError, UnsupportedError
from .tensors import as_type, is_torch, to_numpy

_NO_LIMIT = int(1e30)
_BYTE = re.compile("<0x[0-9A-F]{2}>")
_ROLES = ("bos", "eos", "unk", "pad")
_PADS = {"input_ids": None, "attention_mask": 0, "token_type_ids": 0, "special_tokens_mask": 1}


class BatchEncoding(dict[str, Any]):
    """What a tokenizer returns: input_ids, attention_mask and what else was asked for; by key and by attribute."""

    is_fast = True

    def __init__(self, data: Mapping[str, Any] | None = None, tokenizer: "PreTrainedTokenizer | None" = None):
        super().__init__(data or {})
        self._tokenizer = tokenizer

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            if name in refused.ENCODING:
                raise refused.MissingError(f"BatchEncoding.{name} is not in sill: {refused.ENCODING[name]}") from None
            raise AttributeError(name) from None

    @property
    def data(self) -> dict[str, Any]:
        """The dictionary itself."""
        return self

    def to(self, *device: Any, **options: Any) -> "BatchEncoding":
        """Nothing moves: sill takes tensors from the host and puts them where the model is."""
        return self

    def tokens(self, index: int = 0) -> list[str | None]:
        """The tokens of row INDEX, as the vocabulary writes them."""
        assert self._tokenizer is not None
        ids = to_numpy(self["input_ids"]) if not isinstance(self["input_ids"], list) else self["input_ids"]
        row = ids[index] if len(ids) and not np.isscalar(ids[0]) else ids
        return list(self._tokenizer.convert_ids_to_tokens([int(i) for i in row]))


def _read_json(directory: str, name: str) -> dict[str, Any]:
    try:
        with open(os.path.join(directory, name), encoding="utf-8") as f:
            value = json.load(f)
        return value if isinstance(value, dict) else {}
    except FileNotFoundError:
        return {}
    except ValueError as e:
        raise OSError(f"{os.path.join(directory, name)} is no valid JSON: {e}") from e


def _char_spans(text: str, spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Spans of UTF-8 bytes as spans of characters; a token that holds a part of a character has the whole."""
    if text.isascii():
        return spans
    starts = np.cumsum([0] + [len(c.encode("utf-8", "surrogatepass")) for c in text]).tolist()
    out = []
    for a, b in spans:
        first = bisect_right(starts, a) - 1
        out.append((first, bisect_right(starts, b - 1)) if b > a else (first, first))
    return out


class PreTrainedTokenizer(refused.Refuses):
    """A tokenizer with transformers' calls. Made by from_pretrained.

    Where transformers raises for want of a padding token (GPT-2 has none), this pads with the end-of-text token, on the left and
    masked, and says so once on stderr. Text is never changed on the way back (clean_up_tokenization_spaces is ignored, as
    transformers 5 does for these tokenizers)."""

    _refused = refused.TOKENIZER
    model_input_names = ["input_ids", "attention_mask"]
    is_fast = True
    # properties, made below for each role
    bos_token: str | None
    eos_token: str | None
    unk_token: str | None
    pad_token: str | None
    bos_token_id: int | None
    eos_token_id: int | None
    unk_token_id: int | None
    pad_token_id: int | None
    cls_token: str | None
    sep_token: str | None
    mask_token: str | None
    cls_token_id: int | None
    sep_token_id: int | None
    mask_token_id: int | None

    def __init__(self, tokenizer: _core.Tokenizer, name: str, directory: str | None, file: str = "", **given: Any):
        self._core, self.name_or_path, self._file = tokenizer, name, file
        config = _read_json(directory, "tokenizer_config.json") if directory else {}
        config.update({k: v for k, v in given.items() if v is not None})
        self.init_kwargs = config
        self._ids: dict[str, int | None] = {}
        for role in _ROLES:
            found = getattr(tokenizer.info, role + "_id")
            self._ids[role] = found if found >= 0 else None
        self._vocab: dict[str, int] | None = None
        self._own_side = config.get("padding_side")
        self.truncation_side: str = config.get("truncation_side", "right")
        self.model_max_length: int = min(int(config.get("model_max_length") or _NO_LIMIT), _NO_LIMIT)
        self.clean_up_tokenization_spaces = bool(config.get("clean_up_tokenization_spaces", False))
        self.chat_template = config.get("chat_template")
        self._trim: bool | None = None
        self._keeps_first = False
        for role in _ROLES:
            if isinstance(given.get(role + "_token"), str):
                setattr(self, role + "_token", given[role + "_token"])

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike[str], *, revision: str | None = None,
                        cache_dir: str | None = None, subfolder: str = "", gguf_file: str | None = None, **options: Any) -> "PreTrainedTokenizer":
        """Loads the tokenizer of a directory as on the hub, a file (tokenizer.json, vocab.json, a .gguf) or a name in the hub's
        cache. Options such as padding_side, pad_token, model_max_length, truncation_side overrule the files'."""
        path = hub.resolve(pretrained_model_name_or_path, revision, cache_dir, subfolder, gguf_file)
        if options.pop("add_prefix_space", None):
            raise ValueError("add_prefix_space=True is not there: put the space into the text")
        known = {"padding_side", "truncation_side", "model_max_length", "clean_up_tokenization_spaces", "chat_template",
                 *(role + "_token" for role in _ROLES)}
        directory = path if os.path.isdir(path) else os.path.dirname(path) if path.endswith((".json", ".txt", ".bpe")) else None
        file = path if path.endswith(".json") else os.path.join(path, "tokenizer.json") if os.path.isdir(path) else ""
        return cls(_core.Tokenizer(path), os.fspath(pretrained_model_name_or_path), directory, file,
                   **{k: v for k, v in options.items() if k in known})

    # ---- special tokens

    def _token(self, role: str) -> str | None:
        i = self._ids[role]
        return None if i is None else self._core.token_text(i)

    def _set_id(self, role: str, value: int | None) -> None:
        if value is not None and self._core.token_text(int(value)) is None:
            raise ValueError(f"{role}_token_id {value} is outside the vocabulary of {len(self)} tokens")
        self._ids[role] = None if value is None else int(value)

    def _set_token(self, role: str, value: Any) -> None:
        text = getattr(value, "content", value)
        if text is not None and text not in self.get_vocab():
            raise ValueError(f"{role}_token {text!r} is not in the vocabulary, and sill adds no tokens to a model")
        self._set_id(role, None if text is None else self.get_vocab()[text])

    @property
    def padding_side(self) -> str:
        """"right" unless the files or the user say otherwise; with no padding token "left"."""
        return self._own_side or "right"

    @padding_side.setter
    def padding_side(self, side: str) -> None:
        if side not in ("left", "right"):
            raise ValueError(f"padding_side should be 'left' or 'right', not {side!r}")
        self._own_side = side

    @property
    def all_special_ids(self) -> list[int]:
        """Ids of the named special tokens and of others that the files mark as special."""
        named = [i for i in (self._ids[r] for r in _ROLES) if i is not None]
        rest = [i for i in self.get_vocab().values() if self._core.is_special(i)]
        return list(dict.fromkeys(named + sorted(rest)))

    @property
    def all_special_tokens(self) -> list[str]:
        """The texts of all_special_ids."""
        return [t for t in map(self._core.token_text, self.all_special_ids) if t is not None]

    @property
    def special_tokens_map(self) -> dict[str, str]:
        """bos_token, eos_token, ... where there is one."""
        return {r + "_token": t for r in _ROLES if (t := self._token(r)) is not None}

    def add_special_tokens(self, special_tokens_dict: Mapping[str, Any], **_: Any) -> int:
        """Names tokens of the vocabulary as special ones ({"pad_token": "<|endoftext|>"}). New tokens are a ValueError."""
        for key, value in special_tokens_dict.items():
            if key.removesuffix("_token") not in _ROLES:
                raise ValueError(f"{key}: the tokens that can be named are {', '.join(r + '_token' for r in _ROLES)}")
            setattr(self, key, value)
        return 0

    def add_tokens(self, new_tokens: Any, special_tokens: bool = False) -> int:
        """0 where all of these are in the vocabulary; a new token is an UnsupportedError."""
        texts = [getattr(t, "content", t) for t in ([new_tokens] if isinstance(new_tokens, str) or hasattr(new_tokens, "content") else new_tokens)]
        new = [t for t in texts if t not in self.get_vocab()]
        if new:
            raise UnsupportedError(f"add_tokens: {new[0]!r} is not in the vocabulary, and sill adds no tokens to a model: put it into the tokenizer's "
                                   "files, and its embedding into the model's, with transformers")
        return 0

    # ---- the vocabulary

    @property
    def vocab_size(self) -> int:
        """Number of ids."""
        return int(self._core.info.n_vocab)

    def __len__(self) -> int:
        return self.vocab_size

    def get_vocab(self) -> dict[str, int]:
        """Every token as the vocabulary writes it, with its id."""
        if self._vocab is None:
            self._vocab = {t: i for i in range(self.vocab_size) if (t := self._core.token_text(i)) is not None}
        return self._vocab

    @property
    def vocab(self) -> dict[str, int]:
        """get_vocab()."""
        return self.get_vocab()

    def convert_ids_to_tokens(self, ids: Any, skip_special_tokens: bool = False) -> Any:
        """Id or ids to tokens as the vocabulary writes them; None where there is none."""
        if isinstance(ids, (int, np.integer)):
            return self._core.token_text(int(ids))
        return [self._core.token_text(int(i)) for i in to_numpy(ids).tolist() if not (skip_special_tokens and self._core.is_special(int(i)))]

    def convert_tokens_to_ids(self, tokens: Any) -> Any:
        """The reverse; the unknown token's id, or None, for what is no token."""
        if isinstance(tokens, str):
            return self.get_vocab().get(tokens, self._ids["unk"])
        return [self.convert_tokens_to_ids(t) for t in tokens]

    def convert_tokens_to_string(self, tokens: Sequence[str]) -> str:
        """The text of tokens."""
        return str(self.decode([i for i in self.convert_tokens_to_ids(list(tokens)) if i is not None]))

    def tokenize(self, text: str, pair: str | None = None, add_special_tokens: bool = False, **_: Any) -> list[str]:
        """The tokens of a text, as the vocabulary writes them."""
        return list(self.convert_ids_to_tokens(self.encode(text, pair, add_special_tokens=add_special_tokens)))

    # ---- text to ids

    def _flags(self, add_special_tokens: bool, split_special_tokens: bool) -> int:
        bos = _core.BOS if add_special_tokens and self._core.info.add_bos else 0
        return bos | (0 if split_special_tokens else _core.SPECIAL)

    def _trims(self) -> bool:
        """Whether the files' post-processor leaves spaces out of offsets."""
        if self._trim is None:
            post = _read_json("", self._file).get("post_processor") if self._file else None
            parts = (post or {}).get("processors", [post] if post else [])
            byte_level = [p for p in parts if p.get("type") == "ByteLevel" and p.get("trim_offsets", True)]
            self._trim = bool(byte_level)
            self._keeps_first = any(p.get("add_prefix_space", True) for p in byte_level)
        return self._trim

    def _offsets(self, text: str, ids: list[int], spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
        out = _char_spans(text, spans)
        if self._core.info.kind == b"spm":  # a dummy space that is a token of its own counts as the character behind it
            out = [(a, min(a + 1, len(text))) if a == b and not self._core.is_special(i) else (a, b) for i, (a, b) in zip(ids, out)]
        if not self._trims():
            return out
        trimmed = []
        for a, b in out:
            part = text[a:b]
            before, behind = len(part) - len(part.lstrip(" ")), len(part) - len(part.rstrip(" "))
            if before and a == 0 and self._keeps_first:
                before -= 1  # taken for the space that tokenizers would have put there
            a = min(a + before, b)
            trimmed.append((a, max(b - behind, a)))
        return trimmed

    def _one(self, text: Any, pair: Any, o: dict[str, Any]) -> dict[str, list[Any]]:
        """A text (and its pair) as lists, truncated."""
        for part in (text, pair):
            if not isinstance(part, str) and (part is not None or part is text):
                raise ValueError("text input must be of type `str` (single example), `list[str]` (batch) or a list of pairs of `str`, not "
                                 f"{type(part).__name__}")
        flags = self._flags(o["add_special_tokens"], o["split_special_tokens"])
        parts = []
        for part in (text, pair):
            if part is None:
                continue
            if o["return_offsets_mapping"]:
                ids, spans = self._core.encode_spans(part, flags)
                parts.append((ids, self._offsets(part, ids, spans)))
            else:
                parts.append((self._core.encode(part, flags), []))
        if o["max_length"] is not None and o["truncation"]:
            parts = self._truncate(parts, o["max_length"], o["truncation"], bool(flags & _core.BOS))
        out: dict[str, list[Any]] = {"input_ids": [i for p in parts for i in p[0]]}
        if o["return_token_type_ids"]:
            out["token_type_ids"] = [k for k, p in enumerate(parts) for _ in p[0]]
        out["attention_mask"] = [1] * len(out["input_ids"])
        if o["return_special_tokens_mask"]:
            bos = self._ids["bos"] if flags & _core.BOS else None
            out["special_tokens_mask"] = [int(n == 0 and i == bos) for p in parts for n, i in enumerate(p[0])]
        if o["return_offsets_mapping"]:
            out["offset_mapping"] = [s for p in parts for s in p[1]]
        return out

    def _truncate(self, parts: list[Any], limit: int, how: Any, bos: bool) -> list[Any]:
        lengths = [len(p[0]) for p in parts]
        over = sum(lengths) - limit
        if over <= 0:
            return parts
        cut = [0, 0]
        if len(parts) == 1 or how == "only_first":
            cut[0] = over
        elif how == "only_second":
            cut[1] = over
        else:  # longest first: down to the same length, the second shorter by one where it is odd
            for _ in range(over):
                cut[int(lengths[1] - cut[1] >= lengths[0] - cut[0])] += 1
        out = []
        for k, (ids, spans) in enumerate(parts):
            keep = len(ids) - cut[k]
            if keep < int(bos):
                raise RangeError(f"truncation to {limit} tokens leaves no room for {'BOS' if bos else 'a text'}")
            if self.truncation_side == "left":
                head = int(bos)
                out.append((ids[:head] + ids[len(ids) - keep + head:], spans[:head] + spans[len(spans) - keep + head:] if spans else []))
            else:
                out.append((ids[:keep], spans[:keep]))
        return out

    def __call__(self, text: Any, text_pair: Any = None, *, add_special_tokens: bool = True, padding: Any = False, truncation: Any = None,
                 max_length: int | None = None, stride: int = 0, return_tensors: Any = None, return_token_type_ids: bool = False,
                 return_attention_mask: bool | None = None, return_overflowing_tokens: bool = False,
                 return_special_tokens_mask: bool = False, return_offsets_mapping: bool = False, return_length: bool = False,
                 is_split_into_words: bool = False, padding_side: str | None = None, pad_to_multiple_of: int | None = None,
                 split_special_tokens: bool = False, verbose: bool = True) -> BatchEncoding:
        """A text, or a list of texts or pairs, to ids with their attention mask. Special tokens written in a text are parsed, as in
        transformers; split_special_tokens=True leaves them text. Arguments and results are transformers'."""
        if is_split_into_words or return_overflowing_tokens or stride:
            raise ValueError("is_split_into_words, return_overflowing_tokens and stride are not supported")
        padding, truncation, max_length = self._strategies(padding, truncation, max_length, verbose)
        o = {"add_special_tokens": add_special_tokens, "split_special_tokens": split_special_tokens, "max_length": max_length, "truncation": truncation,
             "return_offsets_mapping": return_offsets_mapping, "return_token_type_ids": return_token_type_ids,
             "return_special_tokens_mask": return_special_tokens_mask}
        single = isinstance(text, str) or text is None
        if single:
            rows = [self._one(text, text_pair, o)]
        else:
            if hasattr(text, "tolist"):
                text = text.tolist()  # numpy, pandas
            if not isinstance(text, (list, tuple)):
                raise ValueError("text input must be of type `str` (single example), `list[str]` (batch) or a list of pairs of `str`, not "
                                 f"{type(text).__name__}")
            pairs = text_pair if text_pair is not None else [None] * len(text)
            if len(pairs) != len(text):
                raise ValueError(f"batch length of `text`: {len(text)} does not match batch length of `text_pair`: {len(pairs)}")
            rows = [self._one(t[0], t[1], o) if isinstance(t, (tuple, list)) and len(t) == 2 else self._one(t, p, o) for t, p in zip(text, pairs)]
        longest = max((len(r["input_ids"]) for r in rows), default=0)
        if not truncation and verbose and longest > self.model_max_length:
            _core.say_once(f"Token indices sequence length is longer than the specified maximum sequence length for this model ({longest} > "
                           f"{self.model_max_length}).")
        data: dict[str, Any] = {key: [r[key] for r in rows] for key in rows[0]} if rows else {"input_ids": [], "attention_mask": []}
        if return_length:
            data["length"] = [len(x) for x in data["input_ids"]]
        if padding:
            self._pad(data, padding, max_length, padding_side, pad_to_multiple_of)
        if return_attention_mask is False:
            data.pop("attention_mask")
        if single and return_tensors is None:
            data = {key: value[0] for key, value in data.items()}
        return BatchEncoding({key: as_type(value, return_tensors) for key, value in data.items()}, self)

    encode_plus = batch_encode_plus = __call__

    def _strategies(self, padding: Any, truncation: Any, max_length: int | None, verbose: bool) -> tuple[Any, Any, int | None]:
        padding, truncation = getattr(padding, "value", padding), getattr(truncation, "value", truncation)
        if max_length is not None and not padding and truncation is None:
            if verbose:
                _core.say_once("`max_length` is given without `truncation`: texts are truncated, as transformers does")
            truncation = True
        if padding is True:
            padding = "longest"
        if padding in (None, "do_not_pad"):
            padding = False
        if truncation in (None, "do_not_truncate"):
            truncation = False
        if padding not in (False, "longest", "max_length"):
            raise ValueError(f"padding={padding!r}: False, True, 'longest', 'max_length' and 'do_not_pad' are there")
        if truncation not in (False, True, "longest_first", "only_first", "only_second"):
            raise ValueError(f"truncation={truncation!r}: False, True, 'longest_first', 'only_first', 'only_second' and 'do_not_truncate' are there")
        if max_length is None and (truncation or padding == "max_length"):
            if self.model_max_length < _NO_LIMIT // 1000:
                max_length = self.model_max_length
            else:
                _core.say_once("Asking to pad or truncate to max_length but no maximum length is provided and the model has no predefined "
                               "maximum length. Default to no padding and no truncation.")
                padding, truncation = (False if padding == "max_length" else padding), False
        return padding, truncation, max_length

    def _pad_with(self) -> tuple[int, str]:
        """The id and the side."""
        pad = self._ids["pad"]
        if pad is not None:
            return pad, self.padding_side
        eos = self._ids["eos"]
        if eos is None:
            raise ValueError("Asking to pad but the tokenizer does not have a padding token. Please select a token to use as `pad_token` "
                             "`(tokenizer.pad_token = tokenizer.eos_token e.g.)`.")
        side = self._own_side or "left"
        _core.say_once(f"the tokenizer has no padding token: padding with {self._token('eos')} on the {side}, masked")
        return eos, side

    def _pad(self, data: dict[str, Any], how: str, max_length: int | None, side: str | None, multiple: int | None) -> None:
        pad, own_side = self._pad_with()
        side = side or own_side
        width = max((len(x) for x in data["input_ids"]), default=0)
        if how == "max_length" and max_length is not None:
            width = max_length
        if multiple and width % multiple:
            width += multiple - width % multiple
        for key, rows in data.items():
            if key != "offset_mapping" and key not in _PADS:
                continue
            value = pad if key == "input_ids" else (0, 0) if key == "offset_mapping" else _PADS[key]
            for k, row in enumerate(rows):
                fill = [value] * max(0, width - len(row))
                rows[k] = fill + row if side == "left" else row + fill

    def pad(self, encoded_inputs: Any, padding: Any = True, max_length: int | None = None, padding_side: str | None = None,
            pad_to_multiple_of: int | None = None, return_tensors: Any = None, return_attention_mask: bool | None = None,
            verbose: bool = True) -> BatchEncoding:
        """Pads what was tokenized without padding: a dictionary of lists, or a list of dictionaries."""
        if isinstance(encoded_inputs, (list, tuple)):
            encoded_inputs = {key: [x[key] for x in encoded_inputs] for key in encoded_inputs[0]}
        data = {}
        for key, value in encoded_inputs.items():
            rows = [to_numpy(x).tolist() if is_torch(x) or isinstance(x, np.ndarray) else list(x) for x in value]
            data[key] = rows
        data.setdefault("attention_mask", [[1] * len(x) for x in data["input_ids"]])
        padding, _, max_length = self._strategies(padding, False, max_length, verbose)
        if padding:
            self._pad(data, padding, max_length, padding_side, pad_to_multiple_of)
        return BatchEncoding({key: as_type(value, return_tensors) for key, value in data.items()}, self)

    def encode(self, text: Any, text_pair: Any = None, return_tensors: Any = None, **options: Any) -> Any:
        """The ids of one text."""
        ids = self(text, text_pair, **options)["input_ids"]
        return as_type([ids], return_tensors) if return_tensors else ids

    # ---- ids to text

    def decode(self, token_ids: Any, skip_special_tokens: bool = False, clean_up_tokenization_spaces: bool | None = None, **_: Any) -> Any:
        """The text of ids; of a list of them a list of texts. What is no UTF-8 becomes U+FFFD."""
        if isinstance(token_ids, Mapping):
            token_ids = token_ids["input_ids"]
        if is_torch(token_ids) or isinstance(token_ids, np.ndarray):
            token_ids = to_numpy(token_ids).tolist()
        if isinstance(token_ids, (int, np.integer)):
            token_ids = [token_ids]
        if len(token_ids) and is_torch(token_ids[0]) and not token_ids[0].ndim:
            token_ids = [int(i) for i in token_ids]
        if len(token_ids) and not isinstance(token_ids[0], (int, np.integer)):
            return [self.decode(x, skip_special_tokens) for x in token_ids]
        return self._text([int(i) for i in token_ids], skip_special_tokens)

    def _text(self, ids: list[int], skip_special: bool, continuation: bool = False) -> str:
        """What is no UTF-8 becomes U+FFFD; of SentencePiece's byte tokens a run that is none, one for each byte, as in tokenizers."""
        if self._core.info.kind == b"spm":
            kept = [i for i in ids if not (skip_special and self._core.is_special(i))]
            out = ""
            for is_byte, run in itertools.groupby(kept, lambda i: bool(_BYTE.fullmatch(self._core.token_text(i) or ""))):
                part = list(run)
                data = self._bytes(part, False, continuation)
                continuation = True
                try:
                    out += data.decode("utf-8") if is_byte else data.decode("utf-8", "replace")
                except UnicodeDecodeError:
                    out += "\ufffd" * len(part)
            return out
        return self._bytes(ids, skip_special, continuation).decode("utf-8", "replace")

    def _bytes(self, ids: list[int], skip_special: bool, continuation: bool) -> bytes:
        try:
            return self._core.decode(ids, skip_special, continuation)
        except RangeError:  # rows of the model above the vocabulary stand for nothing
            return self._core.decode([i for i in ids if self._core.token_text(i) is not None], skip_special, continuation)

    def batch_decode(self, sequences: Any, skip_special_tokens: bool = False, clean_up_tokenization_spaces: bool | None = None,
                     **_: Any) -> list[str]:
        """The texts of several lists of ids; of one list one text (with set_compat("hf-4") one of each id)."""
        rows = to_numpy(sequences).tolist() if is_torch(sequences) or isinstance(sequences, np.ndarray) else sequences
        if get_compat() == "hf-5" and len(rows) and isinstance(rows[0], (int, np.integer)):
            rows = [rows]
        return [self.decode(x, skip_special_tokens) for x in rows]

    # ---- conversations

    def apply_chat_template(self, conversation: Any, *, tokenize: bool = True, add_generation_prompt: bool = False,
                            return_tensors: Any = None, return_dict: bool | None = None, padding: Any = False, truncation: Any = False,
                            max_length: int | None = None, continue_final_message: bool = False, **others: Any) -> Any:
        """A conversation ([{"role": ..., "content": ...}, ...], or a list of them) in the form of the tokenizer's chat template:
        ChatML's and Zephyr's are known, others are an UnsupportedError. What messages say never becomes a control token, unlike in
        transformers. continue_final_message leaves the last one open at its end. Returns a dictionary, or (tokenize=False) text; with set_compat("hf-4") ids."""
        for name in ("tools", "documents", "chat_template", "return_assistant_tokens_mask"):
            if others.get(name):
                raise ValueError(f"apply_chat_template: {name} is not supported")
        single = not conversation or isinstance(conversation[0], Mapping)
        if continue_final_message and add_generation_prompt:
            raise ValueError("continue_final_message and add_generation_prompt are not compatible. Use continue_final_message when you want the model to "
                             "continue the final message, and add_generation_prompt when you want to add a header that will prompt it to start a new one.")
        rows = [self._core.chat(c, add_generation_prompt) for c in ([conversation] if single else conversation)]
        if continue_final_message:  # without the control token behind it, and what follows that
            rows = [r[:max((i for i, x in enumerate(r) if self._core.is_special(x)), default=len(r))] for r in rows]
        if not tokenize:
            # SentencePiece puts a dummy space behind every control token
            texts = ["".join(self._text(list(part), False) for _, part in itertools.groupby(r, self._core.is_special)) for r in rows]
            return texts[0] if single else texts
        padding, truncation, max_length = self._strategies(padding, truncation, max_length, True)
        if truncation and max_length:
            rows = [self._truncate([(r, [])], max_length, True, False)[0][0] for r in rows]
        data: dict[str, Any] = {"input_ids": rows, "attention_mask": [[1] * len(r) for r in rows]}
        if padding:
            self._pad(data, padding, max_length, None, None)
        if single and return_tensors is None:
            data = {key: value[0] for key, value in data.items()}
        encoded = BatchEncoding({key: as_type(value, return_tensors) for key, value in data.items()}, self)
        return encoded if (return_dict if return_dict is not None else get_compat() == "hf-5") else encoded["input_ids"]

    def __repr__(self) -> str:
        return (f"{type(self).__name__}(name_or_path={self.name_or_path!r}, vocab_size={self.vocab_size}, "
                f"padding_side={self.padding_side!r}, special_tokens={self.special_tokens_map})")


def _special_properties() -> None:
    """bos_token, bos_token_id, ...: read and set."""
    for role in _ROLES:
        def get_token(self: Any, role: str = role) -> Any:
            return self._token(role)

        def set_token(self: Any, value: Any, role: str = role) -> None:
            self._set_token(role, value)

        def get_id(self: Any, role: str = role) -> Any:
            return self._ids[role]

        def set_id(self: Any, value: Any, role: str = role) -> None:
            self._set_id(role, value)

        setattr(PreTrainedTokenizer, role + "_token", property(get_token, set_token, None, f"The {role} token's text, or None."))
        setattr(PreTrainedTokenizer, role + "_token_id", property(get_id, set_id, None, f"The {role} token's id, or None."))
    for role in ("cls", "sep", "mask"):  # what these models have no use for
        def get_other(self: Any, role: str = role) -> Any:
            value = self.init_kwargs.get(role + "_token")
            return value.get("content") if isinstance(value, Mapping) else getattr(value, "content", value)

        def get_other_id(self: Any, role: str = role) -> Any:
            return self.get_vocab().get(get_other(self, role))

        setattr(PreTrainedTokenizer, role + "_token", property(get_other, None, None, f"The {role} token that the files name, or None."))
        setattr(PreTrainedTokenizer, role + "_token_id", property(get_other_id, None, None, "Its id, or None."))


_special_properties()
PreTrainedTokenizerFast = PreTrainedTokenizer


class GPT2Tokenizer(PreTrainedTokenizer):
    """GPT-2's byte-level tokenizer."""


class GPT2TokenizerFast(GPT2Tokenizer):
    """The same: there is one kind of tokenizer."""


class AutoTokenizer(PreTrainedTokenizer):
    """The tokenizer of any model that sill runs."""
