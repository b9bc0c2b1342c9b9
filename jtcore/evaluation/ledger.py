"""Values of a metric on disk, a line for each video, appended as they come.

A process that is killed loses at most the line that it was writing: a torn line is passed over.
Processes may share a file.
"""

import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path

from jtcore.cache import cache_folder, digest
from jtcore.errors import JtError

Values = Mapping[str, float]

FOLDER = "metrics"  # of the cache


class Ledger:
    """The values that one metric has answered; those of later lines count."""

    def __init__(self, identity: str, code: str):
        """`identity` and `code` are digests: a metric that was changed has a file of its own."""
        self.path = cache_folder() / FOLDER / f"{digest({'metric': identity, 'code': code})}.jsonl"
        self._values = dict(_lines(self.path))

    def get(self, key: str) -> Values | None:
        """None where it has not been measured."""
        return self._values.get(key)

    def put(self, key: str, values: Values) -> None:
        """Append, and wait until it is on the disk. Raises JtError where that cannot be."""
        line = json.dumps({"key": key, "values": values}, allow_nan=False).encode() + b"\n"
        try:
            _append(self.path, line)
        except OSError as error:
            raise JtError(
                f"cache {self.path.parent}: {error.strerror}; name another folder with $JT_CACHE"
            ) from error
        self._values[key] = values


def key_of(sha256: str, prompt: str, seed: int) -> str:
    """Of what is measured: the video's bytes, and what it was asked to show."""
    return digest({"video": sha256, "prompt": prompt, "seed": seed})


def _append(path: Path, line: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)  # gone with the handle, however that ends
        size = os.fstat(handle).st_size
        if size and os.pread(handle, 1, size - 1) != b"\n":
            line = b"\n" + line  # after one that was torn
        os.write(handle, line)
        os.fsync(handle)
    finally:
        os.close(handle)


def _lines(path: Path):
    """(key, values) of every line that is whole."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        for line in file:
            try:
                entry = json.loads(line)
                yield entry["key"], {name: float(v) for name, v in entry["values"].items()}
            except (ValueError, TypeError, KeyError, AttributeError):
                continue
