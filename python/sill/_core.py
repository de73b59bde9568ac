"""libsill's nouns as Python objects: tokenizers, models with their sessions, and tasks over rows. Nothing is decided here."""
from __future__ import annotations

import contextlib
import ctypes
import itertools
import json
import os
import re
import signal
import sys
import threading
import weakref
from dataclasses import dataclass
from typing import Any, Callable, Iterable, Iterator, Sequence

import numpy as np

from . import _abi, refused
from ._lib import address, call, lib, options, take_string, utf8
from .errors import error_of

NO_ANSWER = _abi.SILL_CHAT_NO_ANSWER
SPECIAL, BOS, NO_PREFIX = _abi.SILL_TOKENIZE_SPECIAL, _abi.SILL_TOKENIZE_BOS, _abi.SILL_TOKENIZE_NO_PREFIX
LONG = {"default": 0, "error": 1, "truncate": 2, "window": 3, "split-mean": 4}


def int_array(ids: Any) -> np.ndarray[Any, np.dtype[np.int32]]:
    """Ids as the library takes them. An id that is no 32-bit number is a ValueError."""
    a = np.asarray(ids)
    if a.size and (a.dtype.kind not in "iu" or a.min() < -(1 << 31) or a.max() >= 1 << 31):
        raise ValueError("token ids must be whole numbers of 32 bits")
    return np.ascontiguousarray(a, dtype=np.int32)


def int_pointer(a: np.ndarray[Any, Any]) -> Any:
    return a.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))


def copy_array(pointer: Any, n: int, dtype: Any) -> np.ndarray[Any, Any]:
    """A copy of N values that are valid during a callback only."""
    if not n or not pointer:
        return np.empty(0, dtype)
    size = np.dtype(dtype).itemsize
    return np.frombuffer(ctypes.string_at(pointer, n * size), dtype=dtype).copy()


