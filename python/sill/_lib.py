"""Finds libsill, declares its functions for ctypes (which lets go of the GIL during each call), and turns statuses into errors."""
from __future__ import annotations

import atexit
import ctypes
import logging
import os
import sys
from typing import Any

from . import _abi
from .errors import error_of

logger = logging.getLogger("sill")


def _path() -> str:
    given = os.environ.get("SILL_LIBRARY")
    if given:
        return given
    name = "libsill.dylib" if sys.platform == "darwin" else "libsill.so"
    return os.path.join(os.path.dirname(os.path.abspath(__file__)), name)


def _load() -> ctypes.CDLL:
    path = _path()
    try:
        lib = ctypes.CDLL(path)
    except OSError as e:
        raise ImportError(f"sill: cannot load {path} ({e}); install the package with `pip install ./python` from a clone, "
                          "or set SILL_LIBRARY to a libsill of the same version") from e
    for name, (result, arguments) in _abi.FUNCTIONS.items():
        function = getattr(lib, name, None)
        if function is None:
            raise ImportError(f"sill: {path} has no {name}; it is another version than this package ({_abi.VERSION})")
        function.restype, function.argtypes = result, arguments
    version = lib.sill_version().decode()
    if version != _abi.VERSION:
        raise ImportError(f"sill: {path} is version {version}, this package is {_abi.VERSION}")
    return lib


lib = _load()
_LEVELS = {0: logging.ERROR, 1: logging.WARNING, 2: logging.INFO, 3: logging.DEBUG}


@_abi.sill_log_fn  # type: ignore
def _log(user: Any, level: int, line: bytes) -> None:
    logger.log(_LEVELS.get(level, logging.INFO), "%s", line.decode("utf-8", "replace"))


lib.sill_set_log(_log, None)
# No callback may come while the interpreter ends.
atexit.register(lambda: lib.sill_set_log(_abi.sill_log_fn(), None))


def call(name: str, *arguments: Any) -> None:
    """Calls a function that takes a sill_error last and returns a status; raises what it reports."""
    error = _abi.sill_error()
    status = getattr(lib, name)(*arguments, ctypes.byref(error))
    if status:
        raise error_of(status, error.msg.decode("utf-8", "replace"))


def address(data: bytes | None) -> int | None:
    """Where bytes lie, for a field of a struct. The caller keeps the bytes alive."""
    return ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value


def take_string(pointer: ctypes.c_void_p) -> str:
    """A string that is freed with sill_free."""
    try:
        return ctypes.string_at(pointer.value or 0).decode("utf-8", "replace") if pointer else ""
    finally:
        lib.sill_free(pointer)


def utf8(text: str | bytes) -> bytes:
    """A text as bytes; lone surrogates (cut tweets have them) stay three bytes each."""
    if not isinstance(text, (bytes, str)):
        raise ValueError(f"{str(text)[:40]} is {type(text).__name__}, not text")
    return text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")


def options(kind: Any, **fields: Any) -> Any:
    """An option struct with its size and these fields."""
    o = kind()
    o.size = ctypes.sizeof(kind)
    for name, value in fields.items():
        setattr(o, name, value)
    return o
