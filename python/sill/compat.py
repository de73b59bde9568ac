"""Whose defaults are taken where nothing is said, and the seed of sampled texts."""
from __future__ import annotations

import itertools
import threading

_compat = "hf-5"
_lock = threading.Lock()
_base = 0
_calls = itertools.count()


def set_compat(name: str) -> None:
    """Takes the defaults of transformers 5.23 ("hf-5", which is the default) or 4.57 ("hf-4"), frozen: those of the
    text-generation pipeline and generate; the type that models are loaded in (hf-4: float32; hf-5: as stored); whether
    apply_chat_template returns ids (hf-4) or a dictionary."""
    global _compat
    if name not in ("hf-4", "hf-5"):
        raise ValueError(f"there is no preset {name!r}; known are 'hf-4' and 'hf-5'")
    _compat = name


def get_compat() -> str:
    """The preset in force."""
    return _compat


def set_seed(seed: int) -> None:
    """Begins the seeds of sampled texts anew: the same calls behind it give the same texts, in every process."""
    global _base, _calls
    with _lock:
        _base, _calls = int(seed), itertools.count()


def next_seed() -> int:
    """The seed of a call that names none: a new one each time, the same ones in every run of a program."""
    with _lock:
        return (_base * 1000003 + next(_calls)) & 0xFFFFFFFFFFFFFFFF