class Tokenizer:
    """A sill_tokenizer: loaded by itself, or a model's own."""

    def __init__(self, path: str | None = None, borrowed: int | None = None, owner: Any = None):
        self.path = os.path.abspath(path) if path is not None else None
        if path is not None:
            handle = ctypes.c_void_p()
            call("sill_tokenizer_load", utf8(path), ctypes.byref(handle))
            self.handle = handle.value
            # not at exit, when threads may still be in a call
            weakref.finalize(self, lib.sill_tokenizer_free, handle).atexit = False
        else:
            self.handle = borrowed
        self._owner = owner  # keeps the model alive whose tokenizer this is
        self.info = _abi.sill_tokenizer_info()
        lib.sill_tokenizer_get_info(self.handle, ctypes.byref(self.info), ctypes.sizeof(self.info))

    def __reduce__(self) -> Any:  # an address means nothing elsewhere
        if self.path is None:
            raise TypeError("a model's own tokenizer cannot be pickled; load it by itself")
        return Tokenizer, (self.path,)

    def __deepcopy__(self, memo: Any) -> "Tokenizer":
        return self  # it never changes

    def encode(self, text: str | bytes, flags: int) -> list[int]:
        data = utf8(text)
        cap = lib.sill_tokenize_bound(self.handle, len(data))
        ids = np.empty(max(cap, 1), np.int32)
        n = ctypes.c_size_t()
        call("sill_tokenize", self.handle, data, len(data), flags, int_pointer(ids), cap, ctypes.byref(n))
        return ids[:n.value].tolist()  # type: ignore[no-any-return]

    def encode_spans(self, text: str | bytes, flags: int) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids, and the bytes of the UTF-8 text that each stands for."""
        data = utf8(text)
        cap = lib.sill_tokenize_bound(self.handle, len(data))
        ids = np.empty(max(cap, 1), np.int32)
        spans = np.empty((max(cap, 1), 2), np.uintp)
        n = ctypes.c_size_t()
        call("sill_tokenize_spans", self.handle, data, len(data), flags, int_pointer(ids),
             spans.ctypes.data_as(ctypes.POINTER(_abi.sill_token_span)), cap, ctypes.byref(n))
        return ids[:n.value].tolist(), [(a, b) for a, b in spans[:n.value].tolist()]

    def decode(self, ids: Sequence[int], skip_special: bool = False, continuation: bool = False) -> bytes:
        a = int_array(ids)
        flags = (_abi.SILL_DETOKENIZE_SKIP_SPECIAL if skip_special else 0) | (_abi.SILL_DETOKENIZE_CONTINUATION if continuation else 0)
        cap = lib.sill_detokenize_bound(self.handle, int_pointer(a), len(a))
        out = ctypes.create_string_buffer(max(cap, 1))
        n = ctypes.c_size_t()
        call("sill_detokenize", self.handle, int_pointer(a), len(a), flags, out, cap, ctypes.byref(n))
        return out.raw[:n.value]

    def token_text(self, token_id: int) -> str | None:
        """The token as vocabularies write it; None for an id without a token."""
        out = ctypes.create_string_buffer(4096)
        n = ctypes.c_size_t()
        error = _abi.sill_error()
        if not -(1 << 31) <= token_id < 1 << 31:
            return None
        if lib.sill_token_text(self.handle, token_id, out, len(out), ctypes.byref(n), ctypes.byref(error)):
            return None
        return out.raw[:n.value].decode("utf-8", "replace")

    def is_special(self, token_id: int) -> bool:
        return bool(lib.sill_token_is_special(self.handle, token_id))

    def chat(self, messages: Sequence[dict[str, str]], answer: bool) -> list[int]:
        """A conversation as ids."""
        n = len(messages)
        strings = ctypes.c_char_p * n
        roles = strings(*(utf8(m["role"]) for m in messages))
        contents = strings(*(utf8(m["content"]) for m in messages))
        out = ctypes.POINTER(ctypes.c_int32)()
        n_ids = ctypes.c_size_t()
        call("sill_tokenizer_chat", self.handle, roles, contents, n, 0 if answer else NO_ANSWER, ctypes.byref(out), ctypes.byref(n_ids))
        try:
            return out[:n_ids.value]
        finally:
            lib.sill_free(out)


@dataclass
class Row:
    """A row of a task: a text, or ids instead of one."""

    text: bytes | None = None
    ids: np.ndarray[Any, np.dtype[np.int32]] | None = None
    key: int | None = None  # of the random numbers; None: the row's number
    context_ids: np.ndarray[Any, np.dtype[np.int32]] | None = None  # score: what stands before the ids


@dataclass
class Generated:
    """One continuation."""

    text: bytes
    ids: np.ndarray[Any, np.dtype[np.int32]]
    logprobs: np.ndarray[Any, np.dtype[np.float32]] | None
    n_prompt: int
    finish_reason: str


class _Interrupts:
    """While libsill runs in the main thread, Ctrl-C sets a flag that callbacks look at: an exception that Python raised where a callback
    begins would be lost. What was to handle the signal does so behind the call."""

    seen: tuple[int, Any] | None = None
    before: Any = None

    def __enter__(self) -> "_Interrupts":
        if threading.current_thread() is threading.main_thread() and callable(signal.getsignal(signal.SIGINT)):
            self.before = signal.signal(signal.SIGINT, self._note)
        return self

    def _note(self, number: int, frame: Any) -> None:
        self.seen = (number, frame)

    def __exit__(self, *_: Any) -> None:
        if callable(self.before):
            signal.signal(signal.SIGINT, self.before)
            if self.seen:
                self.before(*self.seen)  # KeyboardInterrupt, as a rule


class _Run:
    """One call of a task: feeds rows, collects results, and carries an exception of a callback out of it."""

    def __init__(self, rows: Iterable[Row], result: Callable[[Any], None]):
        self.rows, self.result = enumerate(rows), result
        self.alive: dict[int, Row] = {}
        self.error: BaseException | None = None
        self.interrupts = _Interrupts()

    def next(self, user: Any, row: Any) -> int:
        try:
            if self.interrupts.seen:
                return -1
            for index, r in self.rows:
                self.alive[index] = r
                c = row.contents
                ctypes.memset(row, 0, ctypes.sizeof(c))
                c.index, c.key = index, index + 1 if r.key is None else r.key
                if r.ids is not None:
                    c.ids, c.n_ids = int_pointer(r.ids), len(r.ids)
                    if r.context_ids is not None:
                        c.context_ids, c.n_context_ids = int_pointer(r.context_ids), len(r.context_ids)
                else:
                    c.text, c.n_bytes = address(r.text), len(r.text or b"")
                return 1
            return 0
        except BaseException as e:
            self.error = e
            return -1

    def done(self, user: Any, result: Any) -> int:
        try:
            r = result.contents
            if getattr(r, "final", 1):
                self.result(r)
            return int(self.interrupts.seen is not None)
        except BaseException as e:
            self.error = e
            return 1


class Model:
    """A loaded model and a session of it. Threads may share it: a call waits for the one before. A pickle holds its path, and a process
    that was forked loads it anew: the threads that compute stay behind."""

    def __init__(self, path: str, device: str = "auto", dtype: str = "auto", n_threads: int = 0, memory_limit_bytes: int = 0,
                 no_cache: bool = False, **session: Any):
        self.path, self.device, self.dtype = os.path.abspath(path), device, dtype
        self._options = {"device": device, "dtype": dtype, "n_threads": n_threads, "memory_limit_bytes": memory_limit_bytes,
                         "no_cache": no_cache, **session}
        self._session_options = {k: v for k, v in session.items() if v}
        self.load_options: dict[str, Any] = {}
        self.lock, self._busy = threading.RLock(), False
        self._load(path)
        _models.add(self)

    def _load(self, path: str) -> None:
        given = self._options
        name, handle = utf8(given["device"]), ctypes.c_void_p()
        o = options(_abi.sill_model_options, device=address(name), dtype=getattr(_abi, "SILL_DTYPE_" + given["dtype"].upper()),
                    n_threads=given["n_threads"], memory_limit_bytes=given["memory_limit_bytes"], no_cache=int(given["no_cache"]))
        call("sill_model_load", utf8(path), ctypes.byref(o), ctypes.byref(handle))
        self._handles: dict[str, Any] = {"model": handle.value, "session": None, "constraints": {}, "forked": False}
        self._free = weakref.finalize(self, _free_model, self._handles)
        self._free.atexit = False  # threads may still be in a call then
        self.info = _abi.sill_model_info()
        lib.sill_model_get_info(self.handle, ctypes.byref(self.info), ctypes.sizeof(self.info))

    def __reduce__(self) -> Any:
        return _restored, (self.path, self._options, {"device": self.device, "load_options": self.load_options})

    def _after_fork(self) -> None:
        """In the child: what the parent loaded is left where it is, since its threads are not here."""
        self.lock, self._busy = threading.RLock(), False
        self._free.detach()
        self._handles["forked"] = self._handles["model"] is not None

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """For a call of the session, which is one thread's, and no callback's of a call of it."""
        with self.lock:
            if self._busy:
                raise RuntimeError("a callback (a streamer, say) of a call of this model cannot call the model; load another one for it")
            self._busy = True
            try:
                yield
            finally:
                self._busy = False

    @property
    def handle(self) -> int:
        if self._handles["forked"]:
            self._load(self.path)
        if self._handles["model"] is None:
            raise ValueError("the model was closed")
        return self._handles["model"]  # type: ignore[no-any-return]

    @property
    def session(self) -> int:
        """The session; made when it is first asked for."""
        if self._handles["session"] is None or self._handles["forked"]:
            out = ctypes.c_void_p()
            o = options(_abi.sill_session_options, **self._session_options)
            model = self.handle
            call("sill_session_create", model, ctypes.byref(o), ctypes.byref(out))
            self._handles["session"] = out.value
        return self._handles["session"]  # type: ignore[no-any-return]

    def close(self) -> None:
        """Gives the memory back now, not when the object goes."""
        with self._alone():
            self._free()
            self._handles.update(model=None, session=None, constraints={}, forked=False)

    @property
    def n_ctx(self) -> int:
        return self._session_options.get("n_ctx") or int(self.info.n_ctx)

    @property
    def tokenizer(self) -> Tokenizer | None:
        """The tokenizer among the model's files."""
        pointer = lib.sill_model_tokenizer(self.handle)
        return Tokenizer(borrowed=pointer, owner=self) if pointer else None

    def labels(self) -> list[str]:
        """Names of a classification head's outputs."""
        return [lib.sill_model_label(self.handle, i).decode("utf-8", "replace") for i in range(self.info.n_labels)]

    def logits(self, ids: np.ndarray[Any, Any], out: np.ndarray[Any, np.dtype[np.float32]]) -> None:
        """Logits of all positions into OUT (n_ids, n_vocab)."""
        self._positions("sill_logits", ids, out)

    def hidden_states(self, ids: np.ndarray[Any, Any], out: np.ndarray[Any, np.dtype[np.float32]]) -> None:
        """Hidden states behind the final norm into OUT (n_ids, n_embd)."""
        self._positions("sill_hidden_states", ids, out)

    def _positions(self, name: str, ids: np.ndarray[Any, Any], out: np.ndarray[Any, np.dtype[np.float32]]) -> None:
        assert out.flags.c_contiguous and out.dtype == np.float32 and len(out) == len(ids)
        a = int_array(ids)
        with self._alone():
            call(name, self.session, int_pointer(a), len(a), out.ctypes.data_as(ctypes.POINTER(ctypes.c_float)))

    def preset(self, name: str) -> Any:
        """The generation options of transformers for this model (sill_generate_preset)."""
        o = options(_abi.sill_generate_options)
        with self.lock:
            call("sill_generate_preset", self.handle, utf8(name), ctypes.byref(o))
        return o

    def _constraint(self, kind: str, data: tuple[bytes, ...]) -> Any:
        """A sill_constraint of this model. The last few are kept with their masks of tokens; the caller has the model alone."""
        model, key = self.handle, (kind, data)
        kept: dict[Any, Any] = self._handles["constraints"]
        handle = kept.pop(key, None)
        if handle is None:
            out = ctypes.c_void_p()
            if kind == "choices":
                call("sill_constraint_choices", model, (ctypes.c_char_p * len(data))(*data), len(data), ctypes.byref(out))
            else:
                call("sill_constraint_" + kind, model, data[0], len(data[0]), ctypes.byref(out))
            handle = out.value
            while len(kept) >= KEPT_CONSTRAINTS:
                lib.sill_constraint_free(kept.pop(next(iter(kept))))
        kept[key] = handle
        return handle

    def _task(self, name: str, callback: Any, o: Any, rows: Iterable[Row], result: Callable[[Any], None], *more: Any) -> None:
        run = _Run(rows, result)
        next_row, done = _abi.sill_next_fn(run.next), callback(run.done)
        error = _abi.sill_error()
        with self._alone(), run.interrupts:
            status = getattr(lib, name)(self.session, ctypes.byref(o), next_row, done, *more, None, ctypes.byref(error))
        if run.error is not None:
            raise run.error
        if status:
            raise error_of(status, error.msg.decode("utf-8", "replace"))

    def generate(self, o: Any, rows: Iterable[Row], piece: Callable[[Any], None] | None = None,
                 constraint: tuple[str, tuple[bytes, ...]] | None = None, assistant: "Model | None" = None) -> list[list[Generated]]:
        """Continuations of every row, in order. In the main thread pieces come as they are made, so that Ctrl-C ends the call. ASSISTANT
        guesses tokens."""
        per_row: dict[int, dict[int, Generated]] = {}

        def result(r: Any) -> None:
            if r.status:
                raise error_of(r.status, f"prompt {r.index + 1}: {ctypes.string_at(r.error).decode('utf-8', 'replace')}")
            per_row.setdefault(r.index, {})[r.sequence] = Generated(
                ctypes.string_at(r.text, r.n_bytes) if r.n_bytes else b"", copy_array(r.ids, r.n_ids, np.int32),
                copy_array(r.logprobs, r.n_ids, np.float32), r.n_prompt, ctypes.string_at(r.finish_reason).decode())

        class Streamed(_Run):
            def done(self, user: Any, result: Any) -> int:
                try:
                    if piece is not None and not result.contents.final:
                        piece(result.contents)
                except BaseException as e:
                    self.error = e
                    return 1
                return super().done(user, result)

        run = Streamed(rows, result)
        stream = int(piece is not None or threading.current_thread() is threading.main_thread())
        next_row, done = _abi.sill_next_fn(run.next), _abi.sill_generated_fn(run.done)
        error = _abi.sill_error()
        with contextlib.ExitStack() as calls:
            for model in sorted({self, assistant or self}, key=id):  # always in the same order: two may assist each other
                calls.enter_context(model._alone())
            calls.enter_context(run.interrupts)
            if assistant is not None:
                o.assistant = assistant.session
            if constraint is not None:
                o.constraint = self._constraint(*constraint)
            status = lib.sill_generate(self.session, ctypes.byref(o), next_row, done, stream, None, ctypes.byref(error))
        if run.error is not None:
            raise run.error
        if status:
            raise error_of(status, error.msg.decode("utf-8", "replace"))
        return [[per_row[i][k] for k in sorted(per_row[i])] for i in sorted(per_row)]

    def score(self, rows: Iterable[Row], failed: Callable[[int, str], None], **fields: Any) -> dict[int, dict[str, Any]]:
        """Log-probabilities of each row's tokens."""
        out: dict[int, dict[str, Any]] = {}

        def result(r: Any) -> None:
            if r.status:
                return failed(r.index, ctypes.string_at(r.error).decode("utf-8", "replace"))
            n = r.n_ids
            out[r.index] = {"ids": copy_array(r.ids, n, np.int32), "logprobs": copy_array(r.logprobs, n, np.float32),
                            "n_tokens": n, "n_scored": r.n_scored, "sum_logprob": r.sum_logprob}

        self._task("sill_score", _abi.sill_scored_fn, options(_abi.sill_score_options, **fields), rows, result)
        return out

    def embed(self, rows: Iterable[Row], failed: Callable[[int, str], None], **fields: Any) -> dict[int, np.ndarray[Any, Any]]:
        """A vector for each row."""
        out: dict[int, np.ndarray[Any, Any]] = {}

        def result(r: Any) -> None:
            if r.status:
                return failed(r.index, ctypes.string_at(r.error).decode("utf-8", "replace"))
            out[r.index] = copy_array(r.values, r.n_values, np.float32)

        self._task("sill_embed", _abi.sill_embedded_fn, options(_abi.sill_embed_options, **fields), rows, result)
        return out

    def classify(self, rows: Iterable[Row], failed: Callable[[int, str], None], labels: Sequence[str] | None = None,
                 prompt: str | None = None, codebook: Any = None, content_free: str | None = None, **fields: Any) -> dict[int, dict[str, Any]]:
        """Labels with their probabilities for each row: of LABELS or a codebook, else of the model's own head."""
        out: dict[int, dict[str, Any]] = {}
        keep = [utf8(x) for x in labels or []]
        texts = [utf8(x) if x is not None else None for x in (prompt, content_free)]
        o = options(_abi.sill_classify_options, **fields)
        o.prompt, o.content_free = address(texts[0]), address(texts[1])
        o.codebook = codebook.handle if codebook is not None else None
        if labels is not None:
            array = (ctypes.c_char_p * len(keep))(*keep)
            o.labels, o.n_labels = array, len(keep)

        def result(r: Any) -> None:
            if r.status:
                return failed(r.index, ctypes.string_at(r.error).decode("utf-8", "replace"))
            n = r.n_labels
            out[r.index] = {"label": r.label, "probs": copy_array(r.probs, n, np.float32), "logits": copy_array(r.logits, n, np.float32),
                            "margin": r.margin, "entropy": r.entropy, "n_tokens": r.n_tokens, "needs_human": bool(r.needs_human),
                            "chosen": copy_array(r.chosen, n, np.uint8)}

        self._task("sill_classify", _abi.sill_classified_fn, o, rows, result)
        return out


