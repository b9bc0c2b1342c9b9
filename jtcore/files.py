"""Files written whole or not at all."""

import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """Yield a path beside `path` to write to; at the end it becomes `path`, and lasts a power cut.

    What a killed process leaves behind ends in `.partial`, so no pattern for results finds it and
    a writer that goes by suffix must be told the format. Two writers do not meet: the last wins.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        yield aside
        _flush(aside)
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    _flush(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with write_atomically(path) as aside:
        aside.write_text(text)


def remove_leftovers(folder: Path) -> None:
    """Remove what killed writers left in a folder that nobody else writes to now."""
    for leftover in folder.rglob(".*.partial"):
        leftover.unlink(missing_ok=True)


def sha256(path: Path) -> str:
    """The digest of a file's bytes, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    """Wait until a file's bytes, or a folder's names, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
