"""Where the files of a checkpoint come from: a folder, or the hub through its own cache."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Protocol

from attrs import frozen

WEIGHTS = (".safetensors", ".bin")
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


class Source(Protocol):
    """A pipeline's files. Raises ValueError that says why they are not to be had."""

    def root(self, patterns: Sequence[str]) -> Path:
        """The folder of the pipeline, with the files that match, as far as there are any."""

    def names(self, part: str) -> list[str]:
        """Of all files of a part, fetched or not, as far as it is known."""


@frozen
class Folder:
    """A pipeline on disk"""

    path: Path

    def root(self, patterns: Sequence[str]) -> Path:
        return self.path

    def names(self, part: str) -> list[str]:
        return sorted(file.name for file in (self.path / part).glob("*"))


@frozen
class Repository:
    """A pipeline on the Hugging Face hub

    Files are fetched into the hub's own cache. What is there is used where the hub cannot be
    reached, or HF_HUB_OFFLINE is set.
    """

    id: str
    revision: str | None = None

    def root(self, patterns: Sequence[str]) -> Path:
        from huggingface_hub import constants
        from huggingface_hub.errors import HTTPError

        try:
            return _fetch(self.id, self.revision, tuple(patterns))
        except (HTTPError, OSError, RuntimeError, ValueError) as error:
            raise ValueError(_why(error, self.revision, Path(constants.HF_HUB_CACHE))) from error

    def names(self, part: str) -> list[str]:
        from huggingface_hub.errors import HTTPError

        try:
            files = map(Path, _list(self.id, self.revision))
        except (HTTPError, OSError):
            return Folder(self.root([f"{part}/*.json"])).names(part)
        return sorted(file.name for file in files if file.parent == Path(part))


@cache
def _list(repository: str, revision: str | None) -> tuple[str, ...]:
    """The names of all files on the hub. Raises what its client does."""
    from huggingface_hub import HfApi

    told = HfApi().model_info(repository, revision=revision).siblings or ()
    return tuple(file.rfilename for file in told)


@cache
def _fetch(repository: str, revision: str | None, patterns: tuple[str, ...]) -> Path:
    """Once in a process: a branch that moves on in the middle of a run is not followed."""
    from huggingface_hub import snapshot_download

    with _progress_of(any(pattern.endswith(WEIGHTS) for pattern in patterns)):
        return Path(snapshot_download(repository, revision=revision, allow_patterns=list(patterns)))


@contextmanager
def _progress_of(much: bool) -> Iterator[None]:
    """The hub's progress bars, where there is much to fetch and nobody turned them off."""
    from huggingface_hub.utils import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    if much or are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


def _why(error: Exception, revision: str | None, cache: Path) -> str:
    """What to tell of the hub's own exceptions, of which the first that fits counts."""
    from huggingface_hub import constants, errors

    if isinstance(error, errors.GatedRepoError):
        return "is gated on the hub: ask for access on its page there, then `hf auth login`"
    if isinstance(error, errors.RepositoryNotFoundError) or _status(error) == 401:
        return "is no folder, and no repository on the hub; if it is private, `hf auth login`"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"has no revision {revision!r} on the hub"
    if isinstance(error, errors.LocalEntryNotFoundError):
        if constants.HF_HUB_OFFLINE:
            return f"is not, or not wholly, in {cache}, and HF_HUB_OFFLINE forbids to fetch it"
        return (
            f"is not, or not wholly, in {cache}, and the hub does not give it"
            f" ({_first_line(error.__cause__ or error)}); fetch it where there is network, or give"
            " a folder"
        )
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        what = f"cannot be fetched: no space is left in {cache}"
        return f"{what}; free some, or set HF_HOME to another disk"
    if isinstance(error, OSError) and error.errno is not None:
        return f"cannot be kept in {cache}: {error.strerror}; set HF_HOME to another folder"
    return f"cannot be fetched from the hub: {_first_line(error)}"


def _status(error: Exception) -> int | None:
    """Of an answer over HTTP."""
    return getattr(getattr(error, "response", None), "status_code", None)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