def _free_model(handles: dict[str, Any]) -> None:
    for constraint in handles["constraints"].values():
        lib.sill_constraint_free(constraint)
    handles["constraints"] = {}
    if handles["session"] is not None:
        lib.sill_session_free(handles["session"])
    if handles["model"] is not None:
        lib.sill_model_free(handles["model"])
    handles["model"] = handles["session"] = None


def _restored(path: str, given: dict[str, Any], later: dict[str, Any]) -> Model:
    """A pickled model, loaded again."""
    model = Model(path, **given)
    vars(model).update(later)
    return model


_models: weakref.WeakSet[Model] = weakref.WeakSet()


def _after_fork() -> None:
    for model in list(_models):
        model._after_fork()


os.register_at_fork(after_in_child=_after_fork)


class Codebook:
    """A sill_codebook: labels with descriptions, examples, an instruction (docs/CODEBOOK.md)."""

    def __init__(self, path: str):
        handle = ctypes.c_void_p()
        call("sill_codebook_load", utf8(path), ctypes.byref(handle))
        self.handle = handle.value
        weakref.finalize(self, lib.sill_codebook_free, handle).atexit = False
        info = _abi.sill_codebook_info()
        lib.sill_codebook_get_info(self.handle, ctypes.byref(info), ctypes.sizeof(info))
        self.labels = [info.labels[i].decode("utf-8", "replace") for i in range(info.n_labels)]
        self.multi_label = bool(info.multi_label)


