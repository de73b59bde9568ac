"""numpy in and out, torch where torch is what came in. torch is never imported unless it is asked for by name."""
from __future__ import annotations

import sys
from typing import Any

import numpy as np

from . import refused


def is_torch(x: Any) -> bool:
    """True for a torch tensor, without importing torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(x, torch.Tensor)


def to_numpy(x: Any) -> np.ndarray[Any, Any]:
    """Tensor, array or nested list as an array."""
    return x.detach().cpu().numpy() if is_torch(x) else np.asarray(x)  # type: ignore[no-any-return]


def like(array: np.ndarray[Any, Any], model: Any) -> Any:
    """ARRAY as a torch tensor on the device of MODEL, if that is one."""
    if not is_torch(model):
        return array
    return sys.modules["torch"].from_numpy(np.asarray(array, order="C")).to(model.device)  # of no dimension, too


def as_type(values: Any, kind: Any) -> Any:
    """A rectangular list as return_tensors asks: "pt", "np" or None."""
    kind = getattr(kind, "value", kind)
    if kind is None:
        return values
    if kind not in ("pt", "np"):
        raise ValueError(f"return_tensors={kind!r}: 'pt' and 'np' are there")
    try:
        array = np.array(values, dtype=np.int64)
    except ValueError:
        raise ValueError("Unable to create tensor, you should probably activate truncation and/or padding with 'padding=True' "
                         "'truncation=True' to have batched tensors with the same length.") from None
    if kind == "np":
        return array
    try:
        import torch
    except ImportError:
        raise ImportError("return_tensors='pt' needs torch, which is not installed; return_tensors='np' does the same without") from None
    return torch.from_numpy(array)


_OUTPUTS = {"loss", "logits", "last_hidden_state", "hidden_states", "attentions"}


class Output(dict[str, Any]):
    """Named results, as transformers' ModelOutput: by name, by attribute (None for what was not computed), by position."""

    def __init__(self, **values: Any):
        super().__init__({k: v for k, v in values.items() if v is not None})

    def __getattr__(self, name: str) -> Any:
        if name in refused.OUTPUT:
            raise refused.MissingError(f"{name} is not in a model's output: {refused.OUTPUT[name]}")
        if name not in _OUTPUTS:
            raise AttributeError(f"a model's output has no {name!r}")
        return self.get(name)

    def __getitem__(self, key: Any) -> Any:
        return self.to_tuple()[key] if isinstance(key, (int, slice)) else super().__getitem__(key)

    def to_tuple(self) -> tuple[Any, ...]:
        """The values that are there, in order."""
        return tuple(self.values())
