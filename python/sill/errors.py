"""What can go wrong: one class for each status of libsill, each also of the class that transformers' users expect."""
from __future__ import annotations

from . import _abi


class SillError(Exception):
    """Any failure that libsill reports; the message says what failed, the value, the limit and what to do."""

    status = "EINTERNAL"


class InvalidArgumentError(SillError, ValueError):
    """An argument that makes no sense."""

    status = "EINVAL"


class OutOfMemoryError(SillError, MemoryError):
    """The system gave no memory."""

    status = "ENOMEM"


class InputOutputError(SillError, OSError):
    """A file could not be read or written."""

    status = "EIO"


class FormatError(SillError, OSError, ValueError):
    """A file or text is malformed."""

    status = "EFORMAT"


class UnsupportedError(SillError, NotImplementedError, ValueError):
    """Something that this version of sill does not do; it is named."""

    status = "EUNSUPPORTED"


class NotFoundError(SillError, FileNotFoundError):
    """A model or file that is not there."""

    status = "ENOENT"


class RangeError(SillError, ValueError):
    """A value or length out of range: a text longer than the context, say."""

    status = "ERANGE"


class DoesNotFitError(SillError, MemoryError):
    """It would not fit in memory; the message has the numbers and the next smaller choice."""

    status = "ENOFIT"


class CancelledError(SillError):
    """Cancelled by a callback."""

    status = "ECANCELLED"


class DeviceError(SillError, RuntimeError):
    """The device failed, or a row's numbers overflowed in the model."""

    status = "EDEVICE"


class InternalError(SillError, RuntimeError):
    """A bug of sill; please report it."""

    status = "EINTERNAL"


_CLASSES: dict[str, type[SillError]] = {c.status: c for c in SillError.__subclasses__()}
BY_CODE: dict[int, type[SillError]] = {code: _CLASSES.get(name, SillError) for name, code in _abi.STATUSES if code}


def error_of(code: int, message: str) -> SillError:
    """The exception for a status."""
    return BY_CODE.get(code, SillError)(message)
