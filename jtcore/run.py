"""The run directory: what was asked, what it ran on, and what came out."""

import fcntl
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import attrs
from attrs import frozen

from jtcore.errors import JtError
from jtcore.files import write_atomically
from jtcore.plugins import Plugins
from jtcore.recipe import Recipe, recipe_table
from jtcore.tables import write_toml

PACKAGES = ("jtcore", "torch", "diffusers", "transformers", "attrs", "pluggy", "av", "Pillow")


@frozen(eq=False)
class Run:
    """A run directory, and how to speak to whoever watches."""

    folder: Path
    say: Callable[[str], None]  # one line
    quiet: bool = False

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


def create_folder(
    folder: Path, given: str, settings: Sequence[str], recipe: Recipe, plugins: Plugins
) -> None:
    """Make a run directory that is whole from its first moment. Raises JtError if it is there.

    `given` is the text of the recipe file, `settings` what --set changed of it.
    """
    if folder.exists():
        raise JtError(
            f"{folder} exists; name another with --out, or continue it with --resume {folder}"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=".new-", dir=folder.parent))
    aside.chmod(0o755)
    (aside / "recipe.toml").write_text(given)
    (aside / "recipe.resolved.toml").write_text(write_toml(recipe_table(recipe)))
    write_json(aside / "run.json", circumstances(plugins, settings, recipe.seed))
    aside.rename(folder)


def free_folder(parent: Path, stem: str) -> Path:
    """`parent/stem-001`, or the first number after those that exist."""
    taken = {path.name for path in parent.glob(f"{stem}-*")}
    number = next(n for n in range(1, len(taken) + 2) if f"{stem}-{n:03d}" not in taken)
    return parent / f"{stem}-{number:03d}"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep a second process out of a run. Raises JtError if one is at work on it."""
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise JtError(f"{folder}: another process is at work on this run") from error
        yield


def circumstances(plugins: Plugins, settings: Sequence[str], seed: int) -> dict[str, Any]:
    """What a reader of the results needs to know of where they came from."""
    return {
        "settings": list(settings),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "directory": str(Path.cwd()),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": seed,
        "git": {"recipe": _commit(Path.cwd()), "jtcore": _commit(Path(__file__).parent)},
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
        "plugins": [attrs.asdict(origin) for origin in plugins.origins.values()],
        "broken_plugins": [attrs.asdict(broken) for broken in plugins.broken],
    }


def speaker(quiet: bool) -> Callable[[str], None]:
    """How lines reach whoever watches; a live display on the same console stays below them."""
    from rich import get_console

    if quiet:
        return lambda line: None
    return lambda line: get_console().print(line, markup=False, highlight=False, soft_wrap=True)


def read_json(path: Path) -> Any | None:
    """None where there is no such file."""
    return json.loads(path.read_text()) if path.is_file() else None


def write_json(path: Path, value: Mapping[str, Any] | list) -> None:
    with write_atomically(path) as aside:
        aside.write_text(json.dumps(value, indent=2) + "\n")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit(folder: Path) -> str | None:
    """The checked-out commit, with `-dirty` where files differ from it."""
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        answer = subprocess.run(
            command, capture_output=True, text=True, check=True, env={**os.environ, "LC_ALL": "C"}
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return answer.stdout.strip()
