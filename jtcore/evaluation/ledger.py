"""Values of a metric on disk, a line for each video, appended as they come.

A process that is killed loses at most the line that it was writing: a torn line is passed over.
Processes may share a file.
"""

import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from jtcore.cache import cache_folder, digest, told_where
from jtcore.claims import claimed

Values = Mapping[str, float]

FOLDER = "metrics"  # of the cache


class Ledger:
    """The values that one metric has answered; those of later lines count."""

    def __init__(self, identity: str, code: str):
        """`identity` and `code` are digests: a metric that was changed has a file of its own."""
        self.path = cache_folder() / FOLDER / f"{digest({'metric': identity, 'code': code})}.jsonl"
        self._values: dict[str, Values] = {}
        self._end = 0  # of the lines that are read
        self._read()

    def get(self, key: str) -> Values | None:
        """None where it has not been measured."""
        return self._values.get(key)

    def put(self, key: str, values: Values) -> None:
        """Append, and wait until it is on the disk. Raises JtError where that cannot be."""
        line = json.dumps({"key": key, "values": values}, allow_nan=False).encode() + b"\n"
        with told_where(self.path.parent):
            _append(self.path, line)
        self._values[key] = values

    def measure(
        self, key: str, ask: Callable[[], Values], waiting: Callable[[], None] | None = None
    ) -> bool:
        """Put what `ask` answers, unless another process has done so by then. False where another
        is asking now; with `waiting`, which may raise, it is waited for. Raises JtError."""
        with claimed(self.path.with_name(f".{self.path.stem}-{key}.lock"), waiting) as mine:
            if mine:
                self._read()
                if key not in self._values:
                    self.put(key, ask())
            return mine

    def _read(self) -> None:
        """Lines that the file has now and had not before."""
        if not self.path.is_file():
            return
        with self.path.open("rb") as file:
            file.seek(self._end)
            for line in file:
                self._end += len(line) if line.endswith(b"\n") else 0
                self._values |= dict(_whole(line))


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


def _whole(line: bytes) -> Iterator[tuple[str, Values]]:
    """Key and values, where the line is whole."""
    try:
        entry = json.loads(line)
        yield entry["key"], {name: float(v) for name, v in entry["values"].items()}
    except (ValueError, TypeError, KeyError, AttributeError):
        return
