"""A model's name to a place on this machine: a path, or what a hub's client has fetched. Nothing is downloaded."""
from __future__ import annotations

import os
import sys

from .errors import NotFoundError


def hub_cache(cache_dir: str | None = None) -> str:
    """Where huggingface_hub keeps what it fetched."""
    home = os.environ.get("HF_HOME") or os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "huggingface")
    return os.path.expanduser(cache_dir or os.environ.get("HF_HUB_CACHE") or os.path.join(home, "hub"))


def models_dir() -> str:
    """Where `sill` keeps its own models (docs/ENVIRONMENT.md)."""
    given = os.environ.get("SILL_CACHE")
    if given:
        return os.path.join(given, "models")
    if sys.platform == "darwin":
        return os.path.expanduser("~/Library/Caches/sill/models")
    return os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "sill", "models")


def _snapshot(cache: str, name: str, revision: str) -> str | None:
    base = os.path.join(cache, "models--" + name.replace("/", "--"))
    try:
        with open(os.path.join(base, "refs", revision), encoding="utf-8") as f:
            commit = f.read().strip()
    except OSError:
        commit = revision
    path = os.path.join(base, "snapshots", commit)
    return path if os.path.isdir(path) else None


def resolve(name: str | os.PathLike[str], revision: str | None = None, cache_dir: str | None = None, subfolder: str = "",
            file: str | None = None) -> str:
    """The directory or file of a model; SUBFOLDER and FILE are in that directory. OSError, as in transformers, when there is none."""
    path = os.path.join(_place(os.fspath(name), revision, cache_dir), subfolder or "", file or "").rstrip("/")
    if (subfolder or file) and not os.path.exists(path):
        raise NotFoundError(f"there is no {path}")
    return path


def _place(name: str, revision: str | None, cache_dir: str | None) -> str:
    if os.path.exists(name):
        return name
    cache = hub_cache(cache_dir)
    if not name.startswith((".", "/", "~")) and name.count("/") <= 1:
        for full in (name, "openai-community/" + name) if "/" not in name else (name,):
            found = _snapshot(cache, full, revision or "main")
            if found:
                return found
        if "/" not in name and os.path.isdir(models_dir()):
            fits = sorted(x for x in os.listdir(models_dir()) if x == name or (x.startswith(name + ".") and x.endswith(".gguf")))
            if fits:
                return os.path.join(models_dir(), fits[0])
    raise NotFoundError(f"{name} is not a local folder or file, and is neither in the hub's cache ({cache}) nor in {models_dir()}. "
                        "Fetch it first (`sill pull`, or huggingface_hub), or give a path")
