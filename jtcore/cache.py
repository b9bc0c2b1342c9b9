"""Tensors on disk, found again by everything that shaped them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from attrs import frozen
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from jtcore.claims import claimed
from jtcore.errors import JtError
from jtcore.files import write_atomically

Key = Mapping[str, str | int | float | None]


def cache_folder() -> Path:
    """`$JT_CACHE`, or `jtcore` in the user's folder for caches."""
    if chosen := os.environ.get("JT_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jtcore"


@frozen
class Cache:
    """A folder of safetensors files, each named by the digest of its key.

    Processes may share it: what two want at once is made by one, and the other waits, calling
    `waiting` meanwhile, which may raise. A file that is torn or was changed is made again. Raises
    JtError where the folder cannot be written to.
    """

    folder: Path
    waiting: Callable[[], None] = lambda: None

    def get_or_make(self, key: Key, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """The tensors of a key, on the CPU; made and stored where they are not there whole."""
        path = self.folder / f"{digest(key)}.safetensors"
        found = _read(path, key)
        if found is not None:
            return found
        with claimed(path.with_name(f".{path.stem}.lock"), self.waiting):
            found = _read(path, key)  # by another, meanwhile
            return self._made(path, key, make) if found is None else found

    def _made(
        self, path: Path, key: Key, make: Callable[[], dict[str, Tensor]]
    ) -> dict[str, Tensor]:
        made = {name: tensor.detach().cpu().contiguous() for name, tensor in make().items()}
        with told_where(self.folder), write_atomically(path) as aside:
            aside.write_bytes(save(made, {"key": canonical(key), "sha256": checksum(made)}))
        return made


@contextmanager
def told_where(folder: Path) -> Iterator[None]:
    """Raises JtError where a folder of the cache cannot be written to."""
    try:
        yield
    except OSError as error:
        raise JtError(
            f"cache {folder}: {error.strerror}; name another folder with $JT_CACHE"
        ) from error


def digest(key: Key) -> str:
    """Hexadecimal digits that differ for different keys."""
    return hashlib.sha256(canonical(key).encode()).hexdigest()


def canonical(key: Key) -> str:
    """A key as it is compared."""
    return json.dumps(key, sort_keys=True, allow_nan=False)


def checksum(tensors: dict[str, Tensor]) -> str:
    """Of names, shapes, types and values; `save` writes equal tensors to equal bytes."""
    return hashlib.sha256(save(tensors)).hexdigest()


def _read(path: Path, key: Key) -> dict[str, Tensor] | None:
    """What was stored, or None where it is absent or not whole."""
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
            stored = file.metadata() or {}
    except (FileNotFoundError, SafetensorError):
        return None
    whole = stored == {"key": canonical(key), "sha256": checksum(tensors)}
    return tensors if whole else None