def inspect(path: str) -> str:
    """What a model file holds, as JSON (sill_inspect)."""
    out = ctypes.c_void_p()
    call("sill_inspect", utf8(path), ctypes.byref(out))
    return take_string(out)


_said: set[str] = set()


def say_once(message: str) -> None:
    """A line on stderr, the first time only."""
    if message not in _said:
        _said.add(message)
        print(f"sill: {message}", file=sys.stderr, flush=True)


# ---- generation options by transformers' names

# Plain numbers: no counts, no addresses.
_GENERATE_FIELDS = {name for name, kind, *_ in _abi.sill_generate_options._fields_ if kind in (ctypes.c_int32, ctypes.c_uint32, ctypes.c_float)}
# Of transformers, and of no effect on which tokens come.
IGNORED = {"transformers_version", "_from_model_config", "use_cache", "pad_token_id", "bos_token_id", "cache_implementation", "renormalize_logits",
           "low_memory", "synced_gpus", "trust_remote_code", "num_assistant_tokens_schedule", "assistant_confidence_threshold"}
# What transformers' generate has; the values at which each does nothing.
KNOWN: dict[str, tuple[Any, ...]] = {
    "num_beams": (1, None), "length_penalty": (1.0, None), "early_stopping": (False, None), "num_beam_groups": (1, None),
    "diversity_penalty": (0.0, None), "penalty_alpha": (None, 0), "guidance_scale": (None, 1, 1.0), "encoder_repetition_penalty": (1.0, None),
    "forced_bos_token_id": (None,), "forced_eos_token_id": (None,),
    "exponential_decay_length_penalty": (None,), "assistant_model": (None,), "prompt_lookup_num_tokens": (None,), "max_time": (None,),
    "output_scores": (False, None), "output_logits": (False, None), "output_attentions": (False, None), "output_hidden_states": (False, None),
    "return_dict_in_generate": (False, None), "logits_processor": (None,), "stopping_criteria": (None,), "prefix_allowed_tokens_fn": (None,),
    "watermarking_config": (None,), "token_healing": (False, None), "remove_invalid_values": (False, None), "past_key_values": (None,),
    "constraints": (None,), "force_words_ids": (None,), "top_h": (None,), "dola_layers": (None,), "negative_prompt_ids": (None,),
}
KEPT_CONSTRAINTS = 8
FLT_MIN = float(np.finfo(np.float32).tiny)


