"""The run directory: what was asked, what it ran on, and what came out."""

import fcntl
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from attrs import frozen

from jtcore.errors import JtError
from jtcore.files import write_text
from jtcore.plugins import Plugins
from jtcore.processes import ALONE, Processes
from jtcore.provenance import circumstances
from jtcore.recipe import Recipe, recipe_table
from jtcore.tables import write_toml


@frozen(eq=False)
class Run:
    """A run directory, and how to speak to whoever watches."""

    folder: Path
    say: Callable[[str], None]  # one line
    quiet: bool = False
    processes: Processes = ALONE  # that share its work

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def samples(self) -> Path:
        return self.folder / "samples"

    def adapter_file(self, name: str) -> Path:
        return self.folder / "adapters" / f"{name}.safetensors"

    def write_json(self, name: str, value: Any) -> None:
        write_json(self.folder / name, value)

    def read_json(self, name: str) -> Any | None:
        """None where there is no such file yet."""
        return read_json(self.folder / name)

    @property
    def finished(self) -> bool:
        return (self.folder / "result.json").is_file()


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder aside, which becomes `folder` when all that belongs in it is there.

    Raises FolderExistsError where it is there already, also where another process was faster.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=".new-", dir=folder.parent))
    aside.chmod(0o755)
    try:
        yield aside
        if folder.exists():
            raise FolderExistsError(folder)
        try:
            aside.rename(folder)
        except OSError as error:
            raise FolderExistsError(folder) if folder.exists() else error from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


class FolderExistsError(JtError):
    """The folder of a run is there already."""

    def __init__(self, folder: Path):
        cure = f"name another with --out, or continue it with --resume {folder}"
        super().__init__(f"{folder} exists; {cure}")


def fill_folder(
    folder: Path, path: Path, settings: Sequence[str], recipe: Recipe, plugins: Plugins
) -> None:
    """Write what a run begins with: the recipe as given in the file `path`, as resolved, and the
    circumstances; `settings` are what --set changed."""
    (folder / "recipe.toml").write_text(path.read_text())
    (folder / "recipe.resolved.toml").write_text(write_toml(recipe_table(recipe)))
    write_json(folder / "run.json", circumstances(path, settings, recipe, plugins))


def free_folder(parent: Path, stem: str) -> Path:
    """`parent/stem-001`, or the first number that is not there."""
    numbered = (parent / f"{stem}-{number:03d}" for number in count(1))
    return next(folder for folder in numbered if not folder.exists())


class RunIsBusyError(JtError):
    """Another process is at work on a run."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep a second process out of a run. Raises RunIsBusyError if one is at work on it."""
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunIsBusyError(f"{folder}: another process is at work on this run") from error
        yield


def speaker(quiet: bool) -> Callable[[str], None]:
    """How lines reach whoever watches; a live display on the same console stays below them."""
    from rich import get_console

    if quiet:
        return lambda line: None
    return lambda line: get_console().print(line, markup=False, highlight=False, soft_wrap=True)


def read_json(path: Path) -> Any | None:
    """None where there is no such file. Raises JtError where it is not JSON."""
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise JtError(f"{path}: damaged: {error}") from error


def write_json(path: Path, value: Mapping[str, Any] | list) -> None:
    write_text(path, json.dumps(value, indent=2) + "\n")
