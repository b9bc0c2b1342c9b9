"""How a dataset of subjects and motions lies on disk, as a file tells it."""

import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path

from attrs import Attribute, field, frozen
from attrs.validators import ge, min_len, optional

from jtcore.errors import JtError
from jtcore.near import did_you_mean
from jtcore.plugins import BUILT_IN
from jtcore.structure import structure
from jtcore.tables import parse_toml

FOLDER = "layouts"  # among the shipped recipes
HIDDEN = (".", "_")  # what names of folders begin with that are none of the dataset's


def _is_pattern(instance: object, attribute: Attribute, pattern: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"expected a regular expression, got {pattern!r}: {error}") from error


@frozen
class Clips:
    """Clips of all motions, of one length

    folder: of folders named like the motions
    frames: that each clip has at least
    """

    folder: str
    frames: int = field(validator=ge(1))


@frozen
class Layout:
    """Where a dataset has what, and what is said of it

    subjects: the folder of folders that are named like the subjects
    clips: by name; each has all motions
    pairs: how many of a subject and a motion there are, where that is known
    subject_caption, motion_caption: of files without a .txt of their own, with {subject} or
        {motion} where its name stands
    prompts: of each pair, with {subject} and {action}
    action: a pattern; what it finds in a motion's name is its {action}, or all of it
    """

    subjects: str
    clips: Mapping[str, Clips] = field(validator=min_len(1))
    prompts: tuple[str, ...] = field(validator=min_len(1))
    subject_caption: str = "{subject}"
    motion_caption: str = "{motion}"
    action: str = field(default=".*", validator=_is_pattern)
    pairs: int | None = field(default=None, validator=optional(ge(1)))
    title: str = ""

    def subject_folders(self, root: Path) -> dict[str, Path]:
        """By name; none where there is no such folder."""
        return _folders(root / self.subjects)

    def motion_folders(self, root: Path) -> dict[str, dict[str, Path]]:
        """By motion, and by clips."""
        found: dict[str, dict[str, Path]] = {}
        for clips, table in self.clips.items():
            for name, folder in _folders(root / table.folder).items():
                found.setdefault(name, {})[clips] = folder
        return dict(sorted(found.items()))

    def action_of(self, words: str) -> str:
        """What is done, of a motion's name: "playing flute" of "person playing flute"."""
        found = re.search(self.action, words)
        return found.group() if found and found.group() else words


def find_layout(argument: str) -> Layout:
    """Of a file, or a shipped one by name. Raises JtError."""
    path, shipped = Path(argument), _shipped()
    if not path.is_file() and argument not in shipped:
        known = did_you_mean(argument, shipped)
        raise JtError(f"--layout {argument}: no such file, nor a shipped layout; {known}")
    path = path if path.is_file() else shipped[argument]
    try:
        return structure(Layout, parse_toml(path), None)
    except JtError as error:
        raise JtError(f"{path}: {problem}" for problem in error.problems) from error


def words_of(name: str) -> str:
    """A folder's name, to be read."""
    return " ".join(re.split(r"[_\s-]+", name)).strip()


def numbered(paths: Sequence[Path]) -> dict[int, Path]:
    """Files by the number that is their name, where they have one."""
    return {int(path.stem): path for path in paths if path.stem.isdecimal()}


def _folders(parent: Path) -> dict[str, Path]:
    if not parent.is_dir():
        return {}
    found = (path for path in sorted(parent.iterdir()) if path.is_dir())
    return {path.name: path for path in found if not path.name.startswith(HIDDEN)}


def _shipped() -> dict[str, Path]:
    folder = Path(str(files(f"{BUILT_IN}.recipes"))) / FOLDER
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}