def set_generate(o: Any, keep: list[Any], name: str, value: Any) -> None:
    """Puts one of transformers' options into O; KEEP holds what the struct points to."""
    if value is None or name in IGNORED:
        return
    if name == "early_stopping" and value == "never":
        value = 2
    if name == "stop_strings":
        strings = [utf8(s) for s in ([value] if isinstance(value, str) else value)]
        array = (ctypes.c_char_p * len(strings))(*strings)
        keep += [strings, array]
        o.stop, o.n_stop = array, len(strings)
    elif name == "bad_words_ids":
        if not isinstance(value, list) or not value or not all(isinstance(w, list) and w for w in value):
            raise ValueError(f"`bad_words_ids` has to be a non-empty list of non-empty lists, but is {value!r}")
        flat = int_array(list(itertools.chain.from_iterable(value)))
        ends = np.cumsum([len(w) for w in value]).astype(np.uintp)
        keep += [flat, ends]
        o.bad_words, o.bad_word_ends, o.n_bad_words = int_pointer(flat), ends.ctypes.data_as(ctypes.POINTER(ctypes.c_size_t)), len(ends)
    elif name == "sequence_bias":
        pairs = [(list(k), v) for k, v in (value.items() if isinstance(value, dict) else value)]
        if not pairs or not all(k for k, _ in pairs):
            raise ValueError(f"`sequence_bias` has to be a non-empty dictionary of tuples of ids to numbers, but is {value!r}")
        flat, ends = int_array(list(itertools.chain.from_iterable(k for k, _ in pairs))), np.cumsum([len(k) for k, _ in pairs]).astype(np.uintp)
        values = np.asarray([v for _, v in pairs], np.float32)
        keep += [flat, ends, values]
        o.bias_words, o.bias_word_ends, o.n_bias_words = int_pointer(flat), ends.ctypes.data_as(ctypes.POINTER(ctypes.c_size_t)), len(ends)
        o.bias_word_values = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    elif name in ("suppress_tokens", "begin_suppress_tokens"):
        ids = int_array(value)
        keep.append(ids)
        setattr(o, name, int_pointer(ids))
        setattr(o, "n_" + name.removesuffix("_tokens"), len(ids))
    elif name in _GENERATE_FIELDS and isinstance(value, (int, float, np.number, np.bool_)):
        setattr(o, name, _number(name, value))
    elif name in KNOWN or name in _GENERATE_FIELDS:
        if not any(value is x or (x is not None and value == x) for x in KNOWN.get(name, ())):
            raise refused.argument("generate", name, value)
    else:
        raise ValueError(f"The following `model_kwargs` are not used by the model: ['{name}'] (note: typos in the generate "
                         "arguments will also show up in this list)")


