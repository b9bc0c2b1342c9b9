"""The identity of a metric: what its numbers depend on, and the digest of it."""

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from hashlib import sha256 as hashed
from pathlib import Path
from typing import Any

from attrs import field, frozen

from jtcore import __version__
from jtcore.data import source_files
from jtcore.errors import JtError
from jtcore.files import sha256
from jtcore.hints import is_optional, option_types, without_none
from jtcore.plugins import source_digest
from jtcore.structure import Component, unstructure

REFERENCES = ("subject", "motion")  # options that name what videos are compared with
BATCH = "batch"  # the option of how many frames at once: numbers do not depend on it
MODELS = {"model", "processor"}  # options of where networks are: `identity()` says what they are


@frozen
class Identity:
    """What a metric's numbers depend on, as JSON. Two metrics of one hash measure the same."""

    table: Mapping[str, Any] = field(eq=False)
    hash: str

    @property
    def short(self) -> str:
        return self.hash[:8]


def identify(metric: Component) -> Identity:
    """Kind, version, options and files of a metric, and what it says of itself. Paths are replaced
    by what is in their files, so that it is the same wherever these lie. Raises JtError."""
    spec = metric.spec
    files = [Path(path) for path in getattr(spec, "files", tuple)()]
    own = getattr(spec, "identity", None)
    told = dict(own()) if own else {}
    table = {
        "kind": metric.kind,
        "version": getattr(spec, "version", 1),
        "options": _options(spec, files, known_model=own is not None),
        **({"files": sorted(file_digest(path) for path in files)} if files else {}),
        **({"itself": told} if told else {}),
    }
    text = json.dumps(table, sort_keys=True)
    return Identity(json.loads(text), hashed(text.encode()).hexdigest())


def code_digest(metric: Component) -> str:
    """Changes with jtcore's version, with the source of the metric's plugin, and with that of what
    its neighbours share with it."""
    module = sys.modules.get(type(metric.spec).__module__)
    source = source_digest(module) if getattr(module, "__file__", None) else ""
    return f"{__version__} {source}"


def file_digest(path: Path) -> str:
    """SHA-256 of a file, computed once while it stays as it is. Raises JtError."""
    try:
        found = path.stat()
        return _digest(path, found.st_ino, found.st_mtime_ns, found.st_size)
    except OSError as error:
        raise JtError(f"{path}: {error.strerror}") from error


@lru_cache(65536)
def _digest(path: Path, inode: int, mtime: int, size: int) -> str:
    return sha256(path)


def _options(spec: Any, files: Sequence[Path], known_model: bool) -> dict[str, Any]:
    left = {BATCH, *(MODELS if known_model else ())}
    paths = {name for name, hint in option_types(type(spec)).items() if _may_be_path(hint)}
    return {
        name: _content(name, value, files) if name in paths else value
        for name, value in unstructure(spec).items()
        if name not in left
    }


def _may_be_path(hint: Any) -> bool:
    return (without_none(hint) if is_optional(hint) else hint) is str


def _content(name: str, value: str, files: Sequence[Path]) -> str:
    """A digest of the files that an option names, or the option itself where it names none."""
    value = os.path.expanduser(value)  # noqa: PTH111 - of any string
    if name not in REFERENCES and not os.path.exists(value):  # noqa: PTH110
        return value
    try:
        return f"sha256:{_together(file_digest(path) for path in _named(name, value, files))}"
    except JtError:  # a reference that is not there: the metric says so
        return value


def _named(name: str, value: str, files: Sequence[Path]) -> list[Path]:
    """What the metric says that it reads of a folder; else all that is in it."""
    path = Path(value)
    if name in REFERENCES:
        return source_files(value)
    if not path.is_dir():
        return [path]
    inside = [file for file in files if file.absolute().is_relative_to(path.absolute())]
    return inside or sorted(file for file in path.rglob("*") if file.is_file())


def _together(digests: Iterable[str]) -> str:
    digests = sorted(digests)
    return digests[0] if len(digests) == 1 else hashed("".join(digests).encode()).hexdigest()