def take_constraint(given: dict[str, Any]) -> tuple[str, tuple[bytes, ...]] | None:
    """The one of choices, regex and json_schema that is among the options, out of them and as bytes."""
    named = {k: v for k in ("choices", "regex", "json_schema") if (v := given.pop(k, None)) is not None}
    if not named:
        return None
    if len(named) > 1:
        raise ValueError(f"generate: {' and '.join(named)} together: a text is held to one of choices, regex and json_schema")
    (kind, value), = named.items()
    if kind == "choices":
        if isinstance(value, (str, bytes)) or not hasattr(value, "__iter__"):
            raise ValueError(f"choices must be a list of texts, but is {value!r}")
        texts = tuple(utf8(x) for x in value)
        if not texts or any(b"\0" in x for x in texts):
            raise ValueError("choices must be one or more texts without NUL characters")
        return kind, texts
    if kind == "regex":
        if isinstance(value, re.Pattern):
            if value.flags & ~(re.UNICODE | re.ASCII):
                raise ValueError(f"regex: flags are not there ({value!r}); write the pattern without them")
            value = value.pattern
        if not isinstance(value, (str, bytes)):
            raise ValueError(f"regex must be a pattern, but is {value!r}")
        return kind, (utf8(value),)
    if not isinstance(value, (str, bytes, dict, bool)):
        raise ValueError(f"json_schema must be a schema as a dictionary or as JSON, but is {value!r}")
    return kind, (utf8(value if isinstance(value, (str, bytes)) else json.dumps(value, ensure_ascii=False)),)


def _number(name: str, value: Any) -> Any:
    """In the struct 0 is the default; where it means something in transformers, it is put in other words or refused."""
    positive = ("temperature", "repetition_penalty", "typical_p", "max_new_tokens", "num_return_sequences", "prompt_lookup_num_tokens",
                "max_matching_ngram_size", "num_assistant_tokens")
    if name in positive and not value > 0:
        raise ValueError(f"`{name}` has to be a strictly positive number, but is {value}")
    if name in ("top_p", "min_p", "epsilon_cutoff", "eta_cutoff") and not 0 <= value <= 1:
        raise ValueError(f"`{name}` has to be between 0 and 1, but is {value}")
    if name in ("top_k", "min_new_tokens", "no_repeat_ngram_size") and (value != int(value) or value < 0):
        raise ValueError(f"`{name}` has to be a whole number of 0 or more, but is {value}")
    if name == "length_penalty" and value == 0:
        return float("nan")
    if name == "top_k" and value == 0:
        return -1
    if name == "top_p" and value == 0:
        return FLT_MIN
    if name == "typical_p" and value >= 1:
        return 0.0
    return int(value) if isinstance(value, (bool, np.bool_)) else value
